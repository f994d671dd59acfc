//! New commits for the backups whose packs were replaced.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::format::layout::Place;
use crate::id::BackupId;
use crate::length::to_u64;
use crate::maintenance::repack::choose::{Choice, amount};
use crate::maintenance::repack::options::{RepackReport, RepackedBackup};
use crate::maintenance::repack::rewrite::{Rewritten, rewrite};
use crate::maintenance::repack::{Shared, problem};
use crate::object::name_of;
use crate::repository::{Control, read_closure};
use crate::session::{Closure, Commit, History, NewCommit, Records, SessionWriter, probe};

/// Backups that are replaced in one go.
const GROUP: usize = 64;

/// A repacking with the session that protects what it stores.
pub(super) struct Replacer<'r> {
    inner: &'r Shared,
    choice: &'r Choice,
    control: &'r Control,
    first: SessionWriter,
    history: History,
}

/// A commit that is ready.
struct Replacement {
    earlier: BackupId,
    id: BackupId,
    outcome: Bytes,
}

impl<'r> Replacer<'r> {
    /// Opens the session in whose name packs are stored (W0 to W2).
    pub(super) fn open(inner: &'r Shared, choice: &'r Choice, control: &'r Control) -> Result<Self> {
        if !inner.config.single_writer {
            probe(&*inner.storage, &*inner.environment.entropy)?;
        }
        let (mut sessions, history) =
            inner.with_records(control, |records| open(inner, records, &History::default(), choice, 1))?;
        let first = sessions.pop().ok_or(Error::Internal("no session was opened"))?;
        Ok(Self { inner, choice, control, first, history })
    }

    pub(super) fn run(mut self, report: &mut RepackReport) -> Result<()> {
        let rewritten = rewrite(self.inner, self.choice, self.first.session, self.control, &mut report.problems);
        let rewritten = match rewritten {
            Ok(rewritten) => rewritten,
            Err(error) => {
                // Nobody will name what was stored, and no collection need wait for it.
                self.first.abandon(&*self.inner.storage);
                return Err(error);
            }
        };
        report.written = amount(rewritten.packs.values().copied());
        report.chunks = rewritten.chunks;
        let replaced = self.choice.candidates.iter().filter(|one| rewritten.stand_ins.contains_key(&one.name));
        report.replaced = amount(replaced.map(|one| one.size));
        // The session that stored the packs is decided last: as long as it is open, no collection goes on without them.
        let Some(((last, last_live), others)) = self.choice.backups.split_last() else { return Ok(()) };
        let decided = others.chunks(GROUP).try_for_each(|group| {
            let (sessions, history) = self.inner.with_records(self.control, |records| {
                open(self.inner, records, &self.history, self.choice, group.len())
            })?;
            self.history = history;
            self.group(&rewritten, group, &sessions, report)
        });
        let decided = decided.and_then(|()| {
            let known = &self.history;
            self.history = self.inner.with_records(self.control, |records| known.read_again(records))?;
            let first = std::slice::from_ref(&self.first);
            self.group(&rewritten, &[(*last, last_live.clone())], first, report)
        });
        decided.inspect_err(|error| {
            // Where it may have been decided, its mark says nothing any more.
            if !matches!(error, Error::UnknownOutcome { .. }) {
                self.first.abandon(&*self.inner.storage);
            }
        })
    }

    /// Replaces backups in sessions that are open (W3 to W5).
    fn group(
        &self,
        rewritten: &Rewritten,
        backups: &[(BackupId, BTreeSet<BackupId>)],
        sessions: &[SessionWriter],
        report: &mut RepackReport,
    ) -> Result<()> {
        let storage = &*self.inner.storage;
        let mut decided = Vec::new();
        let mut undecided = sessions.iter();
        let result = backups.iter().try_for_each(|(origin, walked)| {
            self.control.cancel().check()?;
            let Some(session) = undecided.as_slice().first() else { return Ok(()) };
            match self.replacement(rewritten, origin, walked, session) {
                Ok(Some(replacement)) => {
                    session.decide(storage, &self.inner.signers, &replacement.outcome)?;
                    undecided.next();
                    decided.push(replacement);
                    Ok(())
                }
                Ok(None) => Ok(()),
                Err(error) if error.is_of_one_object() || matches!(error, Error::Conflict { .. }) => {
                    problem(self.control, &mut report.problems, &origin.to_string(), error.to_string());
                    Ok(())
                }
                Err(error) => Err(error),
            }
        });
        // Sessions that nothing was decided in refer to nothing. The one that may have been decided is not among them.
        if matches!(result, Err(Error::UnknownOutcome { .. } | Error::Conflict { .. })) {
            undecided.next();
        }
        undecided.for_each(|session| session.abandon(storage));
        let result = match result {
            // A collection ended the session.
            Err(error @ Error::Conflict { .. }) => {
                problem(self.control, &mut report.problems, "collection", error.to_string());
                Ok(())
            }
            result => result,
        };
        if decided.is_empty() {
            return result;
        }
        let history = self.inner.with_records(self.control, |records| self.history.read_again(records));
        let history = match (history, &result) {
            (Err(Error::Storage { source, key, .. }), Ok(())) => {
                return Err(Error::UnknownOutcome { what: key, source });
            }
            (history, _) => history?,
        };
        for Replacement { earlier, id, .. } in decided {
            if history.valid.contains_key(&id) {
                report.backups.push(RepackedBackup { id, earlier });
            } else {
                let message = "a collection ended before its new commit arrived";
                problem(self.control, &mut report.problems, &earlier.to_string(), message);
            }
        }
        result
    }

