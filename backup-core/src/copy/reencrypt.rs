//! Copying with both passwords, into a repository with other keys: backups are read and made anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::copy::arrivals::{Arrival, Arrivals, names_of};
use crate::copy::objects::at_destination;
use crate::copy::verbatim::{State, line, named, problems_of};
use crate::copy::{CopyMethod, CopyOptions, CopyReceipt, CopyStatus};
use crate::error::{Error, Result};
use crate::format::layout::Place;
use crate::id::{BackupId, ObjectName};
use crate::length::to_u64;
use crate::limits;
use crate::progress::Event;
use crate::repository::{
    Backup, BackupOptions, BackupSession, Control, Earlier, Inherited, LockedRepository, NamedObject, Origin, Parent,
    Repository, Site, VerifyLevel, VerifyOptions, VerifyReport, arrived, error_chain, lost_records, source_of,
};
use crate::session::{Commit, History};

/// Backups before one that are looked at for one of the same kind and host that was copied already.
const LOOK_BACK: usize = 64;

impl Repository {
    /// Copies backups into another repository, which has keys and passwords of its own: each is read here and made anew
    /// there, with the same entries, attributes, contents and digests, kind, host, tags, labels, times and problems, and
    /// remembers [what it is a copy of](Backup::origins). What the destination has of the data is not stored again, and
    /// a backup that is there already, whoever copied it, is found. Can be interrupted anywhere and called again.
    ///
    /// A backup that is damaged here is named in the receipt; others are copied nevertheless. One that was forgotten at
    /// the destination is not copied again until a collection has removed it there.
    ///
    /// To a copy of this repository backups go as [`LockedRepository::copy_to`] brings them, and what it cannot bring
    /// by [`copy_anew`](Self::copy_anew).
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] for a backup that does not exist; [`Error::InvalidArgument`] where the destination has the id
    /// of this repository and another config; [`Error::ReadOnly`], [`Error::Unsupported`] where the destination cannot be written
    /// to; [`Error::Storage`]; [`Error::UnknownOutcome`] where the destination does not say whether it took a commit;
    /// [`Error::Cancelled`].
    pub fn copy_to(&self, destination: &Self, options: &CopyOptions, control: &Control) -> Result<CopyReceipt> {
        if destination.id() == self.id() {
            let here = LockedRepository::open(Arc::clone(&self.inner.storage), self.inner.environment.clone())?;
            let verbatim = options.clone().with_verify(options.verify.min(VerifyLevel::Bytes));
            let receipt = here.copy_to(&destination.inner.storage, &verbatim, control)?;
            return self.copy_anew(destination, receipt, options, control);
        }
        destination.inner.check_writable().map_err(at_destination)?;
        let history = self.inner.history(control)?;
        let selected = history.select(&options.backups)?;
        self.make_copies(destination, CopyMethod::Reencrypted, &history, &selected, options, control)
    }

    /// Makes copies of `selected` with this handle and that of the destination.
    pub(super) fn make_copies(
        &self,
        destination: &Self,
        method: CopyMethod,
        history: &History,
        selected: &[Commit],
        options: &CopyOptions,
        control: &Control,
    ) -> Result<CopyReceipt> {
        let started = self.inner.environment.now();
        let mut arrivals = Arrivals::default();
        let there = destination.inner.history(control).map_err(at_destination)?;
        arrivals.look(&destination.inner, &there, control).map_err(at_destination)?;
        let order = history.in_order().into_iter().cloned().collect();
        let mut copy = Copy {
            source: self,
            destination,
            method,
            there,
            control,
            order,
            arrivals,
            states: BTreeMap::new(),
            written: BTreeMap::new(),
            needed: BTreeMap::new(),
            expected: (0, 0),
        };
        for commit in selected {
            control.cancel().check()?;
            let state = copy.backup(history, commit)?;
            if let Some(reason) = &state.reason {
                let name = commit.id.to_string();
                control.event(&Event::Problem { name: &name, message: reason });
            }
            copy.states.insert(commit.id, state);
        }
        let verification = copy.verify(options)?;
        let Copy { arrivals, mut states, written, needed, .. } = copy;
        let lost = lost_records(history, &*self.inner.storage)?;
        let mut problems = problems_of(history, &lost);
        problems.extend(arrivals.problems);
        let ok = states.values().all(|state| state.status.is_as_asked(options))
            && verification.as_ref().is_none_or(|report| report.ok)
            && lost.is_empty();
        let backups = selected.iter().filter_map(|commit| Some(line(commit, states.remove(&commit.id)?))).collect();
        let found: BTreeMap<&ObjectName, &u64> =
            needed.iter().filter(|(name, _)| !written.contains_key(&Place::Pack(**name))).collect();
        Ok(CopyReceipt {
            repository: self.id(),
            fingerprint: self.inner.config_hash,
            method,
            destination: destination.id(),
            destination_fingerprint: destination.inner.config_hash,
            started,
            finished: self.inner.environment.now(),
            ok,
            backups,
            objects_copied: to_u64(written.len()),
            bytes_copied: written.values().fold(0, |sum, size| sum.saturating_add(*size)),
            objects_found: to_u64(found.len()),
            bytes_found: found.values().fold(0, |sum, size| sum.saturating_add(**size)),
            problems,
            verification,
        })
    }
}

