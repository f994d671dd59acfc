//! The bytes of an entry without its path (`docs/format.md`, "Entries").

use std::fmt;

use crate::content::entry::{Attributes, ChunkRef, Content, ContentRoot, Entry, EntryKind, PageRef};
use crate::content::page::{read_page_ref, read_refs, write_page_ref, write_refs};
use crate::content::path::EntryPath;
use crate::error::{Error, Result};
use crate::format::cbor::{self, MapReader, MapWriter, Value};
use crate::id::Digest;
use crate::length::to_u64;
use crate::limits;
use crate::time::Timestamp;

/// Keys of the map.
mod key {
    pub(super) const KIND: u64 = 1;
    pub(super) const TARGET: u64 = 2;
    pub(super) const DEVICE: u64 = 3;
    pub(super) const LENGTH: u64 = 4;
    pub(super) const INLINE: u64 = 5;
    pub(super) const TREE: u64 = 6;
    pub(super) const DIGEST: u64 = 7;
    pub(super) const HARD_LINK: u64 = 8;
    pub(super) const INCONSISTENT: u64 = 9;
    pub(super) const MODE: u64 = 16;
    pub(super) const UID: u64 = 17;
    pub(super) const GID: u64 = 18;
    pub(super) const USER: u64 = 19;
    pub(super) const GROUP: u64 = 20;
    pub(super) const MODIFIED: u64 = 21;
    pub(super) const CHANGED: u64 = 22;
    pub(super) const INODE: u64 = 23;
    pub(super) const EXTENDED: u64 = 24;
}

/// Encodes everything of an entry but its path.
///
/// # Errors
///
/// [`Error::InvalidArgument`] or [`Error::LimitExceeded`] naming the entry, where it holds what no
/// reader would accept.
pub(super) fn encode(entry: &Entry) -> Result<Vec<u8>> {
    if let Some(fault) = fault(entry) {
        return Err(Error::invalid(format!("entry {}", entry.path), fault));
    }
    let bytes = cbor::encode_map(|map| {
        map.u64(key::KIND, kind_number(&entry.kind));
        match &entry.kind {
            EntryKind::Symlink { target } => map.bytes(key::TARGET, target),
            EntryKind::CharacterDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
                map.array(key::DEVICE, |pair| {
                    pair.u64(u64::from(*major));
                    pair.u64(u64::from(*minor));
                });
            }
            EntryKind::File | EntryKind::Directory | EntryKind::Fifo | EntryKind::Stream | EntryKind::Disk => {}
        }
        write_content(map, &entry.content);
        if let Some(digest) = &entry.digest {
            map.bytes(key::DIGEST, digest.as_bytes());
        }
        if let Some(path) = &entry.hard_link {
            map.bytes(key::HARD_LINK, path.as_bytes());
        }
        if entry.inconsistent {
            map.bool(key::INCONSISTENT, true);
        }
        write_attributes(map, &entry.attributes);
    })?;
    if bytes.len() > limits::ENTRY {
        let what = format!("attributes of entry {}", entry.path);
        return Err(Error::limit(what, to_u64(bytes.len()), to_u64(limits::ENTRY)));
    }
    Ok(bytes)
}

/// Decodes an entry. `path` has passed its checks.
///
/// # Errors
///
/// [`Error::Damaged`] naming the entry.
pub(super) fn decode(path: EntryPath, bytes: &[u8]) -> Result<Entry> {
    let name = path.clone();
    let damaged = |reason: &str| Error::damaged(WHAT, &name, reason);
    if bytes.len() > limits::ENTRY {
        return Err(damaged("it is longer than 4 MiB"));
    }
    let mut map = cbor::decode(bytes, WHAT, &name)?.map()?;
    let kind = read_kind(&mut map)?;
    let mut entry = Entry::new(path, kind);
    entry.content = read_content(&mut map)?;
    entry.digest = map.optional(key::DIGEST)?.map(|value| value.fixed().map(Digest::new)).transpose()?;
    entry.hard_link = map.optional(key::HARD_LINK)?.map(|value| read_path(value, &name)).transpose()?;
    entry.inconsistent = match map.optional(key::INCONSISTENT)?.map(Value::bool).transpose()? {
        None => false,
        Some(true) => true,
        Some(false) => return Err(damaged("a mark that is not set is given")),
    };
    entry.attributes = read_attributes(&mut map)?;
    map.finish()?;
    match fault(&entry) {
        Some(fault) => Err(damaged(fault)),
        None => Ok(entry),
    }
}

