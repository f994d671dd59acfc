//! Processes that die and storages that fail, at every single operation.

mod support;

use std::sync::Arc;

use backup_core::ErrorKind;
use backup_core::crypto::Argon2Parameters;
use backup_core::id::BackupId;
use backup_core::keys::Credential;
use backup_core::repository::{BackupStatistics, Parent, Repository, VerifyLevel};
use backup_core::secret::Password;
use backup_core::storage::fault::{Fault, FaultStorage, Operation, OperationKind};
use backup_core::storage::{Key, MemoryStorage, PutMode, Storage, StorageError, list_all};
use support::tree::{Made, Node, Target, Tree};
use support::{
    assert_sound, control, environment, init_with, memory, noise, open, options, path, small_options, verify,
};

/// What backup number `number` holds: a stream, an image with a hole, two small files.
struct Data {
    stream: Vec<u8>,
    image: Vec<u8>,
    note: Vec<u8>,
}

fn data(number: u64) -> Data {
    let mut stream = noise(1, 300_000);
    stream.extend(noise(100 + number, 150_000));
    let mut image = noise(2, 400_000);
    image[100_000..300_000].fill(0);
    let at = 10_000 * (1 + number as usize);
    image[at..at + 10].fill(number as u8 + 1);
    Data { stream, image, note: format!("note {number}").into_bytes() }
}

impl Data {
    fn nodes(&self) -> Vec<Node> {
        vec![
            Node::directory("files"),
            Node::file("files/image", self.image.clone()).image().with_hole(131_072, 131_072),
            Node::file("files/note", self.note.clone()),
            Node::file("files/same", &b"the same in all backups"[..]),
        ]
    }
}

fn back_up(repository: &Repository, number: u64, threads: usize) -> backup_core::Result<(BackupId, BackupStatistics)> {
    let data = data(number);
    let mut session = repository.begin(options(threads))?;
    session.add_stream(path("dump"), &mut data.stream.as_slice())?;
    session.add_tree(&mut Tree::new(data.nodes()))?;
    let backup = session.commit()?;
    Ok((backup.id, backup.statistics))
}

/// Restores a backup and compares it with what it must hold.
fn restore(repository: &Repository, name: &str, number: u64, threads: usize) -> backup_core::Result<()> {
    let data = data(number);
    let backup = repository.find_backup(name)?;
    let mut dump = Vec::new();
    let entry = repository.entry(&backup, &path("dump"))?;
    repository.restore_stream(&entry, &mut dump, &control(threads))?;
    assert!(dump == data.stream, "the stream of backup {number} differs");
    let target = Target::default();
    let report = repository.restore_tree(&backup, &Default::default(), &target, &control(threads))?;
    if !report.is_complete() {
        // The storage failed below a file: that is the error that is looked for.
        return Err(backup_core::Error::Damaged {
            what: "file",
            name: report.problems[0].name.clone(),
            reason: report.problems[0].message.clone(),
        });
    }
    let made = target.into_map();
    let content = |name: &str| match &made[&path(name)] {
        Made::Content(bytes, _) => bytes.as_slice(),
        other => panic!("{name} is {other:?}"),
    };
    assert!(content("files/image") == data.image, "the image of backup {number} differs");
    assert!(content("files/note") == data.note);
    Ok(())
}

/// One process: two backups, the second is restored. `committed` learns of every backup that was acknowledged.
fn process(
    storage: &Arc<dyn Storage>,
    committed: &mut Vec<BackupId>,
    threads: usize,
) -> backup_core::Result<Vec<BackupStatistics>> {
    let repository = open(Arc::clone(storage), 5)?;
    let mut statistics = Vec::new();
    for number in 0..2 {
        let (id, amounts) = back_up(&repository, number, threads)?;
        committed.push(id);
        statistics.push(amounts);
    }
    restore(&repository, "latest", 1, threads)?;
    Ok(statistics)
}

fn initialized() -> MemoryStorage {
    let storage = memory();
    init_with(storage.clone(), &small_options(), 1).unwrap();
    (*storage).clone()
}

