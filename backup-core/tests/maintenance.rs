//! Forgetting and collecting, end to end: what goes, what stays, and who is refused.

mod support;

use std::sync::Arc;
use std::time::Duration;

use backup_core::ErrorKind;
use backup_core::copy::CopyOptions;
use backup_core::id::BackupId;
use backup_core::keys::MaintenanceKey;
use backup_core::maintenance::{CollectOptions, CollectionReport, CollectionState, OpenSessions};
use backup_core::repository::{Backup, LockedRepository, Repository, VerifyLevel, VerifyOptions};
use backup_core::storage::{MemoryStorage, PutMode, Storage};
use support::forger::{get, keys_of, name_of, overwrite};
use support::{
    assert_sound, control, environment, environment_at, init_with, memory, noise, open, options, path, small_options,
};

/// Backups share the first half of their content.
fn content(number: u64) -> Vec<u8> {
    [noise(0, 150_000), noise(number, 150_000)].concat()
}

fn back_up(repository: &Repository, number: u64) -> backup_core::Result<Backup> {
    let mut session = repository.begin(options(1))?;
    session.add_stream(path("data"), &mut content(number).as_slice())?;
    session.commit()
}

fn assert_restores(repository: &Repository, id: BackupId, number: u64) {
    let backup = repository.find_backup(&id.to_string()).unwrap();
    let entry = repository.entry(&backup, &path("data")).unwrap();
    let mut out = Vec::new();
    repository.restore_stream(&entry, &mut out, &control(1)).unwrap();
    assert!(out == content(number), "backup {number} differs");
}

fn new_repository() -> (Arc<MemoryStorage>, Repository) {
    let storage = memory();
    let repository = init_with(storage.clone(), &small_options(), 1).unwrap();
    (storage, repository)
}

fn locked(storage: &Arc<MemoryStorage>) -> LockedRepository {
    LockedRepository::open(storage.clone(), environment(50)).unwrap()
}

/// With the password, or with the key alone.
fn collect(
    repository: &Repository,
    storage: &Arc<MemoryStorage>,
    options: &CollectOptions,
    has_password: bool,
) -> backup_core::Result<CollectionReport> {
    if has_password {
        repository.collect(options, &control(2))
    } else {
        locked(storage).collect(&repository.maintenance_key().unwrap(), options, &control(2))
    }
}

fn revoking() -> CollectOptions {
    CollectOptions::default().with_open_sessions(OpenSessions::RevokeAll)
}

fn ids(repository: &Repository) -> Vec<BackupId> {
    repository.backups().unwrap().iter().map(|backup| backup.id).collect()
}

/// Without the password everything must look right as well.
fn assert_sound_for_everybody(storage: &Arc<MemoryStorage>) {
    let report = locked(storage).verify(&VerifyOptions::new(VerifyLevel::Bytes), &control(1)).unwrap();
    assert!(report.ok, "{:#?}", report.findings);
    assert_sound(&open(storage.clone(), 70).unwrap());
}

