//! Key slots on storage: creating, listing, opening, removing.

use bytes::Bytes;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::crypto::kdf::PseudorandomKey;
use crate::crypto::{AeadProvider, Argon2Parameters, hash};
use crate::entropy::Entropy;
use crate::error::{Error, Result};
use crate::format::layout::{self, Place};
use crate::format::slot::{Derivation, Slot};
use crate::id::{RepositoryId, SlotId};
use crate::keys::credential::Credential;
use crate::length::to_u64;
use crate::limits;
use crate::object::FrameKey;
use crate::secret::Secret;
use crate::storage::{PutMode, Storage, StorageError, list_all};

const SLOT_LABEL: &[u8] = b"backup/v1/slot\0";
/// Most objects below `keys/` that are looked at: nobody has so many, but a hostile storage may.
const SLOTS_READ: usize = 64;

/// What seals the keyring; every slot holds it, wrapped.
#[derive(Debug)]
pub(crate) struct KeyringKey(Secret<32>);

impl KeyringKey {
    /// A new key.
    pub(crate) fn generate(entropy: &dyn Entropy) -> Result<Self> {
        Secret::random(entropy).map(Self)
    }

    /// A given key: for vectors.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Secret::copy_of(bytes))
    }

    pub(crate) fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }
}

/// A key slot, as everybody can see it. The label is not authenticated before the slot is opened.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct KeySlot {
    /// Its identity.
    pub id: SlotId,
    /// What opens it.
    pub kind: KeySlotKind,
    /// A name for people.
    pub label: String,
    /// What a guess of the password costs; `None` for recovery keys.
    pub argon2: Option<Argon2Parameters>,
}

/// An object in the place of a key slot that is none, or none of this repository. It opens nothing.
#[derive(Debug)]
#[non_exhaustive]
pub struct DamagedSlot {
    /// The id in its storage key.
    pub id: SlotId,
    /// What is wrong with it.
    pub error: Error,
}

/// What opens a key slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum KeySlotKind {
    /// A password, perhaps with a key file.
    Password,
    /// A recovery key.
    RecoveryKey,
}

impl KeySlot {
    fn of(slot: &Slot) -> Self {
        let (kind, argon2) = match slot.derivation {
            Derivation::Argon2id { memory_kib, iterations, parallelism, .. } => {
                (KeySlotKind::Password, Some(Argon2Parameters { memory_kib, iterations, parallelism }))
            }
            Derivation::Raw => (KeySlotKind::RecoveryKey, None),
        };
        Self { id: slot.id, kind, label: slot.label.clone(), argon2 }
    }
}

/// A slot to be made.
#[derive(Clone, Copy)]
pub(crate) struct NewSlot<'a> {
    /// What is to open it.
    pub(crate) credential: Credential<'a>,
    /// A name for people.
    pub(crate) label: &'a str,
    /// What a guess of the password is to cost.
    pub(crate) parameters: Argon2Parameters,
}

/// An id for a slot beside `others`. Slots are tried in the order of their ids, and only as many as
/// [`limits::SLOTS_TRIED`]; one that may be too many for that comes last, so that it keeps no other from being tried.
///
/// # Errors
///
/// Failures of the entropy source; [`Error::LimitExceeded`] where no id follows the last one.
fn new_id(entropy: &dyn Entropy, others: &[KeySlot]) -> Result<SlotId> {
    let mut random = [0; 16];
    entropy.fill(&mut random)?;
    let last = others.iter().map(|slot| u128::from_be_bytes(*slot.id.as_bytes())).max();
    let Some(last) = last.filter(|_| others.len() >= limits::SLOTS_TRIED) else { return Ok(SlotId::new(random)) };
    // Half of the digits are random, and the other half is not used up.
    let step = u128::from_be_bytes(random) >> 64;
    let next = last.checked_add(step.saturating_add(1));
    let next = next.ok_or_else(|| Error::limit("number of key slots", too_many(), to_u64(limits::SLOTS_TRIED)))?;
    Ok(SlotId::new(next.to_be_bytes()))
}

