//! The strict deterministic CBOR profile of every structured body (`docs/format.md`, "Structured bodies").
//!
//! A document is validated as a whole before anything of it is used: one item, definite lengths,
//! shortest integers, map keys unsigned and strictly ascending, text in UTF-8, nothing but unsigned
//! and negative integers of 64 bits, byte and text strings, booleans, arrays and maps, nested at most
//! [`CBOR_DEPTH`](crate::limits::CBOR_DEPTH) deep, no byte behind it. So every document has exactly
//! one encoding, and readers of parts can rely on it. Nothing is allocated for a count.
//!
//! ```text
//! let bytes = cbor::encode_map(|map| {
//!     map.u64(1, 7);
//!     map.array(2, |array| { array.bytes(b"x"); array.map(|inner| inner.text(1, "y")); });
//! })?;
//! let mut map = cbor::decode(&bytes, "commit", &key)?.map()?;
//! let number = map.required(1)?.u64()?;
//! for value in map.required(2)?.array()? { ... }
//! let digest = map.optional(3)?.map(|value| value.fixed::<32>()).transpose()?;
//! map.finish()?;
//! ```
//!
//! Fields are read in ascending order of their keys. An unknown key below 128 is an error: it changes
//! the meaning of the body. An unknown key from 128 on is skipped: later versions add information there.

mod reader;
mod validate;
mod writer;

pub(crate) use self::reader::{ArrayReader, MapReader, Value, decode};
#[cfg(any(test, feature = "testing"))]
pub(crate) use self::validate::validate;
pub(crate) use self::writer::{ArrayWriter, MapWriter, encode_map, encode_map_with_capacity};

#[cfg(test)]
mod tests;
