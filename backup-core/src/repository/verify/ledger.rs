//! When each pack was last verified: what lets a share a day cover everything.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::id::ObjectName;
use crate::repository::verify::options::Share;
use crate::time::Timestamp;

/// Which packs were verified when. The caller keeps it between calls, as JSON for instance; it holds no secret.
/// A lost ledger costs nothing but verifying some packs again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerificationLedger {
    /// When each pack was verified last.
    packs: BTreeMap<ObjectName, Timestamp>,
    /// Since when packs wait that were not verified yet.
    #[serde(default)]
    waiting: BTreeMap<ObjectName, Timestamp>,
    /// When packs were read that were not good.
    #[serde(default)]
    failed: BTreeMap<ObjectName, Timestamp>,
}

impl VerificationLedger {
    /// When the pack that was verified longest ago was verified; `None` where none was. Packs that wait for
    /// their first verification do not count.
    #[must_use]
    pub fn oldest(&self) -> Option<Timestamp> {
        self.packs.values().min().copied()
    }

    /// Chooses among `packs`, with their bytes, those to read: a share of those that are due longest, and as much
    /// again of those that were not good last time. Packs that are not `stored` any more are dropped.
    ///
    /// A pack is due `days` after it was verified, or after it was seen first. So neither new packs nor bad ones
    /// keep old ones waiting.
    fn choose(
        &mut self,
        packs: &BTreeMap<ObjectName, u64>,
        stored: &BTreeSet<ObjectName>,
        days: u32,
        now: Timestamp,
    ) -> Vec<ObjectName> {
        for known in [&mut self.packs, &mut self.waiting, &mut self.failed] {
            known.retain(|name, _| stored.contains(name));
        }
        let total: u64 = packs.values().fold(0, |sum, size| sum.saturating_add(*size));
        let share = total.div_ceil(u64::from(days.max(1)));
        let (mut due, mut bad) = (Vec::new(), Vec::new());
        for (name, size) in packs {
            match (self.failed.get(name), self.packs.get(name)) {
                (Some(failed), _) => bad.push((*failed, true, *name, *size)),
                (None, Some(verified)) => due.push((*verified, true, *name, *size)),
                (None, None) => due.push((*self.waiting.entry(*name).or_insert(now), false, *name, *size)),
            }
        }
        let mut chosen = first(due, share);
        chosen.extend(first(bad, share));
        chosen
    }

    pub(crate) fn verified(&mut self, pack: ObjectName, now: Timestamp) {
        self.waiting.remove(&pack);
        self.failed.remove(&pack);
        self.packs.insert(pack, now);
    }

    pub(crate) fn failed(&mut self, pack: ObjectName, now: Timestamp) {
        self.waiting.remove(&pack);
        self.packs.remove(&pack);
        self.failed.insert(pack, now);
    }
}

/// The first packs, by time and whether they ever were read, that together have this many bytes.
fn first(mut packs: Vec<(Timestamp, bool, ObjectName, u64)>, bytes: u64) -> Vec<ObjectName> {
    packs.sort_unstable();
    let mut before = 0u64;
    let fits = |(_, _, name, size): (Timestamp, bool, ObjectName, u64)| {
        let is_wanted = before < bytes;
        before = before.saturating_add(size);
        is_wanted.then_some(name)
    };
    packs.into_iter().map_while(fits).collect()
}

