//! Pages of trees: where they are kept, and the bytes of those of contents (`docs/format.md`, "Content").
//!
//! Every page is a map: 1 the kind of tree, 2 the page's height (1 is a leaf), 3 its items.
//!
//! ```text
//! leaf of a content:   [ [id, length] | length of a hole, ... ]
//! node of a content:   [ id, length of the page, bytes of content covered, ... ]
//! ```

use bytes::Bytes;

use crate::content::entry::{ChunkRef, PageRef};
use crate::error::{Error, Result};
use crate::format::cbor::{self, ArrayReader, ArrayWriter, Value};
use crate::id::ChunkId;
use crate::length::to_u64;
use crate::limits;

/// Where finished pages go: they become metadata chunks.
pub(crate) trait PageStore: Sync {
    /// Stores a page, or finds that it is stored already.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from being stored; the content or catalogue cannot be finished.
    fn put_page(&self, bytes: &[u8]) -> Result<PageRef>;
}

/// Where pages come from.
pub(crate) trait PageSource: Sync {
    /// The bytes of a page, checked against its id.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from being read.
    fn page(&self, page: &PageRef) -> Result<Bytes>;
}

/// Which tree a page belongs to. It stands in every page, so that none can be taken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tree {
    Content,
    Catalogue,
}

impl Tree {
    /// What a page is called in errors.
    pub(super) const fn page_name(self) -> &'static str {
        match self {
            Self::Content => "content page",
            Self::Catalogue => "catalogue page",
        }
    }

    const fn number(self) -> u64 {
        match self {
            Self::Content => 1,
            Self::Catalogue => 2,
        }
    }
}

