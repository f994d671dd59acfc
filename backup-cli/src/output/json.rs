//! The shapes of `--json`, documented in `docs/cli.md`. Keys are added, never renamed or removed.

use backup_core::content::{Entry, EntryKind};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value, json};

/// `{"error": {"kind", "message", "causes"}}`.
pub(crate) fn failure(kind: &str, chain: &[String]) -> Value {
    let (message, causes) = chain.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    json!({"error": {"kind": kind, "message": message, "causes": causes}})
}

/// The members of an object, to be joined with others.
pub(crate) fn members<T: Serialize + ?Sized>(value: &T) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(members)) => members,
        // No report of the engine is anything but an object.
        _ => Map::new(),
    }
}

/// An entry with its attributes.
///
/// `path` is text for people; where it does not show the bytes exactly as they are, `path_hex` has them.
pub(crate) struct EntryView<'a>(pub(crate) &'a Entry);

impl Serialize for EntryView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entry = self.0;
        let attributes = &entry.attributes;
        let mut map = serializer.serialize_map(None)?;
        bytes(&mut map, "path", "path_hex", entry.path.as_bytes(), &entry.path.to_string())?;
        map.serialize_entry("kind", entry.kind.name())?;
        map.serialize_entry("size", &entry.size())?;
        map.serialize_entry("digest", &entry.digest)?;
        map.serialize_entry("mode", &attributes.mode)?;
        map.serialize_entry("uid", &attributes.uid)?;
        map.serialize_entry("gid", &attributes.gid)?;
        map.serialize_entry("user", &attributes.user)?;
        map.serialize_entry("group", &attributes.group)?;
        map.serialize_entry("modified", &attributes.modified)?;
        map.serialize_entry("inconsistent", &entry.inconsistent)?;
        map.serialize_entry("hard_link", &entry.hard_link)?;
        match &entry.kind {
            EntryKind::Symlink { target } => {
                bytes(&mut map, "target", "target_hex", target, &String::from_utf8_lossy(target))?;
            }
            EntryKind::CharacterDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
                map.serialize_entry("major", major)?;
                map.serialize_entry("minor", minor)?;
            }
            _ => {}
        }
        map.end()
    }
}

fn bytes<M: SerializeMap>(map: &mut M, key: &str, hex_key: &str, bytes: &[u8], text: &str) -> Result<(), M::Error> {
    map.serialize_entry(key, text)?;
    if text.as_bytes() != bytes {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        map.serialize_entry(hex_key, &hex)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use backup_core::content::EntryPath;

    use super::*;

    fn view(path: &[u8], kind: EntryKind) -> Value {
        serde_json::to_value(EntryView(&Entry::new(EntryPath::new(path).unwrap(), kind))).unwrap()
    }

    #[test]
    fn paths_that_are_not_text_are_given_as_bytes_too() {
        assert_eq!(view(b"a/\xff", EntryKind::File)["path_hex"], "612fff");
        assert_eq!(view(b"a\\b", EntryKind::File)["path_hex"], "615c62");
        assert_eq!(view("a/ä".as_bytes(), EntryKind::File).get("path_hex"), None);
        assert_eq!(view(b"l", EntryKind::Symlink { target: vec![0xfe] })["target_hex"], "fe");
    }

    #[test]
    fn entries_have_these_keys() {
        let view = view(b"a", EntryKind::File);
        let keys: Vec<&str> = view.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "digest",
                "gid",
                "group",
                "hard_link",
                "inconsistent",
                "kind",
                "mode",
                "modified",
                "path",
                "size",
                "uid",
                "user"
            ]
        );
    }

    #[test]
    fn failures_have_a_kind_a_message_and_causes() {
        let value = failure("storage", &["a".into(), "b".into(), "c".into()]);
        assert_eq!(value, json!({"error": {"kind": "storage", "message": "a", "causes": ["b", "c"]}}));
    }
}
