//! Real storage, real files and real commands for [`backup_core`]. Unix only.
//!
//! To begin: [`open_url`] and [`create_url`] give the storage, [`OsClock`] the clock that
//! [`Repository`](backup_core::repository::Repository) takes; [`FileTreeSource`], [`ImageSource`] and [`CommandSource`] are what a
//! backup is made of, [`FileTreeSink`], [`FileSink`] and [`CommandSink`] where it is restored to. The README of the project is a
//! whole program.
//!
//! * [`local`]: repositories in a local directory; [`url`]: repositories by their address.
//! * `object` (features `object`, or `s3`, `gs`, `az`): repositories in object storage.
//! * [`tree`]: files and directories as a source and as a target.
//! * [`image`]: disk images and block devices as a source and as a target.
//! * [`command`]: the output and the input of commands.
//! * [`cache`]: copies of what a remote repository is asked for often; [`limits`]: how fast it and sources are used.
//! * [`clock`]: the operating system's clock.
//!
//! Nothing here retries, except requests to object storage, within bounds. No thread outlives the value that started
//! it, except one that waits for the end of a command's error output.
#![forbid(unsafe_code)]

#[cfg(not(unix))]
compile_error!("backup-adapters needs a Unix system");

pub mod cache;
pub mod clock;
pub mod command;
pub mod image;
pub mod limits;
pub mod local;
#[cfg(feature = "object-client")]
pub mod object;
pub mod tree;
pub mod url;

mod directory;
mod new_file;
mod sparse;

pub use cache::{Cache, CachedStorage};
pub use clock::OsClock;
pub use command::{CommandSink, CommandSource};
pub use image::{FileSink, ImageSource, SharedFile};
pub use limits::Limits;
pub use local::LocalStorage;
#[cfg(feature = "object-client")]
pub use object::ObjectStorage;
pub use tree::{FileTreeSink, FileTreeSource};
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub use url::properties::storage_url as storage_url_property;
pub use url::{create_url, open_url};
