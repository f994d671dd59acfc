//! The definition of the command line. Help, completions and man pages are made from it.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use backup_core::id::SlotId;
use backup_core::repository::{BackupKind, Shard};
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use crate::exit::Exit;
use crate::selection::{
    ByteRange, parse_duration, parse_fraction, parse_id_beginning, parse_label, parse_rate, parse_size,
};

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

/// Create a repository
///
/// The password given here opens it. A forgotten password cannot be recovered: make a recovery key
/// with `backup key recovery` and keep it elsewhere.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// Name of the first key slot, for people
    #[arg(long, value_name = "TEXT", default_value = "initial")]
    pub(crate) slot_label: String,
    /// Compression level, from -7 (fast) to 19 (small); backups can choose their own
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-7..=19))]
    pub(crate) compression: Option<i32>,
    /// Aim at packs (objects on storage) of this size
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) pack_size: Option<u64>,
    /// Allow only one writer at a time
    #[arg(long)]
    pub(crate) single_writer: bool,
    #[command(flatten)]
    pub(crate) derivation: Derivation,
}

/// What guessing a password costs.
#[derive(Debug, Args)]
pub(crate) struct Derivation {
    /// Memory of the password's key derivation (Argon2id)
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) kdf_memory: Option<u64>,
    /// Passes of the password's key derivation
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    pub(crate) kdf_iterations: Option<u32>,
}

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

/// Check that backups are there and can be restored
///
/// Exit code 3 tells that something is damaged, missing, or differs.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// How deep to look [default: content, or none with --compare]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) level: Option<Level>,
    /// Only this backup; may be repeated [default: all]
    #[arg(long, value_name = "BACKUP")]
    pub(crate) backup: Vec<String>,
    /// Check a random share of the data, such as 0.1
    #[arg(long, value_name = "FRACTION", value_parser = parse_fraction)]
    pub(crate) sample: Option<f64>,
    /// Check a share of the data now, so that daily runs have covered all of it after N days
    #[arg(long, value_name = "N", requires = "ledger", conflicts_with = "sample", value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(crate) rotate_days: Option<u32>,
    /// Where --rotate-days remembers what was covered
    #[arg(long, value_name = "FILE", requires = "rotate_days", value_hint = ValueHint::FilePath)]
    pub(crate) ledger: Option<PathBuf>,
    /// The id of a backup, or the beginning of one, that must be in the repository's history: shows that it was not set back
    #[arg(long, value_name = "ID", value_parser = parse_id_beginning)]
    pub(crate) expect_head: Option<String>,
    /// The repository is a copy of some backups of another: those that they name need not be here
    #[arg(long)]
    pub(crate) partial_history: bool,
    /// Only what belongs to one of several shards, such as 2/8; together they cover everything once
    #[arg(long, value_name = "NUMBER/COUNT", conflicts_with = "compare")]
    pub(crate) shard: Option<Shard>,
    /// Verify nothing, but join the JSON reports of all shards
    #[arg(long, value_name = "REPORT", num_args = 1.., value_hint = ValueHint::FilePath)]
    #[arg(conflicts_with_all = ["shard", "compare", "level", "backup", "sample", "rotate_days", "expect_head"])]
    pub(crate) merge: Vec<PathBuf>,
    /// Compare a backup (the newest unless --backup names one) with live data: the path it was
    /// made of; may be repeated
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub(crate) compare: Vec<PathBuf>,
    /// With --compare: compare the file with this entry only
    #[arg(long, value_name = "NAME", requires = "compare")]
    pub(crate) entry: Option<OsString>,
    #[command(flatten)]
    pub(crate) files: Files,
}

/// How deep a verification looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// Every object that backups need exists with the right size, and commits are signed; no password
    Presence,
    /// Also, every object's bytes are those it is named by; no password
    Bytes,
    /// Also, all metadata can be decrypted and is consistent
    Structure,
    /// Also, all data can be decrypted, decompressed, and is what was backed up
    Content,
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

