//! Copies without the password: to every kind of place, interrupted everywhere, beside other writers and collections.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backup_core::copy::{CopyMethod, CopyOptions, CopyReceipt, CopyStatus};
use backup_core::id::{BackupId, ObjectName};
use backup_core::keys::Credential;
use backup_core::maintenance::{CollectOptions, CollectionState};
use backup_core::progress::Event;
use backup_core::repository::{
    Backup, BackupOptions, Environment, LockedRepository, Repository, VerifyLevel, VerifyOptions,
};
use backup_core::secret::Password;
use backup_core::storage::fault::{Fault, FaultStorage};
use backup_core::storage::{Key, MemoryStorage, PutMode, Storage, list_all};
use backup_core::{Error, ErrorKind, testing};
use bytes::Bytes;
use support::faults::faults_of;
use support::forger::{get, keys_of, overwrite};
use support::{
    PASSWORD, assert_sound, chain, control, environment, init_with, memory, noise, open, options, path, small_options,
};

const LENGTH: usize = 200_000;

/// Later backups share most chunks with earlier ones, so that they need packs that other sessions' segments name.
fn data(number: u64) -> Vec<u8> {
    let mut data = noise(1, LENGTH);
    data.extend(noise(100 + number, 60_000));
    data
}

fn back_up_with(repository: &Repository, options: BackupOptions, number: u64) -> Backup {
    let mut session = repository.begin(options).unwrap();
    session.add_stream(path("data"), &mut data(number).as_slice()).unwrap();
    session.commit().unwrap()
}

fn back_up(repository: &Repository, number: u64) -> Backup {
    back_up_with(repository, options(1), number)
}

/// A repository with backups 0, 1 and 2.
fn source() -> (Arc<MemoryStorage>, Repository, Vec<BackupId>) {
    let storage = memory();
    let repository = init_with(storage.clone(), &small_options(), 1).unwrap();
    let ids = (0..3).map(|number| back_up(&repository, number).id).collect();
    (storage, repository, ids)
}

/// Copiers at the same time have randomness of their own.
fn unlike_others() -> Environment {
    static SEED: AtomicU64 = AtomicU64::new(1000);
    environment(SEED.fetch_add(1, Ordering::Relaxed))
}

fn locked(storage: Arc<dyn Storage>) -> LockedRepository {
    LockedRepository::open(storage, unlike_others()).unwrap()
}

fn copy(from: Arc<dyn Storage>, to: &Arc<MemoryStorage>, options: &CopyOptions) -> backup_core::Result<CopyReceipt> {
    let to: Arc<dyn Storage> = to.clone();
    LockedRepository::open(from, unlike_others())?.copy_to(&to, options, &control(2))
}

fn copy_all(from: &Arc<MemoryStorage>, to: &Arc<MemoryStorage>) -> CopyReceipt {
    copy(from.clone(), to, &CopyOptions::default()).unwrap()
}

fn statuses(receipt: &CopyReceipt) -> Vec<CopyStatus> {
    receipt.backups.iter().map(|backup| backup.status).collect()
}

/// Restores a backup of the storage and compares it with what it must hold.
fn check_restore(storage: &Arc<MemoryStorage>, id: BackupId, number: u64) {
    let repository = open(storage.clone(), 9).unwrap();
    let backup = repository.find_backup(&id.to_string()).unwrap();
    let mut out = Vec::new();
    let entry = repository.entry(&backup, &path("data")).unwrap();
    repository.restore_stream(&entry, &mut out, &control(2)).unwrap();
    assert!(out == data(number), "backup {number} differs");
}

/// The content level where the history is that of some backups only.
fn assert_sound_part(storage: &Arc<MemoryStorage>) {
    let repository = open(storage.clone(), 9).unwrap();
    let options = VerifyOptions::new(VerifyLevel::Content).with_partial_history(true);
    let report = repository.verify(&options, None, &control(2)).unwrap();
    assert!(report.ok, "{:#?}", report.findings);
}

/// Everything but session marks, whose content is for people.
fn lasting(storage: &MemoryStorage) -> BTreeMap<Key, Bytes> {
    let mut objects = storage.snapshot();
    objects.retain(|key, _| !key.as_str().ends_with("/open"));
    objects
}

fn names(storage: &MemoryStorage, prefix: &str) -> Vec<ObjectName> {
    keys_of(storage, prefix).iter().map(|key| key.as_str().rsplit('/').next().unwrap().parse().unwrap()).collect()
}

fn place(text: &str) -> Key {
    text.parse().unwrap()
}

fn put(storage: &MemoryStorage, (key, bytes): (Key, Vec<u8>)) {
    storage.put(&key, bytes.into(), PutMode::Create).unwrap();
}

fn reasons(receipt: &CopyReceipt) -> String {
    receipt.backups.iter().filter_map(|backup| backup.reason.clone()).collect::<Vec<_>>().join("\n")
}

