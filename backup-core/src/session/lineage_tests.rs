//! Replacements: which commit counts, whatever is valid, forgotten or replaced.

use std::collections::{BTreeMap, BTreeSet};

use super::collection::testing;
use super::tests::{Fixture, REPOSITORY, in_turn};
use super::*;
use crate::format::layout::Place;
use crate::id::{BackupId, Digest, ObjectName, SessionId};
use crate::storage::Storage as _;
use crate::time::Timestamp;

/// A commit to be put into its slot.
fn commit(number: u8, generation: u32, seconds: i64, heads: &[BackupId], replaces: &[BackupId]) -> NewCommit {
    NewCommit {
        repository: REPOSITORY,
        session: SessionId::new([number; 16]),
        generation,
        body: ObjectName::new([5; 32]),
        indexes: Vec::new(),
        closure: ObjectName::new([7; 32]),
        closure_packs: 0,
        closure_bytes: 0,
        config: Digest::new([8; 32]),
        heads: heads.to_vec(),
        time: Timestamp::from_unix(seconds, 0).unwrap(),
        replaces: replaces.to_vec(),
    }
}

impl Fixture {
    fn put_commit(&self, commit: &NewCommit) -> BackupId {
        let bytes = commit.seal(&self.writer).unwrap();
        let id = Commit::id_of(&bytes);
        self.put(Place::SessionOutcome(commit.generation, commit.session), bytes);
        id
    }

    fn put_forget(&self, id: BackupId) {
        self.put(Place::Forget(id), testing::forget(&self.maintenance, REPOSITORY, id));
    }

    /// What a collection does: the final, whose checkpoint is what is live, and the deletion of slots.
    fn collect(&self, number: u32) {
        let history = self.history();
        let records = Records { storage: &*self.storage, signers: &self.signers(), each: &in_turn };
        let object = |commit: &Commit| outcome_object(&records, &history, commit).unwrap().to_vec();
        let checkpoint: Vec<Vec<u8>> = history.live.values().map(object).collect();
        let finale = testing::finale(&self.maintenance, REPOSITORY, number, &[], &checkpoint, &[]);
        self.put(Place::CollectionOutcome(number), finale);
        for commit in history.valid.values().filter(|commit| commit.content.generation <= number) {
            self.storage.delete(&commit.place().key()).unwrap();
        }
    }
}

fn shown(history: &History) -> Vec<BackupId> {
    history.in_order().iter().map(|commit| commit.id).collect()
}

