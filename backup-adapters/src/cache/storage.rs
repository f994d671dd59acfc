//! [`CachedStorage`]: a remote storage behind a cache.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use backup_core::storage::{Capabilities, Key, ListPage, ObjectInfo, PutMode, Storage, StorageError};
use bytes::Bytes;

use super::directory::Cache;

/// Where objects stand that are named by their content and kept whole (`docs/format.md`, "Storage").
const KEPT: [&str; 3] = ["index/", "bodies/", "closures/"];

/// Where packs stand; those of metadata are kept.
const PACKS: &str = "packs/";

/// The beginning of sealed objects, and the place and number of the type of packs of metadata (`docs/format.md`, "Sealed
/// objects").
const MAGIC: &[u8] = b"\x89BKUP\x0d\x0a\x1a";
const TYPE: usize = 9;
const META_PACK: u8 = 3;
const HEADER: u64 = 128;

/// Longer packs of metadata are not kept: writers make them of 2 MiB.
const LONGEST_PACK: u64 = 16 * 1024 * 1024;

/// A storage that keeps copies of what it is asked for. See the [module](crate::cache).
pub struct CachedStorage<S> {
    inner: S,
    cache: Arc<Cache>,
    /// Objects that are read from the storage itself the next time: somebody wants to know what is there.
    doubted: Mutex<BTreeSet<Key>>,
    hits: AtomicU64,
}

impl<S: Storage> CachedStorage<S> {
    /// `inner` with copies in `cache`.
    pub const fn new(inner: S, cache: Arc<Cache>) -> Self {
        Self { inner, cache, doubted: Mutex::new(BTreeSet::new()), hits: AtomicU64::new(0) }
    }

    /// Reads that needed no request.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// The copy of the object `name`, unless the storage itself must be asked.
    fn copy(&self, key: &Key, name: &str) -> Option<Bytes> {
        if self.doubted.lock().unwrap_or_else(PoisonError::into_inner).remove(key) {
            return None;
        }
        let copy = self.cache.get(name)?;
        self.hits.fetch_add(1, Ordering::Relaxed);
        Some(copy)
    }

    /// Fetches a pack of metadata as a whole, as its reader comes back for the rest. What fails here fails again when
    /// the reader does.
    fn keep_pack(&self, key: &Key, name: &str) {
        if let Ok(pack) = self.inner.get(key, LONGEST_PACK) {
            self.cache.insert(name, &pack);
        }
    }
}

impl<S: Storage> Storage for CachedStorage<S> {
    fn put(&self, key: &Key, bytes: Bytes, mode: PutMode) -> Result<(), StorageError> {
        let result = self.inner.put(key, bytes.clone(), mode);
        match (&result, name_in(key)) {
            (Ok(()), Some((place, name))) if place.is_kept(&bytes) => self.cache.insert(name, &bytes),
            // The writer looks next whether what is there is right. A copy cannot tell.
            (Err(_), Some(_)) => {
                self.doubted.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
            }
            _ => {}
        }
        result
    }

    fn get(&self, key: &Key, limit: u64) -> Result<Bytes, StorageError> {
        let Some((place, name)) = name_in(key) else { return self.inner.get(key, limit) };
        if let Some(copy) = self.copy(key, name) {
            let size = length(&copy);
            return if size <= limit { Ok(copy) } else { Err(StorageError::TooLarge { size, limit }) };
        }
        let bytes = self.inner.get(key, limit)?;
        if place.is_kept(&bytes) {
            self.cache.insert(name, &bytes);
        }
        Ok(bytes)
    }

    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StorageError> {
        let Some((place, name)) = name_in(key) else { return self.inner.get_range(key, range) };
        if let Some(copy) = self.copy(key, name) {
            let index = |at: u64| usize::try_from(at).ok();
            let part = index(range.start).zip(index(range.end)).filter(|(start, end)| start <= end);
            return match part {
                Some((start, end)) if end <= copy.len() => Ok(copy.slice(start..end)),
                _ => Err(StorageError::OutOfRange { size: length(&copy) }),
            };
        }
        let begins = range.start == 0 && range.end >= HEADER;
        let bytes = self.inner.get_range(key, range)?;
        if place == Place::Pack && begins && place.is_kept(&bytes) {
            self.keep_pack(key, name);
        }
        Ok(bytes)
    }

    fn stat(&self, key: &Key) -> Result<ObjectInfo, StorageError> {
        self.inner.stat(key)
    }

    fn list(&self, prefix: &str, after: Option<&Key>) -> Result<ListPage, StorageError> {
        self.inner.list(prefix, after)
    }

    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        if let Some((_, name)) = name_in(key) {
            self.cache.remove(name);
        }
        self.inner.delete(key)
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}

impl<S: fmt::Debug> fmt::Debug for CachedStorage<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedStorage").field("inner", &self.inner).field("cache", &self.cache.path()).finish()
    }
}

/// What stands under a key that ends with the hash of the object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Whole,
    Pack,
}

impl Place {
    /// Whether an object that begins with these bytes is worth being kept.
    fn is_kept(self, bytes: &[u8]) -> bool {
        match self {
            Self::Whole => true,
            Self::Pack => bytes.starts_with(MAGIC) && bytes.get(TYPE) == Some(&META_PACK),
        }
    }
}

/// The name of an object that is named by its content.
fn name_in(key: &Key) -> Option<(Place, &str)> {
    let text = key.as_str();
    if let Some(name) = KEPT.iter().find_map(|place| text.strip_prefix(place)) {
        return (name.len() == 64).then_some((Place::Whole, name));
    }
    let (_, name) = text.strip_prefix(PACKS)?.split_once('/')?;
    (name.len() == 64).then_some((Place::Pack, name))
}

fn length(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
