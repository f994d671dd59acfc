//! Keys of objects: short, portable, the same on every storage.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The name of an object on storage: components of `a-z 0-9 . _ -` joined by `/`, at most 200 bytes.
///
/// No component is empty, starts with a dot, or is longer than 100 bytes, so every key is a valid
/// relative path, URL path and object-store key without escaping, and no two keys differ in case only.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// The longest key in bytes.
    pub const MAX_LENGTH: usize = 200;
    /// The longest component in bytes.
    pub const MAX_COMPONENT: usize = 100;

    /// Checks and takes a key.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] naming the text.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        if Self::is_valid(&text) {
            Ok(Self(text))
        } else {
            Err(Error::invalid("key", format!("{text:?} is not a storage key")))
        }
    }

    /// Whether `text` is a key.
    #[must_use]
    pub fn is_valid(text: &str) -> bool {
        text.len() <= Self::MAX_LENGTH
            && text.split('/').all(|component| {
                !component.is_empty()
                    && component.len() <= Self::MAX_COMPONENT
                    && !component.starts_with('.')
                    && component.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
            })
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A key that this crate built from parts that are valid by construction.
    pub(crate) fn built(text: String) -> Self {
        debug_assert!(Self::is_valid(&text), "{text}");
        Self(text)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0)
    }
}

impl FromStr for Key {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

/// Keys are ordered as their text is, so that ordered maps of keys can be searched by any prefix.
impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_and_rejects() {
        for good in ["config", "packs/ab/abcdef", "sessions/00000001/ff/open", "a.b-c_d"] {
            assert!(Key::new(good).is_ok(), "{good}");
        }
        let long = "a".repeat(101);
        for bad in ["", "/", "a/", "/a", "a//b", ".", "..", "a/../b", ".hidden", "A", "ä", "a b", "a\0", "a\\b", &long]
        {
            assert!(Key::new(bad).is_err(), "{bad}");
        }
    }
}
