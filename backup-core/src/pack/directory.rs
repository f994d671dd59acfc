//! Reading the directory of a pack, strictly.

use std::fmt;
use std::ops::Range;

use crate::compress::Codec;
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::length::{index, to_u64, to_usize};
use crate::limits;
use crate::pack::{ChunkKind, PackEntry, length_fault};

pub(super) const MAGIC: &[u8; 4] = b"PKB1";
/// Length of magic, count and zeros.
pub(crate) const HEADER_LENGTH: usize = 16;
/// Length of one entry.
pub(super) const ENTRY_LENGTH: usize = 44;

/// The directory of a pack, checked as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directory {
    entries: Vec<PackEntry>,
}

impl Directory {
    /// Length of header and entries, told from the first [`HEADER_LENGTH`] bytes of a pack's body:
    /// how much to read for [`parse`](Self::parse). `name` is the pack's.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] where the header breaks a rule.
    pub(crate) fn length(header: &[u8], name: &dyn fmt::Display) -> Result<usize> {
        let damaged = |reason: &str| Error::damaged("pack", name, reason);
        let (magic, rest) = header.split_first_chunk::<4>().ok_or_else(|| damaged("its header is cut short"))?;
        let (count, rest) = rest.split_first_chunk::<4>().ok_or_else(|| damaged("its header is cut short"))?;
        let zeros = rest.first_chunk::<8>().ok_or_else(|| damaged("its header is cut short"))?;
        if magic != MAGIC {
            return Err(damaged("it does not begin with PKB1"));
        }
        let count = u32::from_le_bytes(*count);
        if count == 0 {
            return Err(damaged("it has no entries"));
        }
        if count > limits::PACK_ENTRIES {
            return Err(damaged("it has more than 262144 entries"));
        }
        if *zeros != [0; 8] {
            return Err(damaged("reserved bytes of its header are not zero"));
        }
        Ok(HEADER_LENGTH.saturating_add(index(count).saturating_mul(ENTRY_LENGTH)))
    }

    /// Reads and checks a directory. `bytes` begin where the pack's body begins and hold the whole
    /// directory at least; `body_length` is the length of the whole body.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] where a rule is broken.
    pub(crate) fn parse(bytes: &[u8], body_length: u64, name: &dyn fmt::Display) -> Result<Self> {
        let damaged = |reason: &str| Error::damaged("pack", name, reason);
        if body_length > limits::PACK {
            return Err(damaged("it is longer than 256 MiB"));
        }
        let length = Self::length(bytes, name)?;
        let table = bytes.get(HEADER_LENGTH..length).ok_or_else(|| damaged("its directory is cut short"))?;
        let mut end = to_u64(length);
        let (records, _) = table.as_chunks::<ENTRY_LENGTH>();
        // As long as the bytes that are there, not as the count says.
        let mut entries = Vec::with_capacity(records.len());
        for record in records {
            let fields = Record::read(record).map_err(damaged)?;
            let offset = u32::try_from(end).map_err(|_| damaged("its payloads are longer than it is"))?;
            end = end.saturating_add(u64::from(fields.stored));
            if end > body_length {
                return Err(damaged("its payloads are longer than it is"));
            }
            entries.push(PackEntry {
                id: fields.id,
                offset,
                stored: fields.stored,
                raw: fields.raw,
                codec: fields.codec,
                kind: fields.kind,
            });
        }
        if end != body_length {
            return Err(damaged("bytes follow its last payload"));
        }
        Ok(Self { entries })
    }

    /// The chunks, in the order of their payloads.
    pub(crate) fn entries(&self) -> &[PackEntry] {
        &self.entries
    }

    /// The chunks, as a vector.
    pub(crate) fn into_entries(self) -> Vec<PackEntry> {
        self.entries
    }

    /// The payload of `entry` within the whole `body`.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] where the body is shorter than the entry says.
    pub(crate) fn payload<'a>(body: &'a [u8], entry: &PackEntry, name: &dyn fmt::Display) -> Result<&'a [u8]> {
        let range = entry.range();
        let range = to_usize(range.start, "offset in a pack")?..to_usize(range.end, "offset in a pack")?;
        body.get(range).ok_or_else(|| Error::damaged("pack", name, "a payload lies outside of it"))
    }
}

impl PackEntry {
    /// The bytes of the payload in the pack's body.
    pub(crate) fn range(&self) -> Range<u64> {
        let start = u64::from(self.offset);
        start..start.saturating_add(u64::from(self.stored))
    }
}

