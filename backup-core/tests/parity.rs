//! Parity in repositories: any one object of a group comes back to the byte, damaged or missing; what cannot is named; and
//! nothing that was removed on purpose comes back.

mod support;

use std::sync::Arc;

use backup_core::maintenance::CollectOptions;
use backup_core::parity::{ProtectReport, ScrubOptions, ScrubReport, protect, scrub};
use backup_core::repository::LockedRepository;
use backup_core::storage::fault::{Fault, FaultStorage};
use backup_core::storage::{Key, MemoryStorage, PutMode, Storage};
use bytes::Bytes;
use support::tree::{Node, Tree};
use support::vectors::NOW;
use support::{assert_sound, control, environment_at, init_with, memory, noise, open, options, path, small_options};

fn repository() -> Arc<MemoryStorage> {
    let storage = memory();
    init_with(storage.clone(), &small_options(), 1).unwrap();
    for seed in 0..2u64 {
        let repository = open(storage.clone(), 2 + seed).unwrap();
        let mut session = repository.begin(options(1)).unwrap();
        let nodes = (0..6).map(|n| Node::file(&format!("file-{n}"), noise(n * (seed + 1), 150_000))).collect();
        session.add_tree(&mut Tree::new(nodes)).unwrap();
        session.commit().unwrap();
    }
    storage
}

fn run(storage: &Arc<MemoryStorage>, options: &ScrubOptions) -> ScrubReport {
    let locked = LockedRepository::open(storage.clone(), environment_at(7, NOW)).unwrap();
    scrub(&locked, options, &control(2)).unwrap()
}

fn protected() -> Arc<MemoryStorage> {
    let storage = repository();
    let report = run(&storage, &ScrubOptions::default().with_add_parity(true));
    assert!(report.ok && report.unprotected == 0 && report.parity_added == 1, "{report:?}");
    storage
}

/// Objects whose loss a scrub mends.
fn is_mended(key: &Key) -> bool {
    let first = key.as_str().split('/').next().unwrap();
    ["keyring", "packs", "index", "bodies", "closures"].contains(&first) || key.as_str().ends_with("/outcome")
}

#[test]
fn every_object_comes_back_damaged_or_missing() {
    let storage = protected();
    let whole = storage.snapshot();
    let mut count = 0;
    for (key, bytes) in whole.iter().filter(|(key, _)| is_mended(key)) {
        count += 1;
        let mut flipped = bytes.to_vec();
        flipped[bytes.len() / 3] ^= 4;
        let longer = [&bytes[..], b"more"].concat();
        let zeros = vec![0; bytes.len()];
        let cases = [
            ("missing", None),
            ("flipped", Some(flipped)),
            ("shorter", Some(bytes[..bytes.len() - 1].to_vec())),
            ("longer", Some(longer)),
            ("empty", Some(Vec::new())),
            ("zeros", Some(zeros)),
        ];
        for (name, content) in cases {
            storage.delete(key).unwrap();
            if let Some(content) = content {
                storage.put(key, Bytes::from(content), PutMode::Create).unwrap();
            }
            let before = storage.snapshot();
            let dry = run(&storage, &ScrubOptions::default().with_dry_run(true));
            assert!(!dry.ok && dry.unrepaired == 0, "{key} {name}: {dry:?}");
            assert!(storage.snapshot() == before, "a dry run changes nothing");
            let report = run(&storage, &ScrubOptions::default());
            assert!(report.ok && report.repaired == 1, "{key} {name}: {report:?}");
            assert_eq!(report.findings[0].object, key.as_str());
            assert!(storage.snapshot() == whole, "{key} {name}");
        }
    }
    assert!(count > 20, "{count} objects");
    assert_sound(&open(storage, 9).unwrap());
}

