//! The real binary, end to end.
#![allow(missing_docs, reason = "tests")]

mod backups;
mod bad_input;
mod copies;
mod harness;
mod interruption;
mod keys;
mod kills;
mod media;
mod output;
mod passwords;
mod restores;
mod verification;
