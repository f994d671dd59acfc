//! Sealed objects, shown with the body of a backup.

use backup_core::repository::Repository;
use backup_core::storage::MemoryStorage;
use backup_core::testing;

use crate::cases::Cases;
use crate::support::cbor::{Item, list};
use crate::support::forger::{get, keys_of, overwrite, pack_of_kind, plaintext, replace_as, replace_object, sealed};

pub(crate) fn add(cases: &mut Cases) {
    let key = cases.first("bodies/", "");
    let damaged = ("list", "damaged");
    let unsupported = ("list", "unsupported");
    let open = |storage: &MemoryStorage, repository: &Repository| {
        testing::open_object(repository, key.as_str(), &get(storage, &key)).unwrap()
    };

    cases.rule(1);
    cases.edit("body-name", "body: its name is its hash", damaged, &key, |bytes| bytes[300] ^= 1);
    cases.add("body-missing", "body: every one that a commit names is there", damaged, |storage, _| {
        backup_core::storage::Storage::delete(&**storage, &key).unwrap();
        key.to_string()
    });

    // Sealed with such a header, so that nothing else is wrong, and named and signed.
    cases.rule(2);
    for (name, rule, expected, at, bytes) in [
        ("object-magic", "sealed object: it begins with the magic bytes", damaged, 1, &b"b"[..]),
        ("object-version", "sealed object: the version is 1", unsupported, 8, &[2]),
        ("object-suite", "sealed object: the suite is known", unsupported, 10, &[2]),
        ("object-flags", "sealed object: flags are zero", unsupported, 15, &[0x80]),
        ("object-repository", "sealed object: it is of this repository", damaged, 16, &[0; 16]),
        ("object-generation", "sealed object: its generation is in the keyring", damaged, 32, &[9]),
        ("object-generation-zero", "sealed object: the generation 0 is for others", damaged, 32, &[0]),
        ("object-frames-zero", "sealed object: at least one frame", damaged, 36, &[0]),
        ("object-frames-many", "sealed object: at most 4096 frames", damaged, 36, &[1, 0x10]),
        ("object-frames-more", "sealed object: its length follows from its header", damaged, 36, &[2]),
        ("object-envelope", "sealed object: no envelope", unsupported, 57, &[1]),
        ("object-reserved", "sealed object: reserved bytes are zero", damaged, 58, &[1]),
        ("object-reserved-63", "sealed object: reserved bytes are zero", damaged, 63, &[1]),
    ] {
        cases.add(name, rule, expected, |storage, repository| {
            let body = open(storage, repository);
            let changed =
                sealed(storage, repository, &key, &body, |header| header[at..at + bytes.len()].copy_from_slice(bytes));
            replace_object(storage, repository, &key, &changed).to_string()
        });
    }
    for (name, log2) in [("object-frame-small", 11), ("object-frame-large", 21)] {
        cases.add(name, "sealed object: frames of 4 KiB to 1 MiB", damaged, |storage, repository| {
            let mut changed = get(storage, &key);
            changed[11] = log2;
            changed[36..40].copy_from_slice(&1u32.to_le_bytes());
            if log2 == 11 {
                changed.truncate(128 + 2048 + 16);
            }
            replace_object(storage, repository, &key, &changed).to_string()
        });
    }
    for (name, rule, change) in [
        ("object-commitment", "sealed object: the key is committed to", (|bytes| bytes[96] ^= 1) as fn(&mut Vec<u8>)),
        ("object-salt", "sealed object: every byte of the header is bound", |bytes| bytes[64] ^= 1),
        ("object-session", "sealed object: every byte of the header is bound", |bytes| bytes[40] ^= 1),
        ("object-tag", "sealed object: frames are authentic", |bytes| *bytes.last_mut().unwrap() ^= 1),
        ("object-ciphertext", "sealed object: frames are authentic", |bytes| bytes[200] ^= 1),
        ("object-cut", "sealed object: its length follows from its header", |bytes| bytes.truncate(bytes.len() - 1)),
        ("object-tail", "sealed object: its length follows from its header", |bytes| bytes.push(0)),
        ("object-short", "sealed object: a header of 128 bytes", |bytes| bytes.truncate(127)),
    ] {
        cases.add(name, rule, damaged, |storage, repository| {
            let mut changed = get(storage, &key);
            change(&mut changed);
            replace_object(storage, repository, &key, &changed).to_string()
        });
    }
    cases.add("body-type", "sealed object: its type is that of its place", damaged, |storage, repository| {
        let body = open(storage, repository);
        replace_as(storage, repository, &key, 4, &body).to_string()
    });
    let mut frames = |name, rule, change: &dyn Fn(&mut Vec<u8>), is_last: &dyn Fn(u32) -> bool| {
        cases.add(name, rule, damaged, |storage, repository| {
            let mut plain = plaintext(&open(storage, repository), 4096);
            change(&mut plain);
            let mut header: [u8; 96] = get(storage, &key)[..96].try_into().unwrap();
            header[36..40].copy_from_slice(&((plain.len() / 4096) as u32).to_le_bytes());
            header[64..].copy_from_slice(&crate::support::forger::name_of(name.as_bytes()));
            let changed = testing::seal_frames(repository, &header, &plain, is_last).unwrap();
            replace_object(storage, repository, &key, &changed).to_string()
        });
    };
    let one = |frame| frame == 0;
    frames("object-padding", "sealed object: zeros behind the body", &|plain| *plain.last_mut().unwrap() = 1, &one);
    frames(
        "object-padding-far",
        "sealed object: zeros behind the body, in every frame",
        &|plain| {
            plain.resize(3 * 4096, 0);
            plain[2 * 4096 + 77] = 1;
        },
        &|frame| frame == 2,
    );
    frames(
        "object-length",
        "sealed object: the body fits its frames",
        &|plain| plain[..8].copy_from_slice(&4089u64.to_le_bytes()),
        &one,
    );
    frames("object-length-huge", "sealed object: the body fits its frames", &|plain| plain[..8].fill(0xff), &one);
    frames("object-last", "sealed object: the last frame is sealed as the last", &|_| (), &|_| false);
    frames(
        "object-last-early",
        "sealed object: no other frame is sealed as the last",
        &|plain| plain.resize(8192, 0),
        &|_| true,
    );

    // Of packs single frames are read.
    let storage = MemoryStorage::from_objects(cases.golden.clone());
    let data = pack_of_kind(&storage, 2).into_iter().max_by_key(|key| get(&storage, key).len()).unwrap();
    cases.edit(
        "pack-cut",
        "sealed object: its length follows from its header",
        ("restore", "damaged"),
        &data,
        |bytes| {
            bytes.truncate(4000);
        },
    );
    cases.edit("pack-frames", "sealed object: frames have their places", ("restore", "damaged"), &data, |bytes| {
        let frame = (1 << bytes[11]) + 16;
        let (first, second) = bytes[128..].split_at_mut(frame);
        first.swap_with_slice(&mut second[..frame]);
    });
    cases.add(
        "pack-type",
        "sealed object: its type is that of its contents",
        ("verify", "chunk"),
        |storage, repository| {
            let body = testing::open_object(repository, data.as_str(), &get(storage, &data)).unwrap();
            replace_as(storage, repository, &data, 5, &body).to_string()
        },
    );
    cases.add("body-swapped", "sealed object: an object is not another", ("verify", "bytes"), |storage, _| {
        let [one, two] = keys_of(storage, "bodies/").try_into().unwrap();
        let (first, second) = (get(storage, &one), get(storage, &two));
        overwrite(storage, &one, second);
        overwrite(storage, &two, first);
        one.to_string()
    });

    body(cases);
}

