//! What to copy.

use crate::error::{Error, Result};
use crate::id::BackupId;
use crate::repository::VerifyLevel;

/// What to copy, and how much to check.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CopyOptions {
    /// Only these backups; all where empty.
    pub backups: Vec<BackupId>,
    /// How the destination is verified at the end: at [`VerifyLevel::Presence`] every object of what was copied is
    /// there with its size; at [`VerifyLevel::Bytes`], the default, every object that was written is also read
    /// again and compared with its name. Between repositories with passwords of their own, also
    /// [`VerifyLevel::Structure`] and [`VerifyLevel::Content`]: as [`Repository::verify`](crate::repository::Repository::verify)
    /// does for the copied backups.
    pub verify: VerifyLevel,
    /// Read objects that the destination had already, and compare them with their names, too. By default their
    /// sizes are compared. Between repositories with passwords of their own nothing is compared so, and it has no effect.
    pub check_existing: bool,
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self { backups: Vec::new(), verify: VerifyLevel::Bytes, check_existing: false }
    }
}

impl CopyOptions {
    /// Sets the backups.
    #[must_use]
    pub fn with_backups(mut self, backups: Vec<BackupId>) -> Self {
        self.backups = backups;
        self
    }

    /// Sets how the destination is verified.
    #[must_use]
    pub const fn with_verify(mut self, level: VerifyLevel) -> Self {
        self.verify = level;
        self
    }

    /// Sets whether objects that are there already are read.
    #[must_use]
    pub const fn with_check_existing(mut self, check: bool) -> Self {
        self.check_existing = check;
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.verify > VerifyLevel::Bytes {
            return Err(Error::invalid("level", "a copy is verified at presence or bytes"));
        }
        Ok(())
    }
}
