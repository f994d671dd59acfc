//! Copies of backups in other places (`docs/format.md`, "Copies").
//!
//! [`LockedRepository::copy_to`](crate::repository::LockedRepository::copy_to) needs no password: objects travel as
//! they are, each compared with the hash that is its name.

mod keys;
mod objects;
mod options;
mod receipt;
mod verbatim;

pub use self::options::CopyOptions;
pub use self::receipt::{CopiedBackup, CopyMethod, CopyReceipt, CopyStatus};
