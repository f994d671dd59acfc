//! The stages of the engine one by one, for measurements (`benches`).

use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use hashbrown::HashMap;

use crate::chunk::{Gear, GearTable};
use crate::compress::{Codec, Compressor, Decompressor};
use crate::content::{CatalogueReader, EncodedEntry, StreamContentBuilder};
use crate::content::{CatalogueRoot, ChunkRef, Content, Entry, EntrySorter, PageRef, PageSource, PageStore, Refs};
use crate::crypto::AeadProvider;
use crate::entropy::Entropy;
use crate::erasure::Code;
use crate::error::{Error, Result};
use crate::format::config::{ChunkingParameters, Padding};
use crate::format::layout::Place;
use crate::id::{ChunkId, ObjectName, RepositoryId, SessionId};
use crate::index::{Index, Segment, SegmentBuilder};
use crate::keys::ContentKeys;
use crate::length::{to_u32, to_u64};
use crate::object::{ObjectKeys, ObjectType};
use crate::pack::{ChunkKind, Directory, PackBuilder, PackEntry};
use crate::repository::{Control, Repository};
use crate::secret::Secret;
use crate::storage::Key;

/// The chunker of streams, with lengths as in a new repository.
pub struct Chunker(Gear);

impl Chunker {
    /// A chunker with this table.
    ///
    /// # Errors
    ///
    /// None that is expected.
    pub fn new(table: &[u8; 2048]) -> Result<Self> {
        let sizes = ChunkingParameters::default();
        Gear::new(GearTable::new(table), sizes.stream_min, sizes.stream_avg, sizes.stream_max).map(Self)
    }

    /// Length of the first chunk of `input`, behind which nothing follows; 0 where that is empty.
    #[must_use]
    pub fn cut(&self, input: &[u8]) -> usize {
        self.0.cut(input, true).unwrap_or(0)
    }
}

/// The code of archives and parity.
#[derive(Debug)]
pub struct ErrorCorrection(Code);

impl ErrorCorrection {
    /// A code; `None` where the field is too small for it.
    #[must_use]
    pub fn new(data: u8, parity: u8) -> Option<Self> {
        Code::new(data, parity).map(Self)
    }

    /// Adds the parity of `blocks` to `parity`, sixteen blocks at a time as a writer does.
    pub fn encode(&self, blocks: &[&[u8]], parity: &mut [Vec<u8>]) {
        for (number, part) in (0u8..).step_by(16).zip(blocks.chunks(16)) {
            self.0.encoding(number, part.len()).add(part, parity);
        }
    }

    /// Makes the blocks `lost` of `data` anew, of all others and of as many of `parity`.
    #[must_use]
    pub fn recover(&self, data: &[&[u8]], parity: &[&[u8]], lost: &[u8]) -> Vec<Vec<u8>> {
        let (mut known, mut inputs) = (Vec::new(), Vec::new());
        for (number, block) in (0u8..=u8::MAX).zip(data) {
            if !lost.contains(&number) {
                known.push(number);
                inputs.push(*block);
            }
        }
        inputs.extend(parity.iter().take(lost.len()));
        let rows: Vec<u8> = (0u8..=u8::MAX).take(parity.len()).collect();
        let mut out = vec![vec![0; data.first().map_or(0, |block| block.len())]; lost.len()];
        if let Some(recovery) = self.0.recovery(&known, lost, &rows) {
            recovery.add(&inputs, &mut out);
        }
        out
    }
}

/// Ids of chunks.
pub struct Ids(ContentKeys);

impl Ids {
    /// Ids under the keys of this dedup key.
    ///
    /// # Errors
    ///
    /// None that is expected.
    pub fn new(dedup: &[u8; 32]) -> Result<Self> {
        ContentKeys::derive(&Secret::copy_of(dedup)).map(Self)
    }

    /// The id of a chunk of content.
    #[must_use]
    pub fn of(&self, chunk: &[u8]) -> ChunkId {
        self.0.data_id(chunk)
    }
}

