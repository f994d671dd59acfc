//! Reading backups: chunks, pages, single entries, whole trees.

mod ahead;
mod blocks;
mod chunks;
mod entry_reader;
mod pages;
mod stream;
mod tree;

pub(crate) use self::chunks::Fetcher;
pub use self::entry_reader::EntryReader;
pub(crate) use self::pages::ReadCache;
pub(crate) use self::stream::{Decoded, for_each_in_order};
pub use self::tree::{RestoreReport, Selection};
