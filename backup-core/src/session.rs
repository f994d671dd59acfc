//! The commit protocol: sessions, outcomes, validity (`docs/format.md`, "Commit protocol").
//!
//! A session is one attempt to make a backup. It exists from the put-if-absent of its `open` object
//! and is decided by the put-if-absent of its `outcome`: a signed commit, or a revocation by a
//! collection. Nothing else makes a backup visible.

mod body;
mod closure;
mod collection;
mod commit;
mod history;
mod lineage;
mod record;
mod writer;

pub(crate) use self::body::BackupBody;
pub(crate) use self::closure::Closure;
pub(crate) use self::collection::{
    CollectionOutcome, Final, read_mark, read_outcome, seal_abort, seal_final, seal_forget, seal_mark, seal_revocation,
};
pub(crate) use self::commit::{Commit, MOST_REPLACED, NewCommit};
pub(crate) use self::history::{Hidden, History, Records, Signers, open_outcome, outcome_object};
pub(crate) use self::writer::{SessionStart, SessionWriter, probe};

#[cfg(test)]
mod lineage_tests;
#[cfg(test)]
mod tests;
#[cfg(any(test, feature = "testing"))]
pub(crate) use self::collection::{read_forget, testing as records};
#[cfg(any(test, feature = "testing"))]
pub(crate) use self::commit::Outcome;
#[cfg(any(test, feature = "testing"))]
pub(crate) use self::record::seal as seal_record;
