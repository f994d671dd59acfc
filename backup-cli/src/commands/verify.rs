//! `backup verify`

mod compare;
mod ledger;
mod merge;

use backup_core::entropy::{Entropy, OsEntropy};
use backup_core::id::BackupId;
use backup_core::repository::{Repository, Share, VerificationLedger, VerifyLevel, VerifyOptions, VerifyReport};
use serde_json::{Value, json};

use crate::arguments::{Level, Verify};
use crate::commands::verify::compare::Comparison;
use crate::commits::{find_commits, find_head};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::progress::Progress;
use crate::output::{json, text};

pub(crate) fn run(context: &Context<'_>, arguments: &Verify) -> Result<Exit, Failure> {
    if !arguments.merge.is_empty() {
        let report = merge::run(&arguments.merge)?;
        show(context, arguments, report.ok, Some(&report), None)?;
        return Ok(Exit::complete(report.ok));
    }
    let level = match arguments.level {
        Some(level) => Some(level),
        None if arguments.compare.is_empty() => Some(Level::Content),
        None => None,
    };
    // The table of an archive says what was put into it, not what is left.
    let level = match level {
        Some(Level::Presence) if context.is_archive() => Some(Level::Bytes),
        level => level,
    };
    if !arguments.compare.is_empty() && arguments.backup.len() > 1 {
        return Err(Failure::usage("--compare takes one --backup"));
    }
    if arguments.rotate_days.is_some() && matches!(level, Some(Level::Presence | Level::Bytes)) {
        return Err(Failure::usage("--rotate-days needs --level structure or content"));
    }
    let needs_password = !arguments.compare.is_empty() || !matches!(level, Some(Level::Presence | Level::Bytes));
    let (report, comparison) = if needs_password {
        let repository = context.repository()?;
        let report = match level {
            Some(level) => Some(verify(context, arguments, level, &repository)?),
            None => None,
        };
        let comparison =
            if arguments.compare.is_empty() { None } else { Some(compare::run(context, arguments, &repository)?) };
        (report, comparison)
    } else {
        let locked = context.locked()?;
        let backups = find_commits(&locked, &arguments.backup)?;
        let options = options(context, arguments, level.unwrap_or(Level::Presence), backups)?;
        let progress = Progress::start(context.output, "verifying");
        (Some(locked.verify(&options, &context.control(&progress))?), None)
    };
    let ok = report.as_ref().is_none_or(|report| report.ok) && comparison.as_ref().is_none_or(Comparison::is_same);
    show(context, arguments, ok, report.as_ref(), comparison.as_ref())?;
    Ok(Exit::complete(ok))
}

fn verify(
    context: &Context<'_>,
    arguments: &Verify,
    level: Level,
    repository: &Repository,
) -> Result<VerifyReport, Failure> {
    let backups = arguments
        .backup
        .iter()
        .map(|name| Ok(repository.find_backup(name)?.id))
        .collect::<Result<Vec<_>, Failure>>()?;
    let options = options(context, arguments, level, backups)?;
    let mut ledger: Option<VerificationLedger> = arguments.ledger.as_deref().map(ledger::read).transpose()?;
    let progress = Progress::start(context.output, "verifying");
    let report = repository.verify(&options, ledger.as_mut(), &context.control(&progress))?;
    drop(progress);
    if let (Some(path), Some(ledger)) = (&arguments.ledger, &ledger) {
        ledger::write(path, ledger)?;
    }
    Ok(report)
}

fn options(
    context: &Context<'_>,
    arguments: &Verify,
    level: Level,
    backups: Vec<BackupId>,
) -> Result<VerifyOptions, Failure> {
    let mut options = VerifyOptions::default();
    options.level = match level {
        Level::Presence => VerifyLevel::Presence,
        Level::Bytes => VerifyLevel::Bytes,
        Level::Structure => VerifyLevel::Structure,
        Level::Content => VerifyLevel::Content,
    };
    options.backups = backups;
    options.expected_head = match &arguments.expect_head {
        Some(name) => Some(find_head(&context.locked()?, name)?),
        None => None,
    };
    // An archive need not have all backups.
    options.partial_history = arguments.partial_history || context.is_archive();
    options.shard = arguments.shard;
    options.share = match (arguments.sample, arguments.rotate_days) {
        (Some(fraction), _) => {
            let mut seed = [0; 8];
            OsEntropy.fill(&mut seed).map_err(backup_core::Error::from)?;
            Share::Sample { fraction, seed: u64::from_le_bytes(seed) }
        }
        (None, Some(days)) => Share::Rotating { days },
        (None, None) => Share::All,
    };
    Ok(options)
}

