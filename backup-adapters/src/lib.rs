//! Real storage, real files and real commands for [`backup_core`]. Unix only.
//!
//! * [`local`]: repositories in a local directory.
#![forbid(unsafe_code)]

#[cfg(not(unix))]
compile_error!("backup-adapters needs a Unix system");

pub mod local;

mod directory;

pub use local::LocalStorage;
