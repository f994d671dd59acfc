//! Making backups.

mod assembler;
mod blocks;
mod hard_links;
mod read_at;
mod session;
mod store;
mod stream;
mod tree;

#[cfg(test)]
mod tests;

pub use self::session::{BackupOptions, BackupSession, Parent};
pub use self::stream::StreamWriter;
