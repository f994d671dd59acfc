//! What was promised to whom.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use backup_core::id::BackupId;
use backup_core::repository::Backup;

use crate::support::noise;

/// The blocks of a backup's content, by number: backups share them.
pub(crate) type Blocks = Vec<u64>;

#[derive(Default)]
struct Known {
    /// What every backup holds that somebody tried to make, by the host that it names.
    contents: BTreeMap<String, Blocks>,
    acknowledged: BTreeMap<BackupId, String>,
    /// Those whose makers were told that they do not exist.
    refused: BTreeSet<String>,
    /// Those that somebody began to forget, by every id that they had then.
    forgotten: BTreeSet<BackupId>,
    forgotten_count: u64,
    /// Those of them whose forgetting came to its end.
    gone: BTreeSet<BackupId>,
    /// Backups that got new commits.
    repacked: u64,
}

/// Every id that a backup has or had.
pub(crate) fn ids(backup: &Backup) -> impl Iterator<Item = &BackupId> {
    backup.replaces.iter().chain([&backup.id])
}

#[derive(Default)]
pub(crate) struct Oracle(Mutex<Known>);

impl Oracle {
    fn with<T>(&self, run: impl FnOnce(&mut Known) -> T) -> T {
        run(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    pub(crate) fn begins(&self, host: &str, blocks: Blocks) {
        self.with(|known| known.contents.insert(host.to_owned(), blocks));
    }

    pub(crate) fn acknowledged(&self, host: &str, id: BackupId) {
        self.with(|known| known.acknowledged.insert(id, host.to_owned()));
    }

    pub(crate) fn refused(&self, host: &str) {
        self.with(|known| known.refused.insert(host.to_owned()));
    }

    pub(crate) fn forgets(&self, backup: &Backup) {
        self.with(|known| {
            known.forgotten_count += u64::from(!ids(backup).any(|id| known.forgotten.contains(id)));
            known.forgotten.extend(ids(backup));
        });
    }

    pub(crate) fn is_forgotten(&self, backup: &Backup) -> bool {
        self.with(|known| ids(backup).any(|id| known.forgotten.contains(id)))
    }

    pub(crate) fn was_forgotten(&self, backup: &Backup) {
        self.with(|known| known.gone.extend(ids(backup)));
    }

    /// Whether it must not be shown any more.
    pub(crate) fn is_gone(&self, backup: &Backup) -> bool {
        self.with(|known| ids(backup).any(|id| known.gone.contains(id)))
    }

    pub(crate) fn repacked(&self, count: usize) {
        self.with(|known| known.repacked += count as u64);
    }

    pub(crate) fn repacked_count(&self) -> u64 {
        self.with(|known| known.repacked)
    }

    pub(crate) fn is_due(&self, id: &BackupId) -> bool {
        self.with(|known| !known.forgotten.contains(id))
    }

    /// Backups that must be there.
    pub(crate) fn due(&self) -> Vec<BackupId> {
        self.with(|known| known.acknowledged.keys().filter(|id| !known.forgotten.contains(*id)).copied().collect())
    }

    pub(crate) fn acknowledged_count(&self) -> u64 {
        self.with(|known| known.acknowledged.len() as u64)
    }

    pub(crate) fn forgotten_count(&self) -> u64 {
        self.with(|known| known.forgotten_count)
    }

    /// What a backup that is shown must hold. One that was refused may not be shown.
    pub(crate) fn content(&self, host: &str) -> Vec<u8> {
        self.with(|known| {
            assert!(!known.refused.contains(host), "{host} is shown, though its maker was told that it is not there");
            bytes_of(&known.contents[host])
        })
    }
}

pub(crate) fn bytes_of(blocks: &[u64]) -> Vec<u8> {
    blocks.iter().flat_map(|block| noise(*block, 20_000)).collect()
}
