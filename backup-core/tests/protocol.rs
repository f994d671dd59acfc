//! The engine against collections and other writers: records that a collector will make, at every moment.
//! The rules one by one are tested beside `session`; here backups are made and restored under them.

mod support;

use std::io::Read;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use backup_core::id::{BackupId, ObjectName, SessionId};
use backup_core::repository::{
    Backup, BackupOptions, FindingKind, Parent, Repository, Selection, VerifyLevel, VerifyOptions,
};
use backup_core::storage::fault::{Fault, FaultStorage, OperationKind};
use backup_core::storage::{Capabilities, Key, ListPage, MemoryStorage, ObjectInfo, PutMode, Storage, StorageError};
use backup_core::{ErrorKind, testing};
use bytes::Bytes;
use support::forger::{get, keys_of, overwrite, pack_of_kind};
use support::tree::{Made, Target};
use support::{
    assert_sound, control, environment_at, init_options, init_with, memory, noise, open, options, path, small_options,
    verify,
};

const LENGTH: usize = 300_000;

fn new_repository() -> (Arc<MemoryStorage>, Repository) {
    let storage = memory();
    let repository = init_with(storage.clone(), &small_options(), 1).unwrap();
    (storage, repository)
}

fn back_up_as(repository: &Repository, options: BackupOptions, seed: u64) -> backup_core::Result<Backup> {
    let mut session = repository.begin(options)?;
    session.add_stream(path("data"), &mut noise(seed, LENGTH).as_slice())?;
    session.commit()
}

fn back_up(repository: &Repository, seed: u64) -> backup_core::Result<Backup> {
    back_up_as(repository, options(1), seed)
}

fn content(repository: &Repository, id: BackupId) -> backup_core::Result<Vec<u8>> {
    let backup = repository.find_backup(&id.to_string())?;
    let entry = repository.entry(&backup, &path("data"))?;
    let mut out = Vec::new();
    repository.restore_stream(&entry, &mut out, &control(1)).map(|_| out)
}

fn ids(repository: &Repository) -> Vec<BackupId> {
    repository.backups().unwrap().iter().map(|backup| backup.id).collect()
}

fn put(storage: &MemoryStorage, (key, bytes): (Key, Vec<u8>)) {
    storage.put(&key, bytes.into(), PutMode::Create).unwrap();
}

fn names(storage: &MemoryStorage, prefix: &str) -> Vec<ObjectName> {
    keys_of(storage, prefix).iter().map(|key| key.as_str().rsplit('/').next().unwrap().parse().unwrap()).collect()
}

fn outcomes(storage: &MemoryStorage) -> Vec<Key> {
    keys_of(storage, "sessions/").into_iter().filter(|key| key.as_str().ends_with("/outcome")).collect()
}

/// The only session that runs.
fn running(repository: &Repository) -> (u32, SessionId) {
    let status = repository.status().unwrap();
    let [session] = status.unfinished_sessions.as_slice() else { panic!("{status:?}") };
    (session.generation, session.session)
}

#[test]
fn condemned_packs_are_not_referred_to() {
    for is_final in [false, true] {
        let (storage, repository) = new_repository();
        let first = back_up(&repository, 1).unwrap();
        let condemned = names(&storage, "packs/");
        put(&storage, testing::collection_mark(&repository, 1, &condemned).unwrap());
        if is_final {
            // The collection had forgotten the first backup.
            put(&storage, testing::forget(&repository, first.id).unwrap());
            put(&storage, testing::collection_final(&repository, 1, &condemned, &[], &[]).unwrap());
        }
        let second = back_up(&repository, 1).unwrap();
        assert_eq!(second.statistics.bytes_new, LENGTH as u64, "nothing condemned is used again");
        if is_final {
            // What the collector does then.
            for key in keys_of(&storage, "packs/") {
                let name: ObjectName = key.as_str().rsplit('/').next().unwrap().parse().unwrap();
                if condemned.contains(&name) {
                    storage.delete(&key).unwrap();
                }
            }
            assert_eq!(ids(&repository), [second.id]);
        } else {
            assert_eq!(content(&repository, first.id).unwrap(), noise(1, LENGTH), "until the final it is there");
        }
        let repository = open(storage.clone(), 9).unwrap();
        assert_eq!(content(&repository, second.id).unwrap(), noise(1, LENGTH));
        assert_sound(&repository);
        let third = back_up(&repository, 1).unwrap();
        assert_eq!(third.statistics.bytes_new, 0);
        assert_sound(&repository);
    }
}