/// The operations of a process without faults, and what its backups counted.
fn undisturbed(base: &MemoryStorage) -> (Vec<Operation>, Vec<BackupStatistics>) {
    let storage = Arc::new(FaultStorage::new(base.clone()));
    let shared: Arc<dyn Storage> = storage.clone();
    let statistics = process(&shared, &mut Vec::new(), 1).unwrap();
    (storage.log(), statistics)
}

fn packs(storage: &MemoryStorage) -> usize {
    list_all(storage, "packs/").unwrap().len()
}

fn is_outcome(operation: &Operation) -> bool {
    operation.kind == OperationKind::Put && operation.key.ends_with("/outcome")
}

/// What the next process must find, whatever became of the last one.
fn check_survivors(
    storage: MemoryStorage,
    committed: &[BackupId],
    maybe_one_more: bool,
    torn: bool,
    what: &str,
) -> u64 {
    let storage = Arc::new(storage);
    let repository = open(storage.clone(), 6).unwrap();
    let found: Vec<BackupId> = repository.backups().unwrap().iter().map(|backup| backup.id).collect();
    assert!(found.starts_with(committed), "{what}: {committed:?} became {found:?}");
    let more = found.len() - committed.len();
    assert!(more == 0 || (maybe_one_more && more == 1), "{what}: a backup appeared from nowhere");
    for (number, id) in found.iter().enumerate() {
        restore(&repository, &id.to_string(), number as u64, 1).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    // A torn outcome is not hidden; everything else that a dead session left behind is no damage.
    let report = verify(&repository, VerifyLevel::Content).unwrap();
    assert_eq!(report.ok, !torn, "{what}: {report:#?}");

    // The same once more: it works, uses what was uploaded, and is sound.
    let before = packs(&storage);
    let next = (found.len() as u64).min(1);
    let (id, amounts) = back_up(&repository, next, 1).unwrap_or_else(|error| panic!("{what}: {error}"));
    restore(&repository, &id.to_string(), next, 1).unwrap_or_else(|error| panic!("{what}: {error}"));
    let report = verify(&repository, VerifyLevel::Content).unwrap();
    assert_eq!(report.ok, !torn, "{what}: {report:#?}");
    assert!(amounts.bytes_new > 0 || packs(&storage) <= before + 1, "{what}: only pages are new");
    amounts.bytes_new
}

#[test]
fn a_crash_at_any_operation_leaves_what_was_committed_and_the_next_backup_works() {
    let base = initialized();
    let (log, statistics) = undisturbed(&base);
    assert!(statistics[0].bytes_new > 500_000 && statistics[1].bytes_new > 150_000, "{statistics:?}");
    let whole = statistics[0].bytes_new;
    let mut last_new = whole;
    let mut reused = 0;
    for operation in &log {
        let mut faults = vec![Fault::CrashBefore];
        if operation.kind.is_change() {
            faults.extend([Fault::CrashAfter, Fault::Tear { keep: 100 }]);
        }
        for fault in faults {
            let what = format!("{fault:?} at {} {:?} {}", operation.number, operation.kind, operation.key);
            let storage = Arc::new(FaultStorage::at(base.clone(), operation.number, fault));
            let shared: Arc<dyn Storage> = storage.clone();
            let mut committed = Vec::new();
            let error = process(&shared, &mut committed, 1).expect_err(&what);
            assert!(storage.is_crashed());
            if is_outcome(operation) {
                assert_eq!(error.kind(), ErrorKind::UnknownOutcome, "{what}: {error}");
            }
            drop(shared);
            let storage = Arc::into_inner(storage).unwrap().into_inner();
            let uploaded = packs(&storage);
            // After the put of the outcome the backup is there, acknowledged or not.
            let unacknowledged = committed.len() < 2 && {
                let outcomes = list_all(&storage, "sessions/").unwrap();
                let outcomes = outcomes.iter().filter(|object| object.key.as_str().ends_with("/outcome")).count();
                outcomes > committed.len() && !matches!(fault, Fault::Tear { .. })
            };
            let torn = is_outcome(operation) && matches!(fault, Fault::Tear { .. });
            let new = check_survivors(storage, &committed, unacknowledged, torn, &what);
            if committed.is_empty() && !unacknowledged {
                assert!(new == whole || uploaded > 0, "{what}");
                // A torn pack is not used.
                if !matches!(fault, Fault::Tear { .. }) {
                    assert!(new <= last_new, "{what}: what an earlier crash left was reused, this not");
                    assert!(uploaded == 0 || new < whole, "{what}: nothing of {uploaded} packs was reused");
                    last_new = new;
                }
                reused += usize::from(new < whole);
            }
        }
    }
    assert_eq!(last_new, 0, "a session that died directly before its commit had uploaded everything");
    assert!(reused > 10);
}

#[test]
fn a_crash_with_several_threads_leaves_what_was_committed() {
    let base = initialized();
    let (log, _) = undisturbed(&base);
    let changes = log.last().unwrap().changes_before;
    for number in (0..changes).step_by(3) {
        for fault in [Fault::CrashBefore, Fault::CrashAfter] {
            let what = format!("{fault:?} at change {number}");
            let storage = Arc::new(FaultStorage::crash_at_change(base.clone(), number, fault));
            let shared: Arc<dyn Storage> = storage.clone();
            let mut committed = Vec::new();
            if process(&shared, &mut committed, 3).is_err() {
                drop(shared);
                let storage = Arc::into_inner(storage).unwrap().into_inner();
                check_survivors(storage, &committed, true, false, &what);
            }
        }
    }
}

/// Whether an error, with its sources, says which object it is about.
fn names(error: &backup_core::Error, operation: &Operation, log: &[Operation]) -> bool {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    if error.kind() == ErrorKind::UnknownOutcome {
        // Named by its session, which is part of the key of its outcome.
        return log
            .iter()
            .filter_map(|known| known.key.strip_suffix("/outcome")?.rsplit('/').next())
            .any(|session| session.len() == 32 && text.contains(session));
    }
    text.contains(&operation.key)
}

#[test]
fn an_error_at_any_operation_names_the_object_and_commits_nothing() {
    let base = initialized();
    let (log, _) = undisturbed(&base);
    let errors: [fn(&Operation) -> StorageError; 3] = [
        |_| StorageError::Other("injected".into()),
        |_| StorageError::Transient("injected".into()),
        |_| StorageError::Full("injected".into()),
    ];
    for operation in &log {
        for (number, error) in errors.into_iter().enumerate() {
            let faults = [Fault::FailBefore, Fault::FailAfter];
            for fault in faults.into_iter().take(if operation.kind.is_change() { 2 } else { 1 }) {
                // A full storage still reads.
                if number == 2 && !operation.kind.is_change() {
                    continue;
                }
                let what = format!("{fault:?}/{number} at {} {:?} {}", operation.number, operation.kind, operation.key);
                let storage = Arc::new(FaultStorage::at(base.clone(), operation.number, fault).with_error(error));
                let shared: Arc<dyn Storage> = storage.clone();
                let mut committed = Vec::new();
                let result = process(&shared, &mut committed, 1);
                let expected = if let Err(error) = &result {
                    assert!(names(error, operation, &log), "{what}: {error}");
                    let unknown = error.kind() == ErrorKind::UnknownOutcome;
                    let storage_or_unknown = unknown || matches!(error.kind(), ErrorKind::Storage | ErrorKind::Damaged);
                    assert!(storage_or_unknown, "{what}: {error}");
                    usize::from(unknown)
                } else {
                    assert_eq!(committed.len(), 2, "{what}");
                    0
                };
                // The process goes on with the same handle, as nothing is broken any more.
                let repository = open(shared, 7).unwrap();
                let found = repository.backups().unwrap().len();
                assert!((committed.len()..=committed.len() + expected).contains(&found), "{what}: {found}");
                for backup in 0..found {
                    let id = repository.backups().unwrap()[backup].id.to_string();
                    restore(&repository, &id, backup as u64, 1).unwrap_or_else(|error| panic!("{what}: {error}"));
                }
                if operation.number % 4 == 0 {
                    assert_sound(&repository);
                    back_up(&repository, 1, 1).unwrap_or_else(|error| panic!("{what}: {error}"));
                    restore(&repository, "latest", 1, 1).unwrap_or_else(|error| panic!("{what}: {error}"));
                }
            }
        }
    }
}

#[test]
fn a_lost_answer_to_the_commit_is_found_out() {
    let base = initialized();
    let (log, _) = undisturbed(&base);
    let outcome = log.iter().find(|operation| is_outcome(operation)).unwrap().number;
    // The commit arrived and the answer did not: the slot is read, and the backup acknowledged.
    let storage: Arc<dyn Storage> = Arc::new(FaultStorage::at(base.clone(), outcome, Fault::FailAfter));
    let mut committed = Vec::new();
    process(&storage, &mut committed, 1).unwrap();
    assert_eq!(committed.len(), 2);
    // It did not arrive, and the storage cannot promise that it never will.
    let storage: Arc<dyn Storage> = Arc::new(FaultStorage::at(base.clone(), outcome, Fault::FailBefore));
    let error = process(&storage, &mut Vec::new(), 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownOutcome, "{error}");
    // The storage said that it did not take it.
    let full = FaultStorage::at(base.clone(), outcome, Fault::FailBefore)
        .with_error(|_| StorageError::Full("no space".into()));
    let storage: Arc<dyn Storage> = Arc::new(full);
    let error = process(&storage, &mut Vec::new(), 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage, "{error}");
    // The commit arrived, and what came after it failed (step W5): nobody may say that it is valid.
    let storage: Arc<dyn Storage> = Arc::new(FaultStorage::at(base, outcome + 1, Fault::FailBefore));
    let error = process(&storage, &mut Vec::new(), 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownOutcome, "{error}");
    assert_eq!(open(storage, 8).unwrap().backups().unwrap().len(), 1);
}

#[test]
fn a_session_is_of_no_use_after_a_failure_and_its_handle_is() {
    let base = initialized();
    let storage = Arc::new(FaultStorage::new(base));
    let shared: Arc<dyn Storage> = storage.clone();
    let repository = open(shared, 5).unwrap();
    let mut session = repository.begin(options(1)).unwrap();
    storage.set_script(|operation| if operation.kind == OperationKind::Put { Fault::FailBefore } else { Fault::None });
    let error = session.add_stream(path("dump"), &mut noise(1, 300_000).as_slice()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage);
    storage.set_script(|_| Fault::None);
    // What it claimed to have stored is not there: neither more content nor a commit is taken.
    assert!(session.add_stream(path("other"), &mut noise(1, 300_000).as_slice()).is_err());
    assert!(session.commit().is_err());
    assert!(repository.backups().unwrap().is_empty());
    back_up(&repository, 0, 1).unwrap();
    restore(&repository, "latest", 0, 1).unwrap();
    assert_sound(&repository);

    // The same with a writer that is pushed, which a caller may drop without looking at its error.
    let mut session = repository.begin(options(1)).unwrap();
    storage.set_script(|operation| if operation.kind == OperationKind::Put { Fault::FailBefore } else { Fault::None });
    let mut writer = session.stream_writer(path("pushed")).unwrap();
    let failed = writer.push(&noise(7, 20 << 20)).is_err();
    assert!(failed);
    drop(writer);
    storage.set_script(|_| Fault::None);
    let error = session.commit().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert_eq!(repository.backups().unwrap().len(), 1);
    assert_sound(&repository);
}

#[test]
fn a_refused_init_leaves_nothing() {
    let storage = memory();
    let (empty, password) = (Password::from(""), Password::from("x"));
    let good = small_options();
    let mut weak = Argon2Parameters::minimum_for_tests();
    weak.memory_kib = 1;
    for (password, options) in [
        (&empty, good.clone()),
        (&password, good.clone().with_slot_label("x".repeat(64))),
        (&password, good.clone().with_argon2(weak)),
        (&password, good.clone().with_pack_target(1)),
    ] {
        let credential = Credential::from(password);
        let error = Repository::init(storage.clone(), &credential, &options, environment(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(storage.snapshot().is_empty());
    }
    init_with(storage, &good, 1).unwrap();
}

/// A put of `config` whose answer is lost is looked up, as that of a commit is.
#[test]
fn an_init_whose_last_answer_is_lost_is_whole() {
    let is_config = |operation: &Operation| operation.kind == OperationKind::Put && operation.key == "config";
    let script = move |operation: &Operation| if is_config(operation) { Fault::FailAfter } else { Fault::None };
    let storage = Arc::new(FaultStorage::with_script(MemoryStorage::new(), script));
    let repository = init_with(storage.clone(), &small_options(), 1).unwrap();
    back_up(&repository, 0, 1).unwrap();
    open(storage, 2).unwrap();
    let script = move |operation: &Operation| if is_config(operation) { Fault::FailBefore } else { Fault::None };
    let storage = Arc::new(FaultStorage::with_script(MemoryStorage::new(), script));
    assert_eq!(init_with(storage, &small_options(), 1).unwrap_err().kind(), ErrorKind::Storage);
}

/// A repository that lost its config is not taken for an empty place.
#[test]
fn nothing_is_created_over_the_remains_of_a_repository() {
    let storage = memory();
    back_up(&init_with(storage.clone(), &small_options(), 1).unwrap(), 0, 1).unwrap();
    storage.delete(&Key::new("config").unwrap()).unwrap();
    let before = storage.snapshot();
    for prefix in ["packs/", "sessions/", "collections/"] {
        storage.restore(before.clone());
        for key in before.keys().filter(|key| !key.as_str().starts_with(prefix) && !key.as_str().starts_with("key")) {
            storage.delete(key).unwrap();
        }
        if prefix == "collections/" {
            storage.put(&Key::new("collections/00000001/outcome").unwrap(), "x".into(), PutMode::Create).unwrap();
        }
        let remains = storage.snapshot();
        let error = init_with(storage.clone(), &small_options(), 3).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
        assert!(error.to_string().contains(prefix), "{error}");
        assert_eq!(storage.snapshot(), remains);
    }
}

#[test]
fn a_session_that_did_not_begin_leaves_no_mark() {
    let base = initialized();
    let storage = Arc::new(FaultStorage::new(base.clone()));
    let repository = open(storage.clone(), 5).unwrap();
    let stranger = options(1).with_parent(Parent::Backup(BackupId::new([7; 32])));
    assert_eq!(repository.begin(stranger).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(repository.status().unwrap().unfinished_sessions.is_empty());
    // Wherever the storage fails while a session begins.
    let first = storage.operations();
    repository.begin(options(1)).unwrap().abort();
    for number in first..storage.operations() {
        let storage = Arc::new(FaultStorage::new(base.clone()));
        let repository = open(storage.clone(), 5).unwrap();
        let failing = storage.operations() + number - first;
        storage.set_script(move |operation| if operation.number == failing { Fault::FailBefore } else { Fault::None });
        let began = repository.begin(options(1)).is_ok();
        let left = repository.status().unwrap().unfinished_sessions.len();
        assert_eq!(left, usize::from(began), "operation {number}");
    }
}

/// What a crashed session uploaded and nobody uses is looked at once, not by every session from then on.
#[test]
fn unused_packs_of_a_crashed_session_are_looked_at_once() {
    let storage = Arc::new(FaultStorage::new(initialized()));
    let repository = open(storage.clone(), 5).unwrap();
    let mut session = repository.begin(options(1)).unwrap();
    session.add_stream(path("dump"), &mut noise(99, 900_000).as_slice()).unwrap();
    session.abort();
    let orphans = list_all(&*storage, "packs/").unwrap();
    assert!(orphans.len() > 5);
    let looks = |number: u64| {
        let before = storage.operations() as usize;
        back_up(&repository, number, 1).unwrap();
        let log = storage.log().split_off(before);
        let is_look = |operation: &&Operation| orphans.iter().any(|orphan| orphan.key.as_str() == operation.key);
        log.iter().filter(is_look).count()
    };
    assert_eq!(looks(0), orphans.len(), "one read has header and directory");
    assert_eq!(looks(1), 0);
    assert_sound(&repository);
    // They serve whoever needs them later.
    let mut session = repository.begin(options(1)).unwrap();
    session.add_stream(path("dump"), &mut noise(99, 900_000).as_slice()).unwrap();
    let amounts = session.commit().unwrap().statistics;
    assert!(amounts.chunks > 30 && amounts.chunks_new < 10, "all but what was in open packs: {amounts:?}");
    assert_sound(&repository);
}
