//! Which block stands where, and which blocks protect each other.

use std::fmt;
use std::num::NonZeroU64;
use std::ops::Range;
use std::str::FromStr;

use serde::Serialize;

use crate::archive::block::BLOCK;
use crate::erasure::Code;
use crate::error::{Error, Result};

/// Most blocks of data: 2^56 bytes.
const MOST_DATA: u64 = 1 << 40;
/// Most parity blocks of a group: what a reader may have to keep in memory.
pub(crate) const MOST_PARITY: u64 = 1024;
/// Data blocks for each stripe of an archive that is too small for stripes of full depth.
const SMALL_STRIPE: u64 = 32;

/// How much of an archive is error correction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Profile {
    /// 4 parity blocks for 128 blocks of data: any 4 MiB in one piece may be lost, at 3 % more.
    Light,
    /// 8 parity blocks for 128 blocks of data: any 8 MiB in one piece may be lost, at 6 % more.
    #[default]
    Default,
    /// 16 parity blocks for 64 blocks of data: any 16 MiB in one piece may be lost, at 25 % more.
    Strong,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Self; 3] = [Self::Light, Self::Default, Self::Strong];

    /// Its stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Default => "default",
            Self::Strong => "strong",
        }
    }

    /// The geometry for `data` blocks of data.
    pub(crate) fn geometry(self, data: u64) -> Result<Geometry> {
        let (columns, rows) = match self {
            Self::Light => (128, 4),
            Self::Default => (128, 8),
            Self::Strong => (64, 16),
        };
        // Seventeen stripes and not sixteen: damage begins in the middle of a block.
        let depth = data.div_ceil(SMALL_STRIPE).clamp(1, 17);
        let depth = u8::try_from(depth).unwrap_or(17);
        Geometry::new(columns, rows, depth, data).ok_or_else(|| Error::limit("blocks of an archive", data, MOST_DATA))
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Profile {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|profile| profile.name() == text);
        found.ok_or_else(|| Error::invalid("profile", format!("{text:?} is none of light, default, strong")))
    }
}

/// The shape of an archive, as every block of it says.
///
/// Data blocks are cut into groups of almost equal size. A group's blocks, and behind them its parity blocks, go in turn to
/// `depth` stripes, so that blocks side by side never share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Geometry {
    pub(crate) columns: u8,
    pub(crate) rows: u8,
    pub(crate) depth: u8,
    /// Blocks of data in the archive.
    pub(crate) data: u64,
    groups: NonZeroU64,
}

/// The place of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) group: u64,
    pub(crate) stripe: u8,
    pub(crate) role: Role,
}

/// What a block is to its stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The number among the stripe's data blocks.
    Data(u8),
    /// The number among its parity blocks.
    Parity(u8),
}

/// The blocks of one group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    /// The first block in the archive.
    pub(crate) first: u64,
    pub(crate) data: u64,
    depth: NonZeroU64,
    rows: u8,
}

impl Geometry {
    /// The geometry with these numbers, `None` where no archive has it.
    pub(crate) fn new(columns: u8, rows: u8, depth: u8, data: u64) -> Option<Self> {
        Code::new(columns, rows)?;
        let width = u64::from(columns).saturating_mul(u64::from(depth));
        let groups = NonZeroU64::new(data.div_ceil(width.max(1)))?;
        let parity = u64::from(rows).saturating_mul(u64::from(depth));
        // With two columns or more, no group has fewer blocks than stripes.
        let is_sound =
            columns >= 2 && depth > 0 && data >= u64::from(depth) && data <= MOST_DATA && parity <= MOST_PARITY;
        is_sound.then_some(Self { columns, rows, depth, data, groups })
    }

    pub(crate) fn code(&self) -> Option<Code> {
        Code::new(self.columns, self.rows)
    }

    pub(crate) const fn groups(&self) -> u64 {
        self.groups.get()
    }

    /// Parity blocks of each group.
    pub(crate) fn parity(&self) -> u64 {
        u64::from(self.rows).saturating_mul(u64::from(self.depth))
    }