fn show(
    context: &Context<'_>,
    arguments: &Verify,
    ok: bool,
    report: Option<&VerifyReport>,
    comparison: Option<&Comparison>,
) -> Result<(), Failure> {
    for backup in report.iter().flat_map(|report| &report.incomplete) {
        context.output.warning(&text::incomplete(&backup.backup, backup.problem_count));
    }
    if context.output.is_json() {
        let mut result = match report {
            Some(report) => json::members(report),
            None => json::members(&json!({"level": null, "findings": [], "findings_omitted": 0})),
        };
        result.insert("ok".to_owned(), Value::Bool(ok));
        result.insert("comparison".to_owned(), comparison.map_or(Value::Null, Comparison::to_json));
        return context.output.json(&result);
    }
    context.output.text(|out| {
        if let Some(report) = report {
            for finding in &report.findings {
                let line = format!("{}: {}", finding.object, finding.message);
                writeln!(out, "damaged: {}", text::clean(&line))?;
                for entry in &finding.entries {
                    writeln!(out, "  hurts {} in backup {}", entry.path, entry.backup.short())?;
                }
                // An entry names its backup.
                if finding.entries.is_empty() && !finding.backups.is_empty() {
                    let mut backups: Vec<String> = finding.backups.iter().map(BackupId::short).collect();
                    if finding.backups_omitted > 0 {
                        backups.push(format!("{} more", finding.backups_omitted));
                    }
                    writeln!(out, "  needed by backup {}", backups.join(", "))?;
                }
                if finding.entries_omitted > 0 {
                    writeln!(out, "  and {}", text::count(finding.entries_omitted, "entry more", "entries more"))?;
                }
            }
            if report.findings_omitted > 0 {
                writeln!(out, "and {}", text::count(report.findings_omitted, "finding more", "findings more"))?;
            }
        }
        if let Some(comparison) = comparison {
            comparison.write(out)?;
        }
        if context.output.has_summaries() {
            if let Some(report) = report {
                writeln!(out, "level {}: {}{}", level_name(report.level), amounts(report), part(arguments, report))?;
            }
            writeln!(out, "{}", if ok { "ok" } else { "not ok" })?;
        }
        Ok(())
    })
}

const fn level_name(level: VerifyLevel) -> &'static str {
    match level {
        VerifyLevel::Presence => "presence",
        VerifyLevel::Bytes => "bytes",
        VerifyLevel::Structure => "structure",
        VerifyLevel::Content => "content",
        _ => "unknown",
    }
}

/// What was looked at: at each level something else.
fn amounts(report: &VerifyReport) -> String {
    let backups = text::count(report.backups_checked, "backup", "backups");
    let objects = text::count(report.objects_checked, "object", "objects");
    if report.level == VerifyLevel::Presence {
        return format!("looked for {objects} of {backups} by name and size; what is in them was not read");
    }
    let mut amounts = format!("checked {objects} of {backups}, read {}", text::size(report.bytes_checked));
    if report.level >= VerifyLevel::Content {
        amounts.push_str(&format!(", {}", text::count(report.chunks_checked, "chunk", "chunks")));
    }
    if report.level >= VerifyLevel::Structure {
        amounts.push_str(&format!(", {}", text::count(report.entries_checked, "entry", "entries")));
    }
    amounts
}

/// What was left out, and why.
fn part(arguments: &Verify, report: &VerifyReport) -> &'static str {
    match (report.partial, arguments.sample.is_some() || arguments.rotate_days.is_some()) {
        (false, _) => "",
        (true, true) => ": a share of the data",
        // The reports that are merged do not say why.
        (true, false) if arguments.backup.is_empty() => ": not everything",
        (true, false) => ": only what was named",
    }
}
