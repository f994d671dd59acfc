//! What the threads of a session collect besides chunks.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::content::{EncodedEntry, EntrySorter};
use crate::error::Result;
use crate::progress::Event;
use crate::repository::backup::Problems;
use crate::repository::environment::Control;
use crate::repository::parallel::lock;
use crate::repository::write::store::ChunkStore;

/// What entries and amounts the threads of a session collect.
pub(crate) struct Collected {
    pub(crate) sorter: Mutex<EntrySorter>,
    pub(crate) problems: Mutex<Problems>,
    pub(crate) bytes_logical: AtomicU64,
    pub(crate) bytes_read: AtomicU64,
    pub(crate) bytes_unchanged: AtomicU64,
}

impl Collected {
    pub(crate) fn new(sorter: EntrySorter) -> Self {
        Self {
            sorter: Mutex::new(sorter),
            problems: Mutex::default(),
            bytes_logical: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
            bytes_unchanged: AtomicU64::new(0),
        }
    }

    pub(crate) fn insert(&self, size: u64, entry: EncodedEntry, store: &ChunkStore) -> Result<()> {
        self.bytes_logical.fetch_add(size, Ordering::Relaxed);
        lock(&self.sorter)?.push(entry, store)
    }

    /// Most entries that ever waited for the catalogue.
    #[cfg(test)]
    pub(crate) fn most_waiting(&self) -> usize {
        self.sorter.lock().unwrap().peak()
    }

    pub(crate) fn problem(&self, control: &Control, name: &str, message: &str) {
        control.event(&Event::Problem { name, message });
        if let Ok(mut problems) = self.problems.lock() {
            problems.record(name, message);
        }
    }

    pub(crate) fn read_bytes(&self, count: u64) {
        self.bytes_read.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn unchanged_bytes(&self, count: u64) {
        self.bytes_unchanged.fetch_add(count, Ordering::Relaxed);
    }
}
