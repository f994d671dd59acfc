//! Saying of backups that they are not wanted any more.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::format::layout::Place;
use crate::id::BackupId;
use crate::keys::MaintenanceKey;
use crate::limits;
use crate::maintenance::record::{self, Decision};
use crate::maintenance::site::Site;
use crate::repository::{Control, LockedRepository, Repository, for_each};
use crate::session::{History, seal_forget};

/// What forgetting did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ForgetReport {
    /// Backups that are forgotten from now on.
    pub forgotten: Vec<BackupId>,
    /// Backups that had been forgotten before.
    pub already_forgotten: Vec<BackupId>,
}

impl LockedRepository {
    /// Forgets backups, for good: nobody is shown them any more, and the next collection deletes what only they
    /// need. Nothing is forgotten unless all of them exist.
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

    /// Backups that are forgotten and of which something may still be there.
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
    for id in backups {
        if history.forgotten.contains(id) {
            report.already_forgotten.push(*id);
        } else if history.valid.contains_key(id) {
            report.forgotten.push(*id);
        } else {
            return Err(Error::not_found("backup", id));
        }
    }
    for list in [&mut report.forgotten, &mut report.already_forgotten] {
        list.sort_unstable();
        list.dedup();
    }
    for_each(site.control, report.forgotten.len(), &|| Ok(()), &|(), number| {
        let Some(id) = report.forgotten.get(number) else { return Ok(()) };
        let place = Place::Forget(*id).key();
        match record::put(site.storage, &place, seal_forget(&key, site.repository(), *id)?, limits::COMMIT)? {
            Decision::Stored | Decision::Same => Ok(()),
            Decision::Taken => Err(Error::damaged("forget record", &place, "another object stands in its place")),
        }
    })?;
    Ok(report)
}
