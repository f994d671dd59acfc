//! Newtypes for every identifier of the format. All show and parse as lower-case hexadecimal.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $length:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $length]);

        impl $name {
            /// The length in bytes.
            pub const LENGTH: usize = $length;

            /// From its bytes.
            #[must_use]
            pub const fn new(bytes: [u8; $length]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, &self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                parse_hex(text)
                    .map(Self)
                    .ok_or_else(|| Error::invalid($what, format!("not {} lower-case hexadecimal digits: {text:?}", $length * 2)))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

identifier!(
    /// A repository: random, chosen when it is created, bound into every key.
    RepositoryId, 16, "repository id"
);
identifier!(
    /// A writing session: random, one per attempt to make a backup.
    SessionId, 16, "session id"
);
identifier!(
    /// A key slot: random.
    SlotId, 16, "key slot id"
);
identifier!(
    /// A chunk: keyed BLAKE3 of its plaintext. Secret, never visible on storage.
    ChunkId, 32, "chunk id"
);
identifier!(
    /// A sealed or plain object on storage: BLAKE3 of its bytes there.
    ObjectName, 32, "object name"
);
identifier!(
    /// A backup: BLAKE3 of its signed commit record. A unique prefix is enough for people.
    BackupId, 32, "backup id"
);
identifier!(
    /// BLAKE3 of plaintext bytes, unkeyed, as `b3sum` prints it.
    Digest, 32, "digest"
);

impl BackupId {
    /// The first eight digits: what people see and type.
    #[must_use]
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(8);
        text
    }
}

pub(crate) fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    for byte in bytes {
        write!(f, "{byte:02x}")?;
    }
    Ok(())
}

fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != N.checked_mul(2)? {
        return None;
    }
    let mut out = [0u8; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let mut value = 0u8;
        for digit in pair {
            let nibble = match digit {
                b'0'..=b'9' => digit.saturating_sub(b'0'),
                b'a'..=b'f' => digit.saturating_sub(b'a').saturating_add(10),
                _ => return None,
            };
            value = (value << 4) | nibble;
        }
        *byte = value;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_and_parses() {
        let id = SessionId::new([0xab; 16]);
        assert_eq!(id.to_string(), "ab".repeat(16));
        assert_eq!(id.to_string().parse::<SessionId>().unwrap(), id);
    }

    #[test]
    fn rejects_what_is_not_canonical() {
        for text in ["", "ab", &"AB".repeat(16), &"g0".repeat(16), &"é".repeat(16)] {
            assert!(text.parse::<SessionId>().is_err(), "{text}");
        }
    }
}