/// What stands in the body of a backup.
fn body(cases: &mut Cases) {
    let key = cases.first("bodies/", "");
    let damaged = ("list", "damaged");
    cases.rule(4);
    cases.forge("body-tail", "body: nothing follows", damaged, &key, |body| body.push(0));
    cases.forge("body-cut", "body: nothing is missing", damaged, &key, |body| body.truncate(20));
    cases.forge("body-empty", "body: a map", damaged, &key, Vec::clear);
    let mut with = |name, rule, change: &dyn Fn(Item) -> Item| cases.forge_fields(name, rule, damaged, &key, change);
    with("body-unknown-field", "body: fields below 128 are known", &|body| body.with(15, 0));
    with("body-missing-field", "body: no field is missing", &|body| body.without(13));
    with("body-kind", "body: a kind has characters a-z 0-9 . _ -", &|body| body.with(1, "Data"));
    with("body-kind-empty", "body: a kind has at least 1 character", &|body| body.with(1, ""));
    with("body-kind-long", "body: a kind has at most 64 characters", &|body| body.with(1, "a".repeat(65).as_str()));
    with("body-host", "body: fields have their type", &|body| body.with(2, b"host".to_vec()));
    with("body-label", "body: a label has two items", &|body| body.with(4, list([Item::Array(vec!["name".into()])])));
    with("body-parent", "body: an id has 32 bytes", &|body| body.with(9, [0; 31]));
    with("body-amounts", "body: eight amounts", &|body| {
        let amounts = body.get(11).array()[..7].to_vec();
        body.with(11, amounts)
    });
    let origin =
        |repository: usize, backup: usize| Item::Array(vec![vec![1; repository].into(), vec![2; backup].into()]);
    with("body-origins-none", "body: origins are left out where there are none", &|body| body.with(14, list([])));
    with("body-origins-many", "body: at most 64 origins", &|body| body.with(14, vec![origin(16, 32); 65]));
    with("body-origin-short", "body: a repository id has 16 bytes", &|body| body.with(14, list([origin(15, 32)])));
    with("body-origin-item", "body: an origin has two items", &|body| {
        body.with(14, list([Item::Array(vec![vec![1; 16].into()])]))
    });
    with("body-catalogue", "body: the root has four items", &|body| {
        let root = body.get(10).array()[..3].to_vec();
        body.with(10, root)
    });
    cases.rule(14);
    let mut with = |name, rule, change: &dyn Fn(Item) -> Item| cases.forge_fields(name, rule, damaged, &key, change);
    with("body-time", "time: at most 253402207200 seconds", &|body| body.with(5, 253_402_207_201));
    with("body-time-early", "time: at least -377705023201 seconds", &|body| {
        body.with(7, Item::Negative(377_705_023_201))
    });
    with("body-nanoseconds", "time: at most 999999999 nanoseconds", &|body| body.with(6, 1_000_000_000));
}
