//! Reading backups: chunks, pages, single entries, whole trees.

mod ahead;
mod blocks;
mod chunks;
mod entry_reader;
mod pages;
mod plan;
mod stream;
mod tree;

pub(crate) use self::chunks::{Fetcher, Wanted, unknown_chunk};
pub use self::entry_reader::EntryReader;
pub(crate) use self::pages::{IndexedPages, ReadCache};
pub use self::plan::{Planned, RestorePlan, ShardReport};
pub(crate) use self::stream::{Decoded, for_each_in_order};
pub use self::tree::{RestoreReport, Selection};

use crate::content::Entry;
use crate::error::{Error, Result};

/// Refuses an entry whose content is another's: its own is empty, which would be taken for it.
pub(crate) fn refuse_link(entry: &Entry) -> Result<()> {
    match &entry.hard_link {
        None => Ok(()),
        Some(target) => Err(Error::invalid(
            format!("entry {}", entry.path),
            format!("it is a hard link to {target}, which has the content"),
        )),
    }
}
