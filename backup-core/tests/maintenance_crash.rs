//! Forgetting and collecting while processes die, storages fail, and others do the same or back up: at every single
//! operation.

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use backup_core::ErrorKind;
use backup_core::id::BackupId;
use backup_core::keys::MaintenanceKey;
use backup_core::maintenance::{CollectOptions, CollectionReport, CollectionState, OpenSessions};
use backup_core::repository::{LockedRepository, Repository, VerifyLevel, VerifyOptions};
use backup_core::storage::fault::FaultStorage;
use backup_core::storage::{MemoryStorage, Storage};
use support::faults::faulty_runs;
use support::forger::keys_of;
use support::hooked::Hooked;
use support::{
    assert_sound, control, environment, init_with, is_full_campaign, memory, noise, open, options, path, small_options,
};

/// Backups share a part of their content.
fn content(number: u64) -> Vec<u8> {
    [noise(0, 40_000), noise(number, 60_000)].concat()
}

fn back_up(repository: &Repository, number: u64) -> backup_core::Result<BackupId> {
    let mut session = repository.begin(options(1))?;
    session.add_stream(path("data"), &mut content(number).as_slice())?;
    Ok(session.commit()?.id)
}

fn assert_restores(repository: &Repository, id: BackupId, number: u64, what: &str) {
    let backup = repository.find_backup(&id.to_string()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut out = Vec::new();
    let entry = repository.entry(&backup, &path("data")).unwrap();
    let restored = repository.restore_stream(&entry, &mut out, &control(1));
    restored.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(out == content(number), "{what}: backup {number} differs");
}

/// Three backups, the second of which is to be forgotten; what a crashed session left, and its mark.
struct Base {
    storage: MemoryStorage,
    made: Vec<BackupId>,
    key: MaintenanceKey,
}

fn base() -> Base {
    let storage = memory();
    let repository = init_with(storage.clone(), &small_options(), 1).unwrap();
    let made = (1..=3).map(|number| back_up(&repository, number).unwrap()).collect();
    let mut crashed = open(storage.clone(), 2).unwrap().begin(options(1)).unwrap();
    crashed.add_stream(path("data"), &mut content(9).as_slice()).unwrap();
    drop(crashed);
    let key = repository.maintenance_key().unwrap();
    Base { storage: (*storage).clone(), made, key }
}

/// Every process has randomness of its own.
fn seed() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(100);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn locked(storage: Arc<dyn Storage>) -> backup_core::Result<LockedRepository> {
    LockedRepository::open(storage, environment(seed()))
}

fn revoking() -> CollectOptions {
    CollectOptions::default().with_open_sessions(OpenSessions::RevokeAll)
}

impl Base {
    /// Forgets the second backup and collects, as one process. With the password, or with the key alone.
    fn process(&self, storage: Arc<dyn Storage>, has_password: bool) -> backup_core::Result<CollectionReport> {
        let control = control(1);
        if has_password {
            let repository = open(storage, seed())?;
            repository.forget(&self.made[1..2], &control)?;
            repository.collect(&revoking(), &control)
        } else {
            let repository = locked(storage)?;
            repository.forget(&self.key, &self.made[1..2], &control)?;
            repository.collect(&self.key, &revoking(), &control)
        }
    }

    fn collect(&self, storage: &Arc<MemoryStorage>, options: &CollectOptions) -> backup_core::Result<CollectionReport> {
        locked(storage.clone())?.collect(&self.key, options, &control(1))
    }

    /// Whatever happened: what must be there is there, another process comes to the end, and then nothing is left
    /// over.
    fn check(&self, storage: &Arc<MemoryStorage>, more: &[(BackupId, u64)], what: &str) {
        let repository = open(storage.clone(), seed()).unwrap();
        let expected = |repository: &Repository| {
            assert_restores(repository, self.made[0], 1, what);
            assert_restores(repository, self.made[2], 3, what);
            more.iter().for_each(|(id, number)| assert_restores(repository, *id, *number, what));
        };
        expected(&repository);
        let before: BTreeSet<BackupId> = repository.backups().unwrap().iter().map(|backup| backup.id).collect();
        let report = self
            .process(storage.clone(), true)
            .and_then(|_| self.process(storage.clone(), true))
            .unwrap_or_else(|error| panic!("{what}: the next collection: {}", support::chain(&error)));
        assert_eq!(report.state, CollectionState::Finished, "{what}");
        let repository = open(storage.clone(), seed()).unwrap();
        let after: BTreeSet<BackupId> = repository.backups().unwrap().iter().map(|backup| backup.id).collect();
        assert_eq!(before.difference(&after).filter(|id| **id != self.made[1]).count(), 0, "{what}");
        assert!(!after.contains(&self.made[1]), "{what}");
        expected(&repository);
        assert_sound(&repository);
        let everybody = locked(storage.clone()).unwrap();
        let seen = everybody.verify(&VerifyOptions::new(VerifyLevel::Bytes), &control(1)).unwrap();
        assert!(seen.ok, "{what}: {:#?}", seen.findings);
        // Nothing is left that no backup needs.
        let plan = everybody.plan_collection(&CollectOptions::default(), &control(1)).unwrap();
        assert_eq!((plan.dead.packs, plan.later.packs, plan.open_sessions.len()), (0, 0, 0), "{what}: {plan:?}");
        assert_eq!(keys_of(storage, "bodies/").len(), after.len(), "{what}");
        assert_eq!(keys_of(storage, "closures/").len(), after.len(), "{what}");
        assert!(keys_of(storage, "index/").len() <= after.len() + 1, "{what}: {:?}", keys_of(storage, "index/"));
        assert_eq!(keys_of(storage, "sessions/"), [], "{what}");
        let (outcomes, rest): (Vec<_>, Vec<_>) =
            keys_of(storage, "collections/").into_iter().partition(|key| key.as_str().ends_with("/outcome"));
        assert!(!outcomes.is_empty() && rest.len() == 2, "{what}: {rest:?}");
        assert_eq!(keys_of(storage, "forgets/").len(), 1, "{what}");
    }
}

/// Every operation, or in an ordinary run every third, which is enough to meet each kind of them.
fn operations(count: u64) -> impl Iterator<Item = u64> {
    (0..count).step_by(if is_full_campaign() { 1 } else { 3 })
}

#[test]
fn a_process_may_die_and_a_storage_may_fail_at_every_operation() {
    let base = base();
    for has_password in [true, false] {
        let counted = Arc::new(FaultStorage::new(base.storage.clone()));
        base.process(counted.clone(), has_password).unwrap();
        let log = counted.log();
        assert!(log.len() > 60, "{}", log.len());
        for (what, storage) in faulty_runs(&log, &base.storage) {
            match base.process(storage.clone(), has_password) {
                Ok(report) => assert_eq!(report.state, CollectionState::Finished, "{what}"),
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::Storage | ErrorKind::UnknownOutcome), "{what}: {error}");
                }
            }
            let survivors = Arc::new(storage.inner().clone());
            drop(storage);
            base.check(&survivors, &[], &what);
        }
    }
}

