//! The writer's rules, against records that a collection makes.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::collection::testing;
use super::*;
use crate::crypto::SigningKey;
use crate::entropy::SeededEntropy;
use crate::format::layout::Place;
use crate::id::{BackupId, Digest, ObjectName, RepositoryId, SessionId};
use crate::storage::{
    Capabilities, Key, ListPage, MemoryStorage, ObjectInfo, PutMode, Storage, StorageError, list_all,
};
use crate::time::Timestamp;
use crate::{Error, ErrorKind, Result};

pub(super) const REPOSITORY: RepositoryId = RepositoryId::new([1; 16]);

pub(super) struct Fixture {
    pub(super) storage: Arc<MemoryStorage>,
    pub(super) writer: SigningKey,
    pub(super) maintenance: SigningKey,
    entropy: SeededEntropy,
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self {
            storage: Arc::new(MemoryStorage::default()),
            writer: SigningKey::from_seed(&[2; 32]),
            maintenance: SigningKey::from_seed(&[3; 32]),
            entropy: SeededEntropy::new(4),
        }
    }

    pub(super) fn signers(&self) -> Signers {
        Signers {
            repository: REPOSITORY,
            writer: self.writer.verifying_key(),
            maintenance: self.maintenance.verifying_key(),
        }
    }

    pub(super) fn open(&self, storage: &dyn Storage) -> Result<(SessionWriter, History)> {
        self.open_as(storage, false)
    }

    fn open_as(&self, storage: &dyn Storage, single_writer: bool) -> Result<(SessionWriter, History)> {
        let records = Records { storage, signers: &self.signers(), each: &in_turn };
        SessionWriter::open(&records, single_writer, 0, &self.entropy, Timestamp::UNIX_EPOCH)
    }

    pub(super) fn commit(&self, session: &SessionWriter, history: &History, seconds: i64) -> Result<BackupId> {
        let commit = self.record(session, history, seconds);
        let records = Records { storage: &*self.storage, signers: &self.signers(), each: &in_turn };
        session.commit(&records, history, &commit, &self.writer)
    }

    pub(super) fn record(&self, session: &SessionWriter, history: &History, seconds: i64) -> NewCommit {
        NewCommit {
            repository: REPOSITORY,
            session: session.session,
            generation: session.generation,
            body: ObjectName::new([5; 32]),
            indexes: vec![ObjectName::new([6; 32])],
            closure: ObjectName::new([7; 32]),
            closure_packs: 0,
            closure_bytes: 0,
            config: Digest::new([8; 32]),
            heads: history.heads(),
            time: Timestamp::from_unix(seconds, 0).unwrap(),
            replaces: Vec::new(),
        }
    }

    pub(super) fn put(&self, place: Place, bytes: Vec<u8>) {
        self.storage.put(&place.key(), bytes.into(), PutMode::Create).unwrap();
    }

    pub(super) fn history(&self) -> History {
        self.history_of(&*self.storage).unwrap()
    }

    fn history_of(&self, storage: &dyn Storage) -> Result<History> {
        History::read(&Records { storage, signers: &self.signers(), each: &in_turn })
    }
}

pub(super) fn in_turn(count: usize, work: &(dyn Fn(usize) -> Result<()> + Sync)) -> Result<()> {
    (0..count).try_for_each(work)
}

#[test]
fn commits_form_a_chain_in_causal_order() {
    let fixture = Fixture::new();
    let mut ids = Vec::new();
    // The clock runs backwards.
    for seconds in [300, 200, 100] {
        let (session, history) = fixture.open(&*fixture.storage).unwrap();
        ids.push(fixture.commit(&session, &history, seconds).unwrap());
    }
    let history = fixture.history();
    assert_eq!(history.in_order().iter().map(|commit| commit.id).collect::<Vec<_>>(), ids);
    assert_eq!(history.heads(), [ids[2]]);
    assert!(history.missing().is_empty() && history.unfinished.is_empty() && history.flaws.is_empty());

    // Withholding a commit is noticed by whoever knows a later one.
    let second = history.commits[&ids[1]].place().key();
    fixture.storage.delete(&second).unwrap();
    assert_eq!(fixture.history().missing().into_iter().collect::<Vec<_>>(), [ids[1]]);
}

