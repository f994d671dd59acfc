//! Repacking: packs that are mostly dead are replaced, and no backup notices but by its id.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backup_core::archive::{ArchiveStorage, ExportOptions, export};
use backup_core::copy::{CopyOptions, CopyReceipt, CopyStatus};
use backup_core::id::BackupId;
use backup_core::maintenance::{CollectOptions, CollectionState, OpenSessions, RepackOptions, RepackReport};
use backup_core::repository::{LockedRepository, Repository, VerifyLevel, VerifyOptions};
use backup_core::storage::{Key, MemoryStorage, PutMode, Storage};
use support::file::File;
use support::forger::keys_of;
use support::{control, environment, init_with, memory, noise, open, options, path, small_options};

/// Copiers have randomness of their own.
static SEED: AtomicU64 = AtomicU64::new(1000);

/// What a backup of this number has: a part that all have, and a part of its own.
fn content(number: u64) -> Vec<u8> {
    [noise(0, 40_000), noise(number, 120_000)].concat()
}

fn back_up(repository: &Repository, number: u64) -> BackupId {
    let mut session = repository.begin(options(1)).unwrap();
    session.add_stream(path("data"), &mut content(number).as_slice()).unwrap();
    session.commit().unwrap().id
}

fn assert_restores(repository: &Repository, id: BackupId, number: u64, what: &str) {
    let backup = repository.find_backup(&id.to_string()).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(backup.id == id || backup.replaces.contains(&id), "{what}");
    let mut out = Vec::new();
    let entry = repository.entry(&backup, &path("data")).unwrap();
    let restored = repository.restore_stream(&entry, &mut out, &control(1));
    restored.unwrap_or_else(|error| panic!("{what}: {}", support::chain(&error)));
    assert!(out == content(number), "{what}: backup {number} differs");
}

fn locked(storage: &Arc<MemoryStorage>) -> LockedRepository {
    LockedRepository::open(storage.clone(), environment(77)).unwrap()
}

fn packs(storage: &MemoryStorage) -> BTreeSet<Key> {
    keys_of(storage, "packs/").into_iter().collect()
}

fn bytes_of_packs(storage: &MemoryStorage) -> u64 {
    packs(storage).iter().map(|key| storage.stat(key).unwrap().size).sum()
}

fn revoking() -> CollectOptions {
    CollectOptions::default().with_open_sessions(OpenSessions::RevokeAll)
}

fn collect(repository: &Repository) {
    let report = repository.collect(&revoking(), &control(1)).unwrap();
    assert_eq!(report.state, CollectionState::Finished);
}

fn collect_copy(repository: &Repository) {
    let report = repository.collect(&revoking().with_partial_history(true), &control(1)).unwrap();
    assert_eq!(report.state, CollectionState::Finished);
}

fn repack(repository: &Repository) -> RepackReport {
    repository.repack(&RepackOptions::default(), &control(1)).unwrap()
}

/// Everything is as it must be, with and without the password.
fn check(storage: &Arc<MemoryStorage>, expected: &[(BackupId, u64)], what: &str) {
    check_as(storage, expected, what, false);
}

/// The same of a place to which no forget record came, so that the backups name one that is not there.
fn check_copy(storage: &Arc<MemoryStorage>, expected: &[(BackupId, u64)], what: &str) {
    check_as(storage, expected, what, true);
}

fn check_as(storage: &Arc<MemoryStorage>, expected: &[(BackupId, u64)], what: &str, is_partial: bool) {
    let repository = open(storage.clone(), 901).unwrap();
    assert_eq!(repository.backups().unwrap().len(), expected.len(), "{what}");
    expected.iter().for_each(|(id, number)| assert_restores(&repository, *id, *number, what));
    let level = |level| VerifyOptions::new(level).with_partial_history(is_partial);
    let report = repository.verify(&level(VerifyLevel::Content), None, &control(1)).unwrap();
    assert!(report.ok, "{what}: {:#?}", report.findings);
    let report = locked(storage).verify(&level(VerifyLevel::Bytes), &control(1)).unwrap();
    assert!(report.ok, "{what}: {:#?}", report.findings);
}

/// Backups 1 to 4, the first of which is forgotten: its packs hold what all of them share.
struct Base {
    storage: Arc<MemoryStorage>,
    made: Vec<BackupId>,
}