    /// Blocks of the archive.
    pub(crate) fn blocks(&self) -> u64 {
        self.data.saturating_add(self.groups().saturating_mul(self.parity()))
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.blocks().saturating_mul(BLOCK)
    }

    /// Bytes in one piece that may be lost, wherever they begin.
    pub(crate) fn promise(&self) -> u64 {
        self.parity().saturating_sub(1).saturating_mul(BLOCK).saturating_add(1)
    }

    /// The first data block of a group.
    fn start(&self, group: u64) -> u64 {
        let product = u128::from(group).saturating_mul(u128::from(self.data));
        u64::try_from(product.checked_div(u128::from(self.groups())).unwrap_or_default()).unwrap_or(u64::MAX)
    }

    pub(crate) fn group(&self, group: u64) -> Group {
        let start = self.start(group);
        Group {
            first: start.saturating_add(group.saturating_mul(self.parity())),
            data: self.start(group.saturating_add(1)).saturating_sub(start),
            depth: NonZeroU64::new(u64::from(self.depth)).unwrap_or(NonZeroU64::MIN),
            rows: self.rows,
        }
    }

    /// The group that a data block is in.
    fn group_of_data(&self, data: u64) -> u64 {
        let scaled = u128::from(data.saturating_add(1)).saturating_mul(u128::from(self.groups()));
        let group = scaled.saturating_sub(1).checked_div(u128::from(self.data)).unwrap_or_default();
        u64::try_from(group).unwrap_or(u64::MAX)
    }

    /// Where a data block stands in the archive.
    pub(crate) fn block_of_data(&self, data: u64) -> u64 {
        data.saturating_add(self.group_of_data(data).saturating_mul(self.parity()))
    }

    /// The place of a block of the archive.
    pub(crate) fn place(&self, block: u64) -> Place {
        let (mut low, mut high) = (0, self.groups());
        while high.saturating_sub(low) > 1 {
            let middle = low.midpoint(high);
            if self.group(middle).first <= block { low = middle } else { high = middle }
        }
        let group = self.group(low);
        let at = block.saturating_sub(group.first);
        let number = |value: u64| u8::try_from(value).unwrap_or(u8::MAX);
        let role = match at.checked_sub(group.data) {
            None => Role::Data(number(at / group.depth)),
            Some(behind) => Role::Parity(number(behind / group.depth)),
        };
        Place { group: low, stripe: number(at % group.depth), role }
    }

    /// The number of a block's data among all data; `None` for parity.
    pub(crate) fn data_of_block(&self, block: u64) -> Option<u64> {
        let place = self.place(block);
        matches!(place.role, Role::Data(_)).then(|| block.saturating_sub(place.group.saturating_mul(self.parity())))
    }
}

impl Group {
    /// All its blocks.
    pub(crate) fn blocks(&self) -> Range<u64> {
        let parity = u64::from(self.rows).saturating_mul(self.depth.get());
        self.first..self.first.saturating_add(self.data).saturating_add(parity)
    }

    /// The data blocks of a stripe, in their order in it.
    pub(crate) fn data_blocks(&self, stripe: u8) -> impl Iterator<Item = u64> + use<> {
        let stripe = u64::from(stripe);
        let count = self.data.saturating_sub(stripe).div_ceil(self.depth.get());
        let (first, depth) = (self.first.saturating_add(stripe), self.depth.get());
        (0..count).map(move |number| first.saturating_add(number.saturating_mul(depth)))
    }

