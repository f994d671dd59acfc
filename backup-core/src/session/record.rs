//! Signed records: plain objects whose author is proved, readable without the password.

use std::fmt;

use crate::crypto::{SIGNATURE_LENGTH, SigningKey, VerifyingKey};
use crate::error::{Error, Result};
use crate::format::cbor;

/// Wraps `payload` with a signature over `label || 00 || BLAKE3(payload)`.
///
/// # Errors
///
/// [`Error::Internal`] where the profile of structured bodies is broken.
pub(crate) fn seal(label: &'static str, payload: &[u8], key: &SigningKey) -> Result<Vec<u8>> {
    let signature = key.sign(label, payload);
    cbor::encode_map(|map| {
        map.text(1, label);
        map.bytes(2, payload);
        map.bytes(3, &signature);
    })
}

/// A record whose signature was verified.
pub(crate) struct Opened<'b> {
    pub(crate) label: &'static str,
    pub(crate) payload: &'b [u8],
}

/// Takes a record apart and verifies it with the key that its label asks for.
///
/// # Errors
///
/// [`Error::Damaged`] for anything but a record of one of `labels` with a valid signature.
pub(crate) fn open<'b>(
    bytes: &'b [u8],
    labels: &[(&'static str, &VerifyingKey)],
    what: &'static str,
    name: &'b dyn fmt::Display,
) -> Result<Opened<'b>> {
    let mut map = cbor::decode(bytes, what, name)?.map()?;
    let label = map.required(1)?.text()?;
    let payload = map.required(2)?.bytes()?;
    let signature = map.required(3)?.fixed::<SIGNATURE_LENGTH>()?;
    map.finish()?;
    let Some((label, key)) = labels.iter().find(|(known, _)| *known == label) else {
        return Err(Error::damaged(what, name, "a record of another type"));
    };
    if !key.verify(label, payload, &signature) {
        return Err(Error::damaged(what, name, "its signature is not valid"));
    }
    Ok(Opened { label, payload })
}
