//! Status and sizes of a repository.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::id::{RepositoryId, SessionId};
use crate::length::to_u64;
use crate::repository::backup::{Backup, UnreadableBackup};
use crate::repository::environment::Control;
use crate::repository::handle::Repository;
use crate::repository::list::unreadable;
use crate::storage::list_all;

/// The state of a repository now.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct RepositoryStatus {
    /// Its id.
    pub id: RepositoryId,
    /// Whether it cannot be written.
    pub read_only: bool,
    /// Free bytes of the storage, where it knows.
    pub free_bytes: Option<u64>,
    /// Number of backups.
    pub backups: u64,
    /// The newest backup; `None` where there is none, or where it cannot be opened.
    pub newest: Option<Backup>,
    /// The newest backup where it cannot be opened.
    pub newest_unreadable: Option<UnreadableBackup>,
    /// Sessions that run now, or ended without a backup: nothing tells these apart but time.
    pub unfinished_sessions: Vec<UnfinishedSession>,
    /// Number of the keyring in use.
    pub keyring: u32,
    /// Generation of the newest root key.
    pub root_key_generation: u32,
}

/// A session without an outcome.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct UnfinishedSession {
    /// Its id.
    pub session: SessionId,
    /// Its collection generation.
    pub generation: u32,
}

/// Sizes of a repository.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct RepositoryStatistics {
    /// Number of backups.
    pub backups: u64,
    /// Those among them that cannot be opened, and whose content is not counted.
    pub unreadable_backups: Vec<UnreadableBackup>,
    /// Bytes of content of all backups together, holes included.
    pub logical_bytes: u64,
    /// Bytes of distinct chunks before compression.
    pub unique_bytes: u64,
    /// Bytes of all objects on the storage.
    pub stored_bytes: u64,
    /// Objects on the storage.
    pub objects: u64,
    /// Packs that the index names.
    pub packs: u64,
    /// Places of chunks in the index.
    pub chunks: u64,
    /// Logical bytes for each unique byte; 0 where there is nothing.
    pub dedup_ratio: f64,
    /// Unique bytes for each stored byte; 0 where there is nothing.
    pub compression_ratio: f64,
    /// Memory that the index takes, in bytes.
    pub index_memory_bytes: u64,
}

impl Repository {
    /// The state of the repository now.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`].
    pub fn status(&self) -> Result<RepositoryStatus> {
        let history = self.inner.history(&Control::waiting())?;
        let order = history.in_order();
        let newest = order.last().map(|commit| (*commit, self.inner.read_backup(commit, &Control::default())));
        let (newest, newest_unreadable) = match newest {
            None => (None, None),
            Some((_, Ok(backup))) => (Some(backup), None),
            Some((commit, Err(error))) => (None, Some(unreadable(commit, &error))),
        };
        let unfinished =
            |(generation, session): &(u32, SessionId)| UnfinishedSession { session: *session, generation: *generation };
        Ok(RepositoryStatus {
            id: self.id(),
            read_only: self.is_read_only(),
            free_bytes: self.inner.storage.capabilities().free_bytes,
            backups: to_u64(order.len()),
            newest,
            newest_unreadable,
            unfinished_sessions: history.unfinished.iter().map(unfinished).collect(),
            keyring: self.inner.keyring_number,
            root_key_generation: self.inner.generation,
        })
    }

    /// Sizes of the repository.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`]; [`Error::Damaged`] where the index cannot be read.
    pub fn statistics(&self) -> Result<RepositoryStatistics> {
        let inner = &self.inner;
        let history = inner.history(&Control::waiting())?;
        let (mut unreadable_backups, mut logical_bytes) = (Vec::new(), 0u64);
        for backup in self.listed(&history)? {
            match backup {
                Ok(backup) => logical_bytes = logical_bytes.saturating_add(backup.statistics.bytes_logical),
                Err(backup) => unreadable_backups.push(backup),
            }
        }
        let index = inner.index(&Control::default())?;
        let objects = list_all(&*inner.storage, "").map_err(|source| Error::list("", source))?;
        let stored_bytes = objects.iter().fold(0u64, |sum, object| sum.saturating_add(object.size));
        let unique_bytes = index.raw_bytes();
        Ok(RepositoryStatistics {
            backups: to_u64(history.commits.len()),
            unreadable_backups,
            logical_bytes,
            unique_bytes,
            stored_bytes,
            objects: to_u64(objects.len()),
            packs: to_u64(index.packs().len()),
            chunks: index.chunk_count(),
            dedup_ratio: ratio(logical_bytes, unique_bytes),
            compression_ratio: ratio(unique_bytes, stored_bytes),
            index_memory_bytes: index.memory_bytes(),
        })
    }
}

/// A ratio for people, to three digits.
#[expect(clippy::arithmetic_side_effects, reason = "the denominator is not zero")]
fn ratio(numerator: u64, denominator: u64) -> f64 {
    if denominator == 0 {
        return 0.0;
    }
    let thousandths = u128::from(numerator).saturating_mul(1000) / u128::from(denominator);
    u32::try_from(thousandths).map_or(f64::INFINITY, f64::from) / 1000.0
}
