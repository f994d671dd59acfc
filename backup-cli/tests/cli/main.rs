//! The real binary, end to end.
#![allow(missing_docs, reason = "tests")]

mod archives;
mod backups;
mod bad_input;
mod copies;
mod documents;
mod harness;
mod interruption;
mod keys;
mod kills;
mod maintenance;
mod media;
#[cfg(feature = "object")]
mod object_storage;
mod output;
mod passwords;
mod restores;
#[cfg(feature = "object")]
#[path = "../../../backup-adapters/tests/support/s3.rs"]
mod s3;
mod shards;
mod verification;

#[cfg(feature = "object")]
use harness::skip;
