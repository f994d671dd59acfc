//! Writing the references of a content: inline where they are few, as a tree of pages else.

use crate::content::entry::{ChunkRef, Content, ContentRoot, PageRef};
use crate::content::page::{ContentChild, PageStore, Tree, encode_page, write_page_ref, write_refs};
use crate::content::tree::{Boundaries, Child, FIXED, Nodes};
use crate::error::{Error, Result};
use crate::length::to_u64;
use crate::limits;

/// Chunks (or holes of the size of a chunk) that a leaf of an image covers.
pub(crate) const IMAGE_LEAF_CHUNKS: usize = FIXED;

impl Child for ContentChild {
    fn encode(children: &[Self], height: u8) -> Result<Vec<u8>> {
        encode_page(Tree::Content, height, |array| {
            for child in children {
                write_page_ref(array, &child.page);
                array.u64(child.covered);
            }
        })
    }

    fn parent(children: Vec<Self>, page: PageRef) -> Result<Self> {
        Ok(Self { page, covered: children.iter().map(|child| child.covered).sum() })
    }

    fn size(&self) -> usize {
        50
    }
}

/// Builds the content of a stream: references come one by one, and leaves end where chunk ids say
/// so. Unchanged runs of chunks make the same pages again, wherever they stand.
pub(crate) struct StreamContentBuilder<'s> {
    store: &'s dyn PageStore,
    leaf: Vec<ChunkRef>,
    nodes: Nodes<ContentChild>,
    length: u64,
}

impl<'s> StreamContentBuilder<'s> {
    /// An empty content whose pages go to `store`.
    #[must_use]
    pub(crate) fn new(store: &'s dyn PageStore) -> Self {
        Self { store, leaf: Vec::new(), nodes: Nodes::new(Boundaries::ByHash), length: 0 }
    }

    /// Adds what follows. A hole next to a hole makes one hole.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] where the content gets too long, or whatever the store says.
    pub(crate) fn push(&mut self, reference: ChunkRef) -> Result<()> {
        self.length = longer(self.length, reference.length())?;
        // The leaf ends before a reference is added, not after, so that holes meet first.
        let hash = match self.leaf.last() {
            Some(ChunkRef::Data { id, .. }) => Some(id.as_bytes()),
            _ => None,
        };
        let extends_hole =
            matches!((self.leaf.last(), &reference), (Some(ChunkRef::Hole { .. }), ChunkRef::Hole { .. }));
        if !extends_hole && Boundaries::ByHash.ends(1, self.leaf.len(), 0, hash) {
            self.flush()?;
        }
        append(&mut self.leaf, reference);
        Ok(())
    }

    /// The content is complete.
    ///
    /// # Errors
    ///
    /// Whatever the store says.
    pub(crate) fn finish(mut self) -> Result<Content> {
        if self.nodes.is_empty() && to_u64(self.leaf.len()) <= limits::INLINE_REFS {
            return Ok(Content { length: self.length, root: ContentRoot::Inline(self.leaf) });
        }
        if !self.leaf.is_empty() {
            self.flush()?;
        }
        tree_content(self.length, self.nodes, self.store)
    }

    fn flush(&mut self) -> Result<()> {
        let leaf = std::mem::take(&mut self.leaf);
        let hash = match leaf.last() {
            Some(ChunkRef::Data { id, .. }) => Some(*id.as_bytes()),
            _ => None,
        };
        self.nodes.push(put_leaf(&leaf, self.store)?, hash.as_ref(), self.store)
    }
}

/// Builds the content of an image: every leaf but the last covers [`IMAGE_LEAF_CHUNKS`] chunks, so that
/// a change touches one leaf and the nodes above it, and unchanged leaves are taken over unread.
pub(crate) struct ImageContentBuilder<'s> {
    store: &'s dyn PageStore,
    /// The first leaf, as long as it is the only one and small enough to stand in the entry.
    first: Option<Vec<ChunkRef>>,
    nodes: Nodes<ContentChild>,
    length: u64,
}

