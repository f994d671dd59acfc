//! What differs between two files: a change map such as block tracking of a hypervisor gives.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// What is compared at a time, and the granularity of the map: that of the dirty bitmaps of QEMU.
const BLOCK: u64 = 64 << 10;

/// The ranges of `new` that differ from `old`, ascending, whole blocks of 64 KiB but for the last. Where one is longer,
/// what the other lacks counts as zeros.
///
/// # Errors
///
/// Where one of them cannot be read.
pub fn changed_ranges(old: &Path, new: &Path) -> Result<Vec<Range<u64>>> {
    let open = |path: &Path| -> Result<Side> {
        let failed = || format!("cannot read {}", path.display());
        let file = File::open(path).with_context(failed)?;
        let data = data_ranges(&file).with_context(failed)?;
        let length = file.metadata().with_context(failed)?.len();
        Ok(Side { file, data, length, next: 0, buffer: vec![0; BLOCK as usize] })
    };
    let (mut old, mut new) = (open(old)?, open(new)?);
    let mut changed: Vec<Range<u64>> = Vec::new();
    let mut at = 0;
    while at < new.length.max(old.length) {
        let range = at..at + BLOCK;
        if (old.has_data(&range) || new.has_data(&range)) && old.read(at)? != new.read(at)? {
            let end = range.end.min(new.length.max(old.length));
            match changed.last_mut() {
                Some(last) if last.end == at => last.end = end,
                _ => changed.push(at..end),
            }
        }
        at += BLOCK;
    }
    Ok(changed)
}

struct Side {
    file: File,
    data: Vec<Range<u64>>,
    length: u64,
    /// The first range of `data` that does not end before what is asked for.
    next: usize,
    buffer: Vec<u8>,
}

impl Side {
    fn has_data(&mut self, range: &Range<u64>) -> bool {
        while self.data.get(self.next).is_some_and(|data| data.end <= range.start) {
            self.next += 1;
        }
        self.data.get(self.next).is_some_and(|data| data.start < range.end)
    }

    fn read(&mut self, at: u64) -> io::Result<&[u8]> {
        let length = self.length.saturating_sub(at).min(BLOCK) as usize;
        self.file.read_exact_at(&mut self.buffer[..length], at)?;
        self.buffer[length..].fill(0);
        Ok(&self.buffer)
    }
}

/// The ranges of a file that are not holes, in order.
///
/// # Errors
///
/// Where the file system does not tell.
pub fn data_ranges(file: &File) -> io::Result<Vec<Range<u64>>> {
    let length = file.metadata()?.len();
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < length {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = seek(file, SeekFrom::Hole(start))?.min(length);
        ranges.push(start..end);
        at = end;
    }
    Ok(ranges)
}

/// The map as JSON: a list of pairs of offset and length.
///
/// # Errors
///
/// None that is expected.
pub fn to_json(ranges: &[Range<u64>]) -> Result<Vec<u8>> {
    let pairs: Vec<[u64; 2]> = ranges.iter().map(|range| [range.start, range.end - range.start]).collect();
    Ok(serde_json::to_vec(&pairs)?)
}

/// The map of [`to_json`].
///
/// # Errors
///
/// Where it is none.
pub fn from_json(bytes: &[u8]) -> Result<Vec<Range<u64>>> {
    let pairs: Vec<[u64; 2]> = serde_json::from_slice(bytes).context("this is no change map")?;
    pairs
        .iter()
        .map(|[at, length]| Ok(*at..at.checked_add(*length).context("a range ends beyond everything")?))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn file(path: &Path, length: u64, pieces: &[(u64, &[u8])]) {
        let file = File::create(path).unwrap();
        file.set_len(length).unwrap();
        for (offset, bytes) in pieces {
            file.write_all_at(bytes, *offset).unwrap();
        }
    }

    #[test]
    fn changes_holes_and_lengths() {
        let here = tempfile::tempdir().unwrap();
        let (a, b) = (here.path().join("a"), here.path().join("b"));
        file(&a, 8 * MIB, &[(MIB, &[1; 4096]), (4 * MIB, &[2; 4096]), (7 * MIB, &[3; 4096])]);
        // A hole is the same as zeros that are written.
        file(&b, 8 * MIB, &[(0, &[0; 4096]), (MIB, &[1; 4096]), (4 * MIB, &[9; 1]), (6 * MIB - 1, &[5; 2])]);
        let block = |at: u64| at..at + BLOCK;
        let changed = changed_ranges(&a, &b).unwrap();
        assert_eq!(changed, [block(4 * MIB), 6 * MIB - BLOCK..6 * MIB + BLOCK, block(7 * MIB)]);
        assert_eq!(changed_ranges(&a, &a).unwrap(), []);
        assert_eq!(from_json(&to_json(&changed).unwrap()).unwrap(), changed);
        file(&b, 8 * MIB + 5, &[(MIB, &[1; 4096]), (4 * MIB, &[2; 4096]), (7 * MIB, &[3; 4096]), (8 * MIB + 4, &[1])]);
        let end = 8 * MIB..8 * MIB + 5;
        assert_eq!(changed_ranges(&a, &b).unwrap(), slice::from_ref(&end));
        assert_eq!(changed_ranges(&b, &a).unwrap(), slice::from_ref(&end));
    }
}
