//! The packs that an index knows, numbered.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::error::Result;
use crate::id::ObjectName;
use crate::length::{index, to_u32, to_u64};

/// Packs by number and by name. The number of a removed pack is not used again.
#[derive(Debug, Default)]
pub(super) struct Packs {
    /// Name and size; size 0 where the pack was removed.
    packs: Vec<(ObjectName, u64)>,
    /// Positions in `packs`. Seeded hashing: an index segment may name any packs it likes.
    by_name: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Packs {
    /// The number of a pack.
    pub(super) fn number(&self, name: &ObjectName) -> Option<u32> {
        let is_it = |number: &u32| self.packs.get(index(*number)).is_some_and(|(known, _)| known == name);
        self.by_name.find(self.hasher.hash_one(name), is_it).copied()
    }

    /// Makes room for `more` packs: exactly, but always for an eighth of what is there, so that many
    /// small additions do not copy everything each time.
    pub(super) fn reserve(&mut self, more: usize) {
        if self.packs.capacity().saturating_sub(self.packs.len()) < more {
            self.packs.reserve_exact(more.max(self.packs.len() / 8));
        }
        let Self { packs, by_name, hasher } = self;
        by_name.reserve(more, |number| packs.get(index(*number)).map_or(0, |(name, _)| hasher.hash_one(name)));
    }

    /// Adds a pack that is not known yet; returns its number.
    pub(super) fn add(&mut self, name: ObjectName, size: u64) -> Result<u32> {
        let number = to_u32(self.packs.len(), "packs of the index")?;
        self.packs.push((name, size));
        let Self { packs, by_name, hasher } = self;
        let hash_of = |number: &u32| hasher.hash_one(packs.get(index(*number)).map_or(name, |(name, _)| *name));
        by_name.insert_unique(hasher.hash_one(name), number, hash_of);
        Ok(number)
    }

    /// Forgets a pack; returns its number.
    pub(super) fn remove(&mut self, name: &ObjectName) -> Option<u32> {
        let hash = self.hasher.hash_one(name);
        let packs = &mut self.packs;
        let is_it = |number: &u32| packs.get(index(*number)).is_some_and(|(known, _)| known == name);
        let (number, _) = self.by_name.find_entry(hash, is_it).ok()?.remove();
        if let Some((_, size)) = packs.get_mut(index(number)) {
            *size = 0;
        }
        Some(number)
    }

    /// Name of the pack with this number.
    pub(super) fn name(&self, number: u32) -> Option<ObjectName> {
        self.get(number).map(|(name, _)| name)
    }

    /// Name and size of the pack with this number.
    pub(super) fn get(&self, number: u32) -> Option<(ObjectName, u64)> {
        self.packs.get(index(number)).copied().filter(|(_, size)| *size != 0)
    }

    /// All packs, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ObjectName, u64)> {
        self.packs.iter().copied().filter(|(_, size)| *size != 0)
    }

    /// Bytes of memory.
    pub(super) fn memory(&self) -> u64 {
        let names = self.packs.capacity().saturating_mul(size_of::<(ObjectName, u64)>());
        // One control byte for each place of the hash table.
        let table = self.by_name.capacity().saturating_mul(size_of::<u32>().saturating_add(1));
        to_u64(names.saturating_add(table))
    }
}