/// Copy backups to another place
///
/// Without the password: the other place becomes, or is, the same repository, and gets what it lacks. Where it is a
/// repository with a password of its own, both passwords are needed, and backups are made anew there.
/// Can be interrupted and run again.
#[derive(Debug, Args)]
pub(crate) struct Copy {
    /// Ids of backups, their unique beginnings, or `latest` [default: all]
    #[arg(value_name = "BACKUP")]
    pub(crate) backups: Vec<String>,
    /// Where to: a directory or a URL
    #[arg(long, value_name = "URL", value_hint = ValueHint::DirPath)]
    pub(crate) to: OsString,
    /// Write what was copied, and whether it is good, to this file as JSON
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) receipt: Option<PathBuf>,
    /// How the copy is verified: that all is there, also that every byte that was written can be read again, or also
    /// that every chunk opens (only where the other place has a password of its own)
    #[arg(long, value_name = "LEVEL", default_value = "bytes")]
    pub(crate) verify: CopyLevel,
    /// Read objects that are there already, too, and compare them with their names
    #[arg(long)]
    pub(crate) check_existing: bool,
    #[command(flatten)]
    pub(crate) password: ToPassword,
}

/// Where the password of a destination comes from that is another repository.
#[derive(Debug, Args)]
pub(crate) struct ToPassword {
    /// Read the destination's password from a file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Password of the destination")]
    pub(crate) to_password_file: Option<PathBuf>,
    /// Read the destination's password from an open file descriptor
    #[arg(long, value_name = "N", help_heading = "Password of the destination")]
    pub(crate) to_password_fd: Option<u32>,
    /// Take the destination's password from the output of a shell command
    #[arg(
        long,
        value_name = "COMMAND",
        value_hint = ValueHint::CommandString,
        help_heading = "Password of the destination"
    )]
    pub(crate) to_password_command: Option<OsString>,
    /// A second secret that the destination needs beside its password
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Password of the destination")]
    pub(crate) to_key_file: Option<PathBuf>,
}

/// How a copy is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CopyLevel {
    /// Every object exists with the right size
    Presence,
    /// Also, every byte that was written can be read again
    Bytes,
    /// Also, every chunk of what was copied opens and is what it must be
    Content,
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

/// Write backups to an archive: one file that mends itself; no password needed
///
/// The archive holds the encrypted objects as they are. Wherever --repo is read from, it can be named in place of a
/// repository. It is written from the beginning to the end, so it can go to a pipe or a tape.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Ids of the backups, their unique beginnings, or `latest` [default: all backups]
    #[arg(value_name = "BACKUP")]
    pub(crate) backups: Vec<String>,
    /// A new file, or - for standard output
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) to: PathBuf,
    /// How much of the archive is error correction
    #[arg(long, value_name = "PROFILE", default_value = "default")]
    pub(crate) profile: ProfileName,
}

/// How much may be lost of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProfileName {
    /// Any 4 MiB in one piece; 3 % more
    Light,
    /// Any 8 MiB in one piece; 6 % more
    Default,
    /// Any 16 MiB in one piece; 25 % more
    Strong,
}

/// Copy the backups of an archive into a repository; no password needed
///
/// As `copy` from the archive: an empty place becomes the same repository, an earlier copy gets what it lacks.
#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The archive
    #[arg(value_name = "ARCHIVE", value_hint = ValueHint::FilePath)]
    pub(crate) archive: PathBuf,
    /// Ids of the backups, their unique beginnings, or `latest` [default: all backups]
    #[arg(value_name = "BACKUP")]
    pub(crate) backups: Vec<String>,
}

/// Say what is damaged in an archive, and write it anew as it was; no password needed
///
/// Exit code 3 tells that something is damaged (without --to), or lost for good.
#[derive(Debug, Args)]
pub(crate) struct Repair {
    /// The archive
    #[arg(value_name = "ARCHIVE", value_hint = ValueHint::FilePath)]
    pub(crate) archive: PathBuf,
    /// Write the repaired archive to a new file, or - for standard output [default: only say what is damaged]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) to: Option<PathBuf>,
}

/// Read every object of the repository, and repair what is damaged from parity; no password needed
///
/// Exit code 3 tells that something could not be repaired, or, with --dry-run, that something is damaged.
#[derive(Debug, Args)]
pub(crate) struct Scrub {
    /// Make parity of objects that have none: any one object of some 256 MiB can then be lost, at 6 % more in large repositories
    #[arg(long)]
    pub(crate) add_parity: bool,
    /// Change nothing, only say what is damaged and whether it can be repaired
    #[arg(long, conflicts_with = "add_parity")]
    pub(crate) dry_run: bool,
}