    /// The new commit of a backup, whose closure is stored; `None` where it needs none any more.
    fn replacement(
        &self,
        rewritten: &Rewritten,
        origin: &BackupId,
        walked: &BTreeSet<BackupId>,
        session: &SessionWriter,
    ) -> Result<Option<Replacement>> {
        let history = &self.history;
        let conflict = |reason: &str| {
            Err(Error::Conflict { what: format!("backup {origin}"), reason: reason.into(), transient: true })
        };
        // It was forgotten meanwhile.
        let Some(shown) = history.find(origin) else { return Ok(None) };
        let commits = history.commits_of(origin);
        let live: BTreeSet<BackupId> =
            commits.iter().map(|commit| commit.id).filter(|id| history.live.contains_key(id)).collect();
        // What was not seen is not replaced: nobody knows what it needs.
        if live != *walked {
            return conflict("somebody else replaced it meanwhile");
        }
        if commits.iter().any(|commit| commit.content.generation > session.generation) {
            return conflict("a commit of it has a greater generation");
        }
        let mut closure = read_closure(&*self.inner.storage, shown, self.control)?;
        let before = closure.clone();
        closure.packs.retain(|pack, _| !rewritten.stand_ins.contains_key(pack));
        for (_, stand_ins) in rewritten.stand_ins.iter().filter(|(pack, _)| before.packs.contains_key(*pack)) {
            let sizes = stand_ins.iter().filter_map(|pack| Some((*pack, *rewritten.packs.get(pack)?)));
            closure.packs.extend(sizes);
        }
        if closure == before && live.len() == 1 {
            return Ok(None);
        }
        if self.is_condemned(&closure, shown, rewritten) {
            return conflict("a collection is under way that may delete what it needs");
        }
        let bytes = Bytes::from(closure.encode()?);
        let closure_name = name_of(&bytes);
        rewritten.store.put(Place::Closure(closure_name), bytes)?;
        let commit = NewCommit {
            repository: self.inner.config.repository,
            session: session.session,
            generation: session.generation,
            body: shown.content.body,
            indexes: rewritten.indexes.clone(),
            closure: closure_name,
            closure_packs: to_u64(closure.packs.len()),
            closure_bytes: closure.bytes(),
            config: self.inner.config_hash,
            heads: shown.content.heads.clone(),
            time: shown.content.time,
            replaces: history.ids(origin),
        };
        let outcome = Bytes::from(commit.seal(&self.inner.writer_key)?);
        Ok(Some(Replacement { earlier: shown.id, id: Commit::id_of(&outcome), outcome }))
    }

    /// Whether a collection condemned something that a replacement would name.
    fn is_condemned(&self, closure: &Closure, shown: &Commit, rewritten: &Rewritten) -> bool {
        let condemned = &self.history.condemned;
        condemned.contains(&shown.content.body)
            || closure.packs.keys().chain(&rewritten.indexes).any(|name| condemned.contains(name))
    }
}

/// Opens sessions whose generation is that of every commit that may be replaced, or greater.
fn open(
    inner: &Shared,
    records: &Records<'_>,
    known: &History,
    choice: &Choice,
    count: usize,
) -> Result<(Vec<SessionWriter>, History)> {
    let environment = &inner.environment;
    let now = environment.now();
    SessionWriter::open_several(records, known, choice.least_generation, count, &*environment.entropy, now)
}
