//! Paths of entries: bytes, relative, without surprises.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::limits;

/// The path of an entry inside a backup: components joined by `/`, relative to the backup's root.
///
/// Bytes, not text: Unix file names need not be UTF-8. No component is empty, `.`, `..` or longer
/// than 4 KiB; none contains NUL or `/`; the path is at most 64 KiB. A path that was read from a
/// hostile backup has passed the same checks, so joining it to a target directory component by
/// component cannot leave that directory (links inside the target are the sink's business).
///
/// Paths are ordered component by component, so that a directory stands directly before everything
/// in it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EntryPath(Box<[u8]>);

impl EntryPath {
    /// Checks and takes a path.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] naming the path and the rule that it breaks.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self> {
        let bytes = bytes.into();
        match Self::fault(&bytes) {
            None => Ok(Self(bytes.into_boxed_slice())),
            Some(rule) => Err(Error::invalid(format!("entry path \"{}\"", escaped(&bytes)), rule)),
        }
    }

    /// The rule that `bytes` breaks, if any.
    pub(crate) fn fault(bytes: &[u8]) -> Option<&'static str> {
        if bytes.is_empty() {
            return Some("it is empty");
        }
        if bytes.len() > limits::PATH {
            return Some("it is longer than 65536 bytes");
        }
        if bytes.first() == Some(&b'/') {
            return Some("it is absolute");
        }
        for component in bytes.split(|byte| *byte == b'/') {
            match component {
                b"" => return Some("a component is empty"),
                b"." | b".." => return Some("a component is . or .."),
                _ if component.len() > limits::PATH_COMPONENT => {
                    return Some("a component is longer than 4096 bytes");
                }
                _ if component.contains(&0) => return Some("it contains NUL"),
                _ => {}
            }
        }
        None
    }

    /// The path's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its components, in order; at least one.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/')
    }

    /// The last component.
    #[must_use]
    pub fn file_name(&self) -> &[u8] {
        self.components().next_back().unwrap_or_default()
    }

    /// The path of the directory it stands in; `None` at the top.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let slash = self.0.iter().rposition(|byte| *byte == b'/')?;
        self.0.get(..slash).map(|bytes| Self(bytes.into()))
    }

    /// This path with one component more.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] where the component or the result is not valid.
    pub fn join(&self, component: &[u8]) -> Result<Self> {
        let mut bytes = Vec::with_capacity(self.0.len().saturating_add(component.len()).saturating_add(1));
        bytes.extend_from_slice(&self.0);
        bytes.push(b'/');
        bytes.extend_from_slice(component);
        Self::new(bytes)
    }

    /// Whether this path is `ancestor` or lies below it.
    #[must_use]
    pub fn is_within(&self, ancestor: &Self) -> bool {
        self.0.strip_prefix(&*ancestor.0).is_some_and(|rest| rest.first().is_none_or(|byte| *byte == b'/'))
    }

    /// The order of paths, for bytes that have passed [`fault`](Self::fault).
    pub(crate) fn order(one: &[u8], two: &[u8]) -> Ordering {
        let rank = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
        one.iter().map(rank).cmp(two.iter().map(rank))
    }
}

/// The order of the catalogue: `/` sorts before every other byte (NUL cannot occur).
impl Ord for EntryPath {
    fn cmp(&self, other: &Self) -> Ordering {
        Self::order(&self.0, &other.0)
    }
}

impl PartialOrd for EntryPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Bytes as people can read them: UTF-8 as it is, control characters, backslashes and other bytes
/// as `\xNN`. Unambiguous.
fn escaped(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() || character == '\\' {
                let mut utf8 = [0; 4];
                for byte in character.encode_utf8(&mut utf8).bytes() {
                    out.push_str(&format!("\\x{byte:02x}"));
                }
            } else {
                out.push(character);
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&escaped(&self.0))
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryPath({self})")
    }
}

impl FromStr for EntryPath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::new(text.as_bytes())
    }
}

impl TryFrom<&str> for EntryPath {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self> {
        Self::new(text.as_bytes())
    }
}

/// Serialized as its escaped text.
impl serde::Serialize for EntryPath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Read from its escaped text.
impl<'de> serde::Deserialize<'de> for EntryPath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let bytes = unescaped(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("not the text of an entry path: {text:?}")))?;
        Self::new(bytes).map_err(serde::de::Error::custom)
    }
}

/// The bytes that [`escaped`] shows as `text`; `None` for a backslash that begins no `\xNN`.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('\\');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let digits = part.strip_prefix('x')?;
        let (number, rest) = digits.split_at_checked(2)?;
        if !number.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        bytes.push(u8::from_str_radix(number, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_what_could_leave_a_target() {
        for bad in [&b""[..], b"/etc/passwd", b"a/../b", b"..", b".", b"a/./b", b"a//b", b"a/", b"a\0b"] {
            assert!(EntryPath::new(bad).is_err(), "{bad:?}");
        }
        assert!(EntryPath::new(vec![b'a'; 4097]).is_err());
        assert!(EntryPath::new(b"caf\xe9/\xff".to_vec()).is_ok());
    }

    #[test]
    fn directories_stand_before_their_contents() {
        let mut paths: Vec<EntryPath> =
            ["a-b", "a/z", "a", "a/b/c", "b", "a/b", "a.txt"].iter().map(|text| text.parse().unwrap()).collect();
        paths.sort();
        let order: Vec<String> = paths.iter().map(ToString::to_string).collect();
        assert_eq!(order, ["a", "a/b", "a/b/c", "a/z", "a-b", "a.txt", "b"]);
    }

    #[test]
    fn shows_every_byte_once() {
        assert_eq!(EntryPath::new(b"a\\\n\xff\xc3\xa4".to_vec()).unwrap().to_string(), "a\\x5c\\x0a\\xffä");
    }

    #[test]
    fn survives_as_json() {
        let every: Vec<u8> = (1..=255).filter(|byte| *byte != b'/').collect();
        for bytes in [&every[..], b"a\\\n\xff\xc3\xa4", b"\\x41", b"plain/path"] {
            let path = EntryPath::new(bytes.to_vec()).unwrap();
            let text = serde_json::to_string(&path).unwrap();
            assert_eq!(serde_json::from_str::<EntryPath>(&text).unwrap(), path, "{text}");
        }
        for bad in [r"\x", r"\", r"a\y41", r"\x4", r"\xAB", r"\x4ä", "", r"..", r"a\x00"] {
            assert!(serde_json::from_str::<EntryPath>(&format!("\"{bad}\"")).is_err(), "{bad}");
        }
    }

    #[test]
    fn knows_what_is_within() {
        let path: EntryPath = "a/b".parse().unwrap();
        assert!("a/b/c".parse::<EntryPath>().unwrap().is_within(&path));
        assert!(path.is_within(&path));
        assert!(!"a/bc".parse::<EntryPath>().unwrap().is_within(&path));
        assert_eq!(path.parent().unwrap().to_string(), "a");
        assert_eq!(path.join(b"x").unwrap().to_string(), "a/b/x");
        assert!(path.join(b"..").is_err());
    }
}
