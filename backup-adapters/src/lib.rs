//! Real storage, real files and real commands for [`backup_core`]. Unix only.
//!
//! * [`local`]: repositories in a local directory.
#![forbid(unsafe_code)]

#[cfg(not(unix))]
compile_error!("backup-adapters needs a Unix system");

pub mod clock;
pub mod command;
pub mod local;
pub mod url;

mod directory;
mod new_file;

pub use clock::OsClock;
pub use command::{CommandSink, CommandSource};
pub use local::LocalStorage;
pub use url::{create_url, open_url};
