//! Creating a repository.

use std::sync::Arc;

use crate::crypto::{Argon2Parameters, hash};
use crate::error::{Error, Result};
use crate::format::config::{ChunkingParameters, Config, Padding};
use crate::format::layout::Place;
use crate::id::RepositoryId;
use crate::keys::{Credential, KeyringKey, create_keyring, create_slot, write_keyring};
use crate::limits;
use crate::repository::environment::Environment;
use crate::repository::handle::{Inner, Repository};
use crate::repository::locked::signers;
use crate::storage::{PutMode, Storage, StorageError};

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
    /// Creates a repository on an empty storage and opens it.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyExists`] where there is a repository, or the beginnings of one;
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
        let (keyring, config_bytes) = create_keyring(entropy, |writer, maintenance| {
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
        // `config` comes last: until then there is no repository, and its slots and keyring belong to
        // nobody. Whoever wins the put of `config` has a whole repository.
        let provider = &*environment.aead;
        write_keyring(&*storage, provider, entropy, repository, &keyring_key, &keyring).map_err(begun)?;
        create_slot(
            &*storage,
            provider,
            entropy,
            repository,
            *credential,
            &options.slot_label,
            options.argon2,
            &keyring_key,
        )?;
        storage.put(&config_key, config_bytes.clone().into(), PutMode::Create).map_err(|error| match error {
            StorageError::AlreadyExists => exists(),
            error => Error::storage("put", &config_key, error),
        })?;
        let signers = signers(&config)?;
        let hash = hash::digest(&config_bytes);
        let inner = Inner::new(storage, environment, config, hash, signers, keyring_key, &keyring)?;
        Ok(Self { inner: Arc::new(inner) })
    }
}

fn exists() -> Error {
    Error::AlreadyExists { what: "repository", name: "config".into() }
}

/// A keyring without `config`: somebody else is creating, or was interrupted while creating, a repository.
fn begun(error: Error) -> Error {
    match error {
        Error::Conflict { what, .. } => Error::AlreadyExists { what: "repository", name: what },
        other => other,
    }
}
