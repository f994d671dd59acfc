//! A part of an input in memory, for measuring what is done with it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::input::data_of;

/// Length of a chunk of an image.
pub const CHUNK: usize = 1 << 20;
/// Longest stretch that is taken in one piece.
const SEGMENT: u64 = 16 << 20;

/// Stretches of an input that are not zeros, evenly spread.
#[derive(Debug)]
pub struct Sample {
    /// Each at most 16 MiB and a whole number of chunks long, but for the last of a piece of data.
    pub segments: Vec<Vec<u8>>,
}

impl Sample {
    /// About `bytes` of the data of a file; all of it where there is less.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read or holds nothing but zeros.
    pub fn read(path: &Path, bytes: u64) -> Result<Self> {
        let failed = || format!("cannot read {}", path.display());
        let file = File::open(path).with_context(failed)?;
        let mut stretches = Vec::new();
        for range in data_of(path)? {
            let mut at = range.start;
            while at < range.end {
                let end = range.end.min(at + SEGMENT);
                stretches.push(at..end);
                at = end;
            }
        }
        let total: u64 = stretches.iter().map(|range| range.end - range.start).sum();
        let share = (bytes as f64 / total.max(1) as f64).min(1.0);
        let mut segments = Vec::new();
        let (mut wanted, mut taken) = (0.0, 0);
        for range in stretches {
            let length = range.end - range.start;
            wanted += length as f64 * share;
            if taken as f64 >= wanted {
                continue;
            }
            let mut segment = vec![0; length as usize];
            file.read_exact_at(&mut segment, range.start).with_context(failed)?;
            taken += length;
            // The engine knows zeros of an image by looking at them and does nothing else with them.
            let mut kept = Vec::with_capacity(segment.len());
            for chunk in segment.chunks(CHUNK).filter(|chunk| chunk.iter().any(|byte| *byte != 0)) {
                kept.extend_from_slice(chunk);
            }
            if !kept.is_empty() {
                segments.push(kept);
            }
        }
        ensure!(!segments.is_empty(), "{} holds nothing but zeros", path.display());
        Ok(Self { segments })
    }

    /// The chunks of fixed length.
    pub fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        self.segments.iter().flat_map(|segment| segment.chunks(CHUNK))
    }

    /// Its length in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_spread_over_the_data_without_zeros() {
        let here = tempfile::tempdir().unwrap();
        let path = here.path().join("image");
        let file = File::create(&path).unwrap();
        file.set_len(1 << 30).unwrap();
        for piece in 0..8u8 {
            file.write_all_at(&vec![piece; 16 << 20], u64::from(piece) * (100 << 20)).unwrap();
        }
        let firsts = |sample: &Sample| sample.segments.iter().map(|segment| segment[0]).collect::<Vec<_>>();
        let all = Sample::read(&path, 1 << 30).unwrap();
        assert_eq!((firsts(&all), all.bytes()), (vec![1, 2, 3, 4, 5, 6, 7], 7 << 24));
        assert_eq!(all.chunks().count(), 7 * 16);
        let half = Sample::read(&path, 64 << 20).unwrap();
        assert_eq!(firsts(&half), [2, 4, 6]);
        file.set_len(0).unwrap();
        assert!(Sample::read(&path, 1).is_err());
    }
}
