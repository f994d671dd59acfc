//! `backup restore`

mod shards;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use backup_adapters::tree::{OverwritePolicy, SinkOptions};
use backup_adapters::{CommandSink, FileSink, FileTreeSink};
use backup_core::Error;
use backup_core::content::{Entry, EntryKind, EntryPath};
use backup_core::progress::CancelToken;
use backup_core::repository::{Backup, Control, Repository, RestoreReport, Selection};
use backup_core::source::BlockSink;
use serde_json::json;

use crate::arguments::Restore;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::input::standard_output;
use crate::output::progress::Progress;
use crate::output::{Output, json, text};
use crate::selection::entry_path;
use crate::target::{Sequential, takes_a_stream};

pub(crate) fn run(context: &Context<'_>, arguments: &Restore) -> Result<Exit, Failure> {
    let paths = arguments.entry.iter().map(|path| entry_path(path)).collect::<Result<Vec<_>, _>>()?;
    if arguments.range.is_some() && paths.len() != 1 {
        return Err(Failure::usage("--range needs one --entry"));
    }
    if let Some(target) = &arguments.to {
        refuse_repository(context, target)?;
    }
    arguments.filter.check(&arguments.backup)?;
    if arguments.shard.is_some() || !arguments.merge.is_empty() {
        return shards::run(context, arguments, &paths);
    }
    let repository = context.repository()?;
    let backup = arguments.filter.find(&repository, &arguments.backup, context.output)?;
    if !backup.is_complete() {
        context.output.warning(&text::incomplete(&backup.id, backup.problem_count));
    }
    let find = |path| match paths.len() {
        // It may go to a place of its own, where nothing is that it could be a link to.
        1 => repository.content_entry(&backup, path),
        _ => repository.entry(&backup, path),
    };
    let entries = paths.iter().map(find).collect::<Result<Vec<_>, Error>>()?;
    let progress = Progress::start(context.output, "restoring");
    let restore = Restoration {
        repository: &repository,
        backup: &backup,
        arguments,
        output: context.output,
        cancel: context.cancel.clone(),
        control: context.control(&progress),
    };
    let done = restore.run(&paths, &entries)?;
    let seconds = progress.seconds();
    drop(progress);
    show(context, &backup, arguments, &done, seconds)?;
    Ok(Exit::complete(done.report.as_ref().is_none_or(RestoreReport::is_complete)))
}

struct Restoration<'a> {
    repository: &'a Repository,
    backup: &'a Backup,
    arguments: &'a Restore,
    output: &'a Output,
    cancel: CancelToken,
    control: Control,
}

/// What was restored: a tree with a report, or the content of one entry.
struct Done {
    bytes: u64,
    entries: u64,
    report: Option<RestoreReport>,
}

impl Done {
    const fn one(bytes: u64) -> Self {
        Self { bytes, entries: 1, report: None }
    }
}

