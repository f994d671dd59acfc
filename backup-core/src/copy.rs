//! Copies of backups in other places (`docs/format.md`, "Copies").
//!
//! [`LockedRepository::copy_to`](crate::repository::LockedRepository::copy_to) needs no password: objects travel as
//! they are, each compared with the hash that is its name. [`Repository::copy_to`](crate::repository::Repository::copy_to)
//! reads backups and makes them anew in a repository with other keys.

mod anew;
mod arrivals;
mod keys;
mod objects;
mod options;
mod receipt;
mod reencrypt;
mod verbatim;

pub use self::options::CopyOptions;
pub use self::receipt::{CopiedBackup, CopyMethod, CopyReceipt, CopyStatus};
