//! Values of the command line that have a text form of their own: ranges, sizes, labels, paths.

#[cfg(test)]
#[path = "selection/properties.rs"] // said, because the fuzzer compiles this file from elsewhere
mod properties;

use std::ffi::OsStr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use backup_core::content::EntryPath;
use backup_core::id::BackupId;
use serde::Deserialize;
use serde::de::Error as _;

use crate::exit::Failure;

/// `OFFSET:LENGTH` in bytes; both take the suffixes of [`parse_size`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ByteRange(pub(crate) Range<u64>);

impl std::str::FromStr for ByteRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (offset, length) = text.split_once(':').ok_or("not of the form OFFSET:LENGTH")?;
        let (offset, length) = (parse_size(offset)?, parse_size(length)?);
        let end = offset.checked_add(length).ok_or("it ends beyond 2^64")?;
        Ok(Self(offset..end))
    }
}

/// A number of bytes: digits, and K, M, G or T (powers of 1024), optionally followed by `iB`.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = text.split_at(digits);
    let shift = match suffix.strip_suffix("iB").unwrap_or(suffix) {
        "" if suffix.is_empty() => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(format!("not a number of bytes: {text:?}")),
    };
    let number: u64 = number.parse().map_err(|_| format!("not a number of bytes: {text:?}"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("too large: {text}"))
}

/// Bytes per second, as [`parse_size`], and not 0.
pub(crate) fn parse_rate(text: &str) -> Result<u64, String> {
    match parse_size(text)? {
        0 => Err("nothing would ever be done".to_owned()),
        rate => Ok(rate),
    }
}

/// A duration: a number and its unit, s, m, h, d, w or y (365 days).
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("not a number with s, m, h, d, w or y: {text:?}");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        "y" => 365 * 86_400,
        _ => return Err(wrong()),
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

/// `KEY=VALUE`.
pub(crate) fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("not of the form KEY=VALUE".to_owned()),
    }
}

/// The id of a backup, or at least four digits of its beginning.
pub(crate) fn parse_id_beginning(text: &str) -> Result<String, String> {
    let is_hexadecimal = text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    if is_hexadecimal && (4..=BackupId::LENGTH * 2).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err(format!("not the id of a backup, nor four or more digits of its beginning: {text:?}"))
    }
}

/// A share: more than 0, at most 1.
pub(crate) fn parse_fraction(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(fraction) if fraction > 0.0 && fraction <= 1.0 => Ok(fraction),
        _ => Err("not a number above 0 and up to 1".to_owned()),
    }
}

/// The path of an entry as it was typed: its bytes, whatever their encoding.
pub(crate) fn entry_path(text: &OsStr) -> Result<EntryPath, Failure> {
    // Shells complete directories with a slash.
    let bytes = text.as_bytes();
    let bytes = bytes.strip_suffix(b"/").unwrap_or(bytes);
    EntryPath::new(bytes).map_err(|error| {
        // As people know the file; entries are relative.
        let mut plain = bytes;
        while let Some(rest) = plain.strip_prefix(b"/").or_else(|| plain.strip_prefix(b"./")) {
            plain = rest;
        }
        match EntryPath::new(plain) {
            Ok(path) => Failure::usage(format!(
                "entry paths are not absolute and do not begin with ./: write {path} for {}",
                OsStr::from_bytes(bytes).to_string_lossy()
            )),
            Err(_) => error.into(),
        }
    })
}

/// A change map: a JSON list of `[offset, length]`.
#[derive(Debug)]
pub(crate) struct ChangeMap(pub(crate) Vec<Range<u64>>);

impl<'de> Deserialize<'de> for ChangeMap {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ranges = Vec::<(u64, u64)>::deserialize(deserializer)?;
        let ranges = ranges.into_iter().map(|(offset, length)| {
            let end = offset.checked_add(length);
            end.map(|end| offset..end)
                .ok_or_else(|| D::Error::custom(format!("range [{offset}, {length}] ends beyond 2^64")))
        });
        ranges.collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_hold_for_the_corpus() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/command_line");
        let mut count = 0;
        for file in std::fs::read_dir(directory).unwrap() {
            properties::command_line(&std::fs::read(file.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "{directory} is empty");
    }

    #[test]
    fn ranges_and_sizes() {
        assert_eq!("0:10".parse(), Ok(ByteRange(0..10)));
        assert_eq!("1K:2M".parse(), Ok(ByteRange(1024..1024 + (2 << 20))));
        assert_eq!(parse_size("3GiB"), Ok(3 << 30));
        assert_eq!(parse_size("1T"), Ok(1 << 40));
        for bad in ["", "1", ":", "1:", ":1", "a:b", "1:-1", "18446744073709551615:1", "1KB:1", "1iB:1"] {
            assert!(bad.parse::<ByteRange>().is_err(), "{bad}");
        }
        assert!(parse_size("18446744073709551615K").is_err());
    }

    #[test]
    fn labels_and_fractions() {
        assert_eq!(parse_label("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(parse_label("=b").is_err());
        assert!(parse_label("a").is_err());
        assert_eq!(parse_fraction("0.5"), Ok(0.5));
        for bad in ["0", "-1", "1.1", "NaN", "inf", ""] {
            assert!(parse_fraction(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn change_maps_are_lists_of_offset_and_length() {
        let map: ChangeMap = serde_json::from_str("[[10,5],[0,4]]").unwrap();
        assert_eq!(map.0, [10..15, 0..4]);
        assert!(serde_json::from_str::<ChangeMap>("[]").unwrap().0.is_empty());
        for bad in ["{}", "[[1]]", "[[1,2,3]]", "[[-1,2]]", "[[18446744073709551615,1]]", "[1,2]"] {
            assert!(serde_json::from_str::<ChangeMap>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn entry_paths_are_bytes() {
        assert_eq!(entry_path(OsStr::from_bytes(b"a/\xff/")).unwrap().as_bytes(), b"a/\xff");
        for bad in ["", "/", "/a", "../a", "a//"] {
            assert!(entry_path(OsStr::new(bad)).is_err(), "{bad}");
        }
        for (typed, meant) in [("/etc/passwd", "etc/passwd"), ("./a/b/", "a/b"), (".//a", "a")] {
            let Err(Failure::Usage(message)) = entry_path(OsStr::new(typed)) else { panic!("{typed}") };
            assert!(message.contains(&format!("write {meant} for")), "{message}");
        }
        assert!(!format!("{:?}", entry_path(OsStr::new("/../a")).unwrap_err()).contains("write"));
    }
}
