//! Portable archives: backups in one file that mends itself (`docs/format.md`, "Portable archive").
//!
//! [`export`] writes the encrypted objects of backups to any [`Write`](std::io::Write), verbatim, in blocks with
//! error correction. [`ArchiveStorage`] is a storage over such a file, so that a repository is opened and restored from it
//! as from any other. [`check`] says what is damaged and how much protection is left, [`repair`] writes the file
//! anew as it was. None of them needs the password.

mod block;
mod blocks;
mod check;
mod contents;
mod export;
mod geometry;
mod layout;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod properties;
mod record;
mod repair;
mod scan;
mod storage;
mod writer;

#[cfg(test)]
mod tests;

pub use self::check::{ArchiveReport, check};
pub use self::export::{ExportOptions, ExportReport, export};
pub use self::geometry::Profile;
pub use self::repair::{RepairReport, repair};
pub use self::storage::ArchiveStorage;
