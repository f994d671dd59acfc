//! What to verify, and how thoroughly.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::format::layout::Place;
use crate::id::BackupId;
use crate::repository::shard::Shard;

/// How thoroughly to verify. Each level does what those before it do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum VerifyLevel {
    /// Every object is there and has the right size; signatures and closures are genuine. No password.
    #[default]
    Presence,
    /// Every byte of every object is as it was stored: its hash is its name. No password.
    Bytes,
    /// Every backup opens; every catalogue and content is whole; the index has a place for every chunk, with the
    /// length and of the kind that is referred to. Password.
    Structure,
    /// Every chunk opens, decompresses, has its id, and stands where the index says. Password.
    Content,
}

/// How much of the packs to read at the levels bytes and content. Everything else is always checked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Share {
    /// All.
    #[default]
    All,
    /// A random share of the packs.
    Sample {
        /// From 0 to 1.
        fraction: f64,
        /// Chooses the packs.
        seed: u64,
    },
    /// The packs that were verified longest ago, so many that all are covered in `days` days of daily calls, and as
    /// much again of those that were not good last time. Needs a
    /// [`VerificationLedger`](super::VerificationLedger).
    Rotating {
        /// At least 1.
        days: u32,
    },
}

/// What to verify.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct VerifyOptions {
    /// How thoroughly; presence by default.
    pub level: VerifyLevel,
    /// Only these backups; all where empty.
    pub backups: Vec<BackupId>,
    /// How much of the packs to read.
    pub share: Share,
    /// A backup that must be in the history: a storage that shows an older state is noticed by it.
    pub expected_head: Option<BackupId>,
    /// The repository is a copy of only some of the backups of another: commits that others name need not be there.
    pub partial_history: bool,
    /// Only what belongs to this shard. The reports of all shards are [merged](super::VerifyReport::merge).
    pub shard: Option<Shard>,
}

impl VerifyOptions {
    /// Everything at `level`.
    #[must_use]
    pub fn new(level: VerifyLevel) -> Self {
        Self { level, ..Self::default() }
    }

    /// Sets the backups.
    #[must_use]
    pub fn with_backups(mut self, backups: Vec<BackupId>) -> Self {
        self.backups = backups;
        self
    }

    /// Sets the share.
    #[must_use]
    pub const fn with_share(mut self, share: Share) -> Self {
        self.share = share;
        self
    }

    /// Sets the backup that must be known.
    #[must_use]
    pub const fn with_expected_head(mut self, head: BackupId) -> Self {
        self.expected_head = Some(head);
        self
    }

    /// Sets whether commits that others name may be elsewhere.
    #[must_use]
    pub const fn with_partial_history(mut self, partial: bool) -> Self {
        self.partial_history = partial;
        self
    }

    /// Sets the shard.
    #[must_use]
    pub const fn with_shard(mut self, shard: Shard) -> Self {
        self.shard = Some(shard);
        self
    }

    /// Whether an object is looked at.
    pub(crate) fn has(&self, place: &Place) -> bool {
        self.shard.is_none_or(|shard| shard.has_text(place.key().as_str()))
    }

    pub(crate) fn check(&self) -> Result<()> {
        match self.share {
            Share::Sample { fraction, .. } if !(0.0..=1.0).contains(&fraction) => {
                Err(Error::invalid("share", "the fraction is not between 0 and 1"))
            }
            Share::Rotating { days: 0 } => Err(Error::invalid("share", "0 days")),
            _ => Ok(()),
        }
    }
}
