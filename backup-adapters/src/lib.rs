//! Real storage, real files and real commands for [`backup_core`]. Unix only.
//!
//! * [`local`]: repositories in a local directory; [`url`]: repositories by their address.
//! * [`tree`]: files and directories as a source and as a target.
//! * [`image`]: disk images and block devices as a source and as a target.
//! * [`command`]: the output and the input of commands.
//! * [`clock`]: the operating system's clock.
//!
//! Nothing here retries, and no thread outlives the value that started it, except one that waits for
//! the end of a command's error output.
#![forbid(unsafe_code)]

#[cfg(not(unix))]
compile_error!("backup-adapters needs a Unix system");

pub mod clock;
pub mod command;
pub mod image;
pub mod local;
pub mod tree;
pub mod url;

mod directory;
mod new_file;
mod sparse;

pub use clock::OsClock;
pub use command::{CommandSink, CommandSource};
pub use image::{FileSink, ImageSource};
pub use local::LocalStorage;
pub use tree::{FileTreeSink, FileTreeSource};
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub use url::properties::storage_url as storage_url_property;
pub use url::{create_url, open_url};