#[test]
fn an_empty_place_becomes_the_same_repository() {
    let (from, _, ids) = source();
    let to = memory();
    let receipt = copy_all(&from, &to);
    assert!(receipt.ok, "{receipt:#?}");
    assert_eq!(statuses(&receipt), [CopyStatus::Copied; 3]);
    assert_eq!(receipt.backups.iter().map(|backup| backup.id).collect::<Vec<_>>(), ids);
    assert_eq!(receipt.backups.iter().filter_map(|backup| backup.copy).collect::<Vec<_>>(), ids);
    assert!(receipt.problems.is_empty() && receipt.verification.as_ref().is_some_and(|report| report.ok));
    assert_eq!(lasting(&from), lasting(&to), "the same objects");
    let named: u64 = ["packs/", "index/", "bodies/", "closures/"]
        .iter()
        .flat_map(|prefix| list_all(&*to, prefix).unwrap())
        .map(|object| object.size)
        .sum();
    assert_eq!(receipt.bytes_copied, named);
    assert_eq!(receipt.bytes_found, 0);
    assert_sound(&open(to.clone(), 9).unwrap());
    for (number, id) in (0..).zip(ids) {
        check_restore(&to, id, number);
    }
}

#[test]
fn a_copy_is_continued_and_finds_what_is_there() {
    let (from, repository, mut ids) = source();
    let to = memory();
    assert!(copy_all(&from, &to).ok);
    let before = lasting(&to);
    let again = copy_all(&from, &to);
    assert!(again.ok && again.objects_copied == 0 && again.verification.is_none(), "{again:#?}");
    assert_eq!(statuses(&again), [CopyStatus::Found; 3]);
    assert_eq!(lasting(&to), before);

    ids.push(back_up(&repository, 3).id);
    let more = copy_all(&from, &to);
    assert!(more.ok);
    assert_eq!(statuses(&more)[3], CopyStatus::Copied);
    assert!(more.bytes_copied < more.bytes_found, "{more:#?}");
    assert_eq!(lasting(&from), lasting(&to));
    check_restore(&to, ids[3], 3);
}

#[test]
fn a_single_backup_is_readable_although_others_indexes_name_its_packs() {
    let (from, _, ids) = source();
    for (number, id) in (0..).zip(&ids) {
        let to = memory();
        let options = CopyOptions::default().with_backups(vec![*id]);
        let receipt = copy(from.clone(), &to, &options).unwrap();
        assert!(receipt.ok, "{receipt:#?}");
        assert_eq!(receipt.backups.len(), 1);
        assert!(keys_of(&to, "packs/").len() < keys_of(&from, "packs/").len(), "only what it needs");
        check_restore(&to, *id, number);
        assert_sound_part(&to);
        // The other backups are not there, and whoever asks whether history is whole is told so.
        let report = locked(to.clone()).verify(&VerifyOptions::new(VerifyLevel::Bytes), &control(1)).unwrap();
        assert_eq!(report.ok, number == 0, "{report:#?}");
        let options = VerifyOptions::new(VerifyLevel::Bytes).with_partial_history(true);
        assert!(locked(to.clone()).verify(&options, &control(1)).unwrap().ok);

        // A writer finds everything through the segments that came along, and names it in its own.
        let repository = open(to.clone(), 10).unwrap();
        let next = back_up(&repository, number);
        assert_eq!(next.statistics.bytes_new, 0);
        // So all of it is found without those that came along.
        for key in keys_of(&from, "index/") {
            to.delete(&key).unwrap();
        }
        check_restore(&to, next.id, number);
    }
}

/// Segments that came along are hints: damaged, or gone, directories of packs take their place.
#[test]
fn a_damaged_stray_segment_is_harmless_and_reported() {
    let (from, _, ids) = source();
    for gone in [false, true] {
        let to = memory();
        let receipt = copy(from.clone(), &to, &CopyOptions::default().with_backups(vec![ids[2]])).unwrap();
        assert!(receipt.ok);
        let mut reported = 0;
        for key in keys_of(&from, "index/") {
            let bytes = get(&to, &key);
            if gone {
                to.delete(&key).unwrap();
            } else {
                let mut bad = bytes.clone();
                let middle = bad.len() / 2;
                bad[middle] ^= 1;
                overwrite(&to, &key, bad);
            }
            let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
            let observer = {
                let seen = Arc::clone(&seen);
                move |event: &Event<'_>| {
                    if let Event::Problem { name, .. } = event {
                        seen.lock().unwrap().push((*name).to_owned());
                    }
                }
            };
            let watched = control(1).with_observer(Arc::new(observer));
            let repository = open(to.clone(), 9).unwrap();
            let backup = repository.find_backup(&ids[2].to_string()).unwrap();
            let entry = repository.entry(&backup, &path("data")).unwrap();
            let mut out = Vec::new();
            repository.restore_stream(&entry, &mut out, &watched).unwrap();
            assert!(out == data(2));
            let options = VerifyOptions::new(VerifyLevel::Content).with_partial_history(true);
            let report = repository.verify(&options, None, &watched).unwrap();
            // That of its own session is named by the commit, so it is missed.
            let is_named = report.findings.iter().any(|finding| finding.object == key.as_str());
            assert_eq!(report.ok, !is_named, "{report:#?}");
            if !gone {
                assert!(seen.lock().unwrap().contains(&key.to_string()), "{key} is not reported");
            }
            reported += usize::from(is_named);
            overwrite(&to, &key, bytes);
        }
        assert_eq!(reported, 1);
    }
}

