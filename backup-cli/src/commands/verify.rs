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
use crate::commits::find_commits;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::progress::Progress;
use crate::output::{json, text};

pub(crate) fn run(context: &Context<'_>, arguments: &Verify) -> Result<Exit, Failure> {
    if !arguments.merge.is_empty() {
        let report = merge::run(&arguments.merge)?;
        show(context, report.ok, Some(&report), None)?;
        return Ok(Exit::complete(report.ok));
    }
    let level = match arguments.level {
        Some(level) => Some(level),
        None if arguments.compare.is_empty() => Some(Level::Content),
        None => None,
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
    show(context, ok, report.as_ref(), comparison.as_ref())?;
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
    options.expected_head = arguments.expect_head;
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
    ok: bool,
    report: Option<&VerifyReport>,
    comparison: Option<&Comparison>,
) -> Result<(), Failure> {
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
                writeln!(
                    out,
                    "checked {} ({}), {}, {}{}",
                    text::count(report.objects_checked, "object", "objects"),
                    text::size(report.bytes_checked),
                    text::count(report.chunks_checked, "chunk", "chunks"),
                    text::count(report.entries_checked, "entry", "entries"),
                    if report.partial { ": a share of the data" } else { "" }
                )?;
            }
            writeln!(out, "{}", if ok { "ok" } else { "not ok" })?;
        }
        Ok(())
    })
}
