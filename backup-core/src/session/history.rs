//! What the storage says happened: valid commits, condemned packs, unfinished sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use hashbrown::HashSet;

use crate::crypto::VerifyingKey;
use crate::error::{Error, Result};
use crate::format::layout::{self, Place};
use crate::id::{BackupId, ObjectName, RepositoryId, SessionId};
use crate::limits;
use crate::session::collection::{self, CollectionOutcome, Final};
use crate::session::commit::{Commit, Outcome};
use crate::storage::{Key, Storage, StorageError, list_all};

/// How often the history is read anew because a collection ended meanwhile.
const ATTEMPTS: usize = 8;

/// The history of a repository as it was read, and everything in it that is not as it must be.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// The backups: of each, the one commit that is shown.
    pub(crate) commits: BTreeMap<BackupId, Commit>,
    /// Commits that are valid, not forgotten and not replaced: what they need is kept. Where several programs replaced a
    /// backup at the same time, it has several.
    pub(crate) live: BTreeMap<BackupId, Commit>,
    /// Commits that are valid, forgotten and replaced ones included: their packs are there until a collection.
    pub(crate) valid: BTreeMap<BackupId, Commit>,
    /// What forget records name. That is not all that is forgotten, see [`is_forgotten`](Self::is_forgotten).
    pub(crate) forgotten: BTreeSet<BackupId>,
    /// For every id that a valid commit has or replaces, the first id of that backup.
    pub(in crate::session) origins: BTreeMap<BackupId, BackupId>,
    /// Packs, and bodies and index objects, that a collection condemned: nothing new may refer to them.
    pub(crate) condemned: HashSet<ObjectName>,
    /// Those of them that a final names: somebody may delete them at any time, if they are not gone.
    pub(crate) gone: HashSet<ObjectName>,
    /// Index objects that name every pack of the valid commits.
    pub(crate) indexes: BTreeSet<ObjectName>,
    /// Sessions that were opened and have no outcome.
    pub(crate) unfinished: Vec<(u32, SessionId)>,
    /// The newest collection that has a mark, 0 without one.
    pub(crate) newest_mark: u32,
    /// The newest collection with a final, 0 without one.
    pub(crate) newest_final: u32,
    /// The newest collection that has a final, or a mark and no outcome yet, 0 without one: no commit of this
    /// generation or an older one can be put into its slot any more.
    pub(crate) closed: u32,
    /// Collections that had an outcome, genuine or not.
    ended: BTreeSet<u32>,
    /// Records that cannot be used. They hide nothing that is signed, but they are not right.
    pub(crate) flaws: Vec<Flaw>,
}

const LOST_OUTCOME: &str =
    "it is missing: what the collection condemned is deleted, so it had ended; it may hold the commits of all backups";

/// What a record may be that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hidden {
    /// The newest final, whose checkpoint has the commits of all backups.
    AllBackups,
    /// The commit of a backup.
    OneBackup,
}

/// A record that cannot be used.
#[derive(Debug)]
pub(crate) struct Flaw {
    pub(crate) key: String,
    pub(crate) error: Error,
}

/// Who may have signed what.
#[derive(Clone, Debug)]
pub(crate) struct Signers {
    pub(crate) repository: RepositoryId,
    pub(crate) writer: VerifyingKey,
    pub(crate) maintenance: VerifyingKey,
}

/// Where records are read, whose signatures count, and on how many threads that is done.
pub(crate) struct Records<'r> {
    pub(crate) storage: &'r dyn Storage,
    pub(crate) signers: &'r Signers,
    pub(crate) each: &'r Each<'r>,
}

/// Calls a function with every number below a count, in any order, on several threads perhaps.
pub(crate) type Each<'r> = dyn Fn(usize, &(dyn Fn(usize) -> Result<()> + Sync)) -> Result<()> + Sync + 'r;

