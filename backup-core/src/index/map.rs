//! The index in memory.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashbrown::{DefaultHashBuilder, HashMap, HashSet, HashTable};

use crate::error::Result;
use crate::id::{ChunkId, ObjectName};
use crate::index::packs::Packs;
use crate::index::table::{Record, ShortId, Table, Tables};
use crate::index::{Location, Segment};
use crate::length::{index, to_u64};
use crate::pack::{ChunkKind, PackEntry};

/// Shards of what was added since loading: threads that add seldom meet.
const SHARDS: usize = 16;
/// Records that a shard keeps in a hash table before it freezes them.
const PENDING: usize = 4096;
/// Numbers of packs that were added since loading start here.
const RECENT: u32 = 1 << 31;

/// Every known chunk and where it is.
///
/// What was loaded lies in frozen tables that any number of threads search without locks. What is
/// added later, through a shared reference, lies behind 16 locks. About 34 bytes a chunk and 46 a pack.
///
/// Chunks are told apart by the first 128 bits of their ids, see [`ShortId`].
pub(crate) struct Index {
    packs: Packs,
    loaded: Tables,
    recent_packs: RwLock<Packs>,
    recent: [RwLock<Shard>; SHARDS],
    hasher: DefaultHashBuilder,
}

#[derive(Default)]
struct Shard {
    pending: HashTable<Record>,
    frozen: Tables,
}

impl Index {
    /// An index that knows nothing.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self {
            packs: Packs::default(),
            loaded: Tables::default(),
            recent_packs: RwLock::default(),
            recent: std::array::from_fn(|_| RwLock::default()),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// Adds a segment. A segment lists its packs completely, so the chunks of packs that are known already are
    /// skipped. After the last one, [`settle`](Self::settle) makes them quick to find.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`](crate::Error::LimitExceeded) at 2^31 packs.
    pub(crate) fn load(&mut self, segment: &Segment<'_>) -> Result<()> {
        let recent = self.recent_packs.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut numbers = Vec::with_capacity(segment.packs().len());
        self.packs.reserve(segment.packs().len());
        for (name, size) in segment.packs() {
            let known = self.packs.number(&name).is_some() || recent.number(&name).is_some();
            numbers.push(if known { None } else { Some(checked_number(self.packs.add(name, size)?)?) });
        }
        self.loaded.load(records(segment, &numbers));
        Ok(())
    }

    /// Freezes what was loaded into tables.
    pub(crate) fn settle(&mut self) {
        self.loaded.settle();
    }

