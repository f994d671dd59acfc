//! Entries: what a backup holds, one by one.

use crate::content::path::EntryPath;
use crate::id::{ChunkId, Digest};
use crate::time::Timestamp;

/// One thing in a backup: a file, a stream, a disk image, a directory, a link.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Where it stands in the backup; unique.
    pub path: EntryPath,
    /// What it is.
    pub kind: EntryKind,
    /// What a file system knows of it beside its content.
    pub attributes: Attributes,
    /// Its content; empty for kinds without content.
    pub content: Content,
    /// BLAKE3 of the whole content, where it was computed from the bytes as they were read: streams
    /// and files. Disk images have none; their content root is a Merkle digest (`docs/format.md`,
    /// "Content").
    pub digest: Option<Digest>,
    /// The path of an earlier entry that is the same file (a hard link). The content is that
    /// entry's; `content` here is empty.
    pub hard_link: Option<EntryPath>,
    /// The content changed or ended early while it was read: it is a mixture of states.
    pub inconsistent: bool,
}

impl Entry {
    /// An entry without content and attributes.
    #[must_use]
    pub fn new(path: EntryPath, kind: EntryKind) -> Self {
        Self {
            path,
            kind,
            attributes: Attributes::default(),
            content: Content::default(),
            digest: None,
            hard_link: None,
            inconsistent: false,
        }
    }

    /// Length of the content in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.content.length
    }
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link and the bytes it points to, never followed.
    Symlink {
        /// The link's text.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A character device.
    CharacterDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device as a node of the file system (its content is not part of the entry).
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A stream: the output of a command, a pipe, bytes pushed by a program.
    Stream,
    /// A disk image or other block source.
    Disk,
}

impl EntryKind {
    /// A stable name in lower case with hyphens.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Symlink { .. } => "symlink",
            Self::Fifo => "fifo",
            Self::CharacterDevice { .. } => "character-device",
            Self::BlockDevice { .. } => "block-device",
            Self::Stream => "stream",
            Self::Disk => "disk",
        }
    }

    /// Whether entries of this kind have content.
    #[must_use]
    pub const fn has_content(&self) -> bool {
        matches!(self, Self::File | Self::Stream | Self::Disk)
    }
}

/// What a file system knows of an entry beside its content. Everything is optional: streams have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attributes {
    /// Unix permission bits with set-uid, set-gid and sticky (`0o7777`).
    pub mode: Option<u32>,
    /// Owner's number.
    pub uid: Option<u32>,
    /// Group's number.
    pub gid: Option<u32>,
    /// Owner's name, where it was known.
    pub user: Option<String>,
    /// Group's name, where it was known.
    pub group: Option<String>,
    /// Last change of the content.
    pub modified: Option<Timestamp>,
    /// Last change of the inode; with `inode` and size tells whether a file must be read again.
    pub changed: Option<Timestamp>,
    /// Inode number.
    pub inode: Option<u64>,
    /// Extended attributes (name, value), ascending by name.
    pub extended: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The content of an entry: its length and where its chunk references are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Length in bytes, holes included.
    pub length: u64,
    /// The references.
    pub(crate) root: ContentRoot,
}

/// References of a content: few are kept in the entry itself, many in a tree of pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ContentRoot {
    /// In order; their lengths add up to the content's length.
    Inline(Vec<ChunkRef>),
    /// A tree: `height` 1 is a leaf page.
    Tree {
        /// Levels of pages.
        height: u8,
        /// The topmost page.
        page: PageRef,
    },
}

impl Default for ContentRoot {
    fn default() -> Self {
        Self::Inline(Vec::new())
    }
}

/// A page: a metadata chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PageRef {
    pub(crate) id: ChunkId,
    /// Plaintext length of the page.
    pub(crate) length: u32,
}

/// A piece of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChunkRef {
    /// A stored chunk.
    Data {
        id: ChunkId,
        /// Plaintext length, never 0.
        length: u32,
    },
    /// Zeros that are not stored.
    Hole {
        /// Length, never 0.
        length: u64,
    },
}

impl ChunkRef {
    /// Bytes of content that this reference covers.
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Data { length, .. } => u64::from(*length),
            Self::Hole { length } => *length,
        }
    }
}
