//! Arguments of `create`, and which files are meant.

use std::ffi::OsString;
use std::path::PathBuf;

use backup_core::repository::BackupKind;
use clap::{Args, ValueHint};

use crate::selection::parse_label;

/// Make a backup
///
/// Sources can be combined. A backup is complete and visible, or it does not exist; problems with
/// single files are listed, mark the backup incomplete, and give exit code 3.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("source").args(["paths", "stdin", "command", "image"]).required(true).multiple(true)))]
#[command(override_usage = "backup create [OPTIONS] [PATH]...\n       \
                            backup create [OPTIONS] --stdin <NAME>\n       \
                            backup create [OPTIONS] --command <NAME> -- <CMD>...\n       \
                            backup create [OPTIONS] --image <PATH> [--as <NAME>]")]
pub(crate) struct Create {
    /// Files and directories
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub(crate) paths: Vec<PathBuf>,
    /// Back up standard input as an entry of this name
    #[arg(long, value_name = "NAME", help_heading = "Sources")]
    pub(crate) stdin: Option<OsString>,
    /// Back up the output of a command as an entry of this name; nothing is committed if it fails
    #[arg(long, value_name = "NAME", requires = "command_line", help_heading = "Sources")]
    pub(crate) command: Option<OsString>,
    /// The command of --command and its arguments
    #[arg(last = true, value_name = "CMD", requires = "command", value_hint = ValueHint::CommandWithArguments)]
    pub(crate) command_line: Vec<OsString>,
    /// Back up a disk image or block device; may be repeated
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, help_heading = "Sources")]
    pub(crate) image: Vec<PathBuf>,
    /// Name of the entry of the --image at the same position [default: its file name]
    #[arg(long = "as", value_name = "NAME", requires = "image", help_heading = "Sources")]
    pub(crate) image_name: Vec<OsString>,
    /// What changed since the parent backup, for the --image at the same position: a JSON list of
    /// [offset, length]. Everything else is taken from the parent and not read, so --parent must give
    /// the id of the backup that the list refers to
    #[arg(long, value_name = "FILE", requires_all = ["image", "parent"], value_hint = ValueHint::FilePath, help_heading = "Sources")]
    pub(crate) changed_ranges: Vec<PathBuf>,

    /// Kind of the backup: data, sensitive-configuration, virtual-machine, or a label of your own
    #[arg(long, value_name = "KIND", default_value = "data", help_heading = "Description")]
    pub(crate) kind: BackupKind,
    /// A tag; may be repeated
    #[arg(long, value_name = "TEXT", help_heading = "Description")]
    pub(crate) tag: Vec<String>,
    /// Name of the host the data is from [default: this host]
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Hostname, help_heading = "Description")]
    pub(crate) host: Option<String>,
    /// A label; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label, help_heading = "Description")]
    pub(crate) label: Vec<(String, String)>,

    #[command(flatten)]
    pub(crate) files: Files,

    /// Make parity of what was written, which brings back what is damaged or lost of it later: at least as much as the largest
    /// object that was written, 6 % in large backups
    #[arg(long, help_heading = "Engine")]
    pub(crate) parity: bool,
    /// Compare with this backup to skip unchanged files, or `none` to read everything
    /// [default: for each path the newest backup of the same kind and host that has it]
    #[arg(long, value_name = "BACKUP", help_heading = "Engine")]
    pub(crate) parent: Option<String>,
    /// Compression level, from -7 (fast) to 19 (small) [default: the repository's]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-7..=19), help_heading = "Engine")]
    pub(crate) compression: Option<i32>,
}

/// Which files of a directory are meant.
#[derive(Debug, Args)]
pub(crate) struct Files {
    /// Leave out what matches the pattern, with everything below; may be repeated. Without a slash it
    /// matches names anywhere, with one whole entry paths; `**` crosses directories
    #[arg(long, value_name = "PATTERN", help_heading = "Files")]
    pub(crate) exclude: Vec<String>,
    /// Leave out the contents of directories that are marked as caches by a CACHEDIR.TAG
    #[arg(long, help_heading = "Files")]
    pub(crate) exclude_caches: bool,
    /// Leave out what is on other file systems than the given paths
    #[arg(long, help_heading = "Files")]
    pub(crate) one_file_system: bool,
}
