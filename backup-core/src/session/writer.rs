//! The writer's side of the protocol: steps W0 to W5 of `docs/format.md`, "Commit protocol".

use bytes::Bytes;

use crate::crypto::SigningKey;
use crate::entropy::Entropy;
use crate::error::{Error, Result};
use crate::format::cbor;
use crate::format::layout::Place;
use crate::id::{BackupId, SessionId};
use crate::limits;
use crate::session::commit::{Commit, NewCommit, Outcome};
use crate::session::history::{History, Records, Signers, open_outcome};
use crate::storage::{Key, PutMode, Storage, StorageError};
use crate::time::Timestamp;

/// How often a session is begun anew because a collection marked packs meanwhile.
const ATTEMPTS: usize = 8;

/// A session that was opened and has no outcome yet.
#[derive(Debug)]
pub(crate) struct SessionWriter {
    pub(crate) session: SessionId,
    pub(crate) generation: u32,
}

impl SessionWriter {
    /// Opens a session (W0, W1) and reads the history that it may refer to (W2). Its generation is `least` or more: a
    /// replacement must not have a smaller one than what it replaces.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`], [`Error::ReadOnly`]; [`Error::Unsupported`] where the storage does not
    /// honour put-if-absent and the repository is not single-writer; [`Error::Conflict`] where collections
    /// kept overtaking.
    pub(crate) fn open(
        records: &Records<'_>,
        single_writer: bool,
        least: u32,
        entropy: &dyn Entropy,
        now: Timestamp,
    ) -> Result<(Self, History)> {
        let storage = records.storage;
        if storage.capabilities().read_only {
            return Err(Error::ReadOnly { what: "the storage".into() });
        }
        if !single_writer {
            probe(storage, entropy)?;
        }
        let (mut opened, history) = Self::open_several(records, &History::default(), least, 1, entropy, now)?;
        Ok((opened.pop().ok_or(Error::Internal("no session was opened"))?, history))
    }

    /// Opens `count` sessions of one generation, `least` or more, and reads the history that they may refer to. `known` is an
    /// earlier reading of it.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open). Then none is open, but where the storage says so.
    pub(crate) fn open_several(
        records: &Records<'_>,
        known: &History,
        least: u32,
        count: usize,
        entropy: &dyn Entropy,
        now: Timestamp,
    ) -> Result<(Vec<Self>, History)> {
        let storage = records.storage;
        for _ in 0..ATTEMPTS {
            let before = known.read_again(records)?;
            let generation = before.newest_mark.saturating_add(1).max(least);
            let mut opened = Vec::with_capacity(count);
            let read = Self::marks(storage, generation, count, entropy, now, &mut opened)
                .and_then(|()| before.read_again(records));
            match read {
                Ok(history) if history.newest_mark < generation => return Ok((opened, history)),
                // A collection marked packs between W0 and W2: these sessions might refer to them unseen.
                Ok(_) => opened.iter().for_each(|session| session.abandon(storage)),
                Err(error) => {
                    opened.iter().for_each(|session| session.abandon(storage));
                    return Err(error);
                }
            }
        }
        Err(Error::Conflict {
            what: "the repository".into(),
            reason: "collections kept overtaking the session".into(),
            transient: true,
        })
    }

    /// Puts the marks of new sessions (W1).
    fn marks(
        storage: &dyn Storage,
        generation: u32,
        count: usize,
        entropy: &dyn Entropy,
        now: Timestamp,
        opened: &mut Vec<Self>,
    ) -> Result<()> {
        for _ in 0..count {
            let mut id = [0; 16];
            entropy.fill(&mut id)?;
            let session = Self { session: SessionId::new(id), generation };
            let (key, bytes) = session.mark(now)?;
            storage.put(&key, bytes, PutMode::Create).map_err(|error| Error::storage("put", &key, error))?;
            opened.push(session);
        }
        Ok(())
    }

    /// The session's mark `open`.
    fn mark(&self, now: Timestamp) -> Result<(Key, Bytes)> {
        let bytes = SessionStart { session: self.session, generation: self.generation, time: now }.encode()?;
        Ok((Place::SessionOpen(self.generation, self.session).key(), bytes.into()))
    }