#[test]
fn condemned_packs_of_crashed_sessions_are_not_adopted() {
    for condemn in [false, true] {
        let (storage, repository) = new_repository();
        let mut session = repository.begin(options(1)).unwrap();
        session.add_stream(path("data"), &mut noise(1, LENGTH).as_slice()).unwrap();
        session.abort();
        let orphans = names(&storage, "packs/");
        assert!(orphans.len() > 2);
        if condemn {
            put(&storage, testing::collection_mark(&repository, 1, &orphans).unwrap());
        }
        let backup = back_up(&repository, 1).unwrap();
        assert_eq!(backup.statistics.bytes_new == LENGTH as u64, condemn, "{:?}", backup.statistics);
        if condemn {
            put(&storage, testing::collection_final(&repository, 1, &orphans, &[], &[]).unwrap());
            keys_of(&storage, "packs/")
                .iter()
                .filter(|key| orphans.iter().any(|o| key.as_str().ends_with(&o.to_string())))
                .for_each(|key| storage.delete(key).unwrap());
        }
        let repository = open(storage, 9).unwrap();
        assert_eq!(content(&repository, backup.id).unwrap(), noise(1, LENGTH));
        assert_sound(&repository);
    }
}

/// What happens at a put.
type At = Box<dyn FnMut(&MemoryStorage, &Key) + Send>;

/// A storage at which something happens directly before every put.
struct Eventful {
    storage: Arc<MemoryStorage>,
    before_put: Mutex<At>,
    is_careless: bool,
}

impl Storage for Eventful {
    fn put(&self, key: &Key, bytes: Bytes, mode: PutMode) -> Result<(), StorageError> {
        (self.before_put.lock().unwrap())(&self.storage, key);
        self.storage.put(key, bytes, if self.is_careless { PutMode::Overwrite } else { mode })
    }
    fn get(&self, key: &Key, limit: u64) -> Result<Bytes, StorageError> {
        self.storage.get(key, limit)
    }
    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StorageError> {
        self.storage.get_range(key, range)
    }
    fn stat(&self, key: &Key) -> Result<ObjectInfo, StorageError> {
        self.storage.stat(key)
    }
    fn list(&self, prefix: &str, after: Option<&Key>) -> Result<ListPage, StorageError> {
        self.storage.list(prefix, after)
    }
    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.storage.delete(key)
    }
    fn capabilities(&self) -> Capabilities {
        self.storage.capabilities()
    }
}

fn eventful(storage: &Arc<MemoryStorage>, before_put: At) -> Arc<Eventful> {
    Arc::new(Eventful { storage: storage.clone(), before_put: Mutex::new(before_put), is_careless: false })
}

#[test]
fn a_mark_while_a_session_opens_begins_it_anew() {
    let (storage, repository) = new_repository();
    back_up(&repository, 1).unwrap();
    let condemned = names(&storage, "packs/");
    let mut marks = Vec::from([testing::collection_mark(&repository, 1, &condemned).unwrap()]);
    let at = move |storage: &MemoryStorage, key: &Key| {
        if key.as_str().ends_with("/open") {
            marks.pop().into_iter().for_each(|mark| put(storage, mark));
        }
    };
    let overtaken = open(eventful(&storage, Box::new(at)), 3).unwrap();
    let mut session = overtaken.begin(options(1)).unwrap();
    session.add_stream(path("data"), &mut noise(1, LENGTH).as_slice()).unwrap();
    let backup = session.commit().unwrap();
    assert_eq!(backup.statistics.bytes_new, LENGTH as u64);
    let slot = outcomes(&storage).pop().unwrap();
    assert!(slot.as_str().starts_with("sessions/00000002/"), "{slot}");
    // Nothing is left of the try that was given up.
    assert!(overtaken.status().unwrap().unfinished_sessions.is_empty());
    assert_sound(&overtaken);
}

