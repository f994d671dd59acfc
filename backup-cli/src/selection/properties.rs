//! Properties of what reads texts and files that the caller of the command names, as functions of arbitrary bytes: for
//! the fuzzer (`fuzz/fuzz_targets/command_line.rs`) and for the tests of this crate, which replay its corpus.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use backup_core::repository::VerificationLedger;

use crate::selection::{ByteRange, ChangeMap, entry_path, parse_fraction, parse_label, parse_size};

/// Sizes, ranges, labels, shares, paths, change maps and ledgers: the same bytes for each.
pub(crate) fn command_line(bytes: &[u8]) {
    change_map(bytes);
    ledger(bytes);
    if let Ok(path) = entry_path(OsStr::from_bytes(bytes)) {
        let without_slash = bytes.strip_suffix(b"/").unwrap_or(bytes);
        assert_eq!(path.as_bytes(), without_slash);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    assert_eq!(parse_size(text).ok(), size(text));
    let range = text.parse::<ByteRange>().ok().map(|range| range.0);
    assert_eq!(
        range,
        text.split_once(':').and_then(|(offset, length)| {
            let offset = size(offset)?;
            Some(offset..offset.checked_add(size(length)?)?)
        })
    );
    if let Ok((key, value)) = parse_label(text) {
        assert!(!key.is_empty() && !key.contains('='));
        assert_eq!(format!("{key}={value}"), text);
    }
    if let Ok(fraction) = parse_fraction(text) {
        assert!(0.0 < fraction && fraction <= 1.0);
    }
}

/// A size as docs/cli.md defines it, read the slow way.
fn size(text: &str) -> Option<u64> {
    let suffixes = ["K", "M", "G", "T"].iter().zip([10, 20, 30, 40]);
    let (number, shift) = suffixes
        .flat_map(|(suffix, shift)| [(suffix.to_string(), shift), (format!("{suffix}iB"), shift)])
        .find_map(|(suffix, shift)| Some((text.strip_suffix(&*suffix)?, shift)))
        .unwrap_or((text, 0));
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = number.bytes().try_fold(0u128, |sum, digit| {
        let sum = sum * 10 + u128::from(digit - b'0');
        (sum < 1 << 64).then_some(sum)
    })?;
    u64::try_from(number << shift).ok()
}

fn change_map(bytes: &[u8]) {
    let Ok(map) = serde_json::from_slice::<ChangeMap>(bytes) else { return };
    let pairs: Vec<(u64, u64)> = serde_json::from_slice(bytes).expect("a change map is a list of pairs");
    assert!(map.0.iter().all(|range| range.start <= range.end));
    assert!(map.0.iter().map(|range| (range.start, range.end - range.start)).eq(pairs));
}

fn ledger(bytes: &[u8]) {
    let Ok(ledger) = serde_json::from_slice::<VerificationLedger>(bytes) else { return };
    let again = serde_json::to_vec(&ledger).expect("what was read can be written");
    let read: VerificationLedger = serde_json::from_slice(&again).expect("what was written can be read");
    assert_eq!(read, ledger);
    assert_eq!(read.oldest(), ledger.oldest());
}
