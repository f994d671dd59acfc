//! `backup restore --shard` and `--merge`: a restore that several processes or machines do together.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use backup_adapters::tree::{OverwritePolicy, SinkOptions};
use backup_adapters::{FileSink, FileTreeSink, SharedFile};
use backup_core::Error;
use backup_core::content::{EntryKind, EntryPath};
use backup_core::repository::{Backup, Planned, Problem, Repository, RestorePlan, Selection, ShardReport};
use serde_json::{Value, json};

use super::{names_directory, policy};
use crate::arguments::Restore;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::progress::Progress;
use crate::output::{json, text};
use crate::target::takes_a_stream;

/// Problems that are listed.
const LISTED: usize = 1000;
/// Larger ones are none: a report lists at most a thousand problems.
const LIMIT: u64 = 1 << 26;

pub(super) fn run(context: &Context<'_>, arguments: &Restore, paths: &[EntryPath]) -> Result<Exit, Failure> {
    let Some(target) = &arguments.to else { return Err(Failure::usage("--shard and --merge need --to")) };
    if target.as_os_str() == "-" || takes_a_stream(target) {
        return Err(Failure::usage("shards are restored to a directory, a file or a block device"));
    }
    // What is missing is known before anybody is asked for a password.
    let merged = if arguments.merge.is_empty() { None } else { Some(merge(arguments)?) };
    let repository = context.repository()?;
    let backup = arguments.filter.find(&repository, &arguments.backup, context.output)?;
    if !backup.is_complete() {
        context.output.warning(&text::incomplete(&backup.id, backup.problem_count));
    }
    let plan = plan(&repository, &backup, paths, target)?;
    let progress = Progress::start(context.output, "restoring");
    let mut file = None;
    let report = match (arguments.shard, merged) {
        (Some(shard), _) => restore(context, arguments, &repository, &plan.shard(shard), target, &progress, &mut file)?,
        (None, Some(merged)) if merged.report.plan != plan => {
            return Err(Failure::usage("the reports are of another restore than this one would be"));
        }
        (None, Some(merged)) => complete(context, arguments, &repository, &backup, merged, target, &progress)?,
        (None, None) => return Err(Failure::usage("neither --shard nor --merge is given")),
    };
    let seconds = progress.seconds();
    drop(progress);
    show(context, arguments, &backup, &report, file.as_deref(), seconds)?;
    Ok(Exit::complete(report.is_complete()))
}

/// The same for every shard and for the end: one entry with content goes to a file or device, all else to a directory.
fn plan(repository: &Repository, backup: &Backup, paths: &[EntryPath], target: &Path) -> Result<RestorePlan, Failure> {
    if let [path] = paths
        && !names_directory(target)
        && repository.content_entry(backup, path)?.kind.has_content()
    {
        return Ok(repository.plan_content(backup, path)?);
    }
    let selection = if paths.is_empty() { Selection::all() } else { Selection::within(paths.to_vec()) };
    Ok(repository.plan_restore(backup, &selection)?)
}

fn restore(
    context: &Context<'_>,
    arguments: &Restore,
    repository: &Repository,
    plan: &RestorePlan,
    target: &Path,
    progress: &Progress<'_>,
    file: &mut Option<String>,
) -> Result<ShardReport, Failure> {
    let control = context.control(progress);
    if matches!(plan.what, Planned::Tree { .. }) {
        // A shard that reported is not run again, so what it reports as restored must last.
        let options = SinkOptions::default().with_overwrite(policy(arguments)).with_sync(true);
        let sink = FileTreeSink::new(target, options)?;
        return Ok(repository.restore_planned(plan, &sink, &control)?);
    }
    let name = target.display().to_string();
    let failed = |source| Error::Sink { name: name.clone(), source };
    let report = if is_device(target) {
        let sink = FileSink::create(target, policy(arguments)).map_err(failed)?;
        repository.restore_planned_content(plan, &sink, &control)
    } else {
        let sink = SharedFile::open(target, &unfinished(plan), policy(arguments)).map_err(failed)?;
        *file = Some(sink.identity().map_err(failed)?);
        repository.restore_planned_content(plan, &sink, &control)
    };
    // The engine knows the entry, people look for the file.
    Ok(report.map_err(|error| if let Error::Sink { source, .. } = error { failed(source) } else { error })?)
}

