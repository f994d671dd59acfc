//! Ed25519 signatures over labelled digests.

use std::fmt;

use ed25519_dalek::Signer;

use crate::crypto::hash;
use crate::error::{Error, Result};
use crate::id::write_hex;

/// Length of a signature.
pub(crate) const SIGNATURE_LENGTH: usize = 64;

/// A private key, wiped when dropped.
pub(crate) struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// From the 32 random bytes of RFC 8032.
    pub(crate) fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The public half.
    pub(crate) fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(self.0.verifying_key())
    }

    /// Signs `label || 00 || BLAKE3(message)`. A label belongs to one kind of record, so that a
    /// signature of one kind is never one of another.
    pub(crate) fn sign(&self, label: &str, message: &[u8]) -> [u8; SIGNATURE_LENGTH] {
        self.0.sign(&signed_bytes(label, message)).to_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(of {})", self.verifying_key())
    }
}

/// A public key that verifies the signatures of a repository's writers or of its maintenance.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VerifyingKey(ed25519_dalek::VerifyingKey);

impl VerifyingKey {
    /// From its bytes.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] where they are no point of the curve in its one encoding, or a weak one under which
    /// signatures can be made without a private key.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self> {
        match ed25519_dalek::VerifyingKey::from_bytes(bytes) {
            // A point has a second encoding where y + p fits into 255 bits.
            Ok(key) if !key.is_weak() && key.to_edwards().compress().as_bytes() == bytes => Ok(Self(key)),
            _ => Err(Error::invalid("verifying key", "not a usable Ed25519 public key")),
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Whether `signature` was made by [`SigningKey::sign`] with the same label and message. Strict:
    /// one message and key have no second encoding of a valid signature.
    pub(crate) fn verify(&self, label: &str, message: &[u8], signature: &[u8; SIGNATURE_LENGTH]) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        self.0.verify_strict(&signed_bytes(label, message), &signature).is_ok()
    }
}

impl fmt::Display for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, self.as_bytes())
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({self})")
    }
}

fn signed_bytes(label: &str, message: &[u8]) -> Vec<u8> {
    [label.as_bytes(), &[0], hash::digest(message).as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_signed_message_under_its_label_verifies() {
        let key = SigningKey::from_seed(&[5; 32]);
        let public = VerifyingKey::from_bytes(key.verifying_key().as_bytes()).unwrap();
        let signature = key.sign("test/a", b"message");
        assert!(public.verify("test/a", b"message", &signature));
        assert!(!public.verify("test/b", b"message", &signature));
        assert!(!public.verify("test/a", b"messagf", &signature));
        assert!(!SigningKey::from_seed(&[6; 32]).verifying_key().verify("test/a", b"message", &signature));
        // Miri takes a minute for each.
        for bit in (0..SIGNATURE_LENGTH * 8).step_by(if cfg!(miri) { 100 } else { 1 }) {
            let mut forged = signature;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(!public.verify("test/a", b"message", &forged), "{bit}");
        }
    }

    #[test]
    fn weak_and_non_canonical_keys_are_refused() {
        let mut identity = [0; 32];
        identity[0] = 1;
        let mut large = [0xff; 32];
        large[31] = 0x7f;
        for bytes in [[0; 32], identity, large, [0xff; 32]] {
            assert!(VerifyingKey::from_bytes(&bytes).is_err(), "{bytes:02x?}");
        }
    }

    #[test]
    fn private_keys_are_not_shown() {
        let key = SigningKey::from_seed(&[0x42; 32]);
        assert!(!format!("{key:?}").contains("42424242"));
    }
}