fn base() -> Base {
    let storage = memory();
    let repository = init_with(storage.clone(), &small_options().with_pack_target(256 << 10), 1).unwrap();
    let made: Vec<BackupId> = (1..=4).map(|number| back_up(&repository, number)).collect();
    repository.forget(&made[..1], &control(1)).unwrap();
    collect(&repository);
    Base { storage, made }
}

impl Base {
    fn expected(&self) -> Vec<(BackupId, u64)> {
        self.made.iter().copied().zip(1..).skip(1).collect()
    }
}

#[test]
fn packs_that_are_mostly_dead_go_and_backups_stay() {
    for threads in [1, 3] {
        let base = base();
        let Base { storage, made } = &base;
        let repository = open(storage.clone(), 2).unwrap();
        let before = packs(storage);
        let size = bytes_of_packs(storage);
        let order: Vec<BackupId> = repository.backups().unwrap().iter().map(|backup| backup.id).collect();
        assert_eq!(order, made[1..]);

        let plan = repository.plan_repack(&RepackOptions::default(), &control(threads)).unwrap();
        assert_eq!(plan.needed.packs, before.len() as u64);
        assert!(plan.replaced.packs > 0 && plan.replaced.bytes > plan.chunk_bytes, "{plan:?}");
        assert_eq!((plan.backups, plan.later.packs, plan.problems.len()), (3, 0, 0), "{plan:?}");
        assert_eq!(packs(storage), before, "a plan changes nothing");

        let report = repository.repack(&RepackOptions::default(), &control(threads)).unwrap();
        assert_eq!((report.replaced, report.chunks), (plan.replaced, plan.chunks));
        assert_eq!(report.problems, []);
        let replaced: Vec<BackupId> = report.backups.iter().map(|backup| backup.earlier).collect();
        assert_eq!(replaced, made[1..]);
        check(storage, &base.expected(), "before the collection");
        let shown = repository.backups().unwrap();
        let ids: Vec<BackupId> = shown.iter().map(|backup| backup.id).collect();
        assert_eq!(ids, report.backups.iter().map(|backup| backup.id).collect::<Vec<_>>(), "the order stays");
        for (backup, earlier) in shown.iter().zip(&made[1..]) {
            assert_eq!(backup.replaces, [*earlier]);
        }
        let summaries = locked(storage).commits().unwrap();
        assert!(summaries.iter().zip(&made[1..]).all(|(summary, earlier)| summary.replaces == [*earlier]));

        collect(&repository);
        check(storage, &base.expected(), "after the collection");
        let after = packs(storage);
        assert_eq!(before.difference(&after).count() as u64, report.replaced.packs, "what was replaced is gone");
        assert_eq!(after.difference(&before).count() as u64, report.written.packs);
        assert!(bytes_of_packs(storage) < size, "{} of {size}", bytes_of_packs(storage));
        assert_eq!(keys_of(storage, "sessions/"), []);
        let bodies = keys_of(storage, "bodies/").len();
        assert_eq!((bodies, keys_of(storage, "closures/").len()), (3, 3));

        // There is nothing more to do, however often.
        let objects = keys_of(storage, "").len();
        for _ in 0..3 {
            let plan = repository.plan_repack(&RepackOptions::default(), &control(threads)).unwrap();
            assert_eq!((plan.replaced.packs, plan.backups), (0, 0), "{plan:?}");
            assert_eq!(repack(&repository), RepackReport::default());
        }
        assert_eq!(keys_of(storage, "").len(), objects);
    }
}

/// A repository in which backups come and go for ever stays as large as what it holds, and ids that were written down
/// long ago still find their backups.
#[test]
fn nothing_grows_for_ever() {
    let storage = memory();
    let repository = init_with(storage.clone(), &small_options().with_pack_target(256 << 10), 1).unwrap();
    let mut last = Some(back_up(&repository, 1));
    let first = back_up(&repository, 2);
    let mut sizes = Vec::new();
    for round in 3..10 {
        let id = back_up(&repository, round);
        if let Some(last) = last.replace(id) {
            repository.forget(&[last], &control(1)).unwrap();
        }
        repository.repack(&RepackOptions::default().with_below_percent(100), &control(1)).unwrap();
        collect(&repository);
        check(&storage, &[(first, 2), (id, round)], &format!("round {round}"));
        let plan = repository.plan_repack(&RepackOptions::default().with_below_percent(100), &control(1)).unwrap();
        assert_eq!(plan.replaced.packs, 0, "round {round}: {plan:?}");
        sizes.push((bytes_of_packs(&storage), keys_of(&storage, "").len()));
    }
    // Collections leave one outcome each.
    let (bytes, objects) = sizes[1];
    for (at, (later, more)) in sizes.iter().enumerate().skip(2) {
        assert!(*later <= bytes + bytes / 10, "{sizes:?}");
        assert!(*more <= objects + at + 2, "{sizes:?}");
    }
    assert!(repository.find_backup(&first.to_string()).unwrap().replaces.contains(&first));
}