/// The stored fields of an entry.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) id: ChunkId,
    pub(super) stored: u32,
    pub(super) raw: u32,
    pub(super) codec: Codec,
    pub(super) kind: ChunkKind,
}

impl Record {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(&self.stored.to_le_bytes());
        out.extend_from_slice(&self.raw.to_le_bytes());
        out.extend_from_slice(&[self.codec.number(), self.kind.number(), 0, 0]);
    }

    fn read(record: &[u8; ENTRY_LENGTH]) -> Result<Self, &'static str> {
        const SHORT: &str = "its directory is cut short";
        let (id, rest) = record.split_first_chunk::<32>().ok_or(SHORT)?;
        let (stored, rest) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
        let (raw, rest) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
        let [codec, kind, zero @ ..] = rest.first_chunk::<4>().ok_or(SHORT)?;
        let (stored, raw) = (u32::from_le_bytes(*stored), u32::from_le_bytes(*raw));
        let codec = Codec::from_number(*codec).ok_or("a chunk has an unknown codec")?;
        let kind = ChunkKind::from_number(*kind).ok_or("a chunk has an unknown kind")?;
        if *zero != [0; 2] {
            return Err("reserved bytes of an entry are not zero");
        }
        match length_fault(codec, stored, raw) {
            Some(fault) => Err(fault),
            None => Ok(Self { id: ChunkId::new(*id), stored, raw, codec, kind }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::PackBuilder;

    fn small() -> Vec<u8> {
        let mut pack = PackBuilder::new();
        for (byte, codec, raw, payload) in
            [(1, Codec::Raw, 3, &b"abc"[..]), (2, Codec::Zstd, 100, b"z"), (3, Codec::Raw, 1, b"!")]
        {
            let kind = if byte == 2 { ChunkKind::Meta } else { ChunkKind::Data };
            pack.push(ChunkId::new([byte; 32]), kind, codec, raw, payload.to_vec()).unwrap();
        }
        pack.finish().unwrap().body()
    }

    fn parse(body: &[u8]) -> Result<Directory> {
        Directory::parse(body, to_u64(body.len()), &"packs/ab/abcd")
    }

    /// What a reader relies on: everything but the ids and payloads themselves.
    fn meaning(directory: &Directory) -> Vec<(Range<u64>, u32, Codec, ChunkKind)> {
        directory.entries().iter().map(|entry| (entry.range(), entry.raw, entry.codec, entry.kind)).collect()
    }

    #[test]
    fn reads_what_was_written() {
        let body = small();
        let directory = parse(&body).unwrap();
        assert_eq!(Directory::length(&body[..16], &"p").unwrap(), 16 + 3 * 44);
        let payloads: Vec<&[u8]> =
            directory.entries().iter().map(|entry| Directory::payload(&body, entry, &"p").unwrap()).collect();
        assert_eq!(payloads, [&b"abc"[..], b"z", b"!"]);
        assert_eq!(Directory::parse(&body[..16 + 3 * 44], to_u64(body.len()), &"p").unwrap(), directory);
    }

    #[test]
    fn every_changed_byte_is_noticed_or_is_a_valid_entry() {
        let body = small();
        let directory = meaning(&parse(&body).unwrap());
        let end = 16 + 3 * 44;
        for position in 0..end {
            for byte in 0..=255 {
                let mut changed = body.clone();
                changed[position] = byte;
                if changed == body {
                    continue;
                }
                let Ok(read) = parse(&changed) else { continue };
                let field = position.checked_sub(16).map(|offset| offset % 44);
                match field {
                    // Ids, kind: any value is valid. Length of a chunk that is compressed.
                    Some(0..32) => assert_eq!(meaning(&read), directory, "{position} {byte}"),
                    Some(36..=39 | 41) => {}
                    other => panic!("byte {position} = {byte} in field {other:?} was accepted: {read:?}"),
                }
            }
        }
    }

    #[test]
    fn every_length_but_the_right_one_is_rejected() {
        let body = small();
        for length in 0..body.len() {
            assert!(parse(&body[..length]).is_err(), "{length}");
        }
        let mut longer = body.clone();
        longer.push(0);
        assert!(parse(&longer).is_err());
    }

    #[test]
    fn counts_do_not_allocate() {
        for count in [0, 4, limits::PACK_ENTRIES, limits::PACK_ENTRIES + 1, u32::MAX] {
            let mut body = small();
            body[4..8].copy_from_slice(&count.to_le_bytes());
            let error = parse(&body).unwrap_err();
            assert!(matches!(&error, Error::Damaged { name, .. } if name == "packs/ab/abcd"), "{error}");
        }
    }
}