/// Forget backups, by id or by a policy; without --yes, only show what would be forgotten
///
/// Forgetting is for good. What only forgotten backups need is deleted by `backup collect`. The newest backup of a group is
/// never forgotten, unless it is named.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("policy").multiple(true)))]
pub(crate) struct Forget {
    /// Ids of backups, their unique beginnings, or `latest`
    #[arg(value_name = "BACKUP", conflicts_with = "policy")]
    pub(crate) backups: Vec<String>,
    /// Forget, in place of showing what would be forgotten
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) maintenance: MaintenanceKeyFile,

    /// Keep the newest N
    #[arg(long, value_name = "N", group = "policy", help_heading = "Policy")]
    pub(crate) keep_last: Option<u32>,
    /// Keep one of each of the last N hours that have backups
    #[arg(long, value_name = "N", group = "policy", help_heading = "Policy")]
    pub(crate) keep_hourly: Option<u32>,
    /// Keep one of each of the last N days that have backups
    #[arg(long, value_name = "N", group = "policy", help_heading = "Policy")]
    pub(crate) keep_daily: Option<u32>,
    /// Keep one of each of the last N weeks that have backups
    #[arg(long, value_name = "N", group = "policy", help_heading = "Policy")]
    pub(crate) keep_weekly: Option<u32>,
    /// Keep one of each of the last N months that have backups
    #[arg(long, value_name = "N", group = "policy", help_heading = "Policy")]
    pub(crate) keep_monthly: Option<u32>,
    /// Keep one of each of the last N years that have backups
    #[arg(long, value_name = "N", group = "policy", help_heading = "Policy")]
    pub(crate) keep_yearly: Option<u32>,
    /// Keep what began at most so long before the newest of its group: a number with s, m, h, d, w or y
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, group = "policy", help_heading = "Policy")]
    pub(crate) keep_within: Option<Duration>,
    /// Keep what has this tag; may be repeated
    #[arg(long, value_name = "TEXT", group = "policy", help_heading = "Policy")]
    pub(crate) keep_tag: Vec<String>,
    /// Apply the policy to backups that have this in common; a list of host, kind, labels and tags, or `none`
    #[arg(
        long,
        value_name = "LIST",
        default_value = "host,kind,labels,tags",
        value_delimiter = ',',
        help_heading = "Policy"
    )]
    pub(crate) group_by: Vec<GroupBy>,
    /// Where hours, days and weeks begin: UTC, `local`, an offset such as +02:00, or a name such as Europe/Berlin
    #[arg(long, value_name = "ZONE", default_value = "UTC", help_heading = "Policy")]
    pub(crate) time_zone: String,
    /// Apply the policy to backups of this kind only
    #[arg(long, value_name = "KIND", requires = "policy", help_heading = "Policy")]
    pub(crate) kind: Option<BackupKind>,
    /// Apply the policy to backups of this host only
    #[arg(long, value_name = "NAME", requires = "policy", help_heading = "Policy")]
    pub(crate) host: Option<String>,
    /// Apply the policy to backups with this tag only; may be repeated, all must be there
    #[arg(long, value_name = "TEXT", requires = "policy", help_heading = "Policy")]
    pub(crate) tag: Vec<String>,
}

/// What a policy groups backups by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GroupBy {
    /// The host.
    Host,
    /// The kind.
    Kind,
    /// All labels.
    Labels,
    /// All tags.
    Tags,
    /// Nothing.
    None,
}

/// The key that does without the password.
#[derive(Debug, Args)]
pub(crate) struct MaintenanceKeyFile {
    /// Use the maintenance key in this file in place of the password
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Password")]
    pub(crate) maintenance_key_file: Option<PathBuf>,
}

