//! Streams the output of a command into a backup, and out of it into another command.
//!
//! ```sh
//! cargo run --release --example dump                        # with a made-up dump
//! cargo run --release --example dump -- pg_dump my_database # with a real one
//! ```
//!
//! The dump never touches a disk unencrypted. Where the command fails there is no backup: half a dump is worse
//! than none.

use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use backup_adapters::{CommandSink, CommandSource, OsClock, create_url};
use backup_core::content::EntryPath;
use backup_core::entropy::OsEntropy;
use backup_core::keys::Credential;
use backup_core::repository::{Backup, BackupKind, BackupOptions, Control, Environment, InitOptions, Repository};
use backup_core::secret::Password;

/// Writes 40 MB that look like a dump.
const MADE_UP: [&str; 3] = ["sh", "-c", "seq -f \"INSERT INTO numbers VALUES (%.0f);\" 1000000"];
/// Fails after a part of its output, as a dump does when it loses its server.
const FAILING: [&str; 3] = ["sh", "-c", "echo 'CREATE TABLE half ('; echo 'server closed the connection' >&2; exit 1"];
/// Takes the restored dump. Where this counts bytes, a real restore has `psql`.
const CONSUMER: [&str; 2] = ["wc", "-c"];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let dump = if arguments.is_empty() { MADE_UP.map(String::from).to_vec() } else { arguments };

    let scratch = tempfile::tempdir().context("cannot make a temporary directory")?;
    let storage = create_url(&scratch.path().join("repository").display().to_string())?;
    let environment = Environment::new(Arc::new(OsClock), Arc::new(OsEntropy));
    let password = Password::from("in a real program, not in its source");
    let repository = Repository::init(storage, &Credential::from(&password), &InitOptions::default(), environment)
        .context("cannot create the repository")?;

    let backup = back_up(&repository, &dump).with_context(|| format!("cannot back up the output of {}", dump[0]))?;
    let amounts = backup.statistics;
    println!("backup {}: {} bytes read, {} stored", backup.id, amounts.bytes_read, amounts.bytes_stored);

    let failure = back_up(&repository, &FAILING).err().context("a failing command gave a backup")?;
    println!("a command that fails: {failure:#}");
    ensure!(repository.backups()?.len() == 1, "the failing command left a backup");

    println!("restored into {}:", CONSUMER.join(" "));
    restore(&repository, &backup, &CONSUMER).context("cannot restore")
}

/// Everything that the command writes becomes the entry `dump`.
fn back_up(repository: &Repository, command: &[impl AsRef<std::ffi::OsStr>]) -> Result<Backup> {
    let mut session = repository.begin(BackupOptions::new(BackupKind::Data).with_tag("dump"))?;
    let mut source = CommandSource::new(command)?;
    // Ends with an error, and the session with it, where the command's status is not 0.
    session.add_stream(EntryPath::try_from("dump")?, &mut source)?;
    Ok(session.commit()?)
}

/// The command reads the entry `dump` from its standard input.
fn restore(repository: &Repository, backup: &Backup, command: &[&str]) -> Result<()> {
    let entry = repository.entry(backup, &EntryPath::try_from("dump")?)?;
    let (program, arguments) = command.split_first().context("no command")?;
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::inherit());
    let mut sink = CommandSink::spawn(command)?;
    repository.restore_stream(&entry, &mut sink, &Control::default())?;
    // Only now is it known that the command took everything and succeeded.
    sink.finish()?;
    Ok(())
}