/// Compression as chunks are compressed: probed first, and left alone where it gains nothing.
pub struct Compression(Compressor, Decompressor);

impl Compression {
    /// At this level.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a level that does not exist.
    pub fn new(level: i32) -> Result<Self> {
        Ok(Self(Compressor::new(level)?, Decompressor::new()?))
    }

    /// Whether the chunk is stored compressed, and what is stored.
    pub fn compress(&mut self, chunk: &[u8]) -> (bool, Vec<u8>) {
        let (codec, stored) = self.0.compress(chunk);
        (codec == Codec::Zstd, stored.into_owned())
    }

    /// The `raw` bytes again.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`].
    pub fn decompress(&mut self, compressed: bool, stored: &[u8], raw: u32) -> Result<Vec<u8>> {
        let codec = if compressed { Codec::Zstd } else { Codec::Raw };
        self.1.decompress(codec, stored, raw, &"chunk").map(std::borrow::Cow::into_owned)
    }
}

/// Sealing and opening of packs with fixed keys.
pub struct Sealing(ObjectKeys);

impl Sealing {
    /// With this implementation of AES-256-GCM.
    ///
    /// # Errors
    ///
    /// None that is expected.
    pub fn new(provider: Arc<dyn AeadProvider>, entropy: Arc<dyn Entropy>) -> Result<Self> {
        let roots = [(1, Secret::copy_of(&[1; 32]))];
        ObjectKeys::new(RepositoryId::new([2; 16]), &roots, &Secret::copy_of(&[3; 32]), provider, entropy).map(Self)
    }

    /// The sealed object.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] for a body larger than a pack may be.
    pub fn seal(&self, parts: &[&[u8]]) -> Result<Bytes> {
        let sealed = self.0.seal(ObjectType::DataPack, &SessionId::new([4; 16]), parts, Padding::Padme)?;
        Ok(sealed.bytes)
    }

    /// Its body again.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`].
    pub fn open(&self, object: &[u8]) -> Result<Vec<u8>> {
        self.0.open(ObjectType::DataPack, "pack", object)
    }
}

/// The body of a pack with these chunks, as they are.
///
/// # Errors
///
/// [`Error::LimitExceeded`] where they do not fit.
pub fn build_pack(chunks: Vec<(ChunkId, Vec<u8>)>) -> Result<Vec<u8>> {
    let mut pack = PackBuilder::new();
    for (id, chunk) in chunks {
        pack.push(id, ChunkKind::Data, Codec::Raw, to_u32(chunk.len(), "length of a chunk")?, chunk)?;
    }
    Ok(pack.finish()?.parts().concat())
}

/// Number of chunks in the body of a pack.
///
/// # Errors
///
/// [`Error::Damaged`].
pub fn parse_pack(body: &[u8]) -> Result<usize> {
    Directory::parse(body, to_u64(body.len()), &"pack").map(|directory| directory.entries().len())
}

/// The index in memory.
pub struct ChunkIndex(Index);

impl ChunkIndex {
    /// An empty one.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "for measurements only")]
    pub fn new() -> Self {
        Self(Index::new())
    }

    /// Adds the body of a segment, as when a repository is opened.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`].
    pub fn load(&mut self, segment: &[u8]) -> Result<()> {
        self.0.load(&Segment::parse(segment, &"index")?)?;
        self.0.settle();
        Ok(())
    }

    /// Adds a pack, as when one was stored.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] at 2^31 packs.
    pub fn insert(&self, pack: ObjectName, chunks: &[ChunkId]) -> Result<()> {
        self.0.insert_pack(pack, PACK_SIZE, &pack_entries(chunks))
    }

    /// Whether a chunk is known.
    #[must_use]
    pub fn contains(&self, chunk: &ChunkId) -> bool {
        self.0.lookup(chunk).is_some()
    }

    /// Bytes of memory.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.0.memory_bytes()
    }
}

const PACK_SIZE: u64 = 16 << 20;
/// Lengths of chunks in made-up packs, before and after compression.
const RAW: u32 = 1 << 20;
const STORED: u32 = 400 << 10;

