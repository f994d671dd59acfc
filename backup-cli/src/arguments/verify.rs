//! Arguments of `verify`.

use std::ffi::OsString;
use std::path::PathBuf;

use backup_core::repository::Shard;
use clap::{Args, ValueEnum, ValueHint};

use crate::arguments::create::Files;
use crate::selection::{parse_fraction, parse_id_beginning};

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
