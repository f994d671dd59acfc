//! `backup verify --compare`: a backup against the data it was made of.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use backup_adapters::FileTreeSource;
use backup_core::Error;
use backup_core::content::EntryPath;
use backup_core::id::BackupId;
use backup_core::repository::{Backup, CompareReport, Repository};
use serde_json::{Value, json};

use crate::arguments::Verify;
use crate::commands::diff;
use crate::context::Context;
use crate::exit::Failure;
use crate::output::progress::Progress;
use crate::output::{json, text};
use crate::selection::entry_path;

/// What came of it.
pub(crate) struct Comparison {
    backup: BackupId,
    found: Found,
}

enum Found {
    Tree(CompareReport),
    /// One entry, and the first byte that differs.
    Entry {
        path: EntryPath,
        differs_at: Option<u64>,
    },
}

pub(crate) fn run(context: &Context<'_>, arguments: &Verify, repository: &Repository) -> Result<Comparison, Failure> {
    let entry = arguments.entry.as_deref().map(entry_path).transpose()?;
    let backup = repository.find_backup(arguments.backup.first().map_or("latest", String::as_str))?;
    let progress = Progress::start(context.output, "comparing");
    let control = context.control(&progress);
    let found = match (entry, arguments.compare.as_slice()) {
        (None, roots) => {
            let mut source = FileTreeSource::new(roots.to_vec(), context.source_options(roots, &arguments.files)?)?;
            Found::Tree(repository.compare_tree(&backup, &mut source, &control)?)
        }
        (Some(path), [file]) => compare_entry(repository, &backup, path, file, &control)?,
        (Some(_), _) => return Err(Failure::usage("--entry is compared with one file")),
    };
    Ok(Comparison { backup: backup.id, found })
}

fn compare_entry(
    repository: &Repository,
    backup: &Backup,
    path: EntryPath,
    file: &Path,
    control: &backup_core::repository::Control,
) -> Result<Found, Failure> {
    let entry = repository.content_entry(backup, &path)?;
    let mut live = File::open(file).map_err(|source| Error::Source { name: file.display().to_string(), source })?;
    let differs_at = repository.compare_stream(&entry, &mut live, control)?;
    Ok(Found::Entry { path, differs_at })
}

impl Comparison {
    /// Whether nothing differs and everything could be compared.
    pub(crate) fn is_same(&self) -> bool {
        match &self.found {
            Found::Tree(report) => report.differences.is_empty() && report.problem_count == 0,
            Found::Entry { differs_at, .. } => differs_at.is_none(),
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut members = match &self.found {
            Found::Tree(report) => json::members(report),
            Found::Entry { path, differs_at } => json::members(&json!({"entry": path, "differs_at": differs_at})),
        };
        members.insert("backup".to_owned(), json!(self.backup));
        Value::Object(members)
    }

    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        match &self.found {
            Found::Tree(report) => {
                for difference in &report.differences {
                    writeln!(out, "{}", diff::line(difference))?;
                }
                for problem in &report.problems {
                    writeln!(out, "! {}", text::clean(&format!("{}: {}", problem.name, problem.message)))?;
                }
                Ok(())
            }
            Found::Entry { path, differs_at: Some(offset) } => writeln!(out, "M {path} differs at byte {offset}"),
            Found::Entry { .. } => Ok(()),
        }
    }
}
