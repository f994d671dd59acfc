//! HKDF-SHA256 (RFC 5869): all derivations of keys from keys.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroize;

use crate::error::{Error, Result};
use crate::secret::Secret;

/// A pseudorandom key: the result of `Extract`.
#[derive(Debug)]
pub(crate) struct PseudorandomKey(Secret<32>);

impl PseudorandomKey {
    /// `Extract(salt, key)`; the salt is the concatenation of its parts.
    pub(crate) fn extract(salt: &[u8], key: &[u8]) -> Self {
        let (mut output, _) = Hkdf::<Sha256>::extract(Some(salt), key);
        let extracted = Self(Secret::copy_of(output.as_ref()));
        output.as_mut_slice().zeroize();
        extracted
    }

    /// `Expand(self, info, N)`; the info is the concatenation of its parts.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] for more than 8160 bytes.
    pub(crate) fn expand<const N: usize>(&self, info: &[&[u8]]) -> Result<Secret<N>> {
        const REFUSED: Error = Error::Internal("HKDF refused a derivation");
        let hkdf = Hkdf::<Sha256>::from_prk(self.0.expose()).map_err(|_| REFUSED)?;
        Secret::build(|output| hkdf.expand_multi_info(info, output).map_err(|_| REFUSED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test case 1 of RFC 5869, appendix A.
    #[test]
    fn is_hkdf_sha256() {
        let salt: Vec<u8> = (0x00..=0x0c).collect();
        let key = PseudorandomKey::extract(&salt, &[0x0b; 22]);
        let first: Vec<u8> = (0xf0..=0xf4).collect();
        let second: Vec<u8> = (0xf5..=0xf9).collect();
        let output = key.expand::<42>(&[&first, &second]).unwrap();
        let expected = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865";
        let hex: String = output.expose().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
    }

    #[test]
    fn too_long_outputs_are_refused() {
        let key = PseudorandomKey::extract(b"", b"key");
        assert!(key.expand::<8160>(&[]).is_ok());
        assert!(key.expand::<8161>(&[]).is_err());
    }
}
