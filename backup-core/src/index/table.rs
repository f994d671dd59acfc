//! Frozen tables: sorted, compact, searched without locks.

use crate::compress::Codec;
use crate::id::ChunkId;
use crate::index::filter::Filter;
use crate::length::{index, to_u64};
use crate::pack::{ChunkKind, PackEntry};

/// A bucket of the radix index has about this many records.
const RECORDS_PER_BUCKET: usize = 8;

/// The first 16 bytes of a chunk id. Ids are keyed hashes, so 128 bits tell chunks apart; the whole
/// id is compared with the content when a chunk is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ShortId {
    high: u64,
    low: u64,
}

impl ShortId {
    pub(super) fn of(id: &ChunkId) -> Self {
        let (halves, _) = id.as_bytes().as_chunks::<8>();
        let half = |position: usize| halves.get(position).map_or(0, |bytes| u64::from_be_bytes(*bytes));
        Self { high: half(0), low: half(1) }
    }

    /// The first four bits.
    pub(super) fn shard(self) -> usize {
        usize::try_from(self.high >> 60).unwrap_or(0)
    }
}

/// A chunk and where it is, in 32 bytes. Ordered by id, then pack, then offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Record {
    pub(super) id: ShortId,
    /// Number of the pack in the index.
    pub(super) pack: u32,
    offset: u32,
    /// stored - 1 (24 bits), raw - 1 (24 bits), codec (8 bits), kind (8 bits).
    rest: u64,
}

impl Record {
    const NOTHING: Self = Self { id: ShortId { high: 0, low: 0 }, pack: 0, offset: 0, rest: 0 };

    /// Lengths must be within 1 to 2^24, as every parser makes sure.
    pub(super) fn new(pack: u32, entry: &PackEntry) -> Self {
        let length = |value: u32| u64::from(value.saturating_sub(1) & 0x00ff_ffff);
        let rest = (length(entry.stored) << 40)
            | (length(entry.raw) << 16)
            | (u64::from(entry.codec.number()) << 8)
            | u64::from(entry.kind.number());
        Self { id: ShortId::of(&entry.id), pack, offset: entry.offset, rest }
    }

    pub(super) fn offset(&self) -> u32 {
        self.offset
    }

    pub(super) fn stored(&self) -> u32 {
        u32::try_from(self.rest >> 40).unwrap_or(0).saturating_add(1)
    }

    pub(super) fn raw(&self) -> u32 {
        u32::try_from((self.rest >> 16) & 0x00ff_ffff).unwrap_or(0).saturating_add(1)
    }

    pub(super) fn codec(&self) -> Codec {
        if (self.rest >> 8) & 0xff == 0 { Codec::Raw } else { Codec::Zstd }
    }

    pub(super) fn kind(&self) -> ChunkKind {
        if self.rest & 0xff == 0 { ChunkKind::Data } else { ChunkKind::Meta }
    }
}

/// Records in ascending order, with a filter and a radix index over the first bits of the id.
#[derive(Debug, Default)]
pub(super) struct Table {
    records: Box<[Record]>,
    filter: Filter,
    /// Where the records of each bucket end; those of the next start there.
    ends: Box<[u32]>,
    /// How far `id.high` is shifted to give the bucket.
    shift: u32,
}

impl Table {
    /// The most records in one table: 16 MiB, so that making one never needs more than that again, and what the allocator
    /// keeps of it is little.
    pub(super) const MOST: usize = 1 << 19;

    /// From records in any order; equal ones are kept once. At most `u32::MAX` records.
    pub(super) fn new(records: &[Record]) -> Self {
        Self::of_parts(&[records])
    }