impl<'s> ImageContentBuilder<'s> {
    /// An empty content whose pages go to `store`.
    #[must_use]
    pub(crate) fn new(store: &'s dyn PageStore) -> Self {
        Self { store, first: None, nodes: Nodes::new(Boundaries::Fixed), length: 0 }
    }

    /// Adds the references of the next leaf, which must not be empty. Holes next to each other make one.
    ///
    /// # Errors
    ///
    /// [`Error::LimitExceeded`] where the content or the leaf gets too long, or whatever the store says.
    pub(crate) fn push_leaf(&mut self, refs: Vec<ChunkRef>) -> Result<()> {
        let mut leaf = Vec::with_capacity(refs.len());
        let mut covered = 0u64;
        for reference in refs {
            covered = longer(covered, reference.length())?;
            append(&mut leaf, reference);
        }
        if covered == 0 || to_u64(leaf.len()) > limits::PAGE_ITEMS {
            return Err(Error::Internal("a leaf of an image is empty or too large"));
        }
        self.length = longer(self.length, covered)?;
        if self.nodes.is_empty() && self.first.is_none() && to_u64(leaf.len()) <= limits::INLINE_REFS {
            self.first = Some(leaf);
            return Ok(());
        }
        self.flush_first()?;
        self.nodes.push(put_leaf(&leaf, self.store)?, None, self.store)
    }

    /// Adds `count` leaves that are one hole of `span` bytes each, at hardly more cost than one of them.
    ///
    /// # Errors
    ///
    /// As [`push_leaf`](Self::push_leaf).
    pub(crate) fn push_hole_leaves(&mut self, span: u64, count: u64) -> Result<()> {
        let Some(more) = count.checked_sub(1) else { return Ok(()) };
        let hole = vec![ChunkRef::Hole { length: span }];
        // The first may stand in the entry.
        self.push_leaf(hole.clone())?;
        if more == 0 {
            return Ok(());
        }
        self.length = longer(self.length, span.saturating_mul(more))?;
        self.flush_first()?;
        self.nodes.push_alike(&put_leaf(&hole, self.store)?, more, self.store)
    }

    /// Takes over a leaf of the parent's content, as [`Leaves`](crate::content::Leaves) reports it.
    ///
    /// # Errors
    ///
    /// As [`push_leaf`](Self::push_leaf).
    pub(crate) fn push_existing_leaf(&mut self, page: PageRef, covered: u64) -> Result<()> {
        if covered == 0 {
            return Err(Error::Internal("a leaf of an image is empty"));
        }
        self.length = longer(self.length, covered)?;
        self.flush_first()?;
        self.nodes.push(ContentChild { page, covered }, None, self.store)
    }

    /// The content is complete.
    ///
    /// # Errors
    ///
    /// Whatever the store says.
    pub(crate) fn finish(self) -> Result<Content> {
        if self.nodes.is_empty() {
            return Ok(Content { length: self.length, root: ContentRoot::Inline(self.first.unwrap_or_default()) });
        }
        tree_content(self.length, self.nodes, self.store)
    }

    fn flush_first(&mut self) -> Result<()> {
        match self.first.take() {
            Some(first) => self.nodes.push(put_leaf(&first, self.store)?, None, self.store),
            None => Ok(()),
        }
    }
}

fn tree_content(length: u64, nodes: Nodes<ContentChild>, store: &dyn PageStore) -> Result<Content> {
    let (height, root) = nodes.finish(store)?;
    Ok(Content { length, root: ContentRoot::Tree { height, page: root.page } })
}

fn put_leaf(leaf: &[ChunkRef], store: &dyn PageStore) -> Result<ContentChild> {
    let page = store.put_page(&encode_page(Tree::Content, 1, |array| write_refs(array, leaf))?)?;
    Ok(ContentChild { page, covered: leaf.iter().map(ChunkRef::length).sum() })
}

/// Adds a reference to a leaf; holes merge.
fn append(leaf: &mut Vec<ChunkRef>, reference: ChunkRef) {
    match (leaf.last_mut(), reference) {
        (Some(ChunkRef::Hole { length }), ChunkRef::Hole { length: more }) => *length = length.saturating_add(more),
        (_, reference) => leaf.push(reference),
    }
}

