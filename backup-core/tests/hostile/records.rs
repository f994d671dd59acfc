//! Outcomes, forget records and collections; closures.

use std::sync::Arc;

use backup_core::id::SessionId;
use backup_core::repository::Repository;
use backup_core::storage::{Key, MemoryStorage};
use backup_core::testing;
use sha2::{Digest, Sha512};

use crate::cases::Cases;
use crate::support::cbor::{Item, list, map};
use crate::support::forger::{get, keys_of, name_of, overwrite, record, replace_closure, seeds};

const COMMIT: &str = "backup/v1/commit";
const STRANGER: &str = "sessions/00000001/abababababababababababababababab/outcome";

/// The order of the base point, little-endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// Little-endian addition; the sum fits.
fn plus(one: &[u8; 32], two: &[u8; 32]) -> [u8; 32] {
    let mut carry = 0;
    std::array::from_fn(|at| {
        let sum = u16::from(one[at]) + u16::from(two[at]) + carry;
        carry = sum >> 8;
        sum as u8
    })
}

/// A number modulo the order, bit by bit from the highest.
fn reduced(bits: impl Iterator<Item = bool>, add: &[u8; 32]) -> [u8; 32] {
    bits.fold([0; 32], |value, bit| {
        let value = below_order(plus(&value, &value));
        if bit { below_order(plus(&value, add)) } else { value }
    })
}

fn below_order(value: [u8; 32]) -> [u8; 32] {
    if value.iter().rev().lt(ORDER.iter().rev()) {
        return value;
    }
    let mut borrow = 0;
    std::array::from_fn(|at| {
        let difference = i16::from(value[at]) - i16::from(ORDER[at]) - borrow;
        borrow = i16::from(difference < 0);
        difference as u8
    })
}

fn bits(bytes: &[u8]) -> impl Iterator<Item = bool> {
    bytes.iter().rev().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1))
}

/// A signature whose point is the neutral one: the equation of verification holds, and anybody with the key can make
/// such ones for any message in the same way.
fn small_order_signature(seed: &[u8], label: &str, payload: &[u8]) -> [u8; 64] {
    let message = [label.as_bytes(), &[0], &name_of(payload)].concat();
    let mut secret: [u8; 32] = Sha512::digest(seed)[..32].try_into().unwrap();
    secret[0] &= 248;
    secret[31] = secret[31] & 127 | 64;
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let (public, _) = testing::signature(seed.try_into().unwrap(), label, payload);
    let challenge = Sha512::digest([&neutral[..], &public, &message].concat());
    let one = neutral;
    let challenge = reduced(bits(&challenge), &one);
    let scalar = reduced(bits(&challenge), &reduced(bits(&secret), &one));
    [neutral, scalar].concat().try_into().unwrap()
}

/// Makes a record and says where it stands.
type Make<'m> = dyn Fn(&Arc<MemoryStorage>, &Repository) -> (Key, Vec<u8>) + 'm;

fn payload(bytes: &[u8]) -> Item {
    Item::decode(&testing::record_payload(bytes).unwrap())
}

/// Signs a payload with the writer key and puts it where a commit of its session would stand.
fn put_commit(storage: &MemoryStorage, repository: &Repository, key: &Key, payload: &Item) -> String {
    overwrite(storage, key, record(&seeds(repository)[0], COMMIT, &payload.encode()).encode());
    key.to_string()
}

pub(crate) fn add(cases: &mut Cases) {
    outcomes(cases);
    commits(cases);
    others(cases);
    closures(cases);
}

