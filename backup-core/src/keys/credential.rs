//! What opens a key slot.

use std::fmt;

use crate::keys::recovery::RecoveryKey;
use crate::secret::Password;

/// A password (with or without a key file) or a recovery key.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Credential<'a> {
    /// A password. Where the slot was made with a key file, both are needed.
    Password {
        /// What the user typed.
        password: &'a Password,
        /// The content of the key file; never empty.
        key_file: Option<&'a [u8]>,
    },
    /// A recovery key.
    RecoveryKey(&'a RecoveryKey),
}

impl<'a> From<&'a Password> for Credential<'a> {
    fn from(password: &'a Password) -> Self {
        Self::Password { password, key_file: None }
    }
}

impl<'a> From<&'a RecoveryKey> for Credential<'a> {
    fn from(key: &'a RecoveryKey) -> Self {
        Self::RecoveryKey(key)
    }
}

impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password { key_file: None, .. } => "Password(..)",
            Self::Password { key_file: Some(_), .. } => "Password(..) with a key file",
            Self::RecoveryKey(_) => "RecoveryKey(..)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_shown() {
        let password = Password::from("hunter2");
        let shown = format!("{:?}", Credential::Password { password: &password, key_file: Some(b"file") });
        assert_eq!(shown, "Password(..) with a key file");
    }
}
