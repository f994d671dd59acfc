//! What the engine knows of the world: whole objects under keys, and put-if-absent.

mod key;
mod memory;

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
#[cfg(any(test, feature = "testing"))]
pub mod fault;

use std::ops::Range;

use bytes::Bytes;

pub use self::key::Key;
pub use self::memory::MemoryStorage;

/// A place that keeps whole objects under [`Key`]s. Implement it to put backups anywhere.
///
/// The engine trusts a storage with nothing but availability: every byte is authenticated. What an
/// implementation must offer so that nothing is lost:
///
/// * **Whole objects.** A reader sees all of an object or nothing of it, whenever the writer stops.
/// * **Durability.** When [`put`](Self::put) returns `Ok`, the object survives a power cut.
/// * **Linearizable** `put`, `get` and `stat` of one key: what was stored is seen at once by all.
/// * **Put if absent.** [`PutMode::Create`] of an existing key fails and changes nothing, also when
///   two callers race. It is the only coordination primitive of the protocol and is probed with
///   real objects when a repository is opened for writing.
/// * **Listing** in key order that shows every object whose `put` had returned.
///
/// No key of the engine is a directory of another (`a` and `a/b`): a storage need not hold both.
///
/// Methods block; they are called from several threads at once. Retries and timeouts are the
/// implementation's business: the engine never retries and never sleeps. Run
/// `storage::conformance` (feature `testing`) against an implementation of your own.
pub trait Storage: Send + Sync {
    /// Stores `bytes` under `key`, atomically and durably.
    ///
    /// # Errors
    ///
    /// [`StorageError::AlreadyExists`] with [`PutMode::Create`] where the key exists: nothing changed.
    /// After any other error the object may or may not have been stored, but never partially.
    fn put(&self, key: &Key, bytes: Bytes, mode: PutMode) -> Result<(), StorageError>;

    /// The whole object, at most `limit` bytes of it in memory.
    ///
    /// # Errors
    ///
    /// [`StorageError::NotFound`]; [`StorageError::TooLarge`] where the object is larger than `limit`,
    /// found before it is read into memory.
    fn get(&self, key: &Key, limit: u64) -> Result<Bytes, StorageError>;

    /// The bytes of `range`. Exactly `range.end - range.start` bytes, or an error.
    ///
    /// # Errors
    ///
    /// [`StorageError::NotFound`]; [`StorageError::OutOfRange`] where the object ends before `range.end`.
    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StorageError>;

    /// Size of an object, without reading it.
    ///
    /// # Errors
    ///
    /// [`StorageError::NotFound`].
    fn stat(&self, key: &Key) -> Result<ObjectInfo, StorageError>;

    /// One page of the objects whose key starts with `prefix` (a plain string prefix, "" for all), in
    /// ascending byte order of keys, beginning behind `after`.
    ///
    /// Objects that are not named by a valid [`Key`] (foreign or temporary files) are left out.
    ///
    /// # Errors
    ///
    /// Whatever keeps the storage from listing. A prefix without objects is an empty page.
    fn list(&self, prefix: &str, after: Option<&Key>) -> Result<ListPage, StorageError>;

    /// Removes an object. A key that does not exist is not an error.
    ///
    /// # Errors
    ///
    /// Whatever keeps the storage from deleting; the object may or may not exist afterwards.
    fn delete(&self, key: &Key) -> Result<(), StorageError>;

    /// What this storage can do. Informational; coordination is probed, not believed.
    fn capabilities(&self) -> Capabilities;
}

/// Whether [`Storage::put`] may replace an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PutMode {
    /// Fail where the key exists.
    Create,
    /// Replace what is there.
    Overwrite,
}

/// What is known of an object without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectInfo {
    /// Its key.
    pub key: Key,
    /// Its size in bytes.
    pub size: u64,
}

impl ObjectInfo {
    /// An object of `size` bytes under `key`.
    #[must_use]
    pub const fn new(key: Key, size: u64) -> Self {
        Self { key, size }
    }
}

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListPage {
    /// Objects in ascending byte order of their keys.
    pub objects: Vec<ObjectInfo>,
    /// Whether objects may follow: call again with the last key as `after`.
    pub more: bool,
}

impl ListPage {
    /// A page; `more` says whether another may follow.
    #[must_use]
    pub const fn new(objects: Vec<ObjectInfo>, more: bool) -> Self {
        Self { objects, more }
    }
}

/// What a storage can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Nothing can be stored or deleted; opening for reading works.
    pub read_only: bool,
    /// Bytes that can still be stored, where the storage knows.
    pub free_bytes: Option<u64>,
}

impl Capabilities {
    /// Whether nothing can be stored.
    #[must_use]
    pub const fn with_read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Free space in bytes.
    #[must_use]
    pub const fn with_free_bytes(mut self, free_bytes: Option<u64>) -> Self {
        self.free_bytes = free_bytes;
        self
    }
}

/// Why a storage operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// No object under this key.
    #[error("no such object")]
    NotFound,
    /// [`PutMode::Create`] of a key that exists.
    #[error("the object exists already")]
    AlreadyExists,
    /// The object is larger than the caller allows.
    #[error("the object has {size} bytes, more than the {limit} allowed")]
    TooLarge {
        /// Its size.
        size: u64,
        /// What the caller allows.
        limit: u64,
    },
    /// The range reaches beyond the end of the object.
    #[error("the range ends beyond the object's {size} bytes")]
    OutOfRange {
        /// The object's size.
        size: u64,
    },
    /// The storage cannot be written: its medium, its mount or its permissions.
    #[error("the storage is read-only")]
    ReadOnly,
    /// No space or quota is left.
    #[error("no space left on the storage")]
    Full(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Permission denied by the operating system or the service.
    #[error("permission denied")]
    PermissionDenied(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A failure that may pass: timeouts, broken connections, throttling.
    #[error("temporary failure")]
    Transient(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Any other failure, with the words of its source.
    #[error("{0}")]
    Other(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl StorageError {
    /// Whether the same call may succeed later without anything being mended.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Transient(_))
    }
}

impl<S: Storage + ?Sized> Storage for std::sync::Arc<S> {
    fn put(&self, key: &Key, bytes: Bytes, mode: PutMode) -> Result<(), StorageError> {
        (**self).put(key, bytes, mode)
    }
    fn get(&self, key: &Key, limit: u64) -> Result<Bytes, StorageError> {
        (**self).get(key, limit)
    }
    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StorageError> {
        (**self).get_range(key, range)
    }
    fn stat(&self, key: &Key) -> Result<ObjectInfo, StorageError> {
        (**self).stat(key)
    }
    fn list(&self, prefix: &str, after: Option<&Key>) -> Result<ListPage, StorageError> {
        (**self).list(prefix, after)
    }
    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        (**self).delete(key)
    }
    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }
}

/// Every object below `prefix`, page by page.
///
/// # Errors
///
/// The first error of the storage. A page that does not advance is an error, not an endless loop.
pub fn list_all(storage: &dyn Storage, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError> {
    let mut objects: Vec<ObjectInfo> = Vec::new();
    loop {
        let page = storage.list(prefix, objects.last().map(|object| &object.key))?;
        let advanced = match (objects.last(), page.objects.first()) {
            (Some(last), Some(first)) => last.key < first.key,
            _ => true,
        };
        if !advanced || page.objects.windows(2).any(|pair| matches!(pair, [a, b] if a.key >= b.key)) {
            return Err(StorageError::Other("the listing is not in ascending order".into()));
        }
        let more = page.more && !page.objects.is_empty();
        objects.extend(page.objects);
        if !more {
            return Ok(objects);
        }
    }
}
