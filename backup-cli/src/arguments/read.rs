//! Arguments of the commands that list, show and restore backups.

use std::ffi::OsString;
use std::path::PathBuf;

use backup_core::repository::{BackupKind, Shard};
use clap::{Args, ValueHint};

use crate::selection::ByteRange;

/// List the backups, oldest first
#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) filter: Filter,
}

/// Which backups are meant.
#[derive(Debug, Default, Args)]
pub(crate) struct Filter {
    /// Only backups of this kind
    #[arg(long, value_name = "KIND", help_heading = "Filter")]
    pub(crate) kind: Option<BackupKind>,
    /// Only backups of this host
    #[arg(long, value_name = "NAME", help_heading = "Filter")]
    pub(crate) host: Option<String>,
    /// Only backups with this tag; may be repeated, all must be there
    #[arg(long, value_name = "TEXT", help_heading = "Filter")]
    pub(crate) tag: Vec<String>,
}

/// Show a backup and its entries
///
/// A filter chooses which backup `latest` is.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Id of the backup, its unique beginning, or `latest`
    pub(crate) backup: String,
    /// Only this entry and what is in it
    #[arg(value_name = "ENTRY")]
    pub(crate) entry: Option<OsString>,
    /// Permissions, owner, size, time and digest of each entry
    #[arg(short, long)]
    pub(crate) long: bool,
    /// The backup itself, without its entries
    #[arg(long, conflicts_with_all = ["long", "entry"])]
    pub(crate) summary: bool,
    #[command(flatten)]
    pub(crate) filter: Filter,
}

/// Restore a backup, or entries of it
///
/// A filter chooses which backup `latest` is.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("target").args(["to", "command"]).required(true)))]
#[command(override_usage = "backup restore [OPTIONS] <BACKUP> --to <DIR>\n       \
                            backup restore [OPTIONS] <BACKUP> --entry <NAME> --to <FILE|->\n       \
                            backup restore [OPTIONS] <BACKUP> --entry <NAME> --command -- <CMD>...")]
pub(crate) struct Restore {
    /// Id of the backup, its unique beginning, or `latest`
    pub(crate) backup: String,
    /// Only this entry and what is in it; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) entry: Vec<OsString>,
    /// Where to: a directory; for one entry with content also a file, or - for standard output
    #[arg(long, value_name = "TARGET", value_hint = ValueHint::AnyPath)]
    pub(crate) to: Option<PathBuf>,
    /// Restore one entry into a command's standard input
    #[arg(long, requires = "command_line")]
    pub(crate) command: bool,
    /// The command of --command and its arguments
    #[arg(last = true, value_name = "CMD", requires = "command", value_hint = ValueHint::CommandWithArguments)]
    pub(crate) command_line: Vec<OsString>,
    /// Replace files that exist
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Make everything durable before it is reported as restored
    #[arg(long)]
    pub(crate) sync: bool,
    /// Only these bytes of one entry; sizes take K, M, G and T
    #[arg(long, value_name = "OFFSET:LENGTH", requires = "entry")]
    pub(crate) range: Option<ByteRange>,
    /// Only what belongs to one of several shards, such as 2/8, which may run at once; --merge ends the restore
    #[arg(long, value_name = "NUMBER/COUNT", requires = "to", conflicts_with_all = ["command", "range"])]
    pub(crate) shard: Option<Shard>,
    /// End a restore in shards: join the JSON reports of all of them, and do what is done when all is there
    #[arg(long, value_name = "REPORT", num_args = 1.., requires = "to", value_hint = ValueHint::FilePath)]
    #[arg(conflicts_with_all = ["command", "range", "shard"])]
    pub(crate) merge: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) filter: Filter,
}

/// Write the content of an entry to standard output
///
/// A filter chooses which backup `latest` is.
#[derive(Debug, Args)]
pub(crate) struct Cat {
    /// Id of the backup, its unique beginning, or `latest`
    pub(crate) backup: String,
    /// Path of the entry in the backup
    pub(crate) entry: OsString,
    #[command(flatten)]
    pub(crate) filter: Filter,
}

/// Show what differs between two backups
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The older backup
    #[arg(value_name = "A")]
    pub(crate) old: String,
    /// The newer backup
    #[arg(value_name = "B")]
    pub(crate) new: String,
}
