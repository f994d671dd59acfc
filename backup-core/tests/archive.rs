//! Archives: the repository in one is the one that was exported, whatever the profile promises may be damaged, and
//! what is lost beyond that is named while the rest is there.

#![expect(clippy::disallowed_methods, reason = "the rule that the core reads no files is not for its tests")]

mod support;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::Arc;

use backup_core::archive::{
    ArchiveReport, ArchiveStorage, ExportOptions, ExportReport, Profile, check, export, repair,
};
use backup_core::id::BackupId;
use backup_core::repository::{LockedRepository, Repository, VerifyLevel, VerifyOptions};
use backup_core::source::BlockSource;
use backup_core::storage::{Key, MemoryStorage, PutMode, Storage, StorageError, list_all};
use backup_core::{Error, ErrorKind};
use bytes::Bytes;
use serde_json::{Value, json};
use support::file::File;
use support::tree::{Node, Tree};
use support::vectors::{NOW, describe, golden, is_writing, vectors};
use support::{assert_sound, control, environment_at, init_with, memory, noise, open, options, small_options};

const BLOCK: usize = 64 << 10;

fn source(bytes: &[u8]) -> Arc<dyn BlockSource> {
    Arc::new(File(bytes.to_vec()))
}

fn exported(storage: &Arc<MemoryStorage>, options: &ExportOptions) -> (Vec<u8>, ExportReport) {
    let locked = LockedRepository::open(storage.clone(), environment_at(0xa5c4, NOW)).unwrap();
    let mut bytes = Vec::new();
    let report = export(&locked, options, &mut bytes, &control(1)).unwrap();
    assert_eq!(report.bytes, bytes.len() as u64);
    (bytes, report)
}

fn golden_storage() -> Arc<MemoryStorage> {
    Arc::new(MemoryStorage::from_objects(golden()))
}

fn golden_archive() -> Vec<u8> {
    exported(&golden_storage(), &ExportOptions::default()).0
}

/// A repository with packs of 64 KiB, some 2 MB of them, and a second backup that shares most.
fn larger() -> (Arc<MemoryStorage>, Vec<BackupId>) {
    let storage = memory();
    init_with(storage.clone(), &small_options(), 1).unwrap();
    let mut made = Vec::new();
    for seed in 0..2u64 {
        let repository = open(storage.clone(), 2 + seed).unwrap();
        let mut session = repository.begin(options(1)).unwrap();
        let mut nodes: Vec<Node> = (0..8).map(|n| Node::file(&format!("common-{n}"), noise(n, 200_000))).collect();
        nodes.push(Node::file("own", noise(100 + seed, 100_000)));
        session.add_tree(&mut Tree::new(nodes)).unwrap();
        made.push(session.commit().unwrap().id);
    }
    (storage, made)
}

fn repaired(bytes: &[u8]) -> (Vec<u8>, backup_core::archive::RepairReport) {
    let mut out = Vec::new();
    let report = repair(source(bytes), "file", &mut out, &control(1)).unwrap();
    assert_eq!(report.bytes, out.len() as u64);
    (out, report)
}

fn checked(bytes: &[u8]) -> ArchiveReport {
    check(source(bytes), "file", &control(1)).unwrap()
}

