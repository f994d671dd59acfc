//! Fetching chunks: by pack, with neighbouring ranges in one read, every chunk checked against its id.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::compress::Decompressor;
use crate::error::{Error, Result};
use crate::format::header::HEADER_BYTES;
use crate::format::layout::Place;
use crate::id::{ChunkId, ObjectName};
use crate::index::{Index, Location};
use crate::length::{to_u64, to_usize};
use crate::object::ObjectReader;
use crate::pack::ChunkKind;
use crate::repository::environment::Control;
use crate::repository::handle::Inner;
use crate::repository::read::pages::ReadCache;
use crate::repository::view;

/// Bytes between two chunks that are read along rather than asked for separately.
const GAP: u64 = 128 << 10;
/// Most bytes of one read.
const READ: u64 = 8 << 20;

/// A chunk that somebody waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) id: ChunkId,
    /// Its length, as the reference to it says.
    pub(crate) length: u32,
    /// Content or a page, as the place of the reference says: their ids are made with different keys.
    pub(crate) kind: ChunkKind,
    pub(crate) location: Location,
    /// What the caller knows it by.
    pub(crate) tag: usize,
}

/// Fetches chunks on one thread.
pub(crate) struct Fetcher<'r> {
    pub(super) inner: &'r Inner,
    pub(super) index: Arc<Index>,
    pub(super) cache: Arc<ReadCache>,
    /// Whether a younger index may take the place of this one.
    is_renewed: bool,
    pub(super) control: &'r Control,
    pub(super) decompressor: Decompressor,
}

/// Chunks by the packs that hold them, and those that no index names, with their tags.
pub(crate) type ByPack = (BTreeMap<ObjectName, Vec<Wanted>>, Vec<(usize, ChunkId)>);

/// What is done with a chunk, or with why there is none.
pub(crate) type Deliver<'d> = dyn FnMut(&Wanted, Result<&[u8]>) -> Result<()> + 'd;

impl Inner {
    /// Sorts references to content by the packs that hold them. Tags are positions in `chunks`.
    ///
    /// A chunk that not even the index of now knows is reported by position.
    pub(crate) fn locate(&self, chunks: &[(ChunkId, u32)], control: &Control) -> Result<ByPack> {
        let index = self.index(control)?;
        let found = group_by_pack(&index, chunks);
        if !found.1.is_empty()
            && let Some(younger) = self.younger_index(&index, None, control)?
        {
            return Ok(group_by_pack(&younger, chunks));
        }
        Ok(found)
    }
}

fn group_by_pack(index: &Index, chunks: &[(ChunkId, u32)]) -> ByPack {
    let (mut packs, mut unknown) = (BTreeMap::<ObjectName, Vec<Wanted>>::new(), Vec::new());
    for (tag, (id, length)) in chunks.iter().enumerate() {
        match index.lookup(id) {
            Some(location) => {
                let wanted = Wanted { id: *id, length: *length, kind: ChunkKind::Data, location, tag };
                packs.entry(location.pack).or_default().push(wanted);
            }
            None => unknown.push((tag, *id)),
        }
    }
    (packs, unknown)
}

/// A chunk that nothing says the place of.
pub(crate) fn unknown_chunk(id: &ChunkId) -> Error {
    Error::damaged("chunk", id, "no index names it")
}

impl<'r> Fetcher<'r> {
    /// Fetches with the index that the readers of the handle share, or a younger one where that lacks something.
    pub(crate) fn new(inner: &'r Inner, control: &'r Control) -> Result<Self> {
        let (index, cache) = (inner.index(control)?, Arc::clone(&inner.cache));
        Ok(Self { inner, index, cache, is_renewed: true, control, decompressor: Decompressor::new()? })
    }

    /// Fetches with this index only.
    pub(crate) fn with_index(
        inner: &'r Inner,
        index: Arc<Index>,
        cache: Arc<ReadCache>,
        control: &'r Control,
    ) -> Result<Self> {
        Ok(Self { inner, index, cache, is_renewed: false, control, decompressor: Decompressor::new()? })
    }

    /// Delivers every chunk of `wanted`, all in one pack, in the order of their places: its plaintext or why
    /// there is none. Equal chunks are read once. Where the pack is damaged, other packs with the
    /// chunk are tried, those of a younger index included.
    ///
    /// # Errors
    ///
    /// The first error that `deliver` returns; [`Error::Cancelled`].
    pub(crate) fn fetch(&mut self, wanted: &mut [Wanted], deliver: &mut Deliver<'_>) -> Result<()> {
        wanted.sort_by_key(|item| item.location.offset);
        let mut rest: &[Wanted] = wanted;
        while let Some(first) = rest.first() {
            self.control.cancel().check()?;
            let begin = body_range(&first.location).start;
            let mut end = begin;
            let mut count = 0usize;
            for item in rest {
                let range = body_range(&item.location);
                let near = range.start <= end.saturating_add(GAP) && range.end.saturating_sub(begin) <= READ;
                if count > 0 && !near {
                    break;
                }
                end = end.max(range.end);
                count = count.saturating_add(1);
            }
            let (group, others) = rest.split_at_checked(count).unwrap_or((rest, &[]));
            rest = others;
            let bytes = self.read_body(&first.location, begin..end);
            let mut last: Option<(u32, ChunkId, Vec<u8>)> = None;
            for item in group {
                if let Some((offset, id, plain)) = &last
                    && (*offset, *id) == (item.location.offset, item.id)
                    && to_u64(plain.len()) == u64::from(item.length)
                {
                    deliver(item, Ok(plain))?;
                    continue;
                }
                let chunk = match &bytes {
                    Ok(bytes) => self.open_chunk(item, begin, bytes),
                    Err(_) => Err(Error::Cancelled),
                };
                let chunk = match (chunk, &bytes) {
                    (Ok(chunk), _) => Ok(chunk),
                    (Err(error), Ok(_)) => self.elsewhere(item, error),
                    (Err(_), Err(_)) => self.elsewhere_or_alone(item),
                };
                match chunk {
                    Ok(plain) => {
                        deliver(item, Ok(&plain))?;
                        last = Some((item.location.offset, item.id, plain));
                    }
                    Err(error) => deliver(item, Err(error))?,
                }
            }
        }
        Ok(())
    }