    #[cfg(test)]
    /// Adds a segment while the index is shared, for instance one that another writer has stored.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub(crate) fn insert_segment(&self, segment: &Segment<'_>) -> Result<()> {
        let mut numbers = Vec::with_capacity(segment.packs().len());
        let mut recent = write(&self.recent_packs);
        recent.reserve(segment.packs().len());
        for (name, size) in segment.packs() {
            let known = self.packs.number(&name).is_some() || recent.number(&name).is_some();
            numbers.push(if known { None } else { Some(RECENT | checked_number(recent.add(name, size)?)?) });
        }
        drop(recent);
        let mut records = records(segment, &numbers).into_iter().peekable();
        for (position, shard) in self.recent.iter().enumerate() {
            let mut part = Vec::new();
            while let Some(record) = records.next_if(|record| record.id.shard() == position) {
                part.push(record);
            }
            if !part.is_empty() {
                write(shard).frozen.push(Table::new(&part));
            }
        }
        Ok(())
    }

    /// Adds a pack that was just stored, `size` bytes there, and its chunks.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub(crate) fn insert_pack(&self, pack: ObjectName, size: u64, entries: &[PackEntry]) -> Result<()> {
        let number = {
            let mut recent = write(&self.recent_packs);
            if self.packs.number(&pack).is_some() || recent.number(&pack).is_some() {
                return Ok(());
            }
            RECENT | checked_number(recent.add(pack, size)?)?
        };
        for entry in entries {
            let record = Record::new(number, entry);
            if let Some(shard) = self.recent.get(record.id.shard()) {
                write(shard).insert(record, &self.hasher);
            }
        }
        Ok(())
    }

    /// Where a chunk is: one of its places.
    #[must_use]
    pub(crate) fn lookup(&self, id: &ChunkId) -> Option<Location> {
        let id = ShortId::of(id);
        // Copied before it is resolved: resolving may take another lock.
        let record = self.loaded.find(id).next().copied();
        let record =
            record.or_else(|| self.shard(id).and_then(|shard| shard.find(id, &self.hasher).next().copied()))?;
        self.location(&record)
    }

    /// Every place of a chunk, ascending.
    #[must_use]
    pub(crate) fn lookup_all(&self, id: &ChunkId) -> Vec<Location> {
        let id = ShortId::of(id);
        let mut found: Vec<Record> = self.loaded.find(id).copied().collect();
        if let Some(shard) = self.shard(id) {
            found.extend(shard.find(id, &self.hasher).copied());
        }
        let mut locations: Vec<Location> = found.iter().filter_map(|record| self.location(record)).collect();
        locations.sort_unstable();
        locations.dedup();
        locations
    }

    #[cfg(test)]
    /// Whether a chunk is known.
    #[must_use]
    pub(crate) fn contains(&self, id: &ChunkId) -> bool {
        let id = ShortId::of(id);
        self.loaded.find(id).next().is_some()
            || self.shard(id).is_some_and(|shard| shard.find(id, &self.hasher).next().is_some())
    }

    /// Number of places of chunks; a chunk in two packs counts twice.
    #[must_use]
    pub(crate) fn chunk_count(&self) -> u64 {
        let recent: usize = self.recent.iter().map(|shard| read(shard).len()).sum();
        to_u64(self.loaded.len().saturating_add(recent))
    }

    /// Bytes of memory.
    #[must_use]
    pub(crate) fn memory_bytes(&self) -> u64 {
        let recent: u64 = self.recent.iter().map(|shard| read(shard).memory()).sum();
        let packs = self.packs.memory().saturating_add(read(&self.recent_packs).memory());
        self.loaded.memory().saturating_add(recent).saturating_add(packs)
    }

    /// Bytes of all chunks of content before compression; a chunk in two packs counts twice.
    #[must_use]
    pub(crate) fn raw_bytes(&self) -> u64 {
        let sum = |total: u64, record: &Record| match record.kind() {
            ChunkKind::Data => total.saturating_add(u64::from(record.raw())),
            ChunkKind::Meta => total,
        };
        let loaded = self.loaded.records().fold(0, sum);
        self.recent.iter().fold(loaded, |total, shard| {
            let shard = read(shard);
            let total = shard.frozen.records().fold(total, sum);
            shard.pending.iter().fold(total, sum)
        })
    }

    /// Every known pack and its size on storage, in no particular order.
    #[must_use]
    pub(crate) fn packs(&self) -> Vec<(ObjectName, u64)> {
        self.packs.iter().chain(read(&self.recent_packs).iter()).collect()
    }

    /// How many places of chunks there are in each pack.
    #[must_use]
    pub(crate) fn places(&self) -> HashMap<ObjectName, u64> {
        let mut numbers: HashMap<u32, u64> = HashMap::new();
        self.for_each_record(&mut |record| {
            let places = numbers.entry(record.pack).or_default();
            *places = places.saturating_add(1);
        });
        numbers.into_iter().filter_map(|(number, places)| Some((self.pack_name(number)?, places))).collect()
    }

    /// Places in the tables of what was loaded.
    pub(super) fn table_places(&self) -> usize {
        self.loaded.len()
    }

    /// The number of one place of a chunk, below [`table_places`](Self::table_places); always the same.
    pub(super) fn table_place(&self, id: ShortId) -> Option<usize> {
        self.loaded.position(id)
    }

    /// Name of the pack with this number.
    pub(super) fn pack_name(&self, number: u32) -> Option<ObjectName> {
        match number < RECENT {
            true => self.packs.name(number),
            false => read(&self.recent_packs).name(number & !RECENT),
        }
    }

    /// Visits every place of a chunk, in no particular order.
    pub(super) fn for_each_record(&self, visit: &mut dyn FnMut(&Record)) {
        self.loaded.records().for_each(&mut *visit);
        for shard in &self.recent {
            let shard = read(shard);
            shard.frozen.records().for_each(&mut *visit);
            shard.pending.iter().for_each(&mut *visit);
        }
    }

    /// For every chunk of this index and every place that it has in `other`: the pack in `other`, and the pack here.
    pub(crate) fn for_each_shared(&self, other: &Self, visit: &mut dyn FnMut(ObjectName, ObjectName)) {
        self.for_each_record(&mut |record| {
            let Some(here) = self.pack_name(record.pack) else { return };
            let mut there: Vec<u32> = other.loaded.find(record.id).map(|found| found.pack).collect();
            if let Some(shard) = other.shard(record.id) {
                there.extend(shard.find(record.id, &other.hasher).map(|found| found.pack));
            }
            there.into_iter().filter_map(|number| other.pack_name(number)).for_each(|there| visit(there, here));
        });
    }

    /// Size of a pack on storage, if the pack is known.
    #[must_use]
    pub(crate) fn pack_size(&self, pack: &ObjectName) -> Option<u64> {
        let size = |packs: &Packs| packs.number(pack).and_then(|number| packs.get(number)).map(|(_, size)| size);
        size(&self.packs).or_else(|| size(&read(&self.recent_packs)))
    }

    /// Forgets these packs and their chunks.
    pub(crate) fn remove_packs(&mut self, condemned: &BTreeSet<ObjectName>) {
        let recent_packs = self.recent_packs.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut numbers = HashSet::new();
        for name in condemned {
            numbers.extend(self.packs.remove(name));
            numbers.extend(recent_packs.remove(name).map(|number| RECENT | number));
        }
        if numbers.is_empty() {
            return;
        }
        let keep = |record: &Record| !numbers.contains(&record.pack);
        self.loaded.retain(keep);
        for shard in &mut self.recent {
            let shard = shard.get_mut().unwrap_or_else(PoisonError::into_inner);
            shard.frozen.retain(keep);
            shard.pending.retain(|record| keep(record));
        }
    }

    fn shard(&self, id: ShortId) -> Option<RwLockReadGuard<'_, Shard>> {
        self.recent.get(id.shard()).map(read)
    }

    fn location(&self, record: &Record) -> Option<Location> {
        Some(Location {
            pack: self.pack_name(record.pack)?,
            offset: record.offset(),
            stored: record.stored(),
            raw: record.raw(),
            codec: record.codec(),
            kind: record.kind(),
        })
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Index({} chunks)", self.chunk_count())
    }
}

