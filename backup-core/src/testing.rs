//! What the published test vectors (`tests/vectors`) and measurements (`benches`) need of the inside. Not an interface:
//! it changes whenever the inside does.

pub mod stages;

pub mod fuzz;

use crate::crypto::{AeadProvider, AesGcm, Argon2Parameters, SigningKey};
use crate::entropy::Entropy;
use crate::error::{Error, Result};
use crate::format::config::{Config, Padding};
use crate::format::keyring::Keyring;
use crate::format::layout::Place;
use crate::format::slot::{Derivation, Slot};
use crate::id::{BackupId, Digest, ObjectName, RepositoryId, SessionId, SlotId};
use crate::keys::{ContentKeys, Credential, KeyringKey, read_newest_keyring, seal_keyring, wrap};
use crate::object::{FrameKey, GenerationKeys, ObjectKeys, ObjectType, Sealer, frame_nonce};
use crate::repository::{Control, Repository};
use crate::secret::Secret;
use crate::session::records;
use crate::storage::Key;

/// Every key that is derived from a root key and the dedup key, by name.
///
/// # Errors
///
/// None that is expected.
pub fn derived_keys(
    repository: RepositoryId,
    generation: u32,
    root: &[u8; 32],
    dedup: &[u8; 32],
) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let of_root = GenerationKeys::derive(repository, generation, &Secret::copy_of(root))?;
    let dedup = Secret::copy_of(dedup);
    let of_dedup = ContentKeys::derive(&dedup)?;
    Ok(vec![
        ("type_data_pack", of_root.data_pack.expose().to_vec()),
        ("type_meta_pack", of_root.meta_pack.expose().to_vec()),
        ("type_body", of_root.body.expose().to_vec()),
        ("hedge", of_root.hedge.expose().to_vec()),
        ("index", ObjectKeys::index_key(&dedup)?.expose().to_vec()),
        ("chunk_id_data", of_dedup.data_id_key().to_vec()),
        ("chunk_id_meta", of_dedup.meta_id_key().to_vec()),
        ("content_page", of_dedup.page_boundary().to_vec()),
        ("chunker_gear", of_dedup.gear().to_vec()),
    ])
}

/// What an object of the vectors is sealed with.
#[derive(Debug)]
pub struct ObjectVector<'a> {
    /// The number of the type.
    pub kind: u8,
    /// The repository.
    pub repository: RepositoryId,
    /// The generation in the header.
    pub generation: u32,
    /// The session in the header.
    pub session: SessionId,
    /// The key of all objects of the type.
    pub key: &'a [u8; 32],
    /// The hedge key.
    pub hedge: &'a [u8; 32],
    /// Padmé, or whole frames only.
    pub padme: bool,
}

impl ObjectVector<'_> {
    /// The object's name and bytes.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for an unknown type.
    pub fn seal(
        &self,
        provider: &dyn AeadProvider,
        entropy: &dyn Entropy,
        body: &[u8],
    ) -> Result<(ObjectName, Vec<u8>)> {
        let kind = ObjectType::ALL.into_iter().find(|kind| kind.number() == self.kind);
        let sealer = Sealer {
            provider,
            entropy,
            repository: self.repository,
            kind: kind.ok_or_else(|| Error::invalid("type", "unknown"))?,
            generation: self.generation,
            session: self.session,
            key: self.key,
            hedge: self.hedge,
            padding: if self.padme { Padding::Padme } else { Padding::Frames },
        };
        sealer.seal(&[body]).map(|sealed| (sealed.name, sealed.bytes.to_vec()))
    }
}

/// A key slot with the given id and salt.
///
/// # Errors
///
/// Those of making a slot.
pub fn slot(
    repository: RepositoryId,
    id: SlotId,
    credential: Credential<'_>,
    parameters: Argon2Parameters,
    salt: [u8; 32],
    label: &str,
    keyring_key: &[u8; 32],
) -> Result<Vec<u8>> {
    let Argon2Parameters { memory_kib, iterations, parallelism } = parameters;
    let derivation = match credential {
        Credential::Password { .. } => Derivation::Argon2id { memory_kib, iterations, parallelism, salt },
        Credential::RecoveryKey(_) => Derivation::Raw,
    };
    let slot = Slot { repository, id, derivation, label: label.to_owned(), commitment: [0; 32], wrapped: [0; 48] };
    Ok(wrap(slot, credential, &AesGcm, &KeyringKey::from_bytes(keyring_key))?.encode()?.to_vec())
}

