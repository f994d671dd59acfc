//! Segments of the index as they are stored (`docs/format.md`, "Index").
//!
//! ```text
//! "BIX1" | packs LE32 | entries LE32 | zero 4
//! packs x 40:   name 32 | size LE64                                              ascending by name
//! entries x 52: id 32 | pack LE32 | offset LE32 | stored LE32 | raw LE32 | codec 1 | kind 1 | zero 2
//!               ascending by (id, pack, offset)
//! ```

use std::fmt;

use crate::compress::Codec;
use crate::error::{Error, Result};
use crate::id::{ChunkId, ObjectName};
use crate::length::{index, to_u32, to_u64};
use crate::limits;
use crate::pack::{ChunkKind, HEADER_LENGTH as PACK_HEADER_LENGTH, PackEntry, length_fault};

const MAGIC: &[u8; 4] = b"BIX1";
const HEADER_LENGTH: usize = 16;
const PACK_LENGTH: usize = 40;
const ENTRY_LENGTH: usize = 52;

/// A segment, checked as a whole and read in place.
#[derive(Clone, Copy)]
pub(crate) struct Segment<'a> {
    packs: &'a [[u8; PACK_LENGTH]],
    entries: &'a [[u8; ENTRY_LENGTH]],
}

/// An entry of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentEntry {
    /// Position of the pack in [`Segment::packs`].
    pub(crate) pack: u32,
    pub(crate) entry: PackEntry,
}

impl<'a> Segment<'a> {
    /// Checks every rule for the body of a segment and gives access to it. `name` is its storage key.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] where a rule is broken.
    pub(crate) fn parse(bytes: &'a [u8], name: &dyn fmt::Display) -> Result<Self> {
        Self::read(bytes).map_err(|reason| Error::damaged("index segment", name, reason))
    }

    /// The packs, ascending by name: name and size of the object.
    pub(crate) fn packs(&self) -> impl ExactSizeIterator<Item = (ObjectName, u64)> {
        self.packs.iter().map(pack)
    }

    /// The entries, ascending by id.
    pub(crate) fn entries(&self) -> impl ExactSizeIterator<Item = SegmentEntry> {
        // `read` has decoded each of them before; the default cannot occur.
        self.entries.iter().map(|record| entry(record).unwrap_or(NOTHING))
    }

    fn read(bytes: &'a [u8]) -> Result<Self, &'static str> {
        const SHORT: &str = "it is cut short";
        if to_u64(bytes.len()) > limits::INDEX {
            return Err("it is longer than 256 MiB");
        }
        let (magic, rest) = bytes.split_first_chunk::<4>().ok_or(SHORT)?;
        let (pack_count, rest) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
        let (entry_count, rest) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
        let (zero, rest) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
        if magic != MAGIC {
            return Err("it does not begin with BIX1");
        }
        if *zero != [0; 4] {
            return Err("reserved bytes of its header are not zero");
        }
        let (pack_count, entry_count) = (u32::from_le_bytes(*pack_count), u32::from_le_bytes(*entry_count));
        let packs = index(pack_count).checked_mul(PACK_LENGTH).ok_or(SHORT)?;
        let (packs, entries) = rest.split_at_checked(packs).ok_or(SHORT)?;
        if index(entry_count).checked_mul(ENTRY_LENGTH) != Some(entries.len()) {
            return Err("its length does not fit its counts");
        }
        let segment = Self { packs: packs.as_chunks().0, entries: entries.as_chunks().0 };
        segment.check()?;
        Ok(segment)
    }

    fn check(&self) -> Result<(), &'static str> {
        let mut sizes = Vec::with_capacity(self.packs.len());
        let mut previous = None;
        for (name, size) in self.packs() {
            if previous.is_some_and(|previous| previous >= name) {
                return Err("its packs are not in ascending order");
            }
            if size == 0 || size > limits::OBJECT {
                return Err("a pack has an impossible size");
            }
            previous = Some(name);
            sizes.push(size);
        }
        let mut previous: Option<(&[u8; 32], u32, u32)> = None;
        for record in self.entries {
            let SegmentEntry { pack, entry } = entry(record)?;
            let size = sizes.get(index(pack)).ok_or("an entry refers to a pack that is not listed")?;
            if entry.offset < PACK_HEADER_LENGTH_32 || entry.range().end > *size {
                return Err("an entry lies outside of its pack");
            }
            let (id, _) = record.split_first_chunk::<32>().ok_or("it is cut short")?;
            let position = (id, pack, entry.offset);
            if previous.is_some_and(|previous| previous >= position) {
                return Err("its entries are not in ascending order");
            }
            previous = Some(position);
        }
        Ok(())
    }
}

impl fmt::Debug for Segment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Segment({} packs, {} entries)", self.packs.len(), self.entries.len())
    }
}