#[test]
fn no_more_is_stored_anew_than_asked_for() {
    let base = base();
    let repository = open(base.storage.clone(), 2).unwrap();
    let all = repository.plan_repack(&RepackOptions::default(), &control(1)).unwrap();
    let few = RepackOptions::default().with_max_bytes(all.chunk_bytes - 1);
    let plan = repository.plan_repack(&few, &control(1)).unwrap();
    assert!(plan.later.packs > 0 && plan.chunk_bytes < all.chunk_bytes);
    assert_eq!(plan.later.packs + plan.replaced.packs, all.replaced.packs);
    // What is left is done by the next ones.
    let mut rounds = 0;
    while repository.plan_repack(&few, &control(1)).unwrap().backups > 0 {
        repository.repack(&few, &control(1)).unwrap();
        collect(&repository);
        rounds += 1;
        assert!(rounds < 5);
    }
    check(&base.storage, &base.expected(), "in several rounds");
    for percent in [0, 101] {
        let wrong = RepackOptions::default().with_below_percent(percent);
        assert!(repository.plan_repack(&wrong, &control(1)).is_err());
    }
}

/// Who opened a backup before it was replaced and collected goes on reading it.
#[test]
fn a_reader_of_an_old_commit_finds_its_chunks() {
    let base = base();
    let reader = open(base.storage.clone(), 3).unwrap();
    let backups = reader.backups().unwrap();
    // The index of then is loaded.
    let entries: Vec<_> = backups.iter().map(|backup| reader.entry(backup, &path("data")).unwrap()).collect();
    let repository = open(base.storage.clone(), 2).unwrap();
    repack(&repository);
    collect(&repository);
    for ((backup, entry), number) in backups.iter().zip(entries).zip(2..) {
        let mut out = Vec::new();
        reader.restore_stream(&entry, &mut out, &control(1)).unwrap();
        assert!(out == content(number));
        assert_eq!(reader.entry(backup, &path("data")).unwrap().content, entry.content);
    }
}

#[test]
fn an_old_id_forgets_for_good_whenever_it_is_used() {
    // Before the repacking, before its collection, after it.
    for moment in 0..3 {
        let base = base();
        let repository = open(base.storage.clone(), 2).unwrap();
        let old = base.made[2];
        let forget = || {
            let report = repository.forget(&[old], &control(1)).unwrap();
            assert_eq!((report.forgotten.as_slice(), report.already_forgotten.len()), ([old].as_slice(), 0));
        };
        let mut steps: Vec<Box<dyn Fn()>> =
            vec![Box::new(|| drop(repack(&repository))), Box::new(|| collect(&repository))];
        steps.insert(moment, Box::new(forget));
        steps.iter().for_each(|step| step());
        let mut expected = base.expected();
        expected.retain(|(id, _)| *id != old);
        for round in 0..3 {
            check(&base.storage, &expected, &format!("moment {moment}, round {round}"));
            assert!(repository.find_backup(&old.to_string()).is_err());
            repack(&repository);
            collect(&repository);
        }
        // Nobody names it any more but the last backup, whose heads are as they were.
        let forgets = keys_of(&base.storage, "forgets/").len();
        assert!((1..=3).contains(&forgets), "{forgets}");
        repository.forget(&[base.made[3]], &control(1)).unwrap();
        (0..3).for_each(|_| collect(&repository));
        check(&base.storage, &expected[..1], "without the last");
    }
}

/// A program that sleeps between reading and committing, while the backup is forgotten: forgotten it is.
#[test]
fn forgetting_wins_against_a_repacking_that_is_under_way() {
    let base = base();
    let old = base.made[2];
    let count = {
        let storage = Arc::new((*base.storage).clone());
        let counted = Arc::new(backup_core::storage::fault::FaultStorage::new((*storage).clone()));
        repack(&open(counted.clone(), 5).unwrap());
        counted.log().len() as u64
    };
    for at in 0..count {
        let storage = Arc::new((*base.storage).clone());
        let other = open(storage.clone(), 6).unwrap();
        let hooked = support::hooked::Hooked::new(
            &storage,
            at,
            Box::new(move || {
                other.forget(&[old], &control(1)).unwrap();
                if at % 2 == 0 {
                    other.collect(&CollectOptions::default(), &control(1)).unwrap();
                }
            }),
        );
        open(hooked, 5).unwrap().repack(&RepackOptions::default(), &control(1)).unwrap();
        let mut expected = base.expected();
        expected.retain(|(id, _)| *id != old);
        check(&storage, &expected, &format!("forgotten before operation {at}"));
        let repository = open(storage.clone(), 7).unwrap();
        for round in 0..3 {
            collect(&repository);
            check(&storage, &expected, &format!("forgotten before operation {at}, collection {round}"));
        }
    }
}

