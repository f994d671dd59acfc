//! Reading the references of a content, page by page, each page checked against its parent.

use std::ops::Range;

use crate::content::entry::{ChunkRef, Content, ContentRoot, PageRef};
use crate::content::page::{ContentChild, PageSource, read_leaf, read_node};
use crate::error::{Error, Result};
use crate::limits;

/// The references of a range of a content, in order, each with the offset where it starts.
///
/// The first may start before the range and the last may end after it. Ends after the first error.
pub(crate) struct Refs<'s> {
    source: &'s dyn PageSource,
    range: Range<u64>,
    leaves: Leaves<'s>,
    /// References of the present leaf that are still to come, and where they start.
    refs: std::vec::IntoIter<ChunkRef>,
    offset: u64,
}

impl<'s> Refs<'s> {
    /// The references of `range` (clipped to the content).
    #[must_use]
    pub(crate) fn new(content: &Content, range: Range<u64>, source: &'s dyn PageSource) -> Self {
        let inline = match &content.root {
            ContentRoot::Inline(refs) if !range.is_empty() => refs.clone(),
            ContentRoot::Inline(_) | ContentRoot::Tree { .. } => Vec::new(),
        };
        let leaves = Leaves::new(content, range.clone(), source);
        Self { source, range, leaves, refs: inline.into_iter(), offset: 0 }
    }

    fn end(&mut self) {
        self.refs = Vec::new().into_iter();
        self.leaves.stack.clear();
    }
}

impl Iterator for Refs<'_> {
    type Item = Result<(u64, ChunkRef)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            for reference in self.refs.by_ref() {
                let start = self.offset;
                self.offset = start.saturating_add(reference.length());
                if self.offset > self.range.start && start < self.range.end {
                    return Some(Ok((start, reference)));
                }
            }
            let leaf = self.leaves.next()?.and_then(|(offset, covered, page)| {
                self.offset = offset;
                read_leaf(self.source, &page, covered)
            });
            match leaf {
                Ok(refs) => self.refs = refs.into_iter(),
                Err(error) => {
                    self.end();
                    return Some(Err(error));
                }
            }
        }
    }
}

/// The leaf pages of a range of a content, in order: offset, bytes covered, page. The leaves
/// themselves are not read. A content whose references are inline has none.
///
/// Ends after the first error.
pub(crate) struct Leaves<'s> {
    source: &'s dyn PageSource,
    range: Range<u64>,
    /// Pages to visit, the next one last: offset, height, page.
    stack: Vec<(u64, u8, ContentChild)>,
}

impl<'s> Leaves<'s> {
    /// The leaves of `range` (clipped to the content).
    #[must_use]
    pub(crate) fn new(content: &Content, range: Range<u64>, source: &'s dyn PageSource) -> Self {
        let stack = match content.root {
            ContentRoot::Tree { height, page } if !range.is_empty() => {
                vec![(0, height, ContentChild { page, covered: content.length })]
            }
            ContentRoot::Inline(_) | ContentRoot::Tree { .. } => Vec::new(),
        };
        Self { source, range, stack }
    }
}

impl Iterator for Leaves<'_> {
    type Item = Result<(u64, u64, PageRef)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (offset, height, child) = self.stack.pop()?;
            if offset >= self.range.end {
                self.stack.clear();
                return None;
            }
            if offset.saturating_add(child.covered) <= self.range.start {
                continue;
            }
            if height == 1 {
                return Some(Ok((offset, child.covered, child.page)));
            }
            if let Err(error) = push_children(self.source, &mut self.stack, offset, height, &child) {
                self.stack.clear();
                return Some(Err(error));
            }
        }
    }
}

