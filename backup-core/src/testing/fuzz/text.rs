//! What comes as text or as a name: storage keys, paths of entries, identifiers, times, recovery keys.

use crate::content::EntryPath;
use crate::entropy::SeededEntropy;
use crate::error::{Error, ErrorKind, Result};
use crate::format::layout::Place;
use crate::id::{ChunkId, ObjectName, SessionId};
use crate::keys::RecoveryKey;
use crate::limits;
use crate::storage::Key;
use crate::time::Timestamp;

/// Every reader of texts and names, with the same bytes.
pub fn text(bytes: &[u8]) {
    entry_path(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    storage_key(text);
    identifiers(text);
    timestamp(text);
    recovery_key(text);
}

fn entry_path(bytes: &[u8]) {
    let Some(path) = accepted(EntryPath::new(bytes)) else { return };
    assert_eq!(path.as_bytes(), bytes);
    assert!(bytes.len() <= limits::PATH && !bytes.contains(&0));
    let components: Vec<&[u8]> = path.components().collect();
    for component in &components {
        // What an operating system would take for another place than a name below the present one.
        assert!(!matches!(*component, b"" | b"." | b".."));
        assert!(component.len() <= limits::PATH_COMPONENT);
    }
    assert_eq!(components.join(&b'/'), bytes);
    assert_eq!(components.last(), Some(&path.file_name()));
    match path.parent() {
        None => assert_eq!(components.len(), 1),
        Some(parent) => {
            assert_eq!(parent.join(path.file_name()).expect("a path is its parent and its name"), path);
            assert!(path.is_within(&parent) && !parent.is_within(&path) && parent < path);
        }
    }
    // Its text steers no terminal and stands for no other path.
    let shown = path.to_string();
    assert!(!shown.chars().any(char::is_control));
    assert_eq!(unescaped(&shown), bytes);
}

/// The bytes that an escaped path stands for.
fn unescaped(text: &str) -> Vec<u8> {
    let mut parts = text.split("\\x");
    let mut out = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at(2);
        out.push(u8::from_str_radix(digits, 16).expect("two hexadecimal digits"));
        out.extend(rest.bytes());
    }
    out
}

fn storage_key(text: &str) {
    let Some(key) = accepted(Key::new(text)) else { return };
    assert_eq!(key.as_str(), text);
    assert!(
        text.len() <= Key::MAX_LENGTH && !text.contains("..") || !text.split('/').any(|part| part.starts_with('.'))
    );
    if let Some(place) = Place::parse(&key) {
        // One key a place: no other text means the same.
        assert_eq!(place.key(), key);
    }
}

fn identifiers(text: &str) {
    let name: Option<ObjectName> = accepted(text.parse());
    let chunk: Option<ChunkId> = accepted(text.parse());
    assert_eq!(name.map(|name| name.to_string()), chunk.map(|chunk| chunk.to_string()));
    assert!(name.is_none_or(|name| name.to_string() == text));
    let session: Option<SessionId> = accepted(text.parse());
    assert!(session.is_none_or(|session| session.to_string() == text));
}

fn timestamp(text: &str) {
    let Some(instant) = accepted(text.parse::<Timestamp>()) else { return };
    let (seconds, nanoseconds) = instant.to_unix();
    assert_eq!(Timestamp::from_unix(seconds, nanoseconds).expect("the numbers of an instant are in range"), instant);
    assert_eq!(instant.to_string().parse::<Timestamp>().expect("an instant is read as it is shown"), instant);
}

fn recovery_key(text: &str) {
    if let Some(key) = accepted(RecoveryKey::parse(text)) {
        let compact: String =
            text.chars().filter(|character| !character.is_whitespace() && *character != '-').collect();
        assert!(key.to_text().expect("a key has a text").eq_ignore_ascii_case(&compact));
    }
    // As it is typed: the one right text with a few characters changed.
    let key = RecoveryKey::generate(&SeededEntropy::new(4)).expect("entropy does not fail");
    let right = key.to_text().expect("a key has a text");
    let mut typed: Vec<char> = right.chars().collect();
    let mut edits = text.chars();
    for _ in 0..3 {
        let (Some(at), Some(new)) = (edits.next(), edits.next()) else { break };
        let position = usize::try_from(u32::from(at)).expect("32 bits fit") % typed.len();
        typed[position] = new;
    }
    let typed: String = typed.into_iter().collect();
    if let Some(read) = accepted(RecoveryKey::parse(&typed)) {
        // Three mistakes are always found, so this is the same key in other letters or layout.
        assert_eq!(read.expose(), key.expose());
    }
}

/// What was read. A refusal is the caller's mistake.
fn accepted<T>(result: Result<T>) -> Option<T> {
    result.map_err(|error: Error| assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error:?}")).ok()
}