fn complete(
    context: &Context<'_>,
    arguments: &Restore,
    repository: &Repository,
    backup: &Backup,
    merged: Merged,
    target: &Path,
    progress: &Progress<'_>,
) -> Result<ShardReport, Failure> {
    let Merged { mut report, files } = merged;
    match report.plan.what {
        Planned::Content { length, .. } => {
            let failed = |source| Error::Sink { name: target.display().to_string(), source };
            if !is_device(target) {
                let shared = SharedFile::existing(target, &unfinished(&report.plan)).map_err(failed)?;
                let found = shared.identity().map_err(failed)?;
                if files.iter().any(|file| *file != found) {
                    let reason = "not all shards wrote to this file: restore all of them again, to the same place";
                    return Err(failed(io::Error::other(reason)).into());
                }
                shared.publish(length, policy(arguments)).map_err(failed)?;
            }
            Ok(report)
        }
        _ => {
            let options = SinkOptions::default().with_overwrite(OverwritePolicy::Refuse).with_sync(arguments.sync);
            look_for_all(repository, backup, &mut report, target)?;
            let sink = FileTreeSink::new(target, options)?;
            Ok(repository.complete_planned(report, &sink, &context.control(progress))?)
        }
    }
}

/// The reports say what was restored somewhere; this looks whether it is here, each entry in its kind and files in their
/// length. What is not is a problem of the report.
fn look_for_all(
    repository: &Repository,
    backup: &Backup,
    merged: &mut ShardReport,
    target: &Path,
) -> Result<(), Failure> {
    let Planned::Tree { within } = &merged.plan.what else { return Ok(()) };
    let (mut missing, mut count) = (Vec::new(), 0u64);
    for entry in repository.entries(backup)? {
        let entry = entry?;
        let is_planned = within.as_ref().is_none_or(|paths| paths.iter().any(|path| entry.path.is_within(path)));
        if !is_planned || entry.kind == EntryKind::Directory {
            continue;
        }
        let place = target.join(OsStr::from_bytes(entry.path.as_bytes()));
        let is_there = std::fs::symlink_metadata(&place).is_ok_and(|found| {
            let has_length = entry.hard_link.is_some() || found.len() == entry.content.length;
            !found.is_dir() && (!entry.kind.has_content() || (found.is_file() && has_length))
        });
        if is_there {
            continue;
        }
        count = count.saturating_add(1);
        // What a shard could not restore has its problem already.
        if missing.len() < LISTED && !merged.problems.iter().any(|other| other.name == entry.path.to_string()) {
            missing.push(Problem::new(entry.path.to_string(), "the shards restored it, and it is not in the target"));
        }
    }
    merged.problem_count = merged.problem_count.max(count);
    merged.problems.extend(missing);
    Ok(())
}

/// What tells the file of this restore from others beside it.
fn unfinished(plan: &RestorePlan) -> String {
    plan.id().to_string().chars().take(32).collect()
}

fn is_device(target: &Path) -> bool {
    std::fs::metadata(target).is_ok_and(|metadata| metadata.file_type().is_block_device())
}

/// The reports of all shards as one, and the files that they wrote to.
struct Merged {
    report: ShardReport,
    files: BTreeSet<String>,
}

fn merge(arguments: &Restore) -> Result<Merged, Failure> {
    let mut files = BTreeSet::new();
    let reports = arguments.merge.iter().map(|path| {
        let failed = |error| Failure::io(format!("cannot read report {}", path.display()), error);
        let file = File::open(path).map_err(failed)?;
        let report: Value =
            serde_json::from_reader(BufReader::new(file.take(LIMIT))).map_err(|error| failed(error.into()))?;
        files.extend(report["file"].as_str().map(ToOwned::to_owned));
        serde_json::from_value(report).map_err(|error| failed(error.into()))
    });
    let reports = reports.collect::<Result<_, Failure>>()?;
    Ok(Merged { report: ShardReport::merge(reports)?, files })
}

fn show(
    context: &Context<'_>,
    arguments: &Restore,
    backup: &Backup,
    report: &ShardReport,
    file: Option<&str>,
    seconds: f64,
) -> Result<(), Failure> {
    if context.output.is_json() {
        let mut result = json::members(report);
        result.extend(json::members(&json!({
            "backup": report.plan.backup,
            "target": arguments.to.as_ref().map(|to| to.to_string_lossy()),
            "file": file,
            "seconds": seconds,
            "complete": report.is_complete(),
            "backup_problem_count": backup.problem_count,
        })));
        return context.output.json(&result);
    }
    if context.output.has_summaries() {
        let whole = report.plan.shard.map_or_else(String::new, |shard| format!(" (shard {shard})"));
        context.output.text(|out| {
            writeln!(
                out,
                "restored {} in {}{whole} in {}",
                text::size(report.bytes),
                text::count(report.entries, "entry", "entries"),
                text::duration(seconds),
            )
        })?;
    }
    if !report.is_complete() {
        let problems = text::count(report.problem_count, "problem", "problems");
        context.output.error_line(&format!("the restore is incomplete: {problems}"));
    }
    Ok(())
}