fn pack_entries(chunks: &[ChunkId]) -> Vec<PackEntry> {
    let mut offset = 4096u32;
    let mut entries = Vec::with_capacity(chunks.len());
    for id in chunks {
        entries.push(PackEntry {
            id: *id,
            offset,
            stored: STORED,
            raw: RAW,
            codec: Codec::Zstd,
            kind: ChunkKind::Data,
        });
        offset = offset.saturating_add(STORED);
    }
    entries
}

/// The body of an index segment with made-up places for these chunks of these packs, at most 40 a pack.
///
/// # Errors
///
/// [`Error::LimitExceeded`] for too many.
pub fn index_segment(packs: &[(ObjectName, Vec<ChunkId>)]) -> Result<Vec<u8>> {
    let mut segment = SegmentBuilder::new();
    for (name, chunks) in packs {
        segment.push(*name, PACK_SIZE, &pack_entries(chunks))?;
    }
    segment.finish()
}

/// The storage key of an index object.
#[must_use]
pub fn index_key(name: ObjectName) -> Key {
    Place::Index(name).key()
}

/// Loads the index of a repository as reading does: number of chunks and packs, and bytes of memory.
///
/// # Errors
///
/// Those of reading the history.
pub fn load_index(repository: &Repository, control: &Control) -> Result<(u64, u64, u64)> {
    let index = repository.inner.index(control)?;
    Ok((index.chunk_count(), to_u64(index.packs().len()), index.memory_bytes()))
}

/// Pages in memory.
#[derive(Default)]
pub struct Pages(Mutex<HashMap<ChunkId, Bytes>>);

impl PageStore for Pages {
    fn put_page(&self, bytes: &[u8]) -> Result<PageRef> {
        let id = ChunkId::new(*blake3::hash(bytes).as_bytes());
        let length = to_u32(bytes.len(), "length of a page")?;
        let mut pages = self.0.lock().map_err(|_| Error::Internal("a thread panicked"))?;
        pages.insert(id, Bytes::copy_from_slice(bytes));
        Ok(PageRef { id, length })
    }
}

impl PageSource for Pages {
    fn page(&self, page: &PageRef) -> Result<Bytes> {
        let pages = self.0.lock().map_err(|_| Error::Internal("a thread panicked"))?;
        pages.get(&page.id).cloned().ok_or_else(|| Error::not_found("page", page.id))
    }
}

impl Pages {
    /// Writes the references of a content: chunks of 1 MiB.
    ///
    /// # Errors
    ///
    /// None that is expected.
    pub fn write_content(&self, chunks: &[ChunkId]) -> Result<Content> {
        let mut content = StreamContentBuilder::new(self);
        for id in chunks {
            content.push(ChunkRef::Data { id: *id, length: RAW })?;
        }
        content.finish()
    }

    /// Reads them again: how many they are.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`].
    pub fn read_content(&self, content: &Content) -> Result<u64> {
        Refs::new(content, 0..content.length, self).try_fold(0u64, |count, item| item.map(|_| count.saturating_add(1)))
    }

    /// Sorts entries and writes their catalogue.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyExists`] where two have the same path.
    pub fn write_catalogue(&self, entries: &[Entry]) -> Result<Catalogue> {
        let mut sorter = EntrySorter::new(&[5; 32]);
        entries.iter().try_for_each(|entry| sorter.push(EncodedEntry::new(entry)?, self))?;
        sorter.finish(self).map(Catalogue)
    }

    /// Reads a catalogue again: how many entries it has.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`].
    pub fn read_catalogue(&self, catalogue: &Catalogue) -> Result<u64> {
        let reader = CatalogueReader::new(catalogue.0, self);
        reader.entries(None).try_fold(0u64, |count, entry| entry.map(|_| count.saturating_add(1)))
    }
}

/// A written catalogue.
#[derive(Clone, Copy)]
pub struct Catalogue(CatalogueRoot);

macro_rules! opaque {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    )*};
}

opaque!(Chunker, Ids, Compression, Sealing, ChunkIndex, Pages, Catalogue);