    /// The records of several tables, or of lists in any order, in one table.
    ///
    /// Ids are evenly spread, so the radix index that a search needs anyway sorts: records go straight to their
    /// buckets, and about [`RECORDS_PER_BUCKET`] are left to be ordered within each.
    pub(super) fn of_parts(parts: &[&[Record]]) -> Self {
        let count = parts.iter().fold(0usize, |sum, part| sum.saturating_add(part.len()));
        let bits = (count / RECORDS_PER_BUCKET).checked_ilog2().unwrap_or(0).min(31);
        let shift = 64u32.saturating_sub(bits);
        let all = || parts.iter().flat_map(|part| part.iter());
        // First how many there are in each bucket, then where it starts, at last, as they are filled, where it ends.
        let mut ends = vec![0u32; 1usize.checked_shl(bits).unwrap_or(1)].into_boxed_slice();
        for record in all() {
            if let Some(count) = ends.get_mut(bucket(record.id, shift)) {
                *count = count.saturating_add(1);
            }
        }
        let mut start = 0u32;
        for end in &mut ends {
            let count = *end;
            *end = start;
            start = start.saturating_add(count);
        }
        let mut filter = Filter::new(count);
        let mut records = vec![Record::NOTHING; count];
        for record in all() {
            filter.insert(record.id.low);
            let Some(end) = ends.get_mut(bucket(record.id, shift)) else { continue };
            if let Some(place) = records.get_mut(index(*end)) {
                *place = *record;
            }
            *end = end.saturating_add(1);
        }
        let mut start = 0;
        for end in &ends {
            let end = index(*end);
            records.get_mut(start..end).unwrap_or_default().sort_unstable();
            start = end;
        }
        if !records.is_sorted_by(|one, two| one < two) {
            records.dedup();
            // Rare, and fewer: once more, now that no two are alike.
            return Self::of_parts(&[&records]);
        }
        Self { records: records.into_boxed_slice(), filter, ends, shift }
    }

    /// All records with this id, in order; often none, mostly one.
    pub(super) fn find(&self, id: ShortId) -> &[Record] {
        if !self.filter.may_contain(id.low) {
            return &[];
        }
        let bucket = bucket(id, self.shift);
        let end = |bucket: usize| self.ends.get(bucket).copied().map_or(0, index);
        let start = bucket.checked_sub(1).map_or(0, end);
        find(self.records.get(start..end(bucket)).unwrap_or_default(), id)
    }

    /// Where the first record with this id stands among all.
    fn position(&self, id: ShortId) -> Option<usize> {
        let first = self.find(id).first()?;
        // Records are unique and in order.
        self.records.binary_search(first).ok()
    }

    pub(super) fn records(&self) -> &[Record] {
        &self.records
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Bytes of memory.
    pub(super) fn memory(&self) -> u64 {
        let records = size_of_val(&*self.records);
        to_u64(records.saturating_add(self.filter.memory()).saturating_add(size_of_val(&*self.ends)))
    }
}

/// The records with this id among records in ascending order.
fn find(records: &[Record], id: ShortId) -> &[Record] {
    let start = records.partition_point(|record| record.id < id);
    let found = records.get(start..).unwrap_or_default();
    let end = found.partition_point(|record| record.id == id);
    found.get(..end).unwrap_or_default()
}

fn bucket(id: ShortId, shift: u32) -> usize {
    // A shift by 64 means one bucket.
    usize::try_from(id.high.checked_shr(shift).unwrap_or(0)).unwrap_or(usize::MAX)
}

/// Tables that are merged as they grow, so that there are few and each record is copied seldom.
#[derive(Debug, Default)]
pub(super) struct Tables {
    tables: Vec<Table>,
    /// Records that are not in a table yet, in lists that are in ascending order.
    loose: Vec<Vec<Record>>,
    loose_count: usize,
}

impl Tables {
    /// Adds a table.
    pub(super) fn push(&mut self, mut table: Table) {
        if table.len() == 0 {
            return;
        }
        while let Some(last) = self.tables.last() {
            let small = last.len() <= table.len().saturating_mul(2);
            if !small || last.len().saturating_add(table.len()) > Table::MOST {
                break;
            }
            table = Table::of_parts(&[&last.records, &table.records]);
            self.tables.pop();
        }
        self.tables.push(table);
    }

    /// Adds records, which are put into tables when there are many or at [`settle`](Self::settle). Until then they are
    /// found, but slowly.
    pub(super) fn load(&mut self, mut records: Vec<Record>) {
        // A segment is ordered by whole ids, which is the same unless two begin with the same 128 bits.
        if !records.is_sorted() {
            records.sort_unstable();
        }
        if self.loose_count.saturating_add(records.len()) > Table::MOST {
            self.settle();
        }
        self.loose_count = self.loose_count.saturating_add(records.len());
        self.loose.push(records);
    }

    /// Puts everything into tables.
    pub(super) fn settle(&mut self) {
        let loose = std::mem::take(&mut self.loose);
        self.loose_count = 0;
        self.push(Table::of_parts(&loose.iter().map(Vec::as_slice).collect::<Vec<_>>()));
    }

