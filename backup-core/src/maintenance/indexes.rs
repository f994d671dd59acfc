//! The index set of a final: what names the packs that stay.
//!
//! Segments that live commits name stay as long as these. Without the password nobody can look into the others, so all of
//! them stay, too. With it, those that name packs which go, and small ones, are written anew.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashSet;

use crate::error::{Error, Result};
use crate::format::layout::Place;
use crate::id::{ObjectName, SessionId};
use crate::index::{Segment, SegmentBuilder};
use crate::limits;
use crate::maintenance::site::Site;
use crate::maintenance::survey::Needs;
use crate::object::{ObjectType, verify_name};
use crate::pack::PackEntry;
use crate::progress::Event;
use crate::repository::{Inner, read_directory};
use crate::storage::{PutMode, StorageError};

/// Entries of a segment that is written; one with half of them stays as it is.
const ENTRIES: usize = 1 << 16;

/// An index set that is to be made smaller.
pub(super) struct Before<'b> {
    /// The index segments of live commits, which stay.
    pub(super) pinned: &'b BTreeSet<ObjectName>,
    /// The others.
    pub(super) carried: &'b BTreeSet<ObjectName>,
    /// The index set: what it names need not be looked for elsewhere.
    pub(super) set: &'b BTreeSet<ObjectName>,
    /// What the final condemns.
    pub(super) gone: &'b HashSet<ObjectName>,
    /// Packs that are there.
    pub(super) listed: &'b BTreeMap<ObjectName, u64>,
    pub(super) needs: &'b Needs,
}

/// Writes segments that name what the carried ones name, is there, and is not gone, and the packs that backups need and no
/// segment names. Returns what stands in for the carried ones.
///
/// # Errors
///
/// [`Error::Storage`]. What a damaged segment named is read from the directories of packs that are needed.
pub(super) fn shrink(site: &Site<'_>, inner: &Inner, before: &Before<'_>) -> Result<BTreeSet<ObjectName>> {
    let Before { pinned, carried, set, gone, listed, needs } = before;
    let mut random = [0; 16];
    site.environment.entropy.fill(&mut random)?;
    let stays = |name: &ObjectName, size: u64| !gone.contains(name) && listed.get(name) == Some(&size);
    let mut rewrite = Rewrite {
        site,
        inner,
        session: SessionId::new(random),
        named: HashSet::new(),
        builder: SegmentBuilder::new(),
        entries: 0,
        written: BTreeSet::new(),
    };
    for name in *pinned {
        let Some(body) = rewrite.load(name)? else { continue };
        if let Some(segment) = rewrite.usable(name, Segment::parse(&body, &Place::Index(*name).key()))? {
            // One that has another size for a pack is of no use for that pack.
            rewrite.named.extend(segment.packs().filter(|(pack, size)| stays(pack, *size)).map(|(pack, _)| pack));
        }
    }
    // Segments that could stay, but are small; and those that name a pack which goes, or which another names.
    let (mut small, mut mixed) = (Vec::new(), Vec::new());
    // Packs that these will name in what is written.
    let mut pending: HashSet<ObjectName> = HashSet::new();
    let (of_set, others): (Vec<_>, Vec<_>) = carried.iter().partition(|name| set.contains(*name));
    for name in of_set.into_iter().chain(others) {
        let Some(body) = rewrite.load(name)? else { continue };
        let Some(segment) = rewrite.usable(name, Segment::parse(&body, &Place::Index(*name).key()))? else {
            continue;
        };
        let staying = || segment.packs().filter(|(pack, size)| stays(pack, *size)).map(|(pack, _)| pack);
        if staying().all(|pack| rewrite.named.contains(&pack) || pending.contains(&pack)) {
            // Nothing is known by this one alone.
        } else if !segment.packs().all(|(pack, size)| stays(&pack, size) && !rewrite.named.contains(&pack)) {
            pending.extend(staying());
            mixed.push(*name);
        } else if segment.entries().len() < ENTRIES / 2 {
            pending.extend(staying());
            small.push(*name);
        } else {
            rewrite.named.extend(segment.packs().map(|(pack, _)| pack));
            rewrite.written.insert(*name);
        }
    }
    // A single one is not copied for its own sake.
    if let ([name], true) = (small.as_slice(), mixed.is_empty()) {
        rewrite.keep(name)?;
        small.clear();
    }
    for name in small.iter().chain(&mixed) {
        rewrite.copy(name, &stays)?;
    }
    for (pack, size) in needs.iter() {
        if !rewrite.named.contains(pack) && listed.get(pack) == Some(size) {
            match read_directory(inner, pack, *size, site.control) {
                Ok(directory) => rewrite.push(*pack, *size, &directory.into_entries())?,
                Err(error) if error.is_of_one_object() => rewrite.problem(&Place::Pack(*pack), &error),
                Err(error) => return Err(error),
            }
        }
    }
    rewrite.flush()?;
    Ok(rewrite.written)
}

