//! One parity object: which objects it protects, checks of their blocks, and parity.

use crate::crypto::hash;
use crate::erasure::Code;
use crate::error::{Error, Result};
use crate::id::Digest;
use crate::length::{to_u64, to_usize};
use crate::storage::Key;

/// Bytes of a block.
pub(crate) const BLOCK: u64 = 64 << 10;
pub(crate) const BLOCK_LENGTH: usize = 64 << 10;
/// Largest parity object.
pub(crate) const MOST_BYTES: u64 = 1 << 30;
/// Most bytes that one protects.
pub(crate) const MOST_PROTECTED: u64 = 4 << 30;
const MAGIC: &[u8; 4] = b"BPY1";
const HEADER: usize = 32;
const CHECK: usize = 16;

/// An object that is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) key: Key,
    pub(crate) size: u64,
    /// BLAKE3 of its bytes.
    pub(crate) hash: Digest,
    /// Where it begins among all bytes of the group.
    pub(crate) offset: u64,
}

impl Member {
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(self.size)
    }
}

/// What a parity object says, but for the parity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) columns: u8,
    pub(crate) rows: u8,
    /// Stripes: blocks go to them in turn.
    pub(crate) depth: u32,
    /// Ascending by key, one behind the other.
    pub(crate) members: Vec<Member>,
    /// Checks of the blocks.
    pub(crate) checks: Vec<[u8; CHECK]>,
}

/// Blocks that `length` bytes fill.
pub(crate) const fn blocks(length: u64) -> u64 {
    length.div_ceil(BLOCK)
}

/// The check of a block.
pub(crate) fn check(block: &[u8]) -> [u8; CHECK] {
    let mut out = [0; CHECK];
    out.iter_mut().zip(hash::digest(block).as_bytes()).for_each(|(out, byte)| *out = *byte);
    out
}

impl Group {
    pub(crate) fn length(&self) -> u64 {
        self.members.last().map_or(0, Member::end)
    }

    pub(crate) fn code(&self) -> Result<Code> {
        Code::new(self.columns, self.rows).ok_or(Error::Internal("parity without a code"))
    }

    /// The blocks of a stripe, in their order in it.
    pub(crate) fn blocks_of(&self, stripe: u64) -> impl Iterator<Item = u64> + use<> {
        let (count, depth) = (to_u64(self.checks.len()), u64::from(self.depth).max(1));
        (stripe..count).step_by(usize::try_from(depth).unwrap_or(usize::MAX))
    }

    /// Where the parity block of a row of a stripe begins in the object.
    pub(crate) fn parity_offset(&self, head: u64, stripe: u64, row: u64) -> u64 {
        let number = row.saturating_mul(u64::from(self.depth)).saturating_add(stripe);
        head.saturating_add(number.saturating_mul(BLOCK))
    }