#[test]
fn a_crash_at_any_operation_of_either_side_loses_nothing_and_the_copy_is_continued() {
    let (from, _, ids) = source();
    let whole = memory();
    copy_all(&from, &whole);
    let expected = lasting(&whole);
    let logged = |fault_at_source: bool| {
        let storage = Arc::new(FaultStorage::new((*if fault_at_source { from.clone() } else { memory() }).clone()));
        let other: Arc<dyn Storage> = storage.clone();
        let (a, b): (Arc<dyn Storage>, Arc<dyn Storage>) =
            if fault_at_source { (other, memory()) } else { (from.clone(), other) };
        locked(a).copy_to(&b, &CopyOptions::default(), &control(1)).unwrap();
        storage.log()
    };
    let mut crashes = 0;
    for operation in logged(false) {
        for fault in faults_of(&operation) {
            let what = format!("{fault:?} at {} {:?} {}", operation.number, operation.kind, operation.key);
            let storage = Arc::new(FaultStorage::at(MemoryStorage::new(), operation.number, fault));
            let to: Arc<dyn Storage> = storage.clone();
            let result = locked(from.clone()).copy_to(&to, &CopyOptions::default(), &control(1));
            let acknowledged = match &result {
                Ok(receipt) => receipt.backups.iter().filter(|backup| backup.copy.is_some()).map(|b| b.id).collect(),
                Err(error) => {
                    let text = chain(error);
                    // Probes are of random names, and to the dead everything fails that they try next.
                    let is_dead = !matches!(fault, Fault::FailBefore | Fault::FailAfter);
                    let names_it = operation.key.starts_with("probes/")
                        || is_dead
                        || text.contains(&operation.key)
                        || error.kind() == ErrorKind::UnknownOutcome;
                    assert!(names_it, "{what}: {text}");
                    Vec::new()
                }
            };
            drop(to);
            let survivors = Arc::new(Arc::into_inner(storage).unwrap().into_inner());
            // Whatever is visible is whole.
            if survivors.get(&"config".parse().unwrap(), 1 << 20).is_ok() {
                let report = locked(survivors.clone()).verify(&VerifyOptions::new(VerifyLevel::Bytes), &control(1));
                let report = report.unwrap();
                assert!(report.ok, "{what}: {report:#?}");
                let visible = locked(survivors.clone()).commits().unwrap();
                for id in &acknowledged {
                    assert!(visible.iter().any(|commit| commit.id == *id), "{what}: {id} was acknowledged");
                }
            } else {
                assert!(acknowledged.is_empty(), "{what}");
            }
            let receipt = copy_all(&from, &survivors);
            assert!(receipt.ok, "{what}: {receipt:#?}");
            let mut found = lasting(&survivors);
            found.retain(|key, _| !key.as_str().starts_with("probes/"));
            assert_eq!(found, expected, "{what}");
            crashes += 1;
        }
    }
    for operation in logged(true) {
        for fault in [Fault::FailBefore, Fault::CrashBefore] {
            let what = format!("{fault:?} at {} {:?} {}", operation.number, operation.kind, operation.key);
            let storage: Arc<dyn Storage> = Arc::new(FaultStorage::at((*from).clone(), operation.number, fault));
            let to = memory();
            match copy(storage, &to, &CopyOptions::default()) {
                Ok(receipt) => assert!(!receipt.ok, "{what}: {receipt:#?}"),
                Err(error) => {
                    // To the dead everything fails, and another thread may be the first to say so.
                    let text = chain(&error);
                    let is_dead = fault == Fault::CrashBefore && text.contains("the process is dead");
                    assert!(is_dead || text.contains(&operation.key), "{what}: {text}");
                }
            }
            let receipt = copy_all(&from, &to);
            assert!(receipt.ok, "{what}: {receipt:#?}");
            assert_eq!(lasting(&to), expected, "{what}");
            crashes += 1;
        }
    }
    assert!(crashes > 200, "{crashes}");
    check_restore(&whole, ids[0], 0);
}

#[test]
fn a_copy_that_is_stopped_is_cancelled_and_continued() {
    let (from, _, _) = source();
    for stop_at in 0..60 {
        let cancel = backup_core::progress::CancelToken::new();
        let storage = {
            let (cancel, mut count) = (cancel.clone(), 0);
            Arc::new(FaultStorage::with_script(MemoryStorage::new(), move |_| {
                count += 1;
                if count == stop_at {
                    cancel.cancel();
                }
                Fault::None
            }))
        };
        let to: Arc<dyn Storage> = storage.clone();
        let control = control(1).with_cancel(cancel.clone());
        match locked(from.clone()).copy_to(&to, &CopyOptions::default(), &control) {
            Err(Error::Cancelled) => {}
            Ok(receipt) => assert!(receipt.ok),
            Err(error) => panic!("{stop_at}: {error}"),
        }
        drop(to);
        let to = Arc::new(Arc::into_inner(storage).unwrap().into_inner());
        assert!(copy_all(&from, &to).ok, "{stop_at}");
        assert_sound(&open(to, 9).unwrap());
    }
}

