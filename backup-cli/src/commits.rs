//! Backups by name, without the password.

use backup_core::id::BackupId;
use backup_core::repository::{CommitSummary, LockedRepository};

use crate::exit::Failure;

/// `latest` where there is none.
pub(crate) const NO_LATEST: &str = "latest (there are no backups in the repository)";

/// Without the password there are commits in place of backups; their ids are the same.
pub(crate) fn find_commits(locked: &LockedRepository, names: &[String]) -> Result<Vec<BackupId>, Failure> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let commits = locked.commits()?;
    names.iter().map(|name| find_commit(&commits, name)).collect()
}

/// The backup whose id begins so, forgotten ones included, which must be in the history.
pub(crate) fn find_head(locked: &LockedRepository, name: &str) -> Result<BackupId, Failure> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    let mut known: Vec<BackupId> = locked.commits()?.iter().map(|commit| commit.id).collect();
    known.extend(locked.forgotten()?);
    known.sort_unstable();
    known.dedup();
    let mut matching = known.into_iter().filter(|id| id.to_string().starts_with(name));
    match (matching.next(), matching.next()) {
        (Some(id), None) => Ok(id),
        (Some(_), Some(_)) => Err(Failure::usage(format!("several backups begin with {name}"))),
        (None, _) => Err(backup_core::Error::Damaged {
            what: "history",
            name: name.to_owned(),
            reason: "the expected backup is not there: none begins so".to_owned(),
        }
        .into()),
    }
}

fn find_commit(commits: &[CommitSummary], name: &str) -> Result<BackupId, Failure> {
    let not_found = || backup_core::Error::NotFound { what: "backup", name: name.to_owned() };
    if name == "latest" {
        return Ok(commits
            .last()
            .ok_or(backup_core::Error::NotFound { what: "backup", name: NO_LATEST.to_owned() })?
            .id);
    }
    if name.len() < 4 {
        return Err(Failure::usage(format!("{name:?} is shorter than 4 digits")));
    }
    let mut matching = commits.iter().filter(|commit| commit.is_called(name));
    match (matching.next(), matching.next()) {
        (Some(commit), None) => Ok(commit.id),
        (Some(_), Some(_)) => Err(Failure::usage(format!("several backups begin with {name}"))),
        (None, _) => Err(not_found().into()),
    }
}
