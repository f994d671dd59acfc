//! The handle of an unlocked repository, and what its operations share.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use hashbrown::HashSet;

use crate::chunk::{Gear, GearTable};
use crate::crypto::SigningKey;
use crate::error::{Error, Result};
use crate::format::config::{Access, Config};
use crate::id::{Digest, ObjectName, RepositoryId, SlotId};
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
    /// The key slot that the handle was opened with.
    pub(crate) slot: SlotId,
    pub(crate) keyring_key: KeyringKey,
    pub(crate) keyring_number: u32,
    pub(crate) generation: u32,
    pub(crate) cache: Arc<ReadCache>,
    known: Mutex<Known>,
    /// Held by the one thread that finds out whether a younger index knows more.
    renewing: Mutex<()>,
}

/// What the readers of a handle know of the repository, until it changes.
#[derive(Default)]
struct Known {
    history: Option<Arc<History>>,
    index: Option<Arc<Index>>,
    /// The index set that `index` was made of.
    segments: BTreeSet<ObjectName>,
    /// Packs that could not be read, and of which no younger index knew more than `index`.
    confirmed: HashSet<ObjectName>,
    /// Whether what no segment of the index set names was added to `index`.
    is_supplemented: bool,
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

    /// The key slot that opened this handle, or that [`init`](Self::init) made. Whoever removes it may shut himself out: what
    /// he has given opens nothing then. It may have been removed since.
    #[must_use]
    pub fn opened_by(&self) -> SlotId {
        self.inner.slot
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
        (slot, keyring_key): (SlotId, KeyringKey),
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
            slot,
            keyring_key,
            cache: Arc::default(),
            known: Mutex::default(),
            renewing: Mutex::default(),
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

    /// The history now. Readers do not go on with an index that is not of it.
    pub(crate) fn history(&self, control: &Control) -> Result<Arc<History>> {
        let before = lock(&self.known)?.history.clone().unwrap_or_default();
        let history = Arc::new(self.with_records(control, |records| before.read_again(records))?);
        let mut known = lock(&self.known)?;
        if known.segments != history.indexes {
            (known.index, known.confirmed, known.is_supplemented) = (None, HashSet::new(), false);
        }
        known.history = Some(Arc::clone(&history));
        Ok(history)
    }

    pub(crate) fn with_records<T>(&self, control: &Control, read: impl FnOnce(&Records<'_>) -> T) -> T {
        read(&Records { storage: &*self.storage, signers: &self.signers, each: &each(control) })
    }

    /// The index for reading, loaded when it is first needed.
    pub(crate) fn index(&self, control: &Control) -> Result<Arc<Index>> {
        if let Some(index) = &lock(&self.known)?.index {
            return Ok(Arc::clone(index));
        }
        let history = self.history(control)?;
        let index = view::for_reading(self, &history, control)?;
        let mut known = lock(&self.known)?;
        // Meanwhile another reader may have seen that there is more.
        if known.history.as_ref().is_some_and(|newest| newest.indexes == history.indexes) {
            known.segments.clone_from(&history.indexes);
            known.index = Some(Arc::clone(&index));
        }
        Ok(index)
    }

    /// The index as the history says it is now, where that is another than `seen`: a chunk that `seen` does not
    /// know may be one of a younger backup, and a pack that cannot be read one that a collection deleted since
    /// (`docs/format.md`, "Commit protocol"). Where it is the same, packs that no segment of the index set names
    /// are added to it, once. A pack that was asked about in vain is not asked about again.
    pub(crate) fn younger_index(
        &self,
        seen: &Arc<Index>,
        unreadable: Option<&ObjectName>,
        control: &Control,
    ) -> Result<Option<Arc<Index>>> {
        let _renewing = lock(&self.renewing)?;
        {
            let known = lock(&self.known)?;
            match &known.index {
                Some(index) if !Arc::ptr_eq(index, seen) => return Ok(Some(Arc::clone(index))),
                Some(_) if unreadable.is_some_and(|pack| known.confirmed.contains(pack)) => return Ok(None),
                _ => {}
            }
        }
        let history = self.history(control)?;
        let is_seen = |known: &Known| known.index.as_ref().is_some_and(|index| Arc::ptr_eq(index, seen));
        let is_supplemented = {
            let known = lock(&self.known)?;
            if !is_seen(&known) {
                drop(known);
                return self.index(control).map(Some);
            }
            known.is_supplemented
        };
        let has_more = !is_supplemented && view::supplement(self, seen, &history, view::Failing::Stops, control)?;
        let mut known = lock(&self.known)?;
        if is_seen(&known) {
            known.is_supplemented = true;
            if !has_more {
                known.confirmed.extend(unreadable);
            }
        }
        Ok(has_more.then(|| Arc::clone(seen)))
    }

    /// The next reader reads the history and the index anew.
    pub(crate) fn forget_view(&self) {
        if let Ok(mut known) = self.known.lock() {
            *known = Known::default();
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
