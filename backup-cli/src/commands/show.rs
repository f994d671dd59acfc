//! `backup show`

use std::cell::RefCell;
use std::io::{self, Write};

use backup_core::content::{Entry, EntryPath};
use backup_core::repository::Backup;
use serde::ser::{Error as _, Serialize, SerializeSeq, SerializeStruct, Serializer};

use crate::arguments::Show;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::json::EntryView;
use crate::output::text;
use crate::selection::entry_path;

pub(crate) fn run(context: &Context<'_>, arguments: &Show) -> Result<Exit, Failure> {
    let within = arguments.entry.as_deref().map(entry_path).transpose()?;
    arguments.filter.check(&arguments.backup)?;
    let repository = context.repository()?;
    let backup = arguments.filter.find(&repository, &arguments.backup, context.output)?;
    if let Some(path) = &within {
        // Says that it is not there rather than showing nothing.
        repository.entry(&backup, path)?;
    }
    let entries = if arguments.summary {
        None
    } else {
        Some(Selected { entries: repository.entries_from(&backup, within.as_ref())?, within })
    };
    if context.output.is_json() {
        let view = BackupView { backup: &backup, entries: entries.map(EntryList::new) };
        let written = context.output.json(&view);
        // An entry that cannot be read is the reason for whatever became of the text.
        return match view.entries.and_then(|entries| entries.failure.into_inner()) {
            Some(failure) => Err(failure),
            None => written.map(|()| Exit::Fine),
        };
    }
    let only_entries = arguments.entry.is_some() || (context.global.quiet && !arguments.summary);
    if !only_entries {
        context.output.text(|out| details(out, &backup))?;
    }
    if let Some(entries) = entries {
        let mut failure = None;
        context.output.text(|out| {
            for entry in entries {
                match entry {
                    Ok(entry) if arguments.long => writeln!(out, "{}", text::entry_line(&entry))?,
                    Ok(entry) => writeln!(out, "{}", entry.path)?,
                    Err(error) => {
                        failure = Some(Failure::Engine(error));
                        break;
                    }
                }
                if context.cancel.is_cancelled() {
                    failure = Some(Failure::Engine(backup_core::Error::Cancelled));
                    break;
                }
            }
            Ok(())
        })?;
        if let Some(failure) = failure {
            return Err(failure);
        }
    }
    Ok(Exit::Fine)
}

/// Entries in order, up to the last within a path.
struct Selected<I> {
    entries: I,
    within: Option<EntryPath>,
}

impl<I: Iterator<Item = Result<Entry, backup_core::Error>>> Iterator for Selected<I> {
    type Item = Result<Entry, backup_core::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        // A directory stands directly before everything in it, and the walk begins with it.
        self.entries.next().filter(|entry| match (entry, &self.within) {
            (Ok(entry), Some(path)) => entry.path.is_within(path),
            _ => true,
        })
    }
}

fn details(out: &mut dyn Write, backup: &Backup) -> io::Result<()> {
    let statistics = &backup.statistics;
    let mut line = |name: &str, value: String| writeln!(out, "{name:<10} {value}");
    line("backup", backup.id.to_string())?;
    line("kind", backup.kind.to_string())?;
    line("host", text::clean(&backup.host))?;
    if !backup.tags.is_empty() {
        line("tags", text::clean(&backup.tags.join(", ")))?;
    }
    for (key, value) in &backup.labels {
        line("label", text::clean(&format!("{key}={value}")))?;
    }
    line("started", text::time(backup.started))?;
    line("finished", text::time(backup.finished))?;
    if let Some(parent) = backup.parent {
        line("parent", parent.to_string())?;
    }
    for origin in &backup.origins {
        line("copy of", format!("{} in repository {}", origin.backup, origin.repository))?;
    }
    line("entries", statistics.entries.to_string())?;
    line(
        "content",
        format!(
            "{} ({} read, {} unchanged)",
            text::size(statistics.bytes_logical),
            text::size(statistics.bytes_read),
            text::size(statistics.bytes_unchanged)
        ),
    )?;
    line("new", format!("{} (stored as {})", text::size(statistics.bytes_new), text::size(statistics.bytes_stored)))?;
    if !backup.is_complete() {
        line("incomplete", text::count(backup.problem_count, "problem", "problems"))?;
        for problem in &backup.problems {
            line("problem", text::clean(&format!("{}: {}", problem.name, problem.message)))?;
        }
    }
    writeln!(out)
}

/// `{"backup": {..}, "entries": [..]}`; entries are written as they are read.
struct BackupView<'a, I> {
    backup: &'a Backup,
    entries: Option<EntryList<I>>,
}

impl<I: Iterator<Item = Result<Entry, backup_core::Error>>> Serialize for BackupView<'_, I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut view = serializer.serialize_struct("backup", if self.entries.is_some() { 2 } else { 1 })?;
        view.serialize_field("backup", self.backup)?;
        if let Some(entries) = &self.entries {
            view.serialize_field("entries", entries)?;
        }
        view.end()
    }
}

/// An iterator as a list, read once. A failure ends it and is kept.
struct EntryList<I> {
    entries: RefCell<I>,
    failure: RefCell<Option<Failure>>,
}

impl<I> EntryList<I> {
    fn new(entries: I) -> Self {
        Self { entries: RefCell::new(entries), failure: RefCell::new(None) }
    }
}

impl<I: Iterator<Item = Result<Entry, backup_core::Error>>> Serialize for EntryList<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for entry in &mut *self.entries.borrow_mut() {
            match entry {
                Ok(entry) => list.serialize_element(&EntryView(&entry))?,
                Err(error) => {
                    self.failure.replace(Some(Failure::Engine(error)));
                    return Err(S::Error::custom("an entry cannot be read"));
                }
            }
        }
        list.end()
    }
}