/// Every object of the source, damaged in turn: what needs it is refused by name, the rest is copied.
#[test]
fn damage_at_the_source_is_named_and_never_copied_as_good() {
    let (from, _, ids) = source();
    for (at, bytes) in from.snapshot() {
        let key = at.as_str();
        if !["packs/", "bodies/", "closures/", "index/"].iter().any(|prefix| key.starts_with(prefix)) {
            continue;
        }
        for manner in 0..3 {
            let broken = Arc::new((*from).clone());
            let mut bad = bytes.to_vec();
            match manner {
                0 => bad[bytes.len() / 2] ^= 0x10,
                1 => bad.truncate(bytes.len() - 1),
                _ => bad.clear(),
            }
            match manner {
                2 => broken.delete(&at).unwrap(),
                _ => overwrite(&broken, &at, bad),
            }
            let to = memory();
            let receipt = copy_all(&broken, &to);
            assert!(!receipt.ok, "{key}");
            assert!(to.get(&at, 1 << 30).is_err(), "{key} was copied");
            let failed: Vec<BackupId> = receipt
                .backups
                .iter()
                .filter(|backup| backup.status == CopyStatus::Failed)
                .map(|backup| backup.id)
                .collect();
            assert!(!failed.is_empty());
            assert!(reasons(&receipt).contains(key), "{key}: {}", reasons(&receipt));
            for (number, id) in (0..).zip(&ids).filter(|(_, id)| !failed.contains(id)) {
                check_restore(&to, *id, number);
            }
            assert_eq!(locked(to.clone()).commits().unwrap().len(), ids.len() - failed.len(), "{key}");
            assert_sound_part(&to);
            // Mended, the copy is completed.
            let receipt = copy_all(&from, &to);
            assert!(receipt.ok, "{key}: {receipt:#?}");
            assert_eq!(lasting(&to), lasting(&from), "{key}");
        }
    }
}

/// Nothing is replaced, and nothing that is wrong is taken for what it should be.
#[test]
fn damage_at_the_destination_is_named() {
    let (from, _, _) = source();
    let to = memory();
    assert!(copy_all(&from, &to).ok);
    for (at, bytes) in to.snapshot() {
        let key = at.as_str();
        if !["packs/", "bodies/", "closures/", "index/"].iter().any(|prefix| key.starts_with(prefix)) {
            continue;
        }
        let mut bad = bytes.to_vec();
        bad[bytes.len() / 2] ^= 1;
        overwrite(&to, &at, bad.clone());
        let receipt = copy(from.clone(), &to, &CopyOptions::default().with_check_existing(true)).unwrap();
        assert!(!receipt.ok && reasons(&receipt).contains(&format!("{key} at the destination")), "{receipt:#?}");
        bad.pop();
        overwrite(&to, &at, bad);
        let receipt = copy_all(&from, &to);
        assert!(!receipt.ok && reasons(&receipt).contains(&format!("{key} at the destination")), "{receipt:#?}");
        to.delete(&at).unwrap();
        let receipt = copy_all(&from, &to);
        assert!(receipt.ok && receipt.objects_copied == 1, "{key}: what was lost is added: {receipt:#?}");
        assert_eq!(get(&to, &at), bytes.to_vec());
    }
}

