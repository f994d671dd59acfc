//! Copying without the password: every object as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::copy::objects::{Carrier, Listed, Needed, at_destination, listing};
use crate::copy::{CopiedBackup, CopyMethod, CopyOptions, CopyReceipt, CopyStatus, keys};
use crate::error::{Error, Result};
use crate::format::config::Access;
use crate::format::layout::Place;
use crate::id::{BackupId, ObjectName};
use crate::limits;
use crate::repository::{
    Control, LockedRepository, NamedObject, Problem, Site, VerifyOptions, arrived, each, error_chain, lost_records,
    read_closure,
};
use crate::session::{Closure, Commit, History, Records, SessionWriter, Signers, outcome_object, probe};
use crate::storage::{PutMode, Storage, StorageError};

/// Backups that are opened and decided together: a history is read three times for each group.
const GROUP: usize = 64;
/// Bytes that are copied before what they belong to becomes visible, if there is more than one backup.
const GROUP_BYTES: u64 = 1 << 30;

impl LockedRepository {
    /// Copies backups to another place without the password: to an empty one, which becomes the same repository, or
    /// to an earlier copy, which gets what it lacks. Can be interrupted anywhere and called again.
    ///
    /// A backup that is damaged at the source, or cannot be signed into the destination any more, is named in the
    /// receipt; others are copied nevertheless.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] for a backup that does not exist; [`Error::Conflict`] where the destination holds another
    /// repository, or its root keys were changed on their own; [`Error::ReadOnly`], [`Error::Unsupported`] where the
    /// destination cannot be written to; [`Error::Storage`]; [`Error::UnknownOutcome`] where the destination does not
    /// say whether it took a commit; [`Error::Cancelled`].
    pub fn copy_to(
        &self,
        destination: &Arc<dyn Storage>,
        options: &CopyOptions,
        control: &Control,
    ) -> Result<CopyReceipt> {
        options.check()?;
        let started = self.environment.now();
        if let Access::ReadOnly { feature } = self.config.access()? {
            return Err(Error::ReadOnly { what: format!("the repository, for its feature {feature} is not known") });
        }
        if destination.capabilities().read_only {
            return Err(Error::ReadOnly { what: "the destination".into() });
        }
        let history = self.with_records(control, History::read)?;
        let selected = history.select(&options.backups)?;
        let lost = lost_records(&history, &*self.storage)?;
        if !self.config.single_writer {
            probe(&**destination, &*self.environment.entropy).map_err(at_destination)?;
        }
        let mut problems = keys::bring(self, &**destination)?;
        problems.extend(problems_of(&history, &lost));
        let carrier = Carrier::new(&*self.storage, &**destination, options, control);
        let mut copy =
            Copy { source: self, history, carrier, listed: listing(&*self.storage)?, states: BTreeMap::new() };
        copy.segments()?;
        copy.backups(&selected)?;
        bring_forgets(&*self.storage, &self.signers, &copy.history, &**destination, control)?;
        let Copy { mut states, carrier, history, .. } = copy;
        let tally = carrier.into_tally()?;
        let copied: Vec<BackupId> =
            states.iter().filter(|(_, state)| state.status == CopyStatus::Copied).map(|(id, _)| *id).collect();
        let verification = if copied.is_empty() && tally.written.is_empty() {
            None
        } else {
            let looked_at = states.iter().filter(|(_, state)| state.is_there()).map(|(id, _)| *id).collect();
            let verify = VerifyOptions::new(options.verify).with_backups(looked_at).with_partial_history(true);
            let site = Site { storage: &**destination, signers: &self.signers, config_hash: self.fingerprint() };
            let written: Vec<NamedObject> = tally.written.iter().copied().collect();
            Some(arrived(&site, &verify, &written, control, &self.environment).map_err(at_destination)?)
        };
        let segments = history.indexes.iter().map(|name| Place::Index(*name));
        for (place, message) in segments.filter_map(|place| Some((place, tally.failed.get(&place)?))) {
            problems.push(Problem::new(place.key().as_str(), message));
        }
        let ok = states.values().all(|state| state.status.is_as_asked(options))
            && verification.as_ref().is_none_or(|report| report.ok)
            && lost.is_empty();
        let backups = selected.iter().filter_map(|commit| Some(line(commit, states.remove(&commit.id)?))).collect();
        Ok(CopyReceipt {
            repository: self.id(),
            fingerprint: self.fingerprint(),
            method: CopyMethod::Verbatim,
            destination: self.id(),
            destination_fingerprint: self.fingerprint(),
            started,
            finished: self.environment.now(),
            ok,
            backups,
            objects_copied: tally.objects_copied,
            bytes_copied: tally.bytes_copied,
            objects_found: tally.objects_found,
            bytes_found: tally.bytes_found,
            problems,
            verification,
        })
    }
}

