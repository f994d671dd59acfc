//! Content-defined chunking: FastCDC with a secret gear table and normalised chunk lengths.
//!
//! A 64-bit state is shifted left by one and a table value added for every byte, so that it depends
//! on the last 64 bytes alone. A chunk ends where the state is below a threshold: rare before the
//! average length, frequent after it. Judging starts 64 bytes after the state does, so whether a
//! position ends a chunk depends on the 64 bytes before it and on nothing else but the lengths.

use std::fmt;

use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::length::index;
use crate::limits;

/// Bytes that the state depends on.
const WINDOW: usize = 64;
/// Cuts are this many powers of two rarer before the average than after it (half on each side).
const NORMALISATION: u32 = 2;

/// A random 64-bit value for every byte: secret, so that chunk boundaries do not tell what is in a
/// chunk to somebody who can only guess at it.
pub(crate) struct GearTable(Box<Zeroizing<[u64; 256]>>);

impl GearTable {
    /// From 2048 bytes of key material, read as little-endian numbers.
    #[must_use]
    pub(crate) fn new(key_material: &[u8; 2048]) -> Self {
        let mut table = Box::new(Zeroizing::new([0u64; 256]));
        let (numbers, _) = key_material.as_chunks::<8>();
        for (value, number) in table.iter_mut().zip(numbers) {
            *value = u64::from_le_bytes(*number);
        }
        Self(table)
    }
}

impl fmt::Debug for GearTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GearTable(..)")
    }
}

/// The chunker: a table and three lengths. Without state of its own; may be used by many threads.
#[derive(Debug)]
pub(crate) struct Gear {
    table: GearTable,
    minimum: usize,
    average: usize,
    maximum: usize,
    /// A state below this ends a chunk shorter than the average.
    rare: u64,
    /// A state below this ends a chunk of the average length or longer.
    frequent: u64,
}

impl Gear {
    /// A chunker whose chunks have `minimum` to `maximum` bytes, most of them near `average`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] unless 64 <= minimum < average < maximum <= 16 MiB and the
    /// average is at least 256.
    pub(crate) fn new(table: GearTable, minimum: u32, average: u32, maximum: u32) -> Result<Self> {
        let ordered = index(minimum) >= WINDOW && minimum < average && average < maximum;
        if !ordered || average < 256 || maximum > limits::CHUNK {
            return Err(Error::invalid(
                "chunk lengths",
                format!("{minimum} / {average} / {maximum}: need 64 <= minimum < average < maximum <= 16777216"),
            ));
        }
        let even = u64::MAX.checked_div(u64::from(average)).unwrap_or(u64::MAX);
        Ok(Self {
            table,
            minimum: index(minimum),
            average: index(average),
            maximum: index(maximum),
            rare: even >> NORMALISATION,
            frequent: even << NORMALISATION,
        })
    }

    /// Smallest chunk but the last, in bytes: shorter inputs are one chunk.
    #[must_use]
    pub(crate) fn minimum(&self) -> usize {
        self.minimum
    }

    /// Longest chunk: with this many bytes in hand [`cut`](Self::cut) always decides.
    #[must_use]
    pub(crate) fn maximum(&self) -> usize {
        self.maximum
    }

    /// Length of the first chunk of `buffer`; `None` where more bytes are needed to tell.
    ///
    /// With `end_of_input` nothing follows the buffer, and `None` means that it is empty.
    #[must_use]
    pub(crate) fn cut(&self, buffer: &[u8], end_of_input: bool) -> Option<usize> {
        let buffer = buffer.get(..self.maximum).unwrap_or(buffer);
        self.boundary(buffer).or_else(|| {
            let complete = buffer.len() == self.maximum || (end_of_input && !buffer.is_empty());
            complete.then_some(buffer.len())
        })
    }

    /// Where the content itself ends the first chunk.
    fn boundary(&self, buffer: &[u8]) -> Option<usize> {
        // A chunk of the minimum length is judged by the state after its last byte.
        let first = self.minimum.saturating_sub(1);
        let warm_up = buffer.get(self.minimum.saturating_sub(WINDOW)..first)?;
        let normal = self.average.saturating_sub(1).min(buffer.len());
        let mut state = warm_up.iter().fold(0, |state, byte| self.step(state, *byte));
        if let Some(position) = self.scan(buffer.get(first..normal)?, &mut state, self.rare) {
            return first.checked_add(position);
        }
        let position = self.scan(buffer.get(normal..)?, &mut state, self.frequent)?;
        normal.checked_add(position)
    }

    /// Number of bytes up to and including the first after which the state is below `threshold`.
    ///
    /// Two bytes a step: their share of the state does not depend on the state before them, so only
    /// one shift and one addition in two bytes wait for each other (3.0 against 1.8 GB/s).
    #[inline]
    fn scan(&self, bytes: &[u8], state: &mut u64, threshold: u64) -> Option<usize> {
        let mut current = *state;
        let mut done = 0usize;
        let (pairs, rest) = bytes.as_chunks::<2>();
        for [one, two] in pairs {
            let one = self.step(0, *one);
            let both = self.step(one, *two);
            let after_one = (current << 1).wrapping_add(one);
            let after_both = (current << 2).wrapping_add(both);
            if (after_one < threshold) | (after_both < threshold) {
                return Some(done.wrapping_add(if after_one < threshold { 1 } else { 2 }));
            }
            current = after_both;
            done = done.wrapping_add(2);
        }
        for byte in rest {
            current = self.step(current, *byte);
            if current < threshold {
                return Some(done.wrapping_add(1));
            }
        }
        *state = current;
        None
    }

