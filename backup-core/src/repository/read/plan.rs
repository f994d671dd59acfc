//! A restore that is divided: plans that are cut into shards, run anywhere, and whose reports are joined.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::content::{Entry, EntryKind, EntryPath};
use crate::crypto::hash;
use crate::error::{Error, Result};
use crate::id::{BackupId, Digest, RepositoryId};
use crate::progress::Event;
use crate::repository::backup::{Backup, Problem, Problems};
use crate::repository::environment::Control;
use crate::repository::handle::Repository;
use crate::repository::read::tree::{RestoreReport, Selection};
use crate::repository::shard::Shard;
use crate::source::{BlockSink, TreeSink};

/// Shards of a content begin at multiples of so many bytes: the usual size of a chunk of an image, so that most chunks
/// are read by one shard only.
const UNIT: u64 = 1 << 20;

/// What is to be restored, all of it or a [shard](Self::shard). The same wherever it is run: it can be serialized, and
/// who has the repository and its password can run it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RestorePlan {
    /// The repository.
    pub repository: RepositoryId,
    /// The backup.
    pub backup: BackupId,
    /// What of it.
    pub what: Planned,
    /// The shard that this is; all of the plan where `None`.
    pub shard: Option<Shard>,
}

/// What of a backup is to be restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Planned {
    /// Entries, as a tree: those at and below these paths, and the directories above them; all where `None`.
    Tree {
        /// The paths.
        within: Option<Vec<EntryPath>>,
    },
    /// The content of one entry, in ranges of bytes.
    Content {
        /// Its path.
        entry: EntryPath,
        /// Its length in bytes.
        length: u64,
    },
}

/// What a shard of a plan restored.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ShardReport {
    /// The plan with the shard; after [merging](Self::merge), the plan that all of them are of.
    pub plan: RestorePlan,
    /// Entries that were restored whole. Directories are [completed](Repository::complete_planned) at the end.
    pub entries: u64,
    /// Bytes of content, holes included.
    pub bytes: u64,
    /// What could not be restored, at most the first 1000 problems.
    pub problems: Vec<Problem>,
    /// How many problems there were in all.
    pub problem_count: u64,
}

impl RestorePlan {
    /// A part of the plan. All shards of one count restore everything once.
    #[must_use]
    pub fn shard(&self, shard: Shard) -> Self {
        Self { shard: Some(shard), ..self.clone() }
    }

    /// The plan that this is a shard of.
    #[must_use]
    pub fn whole(&self) -> Self {
        Self { shard: None, ..self.clone() }
    }

    /// What tells this plan from others, the same for all of its shards: what is restored, and from what.
    #[must_use]
    pub fn id(&self) -> Digest {
        let mut parts: Vec<&[u8]> = vec![self.repository.as_bytes(), self.backup.as_bytes()];
        match &self.what {
            Planned::Tree { within: None } => parts.push(b"tree"),
            Planned::Tree { within: Some(paths) } => {
                parts.push(b"within");
                // No path has a 00.
                parts.extend(paths.iter().flat_map(|path| [path.as_bytes(), b"\0"]));
            }
            Planned::Content { entry, .. } => parts.extend([b"content".as_slice(), entry.as_bytes()]),
        }
        hash::digest(&parts.concat())
    }

    fn selection(&self) -> Selection {
        match &self.what {
            Planned::Tree { within } => Selection { within: within.clone() },
            Planned::Content { entry, .. } => Selection::within(vec![entry.clone()]),
        }
    }

    /// Whether an entry of a tree is restored by this shard: further names of a file with the first.
    fn has(&self, entry: &Entry) -> bool {
        let first = entry.hard_link.as_ref().unwrap_or(&entry.path);
        self.shard.is_none_or(|shard| shard.has_hash(hash::digest(first.as_bytes()).as_bytes()))
    }
}

impl ShardReport {
    /// Whether everything that belongs to it was restored.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.problem_count == 0
    }

    /// Joins the reports of all shards of one plan and count.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] where a shard is missing or there twice, for reports of other plans or counts, and
    /// where they together do not have all bytes of a content.
    pub fn merge(reports: Vec<Self>) -> Result<Self> {
        let invalid = |reason: String| Error::invalid("reports", reason);
        let shard_of = |report: &Self| report.plan.shard.ok_or_else(|| invalid("one is not of a shard".into()));
        let mut reports = reports.into_iter();
        let mut whole = reports.next().ok_or_else(|| invalid("there are none".into()))?;
        let first = shard_of(&whole)?;
        whole.plan = whole.plan.whole();
        let mut found = BTreeSet::from([first.number()]);
        for report in reports {
            let shard = shard_of(&report)?;
            if shard.count() != first.count() || report.plan.whole() != whole.plan {
                return Err(invalid(format!("shard {shard} is of another restore than {first}")));
            }
            if !found.insert(shard.number()) {
                return Err(invalid(format!("shard {shard} is there twice")));
            }
            whole.entries = whole.entries.saturating_add(report.entries);
            whole.bytes = whole.bytes.saturating_add(report.bytes);
            whole.problem_count = whole.problem_count.saturating_add(report.problem_count);
            let room = Problems::KEPT.saturating_sub(whole.problems.len());
            whole.problems.extend(report.problems.into_iter().take(room));
        }
        if let Some(missing) = (1..=first.count()).find(|number| !found.contains(number)) {
            return Err(invalid(format!("shard {missing}/{} is missing", first.count())));
        }
        if let Planned::Content { length, entry } = &whole.plan.what {
            if whole.bytes != *length {
                return Err(invalid(format!("{} of the {length} bytes of {entry} were restored", whole.bytes)));
            }
            whole.entries = 1;
        }
        Ok(whole)
    }

    fn of(plan: &RestorePlan, report: RestoreReport) -> Self {
        let RestoreReport { entries, bytes, problems, problem_count } = report;
        Self { plan: plan.clone(), entries, bytes, problems, problem_count }
    }
}