impl Restoration<'_> {
    fn run(&self, paths: &[EntryPath], entries: &[Entry]) -> Result<Done, Failure> {
        if let (Some(range), [entry]) = (&self.arguments.range, entries)
            && range.0.end > entry.size()
        {
            let (path, size) = (&entry.path, entry.size());
            return Err(Failure::usage(format!("the range ends at {}, {path} has {size} bytes", range.0.end)));
        }
        let target = match &self.arguments.to {
            None => return self.to_command(&self.only(entries)?, &self.arguments.command_line),
            Some(target) if target.as_os_str() == "-" => return self.to_stdout(&self.only(entries)?),
            Some(target) => target,
        };
        match entries {
            [entry] if entry.kind.has_content() && !names_directory(target) => self.to_file(entry, target),
            _ if self.arguments.range.is_some() => Err(Failure::usage("--range restores to a file, - or a command")),
            _ => self.to_directory(paths, target),
        }
    }

    /// The one entry with content that is meant where only one can be.
    fn only(&self, entries: &[Entry]) -> Result<Entry, Failure> {
        let one = "standard output and commands take one entry: name it with --entry";
        match entries {
            [entry] if entry.kind.has_content() => Ok(entry.clone()),
            [entry] => Err(Failure::usage(format!("{} is a {} and has no content", entry.path, entry.kind.name()))),
            [] => {
                let mut found = None;
                for entry in self.repository.entries(self.backup)? {
                    let entry = entry?;
                    match (&entry.kind, &found) {
                        (EntryKind::Directory, _) => {}
                        (_, None) if entry.kind.has_content() => found = Some(entry),
                        _ => return Err(Failure::usage(one)),
                    }
                }
                found.ok_or_else(|| Failure::usage("the backup has no entry with content"))
            }
            _ => Err(Failure::usage(one)),
        }
    }

    fn to_directory(&self, paths: &[EntryPath], target: &Path) -> Result<Done, Failure> {
        let selection = if paths.is_empty() { Selection::all() } else { Selection::within(paths.to_vec()) };
        let options = SinkOptions::default().with_overwrite(self.policy()).with_sync(self.arguments.sync);
        let sink = FileTreeSink::new(target, options)?;
        let report = self.repository.restore_tree(self.backup, &selection, &sink, &self.control)?;
        Ok(Done { bytes: report.bytes, entries: report.entries, report: Some(report) })
    }

    fn to_file(&self, entry: &Entry, target: &Path) -> Result<Done, Failure> {
        let name = target.display().to_string();
        let failed = |source: io::Error| {
            let exists = source.kind() == io::ErrorKind::AlreadyExists;
            let hinted = || io::Error::new(source.kind(), "it exists already: --overwrite replaces it");
            let source = if exists { hinted() } else { source };
            Error::Sink { name: name.clone(), source }
        };
        // The engine knows the entry, people look for the file.
        let renamed = |error| if let Error::Sink { source, .. } = error { failed(source) } else { error };
        if takes_a_stream(target) {
            let mut out = OpenOptions::new().write(true).open(target).map_err(failed)?;
            return Ok(Done::one(self.stream(entry, &mut out).map_err(renamed)?));
        }
        let sink = FileSink::create(target, self.policy()).map_err(failed)?.with_sync(self.arguments.sync);
        if self.arguments.range.is_some() {
            let bytes = self.stream(entry, &mut Sequential::new(&sink)).map_err(renamed)?;
            sink.finish(bytes).map_err(failed)?;
            return Ok(Done::one(bytes));
        }
        let sink = sink.with_attributes(&entry.attributes);
        self.repository.restore_blocks(entry, &sink, &self.control).map_err(renamed)?;
        for problem in sink.take_problems() {
            self.output.warning(&format!("{name} is restored, but not its attributes: {problem}"));
        }
        Ok(Done::one(entry.size()))
    }

    fn to_stdout(&self, entry: &Entry) -> Result<Done, Failure> {
        let mut out = standard_output()?;
        self.stream(entry, &mut out).map(Done::one).map_err(Failure::to_stdout)
    }

    fn to_command(&self, entry: &Entry, command_line: &[OsString]) -> Result<Done, Failure> {
        let failed = |source| Error::Sink { name: command_line[0].to_string_lossy().into_owned(), source };
        let mut command = Command::new(&command_line[0]);
        command.args(&command_line[1..]);
        if !self.output.has_summaries() {
            command.stdout(Stdio::null());
        }
        let sink = CommandSink::spawn(command).map_err(failed)?;
        let mut sink = sink.with_cancel(self.cancel.clone()).map_err(failed)?;
        // Dropped on failure, which kills the command before it can take half of the data for all of it.
        let bytes = self.stream(entry, &mut sink)?;
        sink.finish().map_err(failed)?;
        Ok(Done::one(bytes))
    }

    const fn policy(&self) -> OverwritePolicy {
        policy(self.arguments)
    }

    fn stream(&self, entry: &Entry, out: &mut dyn Write) -> Result<u64, Error> {
        match &self.arguments.range {
            Some(range) => self.repository.restore_range(entry, range.0.clone(), out, &self.control),
            None => self.repository.restore_stream(entry, out, &self.control),
        }
    }
}

const fn policy(arguments: &Restore) -> OverwritePolicy {
    if arguments.overwrite { OverwritePolicy::Overwrite } else { OverwritePolicy::Refuse }
}

/// A restore must not write between the objects of its own repository.
fn refuse_repository(context: &Context<'_>, target: &Path) -> Result<(), Failure> {
    let repository = context.local_path().and_then(|path| path.canonicalize().ok());
    // What does not exist yet stands below something that does.
    let absolute = std::path::absolute(target).map_err(|error| Failure::io("cannot find the target", error))?;
    let existing = absolute.ancestors().find_map(|path| path.canonicalize().ok());
    match (repository, existing) {
        (Some(repository), Some(existing)) if existing.starts_with(&repository) => {
            Err(Failure::usage(format!("{} lies in the repository", target.display())))
        }
        _ => Ok(()),
    }
}

/// A directory that exists, or a name that can only be one's.
fn names_directory(target: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    target.as_os_str().as_bytes().ends_with(b"/") || target.is_dir()
}

fn show(context: &Context<'_>, backup: &Backup, arguments: &Restore, done: &Done, seconds: f64) -> Result<(), Failure> {
    let complete = done.report.as_ref().is_none_or(RestoreReport::is_complete);
    let owns_stdout = arguments.to.as_ref().is_some_and(|to| to.as_os_str() == "-");
    if context.output.is_json() {
        let mut result = match &done.report {
            Some(report) => json::members(report),
            None => json::members(&json!({"problems": [], "problem_count": 0})),
        };
        result.extend(json::members(&json!({
            "backup": backup.id,
            "target": arguments.to.as_ref().map(|to| to.to_string_lossy()),
            "entries": done.entries,
            "bytes": done.bytes,
            "seconds": seconds,
            "complete": complete,
            "backup_problem_count": backup.problem_count,
        })));
        return if owns_stdout { context.output.json_beside_content(&result) } else { context.output.json(&result) };
    }
    if context.output.has_summaries() && !owns_stdout {
        context.output.text(|out| {
            writeln!(
                out,
                "restored {} in {} in {}, {}",
                text::size(done.bytes),
                text::count(done.entries, "entry", "entries"),
                text::duration(seconds),
                text::rate(done.bytes, seconds)
            )
        })?;
    }
    if let (false, Some(report)) = (complete, &done.report) {
        let problems = text::count(report.problem_count, "problem", "problems");
        context.output.error_line(&format!("the restore is incomplete: {problems}"));
    }
    Ok(())
}
