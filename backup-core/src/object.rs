//! Sealing and opening one encrypted object: the only place where format, cryptography and storage names meet.
//!
//! The plaintext of every object is `LE64(body length) || body || zeros`, cut into frames of one size, so
//! that neither the length of the body nor any boundary in it shows. See `docs/format.md`, "Sealed objects".

mod keys;
mod open;
mod seal;
mod types;

#[cfg(any(test, feature = "testing"))]
pub(crate) use self::keys::frame_nonce;
pub(crate) use self::keys::{FrameKey, GenerationKeys, ObjectKeys, dedup_root};
pub(crate) use self::open::{ObjectReader, name_of, verify_name};
pub(crate) use self::seal::Sealer;
pub(crate) use self::types::ObjectType;

#[cfg(test)]
mod tests;