/// The bytes of a `config` with default parameters.
///
/// # Errors
///
/// None that is expected.
pub fn config(repository: RepositoryId, writer_key: [u8; 32], maintenance_key: [u8; 32]) -> Result<Vec<u8>> {
    Config::new(repository, writer_key, maintenance_key).encode()
}

/// Body and sealed object of a keyring with the given secrets.
///
/// # Errors
///
/// Those of sealing.
pub fn keyring(
    entropy: &dyn Entropy,
    repository: RepositoryId,
    keyring_key: &[u8; 32],
    number: u32,
    roots: &[(u32, [u8; 32])],
    [dedup, writer, maintenance]: [&[u8; 32]; 3],
    config_hash: Digest,
) -> Result<(Vec<u8>, Vec<u8>)> {
    let keyring = Keyring {
        number,
        generations: roots.iter().map(|(generation, root)| (*generation, Secret::copy_of(root))).collect(),
        dedup: Secret::copy_of(dedup),
        writer: Secret::copy_of(writer),
        maintenance: Secret::copy_of(maintenance),
        config_hash,
    };
    let object = seal_keyring(&AesGcm, entropy, repository, &KeyringKey::from_bytes(keyring_key), &keyring)?;
    Ok((keyring.encode()?.to_vec(), object.to_vec()))
}

/// Public key and signature.
#[must_use]
pub fn signature(seed: &[u8; 32], label: &str, message: &[u8]) -> ([u8; 32], [u8; 64]) {
    let key = SigningKey::from_seed(seed);
    (*key.verifying_key().as_bytes(), key.sign(label, message))
}

/// The body of a sealed object of an open repository, whatever its type.
///
/// # Errors
///
/// Those of opening.
pub fn open_object(repository: &Repository, key: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let number = bytes.get(9).copied().unwrap_or_default();
    repository.inner.keys.open(object_type(number)?, key, bytes)
}

/// An object that the repository's keys seal, whatever its body is: what somebody who has the password and means
/// harm can make.
///
/// # Errors
///
/// Those of sealing.
pub fn seal_object(repository: &Repository, kind: u8, body: &[u8]) -> Result<(ObjectName, Vec<u8>)> {
    let inner = &repository.inner;
    let sealed = inner.keys.seal(object_type(kind)?, &SessionId::new([0x5e; 16]), &[body], inner.config.padding)?;
    Ok((sealed.name, sealed.bytes.to_vec()))
}

/// An object whose header and frames are what the caller says, sealed with the keys of a repository.
///
/// `header` is the first 96 bytes; the commitment is added. `plaintext` is cut into frames of the size that the header
/// says. `is_last` says which of them are sealed as the last one.
///
/// # Errors
///
/// Those of sealing.
pub fn seal_frames(
    repository: &Repository,
    header: &[u8; 96],
    plaintext: &[u8],
    is_last: &dyn Fn(u32) -> bool,
) -> Result<Vec<u8>> {
    let inner = &repository.inner;
    let kind = object_type(header.get(9).copied().unwrap_or_default())?;
    let base = match kind {
        ObjectType::Keyring => inner.keyring_key.expose(),
        kind => inner.keys.base_key(kind)?.expose(),
    };
    let mut bound = [0; 128];
    bound.iter_mut().zip(header).for_each(|(out, byte)| *out = *byte);
    let salt = header.last_chunk().ok_or(Error::Internal("a header without salt"))?;
    let key = FrameKey::derive_bound(&bound, salt, base, &*inner.environment.aead)?;
    let mut bytes = [&header[..], key.commitment()].concat();
    let frame_size = 1usize.checked_shl(header.get(11).copied().unwrap_or_default().into()).unwrap_or(usize::MAX);
    for (frame, plain) in (0..).zip(plaintext.chunks(frame_size)) {
        // The nonce knows only whether a frame is the last of so many.
        let frames = if is_last(frame) { frame.saturating_add(1) } else { u32::MAX };
        let mut sealed = plain.to_vec();
        let tag = key.aead().seal(&frame_nonce(key.iv(), frame, frames), &mut sealed)?;
        bytes.extend_from_slice(&sealed);
        bytes.extend_from_slice(&tag);
    }
    Ok(bytes)
}

