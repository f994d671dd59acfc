//! Which backups are kept: a policy as a value, and what comes of it as a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::id::BackupId;
use crate::repository::{Backup, BackupKind, Repository, UnreadableBackup};
use crate::time::{TimeZone, Timestamp};

/// Which backups are kept. A backup is kept if any rule says so; of hours, days, weeks, months and years, the newest
/// backup of each is. The newest backup of a group is always kept.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RetentionPolicy {
    /// The newest so many.
    pub keep_last: u32,
    /// One of each of the last so many hours that have backups.
    pub keep_hourly: u32,
    /// One of each of the last so many days that have backups.
    pub keep_daily: u32,
    /// One of each of the last so many weeks (Monday to Sunday) that have backups.
    pub keep_weekly: u32,
    /// One of each of the last so many months that have backups.
    pub keep_monthly: u32,
    /// One of each of the last so many years that have backups.
    pub keep_yearly: u32,
    /// Those that began at most so long before the newest one of their group, or before now, whichever is earlier.
    pub keep_within: Option<Duration>,
    /// Those that have one of these tags.
    pub keep_tags: Vec<String>,
    /// By which clock hours, days, weeks, months and years begin.
    pub time_zone: TimeZone,
    /// What backups are to have in common, so that the rules are for them together.
    pub group_by: Grouping,
}

impl RetentionPolicy {
    /// Whether no rule keeps anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts().iter().all(|(_, count)| *count == 0) && self.keep_within.is_none() && self.keep_tags.is_empty()
    }

    const fn counts(&self) -> [(KeepReason, u32); 6] {
        [
            (KeepReason::Last, self.keep_last),
            (KeepReason::Hourly, self.keep_hourly),
            (KeepReason::Daily, self.keep_daily),
            (KeepReason::Weekly, self.keep_weekly),
            (KeepReason::Monthly, self.keep_monthly),
            (KeepReason::Yearly, self.keep_yearly),
        ]
    }
}

/// By what backups are grouped before the rules of a policy are applied to each group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grouping {
    /// Backups of one host.
    pub host: bool,
    /// Backups of one kind.
    pub kind: bool,
    /// Backups with the same labels.
    pub labels: bool,
}

impl Grouping {
    /// A grouping.
    #[must_use]
    pub const fn new(host: bool, kind: bool, labels: bool) -> Self {
        Self { host, kind, labels }
    }
}

impl Default for Grouping {
    fn default() -> Self {
        Self::new(true, true, true)
    }
}

/// Why a backup is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum KeepReason {
    /// It is the newest of its group.
    Newest,
    /// [`RetentionPolicy::keep_last`]
    Last,
    /// [`RetentionPolicy::keep_hourly`]
    Hourly,
    /// [`RetentionPolicy::keep_daily`]
    Daily,
    /// [`RetentionPolicy::keep_weekly`]
    Weekly,
    /// [`RetentionPolicy::keep_monthly`]
    Monthly,
    /// [`RetentionPolicy::keep_yearly`]
    Yearly,
    /// [`RetentionPolicy::keep_within`]
    Within,
    /// [`RetentionPolicy::keep_tags`]
    Tag,
}

/// What a policy would keep and forget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ForgetPlan {
    /// By group, in the order of host, kind and labels.
    pub groups: Vec<ForgetGroup>,
    /// Backups that cannot be opened. No policy forgets them.
    pub unreadable: Vec<UnreadableBackup>,
}

impl ForgetPlan {
    /// The ids of the backups that would be forgotten.
    pub fn forgotten(&self) -> impl Iterator<Item = BackupId> {
        let planned = self.groups.iter().flat_map(|group| &group.backups);
        planned.filter(|backup| backup.keep.is_empty()).map(|backup| backup.id)
    }
}

/// Backups to which a policy is applied together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ForgetGroup {
    /// Their host, where they are grouped by it.
    pub host: Option<String>,
    /// Their kind, where they are grouped by it.
    pub kind: Option<BackupKind>,
    /// Their labels, where they are grouped by them.
    pub labels: Option<BTreeMap<String, String>>,
    /// The backups, oldest first.
    pub backups: Vec<PlannedBackup>,
}