/// Asserts that every object of the archive is there, and returns their keys.
fn all_objects(bytes: &[u8], original: &MemoryStorage) -> BTreeSet<Key> {
    let archive = ArchiveStorage::open(source(bytes), "file").unwrap();
    let snapshot = original.snapshot();
    let listed = list_all(&archive, "").unwrap();
    for object in &listed {
        let bytes = archive.get(&object.key, object.size).unwrap_or_else(|error| panic!("{}: {error}", object.key));
        assert!(bytes == snapshot[&object.key], "{} has other bytes", object.key);
        let range = object.size / 3..object.size / 2;
        let part = &bytes[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
        assert_eq!(archive.get_range(&object.key, range).unwrap(), part);
    }
    listed.into_iter().map(|object| object.key).collect()
}

#[test]
fn the_repository_in_an_archive_is_the_one_that_was_exported() {
    let (storage, made) = larger();
    for profile in Profile::ALL {
        let (bytes, report) = exported(&storage, &ExportOptions::default().with_profile(profile));
        assert_eq!(report.backups, made);
        assert_eq!(bytes.len() % BLOCK, 0);
        let keys = all_objects(&bytes, &storage);
        let expected = storage.snapshot();
        let expected = expected.keys().filter(|key| !key.as_str().ends_with("/open"));
        assert_eq!(keys, expected.cloned().collect(), "all but the marks of sessions");
        let archive = Arc::new(ArchiveStorage::open(source(&bytes), "file").unwrap());
        let repository = open(archive.clone(), 9).unwrap();
        assert_sound(&repository);
        assert_eq!(describe(&repository), describe(&open(storage.clone(), 9).unwrap()));
        let locked = LockedRepository::open(archive, environment_at(9, NOW)).unwrap();
        let found = locked.verify(&VerifyOptions::new(VerifyLevel::Bytes), &control(2)).unwrap();
        assert!(found.ok, "{:?}", found.findings);
        let state = checked(&bytes);
        assert!(state.ok && state.complete && state.has_table, "{state:?}");
        assert_eq!((state.lost_blocks, state.least_left, state.survives), (0, state.parity_blocks, report.survives));
        assert_eq!(repaired(&bytes).0, bytes);
    }
}

/// One backup of several has no objects of the others but index segments, and restores.
#[test]
fn one_backup_is_exported_alone() {
    let (storage, made) = larger();
    let first = exported(&storage, &ExportOptions::default().with_backups([made[0]])).0;
    let archive = Arc::new(ArchiveStorage::open(source(&first), "file").unwrap());
    let repository = open(archive.clone(), 9).unwrap();
    assert_eq!(repository.backups().unwrap().iter().map(|backup| backup.id).collect::<Vec<_>>(), made[..1]);
    assert_sound(&repository);
    let all = exported(&storage, &ExportOptions::default()).0;
    assert!(first.len() < all.len());
    let missing = BackupId::new([0; 32]);
    let locked = LockedRepository::open(storage, environment_at(1, NOW)).unwrap();
    let error = export(&locked, &ExportOptions::default().with_backups([missing]), &mut Vec::new(), &control(1));
    assert_eq!(error.unwrap_err().kind(), ErrorKind::NotFound);
}

/// The archives of the published repository are those of `tests/vectors/archives.json`.
#[test]
fn the_same_randomness_makes_the_same_bytes() {
    let storage = golden_storage();
    let made: Vec<Value> = Profile::ALL
        .into_iter()
        .map(|profile| {
            let options = ExportOptions::default().with_profile(profile);
            let (bytes, report) = exported(&storage, &options);
            assert!(bytes == exported(&storage, &options).0);
            assert!(all_objects(&bytes, &storage).len() > 8);
            let by_id = |id: &BackupId| {
                let is_it = |(_, bytes): &(Key, Bytes)| blake3::hash(bytes).to_string() == id.to_string();
                golden().into_iter().find(is_it).unwrap().0.to_string()
            };
            json!({
                "profile": profile.name(),
                "archive": report.archive,
                "outcomes": report.backups.iter().map(by_id).collect::<Vec<_>>(),
                "survives": report.survives,
                "length": bytes.len(),
                "blake3": blake3::hash(&bytes).to_string(),
            })
        })
        .collect();
    let text = serde_json::to_string_pretty(&made).unwrap() + "\n";
    let file = vectors("archives.json");
    if is_writing() {
        std::fs::write(&file, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}

/// Any burst that the profile promises, at every block and across their boundaries: repaired to the same bytes, and
/// every object is read without a repair.
#[test]
fn every_promised_burst_is_mended() {
    let (storage, _) = larger();
    for (profile, objects) in
        [(Profile::Default, golden_storage()), (Profile::Light, storage.clone()), (Profile::Strong, storage)]
    {
        let (bytes, report) = exported(&objects, &ExportOptions::default().with_profile(profile));
        let burst = usize::try_from(report.survives).unwrap().min(bytes.len());
        let step = if support::is_full_campaign() { BLOCK / 2 + 7 } else { BLOCK * 2 + 77 };
        for start in (0..bytes.len()).step_by(step) {
            let mut damaged = bytes.clone();
            let end = (start + burst).min(bytes.len());
            damaged[start..end].fill(0xa5);
            let state = checked(&damaged);
            assert!(!state.ok && state.complete, "{profile} {start}: {}", state.verdict);
            let (out, done) = repaired(&damaged);
            assert!(done.exact && out == bytes, "{profile} {start}: {}", done.found.verdict);
            all_objects(&damaged, &objects);
        }
    }
}

/// Bytes inserted, deleted, cut off and added, and other archives around: found again.
#[test]
fn what_was_moved_is_found() {
    let storage = golden_storage();
    let bytes = golden_archive();
    let other = exported(&storage, &ExportOptions::default().with_profile(Profile::Light)).0;
    let mut other_id = other[..BLOCK].to_vec();
    other_id[100] ^= 1;
    let middle = bytes.len() / 2 + 1234;
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("garbage in front", [&noise(1, 100_001), &bytes[..]].concat()),
        ("garbage behind", [&bytes[..], &noise(2, 70_000)].concat()),
        ("inserted", [&bytes[..middle], &noise(3, 4097), &bytes[middle..]].concat()),
        ("deleted", [&bytes[..middle], &bytes[middle + 5000..]].concat()),
        ("the beginning is missing", bytes[BLOCK * 2 + 9..].to_vec()),
        ("the end is missing", bytes[..bytes.len() - BLOCK * 2 - 9].to_vec()),
        ("one byte at the end is missing", bytes[..bytes.len() - 1].to_vec()),
        ("twice", [&bytes[..], &bytes[..]].concat()),
        ("a damaged block of another archive in front", [&other_id[..], &bytes[..]].concat()),
        ("a smaller part of another archive behind", [&bytes[..], &other[..BLOCK * 3]].concat()),
    ];
    for (name, damaged) in cases {
        let (out, done) = repaired(&damaged);
        assert!(out == bytes && done.exact, "{name}: {}", done.found.verdict);
        assert!(!done.found.ok || name == "twice", "{name}");
        all_objects(&damaged, &storage);
    }
}

/// Damage at random, from a little to far too much: nothing is ever wrong, and what is said to be lost is what is lost.
#[test]
fn random_damage_is_mended_or_named() {
    let (storage, _) = larger();
    let (bytes, _) = exported(&storage, &ExportOptions::default());
    let snapshot = storage.snapshot();
    let blocks = bytes.len() / BLOCK;
    let rounds = if support::is_full_campaign() { 400 } else { 40 };
    let (mut mended, mut lost) = (0, 0);
    for seed in 0..rounds {
        let mut damaged = bytes.clone();
        let choice = noise(1000 + seed, blocks * 2);
        let share = u8::try_from(seed % 40 * 4).unwrap();
        for block in 0..blocks {
            if choice[block] < share {
                let at = block * BLOCK + usize::from(choice[blocks + block]) * 250;
                damaged[at] ^= 0x10;
            }
        }
        let state = match check(source(&damaged), "file", &control(1)) {
            Ok(state) => state,
            Err(error) => panic!("{seed}: {error}"),
        };
        let archive = ArchiveStorage::open(source(&damaged), "file").unwrap();
        let mut gone = Vec::new();
        for object in list_all(&archive, "").unwrap() {
            match archive.get(&object.key, object.size) {
                Ok(bytes) => assert!(bytes == snapshot[&object.key], "{seed}: {} has other bytes", object.key),
                Err(StorageError::NotFound) => gone.push(object.key.to_string()),
                Err(error) => panic!("{seed}: {error}"),
            }
        }
        assert_eq!(gone, state.lost_objects, "{seed}: {}", state.verdict);
        let (out, done) = repaired(&damaged);
        assert_eq!(done.exact, out == bytes, "{seed}");
        assert_eq!(done.exact, state.hopeless_blocks == 0, "{seed}");
        if done.exact {
            mended += 1;
        } else {
            lost += 1;
            // A second repair finds what the first one could save, no more and no less.
            assert_eq!(checked(&out).lost_objects, state.lost_objects, "{seed}");
        }
    }
    assert!(mended > 3 && lost > 3, "{mended} mended, {lost} lost: the damage is not of all kinds");
}

#[test]
fn what_is_no_archive_is_told() {
    let bytes = golden_archive();
    for (name, other) in [
        ("nothing", vec![]),
        ("noise", noise(7, 300_000)),
        ("zeros", vec![0; 200_000]),
        ("short", bytes[..1000].to_vec()),
    ] {
        let error = ArchiveStorage::open(source(&other), "file").unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }) && error.to_string().contains("file"), "{name}: {error}");
    }
    let mut later = bytes;
    for block in later.chunks_mut(BLOCK) {
        block[8] = 2;
        let check = blake3::Hasher::new().update(&block[..48]).update(&block[64..]).finalize();
        block[48..64].copy_from_slice(&check.as_bytes()[..16]);
    }
    assert_eq!(ArchiveStorage::open(source(&later), "file").unwrap_err().kind(), ErrorKind::Unsupported);
}

