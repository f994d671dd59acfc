//! Entries.

use backup_core::repository::Repository;
use backup_core::testing;

use crate::cases::Cases;
use crate::pages::root;
use crate::support::cbor::{Item, list, map};
use crate::support::forger::{Draft, get, keys_of, name_in, name_of};

/// A content that the golden repository holds.
pub(crate) const CONTENT: &[u8] = b"key = value\n";

/// How an entry refers to it.
pub(crate) fn known_chunk(repository: &Repository) -> Item {
    let id = testing::chunk_id(repository, false, CONTENT);
    Item::Array(vec![id.into(), (CONTENT.len() as u64).into()])
}

/// A directory without attributes.
pub(crate) fn directory() -> Vec<u8> {
    map(vec![(1, 2.into())]).encode()
}

/// A file with these fields behind its kind.
pub(crate) fn file(fields: &Item) -> Vec<u8> {
    fields.clone().with(1, 1).encode()
}

/// A file with that content.
pub(crate) fn good(repository: &Repository) -> Item {
    map(vec![
        (1, 1.into()),
        (4, (CONTENT.len() as u64).into()),
        (5, list([known_chunk(repository)])),
        (7, name_of(CONTENT).into()),
    ])
}

pub(crate) fn add(cases: &mut Cases) {
    let mut forge = |number, name, rule, make: &dyn Fn(Item) -> Item| {
        cases.rule(number);
        cases.add(name, rule, ("restore", "damaged"), |storage, repository| {
            let mut draft = Draft::new(repository);
            let entry = make(good(repository)).encode();
            let page = draft.page(&Draft::leaf(&[(0, b"before", directory()), (0, b"the entry", entry)]));
            draft.store(storage, root(1, page, 2), |_, _| ());
            "the entry".to_owned()
        });
    };
    let other = |kind: u64| map(vec![(1, kind.into())]);
    let pair = |one: u64, two: u64| Item::Array(vec![one.into(), two.into()]);
    forge(10, "entry-kind", "entry: its kind is known", &|entry| entry.with(1, 9));
    forge(10, "entry-kind-zero", "entry: its kind is known", &|entry| entry.with(1, 0));
    forge(10, "entry-kind-missing", "entry: it has a kind", &|entry| entry.without(1));
    forge(10, "entry-target-missing", "entry: a link has a target", &|_| other(3));
    forge(10, "entry-target-empty", "entry: a target is not empty", &|_| other(3).with(2, Vec::<u8>::new()));
    forge(10, "entry-target-nul", "entry: a target has no 00", &|_| other(3).with(2, b"a\0".to_vec()));
    forge(10, "entry-target-long", "entry: a target has at most 65536 bytes", &|_| {
        other(3).with(2, vec![b'a'; 65_537])
    });
    forge(10, "entry-target-file", "entry: only links have a target", &|entry| entry.with(2, b"a".to_vec()));
    forge(10, "entry-device-missing", "entry: a device has numbers", &|_| other(5));
    forge(10, "entry-device-items", "entry: a device has two numbers", &|_| other(6).with(3, list([1.into()])));
    forge(10, "entry-device-large", "entry: numbers of devices are below 2^32", &|_| {
        other(6).with(3, pair(1, 1 << 32))
    });
    forge(10, "entry-device-file", "entry: only devices have numbers", &|entry| entry.with(3, pair(1, 2)));
    forge(10, "entry-length-zero", "entry: a length is at least 1", &|entry| entry.with(4, 0));
    forge(10, "entry-length-large", "entry: a length is at most 2^62", &|entry| {
        entry.with(4, (1u64 << 62) + 1).with(5, list([Item::from((1u64 << 62) + 1)]))
    });
    forge(10, "entry-length-alone", "entry: a length comes with references", &|entry| entry.without(5));
    forge(10, "entry-references-alone", "entry: references come with a length", &|entry| entry.without(4));
    forge(10, "entry-references-both", "entry: references are inline or in a tree", &|entry| {
        entry.with(6, list([1.into(), [0; 32].into(), 40.into()]))
    });
    forge(10, "entry-references-none", "entry: references add up to the length", &|entry| entry.with(5, list([])));
    forge(10, "entry-references-many", "entry: at most 4 references inline", &|entry| {
        let chunk = entry.get(5).array()[0].clone();
        entry.with(4, 60).with(5, Item::Array(vec![chunk; 5]))
    });
    forge(10, "entry-references-sum", "entry: references add up to the length", &|entry| entry.with(4, 13));
    forge(10, "entry-references-holes", "entry: two holes never follow each other", &|entry| {
        entry.with(4, 2).with(5, list([1.into(), 1.into()]))
    });
    forge(10, "entry-tree-height-zero", "entry: the height of a tree is at least 1", &|entry| {
        entry.without(5).with(6, list([0.into(), [0; 32].into(), 40.into()]))
    });
    forge(10, "entry-tree-height-nine", "entry: the height of a tree is at most 8", &|entry| {
        entry.without(5).with(6, list([9.into(), [0; 32].into(), 40.into()]))
    });
    forge(10, "entry-tree-page", "entry: a page is not empty", &|entry| {
        entry.without(5).with(6, list([1.into(), [0; 32].into(), 0.into()]))
    });
    forge(10, "entry-tree-page-large", "entry: a page has at most 8 MiB", &|entry| {
        entry.without(5).with(6, list([1.into(), [0; 32].into(), ((8u64 << 20) + 1).into()]))
    });
    forge(10, "entry-content-directory", "entry: a directory has no content", &|entry| entry.with(1, 2).without(7));
    forge(10, "entry-digest-directory", "entry: a directory has no digest", &|entry| {
        entry.with(1, 2).without(4).without(5)
    });
    forge(10, "entry-digest-short", "entry: a digest has 32 bytes", &|entry| entry.with(7, [0; 31]));
    forge(10, "entry-link-itself", "entry: a hard link is to another entry", &|entry| {
        entry.without(4).without(5).without(7).with(8, b"the entry".to_vec())
    });
    forge(10, "entry-link-content", "entry: a hard link has no content of its own", &|entry| {
        entry.with(8, b"before".to_vec())
    });
    forge(11, "entry-link-path", "path: no component .. in the path of a hard link", &|entry| {
        entry.without(4).without(5).without(7).with(8, b"../../etc/passwd".to_vec())
    });
    forge(10, "entry-inconsistent", "entry: inconsistent is only ever true", &|entry| {
        entry.with(9, Item::Boolean(false))
    });
    forge(10, "entry-mode", "entry: a mode is at most 07777", &|entry| entry.with(16, 0o10000));
    forge(10, "entry-uid", "entry: a uid is below 2^32", &|entry| entry.with(17, 1 << 32));
    forge(10, "entry-user", "entry: fields have their type", &|entry| entry.with(19, b"user".to_vec()));
    forge(10, "entry-extended-empty", "entry: no empty list of attributes", &|entry| entry.with(24, list([])));
    forge(10, "entry-extended-odd", "entry: attributes are pairs", &|entry| {
        entry.with(24, list([b"a".to_vec().into()]))
    });
    let attributes = |names: &[&[u8]]| {
        names.iter().flat_map(|name| [Item::from(*name), Vec::<u8>::new().into()]).collect::<Vec<Item>>()
    };
    forge(10, "entry-extended-name", "entry: the name of an attribute is not empty", &|entry| {
        entry.with(24, attributes(&[b""]))
    });
    forge(10, "entry-extended-nul", "entry: the name of an attribute has no 00", &|entry| {
        entry.with(24, attributes(&[b"a\0"]))
    });
    forge(10, "entry-extended-order", "entry: attributes ascend", &|entry| entry.with(24, attributes(&[b"b", b"a"])));
    forge(10, "entry-extended-twice", "entry: attributes ascend strictly", &|entry| {
        entry.with(24, attributes(&[b"a", b"a"]))
    });
    forge(4, "entry-unknown-field", "entry: fields below 128 are known", &|entry| entry.with(127, 0));
    forge(4, "entry-tail", "entry: nothing follows", &|entry| Item::Raw([entry.encode(), vec![0]].concat()));
    forge(4, "entry-array", "entry: a map", &|entry| Item::Array(vec![entry]));
    forge(4, "entry-depth", "profile: at most 8 deep", &|entry| {
        entry.with(128, Item::Raw([&[0x81; 7][..], &[0x80]].concat()))
    });
    forge(4, "entry-order", "profile: map keys ascend", &|entry| {
        let Item::Map(mut fields) = entry else { panic!() };
        fields.swap(0, 1);
        Item::Map(fields)
    });
    let time = |seconds: Item, nanoseconds: u64| Item::Array(vec![seconds, nanoseconds.into()]);
    forge(14, "entry-time", "time: at most 253402207200 seconds", &|entry| {
        entry.with(21, time(253_402_207_201.into(), 0))
    });
    forge(14, "entry-time-early", "time: at least -377705023201 seconds", &|entry| {
        entry.with(22, time(Item::Negative(377_705_023_201), 0))
    });
    forge(14, "entry-nanoseconds", "time: at most 999999999 nanoseconds", &|entry| {
        entry.with(21, time(0.into(), 1_000_000_000))
    });
    forge(16, "entry-digest", "content: it has the digest that its entry says", &|entry| entry.with(7, [0; 32]));

    cases.rule(9);
    let rule = "closure: it names every pack that the backup needs";
    cases.add("closure-lacks-pack", rule, ("verify", "structure"), |storage, repository| {
        let mut draft = Draft::new(repository);
        let page = draft.page(&Draft::leaf(&[(0, b"the entry", good(repository).encode())]));
        let golden = keys_of(storage, "closures/").remove(0);
        let bytes = get(storage, &golden);
        let drafted = draft.store(storage, root(1, page, 1), |_, commit| {
            // The closure of another backup, which has not the pack with the new page.
            commit.set(6, name_in(&golden));
            commit.set(7, ((bytes.len() - 16) / 40) as u64);
            let sizes = bytes[16..].chunks(40).map(|entry| u64::from_le_bytes(entry[32..].try_into().unwrap()));
            commit.set(8, sizes.sum::<u64>());
        });
        drafted.pack.to_string()
    });
}
