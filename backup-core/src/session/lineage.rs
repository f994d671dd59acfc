//! Which commits are the same backup, which of them counts, and in which order backups stand (`docs/format.md`, "Commits").
//!
//! A commit that replaces others has the first id of its backup in common with them, for ever. Who is replaced is decided
//! so that nothing comes back: a replacement has no smaller generation than what it replaces, and so stays valid at
//! least as long.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::id::BackupId;
use crate::session::commit::Commit;
use crate::session::history::History;
use crate::time::Timestamp;

/// All valid commits of one backup.
#[derive(Default)]
struct Lineage<'h> {
    commits: Vec<&'h Commit>,
    /// First ids of the backups that it names.
    before: BTreeSet<BackupId>,
}

impl Lineage<'_> {
    /// When it was made, for its place in the order: replacements repeat the time.
    fn time(&self) -> Timestamp {
        self.commits.iter().map(|commit| commit.content.time).min().unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

impl History {
    /// Finds out what is live and what is shown, when valid commits and forget records are known.
    pub(super) fn settle(&mut self) {
        self.origins = self.valid.values().flat_map(|commit| commit.ids().map(|id| (*id, commit.origin()))).collect();
        let replaced = self.replaced();
        let is_live = |commit: &&Commit| !replaced.contains(&commit.id) && !self.is_forgotten(commit);
        let live: BTreeMap<BackupId, Commit> =
            self.valid.values().filter(is_live).map(|commit| (commit.id, commit.clone())).collect();
        let mut shown: BTreeMap<BackupId, &Commit> = BTreeMap::new();
        for commit in live.values() {
            let best = shown.entry(commit.origin()).or_insert(commit);
            if precedence(commit) > precedence(best) {
                *best = commit;
            }
        }
        self.commits = shown.into_values().map(|commit| (commit.id, commit.clone())).collect();
        self.live = live;
    }

    /// Valid commits that another valid commit replaces.
    fn replaced(&self) -> BTreeSet<BackupId> {
        let pairs = self.valid.values().flat_map(|by| by.content.replaces.iter().map(move |id| (by, id)));
        pairs
            .filter_map(|(by, id)| Some((by, self.valid.get(id)?)))
            // One that could be void while what it replaces is valid replaces nothing.
            .filter(|(by, commit)| by.content.generation >= commit.content.generation)
            .map(|(_, commit)| commit.id)
            .collect()
    }

    /// Whether a forget record names a commit, of this history or another, or one that it replaces.
    pub(crate) fn is_forgotten(&self, commit: &Commit) -> bool {
        commit.ids().any(|id| self.forgotten.contains(id))
    }

    /// First ids of the backups that are forgotten and of which valid commits are there.
    pub(crate) fn forgotten_backups(&self) -> BTreeSet<BackupId> {
        let forgotten = self.valid.values().filter(|commit| self.is_forgotten(commit));
        let mut origins: BTreeSet<BackupId> = forgotten.map(Commit::origin).collect();
        origins.retain(|origin| !self.live.values().any(|commit| commit.origin() == *origin));
        origins
    }

    /// Whether a valid commit has this id or replaces one that had it.
    pub(crate) fn knows(&self, id: &BackupId) -> bool {
        self.origins.contains_key(id)
    }

    /// The backup that has this id now or had it before it was replaced.
    pub(crate) fn find(&self, id: &BackupId) -> Option<&Commit> {
        let origin = self.origins.get(id)?;
        self.commits.get(id).or_else(|| self.commits.values().find(|commit| commit.origin() == *origin))
    }

    /// Every backup one of whose ids begins so, each once.
    pub(crate) fn find_all(&self, beginning: &str) -> Vec<&Commit> {
        let begins = self.origins.iter().filter(|(id, _)| id.to_string().starts_with(beginning));
        let origins: BTreeSet<&BackupId> = begins.map(|(_, origin)| origin).collect();
        self.commits.values().filter(|commit| origins.contains(&commit.origin())).collect()
    }

    /// The live commits of the backups that are asked for, of all backups without any, in causal order.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] naming an id that no backup has or had.
    pub(crate) fn select(&self, backups: &[BackupId]) -> Result<Vec<Commit>> {
        let mut wanted = BTreeSet::new();
        for id in backups {
            wanted.insert(self.find(id).ok_or_else(|| Error::not_found("backup", id))?.origin());
        }
        let is_wanted = |commit: &&Commit| backups.is_empty() || wanted.contains(&commit.origin());
        Ok(self.live_in_order().into_iter().filter(is_wanted).cloned().collect())
    }

    /// The valid commits of the backup that `id` is one of, the newest one last.
    pub(crate) fn commits_of(&self, id: &BackupId) -> Vec<&Commit> {
        let Some(origin) = self.origins.get(id) else { return Vec::new() };
        let mut commits: Vec<&Commit> = self.valid.values().filter(|commit| commit.origin() == *origin).collect();
        commits.sort_unstable_by_key(|commit| precedence(commit));
        commits
    }

    /// All ids of the backup that `id` is one of, the first one first, and the oldest first otherwise.
    pub(crate) fn ids(&self, id: &BackupId) -> Vec<BackupId> {
        let mut ids = Vec::new();
        for id in self.commits_of(id).into_iter().flat_map(Commit::ids) {
            if !ids.contains(id) {
                ids.push(*id);
            }
        }
        ids
    }

    /// Of every backup that no known commit names, one commit: what a new commit names.
    pub(crate) fn heads(&self) -> Vec<BackupId> {
        let replaced = self.replaced();
        let lineages = self.lineages();
        let named: BTreeSet<&BackupId> = lineages.values().flat_map(|lineage| &lineage.before).collect();
        let unnamed = lineages.iter().filter(|(origin, _)| !named.contains(origin));
        let newest = unnamed.filter_map(|(_, lineage)| {
            let last = lineage.commits.iter().filter(|commit| !replaced.contains(&commit.id));
            last.max_by_key(|commit| precedence(commit)).map(|commit| commit.id)
        });
        let mut heads: Vec<BackupId> = newest.collect();
        heads.sort_unstable();
        heads
    }

    /// Commits that a known commit names and that are not there: withheld, or forgotten and collected.
    pub(crate) fn missing(&self) -> BTreeSet<BackupId> {
        let named = self.valid.values().flat_map(|commit| &commit.content.heads);
        named.filter(|id| !self.knows(id) && !self.forgotten.contains(*id)).copied().collect()
    }

    /// The backups, oldest first: a backup always stands behind those that it names, whatever its clock said;
    /// otherwise by time. That it was replaced does not change its place.
    pub(crate) fn in_order(&self) -> Vec<&Commit> {
        let is_shown = |commit: &&Commit| self.commits.contains_key(&commit.id);
        self.order().into_iter().filter(is_shown).collect()
    }

    /// The live commits in the same order, those of one backup side by side, the shown one last.
    pub(crate) fn live_in_order(&self) -> Vec<&Commit> {
        self.order().into_iter().filter(|commit| self.live.contains_key(&commit.id)).collect()
    }

    /// The valid commits of every backup by its first id.
    fn lineages(&self) -> BTreeMap<BackupId, Lineage<'_>> {
        let mut lineages: BTreeMap<BackupId, Lineage<'_>> = BTreeMap::new();
        for commit in self.valid.values() {
            let origin = commit.origin();
            let lineage = lineages.entry(origin).or_default();
            lineage.commits.push(commit);
            let before = commit.content.heads.iter().filter_map(|head| self.origins.get(head));
            lineage.before.extend(before.filter(|before| **before != origin));
        }
        lineages
    }

    /// The valid commits in causal order.
    fn order(&self) -> Vec<&Commit> {
        let mut lineages = self.lineages();
        let mut followers: BTreeMap<BackupId, Vec<BackupId>> = BTreeMap::new();
        let mut waiting: BTreeMap<BackupId, (usize, Timestamp)> = BTreeMap::new();
        let mut ready: BTreeSet<(Timestamp, BackupId)> = BTreeSet::new();
        for (origin, lineage) in &lineages {
            if lineage.before.is_empty() {
                ready.insert((lineage.time(), *origin));
            } else {
                waiting.insert(*origin, (lineage.before.len(), lineage.time()));
            }
            for before in &lineage.before {
                followers.entry(*before).or_default().push(*origin);
            }
        }
        let mut order = Vec::with_capacity(self.valid.len());
        loop {
            // Backups that wait for each other were not made by a writer that keeps the rules. They are shown nevertheless.
            let stuck = || waiting.iter().map(|(origin, (_, time))| (*time, *origin)).min();
            let Some((time, origin)) = ready.pop_first().or_else(stuck) else { break };
            waiting.remove(&origin);
            let mut commits = lineages.remove(&origin).unwrap_or_default().commits;
            commits.sort_unstable_by_key(|commit| precedence(commit));
            order.extend(commits);
            for follower in followers.remove(&origin).unwrap_or_default() {
                if let Some((left, own)) = waiting.get_mut(&follower) {
                    *left = left.saturating_sub(1);
                    *own = (*own).max(time);
                    if *left == 0 {
                        ready.insert((*own, follower));
                        waiting.remove(&follower);
                    }
                }
            }
        }
        order
    }
}

/// Of the live commits of one backup, the greatest is shown.
fn precedence(commit: &Commit) -> (u32, usize, Reverse<BackupId>) {
    (commit.content.generation, commit.content.replaces.len(), Reverse(commit.id))
}