/// A backup, its replacement, what replaces that, and one that replaces the first at the same time; every subset of them,
/// of forget records, and of the generations that a replacement can have.
#[test]
fn every_combination_of_valid_forgotten_and_replaced() {
    let mut cases = 0;
    for generations in 0..3u32 {
        let fixture = Fixture::new();
        let seal = |new: &NewCommit| {
            let bytes = new.seal(&fixture.writer).unwrap();
            (Commit::id_of(&bytes), bytes)
        };
        // Smaller than that of the first (which no writer makes), the same, greater.
        let replaced = 5;
        let by = [4, 5, 6][generations as usize];
        let first = commit(1, replaced, 1, &[], &[]);
        let (a, _) = seal(&first);
        let second = commit(2, by, 1, &[], &[a]);
        let (b, _) = seal(&second);
        let third = commit(3, by, 1, &[], &[a, b]);
        let (c, _) = seal(&third);
        let beside = commit(4, by, 1, &[], &[a]);
        let (d, _) = seal(&beside);
        let follower = commit(5, 6, 0, &[a], &[]);
        let commits = [&first, &second, &third, &beside];
        let ids = [a, b, c, d];
        for present in 0..16u32 {
            for forgotten in 0..16u32 {
                let fixture = Fixture::new();
                let has = |set: u32, at: usize| set & (1 << at) != 0;
                for at in (0..4).filter(|at| has(present, *at)) {
                    fixture.put_commit(commits[at]);
                }
                (0..4).filter(|at| has(forgotten, *at)).for_each(|at| fixture.put_forget(ids[at]));
                let last = fixture.put_commit(&follower);
                let history = fixture.history();
                let case = format!("present {present:04b}, forgotten {forgotten:04b}, generation {by}");

                let all_ids = |at: usize| commits[at].replaces.iter().copied().chain([ids[at]]).collect::<Vec<_>>();
                let is_forgotten = |at: usize| (0..4).any(|n| has(forgotten, n) && all_ids(at).contains(&ids[n]));
                let is_replaced = |at: usize| {
                    (0..4).any(|n| {
                        has(present, n)
                            && commits[n].replaces.contains(&ids[at])
                            && commits[n].generation >= commits[at].generation
                    })
                };
                let live: BTreeSet<BackupId> = (0..4)
                    .filter(|at| has(present, *at) && !is_forgotten(*at) && !is_replaced(*at))
                    .map(|at| ids[at])
                    .collect();
                let found: BTreeSet<BackupId> = history.live.keys().copied().filter(|id| *id != last).collect();
                assert_eq!(found, live, "{case}");

                // Shown once, if at all, and found by every id that it has or had.
                let order = shown(&history);
                let mine: Vec<BackupId> = order.iter().copied().filter(|id| *id != last).collect();
                assert_eq!(mine.len(), live.len().min(1), "{case}");
                assert!(mine.iter().all(|id| live.contains(id)), "{case}");
                assert_eq!(order.last(), Some(&last), "{case}: what names the backup stands behind it");
                for at in (0..4).filter(|at| has(present, *at)) {
                    for id in all_ids(at) {
                        assert_eq!(history.find(&id).map(|commit| commit.id), mine.first().copied(), "{case}");
                        assert!(history.knows(&id));
                    }
                }
                // What the follower names is missed only where nobody knows it.
                let is_known = present != 0 || has(forgotten, 0);
                assert_eq!(history.missing().is_empty(), is_known, "{case}");
                // The next commit names the follower and, if that names nothing that is there, nothing twice.
                assert_eq!(history.heads(), [last], "{case}");
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 3 * 16 * 16);
}

/// What a collection made void stays so: the replacement lives at least as long as what it replaces.
#[test]
fn nothing_comes_back_when_collections_end() {
    // Each takes part or not, and the generations are every one that writers can have.
    for (first, second, third) in (1..4u32).flat_map(|a| (a..4).flat_map(move |b| (b..4).map(move |c| (a, b, c)))) {
        for present in 0..8u32 {
            for forgotten in [false, true] {
                let fixture = Fixture::new();
                let a = fixture.put_commit(&commit(1, first, 1, &[], &[]));
                let replacement = commit(2, second, 1, &[], &[a]);
                let b = Commit::id_of(&replacement.seal(&fixture.writer).unwrap());
                if present & 1 != 0 {
                    fixture.put_commit(&replacement);
                }
                if present & 2 != 0 {
                    fixture.put_commit(&commit(3, third, 1, &[], &[a, b]));
                }
                if present & 4 != 0 {
                    // Somebody else replaced the first at the same time.
                    fixture.put_commit(&commit(4, second, 1, &[], &[a]));
                }
                if forgotten {
                    fixture.put_forget(a);
                }
                let mut live: BTreeSet<BackupId> = fixture.history().live.keys().copied().collect();
                assert_eq!(live.is_empty(), forgotten);
                for number in 1..5 {
                    fixture.collect(number);
                    let history = fixture.history();
                    let now: BTreeSet<BackupId> = history.live.keys().copied().collect();
                    let case = format!("{first} {second} {third}, {present:03b}, {forgotten}, collection {number}");
                    assert_eq!(now, live, "{case}");
                    assert_eq!(history.commits.len(), usize::from(!forgotten), "{case}");
                    live = now;
                }
                assert_eq!(fixture.history().valid.len(), live.len());
            }
        }
    }
}

#[test]
fn a_replacement_that_is_revoked_or_void_replaces_nothing() {
    let fixture = Fixture::new();
    let first = fixture.put_commit(&commit(1, 1, 1, &[], &[]));
    let revocation = testing::revoke(&fixture.maintenance, REPOSITORY, SessionId::new([2; 16]));
    fixture.put(Place::SessionOutcome(1, SessionId::new([2; 16])), revocation);
    assert_eq!(shown(&fixture.history()), [first]);
    fixture.collect(1);
    // It slept through the collection and wins a slot that counts no more.
    fixture.put_commit(&commit(3, 1, 1, &[], &[first]));
    let history = fixture.history();
    assert_eq!(shown(&history), [first]);
    assert_eq!(history.valid.len(), 1);
}

#[test]
fn forgetting_an_earlier_id_forgets_what_replaces_it_afterwards() {
    let fixture = Fixture::new();
    let (session, history) = fixture.open(&*fixture.storage).unwrap();
    let first = fixture.commit(&session, &history, 1).unwrap();
    let (session, history) = fixture.open(&*fixture.storage).unwrap();
    fixture.put_forget(first);
    let mut replacement = fixture.record(&session, &history, 1);
    (replacement.heads, replacement.replaces) = (Vec::new(), vec![first]);
    let signers = fixture.signers();
    let records = Records { storage: &*fixture.storage, signers: &signers, each: &in_turn };
    let second = session.commit(&records, &history, &replacement, &fixture.writer).unwrap();
    let history = fixture.history();
    assert!(history.commits.is_empty() && history.live.is_empty());
    assert!(history.valid.contains_key(&second));
    assert_eq!(history.ids(&second), [first, second]);
    assert_eq!(history.forgotten_backups().into_iter().collect::<Vec<_>>(), [first]);
}

/// Whatever of a history is replaced, the order of its backups stays.
#[test]
fn replacements_do_not_change_the_order() {
    // Clocks that run backwards, two branches, and a backup that names both.
    let times = [50, 40, 40, 30, 60, 20];
    let named: [&[usize]; 6] = [&[], &[0], &[0], &[1, 2], &[2], &[3, 4]];
    let mut plain = Vec::new();
    for replaced in 0..64u32 {
        let fixture = Fixture::new();
        let mut ids: Vec<BackupId> = Vec::new();
        let mut numbers: BTreeMap<BackupId, usize> = BTreeMap::new();
        for (at, heads) in named.iter().enumerate() {
            let heads: Vec<BackupId> = heads.iter().map(|head| ids[*head]).collect();
            let number = u8::try_from(at).unwrap();
            let first = fixture.put_commit(&commit(number, 1, times[at], &heads, &[]));
            ids.push(first);
            numbers.insert(first, at);
            if replaced & (1 << at) != 0 {
                let id = fixture.put_commit(&commit(number + 100, 2, times[at], &heads, &[first]));
                numbers.insert(id, at);
                if at % 2 == 0 {
                    ids[at] = id;
                }
            }
        }
        for number in 0..3 {
            if number > 0 {
                fixture.collect(number);
            }
            let history = fixture.history();
            let order: Vec<usize> = shown(&history).iter().map(|id| numbers[id]).collect();
            if plain.is_empty() {
                plain.clone_from(&order);
            }
            // A tie between two backups of one time is decided by first ids, which the replaced heads change.
            assert_eq!(position_of(&order), position_of(&plain), "{replaced:06b}, collection {number}");
            assert!(history.missing().is_empty(), "{replaced:06b}");
            assert_eq!(history.heads().len(), 1);
            assert_eq!(numbers[&history.heads()[0]], 5);
        }
    }
}

/// The order without what ids decide: 1 and 2 are of the same time.
fn position_of(order: &[usize]) -> Vec<usize> {
    order.iter().map(|at| if *at == 2 { 1 } else { *at }).collect()
}

/// Nobody who keeps the rules makes commits that wait for each other. They are shown all the same.
#[test]
fn backups_that_wait_for_each_other_are_shown() {
    let fixture = Fixture::new();
    let first = fixture.put_commit(&commit(1, 1, 1, &[], &[]));
    let second = fixture.put_commit(&commit(2, 1, 2, &[first], &[]));
    let replacement = fixture.put_commit(&commit(3, 1, 1, &[second], &[first]));
    assert_eq!(shown(&fixture.history()), [replacement, second]);
}
