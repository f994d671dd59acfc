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
mod tree;

#[cfg(test)]
mod tests;

pub use self::options::{BackupOptions, Parent};
pub use self::session::BackupSession;
pub use self::stream::StreamWriter;
