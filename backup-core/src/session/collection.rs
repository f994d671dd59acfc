//! Records of collections and forgetting: read by everybody, made by whoever has the maintenance key.
//!
//! A collection condemns packs in a *mark* and deletes them only after its *final*. The final
//! carries a checkpoint: the outcome objects of all commits that are valid, because their slots
//! are deleted afterwards.

use hashbrown::HashSet;

use crate::crypto::{SigningKey, VerifyingKey};
use crate::error::{Error, Result};
use crate::format::cbor::{self, MapReader};
use crate::id::{BackupId, ObjectName, RepositoryId, SessionId};
use crate::length::to_u64;
use crate::limits;
use crate::session::commit::REVOKE_LABEL;
use crate::session::record;

pub(crate) const MARK_LABEL: &str = "backup/v1/collection-mark";
pub(crate) const FINAL_LABEL: &str = "backup/v1/collection-final";
pub(crate) const ABORT_LABEL: &str = "backup/v1/collection-abort";
pub(crate) const FORGET_LABEL: &str = "backup/v1/forget";

/// What a collection decided.
#[derive(Clone, Debug, Default)]
pub(crate) struct Final {
    pub(crate) condemned: HashSet<ObjectName>,
    /// Outcome objects of the valid commits, whole.
    pub(crate) checkpoint: Vec<Vec<u8>>,
    /// Index objects that together name every retained pack.
    pub(crate) indexes: Vec<ObjectName>,
}

/// How a collection ended.
#[derive(Clone, Debug)]
pub(crate) enum CollectionOutcome {
    Final(Final),
    Aborted,
}

/// Reads a mark: the packs that it condemns.
pub(crate) fn read_mark(
    bytes: &[u8],
    maintenance: &VerifyingKey,
    repository: RepositoryId,
    number: u32,
    name: &str,
) -> Result<HashSet<ObjectName>> {
    let opened = record::open(bytes, &[(MARK_LABEL, maintenance)], "collection mark", &name)?;
    let mut map = header(opened.payload, "collection mark", repository, number, &name)?;
    let condemned = names(&mut map, 3)?.into_iter().collect();
    map.finish()?;
    Ok(condemned)
}

/// Reads the outcome of a collection.
pub(crate) fn read_outcome(
    bytes: &[u8],
    maintenance: &VerifyingKey,
    repository: RepositoryId,
    number: u32,
    name: &str,
) -> Result<CollectionOutcome> {
    let labels = [(FINAL_LABEL, maintenance), (ABORT_LABEL, maintenance)];
    let opened = record::open(bytes, &labels, "collection outcome", &name)?;
    let mut map = header(opened.payload, "collection outcome", repository, number, &name)?;
    if opened.label == ABORT_LABEL {
        map.finish()?;
        return Ok(CollectionOutcome::Aborted);
    }
    let condemned = names(&mut map, 3)?.into_iter().collect();
    let mut checkpoint = Vec::new();
    for item in map.required(4)?.array()? {
        checkpoint.push(item.bytes()?.to_vec());
    }
    let indexes = names(&mut map, 5)?;
    map.finish()?;
    Ok(CollectionOutcome::Final(Final { condemned, checkpoint, indexes }))
}

/// Reads a record that a backup is forgotten: whether it is genuine and about `commit`.
pub(crate) fn read_forget(
    bytes: &[u8],
    maintenance: &VerifyingKey,
    repository: RepositoryId,
    commit: &BackupId,
    name: &str,
) -> Result<()> {
    let opened = record::open(bytes, &[(FORGET_LABEL, maintenance)], "forget record", &name)?;
    let mut map = cbor::decode(opened.payload, "forget record", &name)?.map()?;
    let same = map.required(1)?.fixed()? == *repository.as_bytes();
    if !same || map.required(2)?.fixed()? != *commit.as_bytes() {
        return Err(map.damaged("it is about another backup"));
    }
    map.finish()
}

fn header<'b>(
    payload: &'b [u8],
    what: &'static str,
    repository: RepositoryId,
    number: u32,
    name: &'b &str,
) -> Result<MapReader<'b>> {
    let mut map = cbor::decode(payload, what, name)?.map()?;
    if map.required(1)?.fixed()? != *repository.as_bytes() {
        return Err(map.damaged("it belongs to another repository"));
    }
    if map.required(2)?.u32()? != number {
        return Err(map.damaged("it belongs to another collection"));
    }
    Ok(map)
}