/// Sum of lengths within the limit of the format. A reference of length 0 is a defect of the caller.
fn longer(length: u64, more: u64) -> Result<u64> {
    if more == 0 {
        return Err(Error::Internal("an empty chunk reference"));
    }
    let sum = length.saturating_add(more);
    if sum > limits::CONTENT {
        return Err(Error::limit("length of a content", sum, limits::CONTENT));
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::page::memory::MemoryPages;
    use crate::content::{Refs, walk_pages};
    use crate::id::ChunkId;

    fn data(number: u64) -> ChunkRef {
        ChunkRef::Data { id: ChunkId::new(*blake3::hash(&number.to_le_bytes()).as_bytes()), length: 1 << 20 }
    }

    fn stream(refs: impl IntoIterator<Item = ChunkRef>, pages: &MemoryPages) -> Content {
        let mut builder = StreamContentBuilder::new(pages);
        refs.into_iter().for_each(|reference| builder.push(reference).unwrap());
        builder.finish().unwrap()
    }

    fn image(refs: &[ChunkRef], pages: &MemoryPages) -> Content {
        let mut builder = ImageContentBuilder::new(pages);
        refs.chunks(IMAGE_LEAF_CHUNKS).for_each(|leaf| builder.push_leaf(leaf.to_vec()).unwrap());
        builder.finish().unwrap()
    }

    #[test]
    fn few_references_stay_inline() {
        let pages = MemoryPages::default();
        for count in 0..=4 {
            let refs: Vec<ChunkRef> = (0..count).map(data).collect();
            for content in [stream(refs.clone(), &pages), image(&refs, &pages)] {
                assert_eq!(content, Content { length: count << 20, root: ContentRoot::Inline(refs.clone()) });
            }
        }
        assert_eq!(pages.len(), 0);
        let content = stream((0..5).map(data), &pages);
        assert!(matches!(content.root, ContentRoot::Tree { height: 1, .. }), "{content:?}");
        assert_eq!(image(&(0..5).map(data).collect::<Vec<_>>(), &pages), content);
        assert_eq!(pages.len(), 1);
    }

    #[test]
    fn holes_merge_however_they_come() {
        let pages = MemoryPages::default();
        let hole = |length| ChunkRef::Hole { length };
        let content = stream([hole(1), hole(2), data(1), hole(3), hole(4)], &pages);
        assert_eq!(content.root, ContentRoot::Inline(vec![hole(3), data(1), hole(7)]));
        // A terabyte of zeros is one reference, or one leaf many times.
        assert_eq!(stream((0..1 << 20).map(|_| hole(1 << 20)), &pages).root, ContentRoot::Inline(vec![hole(1 << 40)]));
        let mut builder = ImageContentBuilder::new(&pages);
        for _ in 0..4096 {
            builder.push_leaf(vec![hole(1 << 20); IMAGE_LEAF_CHUNKS]).unwrap();
        }
        assert!(matches!(builder.finish().unwrap().root, ContentRoot::Tree { height: 3, .. }));
        assert_eq!(pages.len(), 3);
    }

    #[test]
    fn many_leaves_of_holes_are_what_they_are_one_by_one() {
        let pages = MemoryPages::default();
        let span = 256 << 20;
        let hole = || vec![ChunkRef::Hole { length: span }];
        for before in [0, 1, 2, 255, 256, 700] {
            for count in [0, 1, 2, 255, 256, 257, 511, 512, 70_000] {
                let begin = || {
                    let mut builder = ImageContentBuilder::new(&pages);
                    (0..before).for_each(|number| builder.push_leaf(vec![data(number)]).unwrap());
                    builder
                };
                let (mut alike, mut one_by_one) = (begin(), begin());
                alike.push_hole_leaves(span, count).unwrap();
                (0..count).for_each(|_| one_by_one.push_leaf(hole()).unwrap());
                for builder in [&mut alike, &mut one_by_one] {
                    builder.push_leaf(vec![data(1)]).unwrap();
                }
                assert_eq!(alike.finish().unwrap(), one_by_one.finish().unwrap(), "{count} after {before}");
            }
        }
        let mut builder = ImageContentBuilder::new(&pages);
        builder.push_hole_leaves(span, limits::CONTENT / span).unwrap();
        assert!(builder.push_hole_leaves(span, 1).is_err());
        let mut builder = ImageContentBuilder::new(&pages);
        assert!(builder.push_hole_leaves(span, u64::MAX).is_err());
    }

    #[test]
    fn an_insertion_in_a_stream_writes_few_pages() {
        let pages = MemoryPages::default();
        let refs: Vec<ChunkRef> = (0..200_000).map(data).collect();
        let content = stream(refs.clone(), &pages);
        let all = pages.take_new();
        assert!((400..1200).contains(&all), "{all}");
        for position in [0, 100_000, 199_999, 200_000] {
            let mut changed = refs.clone();
            changed.insert(position, data(1 << 40));
            stream(changed, &pages);
            let new = pages.take_new();
            assert!(new <= 12, "{new} new pages after an insertion at {position}");
        }
        // Appending and cutting off, too.
        stream(refs.iter().copied().chain((300_000..300_010).map(data)), &pages);
        stream(refs.iter().copied().take(150_000), &pages);
        assert!(pages.take_new() <= 16);
        assert_eq!(stream(refs, &pages), content);
        assert_eq!(pages.take_new(), 0);
    }

    #[test]
    fn a_change_in_an_image_writes_its_leaf_and_the_nodes_above() {
        let pages = MemoryPages::default();
        let mut refs: Vec<ChunkRef> = (0..200_000).map(data).collect();
        image(&refs, &pages);
        assert_eq!(pages.take_new(), 200_000usize.div_ceil(256) + 4 + 1);
        refs[123_456] = data(1 << 40);
        let content = image(&refs, &pages);
        assert_eq!(pages.take_new(), 3);

        // The same from the leaves of the parent, without looking at them.
        let mut builder = ImageContentBuilder::new(&pages);
        for leaf in crate::content::Leaves::new(&content, 0..u64::MAX, &pages) {
            let (_, covered, page) = leaf.unwrap();
            builder.push_existing_leaf(page, covered).unwrap();
        }
        pages.take_read();
        assert_eq!(builder.finish().unwrap(), content);
        assert_eq!((pages.take_read(), pages.take_new()), (0, 0));
    }

    #[test]
    fn a_small_first_leaf_followed_by_others() {
        let pages = MemoryPages::default();
        let hole = ChunkRef::Hole { length: 256 << 20 };
        let mut builder = ImageContentBuilder::new(&pages);
        builder.push_leaf(vec![hole]).unwrap();
        builder.push_leaf(vec![data(1)]).unwrap();
        let content = builder.finish().unwrap();
        let refs: Vec<_> = Refs::new(&content, 0..u64::MAX, &pages).map(Result::unwrap).collect();
        assert_eq!(refs, [(0, hole), (256 << 20, data(1))]);
        assert!(ImageContentBuilder::new(&pages).push_leaf(vec![]).is_err());
    }

    /// The worst that content can do to a tree whose pages end where content says: every item a boundary.
    #[test]
    fn trees_stay_low_when_every_item_is_a_boundary() {
        let pages = MemoryPages::default();
        let same = ChunkRef::Data { id: ChunkId::new([0; 32]), length: 1 };
        let content = stream((0..300_000).map(|_| same), &pages);
        assert!(matches!(content.root, ContentRoot::Tree { height: 4, .. }), "{content:?}");
        let mut visited = 0;
        walk_pages(&content, &pages, &mut |_, _, _| {
            visited += 1;
            Ok(true)
        })
        .unwrap();
        assert!((4688..5000).contains(&visited), "{visited}");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let pages = MemoryPages::default();
        let mut builder = StreamContentBuilder::new(&pages);
        assert!(builder.push(ChunkRef::Hole { length: 0 }).is_err());
        builder.push(ChunkRef::Hole { length: limits::CONTENT }).unwrap();
        let error = builder.push(data(1)).unwrap_err();
        assert!(matches!(error, Error::LimitExceeded { .. }), "{error}");
    }
}
