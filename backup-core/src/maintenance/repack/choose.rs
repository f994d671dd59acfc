//! Which packs are worth to be stored anew, and which backups are concerned.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::error::{Error, Result};
use crate::format::layout::Place;
use crate::id::{BackupId, ObjectName};
use crate::index::{Index, Marks, Usage};
use crate::maintenance::plan::PackAmount;
use crate::maintenance::repack::live::Walk;
use crate::maintenance::repack::options::{RepackOptions, RepackPlan};
use crate::maintenance::repack::{Shared, problem};
use crate::repository::{Control, Failing, Problem, read_closure, supplement};
use crate::session::{Commit, History, MOST_REPLACED};

/// Most chunks that are stored anew at a time: a commit names all index segments of the run, and has room for some of them only.
const MOST_CHUNKS: u64 = 1 << 25;

/// How often a repository is looked at anew because a collection ended meanwhile.
const ATTEMPTS: usize = 8;

/// A pack that is to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) name: ObjectName,
    pub(super) size: u64,
    pub(super) usage: Usage,
}

/// What is to be done.
pub(super) struct Choice {
    pub(super) index: Arc<Index>,
    /// What backups need.
    pub(super) marks: Marks,
    pub(super) candidates: Vec<Candidate>,
    /// The live commits that were walked, by the first ids of backups that are to be replaced, in causal order.
    pub(super) backups: Vec<(BackupId, BTreeSet<BackupId>)>,
    /// The greatest generation of the commits of these backups.
    pub(super) least_generation: u32,
    pub(super) plan: RepackPlan,
}

impl Choice {
    pub(super) fn is_empty(&self) -> bool {
        self.backups.is_empty()
    }

    /// # Errors
    ///
    /// Those of [`Repository::plan_repack`](crate::repository::Repository::plan_repack).
    pub(super) fn make(inner: &Shared, options: &RepackOptions, control: &Control) -> Result<Self> {
        options.check()?;
        for _ in 0..ATTEMPTS {
            let history = inner.history(control)?;
            let choice = Self::of_history(inner, &history, options, control)?;
            // What is missing may be what a collection deleted meanwhile.
            if choice.plan.problems.is_empty() || !history.is_overtaken(&*inner.storage)? {
                return Ok(choice);
            }
            inner.forget_view();
        }
        Err(Error::Conflict {
            what: "the repository".into(),
            reason: "collections kept ending while it was looked at".into(),
            transient: true,
        })
    }

    fn of_history(inner: &Shared, history: &History, options: &RepackOptions, control: &Control) -> Result<Self> {
        let index = inner.index(control)?;
        let mut survey = Survey { inner, history, control, kept: HashSet::new(), problems: Vec::new() };
        let (needed, fixed) = survey.needs()?;
        if needed.keys().any(|name| index.pack_size(name).is_none()) {
            // They came with a copy, say.
            supplement(inner, &index, history, Failing::Stops, control)?;
        }
        let (marks, fixed) = survey.walk(&index, fixed)?;
        let mut plan = RepackPlan::default();
        needed.values().for_each(|size| plan.needed.add(*size));
        let candidates = survey.candidates(&index, &needed, &marks.usage(), options, &mut plan);
        let backups = survey.concerned(&candidates, &fixed)?;
        plan.backups = crate::length::to_u64(backups.len());
        plan.problems = survey.problems;
        let generations = backups.iter().flat_map(|(origin, _)| history.commits_of(origin));
        let least_generation = generations.map(|commit| commit.content.generation).max().unwrap_or(0);
        Ok(Self { index, marks, candidates, backups, least_generation, plan })
    }
}

struct Survey<'s> {
    inner: &'s Shared,
    history: &'s History,
    control: &'s Control,
    /// Packs that stay as they are, whatever is in them.
    kept: HashSet<ObjectName>,
    problems: Vec<Problem>,
}

