//! Arguments of `forget` and `collect`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum, ValueHint};

use crate::arguments::read::Filter;
use crate::selection::parse_duration;

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
    /// What the policy is applied to.
    #[command(flatten)]
    pub(crate) filter: Filter,
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
