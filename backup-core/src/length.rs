//! Conversions between in-memory sizes and sizes on storage.
//!
//! `as` is linted out of this crate: a silent truncation is a wrong byte. These functions are the
//! only way between `usize` and `u64`, and they say what happens when a value does not fit.

use crate::error::{Error, Result};

/// A size in memory as a size on storage. Never loses anything on platforms of 64 bits or fewer.
#[must_use]
pub(crate) fn to_u64(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// A size on storage as a size in memory.
///
/// # Errors
///
/// [`Error::LimitExceeded`] naming `what` where the platform cannot address so much.
pub(crate) fn to_usize(value: u64, what: &'static str) -> Result<usize> {
    usize::try_from(value).map_err(|_| Error::limit(what, value, to_u64(usize::MAX)))
}

/// A count that the format stores in 32 bits.
///
/// # Errors
///
/// [`Error::LimitExceeded`] naming `what` where it does not fit.
pub(crate) fn to_u32(value: usize, what: &'static str) -> Result<u32> {
    u32::try_from(value).map_err(|_| Error::limit(what, to_u64(value), u64::from(u32::MAX)))
}

/// `u32` as an index; every supported platform has at least 32-bit addresses.
#[must_use]
pub(crate) fn index(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