fn outcomes(cases: &mut Cases) {
    let key = cases.first("sessions/", "/outcome");
    let stranger = Key::new(STRANGER).unwrap();
    let reported = ("verify", "record");
    cases.rule(1);
    cases.edit("outcome-long", "outcome: at most 64 KiB", reported, &key, |bytes| bytes.resize(65_537, 0));
    cases.rule(12);
    cases.edit("outcome-signature", "outcome: the signature is valid", reported, &key, |bytes| {
        *bytes.last_mut().unwrap() ^= 1;
    });
    cases.edit("outcome-empty", "outcome: a record", reported, &key, Vec::clear);
    cases.edit("outcome-malleable", "signature: the scalar is reduced", reported, &key, |bytes| {
        let scalar = bytes.len() - 32;
        let sum = plus(bytes[scalar..].try_into().unwrap(), &ORDER);
        bytes[scalar..].copy_from_slice(&sum);
    });
    cases.add("outcome-small-order", "signature: the point is not of small order", reported, |storage, repository| {
        let payload = testing::record_payload(&get(storage, &key)).unwrap();
        let signature = small_order_signature(&seeds(repository)[0], COMMIT, &payload);
        let bytes = map(vec![(1, COMMIT.into()), (2, payload.into()), (3, signature.into())]).encode();
        overwrite(storage, &key, bytes);
        key.to_string()
    });
    cases.add("outcome-moved", "outcome: it stands in the slot of its session", reported, |storage, _| {
        overwrite(storage, &stranger, get(storage, &key));
        stranger.to_string()
    });
    cases.add("outcome-key", "commit: the writer key signs it", reported, |storage, repository| {
        let payload = testing::record_payload(&get(storage, &key)).unwrap();
        overwrite(storage, &key, record(&seeds(repository)[1], COMMIT, &payload).encode());
        key.to_string()
    });
    cases.add("outcome-label", "outcome: a record of another kind is none", reported, |storage, repository| {
        let payload = testing::record_payload(&get(storage, &key)).unwrap();
        overwrite(storage, &key, record(&seeds(repository)[1], "backup/v1/forget", &payload).encode());
        key.to_string()
    });
    cases.add("outcome-label-unknown", "outcome: its label is known", reported, |storage, repository| {
        let payload = testing::record_payload(&get(storage, &key)).unwrap();
        overwrite(storage, &key, record(&seeds(repository)[0], "backup/v2/commit", &payload).encode());
        key.to_string()
    });
    cases.add("revocation-key", "revocation: the maintenance key signs it", reported, |storage, repository| {
        let payload = map(vec![(1, (*repository.id().as_bytes()).into()), (2, [0xab; 16].into())]).encode();
        overwrite(storage, &stranger, record(&seeds(repository)[0], "backup/v1/revoke", &payload).encode());
        stranger.to_string()
    });
    cases.add(
        "revocation-session",
        "revocation: it stands in the slot of its session",
        reported,
        |storage, repository| {
            let (_, bytes) = testing::revocation(repository, 1, SessionId::new([0xcd; 16])).unwrap();
            overwrite(storage, &stranger, bytes);
            stranger.to_string()
        },
    );
    cases.rule(4);
    cases.edit("outcome-tail", "record: nothing follows", reported, &key, |bytes| bytes.push(0));
    cases.edit("outcome-unknown-field", "record: fields below 128 are known", reported, &key, |bytes| {
        *bytes = Item::decode(bytes).with(4, 0).encode();
    });
    cases.edit("outcome-signature-short", "record: a signature has 64 bytes", reported, &key, |bytes| {
        *bytes = Item::decode(bytes).with(3, [0; 63]).encode();
    });
}

/// Commits that are signed and yet not right.
fn commits(cases: &mut Cases) {
    let key = cases.first("sessions/", "/outcome");
    let mut with = |name, rule, change: &dyn Fn(Item) -> Item| {
        cases.add(name, rule, ("verify", "record"), |storage, repository| {
            let commit = change(payload(&get(storage, &key)));
            put_commit(storage, repository, &key, &commit)
        });
    };
    with("commit-unknown-field", "commit: fields below 128 are known", &|commit| commit.with(14, 0));
    with("commit-missing-field", "commit: no field is missing", &|commit| commit.without(10));
    with("commit-replaces", "commit: an earlier id has 32 bytes", &|commit| commit.with(13, list([[0; 31].into()])));
    with("commit-index", "commit: a name has 32 bytes", &|commit| commit.with(5, list([[0; 31].into()])));
    cases.rule(12);
    let mut with = |name, rule, change: &dyn Fn(Item) -> Item| {
        cases.add(name, rule, ("verify", "record"), |storage, repository| {
            let commit = change(payload(&get(storage, &key)));
            put_commit(storage, repository, &key, &commit)
        });
    };
    with("commit-repository", "commit: it is of this repository", &|commit| commit.with(1, [0; 16]));
    with("commit-session", "commit: it is of the session of its key", &|commit| commit.with(2, [0; 16]));
    with("commit-generation", "commit: it is of the generation of its key", &|commit| commit.with(3, 2));
    with("commit-replaces-empty", "commit: it replaces nothing or at least one", &|commit| commit.with(13, list([])));
    with("commit-replaces-twice", "commit: it replaces each once", &|commit| {
        commit.with(13, list([[1; 32].into(), [2; 32].into(), [1; 32].into()]))
    });
    let id = |number: u16| *blake3::hash(&number.to_le_bytes()).as_bytes();
    let many = Item::Array((0..257).map(|number| id(number).into()).collect());
    with("commit-replaces-many", "commit: it replaces at most 256", &|commit| commit.with(13, many.clone()));
    with("commit-config", "commit: it names the config's hash", &|commit| commit.with(9, [0; 32]));
    cases.rule(14);
    let mut with = |name, rule, change: &dyn Fn(Item) -> Item| {
        cases.add(name, rule, ("verify", "record"), |storage, repository| {
            let commit = change(payload(&get(storage, &key)));
            put_commit(storage, repository, &key, &commit)
        });
    };
    with("commit-time", "time: at most 253402207200 seconds", &|commit| commit.with(11, 253_402_207_201));
    with("commit-nanoseconds", "time: at most 999999999 nanoseconds", &|commit| commit.with(12, 1_000_000_000));
    cases.rule(12);
    cases.add(
        "commit-heads",
        "commit: commits that it names are there",
        ("verify", "history"),
        |storage, repository| {
            let commit = payload(&get(storage, &key)).with(10, list([[0xee; 32].into()]));
            put_commit(storage, repository, &key, &commit);
            "ee".repeat(32)
        },
    );
}

