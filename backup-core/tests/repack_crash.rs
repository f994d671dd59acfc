//! Repacking and collecting while processes die, storages fail, and others back up: at every single operation.

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use backup_core::ErrorKind;
use backup_core::id::BackupId;
use backup_core::maintenance::{CollectOptions, CollectionState, OpenSessions, RepackOptions};
use backup_core::repository::{LockedRepository, Repository, VerifyLevel, VerifyOptions};
use backup_core::storage::fault::FaultStorage;
use backup_core::storage::{MemoryStorage, Storage};
use support::faults::faulty_runs;
use support::forger::keys_of;
use support::hooked::Hooked;
use support::{
    assert_sound, control, environment, init_with, is_full_campaign, memory, noise, open, options, path, small_options,
};

fn content(number: u64) -> Vec<u8> {
    [noise(0, 30_000), noise(number, 60_000)].concat()
}

fn back_up(repository: &Repository, number: u64) -> backup_core::Result<BackupId> {
    let mut session = repository.begin(options(1))?;
    session.add_stream(path("data"), &mut content(number).as_slice())?;
    Ok(session.commit()?.id)
}

/// Every process has randomness of its own.
fn seed() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(100);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The first of three backups, whose packs have what all share, is to be forgotten; so packs become mostly dead.
struct Base {
    storage: MemoryStorage,
    made: Vec<BackupId>,
}

fn base() -> Base {
    let storage = memory();
    let options = small_options().with_pack_target(256 << 10);
    let repository = init_with(storage.clone(), &options, 1).unwrap();
    let made: Vec<BackupId> = (1..=3).map(|number| back_up(&repository, number).unwrap()).collect();
    repository.forget(&made[..1], &control(1)).unwrap();
    Base { storage: (*storage).clone(), made }
}

/// Repacks and collects, as one process.
fn process(storage: Arc<dyn Storage>) -> backup_core::Result<CollectionState> {
    let repository = open(storage, seed())?;
    repository.repack(&RepackOptions::default(), &control(1))?;
    let options = CollectOptions::default().with_open_sessions(OpenSessions::RevokeAll);
    Ok(repository.collect(&options, &control(1))?.state)
}

impl Base {
    /// Whatever happened: every backup is there under the id that was written down, the next process comes to the end, and
    /// nothing is left over.
    fn check(&self, storage: &Arc<MemoryStorage>, more: &[(BackupId, u64)], what: &str) {
        let expected: Vec<(BackupId, u64)> =
            self.made.iter().copied().zip(1..).skip(1).chain(more.iter().copied()).collect();
        let restores = || {
            let repository = open(storage.clone(), seed()).unwrap();
            assert_eq!(repository.backups().unwrap().len(), expected.len(), "{what}");
            for (id, number) in &expected {
                let found = repository.find_backup(&id.to_string());
                let backup = found.unwrap_or_else(|error| panic!("{what}: {error}"));
                let mut out = Vec::new();
                let entry = repository.entry(&backup, &path("data")).unwrap();
                let restored = repository.restore_stream(&entry, &mut out, &control(1));
                restored.unwrap_or_else(|error| panic!("{what}: {}", support::chain(&error)));
                assert!(out == content(*number), "{what}: backup {number} differs");
            }
            let everybody = LockedRepository::open(storage.clone(), environment(seed())).unwrap();
            let seen = everybody.verify(&VerifyOptions::new(VerifyLevel::Bytes), &control(1)).unwrap();
            assert!(seen.ok, "{what}: {:#?}", seen.findings);
            repository
        };
        restores();
        for _ in 0..3 {
            let state = process(storage.clone()).unwrap_or_else(|error| {
                panic!("{what}: the next process: {}", support::chain(&error));
            });
            assert_eq!(state, CollectionState::Finished, "{what}");
        }
        let repository = restores();
        assert_sound(&repository);
        let plan = repository.plan_repack(&RepackOptions::default(), &control(1)).unwrap();
        assert_eq!((plan.replaced.packs, plan.backups, plan.problems.len()), (0, 0, 0), "{what}: {plan:?}");
        let plan = repository.plan_collection(&CollectOptions::default(), &control(1)).unwrap();
        assert_eq!((plan.dead.packs, plan.later.packs, plan.open_sessions.len()), (0, 0, 0), "{what}: {plan:?}");
        assert_eq!(keys_of(storage, "bodies/").len(), expected.len(), "{what}");
        support::assert_closures_name_packs(storage, what);
        assert_eq!(keys_of(storage, "sessions/"), [], "{what}");
    }
}

