//! Which of the backups `latest` names, and which ones a listing shows.

use backup_core::Error;
use backup_core::repository::{Backup, Repository};

use crate::arguments::Filter;
use crate::exit::Failure;
use crate::output::{Output, text};

impl Filter {
    /// Whether a backup is of the kind and host and has the tags.
    pub(crate) fn matches(&self, backup: &Backup) -> bool {
        self.kind.as_ref().is_none_or(|kind| backup.kind == *kind)
            && self.host.as_ref().is_none_or(|host| backup.host == *host)
            && self.tag.iter().all(|tag| backup.tags.contains(tag))
    }

    /// Whether it lets every backup through.
    pub(crate) fn is_empty(&self) -> bool {
        self.kind.is_none() && self.host.is_none() && self.tag.is_empty()
    }

    /// Refuses a filter beside the name of one backup. For before anybody is asked for a password.
    pub(crate) fn check(&self, name: &str) -> Result<(), Failure> {
        if self.is_empty() || name == "latest" {
            return Ok(());
        }
        Err(Failure::usage(format!("--kind, --host and --tag choose what `latest` is; the backup is named: {name}")))
    }

    /// The backup called `name`; of several that `latest` may be, the newest that matches.
    pub(crate) fn find(&self, repository: &Repository, name: &str, output: &Output) -> Result<Backup, Failure> {
        self.check(name)?;
        if self.is_empty() {
            return Ok(repository.find_backup(name)?);
        }
        for backup in repository.list()?.into_iter().rev() {
            match backup {
                Ok(backup) if self.matches(&backup) => return Ok(backup),
                Ok(_) => {}
                // Of what kind it is nobody knows.
                Err(lost) => output.warning(&format!("{}; it may be the newest", text::unreadable(&lost))),
            }
        }
        Err(Error::NotFound { what: "backup", name: format!("{name} with {self}") }.into())
    }
}

impl std::fmt::Display for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = self.kind.iter().map(|kind| format!("--kind {kind}"));
        let host = self.host.iter().map(|host| format!("--host {host}"));
        let tags = self.tag.iter().map(|tag| format!("--tag {tag}"));
        f.write_str(&kind.chain(host).chain(tags).collect::<Vec<_>>().join(" "))
    }
}
