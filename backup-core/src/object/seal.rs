//! Sealing: gather, encrypt in place, name.

use bytes::Bytes;

use crate::crypto::{AeadProvider, hash};
use crate::entropy::Entropy;
use crate::error::{Error, Result};
use crate::format::config::Padding;
use crate::format::header::{self, Header};
use crate::id::{ObjectName, RepositoryId, SessionId};
use crate::length;
use crate::object::keys::{FrameKey, frame_nonce};
use crate::object::open::name_of;
use crate::object::types::ObjectType;

/// Bytes of plaintext before the body: its length.
pub(crate) const LENGTH_PREFIX: u64 = 8;
/// Plaintexts above this size have frames of 64 KiB, others of 4 KiB.
const SMALL: u64 = 64 << 10;

/// An object ready to be stored.
#[derive(Clone, Debug)]
pub(crate) struct SealedObject {
    /// BLAKE3 of the bytes.
    pub(crate) name: ObjectName,
    /// All of the object.
    pub(crate) bytes: Bytes,
}

/// Everything that one object is sealed with.
pub(crate) struct Sealer<'k> {
    pub(crate) provider: &'k dyn AeadProvider,
    pub(crate) entropy: &'k dyn Entropy,
    pub(crate) repository: RepositoryId,
    pub(crate) kind: ObjectType,
    /// 0 where the key does not depend on a root key.
    pub(crate) generation: u32,
    pub(crate) session: SessionId,
    /// The key of all objects of this type.
    pub(crate) key: &'k [u8; 32],
    /// What keeps salts apart where the entropy repeats itself.
    pub(crate) hedge: &'k [u8; 32],
    pub(crate) padding: Padding,
}

impl Sealer<'_> {
    /// Seals the concatenation of `parts`. One allocation: the parts are gathered where the
    /// ciphertext will stand, and encrypted there.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] for a body larger than objects of the type may be; failures of the
    /// entropy source.
    pub(crate) fn seal(&self, parts: &[&[u8]]) -> Result<SealedObject> {
        let body_length = parts.iter().fold(0u64, |sum, part| sum.saturating_add(length::to_u64(part.len())));
        let mut header = self.geometry(body_length)?;
        header.salt = self.salt(body_length, parts)?;
        let key = FrameKey::derive(&header, self.key, self.provider)?;
        header.commitment = *key.commitment();

        let capacity = length::to_usize(header.object_size(), "size of an object")?;
        let frame_size = length::to_usize(header.frame_size(), "size of a frame")?;
        let mut bytes = Vec::with_capacity(capacity);
        bytes.extend_from_slice(&header.encode());
        let prefix = body_length.to_le_bytes();
        let mut gather = Gather { current: &prefix, parts };
        for frame in 0..header.frames {
            let start = bytes.len();
            gather.append(&mut bytes, frame_size);
            bytes.resize(start.saturating_add(frame_size), 0);
            let nonce = frame_nonce(key.iv(), frame, header.frames);
            let plain = bytes.get_mut(start..).ok_or(Error::Internal("a frame outside its buffer"))?;
            let tag = key.aead().seal(&nonce, plain)?;
            bytes.extend_from_slice(&tag);
        }
        debug_assert_eq!(bytes.len(), capacity);
        Ok(SealedObject { name: name_of(&bytes), bytes: Bytes::from(bytes) })
    }

    /// The header without salt and commitment: how many frames of which size.
    fn geometry(&self, body_length: u64) -> Result<Header> {
        let plaintext = body_length.saturating_add(LENGTH_PREFIX);
        let padded = match self.padding {
            Padding::Padme => header::padme(plaintext),
            Padding::Frames => plaintext,
        };
        let frame_log2 = if plaintext > SMALL { 16 } else { header::MIN_FRAME_LOG2 };
        let too_large = |size| Error::limit(format!("size of a {}", self.kind.name()), size, self.kind.limit());
        let frames = u32::try_from(header::frames_for(padded, frame_log2)).map_err(|_| too_large(padded))?;
        let header = Header {
            kind: self.kind.number(),
            frame_log2,
            frames,
            repository: self.repository,
            generation: self.generation,
            session: self.session,
            salt: [0; 32],
            commitment: [0; 32],
        };
        if frames > header::MAX_FRAMES || header.object_size() > self.kind.limit() {
            return Err(too_large(header.object_size()));
        }
        Ok(header)
    }

    /// Unique where the randomness is, or where the contents differ. Readers take it as it is.
    fn salt(&self, body_length: u64, parts: &[&[u8]]) -> Result<[u8; 32]> {
        let mut random = [0; 32];
        self.entropy.fill(&mut random)?;
        let body = hash::digest_of_parts(parts);
        Ok(hash::keyed(self.hedge, &[&random, &body_length.to_le_bytes(), body.as_bytes()]))
    }
}

/// The plaintext as slices, copied piece by piece.
struct Gather<'p> {
    current: &'p [u8],
    parts: &'p [&'p [u8]],
}

impl Gather<'_> {
    /// Appends the next `wanted` bytes, or all that are left.
    fn append(&mut self, buffer: &mut Vec<u8>, mut wanted: usize) {
        while wanted > 0 {
            if self.current.is_empty() {
                let Some((next, rest)) = self.parts.split_first() else { return };
                (self.current, self.parts) = (next, rest);
            }
            let count = wanted.min(self.current.len());
            let (taken, behind) = self.current.split_at_checked(count).unwrap_or((self.current, &[]));
            buffer.extend_from_slice(taken);
            self.current = behind;
            wanted = wanted.saturating_sub(count);
        }
    }
}
