//! Filling a pack.

use crate::compress::Codec;
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::length::{to_u32, to_u64};
use crate::limits;
use crate::pack::directory::{ENTRY_LENGTH, HEADER_LENGTH, MAGIC, Record};
use crate::pack::{ChunkKind, PackEntry, length_fault};

/// Payloads below this length are gathered in blocks.
const SMALL: usize = 64 << 10;
/// Length of such a block.
const BLOCK: usize = 512 << 10;

/// A pack being filled. Large payloads are kept as they come and never moved.
#[derive(Debug, Default)]
pub(crate) struct PackBuilder {
    records: Vec<Record>,
    payloads: Vec<Vec<u8>>,
    payload_length: u64,
}

impl PackBuilder {
    /// An empty pack.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a chunk: `stored` is its payload in `codec`, `raw` its own length.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] where the pack is full ([`has_room_for`](Self::has_room_for) tells
    /// before), [`Error::Internal`] where the lengths break the rules of the format.
    pub(crate) fn push(&mut self, id: ChunkId, kind: ChunkKind, codec: Codec, raw: u32, stored: Vec<u8>) -> Result<()> {
        let length = to_u32(stored.len(), "length of a chunk")?;
        if length_fault(codec, length, raw).is_some() {
            return Err(Error::Internal("a chunk with impossible lengths was to be packed"));
        }
        if !self.has_room_for(stored.len()) {
            return Err(Error::limit("size of a pack", self.size(), limits::PACK));
        }
        self.records.push(Record { id, stored: length, raw, codec, kind });
        self.payload_length = self.payload_length.saturating_add(u64::from(length));
        // Small payloads share a block: a pack may hold hundred thousand of them.
        match self.payloads.last_mut() {
            Some(block) if block.capacity().saturating_sub(block.len()) >= stored.len() && stored.len() < SMALL => {
                block.extend_from_slice(&stored);
            }
            _ if stored.len() < SMALL => {
                let mut block = Vec::with_capacity(BLOCK);
                block.extend_from_slice(&stored);
                self.payloads.push(block);
            }
            _ => self.payloads.push(stored),
        }
        Ok(())
    }

    /// Adds all chunks of another pack.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] where they do not fit.
    pub(crate) fn append(&mut self, other: Self) -> Result<()> {
        if !self.has_room_for_all(&other) {
            return Err(Error::limit("size of a pack", self.size().saturating_add(other.size()), limits::PACK));
        }
        self.records.extend(other.records);
        self.payloads.extend(other.payloads);
        self.payload_length = self.payload_length.saturating_add(other.payload_length);
        Ok(())
    }

    /// Whether the format lets one more chunk of this stored length in.
    #[must_use]
    pub(crate) fn has_room_for(&self, stored: usize) -> bool {
        let size = self.size().saturating_add(to_u64(ENTRY_LENGTH)).saturating_add(to_u64(stored));
        to_u64(self.records.len()) < u64::from(limits::PACK_ENTRIES) && size <= limits::PACK
    }

    /// Whether the format lets all chunks of another pack in.
    #[must_use]
    pub(crate) fn has_room_for_all(&self, other: &Self) -> bool {
        let records = self.records.len().saturating_add(other.records.len());
        let size = self.size().saturating_add(other.size());
        to_u64(records) <= u64::from(limits::PACK_ENTRIES) && size <= limits::PACK
    }

    /// Length of the body as it is now.
    #[must_use]
    pub(crate) fn size(&self) -> u64 {
        let directory = self.records.len().saturating_mul(ENTRY_LENGTH).saturating_add(HEADER_LENGTH);
        to_u64(directory).saturating_add(self.payload_length)
    }

