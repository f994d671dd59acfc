//! An archive as a storage that can only be read.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Bound, Range};
use std::sync::Arc;

use bytes::Bytes;

use crate::archive::blocks::Blocks;
use crate::archive::contents;
use crate::archive::record::Placed;
use crate::crypto::hash;
use crate::error::{Error, Result};
use crate::repository::Control;
use crate::source::BlockSource;
use crate::storage::{Capabilities, Key, ListPage, ObjectInfo, PutMode, Storage, StorageError};

/// Objects in a page of a listing.
const PAGE: usize = 1000;

/// A storage over the bytes of an archive, with its objects under their own keys: open the repository in it as any
/// other. Damaged blocks are corrected as they are read, where their stripes allow it.
///
/// What is lost for good is not found: an object that is asked for whole, or the range of one.
pub struct ArchiveStorage {
    blocks: Blocks,
    objects: BTreeMap<Key, Vec<Placed>>,
}

impl ArchiveStorage {
    /// Opens the archive in `source`, which errors call `name`.
    ///
    /// An archive that lies in the source as it was written is found at once; otherwise all of it is
    /// read to find its blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] where no block of an archive is in it; [`Error::Unsupported`] for archives of later versions;
    /// [`Error::Source`] where it cannot be read.
    pub fn open(source: Arc<dyn BlockSource>, name: &str) -> Result<Self> {
        let control = Control::default();
        let blocks = Blocks::open(source, name, &control)?;
        let mut objects: BTreeMap<Key, Vec<Placed>> = BTreeMap::new();
        for placed in contents::read(&blocks, &control)?.records {
            if let Some(key) = placed.record.key.clone() {
                objects.entry(key).or_default().push(placed);
            }
        }
        Ok(Self { blocks, objects })
    }

    fn places(&self, key: &Key) -> Result<&[Placed], StorageError> {
        self.objects.get(key).map(Vec::as_slice).filter(|places| !places.is_empty()).ok_or(StorageError::NotFound)
    }

    fn size(places: &[Placed]) -> u64 {
        places.first().map_or(0, |placed| placed.record.size)
    }
}

/// What a reader of blocks says, as a storage says it.
fn failed(error: Error) -> StorageError {
    StorageError::Other(Box::new(error))
}

impl Storage for ArchiveStorage {
    fn put(&self, _: &Key, _: Bytes, _: PutMode) -> Result<(), StorageError> {
        Err(StorageError::ReadOnly)
    }

    fn get(&self, key: &Key, limit: u64) -> Result<Bytes, StorageError> {
        let places = self.places(key)?;
        let size = Self::size(places);
        if size > limit {
            return Err(StorageError::TooLarge { size, limit });
        }
        // Several copies were written of what everything depends on.
        for placed in places.iter().filter(|placed| placed.record.size <= limit) {
            let bytes = self.blocks.read(placed.content(), placed.record.size).map_err(failed)?;
            if let Some(bytes) = bytes.filter(|bytes| hash::digest(bytes) == placed.record.hash) {
                return Ok(bytes.into());
            }
        }
        Err(StorageError::NotFound)
    }

    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StorageError> {
        let places = self.places(key)?;
        let size = Self::size(places);
        if range.end > size || range.start > range.end {
            return Err(StorageError::OutOfRange { size });
        }
        let length = range.end.saturating_sub(range.start);
        for placed in places.iter().filter(|placed| placed.record.size == size) {
            let from = placed.content().saturating_add(range.start);
            if let Some(bytes) = self.blocks.read(from, length).map_err(failed)? {
                return Ok(bytes.into());
            }
        }
        Err(StorageError::NotFound)
    }

    fn stat(&self, key: &Key) -> Result<ObjectInfo, StorageError> {
        self.places(key).map(|places| ObjectInfo::new(key.clone(), Self::size(places)))
    }

    fn list(&self, prefix: &str, after: Option<&Key>) -> Result<ListPage, StorageError> {
        let start = match after {
            Some(key) if key.as_str() >= prefix => Bound::Excluded(key.as_str()),
            _ => Bound::Included(prefix),
        };
        let mut matching = self
            .objects
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.as_str().starts_with(prefix))
            .map(|(key, places)| ObjectInfo::new(key.clone(), Self::size(places)));
        let page = matching.by_ref().take(PAGE).collect();
        Ok(ListPage::new(page, matching.next().is_some()))
    }

    fn delete(&self, _: &Key) -> Result<(), StorageError> {
        Err(StorageError::ReadOnly)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default().with_read_only(true)
    }
}

impl fmt::Debug for ArchiveStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArchiveStorage")
            .field("name", &self.blocks.name)
            .field("objects", &self.objects.len())
            .finish_non_exhaustive()
    }
}
