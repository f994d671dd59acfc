//! [`LimitedStorage`]: a storage that is used no faster than allowed.

use std::ops::Range;
use std::sync::Arc;

use backup_core::storage::{Capabilities, Key, ListPage, ObjectInfo, PutMode, Storage, StorageError};
use bytes::Bytes;

use super::Limits;

/// `inner`, used no faster than [`Limits`] allow. Listings and deletions are not counted.
#[derive(Debug)]
pub struct LimitedStorage<S> {
    inner: S,
    limits: Arc<Limits>,
}

impl<S: Storage> LimitedStorage<S> {
    /// `inner` with `limits`.
    pub const fn new(inner: S, limits: Arc<Limits>) -> Self {
        Self { inner, limits }
    }
}

impl<S: Storage> Storage for LimitedStorage<S> {
    fn put(&self, key: &Key, bytes: Bytes, mode: PutMode) -> Result<(), StorageError> {
        self.limits.wait_to_send(bytes.len());
        self.inner.put(key, bytes, mode)
    }

    fn get(&self, key: &Key, limit: u64) -> Result<Bytes, StorageError> {
        let bytes = self.inner.get(key, limit)?;
        self.limits.wait_for_fetched(bytes.len());
        Ok(bytes)
    }

    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StorageError> {
        let bytes = self.inner.get_range(key, range)?;
        self.limits.wait_for_fetched(bytes.len());
        Ok(bytes)
    }

    fn stat(&self, key: &Key) -> Result<ObjectInfo, StorageError> {
        self.inner.stat(key)
    }

    fn list(&self, prefix: &str, after: Option<&Key>) -> Result<ListPage, StorageError> {
        self.inner.list(prefix, after)
    }

    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.inner.delete(key)
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}

#[cfg(test)]
mod tests {
    use backup_core::storage::{MemoryStorage, conformance};

    use super::*;
    use crate::limits::rate::tests::limits;

    #[test]
    fn it_conforms() {
        conformance::run(&|| Box::new(LimitedStorage::new(MemoryStorage::new(), Arc::new(Limits::new())))).unwrap();
    }

    #[test]
    fn sending_and_fetching_take_their_time() {
        let (time, limits) = limits();
        let storage = LimitedStorage::new(MemoryStorage::new(), Arc::clone(&limits));
        let key = Key::new("a").unwrap();
        limits.set_upload(1000);
        limits.set_download(2000);
        storage.put(&key, Bytes::from(vec![0; 10_000]), PutMode::Create).unwrap();
        let sent = time.seconds();
        assert!((9.5..=10.1).contains(&sent), "{sent}");
        storage.get(&key, 10_000).unwrap();
        storage.get_range(&key, 0..6_000).unwrap();
        let fetched = time.seconds() - sent;
        assert!((7.5..=8.1).contains(&fetched), "{fetched}");
    }
}
