//! The handle of an unlocked repository, and what its operations share.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::chunk::{Gear, GearTable};
use crate::crypto::SigningKey;
use crate::error::{Error, Result};
use crate::format::config::{Access, Config};
use crate::id::{Digest, RepositoryId};
use crate::index::Index;
use crate::keys::{ContentKeys, Credential, KeyringKey};
use crate::length::to_u64;
use crate::object::ObjectKeys;
use crate::progress::Event;
use crate::repository::environment::{Control, Environment};
use crate::repository::locked::{LockedRepository, UnlockOptions};
use crate::repository::parallel::{each, lock};
use crate::repository::read::ReadCache;
use crate::repository::view;
use crate::repository::write::{BackupOptions, BackupSession};
use crate::session::{History, Records, Signers};
use crate::storage::{Key, Storage, StorageError};

/// An unlocked repository: backs up, restores, verifies. Cheap to clone; usable from several threads.
#[derive(Clone)]
pub struct Repository {
    pub(crate) inner: Arc<Inner>,
}

/// What the clones of a handle share.
pub(crate) struct Inner {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) environment: Environment,
    pub(crate) config: Config,
    pub(crate) config_hash: Digest,
    pub(crate) signers: Signers,
    pub(crate) keys: ObjectKeys,
    pub(crate) chunk_keys: ContentKeys,
    pub(crate) gear: Arc<Gear>,
    pub(crate) writer_key: SigningKey,
    pub(crate) keyring_key: KeyringKey,
    pub(crate) keyring_number: u32,
    pub(crate) generation: u32,
    pub(crate) cache: ReadCache,
    index: Mutex<Option<Arc<Index>>>,
}

impl Repository {
    /// Opens and unlocks a repository.
    ///
    /// # Errors
    ///
    /// Those of [`LockedRepository::open`] and [`LockedRepository::unlock`].
    pub fn open(storage: Arc<dyn Storage>, credential: &Credential<'_>, environment: Environment) -> Result<Self> {
        LockedRepository::open(storage, environment)?.unlock(credential, &UnlockOptions::default())
    }

    /// The repository's id.
    #[must_use]
    pub fn id(&self) -> RepositoryId {
        self.inner.config.repository
    }

    /// Whether this program or the storage cannot write to it.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.inner.check_writable().is_err()
    }

    /// Begins a backup. Nothing is visible before [`BackupSession::commit`].
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnly`]; [`Error::Unsupported`] where the storage does not honour put-if-absent;
    /// [`Error::NotFound`] for a parent that does not exist; [`Error::Storage`].
    pub fn begin(&self, options: BackupOptions) -> Result<BackupSession> {
        BackupSession::begin(self, options)
    }
}

impl Inner {
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        environment: Environment,
        config: Config,
        config_hash: Digest,
        signers: Signers,
        keyring_key: KeyringKey,
        keyring: &crate::format::keyring::Keyring,
    ) -> Result<Self> {
        let keys = ObjectKeys::new(
            config.repository,
            &keyring.generations,
            &keyring.dedup,
            Arc::clone(&environment.aead),
            Arc::clone(&environment.entropy),
        )?;
        let chunk_keys = ContentKeys::derive(&keyring.dedup)?;
        let sizes = &config.chunking;
        let table = GearTable::new(chunk_keys.gear());
        let gear = Arc::new(Gear::new(table, sizes.stream_min, sizes.stream_avg, sizes.stream_max)?);
        Ok(Self {
            keys,
            chunk_keys,
            gear,
            writer_key: keyring.writer_key(),
            keyring_number: keyring.number,
            generation: keyring.generations.last().map_or(0, |(generation, _)| *generation),
            storage,
            environment,
            config,
            config_hash,
            signers,
            keyring_key,
            cache: ReadCache::default(),
            index: Mutex::new(None),
        })
    }

    pub(crate) fn check_writable(&self) -> Result<()> {
        if let Access::ReadOnly { feature } = self.config.access()? {
            return Err(Error::ReadOnly { what: format!("the repository, for its feature {feature} is not known") });
        }
        if self.storage.capabilities().read_only {
            return Err(Error::ReadOnly { what: "the storage".into() });
        }
        Ok(())
    }

    /// The history now.
    pub(crate) fn history(&self, control: &Control) -> Result<History> {
        self.with_records(control, History::read)
    }

    pub(crate) fn with_records<T>(&self, control: &Control, read: impl FnOnce(&Records<'_>) -> T) -> T {
        read(&Records { storage: &*self.storage, signers: &self.signers, each: &each(control) })
    }

    /// The index for reading, loaded when it is first needed.
    pub(crate) fn index(&self, control: &Control) -> Result<Arc<Index>> {
        if let Some(index) = &*lock(&self.index)? {
            return Ok(Arc::clone(index));
        }
        let index = view::for_reading(self, &self.history(control)?, control)?;
        self.set_index(&index);
        Ok(index)
    }

    pub(crate) fn set_index(&self, index: &Arc<Index>) {
        if let Ok(mut slot) = self.index.lock() {
            *slot = Some(Arc::clone(index));
        }
    }

    /// The next reader loads the index anew.
    pub(crate) fn forget_view(&self) {
        if let Ok(mut slot) = self.index.lock() {
            *slot = None;
        }
    }

    /// A whole object. One that must exist and does not is damage.
    pub(crate) fn get(&self, key: &Key, limit: u64, control: &Control) -> Result<Bytes> {
        let bytes = self.storage.get(key, limit).map_err(|error| read_error(key, error))?;
        control.event(&Event::Fetched { bytes: to_u64(bytes.len()) });
        Ok(bytes)
    }

    /// A range of an object that must exist.
    pub(crate) fn get_range(&self, key: &Key, range: Range<u64>, control: &Control) -> Result<Bytes> {
        let expected = range.end.saturating_sub(range.start);
        let bytes = self.storage.get_range(key, range).map_err(|error| read_error(key, error))?;
        if to_u64(bytes.len()) != expected {
            return Err(Error::damaged("object", key, "the storage returned another length than asked for"));
        }
        control.event(&Event::Fetched { bytes: expected });
        Ok(bytes)
    }
}

/// The failure to read an object that something signed or sealed says is there.
pub(crate) fn read_error(key: &Key, error: StorageError) -> Error {
    match error {
        StorageError::NotFound => Error::damaged("object", key, "it is missing"),
        StorageError::OutOfRange { .. } => Error::damaged("object", key, "it is shorter than it must be"),
        StorageError::TooLarge { .. } => Error::damaged("object", key, "it is larger than its kind can be"),
        error => Error::storage("get", key, error),
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repository").field("id", &self.id()).finish_non_exhaustive()
    }
}
