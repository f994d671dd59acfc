//! A repository without its password: what a secondary site can do.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::crypto::{VerifyingKey, hash};
use crate::error::{Error, Result};
use crate::format::config::Config;
use crate::format::layout::Place;
use crate::id::{BackupId, Digest, RepositoryId, SessionId};
use crate::keys::{Credential, DamagedSlot, KeySlot, list_slots, open_slots, read_newest_keyring};
use crate::limits;
use crate::repository::backup::{Problem, error_chain};
use crate::repository::environment::{Control, Environment};
use crate::repository::handle::{Inner, Repository};
use crate::repository::init::check_no_remains;
use crate::repository::parallel::each;
use crate::repository::verify::{self, VerifyOptions, VerifyReport};
use crate::session::{Commit, History, Records, Signers};
use crate::storage::{Storage, StorageError};
use crate::time::Timestamp;

/// A repository as anybody sees it who can read the storage.
pub struct LockedRepository {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) environment: Environment,
    pub(crate) config: Config,
    pub(crate) config_bytes: bytes::Bytes,
    pub(crate) signers: Signers,
}

/// What unlocking may cost.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct UnlockOptions {
    /// Memory that deriving a key from a password may take, in KiB; never more than 1 GiB. The
    /// repository asks for an amount, and a hostile one might ask for all there is.
    pub max_memory_kib: u32,
}

impl Default for UnlockOptions {
    fn default() -> Self {
        Self { max_memory_kib: 1 << 20 }
    }
}

impl UnlockOptions {
    /// Sets the memory.
    #[must_use]
    pub const fn with_max_memory_kib(mut self, kib: u32) -> Self {
        self.max_memory_kib = kib;
        self
    }
}

/// A backup as anybody sees it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct CommitSummary {
    /// The backup's id.
    pub id: BackupId,
    /// Ids that it had before, oldest first: repacking gives a backup a new commit. Each still finds it.
    pub replaces: Vec<BackupId>,
    /// When it was made, as its writer says.
    pub time: Timestamp,
    /// The session that made it.
    pub session: SessionId,
    /// The collection generation of the session.
    pub generation: u32,
    /// Packs that it needs.
    pub packs: u64,
    /// Their bytes on storage.
    pub bytes: u64,
}

impl CommitSummary {
    /// Whether one of the ids that the backup has or had begins so.
    #[must_use]
    pub fn is_called(&self, beginning: &str) -> bool {
        self.replaces.iter().chain([&self.id]).any(|id| id.to_string().starts_with(beginning))
    }
}

impl LockedRepository {
    /// Reads the repository's parameters.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] where the storage holds no repository; [`Error::Unsupported`] naming a version or
    /// feature that this program does not know; [`Error::Damaged`], also where a repository has lost its `config`;
    /// [`Error::Storage`].
    pub fn open(storage: Arc<dyn Storage>, environment: Environment) -> Result<Self> {
        let key = Place::Config.key();
        let config_bytes = storage.get(&key, limits::CONFIG).map_err(|error| match error {
            StorageError::NotFound => match check_no_remains(&*storage) {
                Err(Error::AlreadyExists { name, .. }) => Error::damaged(
                    "config",
                    &key,
                    format!("it is missing beside {name}, and the repository cannot be opened without it"),
                ),
                Err(error) => error,
                Ok(()) => Error::not_found("repository", &key),
            },
            StorageError::TooLarge { size, limit } => Error::limit("size of config", size, limit),
            error => Error::storage("get", &key, error),
        })?;
        let config = Config::decode(&config_bytes)?;
        config.access()?;
        let signers = signers(&config)?;
        Ok(Self { storage, environment, config, config_bytes, signers })
    }

    /// The repository's id.
    #[must_use]
    pub const fn id(&self) -> RepositoryId {
        self.config.repository
    }