impl Shard {
    fn insert(&mut self, record: Record, hasher: &DefaultHashBuilder) {
        let hash = hasher.hash_one(record.id);
        if self.pending.find(hash, |known| *known == record).is_some() {
            return;
        }
        if self.pending.len() >= PENDING {
            let pending: Vec<Record> = self.pending.drain().collect();
            self.frozen.push(Table::new(&pending));
        }
        self.pending.insert_unique(hash, record, |record| hasher.hash_one(record.id));
    }

    fn find(&self, id: ShortId, hasher: &DefaultHashBuilder) -> impl Iterator<Item = &Record> {
        let pending = self.pending.iter_hash(hasher.hash_one(id)).filter(move |record| record.id == id);
        pending.chain(self.frozen.find(id))
    }

    fn len(&self) -> usize {
        self.pending.len().saturating_add(self.frozen.len())
    }

    fn memory(&self) -> u64 {
        let pending = self.pending.capacity().saturating_mul(size_of::<Record>().saturating_add(1));
        to_u64(pending).saturating_add(self.frozen.memory())
    }
}

/// The entries of a segment whose packs have a number.
fn records(segment: &Segment<'_>, numbers: &[Option<u32>]) -> Vec<Record> {
    let mut out = Vec::with_capacity(if numbers.iter().all(Option::is_none) { 0 } else { segment.entries().len() });
    out.extend(segment.entries().filter_map(|entry| {
        let number = numbers.get(index(entry.pack)).copied().flatten()?;
        Some(Record::new(number, &entry.entry))
    }));
    out
}