/// What is wrong with the records of the source, `lost` being those that may hide backups.
pub(crate) fn problems_of(history: &History, lost: &[Problem]) -> Vec<Problem> {
    let flaws = history.flaws.iter().map(|flaw| Problem::new(&flaw.key, error_chain(&flaw.error)));
    let is_new = |problem: &&Problem| !history.flaws.iter().any(|flaw| flaw.key == problem.name);
    flaws.chain(lost.iter().filter(is_new).cloned()).collect()
}

/// Backups that were forgotten and collected at the source are named by those that came behind them. Their forget
/// records say at the destination that they are not lost.
pub(crate) fn bring_forgets(
    source: &dyn Storage,
    signers: &Signers,
    history: &History,
    destination: &dyn Storage,
    control: &Control,
) -> Result<()> {
    let each = each(control);
    let records = Records { storage: destination, signers, each: &each };
    let there = History::read(&records).map_err(at_destination)?;
    for id in there.missing().intersection(&history.forgotten) {
        control.cancel().check()?;
        let key = Place::Forget(*id).key();
        let bytes = match source.get(&key, limits::COMMIT) {
            Ok(bytes) => bytes,
            // The source needs it no more: a collection there has just ended.
            Err(StorageError::NotFound) => continue,
            Err(error) => return Err(Error::storage("get", &key, error)),
        };
        match destination.put(&key, bytes, PutMode::Create) {
            Ok(()) | Err(StorageError::AlreadyExists) => {}
            Err(error) => return Err(at_destination(Error::storage("put", &key, error))),
        }
    }
    Ok(())
}

/// What became of a backup.
pub(crate) struct State {
    pub(crate) status: CopyStatus,
    /// Its id at the destination.
    pub(crate) copy: Option<BackupId>,
    pub(crate) reason: Option<String>,
    /// Whether another commit would do.
    needs_new_commit: bool,
}

impl State {
    pub(crate) const fn new(status: CopyStatus) -> Self {
        Self { status, copy: None, reason: None, needs_new_commit: false }
    }

    pub(crate) fn at(status: CopyStatus, copy: BackupId) -> Self {
        Self { copy: Some(copy), ..Self::new(status) }
    }

    pub(crate) fn failed(reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()), ..Self::new(CopyStatus::Failed) }
    }

    /// The destination cannot take the commit any more.
    fn refused(reason: String) -> Self {
        Self { needs_new_commit: true, ..Self::failed(reason) }
    }

    pub(crate) const fn is_there(&self) -> bool {
        matches!(self.status, CopyStatus::Copied | CopyStatus::Found)
    }
}

pub(crate) fn line(commit: &Commit, state: State) -> CopiedBackup {
    let content = &commit.content;
    CopiedBackup {
        id: commit.id,
        copy: state.copy,
        time: content.time,
        session: content.session,
        closure: content.closure,
        packs: content.closure_packs,
        bytes: content.closure_bytes,
        status: state.status,
        reason: state.reason,
        needs_new_commit: state.needs_new_commit,
    }
}

/// A copy that runs.
struct Copy<'c> {
    source: &'c LockedRepository,
    history: History,
    carrier: Carrier<'c>,
    /// What the source has.
    listed: Listed,
    states: BTreeMap<BackupId, State>,
}

/// A commit and what it needs.
struct Member<'m> {
    commit: &'m Commit,
    closure: Closure,
}