/// The header of a pack in 32 bits.
const PACK_HEADER_LENGTH_32: u32 = 16;
const _: () = assert!(PACK_HEADER_LENGTH == 16, "the two constants are the same length");

const NOTHING: SegmentEntry = SegmentEntry {
    pack: 0,
    entry: PackEntry {
        id: ChunkId::new([0; 32]),
        offset: 0,
        stored: 1,
        raw: 1,
        codec: Codec::Raw,
        kind: ChunkKind::Data,
    },
};

fn pack(record: &[u8; PACK_LENGTH]) -> (ObjectName, u64) {
    let mut name = [0; 32];
    let mut size = [0; 8];
    for (out, byte) in name.iter_mut().chain(&mut size).zip(record) {
        *out = *byte;
    }
    (ObjectName::new(name), u64::from_le_bytes(size))
}

#[inline]
fn entry(record: &[u8; ENTRY_LENGTH]) -> Result<SegmentEntry, &'static str> {
    const SHORT: &str = "it is cut short";
    let (id, rest) = record.split_first_chunk::<32>().ok_or(SHORT)?;
    let (pack, rest) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
    let (offset, rest) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
    let (stored, rest) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
    let (raw, rest) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
    let [codec, kind, zero @ ..] = rest.first_chunk::<4>().ok_or(SHORT)?;
    let codec = Codec::from_number(*codec).ok_or("a chunk has an unknown codec")?;
    let kind = ChunkKind::from_number(*kind).ok_or("a chunk has an unknown kind")?;
    if *zero != [0; 2] {
        return Err("reserved bytes of an entry are not zero");
    }
    let (stored, raw) = (u32::from_le_bytes(*stored), u32::from_le_bytes(*raw));
    if let Some(fault) = length_fault(codec, stored, raw) {
        return Err(fault);
    }
    let offset = u32::from_le_bytes(*offset);
    let entry = PackEntry { id: ChunkId::new(*id), offset, stored, raw, codec, kind };
    Ok(SegmentEntry { pack: u32::from_le_bytes(*pack), entry })
}

/// Collects packs and writes them as a segment.
#[derive(Debug, Default)]
pub(crate) struct SegmentBuilder {
    packs: Vec<(ObjectName, u64)>,
    entries: Vec<SegmentEntry>,
}