#[test]
fn a_revoked_session_is_told_so() {
    let (storage, repository) = new_repository();
    let mut session = repository.begin(options(1)).unwrap();
    session.add_stream(path("data"), &mut noise(1, LENGTH).as_slice()).unwrap();
    let (generation, id) = running(&repository);
    put(&storage, testing::revocation(&repository, generation, id).unwrap());
    let error = session.commit().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains(&id.to_string()), "{error}");
    assert!(repository.backups().unwrap().is_empty());
    assert!(repository.status().unwrap().unfinished_sessions.is_empty());
    assert_sound(&repository);
    let backup = back_up(&repository, 1).unwrap();
    assert_eq!(backup.statistics.bytes_new, 0, "what it uploaded is used");
    assert_sound(&repository);
}

#[test]
fn a_commit_behind_the_fence_is_void() {
    let (storage, repository) = new_repository();
    let kept = back_up(&repository, 1).unwrap();
    let kept_slot = outcomes(&storage).remove(0);
    let mut session = repository.begin(options(1)).unwrap();
    session.add_stream(path("data"), &mut noise(2, LENGTH).as_slice()).unwrap();
    let (generation, id) = running(&repository);
    put(&storage, testing::collection_mark(&repository, 1, &[]).unwrap());
    // The collection revokes it, ends, and deletes the slots of its generation.
    let (slot, revocation) = testing::revocation(&repository, generation, id).unwrap();
    put(&storage, (slot.clone(), revocation));
    let checkpoint = [get(&storage, &kept_slot)];
    let indexes = names(&storage, "index/");
    put(&storage, testing::collection_final(&repository, 1, &[], &checkpoint, &indexes).unwrap());
    storage.delete(&slot).unwrap();
    storage.delete(&kept_slot).unwrap();
    // The slot is free again: whoever slept through all that wins it, and learns that it does not count.
    let error = session.commit().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(outcomes(&storage), [slot]);
    let repository = open(storage, 9).unwrap();
    assert_eq!(ids(&repository), [kept.id], "the checkpoint has it, though its slot is gone");
    assert_eq!(content(&repository, kept.id).unwrap(), noise(1, LENGTH));
    assert_sound(&repository);
    // A session after the collection counts, and takes over what the checkpoint names.
    let next = back_up(&repository, 1).unwrap();
    assert_eq!((next.parent, next.statistics.bytes_new), (Some(kept.id), 0));
    assert_eq!(ids(&repository), [kept.id, next.id]);
    assert_sound(&repository);
}

#[test]
fn forgotten_backups_are_gone_and_hold_up_nothing() {
    let (storage, repository) = new_repository();
    let first = back_up(&repository, 1).unwrap();
    let second = back_up(&repository, 2).unwrap();
    put(&storage, testing::forget(&repository, first.id).unwrap());
    assert_eq!(ids(&repository), [second.id]);
    assert_eq!(repository.find_backup(&first.id.to_string()).unwrap_err().kind(), ErrorKind::NotFound);
    let parent = options(1).with_parent(Parent::Backup(first.id));
    assert_eq!(repository.begin(parent).unwrap_err().kind(), ErrorKind::NotFound);
    assert_sound(&repository);
    let third = back_up(&repository, 1).unwrap();
    assert_eq!(third.parent, Some(second.id));
    assert_sound(&repository);
    put(&storage, testing::forget(&repository, third.id).unwrap());
    assert_eq!(repository.find_backup("latest").unwrap().id, second.id);
    let expected = VerifyOptions::new(VerifyLevel::Presence).with_expected_head(third.id);
    assert!(repository.verify(&expected, None, &control(1)).unwrap().ok, "a forgotten head is not missing");
}

#[test]
fn a_withheld_commit_is_noticed_by_whoever_knows_a_later_one() {
    let (storage, repository) = new_repository();
    let first = back_up(&repository, 1).unwrap();
    let before = outcomes(&storage);
    let second = back_up(&repository, 2).unwrap();
    let state = storage.snapshot();
    storage.delete(&before[0]).unwrap();
    let report = verify(&repository, VerifyLevel::Presence).unwrap();
    let about = report.findings.iter().find(|finding| finding.object == first.id.to_string()).unwrap();
    assert_eq!(about.kind, FindingKind::History);
    assert_eq!(content(&repository, second.id).unwrap(), noise(2, LENGTH), "the other is as good as before");

    storage.restore(state);
    outcomes(&storage).iter().filter(|key| !before.contains(key)).for_each(|key| storage.delete(key).unwrap());
    assert!(verify(&repository, VerifyLevel::Presence).unwrap().ok, "nobody can see what nothing names");
    let expected = VerifyOptions::new(VerifyLevel::Presence).with_expected_head(second.id);
    assert!(!repository.verify(&expected, None, &control(1)).unwrap().ok);
}