#[test]
fn two_writers_both_commit_and_the_next_names_both() {
    let fixture = Fixture::new();
    let (one, history_one) = fixture.open(&*fixture.storage).unwrap();
    let (two, history_two) = fixture.open(&*fixture.storage).unwrap();
    let first = fixture.commit(&one, &history_one, 1).unwrap();
    let second = fixture.commit(&two, &history_two, 2).unwrap();
    let (_, history) = fixture.open(&*fixture.storage).unwrap();
    let mut heads = [first, second];
    heads.sort();
    assert_eq!(history.heads(), heads);
    assert_eq!(history.unfinished.len(), 1);
}

#[test]
fn a_revoked_session_cannot_commit() {
    let fixture = Fixture::new();
    let (session, history) = fixture.open(&*fixture.storage).unwrap();
    let revocation = testing::revoke(&fixture.maintenance, REPOSITORY, session.session);
    fixture.put(Place::SessionOutcome(session.generation, session.session), revocation);
    let error = fixture.commit(&session, &history, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("revoked"), "{error}");
    assert!(fixture.history().commits.is_empty());
}

#[test]
fn marks_condemn_and_finals_fence() {
    let fixture = Fixture::new();
    let (late, late_history) = fixture.open(&*fixture.storage).unwrap();
    let (early, early_history) = fixture.open(&*fixture.storage).unwrap();
    let kept = fixture.commit(&early, &early_history, 1).unwrap();
    let kept_object = fixture.storage.get(&fixture.history().commits[&kept].place().key(), u64::MAX).unwrap();
    let condemned = [ObjectName::new([9; 32]), ObjectName::new([10; 32])];
    fixture.put(Place::CollectionMark(1), testing::mark(&fixture.maintenance, REPOSITORY, 1, &condemned));
    assert!(condemned.iter().all(|name| fixture.history().condemned.contains(name)), "an open mark condemns");
    let (after_mark, _) = fixture.open(&*fixture.storage).unwrap();
    assert_eq!(after_mark.generation, 2, "one more than the newest mark");

    let indexes = [ObjectName::new([11; 32])];
    let checkpoint = [kept_object.to_vec()];
    let finale = testing::finale(&fixture.maintenance, REPOSITORY, 1, &condemned[..1], &checkpoint, &indexes);
    fixture.put(Place::CollectionOutcome(1), finale);
    let history = fixture.history();
    assert!(
        history.condemned.contains(&condemned[0]) && !history.condemned.contains(&condemned[1]),
        "the final decides"
    );
    assert!(history.indexes.contains(&indexes[0]));
    assert_eq!(history.newest_final, 1);

    // The slots of the generation go away; the checkpoint keeps the commit.
    fixture.storage.delete(&Place::SessionOutcome(early.generation, early.session).key()).unwrap();
    assert!(fixture.history().commits.contains_key(&kept));

    // Somebody who slept through all that wins his slot, and is told that it does not count.
    let error = fixture.commit(&late, &late_history, 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(fixture.history().commits.len(), 1);

    fixture.put(Place::Forget(kept), testing::forget(&fixture.maintenance, REPOSITORY, kept));
    let history = fixture.history();
    assert!(history.commits.is_empty() && history.valid.contains_key(&kept));
}

#[test]
fn records_of_others_are_flaws_and_change_nothing() {
    let fixture = Fixture::new();
    let (session, history) = fixture.open(&*fixture.storage).unwrap();
    let id = fixture.commit(&session, &history, 1).unwrap();
    let thief = SigningKey::from_seed(&[99; 32]);
    fixture.put(Place::Forget(id), testing::forget(&thief, REPOSITORY, id));
    fixture.put(Place::CollectionMark(7), testing::mark(&thief, REPOSITORY, 7, &[ObjectName::new([1; 32])]));
    let finale = testing::finale(&thief, REPOSITORY, 8, &[], &[], &[]);
    fixture.put(Place::CollectionOutcome(8), finale);
    fixture.put(Place::SessionOutcome(1, SessionId::new([77; 16])), b"not a record".to_vec());
    // A genuine revocation of one session in the slot of another.
    let revocation = testing::revoke(&fixture.maintenance, REPOSITORY, session.session);
    fixture.put(Place::SessionOutcome(1, SessionId::new([79; 16])), revocation);
    // A genuine commit under the name of another session.
    let object = fixture.storage.get(&history_key(&fixture, &id), u64::MAX).unwrap();
    fixture.put(Place::SessionOutcome(1, SessionId::new([78; 16])), object.to_vec());
    let history = fixture.history();
    assert_eq!(history.commits.keys().copied().collect::<Vec<_>>(), [id]);
    assert_eq!(history.flaws.len(), 6, "{:?}", history.flaws);
    assert!(history.condemned.is_empty());
    assert_eq!((history.newest_final, history.newest_mark), (0, 0));
}

fn history_key(fixture: &Fixture, id: &BackupId) -> Key {
    fixture.history().commits[id].place().key()
}

/// What happens before a listing of a prefix.
type BeforeList<'f> = Box<dyn Fn(&Fixture, &str) + Sync + Send + 'f>;

/// A storage at which something happens before every listing, and that notes what is read.
struct Watched<'f> {
    fixture: &'f Fixture,
    before_list: BeforeList<'f>,
    read: Mutex<Vec<Key>>,
}

