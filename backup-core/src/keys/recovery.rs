//! The recovery key: 32 random bytes on paper.

use std::fmt;

use zeroize::Zeroizing;

use crate::entropy::Entropy;
use crate::error::Result;
use crate::keys::text;
use crate::secret::Secret;

/// What the text begins with, before the separator `1`.
const PREFIX: &str = "bkrec";

/// A random key that opens a repository without a password. Shown once, kept on paper; wiped when
/// dropped.
///
/// As text it is Bech32m (BIP 350) with the prefix `bkrec`: 64 characters whose checksum finds every
/// typing error that people make.
pub struct RecoveryKey(Secret<32>);

impl RecoveryKey {
    /// A new key.
    ///
    /// # Errors
    ///
    /// Failures of the entropy source.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self> {
        Secret::random(entropy).map(Self)
    }

    /// Reads the text form, in lower or upper case. White space and hyphens do not matter.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument); it does not repeat the text.
    pub fn parse(text: &str) -> Result<Self> {
        text::parse(PREFIX, "recovery key", text).map(Self)
    }

    /// The text to print and keep. Whoever has it can open the repository.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`](crate::Error::Internal); not expected.
    pub fn to_text(&self) -> Result<Zeroizing<String>> {
        text::write(PREFIX, &self.0)
    }

    pub(crate) fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }
}

impl fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use bech32::{Bech32m, Hrp};

    use super::*;
    use crate::entropy::SeededEntropy;

    fn sample() -> RecoveryKey {
        RecoveryKey::generate(&SeededEntropy::new(1)).unwrap()
    }

    #[test]
    fn text_round_trips_in_any_layout() {
        let text = sample().to_text().unwrap();
        assert_eq!(text.len(), 64);
        assert!(text.starts_with("bkrec1"));
        let grouped: Vec<String> =
            text.as_bytes().chunks(8).map(|group| String::from_utf8_lossy(group).into()).collect();
        for form in
            [text.to_string(), text.to_uppercase(), grouped.join(" "), grouped.join("-"), format!(" {}\n", *text)]
        {
            assert_eq!(RecoveryKey::parse(&form).unwrap().expose(), sample().expose());
        }
    }

    #[test]
    fn every_mistyped_character_is_found_and_nothing_is_repeated() {
        let text = sample().to_text().unwrap();
        for position in 0..text.len() {
            for character in "qpzry9x8gf2tvdw0s3jn54khce6mua7l1bkx".chars() {
                let mut typed = text.to_string();
                typed.replace_range(position..=position, &character.to_string());
                if typed == **text {
                    continue;
                }
                let error = RecoveryKey::parse(&typed).unwrap_err().to_string();
                assert!(!error.contains(&typed[6..14]), "{error}");
            }
            let mut missing = text.to_string();
            missing.remove(position);
            assert!(RecoveryKey::parse(&missing).is_err() || missing == **text);
        }
    }

    #[test]
    fn other_prefixes_lengths_and_checksums_are_refused() {
        let encode =
            |prefix: &str, bytes: &[u8]| bech32::encode::<Bech32m>(Hrp::parse(prefix).unwrap(), bytes).unwrap();
        assert!(RecoveryKey::parse(&encode("bkrec", &[7; 32])).is_ok());
        assert!(RecoveryKey::parse(&encode("bc", &[7; 32])).is_err());
        assert!(RecoveryKey::parse(&encode("bkrec", &[7; 31])).is_err());
        assert!(RecoveryKey::parse(&encode("bkrec", &[7; 33])).is_err());
        let old = bech32::encode::<bech32::Bech32>(Hrp::parse("bkrec").unwrap(), &[7; 32]).unwrap();
        assert!(RecoveryKey::parse(&old).is_err());
        for text in ["", "bkrec1", "hunter2", &"b".repeat(10_000)] {
            assert!(RecoveryKey::parse(text).is_err());
        }
    }

    #[test]
    fn it_is_not_shown() {
        assert_eq!(format!("{:?}", sample()), "RecoveryKey(..)");
    }
}