/// The id of a chunk of content, or of a page.
#[must_use]
pub fn chunk_id(repository: &Repository, is_page: bool, plaintext: &[u8]) -> [u8; 32] {
    let keys = &repository.inner.chunk_keys;
    *if is_page { keys.meta_id(plaintext) } else { keys.data_id(plaintext) }.as_bytes()
}

/// The body of the newest keyring.
///
/// # Errors
///
/// Those of reading the keyring.
pub fn keyring_body(repository: &Repository) -> Result<Vec<u8>> {
    Ok(keyring_of(repository)?.encode()?.to_vec())
}

/// Label and payload of a signed record.
///
/// # Errors
///
/// [`Error::Damaged`].
pub fn record_payload(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut map = crate::format::cbor::decode(bytes, "record", &"record")?.map()?;
    map.required(1)?.text()?;
    let payload = map.required(2)?.bytes()?.to_vec();
    map.required(3)?.bytes()?;
    map.finish()?;
    Ok(payload)
}

/// A record that the repository's writer or maintenance key signs, whatever it says.
///
/// # Errors
///
/// Those of reading the keyring.
pub fn sign_record(repository: &Repository, label: &'static str, payload: &[u8]) -> Result<Vec<u8>> {
    let key = if label.ends_with("/commit") { writer_key(repository)? } else { maintenance_key(repository)? };
    crate::session::seal_record(label, payload, &key)
}

fn writer_key(repository: &Repository) -> Result<SigningKey> {
    keyring_of(repository).map(|keyring| keyring.writer_key())
}

fn maintenance_key(repository: &Repository) -> Result<SigningKey> {
    keyring_of(repository).map(|keyring| keyring.maintenance_key())
}

fn keyring_of(repository: &Repository) -> Result<Keyring> {
    let inner = &repository.inner;
    let config = inner.get(&Place::Config.key(), crate::limits::CONFIG, &Control::default())?;
    let provider = &*inner.environment.aead;
    read_newest_keyring(&*inner.storage, provider, inner.config.repository, &inner.keyring_key, &config)
}

fn object_type(number: u8) -> Result<ObjectType> {
    let kind = ObjectType::ALL.into_iter().find(|kind| kind.number() == number);
    kind.ok_or_else(|| Error::invalid("type", "unknown"))
}

/// What a collector will write: its mark.
///
/// # Errors
///
/// Those of reading the keyring.
pub fn collection_mark(repository: &Repository, number: u32, condemned: &[ObjectName]) -> Result<(Key, Vec<u8>)> {
    let bytes = records::mark(&maintenance_key(repository)?, repository.id(), number, condemned);
    Ok((Place::CollectionMark(number).key(), bytes))
}

/// What a collector will write: its final.
///
/// # Errors
///
/// Those of reading the keyring.
pub fn collection_final(
    repository: &Repository,
    number: u32,
    condemned: &[ObjectName],
    checkpoint: &[Vec<u8>],
    indexes: &[ObjectName],
) -> Result<(Key, Vec<u8>)> {
    let key = maintenance_key(repository)?;
    let bytes = records::finale(&key, repository.id(), number, condemned, checkpoint, indexes);
    Ok((Place::CollectionOutcome(number).key(), bytes))
}

/// What a collector will write into the slot of a session that does not end.
///
/// # Errors
///
/// Those of reading the keyring.
pub fn revocation(repository: &Repository, generation: u32, session: SessionId) -> Result<(Key, Vec<u8>)> {
    let bytes = records::revoke(&maintenance_key(repository)?, repository.id(), session);
    Ok((Place::SessionOutcome(generation, session).key(), bytes))
}

/// The storage behind a handle.
#[must_use]
pub fn storage_of(repository: &Repository) -> std::sync::Arc<dyn crate::storage::Storage> {
    std::sync::Arc::clone(&repository.inner.storage)
}

/// What forgetting a backup will write.
///
/// # Errors
///
/// Those of reading the keyring.
pub fn forget(repository: &Repository, backup: BackupId) -> Result<(Key, Vec<u8>)> {
    let bytes = records::forget(&maintenance_key(repository)?, repository.id(), backup);
    Ok((Place::Forget(backup).key(), bytes))
}