/// Two programs replace the same backups at the same time: they are shown once, and the next one unites them.
#[test]
fn two_repackers_at_once() {
    let base = base();
    let counted = Arc::new(backup_core::storage::fault::FaultStorage::new((*base.storage).clone()));
    repack(&open(counted.clone(), 5).unwrap());
    let mut united = 0;
    for at in 0..counted.log().len() as u64 {
        let storage = Arc::new((*base.storage).clone());
        let other = open(storage.clone(), 6).unwrap();
        let hooked = support::hooked::Hooked::new(&storage, at, Box::new(move || drop(repack(&other))));
        repack(&open(hooked, 5).unwrap());
        let what = format!("before operation {at}");
        check(&storage, &base.expected(), &what);
        let repository = open(storage.clone(), 7).unwrap();
        collect(&repository);
        check(&storage, &base.expected(), &what);
        let plan = repository.plan_repack(&RepackOptions::default(), &control(1)).unwrap();
        united += plan.backups;
        repack(&repository);
        collect(&repository);
        check(&storage, &base.expected(), &what);
        let plan = repository.plan_repack(&RepackOptions::default(), &control(1)).unwrap();
        assert_eq!((plan.backups, plan.replaced.packs), (0, 0), "{what}: {plan:?}");
        assert_eq!(keys_of(&storage, "bodies/").len(), 3, "{what}");
        support::assert_closures_name_packs(&storage, &what);
    }
    assert!(united > 0, "no two of them met");
}

fn copy_all(from: &Arc<MemoryStorage>, to: &Arc<MemoryStorage>) -> CopyReceipt {
    let to: Arc<dyn Storage> = to.clone();
    let environment = environment(SEED.fetch_add(1, Ordering::Relaxed));
    let source = LockedRepository::open(from.clone(), environment).unwrap();
    source.copy_to(&to, &CopyOptions::default(), &control(1)).unwrap()
}

/// Copies that have the backups as they were get their new commits, and lose what is replaced with their next collection.
#[test]
fn copies_follow() {
    let base = base();
    let expected = base.expected();
    let to = memory();
    assert!(copy_all(&base.storage, &to).ok);
    let before = packs(&to);
    let repository = open(base.storage.clone(), 2).unwrap();
    repack(&repository);
    let receipt = copy_all(&base.storage, &to);
    assert!(receipt.ok, "{receipt:#?}");
    assert!(receipt.backups.iter().all(|backup| backup.status == CopyStatus::Copied), "{receipt:#?}");
    check_copy(&to, &expected, "both commits are there");
    collect_copy(&open(to.clone(), 3).unwrap());
    check_copy(&to, &expected, "the copy was collected");
    assert!(packs(&to).len() < before.len() + 1 && !before.is_subset(&packs(&to)));
    let there = packs(&to);
    // Copied again: everything is there, whether the source was collected or not.
    for _ in 0..2 {
        let receipt = copy_all(&base.storage, &to);
        assert!(receipt.ok, "{receipt:#?}");
        assert!(receipt.backups.iter().all(|backup| backup.status == CopyStatus::Found), "{receipt:#?}");
        assert_eq!(packs(&to), there, "index segments may come again, packs do not");
        collect(&repository);
    }
    check_copy(&to, &expected, "copied again");

    // Packed in both places: each backup is shown once, and the next repacking unites its commits.
    let base = self::base();
    let expected = base.expected();
    let to = memory();
    copy_all(&base.storage, &to);
    let there = open(to.clone(), 4).unwrap();
    repack(&there);
    repack(&open(base.storage.clone(), 5).unwrap());
    assert!(copy_all(&base.storage, &to).ok);
    check_copy(&to, &expected, "from both places");
    collect_copy(&there);
    check_copy(&to, &expected, "from both places, collected");
    assert_eq!(there.plan_repack(&RepackOptions::default(), &control(1)).unwrap().backups, 3);
    repack(&there);
    collect_copy(&there);
    check_copy(&to, &expected, "united");
    assert_eq!(there.plan_repack(&RepackOptions::default(), &control(1)).unwrap().backups, 0);
    let before = packs(&to);
    let receipt = copy_all(&base.storage, &to);
    assert!(receipt.ok, "{receipt:#?}");
    assert_eq!(packs(&to), before);
    assert!(receipt.backups.iter().all(|backup| backup.copy.is_some_and(|copy| copy != backup.id)), "{receipt:#?}");
    check_copy(&to, &expected, "what was replaced there does not come back");

    // Forgotten there, by the id of then: that is respected.
    there.forget(&base.made[1..2], &control(1)).unwrap();
    let receipt = copy_all(&base.storage, &to);
    assert_eq!(receipt.backups[0].status, CopyStatus::Forgotten);
    check_copy(&to, &expected[1..], "forgotten at the copy");
}