impl<'f> Watched<'f> {
    fn new(fixture: &'f Fixture, before_list: impl Fn(&Fixture, &str) + Sync + Send + 'f) -> Self {
        Self { fixture, before_list: Box::new(before_list), read: Mutex::default() }
    }
}

impl Storage for Watched<'_> {
    fn put(&self, key: &Key, bytes: Bytes, mode: PutMode) -> Result<(), StorageError> {
        self.fixture.storage.put(key, bytes, mode)
    }
    fn get(&self, key: &Key, limit: u64) -> Result<Bytes, StorageError> {
        self.read.lock().unwrap().push(key.clone());
        self.fixture.storage.get(key, limit)
    }
    fn get_range(&self, key: &Key, range: std::ops::Range<u64>) -> Result<Bytes, StorageError> {
        self.fixture.storage.get_range(key, range)
    }
    fn stat(&self, key: &Key) -> Result<ObjectInfo, StorageError> {
        self.fixture.storage.stat(key)
    }
    fn list(&self, prefix: &str, after: Option<&Key>) -> Result<ListPage, StorageError> {
        (self.before_list)(self.fixture, prefix);
        self.fixture.storage.list(prefix, after)
    }
    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.fixture.storage.delete(key)
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
}

#[test]
fn every_outcome_is_read_once_for_a_session() {
    let fixture = Fixture::new();
    for seconds in 0..5 {
        let (session, history) = fixture.open(&*fixture.storage).unwrap();
        fixture.commit(&session, &history, seconds).unwrap();
    }
    let storage = Watched::new(&fixture, |_, _| ());
    let (session, history) = fixture.open(&storage).unwrap();
    let records = Records { storage: &storage, signers: &fixture.signers(), each: &in_turn };
    let commit = fixture.record(&session, &history, 9);
    session.commit(&records, &history, &commit, &fixture.writer).unwrap();
    let mut read: Vec<Key> = storage.read.into_inner().unwrap();
    read.retain(|key| matches!(Place::parse(key), Some(Place::SessionOutcome(..))));
    assert_eq!(read.len(), 6, "{read:?}");
    read.sort();
    read.dedup();
    assert_eq!(read.len(), 6);
}

#[test]
fn a_mark_between_opening_and_reading_begins_the_session_anew() {
    let fixture = Fixture::new();
    let storage = Watched::new(&fixture, marking(3));
    let (session, history) = fixture.open(&storage).unwrap();
    assert_eq!(session.generation, 4);
    assert_eq!(history.newest_mark, 3);
    let fixture = Fixture::new();
    let storage = Watched::new(&fixture, marking(u32::MAX));
    assert_eq!(fixture.open(&storage).unwrap_err().kind(), ErrorKind::Conflict);
}

/// Puts a mark before the collections are listed in step W2, this many times.
fn marking(most: u32) -> impl Fn(&Fixture, &str) + Sync + Send {
    let marks = AtomicU32::new(0);
    move |fixture, prefix| {
        let number = marks.load(Ordering::Relaxed) + 1;
        // Every try has a generation of its own, and leaves nothing where it is given up.
        let tries = list_all(&*fixture.storage, &format!("sessions/{number:08x}/")).unwrap().len();
        if prefix == "collections/" && tries == 1 && number <= most {
            marks.store(number, Ordering::Relaxed);
            fixture.put(Place::CollectionMark(number), testing::mark(&fixture.maintenance, REPOSITORY, number, &[]));
        }
    }
}

