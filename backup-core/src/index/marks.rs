//! Marking chunks of an index: which of them somebody needs.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::id::{ChunkId, ObjectName};
use crate::index::Index;
use crate::index::table::ShortId;

/// Chunks that were met, a bit for each place that the index has; 17 bytes or more for each that it got after it was loaded.
/// A chunk that stands in several packs is one: all its places are marked.
pub(crate) struct Marks {
    index: Arc<Index>,
    bits: Vec<u64>,
    /// Chunks that have no place in the tables of the index.
    others: HashSet<ShortId>,
}

/// What marking a chunk showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marked {
    /// It is met for the first time.
    First,
    /// It was marked before.
    Again,
    /// The index does not have it.
    Unknown,
}

/// What is marked of a pack, and what is in it, as chunks are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) marked_chunks: u64,
    pub(crate) marked_bytes: u64,
    pub(crate) bytes: u64,
}

impl Marks {
    /// Nothing is marked.
    pub(crate) fn new(index: Arc<Index>) -> Self {
        let bits = vec![0; index.table_places().div_ceil(64)];
        Self { index, bits, others: HashSet::new() }
    }

    /// Marks a chunk.
    pub(crate) fn mark(&mut self, id: &ChunkId) -> Marked {
        let is_new = match self.index.table_place(ShortId::of(id)) {
            Some(place) => {
                let (word, bit) = position(place);
                let Some(word) = self.bits.get_mut(word) else { return Marked::Unknown };
                let is_new = *word & bit == 0;
                *word |= bit;
                is_new
            }
            None if self.index.lookup(id).is_some() => self.others.insert(ShortId::of(id)),
            None => return Marked::Unknown,
        };
        if is_new { Marked::First } else { Marked::Again }
    }

    /// Whether a chunk is marked.
    pub(crate) fn contains(&self, id: &ChunkId) -> bool {
        self.has(ShortId::of(id))
    }

    fn has(&self, id: ShortId) -> bool {
        match self.index.table_place(id) {
            Some(place) => {
                let (word, bit) = position(place);
                self.bits.get(word).is_some_and(|word| word & bit != 0)
            }
            None => self.others.contains(&id),
        }
    }

    /// What of each pack is marked.
    pub(crate) fn usage(&self) -> HashMap<ObjectName, Usage> {
        let mut numbers: HashMap<u32, Usage> = HashMap::new();
        self.index.for_each_record(&mut |record| {
            let usage = numbers.entry(record.pack).or_default();
            let stored = u64::from(record.stored());
            usage.bytes = usage.bytes.saturating_add(stored);
            if self.has(record.id) {
                usage.marked_chunks = usage.marked_chunks.saturating_add(1);
                usage.marked_bytes = usage.marked_bytes.saturating_add(stored);
            }
        });
        let name = |(number, usage)| Some((self.index.pack_name(number)?, usage));
        numbers.into_iter().filter_map(name).collect()
    }

    #[cfg(test)]
    /// Bytes of memory, the index not counted.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let others = self.others.capacity().saturating_mul(size_of::<ShortId>().saturating_add(1));
        crate::length::to_u64(size_of_val(self.bits.as_slice()).saturating_add(others))
    }
}

/// The word that has the bit of a place, and the bit.
fn position(place: usize) -> (usize, u64) {
    (place / 64, 1u64.checked_shl(u32::try_from(place % 64).unwrap_or(0)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::compress::Codec;
    use crate::index::map::tests::{chunk, pack};
    use crate::index::{Segment, SegmentBuilder};
    use crate::pack::{ChunkKind, PackEntry};

    fn entries(chunks: &[u64]) -> Vec<PackEntry> {
        let entry = |(offset, number): (u32, &u64)| PackEntry {
            id: chunk(*number),
            offset,
            stored: 5,
            raw: 9,
            codec: Codec::Zstd,
            kind: ChunkKind::Data,
        };
        (100..).step_by(5).zip(chunks).map(entry).collect()
    }

    proptest! {
        /// Chunks stand in several packs, and packs are loaded or come later.
        #[test]
        fn marks_are_a_set_of_chunks(
            loaded in prop::collection::vec(prop::collection::vec(0u64..60, 1..20), 0..6),
            later in prop::collection::vec(prop::collection::vec(0u64..60, 1..20), 0..3),
            marked in prop::collection::vec(0u64..70, 0..40),
        ) {
            let mut index = Index::new();
            let mut packs: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
            for (number, chunks) in (0..).zip(&loaded) {
                let mut segment = SegmentBuilder::new();
                segment.push(pack(number), 1000, &entries(chunks)).unwrap();
                index.load(&Segment::parse(&segment.finish().unwrap(), &"s").unwrap()).unwrap();
                packs.insert(number, chunks.clone());
            }
            index.settle();
            for (number, chunks) in (100..).zip(&later) {
                index.insert_pack(pack(number), 1000, &entries(chunks)).unwrap();
                packs.insert(number, chunks.clone());
            }
            let mut marks = Marks::new(Arc::new(index));
            let mut model = std::collections::BTreeSet::new();
            for number in marked {
                let expected = match (packs.values().flatten().any(|known| *known == number), model.insert(number)) {
                    (false, _) => { model.remove(&number); Marked::Unknown }
                    (true, true) => Marked::First,
                    (true, false) => Marked::Again,
                };
                prop_assert_eq!(marks.mark(&chunk(number)), expected);
            }
            for number in 0..70 {
                prop_assert_eq!(marks.contains(&chunk(number)), model.contains(&number));
            }
            let usage = marks.usage();
            prop_assert_eq!(usage.len(), packs.len());
            for (number, chunks) in packs {
                let count = chunks.iter().filter(|chunk| model.contains(chunk)).count() as u64;
                let expected = Usage { marked_chunks: count, marked_bytes: count * 5, bytes: chunks.len() as u64 * 5 };
                prop_assert_eq!(usage[&pack(number)], expected);
            }
        }
    }

    #[test]
    fn a_million_chunks_take_an_eighth_of_a_megabyte() {
        let mut index = Index::new();
        for number in 0..1000u64 {
            let chunks: Vec<u64> = (number * 1000..number * 1000 + 1000).collect();
            let mut segment = SegmentBuilder::new();
            segment.push(pack(number), 1 << 20, &entries(&chunks)).unwrap();
            index.load(&Segment::parse(&segment.finish().unwrap(), &"s").unwrap()).unwrap();
        }
        index.settle();
        let mut marks = Marks::new(Arc::new(index));
        assert!((0..1_000_000).all(|number| marks.mark(&chunk(number)) == Marked::First));
        assert_eq!(marks.memory_bytes(), 125_000);
    }
}
