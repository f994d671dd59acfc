//! What a backup holds: entries in a catalogue, and their contents as trees of chunk references.

mod builder;
mod catalogue;
mod cursor;
mod entry;
mod page;
mod path;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod properties;
mod tree;

pub use self::entry::{Attributes, Content, Entry, EntryKind};
pub use self::path::EntryPath;

pub(crate) use self::builder::{IMAGE_LEAF_CHUNKS, ImageContentBuilder, StreamContentBuilder};
#[cfg(test)]
pub(crate) use self::catalogue::WAITING;
pub(crate) use self::catalogue::{
    CatalogueBelow, CatalogueCursor, CatalogueEntries, CataloguePage, CatalogueReader, CatalogueRoot, EncodedEntry,
    EntrySorter,
};
pub(crate) use self::cursor::{ContentBelow, Leaves, Refs, content_below, walk_pages};
pub(crate) use self::entry::{ChunkRef, ContentRoot, PageRef};
pub(crate) use self::page::{PageSource, PageStore};