impl Repository {
    /// The plan of restoring entries as a tree.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] naming every path of the selection at and below which there is nothing;
    /// [`Error::Storage`], [`Error::Damaged`].
    pub fn plan_restore(&self, backup: &Backup, selection: &Selection) -> Result<RestorePlan> {
        self.check_selection(backup, selection)?;
        let mut within = selection.within.clone();
        if let Some(paths) = &mut within {
            paths.sort_unstable();
            paths.dedup();
        }
        Ok(self.plan(backup, Planned::Tree { within }))
    }

    /// The plan of restoring the content of one entry, into one file or device that all shards write.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] naming the entry; [`Error::InvalidArgument`] for one without content; [`Error::Storage`],
    /// [`Error::Damaged`].
    pub fn plan_content(&self, backup: &Backup, path: &EntryPath) -> Result<RestorePlan> {
        let entry = self.content_entry(backup, path)?;
        if !entry.kind.has_content() {
            return Err(Error::invalid(format!("entry {path}"), format!("a {} has no content", entry.kind.name())));
        }
        Ok(self.plan(backup, Planned::Content { entry: path.clone(), length: entry.size() }))
    }

    fn plan(&self, backup: &Backup, what: Planned) -> RestorePlan {
        RestorePlan { repository: self.id(), backup: backup.id, what, shard: None }
    }

    /// Restores what belongs to a plan of a tree, or to its shard, but for directories: they are made as they are
    /// needed, and get their attributes when [all is there](Self::complete_planned), as others write in them.
    /// Further names of a file belong to the shard of the first.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a plan of another repository, or of a content; [`Error::NotFound`] for a backup
    /// that is not there (any more); otherwise as [`restore_tree`](Self::restore_tree).
    pub fn restore_planned(&self, plan: &RestorePlan, sink: &dyn TreeSink, control: &Control) -> Result<ShardReport> {
        let backup = self.tree_of(plan)?;
        let selection = plan.selection();
        let shards = u64::from(plan.shard.map_or(1, |shard| shard.count()));
        let part = |whole: u64| whole.checked_div(shards).unwrap_or(whole);
        let amounts = &backup.statistics;
        control.event(&Event::Expected { entries: part(amounts.entries), bytes: part(amounts.bytes_logical) });
        let is_wanted =
            |entry: &Entry| entry.kind != EntryKind::Directory && selection.contains(entry) && plan.has(entry);
        let report = self.restore_part(&backup, &is_wanted, sink, control)?;
        Ok(ShardReport::of(plan, report))
    }

    /// The last step of a plan of a tree, after all shards: directories that nothing stands in, and the attributes of
    /// all directories. Returns the report of the whole: `merged` and what this step did.
    ///
    /// # Errors
    ///
    /// As [`restore_planned`](Self::restore_planned).
    pub fn complete_planned(
        &self,
        mut merged: ShardReport,
        sink: &dyn TreeSink,
        control: &Control,
    ) -> Result<ShardReport> {
        let backup = self.tree_of(&merged.plan)?;
        let selection = merged.plan.selection();
        let is_wanted = |entry: &Entry| entry.kind == EntryKind::Directory && selection.contains(entry);
        let report = self.restore_part(&backup, &is_wanted, sink, control)?;
        merged.entries = merged.entries.saturating_add(report.entries);
        merged.problem_count = merged.problem_count.saturating_add(report.problem_count);
        let room = Problems::KEPT.saturating_sub(merged.problems.len());
        merged.problems.extend(report.problems.into_iter().take(room));
        Ok(merged)
    }

    /// Writes the range of a content that belongs to the shard of a plan to `sink`: nothing outside of it is written, and
    /// other shards may write the same target at the same time.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a plan of another repository, or of a tree; [`Error::NotFound`] for a backup that
    /// is not there (any more); otherwise as [`restore_blocks`](Self::restore_blocks).
    pub fn restore_planned_content(
        &self,
        plan: &RestorePlan,
        sink: &dyn BlockSink,
        control: &Control,
    ) -> Result<ShardReport> {
        let Planned::Content { entry, length } = &plan.what else {
            return Err(Error::invalid("restore plan", "it is one of a tree"));
        };
        let entry = self.content_entry(&self.planned(plan)?, entry)?;
        if entry.size() != *length {
            return Err(Error::invalid("restore plan", format!("{} has {} bytes", entry.path, entry.size())));
        }
        let range = plan.shard.map_or(0..*length, |shard| shard.part(*length, UNIT));
        let bytes = range.end.saturating_sub(range.start);
        control.event(&Event::Expected { entries: 1, bytes });
        self.restore_blocks_in(&entry, range, sink, control)?;
        let report = RestoreReport { entries: 1, bytes, problems: Vec::new(), problem_count: 0 };
        Ok(ShardReport::of(plan, report))
    }

    fn tree_of(&self, plan: &RestorePlan) -> Result<Backup> {
        if !matches!(plan.what, Planned::Tree { .. }) {
            return Err(Error::invalid("restore plan", "it is one of a content"));
        }
        self.planned(plan)
    }

    fn planned(&self, plan: &RestorePlan) -> Result<Backup> {
        if plan.repository != self.id() {
            return Err(Error::invalid("restore plan", format!("it is one of repository {}", plan.repository)));
        }
        self.find_backup(&plan.backup.to_string())
    }
}