/// What entries are called in errors.
const WHAT: &str = "entry";

/// The rule that an entry breaks, if any.
fn fault(entry: &Entry) -> Option<&'static str> {
    if !entry.kind.has_content() && (entry.content.length > 0 || entry.digest.is_some()) {
        return Some("an entry of this kind has no content");
    }
    if entry.content.length > limits::CONTENT {
        return Some("its content is longer than 2^62 bytes");
    }
    match &entry.content.root {
        ContentRoot::Inline(refs) => {
            let sum = refs.iter().fold(0u64, |sum, reference| sum.saturating_add(reference.length()));
            if to_u64(refs.len()) > limits::INLINE_REFS || sum != entry.content.length {
                return Some("its chunk references do not fit its length");
            }
        }
        ContentRoot::Tree { height, .. } => {
            if entry.content.length == 0 || *height == 0 || *height > limits::TREE_HEIGHT {
                return Some("its tree of chunk references has an impossible height");
            }
        }
    }
    if let EntryKind::Symlink { target } = &entry.kind
        && (target.is_empty() || target.len() > limits::PATH || target.contains(&0))
    {
        return Some("its link target is empty, contains NUL or is longer than 65536 bytes");
    }
    if entry.hard_link.is_some() && entry.content.length > 0 {
        return Some("it is a hard link and has a content of its own");
    }
    if entry.hard_link.as_ref() == Some(&entry.path) {
        return Some("it is a hard link to itself");
    }
    if entry.attributes.mode.is_some_and(|mode| mode > 0o7777) {
        return Some("its mode has bits beyond 07777");
    }
    let extended = &entry.attributes.extended;
    if extended.iter().any(|(name, _)| name.is_empty() || name.contains(&0)) {
        return Some("the name of an extended attribute is empty or contains NUL");
    }
    if !extended.is_sorted_by(|(one, _), (two, _)| one < two) {
        return Some("its extended attributes are not in ascending order");
    }
    None
}

fn kind_number(kind: &EntryKind) -> u64 {
    match kind {
        EntryKind::File => 1,
        EntryKind::Directory => 2,
        EntryKind::Symlink { .. } => 3,
        EntryKind::Fifo => 4,
        EntryKind::CharacterDevice { .. } => 5,
        EntryKind::BlockDevice { .. } => 6,
        EntryKind::Stream => 7,
        EntryKind::Disk => 8,
    }
}

fn read_kind(map: &mut MapReader<'_>) -> Result<EntryKind> {
    let number = map.required(key::KIND)?;
    Ok(match number.u64()? {
        1 => EntryKind::File,
        2 => EntryKind::Directory,
        3 => EntryKind::Symlink { target: map.required(key::TARGET)?.bytes()?.to_vec() },
        4 => EntryKind::Fifo,
        device @ (5 | 6) => {
            let mut pair = map.required(key::DEVICE)?.array()?;
            let (major, minor) = (pair.required()?.u32()?, pair.required()?.u32()?);
            pair.finish()?;
            if device == 5 {
                EntryKind::CharacterDevice { major, minor }
            } else {
                EntryKind::BlockDevice { major, minor }
            }
        }
        7 => EntryKind::Stream,
        8 => EntryKind::Disk,
        _ => return Err(number.damaged("its kind is unknown")),
    })
}

fn write_content(map: &mut MapWriter<'_>, content: &Content) {
    if content.length == 0 {
        return;
    }
    map.u64(key::LENGTH, content.length);
    match &content.root {
        ContentRoot::Inline(refs) => map.array(key::INLINE, |array| write_refs(array, refs)),
        ContentRoot::Tree { height, page } => map.array(key::TREE, |array| {
            array.u64(u64::from(*height));
            write_page_ref(array, page);
        }),
    }
}

