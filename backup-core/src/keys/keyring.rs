//! The keyring on storage: created, changed by adding the next number, read.

use bytes::Bytes;
use zeroize::Zeroizing;

use crate::crypto::{AeadProvider, SigningKey, VerifyingKey, hash};
use crate::entropy::Entropy;
use crate::error::{Error, Result};
use crate::format::config::Padding;
use crate::format::header::Header;
use crate::format::keyring::Keyring;
use crate::format::layout::{self, Place};
use crate::id::{Digest, RepositoryId, SessionId};
use crate::keys::slot::KeyringKey;
use crate::length::to_u64;
use crate::limits;
use crate::object::{GenerationKeys, ObjectReader, ObjectType, Sealer};
use crate::secret::Secret;
use crate::storage::{PutMode, Storage, StorageError, list_all};

impl Keyring {
    /// The key that signs commits.
    pub(crate) fn writer_key(&self) -> SigningKey {
        SigningKey::from_seed(self.writer.expose())
    }

    /// The key that signs forgets, revocations and collections.
    pub(crate) fn maintenance_key(&self) -> SigningKey {
        SigningKey::from_seed(self.maintenance.expose())
    }
}

/// New secrets for a new repository, and the bytes of the `config` that goes with them, which
/// `make_config` encodes from the writer's and the maintenance's verifying key.
///
/// # Errors
///
/// Failures of the entropy source and of `make_config`.
pub(crate) fn create_keyring(
    entropy: &dyn Entropy,
    make_config: impl FnOnce(&VerifyingKey, &VerifyingKey) -> Result<Vec<u8>>,
) -> Result<(Keyring, Vec<u8>)> {
    let mut keyring = Keyring {
        number: 1,
        generations: vec![(1, Secret::random(entropy)?)],
        dedup: Secret::random(entropy)?,
        writer: Secret::random(entropy)?,
        maintenance: Secret::random(entropy)?,
        config_hash: Digest::new([0; 32]),
    };
    let config = make_config(&keyring.writer_key().verifying_key(), &keyring.maintenance_key().verifying_key())?;
    keyring.config_hash = hash::digest(&config);
    Ok((keyring, config))
}

/// The next keyring, with a new root key: data written from now on is not readable with the old ones.
///
/// # Errors
///
/// Failures of the entropy source; [`Error::LimitExceeded`] where numbers are used up.
pub(crate) fn with_new_root(keyring: &Keyring, entropy: &dyn Entropy) -> Result<Keyring> {
    let copy = |secret: &Secret<32>| Secret::copy_of(secret.expose());
    let newest = keyring.generations.last().map_or(0, |(generation, _)| *generation);
    let mut generations: Vec<_> =
        keyring.generations.iter().map(|(generation, root)| (*generation, copy(root))).collect();
    generations.push((next("root key generation", newest)?, Secret::random(entropy)?));
    Ok(Keyring {
        number: next("keyring number", keyring.number)?,
        generations,
        dedup: copy(&keyring.dedup),
        writer: copy(&keyring.writer),
        maintenance: copy(&keyring.maintenance),
        config_hash: keyring.config_hash,
    })
}

fn next(what: &str, number: u32) -> Result<u32> {
    number.checked_add(1).ok_or_else(|| Error::limit(what, u64::from(number).saturating_add(1), u32::MAX.into()))
}

/// Stores a sealed keyring. Where its number is taken by another repository, of which nothing but that came to be,
/// it gets the next number and is sealed anew.
///
/// # Errors
///
/// [`Error::Conflict`] where another party stored a keyring of this repository with this number; failures of
/// storage and entropy.
pub(crate) fn write_keyring(
    storage: &dyn Storage,
    provider: &dyn AeadProvider,
    entropy: &dyn Entropy,
    repository: RepositoryId,
    keyring_key: &KeyringKey,
    keyring: &mut Keyring,
    mut sealed: Bytes,
) -> Result<()> {
    loop {
        let key = Place::Keyring(keyring.number).key();
        match storage.put(&key, sealed, PutMode::Create) {
            Ok(()) => return Ok(()),
            Err(StorageError::AlreadyExists) => {}
            Err(error) => return Err(Error::storage("put", &key, error)),
        }
        match storage.get(&key, limits::KEYRING) {
            Ok(object) if !is_of_another(&object, repository) => {
                return Err(Error::Conflict {
                    what: key.to_string(),
                    reason: "another party changed the keyring at the same time".to_owned(),
                    transient: true,
                });
            }
            Ok(_) | Err(StorageError::NotFound) => {}
            Err(error) => return Err(Error::storage("get", &key, error)),
        }
        keyring.number = next("keyring number", keyring.number)?;
        sealed = seal_keyring(provider, entropy, repository, keyring_key, keyring)?;
    }
}