impl SegmentBuilder {
    /// An empty segment.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Whether no pack was added.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.packs.is_empty()
    }

    /// Adds a pack of `size` bytes on storage and its chunks.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] where there are more packs than the format can count.
    pub(crate) fn push(&mut self, pack: ObjectName, size: u64, entries: &[PackEntry]) -> Result<()> {
        let number = to_u32(self.packs.len(), "packs of an index segment")?;
        self.packs.push((pack, size));
        self.entries.extend(entries.iter().map(|entry| SegmentEntry { pack: number, entry: *entry }));
        Ok(())
    }

    /// The body of the segment.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] where it would be larger than the format allows,
    /// [`Error::Internal`] where a pack was added twice.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>> {
        let packs = self.packs.len().saturating_mul(PACK_LENGTH);
        let entries = self.entries.len().saturating_mul(ENTRY_LENGTH);
        let length = HEADER_LENGTH.saturating_add(packs).saturating_add(entries);
        if to_u64(length) > limits::INDEX {
            return Err(Error::limit("size of an index segment", to_u64(length), limits::INDEX));
        }
        let mut order: Vec<(ObjectName, u64, usize)> =
            self.packs.iter().enumerate().map(|(number, (name, size))| (*name, *size, number)).collect();
        order.sort_unstable();
        if order.is_sorted_by(|left, right| left.0 < right.0) {
            let mut numbers = vec![0u32; order.len()];
            for (new, (_, _, old)) in order.iter().enumerate() {
                if let Some(number) = numbers.get_mut(*old) {
                    *number = to_u32(new, "packs of an index segment")?;
                }
            }
            for entry in &mut self.entries {
                entry.pack = *numbers.get(index(entry.pack)).ok_or(Error::Internal("a pack has no number"))?;
            }
        } else {
            return Err(Error::Internal("a pack was added to an index segment twice"));
        }
        // The first eight bytes decide almost always, and are compared at once as a number.
        let position = |entry: &SegmentEntry| {
            let id = *entry.entry.id.as_bytes();
            (id.first_chunk::<8>().map(|first| u64::from_be_bytes(*first)), id, entry.pack, entry.entry.offset)
        };
        self.entries.sort_unstable_by_key(position);

        let mut out = Vec::with_capacity(length);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&to_u32(order.len(), "packs of an index segment")?.to_le_bytes());
        out.extend_from_slice(&to_u32(self.entries.len(), "entries of an index segment")?.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        for (name, size, _) in &order {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(&size.to_le_bytes());
        }
        for SegmentEntry { pack, entry } in &self.entries {
            out.extend_from_slice(entry.id.as_bytes());
            for number in [*pack, entry.offset, entry.stored, entry.raw] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            out.extend_from_slice(&[entry.codec.number(), entry.kind.number(), 0, 0]);
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u8, offset: u32, raw: u32, codec: Codec) -> PackEntry {
        let stored = if codec == Codec::Raw { raw } else { raw - 1 };
        PackEntry { id: ChunkId::new([id; 32]), offset, stored, raw, codec, kind: ChunkKind::Data }
    }

    fn small() -> Vec<u8> {
        let mut segment = SegmentBuilder::new();
        segment
            .push(ObjectName::new([9; 32]), 500, &[entry(3, 60, 10, Codec::Raw), entry(1, 70, 9, Codec::Zstd)])
            .unwrap();
        segment
            .push(ObjectName::new([4; 32]), 300, &[entry(2, 60, 10, Codec::Raw), entry(1, 70, 9, Codec::Raw)])
            .unwrap();
        segment.finish().unwrap()
    }

    type Meaning = (Vec<(ObjectName, u64)>, Vec<(u32, PackEntry)>);

    fn meaning(bytes: &[u8]) -> Result<Meaning> {
        let segment = Segment::parse(bytes, &"index/abcd")?;
        Ok((segment.packs().collect(), segment.entries().map(|entry| (entry.pack, entry.entry)).collect()))
    }

    #[test]
    fn reads_what_was_written_in_order() {
        let (packs, entries) = meaning(&small()).unwrap();
        assert_eq!(packs, [(ObjectName::new([4; 32]), 300), (ObjectName::new([9; 32]), 500)]);
        let expected = [
            (0, entry(1, 70, 9, Codec::Raw)),
            (1, entry(1, 70, 9, Codec::Zstd)),
            (0, entry(2, 60, 10, Codec::Raw)),
            (1, entry(3, 60, 10, Codec::Raw)),
        ];
        assert_eq!(entries, expected);
    }

    #[test]
    fn the_order_of_packs_does_not_matter() {
        let mut segment = SegmentBuilder::new();
        segment
            .push(ObjectName::new([4; 32]), 300, &[entry(2, 60, 10, Codec::Raw), entry(1, 70, 9, Codec::Raw)])
            .unwrap();
        segment
            .push(ObjectName::new([9; 32]), 500, &[entry(3, 60, 10, Codec::Raw), entry(1, 70, 9, Codec::Zstd)])
            .unwrap();
        assert_eq!(segment.finish().unwrap(), small());
    }

    #[test]
    fn a_pack_stands_once() {
        let mut segment = SegmentBuilder::new();
        segment.push(ObjectName::new([4; 32]), 300, &[]).unwrap();
        segment.push(ObjectName::new([4; 32]), 300, &[]).unwrap();
        assert!(segment.finish().is_err());
        assert!(meaning(&SegmentBuilder::new().finish().unwrap()).is_ok());
    }

    /// Every byte changed to every value: rejected, or one value is another valid one.
    #[test]
    fn every_changed_byte_is_noticed_or_is_another_segment() {
        let bytes = small();
        let (packs, entries) = meaning(&bytes).unwrap();
        for position in 0..bytes.len() {
            for byte in 0..=255 {
                let mut changed = bytes.clone();
                changed[position] = byte;
                let Ok((read_packs, read_entries)) = meaning(&changed) else { continue };
                // Whatever is accepted says the same bytes again and is as long.
                assert_eq!((read_packs.len(), read_entries.len()), (packs.len(), entries.len()));
                let mut again = SegmentBuilder::new();
                for (number, (name, size)) in read_packs.iter().enumerate() {
                    let of_pack: Vec<PackEntry> = read_entries
                        .iter()
                        .filter(|(pack, _)| usize::try_from(*pack).unwrap() == number)
                        .map(|(_, entry)| *entry)
                        .collect();
                    again.push(*name, *size, &of_pack).unwrap();
                }
                assert_eq!(again.finish().unwrap(), changed, "byte {position} = {byte}");
            }
        }
    }

    #[test]
    fn every_length_but_the_right_one_is_rejected() {
        let bytes = small();
        for length in 0..bytes.len() {
            assert!(meaning(&bytes[..length]).is_err(), "{length}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        let error = meaning(&longer).unwrap_err();
        assert!(matches!(&error, Error::Damaged { name, .. } if name == "index/abcd"), "{error}");
    }

    #[test]
    fn huge_counts_do_not_allocate() {
        for field in [4, 8] {
            let mut bytes = small();
            bytes[field..field + 4].fill(0xff);
            assert!(meaning(&bytes).is_err());
        }
    }
}