    /// Whether no chunk was added.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Writes the directory. The pack must not be empty.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] where it is.
    pub(crate) fn finish(self) -> Result<FinishedPack> {
        if self.is_empty() {
            return Err(Error::Internal("a pack without chunks was to be written"));
        }
        let directory_length = self.records.len().saturating_mul(ENTRY_LENGTH).saturating_add(HEADER_LENGTH);
        let mut directory = Vec::with_capacity(directory_length);
        directory.extend_from_slice(MAGIC);
        directory.extend_from_slice(&to_u32(self.records.len(), "entries of a pack")?.to_le_bytes());
        directory.extend_from_slice(&[0; 8]);
        let mut entries = Vec::with_capacity(self.records.len());
        let mut offset = to_u32(directory_length, "length of a pack's directory")?;
        for record in &self.records {
            record.write(&mut directory);
            let Record { id, stored, raw, codec, kind } = *record;
            entries.push(PackEntry { id, offset, stored, raw, codec, kind });
            offset = offset.saturating_add(stored);
        }
        Ok(FinishedPack { directory, payloads: self.payloads, entries })
    }
}

/// A pack that is complete, in parts, to be sealed without another copy.
#[derive(Debug)]
pub(crate) struct FinishedPack {
    directory: Vec<u8>,
    payloads: Vec<Vec<u8>>,
    entries: Vec<PackEntry>,
}

impl FinishedPack {
    /// The body, in parts.
    #[must_use]
    pub(crate) fn parts(&self) -> Vec<&[u8]> {
        std::iter::once(&self.directory).chain(&self.payloads).map(Vec::as_slice).collect()
    }

    #[cfg(test)]
    /// The body, in one piece.
    #[must_use]
    pub(crate) fn body(&self) -> Vec<u8> {
        self.parts().concat()
    }

    /// Its chunks and where they are.
    #[must_use]
    pub(crate) fn entries(&self) -> &[PackEntry] {
        &self.entries
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pack::Directory;

    #[test]
    fn impossible_lengths_are_not_packed() {
        let mut pack = PackBuilder::new();
        let id = ChunkId::new([0; 32]);
        assert!(pack.push(id, ChunkKind::Data, Codec::Raw, 2, vec![0]).is_err());
        assert!(pack.push(id, ChunkKind::Data, Codec::Raw, 0, vec![]).is_err());
        assert!(pack.push(id, ChunkKind::Data, Codec::Zstd, 1, vec![0]).is_err());
        assert!(pack.push(id, ChunkKind::Data, Codec::Zstd, limits::CHUNK + 1, vec![0]).is_err());
        assert!(pack.is_empty());
        assert!(pack.finish().is_err());
    }

    #[test]
    fn entries_are_limited() {
        let mut pack = PackBuilder::new();
        for _ in 0..limits::PACK_ENTRIES {
            pack.push(ChunkId::new([0; 32]), ChunkKind::Data, Codec::Raw, 1, vec![0]).unwrap();
        }
        assert!(!pack.has_room_for(1));
        let error = pack.push(ChunkId::new([0; 32]), ChunkKind::Data, Codec::Raw, 1, vec![0]).unwrap_err();
        assert!(matches!(error, Error::LimitExceeded { .. }), "{error}");
        let body = pack.finish().unwrap().body();
        assert!(Directory::parse(&body, to_u64(body.len()), &"p").is_ok());
    }

    proptest! {
        #[test]
        fn a_pack_reads_as_it_was_filled(
            chunks in prop::collection::vec((any::<[u8; 32]>(), any::<bool>(), prop::collection::vec(any::<u8>(), 1..50)), 1..40)
        ) {
            let mut pack = PackBuilder::new();
            for (id, meta, payload) in &chunks {
                let (codec, more) = if payload[0] % 2 == 0 { (Codec::Raw, 0) } else { (Codec::Zstd, 7) };
                let kind = if *meta { ChunkKind::Meta } else { ChunkKind::Data };
                let raw = u32::try_from(payload.len()).unwrap() + more;
                pack.push(ChunkId::new(*id), kind, codec, raw, payload.clone()).unwrap();
            }
            let size = pack.size();
            let finished = pack.finish().unwrap();
            let body = finished.body();
            prop_assert_eq!(to_u64(body.len()), size);
            let directory = Directory::parse(&body, size, &"p").unwrap();
            prop_assert_eq!(directory.entries(), finished.entries());
            for (entry, (id, _, payload)) in directory.entries().iter().zip(&chunks) {
                prop_assert_eq!(entry.id.as_bytes(), id);
                prop_assert_eq!(Directory::payload(&body, entry, &"p").unwrap(), payload.as_slice());
            }
        }
    }
}
