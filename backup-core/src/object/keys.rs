//! The keys of objects: from root keys to the key of one object (`docs/format.md`, "Keys").

use std::fmt;
use std::sync::Arc;

use crate::crypto::kdf::PseudorandomKey;
use crate::crypto::{AeadKey, AeadProvider, hash};
use crate::entropy::Entropy;
use crate::error::{Error, Result};
use crate::format::config::Padding;
use crate::format::header::{Header, SUITE};
use crate::id::{RepositoryId, SessionId};
use crate::length::to_u64;
use crate::object::open::ObjectReader;
use crate::object::seal::{SealedObject, Sealer};
use crate::object::types::ObjectType;
use crate::secret::Secret;

const DEDUP_SALT: &[u8] = b"backup/v1/dedup";
const TYPE_LABEL: &[u8] = b"backup/v1/type\0";
const HEDGE_LABEL: &[u8] = b"backup/v1/hedge";
const INDEX_LABEL: &[u8] = b"backup/v1/index";
const OBJECT_LABEL: &[u8] = b"backup/v1/object\0";

/// What seals and opens all objects of a repository but the keyring.
pub(crate) struct ObjectKeys {
    repository: RepositoryId,
    /// Ascending, at least one; new objects use the last.
    generations: Vec<GenerationKeys>,
    index: Secret<32>,
    provider: Arc<dyn AeadProvider>,
    entropy: Arc<dyn Entropy>,
}

impl ObjectKeys {
    /// Derives all keys from the root keys (ascending by generation) and the dedup key.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] where there is no root key.
    pub(crate) fn new(
        repository: RepositoryId,
        generations: &[(u32, Secret<32>)],
        dedup: &Secret<32>,
        provider: Arc<dyn AeadProvider>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self> {
        let generations: Vec<_> = generations
            .iter()
            .map(|(generation, root)| GenerationKeys::derive(repository, *generation, root))
            .collect::<Result<_>>()?;
        if generations.is_empty() {
            return Err(Error::Internal("a repository without root keys"));
        }
        let index = Self::index_key(dedup)?;
        Ok(Self { repository, generations, index, provider, entropy })
    }

    /// The key of all index segments. It does not change with the root key, as chunk ids do not.
    pub(crate) fn index_key(dedup: &Secret<32>) -> Result<Secret<32>> {
        dedup_root(dedup).expand(&[INDEX_LABEL])
    }

    /// What the keys of objects of a type are derived from: for vectors.
    #[cfg(feature = "testing")]
    pub(crate) fn base_key(&self, kind: ObjectType) -> Result<&Secret<32>> {
        let newest = self.generations.last().ok_or(Error::Internal("a repository without root keys"))?;
        match kind {
            ObjectType::DataPack => Ok(&newest.data_pack),
            ObjectType::MetaPack => Ok(&newest.meta_pack),
            ObjectType::Body => Ok(&newest.body),
            ObjectType::Index => Ok(&self.index),
            ObjectType::Keyring => Err(Error::Internal("a keyring is not sealed with keys that it holds")),
        }
    }

    /// Seals the concatenation of `parts` with the newest root key.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] for a body larger than objects of the type may be; failures of the
    /// entropy source.
    pub(crate) fn seal(
        &self,
        kind: ObjectType,
        session: &SessionId,
        parts: &[&[u8]],
        padding: Padding,
    ) -> Result<SealedObject> {
        let newest = self.generations.last().ok_or(Error::Internal("a repository without root keys"))?;
        let (key, generation) = match kind {
            ObjectType::DataPack => (&newest.data_pack, newest.generation),
            ObjectType::MetaPack => (&newest.meta_pack, newest.generation),
            ObjectType::Body => (&newest.body, newest.generation),
            ObjectType::Index => (&self.index, 0),
            ObjectType::Keyring => return Err(Error::Internal("a keyring is not sealed with keys that it holds")),
        };
        Sealer {
            provider: &*self.provider,
            entropy: &*self.entropy,
            repository: self.repository,
            kind,
            generation,
            session: *session,
            key: key.expose(),
            hedge: newest.hedge.expose(),
            padding,
        }
        .seal(parts)
    }

    /// The body of a whole object. `key` is its storage key, for errors. The name is not checked
    /// here: see [`verify_name`](crate::object::verify_name).
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] or [`Error::Unsupported`] naming the object.
    pub(crate) fn open(&self, kind: ObjectType, key: &str, object: &[u8]) -> Result<Vec<u8>> {
        self.reader(kind, key, object, to_u64(object.len()))?.open_all(object)
    }