fn too_many() -> u64 {
    to_u64(limits::SLOTS_TRIED).saturating_add(1)
}

/// Wraps `keyring_key` for a credential. Nothing is stored.
///
/// # Errors
///
/// [`Error::InvalidArgument`] for an empty password or key file, a label that is too long, or
/// parameters below the floor; failures of the entropy source.
pub(crate) fn make_slot(
    provider: &dyn AeadProvider,
    entropy: &dyn Entropy,
    repository: RepositoryId,
    new: NewSlot<'_>,
    others: &[KeySlot],
    keyring_key: &KeyringKey,
) -> Result<Slot> {
    let NewSlot { credential, label, parameters } = new;
    let id = new_id(entropy, others)?;
    let derivation = match credential {
        Credential::Password { .. } => {
            parameters.check_floor()?;
            parameters.check_limits(u64::MAX)?;
            let Argon2Parameters { memory_kib, iterations, parallelism } = parameters;
            let mut salt = [0; 32];
            entropy.fill(&mut salt)?;
            Derivation::Argon2id { memory_kib, iterations, parallelism, salt }
        }
        Credential::RecoveryKey(_) => Derivation::Raw,
    };
    let slot = Slot { repository, id, derivation, label: label.to_owned(), commitment: [0; 32], wrapped: [0; 48] };
    wrap(slot, credential, provider, keyring_key)
}

/// Stores a slot.
///
/// # Errors
///
/// [`Error::AlreadyExists`]; failures of the storage.
pub(crate) fn store_slot(storage: &dyn Storage, slot: &Slot) -> Result<KeySlot> {
    let key = Place::Slot(slot.id).key();
    match storage.put(&key, Bytes::copy_from_slice(&slot.encode()?), PutMode::Create) {
        Ok(()) => Ok(KeySlot::of(slot)),
        Err(StorageError::AlreadyExists) => Err(Error::AlreadyExists { what: "key slot", name: key.to_string() }),
        Err(error) => Err(Error::storage("put", &key, error)),
    }
}

/// Makes a slot and stores it. One more than opening tries is made only where it `replaces` a slot, which the
/// caller removes directly afterwards.
///
/// # Errors
///
/// [`Error::LimitExceeded`] where there are so many slots that opening would not try a further one; those of
/// [`make_slot`] and [`store_slot`].
pub(crate) fn create_slot(
    storage: &dyn Storage,
    provider: &dyn AeadProvider,
    entropy: &dyn Entropy,
    repository: RepositoryId,
    new: NewSlot<'_>,
    replaces: bool,
    keyring_key: &KeyringKey,
) -> Result<KeySlot> {
    // One that cannot be read is not tried either.
    let (others, _) = list_slots(storage, repository)?;
    let most = limits::SLOTS_TRIED.saturating_sub(usize::from(!replaces));
    if others.len() > most {
        return Err(Error::limit("number of key slots", too_many(), to_u64(limits::SLOTS_TRIED)));
    }
    store_slot(storage, &make_slot(provider, entropy, repository, new, &others, keyring_key)?)
}

/// All key slots, and what is wrong with objects that should be slots but are not.
///
/// # Errors
///
/// Failures of the storage.
pub(crate) fn list_slots(storage: &dyn Storage, repository: RepositoryId) -> Result<(Vec<KeySlot>, Vec<DamagedSlot>)> {
    let (mut slots, mut damaged) = (Vec::new(), Vec::new());
    for id in slot_places(storage)? {
        match read_slot(storage, repository, id) {
            Ok(slot) => slots.push(KeySlot::of(&slot)),
            // Removed since it was listed.
            Err(Error::Storage { source: StorageError::NotFound, .. }) => {}
            Err(error @ (Error::Damaged { .. } | Error::Unsupported { .. })) => damaged.push(DamagedSlot { id, error }),
            Err(error) => return Err(error),
        }
    }
    Ok((slots, damaged))
}