#[test]
fn another_repository_is_left_alone() {
    let (from, _, _) = source();
    let to = memory();
    init_with(to.clone(), &small_options(), 99).unwrap();
    let before = to.snapshot();
    let error = copy(from.clone(), &to, &CopyOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(to.snapshot(), before);
    // A repository that lost its config is no empty place.
    to.delete(&"config".parse().unwrap()).unwrap();
    overwrite(&to, &place(&format!("packs/ab/{}", "ab".repeat(32))), b"x".to_vec());
    let before = to.snapshot();
    let error = copy(from, &to, &CopyOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert_eq!(to.snapshot(), before);
}

#[test]
fn keyrings_and_slots_travel_and_are_never_replaced() {
    let (from, repository, _) = source();
    let to = memory();
    assert!(copy_all(&from, &to).ok);
    // A new password and root key at the source.
    let password = Password::from("another");
    let parameters = backup_core::crypto::Argon2Parameters::minimum_for_tests();
    repository.add_password(&Credential::from(&password), "second", parameters).unwrap();
    repository.rotate_root_key().unwrap();
    let repository = open(from.clone(), 3).unwrap();
    let id = back_up(&repository, 5).id;
    assert!(copy_all(&from, &to).ok);
    check_restore(&to, id, 5);
    Repository::open(to.clone(), &Credential::from(&password), environment(4)).unwrap();
    // Slots that are tried are not crowded out.
    for number in 0..8 {
        let password = Password::from(format!("password {number}").as_str());
        let other = open(to.clone(), 20 + number).unwrap();
        if other.key_slots().unwrap().len() < 8 {
            other.add_password(&Credential::from(&password), "", parameters).unwrap();
        }
    }
    let password = Password::from("third");
    let slot = repository.add_password(&Credential::from(&password), "third", parameters).unwrap();
    let receipt = copy_all(&from, &to);
    assert!(receipt.problems.iter().any(|problem| problem.name.contains(&slot.to_string())), "{receipt:#?}");
    open(to.clone(), 5).unwrap();
    // Root keys that were changed on their own cannot be joined.
    open(to.clone(), 60).unwrap().rotate_root_key().unwrap();
    open(from.clone(), 61).unwrap().rotate_root_key().unwrap();
    let error = copy(from, &to, &CopyOptions::default()).unwrap_err();
    assert!(error.kind() == ErrorKind::Conflict && error.to_string().contains("keyring/00000003"), "{error}");
    assert_eq!(PASSWORD.len(), 13);
}

#[test]
fn a_destination_that_collected_further_refuses_and_says_what_to_do() {
    let (from, repository, ids) = source();
    // A mark alone, an abort, a final.
    for (records, is_refused) in [("mark", true), ("abort", false), ("final", true)] {
        let to = memory();
        assert!(copy(from.clone(), &to, &CopyOptions::default().with_backups(vec![ids[0]])).unwrap().ok);
        let there = open(to.clone(), 3).unwrap();
        put(&to, testing::collection_mark(&there, 1, &[]).unwrap());
        let outcomes: Vec<Key> =
            keys_of(&to, "sessions/").into_iter().filter(|key| key.as_str().ends_with("/outcome")).collect();
        let checkpoint: Vec<Vec<u8>> = outcomes.iter().map(|key| get(&to, key)).collect();
        match records {
            "final" => {
                let indexes = names(&to, "index/");
                put(&to, testing::collection_final(&there, 1, &[], &checkpoint, &indexes).unwrap());
            }
            "abort" => {
                let payload = testing::record_payload(&testing::collection_mark(&there, 1, &[]).unwrap().1).unwrap();
                // A mark without its list is what an abort says.
                let mut payload = payload;
                assert_eq!(payload[0], 0xa3);
                payload[0] = 0xa2;
                payload.truncate(payload.len() - 2);
                let bytes = testing::sign_record(&there, "backup/v1/collection-abort", &payload).unwrap();
                overwrite(&to, &place("collections/00000001/outcome"), bytes);
            }
            _ => {}
        }
        let receipt = copy_all(&from, &to);
        assert_eq!(receipt.ok, !is_refused, "{records}: {receipt:#?}");
        if is_refused {
            assert_eq!(statuses(&receipt), [CopyStatus::Found, CopyStatus::Failed, CopyStatus::Failed]);
            assert!(reasons(&receipt).contains("collection 1") && reasons(&receipt).contains("password"));
            assert_eq!(locked(to.clone()).commits().unwrap().len(), 1);
        }
        assert!(locked(to).verify(&VerifyOptions::new(VerifyLevel::Bytes), &control(1)).unwrap().ok);
    }
    drop(repository);
}

#[test]
fn what_the_source_collected_travels_from_its_checkpoint() {
    let (from, repository, ids) = source();
    let outcomes: Vec<Key> =
        keys_of(&from, "sessions/").into_iter().filter(|key| key.as_str().ends_with("/outcome")).collect();
    let checkpoint: Vec<Vec<u8>> = outcomes.iter().map(|key| get(&from, key)).collect();
    put(&from, testing::collection_mark(&repository, 1, &[]).unwrap());
    put(&from, testing::collection_final(&repository, 1, &[], &checkpoint, &names(&from, "index/")).unwrap());
    for key in keys_of(&from, "sessions/") {
        from.delete(&key).unwrap();
    }
    let later = back_up(&open(from.clone(), 4).unwrap(), 3).id;
    let to = memory();
    let receipt = copy_all(&from, &to);
    assert!(receipt.ok, "{receipt:#?}");
    let found: Vec<BackupId> = locked(to.clone()).commits().unwrap().iter().map(|commit| commit.id).collect();
    assert_eq!(found, [ids, vec![later]].concat());
    assert_sound(&open(to.clone(), 9).unwrap());
    // Generations of the source are ahead of the destination's: a writer there begins with its own.
    let repository = open(to.clone(), 11).unwrap();
    let own = back_up(&repository, 4).id;
    assert_eq!(locked(to.clone()).commits().unwrap().last().map(|commit| commit.id), Some(own));
    assert!(copy_all(&from, &to).ok);
    assert_sound(&open(to, 9).unwrap());
}

#[test]
fn packs_that_the_destination_condemned_are_not_referred_to() {
    let (from, repository, ids) = source();
    let to = memory();
    assert!(copy(from.clone(), &to, &CopyOptions::default().with_backups(vec![ids[0]])).unwrap().ok);
    // The source's later backups are of a generation that the destination has not collected.
    put(&from, testing::collection_mark(&repository, 1, &[]).unwrap());
    let later = back_up(&open(from.clone(), 4).unwrap(), 1).id;
    let there = open(to.clone(), 3).unwrap();
    put(&to, testing::collection_mark(&there, 1, &names(&to, "packs/")).unwrap());
    let receipt = copy(from.clone(), &to, &CopyOptions::default().with_backups(vec![later])).unwrap();
    assert!(!receipt.ok && reasons(&receipt).contains("condemned"), "{receipt:#?}");
    assert_eq!(locked(to.clone()).commits().unwrap().len(), 1, "it was not decided");
}

/// A collection of the destination that marks at any moment, whether it waits for marks of sessions or not: what is
/// acknowledged is kept.
#[test]
fn a_collection_at_any_moment_does_not_take_what_is_acknowledged() {
    let (from, repository, _) = source();
    put(&from, testing::collection_mark(&repository, 1, &[]).unwrap());
    put(&from, testing::collection_final(&repository, 1, &[], &[], &[]).unwrap());
    back_up(&open(from.clone(), 4).unwrap(), 7);
    let operations = {
        let storage = Arc::new(FaultStorage::new(MemoryStorage::new()));
        let to: Arc<dyn Storage> = storage.clone();
        locked(from.clone()).copy_to(&to, &CopyOptions::default(), &control(1)).unwrap();
        storage.operations()
    };
    let (mut refused, mut acknowledged) = (0, 0);
    for number in 1..operations {
        let shared = memory();
        let keys = open(from.clone(), 5).unwrap();
        let storage = {
            let (shared, keys) = (Arc::clone(&shared), keys.clone());
            Arc::new(FaultStorage::with_script(Arc::clone(&shared), move |operation| {
                if operation.number == number {
                    // Everything that is there and not needed by a visible commit is condemned.
                    let commits = match LockedRepository::open(shared.clone(), environment(8)) {
                        Ok(locked) => locked.commits().unwrap().len(),
                        Err(_) => return Fault::None,
                    };
                    let condemned = if commits == 0 { names(&shared, "packs/") } else { Vec::new() };
                    put(&shared, testing::collection_mark(&keys, 1, &condemned).unwrap());
                    put(
                        &shared,
                        testing::collection_final(&keys, 1, &condemned, &[], &names(&shared, "index/")).unwrap(),
                    );
                    for key in keys_of(&shared, "packs/") {
                        if condemned.contains(&key.as_str().rsplit('/').next().unwrap().parse().unwrap()) {
                            shared.delete(&key).unwrap();
                        }
                    }
                }
                Fault::None
            }))
        };
        let to: Arc<dyn Storage> = storage;
        match locked(from.clone()).copy_to(&to, &CopyOptions::default(), &control(1)) {
            Ok(receipt) => {
                for backup in &receipt.backups {
                    match backup.status {
                        CopyStatus::Copied => {
                            acknowledged += 1;
                            check_restore(&shared, backup.id, 7);
                        }
                        _ => refused += 1,
                    }
                }
            }
            Err(error) => assert!(error.is_transient(), "{number}: {}", chain(&error)),
        }
    }
    assert!(refused > 0 && acknowledged > 0, "{refused} {acknowledged}");
}

#[test]
fn two_copiers_of_the_same_backups_do_not_disturb_each_other() {
    let (from, _, ids) = source();
    let whole = memory();
    copy_all(&from, &whole);
    let changes = {
        let storage = Arc::new(FaultStorage::new(MemoryStorage::new()));
        let to: Arc<dyn Storage> = storage.clone();
        locked(from.clone()).copy_to(&to, &CopyOptions::default(), &control(1)).unwrap();
        storage.operations()
    };
    // The second copies everything while the first stands before any operation.
    for number in 0..changes {
        let to = memory();
        let storage = {
            let (from, to) = (from.clone(), to.clone());
            Arc::new(FaultStorage::with_script(Arc::clone(&to), move |operation| {
                if operation.number == number {
                    assert!(copy_all(&from, &to).ok);
                }
                Fault::None
            }))
        };
        let first: Arc<dyn Storage> = storage.clone();
        let receipt = locked(from.clone()).copy_to(&first, &CopyOptions::default(), &control(1)).unwrap();
        let operation = storage.log().into_iter().nth(number as usize).unwrap();
        assert!(receipt.ok, "{:?} {}: {receipt:#?}", operation.kind, operation.key);
        assert_eq!(lasting(&to), lasting(&whole));
    }
    // And really at the same time.
    for _ in 0..10 {
        let to = memory();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| assert!(copy_all(&from, &to).ok));
            }
        });
        assert_eq!(lasting(&to), lasting(&whole));
    }
    check_restore(&whole, ids[1], 1);
}

