//! A published repository that every program of this format must read.
//!
//! `BACKUP_VECTORS=write cargo test -p backup-core --test golden` writes it anew. That is right together with
//! a change of the format, or of the zstd library, which may compress the same bytes to others.
#![expect(
    clippy::disallowed_methods,
    reason = "the rule that the core reads no files and no environment is not for its tests"
)]

mod support;

use std::sync::Arc;

use backup_core::id::{ObjectName, SessionId};
use backup_core::repository::{BackupKind, BackupOptions, LockedRepository, Selection};
use backup_core::storage::{Key, MemoryStorage};
use backup_core::testing;
use bytes::Bytes;
use serde_json::{Value, json};
use support::cbor::{Item, map};
use support::forger::{record, seeds};
use support::tree::{Made, Target};
use support::vectors::{NOW, Objects, describe, golden, hex, is_writing, make, open, vectors};
use support::{assert_sound, control, environment_at, path};

#[test]
fn the_golden_repository_is_what_this_program_writes_and_reads() {
    let made = make();
    if is_writing() {
        let root = vectors("golden/repository");
        let _ = std::fs::remove_dir_all(&root);
        for (key, bytes) in &made {
            let file = root.join(key.as_str());
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, bytes).unwrap();
        }
        let storage = Arc::new(MemoryStorage::from_objects(made.clone()));
        let text = serde_json::to_string_pretty(&describe(&open(&storage, 1, NOW).unwrap())).unwrap() + "\n";
        std::fs::write(vectors("golden/contents.json"), text).unwrap();
    }
    let published = golden();
    let names = |objects: &Objects| objects.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&published), names(&made), "objects have other names, and so other bytes");
    for (key, bytes) in &published {
        assert!(made[key] == bytes, "{key} has other bytes");
    }
    assert!(published.values().map(Bytes::len).sum::<usize>() < 200_000, "it stays small");

    let storage = Arc::new(MemoryStorage::from_objects(published));
    let repository = open(&storage, 1, NOW).unwrap();
    let expected: Value = serde_json::from_slice(&std::fs::read(vectors("golden/contents.json")).unwrap()).unwrap();
    assert_eq!(describe(&repository), expected);
    assert_sound(&repository);
    let backup = &repository.backups().unwrap()[0];
    assert!(!backup.is_complete() && backup.tags == ["before-upgrade", "nightly"]);
    let target = Target::default();
    let report = repository.restore_tree(backup, &Selection::all(), &target, &control(3)).unwrap();
    assert!(report.is_complete(), "{:?}", report.problems);
    let made = target.into_map();
    assert_eq!(made[&path("etc/link")], Made::Link(path("etc/config")));
    let Made::Content(image, holes) = &made[&path("vm/disk.raw")] else { panic!() };
    assert_eq!((image.len(), *holes), (163_840, 65_536));
    let locked = LockedRepository::open(storage.clone(), environment_at(1, NOW)).unwrap();
    assert_eq!(locked.commits().unwrap().len(), 2);

    // It can be written on.
    let mut session = repository.begin(BackupOptions::new(BackupKind::Data).with_host("golden")).unwrap();
    assert_eq!(session.parent().unwrap().id, backup.id);
    session.add_stream(path("more"), &mut &b"more"[..]).unwrap();
    session.commit().unwrap();
    assert_sound(&repository);
}