/// Removes a slot: its password or recovery key no longer opens the repository. Who copied the slot
/// before, and knows the password, still can, also after the root key was rotated: the keyring key stays
/// the same. Only a new repository shuts him out.
///
/// # Errors
///
/// [`Error::NotFound`]; [`Error::Conflict`] for the last slot that can be read, without which nobody
/// could open the repository again.
pub(crate) fn remove_slot(storage: &dyn Storage, repository: RepositoryId, id: SlotId) -> Result<()> {
    if !slot_places(storage)?.contains(&id) {
        return Err(Error::not_found("key slot", id));
    }
    let others_are_left = || list_slots(storage, repository).map(|(slots, _)| slots.iter().any(|slot| slot.id != id));
    let last = || Error::Conflict {
        what: format!("key slot {id}"),
        reason: "it is the last one: nobody could open the repository without it".to_owned(),
        transient: false,
    };
    if !others_are_left()? {
        return Err(last());
    }
    let key = Place::Slot(id).key();
    let removed = read_slot(storage, repository, id);
    storage.delete(&key).map_err(|error| Error::storage("delete", &key, error))?;
    // Somebody else may have removed the others meanwhile. Of all who remove, the last to look sees what all
    // have done, so one slot at least is put back.
    if let Ok(slot) = removed
        && !others_are_left()?
    {
        store_slot(storage, &slot)?;
        return Err(last());
    }
    Ok(())
}

/// Tries the slots that the credential may open and returns the one that does and what it holds, at most [`limits::SLOTS_TRIED`] of them. A password
/// may cost `max_memory` bytes.
///
/// # Errors
///
/// [`Error::WrongPassword`] where no slot opens; [`Error::LimitExceeded`] where none opens and one
/// asks for more than is allowed; [`Error::Damaged`] or [`Error::Unsupported`] where there was none
/// that could be tried.
pub(crate) fn open_slots(
    storage: &dyn Storage,
    provider: &dyn AeadProvider,
    repository: RepositoryId,
    credential: Credential<'_>,
    max_memory: u64,
) -> Result<(SlotId, KeyringKey)> {
    check_credential(credential)?;
    let (mut tried, mut too_expensive, mut unreadable) = (0, None, None);
    let places = slot_places(storage)?;
    if places.is_empty() {
        let reason = "there are none, and the repository cannot be opened without one";
        return Err(Error::damaged("key slots", layout::SLOTS, reason));
    }
    for id in places {
        let slot = match read_slot(storage, repository, id) {
            Ok(slot) => slot,
            // One damaged slot must not keep the others from opening.
            Err(error) => {
                unreadable.get_or_insert(error);
                continue;
            }
        };
        if !matches_kind(&slot, credential) {
            continue;
        }
        if let Some(parameters) = KeySlot::of(&slot).argon2
            && let Err(error) = parameters.check_limits(max_memory)
        {
            too_expensive.get_or_insert(error);
            continue;
        }
        if tried == limits::SLOTS_TRIED {
            break;
        }
        tried = tried.saturating_add(1);
        match unwrap(&slot, credential, provider) {
            Ok(Some(key)) => return Ok((id, key)),
            Ok(None) => {}
            // Parameters that Argon2 does not have, or memory that this machine does not have.
            Err(error) => {
                too_expensive.get_or_insert(error);
            }
        }
    }
    let unreadable = unreadable.filter(|error| tried == 0 || matches!(error, Error::Storage { .. }));
    Err(too_expensive.or(unreadable).unwrap_or(Error::WrongPassword))
}

/// Ids of all objects below `keys/` that are named like slots.
fn slot_places(storage: &dyn Storage) -> Result<Vec<SlotId>> {
    let objects = list_all(storage, layout::SLOTS).map_err(|source| Error::list(layout::SLOTS, source))?;
    let ids = objects.iter().filter_map(|object| match Place::parse(&object.key) {
        Some(Place::Slot(id)) => Some(id),
        _ => None,
    });
    Ok(ids.take(SLOTS_READ).collect())
}