/// A source that forgets a backup and deletes what only that needed, while it is copied.
#[test]
fn a_source_that_collects_meanwhile_gives_what_it_keeps() {
    let (from, repository, ids) = source();
    let needed = |id: BackupId| -> Vec<Key> {
        let only = memory();
        let options = CopyOptions::default().with_backups(vec![id]);
        assert!(copy(from.clone(), &only, &options).unwrap().ok);
        keys_of(&only, "packs/")
    };
    let kept: Vec<Key> = [needed(ids[1]), needed(ids[2])].concat();
    let gone: Vec<Key> = needed(ids[0]).into_iter().filter(|key| !kept.contains(key)).collect();
    assert!(!gone.is_empty());
    let condemned: Vec<ObjectName> =
        gone.iter().map(|key| key.as_str().rsplit('/').next().unwrap().parse().unwrap()).collect();
    let outcomes: Vec<Vec<u8>> = keys_of(&from, "sessions/")
        .into_iter()
        .filter(|key| key.as_str().ends_with("/outcome"))
        .map(|key| get(&from, &key))
        .collect();
    let operations = {
        let storage = Arc::new(FaultStorage::new((*from).clone()));
        let to: Arc<dyn Storage> = memory();
        let source: Arc<dyn Storage> = storage.clone();
        locked(source).copy_to(&to, &CopyOptions::default(), &control(1)).unwrap();
        storage.operations()
    };
    let mut given_up = 0;
    for number in 0..operations {
        let shared = Arc::new((*from).clone());
        let storage = {
            let (shared, repository) = (Arc::clone(&shared), repository.clone());
            let (condemned, outcomes, gone) = (condemned.clone(), outcomes.clone(), gone.clone());
            let first = ids[0];
            Arc::new(FaultStorage::with_script(Arc::clone(&shared), move |operation| {
                if operation.number == number {
                    let checkpoint: Vec<Vec<u8>> = outcomes.clone();
                    put(&shared, testing::forget(&repository, first).unwrap());
                    put(&shared, testing::collection_mark(&repository, 1, &condemned).unwrap());
                    let indexes = names(&shared, "index/");
                    put(&shared, testing::collection_final(&repository, 1, &condemned, &checkpoint, &indexes).unwrap());
                    for key in gone.iter().chain(&keys_of(&shared, "sessions/")) {
                        shared.delete(key).unwrap();
                    }
                }
                Fault::None
            }))
        };
        let to = memory();
        let receipt = match copy(storage, &to, &CopyOptions::default()) {
            Ok(receipt) => receipt,
            Err(error) => panic!("{number}: {}", chain(&error)),
        };
        for backup in &receipt.backups {
            let index = ids.iter().position(|id| *id == backup.id).unwrap();
            match backup.status {
                CopyStatus::Copied => check_restore(&to, backup.id, index as u64),
                _ => {
                    assert_eq!(index, 0, "{number}: {receipt:#?}");
                    assert!(reasons(&receipt).contains("forgotten"), "{number}: {receipt:#?}");
                    given_up += 1;
                }
            }
        }
        assert_sound_part(&to);
    }
    assert!(given_up > 0);
}

