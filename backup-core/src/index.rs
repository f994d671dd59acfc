//! Where every chunk is: the index in memory and its segments on storage.
//!
//! Index segments are hints: whatever they say is checked again when a chunk is read, and they can
//! be rebuilt from the directories of the packs.

mod filter;
mod map;
mod marks;
mod packs;
mod segment;
mod table;

pub(crate) use self::map::Index;
pub(crate) use self::marks::{Marked, Marks, Usage};
pub(crate) use self::segment::{Segment, SegmentBuilder};

use crate::compress::Codec;
use crate::id::ObjectName;
use crate::pack::ChunkKind;

/// Where a chunk is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Location {
    /// The pack.
    pub(crate) pack: ObjectName,
    /// Where the payload starts in the pack's body.
    pub(crate) offset: u32,
    /// Length of the payload.
    pub(crate) stored: u32,
    /// Length of the chunk.
    pub(crate) raw: u32,
    pub(crate) codec: Codec,
    pub(crate) kind: ChunkKind,
}
