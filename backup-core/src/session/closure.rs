//! The closure of a backup: every pack that it needs, in plain, named by a signed commit.
//!
//! With it, somebody without the password checks that a backup is all there, and copies it.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::id::ObjectName;
use crate::length::to_u64;
use crate::limits;

const MAGIC: &[u8; 4] = b"BCL1";
const HEADER_LENGTH: usize = 16;
const ENTRY_LENGTH: usize = 40;

/// Packs and their sizes on storage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Closure {
    pub(crate) packs: BTreeMap<ObjectName, u64>,
}

impl Closure {
    /// The object: "BCL1", four zero bytes, the count (LE64), then name and size (LE64) of each pack,
    /// ascending by name.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let count = to_u64(self.packs.len());
        if count > limits::CLOSURE_PACKS {
            return Err(Error::limit("packs of a backup", count, limits::CLOSURE_PACKS));
        }
        let mut bytes = Vec::with_capacity(self.packs.len().saturating_mul(ENTRY_LENGTH).saturating_add(HEADER_LENGTH));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&count.to_le_bytes());
        for (name, size) in &self.packs {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(&size.to_le_bytes());
        }
        Ok(bytes)
    }

    /// Reads a closure. `name` is its storage key.
    pub(crate) fn decode(bytes: &[u8], name: &str) -> Result<Self> {
        let damaged = |reason: &str| Error::damaged("closure", name, reason);
        let (header, rest) = bytes.split_first_chunk::<HEADER_LENGTH>().ok_or_else(|| damaged("it ends early"))?;
        let [m0, m1, m2, m3, z0, z1, z2, z3, count @ ..] = header;
        if [*m0, *m1, *m2, *m3] != *MAGIC || [*z0, *z1, *z2, *z3] != [0; 4] {
            return Err(damaged("it does not begin as a closure"));
        }
        let mut packs = BTreeMap::new();
        let (entries, tail) = rest.as_chunks::<ENTRY_LENGTH>();
        if !tail.is_empty() || u64::from_le_bytes(*count) != to_u64(entries.len()) {
            return Err(damaged("its length does not fit its count"));
        }
        let mut last = None;
        for entry in entries {
            let (Some(name), Some(size)) = (entry.first_chunk::<32>(), entry.last_chunk::<8>()) else {
                return Err(damaged("it ends early"));
            };
            let pack = ObjectName::new(*name);
            if last.is_some_and(|last| pack <= last) {
                return Err(damaged("its packs are not in ascending order"));
            }
            last = Some(pack);
            packs.insert(pack, u64::from_le_bytes(*size));
        }
        Ok(Self { packs })
    }

    /// Bytes of all packs.
    pub(crate) fn bytes(&self) -> u64 {
        self.packs.values().fold(0, |sum, size| sum.saturating_add(*size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_accepts_nothing_else() {
        for count in 0..4u8 {
            let packs = (0..count).map(|n| (ObjectName::new([n; 32]), u64::from(n) * 7)).collect();
            let closure = Closure { packs };
            let bytes = closure.encode().unwrap();
            assert_eq!(Closure::decode(&bytes, "closure").unwrap(), closure);
            for length in 0..bytes.len() {
                assert!(Closure::decode(&bytes[..length], "closure").is_err());
            }
            for position in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[position] ^= 0x80;
                if let Ok(read) = Closure::decode(&changed, "closure") {
                    assert_eq!(read.encode().unwrap(), changed, "one encoding for one closure");
                }
            }
        }
    }
}