/// Visits every page of a content: its reference, its height and the bytes that it covers. Nodes
/// are read and checked before their children are visited, unless `visit` returns `false`; leaves
/// are read and checked as well.
///
/// The same page may be visited often. A caller that remembers (page, height, covered) and returns
/// `false` for what it has seen needs time in proportion to the pages that exist.
///
/// # Errors
///
/// Whatever `visit` or the source says, [`Error::Damaged`] for a page that breaks a rule.
pub(crate) fn walk_pages(
    content: &Content,
    source: &dyn PageSource,
    visit: &mut dyn FnMut(&PageRef, u8, u64) -> Result<bool>,
) -> Result<()> {
    let ContentRoot::Tree { height, page } = content.root else { return Ok(()) };
    let mut stack = vec![(0, height, ContentChild { page, covered: content.length })];
    while let Some((offset, height, child)) = stack.pop() {
        if !visit(&child.page, height, child.covered)? {
            continue;
        }
        if height == 1 {
            read_leaf(source, &child.page, child.covered)?;
        } else {
            push_children(source, &mut stack, offset, height, &child)?;
        }
    }
    Ok(())
}

/// What stands directly below a page of a content.
pub(crate) enum ContentBelow {
    /// Pages, one level lower, and the bytes that each covers.
    Pages(Vec<(PageRef, u64)>),
    Refs(Vec<ChunkRef>),
}

/// Reads one page of a content, of which the parent says what it is.
///
/// # Errors
///
/// Whatever the source says, [`Error::Damaged`] for a page that breaks a rule.
pub(crate) fn content_below(source: &dyn PageSource, page: &PageRef, height: u8, covered: u64) -> Result<ContentBelow> {
    if height == 1 {
        return read_leaf(source, page, covered).map(ContentBelow::Refs);
    }
    let mut children = Vec::new();
    push_children(source, &mut children, 0, height, &ContentChild { page: *page, covered })?;
    let children = children.into_iter().rev().map(|(_, _, child)| (child.page, child.covered));
    Ok(ContentBelow::Pages(children.collect()))
}