/// A copy that runs.
struct Copy<'c> {
    source: &'c Repository,
    destination: &'c Repository,
    method: CopyMethod,
    /// The history of the destination when the copy began.
    there: Arc<History>,
    control: &'c Control,
    /// The backups of the source, oldest first.
    order: Vec<Commit>,
    arrivals: Arrivals,
    states: BTreeMap<BackupId, State>,
    /// Objects that were written to the destination, with their sizes.
    written: BTreeMap<Place, u64>,
    /// Packs that the copies need.
    needed: BTreeMap<ObjectName, u64>,
    /// Entries and bytes of the backups that were begun.
    expected: (u64, u64),
}

impl Copy<'_> {
    /// Copies a backup, unless it is there. What keeps this one from being copied is its state; an error keeps all.
    fn backup(&mut self, history: &History, commit: &Commit) -> Result<State> {
        match self.try_backup(commit) {
            Ok(state) => Ok(state),
            Err(error) => match source_of(error) {
                Ok(error) if error.is_of_one_object() => self.explained(history, commit, &error),
                Ok(error) => Err(error),
                Err(Error::Cancelled) => Err(Error::Cancelled),
                Err(error) if is_of_this_backup(&error) => Ok(State::failed(error_chain(&at_destination(error)))),
                Err(error) => Err(at_destination(error)),
            },
        }
    }

    fn try_backup(&mut self, commit: &Commit) -> Result<State> {
        let source = &self.source.inner;
        let there = |error| of_there(commit.id, error);
        let backup = source.read_backup(commit, self.control).map_err(there)?;
        let names = names_of(source, &backup);
        if let Some(state) = self.arrived(&self.there, commit, &names) {
            return Ok(state);
        }
        let (entries, bytes) = &mut self.expected;
        *entries = entries.saturating_add(backup.statistics.entries);
        *bytes = bytes.saturating_add(backup.statistics.bytes_logical);
        self.control.event(&Event::Expected { entries: *entries, bytes: *bytes });
        let mut options = BackupOptions::new(backup.kind.clone())
            .with_host(backup.host.clone())
            .with_parent(Parent::None)
            .with_control(self.control.clone());
        options.tags.clone_from(&backup.tags);
        options.labels.clone_from(&backup.labels);
        let least = if self.is_same() { commit.content.generation } else { 0 };
        let mut session = BackupSession::begin_after(self.destination, options, least)?;
        // Another copier may have been faster.
        self.arrivals.look(&self.destination.inner, &session.history, self.control)?;
        if let Some(state) = self.arrived(&session.history, commit, &names) {
            session.give_up();
            return Ok(state);
        }
        let earlier = self.earlier(&backup, &session)?;
        let done = self.make(&mut session, commit, &backup, &names, earlier.as_ref());
        self.written.extend(session.stored()?);
        done
    }

    fn make(
        &mut self,
        session: &mut BackupSession,
        commit: &Commit,
        backup: &Backup,
        names: &[Origin],
        earlier: Option<&(Backup, Backup)>,
    ) -> Result<State> {
        let pair = earlier.map(|(there, here)| Earlier { there, here });
        session.add_entries_of(self.source, backup, pair)?;
        let destination = &self.destination.inner;
        let now = destination.history(self.control)?;
        self.arrivals.look(destination, &now, self.control)?;
        if let Some(state) = self.arrived(&now, commit, names) {
            return Ok(state);
        }
        let parent = earlier.filter(|(there, _)| Some(there.id) == backup.parent).map(|(_, here)| here.id);
        let origins = if self.is_same() { backup.origins.clone() } else { bounded(names).copied().collect() };
        let inherited = Inherited {
            started: backup.started,
            finished: backup.finished,
            time: commit.content.time,
            parent: backup
                .parent
                .filter(|_| self.is_same())
                .or(parent)
                .or_else(|| self.copy_of(&[Origin::new(self.source.id(), backup.parent?)])),
            problems: backup.problems.iter().map(|one| (one.name.clone(), one.message.clone())).collect(),
            problem_count: backup.problem_count,
            origins: origins.into_iter().map(|origin| (origin.repository, origin.backup)).collect(),
            heads: self.is_same().then(|| commit.content.heads.clone()),
            replaces: if self.is_same() { commit.ids().copied().collect() } else { Vec::new() },
        };
        let committed = session.finish(Some(inherited))?;
        self.needed.extend(committed.packs);
        self.arrivals.add(committed.backup.id, names);
        Ok(State::at(CopyStatus::Copied, committed.backup.id))
    }

    /// Whether the destination is a copy of the source, where the backup is the same under another commit.
    fn is_same(&self) -> bool {
        self.method == CopyMethod::SignedAnew
    }

    /// What the destination, whose history this is, has of a backup.
    fn arrived(&self, history: &History, commit: &Commit, names: &[Origin]) -> Option<State> {
        if self.is_same() {
            // The commit itself may be there without what it needs: that it is there is not enough.
            let newer = history.find(&commit.id).filter(|found| found.id != commit.id);
            return match history.is_forgotten(commit) {
                true => Some(State::new(CopyStatus::Forgotten)),
                false => newer.map(|found| State::at(CopyStatus::Found, found.id)),
            };
        }
        self.arrivals.find(names).map(|arrival| match arrival {
            Arrival::There(id) => State::at(CopyStatus::Found, id),
            Arrival::Forgotten => State::new(CopyStatus::Forgotten),
        })
    }

    fn copy_of(&self, names: &[Origin]) -> Option<BackupId> {
        match self.arrivals.find(names) {
            Some(Arrival::There(id)) => Some(id),
            Some(Arrival::Forgotten) | None => None,
        }
    }

    /// The backup before this one that was copied, and its copy: its parent, or the newest of the same kind and host.
    /// One that cannot be read makes the copy slower, not wrong.
    fn earlier(&self, backup: &Backup, session: &BackupSession) -> Result<Option<(Backup, Backup)>> {
        let position = self.order.iter().position(|commit| commit.id == backup.id).unwrap_or_default();
        let before = self.order.get(..position).unwrap_or_default();
        let parent = before.iter().find(|commit| Some(commit.id) == backup.parent);
        for commit in parent.into_iter().chain(before.iter().rev().take(LOOK_BACK)) {
            let there = match self.source.inner.read_backup(commit, self.control) {
                Ok(there) => there,
                Err(error) if error.is_of_one_object() => continue,
                Err(error) => return Err(of_there(commit.id, error)),
            };
            let is_like = Some(there.id) == backup.parent || (there.kind == backup.kind && there.host == backup.host);
            let copy = self.copy_of(&names_of(&self.source.inner, &there)).filter(|_| is_like);
            let Some(copy) = copy.and_then(|id| session.history.find(&id)) else { continue };
            match self.destination.inner.read_backup(copy, self.control) {
                Ok(here) => return Ok(Some((there, here))),
                Err(error) if error.is_of_one_object() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// What is missing at the source may be missing because the backup was given up there meanwhile.
    fn explained(&self, history: &History, commit: &Commit, error: &Error) -> Result<State> {
        let now = self.source.inner.with_records(self.control, |records| history.read_again(records))?;
        let reason = error_chain(error);
        Ok(State::failed(match now.live.contains_key(&commit.id) {
            true => reason,
            false => format!("it was forgotten at the source meanwhile ({reason})"),
        }))
    }

    fn verify(&self, options: &CopyOptions) -> Result<Option<VerifyReport>> {
        let is_copied = |state: &State| state.status == CopyStatus::Copied;
        if !self.states.values().any(is_copied) {
            return Ok(None);
        }
        let copies: BTreeSet<BackupId> = self.states.values().filter_map(|state| state.copy).collect();
        // What the destination has of other backups is not what a copy is to prove.
        let verify =
            VerifyOptions::new(options.verify).with_backups(copies.into_iter().collect()).with_partial_history(true);
        let report = if options.verify > VerifyLevel::Bytes {
            self.destination.verify(&verify, None, self.control)
        } else {
            let inner = &self.destination.inner;
            let site = Site { storage: &*inner.storage, signers: &inner.signers, config_hash: inner.config_hash };
            let written: Vec<NamedObject> = self.written.keys().filter_map(named_by_hash).collect();
            arrived(&site, &verify, &written, self.control, &inner.environment)
        };
        report.map(Some).map_err(at_destination)
    }
}

/// An error of the source that concerns one backup.
fn of_there(id: BackupId, error: Error) -> Error {
    match error {
        Error::Cancelled => Error::Cancelled,
        error => Error::Source { name: id.to_string(), source: std::io::Error::other(error) },
    }
}

/// Whether an error of the destination keeps only the one backup from being made there.
fn is_of_this_backup(error: &Error) -> bool {
    error.is_of_one_object()
        || matches!(error, Error::InvalidArgument { .. } | Error::AlreadyExists { .. } | Error::Conflict { .. })
}

/// As many names as a body may have: the first, and the newest of the others.
fn bounded(names: &[Origin]) -> impl Iterator<Item = &Origin> {
    let most = usize::try_from(limits::ORIGINS).unwrap_or(usize::MAX);
    let left_out = names.len().saturating_sub(most);
    names.iter().take(1).chain(names.iter().skip(left_out.saturating_add(1)))
}

fn named_by_hash(place: &Place) -> Option<NamedObject> {
    match *place {
        Place::Pack(name) => Some(named(*place, "pack", name, limits::PACK)),
        Place::Index(name) => Some(named(*place, "index", name, limits::INDEX)),
        Place::Body(name) => Some(named(*place, "backup body", name, limits::BODY)),
        Place::Closure(name) => Some(named(*place, "closure", name, limits::CLOSURE)),
        _ => None,
    }
}
