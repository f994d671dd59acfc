//! Where data comes from and where it goes: block sources, trees of files, and their sinks.
//!
//! Streams need no trait of their own: they are [`std::io::Read`] and [`std::io::Write`].

use std::io;

use crate::content::{Attributes, Entry, EntryKind, EntryPath};
use crate::extent::{Extent, ExtentKind};

/// Content of known length that can be read anywhere: a disk image, a snapshot, a large file.
///
/// Read from several threads at once.
pub trait BlockSource: Send + Sync {
    /// Length in bytes. Must not change while a backup runs.
    fn length(&self) -> u64;

    /// Reports what is known of the ranges from `from` to the end, in ascending order, without
    /// gaps and without overlaps, until `visit` returns `false`.
    ///
    /// The first extent reported must contain `from` (it may begin earlier). [`ExtentKind::Unchanged`]
    /// may be reported only where the backup's parent was named by its id
    /// ([`Parent::Backup`](crate::repository::Parent::Backup)) and is the one that the change map refers to.
    /// The default reports one [`ExtentKind::Data`] extent.
    ///
    /// # Errors
    ///
    /// Whatever keeps the source from knowing; the backup of this entry fails with it.
    fn extents(&self, from: u64, visit: &mut dyn FnMut(Extent) -> bool) -> io::Result<()> {
        let length = self.length();
        if from < length {
            visit(Extent::new(from, length.saturating_sub(from), ExtentKind::Data));
        }
        Ok(())
    }

    /// Fills `buffer` from `offset`. The engine never asks for bytes beyond [`length`](Self::length), but for one
    /// byte behind a [`FileContent`], to see whether it has grown.
    ///
    /// # Errors
    ///
    /// Whatever keeps the source from filling the whole buffer, as
    /// [`io::ErrorKind::UnexpectedEof`] where it ended early.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// Where restored content is written, in any order, from several threads at once.
///
/// Every byte of the content is either written once or covered by one hole.
pub trait BlockSink: Send + Sync {
    /// Content of `length` bytes will come: the time to refuse what does not fit, before anything is overwritten.
    /// Accepts everything unless implemented.
    ///
    /// # Errors
    ///
    /// As [`write_at`](Self::write_at).
    fn begin(&self, length: u64) -> io::Result<()> {
        let _ = length;
        Ok(())
    }

    /// Writes all of `data` at `offset`.
    ///
    /// # Errors
    ///
    /// Whatever keeps the target from taking it; the restore of this entry fails with it.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// The range must read as zeros. A target that is new and sparse need not do anything.
    ///
    /// # Errors
    ///
    /// As [`write_at`](Self::write_at).
    fn hole(&self, offset: u64, length: u64) -> io::Result<()>;

    /// Everything was written: make the target exactly `length` bytes long and durable as far as the
    /// target promises that.
    ///
    /// # Errors
    ///
    /// As [`write_at`](Self::write_at).
    fn finish(&self, length: u64) -> io::Result<()>;
}

/// A tree of files to back up, walked in the order of [`EntryPath`]: every directory directly before
/// its contents.
pub trait TreeSource {
    /// The paths at which the walk begins, where it knows them before it begins: the backup that each is compared
    /// with is chosen by its root. Empty where the walk has one root only, or its nodes stand at the top.
    fn roots(&self) -> Vec<EntryPath> {
        Vec::new()
    }

    /// The next node, or `None` after the last.
    ///
    /// A problem ends only the node that it names: it is recorded, the backup is marked incomplete,
    /// and the walk goes on.
    fn next_node(&mut self) -> Option<Result<TreeNode, TreeProblem>>;
}

impl<S: TreeSource + ?Sized> TreeSource for &mut S {
    fn roots(&self) -> Vec<EntryPath> {
        (**self).roots()
    }
    fn next_node(&mut self) -> Option<Result<TreeNode, TreeProblem>> {
        (**self).next_node()
    }
}

/// A node of a [`TreeSource`].
#[non_exhaustive]
pub struct TreeNode {
    /// Its path in the backup.
    pub path: EntryPath,
    /// What it is.
    pub kind: EntryKind,
    /// What the file system knows of it.
    pub attributes: Attributes,
    /// Expected length of the content: for progress and for telling unchanged files.
    pub size: u64,
    /// Opens the content; `None` for kinds without content.
    pub content: Option<Box<dyn OpenContent>>,
    /// The path of an earlier node of this walk that is the same file.
    pub hard_link: Option<EntryPath>,
}

impl TreeNode {
    /// A node without attributes and content.
    #[must_use]
    pub fn new(path: EntryPath, kind: EntryKind) -> Self {
        Self { path, kind, attributes: Attributes::default(), size: 0, content: None, hard_link: None }
    }
}

/// Opens the content of a [`TreeNode`], on any thread, at most once, perhaps never (where the parent
/// backup has the same file).
pub trait OpenContent: Send {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from being read: the node is left out, recorded, and the backup marked incomplete.
    fn open(self: Box<Self>) -> io::Result<Box<dyn FileContent>>;
}

impl<S: BlockSource + ?Sized> BlockSource for &S {
    fn length(&self) -> u64 {
        (**self).length()
    }
    fn extents(&self, from: u64, visit: &mut dyn FnMut(Extent) -> bool) -> io::Result<()> {
        (**self).extents(from, visit)
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset, buffer)
    }
}

/// Opened content of a file.
pub trait FileContent: BlockSource {
    /// Whether to cut it as a disk image (fixed chunks, read in parallel) or as a stream.
    fn is_image(&self) -> bool;

    /// Whether the file is still what it was when it was opened: length and times. Asked after the
    /// last byte was read.
    ///
    /// # Errors
    ///
    /// Whatever keeps that from being known; the entry is then marked inconsistent.
    fn is_unchanged(&self) -> io::Result<bool>;
}

/// Something of a [`TreeSource`] that could not be read.
#[derive(Debug)]
#[non_exhaustive]
pub struct TreeProblem {
    /// Its path, as people can read it.
    pub name: String,
    /// What happened.
    pub error: io::Error,
}

impl TreeProblem {
    /// A problem with the thing called `name`.
    #[must_use]
    pub fn new(name: impl Into<String>, error: io::Error) -> Self {
        Self { name: name.into(), error }
    }
}

/// Where a tree of entries is restored to.
///
/// `create` is called once an entry's directory was created; contents are then written from
/// several threads; `finish` follows when the content is complete; `complete` comes last.
pub trait TreeSink: Sync {
    /// Creates the entry. Returns where its content goes, `None` for kinds without content.
    ///
    /// With `hard_link`, the entry named there was restored by this sink before, and a link to it is
    /// wanted; nothing is returned then.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from being created; the restore records it and goes on with other entries.
    fn create(&self, entry: &Entry, hard_link: Option<&EntryPath>) -> io::Result<Option<Box<dyn BlockSink>>>;

    /// The content of `entry` is complete: apply its attributes.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    fn finish(&self, entry: &Entry, sink: Box<dyn BlockSink>) -> io::Result<()>;

    /// The content of `entry` could not be restored completely. What was written must not look like
    /// the whole: remove it or mark it.
    fn abandon(&self, entry: &Entry, sink: Box<dyn BlockSink>);

    /// Every entry was created: apply what had to wait (attributes of directories).
    /// Returns what failed, by path.
    fn complete(&self) -> Vec<(EntryPath, io::Error)>;
}