/// Delete what no backup needs; without --yes, only show what would be deleted
///
/// Backups can be made meanwhile. A collection that was interrupted, or waits for running backups, is continued by the next
/// `backup collect --yes`.
#[derive(Debug, Args)]
pub(crate) struct Collect {
    /// Delete, in place of showing what would be deleted
    #[arg(long)]
    pub(crate) yes: bool,
    /// Give up backups that began longer ago than this and have not ended: they cannot be committed any more
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
    pub(crate) revoke_after: Duration,
    /// Collect although commits are damaged or missing, or packs that backups need are: what could still be used to mend them
    /// may be deleted
    #[arg(long)]
    pub(crate) despite_damage: bool,
    /// Collect although backups name others that are not there: in a place that got copies of some backups only
    #[arg(long)]
    pub(crate) partial_history: bool,
    /// First store anew what backups need of packs of which they need less than PERCENT, 50 if none is given, so that these packs
    /// go; needs the password
    ///
    /// Backups that need such packs get new ids. The old ones still find them.
    #[arg(long, value_name = "PERCENT", num_args = 0..=1, require_equals = true, default_missing_value = "50",
        conflicts_with = "maintenance_key_file", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub(crate) repack: Option<u8>,
    #[command(flatten)]
    pub(crate) maintenance: MaintenanceKeyFile,
}

/// Manage who can open the repository
#[derive(Debug, Args)]
pub(crate) struct Key {
    #[command(subcommand)]
    pub(crate) command: KeyCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Add a password
    Add(KeyAdd),
    /// Remove a key slot
    ///
    /// Whoever knew its password and has a copy of the old slot can still open the repository, whatever is
    /// rotated afterwards. Where that must not be, make a new repository.
    Remove {
        /// Id of the slot, as `backup key list` shows it, or its unique beginning
        slot: String,
        /// Remove it although it is the one that the given password opens, which will open nothing then
        #[arg(long)]
        force: bool,
    },
    /// List the key slots; no password needed
    ///
    /// Where a password is given by an option or variable, the slot that it opens is marked.
    List,
    /// Replace the password that was given
    Change {
        #[command(flatten)]
        new: NewPassword,
        #[command(flatten)]
        derivation: Derivation,
    },
    /// Make a new root key for all data written from now on
    Rotate,
    /// Make a recovery key and print it
    Recovery {
        /// Name of the slot, for people
        #[arg(long, value_name = "TEXT", default_value = "recovery")]
        label: String,
        /// Write the recovery key to a new file that only you can read, in place of printing it
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        to: Option<PathBuf>,
    },
    /// Print the key that forgets and collects without the password
    ///
    /// Whoever has it can make every backup be deleted, and can read none.
    ExportMaintenance {
        /// Write the key to a new file that only you can read, in place of printing it
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        to: Option<PathBuf>,
    },
}

/// Arguments of `key add`.
#[derive(Debug, Args)]
pub(crate) struct KeyAdd {
    /// Name of the slot, for people
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) label: String,
    #[command(flatten)]
    pub(crate) new: NewPassword,
    #[command(flatten)]
    pub(crate) derivation: Derivation,
}