impl Copy<'_> {
    /// Every segment of the index set: a commit names those of its own session, and which other segments name the
    /// rest of its packs only the password tells.
    fn segments(&self) -> Result<()> {
        let there = listing(self.carrier.destination).map_err(at_destination)?;
        let needed: Vec<Needed> = self.history.indexes.iter().map(|name| self.segment(name)).collect();
        self.carrier.carry(&needed, &there)
    }

    fn backups(&mut self, selected: &[Commit]) -> Result<()> {
        let control = self.carrier.control;
        let there = listing(self.carrier.destination).map_err(at_destination)?;
        let (mut group, mut missing, mut bytes) = (Vec::new(), BTreeSet::new(), 0u64);
        for commit in selected {
            control.cancel().check()?;
            let closure = match read_closure(&*self.source.storage, commit, control) {
                Ok(closure) => closure,
                Err(error) if error.is_of_one_object() => {
                    self.fail(commit.id, error.to_string());
                    continue;
                }
                Err(error) => return Err(error),
            };
            for (name, size) in &closure.packs {
                if !there.contains_key(&Place::Pack(*name).key()) && missing.insert(*name) {
                    bytes = bytes.saturating_add(*size);
                }
            }
            group.push(Member { commit, closure });
            if group.len() >= GROUP || bytes >= GROUP_BYTES {
                self.group(&std::mem::take(&mut group))?;
                bytes = 0;
            }
        }
        self.group(&group)
    }

    /// Acts as the writer of every commit of a group: steps W1 to W5 of `docs/format.md`, "Commit protocol".
    fn group(&mut self, group: &[Member<'_>]) -> Result<()> {
        if group.is_empty() {
            return Ok(());
        }
        let control = self.carrier.control;
        let storage = self.carrier.destination;
        let each = each(control);
        let records = Records { storage, signers: &self.source.signers, each: &each };
        let before = History::read(&records).map_err(at_destination)?;
        let mut sessions = BTreeMap::new();
        for Member { commit, closure } in group {
            if before.is_forgotten(commit) {
                self.states.insert(commit.id, State::new(CopyStatus::Forgotten));
            } else if let Some(newer) = newer(&before, commit) {
                let state = self.look_at(newer)?;
                self.states.insert(commit.id, state);
            } else if let Some(reason) = refusal(&before, commit, closure) {
                self.states.insert(commit.id, State::refused(reason));
            } else if !before.valid.contains_key(&commit.id) {
                let now = self.source.environment.now();
                let session = SessionWriter::open_again(storage, commit, now).map_err(at_destination)?;
                sessions.insert(commit.id, session);
            }
        }
        // What is condemned now, no collection that is not seen here condemns without waiting for the marks.
        let history = before.read_again(&records).map_err(at_destination)?;
        for Member { commit, closure } in group {
            if !self.states.contains_key(&commit.id)
                && let Some(reason) = refusal(&history, commit, closure)
            {
                self.states.insert(commit.id, State::refused(reason));
            }
        }
        let members: Vec<&Member<'_>> =
            group.iter().filter(|member| !self.states.contains_key(&member.commit.id)).collect();
        let there = listing(storage).map_err(at_destination)?;
        let mut needed = BTreeMap::new();
        for member in &members {
            needed.extend(self.needs(member).into_iter().map(|one| (one.object.place, one)));
        }
        self.carrier.carry(&needed.into_values().collect::<Vec<_>>(), &there)?;
        let mut decided = Vec::new();
        for member in members {
            let commit = member.commit;
            let places = self.needs(member).into_iter().map(|one| one.object.place);
            if let Some(reason) = self.carrier.failure(places)? {
                let reason = self.explained(commit, reason)?;
                self.fail(commit.id, reason);
                continue;
            }
            control.cancel().check()?;
            match sessions.get(&commit.id) {
                Some(session) => match self.decide(session, commit)? {
                    None => decided.push((member, CopyStatus::Copied)),
                    Some(state) => drop(self.states.insert(commit.id, state)),
                },
                None => decided.push((member, CopyStatus::Found)),
            }
        }
        let after = history.read_again(&records).map_err(|error| match at_destination(error) {
            Error::Storage { source, key, .. } if !decided.is_empty() => Error::UnknownOutcome { what: key, source },
            error => error,
        })?;
        for (Member { commit, closure }, status) in decided {
            let state = match not_acknowledged(&after, commit, closure) {
                Some(reason) => State::refused(reason),
                None => State::at(status, commit.id),
            };
            self.states.insert(commit.id, state);
        }
        Ok(())
    }

    /// A backup that the destination has under a newer commit has what that needs. What is missing is brought, where it is
    /// an object that the source has, too.
    fn look_at(&self, newer: &Commit) -> Result<State> {
        let storage = self.carrier.destination;
        let closure = match read_closure(storage, newer, self.carrier.control) {
            Ok(closure) => closure,
            Err(error) if error.is_of_one_object() => return Ok(State::failed(at_destination(error).to_string())),
            Err(error) => return Err(at_destination(error)),
        };
        let needed = self.needs(&Member { commit: newer, closure });
        self.carrier.carry(&needed, &listing(storage).map_err(at_destination)?)?;
        Ok(match self.carrier.failure(needed.into_iter().map(|one| one.object.place))? {
            Some(reason) => {
                State::failed(format!("backup {} at the destination replaced it: {reason}", newer.id.short()))
            }
            None => State::at(CopyStatus::Found, newer.id),
        })
    }

    /// Puts the outcome as it is (W4). Returns what became of the backup where it cannot be.
    fn decide(&self, session: &SessionWriter, commit: &Commit) -> Result<Option<State>> {
        let control = self.carrier.control;
        let found = self.source.with_records(control, |records| {
            outcome_object(records, &self.history, commit).or_else(|error| match error {
                // A collection may have moved it to its checkpoint meanwhile.
                Error::Damaged { .. } => outcome_object(records, &self.history.read_again(records)?, commit),
                error => Err(error),
            })
        });
        let bytes = match found {
            Ok(bytes) => bytes,
            Err(error) if error.is_of_one_object() => return Ok(Some(State::failed(error.to_string()))),
            Err(error) => return Err(error),
        };
        match session.decide(self.carrier.destination, &self.source.signers, &bytes) {
            Ok(()) => Ok(None),
            Err(error @ Error::Conflict { .. }) => Ok(Some(State::refused(format!("{error}; {SIGN_ANEW}")))),
            Err(error) => Err(at_destination(error)),
        }
    }

    /// What a backup is made of besides its commit.
    fn needs(&self, member: &Member<'_>) -> Vec<Needed> {
        let content = &member.commit.content;
        let closure = Place::Closure(content.closure);
        let mut needed: Vec<Needed> = member
            .closure
            .packs
            .iter()
            .map(|(name, size)| Needed {
                object: named(Place::Pack(*name), "pack", *name, limits::PACK),
                size: Some(*size),
            })
            .collect();
        needed.extend(content.indexes.iter().map(|name| self.segment(name)));
        needed.push(self.small(named(closure, "closure", content.closure, limits::CLOSURE)));
        needed.push(self.small(named(Place::Body(content.body), "backup body", content.body, limits::BODY)));
        needed
    }

    fn segment(&self, name: &ObjectName) -> Needed {
        self.small(named(Place::Index(*name), "index", *name, limits::INDEX))
    }

    /// An object whose size the source tells. One that is not there is missed when it is read.
    fn small(&self, object: NamedObject) -> Needed {
        Needed { object, size: self.listed.get(&object.place.key()).copied() }
    }

    /// Whether what is missing at the source is missing because the backup was given up there meanwhile.
    fn explained(&self, commit: &Commit, reason: String) -> Result<String> {
        let now = self.source.with_records(self.carrier.control, |records| self.history.read_again(records))?;
        Ok(match (now.live.contains_key(&commit.id), now.is_forgotten(commit)) {
            (true, _) => reason,
            (false, false) if now.knows(&commit.id) => {
                format!("it was replaced at the source meanwhile; copy again ({reason})")
            }
            (false, _) => format!("it was forgotten at the source meanwhile ({reason})"),
        })
    }

    fn fail(&mut self, id: BackupId, reason: String) {
        self.states.insert(id, State::failed(reason));
    }
}

