//! The engine: one operation a file.
//!
//! A [`LockedRepository`] is opened without a password and can be listed and checked. Unlocked it
//! becomes a [`Repository`], which backs up ([`Repository::begin`]), restores and verifies.

mod backup;
mod compare;
mod differences;
mod environment;
mod handle;
mod init;
mod keys;
mod list;
mod locked;
mod parallel;
#[cfg(test)]
// Beside and not in the module, which `tests/interleavings.rs` compiles with other primitives.
#[path = "repository/parallel/tests.rs"]
mod parallel_tests;
mod read;
mod shard;
mod statistics;
mod verify;
mod view;
mod write;

pub(crate) use self::backup::error_chain;
pub use self::backup::{Backup, BackupKind, BackupStatistics, Origin, Problem, UnreadableBackup};
pub use self::compare::CompareReport;
pub use self::differences::{Change, Difference};
pub use self::environment::{Control, Environment};
pub use self::handle::Repository;
pub(crate) use self::handle::{Inner, read_error};
pub use self::init::InitOptions;
pub(crate) use self::init::{check_no_remains, put_config};
pub use self::list::Entries;
pub(crate) use self::locked::lost_records;
pub use self::locked::{CommitSummary, LockedRepository, UnlockOptions};
pub(crate) use self::parallel::{POISONED, each, for_each, lock};
pub(crate) use self::read::IndexedPages;
pub use self::read::{EntryReader, Planned, RestorePlan, RestoreReport, Selection, ShardReport};
pub use self::shard::Shard;
pub use self::statistics::{RepositoryStatistics, RepositoryStatus, UnfinishedSession};
pub use self::verify::{
    AffectedEntry, Finding, FindingKind, IncompleteBackup, Share, VerificationLedger, VerifyLevel, VerifyOptions,
    VerifyReport,
};
pub(crate) use self::verify::{NamedObject, Site, arrived, read_closure};
pub(crate) use self::view::{Failing, pack_reader, read_directory, supplement};
pub(crate) use self::write::ChunkStore;
pub use self::write::{BackupOptions, BackupSession, Parent, StreamWriter};
pub(crate) use self::write::{Earlier, Inherited, source_of};
pub use crate::format::{ChunkingParameters, Padding};