/// Headers that claim anything, with a check that fits.
#[test]
fn hostile_headers_cost_nothing() {
    let bytes = golden_archive();
    let forged = |change: &dyn Fn(&mut [u8])| {
        let mut bytes = bytes.clone();
        for block in bytes.chunks_mut(BLOCK) {
            change(block);
            let check = blake3::Hasher::new().update(&block[..48]).update(&block[64..]).finalize();
            block[48..64].copy_from_slice(&check.as_bytes()[..16]);
        }
        bytes
    };
    for (field, value) in (9..12).flat_map(|field| [0u8, 1, 2, 128, 255].map(|value| (field, value))) {
        let forged = forged(&|block| block[field] = value);
        if let Ok(archive) = ArchiveStorage::open(source(&forged), "file") {
            for object in list_all(&archive, "").unwrap() {
                let _ = archive.get(&object.key, object.size);
            }
            check(source(&forged), "file", &control(1)).unwrap();
        }
    }
    for count in [0, 1, 1 << 21, 1 << 30, 1 << 40, u64::MAX] {
        let forged = forged(&|block| block[40..48].copy_from_slice(&u64::to_le_bytes(count)));
        if let Ok(archive) = ArchiveStorage::open(source(&forged), "file") {
            drop(list_all(&archive, "").unwrap());
        }
    }
    // Marks everywhere: each of them may be a block.
    let mut marks = bytes[..BLOCK].repeat(4);
    for at in (0..marks.len() - 64).step_by(64) {
        let head = bytes[..64].to_vec();
        marks[at..at + 64].copy_from_slice(&head);
    }
    assert_eq!(ArchiveStorage::open(source(&marks), "file").unwrap_err().kind(), ErrorKind::Damaged);
}

