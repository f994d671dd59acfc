//! Creating a repository.

use std::sync::Arc;

use bytes::Bytes;

use crate::crypto::{Argon2Parameters, hash};
use crate::error::{Error, Result};
use crate::format::config::{ChunkingParameters, Config, Padding};
use crate::format::layout::{self, Place};
use crate::id::RepositoryId;
use crate::keys::{
    Credential, KeyringKey, NewSlot, create_keyring, keyring_numbers, make_slot, seal_keyring, store_slot,
    write_keyring,
};
use crate::limits;
use crate::repository::environment::Environment;
use crate::repository::handle::{Inner, Repository};
use crate::repository::locked::signers;
use crate::storage::{Key, PutMode, Storage, StorageError, list_all};

/// Parameters of a new repository. They cannot be changed later.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct InitOptions {
    /// Chunk sizes.
    pub chunking: ChunkingParameters,
    /// Bytes of a pack; 16 MiB where `None`.
    pub pack_target: Option<u32>,
    /// How sizes of objects are hidden.
    pub padding: Padding,
    /// zstd level of backups that choose none, -7 to 19; 3 where `None`.
    pub compression_level: Option<i32>,
    /// Cost of guessing the first password.
    pub argon2: Argon2Parameters,
    /// Label of the first key slot, at most 63 bytes.
    pub slot_label: String,
    /// Promise that only one writer is active at a time: for storages without put-if-absent.
    pub single_writer: bool,
}

impl InitOptions {
    /// Sets the chunk sizes.
    #[must_use]
    pub const fn with_chunking(mut self, chunking: ChunkingParameters) -> Self {
        self.chunking = chunking;
        self
    }

    /// Sets the size of packs.
    #[must_use]
    pub const fn with_pack_target(mut self, bytes: u32) -> Self {
        self.pack_target = Some(bytes);
        self
    }

    /// Sets how sizes are hidden.
    #[must_use]
    pub const fn with_padding(mut self, padding: Padding) -> Self {
        self.padding = padding;
        self
    }

    /// Sets the default compression level.
    #[must_use]
    pub const fn with_compression_level(mut self, level: i32) -> Self {
        self.compression_level = Some(level);
        self
    }

    /// Sets the cost of guessing the first password.
    #[must_use]
    pub const fn with_argon2(mut self, parameters: Argon2Parameters) -> Self {
        self.argon2 = parameters;
        self
    }

    /// Sets the label of the first key slot.
    #[must_use]
    pub fn with_slot_label(mut self, label: impl Into<String>) -> Self {
        self.slot_label = label.into();
        self
    }

    /// Sets whether only one writer is active at a time.
    #[must_use]
    pub const fn with_single_writer(mut self, single_writer: bool) -> Self {
        self.single_writer = single_writer;
        self
    }
}

