//! What to repack, what that would do, and what it did, as values.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::id::BackupId;
use crate::maintenance::plan::PackAmount;
use crate::repository::Problem;

/// Which packs are stored anew.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RepackOptions {
    /// Packs of whose chunks backups need less than this share, in percent of their stored bytes: 1 to 100. 50 by default.
    pub below_percent: u8,
    /// Most bytes of chunks to store anew at a time, as they are stored. The packs with the smallest shares come first. 64 GiB by default.
    pub max_bytes: u64,
}

impl Default for RepackOptions {
    fn default() -> Self {
        Self { below_percent: 50, max_bytes: 64 << 30 }
    }
}

impl RepackOptions {
    /// Sets the share.
    #[must_use]
    pub const fn with_below_percent(mut self, percent: u8) -> Self {
        self.below_percent = percent;
        self
    }

    /// Sets the most bytes.
    #[must_use]
    pub const fn with_max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        match self.below_percent {
            1..=100 => Ok(()),
            other => Err(Error::invalid("share of a pack", format!("{other} is not 1 to 100 percent"))),
        }
    }
}

/// What a repacking would do now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RepackPlan {
    /// Packs that backups need.
    pub needed: PackAmount,
    /// Those among them that would be replaced.
    pub replaced: PackAmount,
    /// Chunks of them that backups need, and that would be stored anew.
    pub chunks: u64,
    /// Their bytes, as they are stored.
    pub chunk_bytes: u64,
    /// Packs that would be replaced as well, were it not for the most bytes at a time.
    pub later: PackAmount,
    /// Backups that would get new commits.
    pub backups: u64,
    /// What cannot be read. What it may need stays as it is.
    pub problems: Vec<Problem>,
}

/// A backup that got a new commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RepackedBackup {
    /// The id that it is shown by now.
    pub id: BackupId,
    /// The id that it was shown by before, which still finds it.
    pub earlier: BackupId,
}

/// What a repacking did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RepackReport {
    /// Packs that were replaced: the next collection deletes those that nobody needs who came meanwhile.
    pub replaced: PackAmount,
    /// Packs that were written.
    pub written: PackAmount,
    /// Chunks that were stored anew.
    pub chunks: u64,
    /// Backups that got new commits, oldest first.
    pub backups: Vec<RepackedBackup>,
    /// What kept packs or backups as they are: damage, or others who were at work. The next repacking tries again.
    pub problems: Vec<Problem>,
}
