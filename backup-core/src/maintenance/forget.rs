//! Saying of backups that they are not wanted any more.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::id::BackupId;
use crate::keys::MaintenanceKey;
use crate::maintenance::record;
use crate::maintenance::site::Site;
use crate::repository::{Control, LockedRepository, Repository, for_each};
use crate::session::History;

/// What forgetting did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ForgetReport {
    /// Backups that are forgotten from now on, by the ids that they were called by.
    pub forgotten: Vec<BackupId>,
    /// Backups that had been forgotten before.
    pub already_forgotten: Vec<BackupId>,
}

impl LockedRepository {
    /// Forgets backups, for good: nobody is shown them any more, and the next collection deletes what only they
    /// need. Nothing is forgotten unless all of them exist. A backup is found by any id that it has or had, and forgotten
    /// whoever replaces it meanwhile.
    ///
    /// An interrupted call has forgotten some of them; the same call again forgets the rest.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] naming a backup that does not exist; [`Error::InvalidArgument`] for the key of another
    /// repository; [`Error::ReadOnly`], [`Error::Storage`]; [`Error::UnknownOutcome`] naming the record of which the
    /// storage does not say whether it took it; [`Error::Damaged`] naming the record whose place something else has.
    pub fn forget(&self, key: &MaintenanceKey, backups: &[BackupId], control: &Control) -> Result<ForgetReport> {
        forget(&Site::locked(self, control), key, backups)
    }

    /// Ids of backups that are forgotten and of which something may still be there.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`].
    pub fn forgotten(&self) -> Result<Vec<BackupId>> {
        let control = Control::waiting();
        Ok(Site::locked(self, &control).history(&History::default())?.forgotten.into_iter().collect())
    }
}

impl Repository {
    /// As [`LockedRepository::forget`], with the key from the keyring.
    ///
    /// # Errors
    ///
    /// As [`LockedRepository::forget`], and those of reading the keyring.
    pub fn forget(&self, backups: &[BackupId], control: &Control) -> Result<ForgetReport> {
        let key = self.maintenance_key()?;
        let report = forget(&Site::unlocked(self, control), &key, backups);
        self.inner.forget_view();
        report
    }
}

fn forget(site: &Site<'_>, key: &MaintenanceKey, backups: &[BackupId]) -> Result<ForgetReport> {
    let key = site.signing_key(key)?;
    let history = site.history(&History::default())?;
    let mut report = ForgetReport::default();
    let mut lacking: BTreeSet<BackupId> = BTreeSet::new();
    let mut first: BTreeSet<BackupId> = BTreeSet::new();
    for id in backups {
        let ids = history.ids(id);
        let is_there = ids.iter().any(|id| history.forgotten.contains(id));
        if is_there || history.forgotten.contains(id) {
            report.already_forgotten.push(*id);
        } else if ids.is_empty() {
            return Err(Error::not_found("backup", id));
        } else {
            report.forgotten.push(*id);
        }
        first.extend(ids.first());
        lacking.extend(ids);
    }
    for list in [&mut report.forgotten, &mut report.already_forgotten] {
        list.sort_unstable();
        list.dedup();
    }
    // The first id of a backup is in every commit of it, those included that are being made now.
    for ids in [&first, &lacking] {
        let ids: Vec<BackupId> = ids.difference(&history.forgotten).copied().collect();
        for_each(site.control, ids.len(), &|| Ok(()), &|(), number| {
            ids.get(number).map_or(Ok(()), |id| record::put_forget(site, &key, *id))
        })?;
    }
    Ok(report)
}
