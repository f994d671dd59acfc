//! Forgetting and collecting by the letter of `docs/format.md`, steps G0 to G8, written from that alone: without the
//! password, by closures.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::id::{BackupId, ObjectName, SessionId};
use backup_core::repository::Repository;
use backup_core::storage::{Key, PutMode, Storage, StorageError, list_all};
use backup_core::testing;

use crate::scheduler::Running;
use crate::support::cbor::{Item, map};

/// What a collector leaves out of its steps: the simulation must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Omission {
    Nothing,
    /// G5: open sessions are not settled.
    Settling,
    /// G6: what live commits need is not looked up again.
    SecondLook,
    /// G7: the checkpoint has no commits.
    Checkpoint,
    /// G7: whether the final was won is not looked at, and it is put over what is there.
    Fence,
}

type Outcome<T> = Result<T, StorageError>;

/// A commit, as far as a collector looks into it.
#[derive(Clone)]
struct Commit {
    bytes: Vec<u8>,
    generation: u64,
    replaces: Vec<BackupId>,
    body: ObjectName,
    closure: ObjectName,
    indexes: Vec<ObjectName>,
}

/// What the storage says.
#[derive(Default)]
struct History {
    newest: u32,
    marks: BTreeMap<u32, BTreeSet<ObjectName>>,
    ended: BTreeSet<u32>,
    newest_final: u32,
    indexes: BTreeSet<ObjectName>,
    forgotten: BTreeSet<BackupId>,
    live: BTreeMap<BackupId, Commit>,
    valid: BTreeMap<BackupId, Commit>,
    open: BTreeSet<(u32, SessionId)>,
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn name_of(bytes: &[u8]) -> ObjectName {
    ObjectName::new(bytes.try_into().unwrap())
}

fn names(item: &Item) -> BTreeSet<ObjectName> {
    item.bytes().chunks(32).map(name_of).collect()
}

/// Label and payload of a record.
fn record(bytes: &[u8]) -> (String, Item) {
    let record = Item::decode(bytes);
    (record.get(1).text().to_owned(), Item::decode(record.get(2).bytes()))
}

/// An object, or nothing where it is gone.
fn get(storage: &dyn Storage, key: &Key) -> Outcome<Option<Vec<u8>>> {
    match storage.get(key, u64::MAX) {
        Ok(bytes) => Ok(Some(bytes.to_vec())),
        Err(StorageError::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the slot has these bytes now: a put that was not answered is looked up.
fn decide(storage: &dyn Storage, (key, bytes): (Key, Vec<u8>)) -> Outcome<bool> {
    match storage.put(&key, bytes.clone().into(), PutMode::Create) {
        Ok(()) => Ok(true),
        Err(error) => match get(storage, &key)? {
            Some(found) => Ok(found == bytes),
            None => Err(error),
        },
    }
}

impl History {
    fn read(storage: &dyn Storage) -> Outcome<Self> {
        loop {
            let history = Self::read_once(storage)?;
            let ended = list_all(storage, "collections/")?;
            let is_new = |key: &str| {
                key.strip_suffix("/outcome").is_some_and(|key| !history.ended.contains(&number(key.split('/').nth(1))))
            };
            if !ended.iter().any(|object| is_new(object.key.as_str())) {
                return Ok(history);
            }
        }
    }

    fn read_once(storage: &dyn Storage) -> Outcome<Self> {
        let mut history = Self::default();
        for object in list_all(storage, "collections/")? {
            let parts: Vec<&str> = object.key.as_str().split('/').collect();
            let of = number(parts.get(1).copied());
            history.newest = history.newest.max(of);
            let is_outcome = parts[2] == "outcome";
            if is_outcome {
                history.ended.insert(of);
            }
            if parts[2] == "open" {
                continue;
            }
            let Some(bytes) = get(storage, &object.key)? else { continue };
            let (label, payload) = record(&bytes);
            match label.as_str() {
                "backup/v1/collection-mark" => drop(history.marks.insert(of, names(payload.get(3)))),
                "backup/v1/collection-final" => {
                    history.newest_final = of;
                    history.indexes = names(payload.get(5));
                    history.valid.clear();
                    payload.get(4).array().iter().for_each(|commit| history.add(commit.bytes()));
                }
                _ => {}
            }
        }
        for object in list_all(storage, "sessions/")? {
            let parts: Vec<&str> = object.key.as_str().split('/').collect();
            let of = (number(parts.get(1).copied()), parts[2].parse::<SessionId>().unwrap());
            if parts[3] == "open" {
                history.open.insert(of);
                continue;
            }
            history.open.remove(&of);
            if of.0 > history.newest_final
                && let Some(bytes) = get(storage, &object.key)?
                && record(&bytes).0 == "backup/v1/commit"
            {
                history.add(&bytes);
            }
        }
        for object in list_all(storage, "forgets/")? {
            history.forgotten.insert(object.key.as_str()["forgets/".len()..].parse().unwrap());
        }
        history.live = history.valid.clone();
        history.live.retain(|id, commit| {
            let is_replaced = history
                .valid
                .values()
                .any(|other| other.generation >= commit.generation && other.replaces.contains(id));
            !is_replaced && !is_forgotten(&history.forgotten, id, commit)
        });
        Ok(history)
    }

    fn add(&mut self, bytes: &[u8]) {
        let (_, payload) = record(bytes);
        let (body, closure) = (name_of(payload.get(4).bytes()), name_of(payload.get(6).bytes()));
        let indexes = payload.get(5).array().iter().map(|name| name_of(name.bytes())).collect();
        let id = BackupId::new(*blake3::hash(bytes).as_bytes());
        let earlier = payload.find(13).map(Item::array).unwrap_or_default();
        let replaces = earlier.iter().map(|id| BackupId::new(id.bytes().try_into().unwrap())).collect();
        let generation = payload.get(3).number();
        self.valid.insert(id, Commit { bytes: bytes.to_vec(), generation, replaces, body, closure, indexes });
    }

    /// Packs, bodies and index segments that live backups need.
    fn needed(&self, storage: &dyn Storage) -> Outcome<BTreeSet<ObjectName>> {
        let mut needed = self.indexes.clone();
        needed.extend(self.valid.values().flat_map(|commit| &commit.indexes));
        needed.extend(self.live.values().map(|commit| commit.body));
        for commit in self.live.values() {
            let closure = key(&format!("closures/{}", commit.closure));
            // Another collector may have ended meanwhile. What is lost, readers miss.
            let bytes = get(storage, &closure)?.ok_or(StorageError::NotFound)?;
            needed.extend(bytes[16..].chunks(40).map(|entry| name_of(&entry[..32])));
        }
        Ok(needed)
    }
}

fn is_forgotten(forgotten: &BTreeSet<BackupId>, id: &BackupId, commit: &Commit) -> bool {
    commit.replaces.iter().chain([id]).any(|id| forgotten.contains(id))
}

fn number(text: Option<&str>) -> u32 {
    u32::from_str_radix(text.unwrap(), 16).unwrap()
}

fn abort(signer: &Repository, number: u32) -> (Key, Vec<u8>) {
    let payload = map(vec![(1, (*signer.id().as_bytes()).into()), (2, u64::from(number).into())]).encode();
    let record = testing::sign_record(signer, "backup/v1/collection-abort", &payload).unwrap();
    (key(&format!("collections/{number:08x}/outcome")), record)
}

fn name_in(key: &Key) -> ObjectName {
    key.as_str().rsplit('/').next().unwrap().parse().unwrap()
}

/// One collection, or the rest of one that another has left. `signer` has the maintenance key.
pub(crate) fn collect(
    storage: &dyn Storage,
    signer: &Repository,
    running: &Running,
    omission: Omission,
) -> Outcome<()> {
    let before = History::read(storage)?;
    let mut of = before.newest;
    let mut condemned = None;
    if of > 0 && !before.ended.contains(&of) {
        condemned = before.marks.get(&of).cloned().filter(|_| running.below(2) == 0);
        if condemned.is_none() {
            decide(storage, abort(signer, of))?;
            return Ok(());
        }
    } else {
        of += 1;
    }
    let condemned = match condemned {
        Some(condemned) => condemned,
        None => match mark(storage, signer, of)? {
            Some(condemned) => condemned,
            None => return Ok(()),
        },
    };
    // G4, G5.
    let history = History::read(storage)?;
    let is_settling = omission != Omission::Settling;
    for (generation, session) in history.open.iter().filter(|_| is_settling) {
        let (slot, revocation) = testing::revocation(signer, *generation, *session).unwrap();
        while get(storage, &slot)?.is_none() {
            decide(storage, (slot.clone(), revocation.clone()))?;
        }
    }
    // G6.
    let history = History::read(storage)?;
    let needed = if omission == Omission::SecondLook { BTreeSet::new() } else { history.needed(storage)? };
    let condemned: Vec<ObjectName> = condemned.difference(&needed).copied().collect();
    let mut checkpoint: Vec<Vec<u8>> = history.live.values().map(|commit| commit.bytes.clone()).collect();
    let mut indexes = history.indexes.clone();
    indexes.extend(history.valid.values().flat_map(|commit| &commit.indexes));
    let indexes: Vec<ObjectName> = indexes.into_iter().collect();
    if omission == Omission::Checkpoint {
        checkpoint.clear();
    }
    for (id, commit) in &history.valid {
        if commit.generation <= u64::from(of) && is_forgotten(&history.forgotten, id, commit) {
            for id in commit.replaces.iter().chain([id]).filter(|id| !history.forgotten.contains(id)) {
                decide(storage, testing::forget(signer, *id).unwrap())?;
            }
        }
    }
    // G7.
    let finale = testing::collection_final(signer, of, &condemned, &checkpoint, &indexes).unwrap();
    if omission == Omission::Fence {
        storage.put(&finale.0, finale.1.into(), PutMode::Overwrite)?;
    } else if !decide(storage, finale)? {
        return Ok(());
    }
    // G8.
    for prefix in ["packs/", "bodies/", "index/"] {
        for object in list_all(storage, prefix)? {
            if condemned.contains(&name_in(&object.key)) {
                storage.delete(&object.key)?;
            }
        }
    }
    for ending in ["/open", "/outcome"] {
        for object in list_all(storage, "sessions/")? {
            if object.key.as_str().ends_with(ending) && number(object.key.as_str().split('/').nth(1)) <= of {
                storage.delete(&object.key)?;
            }
        }
    }
    Ok(())
}

/// G0 to G3; nothing where another has the collection.
fn mark(storage: &dyn Storage, signer: &Repository, of: u32) -> Outcome<Option<BTreeSet<ObjectName>>> {
    match storage.put(&key(&format!("collections/{of:08x}/open")), "".into(), PutMode::Create) {
        Ok(()) => {}
        Err(StorageError::AlreadyExists) => return Ok(None),
        Err(error) => return Err(error),
    }
    let listed: BTreeSet<ObjectName> = list_all(storage, "packs/")?.iter().map(|object| name_in(&object.key)).collect();
    let history = History::read(storage)?;
    let condemned: Vec<ObjectName> = listed.difference(&history.needed(storage)?).copied().collect();
    let is_ours = decide(storage, testing::collection_mark(signer, of, &condemned).unwrap())?;
    Ok(is_ours.then(|| condemned.into_iter().collect()))
}