fn checked_number(number: u32) -> Result<u32> {
    if number < RECENT {
        Ok(number)
    } else {
        Err(crate::Error::limit("packs of the index", u64::from(number), u64::from(RECENT)))
    }
}

/// A thread that panicked while it held a lock left every record whole: each is written at once.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::compress::Codec;
    use crate::index::SegmentBuilder;
    use crate::pack::ChunkKind;

    pub(in crate::index) fn chunk(number: u64) -> ChunkId {
        ChunkId::new(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    pub(in crate::index) fn pack(number: u64) -> ObjectName {
        ObjectName::new(*blake3::hash(&[number.to_le_bytes(), [1; 8]].concat()).as_bytes())
    }

    fn entry(number: u64, offset: u32) -> PackEntry {
        PackEntry { id: chunk(number), offset, stored: 5, raw: 9, codec: Codec::Zstd, kind: ChunkKind::Meta }
    }

    fn location(pack_number: u64, offset: u32) -> Location {
        Location { pack: pack(pack_number), offset, stored: 5, raw: 9, codec: Codec::Zstd, kind: ChunkKind::Meta }
    }

    fn segment(packs: &[(u64, Vec<PackEntry>)]) -> Vec<u8> {
        let mut segment = SegmentBuilder::new();
        for (number, entries) in packs {
            segment.push(pack(*number), 1 << 20, entries).unwrap();
        }
        segment.finish().unwrap()
    }

    #[derive(Clone, Debug)]
    enum Step {
        Load(Vec<(u64, Vec<u64>)>),
        InsertSegment(Vec<(u64, Vec<u64>)>),
        InsertPack(u64, Vec<u64>),
        Remove(Vec<u64>),
    }

    fn step() -> impl Strategy<Value = Step> {
        let one = || (0u64..30, prop::collection::vec(0u64..200, 0..20));
        let some = || prop::collection::btree_map(0u64..30, prop::collection::vec(0u64..200, 0..20), 0..4);
        prop_oneof![
            some().prop_map(|packs| Step::Load(packs.into_iter().collect())),
            some().prop_map(|packs| Step::InsertSegment(packs.into_iter().collect())),
            one().prop_map(|(pack, chunks)| Step::InsertPack(pack, chunks)),
            prop::collection::vec(0u64..30, 0..4).prop_map(Step::Remove),
        ]
    }

    fn entries(chunks: &[u64]) -> Vec<PackEntry> {
        (100u32..).step_by(5).zip(chunks).map(|(offset, number)| entry(*number, offset)).collect()
    }

    proptest! {
        #[test]
        fn is_a_map_from_packs_to_chunks(steps in prop::collection::vec(step(), 0..25)) {
            let mut index = Index::new();
            let mut model: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Load(packs) | Step::InsertSegment(packs) if packs.is_empty() => {}
                    Step::Load(packs) => {
                        let bytes = segment(&packs.iter().map(|(pack, chunks)| (*pack, entries(chunks))).collect::<Vec<_>>());
                        index.load(&Segment::parse(&bytes, &"s").unwrap()).unwrap();
                        packs.into_iter().for_each(|(pack, chunks)| { model.entry(pack).or_insert(chunks); });
                    }
                    Step::InsertSegment(packs) => {
                        let bytes = segment(&packs.iter().map(|(pack, chunks)| (*pack, entries(chunks))).collect::<Vec<_>>());
                        index.insert_segment(&Segment::parse(&bytes, &"s").unwrap()).unwrap();
                        packs.into_iter().for_each(|(pack, chunks)| { model.entry(pack).or_insert(chunks); });
                    }
                    Step::InsertPack(number, chunks) => {
                        index.insert_pack(pack(number), 1 << 20, &entries(&chunks)).unwrap();
                        model.entry(number).or_insert(chunks);
                    }
                    Step::Remove(packs) => {
                        index.remove_packs(&packs.iter().map(|number| pack(*number)).collect());
                        packs.iter().for_each(|number| { model.remove(number); });
                    }
                }
            }
            let mut packs = index.packs();
            packs.sort_unstable();
            let mut expected: Vec<_> = model.keys().map(|number| (pack(*number), 1 << 20)).collect();
            expected.sort_unstable();
            prop_assert_eq!(packs, expected);
            let mut count = 0;
            for number in 0..201 {
                let mut expected = Vec::new();
                for (pack, chunks) in &model {
                    for (offset, chunk) in (100u32..).step_by(5).zip(chunks) {
                        if *chunk == number {
                            expected.push(location(*pack, offset));
                        }
                    }
                }
                expected.sort_unstable();
                count += expected.len();
                let id = chunk(number);
                prop_assert_eq!(index.contains(&id), !expected.is_empty());
                prop_assert_eq!(index.lookup(&id).is_some(), !expected.is_empty());
                prop_assert!(index.lookup(&id).is_none_or(|location| expected.contains(&location)));
                prop_assert_eq!(index.lookup_all(&id), expected);
            }
            prop_assert_eq!(index.chunk_count(), to_u64(count));
        }
    }

    #[test]
    fn threads_add_and_look_up_at_once() {
        let index = Index::new();
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let index = &index;
                scope.spawn(move || {
                    for round in 0..200 {
                        let first = (thread * 200 + round) * 100;
                        let entries: Vec<PackEntry> = (first..first + 100).map(|number| entry(number, 100)).collect();
                        index.insert_pack(pack(thread * 200 + round), 1 << 20, &entries).unwrap();
                        assert!((first..first + 100).all(|number| index.contains(&chunk(number))));
                    }
                });
            }
        });
        assert_eq!(index.chunk_count(), 80_000);
        assert!((0..80_000).all(|number| index.lookup(&chunk(number)) == Some(location(number / 100, 100))));
        assert!((80_000..90_000).all(|number| !index.contains(&chunk(number))));
    }

    #[test]
    fn memory_stays_below_40_bytes_a_chunk() {
        // 16 chunks a pack: the fewest at the default sizes.
        let packs: Vec<(u64, Vec<PackEntry>)> =
            (0..20_000).map(|number| (number, (0..16).map(|at| entry(number * 16 + at, 100)).collect())).collect();
        let mut loaded = Index::new();
        let shared = Index::new();
        for part in packs.chunks(5000) {
            let bytes = segment(part);
            loaded.load(&Segment::parse(&bytes, &"s").unwrap()).unwrap();
            shared.insert_segment(&Segment::parse(&bytes, &"s").unwrap()).unwrap();
        }
        for index in [loaded, shared] {
            let each = index.memory_bytes() as f64 / index.chunk_count() as f64;
            assert!(each <= 40.0, "{each}");
        }
    }

    /// Whatever a hostile segment does to the distribution of ids, nothing is lost.
    #[test]
    fn ids_with_equal_beginnings() {
        let id = |low: u32| {
            let mut bytes = [7; 32];
            bytes[28..].copy_from_slice(&low.to_be_bytes());
            ChunkId::new(bytes)
        };
        let entries: Vec<PackEntry> =
            (0..5000).map(|low| PackEntry { id: id(low), ..entry(0, 100 + 5 * (5000 - low)) }).collect();
        let bytes = segment(&[(0, entries)]);
        let mut index = Index::new();
        index.load(&Segment::parse(&bytes, &"s").unwrap()).unwrap();
        assert_eq!(index.lookup_all(&id(3)).len(), 5000);
    }
}