/// The packs to read, and whether these are all.
pub(crate) fn choose(
    share: Share,
    packs: &BTreeMap<ObjectName, u64>,
    stored: &BTreeSet<ObjectName>,
    ledger: Option<&mut VerificationLedger>,
    now: Timestamp,
) -> (Vec<ObjectName>, bool) {
    let chosen: Vec<ObjectName> = match (share, ledger) {
        (Share::Sample { fraction, seed }, _) => {
            packs.keys().filter(|name| is_sampled(name, fraction, seed)).copied().collect()
        }
        (Share::Rotating { days }, Some(ledger)) => ledger.choose(packs, stored, days, now),
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

    fn day(number: i64) -> Timestamp {
        Timestamp::from_unix(number * 86_400, 0).unwrap()
    }

    fn names(packs: &BTreeMap<ObjectName, u64>) -> BTreeSet<ObjectName> {
        packs.keys().copied().collect()
    }

    #[test]
    fn a_share_a_day_covers_everything_in_time() {
        let packs = packs();
        for days in [1, 2, 7, 49, 50, 1000] {
            let mut ledger = VerificationLedger::default();
            for number in 0..i64::from(days) {
                for name in ledger.choose(&packs, &names(&packs), days, day(number)) {
                    ledger.verified(name, day(number));
                }
            }
            assert_eq!(ledger.packs.len(), packs.len(), "{days} days");
            assert!(ledger.waiting.is_empty());
        }
    }

    #[test]
    fn neither_new_packs_nor_bad_ones_keep_old_ones_waiting() {
        let old = packs();
        let mut ledger = VerificationLedger::default();
        old.keys().for_each(|name| ledger.verified(*name, day(0)));
        let is_bad = |name: &ObjectName| name.as_bytes()[0].is_multiple_of(5);
        let mut all = old.clone();
        for number in 1..=30 {
            // More than a share of new data every day.
            for new in 0..5u8 {
                all.insert(ObjectName::new([100 + u8::try_from(number).unwrap() * 5 + new; 32]), 2000);
            }
            let chosen = ledger.choose(&all, &names(&all), 10, day(number));
            let total: u64 = all.values().sum();
            let bytes: u64 = chosen.iter().map(|name| all[name]).sum();
            assert!(bytes <= total / 10 * 2 + 5000, "day {number}: {bytes} of {total}");
            for name in chosen {
                if is_bad(&name) { ledger.failed(name, day(number)) } else { ledger.verified(name, day(number)) }
            }
            if number >= 12 {
                let late = |time: &Timestamp| *time < day(number - 12);
                assert!(!ledger.packs.values().any(late), "day {number}: something waits too long");
                assert!(!ledger.waiting.values().any(late), "day {number}: something new waits too long");
            }
        }
        // Bad ones are read again every day, as long as they are not more than a share.
        let bad = ledger.failed.clone();
        assert!(bad.keys().all(is_bad) && bad.len() > 10);
        let few: BTreeMap<_, _> =
            all.iter().filter(|(name, _)| !is_bad(name) || name.as_bytes()[0] < 6).map(|(n, s)| (*n, *s)).collect();
        let chosen = ledger.choose(&few, &names(&all), 10, day(31));
        assert!(few.keys().filter(|name| is_bad(name)).all(|name| chosen.contains(name)));
    }

    #[test]
    fn verifying_a_part_forgets_nothing_of_the_rest() {
        let all = packs();
        let mut ledger = VerificationLedger::default();
        all.keys().for_each(|name| ledger.verified(*name, day(0)));
        let part: BTreeMap<_, _> = all.iter().take(3).map(|(name, size)| (*name, *size)).collect();
        let mut stored = names(&all);
        stored.pop_last();
        let chosen = ledger.choose(&part, &stored, 1, day(1));
        assert_eq!(chosen, part.keys().copied().collect::<Vec<_>>());
        assert_eq!(ledger.packs.keys().copied().collect::<BTreeSet<_>>(), stored, "what is gone is dropped");
    }

    #[test]
    fn ledgers_of_before_are_read() {
        let text = format!("{{\"packs\":{{\"{}\":\"1970-01-01T00:00:00Z\"}}}}", ObjectName::new([7; 32]));
        let ledger: VerificationLedger = serde_json::from_str(&text).unwrap();
        assert_eq!(ledger.oldest(), Some(Timestamp::UNIX_EPOCH));
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
            let (chosen, all) = choose(Share::Sample { fraction, seed: 3 }, &packs, &BTreeSet::new(), None, day(0));
            assert!((chosen.len() as f64 - fraction * 10_000.0).abs() < 300.0, "{fraction}: {}", chosen.len());
            assert_eq!(all, fraction == 1.0);
        }
    }
}
