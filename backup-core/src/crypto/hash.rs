//! BLAKE3 for names, identifiers and digests; SHA-256 where a derivation asks for it.

use sha2::Digest as _;

use crate::id::{ChunkId, Digest, ObjectName};

/// BLAKE3 of `bytes`.
pub(crate) fn digest(bytes: &[u8]) -> Digest {
    Digest::new(*blake3::hash(bytes).as_bytes())
}

/// BLAKE3 of the concatenation of `parts`, without concatenating them.
pub(crate) fn digest_of_parts(parts: &[&[u8]]) -> Digest {
    let mut hasher = DigestHasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finish()
}

/// The name of an object on storage: BLAKE3 of its bytes there.
pub(crate) fn object_name(bytes: &[u8]) -> ObjectName {
    ObjectName::new(*blake3::hash(bytes).as_bytes())
}

/// The id of a chunk: keyed BLAKE3 of its plaintext.
pub(crate) fn chunk_id(key: &[u8; 32], plaintext: &[u8]) -> ChunkId {
    ChunkId::new(*blake3::keyed_hash(key, plaintext).as_bytes())
}

/// Keyed BLAKE3 of the concatenation of `parts`.
pub(crate) fn keyed(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    sha2::Sha256::digest(bytes).into()
}

/// BLAKE3 of bytes that arrive piece by piece.
#[derive(Clone, Debug, Default)]
pub(crate) struct DigestHasher(blake3::Hasher);

impl DigestHasher {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(&self) -> Digest {
        Digest::new(*self.0.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_hash_like_their_concatenation() {
        assert_eq!(digest(b"abc"), digest_of_parts(&[b"a", b"", b"bc"]));
        assert_eq!(digest(b"abc").as_bytes(), object_name(b"abc").as_bytes());
        assert_eq!(&keyed(&[1; 32], &[b"ab", b"c"]), chunk_id(&[1; 32], b"abc").as_bytes());
        assert_ne!(chunk_id(&[1; 32], b"abc"), chunk_id(&[2; 32], b"abc"));
    }

    /// The first published test vector of BLAKE3 and of SHA-256 (FIPS 180-2, "abc").
    #[test]
    fn are_blake3_and_sha256() {
        assert_eq!(digest(b"").to_string(), "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
        assert_eq!(
            Digest::new(sha256(b"abc")).to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
