//! The way of every chunk into the repository: identify, deduplicate, compress, pack, seal, store.
//!
//! One store serves one session and is used by all its threads at once. A chunk is *claimed* by the
//! first thread that meets it; its id enters the index when its pack is sealed. Whoever meets it
//! again, before or after, finds it in one of the two.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use hashbrown::HashSet;

use crate::compress::{Codec, Compressor};
use crate::content::{ChunkRef, Content, PageRef, PageSource, PageStore, Refs, walk_pages};
use crate::error::{Error, Result};
use crate::format::Padding;
use crate::format::layout::Place;
use crate::id::{ChunkId, ObjectName, SessionId};
use crate::index::{Index, Location, SegmentBuilder};
use crate::length::{to_u32, to_u64};
use crate::object::ObjectType;
use crate::pack::{ChunkKind, PackBuilder, PackEntry};
use crate::progress::Event;
use crate::repository::environment::Control;
use crate::repository::handle::Inner;
use crate::repository::parallel::lock;
use crate::repository::read::IndexedPages;
use crate::repository::write::gate::Gate;
use crate::storage::{PutMode, StorageError};

/// Chunks whose packs were stored are named in an index object at least this often: what a crash
/// leaves to be found again by reading pack directories stays bounded.
const INDEX_ENTRIES: usize = 1 << 16;

/// Open packs for file and stream contents. A chunk goes to one or the other by a secret bit, so
/// that pack sizes tell less about chunk sizes (`docs/format.md`, "Packs").
const DATA_LANES: usize = 2;

/// Packs of pages are small: reading one page means reading its pack, and pages that were written
/// together are read together.
const META_TARGET: u64 = 2 << 20;

/// A thread's own tools.
pub(crate) struct StoreWorker {
    pub(crate) compressor: Compressor,
    /// Where content is read to.
    pub(crate) buffer: Vec<u8>,
}

/// Amounts that a session counts.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) chunks: AtomicU64,
    pub(crate) chunks_new: AtomicU64,
    pub(crate) bytes_new: AtomicU64,
    pub(crate) bytes_stored: AtomicU64,
}

/// What a finished store hands to the commit.
pub(crate) struct Stored {
    /// Every pack that the backup needs, with its size.
    pub(crate) packs: BTreeMap<ObjectName, u64>,
    /// Index objects written by this session.
    pub(crate) indexes: Vec<ObjectName>,
}

/// Stores the chunks and pages of one session.
pub(crate) struct ChunkStore {
    repository: Arc<Inner>,
    session: SessionId,
    padding: Padding,
    pack_target: u64,
    meta_target: u64,
    compression_level: i32,
    page_compressor: Mutex<Compressor>,
    stored_pages: IndexedPages,
    control: Control,
    /// Chunks of this repository: those of the view that the session began with, and those sealed since.
    index: Arc<Index>,
    /// New chunks that are on their way into a pack.
    claimed: Mutex<HashSet<ChunkId>>,
    data: [Mutex<PackBuilder>; DATA_LANES],
    meta: Mutex<PackBuilder>,
    sealing: Gate,
    written: Mutex<Written>,
    /// A pack could not be stored: claims exist that nothing fulfils, so nothing may be committed.
    failed: AtomicBool,
    pub(crate) counters: Counters,
    /// Every object that was stored, with its size.
    pub(crate) objects: Mutex<BTreeMap<Place, u64>>,
}

/// Packs of this session and packs that its backup refers to.
#[derive(Default)]
struct Written {
    referenced: BTreeMap<ObjectName, u64>,
    /// Packs and entries that no index object names yet.
    unindexed: Vec<(ObjectName, u64, Vec<PackEntry>)>,
    unindexed_entries: usize,
    indexes: Vec<ObjectName>,
    /// Packs of crashed sessions that the index knows only from their directories.
    orphans: BTreeMap<ObjectName, (u64, Vec<PackEntry>)>,
}