impl Survey<'_> {
    /// The packs that backups need, and the commits that cannot be replaced, as their closures cannot be read.
    fn needs(&mut self) -> Result<(HashMap<ObjectName, u64>, BTreeSet<BackupId>)> {
        let (mut needed, mut fixed) = (HashMap::new(), BTreeSet::new());
        for commit in self.history.live.values() {
            self.control.cancel().check()?;
            match read_closure(&*self.inner.storage, commit, self.control) {
                Ok(closure) => needed.extend(closure.packs),
                Err(error) if error.is_of_one_object() => {
                    // Nobody knows which packs it needs. It goes on naming them.
                    let key = Place::Closure(commit.content.closure).key();
                    problem(self.control, &mut self.problems, key.as_str(), error.to_string());
                    fixed.insert(commit.id);
                }
                Err(error) => return Err(error),
            }
        }
        Ok((needed, fixed))
    }

    /// Marks what backups need. Commits of which not everything can be found stay as they are, and keep their packs.
    fn walk(&mut self, index: &Arc<Index>, mut fixed: BTreeSet<BackupId>) -> Result<(Marks, BTreeSet<BackupId>)> {
        let mut walk = Walk::new(self.inner, index, self.control);
        for commit in self.history.live_in_order() {
            let reason = match self.inner.read_backup(commit, self.control) {
                Ok(backup) => walk.backup(&backup.catalogue)?,
                Err(error) if error.is_of_one_object() => Some(error),
                Err(error) => return Err(error),
            };
            if let Some(error) = reason {
                let message = format!("not all that backup {} needs can be found: {error}", commit.id);
                let key = Place::Body(commit.content.body).key();
                problem(self.control, &mut self.problems, key.as_str(), message);
                fixed.insert(commit.id);
            } else if self.history.ids(&commit.id).len() > MOST_REPLACED {
                let message = "it was replaced as often as can be";
                problem(self.control, &mut self.problems, &commit.id.to_string(), message);
                fixed.insert(commit.id);
            }
        }
        // A backup is replaced as a whole or not at all.
        let live = || self.history.live.values();
        let origins: BTreeSet<BackupId> =
            live().filter(|commit| fixed.contains(&commit.id)).map(Commit::origin).collect();
        for commit in live().filter(|commit| origins.contains(&commit.origin())) {
            match read_closure(&*self.inner.storage, commit, self.control) {
                Ok(closure) => self.kept.extend(closure.packs.into_keys()),
                // That was reported.
                Err(error) if error.is_of_one_object() => {}
                Err(error) => return Err(error),
            }
            fixed.insert(commit.id);
        }
        Ok((walk.into_marks(), fixed))
    }

    /// The packs to be replaced, those with the smallest shares first.
    fn candidates(
        &self,
        index: &Index,
        needed: &HashMap<ObjectName, u64>,
        usages: &HashMap<ObjectName, Usage>,
        options: &RepackOptions,
        plan: &mut RepackPlan,
    ) -> Vec<Candidate> {
        let mut found: Vec<(u128, Candidate)> = Vec::new();
        for (name, size) in needed {
            let Some(usage) = usages.get(name) else { continue };
            let (marked, bytes) = (u128::from(usage.marked_bytes), u128::from(usage.bytes));
            let is_dead = marked.saturating_mul(100) < bytes.saturating_mul(u128::from(options.below_percent));
            // What the index and the closures do not say alike is damaged.
            if is_dead && !self.kept.contains(name) && index.pack_size(name) == Some(*size) {
                let share = marked.saturating_mul(1 << 32).checked_div(bytes).unwrap_or(0);
                found.push((share, Candidate { name: *name, size: *size, usage: *usage }));
            }
        }
        found.sort_unstable_by_key(|(share, candidate)| (*share, candidate.name));
        let mut chosen = Vec::new();
        for (_, candidate) in found {
            let usage = candidate.usage;
            let bytes = plan.chunk_bytes.saturating_add(usage.marked_bytes);
            let chunks = plan.chunks.saturating_add(usage.marked_chunks);
            if plan.later.packs > 0 || bytes > options.max_bytes || chunks > MOST_CHUNKS {
                plan.later.add(candidate.size);
                continue;
            }
            (plan.chunk_bytes, plan.chunks) = (bytes, chunks);
            plan.replaced.add(candidate.size);
            chosen.push(candidate);
        }
        chosen
    }

    /// The backups that need one of the packs, and those that have several live commits.
    fn concerned(
        &mut self,
        candidates: &[Candidate],
        fixed: &BTreeSet<BackupId>,
    ) -> Result<Vec<(BackupId, BTreeSet<BackupId>)>> {
        let names: HashSet<ObjectName> = candidates.iter().map(|candidate| candidate.name).collect();
        let mut live: BTreeMap<BackupId, BTreeSet<BackupId>> = BTreeMap::new();
        for commit in self.history.live.values() {
            live.entry(commit.origin()).or_default().insert(commit.id);
        }
        let mut concerned = Vec::new();
        for commit in self.history.in_order() {
            self.control.cancel().check()?;
            let Some(commits) = live.remove(&commit.origin()) else { continue };
            if !commits.is_disjoint(fixed) {
                continue;
            }
            let is_concerned = match read_closure(&*self.inner.storage, commit, self.control) {
                Ok(closure) => commits.len() > 1 || closure.packs.keys().any(|pack| names.contains(pack)),
                // A moment ago it could be read.
                Err(error) if error.is_of_one_object() => {
                    let key = Place::Closure(commit.content.closure).key();
                    problem(self.control, &mut self.problems, key.as_str(), error.to_string());
                    false
                }
                Err(error) => return Err(error),
            };
            if is_concerned {
                concerned.push((commit.origin(), commits));
            }
        }
        Ok(concerned)
    }
}

/// How many packs, and their bytes.
pub(super) fn amount(packs: impl Iterator<Item = u64>) -> PackAmount {
    let mut amount = PackAmount::default();
    packs.for_each(|size| amount.add(size));
    amount
}
