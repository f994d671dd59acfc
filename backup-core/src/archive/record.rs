//! The stream of data: objects one behind the other, each with a header by which it is found without anything else.

use crate::crypto::hash;
use crate::error::{Error, Result};
use crate::id::Digest;
use crate::length::to_u64;
use crate::storage::Key;

/// Records begin at multiples of this, and so do their contents.
pub(crate) const ALIGNMENT: u64 = 64;
/// The longest header: that of the longest key.
pub(crate) const MOST_HEADER: usize = 320;
const MAGIC: [u8; 8] = [0x89, b'B', b'K', b'O', b'B', 0x0d, 0x0a, 0x1a];
const END_MAGIC: [u8; 8] = [0x89, b'B', b'K', b'E', b'N', 0x0d, 0x0a, 0x1a];
/// Bytes before the key.
const FIXED: usize = 72;
/// Bytes that the check covers, with the key.
const CHECKED: usize = 56;

/// The header of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The storage key; `None` for the table of contents.
    pub(crate) key: Option<Key>,
    /// Bytes of the object.
    pub(crate) size: u64,
    /// BLAKE3 of the object.
    pub(crate) hash: Digest,
}

/// The number of bytes up to the next place where a record can begin.
pub(crate) fn padding(length: u64) -> u64 {
    length.wrapping_neg() & ALIGNMENT.wrapping_sub(1)
}

impl Record {
    fn key_bytes(&self) -> &[u8] {
        self.key.as_ref().map_or(&[], |key| key.as_str().as_bytes())
    }

    /// Bytes of the header, zeros behind the key included.
    pub(crate) fn header_length(&self) -> u64 {
        let length = to_u64(FIXED).saturating_add(to_u64(self.key_bytes().len()));
        length.saturating_add(padding(length))
    }

    /// Bytes of header, object and zeros behind them.
    pub(crate) fn length(&self) -> u64 {
        self.header_length().saturating_add(self.size).saturating_add(padding(self.size))
    }

    /// The header.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let key = self.key_bytes();
        let key_length = u16::try_from(key.len()).unwrap_or(u16::MAX);
        let mut out = Vec::with_capacity(MOST_HEADER);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.size.to_le_bytes());
        out.extend_from_slice(&key_length.to_le_bytes());
        out.extend_from_slice(&[0; 6]);
        out.extend_from_slice(self.hash.as_bytes());
        let check = check(&out, key);
        out.extend_from_slice(&check);
        out.extend_from_slice(key);
        out.resize(out.len().next_multiple_of(64), 0);
        out
    }

    /// Reads a header at the beginning of `bytes`; `None` where there is none.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (fixed, rest) = bytes.split_first_chunk::<FIXED>()?;
        let (checked, found) = fixed.split_at_checked(CHECKED)?;
        let fields = checked.strip_prefix(&MAGIC)?;
        let (size, fields) = fields.split_first_chunk::<8>()?;
        let (key_length, fields) = fields.split_first_chunk::<2>()?;
        let hash = fields.strip_prefix(&[0; 6])?.first_chunk::<32>()?;
        let key = rest.get(..usize::from(u16::from_le_bytes(*key_length)))?;
        if found != check(checked, key) {
            return None;
        }
        let key = match key {
            [] => None,
            key => Some(Key::new(std::str::from_utf8(key).ok()?).ok()?),
        };
        Some(Self { key, size: u64::from_le_bytes(*size), hash: Digest::new(*hash) })
    }
}

/// Whether a header may begin here.
pub(crate) fn begins(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// The last 64 bytes of the data: where the two tables of contents begin.
pub(crate) fn encode_end(tables: [u64; 2]) -> [u8; 64] {
    let mut out = [0; 64];
    let [first, second] = tables.map(u64::to_le_bytes);
    let parts: [&[u8]; 3] = [&END_MAGIC, &first, &second];
    out.iter_mut().zip(parts.into_iter().flatten()).for_each(|(out, byte)| *out = *byte);
    let (checked, _) = out.split_at(48);
    let check = check(checked, &[]);
    out.iter_mut().rev().zip(check.iter().rev()).for_each(|(out, byte)| *out = *byte);
    out
}

/// Reads them; `None` where they say nothing.
pub(crate) fn decode_end(bytes: &[u8]) -> Option<[u64; 2]> {
    let (checked, found) = bytes.split_at_checked(48)?;
    if found != check(checked, &[]) {
        return None;
    }
    let rest = checked.strip_prefix(&END_MAGIC)?;
    let (first, rest) = rest.split_first_chunk::<8>()?;
    Some([u64::from_le_bytes(*first), u64::from_le_bytes(*rest.first_chunk::<8>()?)])
}

fn check(checked: &[u8], key: &[u8]) -> [u8; 16] {
    let digest = hash::digest_of_parts(&[checked, key]);
    let mut out = [0; 16];
    out.iter_mut().zip(digest.as_bytes()).for_each(|(out, byte)| *out = *byte);
    out
}

/// Gives every record and the end of `data` the check that its bytes have: so that a fuzzer reaches what is behind.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn make_checks_fit(data: &mut [u8]) {
    let step = usize::try_from(ALIGNMENT).unwrap_or(64);
    for at in (0..data.len()).step_by(step) {
        let Some(rest) = data.get_mut(at..) else { return };
        let (covered, key) = if rest.starts_with(&MAGIC) {
            let length = rest.get(16..18).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u16::from_le_bytes(*bytes));
            (CHECKED, rest.get(FIXED..).and_then(|key| key.get(..usize::from(length))).unwrap_or_default().to_vec())
        } else if rest.starts_with(&END_MAGIC) {
            (48, Vec::new())
        } else {
            continue;
        };
        let Some((checked, behind)) = rest.split_at_mut_checked(covered) else { continue };
        let check = check(checked, &key);
        behind.iter_mut().zip(check).for_each(|(out, byte)| *out = byte);
    }
}

