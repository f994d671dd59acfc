//! `backup create`

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use backup_adapters::limits::{LimitedBlocks, LimitedRead, LimitedTree};
use backup_adapters::{CommandSource, FileTreeSource, ImageSource};
use backup_core::Error;
use backup_core::content::EntryPath;
use backup_core::parity::{ProtectReport, protect};
use backup_core::repository::{Backup, BackupOptions, Control, Parent, Repository};
use serde_json::json;

use crate::arguments::Create;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::input::StandardInput;
use crate::output::progress::Progress;
use crate::output::{json, text};
use crate::selection::{ChangeMap, entry_path};

pub(crate) fn run(context: &Context<'_>, arguments: &Create) -> Result<Exit, Failure> {
    // Everything that can be wrong with the arguments is found before anybody is asked for a password
    // and before a session begins.
    if arguments.stdin.is_some() && context.global.password_fd == Some(0) {
        return Err(Failure::usage("--stdin and --password-fd 0 cannot both take standard input"));
    }
    let images = images(arguments)?;
    let mut files = match arguments.paths.as_slice() {
        [] => None,
        paths => Some(FileTreeSource::new(paths, context.source_options(paths, &arguments.files)?)?),
    };
    let stdin = arguments.stdin.as_deref().map(entry_path).transpose()?;
    let command = arguments.command.as_deref().map(entry_path).transpose()?;
    check_parent(arguments)?;
    let repository = context.repository()?;
    let progress = Progress::start(context.output, "backing up");
    let options = options(arguments, &repository, context.control(&progress))?;
    let mut session = repository.begin(options)?;
    let limits = || Arc::clone(&context.limits);
    if let Some(files) = &mut files {
        session.add_tree(&mut LimitedTree::new(&mut *files, limits()))?;
        for path in files.left_out() {
            context.output.warning(&format!("{path} is left out: it is the repository itself"));
        }
    }
    for image in images {
        session.add_blocks(image.name, &LimitedBlocks::new(image.source, limits()))?;
    }
    if let Some(path) = stdin {
        let input = StandardInput::new(context.cancel.clone())
            .map_err(|source| Error::Source { name: "standard input".to_owned(), source })?;
        session.add_stream(path, &mut LimitedRead::new(input, limits()))?;
    }
    if let Some(path) = command {
        let output = CommandSource::new(&arguments.command_line)
            .map_err(|source| Error::Source { name: path.to_string(), source })?
            .with_cancel(context.cancel.clone());
        session.add_stream(path, &mut LimitedRead::new(output, limits()))?;
    }
    let backup = session.commit()?;
    let seconds = progress.seconds();
    drop(progress);
    let left_out = files.as_ref().map(FileTreeSource::left_out).unwrap_or_default();
    // The backup is there, whatever becomes of this.
    let parity = arguments.parity.then(|| protect_new(context)).transpose();
    let made = parity.as_ref().ok().and_then(Option::as_ref);
    show(context, &repository, &backup, left_out, made, seconds)?;
    let damaged = made.map_or(&[][..], |made| &made.damaged);
    for object in damaged {
        context.output.warning(&format!("{object} is damaged, so there is no parity of it: see `backup verify`"));
    }
    let exit = Exit::complete(backup.is_complete() && damaged.is_empty());
    match parity {
        // An interrupt would say that no backup was made.
        Err(_) if context.cancel.is_cancelled() => {
            let way = "`backup scrub --add-parity` makes it";
            context.output.error_line(&format!("interrupted: the backup was made, parity of it was not: {way}"));
            Ok(Exit::Failure)
        }
        parity => parity.map(|_| exit),
    }
}

/// Makes parity of what has none. What is kept on this machine does not show what can be read from the storage.
fn protect_new(context: &Context<'_>) -> Result<ProtectReport, Failure> {
    let locked = context.without_cache().locked()?;
    let progress = Progress::start(context.output, "making parity");
    Ok(protect(&locked, &context.control(&progress))?)
}

fn options(arguments: &Create, repository: &Repository, control: Control) -> Result<BackupOptions, Failure> {
    let mut options = BackupOptions::new(arguments.kind.clone());
    options.host = match &arguments.host {
        Some(host) => host.clone(),
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    };
    options.tags.clone_from(&arguments.tag);
    options.labels = labels(&arguments.label)?;
    options.parent = match arguments.parent.as_deref() {
        None => Parent::Newest,
        Some("none") => Parent::None,
        Some(name) => Parent::Backup(repository.find_backup(name)?.id),
    };
    options.compression_level = arguments.compression;
    options.control = control;
    Ok(options)
}

/// A change map means one certain backup. Which one `latest` is may have changed since the map was made.
fn check_parent(arguments: &Create) -> Result<(), Failure> {
    if !arguments.changed_ranges.is_empty() && matches!(arguments.parent.as_deref(), None | Some("none" | "latest")) {
        return Err(Failure::usage(
            "--changed-ranges needs --parent with the id of the backup that the changes refer to",
        ));
    }
    Ok(())
}

fn labels(given: &[(String, String)]) -> Result<BTreeMap<String, String>, Failure> {
    let mut labels = BTreeMap::new();
    for (key, value) in given {
        if labels.insert(key.clone(), value.clone()).is_some() {
            return Err(Failure::usage(format!("label {key} is given twice")));
        }
    }
    Ok(labels)
}

/// An `--image` with what belongs to it by position.
struct Image {
    name: EntryPath,
    source: ImageSource,
}

