//! Bytes of a key slot: the keyring key, wrapped for one password or recovery key.

use crate::error::{Error, Result};
use crate::id::{RepositoryId, SlotId};
use crate::length::index;

/// Length of a slot.
pub(crate) const SLOT_LENGTH: usize = 256;
/// Longest label in bytes.
pub(crate) const MAX_LABEL: usize = 63;
/// Length of the wrapped key: 32 bytes and a tag.
pub(crate) const WRAPPED_LENGTH: usize = 48;

const MAGIC: [u8; 8] = *b"\x89BKEY\r\n\x1a";
const MAJOR: u8 = 1;
const ARGON2ID: u8 = 1;
const RAW: u8 = 2;
/// The label has a length byte before it.
const LABEL_FIELD: usize = MAX_LABEL + 1;

/// A key slot as it stands on storage. Nothing of it is secret without the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The repository.
    pub(crate) repository: RepositoryId,
    /// The slot.
    pub(crate) id: SlotId,
    /// How the wrapping key is made.
    pub(crate) derivation: Derivation,
    /// A name for people. Not authenticated before the slot is opened.
    pub(crate) label: String,
    /// What only the right wrapping key yields.
    pub(crate) commitment: [u8; 32],
    /// The wrapped keyring key.
    pub(crate) wrapped: [u8; WRAPPED_LENGTH],
}

/// How the wrapping key is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Derivation {
    /// Argon2id of a password.
    Argon2id {
        /// Memory in KiB.
        memory_kib: u32,
        /// Passes.
        iterations: u32,
        /// Lanes.
        parallelism: u32,
        /// The salt.
        salt: [u8; 32],
    },
    /// The recovery key itself.
    Raw,
}

impl Slot {
    /// The bytes on storage.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a label that is too long or has control characters.
    pub(crate) fn encode(&self) -> Result<[u8; SLOT_LENGTH]> {
        check_label(&self.label).map_err(|rule| Error::invalid("label", rule))?;
        let (kdf, memory_kib, iterations, parallelism, salt) = match self.derivation {
            Derivation::Argon2id { memory_kib, iterations, parallelism, salt } => {
                (ARGON2ID, memory_kib, iterations, parallelism, salt)
            }
            Derivation::Raw => (RAW, 0, 0, 0, [0; 32]),
        };
        let mut label = [0; LABEL_FIELD];
        let length = u8::try_from(self.label.len()).unwrap_or_default();
        let text = std::iter::once(&length).chain(self.label.as_bytes());
        label.iter_mut().zip(text).for_each(|(out, byte)| *out = *byte);
        let parts: [&[u8]; 14] = [
            &MAGIC,
            &[MAJOR, kdf, 0, 0],
            &[0; 4],
            self.repository.as_bytes(),
            self.id.as_bytes(),
            &memory_kib.to_le_bytes(),
            &iterations.to_le_bytes(),
            &parallelism.to_le_bytes(),
            &[0; 4],
            &salt,
            &label,
            &[0; 16],
            &self.commitment,
            &self.wrapped,
        ];
        let mut bytes = [0; SLOT_LENGTH];
        bytes.iter_mut().zip(parts.into_iter().flatten()).for_each(|(out, byte)| *out = *byte);
        Ok(bytes)
    }

    /// Parses a slot. `name` is its storage key.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`]; [`Error::Unsupported`] for versions, flags and derivations of later programs.
    pub(crate) fn decode(bytes: &[u8], name: &str) -> Result<Self> {
        let damaged = |reason: &str| Error::damaged("key slot", name, reason);
        let Ok(bytes) = <&[u8; SLOT_LENGTH]>::try_from(bytes) else {
            return Err(damaged(&format!("{} bytes long where {SLOT_LENGTH} must be", bytes.len())));
        };
        let mut rest = bytes.as_slice();
        if take::<8>(&mut rest) != MAGIC {
            return Err(damaged("does not begin like a key slot"));
        }
        let [major, kdf, zeros @ ..]: [u8; 4] = take(&mut rest);
        if major != MAJOR {
            return Err(Error::unsupported("format version", format!("{major} of {name}")));
        }
        let flags = u32::from_le_bytes(take(&mut rest));
        if flags != 0 {
            return Err(Error::unsupported("key slot flags", format!("{flags} of {name}")));
        }
        let repository = RepositoryId::new(take(&mut rest));
        let id = SlotId::new(take(&mut rest));
        let memory_kib = u32::from_le_bytes(take(&mut rest));
        let iterations = u32::from_le_bytes(take(&mut rest));
        let parallelism = u32::from_le_bytes(take(&mut rest));
        let more_zeros: [u8; 4] = take(&mut rest);
        let salt: [u8; 32] = take(&mut rest);
        let label: [u8; LABEL_FIELD] = take(&mut rest);
        let reserved: [u8; 16] = take(&mut rest);
        let commitment = take(&mut rest);
        let wrapped = take(&mut rest);
        if zeros != [0; 2] || more_zeros != [0; 4] || reserved != [0; 16] {
            return Err(damaged("reserved bytes are not zero"));
        }
        let derivation = match kdf {
            ARGON2ID => Derivation::Argon2id { memory_kib, iterations, parallelism, salt },
            RAW if (memory_kib, iterations, parallelism, salt) == (0, 0, 0, [0; 32]) => Derivation::Raw,
            RAW => return Err(damaged("has parameters without a password")),
            other => return Err(Error::unsupported("key derivation", format!("{other} of {name}"))),
        };
        let label = decode_label(&label).map_err(damaged)?;
        Ok(Self { repository, id, derivation, label, commitment, wrapped })
    }

