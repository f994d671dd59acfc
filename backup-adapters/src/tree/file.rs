//! The content of a file in a tree: opened late, read anywhere, watched for changes.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::sync::Arc;

use backup_core::extent::{Extent, ExtentKind};
use backup_core::source::{BlockSource, FileContent, OpenContent};
use rustix::fs::OFlags;

use super::selection::Selection;
use crate::directory::Directory;
use crate::image::device_length;
use crate::sparse;

/// Larger files with holes are read as disk images.
const SPARSE_IMAGE: u64 = 16 << 20;

/// A file that was seen in a directory and not opened yet.
///
/// Only those that are opened soon hold their directory open, so that any number of them may wait.
pub(super) struct SeenFile {
    /// The directory that it stands in, where that is still open.
    pub(super) parent: Option<Arc<Directory>>,
    /// The directory in which the walk began.
    pub(super) base: Arc<Directory>,
    /// The path from there.
    pub(super) components: Vec<Vec<u8>>,
    pub(super) identity: (u64, u64),
    pub(super) selection: Arc<Selection>,
}

impl OpenContent for SeenFile {
    fn open(self: Box<Self>) -> io::Result<Box<dyn FileContent>> {
        let Some((name, parents)) = self.components.split_last() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let directory = match self.parent {
            Some(parent) => parent,
            None => Arc::new(open_below(&self.base, parents)?),
        };
        let file = directory.open_file(name, OFlags::RDONLY)?;
        let metadata = file.metadata()?;
        let is_device = metadata.file_type().is_block_device();
        if !metadata.is_file() && !is_device {
            return Err(io::Error::other("it is no longer a file"));
        }
        let length = if is_device { device_length(&file)? } else { metadata.len() };
        let may_have_holes = metadata.blocks().saturating_mul(512) < length;
        let is_image = is_device
            || self.selection.has_image_extension(name)
            || (length > SPARSE_IMAGE && may_have_holes && sparse::has_hole(&file, length));
        Ok(Box::new(OpenFile {
            length,
            is_image,
            may_have_holes: may_have_holes || is_image,
            // Another file has taken its name: its attributes were those of the first.
            is_replaced: (metadata.dev(), metadata.ino()) != self.identity,
            state: State::of(&metadata),
            is_device,
            file,
        }))
    }
}

/// Opens the directory that lies below `base`, without following links.
pub(super) fn open_below(base: &Directory, components: &[Vec<u8>]) -> io::Result<Directory> {
    base.below(&components.join(&b'/'))
}

struct OpenFile {
    file: File,
    length: u64,
    is_image: bool,
    is_device: bool,
    may_have_holes: bool,
    is_replaced: bool,
    state: State,
}

/// What changes when a file is written to.
#[derive(PartialEq, Eq)]
struct State {
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl State {
    fn of(metadata: &Metadata) -> Self {
        Self {
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl BlockSource for OpenFile {
    fn length(&self) -> u64 {
        self.length
    }

    fn extents(&self, from: u64, visit: &mut dyn FnMut(Extent) -> bool) -> io::Result<()> {
        if self.may_have_holes {
            sparse::extents(&self.file, from..self.length, visit)?;
        } else if from < self.length {
            visit(Extent::new(from, self.length - from, ExtentKind::Data));
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

impl FileContent for OpenFile {
    fn is_image(&self) -> bool {
        self.is_image
    }

    /// A block device has no times that tell of writes; it is taken as unchanged.
    fn is_unchanged(&self) -> io::Result<bool> {
        let is_same = self.is_device || State::of(&self.file.metadata()?) == self.state;
        Ok(is_same && !self.is_replaced)
    }
}
