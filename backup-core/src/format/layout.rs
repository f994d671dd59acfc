//! Where objects stand on storage: every key that this format uses, built and parsed in one place.

use crate::id::{BackupId, ObjectName, SessionId, SlotId};
use crate::storage::Key;

/// Prefix of all key slots.
pub(crate) const SLOTS: &str = "keys/";
/// Prefix of all keyrings.
pub(crate) const KEYRINGS: &str = "keyring/";
/// Prefix of all packs.
pub(crate) const PACKS: &str = "packs/";
/// Prefix of all index segments.
pub(crate) const INDEXES: &str = "index/";
/// Prefix of all backup bodies.
pub(crate) const BODIES: &str = "bodies/";
/// Prefix of all closures.
pub(crate) const CLOSURES: &str = "closures/";
/// Prefix of all sessions.
pub(crate) const SESSIONS: &str = "sessions/";
/// Prefix of all records of forgotten backups.
pub(crate) const FORGETS: &str = "forgets/";
/// Prefix of all collections.
pub(crate) const COLLECTIONS: &str = "collections/";
/// Prefix of all error-correction data.
pub(crate) const PARITIES: &str = "parity/";

/// What stands under a key of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Place {
    /// The parameters of the repository.
    Config,
    /// A key slot.
    Slot(SlotId),
    /// A keyring, by its number.
    Keyring(u32),
    /// A pack of chunks.
    Pack(ObjectName),
    /// An index segment.
    Index(ObjectName),
    /// The body of a backup.
    Body(ObjectName),
    /// The list of packs that a backup needs.
    Closure(ObjectName),
    /// That a session began, in a collection generation.
    SessionOpen(u32, SessionId),
    /// How a session ended: committed or revoked.
    SessionOutcome(u32, SessionId),
    /// That a backup is forgotten.
    Forget(BackupId),
    /// That a collection began.
    CollectionOpen(u32),
    /// What a collection condemned.
    CollectionMark(u32),
    /// How a collection ended.
    CollectionOutcome(u32),
    /// Error-correction data of a pack.
    Parity(ObjectName),
}

impl Place {
    /// The storage key.
    pub(crate) fn key(&self) -> Key {
        Key::built(match self {
            Self::Config => "config".to_owned(),
            Self::Slot(id) => format!("{SLOTS}{id}"),
            Self::Keyring(number) => format!("{KEYRINGS}{number:08x}"),
            Self::Pack(name) => {
                let first = name.as_bytes().first().copied().unwrap_or_default();
                format!("{PACKS}{first:02x}/{name}")
            }
            Self::Index(name) => format!("{INDEXES}{name}"),
            Self::Body(name) => format!("{BODIES}{name}"),
            Self::Closure(name) => format!("{CLOSURES}{name}"),
            Self::SessionOpen(generation, session) => format!("{SESSIONS}{generation:08x}/{session}/open"),
            Self::SessionOutcome(generation, session) => format!("{SESSIONS}{generation:08x}/{session}/outcome"),
            Self::Forget(backup) => format!("{FORGETS}{backup}"),
            Self::CollectionOpen(number) => format!("{COLLECTIONS}{number:08x}/open"),
            Self::CollectionMark(number) => format!("{COLLECTIONS}{number:08x}/mark"),
            Self::CollectionOutcome(number) => format!("{COLLECTIONS}{number:08x}/outcome"),
            Self::Parity(name) => format!("{PARITIES}{name}"),
        })
    }

