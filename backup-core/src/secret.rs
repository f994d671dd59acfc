//! Secrets: zeroized, built in place, never cloned, never shown.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::entropy::Entropy;
use crate::error::Result;

/// `N` secret bytes on the heap, wiped when dropped, redacted in `Debug`, without `Clone`.
#[derive(ZeroizeOnDrop)]
pub(crate) struct Secret<const N: usize>(Box<[u8; N]>);

impl<const N: usize> Secret<N> {
    /// Lets `fill` write the secret where it will stay.
    pub(crate) fn build<E>(fill: impl FnOnce(&mut [u8; N]) -> Result<(), E>) -> Result<Self, E> {
        let mut secret = Self(Box::new([0; N]));
        fill(&mut secret.0)?;
        Ok(secret)
    }

    /// Random bytes.
    pub(crate) fn random(entropy: &dyn Entropy) -> Result<Self> {
        Ok(Self::build(|secret| entropy.fill(secret))?)
    }

    /// A copy of bytes that live in a buffer which is wiped elsewhere.
    pub(crate) fn copy_of(bytes: &[u8; N]) -> Self {
        Self(Box::new(*bytes))
    }

    pub(crate) fn expose(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret<{N}>(..)")
    }
}

/// A password (or passphrase) as the user typed it; wiped when dropped.
///
/// The key derivation uses the NFC form of valid UTF-8 and the bytes as they are otherwise, so the
/// same password typed on different systems opens the same repository.
#[derive(ZeroizeOnDrop)]
pub struct Password(Vec<u8>);

impl Password {
    /// Takes over the bytes of a password; the vector is wiped when the password is dropped.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Whether no byte was given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes that enter the key derivation: NFC where the password is UTF-8.
    pub(crate) fn normalized(&self) -> Zeroizing<Vec<u8>> {
        use unicode_normalization::UnicodeNormalization;
        match std::str::from_utf8(&self.0) {
            Ok(text) if !text.is_ascii() => {
                let mut out = Zeroizing::new(Vec::with_capacity(self.0.len().saturating_mul(3)));
                let mut utf8 = [0u8; 4];
                for character in text.nfc() {
                    out.extend_from_slice(character.encode_utf8(&mut utf8).as_bytes());
                }
                utf8.zeroize();
                out
            }
            _ => Zeroizing::new(self.0.clone()),
        }
    }
}

impl From<&str> for Password {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_shown() {
        assert_eq!(format!("{:?}", Password::from("hunter2")), "Password(..)");
        assert_eq!(format!("{:?}", Secret::<4>::copy_of(b"abcd")), "Secret<4>(..)");
    }

    #[test]
    fn composed_and_decomposed_passwords_are_the_same() {
        let composed = Password::from("caf\u{e9}").normalized();
        let decomposed = Password::from("cafe\u{301}").normalized();
        assert_eq!(*composed, *decomposed);
    }

    #[test]
    fn bytes_that_are_not_text_are_kept() {
        assert_eq!(*Password::new(vec![0xff, 0xfe]).normalized(), vec![0xff, 0xfe]);
    }
}
