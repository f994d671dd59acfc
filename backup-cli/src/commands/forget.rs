//! `backup forget`

use std::path::{Component, Path};

use backup_core::Error;
use backup_core::id::BackupId;
use backup_core::maintenance::{ForgetPlan, Grouping, KeepReason, RetentionPolicy};
use backup_core::repository::{Backup, LockedRepository};
use backup_core::time::TimeZone;
use serde::Serialize;
use serde_json::json;

use crate::arguments::{Forget, GroupBy};
use crate::commits::NO_LATEST;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::progress::Progress;
use crate::output::text;
use crate::password::maintenance_key;

pub(crate) fn run(context: &Context<'_>, arguments: &Forget) -> Result<Exit, Failure> {
    let policy = policy(arguments)?;
    match (arguments.backups.is_empty(), policy.is_empty()) {
        (true, true) => Err(Failure::usage("name backups, or give a rule that keeps some")),
        (false, _) if !arguments.filter.is_empty() => {
            Err(Failure::usage("--kind, --host and --tag choose what a policy is applied to; backups are named"))
        }
        (false, _) => by_id(context, arguments),
        (true, false) => by_policy(context, arguments, &policy),
    }
}

fn by_id(context: &Context<'_>, arguments: &Forget) -> Result<Exit, Failure> {
    let locked = context.locked()?;
    let ids = find(&locked, &arguments.backups)?;
    if !arguments.yes {
        return show(context, &Shown { done: false, forgotten: &ids, already_forgotten: &[], plan: None });
    }
    let progress = Progress::start(context.output, "forgetting");
    let control = context.control(&progress);
    let report = match &arguments.maintenance.maintenance_key_file {
        Some(path) => locked.forget(&maintenance_key(path, context.output)?, &ids, &control)?,
        None => context.repository()?.forget(&ids, &control)?,
    };
    drop(progress);
    let (forgotten, already_forgotten) = (&report.forgotten, &report.already_forgotten);
    show(context, &Shown { done: true, forgotten, already_forgotten, plan: None })
}

fn by_policy(context: &Context<'_>, arguments: &Forget, policy: &RetentionPolicy) -> Result<Exit, Failure> {
    if arguments.maintenance.maintenance_key_file.is_some() {
        return Err(Failure::usage("a policy needs the password: without it nobody knows what a backup is"));
    }
    let repository = context.repository()?;
    let is_meant = |backup: &Backup| arguments.filter.matches(backup);
    let plan = repository.plan_forget(policy, &is_meant)?;
    let ids: Vec<BackupId> = plan.forgotten().collect();
    if arguments.yes {
        let progress = Progress::start(context.output, "forgetting");
        repository.forget(&ids, &context.control(&progress))?;
    }
    show(context, &Shown { done: arguments.yes, forgotten: &ids, already_forgotten: &[], plan: Some(&plan) })?;
    for backup in &plan.unreadable {
        context.output.error_line(&text::unreadable(backup));
    }
    Ok(Exit::complete(plan.unreadable.is_empty()))
}

fn policy(arguments: &Forget) -> Result<RetentionPolicy, Failure> {
    let mut policy = RetentionPolicy::default();
    policy.keep_last = arguments.keep_last.unwrap_or(0);
    policy.keep_hourly = arguments.keep_hourly.unwrap_or(0);
    policy.keep_daily = arguments.keep_daily.unwrap_or(0);
    policy.keep_weekly = arguments.keep_weekly.unwrap_or(0);
    policy.keep_monthly = arguments.keep_monthly.unwrap_or(0);
    policy.keep_yearly = arguments.keep_yearly.unwrap_or(0);
    policy.keep_within = arguments.keep_within;
    policy.keep_tags.clone_from(&arguments.keep_tag);
    policy.time_zone = time_zone(&arguments.time_zone)?;
    let by = |what| arguments.group_by.contains(&what);
    if by(GroupBy::None) && arguments.group_by.len() > 1 {
        return Err(Failure::usage("--group-by none stands alone"));
    }
    policy.group_by = Grouping::NONE;
    policy.group_by.host = by(GroupBy::Host);
    policy.group_by.kind = by(GroupBy::Kind);
    policy.group_by.labels = by(GroupBy::Labels);
    policy.group_by.tags = by(GroupBy::Tags);
    Ok(policy)
}

/// `UTC`, `local`, `+HH:MM`, or a name of the time zone database of this machine.
fn time_zone(text: &str) -> Result<TimeZone, Failure> {
    if text == "UTC" {
        return Ok(TimeZone::UTC);
    }
    if let Some(seconds) = offset(text) {
        return Ok(TimeZone::fixed(seconds)?);
    }
    let path = match text {
        "local" => Path::new("/etc/localtime").to_owned(),
        name => {
            if name.is_empty() || !Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) {
                return Err(Failure::usage(format!("not a time zone: {name:?}")));
            }
            Path::new("/usr/share/zoneinfo").join(name)
        }
    };
    let bytes = std::fs::read(&path)
        .map_err(|error| Failure::io(format!("cannot read time zone {}", path.display()), error))?;
    Ok(TimeZone::from_tzif(text, &bytes)?)
}

