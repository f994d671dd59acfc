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
    /// Backups with the same tags.
    pub tags: bool,
}

impl Grouping {
    /// A grouping by nothing: all backups are one group.
    pub const NONE: Self = Self { host: false, kind: false, labels: false, tags: false };
}

impl Default for Grouping {
    fn default() -> Self {
        Self { host: true, kind: true, labels: true, tags: true }
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
    /// By group, in the order of host, kind, labels and tags.
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
    /// Their tags, where they are grouped by them.
    pub tags: Option<BTreeSet<String>>,
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
            by.tags.then(|| backup.tags.iter().cloned().collect()),
        );
        groups.entry(key).or_default().push(backup);
    }
    let group = |((host, kind, labels, tags), backups): ((_, _, _, _), Vec<&Backup>)| ForgetGroup {
        host,
        kind,
        labels,
        tags,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::content::{CatalogueRoot, PageRef};
    use crate::id::ChunkId;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn backup(number: u8, started: Timestamp) -> Backup {
        let catalogue = CatalogueRoot { height: 1, page: PageRef { id: ChunkId::new([0; 32]), length: 1 }, entries: 0 };
        let body = crate::session::BackupBody {
            kind: "data".into(),
            host: "node".into(),
            tags: Vec::new(),
            labels: BTreeMap::new(),
            started,
            finished: started,
            parent: None,
            catalogue,
            amounts: [0; 8],
            problems: Vec::new(),
            problem_count: 0,
            origins: Vec::new(),
        };
        let place = crate::format::layout::Place::Config;
        Backup::from_body(BackupId::new([number; 32]), place, body).unwrap()
    }

    fn backups(times: &[&str]) -> Vec<Backup> {
        (0..).zip(times).map(|(number, time)| backup(number, at(time))).collect()
    }

    const NOW: &str = "2030-01-01T00:00:00Z";

    /// Which backups are kept, as numbers.
    fn kept(policy: &RetentionPolicy, backups: &[Backup]) -> Vec<u8> {
        let groups = plan(policy, backups, at(NOW));
        let planned = groups.iter().flat_map(|group| &group.backups);
        planned.filter(|backup| !backup.keep.is_empty()).map(|backup| backup.id.as_bytes()[0]).collect()
    }

    fn policy(change: impl FnOnce(&mut RetentionPolicy)) -> RetentionPolicy {
        let mut policy = RetentionPolicy::default();
        change(&mut policy);
        policy
    }

    #[test]
    fn one_of_each_period_is_kept_the_newest() {
        let made = backups(&[
            "2024-12-31T23:59:59Z", // 0: week 1 of 2025
            "2025-01-01T00:00:00Z", // 1
            "2025-01-05T10:00:00Z", // 2: Sunday of week 1
            "2025-01-06T10:00:00Z", // 3: Monday of week 2
            "2025-01-06T10:59:59Z", // 4
            "2025-01-06T11:00:00Z", // 5
            "2025-02-01T00:00:00Z", // 6
        ]);
        assert_eq!(kept(&policy(|p| p.keep_last = 2), &made), [5, 6]);
        assert_eq!(kept(&policy(|p| p.keep_hourly = 3), &made), [4, 5, 6]);
        assert_eq!(kept(&policy(|p| p.keep_daily = 3), &made), [2, 5, 6]);
        assert_eq!(kept(&policy(|p| p.keep_weekly = 9), &made), [2, 5, 6]);
        assert_eq!(kept(&policy(|p| p.keep_monthly = 9), &made), [0, 5, 6]);
        assert_eq!(kept(&policy(|p| p.keep_yearly = 9), &made), [0, 6]);
        assert_eq!(kept(&policy(|p| p.keep_within = Some(Duration::from_secs(26 * 86_400))), &made), [3, 4, 5, 6]);
        assert_eq!(kept(&policy(|p| p.keep_tags.push("x".into())), &made), [6], "the newest always stays");
    }

    #[test]
    fn days_begin_where_the_time_zone_says() {
        let made = backups(&["2025-03-01T22:30:00Z", "2025-03-01T23:30:00Z", "2025-03-02T22:30:00Z"]);
        let with = |zone: TimeZone| {
            kept(
                &policy(|p| {
                    p.keep_daily = 9;
                    p.time_zone = zone;
                }),
                &made,
            )
        };
        assert_eq!(with(TimeZone::UTC), [1, 2]);
        assert_eq!(with(TimeZone::fixed(3600).unwrap()), [0, 2]);
        assert_eq!(with(TimeZone::fixed(-7200).unwrap()), [1, 2]);
        assert!(TimeZone::fixed(200_000).is_err());
        assert!(TimeZone::from_tzif("Nowhere", b"TZif?").is_err());
    }

    #[test]
    fn a_clock_that_went_wrong_costs_nothing() {
        // The second was made with a clock a century ahead; the third knows it.
        let made = backups(&["2025-03-01T00:00:00Z", "2125-03-01T00:00:00Z", "2025-03-02T00:00:00Z"]);
        let days = policy(|p| p.keep_within = Some(Duration::from_secs(2 * 86_400)));
        assert_eq!(kept(&days, &made), [0, 1, 2]);
        // Where it is the newest, it does not make all others old.
        let days = policy(|p| p.keep_within = Some(Duration::from_secs(10 * 366 * 86_400)));
        assert_eq!(kept(&days, &made[..2]), [0, 1]);
    }

    #[test]
    fn groups_are_kept_apart() {
        let mut made = backups(&["2025-03-01T00:00:00Z", "2025-03-02T00:00:00Z", "2025-03-03T00:00:00Z"]);
        made[0].host = "other".into();
        made[1].labels.insert("database".into(), "tenants".into());
        let last = |group_by| {
            policy(|p| {
                p.keep_last = 1;
                p.group_by = group_by;
            })
        };
        assert_eq!(kept(&last(Grouping::default()), &made).len(), 3);
        assert_eq!(kept(&last(Grouping { labels: false, ..Grouping::default() }), &made), [2, 0]);
        assert_eq!(kept(&last(Grouping { kind: true, ..Grouping::NONE }), &made), [2]);
    }

    proptest! {
        /// Against the rule said in another way: a backup is kept for a period if no newer one is in it, and fewer
        /// than so many periods have newer ones.
        #[test]
        fn counts_are_those_of_periods(
            times in prop::collection::vec(1_700_000_000i64..1_710_000_000, 0..40), days in 0u32..9, last in 0u32..5,
        ) {
            let made: Vec<Backup> = (0..).zip(&times)
                .map(|(number, time)| backup(number, Timestamp::from_unix(*time, 0).unwrap())).collect();
            let rules = policy(|p| (p.keep_daily, p.keep_last) = (days, last));
            let day = |number: usize| times[number].div_euclid(86_400);
            let expected: Vec<u8> = (0..times.len())
                .filter(|number| {
                    let newer: BTreeSet<i64> = (number + 1..times.len()).map(day).collect();
                    let for_day = !newer.contains(&day(*number)) && newer.len() < days as usize;
                    for_day || times.len() - number <= last as usize || number + 1 == times.len()
                })
                .map(|number| number as u8)
                .collect();
            prop_assert_eq!(kept(&rules, &made), expected);
        }
    }
}