impl History {
    /// Reads the whole history.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`]. Damaged records are [flaws](Self::flaws), not errors: one bad record must
    /// not keep anybody from the others.
    pub(crate) fn read(records: &Records<'_>) -> Result<Self> {
        Self::default().read_again(records)
    }

    /// The history now. Commits that this one has and that are still listed are not read again: no slot is
    /// ever written twice.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub(crate) fn read_again(&self, records: &Records<'_>) -> Result<Self> {
        for _ in 0..ATTEMPTS {
            let history = self.read_once(records)?;
            // What a collection deletes goes after its final came: who read all before that missed nothing.
            if !history.is_overtaken(records.storage)? {
                return Ok(history);
            }
        }
        let source = StorageError::Transient("collections kept ending while the history was read".into());
        Err(Error::list(layout::COLLECTIONS, source))
    }

    /// Whether a collection had an outcome, genuine or not.
    pub(crate) fn has_ended(&self, number: u32) -> bool {
        self.ended.contains(&number)
    }

    /// Whether a collection ended since this was read: what is missing now may be what it deleted.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`].
    pub(crate) fn is_overtaken(&self, storage: &dyn Storage) -> Result<bool> {
        Ok(listed(storage, layout::COLLECTIONS)?.iter().any(|object| match Place::parse(&object.key) {
            Some(Place::CollectionOutcome(number)) => !self.ended.contains(&number),
            _ => false,
        }))
    }

    /// Flaws of records that may be those of backups which are not shown for that, and what each may be.
    pub(crate) fn hiding(&self) -> impl Iterator<Item = (&Flaw, Hidden)> {
        self.flaws.iter().filter_map(|flaw| {
            match Key::new(flaw.key.clone()).ok().and_then(|key| Place::parse(&key))? {
                Place::CollectionOutcome(number) if number >= self.newest_final => Some((flaw, Hidden::AllBackups)),
                Place::SessionOutcome(..) => Some((flaw, Hidden::OneBackup)),
                _ => None,
            }
        })
    }

    /// The outcome that is lost of a collection which has a mark and had ended, and what tells that: what the mark condemned is not
    /// all there, and nobody deletes any of that before the final. Without a mark that is open, nothing is looked at.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`].
    pub(crate) fn lost_outcome(&self, storage: &dyn Storage) -> Result<Option<(Key, &'static str)>> {
        let mut marked: HashSet<ObjectName> = self.condemned.difference(&self.gone).copied().collect();
        if marked.is_empty() {
            return Ok(None);
        }
        for prefix in [layout::PACKS, layout::BODIES, layout::INDEXES] {
            for object in listed(storage, prefix)? {
                if let Some(Place::Pack(name) | Place::Body(name) | Place::Index(name)) = Place::parse(&object.key) {
                    marked.remove(&name);
                }
            }
        }
        // Another may have ended it while this was listed.
        let is_lost = !marked.is_empty() && !self.is_overtaken(storage)?;
        Ok(is_lost.then(|| (Place::CollectionOutcome(self.newest_mark).key(), LOST_OUTCOME)))
    }

    fn read_once(&self, records: &Records<'_>) -> Result<Self> {
        let (storage, signers) = (records.storage, records.signers);
        let mut history = Self::default();
        let newest = history.read_collections(storage, signers)?;
        history.read_sessions(records, self)?;
        if let Some(newest) = newest {
            for bytes in &newest.checkpoint {
                let name = Place::CollectionOutcome(history.newest_final).key();
                match open_outcome(bytes, signers, name.as_str()) {
                    Ok(Outcome::Committed(commit)) => drop(history.valid.insert(commit.id, *commit)),
                    Ok(Outcome::Revoked(_)) => {}
                    Err(error) => history.flaws.push(Flaw { key: name.to_string(), error }),
                }
            }
            history.indexes.extend(newest.indexes);
        }
        history.read_forgets(storage, signers)?;
        for commit in history.valid.values() {
            history.indexes.extend(&commit.content.indexes);
        }
        history.settle();
        Ok(history)
    }

    /// Newest mark and condemned packs; returns the newest final.
    fn read_collections(&mut self, storage: &dyn Storage, signers: &Signers) -> Result<Option<Final>> {
        let mut marks = BTreeMap::new();
        let mut outcomes = BTreeMap::new();
        for object in listed(storage, layout::COLLECTIONS)? {
            match Place::parse(&object.key) {
                Some(Place::CollectionMark(number)) => drop(marks.insert(number, object.key)),
                Some(Place::CollectionOutcome(number)) => drop(outcomes.insert(number, object.key)),
                _ => {}
            }
        }
        self.ended = outcomes.keys().copied().collect();
        let mut newest = None;
        for (number, key) in &outcomes {
            let Some(bytes) = read(storage, key, limits::COLLECTION)? else { continue };
            let read =
                collection::read_outcome(&bytes, &signers.maintenance, signers.repository, *number, key.as_str());
            match read {
                Ok(CollectionOutcome::Final(found)) => {
                    self.newest_mark = self.newest_mark.max(*number);
                    self.condemned.extend(&found.condemned);
                    self.gone.extend(&found.condemned);
                    self.newest_final = *number;
                    self.closed = self.closed.max(*number);
                    newest = Some(found);
                }
                Ok(CollectionOutcome::Aborted) => {
                    self.newest_mark = self.newest_mark.max(*number);
                }
                Err(error) => self.flaws.push(Flaw { key: key.to_string(), error }),
            }
        }
        for (number, key) in marks.iter().filter(|(number, _)| !outcomes.contains_key(number)) {
            let Some(bytes) = read(storage, key, limits::COLLECTION)? else { continue };
            match collection::read_mark(&bytes, &signers.maintenance, signers.repository, *number, key.as_str()) {
                // Only a genuine mark counts: anybody can put an object there.
                Ok(condemned) => {
                    self.newest_mark = self.newest_mark.max(*number);
                    self.closed = self.closed.max(*number);
                    self.condemned.extend(condemned);
                }
                Err(error) => self.flaws.push(Flaw { key: key.to_string(), error }),
            }
        }
        Ok(newest)
    }

    fn read_sessions(&mut self, records: &Records<'_>, before: &Self) -> Result<()> {
        let known: BTreeMap<Place, &Commit> = before.valid.values().map(|commit| (commit.place(), commit)).collect();
        let mut open = BTreeSet::new();
        let mut unread = Vec::new();
        for object in listed(records.storage, layout::SESSIONS)? {
            let Some(place) = Place::parse(&object.key) else { continue };
            let (generation, session) = match place {
                Place::SessionOpen(generation, session) => {
                    open.insert((generation, session));
                    continue;
                }
                Place::SessionOutcome(generation, session) => (generation, session),
                _ => continue,
            };
            open.remove(&(generation, session));
            // What is not newer than the newest final counts only if its checkpoint has it.
            if generation <= self.newest_final {
                continue;
            }
            match known.get(&place) {
                Some(commit) => drop(self.valid.insert(commit.id, (*commit).clone())),
                None => unread.push((generation, session, object.key)),
            }
        }
        self.unfinished = open.into_iter().collect();
        let read = Mutex::new((Vec::new(), Vec::new()));
        (records.each)(unread.len(), &|number| {
            let Some((generation, session, key)) = unread.get(number) else { return Ok(()) };
            let outcome = read_outcome(records, *generation, *session, key)?;
            let mut read = read.lock().map_err(|_| Error::Internal("a reader of outcomes panicked"))?;
            match outcome {
                Some(Ok(Outcome::Committed(commit))) => read.0.push(*commit),
                Some(Ok(Outcome::Revoked(_))) | None => {}
                Some(Err(error)) => read.1.push(Flaw { key: key.to_string(), error }),
            }
            Ok(())
        })?;
        let (commits, mut flaws) = read.into_inner().map_err(|_| Error::Internal("a reader of outcomes panicked"))?;
        self.valid.extend(commits.into_iter().map(|commit| (commit.id, commit)));
        flaws.sort_by(|a, b| a.key.cmp(&b.key));
        self.flaws.append(&mut flaws);
        Ok(())
    }

    fn read_forgets(&mut self, storage: &dyn Storage, signers: &Signers) -> Result<()> {
        for object in listed(storage, layout::FORGETS)? {
            let Some(Place::Forget(commit)) = Place::parse(&object.key) else { continue };
            let Some(bytes) = read(storage, &object.key, limits::COMMIT)? else { continue };
            let name = object.key.as_str();
            match collection::read_forget(&bytes, &signers.maintenance, signers.repository, &commit, name) {
                Ok(()) => drop(self.forgotten.insert(commit)),
                Err(error) => self.flaws.push(Flaw { key: object.key.to_string(), error }),
            }
        }
        Ok(())
    }
}