    /// What opens ranges of an object of `object_size` bytes that begins with `header` (128 bytes or
    /// more).
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] or [`Error::Unsupported`] naming the object.
    pub(crate) fn reader(&self, kind: ObjectType, key: &str, header: &[u8], object_size: u64) -> Result<ObjectReader> {
        let header = Header::parse(header, object_size, kind.name(), key)?;
        let unknown = || {
            Error::damaged(kind.name(), key, format!("root key generation {} is not in the keyring", header.generation))
        };
        let generation = self.generations.iter().find(|keys| keys.generation == header.generation);
        let base = match kind {
            ObjectType::Index if header.generation == 0 => &self.index,
            ObjectType::DataPack => &generation.ok_or_else(unknown)?.data_pack,
            ObjectType::MetaPack => &generation.ok_or_else(unknown)?.meta_pack,
            ObjectType::Body => &generation.ok_or_else(unknown)?.body,
            ObjectType::Index => return Err(unknown()),
            ObjectType::Keyring => return Err(Error::Internal("a keyring is not opened with keys that it holds")),
        };
        ObjectReader::new(kind, key, header, self.repository, base.expose(), &*self.provider)
    }
}

impl fmt::Debug for ObjectKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectKeys(of {}, {} generations)", self.repository, self.generations.len())
    }
}

/// Keys that depend on one root key.
pub(crate) struct GenerationKeys {
    pub(crate) generation: u32,
    pub(crate) data_pack: Secret<32>,
    pub(crate) meta_pack: Secret<32>,
    pub(crate) body: Secret<32>,
    pub(crate) hedge: Secret<32>,
}

impl GenerationKeys {
    pub(crate) fn derive(repository: RepositoryId, generation: u32, root: &Secret<32>) -> Result<Self> {
        let root = PseudorandomKey::extract(repository.as_bytes(), root.expose());
        let of_type = |kind: ObjectType| root.expand(&[TYPE_LABEL, &[kind.number(), SUITE], &generation.to_le_bytes()]);
        Ok(Self {
            generation,
            data_pack: of_type(ObjectType::DataPack)?,
            meta_pack: of_type(ObjectType::MetaPack)?,
            body: of_type(ObjectType::Body)?,
            hedge: root.expand(&[HEDGE_LABEL])?,
        })
    }
}

/// What all keys of the dedup domain are expanded from.
pub(crate) fn dedup_root(dedup: &Secret<32>) -> PseudorandomKey {
    PseudorandomKey::extract(DEDUP_SALT, dedup.expose())
}

/// Key, nonce base and commitment of one object.
pub(crate) struct FrameKey {
    aead: Box<dyn AeadKey>,
    iv: [u8; 12],
    commitment: [u8; 32],
}

impl FrameKey {
    /// Derives them from the key of all objects of the type and from every byte of the header but the
    /// commitment.
    pub(crate) fn derive(header: &Header, base: &[u8; 32], provider: &dyn AeadProvider) -> Result<Self> {
        Self::derive_bound(&header.bound_bytes(), &header.salt, base, provider)
    }

    /// The same from the bytes of a header whose commitment is zeroed.
    pub(crate) fn derive_bound(
        header: &[u8; 128],
        salt: &[u8; 32],
        base: &[u8; 32],
        provider: &dyn AeadProvider,
    ) -> Result<Self> {
        let bound = hash::sha256(header);
        let material = PseudorandomKey::extract(salt, base).expand(&[OBJECT_LABEL, &bound])?;
        Self::split(&material, provider)
    }

    /// Takes key, iv and commitment from 76 bytes of key material.
    pub(crate) fn split(material: &Secret<76>, provider: &dyn AeadProvider) -> Result<Self> {
        let parts = material.expose().split_first_chunk::<32>().and_then(|(key, rest)| {
            let (iv, rest) = rest.split_first_chunk::<12>()?;
            Some((key, iv, rest.first_chunk::<32>()?))
        });
        let (key, iv, commitment) = parts.ok_or(Error::Internal("key material of another length"))?;
        Ok(Self { aead: provider.key(key)?, iv: *iv, commitment: *commitment })
    }

    pub(crate) fn aead(&self) -> &dyn AeadKey {
        &*self.aead
    }

    pub(crate) fn iv(&self) -> &[u8; 12] {
        &self.iv
    }

    pub(crate) fn commitment(&self) -> &[u8; 32] {
        &self.commitment
    }
}

/// `iv XOR (00 00 00 || last || BE64(frame))`: position and end are authenticated by the nonce.
pub(crate) fn frame_nonce(iv: &[u8; 12], frame: u32, frames: u32) -> [u8; 12] {
    let last = u8::from(frame.checked_add(1) == Some(frames));
    let mut nonce = *iv;
    let counter = [0, 0, 0, last].into_iter().chain(u64::from(frame).to_be_bytes());
    nonce.iter_mut().zip(counter).for_each(|(byte, mask)| *byte ^= mask);
    nonce
}