#[test]
fn what_only_forgotten_backups_need_goes_and_nothing_else() {
    for has_password in [true, false] {
        let (storage, repository) = new_repository();
        let made: Vec<BackupId> = (1..=4).map(|number| back_up(&repository, number).unwrap().id).collect();
        let before = keys_of(&storage, "packs/").len();
        let report = if has_password {
            repository.forget(&made[1..3], &control(1)).unwrap()
        } else {
            let key = repository.maintenance_key().unwrap();
            locked(&storage).forget(&key, &made[1..3], &control(1)).unwrap()
        };
        assert_eq!(report.forgotten.len(), 2);
        assert_eq!(ids(&repository), [made[0], made[3]], "forgotten backups are not shown");
        assert_eq!(keys_of(&storage, "packs/").len(), before, "until a collection nothing is deleted");

        let plan = locked(&storage).plan_collection(&CollectOptions::default(), &control(1)).unwrap();
        assert_eq!((plan.number, plan.continues, plan.backups, plan.forgotten), (1, false, 2, 2));
        assert!(plan.dead.packs >= 4 && plan.open_sessions.is_empty(), "{plan:?}");
        let done = collect(&repository, &storage, &CollectOptions::default(), has_password).unwrap();
        assert_eq!(done.state, CollectionState::Finished);
        assert_eq!((done.deleted, done.live, done.backups), (plan.dead, plan.live, 2));
        assert_eq!(keys_of(&storage, "packs/").len() as u64, plan.live.packs);
        for prefix in ["sessions/", "probes/"] {
            assert_eq!(keys_of(&storage, prefix), [], "{prefix}");
        }
        assert_eq!(keys_of(&storage, "bodies/").len(), 2);
        assert_eq!(keys_of(&storage, "closures/").len(), 2);
        assert_eq!(keys_of(&storage, "index/").len(), if has_password { 2 } else { 4 });
        assert_sound_for_everybody(&storage);

        let repository = open(storage.clone(), 8).unwrap();
        assert_eq!(ids(&repository), [made[0], made[3]]);
        assert_restores(&repository, made[0], 1);
        assert_restores(&repository, made[3], 4);
        // The repository goes on: what was deleted is stored again, what stayed is found.
        let again = back_up(&repository, 2).unwrap();
        assert!(again.statistics.bytes_new > 100_000, "{:?}", again.statistics);
        assert!(again.statistics.bytes_new < 250_000, "{:?}", again.statistics);
        assert_restores(&repository, again.id, 2);
        let second = collect(&repository, &storage, &CollectOptions::default(), has_password).unwrap();
        assert_eq!((second.number, second.deleted.packs, second.backups), (2, 0, 3));
        // The newest `open` and mark, and all outcomes.
        assert_eq!(keys_of(&storage, "collections/").len(), 4, "{:?}", keys_of(&storage, "collections/"));
        assert_sound_for_everybody(&storage);
        let repository = open(storage.clone(), 9).unwrap();
        assert_eq!(ids(&repository), [made[0], made[3], again.id]);
        for (id, number) in [(made[0], 1), (made[3], 4), (again.id, 2)] {
            assert_restores(&repository, id, number);
        }
    }
}

#[test]
fn everything_can_be_forgotten() {
    let (storage, repository) = new_repository();
    let made: Vec<BackupId> = (1..=2).map(|number| back_up(&repository, number).unwrap().id).collect();
    repository.forget(&made, &control(1)).unwrap();
    collect(&repository, &storage, &CollectOptions::default(), true).unwrap();
    for prefix in ["packs/", "bodies/", "closures/", "sessions/", "index/"] {
        assert_eq!(keys_of(&storage, prefix), [], "{prefix}");
    }
    collect(&repository, &storage, &CollectOptions::default(), true).unwrap();
    assert_eq!(keys_of(&storage, "forgets/"), [], "nobody can name them any more");
    let backup = back_up(&repository, 3).unwrap();
    assert_restores(&open(storage.clone(), 5).unwrap(), backup.id, 3);
    assert_sound_for_everybody(&storage);
}

