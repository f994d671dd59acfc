//! The commit record: what a session decided, signed with the writer key.

use std::collections::BTreeSet;

use crate::crypto::{SigningKey, VerifyingKey, hash};
use crate::error::{Error, Result};
use crate::format::cbor;
use crate::format::layout::Place;
use crate::id::{BackupId, Digest, ObjectName, RepositoryId, SessionId};
use crate::length::to_u64;
use crate::limits;
use crate::session::record;
use crate::time::Timestamp;

pub(crate) const COMMIT_LABEL: &str = "backup/v1/commit";
pub(crate) const REVOKE_LABEL: &str = "backup/v1/revoke";
/// Most heads that one commit names: as many as there can be unmerged writers that matter.
const MOST_HEADS: usize = 256;
/// Most earlier ids that one commit has. A backup with as many is not replaced again: an id that was dropped could not be
/// forgotten any more, and who names it would be told that something is missing.
pub(crate) const MOST_REPLACED: usize = 256;

/// What a commit says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewCommit {
    pub(crate) repository: RepositoryId,
    pub(crate) session: SessionId,
    pub(crate) generation: u32,
    pub(crate) body: ObjectName,
    /// Index objects that the session wrote.
    pub(crate) indexes: Vec<ObjectName>,
    pub(crate) closure: ObjectName,
    /// Packs in the closure, and their bytes on storage.
    pub(crate) closure_packs: u64,
    pub(crate) closure_bytes: u64,
    pub(crate) config: Digest,
    /// Commits that were known and that no other known commit names.
    pub(crate) heads: Vec<BackupId>,
    /// When it was made: for people and for retention, never for safety.
    pub(crate) time: Timestamp,
    /// All earlier ids of the same backup, oldest first. Empty for one that was never replaced.
    pub(crate) replaces: Vec<BackupId>,
}

/// A commit whose signature was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    /// BLAKE3 of the outcome object.
    pub(crate) id: BackupId,
    pub(crate) content: NewCommit,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Committed(Box<Commit>),
    /// A collection ended this session.
    Revoked(SessionId),
}

impl NewCommit {
    /// The bytes of the outcome object.
    pub(crate) fn seal(&self, key: &SigningKey) -> Result<Vec<u8>> {
        if self.replaces.len() > MOST_REPLACED {
            return Err(Error::limit("earlier ids of a backup", to_u64(self.replaces.len()), to_u64(MOST_REPLACED)));
        }
        let (seconds, nanoseconds) = self.time.to_unix();
        let payload = cbor::encode_map(|map| {
            map.bytes(1, self.repository.as_bytes());
            map.bytes(2, self.session.as_bytes());
            map.u64(3, u64::from(self.generation));
            map.bytes(4, self.body.as_bytes());
            map.array(5, |array| self.indexes.iter().for_each(|name| array.bytes(name.as_bytes())));
            map.bytes(6, self.closure.as_bytes());
            map.u64(7, self.closure_packs);
            map.u64(8, self.closure_bytes);
            map.bytes(9, self.config.as_bytes());
            map.array(10, |array| {
                self.heads.iter().take(MOST_HEADS).for_each(|head| array.bytes(head.as_bytes()));
            });
            map.i64(11, seconds);
            map.u64(12, u64::from(nanoseconds));
            if !self.replaces.is_empty() {
                map.array(13, |array| self.replaces.iter().for_each(|id| array.bytes(id.as_bytes())));
            }
        })?;
        let bytes = record::seal(COMMIT_LABEL, &payload, key)?;
        let length = to_u64(bytes.len());
        if length > limits::COMMIT {
            return Err(Error::limit("size of a commit", length, limits::COMMIT));
        }
        Ok(bytes)
    }
}

impl Commit {
    /// The id of an outcome object with these bytes.
    pub(crate) fn id_of(bytes: &[u8]) -> BackupId {
        BackupId::new(*hash::object_name(bytes).as_bytes())
    }

    /// All ids of its backup that it knows, oldest first: those of the commits that it replaces, and its own.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &BackupId> {
        self.content.replaces.iter().chain([&self.id])
    }

    /// The first id of its backup, which no replacement changes.
    pub(crate) fn origin(&self) -> BackupId {
        self.content.replaces.first().copied().unwrap_or(self.id)
    }

    /// The place of this commit's outcome object.
    pub(crate) fn place(&self) -> Place {
        Place::SessionOutcome(self.content.generation, self.content.session)
    }
}