    /// The slot with its commitment and wrapped key zeroed: what the wrapping depends on.
    ///
    /// # Errors
    ///
    /// Those of [`Self::encode`].
    pub(crate) fn bound_bytes(&self) -> Result<[u8; SLOT_LENGTH]> {
        Self { commitment: [0; 32], wrapped: [0; WRAPPED_LENGTH], ..self.clone() }.encode()
    }
}

fn check_label(label: &str) -> Result<(), &'static str> {
    if label.len() > MAX_LABEL {
        return Err("longer than 63 bytes");
    }
    // A label is shown before anything is authenticated: it must not steer a terminal.
    if label.chars().any(char::is_control) {
        return Err("has control characters");
    }
    Ok(())
}

fn decode_label(field: &[u8; LABEL_FIELD]) -> Result<String, &'static str> {
    let [length, text @ ..] = field;
    let (text, behind) = text.split_at_checked(index(u32::from(*length))).ok_or("label longer than 63 bytes")?;
    if behind.iter().any(|byte| *byte != 0) {
        return Err("bytes behind the label are not zero");
    }
    let text = std::str::from_utf8(text).map_err(|_| "label is not UTF-8")?;
    check_label(text).map_err(|_| "label has control characters")?;
    Ok(text.to_owned())
}

/// The next `N` bytes. A slot has exactly as many bytes as `decode` takes.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    match rest.split_first_chunk::<N>() {
        Some((taken, behind)) => {
            *rest = behind;
            *taken
        }
        None => [0; N],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> [Slot; 2] {
        let slot = Slot {
            repository: RepositoryId::new([1; 16]),
            id: SlotId::new([2; 16]),
            derivation: Derivation::Argon2id { memory_kib: 3, iterations: 4, parallelism: 5, salt: [6; 32] },
            label: "büro".to_owned(),
            commitment: [7; 32],
            wrapped: [8; 48],
        };
        [slot.clone(), Slot { derivation: Derivation::Raw, label: "x".repeat(63), ..slot }]
    }

    #[test]
    fn layout_is_the_documented_one() {
        let [slot, raw] = samples();
        let bytes = slot.encode().unwrap();
        assert_eq!(bytes[..16], *b"\x89BKEY\r\n\x1a\x01\x01\0\0\0\0\0\0");
        assert_eq!(bytes[16..32], [1; 16]);
        assert_eq!(bytes[32..48], [2; 16]);
        assert_eq!(bytes[48..64], [3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[64..96], [6; 32]);
        assert_eq!(bytes[96..102], *b"\x05b\xc3\xbcro");
        assert_eq!(bytes[102..176], [0; 74]);
        assert_eq!(bytes[176..208], [7; 32]);
        assert_eq!(bytes[208..], [8; 48]);
        assert_eq!(slot.bound_bytes().unwrap()[..176], bytes[..176]);
        assert_eq!(slot.bound_bytes().unwrap()[176..], [0; 80]);
        assert_eq!(raw.encode().unwrap()[48..96], [0; 48]);
    }

    #[test]
    fn round_trip() {
        for slot in samples() {
            assert_eq!(Slot::decode(&slot.encode().unwrap(), "keys/x").unwrap(), slot);
        }
    }

    #[test]
    fn every_flipped_bit_is_rejected_or_changes_the_slot() {
        for slot in samples() {
            let bytes = slot.encode().unwrap();
            for bit in 0..bytes.len() * 8 {
                let mut changed = bytes;
                changed[bit / 8] ^= 1 << (bit % 8);
                if let Ok(found) = Slot::decode(&changed, "keys/x") {
                    assert_ne!(found, slot, "{bit}");
                    assert_eq!(found.encode().unwrap(), changed, "{bit}");
                }
            }
        }
    }

    #[test]
    fn other_lengths_versions_and_labels_are_refused() {
        let [slot, _] = samples();
        let bytes = slot.encode().unwrap();
        for length in [0, 1, 255] {
            assert!(Slot::decode(&bytes[..length], "keys/x").is_err());
        }
        assert!(Slot::decode(&[&bytes[..], &[0]].concat(), "keys/x").is_err());
        for (position, value, message) in [
            (8, 2, "unsupported format version: 2 of keys/x"),
            (9, 3, "unsupported key derivation: 3 of keys/x"),
            (12, 1, "unsupported key slot flags: 1 of keys/x"),
            (9, 2, "damaged key slot keys/x: has parameters without a password"),
            (96, 64, "damaged key slot keys/x: label longer than 63 bytes"),
            (96, 4, "damaged key slot keys/x: bytes behind the label are not zero"),
            (97, 0x1b, "damaged key slot keys/x: label has control characters"),
            (97, 0xff, "damaged key slot keys/x: label is not UTF-8"),
            (160, 1, "damaged key slot keys/x: reserved bytes are not zero"),
        ] {
            let mut changed = bytes;
            changed[position] = value;
            assert_eq!(Slot::decode(&changed, "keys/x").unwrap_err().to_string(), message);
        }
        for label in ["x".repeat(64), "a\x1b[2J".to_owned(), "line\n".to_owned()] {
            assert!(Slot { label, ..slot.clone() }.encode().is_err());
        }
    }
}
