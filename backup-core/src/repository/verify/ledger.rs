//! When each pack was last verified: what lets a share a day cover everything.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::ObjectName;
use crate::repository::verify::options::Share;
use crate::time::Timestamp;

/// Which packs were verified when. The caller keeps it between calls, as JSON for instance; it holds no secret.
/// A lost ledger costs nothing but verifying some packs again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerificationLedger {
    packs: BTreeMap<ObjectName, Timestamp>,
}

impl VerificationLedger {
    /// When the pack that was verified longest ago was verified; `None` where one never was, or there is none.
    #[must_use]
    pub fn oldest(&self) -> Option<Timestamp> {
        self.packs.values().min().copied()
    }

    /// Chooses packs to read, by their bytes, and drops those from the ledger that are gone.
    pub(crate) fn choose(&mut self, packs: &BTreeMap<ObjectName, u64>, days: u32) -> Vec<ObjectName> {
        self.packs.retain(|name, _| packs.contains_key(name));
        let total: u64 = packs.values().fold(0, |sum, size| sum.saturating_add(*size));
        let share = total.div_ceil(u64::from(days.max(1)));
        let mut order: Vec<(Option<Timestamp>, ObjectName, u64)> =
            packs.iter().map(|(name, size)| (self.packs.get(name).copied(), *name, *size)).collect();
        order.sort_unstable();
        let mut chosen = Vec::new();
        let mut bytes = 0u64;
        for (_, name, size) in order {
            if bytes >= share {
                break;
            }
            bytes = bytes.saturating_add(size);
            chosen.push(name);
        }
        chosen
    }

    pub(crate) fn verified(&mut self, pack: ObjectName, now: Timestamp) {
        self.packs.insert(pack, now);
    }

    pub(crate) fn failed(&mut self, pack: &ObjectName) {
        self.packs.remove(pack);
    }
}

/// The packs to read, and whether these are all.
pub(crate) fn choose(
    share: Share,
    packs: &BTreeMap<ObjectName, u64>,
    ledger: Option<&mut VerificationLedger>,
) -> (Vec<ObjectName>, bool) {
    let chosen: Vec<ObjectName> = match (share, ledger) {
        (Share::Sample { fraction, seed }, _) => {
            packs.keys().filter(|name| is_sampled(name, fraction, seed)).copied().collect()
        }
        (Share::Rotating { days }, Some(ledger)) => ledger.choose(packs, days),
        (Share::All | Share::Rotating { .. }, _) => packs.keys().copied().collect(),
    };
    let all = chosen.len() == packs.len();
    (chosen, all)
}

/// Whether a pack is in a random share: 53 bits of a hash of seed and name, as a number from 0 to 1.
fn is_sampled(name: &ObjectName, fraction: f64, seed: u64) -> bool {
    let mut key = [0; 32];
    key.iter_mut().zip(seed.to_le_bytes()).for_each(|(out, byte)| *out = byte);
    let hash = blake3::keyed_hash(&key, name.as_bytes());
    let mut high = [0; 4];
    high.iter_mut().zip(hash.as_bytes()).for_each(|(out, byte)| *out = *byte);
    f64::from(u32::from_le_bytes(high)) / f64::from(u32::MAX) <= fraction && fraction > 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packs() -> BTreeMap<ObjectName, u64> {
        (0..50u8).map(|number| (ObjectName::new([number; 32]), 1000 + u64::from(number))).collect()
    }

    #[test]
    fn a_share_a_day_covers_everything_in_time() {
        let packs = packs();
        for days in [1, 2, 7, 49, 50, 1000] {
            let mut ledger = VerificationLedger::default();
            for day in 0..i64::from(days) {
                for name in ledger.choose(&packs, days) {
                    ledger.verified(name, Timestamp::from_unix(day, 0).unwrap());
                }
            }
            assert_eq!(ledger.packs.len(), packs.len(), "{days} days");
        }
    }

    #[test]
    fn ledgers_survive_as_json() {
        let mut ledger = VerificationLedger::default();
        ledger.verified(ObjectName::new([7; 32]), Timestamp::UNIX_EPOCH);
        let text = serde_json::to_string(&ledger).unwrap();
        assert_eq!(serde_json::from_str::<VerificationLedger>(&text).unwrap(), ledger);
    }

    #[test]
    fn samples_have_about_the_size_asked_for() {
        let packs: BTreeMap<_, _> = (0..10_000u32)
            .map(|number| {
                let mut name = [0; 32];
                name[..4].copy_from_slice(&number.to_le_bytes());
                (ObjectName::new(name), 1)
            })
            .collect();
        for fraction in [0.0, 0.1, 0.5, 1.0] {
            let (chosen, all) = choose(Share::Sample { fraction, seed: 3 }, &packs, None);
            assert!((chosen.len() as f64 - fraction * 10_000.0).abs() < 300.0, "{fraction}: {}", chosen.len());
            assert_eq!(all, fraction == 1.0);
        }
    }
}
