//! A backup engine to embed: deduplicated, compressed, encrypted, verifiable backups of streams,
//! file trees and disk images, on storage that nobody has to trust.
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