/// Every operation, or in an ordinary run every third, which is enough to meet each kind of them.
fn operations(count: u64) -> impl Iterator<Item = u64> {
    (0..count).step_by(if is_full_campaign() { 1 } else { 3 })
}

#[test]
fn a_process_may_die_and_a_storage_may_fail_at_every_operation() {
    let base = base();
    let counted = Arc::new(FaultStorage::new(base.storage.clone()));
    assert_eq!(process(counted.clone()).unwrap(), CollectionState::Finished);
    let survivors = Arc::new(counted.inner().clone());
    base.check(&survivors, &[], "undisturbed");
    let log = counted.log();
    assert!(log.len() > 80, "{}", log.len());
    let mut cases = 0;
    for (what, storage) in faulty_runs(&log, &base.storage) {
        match process(storage.clone()) {
            Ok(state) => assert_eq!(state, CollectionState::Finished, "{what}"),
            Err(error) => assert!(
                matches!(error.kind(), ErrorKind::Storage | ErrorKind::UnknownOutcome),
                "{what}: {}",
                support::chain(&error)
            ),
        }
        let survivors = Arc::new(storage.inner().clone());
        drop(storage);
        base.check(&survivors, &[], &what);
        cases += 1;
    }
    assert!(cases > 50, "{cases}");
}

#[test]
fn a_backup_is_made_at_every_moment_of_a_repacking() {
    let base = base();
    let counted = Arc::new(FaultStorage::new(base.storage.clone()));
    process(counted.clone()).unwrap();
    for at in operations(counted.log().len() as u64) {
        let storage = Arc::new(base.storage.clone());
        let made = Arc::new(Mutex::new(None));
        let (theirs, place) = (storage.clone(), made.clone());
        // It has what the forgotten one had: as much as possible of what is going is found.
        let hook = move || {
            let id = back_up(&open(theirs, seed()).unwrap(), 1);
            *place.lock().unwrap() = Some(id.unwrap());
        };
        let hooked = Hooked::new(&storage, at, Box::new(hook));
        let what = format!("before operation {at}");
        if let Err(error) = process(hooked) {
            assert_eq!(error.kind(), ErrorKind::Conflict, "{what}: {}", support::chain(&error));
        }
        let id = made.lock().unwrap().take().unwrap_or_else(|| panic!("operation {at} did not happen"));
        base.check(&storage, &[(id, 1)], &what);
    }
}

#[test]
fn a_repacking_runs_at_every_moment_of_a_backup() {
    let base = base();
    let counted = Arc::new(FaultStorage::new(base.storage.clone()));
    back_up(&open(counted.clone(), seed()).unwrap(), 1).unwrap();
    for revoke in [true, false] {
        for at in operations(counted.log().len() as u64) {
            let storage = Arc::new(base.storage.clone());
            let theirs = storage.clone();
            let hook = move || {
                if revoke {
                    process(theirs).unwrap();
                } else {
                    let repository = open(theirs, seed()).unwrap();
                    repository.repack(&RepackOptions::default(), &control(1)).unwrap();
                    repository.collect(&CollectOptions::default(), &control(1)).unwrap();
                }
            };
            let hooked = Hooked::new(&storage, at, Box::new(hook));
            let what = format!("before operation {at}, revoking {revoke}");
            let more = match open(hooked, seed()).and_then(|repository| back_up(&repository, 1)) {
                Ok(id) => vec![(id, 1)],
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Conflict, "{what}: {}", support::chain(&error));
                    Vec::new()
                }
            };
            base.check(&storage, &more, &what);
        }
    }
}

/// A repacker that sleeps while others repack and collect, once or often.
#[test]
fn a_repacker_that_slept_replaces_nothing_that_is_gone() {
    let base = base();
    let counted = Arc::new(FaultStorage::new(base.storage.clone()));
    process(counted.clone()).unwrap();
    for rounds in 1..=2 {
        for at in operations(counted.log().len() as u64) {
            let storage = Arc::new(base.storage.clone());
            let theirs = storage.clone();
            let hook = move || {
                for _ in 0..rounds {
                    process(theirs.clone()).unwrap();
                }
            };
            let hooked = Hooked::new(&storage, at, Box::new(hook));
            let what = format!("{rounds} rounds before operation {at}");
            if let Err(error) = process(hooked) {
                assert_eq!(error.kind(), ErrorKind::Conflict, "{what}: {}", support::chain(&error));
            }
            base.check(&storage, &[], &what);
        }
    }
}
