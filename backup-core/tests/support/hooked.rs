//! A storage at which something happens directly before one operation.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use backup_core::storage::{Capabilities, Key, ListPage, MemoryStorage, ObjectInfo, PutMode, Storage, StorageError};
use bytes::Bytes;

pub type Hook = Box<dyn FnOnce() + Send>;

pub struct Hooked {
    storage: Arc<MemoryStorage>,
    state: Mutex<(u64, Option<(u64, Hook)>)>,
}

impl Hooked {
    pub fn new(storage: &Arc<MemoryStorage>, at: u64, hook: Hook) -> Arc<Self> {
        Arc::new(Self { storage: storage.clone(), state: Mutex::new((0, Some((at, hook)))) })
    }

    fn operation(&self) -> &MemoryStorage {
        let mut state = self.state.lock().unwrap();
        let number = state.0;
        state.0 += 1;
        let hook = state.1.take_if(|(at, _)| *at == number);
        drop(state);
        if let Some((_, hook)) = hook {
            hook();
        }
        &self.storage
    }

    pub fn count(&self) -> u64 {
        self.state.lock().unwrap().0
    }
}

impl Storage for Hooked {
    fn put(&self, key: &Key, bytes: Bytes, mode: PutMode) -> Result<(), StorageError> {
        self.operation().put(key, bytes, mode)
    }
    fn get(&self, key: &Key, limit: u64) -> Result<Bytes, StorageError> {
        self.operation().get(key, limit)
    }
    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StorageError> {
        self.operation().get_range(key, range)
    }
    fn stat(&self, key: &Key) -> Result<ObjectInfo, StorageError> {
        self.operation().stat(key)
    }
    fn list(&self, prefix: &str, after: Option<&Key>) -> Result<ListPage, StorageError> {
        self.operation().list(prefix, after)
    }
    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.operation().delete(key)
    }
    fn capabilities(&self) -> Capabilities {
        self.storage.capabilities()
    }
}