/// Encodes a page.
pub(super) fn encode_page(tree: Tree, height: u8, items: impl FnOnce(&mut ArrayWriter<'_>)) -> Result<Vec<u8>> {
    let bytes = cbor::encode_map(|map| {
        map.u64(1, tree.number());
        map.u64(2, u64::from(height));
        map.array(3, items);
    })?;
    if to_u64(bytes.len()) > u64::from(limits::PAGE) {
        return Err(Error::limit(format!("size of a {}", tree.page_name()), to_u64(bytes.len()), limits::PAGE.into()));
    }
    Ok(bytes)
}

/// Fetches a page and hands its items to `read`, after everything that all pages have in common was checked.
pub(super) fn with_page<T>(
    source: &dyn PageSource,
    tree: Tree,
    height: u8,
    page: &PageRef,
    read: impl FnOnce(ArrayReader<'_>) -> Result<T>,
) -> Result<T> {
    let bytes = source.page(page)?;
    let damaged = |reason: &str| Error::damaged(tree.page_name(), page.id, reason);
    if to_u64(bytes.len()) != u64::from(page.length) {
        return Err(damaged("its length is not what its parent says"));
    }
    let mut map = cbor::decode(&bytes, tree.page_name(), &page.id)?.map()?;
    if map.required(1)?.u64()? != tree.number() {
        return Err(damaged("it belongs to a tree of another kind"));
    }
    if map.required(2)?.u8()? != height {
        return Err(damaged("its height is not what its parent says"));
    }
    let items = map.required(3)?.array()?;
    map.finish()?;
    read(items)
}

/// A reference to a page within a flat array: id, length.
pub(super) fn read_page_ref(items: &mut ArrayReader<'_>) -> Result<PageRef> {
    let id = ChunkId::new(items.required()?.fixed()?);
    let value = items.required()?;
    let length = value.u32()?;
    if length == 0 || length > limits::PAGE {
        return Err(value.damaged("a page has an impossible length"));
    }
    Ok(PageRef { id, length })
}

pub(super) fn write_page_ref(array: &mut ArrayWriter<'_>, page: &PageRef) {
    array.bytes(page.id.as_bytes());
    array.u64(u64::from(page.length));
}

/// A child of a content node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ContentChild {
    pub(super) page: PageRef,
    /// Bytes of content below it, never 0.
    pub(super) covered: u64,
}

/// Reads a leaf that must cover `covered` bytes.
pub(super) fn read_leaf(source: &dyn PageSource, page: &PageRef, covered: u64) -> Result<Vec<ChunkRef>> {
    with_page(source, Tree::Content, 1, page, |items| read_refs(items, limits::PAGE_ITEMS, covered))
}

/// Reads a node of at least height 2 that must cover `covered` bytes.
pub(super) fn read_node(
    source: &dyn PageSource,
    page: &PageRef,
    height: u8,
    covered: u64,
) -> Result<Vec<ContentChild>> {
    with_page(source, Tree::Content, height, page, |mut items| {
        let mut children = Vec::new();
        let mut sum = 0u64;
        while items.remaining() > 0 {
            if to_u64(children.len()) == limits::PAGE_ITEMS {
                return Err(items.damaged("it has more than 1024 children"));
            }
            let page = read_page_ref(&mut items)?;
            let covered = items.required()?.u64()?;
            if covered == 0 {
                return Err(items.damaged("a child covers nothing"));
            }
            sum = sum.saturating_add(covered);
            children.push(ContentChild { page, covered });
        }
        if sum != covered {
            return Err(items.damaged(format!("it covers {sum} bytes instead of {covered}")));
        }
        Ok(children)
    })
}

/// Chunk references that must cover `covered` bytes: none empty, no hole next to a hole.
pub(super) fn read_refs(items: ArrayReader<'_>, most: u64, covered: u64) -> Result<Vec<ChunkRef>> {
    if items.remaining() > most {
        return Err(items.damaged(format!("it has more than {most} chunk references")));
    }
    let end = items.clone();
    let mut refs: Vec<ChunkRef> = Vec::new();
    let mut sum = 0u64;
    for item in items {
        let reference = read_ref(item)?;
        if matches!((refs.last(), &reference), (Some(ChunkRef::Hole { .. }), ChunkRef::Hole { .. })) {
            return Err(end.damaged("two holes follow each other"));
        }
        sum = sum.saturating_add(reference.length());
        refs.push(reference);
    }
    if sum != covered {
        return Err(end.damaged(format!("it covers {sum} bytes instead of {covered}")));
    }
    Ok(refs)
}

fn read_ref(item: Value<'_>) -> Result<ChunkRef> {
    let Ok(mut pair) = item.array() else {
        return match item.u64()? {
            0 => Err(item.damaged("a hole is empty")),
            length => Ok(ChunkRef::Hole { length }),
        };
    };
    let id = ChunkId::new(pair.required()?.fixed()?);
    let length = pair.required()?.u32()?;
    pair.finish()?;
    if length == 0 || length > limits::CHUNK {
        return Err(item.damaged("a chunk has an impossible length"));
    }
    Ok(ChunkRef::Data { id, length })
}

pub(super) fn write_refs(array: &mut ArrayWriter<'_>, refs: &[ChunkRef]) {
    for reference in refs {
        match reference {
            ChunkRef::Hole { length } => array.u64(*length),
            ChunkRef::Data { id, length } => array.array(|pair| {
                pair.bytes(id.as_bytes());
                pair.u64(u64::from(*length));
            }),
        }
    }
}

/// A store and source of pages in memory.
#[cfg(test)]
pub(super) mod memory {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Mutex, MutexGuard};

    use super::*;

    #[derive(Default)]
    pub(in crate::content) struct MemoryPages {
        pages: Mutex<BTreeMap<ChunkId, Bytes>>,
        /// Pages stored since the last call of `take_new`, and pages read.
        new: AtomicUsize,
        read: AtomicUsize,
    }

    impl MemoryPages {
        fn lock(&self) -> MutexGuard<'_, BTreeMap<ChunkId, Bytes>> {
            self.pages.lock().unwrap()
        }

        pub(in crate::content) fn take_new(&self) -> usize {
            self.new.swap(0, Ordering::Relaxed)
        }

        pub(in crate::content) fn take_read(&self) -> usize {
            self.read.swap(0, Ordering::Relaxed)
        }

        pub(in crate::content) fn len(&self) -> usize {
            self.lock().len()
        }

        pub(in crate::content) fn largest(&self) -> usize {
            self.lock().values().map(Bytes::len).max().unwrap_or(0)
        }

        pub(in crate::content) fn each(&self) -> Vec<(PageRef, Bytes)> {
            let refer = |(id, bytes): (&ChunkId, &Bytes)| (page_ref(*id, bytes), bytes.clone());
            self.lock().iter().map(refer).collect()
        }

        /// Replaces the bytes of a page under its old id, as a hostile source would.
        pub(in crate::content) fn replace(&self, page: &PageRef, bytes: Vec<u8>) {
            self.lock().insert(page.id, bytes.into());
        }
    }

    fn page_ref(id: ChunkId, bytes: &Bytes) -> PageRef {
        PageRef { id, length: u32::try_from(bytes.len()).unwrap() }
    }

    impl PageStore for MemoryPages {
        fn put_page(&self, bytes: &[u8]) -> Result<PageRef> {
            let id = ChunkId::new(*blake3::hash(bytes).as_bytes());
            let bytes = Bytes::copy_from_slice(bytes);
            if self.lock().insert(id, bytes.clone()).is_none() {
                self.new.fetch_add(1, Ordering::Relaxed);
            }
            Ok(page_ref(id, &bytes))
        }
    }

    impl PageSource for MemoryPages {
        fn page(&self, page: &PageRef) -> Result<Bytes> {
            self.read.fetch_add(1, Ordering::Relaxed);
            self.lock().get(&page.id).cloned().ok_or_else(|| Error::not_found("page", page.id))
        }
    }
}