#[test]
fn archives_have_the_new_commits() {
    let base = base();
    let repository = open(base.storage.clone(), 2).unwrap();
    repack(&repository);
    for round in 0..2 {
        for backups in [base.made[1..].to_vec(), base.made[2..3].to_vec(), Vec::new()] {
            let options = ExportOptions::default().with_backups(backups.clone());
            let mut bytes = Vec::new();
            export(&locked(&base.storage), &options, &mut bytes, &control(1)).unwrap();
            let archive: Arc<dyn Storage> = Arc::new(ArchiveStorage::open(Arc::new(File(bytes)), "file").unwrap());
            let opened = open(archive, 8).unwrap();
            let mut expected = base.expected();
            expected.retain(|(id, _)| backups.is_empty() || backups.contains(id));
            assert_eq!(opened.backups().unwrap().len(), expected.len(), "round {round}");
            expected.iter().for_each(|(id, number)| assert_restores(&opened, *id, *number, "archive"));
            let partial = VerifyOptions::new(VerifyLevel::Content).with_partial_history(true);
            let report = opened.verify(&partial, None, &control(1)).unwrap();
            assert!(report.ok, "{:#?}", report.findings);
        }
        collect(&repository);
    }
}

/// What is damaged keeps its pack: nothing that could still be mended goes. What nobody needs may be damaged.
#[test]
fn damaged_packs_stay() {
    let base = base();
    let repository = open(base.storage.clone(), 2).unwrap();
    let whole = repository.plan_repack(&RepackOptions::default(), &control(1)).unwrap();
    let (mut kept, mut replaced) = (0, 0);
    for key in packs(&base.storage) {
        let bytes = base.storage.get(&key, u64::MAX).unwrap();
        for at in (200..bytes.len()).step_by(4096) {
            let storage = Arc::new((*base.storage).clone());
            let mut changed = bytes.to_vec();
            changed[at] ^= 1;
            storage.put(&key, changed.into(), PutMode::Overwrite).unwrap();
            let repository = open(storage.clone(), 3).unwrap();
            let report = repack(&repository);
            let what = format!("{key} at {at}");
            let is_named = report.problems.iter().any(|problem| problem.name.contains("packs/"));
            let after = open(storage.clone(), 4).unwrap();
            // Whatever could be read can be read still, from packs that are whole.
            let readable = |repository: &Repository| -> BTreeMap<BackupId, bool> {
                let read = |(id, _): (BackupId, u64)| {
                    let backup = repository.find_backup(&id.to_string()).ok()?;
                    let entry = repository.entry(&backup, &path("data")).ok()?;
                    repository.restore_stream(&entry, &mut Vec::new(), &control(1)).ok()
                };
                base.expected().into_iter().map(|one| (one.0, read(one).is_some())).collect()
            };
            let can_be_read = readable(&after);
            if report.replaced.packs == whole.replaced.packs {
                replaced += 1;
            }
            if is_named || report.replaced.packs < whole.replaced.packs {
                kept += 1;
                assert!(!report.problems.is_empty(), "{what}");
            }
            after.collect(&revoking(), &control(1)).unwrap();
            assert_eq!(readable(&open(storage.clone(), 5).unwrap()), can_be_read, "{what}");
            if is_named {
                // With the pack as it was, everything is as it was.
                storage.put(&key, bytes.clone(), PutMode::Overwrite).unwrap();
                check(&storage, &base.expected(), &what);
            }
        }
    }
    assert!(kept > 0 && replaced > 0, "{kept} {replaced}");
}