/// Where a new password comes from.
#[derive(Debug, Args)]
pub(crate) struct NewPassword {
    /// Read the new password from a file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "New password")]
    pub(crate) new_password_file: Option<PathBuf>,
    /// Read the new password from an open file descriptor
    #[arg(long, value_name = "N", help_heading = "New password")]
    pub(crate) new_password_fd: Option<u32>,
    /// Take the new password from the output of a shell command
    #[arg(long, value_name = "COMMAND", value_hint = ValueHint::CommandString, help_heading = "New password")]
    pub(crate) new_password_command: Option<OsString>,
    /// A second secret that will be needed beside the new password
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "New password")]
    pub(crate) new_key_file: Option<PathBuf>,
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse_words(line: &str) -> Result<Arguments, Stop> {
        parse(line.split(' ').map(OsString::from))
    }

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn accepts_what_is_documented() {
        for line in [
            "backup -r /r init",
            "backup init -r /r --compression -3 --kdf-memory 64M --pack-size 8M --single-writer",
            "backup create a b --exclude *.o --exclude-caches --one-file-system --tag x --label a=b",
            "backup create --stdin name --kind virtual-machine --parent none --compression -1 --threads 4",
            "backup create --command name -- pg_dump --all",
            "backup create --image a --as x --image b --as y --parent latest --changed-ranges f --changed-ranges g",
            "backup create a --command name -- true",
            "backup create a --parity",
            "backup list --kind data --host h --tag t --json",
            "backup show latest --long",
            "backup show latest etc/passwd",
            "backup show latest --summary --quiet",
            "backup verify",
            "backup verify --level bytes --backup abc --backup def",
            "backup verify --level content --sample 0.1",
            "backup verify --rotate-days 30 --ledger l",
            "backup verify --expect-head abcd",
            "backup verify --compare /etc --compare /home",
            "backup restore latest --to /x --overwrite",
            "backup restore latest --entry a --range 1M:2 --to -",
            "backup restore latest --kind virtual-machine --host h --tag a --tag b --to x",
            "backup show latest --tag a",
            "backup cat latest a --host h",
            "backup restore latest --entry a --command -- psql -q",
            "backup cat latest a",
            "backup diff a b",
            "backup export --to f",
            "backup export latest abcd --to - --profile strong",
            "backup import f",
            "backup import f latest",
            "backup repair f",
            "backup repair f --to g",
            "backup scrub",
            "backup scrub --add-parity",
            "backup scrub --dry-run",
            "backup key add --label x --new-password-file f",
            "backup key remove abc",
            "backup key list",
            "backup key change --new-password-fd 3",
            "backup key rotate --password-fd 3",
            "backup key recovery --to f",
            "backup cache show --cache-dir d",
            "backup cache clear --json",
            "backup create a --limit-read 1M --limit-upload 512K --nice 10 --no-cache",
            "backup restore latest --to /x --limit-download 10M --cache-size 1G",
            "backup key export-maintenance --to f",
            "backup forget abcd ef01 --yes --maintenance-key-file f",
            "backup forget --keep-last 1 --keep-daily 7 --keep-within 2w --group-by host,kind --time-zone local --host h",
            "backup forget --keep-tag x --group-by none",
            "backup collect",
            "backup collect --yes --revoke-after 0s --despite-damage --maintenance-key-file f",
            "backup status --password-command pass",
            "backup stats --recovery-key-file f",
            "backup completions bash",
            "backup man /tmp",
        ] {
            if let Err(stop) = parse_words(line) {
                panic!("{line}: {}", stop.error);
            }
        }
    }

    #[test]
    fn rejects_what_makes_no_sense() {
        for line in [
            "backup",
            "backup frobnicate",
            "backup create",
            "backup create --command name",
            "backup create a -- true",
            "backup create --as x a",
            "backup create --image a --changed-ranges f",
            "backup create a --threads 0",
            "backup create a --label x",
            "backup create a --compression 99",
            "backup verify --level nothing",
            "backup verify --sample 0",
            "backup verify --sample 2",
            "backup verify --rotate-days 3",
            "backup verify --ledger f",
            "backup verify --sample 0.5 --rotate-days 3 --ledger f",
            "backup verify --expect-head abc",
            "backup verify --expect-head latest",
            "backup restore latest",
            "backup restore latest --to x --command -- y",
            "backup restore latest --command",
            "backup restore latest --to x --range 0:1",
            "backup restore latest --entry a --to x --range 5",
            "backup export latest",
            "backup export --to f --profile none",
            "backup import",
            "backup repair",
            "backup scrub --add-parity --dry-run",
            "backup show latest --summary --long",
            "backup forget abcd --keep-last 1",
            "backup forget --host h",
            "backup forget --keep-last -1",
            "backup forget --keep-within 3",
            "backup collect --revoke-after x",
            "backup completions klingon",
            "backup cache",
            "backup create a --limit-upload 0",
            "backup create a --nice 20",
            "backup --password secret list",
        ] {
            assert!(parse_words(line).is_err(), "{line}");
        }
    }

    #[test]
    fn json_is_looked_for_in_front_of_a_command_only() {
        assert!(parse_words("backup create --json").unwrap_err().json);
        assert!(!parse_words("backup create -- x --json").unwrap_err().json);
    }

    #[test]
    fn slots_are_hexadecimal() {
        assert!(is_slot_prefix("00ff"));
        for bad in ["", "xy", "AB", &"0".repeat(33)] {
            assert!(!is_slot_prefix(bad), "{bad}");
        }
    }
}