#[test]
fn places_that_cannot_be_copied_to_are_refused_at_once() {
    let (from, _, ids) = source();
    let unknown = CopyOptions::default().with_backups(vec![BackupId::new([7; 32])]);
    let to = memory();
    assert_eq!(copy(from.clone(), &to, &unknown).unwrap_err().kind(), ErrorKind::NotFound);
    let deep = CopyOptions::default().with_verify(VerifyLevel::Content);
    assert_eq!(copy(from.clone(), &to, &deep).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert!(to.snapshot().is_empty());
    // Forgotten at the destination stays forgotten.
    assert!(copy_all(&from, &to).ok);
    put(&to, testing::forget(&open(to.clone(), 3).unwrap(), ids[1]).unwrap());
    let receipt = copy_all(&from, &to);
    assert_eq!(statuses(&receipt), [CopyStatus::Found, CopyStatus::Forgotten, CopyStatus::Found]);
    assert!(receipt.ok);
    let named = copy(from, &to, &CopyOptions::default().with_backups(vec![ids[1]])).unwrap();
    assert!(!named.ok, "who names it wants it");
}

#[test]
fn receipts_survive_as_json() {
    let (from, _, _) = source();
    let to = memory();
    let receipt = copy_all(&from, &to);
    let text = serde_json::to_string(&receipt).unwrap();
    let read: CopyReceipt = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), text);
    assert_eq!(read.backups.len(), 3);
}