    /// The parity blocks of a stripe, in their order in it.
    pub(crate) fn parity_blocks(&self, stripe: u8) -> impl Iterator<Item = u64> + use<> {
        let (depth, behind) = (self.depth.get(), self.data % self.depth);
        // The turn of stripes goes on from data to parity.
        let offset = u64::from(stripe).saturating_add(depth).saturating_sub(behind) % self.depth;
        let first = self.first.saturating_add(self.data).saturating_add(offset);
        (0..u64::from(self.rows)).map(move |number| first.saturating_add(number.saturating_mul(depth)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every block has one place, and the places of a stripe are its blocks.
    #[test]
    fn places_and_stripes_are_the_same() {
        for (columns, rows, depth) in [(2, 1, 1), (3, 2, 2), (5, 3, 4), (128, 8, 17), (64, 16, 17), (2, 1, 255)] {
            for data in (u64::from(depth)..700).chain([3000, 4352, 4353, 100_003]) {
                let geometry = Geometry::new(columns, rows, depth, data).unwrap();
                let mut next = 0;
                let mut data_seen = 0;
                for number in 0..geometry.groups() {
                    let group = geometry.group(number);
                    assert_eq!(group.first, next);
                    next = group.blocks().end;
                    assert!(group.data >= u64::from(depth), "{geometry:?}");
                    let mut seen = 0;
                    for stripe in 0..depth {
                        let data: Vec<u64> = group.data_blocks(stripe).collect();
                        assert!(!data.is_empty() && data.len() <= usize::from(columns));
                        let parity: Vec<u64> = group.parity_blocks(stripe).collect();
                        assert_eq!(parity.len(), usize::from(rows));
                        for (at, block) in data.iter().enumerate() {
                            let role = Role::Data(u8::try_from(at).unwrap());
                            assert_eq!(geometry.place(*block), Place { group: number, stripe, role });
                            assert_eq!(geometry.block_of_data(geometry.data_of_block(*block).unwrap()), *block);
                            assert!(group.blocks().contains(block));
                        }
                        for (at, block) in parity.iter().enumerate() {
                            let role = Role::Parity(u8::try_from(at).unwrap());
                            assert_eq!(geometry.place(*block), Place { group: number, stripe, role });
                            assert_eq!(geometry.data_of_block(*block), None);
                            assert!(group.blocks().contains(block));
                        }
                        seen += data.len() + parity.len();
                    }
                    assert_eq!(u64::try_from(seen).unwrap(), group.blocks().end - group.first);
                    data_seen += group.data;
                }
                assert_eq!((next, data_seen), (geometry.blocks(), data));
            }
        }
    }

    /// As many blocks side by side as the parity of a group has never hit a stripe more often than it can bear.
    #[test]
    fn bursts_are_spread() {
        for profile in Profile::ALL {
            for data in [1, 2, 31, 32, 33, 64, 100, 543, 544, 545, 1088, 2176, 2177, 5000] {
                let geometry = profile.geometry(data).unwrap();
                let blocks = geometry.blocks();
                for first in 0..blocks {
                    let mut hits = std::collections::BTreeMap::new();
                    for block in first..(first + geometry.parity()).min(blocks) {
                        let place = geometry.place(block);
                        *hits.entry((place.group, place.stripe)).or_insert(0u8) += 1;
                    }
                    assert!(hits.values().all(|count| *count <= geometry.rows), "{profile} {data} {first}");
                    if data > 600 && first > 40 {
                        break;
                    }
                }
            }
        }
    }

    #[test]
    fn promises_what_the_words_say() {
        for (profile, mib) in [(Profile::Light, 4), (Profile::Default, 8), (Profile::Strong, 16)] {
            assert!(profile.geometry(600).unwrap().promise() >= mib << 20);
            assert_eq!(profile.name().parse::<Profile>().unwrap(), profile);
        }
    }

    #[test]
    fn impossible_geometries_are_refused() {
        for (columns, rows, depth, data) in
            [(0, 1, 1, 1), (1, 1, 1, 1), (2, 0, 1, 1), (2, 1, 0, 1), (2, 1, 2, 1), (2, 1, 1, 0), (250, 8, 1, 9)]
        {
            assert_eq!(Geometry::new(columns, rows, depth, data), None);
        }
        assert_eq!(Geometry::new(64, 100, 11, 1 << 20), None, "too much parity for the memory");
        assert_eq!(Geometry::new(2, 1, 1, (1 << 40) + 1), None);
    }
}
