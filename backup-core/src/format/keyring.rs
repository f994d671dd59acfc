//! Body of a keyring: all long-lived secrets of a repository.

use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::format::cbor;
use crate::id::Digest;
use crate::length::to_u64;
use crate::secret::Secret;

/// Most generations of root keys.
const MAX_GENERATIONS: usize = 1024;

/// The secrets behind the keyring key.
#[derive(Debug)]
pub(crate) struct Keyring {
    /// Its number: 1 when a repository is created, one more with every change.
    pub(crate) number: u32,
    /// Root keys by generation, ascending, at least one. New objects use the last.
    pub(crate) generations: Vec<(u32, Secret<32>)>,
    /// The dedup key: chunk ids, chunk boundaries and the index depend on it.
    pub(crate) dedup: Secret<32>,
    /// Seed of the key that signs commits.
    pub(crate) writer: Secret<32>,
    /// Seed of the key that signs forgets, revocations and collections.
    pub(crate) maintenance: Secret<32>,
    /// BLAKE3 of the object `config`.
    pub(crate) config_hash: Digest,
}

impl Keyring {
    /// The body to seal, wiped when dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] where [`Self::decode`] would refuse it.
    pub(crate) fn encode(&self) -> Result<Zeroizing<Vec<u8>>> {
        if self.number == 0 || self.check_generations().is_err() {
            return Err(Error::Internal("a keyring without root keys in order"));
        }
        // 40 bytes a generation and less than 256 for all else: the buffer never moves.
        let capacity = self.generations.len().saturating_mul(48).saturating_add(256);
        cbor::encode_map_with_capacity(capacity, |map| {
            map.u64(1, self.number.into());
            map.array(2, |array| {
                for (generation, root) in &self.generations {
                    array.array(|pair| {
                        pair.u64((*generation).into());
                        pair.bytes(root.expose());
                    });
                }
            });
            map.bytes(3, self.dedup.expose());
            map.bytes(4, self.writer.expose());
            map.bytes(5, self.maintenance.expose());
            map.bytes(6, self.config_hash.as_bytes());
        })
        .map(Zeroizing::new)
    }

    /// Parses an opened body. `name` is its storage key.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`].
    pub(crate) fn decode(body: &[u8], name: &str) -> Result<Self> {
        let mut map = cbor::decode(body, "keyring", &name)?.map()?;
        let number = map.required(1)?.u32()?;
        let list = map.required(2)?.array()?;
        if number == 0 || list.remaining() > to_u64(MAX_GENERATIONS) {
            return Err(map.damaged("number or count of root keys out of range"));
        }
        let mut generations = Vec::new();
        for pair in list {
            let mut pair = pair.array()?;
            let generation = pair.required()?.u32()?;
            generations.push((generation, secret(pair.required()?)?));
            pair.finish()?;
        }
        let keyring = Self {
            number,
            generations,
            dedup: secret(map.required(3)?)?,
            writer: secret(map.required(4)?)?,
            maintenance: secret(map.required(5)?)?,
            config_hash: Digest::new(map.required(6)?.fixed()?),
        };
        keyring.check_generations().map_err(|rule| map.damaged(rule))?;
        map.finish()?;
        Ok(keyring)
    }

    fn check_generations(&self) -> Result<(), &'static str> {
        // Generation 0 stands in headers of objects that depend on none.
        let first = self.generations.first().is_some_and(|(generation, _)| *generation > 0);
        if first && self.generations.len() <= MAX_GENERATIONS && self.generations.is_sorted_by(|a, b| a.0 < b.0) {
            Ok(())
        } else {
            Err("generations of root keys are missing or not ascending from 1")
        }
    }
}

/// Copies a secret from the body, which is wiped elsewhere, without a stop in between.
fn secret(value: cbor::Value<'_>) -> Result<Secret<32>> {
    let bytes = value.bytes()?;
    let bytes: &[u8; 32] = bytes.try_into().map_err(|_| value.damaged("a key is not 32 bytes long"))?;
    Ok(Secret::copy_of(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(generations: &[u32]) -> Keyring {
        Keyring {
            number: 7,
            generations: generations.iter().map(|number| (*number, Secret::copy_of(&[0xa0; 32]))).collect(),
            dedup: Secret::copy_of(&[0xb0; 32]),
            writer: Secret::copy_of(&[0xc0; 32]),
            maintenance: Secret::copy_of(&[0xd0; 32]),
            config_hash: Digest::new([0xe0; 32]),
        }
    }

    #[test]
    fn round_trip() {
        let body = sample(&[1, 2, 9]).encode().unwrap();
        let keyring = Keyring::decode(&body, "keyring/00000007").unwrap();
        assert_eq!(keyring.number, 7);
        assert!(keyring.generations.iter().map(|(number, _)| *number).eq([1, 2, 9]));
        assert_eq!(keyring.encode().unwrap(), body);
    }

    #[test]
    fn the_buffer_does_not_move() {
        let generations: Vec<u32> = (u32::MAX - 1000..u32::MAX).collect();
        let body = sample(&generations).encode().unwrap();
        assert!(body.len() <= 48 * 1000 + 256, "{}", body.len());
    }

    #[test]
    fn generations_must_ascend_from_one() {
        for generations in [&[][..], &[0], &[2, 1], &[1, 1]] {
            assert!(sample(generations).encode().is_err(), "{generations:?}");
        }
    }

    #[test]
    fn every_flipped_bit_is_rejected_or_changes_the_keyring() {
        let body = sample(&[1, 2]).encode().unwrap();
        for bit in 0..body.len() * 8 {
            let mut changed = body.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            if let Ok(keyring) = Keyring::decode(&changed, "k") {
                assert_eq!(keyring.encode().unwrap(), changed, "{bit}");
            }
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        let shown = format!("{:?}", sample(&[1]));
        for byte in ["a0a0", "160, 160", "b0b0", "176, 176"] {
            assert!(!shown.contains(byte), "{shown}");
        }
    }
}