#[test]
fn forgetting_what_is_not_there_forgets_nothing() {
    let (storage, repository) = new_repository();
    let backup = back_up(&repository, 1).unwrap().id;
    let stranger = BackupId::new([7; 32]);
    let error = repository.forget(&[backup, stranger], &control(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains(&stranger.to_string()), "{error}");
    assert_eq!(ids(&repository), [backup]);
    // Twice is as good as once.
    assert_eq!(repository.forget(&[backup, backup], &control(1)).unwrap().forgotten, [backup]);
    let again = repository.forget(&[backup], &control(1)).unwrap();
    assert_eq!((again.forgotten.len(), again.already_forgotten), (0, vec![backup]));
    assert_eq!(keys_of(&storage, "forgets/").len(), 1);
}

#[test]
fn the_key_of_another_repository_does_nothing() {
    let (storage, repository) = new_repository();
    let backup = back_up(&repository, 1).unwrap().id;
    let other = init_with(memory(), &small_options(), 2).unwrap().maintenance_key().unwrap();
    let before = keys_of(&storage, "");
    let error = locked(&storage).forget(&other, &[backup], &control(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let error = locked(&storage).collect(&other, &revoking(), &control(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(keys_of(&storage, ""), before);
    // The right key, by way of its text.
    let text = repository.maintenance_key().unwrap().to_text().unwrap();
    let key = MaintenanceKey::parse(&text).unwrap();
    locked(&storage).forget(&key, &[backup], &control(1)).unwrap();
    assert_eq!(ids(&repository), []);
}

#[test]
fn a_running_backup_is_waited_for_and_keeps_what_it_found() {
    for has_password in [true, false] {
        let (storage, repository) = new_repository();
        let first = back_up(&repository, 1).unwrap().id;
        let running = open(storage.clone(), 3).unwrap();
        let mut session = running.begin(options(1)).unwrap();
        repository.forget(&[first], &control(1)).unwrap();
        let waiting = collect(&repository, &storage, &CollectOptions::default(), has_password).unwrap();
        assert_eq!((waiting.state, waiting.deleted.packs), (CollectionState::Waiting, 0));
        assert_eq!(waiting.waiting_for.len(), 1);
        // A backup that begins now uses nothing of what may go, and is waited for by nobody.
        let young = back_up(&repository, 1).unwrap();
        assert_eq!(young.statistics.chunks_new, young.statistics.chunks);
        session.add_stream(path("data"), &mut content(1).as_slice()).unwrap();
        let kept = session.commit().unwrap();
        assert_eq!(kept.statistics.chunks_new, 0, "it found everything");
        let done = collect(&repository, &storage, &CollectOptions::default(), has_password).unwrap();
        assert_eq!((done.number, done.state, done.continued), (1, CollectionState::Finished, true));
        assert_sound_for_everybody(&storage);
        for id in [kept.id, young.id] {
            assert_restores(&open(storage.clone(), 4).unwrap(), id, 1);
        }
    }
}

#[test]
fn old_sessions_are_revoked_and_what_they_stored_goes() {
    let (storage, repository) = new_repository();
    let first = back_up(&repository, 1).unwrap().id;
    let packs = keys_of(&storage, "packs/");
    let crashed = open(storage.clone(), 3).unwrap();
    let mut session = crashed.begin(options(1)).unwrap();
    session.add_stream(path("data"), &mut content(2).as_slice()).unwrap();
    assert!(keys_of(&storage, "packs/").len() > packs.len());
    // The session began at the second 1 790 000 000 of the test's clock.
    let key = repository.maintenance_key().unwrap();
    let at = |seconds: i64, age: u64| {
        let locked = LockedRepository::open(storage.clone(), environment_at(60, 1_790_000_000 + seconds)).unwrap();
        let sessions = OpenSessions::RevokeOlderThan(Duration::from_secs(age));
        locked.collect(&key, &CollectOptions::default().with_open_sessions(sessions), &control(1)).unwrap()
    };
    let waiting = at(3600, 3600);
    assert_eq!((waiting.state, waiting.revoked.len(), waiting.waiting_for.len()), (CollectionState::Waiting, 0, 1));
    let done = at(3601, 3600);
    assert_eq!((done.state, done.revoked.len()), (CollectionState::Finished, 1));
    assert_eq!(keys_of(&storage, "packs/"), packs);
    // The writer that slept is told, whenever it wakes up.
    let error = session.commit().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(ids(&open(storage.clone(), 4).unwrap()), [first]);
    // What it stored after all goes with the next collection.
    let next = locked(&storage).collect(&key, &CollectOptions::default(), &control(1)).unwrap();
    assert_eq!(next.state, CollectionState::Finished);
    assert_eq!(keys_of(&storage, "packs/"), packs);
    assert_eq!(keys_of(&storage, "sessions/"), []);
    assert_sound_for_everybody(&storage);
}

#[test]
fn heads_of_collected_backups_are_not_missed() {
    let (storage, repository) = new_repository();
    let made: Vec<BackupId> = (1..=3).map(|number| back_up(&repository, number).unwrap().id).collect();
    for round in 0..2 {
        repository.forget(&made[round..=round], &control(1)).unwrap();
        for _ in 0..3 {
            collect(&repository, &storage, &CollectOptions::default(), true).unwrap();
            assert_sound_for_everybody(&storage);
        }
        // The backup behind it names it, so that it must go on being known as forgotten.
        assert_eq!(keys_of(&storage, "forgets/").len(), 1, "round {round}");
    }
}

type Harm<'h> = Box<dyn Fn(&MemoryStorage) + 'h>;

#[test]
fn nothing_is_collected_where_a_backup_may_be_hidden() {
    let (storage, repository) = new_repository();
    let made: Vec<BackupId> = (1..=3).map(|number| back_up(&repository, number).unwrap().id).collect();
    repository.forget(&made[1..2], &control(1)).unwrap();
    // The next backup names it, so that it is missed.
    let is_first = |key: &backup_core::storage::Key| name_of(&get(&storage, key)) == *made[0].as_bytes();
    let outcome = keys_of(&storage, "sessions/").into_iter().find(is_first).unwrap();
    let closure = keys_of(&storage, "closures/");
    let live = locked(&storage).plan_collection(&CollectOptions::default(), &control(1)).unwrap().live.packs;
    assert!(live > 0);
    let damage: Vec<(&str, Harm<'_>)> = vec![
        ("a commit cannot be read", Box::new(|storage| overwrite(storage, &outcome, b"rotten".to_vec()))),
        ("a commit is missing", Box::new(|storage| storage.delete(&outcome).unwrap())),
        (
            "closures cannot be read",
            Box::new(|storage| closure.iter().for_each(|key| overwrite(storage, key, b"rotten".to_vec()))),
        ),
        ("closures are missing", Box::new(|storage| closure.iter().for_each(|key| storage.delete(key).unwrap()))),
        (
            "packs are missing",
            Box::new(|storage| keys_of(storage, "packs/").iter().for_each(|key| storage.delete(key).unwrap())),
        ),
        (
            "all commits are missing",
            Box::new(|storage| keys_of(storage, "sessions/").iter().for_each(|key| storage.delete(key).unwrap())),
        ),
        (
            "a final cannot be read",
            Box::new(|storage| {
                let key = "collections/00000001/outcome".parse_key();
                storage.put(&key, "rotten".into(), PutMode::Create).unwrap();
            }),
        ),
    ];
    let key = repository.maintenance_key().unwrap();
    for (what, harm) in damage {
        let harmed = Arc::new((*storage).clone());
        harm(&harmed);
        let before = keys_of(&harmed, "");
        let error = locked(&harmed).collect(&key, &revoking(), &control(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{what}: {error}");
        let after: Vec<_> =
            keys_of(&harmed, "").into_iter().filter(|key| !key.as_str().starts_with("collections/")).collect();
        let before: Vec<_> = before.into_iter().filter(|key| !key.as_str().starts_with("collections/")).collect();
        assert_eq!(after, before, "{what}");
        assert!(locked(&harmed).plan_collection(&revoking(), &control(1)).is_err(), "{what}");
        // Damage that may be put up with, and what may not.
        let despite = locked(&harmed).collect(&key, &revoking().with_despite_damage(true), &control(1));
        let never = what.starts_with("closures") || what.starts_with("a final");
        assert_eq!(despite.is_err(), never, "{what}: {despite:?}");
    }
}

/// The final has the commits of all backups. A backup that is made without it must not make a collection believe that
/// there are no others.
#[test]
fn a_lost_final_is_noticed_by_what_is_gone() {
    let (storage, repository) = new_repository();
    let made: Vec<BackupId> = (1..=4).map(|number| back_up(&repository, number).unwrap().id).collect();
    repository.forget(&made[1..2], &control(1)).unwrap();
    repository.collect(&revoking(), &control(1)).unwrap();
    let outcome = "collections/00000001/outcome".parse_key();
    let record = get(&storage, &outcome);
    for lost in [true, false] {
        let harmed = Arc::new((*storage).clone());
        match lost {
            true => harmed.delete(&outcome).unwrap(),
            false => overwrite(&harmed, &outcome, b"rotten".to_vec()),
        }
        let repository = open(harmed.clone(), 71).unwrap();
        assert!(repository.backups().unwrap().is_empty());
        let said = repository.lost_records().unwrap();
        assert_eq!(said.len(), 1, "{said:?}");
        let receipt = locked(&harmed)
            .copy_to(&(Arc::new(MemoryStorage::new()) as Arc<dyn Storage>), &CopyOptions::default(), &control(1))
            .unwrap();
        assert!(!receipt.ok && !receipt.problems.is_empty(), "a copy of nothing is not good");
        let report = locked(&harmed).verify(&VerifyOptions::new(VerifyLevel::Presence), &control(1)).unwrap();
        assert!(!report.ok);
        back_up(&repository, 9).unwrap();
        let before = keys_of(&harmed, "packs/");
        for _ in 0..3 {
            let error = repository.collect(&revoking(), &control(1)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
            assert!(error.to_string().contains("collections/00000001/outcome"), "{error}");
            assert!(repository.plan_collection(&revoking(), &control(1)).is_err());
        }
        assert_eq!(keys_of(&harmed, "packs/"), before);
        // Brought back, from a copy say, it has everything again.
        drop(harmed.delete(&outcome));
        harmed.put(&outcome, record.clone().into(), PutMode::Create).unwrap();
        let repository = open(harmed, 72).unwrap();
        for (id, number) in [(made[0], 1), (made[2], 3), (made[3], 4)] {
            assert_restores(&repository, id, number);
        }
    }
}

#[test]
fn a_mark_that_nobody_signed_is_passed_over() {
    let (storage, repository) = new_repository();
    let made: Vec<BackupId> = (1..=2).map(|number| back_up(&repository, number).unwrap().id).collect();
    repository.forget(&made[..1], &control(1)).unwrap();
    storage.put(&"collections/00000001/mark".parse_key(), "garbage".into(), PutMode::Create).unwrap();
    let done = collect(&repository, &storage, &CollectOptions::default(), false).unwrap();
    assert_eq!((done.number, done.state), (2, CollectionState::Finished));
    assert!(done.deleted.packs > 0);
    assert_sound_for_everybody(&storage);
    assert_restores(&open(storage.clone(), 4).unwrap(), made[1], 2);
}

/// A copied commit names the index segments of its own session only; segments outside of the index set name the rest.
#[test]
fn a_copy_of_some_backups_is_collected_and_stays_readable() {
    for has_password in [true, false] {
        let (source, repository) = new_repository();
        let made: Vec<BackupId> = (1..=4).map(|number| back_up(&repository, number).unwrap().id).collect();
        let storage = memory();
        let destination: Arc<dyn Storage> = storage.clone();
        let chosen = CopyOptions::default().with_backups(made[1..].to_vec());
        locked(&source).copy_to(&destination, &chosen, &control(1)).unwrap();
        let copy = open(storage.clone(), 20).unwrap();
        copy.forget(&made[1..2], &control(1)).unwrap();
        let refused = collect(&copy, &storage, &CollectOptions::default(), has_password).unwrap_err();
        assert!(refused.to_string().contains(&made[0].to_string()), "{refused}");
        let options = CollectOptions::default().with_partial_history(true);
        for round in 0..2 {
            let done = collect(&copy, &storage, &options, has_password).unwrap();
            assert_eq!(done.state, CollectionState::Finished);
            assert_eq!(done.deleted.packs > 0, round == 0, "{done:?}");
            let copy = open(storage.clone(), 30 + round).unwrap();
            assert_restores(&copy, made[2], 3);
            assert_restores(&copy, made[3], 4);
            let options = VerifyOptions::new(VerifyLevel::Content).with_partial_history(true);
            let report = copy.verify(&options, None, &control(1)).unwrap();
            assert!(report.ok, "{:#?}", report.findings);
        }
        // What was forgotten does not come back, and the copy can be brought up to date.
        let fifth = back_up(&repository, 5).unwrap().id;
        let all = CopyOptions::default().with_backups([&made[1..], &[fifth]].concat());
        let _ = locked(&source).copy_to(&destination, &all, &control(1)).unwrap();
        let copy = open(storage.clone(), 40).unwrap();
        assert_eq!(ids(&copy).into_iter().filter(|id| *id != fifth).collect::<Vec<_>>(), made[2..]);
        assert_restores(&copy, made[2], 3);
        let options = VerifyOptions::new(VerifyLevel::Content).with_partial_history(true);
        let report = copy.verify(&options, None, &control(1)).unwrap();
        assert!(report.ok, "{:#?}", report.findings);
    }
}

trait ParseKey {
    fn parse_key(&self) -> backup_core::storage::Key;
}

impl ParseKey for str {
    fn parse_key(&self) -> backup_core::storage::Key {
        backup_core::storage::Key::new(self).unwrap()
    }
}
