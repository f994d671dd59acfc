//! What a collection would do, and what it did, as values.

use serde::Serialize;

use crate::error::Result;
use crate::format::layout::Place;
use crate::id::{ObjectName, SessionId};
use crate::length::to_u64;
use crate::limits;
use crate::maintenance::options::{CollectOptions, OpenSessions};
use crate::maintenance::site::Site;
use crate::maintenance::survey::{Needs, Stage, check_outcome, check_packs, check_sound, packs};
use crate::repository::{Control, LockedRepository, Repository};
use crate::session::{History, SessionStart};
use crate::time::Timestamp;

/// A number of packs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PackAmount {
    /// How many.
    pub packs: u64,
    /// Their bytes on storage.
    pub bytes: u64,
}

impl PackAmount {
    pub(super) fn add(&mut self, bytes: u64) {
        self.packs = self.packs.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// A session that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct OpenSession {
    /// Its id.
    pub session: SessionId,
    /// Its collection generation.
    pub generation: u32,
    /// When it began, as it says; `None` where that cannot be read.
    pub started: Option<Timestamp>,
    /// Whether the options say that it is to be revoked.
    pub is_revocable: bool,
}

/// What a collection would do now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CollectionPlan {
    /// The number of the collection.
    pub number: u32,
    /// Whether it is one that began before: only what that condemned is deleted.
    pub continues: bool,
    /// Backups whose packs are kept.
    pub backups: u64,
    /// Forgotten backups that go.
    pub forgotten: u64,
    /// Packs that backups need.
    pub live: PackAmount,
    /// Packs that will be deleted, unless a session that has not ended commits and needs them.
    pub dead: PackAmount,
    /// Packs that no backup needs and that came after the collection began: for the next one.
    pub later: PackAmount,
    /// Sessions that have to end, or be revoked, before anything is deleted.
    pub open_sessions: Vec<OpenSession>,
}

/// How far a collection came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CollectionState {
    /// To its end.
    Finished,
    /// It waits for sessions to end; nothing was deleted. The next call continues it.
    Waiting,
}

/// What a collection did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CollectionReport {
    /// The number of the collection.
    pub number: u32,
    /// How far it came.
    pub state: CollectionState,
    /// Whether it is one that began before.
    pub continued: bool,
    /// Backups that are there.
    pub backups: u64,
    /// Packs that were deleted, those that an earlier collection had left to be deleted included.
    pub deleted: PackAmount,
    /// Other objects that were deleted: index segments, bodies and closures without a backup, records.
    pub deleted_objects: u64,
    /// Packs that backups need.
    pub live: PackAmount,
    /// Sessions that were revoked.
    pub revoked: Vec<OpenSession>,
    /// Sessions that it waits for.
    pub waiting_for: Vec<OpenSession>,
}

impl LockedRepository {
    /// What a collection would do now. Nothing is changed, and no key is needed.
    ///
    /// # Errors
    ///
    /// As [`collect`](Self::collect) where it would refuse to begin.
    pub fn plan_collection(&self, options: &CollectOptions, control: &Control) -> Result<CollectionPlan> {
        plan(&Site::locked(self, control), options)
    }
}

impl Repository {
    /// As [`LockedRepository::plan_collection`].
    ///
    /// # Errors
    ///
    /// As [`LockedRepository::plan_collection`].
    pub fn plan_collection(&self, options: &CollectOptions, control: &Control) -> Result<CollectionPlan> {
        plan(&Site::unlocked(self, control), options)
    }
}

fn plan(site: &Site<'_>, options: &CollectOptions) -> Result<CollectionPlan> {
    let listed = packs(site)?;
    let history = site.history(&History::default())?;
    check_sound(site, &history, options)?;
    check_outcome(site, &history, options)?;
    let mut needs = Needs::default();
    needs.add(site, &history)?;
    check_packs(site, &needs, &listed, options)?;
    let stage = Stage::find(site, &history)?;
    let mut plan = CollectionPlan {
        number: stage.number(),
        continues: matches!(stage, Stage::Continue { .. }),
        backups: to_u64(history.commits.len()),
        forgotten: to_u64(history.forgotten_backups().len()),
        live: PackAmount::default(),
        dead: PackAmount::default(),
        later: PackAmount::default(),
        open_sessions: open_sessions(site, &history, options)?,
    };
    for (name, size) in &listed {
        if needs.contains(name) {
            plan.live.add(*size);
        } else if stage.condemns(name) {
            plan.dead.add(*size);
        } else {
            plan.later.add(*size);
        }
    }
    Ok(plan)
}

/// The sessions that a collection has to wait for, and which of them the options let it revoke.
pub(super) fn open_sessions(site: &Site<'_>, history: &History, options: &CollectOptions) -> Result<Vec<OpenSession>> {
    let now = site.environment.now();
    let mut sessions = Vec::new();
    for (generation, session) in &history.unfinished {
        site.control.cancel().check()?;
        let key = Place::SessionOpen(*generation, *session).key();
        // Nothing about safety depends on what it says, so one that cannot be read is one of unknown age.
        let start = site.storage.get(&key, limits::COMMIT).ok();
        let start = start.and_then(|bytes| SessionStart::decode(&bytes, key.as_str()).ok());
        let started = start.filter(|start| start.session == *session).map(|start| start.time);
        let is_revocable = match options.open_sessions {
            OpenSessions::Wait => false,
            OpenSessions::RevokeAll => true,
            OpenSessions::RevokeOlderThan(age) => {
                started.is_some_and(|started| now.seconds_since(started) > age.as_secs_f64())
            }
        };
        sessions.push(OpenSession { session: *session, generation: *generation, started, is_revocable });
    }
    Ok(sessions)
}

/// How many of these packs there are, and their bytes.
pub(super) fn amount<'p>(packs: impl Iterator<Item = (&'p ObjectName, &'p u64)>) -> PackAmount {
    let mut amount = PackAmount::default();
    packs.for_each(|(_, size)| amount.add(*size));
    amount
}