    /// BLAKE3 of the `config` object. A site without the password notices by it when a storage shows another
    /// repository.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        hash::digest(&self.config_bytes)
    }

    /// The key slots.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`].
    pub fn key_slots(&self) -> Result<Vec<KeySlot>> {
        Ok(list_slots(&*self.storage, self.config.repository)?.0)
    }

    /// What stands in the place of key slots and opens nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`].
    pub fn damaged_key_slots(&self) -> Result<Vec<DamagedSlot>> {
        Ok(list_slots(&*self.storage, self.config.repository)?.1)
    }

    /// The backups, oldest first, as far as their signatures tell.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`].
    pub fn commits(&self) -> Result<Vec<CommitSummary>> {
        let control = Control::waiting();
        let history = self.with_records(&control, History::read)?;
        Ok(history.in_order().into_iter().map(summary).collect())
    }

    /// Records that are damaged or missing and may be those of backups that [`commits`](Self::commits) does not show for that.
    /// None where all is well.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`].
    pub fn lost_records(&self) -> Result<Vec<Problem>> {
        lost_records(&self.with_records(&Control::waiting(), History::read)?, &*self.storage)
    }

    pub(crate) fn with_records<T>(&self, control: &Control, read: impl FnOnce(&Records<'_>) -> T) -> T {
        read(&Records { storage: &*self.storage, signers: &self.signers, each: &each(control) })
    }

    /// Checks presence or bytes of everything that the backups need; see [`VerifyOptions`].
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a level that needs the password; [`Error::Storage`] where nothing can
    /// be listed; [`Error::Cancelled`]. Damage is in the report, not an error.
    pub fn verify(&self, options: &VerifyOptions, control: &Control) -> Result<VerifyReport> {
        let site = verify::Site { storage: &*self.storage, signers: &self.signers, config_hash: self.fingerprint() };
        verify::without_password(&site, options, control, &self.environment)
    }

    /// Unlocks with a password or recovery key.
    ///
    /// # Errors
    ///
    /// [`Error::WrongPassword`]; [`Error::LimitExceeded`] where the slot asks for more than `options` allow;
    /// [`Error::Damaged`] where slots or keyring are.
    pub fn unlock(self, credential: &Credential<'_>, options: &UnlockOptions) -> Result<Repository> {
        let provider = &*self.environment.aead;
        let max_memory = u64::from(options.max_memory_kib).saturating_mul(1024);
        let repository = self.config.repository;
        let opened = open_slots(&*self.storage, provider, repository, *credential, max_memory)?;
        let keyring = read_newest_keyring(&*self.storage, provider, repository, &opened.1, &self.config_bytes)?;
        let hash = self.fingerprint();
        let inner = Inner::new(self.storage, self.environment, self.config, hash, self.signers, opened, &keyring)?;
        Ok(Repository { inner: Arc::new(inner) })
    }
}

/// The keys that `config` names.
pub(crate) fn signers(config: &Config) -> Result<Signers> {
    let key = |bytes: &[u8; 32]| {
        VerifyingKey::from_bytes(bytes).map_err(|_| Error::damaged("config", "config", "a verifying key is not usable"))
    };
    Ok(Signers {
        repository: config.repository,
        writer: key(&config.writer_key)?,
        maintenance: key(&config.maintenance_key)?,
    })
}

fn summary(commit: &Commit) -> CommitSummary {
    CommitSummary {
        id: commit.id,
        replaces: commit.content.replaces.clone(),
        time: commit.content.time,
        session: commit.content.session,
        generation: commit.content.generation,
        packs: commit.content.closure_packs,
        bytes: commit.content.closure_bytes,
    }
}

impl fmt::Debug for LockedRepository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockedRepository").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// Records that may hide backups: those that cannot be used, and the outcome of a collection that is lost.
///
/// # Errors
///
/// [`Error::Storage`].
pub(crate) fn lost_records(history: &History, storage: &dyn Storage) -> Result<Vec<Problem>> {
    let flaws = history.hiding().map(|(flaw, _)| Problem::new(&flaw.key, error_chain(&flaw.error)));
    let lost = history.lost_outcome(storage)?.map(|(key, reason)| Problem::new(key.as_str(), reason));
    Ok(flaws.chain(lost).collect())
}