/// Single blocks of many objects, and then too much.
#[test]
fn scattered_damage_is_mended_and_too_much_is_named() {
    let storage = protected();
    let whole = storage.snapshot();
    let packs: Vec<&Key> = whole.keys().filter(|key| key.as_str().starts_with("packs/")).collect();
    for key in packs.iter().step_by(3) {
        let mut bytes = whole[*key].to_vec();
        bytes[100] ^= 1;
        storage.put(key, Bytes::from(bytes), PutMode::Overwrite).unwrap();
    }
    let report = run(&storage, &ScrubOptions::default());
    let expected = u64::try_from(packs.len().div_ceil(3)).unwrap();
    if expected <= 8 {
        assert!(report.ok && report.repaired == expected, "{report:?}");
        assert!(storage.snapshot() == whole);
    }
    for key in &packs {
        storage.delete(key).unwrap();
    }
    let report = run(&storage, &ScrubOptions::default());
    assert!(!report.ok && report.repaired == 0, "{report:?}");
    let mut named: Vec<&str> = report.findings.iter().map(|finding| finding.object.as_str()).collect();
    named.sort_unstable();
    assert_eq!(named, packs.iter().map(|key| key.as_str()).collect::<Vec<_>>());
    // The parity stays while something may still come back with it.
    run(&storage, &ScrubOptions::default().with_add_parity(true));
    for key in packs.iter().skip(1) {
        storage.put(key, whole[*key].clone(), PutMode::Create).unwrap();
    }
    let report = run(&storage, &ScrubOptions::default());
    assert!(report.ok && report.repaired == 1, "{report:?}");
}

#[test]
fn lost_parity_is_no_damage_and_is_made_again() {
    let storage = protected();
    let key = storage.snapshot().into_keys().find(|key| key.as_str().starts_with("parity/")).unwrap();
    let original = storage.get(&key, u64::MAX).unwrap();
    let mut bytes = original.to_vec();
    bytes[5000] ^= 1;
    storage.put(&key, Bytes::from(bytes), PutMode::Overwrite).unwrap();
    let report = run(&storage, &ScrubOptions::default());
    assert!(report.ok && report.parity_damaged == 1 && report.protected == 0, "{report:?}");
    let report = run(&storage, &ScrubOptions::default().with_add_parity(true));
    assert!(report.ok && report.unprotected == 0, "{report:?}");
    assert!(storage.get(&key, u64::MAX).unwrap() == original, "the damaged one is replaced, not removed");
    storage.delete(&key).unwrap();
    assert!(run(&storage, &ScrubOptions::default()).ok);
    run(&storage, &ScrubOptions::default().with_add_parity(true));
    assert!(storage.get(&key, u64::MAX).unwrap() == original, "the same objects have the same parity");
}

/// What is new is protected by parity of its own; a group that lost members for good is replaced.
#[test]
fn parity_follows_the_repository() {
    let storage = protected();
    let repository = open(storage.clone(), 20).unwrap();
    let mut session = repository.begin(options(1)).unwrap();
    session.add_stream(path("new"), &mut &noise(99, 100_000)[..]).unwrap();
    session.commit().unwrap();
    assert!(run(&storage, &ScrubOptions::default()).unprotected > 0);
    let report = run(&storage, &ScrubOptions::default().with_add_parity(true));
    assert_eq!((report.unprotected, report.parity_added, report.parity_objects), (0, 1, 2));
    // An orphan is protected and then removed.
    let orphan = Bytes::from(noise(5, 70_000));
    let name = blake3::hash(&orphan).to_string();
    let key = Key::new(format!("packs/{}/{name}", &name[..2])).unwrap();
    storage.put(&key, orphan, PutMode::Create).unwrap();
    assert_eq!(run(&storage, &ScrubOptions::default().with_add_parity(true)).parity_objects, 3);
    storage.delete(&key).unwrap();
    let report = run(&storage, &ScrubOptions::default().with_add_parity(true));
    assert!(report.ok, "nobody needs it: {report:?}");
    assert_eq!((report.parity_removed, report.parity_objects), (1, 2));
    assert!(storage.stat(&key).is_err(), "it does not come back");
}