/// Looks at what the outer and the inner process left.
type Check<'c> = &'c dyn Fn(&Arc<MemoryStorage>, Outcome, Outcome, &str);

/// Runs `outer`, with `inner` in one go before each of its operations in turn.
fn interleaved(
    base: &Base,
    outer: &dyn Fn(Arc<Hooked>) -> Outcome,
    inner: &(dyn Fn(&Arc<MemoryStorage>) -> Outcome + Sync),
    check: Check<'_>,
) {
    let count = {
        let storage = Arc::new(base.storage.clone());
        let hooked = Hooked::new(&storage, u64::MAX, Box::new(|| ()));
        outer(hooked.clone());
        hooked.count()
    };
    assert!(count > 20);
    for at in operations(count) {
        let storage = Arc::new(base.storage.clone());
        let result = Arc::new(Mutex::new(None));
        std::thread::scope(|scope| {
            // The other process runs on a thread that the hook waits for.
            let (go, wait) = std::sync::mpsc::channel::<()>();
            let (done, ready) = std::sync::mpsc::channel::<()>();
            let (theirs, place) = (storage.clone(), result.clone());
            scope.spawn(move || {
                if wait.recv().is_ok() {
                    *place.lock().unwrap() = Some(inner(&theirs));
                }
                drop(done);
            });
            let hook = Box::new(move || {
                go.send(()).unwrap();
                // It ends when the other side is gone.
                let _ = ready.recv();
            });
            let hooked = Hooked::new(&storage, at, hook);
            let outcome = outer(hooked.clone());
            drop(hooked);
            let inner = result.lock().unwrap().take();
            let inner = inner.unwrap_or_else(|| panic!("operation {at} did not happen"));
            check(&storage, outcome, inner, &format!("before operation {at}"));
        });
    }
}