/// A record and where its header begins in the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) offset: u64,
    pub(crate) record: Record,
}

impl Placed {
    /// Where the object begins.
    pub(crate) fn content(&self) -> u64 {
        self.offset.saturating_add(self.record.header_length())
    }

    /// Where it ends.
    pub(crate) fn end(&self) -> u64 {
        self.content().saturating_add(self.record.size)
    }
}

const TABLE_MAGIC: &[u8; 8] = b"BTC1\0\0\0\0";
const TABLE_HEADER: usize = 16;
const TABLE_ENTRY: usize = 50;
/// Largest table of contents.
pub(crate) const MOST_TABLE: u64 = 1 << 30;

/// Bytes of the table of contents of records with these keys.
pub(crate) fn table_length<'k>(keys: impl Iterator<Item = &'k Key>) -> u64 {
    keys.fold(to_u64(TABLE_HEADER), |sum, key| {
        sum.saturating_add(to_u64(TABLE_ENTRY)).saturating_add(to_u64(key.as_str().len()))
    })
}

/// The table of contents: offset, size, hash and key of every object, in the order of their places.
pub(crate) fn encode_table(records: &[Placed]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(TABLE_MAGIC);
    out.extend_from_slice(&to_u64(records.len()).to_le_bytes());
    for placed in records {
        let key = placed.record.key_bytes();
        out.extend_from_slice(&placed.offset.to_le_bytes());
        out.extend_from_slice(&placed.record.size.to_le_bytes());
        out.extend_from_slice(placed.record.hash.as_bytes());
        out.extend_from_slice(&u16::try_from(key.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(key);
    }
    out
}

/// Reads a table of contents of data of `length` bytes.
pub(crate) fn decode_table(bytes: &[u8], length: u64) -> Result<Vec<Placed>> {
    read_table(bytes, length).ok_or_else(|| Error::damaged("archive", "table of contents", "it is not well-formed"))
}

fn read_table(bytes: &[u8], length: u64) -> Option<Vec<Placed>> {
    let rest = bytes.strip_prefix(TABLE_MAGIC)?;
    let (count, mut rest) = rest.split_first_chunk::<8>()?;
    let mut records: Vec<Placed> = Vec::new();
    while let Some((offset, fields)) = rest.split_first_chunk::<8>() {
        let (size, fields) = fields.split_first_chunk::<8>()?;
        let (hash, fields) = fields.split_first_chunk::<32>()?;
        let (key_length, fields) = fields.split_first_chunk::<2>()?;
        let (key, fields) = fields.split_at_checked(usize::from(u16::from_le_bytes(*key_length)))?;
        rest = fields;
        let key = Key::new(std::str::from_utf8(key).ok()?).ok()?;
        let record = Record { key: Some(key), size: u64::from_le_bytes(*size), hash: Digest::new(*hash) };
        let placed = Placed { offset: u64::from_le_bytes(*offset), record };
        let begins_behind = records.last().map_or(0, Placed::end);
        if placed.offset < begins_behind || placed.end() > length || padding(placed.offset) != 0 {
            return None;
        }
        records.push(placed);
    }
    (rest.is_empty() && u64::from_le_bytes(*count) == to_u64(records.len())).then_some(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, size: u64) -> Record {
        Record { key: Some(Key::new(key).unwrap()), size, hash: hash::digest(key.as_bytes()) }
    }

    #[test]
    fn records_are_read_as_written_and_no_changed_bit_passes() {
        let table = Record { key: None, ..record("x", 5) };
        for record in [record("config", 0), record(&"k".repeat(100), u64::from(u32::MAX)), table] {
            let bytes = record.encode();
            assert_eq!(to_u64(bytes.len()), record.header_length());
            assert!(bytes.len() <= MOST_HEADER && record.length() % ALIGNMENT == 0);
            assert_eq!(Record::decode(&bytes), Some(record.clone()));
            let used = FIXED + record.key_bytes().len();
            for bit in 0..used * 8 {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Record::decode(&changed), None, "bit {bit}");
            }
            for length in 0..used {
                assert_eq!(Record::decode(&bytes[..length]), None);
            }
        }
        let end = encode_end([64, 1 << 40]);
        assert_eq!(decode_end(&end), Some([64, 1 << 40]));
        for bit in 0..512 {
            let mut changed = end;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_end(&changed), None);
        }
    }

    #[test]
    fn tables_are_read_as_written_and_fit_the_data() {
        let mut records = Vec::new();
        let mut offset = 0;
        for (key, size) in [("config", 100), ("packs/00/x", 1 << 20), ("config", 100)] {
            let placed = Placed { offset, record: record(key, size) };
            offset += placed.record.length();
            records.push(placed);
        }
        let bytes = encode_table(&records);
        assert_eq!(to_u64(bytes.len()), table_length(records.iter().filter_map(|placed| placed.record.key.as_ref())));
        assert_eq!(decode_table(&bytes, offset).unwrap(), records);
        assert!(decode_table(&bytes, records[2].end() - 1).is_err(), "beyond the end");
        for length in 0..bytes.len() {
            assert!(decode_table(&bytes[..length], offset).is_err());
        }
        records.swap(0, 2);
        assert!(decode_table(&encode_table(&records), offset).is_err(), "out of order");
    }
}