    /// Everything before the parity.
    pub(crate) fn encode_head(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[self.columns, self.rows, 0, 0]);
        out.extend_from_slice(&self.depth.to_le_bytes());
        out.extend_from_slice(&u32::try_from(self.members.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&self.length().to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        for member in &self.members {
            let key = member.key.as_str().as_bytes();
            out.extend_from_slice(&member.size.to_le_bytes());
            out.extend_from_slice(member.hash.as_bytes());
            out.extend_from_slice(&u16::try_from(key.len()).unwrap_or(u16::MAX).to_le_bytes());
            out.extend_from_slice(key);
        }
        self.checks.iter().for_each(|check| out.extend_from_slice(check));
        out
    }

    /// Reads a parity object. Returns the group and where the parity begins.
    pub(crate) fn decode(bytes: &[u8], name: &str) -> Result<(Self, u64)> {
        read(bytes, to_u64(bytes.len())).ok_or_else(|| Error::damaged("parity", name, "it is not well-formed"))
    }

    /// Reads what stands before the parity of an object of `size` bytes, if it is well-formed.
    pub(crate) fn decode_head(head: &[u8], size: u64) -> Option<Self> {
        read(head, size).map(|(group, _)| group)
    }
}

/// Where the parity begins in an object of `size` bytes that begins with `bytes`.
pub(crate) fn head_length(bytes: &[u8], size: u64) -> Option<u64> {
    let (header, _) = bytes.split_first_chunk::<HEADER>()?;
    let [_, rows, _, _, d0, d1, d2, d3, ..] = header.strip_prefix(MAGIC)? else { return None };
    let depth = u32::from_le_bytes([*d0, *d1, *d2, *d3]);
    size.checked_sub(parity_length(*rows, depth))
}

fn parity_length(rows: u8, depth: u32) -> u64 {
    u64::from(rows).saturating_mul(u64::from(depth)).saturating_mul(BLOCK)
}

/// Reads the beginning of an object of `size` bytes, at least up to its parity.
fn read(bytes: &[u8], size: u64) -> Option<(Group, u64)> {
    let (header, mut rest) = bytes.split_first_chunk::<HEADER>()?;
    let fields = header.strip_prefix(MAGIC)?;
    let [columns, rows, 0, 0, d0, d1, d2, d3, c0, c1, c2, c3, fields @ ..] = fields else { return None };
    let depth = u32::from_le_bytes([*d0, *d1, *d2, *d3]);
    let count = u32::from_le_bytes([*c0, *c1, *c2, *c3]);
    let length = u64::from_le_bytes(*fields.strip_suffix(&[0; 8])?.first_chunk::<8>()?);
    Code::new(*columns, *rows)?;
    let number = blocks(length);
    let room = u64::from(*columns).saturating_mul(u64::from(depth));
    if depth == 0 || length > MOST_PROTECTED || number < u64::from(depth) || number > room {
        return None;
    }
    let mut members: Vec<Member> = Vec::new();
    for _ in 0..count {
        let (size, fields) = rest.split_first_chunk::<8>()?;
        let (hash, fields) = fields.split_first_chunk::<32>()?;
        let (key_length, fields) = fields.split_first_chunk::<2>()?;
        let (key, fields) = fields.split_at_checked(usize::from(u16::from_le_bytes(*key_length)))?;
        rest = fields;
        let key = Key::new(std::str::from_utf8(key).ok()?).ok()?;
        let offset = members.last().map_or(0, Member::end);
        let is_behind = members.last().is_none_or(|last| last.key < key);
        let member = Member { key, size: u64::from_le_bytes(*size), hash: Digest::new(*hash), offset };
        if !is_behind || member.end() > length {
            return None;
        }
        members.push(member);
    }
    let (checks, parity) = rest.split_at_checked(to_usize(number, "checks").ok()?.checked_mul(CHECK)?)?;
    let (checks, _) = checks.as_chunks::<CHECK>();
    let group = Group { columns: *columns, rows: *rows, depth, members, checks: checks.to_vec() };
    let head = to_u64(bytes.len()).saturating_sub(to_u64(parity.len()));
    let is_whole = group.length() == length && size.checked_sub(head) == Some(parity_length(*rows, depth));
    is_whole.then_some((group, head))
}

/// A parity object of two members, without its parity.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn seed() -> Vec<u8> {
    let member = |key: &'static str, size, offset| Member {
        key: Key::built(key.to_owned()),
        size,
        hash: hash::digest(key.as_bytes()),
        offset,
    };
    let members = vec![member("config", 100, 0), member("packs/00/x", 200_000, 100)];
    Group { columns: 128, rows: 2, depth: 3, members, checks: vec![[7; CHECK]; 4] }.encode_head()
}

/// A parity object is refused or, written again, the same bytes.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn property(bytes: &[u8]) {
    // Parity is long and says nothing: zeros stand for it.
    let mut object = bytes.to_vec();
    let number = |at: usize| object.get(at).copied().map_or(0, u64::from);
    let parity = number(5).saturating_mul(number(8)).saturating_mul(BLOCK).min(64 * BLOCK);
    object.resize(object.len().saturating_add(usize::try_from(parity).unwrap_or_default()), 0);
    if let Ok((group, head)) = Group::decode(&object, "fuzz") {
        assert_eq!(Some(&*group.encode_head()), usize::try_from(head).ok().and_then(|head| object.get(..head)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_as_written_and_nothing_else_is() {
        let member = |key: &str, size, offset| Member {
            key: Key::new(key).unwrap(),
            size,
            hash: hash::digest(key.as_bytes()),
            offset,
        };
        let members = vec![member("config", 100, 0), member("packs/00/x", 200_000, 100)];
        let group = Group { columns: 128, rows: 2, depth: 3, members, checks: vec![[7; 16]; 4] };
        let mut bytes = group.encode_head();
        let head = bytes.len();
        bytes.resize(head + 6 * BLOCK_LENGTH, 1);
        assert_eq!(Group::decode(&bytes, "x").unwrap(), (group.clone(), to_u64(head)));
        assert_eq!(group.blocks_of(0).collect::<Vec<_>>(), [0, 3]);
        let size = to_u64(bytes.len());
        assert_eq!(head_length(&bytes[..HEADER], size), Some(to_u64(head)));
        for length in head..bytes.len() {
            assert_eq!(Group::decode_head(&bytes[..length], size).as_ref(), Some(&group));
        }
        for (length, size) in [(head - 1, size), (head, size - 1), (head, size + 1), (HEADER - 1, size)] {
            assert_eq!(Group::decode_head(&bytes[..length], size), None, "{length} of {size}");
        }
        for length in (0..=head).chain([bytes.len() - 1]) {
            assert!(Group::decode(&bytes[..length], "x").is_err());
        }
        for at in 0..head {
            let mut changed = bytes.clone();
            changed[at] ^= 0x40;
            if let Ok((read, _)) = Group::decode(&changed, "x") {
                assert_eq!(read.encode_head(), changed[..head], "one encoding for one group");
            }
        }
    }
}