impl Repository {
    /// Creates a repository on an empty storage and opens it. What an interrupted init left is no repository: it
    /// is removed.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyExists`] where there is a repository, or one that lost its `config`;
    /// [`Error::InvalidArgument`] for parameters that the format does not allow; [`Error::ReadOnly`],
    /// [`Error::Storage`].
    pub fn init(
        storage: Arc<dyn Storage>,
        credential: &Credential<'_>,
        options: &InitOptions,
        environment: Environment,
    ) -> Result<Self> {
        if storage.capabilities().read_only {
            return Err(Error::ReadOnly { what: "the storage".into() });
        }
        let config_key = Place::Config.key();
        match storage.get(&config_key, limits::CONFIG) {
            Err(StorageError::NotFound) => {}
            Ok(_) | Err(StorageError::TooLarge { .. }) => return Err(exists()),
            Err(error) => return Err(Error::storage("get", &config_key, error)),
        }
        let entropy = &*environment.entropy;
        let mut id = [0; 16];
        entropy.fill(&mut id)?;
        let repository = RepositoryId::new(id);
        let (mut keyring, config_bytes) = create_keyring(entropy, |writer, maintenance| {
            let mut config = Config::new(repository, *writer.as_bytes(), *maintenance.as_bytes());
            config.chunking = options.chunking;
            config.padding = options.padding;
            config.single_writer = options.single_writer;
            config.pack_target = options.pack_target.unwrap_or(config.pack_target);
            config.compression_level = options.compression_level.unwrap_or(config.compression_level);
            config.encode()
        })?;
        let config = Config::decode(&config_bytes)?;
        let keyring_key = KeyringKey::generate(entropy)?;
        let provider = &*environment.aead;
        // Everything that can be refused is refused before the first put.
        check_no_remains(&*storage)?;
        for number in keyring_numbers(&*storage)? {
            keyring.number = keyring.number.max(number.saturating_add(1));
        }
        let sealed = seal_keyring(provider, entropy, repository, &keyring_key, &keyring)?;
        let slot = NewSlot { credential: *credential, label: &options.slot_label, parameters: options.argon2 };
        let slot = make_slot(provider, entropy, repository, slot, &[], &keyring_key)?;
        // `config` comes last: until then there is no repository, and its slot and keyring belong to
        // nobody. Whoever wins the put of `config` has a whole repository; readers pass over what others left.
        write_keyring(&*storage, provider, entropy, repository, &keyring_key, &mut keyring, sealed)?;
        let ours = [Place::Keyring(keyring.number).key(), Place::Slot(slot.id).key()];
        store_slot(&*storage, &slot)?;
        let leftovers: Vec<Key> = all_keys(&*storage)?.into_iter().filter(|key| !ours.contains(key)).collect();
        match put_config(&*storage, &config_key, &config_bytes) {
            // Nobody else can win any more: what was there before belongs to nobody. None of it hurts if it stays.
            Ok(()) => leftovers.iter().for_each(|key| drop(storage.delete(key))),
            Err(error) => {
                if matches!(error, Error::AlreadyExists { .. }) {
                    ours.iter().for_each(|key| drop(storage.delete(key)));
                }
                return Err(error);
            }
        }
        let signers = signers(&config)?;
        let hash = hash::digest(&config_bytes);
        let inner = Inner::new(storage, environment, config, hash, signers, (slot.id, keyring_key), &keyring)?;
        Ok(Self { inner: Arc::new(inner) })
    }
}

fn exists() -> Error {
    Error::AlreadyExists { what: "repository", name: "config".into() }
}

/// A repository that lost its `config` is no empty place: its keys must stay.
pub(crate) fn check_no_remains(storage: &dyn Storage) -> Result<()> {
    for prefix in [layout::SESSIONS, layout::COLLECTIONS, layout::PACKS] {
        let page = storage.list(prefix, None).map_err(|source| Error::list(prefix, source))?;
        if let Some(object) = page.objects.first() {
            return Err(Error::AlreadyExists { what: "repository", name: object.key.to_string() });
        }
    }
    Ok(())
}

/// Slots and keyrings: ours, and those of inits that were interrupted or run at this moment.
fn all_keys(storage: &dyn Storage) -> Result<Vec<Key>> {
    let mut keys = Vec::new();
    for prefix in [layout::SLOTS, layout::KEYRINGS] {
        let objects = list_all(storage, prefix).map_err(|source| Error::list(prefix, source))?;
        keys.extend(objects.into_iter().map(|object| object.key).filter(|key| Place::parse(key).is_some()));
    }
    Ok(keys)
}

/// Decides whose repository it is.
pub(crate) fn put_config(storage: &dyn Storage, key: &Key, bytes: &[u8]) -> Result<()> {
    let Err(error) = storage.put(key, Bytes::copy_from_slice(bytes), PutMode::Create) else { return Ok(()) };
    match storage.get(key, limits::CONFIG) {
        // It arrived, and the answer to it, or to the first try of it, did not.
        Ok(found) if found == bytes => Ok(()),
        Ok(_) => Err(exists()),
        Err(_) => Err(Error::storage("put", key, error)),
    }
}