struct Rewrite<'r> {
    site: &'r Site<'r>,
    inner: &'r Inner,
    session: SessionId,
    /// Packs that a segment of the new set names.
    named: HashSet<ObjectName>,
    builder: SegmentBuilder,
    entries: usize,
    written: BTreeSet<ObjectName>,
}

impl Rewrite<'_> {
    /// The body of a segment; `None` where it cannot be used.
    fn load(&self, name: &ObjectName) -> Result<Option<Vec<u8>>> {
        self.site.control.cancel().check()?;
        let key = Place::Index(*name).key();
        let loaded = self.inner.get(&key, limits::INDEX, self.site.control).and_then(|bytes| {
            verify_name("index", key.as_str(), name, &bytes)?;
            self.inner.keys.open(ObjectType::Index, key.as_str(), &bytes)
        });
        self.usable(name, loaded)
    }

    fn usable<T>(&self, name: &ObjectName, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_of_one_object() => {
                self.problem(&Place::Index(*name), &error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn problem(&self, place: &Place, error: &Error) {
        self.site.control.event(&Event::Problem { name: place.key().as_str(), message: &error.to_string() });
    }

    /// A segment stays as it is.
    fn keep(&mut self, name: &ObjectName) -> Result<()> {
        let Some(body) = self.load(name)? else { return Ok(()) };
        let Some(segment) = self.usable(name, Segment::parse(&body, &Place::Index(*name).key()))? else {
            return Ok(());
        };
        self.named.extend(segment.packs().map(|(pack, _)| pack));
        self.written.insert(*name);
        Ok(())
    }

    /// Copies what a segment says of the packs that stay and that the new set does not name yet.
    fn copy(&mut self, name: &ObjectName, stays: &dyn Fn(&ObjectName, u64) -> bool) -> Result<()> {
        let Some(body) = self.load(name)? else { return Ok(()) };
        let Some(segment) = self.usable(name, Segment::parse(&body, &Place::Index(*name).key()))? else {
            return Ok(());
        };
        let mut packs: Vec<(ObjectName, u64, Vec<PackEntry>)> =
            segment.packs().map(|(pack, size)| (pack, size, Vec::new())).collect();
        for entry in segment.entries() {
            if let Some((_, _, entries)) = packs.get_mut(crate::length::index(entry.pack)) {
                entries.push(entry.entry);
            }
        }
        for (pack, size, entries) in packs {
            if stays(&pack, size) && !self.named.contains(&pack) {
                self.push(pack, size, &entries)?;
            }
        }
        Ok(())
    }

    fn push(&mut self, pack: ObjectName, size: u64, entries: &[PackEntry]) -> Result<()> {
        self.named.insert(pack);
        self.builder.push(pack, size, entries)?;
        self.entries = self.entries.saturating_add(entries.len());
        if self.entries >= ENTRIES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        if self.builder.is_empty() {
            return Ok(());
        }
        let body = std::mem::take(&mut self.builder).finish()?;
        self.entries = 0;
        let padding = self.inner.config.padding;
        let sealed = self.inner.keys.seal(ObjectType::Index, &self.session, &[&body], padding)?;
        let key = Place::Index(sealed.name).key();
        match self.site.storage.put(&key, sealed.bytes.clone(), PutMode::Create) {
            Ok(()) => {}
            // The answer to an earlier try of the same put may have been lost.
            Err(StorageError::AlreadyExists)
                if self.site.storage.get(&key, limits::INDEX).is_ok_and(|found| found == sealed.bytes) => {}
            Err(error) => return Err(Error::storage("put", &key, error)),
        }
        self.written.insert(sealed.name);
        Ok(())
    }
}
