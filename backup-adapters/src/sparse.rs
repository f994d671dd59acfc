//! Where a file has data and where it has holes, and writing files that have holes.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use backup_core::extent::{Extent, ExtentKind};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::directory::retry;

/// The smallest hole that is kept as one: a block of common file systems, and what `qemu-img convert` keeps.
const BLOCK: usize = 4096;

/// Reports the data and the holes of `range` in order, without gaps, until `visit` returns `false`.
/// Returns whether it came to the end.
///
/// What the file system does not tell is data. The file may change meanwhile: what is reported lies
/// within `range` all the same.
pub(crate) fn extents(file: &File, range: Range<u64>, visit: &mut dyn FnMut(Extent) -> bool) -> io::Result<bool> {
    let mut at = range.start;
    while at < range.end {
        let data = match retry(|| seek(file, SeekFrom::Data(at))) {
            Ok(data) => data.clamp(at, range.end),
            // No data behind `at`.
            Err(Errno::NXIO) => range.end,
            Err(Errno::INVAL | Errno::NOTSUP | Errno::NOTTY) => at,
            Err(error) => return Err(error.into()),
        };
        if data > at && !visit(Extent::new(at, data - at, ExtentKind::Zero)) {
            return Ok(false);
        }
        if data == range.end {
            return Ok(true);
        }
        let hole = match retry(|| seek(file, SeekFrom::Hole(data))) {
            // Never stand still, whatever a concurrent change makes of the answer.
            Ok(hole) if hole > data => hole.min(range.end),
            _ => range.end,
        };
        if !visit(Extent::new(data, hole - data, ExtentKind::Data)) {
            return Ok(false);
        }
        at = hole;
    }
    Ok(true)
}

/// Whether the file has a hole before `length`.
pub(crate) fn has_hole(file: &File, length: u64) -> bool {
    length > 0 && retry(|| seek(file, SeekFrom::Hole(0))).is_ok_and(|hole| hole < length)
}

/// Writes `data` at `offset` of a file that has only holes there, and leaves blocks of zeros out.
///
/// Holes of a source end anywhere, chunks are longer than they: their zeros are not written either.
pub(crate) fn write_at(file: &File, offset: u64, data: &[u8]) -> io::Result<()> {
    static ZEROS: [u8; BLOCK] = [0; BLOCK];
    // Begins where the next write will: what lies between it and `rest` is not zero and not written yet.
    let (mut start, mut unwritten, mut rest) = (offset, data, data);
    let past_block = usize::try_from(offset % BLOCK as u64).unwrap_or(0);
    let mut block_length = BLOCK - past_block;
    while let Some((block, after)) = rest.split_at_checked(block_length) {
        if block == ZEROS {
            let (run, _) = unwritten.split_at(unwritten.len() - rest.len());
            file.write_all_at(run, start)?;
            start += (run.len() + block.len()) as u64;
            unwritten = after;
        }
        (rest, block_length) = (after, BLOCK);
    }
    file.write_all_at(unwritten, start)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn blocks_of_zeros_are_not_written() {
        let mut data = vec![0; 40 * BLOCK];
        for (start, length) in
            [(0, 1), (BLOCK - 1, 2), (5 * BLOCK, 3 * BLOCK), (20 * BLOCK + 17, 1), (40 * BLOCK - 1, 1)]
        {
            data[start..start + length].fill(7);
        }
        for offset in [0, 1, BLOCK - 1, BLOCK, 3 * BLOCK + 100] {
            for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 9 * BLOCK, 13 * BLOCK + 5, 40 * BLOCK] {
                let file = tempfile::tempfile().unwrap();
                write_at(&file, offset as u64, &data[..length]).unwrap();
                file.set_len((offset + length) as u64).unwrap();
                let mut written = vec![1; offset + length];
                file.read_exact_at(&mut written, 0).unwrap();
                assert!(written[..offset].iter().all(|byte| *byte == 0), "{length} at {offset}");
                assert_eq!(&written[offset..], &data[..length], "{length} at {offset}");
            }
        }
        let file = tempfile::tempfile().unwrap();
        write_at(&file, 0, &data).unwrap();
        let allocated = file.metadata().unwrap().blocks() * 512;
        if has_hole(&file, data.len() as u64) {
            assert!(allocated <= 12 * BLOCK as u64, "{allocated}");
        }
    }

    fn reported(file: &File, range: Range<u64>) -> Vec<Extent> {
        let mut all = Vec::new();
        assert!(
            extents(file, range, &mut |extent| {
                all.push(extent);
                true
            })
            .unwrap()
        );
        all
    }

    #[test]
    fn extents_cover_the_range_and_hold_the_data() {
        const MIB: u64 = 1 << 20;
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 * MIB).unwrap();
        file.write_all_at(&[1; 1000], MIB + 5).unwrap();
        file.write_all_at(&[1; 1000], 6 * MIB - 500).unwrap();
        for range in [0..8 * MIB, 0..MIB, MIB + 100..7 * MIB, 6 * MIB..6 * MIB + 1, 3..3, 7 * MIB..8 * MIB] {
            let all = reported(&file, range.clone());
            let mut at = range.start;
            for extent in &all {
                assert_eq!(extent.offset, at);
                assert!(extent.length > 0);
                at = extent.end();
                if extent.kind == ExtentKind::Zero {
                    let mut content = vec![9; usize::try_from(extent.length).unwrap()];
                    file.read_exact_at(&mut content, extent.offset).unwrap();
                    assert!(content.iter().all(|byte| *byte == 0));
                }
            }
            assert_eq!(at, range.end);
        }
        assert!(reported(&file, 0..8 * MIB).len() >= 4, "this file system keeps no holes");
        assert!(has_hole(&file, 8 * MIB));
    }

    #[test]
    fn stops_when_told_and_survives_shrinking() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(&[1; 10], 500_000).unwrap();
        let mut calls = 0;
        let finished = extents(&file, 0..1 << 20, &mut |_| {
            calls += 1;
            false
        });
        assert!(!finished.unwrap());
        assert_eq!(calls, 1);
        file.set_len(10).unwrap();
        assert_eq!(reported(&file, 0..1 << 20).iter().map(|extent| extent.length).sum::<u64>(), 1 << 20);
    }
}
