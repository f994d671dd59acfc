//! What was copied: a value that the side of the source can keep as evidence.

use serde::{Deserialize, Serialize};

use crate::copy::CopyOptions;
use crate::id::{BackupId, Digest, ObjectName, RepositoryId, SessionId};
use crate::repository::{Problem, VerifyReport};
use crate::time::Timestamp;

/// What a copy did, and whether the destination has now what it must have.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CopyReceipt {
    /// The repository that was copied from.
    pub repository: RepositoryId,
    /// BLAKE3 of its `config`.
    pub fingerprint: Digest,
    /// How the backups travelled.
    pub method: CopyMethod,
    /// The repository at the destination, and BLAKE3 of its `config`. The same where objects travel as they are.
    pub destination: RepositoryId,
    /// BLAKE3 of the `config` at the destination.
    pub destination_fingerprint: Digest,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// Whether every backup that was asked for is at the destination, as far as was verified.
    pub ok: bool,
    /// The backups that were asked for, oldest first.
    pub backups: Vec<CopiedBackup>,
    /// Objects that were written to the destination.
    pub objects_copied: u64,
    /// Their bytes.
    pub bytes_copied: u64,
    /// Objects that the destination had already.
    pub objects_found: u64,
    /// Their bytes.
    pub bytes_found: u64,
    /// What is not as it should be and hurts none of the backups.
    pub problems: Vec<Problem>,
    /// How the destination was verified, and what was found; `None` where nothing was copied.
    pub verification: Option<VerifyReport>,
}

/// How backups travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CopyMethod {
    /// Every object as it is, without the password.
    Verbatim,
    /// As verbatim, but some under a commit that was signed anew, as the same backup with a further id.
    SignedAnew,
    /// Contents were read and written anew, under other keys.
    Reencrypted,
}

/// A backup of a [`CopyReceipt`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CopiedBackup {
    /// Its id at the source.
    pub id: BackupId,
    /// Its id at the destination; `None` where it is not there. The same where it travelled as it is.
    pub copy: Option<BackupId>,
    /// When it was made, as its commit says.
    pub time: Timestamp,
    /// The session that made it.
    pub session: SessionId,
    /// Its closure at the source: the list of the packs that it needs.
    pub closure: ObjectName,
    /// Packs of the closure.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What became of it.
    pub status: CopyStatus,
    /// Why it was not copied.
    pub reason: Option<String>,
    /// Whether it was not copied because the destination cannot take its commit any more: with the password it can be
    /// copied under a commit that is signed anew.
    #[serde(default)]
    pub needs_new_commit: bool,
}

/// What became of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CopyStatus {
    /// It is at the destination now.
    Copied,
    /// It was there already, with everything that it needs, or what it lacked was added.
    Found,
    /// It was there, and was forgotten there: that is respected.
    Forgotten,
    /// It was not copied, or what was copied is not good.
    Failed,
}

impl CopyStatus {
    /// Whether nothing is missing that was asked for. What was forgotten there is, where it was asked for by name.
    pub(crate) const fn is_as_asked(self, options: &CopyOptions) -> bool {
        match self {
            Self::Copied | Self::Found => true,
            Self::Forgotten => options.backups.is_empty(),
            Self::Failed => false,
        }
    }
}
