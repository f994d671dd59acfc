//! [`ImageSource`]: a raw image or block device to back up.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;

use backup_core::extent::{Extent, ExtentKind};
use backup_core::source::BlockSource;
use rustix::fs::{SeekFrom, seek};

use crate::directory::retry;
use crate::sparse;

/// A raw image file or block device. Holes are not read.
///
/// Its length is what it was when it was opened. Nothing here keeps others from writing to it
/// meanwhile: that is what snapshots are for.
#[derive(Debug)]
pub struct ImageSource {
    file: File,
    length: u64,
    /// Sorted, apart, not empty, within the length.
    changes: Option<Vec<Range<u64>>>,
}

impl ImageSource {
    /// Opens `path`, through links.
    ///
    /// # Errors
    ///
    /// Where it cannot be opened or is neither a file nor a block device.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        // Looked at first: opening a pipe would wait for its other end.
        let kind = std::fs::metadata(path)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            let reason = format!("{} is neither a file nor a block device", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let file = File::open(path)?;
        let length = if kind.is_block_device() { device_length(&file)? } else { file.metadata()?.len() };
        Ok(Self { file, length, changes: None })
    }

    /// Only `changes` differ from the parent backup; everything else is reported as unchanged.
    ///
    /// The ranges may be in any order and overlap; what lies beyond the end is ignored. Only for a
    /// backup that is given the parent that the ranges refer to.
    #[must_use]
    pub fn with_changes(mut self, changes: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut sorted: Vec<Range<u64>> = changes
            .into_iter()
            .map(|range| range.start..range.end.min(self.length))
            .filter(|range| range.start < range.end)
            .collect();
        sorted.sort_unstable_by_key(|range| range.start);
        let mut merged: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        self.changes = Some(merged);
        self
    }
}

impl BlockSource for ImageSource {
    fn length(&self) -> u64 {
        self.length
    }

    fn extents(&self, from: u64, visit: &mut dyn FnMut(Extent) -> bool) -> io::Result<()> {
        let Some(changes) = &self.changes else {
            return sparse::extents(&self.file, from..self.length, visit).map(drop);
        };
        let mut at = from;
        let next = changes.partition_point(|range| range.end <= from);
        for change in changes.iter().skip(next) {
            if at < change.start && !visit(Extent::new(at, change.start - at, ExtentKind::Unchanged)) {
                return Ok(());
            }
            if !sparse::extents(&self.file, change.start.max(at)..change.end, visit)? {
                return Ok(());
            }
            at = change.end;
        }
        if at < self.length {
            visit(Extent::new(at, self.length - at, ExtentKind::Unchanged));
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

/// The length of a block device, of which metadata says nothing.
pub(crate) fn device_length(file: &File) -> io::Result<u64> {
    Ok(retry(|| seek(file, SeekFrom::End(0)))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn image(path: &Path) -> ImageSource {
        let file = File::create(path).unwrap();
        file.set_len(8 * MIB).unwrap();
        file.write_all_at(&[1; 4096], 2 * MIB).unwrap();
        ImageSource::open(path).unwrap()
    }

    fn extents(source: &ImageSource, from: u64) -> Vec<Extent> {
        let mut all = Vec::new();
        source
            .extents(from, &mut |extent| {
                all.push(extent);
                true
            })
            .unwrap();
        let mut at = from;
        for extent in &all {
            assert_eq!(extent.offset, at);
            at = extent.end();
        }
        assert_eq!(at, source.length().max(from));
        all
    }

    #[test]
    fn holes_and_changes_are_reported() {
        let here = tempfile::tempdir().unwrap();
        let source = image(&here.path().join("disk.img"));
        let kinds = |source: &ImageSource, from| extents(source, from).iter().map(|e| e.kind).collect::<Vec<_>>();
        use ExtentKind::{Data, Unchanged, Zero};
        assert_eq!(kinds(&source, 0), [Zero, Data, Zero]);
        assert_eq!(kinds(&source, 2 * MIB + 1), [Data, Zero]);
        assert_eq!(kinds(&source, 8 * MIB), []);
        let mut page = [0; 10];
        source.read_at(2 * MIB - 5, &mut page).unwrap();
        assert_eq!(page, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]);
        assert_eq!(source.read_at(8 * MIB - 5, &mut page).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);

        let source = source.with_changes([5 * MIB..6 * MIB, 2 * MIB..3 * MIB, 5 * MIB..5 * MIB, 9 * MIB..10 * MIB]);
        assert_eq!(kinds(&source, 0), [Unchanged, Data, Zero, Unchanged, Zero, Unchanged]);
        assert_eq!(kinds(&source, 5 * MIB + 7), [Zero, Unchanged]);
        assert_eq!(kinds(&source, 7 * MIB), [Unchanged]);
        let source = source.with_changes([0..2 * MIB, MIB..MIB + 1, 2 * MIB..u64::MAX]);
        assert_eq!(kinds(&source, 0), [Zero, Data, Zero], "touching ranges are one");
        assert_eq!(kinds(&source.with_changes([]), 0), [Unchanged]);
    }

    #[test]
    fn only_files_and_block_devices() {
        let here = tempfile::tempdir().unwrap();
        assert!(ImageSource::open(here.path()).is_err());
        assert!(ImageSource::open("/dev/null").is_err());
        assert!(ImageSource::open(here.path().join("missing")).is_err());
    }
}