/// It has the commits of all backups, and stands in no list that anything else has.
#[test]
fn the_final_of_a_collection_comes_back() {
    let storage = repository();
    let repository = open(storage.clone(), 30).unwrap();
    let first = repository.backups().unwrap()[0].id;
    repository.forget(&[first], &control(1)).unwrap();
    repository.collect(&CollectOptions::default(), &control(1)).unwrap();
    assert!(run(&storage, &ScrubOptions::default().with_add_parity(true)).ok);
    let whole = storage.snapshot();
    let key = Key::new("collections/00000001/outcome").unwrap();
    storage.delete(&key).unwrap();
    assert!(open(storage.clone(), 31).unwrap().backups().unwrap().is_empty());
    let report = run(&storage, &ScrubOptions::default().with_add_parity(true));
    assert!(report.ok, "{report:?}");
    assert!(storage.snapshot() == whole, "the storage is as it was");
    assert_sound(&open(storage, 32).unwrap());
}

#[test]
fn removed_key_slots_stay_removed() {
    let storage = repository();
    let repository = open(storage.clone(), 30).unwrap();
    let (added, _) = repository.add_recovery_key("second").unwrap();
    run(&storage, &ScrubOptions::default().with_add_parity(true));
    repository.remove_slot(&added).unwrap();
    let report = run(&storage, &ScrubOptions::default());
    assert!(report.ok && report.repaired == 0);
    let slots = storage.snapshot().into_keys().filter(|key| key.as_str().starts_with("keys/")).count();
    assert_eq!(slots, 1);
    for (key, bytes) in storage.snapshot().iter().filter(|(key, _)| key.as_str().starts_with("parity/")) {
        assert!(!bytes.windows(5).any(|window| window == b"keys/"), "{key} protects a key slot");
    }
}

/// Parity that somebody made of objects that this repository does not have brings nothing in.
#[test]
fn forged_parity_brings_nothing_in() {
    let storage = protected();
    let other = memory();
    init_with(other.clone(), &small_options(), 77).unwrap();
    let mut session = open(other.clone(), 78).unwrap().begin(options(1)).unwrap();
    session.add_stream(path("foreign"), &mut &noise(3, 100_000)[..]).unwrap();
    session.commit().unwrap();
    run(&other, &ScrubOptions::default().with_add_parity(true));
    for (key, bytes) in other.snapshot().into_iter().filter(|(key, _)| key.as_str().starts_with("parity/")) {
        storage.put(&key, bytes, PutMode::Create).unwrap();
    }
    let before = storage.snapshot();
    let report = run(&storage, &ScrubOptions::default());
    assert_eq!(report.repaired, 0, "{report:?}");
    assert!(storage.snapshot() == before);
    assert_sound(&open(storage, 9).unwrap());
}

/// A scrub that fails at any operation has lost nothing, and the next one ends the work.
#[test]
fn a_scrub_can_stop_anywhere() {
    let storage = protected();
    let whole = storage.snapshot();
    let keys: Vec<&Key> = whole.keys().filter(|key| is_mended(key)).collect();
    let damaged = Arc::new(MemoryStorage::from_objects(whole.clone()));
    damaged.delete(keys[1]).unwrap();
    damaged.put(keys[2], Bytes::from_static(b"x"), PutMode::Overwrite).unwrap();
    let damaged = damaged.snapshot();
    let mut stopped = 0;
    for number in 0.. {
        for fault in [Fault::FailBefore, Fault::FailAfter, Fault::CrashBefore, Fault::CrashAfter] {
            let inner = Arc::new(MemoryStorage::from_objects(damaged.clone()));
            let faulty = Arc::new(FaultStorage::crash_at_change(inner.clone(), number, fault));
            let outcome = LockedRepository::open(faulty, environment_at(7, NOW))
                .and_then(|locked| scrub(&locked, &ScrubOptions::default(), &control(1)));
            stopped += u32::from(!outcome.is_ok_and(|report| report.ok));
            let next = run(&inner, &ScrubOptions::default());
            assert!(next.ok, "{number} {fault:?}: {next:?}");
            assert!(inner.snapshot() == whole, "{number} {fault:?}");
        }
        if number > 3 {
            break;
        }
    }
    assert!(stopped >= 8, "two repairs, four faults each: {stopped}");
}