/// Reads a node and puts its children on the stack, the first one on top. The stack holds at most
/// 1024 children for each of 8 levels.
fn push_children(
    source: &dyn PageSource,
    stack: &mut Vec<(u64, u8, ContentChild)>,
    offset: u64,
    height: u8,
    node: &ContentChild,
) -> Result<()> {
    if !(2..=limits::TREE_HEIGHT).contains(&height) {
        return Err(Error::damaged("content page", node.page.id, format!("its height is {height}")));
    }
    let children = read_node(source, &node.page, height, node.covered)?;
    let mut end = offset.saturating_add(node.covered);
    for child in children.into_iter().rev() {
        end = end.saturating_sub(child.covered);
        stack.push((end, height.saturating_sub(1), child));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::content::page::memory::MemoryPages;
    use crate::content::page::{PageStore, Tree, encode_page, write_page_ref, write_refs};
    use crate::content::tree::Child;
    use crate::content::{ImageContentBuilder, StreamContentBuilder};
    use crate::format::cbor::ArrayWriter;
    use crate::id::ChunkId;

    fn data(number: u64, length: u32) -> ChunkRef {
        ChunkRef::Data { id: ChunkId::new(*blake3::hash(&number.to_le_bytes()).as_bytes()), length }
    }

    fn any_refs(most: usize) -> impl Strategy<Value = Vec<ChunkRef>> {
        let reference = prop_oneof![
            5 => (0u64..50, 1u32..100).prop_map(|(number, length)| data(number, length)),
            1 => (1u64..1000).prop_map(|length| ChunkRef::Hole { length }),
        ];
        prop::collection::vec(reference, 0..most)
    }

    /// What the references say about every byte.
    fn flat(refs: &[ChunkRef]) -> Vec<(u64, ChunkRef)> {
        let mut out: Vec<(u64, ChunkRef)> = Vec::new();
        let mut offset = 0;
        for reference in refs {
            match (out.last_mut(), reference) {
                (Some((_, ChunkRef::Hole { length })), ChunkRef::Hole { length: more }) => *length += more,
                _ => out.push((offset, *reference)),
            }
            offset += reference.length();
        }
        out
    }

    fn read(content: &Content, range: Range<u64>, pages: &MemoryPages) -> Vec<(u64, ChunkRef)> {
        Refs::new(content, range, pages).map(Result::unwrap).collect()
    }

    fn within(refs: &[(u64, ChunkRef)], range: &Range<u64>) -> Vec<(u64, ChunkRef)> {
        if range.is_empty() {
            return Vec::new();
        }
        let overlaps =
            |(offset, reference): &&(u64, ChunkRef)| offset + reference.length() > range.start && *offset < range.end;
        refs.iter().filter(overlaps).copied().collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn streams_read_as_they_were_written(refs in any_refs(4000), cuts in prop::collection::vec((0u64..200_000, 0u64..9000), 8)) {
            let pages = MemoryPages::default();
            let mut builder = StreamContentBuilder::new(&pages);
            refs.iter().for_each(|reference| builder.push(*reference).unwrap());
            let content = builder.finish().unwrap();
            let expected = flat(&refs);
            prop_assert_eq!(content.length, refs.iter().map(ChunkRef::length).sum::<u64>());
            prop_assert_eq!(read(&content, 0..u64::MAX, &pages), expected.clone());
            for (start, length) in cuts {
                let range = start..start + length;
                prop_assert_eq!(read(&content, range.clone(), &pages), within(&expected, &range));
            }
        }

        #[test]
        fn images_read_as_they_were_written(leaves in prop::collection::vec(any_refs(9), 0..600), start in 0u64..200_000, length in 0u64..9000) {
            let pages = MemoryPages::default();
            let mut builder = ImageContentBuilder::new(&pages);
            let leaves: Vec<_> = leaves.into_iter().filter(|leaf| !leaf.is_empty()).collect();
            leaves.iter().for_each(|leaf| builder.push_leaf(leaf.clone()).unwrap());
            let content = builder.finish().unwrap();
            // Holes do not merge across leaves.
            let mut expected = Vec::new();
            let mut offset = 0;
            for leaf in &leaves {
                expected.extend(flat(leaf).into_iter().map(|(at, reference)| (offset + at, reference)));
                offset += leaf.iter().map(ChunkRef::length).sum::<u64>();
            }
            prop_assert_eq!(read(&content, 0..u64::MAX, &pages), expected.clone());
            let range = start..start + length;
            prop_assert_eq!(read(&content, range.clone(), &pages), within(&expected, &range));
            if let ContentRoot::Tree { .. } = content.root {
                let mut end = 0;
                for leaf in Leaves::new(&content, 0..u64::MAX, &pages) {
                    let (offset, covered, _) = leaf.unwrap();
                    prop_assert_eq!(offset, end);
                    end += covered;
                }
                prop_assert_eq!(end, content.length);
            }
        }

        /// A changed byte in a page is noticed or gives another content of the same length, read
        /// without a panic.
        #[test]
        fn changed_pages_do_no_harm(which: prop::sample::Index, at: prop::sample::Index, byte: u8) {
            let pages = MemoryPages::default();
            let mut builder = StreamContentBuilder::new(&pages);
            (0..2000u64).for_each(|number| builder.push(if number % 5 == 0 { ChunkRef::Hole { length: number + 1 } } else { data(number, 77) }).unwrap());
            let content = builder.finish().unwrap();
            let all = pages.each();
            let (page, bytes) = &all[which.index(all.len())];
            let mut changed = bytes.to_vec();
            let position = at.index(changed.len());
            changed[position] = byte;
            pages.replace(page, changed);
            if let Ok(refs) = Refs::new(&content, 0..u64::MAX, &pages).collect::<Result<Vec<_>>>() {
                prop_assert_eq!(refs.iter().map(|(_, reference)| reference.length()).sum::<u64>(), content.length);
            }
        }
    }

    #[test]
    fn a_range_reads_only_the_pages_that_it_needs() {
        let pages = MemoryPages::default();
        let mut builder = StreamContentBuilder::new(&pages);
        (0..200_000).for_each(|number| builder.push(data(number, 100)).unwrap());
        let content = builder.finish().unwrap();
        assert_eq!(read(&content, 9_999_900..10_000_100, &pages).len(), 2);
        assert!((3..=4).contains(&pages.take_read()));
        assert_eq!(read(&content, 5..5, &pages), []);
        assert_eq!(read(&content, 20_000_000..u64::MAX, &pages), []);
        assert_eq!(pages.take_read(), 0);
    }

    fn put(pages: &MemoryPages, tree: Tree, height: u8, items: impl FnOnce(&mut ArrayWriter<'_>)) -> PageRef {
        pages.put_page(&encode_page(tree, height, items).unwrap()).unwrap()
    }

    fn content(length: u64, height: u8, page: PageRef) -> Content {
        Content { length, root: ContentRoot::Tree { height, page } }
    }

    fn node(pages: &MemoryPages, height: u8, children: &[(PageRef, u64)]) -> PageRef {
        put(pages, Tree::Content, height, |array| {
            for (page, covered) in children {
                write_page_ref(array, page);
                array.u64(*covered);
            }
        })
    }

    #[test]
    fn hostile_pages_are_rejected_by_name() {
        let pages = MemoryPages::default();
        let leaf =
            put(&pages, Tree::Content, 1, |array| write_refs(array, &[data(1, 5), ChunkRef::Hole { length: 6 }]));
        let good = node(&pages, 2, &[(leaf, 11), (leaf, 11)]);
        assert_eq!(read(&content(22, 2, good), 0..22, &pages).len(), 4);

        let refs = |refs: &[ChunkRef]| put(&pages, Tree::Content, 1, |array| write_refs(array, refs));
        let hole = |length| ChunkRef::Hole { length };
        let raw = |bytes: &[u8]| pages.put_page(bytes).unwrap();
        let wrong_length = PageRef { length: leaf.length + 1, ..leaf };
        let cases = vec![
            ("sum of a leaf too small", content(12, 1, leaf)),
            ("sum of a leaf too large", content(10, 1, leaf)),
            ("sum of a node", content(23, 2, good)),
            ("a leaf as a node", content(11, 2, leaf)),
            ("a node as a leaf", content(22, 1, good)),
            ("a node higher than it is", content(22, 3, good)),
            ("a child that lies about its height", content(22, 3, node(&pages, 3, &[(leaf, 22)]))),
            ("height 0", content(11, 0, leaf)),
            ("height 9", content(22, 9, node(&pages, 9, &[(good, 22)]))),
            ("a child that covers nothing", content(11, 2, node(&pages, 2, &[(leaf, 11), (leaf, 0)]))),
            ("sums that overflow", content(10, 2, node(&pages, 2, &[(leaf, u64::MAX), (leaf, 11)]))),
            ("no children", content(1, 2, node(&pages, 2, &[]))),
            ("no references", content(1, 1, refs(&[]))),
            ("an empty hole", content(5, 1, refs(&[data(1, 5), hole(0)]))),
            ("an empty chunk", content(5, 1, refs(&[data(1, 5), data(1, 0)]))),
            ("a huge chunk", content(16_777_217, 1, refs(&[data(1, 16_777_217)]))),
            ("two holes", content(5, 1, refs(&[hole(2), hole(3)]))),
            ("sums of holes that overflow", content(9, 1, refs(&[hole(u64::MAX), data(1, 10)]))),
            ("1025 references", content(1025, 1, refs(&[data(1, 1); 1025]))),
            ("1025 children", content(1025 * 11, 2, node(&pages, 2, &[(leaf, 11); 1025]))),
            (
                "a page of a catalogue",
                content(11, 1, put(&pages, Tree::Catalogue, 1, |a| write_refs(a, &[data(1, 11)]))),
            ),
            ("a wrong length of a page", content(11, 1, wrong_length)),
            ("an empty page", content(1, 2, node(&pages, 2, &[(PageRef { length: 0, ..leaf }, 1)]))),
            ("a reference that is a text", content(1, 1, put(&pages, Tree::Content, 1, |a| a.text("x")))),
            (
                "a count without items",
                content(1, 1, raw(&[0xa3, 1, 1, 2, 1, 3, 0x9b, 0x7f, 255, 255, 255, 255, 255, 255, 255])),
            ),
            ("bytes that follow", content(1, 1, raw(&[0xa3, 1, 1, 2, 1, 3, 0x81, 1, 0]))),
            ("an unknown field", content(1, 1, raw(&[0xa4, 1, 1, 2, 1, 3, 0x81, 1, 4, 0]))),
        ];
        for (what, content) in cases {
            let mut refs = Refs::new(&content, 0..u64::MAX, &pages);
            let error = refs.by_ref().find_map(Result::err).unwrap_or_else(|| panic!("{what} was accepted"));
            assert!(matches!(error, Error::Damaged { what: "content page", .. }), "{what}: {error}");
            assert!(refs.next().is_none(), "{what}: went on after the error");
            let walked = walk_pages(&content, &pages, &mut |_, _, _| Ok(true));
            assert!(matches!(walked, Err(Error::Damaged { .. })), "{what}: {walked:?}");
        }
    }

    /// Every byte of a leaf and of a node changed to every value: what is accepted is the one
    /// encoding of what is read from it.
    #[test]
    fn every_changed_byte_is_noticed_or_is_another_page() {
        let pages = MemoryPages::default();
        let refs = [data(1, 5), ChunkRef::Hole { length: 300 }, data(2, 70_000)];
        let leaf = put(&pages, Tree::Content, 1, |array| write_refs(array, &refs));
        let top = node(&pages, 2, &[(leaf, 70_305), (leaf, 70_305)]);
        let bytes = |wanted: &PageRef| pages.each().into_iter().find(|(page, _)| page == wanted).unwrap().1.to_vec();
        let (leaf_bytes, node_bytes) = (bytes(&leaf), bytes(&top));
        for position in 0..leaf_bytes.len() {
            for byte in 0..=255 {
                let mut changed = leaf_bytes.clone();
                changed[position] = byte;
                pages.replace(&leaf, changed.clone());
                if let Ok(read) = read_leaf(&pages, &leaf, 70_305) {
                    assert_eq!(encode_page(Tree::Content, 1, |array| write_refs(array, &read)).unwrap(), changed);
                }
            }
        }
        for position in 0..node_bytes.len() {
            for byte in 0..=255 {
                let mut changed = node_bytes.clone();
                changed[position] = byte;
                pages.replace(&top, changed.clone());
                if let Ok(read) = read_node(&pages, &top, 2, 140_610) {
                    assert_eq!(ContentChild::encode(&read, 2).unwrap(), changed);
                }
            }
        }
    }

    #[test]
    fn a_tree_that_repeats_itself_is_walked_once() {
        // 1024^7 leaves in 8 pages.
        let pages = MemoryPages::default();
        let mut page = put(&pages, Tree::Content, 1, |array| write_refs(array, &[data(1, 1)]));
        let mut covered = 1u64;
        for height in 2..=6 {
            page = node(&pages, height, &vec![(page, covered); 1024]);
            covered *= 1024;
        }
        let mut seen = std::collections::BTreeSet::new();
        walk_pages(&content(covered, 6, page), &pages, &mut |page, height, covered| {
            Ok(seen.insert((page.id, height, covered)))
        })
        .unwrap();
        assert_eq!(seen.len(), 6);
        assert_eq!(pages.take_read(), 6);
        // A range in the middle is found at once: five nodes and three leaves.
        assert_eq!(read(&content(covered, 6, page), covered / 2..covered / 2 + 3, &pages).len(), 3);
        assert_eq!(pages.take_read(), 8);
    }
}