fn others(cases: &mut Cases) {
    let reported = ("verify", "record");
    cases.rule(12);
    cases.add("forget-stranger", "forget: the maintenance key signs it", reported, |storage, repository| {
        let id = repository.backups().unwrap()[0].id;
        let (key, mut bytes) = testing::forget(repository, id).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        overwrite(storage, &key, bytes);
        key.to_string()
    });
    cases.add(
        "forget-moved",
        "forget: it stands under the backup that it is about",
        reported,
        |storage, repository| {
            let backups = repository.backups().unwrap();
            let (_, bytes) = testing::forget(repository, backups[0].id).unwrap();
            let (key, _) = testing::forget(repository, backups[1].id).unwrap();
            overwrite(storage, &key, bytes);
            key.to_string()
        },
    );
    cases.add("forget-commit", "forget: a commit is none", reported, |storage, repository| {
        let (key, _) = testing::forget(repository, repository.backups().unwrap()[0].id).unwrap();
        let outcome = keys_of(storage, "sessions/").into_iter().find(|key| key.as_str().ends_with("/outcome")).unwrap();
        overwrite(storage, &key, get(storage, &outcome));
        key.to_string()
    });
    let mut collection = |name, rule, make: &Make<'_>| {
        cases.add(name, rule, reported, |storage, repository| {
            let (key, bytes) = make(storage, repository);
            overwrite(storage, &key, bytes);
            key.to_string()
        });
    };
    let signed = |repository: &Repository, label: &str, payload: Item| {
        record(&seeds(repository)[1], label, &payload.encode()).encode()
    };
    let mark_key = || Key::new("collections/00000001/mark").unwrap();
    let outcome_key = || Key::new("collections/00000001/outcome").unwrap();
    let numbered =
        |repository: &Repository, number: u64| map(vec![(1, (*repository.id().as_bytes()).into()), (2, number.into())]);
    collection("mark-stranger", "mark: the maintenance key signs it", &|_, repository| {
        let payload = numbered(repository, 1).with(3, Vec::<u8>::new()).encode();
        (mark_key(), record(&seeds(repository)[0], "backup/v1/collection-mark", &payload).encode())
    });
    collection("mark-number", "mark: it stands under its number", &|_, repository| {
        (mark_key(), testing::collection_mark(repository, 2, &[]).unwrap().1)
    });
    collection("mark-final", "mark: a final is none", &|_, repository| {
        (mark_key(), testing::collection_final(repository, 1, &[], &[], &[]).unwrap().1)
    });
    collection("mark-order", "mark: names ascend", &|_, repository| {
        let names = [[2; 32], [1; 32]].concat();
        (mark_key(), signed(repository, "backup/v1/collection-mark", numbered(repository, 1).with(3, names)))
    });
    collection("mark-twice", "mark: names ascend strictly", &|_, repository| {
        let names = [[1; 32], [1; 32]].concat();
        (mark_key(), signed(repository, "backup/v1/collection-mark", numbered(repository, 1).with(3, names)))
    });
    collection("mark-cut", "mark: names have 32 bytes", &|_, repository| {
        (mark_key(), signed(repository, "backup/v1/collection-mark", numbered(repository, 1).with(3, [1; 33])))
    });
    collection("mark-unknown-field", "mark: fields below 128 are known", &|_, repository| {
        let payload = numbered(repository, 1).with(3, Vec::<u8>::new()).with(4, 0);
        (mark_key(), signed(repository, "backup/v1/collection-mark", payload))
    });
    collection("final-stranger", "final: the maintenance key signs it", &|_, repository| {
        let (key, mut bytes) = testing::collection_final(repository, 1, &[], &[], &[]).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        (key, bytes)
    });
    collection("final-number", "final: it stands under its number", &|_, repository| {
        (outcome_key(), testing::collection_final(repository, 2, &[], &[], &[]).unwrap().1)
    });
    collection("final-repository", "final: it is of this repository", &|_, repository| {
        let payload = numbered(repository, 1)
            .with(1, [0; 16])
            .with(3, Vec::<u8>::new())
            .with(4, Vec::<Item>::new())
            .with(5, Vec::<u8>::new());
        (outcome_key(), signed(repository, "backup/v1/collection-final", payload))
    });
    collection("final-missing-field", "final: no field is missing", &|_, repository| {
        let payload = numbered(repository, 1).with(3, Vec::<u8>::new()).with(4, Vec::<Item>::new());
        (outcome_key(), signed(repository, "backup/v1/collection-final", payload))
    });
    collection("final-checkpoint", "final: a checkpoint holds genuine outcomes", &|storage, repository| {
        let outcomes = keys_of(storage, "sessions/").into_iter().filter(|key| key.as_str().ends_with("/outcome"));
        let mut checkpoint: Vec<Vec<u8>> = outcomes.map(|key| get(storage, &key)).collect();
        let indexes: Vec<_> = keys_of(storage, "index/")
            .iter()
            .map(|key| key.as_str().rsplit('/').next().unwrap().parse().unwrap())
            .collect();
        *checkpoint[0].last_mut().unwrap() ^= 1;
        testing::collection_final(repository, 1, &[], &checkpoint, &indexes).unwrap()
    });
    collection("abort-field", "abort: no other fields", &|_, repository| {
        let payload = numbered(repository, 1).with(3, Vec::<u8>::new());
        (outcome_key(), signed(repository, "backup/v1/collection-abort", payload))
    });
}

