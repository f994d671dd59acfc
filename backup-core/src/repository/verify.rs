//! Proving that backups can be restored.
//!
//! Four levels, each with all of those before it: *presence* and *bytes* need no password, *structure*
//! and *content* do.

mod content;
mod keys;
mod ledger;
mod links;
mod merge;
mod options;
mod report;
mod sites;
mod structure;

pub use self::ledger::VerificationLedger;
pub use self::options::{Share, VerifyLevel, VerifyOptions};
pub use self::report::{AffectedEntry, Finding, FindingKind, IncompleteBackup, VerifyReport};
pub(crate) use self::sites::{NamedObject, Site, arrived, read_closure, without_password};
