//! The definition of the command line. Help, completions and man pages are made from it.

mod create;
mod keys;
mod maintenance;
mod places;
mod read;
#[cfg(test)]
mod tests;
mod verify;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use backup_core::id::SlotId;
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueHint};

pub(crate) use self::create::{Create, Files};
pub(crate) use self::keys::{Derivation, Init, Key, KeyAdd, KeyCommand, NewPassword};
pub(crate) use self::maintenance::{Collect, Forget, GroupBy};
pub(crate) use self::places::{Copy, CopyLevel, Export, Import, ProfileName, Repair, Scrub, ToPassword};
pub(crate) use self::read::{Cat, Diff, Filter, List, Restore, Show};
pub(crate) use self::verify::{Level, Verify};

use crate::exit::Exit;
use crate::selection::{parse_rate, parse_size};

/// Make, verify and restore encrypted, deduplicated backups.
///
/// A backup holds files, streams (the output of a command, a pipe) and disk images. A repository
/// holds backups; it is created by `init` and named by --repo or BACKUP_REPO.
#[derive(Debug, Parser)]
#[command(
    name = "backup",
    bin_name = "backup",
    version,
    max_term_width = 100,
    subcommand_required = true,
    disable_help_subcommand = true,
    after_long_help = AFTER_HELP
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = "\
Wherever a backup is asked for, `latest` names the newest one; every other is named by its id, or a unique beginning of that of at least \
four digits.

The password comes from the first of: --password-file, --password-fd or --password-command; \
BACKUP_PASSWORD_FILE; BACKUP_PASSWORD_COMMAND; a prompt on the terminal. It is never taken from the \
command line or from the environment itself.

Exit codes:
    0  everything was done
    1  failure
    2  wrong usage
    3  damaged data, or an incomplete backup, restore or verification
    4  wrong password
  130  interrupted; nothing was committed
  141  the reader of standard output went away";

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The repository: a directory or a URL
    #[arg(short, long, global = true, value_name = "URL", env = "BACKUP_REPO", hide_env_values = true)]
    #[arg(value_hint = ValueHint::DirPath, help_heading = "Repository")]
    pub(crate) repo: Option<OsString>,

    /// Read the password from a file
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Password")]
    pub(crate) password_file: Option<PathBuf>,
    /// Read the password from an open file descriptor
    #[arg(long, global = true, value_name = "N", help_heading = "Password")]
    pub(crate) password_fd: Option<u32>,
    /// Take the password from the output of a shell command
    #[arg(long, global = true, value_name = "COMMAND", value_hint = ValueHint::CommandString, help_heading = "Password")]
    pub(crate) password_command: Option<OsString>,
    /// A second secret that is needed beside the password
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Password")]
    pub(crate) key_file: Option<PathBuf>,
    /// Open with a recovery key in place of a password
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Password")]
    pub(crate) recovery_key_file: Option<PathBuf>,

    /// Print the result as one JSON object, and errors as JSON on standard error
    #[arg(long, global = true, help_heading = "Output")]
    pub(crate) json: bool,
    /// No progress, no summary; warnings and errors only
    #[arg(short, long, global = true, help_heading = "Output")]
    pub(crate) quiet: bool,
    /// Threads to work with [default: all processors]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Output")]
    pub(crate) threads: Option<u16>,

    /// Read sources no faster than this many bytes per second; sizes take K, M, G and T
    #[arg(long, global = true, value_name = "SIZE", value_parser = parse_rate, help_heading = "Load")]
    pub(crate) limit_read: Option<u64>,
    /// Send to the repository no faster than this many bytes per second
    #[arg(long, global = true, value_name = "SIZE", value_parser = parse_rate, help_heading = "Load")]
    pub(crate) limit_upload: Option<u64>,
    /// Fetch from the repository no faster than this many bytes per second
    #[arg(long, global = true, value_name = "SIZE", value_parser = parse_rate, help_heading = "Load")]
    pub(crate) limit_download: Option<u64>,
    /// Leave the processor to others: 1 (a little) to 19 (as far as possible)
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=19), help_heading = "Load")]
    pub(crate) nice: Option<u8>,

    /// Keep no copies of index and metadata of remote repositories on this machine
    #[arg(long, global = true, help_heading = "Cache")]
    pub(crate) no_cache: bool,
    /// Where these copies are [default: the user's directory for caches]
    #[arg(long, global = true, value_name = "DIR", env = "BACKUP_CACHE_DIR", hide_env_values = true)]
    #[arg(value_hint = ValueHint::DirPath, help_heading = "Cache")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// How much they may take [default: 4G]
    #[arg(long, global = true, value_name = "SIZE", value_parser = parse_size, help_heading = "Cache")]
    pub(crate) cache_size: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Init(Init),
    Create(Create),
    List(List),
    Show(Show),
    Verify(Verify),
    Restore(Restore),
    Copy(Copy),
    Cat(Cat),
    Diff(Diff),
    Export(Export),
    Import(Import),
    Repair(Repair),
    Scrub(Scrub),
    Forget(Forget),
    Collect(Collect),
    Key(Key),
    Cache(Cache),
    Status(Status),
    Stats(Stats),
    Completions(Completions),
    Man(Man),
}

/// Look after the copies of index and metadata of remote repositories
#[derive(Debug, Args)]
pub(crate) struct Cache {
    #[command(subcommand)]
    pub(crate) command: CacheCommand,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Show where the copies are and how much they take
    Show,
    /// Remove all copies; they are fetched again when they are needed
    Clear,
}

/// Show the state of the repository
#[derive(Debug, Args)]
pub(crate) struct Status {}

/// Show sizes, deduplication and compression
#[derive(Debug, Args)]
pub(crate) struct Stats {}

/// Print a completion script
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

/// Write the man pages
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Directory to write to
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) directory: PathBuf,
}

/// The program ends here: help, the version, or a command line that cannot be understood.
#[derive(Debug)]
pub(crate) struct Stop {
    error: clap::Error,
    json: bool,
}

/// Reads the command line.
pub(crate) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Arguments, Stop> {
    let arguments: Vec<OsString> = arguments.collect();
    Arguments::try_parse_from(&arguments).map_err(|error| {
        let mut options = arguments.iter().take_while(|argument| *argument != "--");
        Stop { error, json: options.any(|argument| argument == "--json") }
    })
}

impl Stop {
    pub(crate) fn print(self) -> ExitCode {
        let wanted = matches!(self.error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
        if wanted || !self.json {
            // Nothing can be said when saying it fails.
            let _ = self.error.print();
        } else {
            let text = self.error.render().to_string();
            let message = text.trim().strip_prefix("error: ").unwrap_or(text.trim());
            let error = serde_json::json!({"error": {"kind": "usage", "message": message, "causes": []}});
            let _ = writeln!(io::stderr(), "{error}");
        }
        if wanted { Exit::Fine.into() } else { Exit::Usage.into() }
    }
}

/// A key slot as it was typed: an id or a prefix of one.
pub(crate) fn is_slot_prefix(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= SlotId::LENGTH * 2
        && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}
