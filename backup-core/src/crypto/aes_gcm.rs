//! The default provider: the `aes-gcm` crate of RustCrypto.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};

use crate::crypto::aead::{AeadKey, AeadProvider, NONCE_LENGTH, TAG_LENGTH};
use crate::error::{Error, Result};

/// AES-256-GCM in Rust, with the processor's AES instructions where it has them.
#[derive(Clone, Copy, Debug, Default)]
pub struct AesGcm;

impl AeadProvider for AesGcm {
    fn name(&self) -> &'static str {
        "aes-gcm"
    }

    fn key(&self, key: &[u8; 32]) -> Result<Box<dyn AeadKey>> {
        Ok(Box::new(Key(Aes256Gcm::new(key.into()))))
    }
}

/// Wiped when dropped (feature `zeroize` of the crate).
struct Key(Aes256Gcm);

impl AeadKey for Key {
    fn seal(&self, nonce: &[u8; NONCE_LENGTH], buffer: &mut [u8]) -> Result<[u8; TAG_LENGTH]> {
        self.0
            .encrypt_inout_detached(nonce.into(), &[], buffer.into())
            .map(Into::into)
            .map_err(|_| Error::Internal("AES-256-GCM refused to encrypt"))
    }

    fn open(&self, nonce: &[u8; NONCE_LENGTH], buffer: &mut [u8], tag: &[u8; TAG_LENGTH]) -> bool {
        self.0.decrypt_inout_detached(nonce.into(), &[], buffer.into(), tag.into()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_aes_256_gcm() {
        crate::crypto::aead::tests::check(&AesGcm);
    }
}