pub(crate) fn read_slot(storage: &dyn Storage, repository: RepositoryId, id: SlotId) -> Result<Slot> {
    let key = Place::Slot(id).key();
    let damaged = |reason: &str| Error::damaged("key slot", &key, reason);
    let bytes = storage.get(&key, limits::SLOT).map_err(|error| match error {
        StorageError::TooLarge { .. } => damaged("larger than a key slot"),
        error => Error::storage("get", &key, error),
    })?;
    let slot = Slot::decode(&bytes, key.as_str())?;
    if slot.repository != repository {
        return Err(damaged("belongs to another repository"));
    }
    if slot.id != id {
        return Err(damaged("stands under the name of another slot"));
    }
    Ok(slot)
}

fn check_credential(credential: Credential<'_>) -> Result<()> {
    match credential {
        Credential::Password { password, .. } if password.is_empty() => Err(Error::invalid("password", "empty")),
        Credential::Password { key_file: Some([]), .. } => Err(Error::invalid("key file", "empty")),
        Credential::Password { .. } | Credential::RecoveryKey(_) => Ok(()),
    }
}

fn matches_kind(slot: &Slot, credential: Credential<'_>) -> bool {
    matches!(
        (slot.derivation, credential),
        (Derivation::Argon2id { .. }, Credential::Password { .. }) | (Derivation::Raw, Credential::RecoveryKey(_))
    )
}

/// Fills in commitment and wrapped key.
pub(crate) fn wrap(
    mut slot: Slot,
    credential: Credential<'_>,
    provider: &dyn AeadProvider,
    keyring_key: &KeyringKey,
) -> Result<Slot> {
    check_credential(credential)?;
    let key = slot_key(&slot, credential, provider)?;
    let mut buffer = Zeroizing::new(*keyring_key.expose());
    let tag = key.aead().seal(key.iv(), buffer.as_mut())?;
    slot.commitment = *key.commitment();
    slot.wrapped.iter_mut().zip(buffer.iter().chain(&tag)).for_each(|(out, byte)| *out = *byte);
    Ok(slot)
}

/// The keyring key, or `None` where the credential is not the slot's.
fn unwrap(slot: &Slot, credential: Credential<'_>, provider: &dyn AeadProvider) -> Result<Option<KeyringKey>> {
    let key = slot_key(slot, credential, provider)?;
    if !bool::from(key.commitment().ct_eq(&slot.commitment)) {
        return Ok(None);
    }
    let (cipher, tag) = slot.wrapped.split_last_chunk::<16>().ok_or(Error::Internal("a slot without a tag"))?;
    let cipher: &[u8; 32] = cipher.try_into().map_err(|_| Error::Internal("a slot without a key"))?;
    let mut authentic = false;
    let secret = Secret::build(|buffer| -> Result<()> {
        *buffer = *cipher;
        authentic = key.aead().open(key.iv(), buffer, tag);
        Ok(())
    })?;
    Ok(authentic.then_some(KeyringKey(secret)))
}

/// `Expand(Extract(repository || slot, KEK), "backup/v1/slot" || 00 || SHA-256(slot), 76)`.
fn slot_key(slot: &Slot, credential: Credential<'_>, provider: &dyn AeadProvider) -> Result<FrameKey> {
    let wrapping = match (slot.derivation, credential) {
        (
            Derivation::Argon2id { memory_kib, iterations, parallelism, salt },
            Credential::Password { password, key_file },
        ) => Argon2Parameters { memory_kib, iterations, parallelism }.derive(password, key_file, &salt)?,
        (Derivation::Raw, Credential::RecoveryKey(key)) => Secret::copy_of(key.expose()),
        _ => return Err(Error::Internal("a credential of another kind than its slot")),
    };
    let salt = [slot.repository.as_bytes().as_slice(), slot.id.as_bytes()].concat();
    let bound = hash::sha256(&slot.bound_bytes()?);
    let material = PseudorandomKey::extract(&salt, wrapping.expose()).expand(&[SLOT_LABEL, &bound])?;
    FrameKey::split(&material, provider)
}