/// What became of a process: the backup that it made, or how far its collection came.
#[derive(Debug)]
enum Outcome {
    Backup(backup_core::Result<BackupId>),
    Collection(backup_core::Result<CollectionReport>),
}

impl Outcome {
    /// The backup, if the process acknowledged one; a failure must be that a collection was quicker.
    fn acknowledged(self, number: u64, what: &str) -> Vec<(BackupId, u64)> {
        match self {
            Self::Backup(Ok(id)) => vec![(id, number)],
            Self::Backup(Err(error)) => {
                assert_eq!(error.kind(), ErrorKind::Conflict, "{what}: {}", support::chain(&error));
                Vec::new()
            }
            Self::Collection(Ok(_)) => Vec::new(),
            Self::Collection(Err(error)) => {
                assert_eq!(error.kind(), ErrorKind::Conflict, "{what}: {}", support::chain(&error));
                Vec::new()
            }
        }
    }
}

/// A backup of what the second one has, which is being forgotten: as much as possible is found.
fn writer(storage: Arc<dyn Storage>) -> Outcome {
    Outcome::Backup(open(storage, seed()).and_then(|repository| back_up(&repository, 2)))
}

#[test]
fn a_collection_runs_at_every_moment_of_a_backup() {
    let base = base();
    for options in [revoking(), CollectOptions::default()] {
        interleaved(
            &base,
            &|storage| writer(storage),
            &|storage| {
                let repository = locked(storage.clone()).unwrap();
                repository.forget(&base.key, &base.made[1..2], &control(1)).unwrap();
                Outcome::Collection(base.collect(storage, &options))
            },
            &|storage, outer, inner, what| {
                inner.acknowledged(0, what);
                let more = outer.acknowledged(2, what);
                base.check(storage, &more, what);
            },
        );
    }
}

#[test]
fn a_backup_is_made_at_every_moment_of_a_collection() {
    let base = base();
    for has_password in [true, false] {
        interleaved(
            &base,
            &|storage| Outcome::Collection(base.process(storage, has_password)),
            &|storage| writer(storage.clone()),
            &|storage, outer, inner, what| {
                outer.acknowledged(0, what);
                let more = inner.acknowledged(2, what);
                assert_eq!(more.len(), 1, "{what}: a backup in one go is not disturbed");
                base.check(storage, &more, what);
            },
        );
    }
}

#[test]
fn one_of_two_collectors_wins_at_every_moment() {
    let base = base();
    // The second comes to its end once, or more often: then it deletes the records of the first one's collection.
    for rounds in 1..=3 {
        interleaved(
            &base,
            &|storage| Outcome::Collection(base.process(storage, rounds == 2)),
            &|storage| {
                let mut last = None;
                for _ in 0..rounds {
                    last = Some(base.process(storage.clone(), true));
                }
                Outcome::Collection(last.unwrap())
            },
            &|storage, outer, inner, what| {
                assert!(matches!(&inner, Outcome::Collection(Ok(_))), "{what}: {inner:?}");
                outer.acknowledged(0, what);
                base.check(storage, &[], &format!("{rounds} rounds {what}"));
            },
        );
    }
}

/// Two collectors, and a backup between them that finds what the first one's list condemns.
#[test]
fn a_collector_that_slept_deletes_nothing_that_came_since() {
    let base = base();
    for rounds in 1..=2 {
        let made = Mutex::new(None);
        interleaved(
            &base,
            &|storage| Outcome::Collection(base.process(storage, false)),
            &|storage| {
                for _ in 0..rounds {
                    base.process(storage.clone(), false).unwrap();
                }
                let id = back_up(&open(storage.clone(), seed()).unwrap(), 2).unwrap();
                base.collect(storage, &revoking()).unwrap();
                *made.lock().unwrap() = Some(id);
                Outcome::Backup(Ok(id))
            },
            &|storage, outer, _, what| {
                outer.acknowledged(0, what);
                let id = made.lock().unwrap().take().unwrap();
                base.check(storage, &[(id, 2)], &format!("{rounds} rounds {what}"));
            },
        );
    }
}