#[test]
fn foreign_and_damaged_records_are_reported_and_stop_nobody() {
    let (storage, repository) = new_repository();
    let backup = back_up(&repository, 1).unwrap();
    let other = {
        let (storage, repository) = new_repository_of(77);
        back_up(&repository, 1).unwrap();
        get(&storage, &outcomes(&storage)[0])
    };
    let ours = get(&storage, &outcomes(&storage)[0]);
    let state = storage.snapshot();
    let slot = Key::new("sessions/00000001/abababababababababababababababab/outcome").unwrap();
    let mark = Key::new("collections/00000001/mark").unwrap();
    let outcome = Key::new("collections/00000001/outcome").unwrap();
    let (forget, genuine) = testing::forget(&repository, backup.id).unwrap();
    let another = testing::collection_mark(&repository, 2, &names(&storage, "packs/")).unwrap().1;
    let mut forged = genuine.clone();
    *forged.last_mut().unwrap() ^= 1;
    for (what, key, bytes) in [
        ("nothing", &slot, Vec::new()),
        ("rubbish", &slot, b"rubbish".to_vec()),
        ("a commit of another repository", &slot, other),
        ("a commit of another session", &slot, ours),
        ("more than a commit can be", &slot, vec![0x55; 70_000]),
        ("a forget as a commit", &slot, genuine),
        ("a damaged forget", &forget, forged),
        ("a damaged mark", &mark, b"rubbish".to_vec()),
        ("the mark of another collection", &mark, another.clone()),
        ("a mark as a final", &outcome, another),
    ] {
        storage.restore(state.clone());
        overwrite(&storage, key, bytes);
        assert_eq!(ids(&repository), [backup.id], "{what}");
        assert_eq!(content(&repository, backup.id).unwrap(), noise(1, LENGTH), "{what}");
        let report = verify(&repository, VerifyLevel::Presence).unwrap();
        let [finding] = report.findings.as_slice() else { panic!("{what}: {report:#?}") };
        assert_eq!((finding.kind, finding.object.as_str()), (FindingKind::Record, key.as_str()), "{what}");
        back_up(&repository, 2).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(verify(&repository, VerifyLevel::Content).unwrap().findings.len(), 1, "{what}");
    }
}

fn new_repository_of(seed: u64) -> (Arc<MemoryStorage>, Repository) {
    let storage = memory();
    let repository = init_with(storage.clone(), &small_options(), seed).unwrap();
    (storage, repository)
}

#[test]
fn two_writers_at_once_both_commit() {
    let (storage, _) = new_repository();
    let (one, two) = (open(storage.clone(), 11).unwrap(), open(storage.clone(), 12).unwrap());
    // Each stores a part that the other stores as well, without knowing of it.
    let mut first = one.begin(options(1)).unwrap();
    let mut second = two.begin(options(3)).unwrap();
    let shared = noise(1, LENGTH);
    first.add_stream(path("data"), &mut shared.as_slice()).unwrap();
    second.add_stream(path("own"), &mut noise(2, LENGTH).as_slice()).unwrap();
    second.add_stream(path("data"), &mut shared.as_slice()).unwrap();
    first.add_stream(path("more"), &mut noise(3, LENGTH).as_slice()).unwrap();
    let (second, first) = (second.commit().unwrap(), first.commit().unwrap());
    for repository in [&one, &two, &open(storage.clone(), 13).unwrap()] {
        let mut found = ids(repository);
        found.sort();
        let mut expected = [first.id, second.id];
        expected.sort();
        assert_eq!(found, expected);
        for id in expected {
            assert_eq!(content(repository, id).unwrap(), shared);
        }
        assert_sound(repository);
        let alone = VerifyOptions::new(VerifyLevel::Content).with_backups(vec![second.id]);
        assert!(repository.verify(&alone, None, &control(1)).unwrap().ok);
    }
    // The next backup follows both: withholding either is noticed.
    back_up(&one, 1).unwrap();
    for key in outcomes(&storage).into_iter().take(3) {
        let bytes = get(&storage, &key);
        let id = BackupId::new(*blake3::hash(&bytes).as_bytes());
        if [first.id, second.id].contains(&id) {
            storage.delete(&key).unwrap();
            assert!(!verify(&one, VerifyLevel::Presence).unwrap().ok);
            overwrite(&storage, &key, bytes);
        }
    }
    assert_sound(&one);
}

