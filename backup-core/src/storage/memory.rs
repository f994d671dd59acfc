//! A storage in memory.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;

use crate::length::to_u64;
use crate::storage::{Capabilities, Key, ListPage, ObjectInfo, PutMode, Storage, StorageError};

/// A storage in memory: for tests, examples and small caches.
///
/// Share it as [`Arc`](std::sync::Arc)`<MemoryStorage>`. A clone is an independent storage with the
/// same objects (their bytes are shared): a test keeps one as the state before a step.
#[derive(Debug)]
pub struct MemoryStorage {
    objects: RwLock<BTreeMap<Key, Bytes>>,
    page_size: usize,
}

impl MemoryStorage {
    /// Objects in a page of a listing, unless [`with_page_size`](Self::with_page_size) says otherwise.
    pub const DEFAULT_PAGE_SIZE: usize = 1000;

    /// An empty storage.
    #[must_use]
    pub fn new() -> Self {
        Self::from_objects(BTreeMap::new())
    }

    /// A storage that holds `objects`.
    #[must_use]
    pub fn from_objects(objects: BTreeMap<Key, Bytes>) -> Self {
        Self { objects: RwLock::new(objects), page_size: Self::DEFAULT_PAGE_SIZE }
    }

    /// Pages of at most `objects` objects (at least 1), so that tests meet the second page.
    #[must_use]
    pub fn with_page_size(mut self, objects: usize) -> Self {
        self.page_size = objects.max(1);
        self
    }

    /// Every object as it is now.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<Key, Bytes> {
        self.read().clone()
    }

    /// Replaces everything by `objects`: back to an earlier [`snapshot`](Self::snapshot).
    pub fn restore(&self, objects: BTreeMap<Key, Bytes>) {
        *self.write() = objects;
    }

    // A panic elsewhere cannot leave the map half changed: every change of it is one call.
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Key, Bytes>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<Key, Bytes>> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn object(&self, key: &Key) -> Result<Bytes, StorageError> {
        self.read().get(key).cloned().ok_or(StorageError::NotFound)
    }
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl Clone for MemoryStorage {
    fn clone(&self) -> Self {
        Self { objects: RwLock::new(self.snapshot()), page_size: self.page_size }
    }
}

impl Storage for MemoryStorage {
    fn put(&self, key: &Key, bytes: Bytes, mode: PutMode) -> Result<(), StorageError> {
        let mut objects = self.write();
        if mode == PutMode::Create && objects.contains_key(key) {
            return Err(StorageError::AlreadyExists);
        }
        objects.insert(key.clone(), bytes);
        Ok(())
    }

    fn get(&self, key: &Key, limit: u64) -> Result<Bytes, StorageError> {
        let bytes = self.object(key)?;
        let size = to_u64(bytes.len());
        if size > limit {
            return Err(StorageError::TooLarge { size, limit });
        }
        Ok(bytes)
    }

    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StorageError> {
        let bytes = self.object(key)?;
        let out_of_range = StorageError::OutOfRange { size: to_u64(bytes.len()) };
        let (Ok(start), Ok(end)) = (usize::try_from(range.start), usize::try_from(range.end)) else {
            return Err(out_of_range);
        };
        if start > end || end > bytes.len() {
            return Err(out_of_range);
        }
        Ok(bytes.slice(start..end))
    }

    fn stat(&self, key: &Key) -> Result<ObjectInfo, StorageError> {
        self.object(key).map(|bytes| ObjectInfo::new(key.clone(), to_u64(bytes.len())))
    }

    fn list(&self, prefix: &str, after: Option<&Key>) -> Result<ListPage, StorageError> {
        let start = match after {
            Some(key) if key.as_str() >= prefix => Bound::Excluded(key.as_str()),
            _ => Bound::Included(prefix),
        };
        let objects = self.read();
        let mut matching = objects
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.as_str().starts_with(prefix))
            .map(|(key, bytes)| ObjectInfo::new(key.clone(), to_u64(bytes.len())));
        let page = matching.by_ref().take(self.page_size).collect();
        Ok(ListPage::new(page, matching.next().is_some()))
    }

    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.write().remove(key);
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{conformance, list_all};

    #[test]
    fn conforms_with_every_page_size() {
        for page_size in [0, 1, 2, 3, 7, 1000] {
            conformance::run(&|| Box::new(MemoryStorage::new().with_page_size(page_size))).unwrap();
        }
    }

    #[test]
    fn clones_and_snapshots_are_independent() {
        let storage = MemoryStorage::new();
        let key = Key::new("a").unwrap();
        storage.put(&key, Bytes::from_static(b"1"), PutMode::Create).unwrap();
        let (clone, snapshot) = (storage.clone(), storage.snapshot());
        storage.put(&key, Bytes::from_static(b"2"), PutMode::Overwrite).unwrap();
        assert_eq!(clone.get(&key, 9).unwrap(), "1");
        assert_eq!(MemoryStorage::from_objects(snapshot.clone()).get(&key, 9).unwrap(), "1");
        storage.restore(snapshot);
        assert_eq!(storage.get(&key, 9).unwrap(), "1");
        assert_eq!(list_all(&storage, "").unwrap().len(), 1);
    }

    #[test]
    fn reversed_ranges_are_errors() {
        let storage = MemoryStorage::new();
        let key = Key::new("a").unwrap();
        storage.put(&key, Bytes::from_static(b"12345"), PutMode::Create).unwrap();
        let reversed = Range { start: 3, end: 2 };
        assert!(matches!(storage.get_range(&key, reversed), Err(StorageError::OutOfRange { size: 5 })));
    }
}
