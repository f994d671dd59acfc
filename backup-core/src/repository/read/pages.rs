//! Pages, and what is kept between reads of them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::content::{PageRef, PageSource};
use crate::error::{Error, Result};
use crate::format::layout::Place;
use crate::id::ObjectName;
use crate::index::{Index, Location};
use crate::length::{index, to_u64};
use crate::limits;
use crate::object::ObjectReader;
use crate::pack::ChunkKind;
use crate::repository::environment::Control;
use crate::repository::handle::Inner;
use crate::repository::read::chunks::Fetcher;
use crate::repository::view;

/// Readers of packs that are kept: deriving one costs a hash and a read.
const READERS: usize = 256;
/// Whole packs of pages are kept up to this many bytes together.
const BODIES: usize = 12 << 20;
/// Larger packs of pages are read page by page.
const BODY: u64 = 4 << 20;

/// What is kept between reads. Bounded, and never needed.
#[derive(Default)]
pub(crate) struct ReadCache {
    readers: Mutex<VecDeque<(ObjectName, Arc<ObjectReader>)>>,
    bodies: Mutex<VecDeque<(ObjectName, Bytes)>>,
}

impl ReadCache {
    pub(crate) fn reader(&self, pack: &ObjectName) -> Option<Arc<ObjectReader>> {
        let readers = self.readers.lock().ok()?;
        readers.iter().rev().find(|(name, _)| name == pack).map(|(_, reader)| Arc::clone(reader))
    }

    pub(crate) fn keep_reader(&self, pack: ObjectName, reader: &Arc<ObjectReader>) {
        if let Ok(mut readers) = self.readers.lock() {
            readers.push_back((pack, Arc::clone(reader)));
            if readers.len() > READERS {
                readers.pop_front();
            }
        }
    }

    fn body(&self, pack: &ObjectName) -> Option<Bytes> {
        let mut bodies = self.bodies.lock().ok()?;
        let position = bodies.iter().rposition(|(name, _)| name == pack)?;
        let found = bodies.remove(position)?;
        let body = found.1.clone();
        bodies.push_back(found);
        Some(body)
    }

    fn keep_body(&self, pack: ObjectName, body: &Bytes) {
        if let Ok(mut bodies) = self.bodies.lock() {
            bodies.push_back((pack, body.clone()));
            while bodies.iter().map(|(_, body)| body.len()).sum::<usize>() > BODIES && bodies.len() > 1 {
                bodies.pop_front();
            }
        }
    }
}

impl PageSource for Inner {
    fn page(&self, page: &PageRef) -> Result<Bytes> {
        let control = Control::default();
        Fetcher::new(self, &control)?.fetch_page(page)
    }
}

/// Pages where one index says that they are, however old it is by now.
pub(crate) struct IndexedPages {
    inner: Arc<Inner>,
    index: Arc<Index>,
    cache: Arc<ReadCache>,
    control: Control,
}

impl IndexedPages {
    pub(crate) fn new(inner: &Arc<Inner>, index: Arc<Index>, cache: Arc<ReadCache>, control: &Control) -> Self {
        Self { inner: Arc::clone(inner), index, cache, control: control.clone() }
    }
}

impl PageSource for IndexedPages {
    fn page(&self, page: &PageRef) -> Result<Bytes> {
        let (index, cache) = (Arc::clone(&self.index), Arc::clone(&self.cache));
        Fetcher::with_index(&self.inner, index, cache, &self.control)?.fetch_page(page)
    }
}

impl Fetcher<'_> {
    fn fetch_page(&mut self, page: &PageRef) -> Result<Bytes> {
        if page.length > limits::PAGE {
            return Err(Error::limit("length of a page", u64::from(page.length), u64::from(limits::PAGE)));
        }
        if let Some(location) = self.index.lookup(&page.id)
            && location.kind == ChunkKind::Meta
            && let Some(size) = self.index.pack_size(&location.pack)
            && size <= BODY
            && let Ok(bytes) = self.page_of_body(page, &location, size)
        {
            return Ok(bytes);
        }
        // A large or damaged pack, or one that is not known: this page alone, or from elsewhere.
        Ok(self.fetch_one(ChunkKind::Meta, &page.id, page.length)?.into())
    }

    fn page_of_body(&mut self, page: &PageRef, location: &Location, size: u64) -> Result<Bytes> {
        let body = match self.cache.body(&location.pack) {
            Some(body) => body,
            None => {
                let key = Place::Pack(location.pack).key();
                let object = self.inner.get(&key, size, self.control)?;
                let reader = view::pack_reader(self.inner, key.as_str(), &object, to_u64(object.len()))?;
                let body = Bytes::from(reader.open_all(&object)?);
                self.cache.keep_body(location.pack, &body);
                body
            }
        };
        let damaged = |reason: &str| Error::damaged("page", page.id, reason);
        let begin = index(location.offset);
        let stored = body
            .get(begin..begin.saturating_add(index(location.stored)))
            .ok_or_else(|| damaged("its pack is too short"))?;
        if location.raw != page.length {
            return Err(damaged("its length is not the one that refers to it"));
        }
        let plain = self.decompressor.decompress(location.codec, stored, location.raw, &page.id)?.into_owned();
        if self.inner.chunk_keys.meta_id(&plain) != page.id {
            return Err(damaged("its content does not have its id"));
        }
        Ok(plain.into())
    }
}