fn protect_in(storage: Arc<dyn Storage>) -> ProtectReport {
    let locked = LockedRepository::open(storage, environment_at(8, NOW)).unwrap();
    protect(&locked, &control(2)).unwrap()
}

fn add_backup(storage: &Arc<MemoryStorage>, seed: u64) {
    let repository = open(storage.clone(), 40 + seed).unwrap();
    let mut session = repository.begin(options(1)).unwrap();
    session.add_stream(path("new"), &mut &noise(seed, 300_000)[..]).unwrap();
    session.commit().unwrap();
}

/// The same as a scrub makes, of what has none; each object that is then lost comes back.
#[test]
fn what_is_new_is_protected_without_reading_the_rest() {
    let storage = repository();
    let report = protect_in(storage.clone());
    assert!(report.parity_added == 1 && report.protected > 5 && report.damaged.is_empty(), "{report:?}");
    let of_scrub = repository();
    run(&of_scrub, &ScrubOptions::default().with_add_parity(true));
    assert!(storage.snapshot() == of_scrub.snapshot(), "the same parity");

    let before = storage.snapshot();
    add_backup(&storage, 50);
    let faults = Arc::new(FaultStorage::new(storage.as_ref().clone()));
    let report = protect_in(faults.clone());
    let after = faults.inner().snapshot();
    let is_new = |key: &Key| !before.contains_key(key) && !key.as_str().starts_with("parity/");
    let new = after.keys().filter(|key| is_new(key) && is_mended(key)).count() as u64;
    assert_eq!((report.parity_added, report.protected), (1, new), "{report:?}");
    let packs: Vec<String> =
        faults.log().into_iter().map(|operation| operation.key).filter(|key| key.starts_with("packs/")).collect();
    assert!(!packs.is_empty());
    for key in packs {
        assert!(!before.contains_key(&Key::new(key.clone()).unwrap()), "{key} has parity and was read");
    }
    // Nothing is left to do, and every new object comes back.
    assert_eq!(protect_in(faults.clone()), ProtectReport::default());
    for key in after.keys().filter(|key| is_new(key) && is_mended(key)) {
        let storage = Arc::new(faults.inner().clone());
        storage.delete(key).unwrap();
        let report = run(&storage, &ScrubOptions::default());
        assert!(report.ok && report.repaired == 1, "{key}: {report:?}");
        assert!(storage.snapshot() == after, "{key}");
    }
}

#[test]
fn what_is_damaged_already_is_named_and_keeps_nothing_else_from_being_protected() {
    let storage = repository();
    let snapshot = storage.snapshot();
    let pack = snapshot.keys().filter(|key| key.as_str().starts_with("packs/")).nth(1).unwrap();
    let mut bytes = snapshot[pack].to_vec();
    bytes[1000] ^= 1;
    storage.put(pack, Bytes::from(bytes), PutMode::Overwrite).unwrap();
    let report = protect_in(storage.clone());
    assert_eq!(report.damaged, [pack.to_string()]);
    assert_eq!(report.parity_added, 1, "{report:?}");
    let other = snapshot.keys().find(|key| key.as_str().starts_with("packs/") && *key != pack).unwrap();
    storage.delete(other).unwrap();
    let report = run(&storage, &ScrubOptions::default());
    assert_eq!((report.repaired, report.unrepaired), (1, 1), "{report:?}");
    assert!(storage.get(other, u64::MAX).unwrap() == snapshot[other]);
}

/// A parity object that is cut, or says nothing that can be read, protects nothing.
#[test]
fn parity_that_cannot_be_read_protects_nothing() {
    let storage = protected();
    let key = storage.snapshot().into_keys().find(|key| key.as_str().starts_with("parity/")).unwrap();
    let original = storage.get(&key, u64::MAX).unwrap();
    for length in [0, 20, 100, original.len() - 1] {
        let cut = original.slice(..length);
        storage.put(&key, cut, PutMode::Overwrite).unwrap();
        let report = protect_in(storage.clone());
        assert!(report.protected > 5, "{length}: {report:?}");
        assert!(storage.get(&key, u64::MAX).unwrap() == original, "{length}: the same objects have the same parity");
    }
}