/// A backup and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PlannedBackup {
    /// Its id.
    pub id: BackupId,
    /// When it began.
    pub started: Timestamp,
    /// Why it is kept; empty where it is to be forgotten.
    pub keep: Vec<KeepReason>,
}

impl Repository {
    /// What `policy` would keep and forget of the backups that `is_meant` chooses. Nothing is changed:
    /// [`forget`](Self::forget) takes the ids.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a policy without a rule; [`Error::Storage`].
    pub fn plan_forget(&self, policy: &RetentionPolicy, is_meant: &dyn Fn(&Backup) -> bool) -> Result<ForgetPlan> {
        if policy.is_empty() {
            return Err(Error::invalid("retention policy", "it has no rule that keeps anything"));
        }
        let (mut backups, mut unreadable) = (Vec::new(), Vec::new());
        for listed in self.list()? {
            match listed {
                Ok(backup) if is_meant(&backup) => backups.push(backup),
                Ok(_) => {}
                Err(lost) => unreadable.push(lost),
            }
        }
        Ok(ForgetPlan { groups: plan(policy, &backups, self.inner.environment.now()), unreadable })
    }
}

/// Applies a policy to backups, which are in causal order, oldest first.
fn plan(policy: &RetentionPolicy, backups: &[Backup], now: Timestamp) -> Vec<ForgetGroup> {
    let mut groups: BTreeMap<_, Vec<&Backup>> = BTreeMap::new();
    let by = policy.group_by;
    for backup in backups {
        let key = (
            by.host.then(|| backup.host.clone()),
            by.kind.then(|| backup.kind.clone()),
            by.labels.then(|| backup.labels.clone()),
        );
        groups.entry(key).or_default().push(backup);
    }
    let group = |((host, kind, labels), backups): ((_, _, _), Vec<&Backup>)| ForgetGroup {
        host,
        kind,
        labels,
        backups: keep(policy, &backups, now),
    };
    groups.into_iter().map(group).collect()
}

fn keep(policy: &RetentionPolicy, backups: &[&Backup], now: Timestamp) -> Vec<PlannedBackup> {
    let newest = backups.last().map_or(now, |newest| newest.started.min(now));
    let mut counts: Vec<(KeepReason, u32, BTreeSet<[i64; 5]>)> =
        policy.counts().into_iter().map(|(reason, count)| (reason, count, BTreeSet::new())).collect();
    let mut planned = Vec::with_capacity(backups.len());
    for (age, backup) in backups.iter().rev().enumerate() {
        let mut reasons = BTreeSet::new();
        if age == 0 {
            reasons.insert(KeepReason::Newest);
        }
        let clock = policy.time_zone.calendar(backup.started);
        for (reason, count, seen) in &mut counts {
            let period = match reason {
                KeepReason::Hourly => [clock.year, clock.month, clock.day, clock.hour, clock.offset],
                KeepReason::Daily => [clock.year, clock.month, clock.day, 0, 0],
                KeepReason::Weekly => [clock.week_year, clock.week, 0, 0, 0],
                KeepReason::Monthly => [clock.year, clock.month, 0, 0, 0],
                KeepReason::Yearly => [clock.year, 0, 0, 0, 0],
                _ => [i64::try_from(age).unwrap_or(i64::MAX), 0, 0, 0, 0],
            };
            // A set and no comparison with the period before: clocks go back, and causal order does not follow them.
            if *count > 0 && seen.insert(period) {
                *count = count.saturating_sub(1);
                reasons.insert(*reason);
            }
        }
        if policy.keep_within.is_some_and(|within| newest.seconds_since(backup.started) <= within.as_secs_f64()) {
            reasons.insert(KeepReason::Within);
        }
        if backup.tags.iter().any(|tag| policy.keep_tags.contains(tag)) {
            reasons.insert(KeepReason::Tag);
        }
        planned.push(PlannedBackup { id: backup.id, started: backup.started, keep: reasons.into_iter().collect() });
    }
    planned.reverse();
    planned
}
