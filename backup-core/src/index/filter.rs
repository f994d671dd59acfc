//! A filter that says "certainly not here" with one look into memory.
//!
//! A split-block Bloom filter: 32 bytes are one block, and a key sets one bit in each of its eight
//! 32-bit words. Chunk ids are outputs of a keyed hash, so their bits serve as they are.

/// Bits for every key. About 0.6 % of the ids that are not there are looked for in the table.
const BITS_PER_KEY: usize = 12;
const BLOCK_BITS: usize = 256;
/// Odd multipliers, as the Parquet format has them.
const SALTS: [u32; 8] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// The filter of one table, built once.
#[derive(Debug, Default)]
pub(super) struct Filter {
    blocks: Box<[[u32; 8]]>,
}

impl Filter {
    /// A filter that has room for `keys` keys.
    pub(super) fn new(keys: usize) -> Self {
        let blocks = keys.saturating_mul(BITS_PER_KEY).div_ceil(BLOCK_BITS).max(1);
        Self { blocks: vec![[0; 8]; blocks].into_boxed_slice() }
    }

    /// Adds a key.
    pub(super) fn insert(&mut self, key: u64) {
        let position = self.block(key);
        if let Some(block) = self.blocks.get_mut(position) {
            for (word, bit) in block.iter_mut().zip(mask(key)) {
                *word |= bit;
            }
        }
    }

    /// Whether `key` may have been added; `false` is certain.
    pub(super) fn may_contain(&self, key: u64) -> bool {
        self.blocks.get(self.block(key)).is_some_and(|block| {
            block.iter().zip(mask(key)).fold(0, |missing, (word, bit)| missing | (bit & !word)) == 0
        })
    }

    /// Bytes of memory.
    pub(super) fn memory(&self) -> usize {
        size_of_val(&*self.blocks)
    }

    /// The upper half of the key, scaled to the number of blocks.
    fn block(&self, key: u64) -> usize {
        let blocks = crate::length::to_u64(self.blocks.len());
        usize::try_from((key >> 32).saturating_mul(blocks) >> 32).unwrap_or(0)
    }
}

/// One bit for each word, from the lower half of the key.
fn mask(key: u64) -> [u32; 8] {
    let low = u32::try_from(key & 0xffff_ffff).unwrap_or(0);
    SALTS.map(|salt| 1 << (low.wrapping_mul(salt) >> 27))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> u64 {
        let hash = blake3::hash(&number.to_le_bytes());
        u64::from_le_bytes(*hash.as_bytes().first_chunk().unwrap())
    }

    #[test]
    fn forgets_nothing_and_invents_little() {
        for count in [1u64, 10, 1000, 50_000] {
            let mut filter = Filter::new(usize::try_from(count).unwrap());
            (0..count).for_each(|number| filter.insert(key(number)));
            assert!((0..count).all(|number| filter.may_contain(key(number))), "{count}");
            let wrong = (count..count + 100_000).filter(|number| filter.may_contain(key(*number))).count();
            assert!(wrong < 1500, "{wrong} of 100000 with {count} keys");
        }
    }

    #[test]
    fn an_empty_filter_has_nothing() {
        assert!(!Filter::new(0).may_contain(0));
        assert!(!Filter::default().may_contain(7));
    }
}