#[test]
fn backups_are_in_causal_order_whatever_clocks_say() {
    let (storage, _) = new_repository();
    let mut made = Vec::new();
    for (number, seconds) in [2_000_000_000, 1_000_000_000, 1_500_000_000, -5].into_iter().enumerate() {
        let password = backup_core::secret::Password::from(support::PASSWORD);
        let environment = environment_at(20 + number as u64, seconds);
        let credential = backup_core::keys::Credential::from(&password);
        let repository = Repository::open(storage.clone(), &credential, environment).unwrap();
        let backup = back_up(&repository, number as u64).unwrap();
        assert_eq!(backup.parent, made.last().copied());
        made.push(backup.id);
        assert_eq!(ids(&repository), made);
        assert_eq!(repository.find_backup("latest").unwrap().id, backup.id);
    }
}

#[test]
fn a_storage_that_ignores_put_if_absent_is_refused_unless_single_writer() {
    let careless = |storage: &Arc<MemoryStorage>| {
        let at: At = Box::new(|_, _| ());
        Arc::new(Eventful { storage: storage.clone(), before_put: Mutex::new(at), is_careless: true })
    };
    let (storage, _) = new_repository();
    let repository = open(careless(&storage), 3).unwrap();
    let error = back_up(&repository, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(keys_of(&storage, "probes/").is_empty() && keys_of(&storage, "sessions/").is_empty());
    assert!(repository.backups().unwrap().is_empty(), "reading works");

    let storage = memory();
    let options = init_options().with_single_writer(true);
    let repository = init_with(careless(&storage), &options, 1).unwrap();
    let backup = back_up(&repository, 1).unwrap();
    let repository = open(careless(&storage), 4).unwrap();
    back_up(&repository, 2).unwrap();
    assert_eq!(content(&repository, backup.id).unwrap(), noise(1, LENGTH));
    assert_sound(&repository);
    assert!(keys_of(&storage, "probes/").is_empty());
}

/// Beginnings of keys on which every operation fails, as on a storage that cannot be reached now.
#[derive(Clone, Default)]
struct Unreachable(Arc<Mutex<Option<&'static str>>>);

impl Unreachable {
    fn on(&self, storage: &Arc<MemoryStorage>) -> Arc<dyn Storage> {
        let prefix = Arc::clone(&self.0);
        let faults = FaultStorage::with_script(storage.clone(), move |operation| {
            let fails = prefix.lock().unwrap().is_some_and(|prefix| operation.key.starts_with(prefix));
            if fails { Fault::FailBefore } else { Fault::None }
        });
        Arc::new(faults.with_error(|_| StorageError::Transient("not now".into())))
    }
}

#[test]
fn a_storage_that_fails_for_a_while_does_not_leave_damage_behind() {
    for (broken, lost_index) in [("index/", false), ("packs/", true), ("sessions/", false)] {
        let (storage, repository) = new_repository();
        let backup = back_up(&repository, 1).unwrap();
        if lost_index {
            // Then the directories of the packs say where everything is.
            keys_of(&storage, "index/").iter().for_each(|key| storage.delete(key).unwrap());
        }
        let unreachable = Unreachable::default();
        let repository = open(unreachable.on(&storage), 5).unwrap();
        let found = repository.find_backup("latest").unwrap();
        *unreachable.0.lock().unwrap() = Some(broken);
        let error = repository.entry(&found, &path("data")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Storage, "{broken}: {error}");
        assert!(error.is_transient(), "{broken}: {error}");
        *unreachable.0.lock().unwrap() = None;
        assert_eq!(content(&repository, backup.id).unwrap(), noise(1, LENGTH), "{broken}: it came back");
    }
}

#[test]
fn a_handle_that_lives_long_sees_what_others_do() {
    let (storage, writer) = new_repository();
    let first = back_up(&writer, 1).unwrap();
    let reader = open(storage.clone(), 6).unwrap();
    assert_eq!(content(&reader, first.id).unwrap(), noise(1, LENGTH), "its index is loaded now");

    // Another process makes a backup.
    let second = back_up(&writer, 2).unwrap();
    assert_eq!(content(&reader, second.id).unwrap(), noise(2, LENGTH));
    // One more, of which this handle is told by that process alone.
    let third = back_up(&writer, 3).unwrap();
    let entry = reader.entry(&third, &path("data")).unwrap();
    for threads in [1, 3] {
        let mut out = Vec::new();
        reader.restore_stream(&entry, &mut out, &control(threads)).unwrap();
        assert_eq!(out, noise(3, LENGTH));
    }
    assert_sound(&reader);
}

/// A collection that keeps all backups and puts what packs hold into others, as a backup with nothing to go by does.
fn repack(storage: &Arc<MemoryStorage>, repository: &Repository) {
    let before = names(storage, "packs/");
    let slots = outcomes(storage);
    let checkpoint: Vec<Vec<u8>> = slots.iter().map(|slot| get(storage, slot)).collect();
    // The same chunks in other packs: those of a repository that does not know of these.
    let (other, keys) = (MemoryStorage::from_objects(storage.snapshot()), ["packs/", "index/", "sessions/"]);
    keys.iter().flat_map(|prefix| keys_of(&other, prefix)).for_each(|key| other.delete(&key).unwrap());
    let other = Arc::new(other);
    back_up(&open(other.clone(), 99).unwrap(), 1).unwrap();
    for prefix in ["packs/", "index/"] {
        for key in keys_of(&other, prefix) {
            put(storage, (key.clone(), get(&other, &key)));
        }
    }
    put(storage, testing::collection_mark(repository, 1, &before).unwrap());
    let indexes = names(&other, "index/");
    put(storage, testing::collection_final(repository, 1, &before, &checkpoint, &indexes).unwrap());
    for key in keys_of(storage, "packs/").into_iter().chain(keys_of(storage, "index/")).chain(slots) {
        if !other.snapshot().contains_key(&key) || key.as_str().starts_with("sessions/") {
            storage.delete(&key).unwrap();
        }
    }
}

#[test]
fn a_reader_follows_a_collection_that_moves_chunks() {
    for threads in [1, 3] {
        let (storage, writer) = new_repository();
        let backup = back_up(&writer, 1).unwrap();
        let reader = open(storage.clone(), 6).unwrap();
        let entry = reader.entry(&backup, &path("data")).unwrap();
        let mut anywhere = reader.open_entry(&entry).unwrap();
        repack(&storage, &writer);
        let mut out = Vec::new();
        reader.restore_stream(&entry, &mut out, &control(threads)).unwrap();
        assert!(out == noise(1, LENGTH), "{threads} threads");
        let mut read = Vec::new();
        anywhere.read_to_end(&mut read).unwrap();
        assert!(read == noise(1, LENGTH), "{threads} threads");
        let target = Target::default();
        reader.restore_tree(&backup, &Selection::all(), &target, &control(threads)).unwrap();
        let made = target.into_map();
        assert!(matches!(&made[&path("data")], Made::Content(bytes, _) if **bytes == noise(1, LENGTH)));
        assert_eq!(reader.entry(&backup, &path("data")).unwrap(), entry);
    }
}

#[test]
fn lost_packs_are_damage_and_are_asked_about_once() {
    let (storage, writer) = new_repository();
    let backup = back_up(&writer, 1).unwrap();
    let faults = Arc::new(FaultStorage::new(storage.clone()));
    let reader = open(faults.clone(), 6).unwrap();
    let entry = reader.entry(&backup, &path("data")).unwrap();
    let packs = pack_of_kind(&storage, 2);
    packs.iter().for_each(|key| storage.delete(key).unwrap());
    let listings = || faults.log().iter().filter(|operation| operation.key == "sessions/").count();
    let before = listings();
    for _ in 0..10 {
        let error = reader.restore_stream(&entry, &mut Vec::new(), &control(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    }
    assert!(listings() - before <= packs.len(), "{} listings for {} packs", listings() - before, packs.len());
    assert!(listings() > before, "the history is read again before anything is called damaged");
}

#[test]
fn a_session_does_not_change_what_others_read() {
    for is_committed in [false, true] {
        let (storage, repository) = new_repository();
        let backup = back_up(&repository, 1).unwrap();
        assert_eq!(content(&repository, backup.id).unwrap(), noise(1, LENGTH));
        // Condemned packs may not be referred to, but are read until the final.
        put(&storage, testing::collection_mark(&repository, 1, &names(&storage, "packs/")).unwrap());
        let mut session = repository.begin(options(1)).unwrap();
        assert_eq!(content(&repository, backup.id).unwrap(), noise(1, LENGTH), "beside the session");
        session.add_stream(path("data"), &mut noise(2, LENGTH).as_slice()).unwrap();
        if is_committed {
            let second = session.commit().unwrap();
            assert_eq!(content(&repository, second.id).unwrap(), noise(2, LENGTH));
        } else {
            session.abort();
        }
        assert_eq!(content(&repository, backup.id).unwrap(), noise(1, LENGTH), "after it");
    }
}

#[test]
fn a_verification_that_a_collection_overtakes_does_not_report_what_that_deleted() {
    for level in [VerifyLevel::Presence, VerifyLevel::Content] {
        let (storage, writer) = new_repository();
        back_up(&writer, 1).unwrap();
        let (inner, mut collector) = (storage.clone(), Some(writer.clone()));
        let faults = FaultStorage::with_script(storage.clone(), move |operation| {
            if operation.kind == OperationKind::List && operation.key == "packs/" {
                collector.take().into_iter().for_each(|collector| repack(&inner, &collector));
            }
            Fault::None
        });
        let repository = open(Arc::new(faults), 6).unwrap();
        let error = verify(&repository, level).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(error.is_transient());
    }
}

/// Another init runs as a whole, or dies at each of its puts, before each put of the first.
#[test]
fn of_two_inits_at_once_one_wins_and_its_repository_is_whole() {
    let log: Arc<Mutex<Vec<Key>>> = Arc::default();
    let puts = Arc::clone(&log);
    let storage = memory();
    let counting = eventful(&storage, Box::new(move |_, key| puts.lock().unwrap().push(key.clone())));
    init_with(counting, &small_options(), 1).unwrap();
    let puts = log.lock().unwrap().len();
    for at in 0..puts {
        for crash in 0..=puts {
            let storage = memory();
            let mut number = 0;
            let rival: Arc<Mutex<Option<backup_core::Result<Repository>>>> = Arc::default();
            let result = Arc::clone(&rival);
            let before_put: At = Box::new(move |storage: &MemoryStorage, _: &Key| {
                if number == at {
                    let fault = FaultStorage::crash_at_change(storage.clone(), crash as u64, Fault::CrashBefore);
                    let shared = Arc::new(fault);
                    *result.lock().unwrap() = Some(init_with(shared.clone(), &small_options(), 2));
                    // A clone is another storage: what the rival did counts here as well.
                    storage.restore(shared.inner().snapshot());
                }
                number += 1;
            });
            let ours = init_with(eventful(&storage, before_put), &small_options(), 1);
            let rival = rival.lock().unwrap().take().unwrap();
            let what = format!("a rival before put {at} that dies before change {crash}: {ours:?} {rival:?}");
            assert!(ours.is_ok() != rival.is_ok(), "{what}");
            if let Err(error) = &ours {
                assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{what}");
            }
            let winner = open(storage.clone(), 7).unwrap_or_else(|error| panic!("{what}: {error}"));
            let id = ours.as_ref().ok().or(rival.as_ref().ok()).map(Repository::id);
            assert_eq!(Some(winner.id()), id, "{what}");
            assert_eq!(winner.rotate_root_key().unwrap(), 2, "{what}");
            let winner = open(storage.clone(), 8).unwrap_or_else(|error| panic!("{what}: {error}"));
            let backup = back_up(&winner, 1).unwrap();
            assert_eq!(content(&winner, backup.id).unwrap(), noise(1, LENGTH), "{what}");
            // Only what died while the other took its last step is left; it is named, and harmless.
            if rival.is_ok() || crash == 0 || at + 1 < puts {
                assert_sound(&winner);
            }
        }
    }
}
