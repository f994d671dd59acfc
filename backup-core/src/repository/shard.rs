//! One of several verifications or restores that together cover everything once, wherever they run.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::crypto::hash;
use crate::error::{Error, Result};

/// Shard `number` of `count`: which objects and pages a verification looks at, or what a restore restores. Everything
/// belongs to exactly one shard of a count, whatever else is in the repository. As text `2/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Numbers", into = "Numbers")]
pub struct Shard {
    number: u32,
    count: u32,
}

/// Most shards.
const MOST: u32 = 1 << 16;

impl Shard {
    /// Shard `number`, from 1 to `count`, of `count`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a number out of this range, and for more than 65536 shards.
    pub fn new(number: u32, count: u32) -> Result<Self> {
        if number == 0 || number > count || count > MOST {
            return Err(Error::invalid("shard", format!("{number}/{count} is none of 1/{MOST} to {MOST}/{MOST}")));
        }
        Ok(Self { number, count })
    }

    /// Its number, from 1.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// How many shards there are.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Whether the object under this key, or whatever is called so, belongs to it.
    pub(crate) fn has_text(&self, text: &str) -> bool {
        self.has_hash(hash::digest(text.as_bytes()).as_bytes())
    }

    /// The part of `length` bytes that belongs to it, in multiples of `unit` (at least 1) but at the end. Parts of
    /// different shards do not overlap; the last ones are empty where there is not enough.
    pub(crate) fn part(&self, length: u64, unit: u64) -> Range<u64> {
        let units = u128::from(length.div_ceil(unit.max(1)));
        let place = |number: u32| {
            let units = units.saturating_mul(u128::from(number)).checked_div(u128::from(self.count)).unwrap_or(0);
            u64::try_from(units.saturating_mul(u128::from(unit.max(1)))).unwrap_or(u64::MAX).min(length)
        };
        place(self.number.saturating_sub(1))..place(self.number)
    }

    /// Whether a page belongs to it.
    pub(crate) fn has_hash(&self, hash: &[u8; 32]) -> bool {
        let first = hash.first_chunk::<8>().map_or(0, |first| u64::from_be_bytes(*first));
        first.checked_rem(u64::from(self.count)) == Some(u64::from(self.number.saturating_sub(1)))
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.count)
    }
}

impl FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers = text.split_once('/').and_then(|(one, two)| Some((one.parse().ok()?, two.parse().ok()?)));
        let (number, count) =
            numbers.ok_or_else(|| Error::invalid("shard", format!("{text:?} is not of the form NUMBER/COUNT")))?;
        Self::new(number, count)
    }
}

/// A shard as it is serialized.
#[derive(Serialize, Deserialize)]
struct Numbers {
    number: u32,
    count: u32,
}

impl From<Shard> for Numbers {
    fn from(shard: Shard) -> Self {
        Self { number: shard.number, count: shard.count }
    }
}

impl TryFrom<Numbers> for Shard {
    type Error = Error;

    fn try_from(numbers: Numbers) -> Result<Self> {
        Self::new(numbers.number, numbers.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_belongs_to_exactly_one() {
        for count in 1..=16 {
            let shards: Vec<Shard> = (1..=count).map(|number| Shard::new(number, count).unwrap()).collect();
            let mut sizes = vec![0; shards.len()];
            for number in 0..2000u32 {
                let name = format!("object {number}");
                let owners: Vec<usize> = (0..shards.len()).filter(|shard| shards[*shard].has_text(&name)).collect();
                let [owner] = owners.as_slice() else { panic!("{owners:?} of {count}") };
                sizes[*owner] += 1;
                let hash = blake3::hash(name.as_bytes());
                assert_eq!(shards.iter().filter(|shard| shard.has_hash(hash.as_bytes())).count(), 1);
            }
            assert!(sizes.iter().all(|size| *size > 2000 / count / 2), "{sizes:?}");
        }
    }

    #[test]
    fn parts_lie_side_by_side() {
        for length in [0, 1, 999, 1000, 1001, 12_345, u64::MAX - 1000] {
            for count in 1..=16 {
                let mut end = 0;
                for number in 1..=count {
                    let part = Shard::new(number, count).unwrap().part(length, 1000);
                    assert_eq!(part.start, end);
                    assert!(part.end == length || part.end.is_multiple_of(1000), "{part:?} of {length}");
                    assert!(part.end - part.start <= length / u64::from(count) + 1000);
                    end = part.end;
                }
                assert_eq!(end, length);
            }
        }
    }

    #[test]
    fn shows_and_parses() {
        let shard: Shard = "2/8".parse().unwrap();
        assert_eq!((shard.number(), shard.count(), shard.to_string().as_str()), (2, 8, "2/8"));
        let text = serde_json::to_string(&shard).unwrap();
        assert_eq!(serde_json::from_str::<Shard>(&text).unwrap(), shard);
        for bad in ["", "1", "0/8", "9/8", "1/0", "1/65537", "-1/2", "1/2/3", "a/b"] {
            assert!(bad.parse::<Shard>().is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<Shard>("{\"number\":3,\"count\":2}").is_err());
    }
}