pub(crate) const fn named(place: Place, what: &'static str, name: ObjectName, limit: u64) -> NamedObject {
    NamedObject { place, what, name, limit }
}

const SIGN_ANEW: &str = "with the password it can be copied under a commit that is signed anew";

/// The backup at a destination that has replaced this commit there.
fn newer<'h>(history: &'h History, commit: &Commit) -> Option<&'h Commit> {
    let is_live = history.live.contains_key(&commit.id);
    history.find(&commit.id).filter(|_| !is_live)
}

/// Why a commit cannot be put into the slot of its generation (any more), or must not refer to its packs.
fn refusal(history: &History, commit: &Commit, closure: &Closure) -> Option<String> {
    let generation = commit.content.generation;
    let is_valid = history.valid.contains_key(&commit.id);
    if !is_valid && generation <= history.closed {
        return Some(format!(
            "the destination is at collection {} and the backup of generation {generation}, which counts there no more; {SIGN_ANEW}",
            history.closed
        ));
    }
    condemned(history, commit, closure)
}

/// Why a copy that was decided must not be reported as good (W5).
fn not_acknowledged(history: &History, commit: &Commit, closure: &Closure) -> Option<String> {
    if !history.valid.contains_key(&commit.id) {
        return Some(format!("a collection of the destination ended before the commit arrived; {SIGN_ANEW}"));
    }
    condemned(history, commit, closure)
}

fn condemned(history: &History, commit: &Commit, closure: &Closure) -> Option<String> {
    let content = &commit.content;
    let packs = closure.packs.keys().map(|name| (name, Place::Pack(*name)));
    let indexes = content.indexes.iter().map(|name| (name, Place::Index(*name)));
    let mut needed = packs.chain(indexes).chain([(&content.body, Place::Body(content.body))]);
    let (_, place) = needed.find(|(name, _)| history.condemned.contains(*name))?;
    let key = place.key();
    Some(format!(
        "{key} is condemned by a collection of the destination; where that is still under way, copy again when it has ended, else {SIGN_ANEW}"
    ))
}
