//! What a backup holds: entries in a catalogue, and their contents as trees of chunk references.

mod entry;
mod path;

pub use self::entry::{Attributes, Content, Entry, EntryKind};
pub(crate) use self::entry::{ChunkRef, ContentRoot, PageRef};
pub use self::path::EntryPath;
