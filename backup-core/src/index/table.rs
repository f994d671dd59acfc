//! Frozen tables: sorted, compact, searched without locks.

use std::cmp::Ordering;

use crate::compress::Codec;
use crate::id::ChunkId;
use crate::index::filter::Filter;
use crate::length::to_u64;
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
    /// Where the records of each bucket start; one more than there are buckets.
    starts: Box<[u32]>,
    /// How far `id.high` is shifted to give the bucket.
    shift: u32,
}

impl Table {
    /// The most records in one table: 64 MiB, so that merging two never needs more than that again.
    pub(super) const MOST: usize = 1 << 21;

    /// From records in any order.
    pub(super) fn from_unsorted(mut records: Vec<Record>) -> Self {
        records.sort_unstable();
        Self::from_sorted(records)
    }

    /// From records in ascending order; equal ones are kept once. At most `u32::MAX` records.
    pub(super) fn from_sorted(mut records: Vec<Record>) -> Self {
        // A segment is ordered by whole ids, which is the same unless two begin with the same 128 bits.
        if !records.is_sorted_by(|one, two| one < two) {
            records.sort_unstable();
            records.dedup();
        }
        let mut filter = Filter::new(records.len());
        let bits = (records.len() / RECORDS_PER_BUCKET).checked_ilog2().unwrap_or(0).min(31);
        let shift = 64u32.saturating_sub(bits);
        let mut starts = Vec::with_capacity(1usize.checked_shl(bits).unwrap_or(1).saturating_add(1));
        let mut position = 0u32;
        for record in &records {
            filter.insert(record.id.low);
            let bucket = bucket(record.id, shift);
            while starts.len() <= bucket {
                starts.push(position);
            }
            position = position.saturating_add(1);
        }
        while starts.len() <= 1usize.checked_shl(bits).unwrap_or(1) {
            starts.push(position);
        }
        Self { records: records.into_boxed_slice(), filter, starts: starts.into_boxed_slice(), shift }
    }

    /// The records of two tables in one.
    pub(super) fn merge(left: &Self, right: &Self) -> Self {
        let mut records = Vec::with_capacity(left.len().saturating_add(right.len()));
        let (mut left, mut right) = (left.records.iter().peekable(), right.records.iter().peekable());
        while let (Some(one), Some(two)) = (left.peek(), right.peek()) {
            let next = if one.cmp(two) == Ordering::Greater { right.next() } else { left.next() };
            records.extend(next.copied());
        }
        records.extend(left.chain(right).copied());
        Self::from_sorted(records)
    }

    /// All records with this id, in order; often none, mostly one.
    pub(super) fn find(&self, id: ShortId) -> &[Record] {
        if !self.filter.may_contain(id.low) {
            return &[];
        }
        let bucket = bucket(id, self.shift);
        let edge = |position: usize| self.starts.get(position).copied().map_or(0, crate::length::index);
        let candidates = self.records.get(edge(bucket)..edge(bucket.saturating_add(1))).unwrap_or_default();
        let start = candidates.partition_point(|record| record.id < id);
        let found = candidates.get(start..).unwrap_or_default();
        let end = found.partition_point(|record| record.id == id);
        found.get(..end).unwrap_or_default()
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
        to_u64(records.saturating_add(self.filter.memory()).saturating_add(size_of_val(&*self.starts)))
    }
}

fn bucket(id: ShortId, shift: u32) -> usize {
    // A shift by 64 means one bucket.
    usize::try_from(id.high.checked_shr(shift).unwrap_or(0)).unwrap_or(usize::MAX)
}

/// Tables that are merged as they grow, so that there are few and each record is copied seldom.
#[derive(Debug, Default)]
pub(super) struct Tables(Vec<Table>);

impl Tables {
    /// Adds records in ascending order.
    pub(super) fn push(&mut self, mut table: Table) {
        if table.len() == 0 {
            return;
        }
        while let Some(last) = self.0.last() {
            let small = last.len() <= table.len().saturating_mul(2);
            if !small || last.len().saturating_add(table.len()) > Table::MOST {
                break;
            }
            table = Table::merge(last, &table);
            self.0.pop();
        }
        self.0.push(table);
    }

    /// All records with this id, in no particular order.
    pub(super) fn find(&self, id: ShortId) -> impl Iterator<Item = &Record> {
        self.0.iter().rev().flat_map(move |table| table.find(id))
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.0.iter().flat_map(Table::records)
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().map(Table::len).sum()
    }

    pub(super) fn memory(&self) -> u64 {
        self.0.iter().map(Table::memory).sum()
    }

    /// Keeps the records that `keep` names.
    pub(super) fn retain(&mut self, keep: impl Fn(&Record) -> bool) {
        for table in std::mem::take(&mut self.0) {
            if table.records().iter().all(&keep) {
                self.0.push(table);
            } else {
                let kept: Vec<Record> = table.records.into_iter().filter(&keep).collect();
                if !kept.is_empty() {
                    self.0.push(Table::from_sorted(kept));
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
            tables.push(Table::from_unsorted((0..10).map(|at| record((at << 60, round), 0, 0)).collect()));
        }
        assert_eq!(tables.len(), 10_000);
        assert!(tables.0.len() <= 14, "{}", tables.0.len());
    }

    proptest! {
        /// Ids from a small set, so that buckets are uneven and duplicates frequent.
        #[test]
        fn finds_exactly_what_is_there(
            parts in prop::collection::vec(prop::collection::vec((0u64..40, 0u64..3, 0u32..3, 0u32..3), 0..100), 0..8)
        ) {
            let spread = |high: u64| high.wrapping_mul(0x0666_6666_6666_6667);
            let mut tables = Tables::default();
            let mut model = std::collections::BTreeSet::new();
            for part in parts {
                let records: Vec<Record> =
                    part.iter().map(|(high, low, pack, offset)| record((spread(*high), *low), *pack, *offset)).collect();
                model.extend(records.iter().copied());
                tables.push(Table::from_unsorted(records));
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