    #[inline(always)]
    #[expect(clippy::indexing_slicing, reason = "a byte always lies within the 256 values of the table")]
    fn step(&self, state: u64, byte: u8) -> u64 {
        (state << 1).wrapping_add(self.table.0[usize::from(byte)])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn table(seed: u64) -> GearTable {
        let mut material = [0; 2048];
        random(seed, &mut material);
        GearTable::new(&material)
    }

    fn random(seed: u64, out: &mut [u8]) {
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(out);
    }

    fn chunks<'a>(gear: &Gear, mut input: &'a [u8]) -> Vec<&'a [u8]> {
        let mut out = Vec::new();
        while let Some(length) = gear.cut(input, true) {
            let (chunk, rest) = input.split_at(length);
            out.push(chunk);
            input = rest;
        }
        assert!(input.is_empty());
        out
    }

    /// The definition, byte by byte, as `docs/format.md` could state it.
    fn reference_cut(table: &GearTable, input: &[u8], minimum: usize, average: usize, maximum: usize) -> usize {
        for length in minimum..=input.len().min(maximum) {
            let state = input[length - 64..length]
                .iter()
                .fold(0u64, |state, byte| (state << 1).wrapping_add(table.0[usize::from(*byte)]));
            let even = u64::MAX / average as u64;
            if state < if length < average { even >> 2 } else { even << 2 } {
                return length;
            }
        }
        input.len().min(maximum)
    }

    #[test]
    fn lengths_are_checked() {
        for (minimum, average, maximum) in [
            (0, 256, 1024),
            (64, 64, 128),
            (64, 128, 1024),
            (512, 256, 1024),
            (64, 256, 256),
            (64, 256, (16 << 20) + 1),
        ] {
            assert!(Gear::new(table(0), minimum, average, maximum).is_err(), "{minimum} {average} {maximum}");
        }
        assert!(Gear::new(table(0), 512 << 10, 1 << 20, 4 << 20).is_ok());
    }

    #[test]
    fn most_chunks_are_near_the_average() {
        let gear = Gear::new(table(1), 2 << 10, 4 << 10, 16 << 10).unwrap();
        let mut input = vec![0; 8 << 20];
        random(2, &mut input);
        let count = chunks(&gear, &input).len();
        let mean = input.len() / count;
        assert!((3400..5600).contains(&mean), "{mean}");
    }

    #[test]
    fn an_inserted_byte_moves_few_boundaries() {
        let gear = Gear::new(table(3), 2 << 10, 4 << 10, 16 << 10).unwrap();
        let mut input = vec![0; 1 << 20];
        random(4, &mut input);
        let before: BTreeSet<&[u8]> = chunks(&gear, &input).into_iter().collect();
        for position in [0, 1, 77_777, 500_000, input.len()] {
            let mut changed = input.clone();
            changed.insert(position, 0x5a);
            let new = chunks(&gear, &changed).into_iter().filter(|chunk| !before.contains(chunk)).count();
            assert!(new <= 12, "{new} of {} chunks are new after an insertion at {position}", before.len());
        }
    }

    #[test]
    fn content_without_boundaries_is_cut_at_the_maximum() {
        // The state of a constant byte is constant: either every position ends a chunk or none.
        let gear = Gear::new(table(5), 64, 256, 1024).unwrap();
        for byte in 0..=255 {
            let input = vec![byte; 5000];
            let lengths: BTreeSet<usize> = chunks(&gear, &input).iter().map(|chunk| chunk.len()).collect();
            assert!(lengths.iter().all(|length| *length <= 1024), "{byte}: {lengths:?}");
        }
    }

    #[test]
    fn nothing_of_the_table_is_shown() {
        assert_eq!(format!("{:?}", table(6)), "GearTable(..)");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn chunks_are_the_input_within_bounds(seed: u64, length in 0usize..60_000, period in 1usize..4000) {
            let mut input = vec![0; length];
            let periodic = period.min(length);
            random(seed, &mut input[..periodic]);
            for position in periodic..length {
                input[position] = input[position - periodic];
            }
            let table = table(seed);
            let gear = Gear::new(GearTable(table.0.clone()), 128, 512, 2048).unwrap();
            let cut = chunks(&gear, &input);
            prop_assert_eq!(cut.concat(), input.clone());
            let mut rest = input.as_slice();
            for (number, chunk) in cut.iter().enumerate() {
                prop_assert!(chunk.len() <= 2048);
                prop_assert!(chunk.len() >= 128 || number + 1 == cut.len());
                prop_assert_eq!(chunk.len(), reference_cut(&table, rest, 128, 512, 2048));
                rest = &rest[chunk.len()..];
            }
        }

        #[test]
        fn a_decision_does_not_depend_on_what_follows(seed: u64, length in 1usize..3000) {
            let gear = Gear::new(table(seed), 128, 512, 2048).unwrap();
            let mut input = vec![0; 3000];
            random(seed, &mut input);
            let whole = gear.cut(&input, false).unwrap();
            match gear.cut(&input[..length], false) {
                Some(cut) => prop_assert_eq!(cut, whole),
                None => prop_assert!(length < whole || (length == whole && whole == 2048) || length < 128),
            }
        }
    }
}