/// The destination collected up to the generation of the commit, or further: with the password the backup is put under a
/// commit that is signed anew, is found under the id that was written down, and is not copied twice.
#[test]
fn what_a_collection_keeps_from_arriving_is_signed_anew_with_the_password() {
    let (from, _, ids) = source();
    let to = memory();
    assert!(copy(from.clone(), &to, &CopyOptions::default().with_backups(vec![ids[0]])).unwrap().ok);
    let there = open(to.clone(), 3).unwrap();
    let collected = there.collect(&CollectOptions::default(), &control(1)).unwrap();
    assert_eq!(collected.state, CollectionState::Finished);
    let refused = copy_all(&from, &to);
    assert_eq!(statuses(&refused), [CopyStatus::Found, CopyStatus::Failed, CopyStatus::Failed]);
    assert!(reasons(&refused).contains("signed anew"));

    let here = open(from.clone(), 5).unwrap();
    let to_copy =
        || Repository::open(to.clone(), &Credential::from(&Password::from(PASSWORD)), unlike_others()).unwrap();
    let receipt = here.copy_to(&to_copy(), &CopyOptions::default(), &control(2)).unwrap();
    assert!(receipt.ok, "{receipt:#?}");
    assert_eq!(receipt.method, CopyMethod::SignedAnew);
    assert_eq!(statuses(&receipt), [CopyStatus::Found, CopyStatus::Copied, CopyStatus::Copied]);
    for (number, line) in (0..).zip(&receipt.backups) {
        assert_eq!(line.id, ids[number as usize]);
        assert_eq!(line.copy == Some(line.id), number == 0);
        // By the id that was written down, and by the new one.
        check_restore(&to, line.id, number);
        check_restore(&to, line.copy.unwrap(), number);
    }
    let listed = there.backups().unwrap();
    assert_eq!(
        listed.iter().map(|backup| backup.replaces.clone()).collect::<Vec<_>>(),
        [vec![], vec![ids[1]], vec![ids[2]]]
    );
    let original = here.backups().unwrap();
    for (copy, original) in listed.iter().zip(&original) {
        let what = |b: &Backup| (b.kind.clone(), b.host.clone(), b.started, b.finished, b.parent, b.problem_count);
        assert_eq!(what(copy), what(original));
        assert!(copy.origins.is_empty(), "it is the same backup and no copy of another");
    }
    assert_sound(&open(to.clone(), 9).unwrap());
    // Neither way copies it again.
    let again = copy_all(&from, &to);
    assert_eq!((statuses(&again), again.bytes_copied), (vec![CopyStatus::Found; 3], 0), "{again:#?}");
    let again = here.copy_to(&to_copy(), &CopyOptions::default(), &control(1)).unwrap();
    assert_eq!(
        (statuses(&again), again.bytes_copied, again.method),
        (vec![CopyStatus::Found; 3], 0, CopyMethod::Verbatim)
    );
    // A collection keeps it, and a forget by the old id forgets it.
    there.collect(&CollectOptions::default(), &control(1)).unwrap();
    check_restore(&to, ids[2], 2);
    there.forget(&[ids[1]], &control(1)).unwrap();
    let forgotten = here.copy_to(&to_copy(), &CopyOptions::default(), &control(1)).unwrap();
    assert_eq!(statuses(&forgotten), [CopyStatus::Found, CopyStatus::Forgotten, CopyStatus::Found]);
}

/// A pack whose name is condemned at the destination cannot come back under it: its chunks are stored under another.
#[test]
fn chunks_of_condemned_packs_are_stored_anew() {
    let (from, _, ids) = source();
    let to = memory();
    assert!(copy(from.clone(), &to, &CopyOptions::default().with_backups(vec![ids[0]])).unwrap().ok);
    let there = open(to.clone(), 3).unwrap();
    // All of the backup is condemned and deleted.
    let condemned = names(&to, "packs/");
    there.forget(&[ids[0]], &control(1)).unwrap();
    let mut options = CollectOptions::default();
    options.partial_history = true;
    there.collect(&options, &control(1)).unwrap();
    assert!(there.backups().unwrap().is_empty());
    let wanted = CopyOptions::default().with_backups(vec![ids[1], ids[2]]);
    let here = open(from.clone(), 5).unwrap();
    let receipt = here.copy_to(&open(to.clone(), 6).unwrap(), &wanted, &control(2)).unwrap();
    assert!(receipt.ok, "{receipt:#?}");
    check_restore(&to, ids[1], 1);
    check_restore(&to, ids[2], 2);
    assert_sound_part(&to);
    let needed = names(&from, "packs/").into_iter().filter(|name| condemned.contains(name)).count();
    assert!(needed > 0 && names(&to, "packs/").iter().all(|name| !condemned.contains(name)), "{needed} are condemned");
}

#[test]
fn signing_anew_survives_a_crash_at_any_operation() {
    let (from, _, ids) = source();
    let collected = memory();
    assert!(copy(from.clone(), &collected, &CopyOptions::default().with_backups(vec![ids[0]])).unwrap().ok);
    open(collected.clone(), 3).unwrap().collect(&CollectOptions::default(), &control(1)).unwrap();
    let here = open(from.clone(), 5).unwrap();
    let refused = copy(from.clone(), &collected, &CopyOptions::default()).unwrap();
    let (opening, log) = {
        let storage = Arc::new(FaultStorage::new((*collected).clone()));
        let to = open(storage.clone(), 6).unwrap();
        let opening = storage.operations();
        assert!(here.copy_anew(&to, refused.clone(), &CopyOptions::default(), &control(1)).unwrap().ok);
        (opening, storage.log())
    };
    let mut crashes = 0;
    for operation in log.into_iter().filter(|operation| operation.number >= opening && operation.kind.is_change()) {
        for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::FailAfter] {
            let what = format!("{fault:?} at {} {:?} {}", operation.number, operation.kind, operation.key);
            let storage = Arc::new(FaultStorage::at((*collected).clone(), operation.number, fault));
            let to = open(storage.clone(), 6).unwrap();
            drop(here.copy_anew(&to, refused.clone(), &CopyOptions::default(), &control(1)));
            drop(to);
            let survivors = Arc::new(Arc::into_inner(storage).unwrap().into_inner());
            let receipt =
                here.copy_to(&open(survivors.clone(), 8).unwrap(), &CopyOptions::default(), &control(1)).unwrap();
            assert!(receipt.ok, "{what}: {receipt:#?}");
            assert_eq!(open(survivors.clone(), 9).unwrap().backups().unwrap().len(), 3, "{what}");
            (0..).zip(&ids).for_each(|(number, id)| check_restore(&survivors, *id, number));
            crashes += 1;
        }
    }
    assert!(crashes > 20, "{crashes}");
}
