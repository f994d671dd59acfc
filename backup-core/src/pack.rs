//! Packs: many chunks in one object (`docs/format.md`, "Packs").
//!
//! ```text
//! "PKB1" | count LE32 | zero 8 | count x 44-byte entries | payloads in the same order
//! entry: id 32 | stored LE32 | raw LE32 | codec 1 | kind 1 | zero 2
//! ```
//!
//! No offsets are stored, so payloads cannot overlap. Sealing and padding belong to the object layer.

mod builder;
mod directory;

pub(crate) use self::builder::PackBuilder;
pub(crate) use self::directory::{Directory, HEADER_LENGTH};

use crate::compress::Codec;
use crate::id::ChunkId;

/// What a chunk holds. Ids of the two kinds come from different keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum ChunkKind {
    /// Content.
    Data = 0,
    /// A page of a tree.
    Meta = 1,
}

impl ChunkKind {
    /// From its number in the format.
    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Data),
            1 => Some(Self::Meta),
            _ => None,
        }
    }

    /// Its number in the format.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Meta => 1,
        }
    }
}

/// A chunk in a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackEntry {
    pub(crate) id: ChunkId,
    /// Where the payload starts in the pack's body.
    pub(crate) offset: u32,
    /// Length of the payload, never 0.
    pub(crate) stored: u32,
    /// Length of the chunk itself, never 0.
    pub(crate) raw: u32,
    pub(crate) codec: Codec,
    pub(crate) kind: ChunkKind,
}

/// The rule that the lengths of a chunk break, if any. The same for packs and for the index.
pub(crate) fn length_fault(codec: Codec, stored: u32, raw: u32) -> Option<&'static str> {
    if raw == 0 || stored == 0 {
        return Some("a chunk is empty");
    }
    if raw > crate::limits::CHUNK {
        return Some("a chunk is longer than 16 MiB");
    }
    match codec {
        Codec::Raw if stored != raw => Some("a chunk stored raw has two lengths"),
        Codec::Zstd if stored >= raw => Some("a compressed chunk is not shorter than its content"),
        Codec::Raw | Codec::Zstd => None,
    }
}
