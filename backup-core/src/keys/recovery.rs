//! The recovery key: 32 random bytes on paper.

use std::fmt;

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32m, Hrp};
use zeroize::Zeroizing;

use crate::entropy::Entropy;
use crate::error::{Error, Result};
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
    /// [`Error::InvalidArgument`]; it does not repeat the text.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |reason: &str| Error::invalid("recovery key", reason);
        let mut compact = Zeroizing::new(String::with_capacity(text.len()));
        compact.extend(text.chars().filter(|character| !character.is_whitespace() && *character != '-'));
        let parsed = CheckedHrpstring::new::<Bech32m>(&compact)
            .map_err(|_| invalid("mistyped or incomplete: its checksum does not match"))?;
        if !parsed.hrp().as_str().eq_ignore_ascii_case(PREFIX) {
            return Err(invalid("does not begin with bkrec1"));
        }
        // 256 bits take 52 characters with four bits left, which must be zero: one text a key.
        if parsed.data_part_ascii_no_checksum().len() != 52 {
            return Err(invalid("of another length"));
        }
        let key = Self(Secret::build(|bytes| {
            let mut count = 0usize;
            for (out, byte) in bytes.iter_mut().zip(parsed.byte_iter()) {
                *out = byte;
                count = count.saturating_add(1);
            }
            if count == 32 { Ok(()) } else { Err(invalid("of another length")) }
        })?);
        let canonical = key.to_text()?;
        if canonical.eq_ignore_ascii_case(&compact) { Ok(key) } else { Err(invalid("not in its one text form")) }
    }

    /// The text to print and keep. Whoever has it can open the repository.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`]; not expected.
    pub fn to_text(&self) -> Result<Zeroizing<String>> {
        const REFUSED: Error = Error::Internal("Bech32m refused a key");
        let prefix = Hrp::parse(PREFIX).map_err(|_| REFUSED)?;
        let mut text = Zeroizing::new(String::with_capacity(80));
        bech32::encode_lower_to_fmt::<Bech32m, String>(&mut text, prefix, self.0.expose()).map_err(|_| REFUSED)?;
        Ok(text)
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