/// Object names, one behind the other in a byte string, ascending.
fn names(map: &mut MapReader<'_>, key: u64) -> Result<Vec<ObjectName>> {
    let bytes = map.required(key)?.bytes()?;
    let (names, tail) = bytes.as_chunks::<32>();
    if !tail.is_empty() {
        return Err(map.damaged("a list of names is cut off"));
    }
    if !names.is_sorted_by(|a, b| a < b) {
        return Err(map.damaged("a list of names is not in ascending order"));
    }
    Ok(names.iter().map(|name| ObjectName::new(*name)).collect())
}

/// A mark.
pub(crate) fn seal_mark(key: &SigningKey, of: RepositoryId, number: u32, condemned: &[ObjectName]) -> Result<Vec<u8>> {
    let payload = cbor::encode_map(|map| {
        map.bytes(1, of.as_bytes());
        map.u64(2, u64::from(number));
        map.bytes(3, &list(condemned));
    })?;
    within(record::seal(MARK_LABEL, &payload, key)?, "size of a collection mark", limits::COLLECTION)
}

/// A final. `checkpoint` has outcome objects, whole.
pub(crate) fn seal_final(
    key: &SigningKey,
    of: RepositoryId,
    number: u32,
    condemned: &[ObjectName],
    checkpoint: &[impl AsRef<[u8]>],
    indexes: &[ObjectName],
) -> Result<Vec<u8>> {
    let payload = cbor::encode_map(|map| {
        map.bytes(1, of.as_bytes());
        map.u64(2, u64::from(number));
        map.bytes(3, &list(condemned));
        map.array(4, |array| checkpoint.iter().for_each(|commit| array.bytes(commit.as_ref())));
        map.bytes(5, &list(indexes));
    })?;
    within(record::seal(FINAL_LABEL, &payload, key)?, "size of a collection final", limits::COLLECTION)
}

/// An abort.
pub(crate) fn seal_abort(key: &SigningKey, of: RepositoryId, number: u32) -> Result<Vec<u8>> {
    let payload = cbor::encode_map(|map| {
        map.bytes(1, of.as_bytes());
        map.u64(2, u64::from(number));
    })?;
    record::seal(ABORT_LABEL, &payload, key)
}

/// A revocation of a session.
pub(crate) fn seal_revocation(key: &SigningKey, of: RepositoryId, session: SessionId) -> Result<Vec<u8>> {
    let payload = cbor::encode_map(|map| {
        map.bytes(1, of.as_bytes());
        map.bytes(2, session.as_bytes());
    })?;
    record::seal(REVOKE_LABEL, &payload, key)
}

/// A record that a backup is forgotten.
pub(crate) fn seal_forget(key: &SigningKey, of: RepositoryId, commit: BackupId) -> Result<Vec<u8>> {
    let payload = cbor::encode_map(|map| {
        map.bytes(1, of.as_bytes());
        map.bytes(2, commit.as_bytes());
    })?;
    record::seal(FORGET_LABEL, &payload, key)
}

fn list(names: &[ObjectName]) -> Vec<u8> {
    let mut names: Vec<_> = names.iter().map(|name| *name.as_bytes()).collect();
    names.sort_unstable();
    names.dedup();
    names.concat()
}

fn within(bytes: Vec<u8>, what: &str, limit: u64) -> Result<Vec<u8>> {
    let length = to_u64(bytes.len());
    if length > limit { Err(Error::limit(what, length, limit)) } else { Ok(bytes) }
}

/// The records of a collector as values: for tests of readers and writers.
#[cfg(any(test, feature = "testing"))]
pub(crate) mod testing {
    use super::*;

    pub(crate) fn mark(key: &SigningKey, of: RepositoryId, number: u32, condemned: &[ObjectName]) -> Vec<u8> {
        seal_mark(key, of, number, condemned).unwrap_or_default()
    }

    pub(crate) fn finale(
        key: &SigningKey,
        of: RepositoryId,
        number: u32,
        condemned: &[ObjectName],
        checkpoint: &[Vec<u8>],
        indexes: &[ObjectName],
    ) -> Vec<u8> {
        seal_final(key, of, number, condemned, checkpoint, indexes).unwrap_or_default()
    }

    pub(crate) fn abort(key: &SigningKey, of: RepositoryId, number: u32) -> Vec<u8> {
        seal_abort(key, of, number).unwrap_or_default()
    }

    pub(crate) fn revoke(key: &SigningKey, of: RepositoryId, session: SessionId) -> Vec<u8> {
        seal_revocation(key, of, session).unwrap_or_default()
    }

    pub(crate) fn forget(key: &SigningKey, of: RepositoryId, commit: BackupId) -> Vec<u8> {
        seal_forget(key, of, commit).unwrap_or_default()
    }
}
