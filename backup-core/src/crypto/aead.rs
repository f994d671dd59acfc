//! AES-256-GCM as an argument: several implementations, the same bytes.

use std::fmt;

use crate::error::Result;

/// Length of an authentication tag.
pub(crate) const TAG_LENGTH: usize = 16;
/// Length of a nonce.
pub(crate) const NONCE_LENGTH: usize = 12;

/// An implementation of AES-256-GCM.
///
/// All providers give the same bytes; a repository written with one is read with any other. Choose by
/// speed and by whose code should be trusted: [`AesGcm`](crate::crypto::AesGcm) is the default,
/// `AwsLcRs` (feature `aws-lc-rs`) is several times faster.
pub trait AeadProvider: Send + Sync + fmt::Debug {
    /// A stable name for reports.
    fn name(&self) -> &'static str;

    /// Prepares a key. The provider wipes its copy when the returned key is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`](crate::Error::Internal) where the implementation refuses to work at all.
    fn key(&self, key: &[u8; 32]) -> Result<Box<dyn AeadKey>>;
}

/// A prepared AES-256-GCM key. Nothing is authenticated beside the ciphertext: the format binds
/// everything else through the key.
pub trait AeadKey: Send + Sync {
    /// Encrypts `buffer` in place and returns the tag. The caller never repeats a nonce under one key.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`](crate::Error::Internal) where the implementation refuses; the buffer is
    /// then undefined and must not be stored.
    fn seal(&self, nonce: &[u8; NONCE_LENGTH], buffer: &mut [u8]) -> Result<[u8; TAG_LENGTH]>;

    /// Checks the tag and decrypts `buffer` in place. Where this is `false` the content of the buffer
    /// is undefined and must not be used.
    #[must_use]
    fn open(&self, nonce: &[u8; NONCE_LENGTH], buffer: &mut [u8], tag: &[u8; TAG_LENGTH]) -> bool;
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The checks that every provider must pass.
    pub(crate) fn check(provider: &dyn AeadProvider) {
        published_vectors(provider);
        forgeries_are_rejected(provider);
    }

    /// Test cases 13 to 15 of "The Galois/Counter Mode of Operation" (McGrew, Viega).
    fn published_vectors(provider: &dyn AeadProvider) {
        let key = provider.key(&[0; 32]).unwrap();
        assert_eq!(key.seal(&[0; 12], &mut []).unwrap(), hex("530f8afbc74536b9a963b4f1c4cb738b").as_slice());
        let mut block = [0; 16];
        let tag = key.seal(&[0; 12], &mut block).unwrap();
        assert_eq!(block.as_slice(), hex("cea7403d4d606b6e074ec5d3baf39d18"));
        assert_eq!(tag, hex("d0d1c8a799996bf0265b98b5d48ab919").as_slice());

        let key = hex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
        let nonce = hex("cafebabefacedbaddecaf888").try_into().unwrap();
        let plain = hex(concat!(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72",
            "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255"
        ));
        let cipher = hex(concat!(
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa",
            "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad"
        ));
        let key = provider.key(&key.try_into().unwrap()).unwrap();
        let mut buffer = plain.clone();
        let tag = key.seal(&nonce, &mut buffer).unwrap();
        assert_eq!(buffer, cipher);
        assert_eq!(tag, hex("b094dac5d93471bdec1a502270e3cc6c").as_slice());
        assert!(key.open(&nonce, &mut buffer, &tag));
        assert_eq!(buffer, plain);
    }

    fn forgeries_are_rejected(provider: &dyn AeadProvider) {
        let key = provider.key(&[7; 32]).unwrap();
        let mut sealed = *b"attack at dawn, or thereabouts, not later";
        let tag = key.seal(&[1; 12], &mut sealed).unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut forged = sealed;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.open(&[1; 12], &mut forged, &tag));
        }
        for bit in 0..128 {
            let mut forged = tag;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.open(&[1; 12], &mut sealed.clone(), &forged));
        }
        assert!(!key.open(&[2; 12], &mut sealed.clone(), &tag));
        assert!(!provider.key(&[8; 32]).unwrap().open(&[1; 12], &mut sealed.clone(), &tag));
        assert!(key.open(&[1; 12], &mut sealed, &tag));
    }

    fn hex(text: &str) -> Vec<u8> {
        text.as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }
}
