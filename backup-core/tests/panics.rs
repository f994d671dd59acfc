//! A storage or a sink that panics is its author's mistake. The panic reaches the caller; nothing waits forever.

mod support;

use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use backup_core::content::Entry;
use backup_core::repository::Repository;
use backup_core::storage::{Capabilities, Key, ListPage, MemoryStorage, ObjectInfo, PutMode, Storage, StorageError};
use bytes::Bytes;
use support::{control, init, noise, open, options, path};

/// Reading packs panics once that is wished.
struct Panicking {
    inner: MemoryStorage,
    armed: AtomicBool,
}

impl Panicking {
    fn check(&self, key: &Key) {
        assert!(!(self.armed.load(Ordering::SeqCst) && key.as_str().starts_with("packs/")), "a storage panics");
    }
}

impl Storage for Panicking {
    fn put(&self, key: &Key, bytes: Bytes, mode: PutMode) -> Result<(), StorageError> {
        self.check(key);
        self.inner.put(key, bytes, mode)
    }
    fn get(&self, key: &Key, limit: u64) -> Result<Bytes, StorageError> {
        self.check(key);
        self.inner.get(key, limit)
    }
    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StorageError> {
        self.check(key);
        self.inner.get_range(key, range)
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

/// Takes a little, then panics.
struct PanickingSink;

impl io::Write for PanickingSink {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        panic!("a sink panics")
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A repository with a stream of many windows.
fn repository() -> (Arc<Panicking>, Repository, Entry) {
    let storage = Arc::new(Panicking { inner: MemoryStorage::new(), armed: AtomicBool::new(false) });
    init(storage.clone());
    let repository = open(storage.clone(), 2).unwrap();
    let mut session = repository.begin(options(2)).unwrap();
    session.add_stream(path("stream"), &mut &*noise(1, 48 << 20)).unwrap();
    let backup = session.commit().unwrap();
    let entry = repository.entry(&backup, &path("stream")).unwrap();
    (storage, repository, entry)
}

/// Runs `work`, which must panic, on a thread of its own: a test that waits forever says nothing.
fn assert_panics(what: &str, work: impl FnOnce() + Send + 'static) {
    let (sender, receiver) = mpsc::channel();
    #[expect(clippy::disallowed_methods, reason = "it may never end, which is what is tested")]
    std::thread::spawn(move || sender.send(catch_unwind(AssertUnwindSafe(work)).is_err()).unwrap_or_default());
    match receiver.recv_timeout(Duration::from_secs(300)) {
        Ok(panicked) => assert!(panicked, "{what}: the panic was lost"),
        Err(_) => panic!("{what}: waits forever"),
    }
}

#[test]
fn a_sink_that_panics_stops_a_restore() {
    for threads in [1, 4] {
        let (_, repository, entry) = repository();
        assert_panics("restore", move || {
            drop(repository.restore_stream(&entry, &mut PanickingSink, &control(threads)));
        });
    }
}

#[test]
fn a_storage_that_panics_stops_a_restore() {
    for threads in [1, 4] {
        let (storage, repository, entry) = repository();
        storage.armed.store(true, Ordering::SeqCst);
        assert_panics("restore", move || {
            drop(repository.restore_stream(&entry, &mut Vec::new(), &control(threads)));
        });
    }
}

#[test]
fn a_storage_that_panics_stops_a_backup() {
    for threads in [1, 3] {
        let (storage, repository, _) = repository();
        assert_panics("backup", move || {
            let mut session = repository.begin(options(threads)).unwrap();
            storage.armed.store(true, Ordering::SeqCst);
            session.add_stream(path("stream"), &mut &*noise(2, 32 << 20)).unwrap();
            session.commit().unwrap();
        });
    }
}
