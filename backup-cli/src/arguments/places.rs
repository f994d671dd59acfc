//! Arguments of the commands that bring backups to other places, and that mend what is damaged there.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

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
