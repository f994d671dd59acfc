//! Secret keys of 32 bytes as text: Bech32m (BIP 350) with a prefix that says what the key is.

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32m, Hrp};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::secret::Secret;

/// Reads the text form of `what`, in lower or upper case. White space and hyphens do not matter.
///
/// # Errors
///
/// [`Error::InvalidArgument`]; it does not repeat the text.
pub(crate) fn parse(prefix: &str, what: &str, text: &str) -> Result<Secret<32>> {
    let invalid = |reason: &str| Error::invalid(what, reason);
    let mut compact = Zeroizing::new(String::with_capacity(text.len()));
    compact.extend(text.chars().filter(|character| !character.is_whitespace() && *character != '-'));
    let parsed = CheckedHrpstring::new::<Bech32m>(&compact)
        .map_err(|_| invalid("mistyped or incomplete: its checksum does not match"))?;
    if !parsed.hrp().as_str().eq_ignore_ascii_case(prefix) {
        return Err(Error::invalid(what, format!("does not begin with {prefix}1")));
    }
    // 256 bits take 52 characters with four bits left, which must be zero: one text a key.
    if parsed.data_part_ascii_no_checksum().len() != 52 {
        return Err(invalid("of another length"));
    }
    let key = Secret::build(|bytes| {
        let mut count = 0usize;
        for (out, byte) in bytes.iter_mut().zip(parsed.byte_iter()) {
            *out = byte;
            count = count.saturating_add(1);
        }
        if count == 32 { Ok(()) } else { Err(invalid("of another length")) }
    })?;
    let canonical = write(prefix, &key)?;
    if canonical.eq_ignore_ascii_case(&compact) { Ok(key) } else { Err(invalid("not in its one text form")) }
}

/// The text form.
///
/// # Errors
///
/// [`Error::Internal`]; not expected.
pub(crate) fn write(prefix: &str, key: &Secret<32>) -> Result<Zeroizing<String>> {
    const REFUSED: Error = Error::Internal("Bech32m refused a key");
    let prefix = Hrp::parse(prefix).map_err(|_| REFUSED)?;
    let mut text = Zeroizing::new(String::with_capacity(80));
    bech32::encode_lower_to_fmt::<Bech32m, String>(&mut text, prefix, key.expose()).map_err(|_| REFUSED)?;
    Ok(text)
}
