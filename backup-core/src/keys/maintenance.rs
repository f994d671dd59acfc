//! The maintenance key: what forgets backups and collects garbage, and reads nothing.

use std::fmt;

use zeroize::Zeroizing;

use crate::crypto::{SigningKey, VerifyingKey};
use crate::error::Result;
use crate::format::keyring::Keyring;
use crate::keys::text;
use crate::secret::Secret;

/// What the text begins with, before the separator `1`.
const PREFIX: &str = "bkmnt";

/// The private key that signs forget records, revocations and collections. Whoever has it can make every backup
/// be deleted, and can read none. Wiped when dropped.
///
/// As text it is Bech32m (BIP 350) with the prefix `bkmnt`, like the recovery key.
pub struct MaintenanceKey(Secret<32>);

impl MaintenanceKey {
    /// Reads the text form, in lower or upper case. White space and hyphens do not matter.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument); it does not repeat the text.
    pub fn parse(text: &str) -> Result<Self> {
        text::parse(PREFIX, "maintenance key", text).map(Self)
    }

    /// The text to keep where maintenance is done.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`](crate::Error::Internal); not expected.
    pub fn to_text(&self) -> Result<Zeroizing<String>> {
        text::write(PREFIX, &self.0)
    }

    /// The public half, which the repository's `config` names.
    #[must_use]
    pub fn verifying_key(&self) -> VerifyingKey {
        self.signing_key().verifying_key()
    }

    pub(crate) fn of_keyring(keyring: &Keyring) -> Self {
        Self(Secret::copy_of(keyring.maintenance.expose()))
    }

    pub(crate) fn signing_key(&self) -> SigningKey {
        SigningKey::from_seed(self.0.expose())
    }
}

impl fmt::Debug for MaintenanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MaintenanceKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_is_no_recovery_key() {
        let key = MaintenanceKey(Secret::copy_of(&[7; 32]));
        let text = key.to_text().unwrap();
        assert!(text.starts_with("bkmnt1") && text.len() == 64, "{}", text.len());
        let read = MaintenanceKey::parse(&format!(" {}\n", text.to_uppercase())).unwrap();
        assert_eq!(read.verifying_key(), SigningKey::from_seed(&[7; 32]).verifying_key());
        assert!(crate::keys::RecoveryKey::parse(&text).is_err(), "the prefix keeps keys apart");
        assert_eq!(format!("{key:?}"), "MaintenanceKey(..)");
        for position in 0..text.len() {
            let mut typed = text.to_string();
            let other = if typed.as_bytes()[position] == b'q' { "p" } else { "q" };
            typed.replace_range(position..=position, other);
            let error = MaintenanceKey::parse(&typed).unwrap_err().to_string();
            assert!(!error.contains(&typed[6..14]), "{error}");
        }
    }
}