impl ChunkStore {
    /// A store for `session`. `index` holds every chunk that may be referred to; `orphans` are the
    /// packs among them that no index object names.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a compression level that there is not.
    pub(crate) fn new(
        repository: Arc<Inner>,
        session: SessionId,
        compression_level: i32,
        control: Control,
        index: Arc<Index>,
        orphans: BTreeMap<ObjectName, (u64, Vec<PackEntry>)>,
    ) -> Result<Self> {
        let config = &repository.config;
        Ok(Self {
            session,
            padding: config.padding,
            pack_target: u64::from(config.pack_target),
            meta_target: u64::from(config.pack_target).min(META_TARGET),
            compression_level,
            page_compressor: Mutex::new(Compressor::new(compression_level)?),
            stored_pages: IndexedPages::new(&repository, Arc::clone(&index), Arc::clone(&repository.cache), &control),
            index,
            claimed: Mutex::default(),
            data: std::array::from_fn(|_| Mutex::new(PackBuilder::new())),
            meta: Mutex::new(PackBuilder::new()),
            sealing: Gate::new(packs_sealed_at_once(&control, config.pack_target)),
            written: Mutex::new(Written { orphans, ..Written::default() }),
            failed: AtomicBool::new(false),
            counters: Counters::default(),
            objects: Mutex::default(),
            control,
            repository,
        })
    }

    pub(crate) fn worker(&self) -> Result<StoreWorker> {
        Ok(StoreWorker { compressor: Compressor::new(self.compression_level)?, buffer: Vec::new() })
    }

    /// Pages in packs that are stored.
    pub(crate) const fn stored_pages(&self) -> &IndexedPages {
        &self.stored_pages
    }

    pub(crate) const fn control(&self) -> &Control {
        &self.control
    }

    /// Stores a piece of content and returns the reference to it. `data` is neither empty nor
    /// larger than the largest chunk.
    pub(crate) fn store(&self, worker: &mut StoreWorker, data: &[u8]) -> Result<ChunkRef> {
        let length = to_u32(data.len(), "chunk")?;
        let id = self.repository.chunk_keys.data_id(data);
        self.counters.chunks.fetch_add(1, Ordering::Relaxed);
        self.store_as(&mut worker.compressor, ChunkKind::Data, id, data)?;
        Ok(ChunkRef::Data { id, length })
    }

    /// Marks an existing chunk as needed. `false` where the repository does not have it (any more):
    /// the caller then reads the data again.
    pub(crate) fn refer(&self, id: &ChunkId) -> Result<bool> {
        let location = self.index.lookup(id);
        match location {
            Some(location) => {
                self.need(&location)?;
                Ok(true)
            }
            None => Ok(lock(&self.claimed)?.contains(id)),
        }
    }