fn closures(cases: &mut Cases) {
    let key = cases.first("closures/", "");
    cases.rule(1);
    cases.edit("closure-name", "closure: its name is its hash", ("verify", "bytes"), &key, |bytes| bytes[8] ^= 1);
    cases.add(
        "closure-missing",
        "closure: every one that a commit names is there",
        ("verify", "missing"),
        |storage, _| {
            backup_core::storage::Storage::delete(&**storage, &key).unwrap();
            key.to_string()
        },
    );
    cases.rule(13);
    let storage = MemoryStorage::from_objects(cases.golden.clone());
    let largest = keys_of(&storage, "closures/").into_iter().max_by_key(|key| get(&storage, key).len()).unwrap();
    let mut with = |name, rule, change: &dyn Fn(&mut Vec<u8>)| {
        cases.add(name, rule, ("verify", "bytes"), |storage, repository| {
            let mut bytes = get(storage, &largest);
            change(&mut bytes);
            replace_closure(storage, repository, &largest, &bytes).to_string()
        });
    };
    with("closure-magic", "closure: it begins with BCL1", &|bytes| bytes[3] = b'2');
    with("closure-reserved", "closure: reserved bytes are zero", &|bytes| bytes[7] = 1);
    with("closure-count", "closure: its length fits its count", &|bytes| bytes[8] += 1);
    with("closure-count-huge", "closure: its length fits its count", &|bytes| bytes[8..16].fill(0xff));
    with("closure-cut", "closure: its length fits its count", &|bytes| bytes.truncate(bytes.len() - 1));
    with("closure-short", "closure: a header of 16 bytes", &|bytes| bytes.truncate(15));
    with("closure-order", "closure: packs ascend", &|bytes| {
        let first: Vec<u8> = bytes.drain(16..56).collect();
        bytes.extend(first);
    });
    with("closure-twice", "closure: packs ascend strictly", &|bytes| {
        let first = bytes[16..56].to_vec();
        bytes.splice(56..56, first);
        bytes[8] += 1;
    });
    with("closure-packs", "closure: the commit says how many packs it has", &|bytes| {
        bytes.truncate(bytes.len() - 40);
        bytes[8] -= 1;
    });
    with("closure-bytes", "closure: the commit says the sum of its sizes", &|bytes| bytes[16 + 32] += 1);
}