/// Numbers of all keyrings, of whatever repository.
///
/// # Errors
///
/// Failures of the storage.
pub(crate) fn keyring_numbers(storage: &dyn Storage) -> Result<Vec<u32>> {
    let objects = list_all(storage, layout::KEYRINGS).map_err(|source| Error::list(layout::KEYRINGS, source))?;
    let numbers = objects.iter().filter_map(|object| match Place::parse(&object.key) {
        Some(Place::Keyring(number)) => Some(number),
        _ => None,
    });
    Ok(numbers.collect())
}

/// The keyring with the highest number.
pub(crate) struct NewestKeyring {
    /// Its number, and what came of reading it; `None` where there is none.
    pub(crate) found: Option<(u32, Result<Bytes, StorageError>)>,
    /// Higher numbers, of other repositories: what is left of inits that did not come to their end.
    pub(crate) foreign: Vec<u32>,
}

/// Finds the keyring with the highest number.
///
/// # Errors
///
/// [`Error::Storage`] where keyrings cannot be listed.
pub(crate) fn newest_keyring(storage: &dyn Storage, repository: RepositoryId) -> Result<NewestKeyring> {
    let mut numbers = keyring_numbers(storage)?;
    numbers.sort_unstable();
    let mut newest = NewestKeyring { found: None, foreign: Vec::new() };
    while let Some(number) = numbers.pop() {
        match storage.get(&Place::Keyring(number).key(), limits::KEYRING) {
            Ok(object) if is_of_another(&object, repository) => newest.foreign.push(number),
            read => {
                newest.found = Some((number, read));
                break;
            }
        }
    }
    Ok(newest)
}

/// Bits in which the ids of two repositories differ at least; by chance they differ in 64 of 128. Fewer are a
/// damaged id of this repository, and the keyring may be the newest.
const DIFFERENT_BITS: u32 = 24;

/// Whether a keyring is well-formed and names another repository.
pub(crate) fn is_of_another(object: &[u8], repository: RepositoryId) -> bool {
    let kind = ObjectType::Keyring.name();
    Header::parse(object, to_u64(object.len()), kind, kind).is_ok_and(|header| {
        let pairs = header.repository.as_bytes().iter().zip(repository.as_bytes());
        pairs.map(|(one, two)| (one ^ two).count_ones()).sum::<u32>() >= DIFFERENT_BITS
    })
}

/// Reads the keyring with the highest number and checks that it belongs to `config`.
///
/// # Errors
///
/// [`Error::Damaged`], also where there is none. An older keyring never stands in for
/// a damaged one: it lacks keys.
pub(crate) fn read_newest_keyring(
    storage: &dyn Storage,
    provider: &dyn AeadProvider,
    repository: RepositoryId,
    keyring_key: &KeyringKey,
    config: &[u8],
) -> Result<Keyring> {
    let newest = newest_keyring(storage, repository)?.found;
    let lost = || {
        let reason = "there is none, and the repository cannot be opened without it";
        Error::damaged("keyring", layout::KEYRINGS, reason)
    };
    let (number, object) = newest.ok_or_else(lost)?;
    let key = Place::Keyring(number).key();
    let damaged = |reason: &str| Error::damaged("keyring", &key, reason);
    let object = object.map_err(|error| match error {
        StorageError::TooLarge { size, limit } => Error::limit(format!("size of {key}"), size, limit),
        error => Error::storage("get", &key, error),
    })?;
    let keyring = open_keyring(provider, repository, keyring_key, key.as_str(), &object)?;
    if keyring.number != number {
        return Err(damaged("stands under the number of another keyring"));
    }
    if keyring.config_hash != hash::digest(config) {
        return Err(Error::damaged("config", "config", "is not the one that the keyring was made for"));
    }
    Ok(keyring)
}

pub(crate) fn seal_keyring(
    provider: &dyn AeadProvider,
    entropy: &dyn Entropy,
    repository: RepositoryId,
    keyring_key: &KeyringKey,
    keyring: &Keyring,
) -> Result<Bytes> {
    let body = keyring.encode()?;
    let (generation, root) = keyring.generations.last().ok_or(Error::Internal("a keyring without root keys"))?;
    let hedge = GenerationKeys::derive(repository, *generation, root)?.hedge;
    let sealer = Sealer {
        provider,
        entropy,
        repository,
        kind: ObjectType::Keyring,
        generation: 0,
        session: SessionId::new([0; 16]),
        key: keyring_key.expose(),
        hedge: hedge.expose(),
        padding: Padding::Frames,
    };
    Ok(sealer.seal(&[&body])?.bytes)
}

fn open_keyring(
    provider: &dyn AeadProvider,
    repository: RepositoryId,
    keyring_key: &KeyringKey,
    name: &str,
    object: &[u8],
) -> Result<Keyring> {
    let kind = ObjectType::Keyring;
    let header = Header::parse(object, to_u64(object.len()), kind.name(), name)?;
    if header.generation != 0 || header.session != SessionId::new([0; 16]) {
        return Err(Error::damaged(kind.name(), name, "has a generation or session"));
    }
    let reader = ObjectReader::new(kind, name, header, repository, keyring_key.expose(), provider)?;
    let body = Zeroizing::new(reader.open_all(object)?);
    Keyring::decode(&body, name)
}
