//! Making backups.

mod assembler;
mod blocks;
mod collected;
mod gate;
mod hard_links;
mod options;
mod parent;
mod read_at;
mod session;
mod store;
mod stream;
mod transfer;
mod tree;

#[cfg(test)]
mod tests;

pub use self::options::{BackupOptions, Parent};
pub use self::session::BackupSession;
pub(crate) use self::session::Inherited;
pub(crate) use self::store::ChunkStore;
pub use self::stream::StreamWriter;
pub(crate) use self::transfer::{Earlier, source_of};
