//! Properties of everything that reads untrusted bytes, as functions of arbitrary bytes. They return where the
//! property holds and panic where it does not. A fuzzer calls them with bytes of its own (`fuzz/`), a test with
//! the bytes that are kept in `tests/corpus`; see `docs/testing.md`.
//!
//! What every one of them asserts: no panic; a refusal is an error that blames the bytes; what is accepted is, written
//! again, the same bytes (structured bodies without fields that may be ignored).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a property that does not hold must stop the program"
)]

mod formats;
mod objects;
mod reference;
mod seeds;
mod text;

pub use self::formats::{backup_body, cbor, closure, config, is_structured, key_slot, keyring, record};
pub use self::objects::{decompress, index_segment, pack, sealed_object};
pub use self::seeds::seeds;
pub use self::text::text;
pub use crate::archive::properties::archive;
pub use crate::content::properties::{entry, page};

pub(crate) use self::reference::{Item, without_ignorable};

use crate::error::{Error, ErrorKind, Result};

/// A property of arbitrary bytes.
pub type Property = fn(&[u8]);

/// Every property of this crate that needs no repository, by the name of its target.
pub const PROPERTIES: [(&str, Property); 16] = [
    ("archive", archive),
    ("backup_body", backup_body),
    ("cbor", cbor),
    ("closure", closure),
    ("config", config),
    ("decompress", decompress),
    ("entry", entry),
    ("index_segment", index_segment),
    ("key_slot", key_slot),
    ("keyring", keyring),
    ("pack", pack),
    ("page", page),
    ("parity", parity),
    ("record", record),
    ("sealed_object", sealed_object),
    ("text", text),
];

/// A parity object is refused or, written again, the same bytes.
pub fn parity(bytes: &[u8]) {
    crate::parity::property(bytes);
}

/// What was read. An error must blame the bytes, not the program, the storage or the caller.
pub(crate) fn judged<T>(result: Result<T>) -> Option<T> {
    result.map_err(|error| assert_blames_bytes(&error)).ok()
}

pub(crate) fn assert_blames_bytes(error: &Error) {
    let kind = error.kind();
    let blames = matches!(kind, ErrorKind::Damaged | ErrorKind::Unsupported | ErrorKind::LimitExceeded);
    assert!(blames, "an error of another kind than bytes can cause: {error:?}");
    assert!(
        !error.to_string().chars().any(|character| matches!(character, '\0' | '\x1b')),
        "it steers terminals: {error:?}"
    );
}
