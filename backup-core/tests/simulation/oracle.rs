//! What was promised to whom.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use backup_core::id::BackupId;

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
    /// Those that somebody began to forget.
    forgotten: BTreeSet<BackupId>,
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

    pub(crate) fn forgets(&self, id: BackupId) {
        self.with(|known| known.forgotten.insert(id));
    }

    pub(crate) fn is_forgotten(&self, id: &BackupId) -> bool {
        self.with(|known| known.forgotten.contains(id))
    }

    /// Backups that must be there.
    pub(crate) fn due(&self) -> Vec<BackupId> {
        self.with(|known| known.acknowledged.keys().filter(|id| !known.forgotten.contains(*id)).copied().collect())
    }

    pub(crate) fn acknowledged_count(&self) -> u64 {
        self.with(|known| known.acknowledged.len() as u64)
    }

    pub(crate) fn forgotten_count(&self) -> u64 {
        self.with(|known| known.forgotten.len() as u64)
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
