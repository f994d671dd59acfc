//! The real binary, end to end.
#![allow(missing_docs, reason = "tests")]

mod archives;
mod backups;
mod bad_input;
mod harness;
mod interruption;
mod keys;
mod kills;
mod media;
mod output;
mod passwords;
mod restores;
mod verification;