fn images(arguments: &Create) -> Result<Vec<Image>, Failure> {
    let count = arguments.image.len();
    for (option, given) in [("--as", arguments.image_name.len()), ("--changed-ranges", arguments.changed_ranges.len())]
    {
        if given != 0 && given != count {
            return Err(Failure::usage(format!("{option} is given {given} times for {count} images")));
        }
    }
    let mut images: Vec<Image> = Vec::with_capacity(count);
    for (position, path) in arguments.image.iter().enumerate() {
        let given = arguments.image_name.get(position).map(OsString::as_os_str);
        let name = match given.or(path.file_name()) {
            Some(name) => entry_path(name)?,
            None => return Err(Failure::usage(format!("{} has no name: give one with --as", path.display()))),
        };
        if images.iter().any(|image| image.name == name) {
            return Err(Failure::usage(format!("two images are called {name}: name them with --as")));
        }
        let mut source =
            ImageSource::open(path).map_err(|source| Error::Source { name: path.display().to_string(), source })?;
        if let Some(changes) = arguments.changed_ranges.get(position) {
            source = source.with_changes(read_changes(changes)?.0);
        }
        images.push(Image { name, source });
    }
    Ok(images)
}

fn read_changes(path: &Path) -> Result<ChangeMap, Failure> {
    let failed = |error| Failure::io(format!("cannot read change map {}", path.display()), error);
    let file = File::open(path).map_err(failed)?;
    serde_json::from_reader(BufReader::new(file)).map_err(|error| failed(error.into()))
}

fn show(
    context: &Context<'_>,
    repository: &Repository,
    backup: &Backup,
    left_out: &[EntryPath],
    parity: Option<&ProtectReport>,
    seconds: f64,
) -> Result<(), Failure> {
    let statistics = &backup.statistics;
    if context.output.is_json() {
        let mut result = json::members(statistics);
        result.extend(json::members(&json!({
            "backup": backup.id,
            "repository": repository.id(),
            "kind": backup.kind,
            "host": backup.host,
            "parent": backup.parent,
            "started": backup.started,
            "finished": backup.finished,
            "seconds": seconds,
            "complete": backup.is_complete(),
            "problems": backup.problems,
            "problem_count": backup.problem_count,
            "left_out": left_out,
            "parity": parity,
        })));
        return context.output.json(&result);
    }
    if context.output.has_summaries() {
        context.output.text(|out| {
            writeln!(out, "backup   {}", backup.id)?;
            writeln!(
                out,
                "content  {} in {}",
                text::size(statistics.bytes_logical),
                text::count(statistics.entries, "entry", "entries")
            )?;
            writeln!(
                out,
                "read     {} in {}, {}",
                text::size(statistics.bytes_read),
                text::duration(seconds),
                text::rate(statistics.bytes_read, seconds)
            )?;
            writeln!(
                out,
                "new      {}, stored as {}",
                text::size(statistics.bytes_new),
                text::size(statistics.bytes_stored)
            )?;
            if let Some(parity) = parity {
                let objects = text::count(parity.protected, "object", "objects");
                writeln!(out, "parity   {} for {objects}", text::size(parity.parity_bytes))?;
            }
            Ok(())
        })?;
    }
    if !backup.is_complete() {
        let problems = text::count(backup.problem_count, "problem", "problems");
        context.output.error_line(&format!("the backup is incomplete: {problems}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::{Arguments, Command};

    fn create(line: &str) -> Create {
        match Arguments::try_parse_from(line.split(' ')).unwrap().command {
            Command::Create(create) => create,
            _ => panic!("{line}"),
        }
    }

    #[test]
    fn images_are_named_by_position() {
        let here = tempfile::tempdir().unwrap();
        let (a, b) = (here.path().join("disk"), here.path().join("b"));
        std::fs::write(&a, "x").unwrap();
        std::fs::write(&b, "x").unwrap();
        let (a, b) = (a.display(), b.display());
        let names = |line: &str| -> Result<Vec<String>, Failure> {
            Ok(images(&create(line))?.iter().map(|image| image.name.to_string()).collect())
        };
        assert_eq!(
            names(&format!("backup create --image {a} --image {b} --as x/root --as data")).unwrap(),
            ["x/root", "data"]
        );
        assert_eq!(names(&format!("backup create --image {a}")).unwrap(), ["disk"]);
        for bad in [
            format!("backup create --image {a} --image {a}"),
            format!("backup create --image {a} --image {b} --as x"),
            format!("backup create --image {a} --as ../x"),
            "backup create --image /".to_owned(),
            "backup create --image /dev/null".to_owned(),
            format!("backup create --image {a} --image {b} --changed-ranges f --parent latest"),
        ] {
            assert!(names(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_change_map_needs_a_parent_by_its_id() {
        let check = |parent: &str| {
            check_parent(&create(&format!("backup create --image a --changed-ranges f --parent {parent}")))
        };
        assert!(check("latest").is_err() && check("none").is_err());
        check("8f3a").unwrap();
        check_parent(&create("backup create --image a --parent latest")).unwrap();
        check_parent(&create("backup create --image a")).unwrap();
    }

    #[test]
    fn a_label_has_one_value() {
        assert!(labels(&[("a".into(), "1".into()), ("a".into(), "2".into())]).is_err());
        assert_eq!(labels(&[("a".into(), "1".into())]).unwrap()["a"], "1");
    }
}