    /// Marks every chunk of an existing content, whose pages are in `pages`, as needed; `false` where one is missing.
    pub(crate) fn refer_all(&self, content: &Content, pages: &dyn PageSource) -> Result<bool> {
        let mut whole = true;
        let walked = walk_pages(content, pages, &mut |page, _, _| {
            whole = whole && self.refer(&page.id)?;
            Ok(whole)
        });
        if walked.is_err() || !whole {
            return Ok(false);
        }
        for item in Refs::new(content, 0..content.length, pages) {
            match item {
                Ok((_, ChunkRef::Data { id, .. })) => {
                    if !self.refer(&id)? {
                        return Ok(false);
                    }
                }
                Ok((_, ChunkRef::Hole { .. })) => {}
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Stores what is still open and writes the remaining index. Afterwards everything that was
    /// referred to is durable.
    pub(crate) fn finish(&self) -> Result<Stored> {
        if self.failed.load(Ordering::Acquire) {
            return Err(Error::Internal("a session continued after a failure to store"));
        }
        // Two half-empty packs of a small backup become one.
        let [first, second] = &self.data;
        let (mut left, right) = (take(first)?, take(second)?);
        if left.size().saturating_add(right.size()) <= self.pack_target && left.has_room_for_all(&right) {
            left.append(right)?;
            self.seal(ChunkKind::Data, left)?;
        } else {
            self.seal(ChunkKind::Data, left)?;
            self.seal(ChunkKind::Data, right)?;
        }
        self.seal(ChunkKind::Meta, take(&self.meta)?)?;
        let mut written = lock(&self.written)?;
        // Packs of crashed sessions that this backup does not need are named as well, so that nobody has to look
        // into them again.
        for (pack, (size, entries)) in std::mem::take(&mut written.orphans) {
            self.index_pack(&mut written, pack, size, entries)?;
        }
        self.write_index(&mut written)?;
        let written = std::mem::take(&mut *written);
        Ok(Stored { packs: written.referenced, indexes: written.indexes })
    }

    /// Stores a sealed or plain object that belongs to the session in its place.
    pub(crate) fn put(&self, place: Place, bytes: Bytes) -> Result<()> {
        let key = &place.key();
        let length = to_u64(bytes.len());
        let storage = &*self.repository.storage;
        let result = match storage.put(key, bytes.clone(), PutMode::Create) {
            // The name is a hash of the content: whoever stored it stored the same. A closure, which has no
            // random part, may have been stored long ago, and be damaged by now: a new backup must not refer
            // to that. Right bytes may replace anything.
            Err(StorageError::AlreadyExists) => match storage.get(key, length) {
                Ok(found) if found == bytes => Ok(()),
                Ok(_) | Err(StorageError::NotFound | StorageError::TooLarge { .. }) => {
                    storage.put(key, bytes, PutMode::Overwrite)
                }
                Err(error) => Err(error),
            },
            other => other,
        };
        if let Err(error) = result {
            self.failed.store(true, Ordering::Release);
            return Err(Error::storage("put", key, error));
        }
        self.counters.bytes_stored.fetch_add(length, Ordering::Relaxed);
        lock(&self.objects)?.insert(place, length);
        self.control.event(&Event::Stored { bytes: length });
        Ok(())
    }

    fn store_as(&self, compressor: &mut Compressor, kind: ChunkKind, id: ChunkId, data: &[u8]) -> Result<()> {
        {
            let mut claimed = lock(&self.claimed)?;
            if claimed.contains(&id) {
                return Ok(());
            }
            // Under the lock of the claims: a chunk that leaves them is in the index already.
            let location = self.index.lookup(&id);
            if let Some(location) = location {
                drop(claimed);
                return self.need(&location);
            }
            claimed.insert(id);
        }
        if kind == ChunkKind::Data {
            self.counters.chunks_new.fetch_add(1, Ordering::Relaxed);
            self.counters.bytes_new.fetch_add(to_u64(data.len()), Ordering::Relaxed);
        }
        let result = self.pack(compressor, kind, id, data);
        if result.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        result
    }

    /// Stores a chunk as it stands in another pack, unless it was stored before: `stored` is its payload, which the caller has
    /// checked against its id.
    pub(crate) fn store_payload(&self, entry: &PackEntry, stored: Vec<u8>) -> Result<()> {
        if self.index.lookup(&entry.id).is_some() || !lock(&self.claimed)?.insert(entry.id) {
            return Ok(());
        }
        let result = self.place(entry.kind, entry.id, entry.codec, entry.raw, stored);
        if result.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        result
    }

    fn pack(&self, compressor: &mut Compressor, kind: ChunkKind, id: ChunkId, data: &[u8]) -> Result<()> {
        let (codec, stored) = compressor.compress(data);
        let stored = stored.into_owned();
        self.place(kind, id, codec, to_u32(data.len(), "chunk")?, stored)
    }

    fn place(&self, kind: ChunkKind, id: ChunkId, codec: Codec, raw: u32, stored: Vec<u8>) -> Result<()> {
        let [first, second] = &self.data;
        let (lane, target) = match kind {
            ChunkKind::Meta => (&self.meta, self.meta_target),
            ChunkKind::Data if id.as_bytes().last().is_some_and(|byte| byte & 1 == 1) => (second, self.pack_target),
            ChunkKind::Data => (first, self.pack_target),
        };
        let full = {
            let mut builder = lock(lane)?;
            let grown = builder.size().saturating_add(to_u64(stored.len()));
            let fits = builder.is_empty() || (grown <= target && builder.has_room_for(stored.len()));
            // Whoever waits here keeps the lane: nobody fills a further pack meanwhile.
            let full = if fits { None } else { Some((self.sealing.enter()?, std::mem::take(&mut *builder))) };
            builder.push(id, kind, codec, raw, stored)?;
            full
        };
        match full {
            Some((_pass, full)) => self.seal(kind, full),
            None => Ok(()),
        }
    }

    /// Seals a pack, makes its chunks known and stores it.
    fn seal(&self, kind: ChunkKind, builder: PackBuilder) -> Result<()> {
        if builder.is_empty() {
            return Ok(());
        }
        let object_type = match kind {
            ChunkKind::Data => ObjectType::DataPack,
            ChunkKind::Meta => ObjectType::MetaPack,
        };
        let pack = builder.finish()?;
        let sealed = self.repository.keys.seal(object_type, &self.session, &pack.parts(), self.padding)?;
        let size = to_u64(sealed.bytes.len());
        let entries = pack.entries().to_vec();
        drop(pack);
        self.put(Place::Pack(sealed.name), sealed.bytes)?;
        self.index.insert_pack(sealed.name, size, &entries)?;
        {
            let mut claimed = lock(&self.claimed)?;
            for entry in &entries {
                claimed.remove(&entry.id);
            }
        }
        let mut written = lock(&self.written)?;
        written.referenced.insert(sealed.name, size);
        self.index_pack(&mut written, sealed.name, size, entries)
    }

    /// The backup needs the pack at `location`. An adopted pack enters this session's index, as nobody
    /// else's names it.
    fn need(&self, location: &Location) -> Result<()> {
        let mut written = lock(&self.written)?;
        if written.referenced.contains_key(&location.pack) {
            return Ok(());
        }
        let size =
            self.index.pack_size(&location.pack).ok_or(Error::Internal("a chunk is in a pack that is not known"))?;
        written.referenced.insert(location.pack, size);
        match written.orphans.remove(&location.pack) {
            Some((size, entries)) => self.index_pack(&mut written, location.pack, size, entries),
            None => Ok(()),
        }
    }

    /// Names a pack in this session's index.
    fn index_pack(&self, written: &mut Written, pack: ObjectName, size: u64, entries: Vec<PackEntry>) -> Result<()> {
        written.unindexed_entries = written.unindexed_entries.saturating_add(entries.len());
        written.unindexed.push((pack, size, entries));
        if written.unindexed_entries < INDEX_ENTRIES {
            return Ok(());
        }
        self.write_index(written)
    }

    fn write_index(&self, written: &mut Written) -> Result<()> {
        if written.unindexed.is_empty() {
            return Ok(());
        }
        let mut segment = SegmentBuilder::new();
        for (pack, size, entries) in std::mem::take(&mut written.unindexed) {
            segment.push(pack, size, &entries)?;
        }
        written.unindexed_entries = 0;
        let sealed =
            self.repository.keys.seal(ObjectType::Index, &self.session, &[&segment.finish()?], self.padding)?;
        self.put(Place::Index(sealed.name), sealed.bytes)?;
        written.indexes.push(sealed.name);
        Ok(())
    }
}

/// Packs that may be sealed and stored at once: each is in memory twice then, in plain and sealed. They get half of
/// the budget; open packs, chunks on their way and the threads' buffers have the rest.
fn packs_sealed_at_once(control: &Control, pack_target: u32) -> usize {
    let each = u64::from(pack_target.max(1)).saturating_mul(2);
    let by_budget = (control.byte_budget() / 2).checked_div(each).unwrap_or(u64::MAX);
    usize::try_from(by_budget).unwrap_or(usize::MAX).clamp(1, control.threads())
}

/// Pages are chunks of their own kind, in packs of their own.
impl PageStore for ChunkStore {
    fn put_page(&self, bytes: &[u8]) -> Result<PageRef> {
        let length = to_u32(bytes.len(), "page")?;
        let id = self.repository.chunk_keys.meta_id(bytes);
        let mut compressor = lock(&self.page_compressor)?;
        self.store_as(&mut compressor, ChunkKind::Meta, id, bytes)?;
        Ok(PageRef { id, length })
    }
}

/// Pages that this session wrote or found. Not while its threads run: they may be storing what is asked for.
impl PageSource for ChunkStore {
    fn page(&self, page: &PageRef) -> Result<Bytes> {
        if self.index.lookup(&page.id).is_none() {
            // It is in the pack that is being filled.
            self.seal(ChunkKind::Meta, take(&self.meta)?)?;
        }
        self.stored_pages.page(page)
    }
}

fn take(lane: &Mutex<PackBuilder>) -> Result<PackBuilder> {
    Ok(std::mem::take(&mut *lock(lane)?))
}