fn read_content(map: &mut MapReader<'_>) -> Result<Content> {
    let Some(length) = map.optional(key::LENGTH)? else { return Ok(Content::default()) };
    let field = length;
    let length = length.u64()?;
    if length == 0 || length > limits::CONTENT {
        return Err(field.damaged("its content has an impossible length"));
    }
    if let Some(inline) = map.optional(key::INLINE)? {
        let refs: Vec<ChunkRef> = read_refs(inline.array()?, limits::INLINE_REFS, length)?;
        return Ok(Content { length, root: ContentRoot::Inline(refs) });
    }
    let mut tree = map.required(key::TREE)?.array()?;
    let height = tree.required()?.u8()?;
    let page: PageRef = read_page_ref(&mut tree)?;
    tree.finish()?;
    Ok(Content { length, root: ContentRoot::Tree { height, page } })
}

fn write_attributes(map: &mut MapWriter<'_>, attributes: &Attributes) {
    let number = |map: &mut MapWriter<'_>, key, value: Option<u32>| {
        if let Some(value) = value {
            map.u64(key, u64::from(value));
        }
    };
    number(map, key::MODE, attributes.mode);
    number(map, key::UID, attributes.uid);
    number(map, key::GID, attributes.gid);
    for (key, name) in [(key::USER, &attributes.user), (key::GROUP, &attributes.group)] {
        if let Some(name) = name {
            map.text(key, name);
        }
    }
    for (key, instant) in [(key::MODIFIED, attributes.modified), (key::CHANGED, attributes.changed)] {
        if let Some(instant) = instant {
            let (seconds, nanoseconds) = instant.to_unix();
            map.array(key, |pair| {
                pair.i64(seconds);
                pair.u64(u64::from(nanoseconds));
            });
        }
    }
    if let Some(inode) = attributes.inode {
        map.u64(key::INODE, inode);
    }
    if !attributes.extended.is_empty() {
        map.array(key::EXTENDED, |array| {
            for (name, value) in &attributes.extended {
                array.bytes(name);
                array.bytes(value);
            }
        });
    }
}

fn read_attributes(map: &mut MapReader<'_>) -> Result<Attributes> {
    let mut attributes = Attributes {
        mode: read_u32(map, key::MODE)?,
        uid: read_u32(map, key::UID)?,
        gid: read_u32(map, key::GID)?,
        user: map.optional(key::USER)?.map(|value| value.text().map(str::to_owned)).transpose()?,
        group: map.optional(key::GROUP)?.map(|value| value.text().map(str::to_owned)).transpose()?,
        modified: map.optional(key::MODIFIED)?.map(read_instant).transpose()?,
        changed: map.optional(key::CHANGED)?.map(read_instant).transpose()?,
        inode: map.optional(key::INODE)?.map(Value::u64).transpose()?,
        extended: Vec::new(),
    };
    if let Some(extended) = map.optional(key::EXTENDED)? {
        let mut items = extended.array()?;
        if items.remaining() == 0 {
            return Err(extended.damaged("an empty list of extended attributes is given"));
        }
        while items.remaining() > 0 {
            let name = items.required()?.bytes()?.to_vec();
            attributes.extended.push((name, items.required()?.bytes()?.to_vec()));
        }
    }
    Ok(attributes)
}

fn read_u32(map: &mut MapReader<'_>, key: u64) -> Result<Option<u32>> {
    map.optional(key)?.map(Value::u32).transpose()
}

fn read_instant(value: Value<'_>) -> Result<Timestamp> {
    let mut pair = value.array()?;
    let (seconds, nanoseconds) = (pair.required()?.i64()?, pair.required()?.u32()?);
    pair.finish()?;
    Timestamp::from_unix(seconds, nanoseconds).map_err(|_| value.damaged("a time is out of range"))
}

