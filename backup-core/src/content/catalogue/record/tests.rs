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
    let data =
        (any::<[u8; 32]>(), 1..=limits::CHUNK).prop_map(|(id, length)| ChunkRef::Data { id: ChunkId::new(id), length });
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
    let error =
        encode(&Entry { attributes: Attributes { extended: huge, ..Attributes::default() }, ..file() }).unwrap_err();
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