/// Writes until it is full.
struct Full {
    room: usize,
}

impl Write for Full {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if data.len() > self.room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.room -= data.len();
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_target_and_a_damaged_source_are_named() {
    let storage = golden_storage();
    let bytes = golden_archive();
    let locked = LockedRepository::open(storage.clone(), environment_at(1, NOW)).unwrap();
    for room in (0..bytes.len()).step_by(50_000) {
        let error = repair(source(&bytes), "file", &mut Full { room }, &control(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Sink);
        let error = export(&locked, &ExportOptions::default(), &mut Full { room }, &control(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Sink);
    }
    // Whatever is damaged or missing of what the backups need is not exported as if it were whole.
    for (key, original) in storage.snapshot() {
        if key.as_str().ends_with("/open") || key.as_str() == "config" || key.as_str().starts_with("key") {
            continue;
        }
        let mut changed = original.to_vec();
        changed[original.len() / 2] ^= 1;
        storage.put(&key, Bytes::from(changed), PutMode::Overwrite).unwrap();
        let outcome = LockedRepository::open(storage.clone(), environment_at(1, NOW))
            .and_then(|locked| export(&locked, &ExportOptions::default(), &mut io::sink(), &control(1)));
        if key.as_str().starts_with("sessions/") {
            // A commit that is damaged is no commit.
            assert_eq!(outcome.unwrap().backups.len(), 1, "{key}");
        } else {
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{key}: {error}");
            assert!(error.to_string().contains(key.as_str()), "{error}");
        }
        storage.put(&key, original, PutMode::Overwrite).unwrap();
    }
}

/// Without the table of contents every object is found by its own header.
#[test]
fn objects_are_found_without_the_table() {
    let (storage, _) = larger();
    let (bytes, _) = exported(&storage, &ExportOptions::default().with_profile(Profile::Light));
    let data = u64::from_le_bytes(bytes[40..48].try_into().unwrap());
    let parity = bytes.len() / BLOCK - usize::try_from(data).unwrap();
    let mut damaged = bytes.clone();
    // The last block of data, and all parity.
    let from = bytes.len() - (parity + 1) * BLOCK;
    damaged[from..].fill(0);
    let state = checked(&damaged);
    assert!(!state.has_table && !state.complete, "{}", state.verdict);
    let all = all_objects(&bytes, &storage);
    let archive = ArchiveStorage::open(source(&damaged), "file").unwrap();
    let found: BTreeSet<Key> = list_all(&archive, "").unwrap().into_iter().map(|object| object.key).collect();
    assert_eq!(found, all, "no header stood in that block alone");
    let gone: Vec<String> = found
        .iter()
        .filter(|key| archive.get(key, archive.stat(key).unwrap().size).is_err())
        .map(ToString::to_string)
        .collect();
    assert_eq!(gone, state.lost_objects);
    assert!(gone.len() <= 2 && gone.iter().all(|key| key.starts_with("packs/")), "{gone:?}");
    assert_eq!(describe_names(&open(Arc::new(archive), 3).unwrap()), describe_names(&open(storage, 3).unwrap()));
}

/// The backups and the names in them.
fn describe_names(repository: &Repository) -> Vec<String> {
    let backups = repository.backups().unwrap();
    let entries = backups.iter().flat_map(|backup| repository.entries(backup).unwrap());
    entries.map(|entry| entry.unwrap().path.to_string()).collect()
}

#[test]
fn an_archive_is_a_storage_that_cannot_be_written() {
    let archive = ArchiveStorage::open(source(&golden_archive()), "file").unwrap();
    let key: Key = "config".parse().unwrap();
    assert!(archive.capabilities().read_only);
    assert!(matches!(archive.put(&key, Bytes::new(), PutMode::Overwrite), Err(StorageError::ReadOnly)));
    assert!(matches!(archive.delete(&key), Err(StorageError::ReadOnly)));
    let size = archive.stat(&key).unwrap().size;
    assert!(matches!(archive.get(&key, size - 1), Err(StorageError::TooLarge { .. })));
    assert!(matches!(archive.get_range(&key, 0..size + 1), Err(StorageError::OutOfRange { .. })));
    assert!(archive.get_range(&key, size..size).unwrap().is_empty());
    assert!(matches!(archive.get(&"absent".parse().unwrap(), 9), Err(StorageError::NotFound)));
}