fn read_path(value: Value<'_>, name: &dyn fmt::Display) -> Result<EntryPath> {
    EntryPath::new(value.bytes()?).map_err(|error| Error::damaged(WHAT, name, error.to_string()))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::ChunkId;

    pub(in crate::content::catalogue) fn any_path() -> impl Strategy<Value = EntryPath> {
        let component = prop_oneof![
            "[a-c]{1,2}",
            "[ -.0-~]{1,9}".prop_filter("not special", |name| !matches!(name.as_str(), "." | "..")),
        ];
        let bytes = prop::collection::vec(1u8..=255, 1..6).prop_map(|mut bytes| {
            bytes.iter_mut().filter(|byte| **byte == b'/').for_each(|byte| *byte = 0xff);
            bytes
        });
        let component = prop_oneof![3 => component.prop_map(String::into_bytes), 1 => bytes];
        prop::collection::vec(component, 1..5)
            .prop_map(|parts| parts.join(&b'/'))
            .prop_filter_map("valid", |bytes| EntryPath::new(bytes).ok())
    }

    fn any_instant() -> impl Strategy<Value = Timestamp> {
        (-3_000_000_000i64..9_000_000_000, 0u32..1_000_000_000)
            .prop_map(|(seconds, nanoseconds)| Timestamp::from_unix(seconds, nanoseconds).unwrap())
    }

    fn any_content() -> impl Strategy<Value = Content> {
        let data = (any::<[u8; 32]>(), 1..=limits::CHUNK)
            .prop_map(|(id, length)| ChunkRef::Data { id: ChunkId::new(id), length });
        let inline =
            (prop::collection::vec(data, 0..=4), any::<bool>(), 1u64..1 << 50).prop_map(|(mut refs, hole, length)| {
                if hole && !refs.is_empty() {
                    refs[0] = ChunkRef::Hole { length };
                }
                Content { length: refs.iter().map(ChunkRef::length).sum(), root: ContentRoot::Inline(refs) }
            });
        let tree = (1..=limits::CONTENT, 1..=limits::TREE_HEIGHT, any::<[u8; 32]>(), 1..=limits::PAGE).prop_map(
            |(length, height, id, page_length)| {
                let page = PageRef { id: ChunkId::new(id), length: page_length };
                Content { length, root: ContentRoot::Tree { height, page } }
            },
        );
        prop_oneof![inline, tree]
    }

    fn any_kind() -> impl Strategy<Value = EntryKind> {
        prop_oneof![
            Just(EntryKind::File),
            Just(EntryKind::Directory),
            prop::collection::vec(1u8..=255, 1..20).prop_map(|target| EntryKind::Symlink { target }),
            Just(EntryKind::Fifo),
            any::<(u32, u32)>().prop_map(|(major, minor)| EntryKind::CharacterDevice { major, minor }),
            any::<(u32, u32)>().prop_map(|(major, minor)| EntryKind::BlockDevice { major, minor }),
            Just(EntryKind::Stream),
            Just(EntryKind::Disk),
        ]
    }

    fn any_attributes() -> impl Strategy<Value = Attributes> {
        let option = |strategy: BoxedStrategy<u32>| prop::option::of(strategy);
        let numbers = (
            option((0u32..=0o7777).boxed()),
            option(any::<u32>().boxed()),
            option(any::<u32>().boxed()),
            prop::option::of(any::<u64>()),
        );
        let names = (prop::option::of(".{0,9}"), prop::option::of(".{0,9}"));
        let times = (prop::option::of(any_instant()), prop::option::of(any_instant()));
        let extended = prop::collection::btree_map(
            prop::collection::vec(1u8..=255, 1..5),
            prop::collection::vec(any::<u8>(), 0..5),
            0..3,
        );
        (numbers, names, times, extended).prop_map(
            |((mode, uid, gid, inode), (user, group), (modified, changed), extended)| {
                let extended = extended.into_iter().collect();
                Attributes { mode, uid, gid, user, group, modified, changed, inode, extended }
            },
        )
    }

    pub(in crate::content::catalogue) fn any_entry() -> impl Strategy<Value = Entry> {
        let more = (any_attributes(), any_content(), prop::option::of(any::<[u8; 32]>()), prop::option::of(any_path()));
        (any_path(), any_kind(), more, any::<bool>()).prop_map(
            |(path, kind, (attributes, content, digest, hard_link), inconsistent)| {
                let mut entry = Entry::new(path, kind);
                entry.hard_link = hard_link.filter(|link| *link != entry.path);
                if entry.kind.has_content() {
                    entry.digest = digest.map(Digest::new);
                    if entry.hard_link.is_none() {
                        entry.content = content;
                    }
                }
                entry.attributes = attributes;
                entry.inconsistent = inconsistent;
                entry
            },
        )
    }

    fn file() -> Entry {
        Entry::new("a/b".parse().unwrap(), EntryKind::File)
    }

    proptest! {
        #[test]
        fn entries_survive(entry in any_entry()) {
            prop_assert_eq!(decode(entry.path.clone(), &encode(&entry).unwrap()).unwrap(), entry);
        }

        /// What is accepted has one encoding only: re-encoding gives the same bytes, less the fields
        /// from 128 on, which a reader may ignore.
        #[test]
        fn changed_bytes_are_rejected_or_another_entry(entry in any_entry(), at: prop::sample::Index, byte: u8) {
            let mut bytes = encode(&entry).unwrap();
            let position = at.index(bytes.len());
            bytes[position] = byte;
            if let Ok(read) = decode(entry.path.clone(), &bytes) {
                let again = encode(&read).unwrap();
                prop_assert!(again == bytes || (again.len() < bytes.len() && bytes.contains(&0x18)), "{:?}", read);
                prop_assert_eq!(decode(read.path.clone(), &again).unwrap(), read);
            }
        }
    }

    #[test]
    fn what_no_reader_accepts_is_not_written() {
        let content = |length, refs: Vec<ChunkRef>| Content { length, root: ContentRoot::Inline(refs) };
        let page = PageRef { id: ChunkId::new([0; 32]), length: 1 };
        let tree = |length, height| Content { length, root: ContentRoot::Tree { height, page } };
        let hole = |length| ChunkRef::Hole { length };
        let mut bad = Vec::new();
        for content in [
            content(1, vec![]),
            content(2, vec![hole(1)]),
            content(5, vec![hole(1); 5]),
            tree(0, 1),
            tree(1, 0),
            tree(1, 9),
            tree(limits::CONTENT + 1, 1),
        ] {
            bad.push(Entry { content, ..file() });
        }
        bad.push(Entry { kind: EntryKind::Directory, content: content(1, vec![hole(1)]), ..file() });
        bad.push(Entry { kind: EntryKind::Directory, digest: Some(Digest::new([0; 32])), ..file() });
        for target in [vec![], vec![b'a', 0], vec![b'a'; limits::PATH + 1]] {
            bad.push(Entry { kind: EntryKind::Symlink { target }, ..file() });
        }
        bad.push(Entry { hard_link: Some("a/b".parse().unwrap()), ..file() });
        let own = content(1, vec![hole(1)]);
        bad.push(Entry { hard_link: Some("a/c".parse().unwrap()), content: own, ..file() });
        let extended = |names: &[&str]| names.iter().map(|name| (name.as_bytes().to_vec(), vec![])).collect();
        for names in [&["b", "a"][..], &["a", "a"], &[""], &["a\0"]] {
            let attributes = Attributes { extended: extended(names), ..Attributes::default() };
            bad.push(Entry { attributes, ..file() });
        }
        bad.push(Entry { attributes: Attributes { mode: Some(0o10000), ..Attributes::default() }, ..file() });
        for entry in bad {
            let error = encode(&entry).unwrap_err();
            assert!(matches!(&error, Error::InvalidArgument { what, .. } if what == "entry a/b"), "{entry:?}: {error}");
        }
        let huge = vec![(b"user.x".to_vec(), vec![0; limits::ENTRY])];
        let error = encode(&Entry { attributes: Attributes { extended: huge, ..Attributes::default() }, ..file() })
            .unwrap_err();
        assert!(matches!(error, Error::LimitExceeded { .. }), "{error}");
    }

    #[test]
    fn hostile_entries_are_rejected_by_name() {
        let with = |fill: &dyn Fn(&mut MapWriter<'_>)| cbor::encode_map(fill).unwrap();
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("no kind", with(&|_| {})),
            ("unknown kind", with(&|map| map.u64(1, 9))),
            ("link without target", with(&|map| map.u64(1, 3))),
            (
                "file with target",
                with(&|map| {
                    map.u64(1, 1);
                    map.bytes(2, b"x");
                }),
            ),
            ("device without numbers", with(&|map| map.u64(1, 5))),
            (
                "three numbers",
                with(&|map| {
                    map.u64(1, 5);
                    map.array(3, |a| (0..3).for_each(|n| a.u64(n)));
                }),
            ),
            (
                "number too large",
                with(&|map| {
                    map.u64(1, 5);
                    map.array(3, |a| {
                        a.u64(1 << 32);
                        a.u64(0);
                    });
                }),
            ),
            (
                "length zero",
                with(&|map| {
                    map.u64(1, 1);
                    map.u64(4, 0);
                    map.array(5, |_| {});
                }),
            ),
            (
                "length without references",
                with(&|map| {
                    map.u64(1, 1);
                    map.u64(4, 5);
                }),
            ),
            (
                "references without length",
                with(&|map| {
                    map.u64(1, 1);
                    map.array(5, |a| a.u64(3));
                }),
            ),
            (
                "wrong sum",
                with(&|map| {
                    map.u64(1, 1);
                    map.u64(4, 5);
                    map.array(5, |a| a.u64(3));
                }),
            ),
            (
                "two holes",
                with(&|map| {
                    map.u64(1, 1);
                    map.u64(4, 2);
                    map.array(5, |a| {
                        a.u64(1);
                        a.u64(1);
                    });
                }),
            ),
            (
                "both forms",
                with(&|map| {
                    map.u64(1, 1);
                    map.u64(4, 3);
                    map.array(5, |a| a.u64(3));
                    map.array(6, |_| {});
                }),
            ),
            (
                "false mark",
                with(&|map| {
                    map.u64(1, 1);
                    map.bool(9, false);
                }),
            ),
            (
                "unknown field",
                with(&|map| {
                    map.u64(1, 1);
                    map.bool(100, false);
                }),
            ),
            (
                "path outside",
                with(&|map| {
                    map.u64(1, 1);
                    map.bytes(8, b"../x");
                }),
            ),
            (
                "link to itself",
                with(&|map| {
                    map.u64(1, 1);
                    map.bytes(8, b"a/b");
                }),
            ),
            (
                "time",
                with(&|map| {
                    map.u64(1, 1);
                    map.array(21, |a| {
                        a.i64(i64::MAX);
                        a.u64(0);
                    });
                }),
            ),
            (
                "nanoseconds",
                with(&|map| {
                    map.u64(1, 1);
                    map.array(21, |a| {
                        a.i64(0);
                        a.u64(1_000_000_000);
                    });
                }),
            ),
            (
                "empty attributes",
                with(&|map| {
                    map.u64(1, 1);
                    map.array(24, |_| {});
                }),
            ),
            (
                "name without value",
                with(&|map| {
                    map.u64(1, 1);
                    map.array(24, |a| a.bytes(b"x"));
                }),
            ),
            ("not a map", vec![0x80]),
            ("nothing", vec![]),
        ];
        for (what, bytes) in cases {
            let error = decode("a/b".parse().unwrap(), &bytes).unwrap_err();
            assert!(matches!(&error, Error::Damaged { what: "entry", name, .. } if name == "a/b"), "{what}: {error}");
        }
        let later = with(&|map| {
            map.u64(1, 2);
            map.text(130, "more");
        });
        assert_eq!(decode("a/b".parse().unwrap(), &later).unwrap().kind, EntryKind::Directory);
    }
}