impl Outcome {
    /// Reads an outcome object. `name` is its storage key.
    pub(crate) fn open(
        bytes: &[u8],
        writer: &VerifyingKey,
        maintenance: &VerifyingKey,
        repository: RepositoryId,
        name: &str,
    ) -> Result<Self> {
        let opened =
            record::open(bytes, &[(COMMIT_LABEL, writer), (REVOKE_LABEL, maintenance)], "session outcome", &name)?;
        let mut map = cbor::decode(opened.payload, "session outcome", &name)?.map()?;
        let of = RepositoryId::new(map.required(1)?.fixed()?);
        if of != repository {
            return Err(map.damaged("it belongs to another repository"));
        }
        let session = SessionId::new(map.required(2)?.fixed()?);
        if opened.label == REVOKE_LABEL {
            map.finish()?;
            return Ok(Self::Revoked(session));
        }
        let generation = map.required(3)?.u32()?;
        let body = ObjectName::new(map.required(4)?.fixed()?);
        let mut indexes = Vec::new();
        for item in map.required(5)?.array()? {
            indexes.push(ObjectName::new(item.fixed()?));
        }
        let closure = ObjectName::new(map.required(6)?.fixed()?);
        let closure_packs = map.required(7)?.u64()?;
        let closure_bytes = map.required(8)?.u64()?;
        let config = Digest::new(map.required(9)?.fixed()?);
        let mut heads = Vec::new();
        for item in map.required(10)?.array()? {
            heads.push(BackupId::new(item.fixed()?));
        }
        let (seconds, nanoseconds) = (map.required(11)?.i64()?, map.required(12)?.u32()?);
        let time = Timestamp::from_unix(seconds, nanoseconds).map_err(|_| map.damaged("its time is out of range"))?;
        let mut replaces = Vec::new();
        if let Some(list) = map.optional(13)? {
            let mut list = list.array()?;
            let count = list.remaining();
            if count == 0 || count > to_u64(MOST_REPLACED) {
                return Err(list.damaged(format!("it replaces {count} commits")));
            }
            while list.remaining() > 0 {
                replaces.push(BackupId::new(list.required()?.fixed()?));
            }
            list.finish()?;
            if replaces.iter().collect::<BTreeSet<_>>().len() != replaces.len() {
                return Err(map.damaged("it replaces a commit twice"));
            }
        }
        map.finish()?;
        let content = NewCommit {
            repository,
            session,
            generation,
            body,
            indexes,
            closure,
            closure_packs,
            closure_bytes,
            config,
            heads,
            time,
            replaces,
        };
        Ok(Self::Committed(Box::new(Commit { id: Commit::id_of(bytes), content })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_writer_key_commits() {
        let (writer, other) = (SigningKey::from_seed(&[1; 32]), SigningKey::from_seed(&[2; 32]));
        let commit = NewCommit {
            repository: RepositoryId::new([3; 16]),
            session: SessionId::new([4; 16]),
            generation: 7,
            body: ObjectName::new([5; 32]),
            indexes: vec![ObjectName::new([6; 32])],
            closure: ObjectName::new([7; 32]),
            closure_packs: 3,
            closure_bytes: 4096,
            config: Digest::new([8; 32]),
            heads: vec![BackupId::new([9; 32])],
            time: Timestamp::from_unix(1_790_000_000, 5).unwrap(),
            replaces: vec![BackupId::new([11; 32]), BackupId::new([10; 32])],
        };
        let read = |bytes: &[u8], repository: u8| {
            Outcome::open(
                bytes,
                &writer.verifying_key(),
                &other.verifying_key(),
                RepositoryId::new([repository; 16]),
                "sessions/x",
            )
        };
        let bytes = commit.seal(&writer).unwrap();
        let Outcome::Committed(found) = read(&bytes, 3).unwrap() else { panic!("not a commit") };
        assert_eq!(found.content, commit);
        assert!(read(&bytes, 4).is_err(), "another repository");
        assert!(read(&commit.seal(&other).unwrap(), 3).is_err(), "another key");
        for position in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[position] ^= 1;
            assert!(read(&changed, 3).is_err(), "byte {position}");
            assert!(read(&bytes[..position], 3).is_err(), "cut at {position}");
        }
    }
    #[test]
    fn earlier_ids_are_bounded_and_each_there_once() {
        let key = SigningKey::from_seed(&[1; 32]);
        let read = |replaces: &[BackupId], is_there: bool| {
            let payload = cbor::encode_map(|map| {
                map.bytes(1, &[3; 16]);
                map.bytes(2, &[4; 16]);
                map.u64(3, 7);
                map.bytes(4, &[5; 32]);
                map.array(5, |_| ());
                map.bytes(6, &[7; 32]);
                map.u64(7, 0);
                map.u64(8, 0);
                map.bytes(9, &[8; 32]);
                map.array(10, |_| ());
                map.i64(11, 0);
                map.u64(12, 0);
                if is_there {
                    map.array(13, |array| replaces.iter().for_each(|id| array.bytes(id.as_bytes())));
                }
            });
            let bytes = record::seal(COMMIT_LABEL, &payload.unwrap(), &key).unwrap();
            let public = key.verifying_key();
            match Outcome::open(&bytes, &public, &public, RepositoryId::new([3; 16]), "sessions/x") {
                Ok(Outcome::Committed(commit)) => {
                    let again = commit.content.seal(&key).unwrap();
                    assert_eq!(again, bytes, "one encoding for each commit");
                    Some((commit.ids().copied().collect::<Vec<_>>(), commit.origin(), commit.id))
                }
                Ok(outcome) => panic!("{outcome:?}"),
                Err(error) => {
                    assert!(matches!(error, Error::Damaged { .. }), "{error}");
                    None
                }
            }
        };
        let ids: Vec<BackupId> =
            (0..257u16).map(|n| BackupId::new(*hash::digest(&n.to_le_bytes()).as_bytes())).collect();
        let (all, origin, id) = read(&[], false).unwrap();
        assert_eq!((all, origin), (vec![id], id));
        let (all, origin, id) = read(&ids[..256], true).unwrap();
        assert_eq!((&all[..256], all[256], origin), (&ids[..256], id, ids[0]));
        assert_eq!(read(&[], true), None, "an empty list is left out");
        assert_eq!(read(&ids, true), None, "more than 256");
        assert_eq!(read(&[ids[0], ids[1], ids[0]], true), None, "one of them twice");
    }
}
