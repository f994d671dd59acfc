//! A backup engine to embed: deduplicated, compressed, encrypted, verifiable backups of streams,
//! file trees and disk images, on storage that nobody has to trust.
//!
//! # Where to begin
//!
//! [`Repository::init`](repository::Repository::init) makes a repository, [`Repository::open`](repository::Repository::open) opens
//! one, [`Repository::begin`](repository::Repository::begin) begins a backup. Both take a [`storage::Storage`], a
//! [`keys::Credential`] (a password, or a recovery key) and a [`repository::Environment`] (clock and randomness); `backup-adapters`
//! has these for directories, object storage and the operating system. With the storage in memory:
//!
//! ```
//! use std::sync::Arc;
//!
//! use backup_core::entropy::OsEntropy;
//! use backup_core::keys::Credential;
//! use backup_core::repository::{BackupKind, BackupOptions, Control, Environment, InitOptions, Repository};
//! use backup_core::secret::Password;
//! use backup_core::storage::MemoryStorage;
//! use backup_core::time::{Clock, Timestamp};
//!
//! struct Noon; // a real program takes `backup_adapters::OsClock`
//! impl Clock for Noon {
//!     fn now(&self) -> Timestamp {
//!         Timestamp::UNIX_EPOCH
//!     }
//! }
//!
//! # fn main() -> backup_core::Result<()> {
//! let storage = Arc::new(MemoryStorage::new());
//! let environment = Environment::new(Arc::new(Noon), Arc::new(OsEntropy));
//! let password = Password::from("correct horse battery staple");
//! let credential = Credential::from(&password);
//! Repository::init(storage.clone(), &credential, &InitOptions::default(), environment.clone())?;
//!
//! let repository = Repository::open(storage, &credential, environment)?;
//! let mut session = repository.begin(BackupOptions::new(BackupKind::Data).with_host("node-1"))?;
//! session.add_stream("dump.sql".parse()?, &mut "CREATE TABLE a (b INT);".as_bytes())?;
//! session.commit()?;
//!
//! let backup = repository.find_backup("latest")?;
//! let mut dump = Vec::new();
//! repository.restore_stream(&repository.entry(&backup, &"dump.sql".parse()?)?, &mut dump, &Control::default())?;
//! assert_eq!(dump, b"CREATE TABLE a (b INT);");
//! # Ok(())
//! # }
//! ```
//!
//! # What this crate does not do
//!
//! It opens no files and no connections, starts no processes and no threads that outlive a call,
//! reads no environment and no clock, prints and logs nothing, retries nothing and never sleeps.
//! Storage, data, time and randomness come from the caller through [`storage::Storage`],
//! [`source`], [`time::Clock`] and [`entropy::Entropy`]. One exception: deriving a key from a password uses the
//! process-wide thread pool of the `argon2` dependency, whose threads stay. The crate `backup-adapters` has
//! implementations for local directories, files, commands and the operating system.
#![forbid(unsafe_code)]
#![warn(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::panic,
    clippy::unreachable,
    clippy::string_slice,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::as_conversions,
        clippy::panic,
        clippy::unreachable,
        clippy::string_slice,
        clippy::arithmetic_side_effects,
        reason = "a test that panics fails, as it should"
    )
)]

pub mod archive;
pub mod content;
pub mod copy;
pub mod crypto;
pub mod entropy;
pub mod error;
pub mod extent;
pub mod id;
pub mod keys;
pub mod limits;
pub mod maintenance;
pub mod parity;
pub mod progress;
pub mod repository;
pub mod secret;
pub mod source;
pub mod storage;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod testing;
pub mod time;

mod chunk;
mod compress;
mod erasure;
mod format;
mod index;
mod length;
mod object;
mod pack;
mod session;
mod sync;

pub use error::{Error, ErrorKind, Result};
