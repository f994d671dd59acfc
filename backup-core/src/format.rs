//! Bytes of the plain and structured objects (`docs/format.md`).

pub(crate) mod cbor;