    /// Opens the session of a commit that was made elsewhere (W1). Others may copy the same commit at the same
    /// time and rely on the same mark, so it is never [abandoned](Self::abandon).
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnly`], [`Error::Storage`].
    pub(crate) fn open_again(storage: &dyn Storage, commit: &Commit, now: Timestamp) -> Result<Self> {
        let opened = Self { session: commit.content.session, generation: commit.content.generation };
        let (key, bytes) = opened.mark(now)?;
        match storage.put(&key, bytes, PutMode::Create) {
            Ok(()) | Err(StorageError::AlreadyExists) => Ok(opened),
            Err(error) => Err(Error::storage("put", &key, error)),
        }
    }

    /// Ends a session that has stored nothing and will never commit: its mark goes away. Where it cannot, it
    /// is left, as that of a crashed session is; collections end such sessions.
    pub(crate) fn abandon(&self, storage: &dyn Storage) {
        let _ = storage.delete(&Place::SessionOpen(self.generation, self.session).key());
    }

    /// Decides the session (W4) and checks that the decision counts (W5). `known` is the history that the
    /// session refers to.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] where a collection revoked the session or ended before the commit came;
    /// [`Error::UnknownOutcome`] where the storage does not say whether it took the commit; [`Error::Storage`]
    /// where it said that it did not.
    pub(crate) fn commit(
        &self,
        records: &Records<'_>,
        known: &History,
        commit: &NewCommit,
        key: &SigningKey,
    ) -> Result<BackupId> {
        let (storage, signers) = (records.storage, records.signers);
        let bytes = Bytes::from(commit.seal(key)?);
        let id = Commit::id_of(&bytes);
        self.decide(storage, signers, &bytes)?;
        let history = known.read_again(records).map_err(|error| match error {
            Error::Storage { source, .. } => Error::UnknownOutcome { what: self.session.to_string(), source },
            other => other,
        })?;
        if history.valid.contains_key(&id) {
            Ok(id)
        } else {
            Err(Error::Conflict {
                what: format!("session {}", self.session),
                reason: "a collection ended before the commit arrived".into(),
                transient: true,
            })
        }
    }

    /// Decides the session (W4) with an outcome object. Whether the decision counts is another matter (W5).
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit).
    pub(crate) fn decide(&self, storage: &dyn Storage, signers: &Signers, outcome: &Bytes) -> Result<()> {
        let slot = Place::SessionOutcome(self.generation, self.session).key();
        match storage.put(&slot, outcome.clone(), PutMode::Create) {
            Ok(()) => Ok(()),
            Err(error) => self.settle(storage, signers, &slot, outcome, error),
        }
    }

    /// The put of the outcome failed or was refused: find out what is in the slot.
    fn settle(
        &self,
        storage: &dyn Storage,
        signers: &Signers,
        slot: &Key,
        ours: &Bytes,
        error: StorageError,
    ) -> Result<()> {
        match storage.get(slot, limits::COMMIT) {
            // An earlier try of the same put arrived.
            Ok(found) if found == *ours => Ok(()),
            Ok(found) => {
                let reason = match open_outcome(&found, signers, slot.as_str()) {
                    Ok(Outcome::Revoked(_)) => "a collection revoked the session",
                    Ok(Outcome::Committed(_)) | Err(_) => "somebody else decided the session",
                };
                let what = format!("session {}", self.session);
                Err(Error::Conflict { what, reason: reason.into(), transient: true })
            }
            // These say that nothing was or will be stored.
            Err(StorageError::NotFound)
                if matches!(
                    error,
                    StorageError::Full(_) | StorageError::PermissionDenied(_) | StorageError::ReadOnly
                ) =>
            {
                Err(Error::storage("put", slot, error))
            }
            Err(_) => Err(Error::UnknownOutcome { what: format!("session {}", self.session), source: error }),
        }
    }
}

/// What stands in the `open` of a session: for people, and for collectors who wait for young sessions.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SessionStart {
    pub(crate) session: SessionId,
    pub(crate) generation: u32,
    pub(crate) time: Timestamp,
}

impl SessionStart {
    fn encode(&self) -> Result<Vec<u8>> {
        let (seconds, nanoseconds) = self.time.to_unix();
        cbor::encode_map(|map| {
            map.bytes(1, self.session.as_bytes());
            map.u64(2, u64::from(self.generation));
            map.i64(3, seconds);
            map.u64(4, u64::from(nanoseconds));
        })
    }

    /// Reads an `open` object. Nobody signed it. `name` is its storage key.
    pub(crate) fn decode(bytes: &[u8], name: &str) -> Result<Self> {
        let mut map = cbor::decode(bytes, "session mark", &name)?.map()?;
        let session = SessionId::new(map.required(1)?.fixed()?);
        let generation = map.required(2)?.u32()?;
        let (seconds, nanoseconds) = (map.required(3)?.i64()?, map.required(4)?.u32()?);
        let time = Timestamp::from_unix(seconds, nanoseconds).map_err(|_| map.damaged("its time is out of range"))?;
        map.finish()?;
        Ok(Self { session, generation, time })
    }
}

/// Whether the storage honours put-if-absent: it must refuse the second of two creations. Some object
/// stores accept the condition and ignore it.
pub(crate) fn probe(storage: &dyn Storage, entropy: &dyn Entropy) -> Result<()> {
    let mut name = [0; 16];
    entropy.fill(&mut name)?;
    let key = Key::built(format!("probes/{}", SessionId::new(name)));
    let put = |bytes: &'static [u8]| storage.put(&key, Bytes::from_static(bytes), PutMode::Create);
    put(b"1").map_err(|error| Error::storage("put", &key, error))?;
    let second = put(b"2");
    // Whatever the answer, the probe goes away; a probe that stays hurts nobody.
    let _ = storage.delete(&key);
    match second {
        Err(StorageError::AlreadyExists) => Ok(()),
        Ok(()) => Err(Error::unsupported(
            "storage",
            "it replaces objects that must not be replaced (put-if-absent is ignored); only repositories created as \
             single-writer (init --single-writer) work there",
        )),
        Err(error) => Err(Error::storage("put", &key, error)),
    }
}
