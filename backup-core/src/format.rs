//! Bytes of the plain and structured objects (`docs/format.md`).

pub(crate) mod cbor;
pub(crate) mod config;
pub(crate) mod header;
pub(crate) mod keyring;
pub(crate) mod layout;
pub(crate) mod slot;

pub use self::config::{ChunkingParameters, Padding};
