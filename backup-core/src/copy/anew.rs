//! Copying with the password, to a copy of the repository that cannot take a commit as it is.

use std::collections::BTreeMap;

use crate::copy::objects::at_destination;
use crate::copy::verbatim::bring_forgets;
use crate::copy::{CopiedBackup, CopyMethod, CopyOptions, CopyReceipt};
use crate::error::{Error, Result};
use crate::id::BackupId;
use crate::repository::{Control, Problem, Repository};

impl Repository {
    /// Brings what [`LockedRepository::copy_to`](crate::repository::LockedRepository::copy_to) could not bring to a copy of
    /// this repository, as its `receipt` says: because a collection of the destination ended that a commit is too old
    /// for, or condemned one of its packs. The backup is put there under a commit that is signed anew: the same backup, of which
    /// the id that it has here [finds](Repository::find_backup) it there, too. Chunks that the destination has are not stored again.
    ///
    /// Returns the receipt of both. Where no backup [needs that](CopiedBackup::needs_new_commit), it is `receipt`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] where the destination is not a copy of this repository; otherwise as
    /// [`copy_to`](Self::copy_to).
    pub fn copy_anew(
        &self,
        destination: &Self,
        receipt: CopyReceipt,
        options: &CopyOptions,
        control: &Control,
    ) -> Result<CopyReceipt> {
        if destination.inner.config_hash != self.inner.config_hash {
            return Err(Error::invalid(
                "the destination",
                "it is not a copy of this repository: its config is another",
            ));
        }
        destination.inner.check_writable().map_err(at_destination)?;
        // What failed because it is damaged, here or there, another commit does not mend.
        let failed: Vec<BackupId> =
            receipt.backups.iter().filter(|line| line.needs_new_commit).map(|line| line.id).collect();
        if failed.is_empty() {
            return Ok(receipt);
        }
        let history = self.inner.history(control)?;
        // What is not there any more was given up here meanwhile, as the receipt says.
        let selected: Vec<_> =
            history.live_in_order().into_iter().filter(|commit| failed.contains(&commit.id)).cloned().collect();
        // The handle may be of before the other copy.
        destination.inner.forget_view();
        let anew = self.make_copies(destination, CopyMethod::SignedAnew, &history, &selected, options, control)?;
        let (from, to) = (&self.inner, &destination.inner);
        bring_forgets(&*from.storage, &from.signers, &history, &*to.storage, control)?;
        Ok(joined(receipt, anew, options))
    }
}

/// One receipt of a copy without the password and of what followed with it.
fn joined(mut whole: CopyReceipt, anew: CopyReceipt, options: &CopyOptions) -> CopyReceipt {
    let mut lines: BTreeMap<BackupId, CopiedBackup> = anew.backups.into_iter().map(|line| (line.id, line)).collect();
    for line in &mut whole.backups {
        if let Some(newer) = lines.remove(&line.id) {
            *line = newer;
        }
    }
    whole.method = CopyMethod::SignedAnew;
    whole.finished = anew.finished;
    for (sum, part) in [
        (&mut whole.objects_copied, anew.objects_copied),
        (&mut whole.bytes_copied, anew.bytes_copied),
        (&mut whole.objects_found, anew.objects_found),
        (&mut whole.bytes_found, anew.bytes_found),
    ] {
        *sum = sum.saturating_add(part);
    }
    let is_new = |problem: &Problem| !whole.problems.contains(problem);
    let problems: Vec<Problem> = anew.problems.into_iter().filter(is_new).collect();
    whole.problems.extend(problems);
    let were_good = whole.verification.as_ref().is_none_or(|report| report.ok);
    // That which found something wrong is shown.
    if were_good && let Some(report) = anew.verification {
        whole.verification = Some(report);
    }
    whole.ok = whole.backups.iter().all(|line| line.status.is_as_asked(options)) && were_good && anew.ok;
    whole
}