    /// All records with this id, in no particular order.
    pub(super) fn find(&self, id: ShortId) -> impl Iterator<Item = &Record> {
        let loose = self.loose.iter().flat_map(move |records| find(records, id));
        self.tables.iter().rev().flat_map(move |table| table.find(id)).chain(loose)
    }

    /// The number of one record with this id, always the same one, counted over all tables. What is loose has none.
    pub(super) fn position(&self, id: ShortId) -> Option<usize> {
        let mut before = 0usize;
        for table in &self.tables {
            if let Some(position) = table.position(id) {
                return Some(before.saturating_add(position));
            }
            before = before.saturating_add(table.len());
        }
        None
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.tables.iter().flat_map(Table::records).chain(self.loose.iter().flatten())
    }

    pub(super) fn len(&self) -> usize {
        self.tables.iter().map(Table::len).fold(self.loose_count, usize::saturating_add)
    }

    pub(super) fn memory(&self) -> u64 {
        let loose = self.loose_count.saturating_mul(size_of::<Record>());
        self.tables.iter().map(Table::memory).fold(to_u64(loose), u64::saturating_add)
    }

    /// Keeps the records that `keep` names.
    pub(super) fn retain(&mut self, keep: impl Fn(&Record) -> bool) {
        self.settle();
        for table in std::mem::take(&mut self.tables) {
            if table.records().iter().all(&keep) {
                self.tables.push(table);
            } else {
                let kept: Vec<Record> = table.records.into_iter().filter(&keep).collect();
                if !kept.is_empty() {
                    self.tables.push(Table::new(&kept));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(id: (u64, u64), pack: u32, offset: u32) -> Record {
        Record { id: ShortId { high: id.0, low: id.1 }, pack, offset, rest: 0 }
    }

    #[test]
    fn records_are_32_bytes() {
        assert_eq!(size_of::<Record>(), 32);
    }

    #[test]
    fn fields_survive() {
        for (stored, raw, codec, kind) in [
            (1, 1, Codec::Raw, ChunkKind::Data),
            (1 << 24, 1 << 24, Codec::Raw, ChunkKind::Meta),
            (77, 1 << 24, Codec::Zstd, ChunkKind::Data),
        ] {
            let entry = PackEntry { id: ChunkId::new([7; 32]), offset: u32::MAX, stored, raw, codec, kind };
            let record = Record::new(u32::MAX, &entry);
            assert_eq!((record.pack, record.offset()), (u32::MAX, u32::MAX));
            assert_eq!((record.stored(), record.raw(), record.codec(), record.kind()), (stored, raw, codec, kind));
        }
    }

    #[test]
    fn few_tables_however_they_come() {
        let mut tables = Tables::default();
        for round in 0..1000u64 {
            tables.push(Table::new(&(0..10).map(|at| record((at << 60, round), 0, 0)).collect::<Vec<_>>()));
        }
        assert_eq!(tables.len(), 10_000);
        assert!(tables.tables.len() <= 14, "{}", tables.tables.len());
    }

    proptest! {
        /// Ids from a small set, so that buckets are uneven and duplicates frequent.
        #[test]
        fn finds_exactly_what_is_there(
            parts in prop::collection::vec(
                (any::<bool>(), prop::collection::vec((0u64..40, 0u64..3, 0u32..3, 0u32..3), 0..100)), 0..8),
            settled: bool,
        ) {
            let spread = |high: u64| high.wrapping_mul(0x0666_6666_6666_6667);
            let mut tables = Tables::default();
            let mut model = std::collections::BTreeSet::new();
            for (way, part) in parts {
                let records: Vec<Record> =
                    part.iter().map(|(high, low, pack, offset)| record((spread(*high), *low), *pack, *offset)).collect();
                model.extend(records.iter().copied());
                if way {
                    tables.push(Table::new(&records));
                } else {
                    tables.load(records);
                }
            }
            if settled {
                tables.settle();
            }
            for high in 0..41 {
                for low in 0..4 {
                    let id = ShortId { high: spread(high), low };
                    let found: std::collections::BTreeSet<Record> = tables.find(id).copied().collect();
                    let expected = model.iter().filter(|record| record.id == id).copied().collect();
                    prop_assert_eq!(found, expected);
                }
            }
            tables.retain(|record| record.pack != 1);
            let left: std::collections::BTreeSet<Record> = tables.records().copied().collect();
            prop_assert_eq!(left, model.into_iter().filter(|record| record.pack != 1).collect());
        }
    }
}
