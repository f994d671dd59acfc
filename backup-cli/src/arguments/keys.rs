//! Arguments of `init` and `key`: who can open a repository.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use crate::selection::parse_size;

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
