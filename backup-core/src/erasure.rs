//! Error-correction blocks: a Reed-Solomon code over GF(2^8) whose matrix is a Cauchy matrix (`docs/format.md`,
//! "Error correction").
//!
//! Of `data` blocks of one length and `parity` blocks made of them, any `data` blocks give back the rest. Which ones are
//! lost is known from their checks, so every parity block mends one loss.

mod encoder;
mod field;
mod kernel;

pub(crate) use self::encoder::Encoder;
use self::field::{divide, multiply};
pub(crate) use self::kernel::Product;

/// Most data and parity blocks of a stripe together: the field has as many elements.
pub(crate) const MOST_BLOCKS: usize = 256;

/// The code with `parity` parity blocks. What is not there of the data counts as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code {
    parity: u8,
}

impl Code {
    /// The code for stripes of up to `data` blocks with `parity` blocks; `None` where the field is too small for them.
    pub(crate) fn new(data: u8, parity: u8) -> Option<Self> {
        let fits = usize::from(data).saturating_add(usize::from(parity)) <= MOST_BLOCKS;
        (fits && data > 0 && parity > 0).then_some(Self { parity })
    }

    /// What data block `column` is multiplied with in parity block `row`: 1 / (row + (parity + column)).
    fn coefficient(self, row: u8, column: u8) -> u8 {
        divide(1, row ^ self.parity.wrapping_add(column))
    }

    /// How the data blocks from `first` on, `count` of them, enter all parity blocks.
    pub(crate) fn encoding(self, first: u8, count: usize) -> Product {
        let rows = (0..self.parity).map(|row| {
            let columns = (first..=u8::MAX).take(count);
            columns.map(|column| self.coefficient(row, column)).collect()
        });
        Product::new(&rows.collect::<Vec<Vec<u8>>>())
    }

    /// How the data blocks `lost` are made of the `known` data blocks, in that order, and, behind them, of as many of the
    /// parity blocks `parity`. `None` where there are too few of these.
    pub(crate) fn recovery(self, known: &[u8], lost: &[u8], parity: &[u8]) -> Option<Product> {
        let parity = parity.get(..lost.len())?;
        let square = parity.iter().map(|row| lost.iter().map(|column| self.coefficient(*row, *column)).collect());
        let inverse = field::inverse(square.collect())?;
        let rows = inverse.iter().map(|factors| {
            let of_known = known.iter().map(|column| {
                let terms = factors.iter().zip(parity);
                terms.fold(0, |sum, (factor, row)| sum ^ multiply(*factor, self.coefficient(*row, *column)))
            });
            of_known.chain(factors.iter().copied()).collect()
        });
        Some(Product::new(&rows.collect::<Vec<Vec<u8>>>()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn blocks(count: usize, length: usize, seed: u64) -> Vec<Vec<u8>> {
        let mut bytes = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
        let mut made = vec![vec![0; length]; count];
        made.iter_mut().for_each(|block| bytes.fill(block));
        made
    }

    fn slices(blocks: &[Vec<u8>]) -> Vec<&[u8]> {
        blocks.iter().map(Vec::as_slice).collect()
    }

    fn encode(code: Code, data: &[Vec<u8>], batch: usize) -> Vec<Vec<u8>> {
        let mut parity = vec![vec![0; data[0].len()]; usize::from(code.parity)];
        for (number, part) in data.chunks(batch).enumerate() {
            let first = u8::try_from(number * batch).unwrap();
            code.encoding(first, part.len()).add(&slices(part), &mut parity);
        }
        parity
    }

    /// As the document says it, byte by byte.
    fn plainly(code: Code, data: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let byte = |row: u8, at: usize| {
            let terms = data.iter().enumerate();
            terms.fold(0, |sum, (column, block)| {
                let x = row ^ (code.parity + u8::try_from(column).unwrap());
                let factor = (1..=255).find(|y| multiply(*y, x) == 1).unwrap();
                sum ^ multiply(factor, block[at])
            })
        };
        (0..code.parity).map(|row| (0..data[0].len()).map(|at| byte(row, at)).collect()).collect()
    }

    #[test]
    fn is_what_the_document_says_for_every_length() {
        let code = Code::new(9, 3).unwrap();
        for length in [1, 63, 64, 191, 192, 193, 400] {
            for count in 1..=9 {
                let data = blocks(count, length, 7);
                let want = plainly(code, &data);
                for batch in 1..=count {
                    assert_eq!(encode(code, &data, batch), want, "{count} blocks of {length} bytes, {batch} at once");
                }
            }
        }
    }

    /// Every pattern of losses that the code can mend, for a small code.
    #[test]
    fn mends_every_pattern() {
        for count in 1..=5u8 {
            let code = Code::new(5, 3).unwrap();
            let data = blocks(usize::from(count), 10, u64::from(count));
            let parity = encode(code, &data, 5);
            for pattern in 0u32..1 << (count + 3) {
                let is_lost = |block: u8| pattern >> block & 1 == 1;
                let (lost, known): (Vec<u8>, Vec<u8>) = (0..count).partition(|block| is_lost(*block));
                let rows: Vec<u8> = (0..3).filter(|row| !is_lost(count + row)).collect();
                let Some(recovery) = code.recovery(&known, &lost, &rows) else {
                    assert!(lost.len() > rows.len(), "{pattern:b}");
                    continue;
                };
                let mut inputs: Vec<&[u8]> = known.iter().map(|block| &data[usize::from(*block)][..]).collect();
                inputs.extend(rows.iter().take(lost.len()).map(|row| &parity[usize::from(*row)][..]));
                let mut out = vec![vec![0; 10]; lost.len()];
                recovery.add(&inputs, &mut out);
                for (block, made) in lost.iter().zip(&out) {
                    assert_eq!(made, &data[usize::from(*block)], "{pattern:b}");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn mends_large_stripes(
            (data, parity) in (1..=240u8, 1..=16u8), seed in any::<u64>(), order in any::<prop::sample::Index>(),
        ) {
            let code = Code::new(data, parity).unwrap();
            let blocks = blocks(usize::from(data), 100, seed);
            let made = encode(code, &blocks, 16);
            let count = usize::from(parity).min(usize::from(data));
            let start = order.index(usize::from(data));
            let lost: Vec<u8> = (0..count).map(|n| u8::try_from((start + n * 7) % usize::from(data)).unwrap()).collect();
            let lost: std::collections::BTreeSet<u8> = lost.into_iter().collect();
            let lost: Vec<u8> = lost.into_iter().collect();
            let known: Vec<u8> = (0..data).filter(|block| !lost.contains(block)).collect();
            let rows: Vec<u8> = (0..parity).rev().collect();
            let recovery = code.recovery(&known, &lost, &rows).unwrap();
            let mut inputs: Vec<&[u8]> = known.iter().map(|block| &blocks[usize::from(*block)][..]).collect();
            inputs.extend(rows.iter().take(lost.len()).map(|row| &made[usize::from(*row)][..]));
            let mut out = vec![vec![0; 100]; lost.len()];
            recovery.add(&inputs, &mut out);
            for (block, found) in lost.iter().zip(&out) {
                prop_assert_eq!(found, &blocks[usize::from(*block)]);
            }
        }
    }

    #[test]
    fn codes_that_do_not_fit_the_field_are_refused() {
        assert!(Code::new(248, 8).is_some());
        assert!(Code::new(249, 8).is_none() && Code::new(0, 8).is_none() && Code::new(8, 0).is_none());
    }
}