    /// What stands under `key`; `None` for keys that this format does not use.
    pub(crate) fn parse(key: &Key) -> Option<Self> {
        let mut parts = key.as_str().split('/');
        let first = parts.next()?;
        let rest: [Option<&str>; 4] = [parts.next(), parts.next(), parts.next(), parts.next()];
        match (first, rest) {
            ("config", [None, ..]) => Some(Self::Config),
            ("keys", [Some(id), None, ..]) => id.parse().ok().map(Self::Slot),
            ("keyring", [Some(number), None, ..]) => parse_number(number).map(Self::Keyring),
            ("packs", [Some(directory), Some(name), None, _]) => {
                let name = name.parse().ok().filter(|_| name.starts_with(directory) && directory.len() == 2)?;
                Some(Self::Pack(name))
            }
            ("index", [Some(name), None, ..]) => name.parse().ok().map(Self::Index),
            ("bodies", [Some(name), None, ..]) => name.parse().ok().map(Self::Body),
            ("closures", [Some(name), None, ..]) => name.parse().ok().map(Self::Closure),
            ("sessions", [Some(generation), Some(session), Some(leaf), None]) => {
                let (generation, session) = (parse_number(generation)?, session.parse().ok()?);
                match leaf {
                    "open" => Some(Self::SessionOpen(generation, session)),
                    "outcome" => Some(Self::SessionOutcome(generation, session)),
                    _ => None,
                }
            }
            ("forgets", [Some(backup), None, ..]) => backup.parse().ok().map(Self::Forget),
            ("collections", [Some(number), Some(leaf), None, _]) => {
                let number = parse_number(number)?;
                match leaf {
                    "open" => Some(Self::CollectionOpen(number)),
                    "mark" => Some(Self::CollectionMark(number)),
                    "outcome" => Some(Self::CollectionOutcome(number)),
                    _ => None,
                }
            }
            ("parity", [Some(name), None, ..]) => name.parse().ok().map(Self::Parity),
            _ => None,
        }
    }
}

/// Eight lower-case hexadecimal digits.
fn parse_number(text: &str) -> Option<u32> {
    let canonical = text.len() == 8 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if canonical { u32::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place() -> impl Strategy<Value = Place> {
        (0..14u8, any::<u32>(), any::<[u8; 32]>(), any::<[u8; 16]>()).prop_map(|(kind, number, long, short)| {
            let name = ObjectName::new(long);
            let session = SessionId::new(short);
            match kind {
                0 => Place::Config,
                1 => Place::Slot(SlotId::new(short)),
                2 => Place::Keyring(number),
                3 => Place::Pack(name),
                4 => Place::Index(name),
                5 => Place::Body(name),
                6 => Place::Closure(name),
                7 => Place::SessionOpen(number, session),
                8 => Place::SessionOutcome(number, session),
                9 => Place::Forget(BackupId::new(long)),
                10 => Place::CollectionOpen(number),
                11 => Place::CollectionMark(number),
                12 => Place::CollectionOutcome(number),
                _ => Place::Parity(name),
            }
        })
    }

    proptest! {
        #[test]
        fn keys_are_valid_and_parse_back(place in place()) {
            let key = place.key();
            prop_assert!(Key::is_valid(key.as_str()));
            prop_assert_eq!(Place::parse(&key), Some(place));
        }

        #[test]
        fn a_changed_key_is_foreign_or_another_place(
            place in place(), at in any::<prop::sample::Index>(), with in "[a-z0-9/_.-]{0,2}",
        ) {
            let mut text = place.key().to_string();
            let at = at.index(text.len());
            text.replace_range(at..=at, &with);
            if let Ok(key) = Key::new(text) && let Some(found) = Place::parse(&key) {
                prop_assert_eq!(found.key(), key);
            }
        }
    }

    #[test]
    fn foreign_keys_are_none() {
        let name = "ab".repeat(32);
        for text in [
            "config/x",
            "keys",
            "keyring/1",
            "keyring/0000000g",
            "packs/ac/x",
            "readme.txt",
            "sessions/00000001/abababababababababababababababab/lock",
            "collections/00000001/open/x",
            &format!("packs/{name}"),
            &format!("packs/ac/{name}"),
            &format!("packs/abab/{name}"),
            &format!("index/{name}/x"),
        ] {
            assert_eq!(Place::parse(&Key::new(text).unwrap()), None, "{text}");
        }
    }
}