/// Ends collection `number`, whose checkpoint keeps what is valid, and does what a collector does then.
fn collect(fixture: &Fixture, number: u32) {
    let history = fixture.history();
    let slots: Vec<Key> = history.valid.values().map(|commit| commit.place().key()).collect();
    let object = |key: &Key| fixture.storage.get(key, u64::MAX).map(|bytes| bytes.to_vec());
    let mut checkpoint: Vec<Vec<u8>> = slots.iter().filter_map(|key| object(key).ok()).collect();
    // Forgets are done: what they name is in no checkpoint any more, nor are they needed.
    checkpoint.retain(|bytes| !history.forgotten.contains(&Commit::id_of(bytes)));
    let finale = testing::finale(&fixture.maintenance, REPOSITORY, number, &[], &checkpoint, &[]);
    fixture.put(Place::CollectionOutcome(number), finale);
    let forgets = history.forgotten.iter().map(|id| Place::Forget(*id).key());
    slots.into_iter().chain(forgets).for_each(|key| fixture.storage.delete(&key).unwrap());
}

#[test]
fn a_collection_that_ends_while_the_history_is_read_hides_nothing() {
    // Before each listing of a reading, in turn: of collections, sessions, forgets, and collections again.
    for at in 0..4 {
        let fixture = Fixture::new();
        let mut ids = Vec::new();
        for seconds in 0..3 {
            let (session, history) = fixture.open(&*fixture.storage).unwrap();
            ids.push(fixture.commit(&session, &history, seconds).unwrap());
        }
        fixture.put(Place::Forget(ids[0]), testing::forget(&fixture.maintenance, REPOSITORY, ids[0]));
        let listings = AtomicU32::new(0);
        let storage = Watched::new(&fixture, |fixture, _| {
            if listings.fetch_add(1, Ordering::Relaxed) == at {
                collect(fixture, 1);
            }
        });
        let history = fixture.history_of(&storage).unwrap();
        assert_eq!(history.in_order().iter().map(|commit| commit.id).collect::<Vec<_>>(), ids[1..], "listing {at}");
        assert!(history.flaws.is_empty(), "{:?}", history.flaws);
        assert_eq!(history.newest_final, 1);
    }
}

#[test]
fn collections_that_never_stop_ending_are_a_failure_that_may_pass() {
    let fixture = Fixture::new();
    let (session, history) = fixture.open(&*fixture.storage).unwrap();
    fixture.commit(&session, &history, 1).unwrap();
    let number = AtomicU32::new(0);
    let storage = Watched::new(&fixture, |fixture, prefix| {
        if prefix == "sessions/" {
            let number = number.fetch_add(1, Ordering::Relaxed) + 1;
            fixture.put(
                Place::CollectionOutcome(number),
                testing::finale(&fixture.maintenance, REPOSITORY, number, &[], &[], &[]),
            );
        }
    });
    let error = fixture.history_of(&storage).unwrap_err();
    assert!(error.is_transient(), "{error}");
}

/// A storage that accepts put-if-absent and ignores it, as some object stores do.
struct Careless(MemoryStorage);

impl Storage for Careless {
    fn put(&self, key: &Key, bytes: Bytes, _: PutMode) -> Result<(), StorageError> {
        self.0.put(key, bytes, PutMode::Overwrite)
    }
    fn get(&self, key: &Key, limit: u64) -> Result<Bytes, StorageError> {
        self.0.get(key, limit)
    }
    fn get_range(&self, key: &Key, range: std::ops::Range<u64>) -> Result<Bytes, StorageError> {
        self.0.get_range(key, range)
    }
    fn stat(&self, key: &Key) -> Result<ObjectInfo, StorageError> {
        self.0.stat(key)
    }
    fn list(&self, prefix: &str, after: Option<&Key>) -> Result<ListPage, StorageError> {
        self.0.list(prefix, after)
    }
    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.0.delete(key)
    }
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
}

#[test]
fn put_if_absent_is_probed() {
    let fixture = Fixture::new();
    let storage = Careless(MemoryStorage::default());
    let error = fixture.open(&storage).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    assert!(fixture.open_as(&storage, true).is_ok(), "a single-writer repository works there");
}