fn write_or_compare(name: &str, value: &Value) {
    let text = serde_json::to_string_pretty(value).unwrap() + "\n";
    if is_writing() {
        std::fs::write(vectors(name), &text).unwrap();
    }
    assert!(std::fs::read(vectors(name)).unwrap() == text.as_bytes(), "{name} differs from what this program writes");
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Names and sizes, as closures and index segments list them.
fn places(bytes: &[u8]) -> Vec<Value> {
    bytes.chunks(40).map(|place| json!([hex(&place[..32]), number(&place[32..])])).collect()
}

/// What is in a pack, taken apart by hand.
fn describe_pack(body: &[u8]) -> Vec<Value> {
    let count = number(&body[4..8]) as usize;
    let mut offset = 16 + 44 * count;
    let describe = |entry: &[u8]| {
        let stored = number(&entry[32..36]) as usize;
        let payload = &body[offset..offset + stored];
        offset += stored;
        let raw = number(&entry[36..40]) as usize;
        let plain = if entry[40] == 1 { zstd::bulk::decompress(payload, raw).unwrap() } else { payload.to_vec() };
        json!({
            "id": hex(&entry[..32]),
            "offset": offset - stored,
            "stored": stored,
            "raw": raw,
            "codec": entry[40],
            "kind": entry[41],
            "plaintext_blake3": blake3::hash(&plain).to_string(),
            "plaintext": (plain.len() <= 1000).then(|| hex(&plain)),
        })
    };
    body[16..16 + 44 * count].chunks(44).map(describe).collect()
}

#[test]
fn packs_and_index_segments_of_the_golden_repository() {
    let objects = golden();
    let storage = Arc::new(MemoryStorage::from_objects(objects.clone()));
    let repository = open(&storage, 1, NOW).unwrap();
    let sealed = |prefix: &str, describe: &dyn Fn(&[u8]) -> Value| {
        let of_kind = objects.iter().filter(|(key, _)| key.as_str().starts_with(prefix));
        let described = of_kind.map(|(key, bytes)| {
            let body = testing::open_object(&repository, key.as_str(), bytes).unwrap();
            json!({
                "key": key.as_str(),
                "type": bytes[9],
                "generation": number(&bytes[32..36]),
                "body_length": body.len(),
                "body_blake3": blake3::hash(&body).to_string(),
                "content": describe(&body),
            })
        });
        described.collect::<Vec<_>>()
    };
    let index = |body: &[u8]| {
        let entries = 16 + 40 * number(&body[4..8]) as usize;
        let describe = |entry: &[u8]| {
            let numbers: Vec<u64> = entry[32..48].chunks(4).map(number).collect();
            json!([hex(&entry[..32]), numbers, entry[48], entry[49]])
        };
        json!({
            "packs": places(&body[16..entries]),
            "entries": body[entries..].chunks(52).map(describe).collect::<Vec<_>>(),
        })
    };
    let value = json!({
        "packs": sealed("packs/", &|body| json!(describe_pack(body))),
        "indexes": sealed("index/", &index),
    });
    write_or_compare("packs.json", &value);
}

#[test]
fn commits_and_other_records_of_the_golden_repository() {
    let objects = golden();
    let storage = Arc::new(MemoryStorage::from_objects(objects.clone()));
    let repository = open(&storage, 1, NOW).unwrap();
    let outcomes = objects.iter().filter(|(key, _)| key.as_str().ends_with("/outcome"));
    let commits = outcomes.map(|(key, bytes)| {
        let payload = Item::decode(&testing::record_payload(bytes).unwrap());
        let named = |directory: &str, field| {
            let key = Key::new(format!("{directory}/{}", hex(payload.get(field).bytes()))).unwrap();
            (key.to_string(), &objects[&key])
        };
        let (body_key, body) = named("bodies", 4);
        let (closure_key, closure) = named("closures", 6);
        json!({
            "key": key.as_str(),
            "backup": blake3::hash(bytes).to_string(),
            "session": hex(payload.get(2).bytes()),
            "generation": payload.get(3).number(),
            "indexes": payload.get(5).array().iter().map(|name| hex(name.bytes())).collect::<Vec<_>>(),
            "config": hex(payload.get(9).bytes()),
            "heads": payload.get(10).array().iter().map(|name| hex(name.bytes())).collect::<Vec<_>>(),
            "time": [payload.get(11).number(), payload.get(12).number()],
            "closure": { "key": closure_key, "packs": places(&closure[16..]) },
            "body": { "key": body_key, "bytes": hex(&testing::open_object(&repository, &body_key, body).unwrap()) },
        })
    });
    let commits: Vec<Value> = commits.collect();
    let backups = repository.backups().unwrap();
    let names = |prefix: &str| -> Vec<ObjectName> {
        let of_kind = objects.keys().filter(|key| key.as_str().starts_with(prefix));
        of_kind.map(|key| key.as_str().rsplit('/').next().unwrap().parse().unwrap()).collect()
    };
    let checkpoint: Vec<Vec<u8>> =
        objects.iter().filter(|(key, _)| key.as_str().ends_with("/outcome")).map(|(_, bytes)| bytes.to_vec()).collect();
    let abort = map(vec![(1, (*repository.id().as_bytes()).into()), (2, 3.into())]).encode();
    let abort = record(&seeds(&repository)[1], "backup/v1/collection-abort", &abort).encode();
    let records = [
        testing::revocation(&repository, 1, SessionId::new([0xab; 16])).unwrap(),
        testing::forget(&repository, backups[0].id).unwrap(),
        testing::collection_mark(&repository, 1, &names("packs/")).unwrap(),
        testing::collection_final(&repository, 2, &names("packs/")[..1], &checkpoint, &names("index/")).unwrap(),
        (Key::new("collections/00000003/outcome").unwrap(), abort),
    ];
    // What a collector will write: no program of this version does.
    let records = records.map(|(key, bytes)| {
        json!({
            "key": key.as_str(),
            "label": Item::decode(&bytes).get(1).text(),
            "payload": hex(&testing::record_payload(&bytes).unwrap()),
            "object": hex(&bytes),
        })
    });
    write_or_compare("commits.json", &json!({ "commits": commits, "records": records }));
}