/// What stands in the outcome slot of a session; `None` where it is gone by now.
fn read_outcome(
    records: &Records<'_>,
    generation: u32,
    session: SessionId,
    key: &Key,
) -> Result<Option<Result<Outcome>>> {
    let Some(bytes) = read(records.storage, key, limits::COMMIT)? else { return Ok(None) };
    let name = key.as_str();
    Ok(Some(open_outcome(&bytes, records.signers, name).and_then(|outcome| match outcome {
        Outcome::Committed(commit) if (commit.content.generation, commit.content.session) != (generation, session) => {
            Err(Error::damaged("session outcome", name, "it belongs to another session"))
        }
        Outcome::Revoked(of) if of != session => {
            Err(Error::damaged("session outcome", name, "it revokes another session"))
        }
        outcome => Ok(outcome),
    })))
}

/// The outcome object of a valid commit, whole: from its slot or, where a collection deleted that, from the
/// checkpoint of the newest final.
///
/// # Errors
///
/// [`Error::Damaged`] naming the slot where it is in neither; [`Error::Storage`].
pub(crate) fn outcome_object(records: &Records<'_>, history: &History, commit: &Commit) -> Result<bytes::Bytes> {
    let slot = commit.place().key();
    if let Some(bytes) = read(records.storage, &slot, limits::COMMIT)?
        && Commit::id_of(&bytes) == commit.id
    {
        return Ok(bytes);
    }
    let key = Place::CollectionOutcome(history.newest_final).key();
    if history.newest_final > 0
        && let Some(bytes) = read(records.storage, &key, limits::COLLECTION)?
    {
        let (maintenance, repository) = (&records.signers.maintenance, records.signers.repository);
        if let CollectionOutcome::Final(newest) =
            collection::read_outcome(&bytes, maintenance, repository, history.newest_final, key.as_str())?
            && let Some(found) = newest.checkpoint.into_iter().find(|outcome| Commit::id_of(outcome) == commit.id)
        {
            return Ok(found.into());
        }
    }
    Err(Error::damaged("session outcome", slot, "it is missing, and in no checkpoint"))
}

/// Reads one outcome object with these signers.
pub(crate) fn open_outcome(bytes: &[u8], signers: &Signers, name: &str) -> Result<Outcome> {
    Outcome::open(bytes, &signers.writer, &signers.maintenance, signers.repository, name)
}

fn listed(storage: &dyn Storage, prefix: &str) -> Result<Vec<crate::storage::ObjectInfo>> {
    list_all(storage, prefix).map_err(|source| Error::list(prefix, source))
}

/// An object, or `None` where it is gone by now or larger than its kind can be (a flaw of the storage that
/// the signature check of others does not depend on).
fn read(storage: &dyn Storage, key: &Key, limit: u64) -> Result<Option<bytes::Bytes>> {
    match storage.get(key, limit) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(StorageError::NotFound) => Ok(None),
        // An empty record fails its check and is reported as a flaw.
        Err(StorageError::TooLarge { .. }) => Ok(Some(bytes::Bytes::new())),
        Err(error) => Err(Error::storage("get", key, error)),
    }
}