fn offset(text: &str) -> Option<i32> {
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let number = |text: &str, limit: i32| {
        let is_plain = text.len() == 2 && text.bytes().all(|digit| digit.is_ascii_digit());
        text.parse::<i32>().ok().filter(|number| is_plain && *number <= limit)
    };
    Some(sign * (number(hours, 23)? * 3600 + number(minutes, 59)? * 60))
}

/// The ids that were typed. Forgotten ones are found as well, so that an interrupted command can be repeated.
fn find(locked: &LockedRepository, names: &[String]) -> Result<Vec<BackupId>, Failure> {
    let commits = locked.commits()?;
    let latest = commits.last().map(|commit| commit.id);
    let forgotten = locked.forgotten()?;
    let unknown = |name: &str| Error::NotFound { what: "backup", name: name.to_owned() };
    let mut found = Vec::new();
    for name in names {
        if name == "latest" {
            found.push(latest.ok_or_else(|| unknown(NO_LATEST))?);
            continue;
        }
        if name.len() < 4 {
            return Err(Failure::usage(format!("{name:?} is shorter than 4 digits")));
        }
        let called = commits.iter().filter(|commit| commit.is_called(name)).map(|commit| commit.id);
        let mut matching =
            called.chain(forgotten.iter().copied().filter(|id| id.to_string().starts_with(name.as_str())));
        match (matching.next(), matching.next()) {
            (Some(id), None) => found.push(id),
            (None, _) => return Err(unknown(name).into()),
            (Some(_), Some(_)) => return Err(Failure::usage(format!("several backups begin with {name}"))),
        }
    }
    Ok(found)
}

/// The result, as JSON has it.
#[derive(Serialize)]
struct Shown<'s> {
    done: bool,
    forgotten: &'s [BackupId],
    already_forgotten: &'s [BackupId],
    plan: Option<&'s ForgetPlan>,
}

fn show(context: &Context<'_>, shown: &Shown<'_>) -> Result<Exit, Failure> {
    if context.output.is_json() {
        context.output.json(&json!(shown))?;
        return Ok(Exit::Fine);
    }
    if let Some(plan) = shown.plan.filter(|_| !shown.done || context.output.has_summaries()) {
        let mut rows = Vec::new();
        for group in &plan.groups {
            for backup in &group.backups {
                let reasons: Vec<&str> = backup.keep.iter().map(|reason| reason_name(*reason)).collect();
                rows.push(vec![
                    backup.id.short(),
                    text::time(backup.started),
                    group.kind.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
                    group.host.as_ref().map_or_else(|| "-".to_owned(), |host| text::clean(host)),
                    group.tags.iter().flatten().map(|tag| text::clean(tag)).collect::<Vec<_>>().join(","),
                    if reasons.is_empty() { "forget".to_owned() } else { "keep".to_owned() },
                    reasons.join(","),
                ]);
            }
        }
        context.output.text(|out| text::table(out, &["ID", "TIME", "KIND", "HOST", "TAGS", "WHAT", "WHY"], &rows))?;
    }
    if !shown.done || context.output.has_summaries() {
        let verb = if shown.done { "forgot" } else { "would forget" };
        context.output.text(|out| {
            if shown.plan.is_none() {
                shown.forgotten.iter().try_for_each(|id| writeln!(out, "{verb} {id}"))?;
                shown.already_forgotten.iter().try_for_each(|id| writeln!(out, "forgotten before: {id}"))?;
            } else {
                writeln!(out, "{verb} {}", text::count(shown.forgotten.len() as u64, "backup", "backups"))?;
            }
            if shown.done { Ok(()) } else { writeln!(out, "nothing was changed; --yes forgets") }
        })?;
    }
    Ok(Exit::Fine)
}

fn reason_name(reason: KeepReason) -> &'static str {
    match reason {
        KeepReason::Newest => "newest",
        KeepReason::Last => "last",
        KeepReason::Hourly => "hourly",
        KeepReason::Daily => "daily",
        KeepReason::Weekly => "weekly",
        KeepReason::Monthly => "monthly",
        KeepReason::Yearly => "yearly",
        KeepReason::Within => "within",
        KeepReason::Tag => "tag",
        _ => "kept",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_read_strictly() {
        for (text, seconds) in [("+02:00", 7200), ("-03:30", -12_600), ("+00:00", 0)] {
            assert_eq!(offset(text), Some(seconds), "{text}");
        }
        for text in ["", "+", "2:00", "+2:00", "+02", "+24:00", "+02:60", "+-1:00", "+02:0x"] {
            assert_eq!(offset(text), None, "{text}");
        }
        for text in ["../../etc/passwd", "/etc/passwd", "", "Nowhere/Never"] {
            assert!(time_zone(text).is_err(), "{text}");
        }
    }
}