    /// One chunk, from wherever it can be had.
    pub(crate) fn fetch_one(&mut self, kind: ChunkKind, id: &ChunkId, length: u32) -> Result<Vec<u8>> {
        let mut location = self.index.lookup(id);
        if location.is_none() && self.renew(None)? {
            location = self.index.lookup(id);
        }
        let location = location.ok_or_else(|| unknown_chunk(id))?;
        let item = Wanted { id: *id, length, kind, location, tag: 0 };
        self.alone(&item).or_else(|error| self.elsewhere(&item, error))
    }

    fn elsewhere_or_alone(&mut self, item: &Wanted) -> Result<Vec<u8>> {
        self.alone(item).or_else(|error| self.elsewhere(item, error))
    }

    fn alone(&mut self, item: &Wanted) -> Result<Vec<u8>> {
        let range = body_range(&item.location);
        let bytes = self.read_body(&item.location, range.clone())?;
        self.open_chunk(item, range.start, &bytes)
    }

    /// The same chunk in another pack; `first` is why it was not to be had from the first.
    fn elsewhere(&mut self, item: &Wanted, first: Error) -> Result<Vec<u8>> {
        if let Some(plain) = self.other_places(item) {
            return Ok(plain);
        }
        if matches!(first, Error::Damaged { .. })
            && self.renew(Some(&item.location.pack))?
            && let Some(plain) = self.other_places(item)
        {
            return Ok(plain);
        }
        Err(first)
    }

    fn other_places(&mut self, item: &Wanted) -> Option<Vec<u8>> {
        let places = self.index.lookup_all(&item.id).into_iter().filter(|place| *place != item.location);
        places.into_iter().find_map(|location| self.alone(&Wanted { location, ..*item }).ok())
    }

    /// Goes on with a younger index, if there is one. Before damage is reported, nothing must be missing only
    /// because a collection or another writer came by.
    fn renew(&mut self, unreadable: Option<&ObjectName>) -> Result<bool> {
        if !self.is_renewed {
            return Ok(false);
        }
        let younger = self.inner.younger_index(&self.index, unreadable, self.control)?;
        Ok(younger.map(|index| self.index = index).is_some())
    }

    fn read_body(&self, location: &Location, range: Range<u64>) -> Result<Vec<u8>> {
        let key = Place::Pack(location.pack).key();
        let reader = self.reader(&location.pack)?;
        let span = reader.span(&range)?;
        reader.open_span(&range, &self.inner.get_range(&key, span, self.control)?)
    }

    fn reader(&self, pack: &ObjectName) -> Result<Arc<ObjectReader>> {
        if let Some(reader) = self.cache.reader(pack) {
            return Ok(reader);
        }
        let key = Place::Pack(*pack).key();
        let size = self.index.pack_size(pack).ok_or_else(|| Error::damaged("pack", &key, "no index names it"))?;
        let header = self.inner.get_range(&key, 0..HEADER_BYTES, self.control)?;
        let reader = Arc::new(view::pack_reader(self.inner, key.as_str(), &header, size)?);
        self.cache.keep_reader(*pack, &reader);
        Ok(reader)
    }

    /// Takes a chunk out of a range of the body that begins at `begin`, and checks it.
    fn open_chunk(&mut self, item: &Wanted, begin: u64, bytes: &[u8]) -> Result<Vec<u8>> {
        let range = body_range(&item.location);
        let damaged = |reason: &str| Error::damaged("chunk", item.id, reason);
        let from = to_usize(range.start.saturating_sub(begin), "chunk")?;
        let to = to_usize(range.end.saturating_sub(begin), "chunk")?;
        let stored = bytes.get(from..to).ok_or_else(|| damaged("its pack is too short"))?;
        if item.location.raw != item.length {
            return Err(damaged("its length is not the one that refers to it"));
        }
        if item.location.kind != item.kind {
            return Err(damaged("it is content where a page is referred to, or a page instead of content"));
        }
        let plain = self.decompressor.decompress(item.location.codec, stored, item.location.raw, &item.id)?;
        let id = match item.kind {
            ChunkKind::Data => self.inner.chunk_keys.data_id(&plain),
            ChunkKind::Meta => self.inner.chunk_keys.meta_id(&plain),
        };
        if id != item.id {
            return Err(damaged("its content does not have its id"));
        }
        Ok(plain.into_owned())
    }
}

fn body_range(location: &Location) -> Range<u64> {
    let begin = u64::from(location.offset);
    begin..begin.saturating_add(u64::from(location.stored))
}
