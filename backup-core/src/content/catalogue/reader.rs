//! Reading a catalogue: single entries, or many in order.

use crate::content::catalogue::page::{CatalogueRoot, Expected, LeafItem, read_leaf, read_node};
use crate::content::catalogue::record;
use crate::content::entry::Entry;
use crate::content::page::PageSource;
use crate::content::path::EntryPath;
use crate::error::{Error, Result};

/// A catalogue, read from its pages as they are needed.
#[derive(Clone, Copy)]
pub(crate) struct CatalogueReader<'s> {
    root: CatalogueRoot,
    source: &'s dyn PageSource,
}

impl<'s> CatalogueReader<'s> {
    /// A reader of the catalogue below `root`.
    #[must_use]
    pub(crate) fn new(root: CatalogueRoot, source: &'s dyn PageSource) -> Self {
        Self { root, source }
    }

    /// The entry at `path`, if there is one. Reads one page of every level.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] for pages or entries that break a rule, or whatever the source says.
    pub(crate) fn get(&self, path: &EntryPath) -> Result<Option<Entry>> {
        match self.entries(Some(path)).next().transpose()? {
            Some(entry) if entry.path == *path => Ok(Some(entry)),
            _ => Ok(None),
        }
    }

    /// All entries in order, or those from `from` on (itself included).
    #[must_use]
    pub(crate) fn entries(&self, from: Option<&EntryPath>) -> CatalogueEntries<'s> {
        CatalogueEntries { source: self.source, cursor: CatalogueCursor::new(&self.root, from) }
    }
}

/// What stands directly below a page of a catalogue.
pub(crate) enum CatalogueBelow {
    Pages(Vec<Expected>),
    /// Entries, those among them that do not decode as errors.
    Entries(Vec<Result<Entry>>),
}

impl Expected {
    /// Reads the page.
    ///
    /// # Errors
    ///
    /// Whatever the source says, [`Error::Damaged`] for a page that breaks a rule.
    pub(crate) fn below(&self, source: &dyn PageSource) -> Result<CatalogueBelow> {
        if self.height != 1 {
            return read_node(source, self).map(CatalogueBelow::Pages);
        }
        let mut path = Vec::new();
        let entries = read_leaf(source, self)?.into_iter().map(|item| decode(&mut path, &item));
        Ok(CatalogueBelow::Entries(entries.collect()))
    }
}

/// The entry of an item that follows the entry at `path`.
fn decode(path: &mut Vec<u8>, item: &LeafItem) -> Result<Entry> {
    path.truncate(item.shared);
    path.extend_from_slice(&item.suffix);
    let path = EntryPath::new(path.clone()).map_err(|_| Error::Internal("a path of a catalogue was not checked"))?;
    record::decode(path, &item.entry)
}

/// The entries of a catalogue, in order. Ends after the first page that cannot be read; an
/// entry that does not decode is reported and does not end it.
pub(crate) struct CatalogueEntries<'s> {
    source: &'s dyn PageSource,
    cursor: CatalogueCursor,
}

impl CatalogueEntries<'_> {
    /// Goes on behind a page that is damaged, which is reported like an entry. What stands below it is left out.
    #[must_use]
    pub(crate) fn past_damage(mut self) -> Self {
        self.cursor.past_damage = true;
        self
    }
}

impl Iterator for CatalogueEntries<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        self.cursor.next(self.source)
    }
}

/// Where a walk through a catalogue stands; the pages are handed in at every step.
pub(crate) struct CatalogueCursor {
    /// Entries before this path are left out.
    from: Option<EntryPath>,
    /// Pages to visit, the next one last.
    stack: Vec<Expected>,
    leaf: std::vec::IntoIter<LeafItem>,
    /// Path of the entry before.
    path: Vec<u8>,
    /// Goes on behind a damaged page.
    past_damage: bool,
}

impl CatalogueCursor {
    /// Begins at the first entry, or at `from`.
    #[must_use]
    pub(crate) fn new(root: &CatalogueRoot, from: Option<&EntryPath>) -> Self {
        let stack = vec![Expected::root(root)];
        Self { from: from.cloned(), stack, leaf: Vec::new().into_iter(), path: Vec::new(), past_damage: false }
    }

    /// The next entry; see [`CatalogueEntries`].
    pub(crate) fn next(&mut self, source: &dyn PageSource) -> Option<Result<Entry>> {
        loop {
            while let Some(item) = self.leaf.next() {
                self.path.truncate(item.shared);
                self.path.extend_from_slice(&item.suffix);
                let before = |from: &EntryPath| EntryPath::order(&self.path, from.as_bytes()).is_lt();
                if self.from.as_ref().is_some_and(before) {
                    continue;
                }
                self.from = None;
                let path = EntryPath::new(self.path.clone())
                    .map_err(|_| Error::Internal("a path of a catalogue was not checked"));
                return Some(path.and_then(|path| record::decode(path, &item.entry)));
            }
            let expected = self.stack.pop()?;
            // What ends before the wanted path is not read.
            let ends_before = |from: &EntryPath| expected.end.as_ref().is_some_and(|end| end <= from);
            if self.from.as_ref().is_some_and(ends_before) {
                continue;
            }
            let read = if expected.height == 1 {
                read_leaf(source, &expected).map(|leaf| {
                    self.path.clear();
                    self.leaf = leaf.into_iter();
                })
            } else {
                read_node(source, &expected).map(|children| self.stack.extend(children.into_iter().rev()))
            };
            if let Err(error) = read {
                if !(self.past_damage && error.is_of_one_object()) {
                    self.stack.clear();
                }
                return Some(Err(error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::content::catalogue::page::{CatalogueChild, encode_leaf};
    use crate::content::catalogue::record::tests::any_path;
    use crate::content::catalogue::sorter::{EncodedEntry, EntrySorter};
    use crate::content::entry::{EntryKind, PageRef};
    use crate::content::page::memory::MemoryPages;
    use crate::content::page::{PageStore, Tree, encode_page};
    use crate::content::tree::Child;

    const KEY: &[u8; 32] = &[7; 32];

    fn path(text: &str) -> EntryPath {
        text.parse().unwrap()
    }

    fn directory(text: &str) -> Vec<u8> {
        record::encode(&Entry::new(path(text), EntryKind::Directory)).unwrap()
    }

    fn leaf(pages: &MemoryPages, paths: &[&str]) -> PageRef {
        let items: Vec<LeafItem> = paths
            .iter()
            .map(|path| LeafItem { shared: 0, suffix: path.as_bytes().to_vec(), entry: directory("x") })
            .collect();
        pages.put_page(&encode_leaf(&items).unwrap()).unwrap()
    }

    fn node(pages: &MemoryPages, height: u8, children: &[(PageRef, u64, &str)]) -> PageRef {
        let children: Vec<CatalogueChild> = children
            .iter()
            .map(|(page, entries, first)| CatalogueChild { page: *page, entries: *entries, first: path(first) })
            .collect();
        pages.put_page(&CatalogueChild::encode(&children, height).unwrap()).unwrap()
    }

    fn walk(page: &Expected, pages: &MemoryPages) -> Result<()> {
        match page.below(pages)? {
            CatalogueBelow::Pages(children) => children.iter().try_for_each(|child| walk(child, pages)),
            CatalogueBelow::Entries(entries) => entries.into_iter().try_for_each(|entry| entry.map(drop)),
        }
    }

    /// The first error of reading everything, and that nothing follows it.
    fn failure(root: CatalogueRoot, pages: &MemoryPages) -> Option<Error> {
        let reader = CatalogueReader::new(root, pages);
        let walked = walk(&Expected::root(&root), pages);
        let mut entries = reader.entries(None);
        let error = entries.by_ref().find_map(Result::err);
        assert_eq!(walked.is_err(), error.is_some());
        assert!(error.is_none() || entries.next().is_none());
        error
    }

    #[test]
    fn hostile_pages_are_rejected_by_name() {
        let pages = MemoryPages::default();
        // Paths that share bytes must say so: these begin with different ones.
        let one = leaf(&pages, &["a", "b"]);
        let two = leaf(&pages, &["m", "n"]);
        let root = |height, page, entries| CatalogueRoot { height, page, entries };
        assert!(failure(root(1, one, 2), &pages).is_none());
        assert!(failure(root(2, node(&pages, 2, &[(one, 2, "a"), (two, 2, "m")]), 4), &pages).is_none());
        assert!(failure(root(1, leaf(&pages, &[]), 0), &pages).is_none());

        let shared = |items: &[(usize, &[u8])]| {
            let items: Vec<LeafItem> = items
                .iter()
                .map(|(shared, suffix)| LeafItem { shared: *shared, suffix: suffix.to_vec(), entry: directory("x") })
                .collect();
            pages.put_page(&encode_leaf(&items).unwrap()).unwrap()
        };
        let many: Vec<(usize, Vec<u8>)> = (0..1025u32)
            .map(|number| (0, [&number.to_be_bytes().map(|byte| byte | 0x80)[..], b"x"].concat()))
            .collect();
        let many = pages
            .put_page(
                &encode_page(Tree::Catalogue, 1, |array| {
                    for (number, (_, suffix)) in many.iter().enumerate() {
                        array.u64(0);
                        array.bytes(&[&suffix[..], &number.to_be_bytes().map(|byte| byte | 0x80)].concat());
                        array.bytes(&directory("x"));
                    }
                })
                .unwrap(),
            )
            .unwrap();
        let good = node(&pages, 2, &[(one, 2, "a"), (two, 2, "m")]);
        let cases = vec![
            ("too few entries", root(1, one, 3)),
            ("too many entries", root(1, one, 1)),
            ("an empty leaf below the root", root(2, node(&pages, 2, &[(leaf(&pages, &[]), 0, "a")]), 0)),
            ("descending", root(1, leaf(&pages, &["b", "a"]), 2)),
            ("twice", root(1, leaf(&pages, &["b", "b"]), 2)),
            ("a directory after its contents", root(1, shared(&[(0, b"a/b"), (0, b"a")]), 2)),
            ("a prefix that is not there", root(1, shared(&[(1, b"a")]), 1)),
            ("a prefix that is too long", root(1, shared(&[(0, b"a"), (2, b"b")]), 2)),
            ("a prefix that does not fit", root(1, shared(&[(0, b"a"), (usize::MAX, b"b")]), 2)),
            ("a prefix that is too short", root(1, shared(&[(0, b"ab"), (0, b"ac")]), 2)),
            ("an absolute path", root(1, leaf(&pages, &["/a"]), 1)),
            ("a path outside", root(1, leaf(&pages, &["../a"]), 1)),
            ("a path outside in parts", root(1, shared(&[(0, b"a/b"), (2, b"../c")]), 2)),
            ("NUL", root(1, leaf(&pages, &["a\0"]), 1)),
            ("an empty path", root(1, leaf(&pages, &[""]), 1)),
            ("a long path", root(1, shared(&[(0, &[b'a'; 65_537])]), 1)),
            ("1025 entries", root(1, many, 1025)),
            ("a node as a leaf", root(1, good, 4)),
            ("a leaf as a node", root(2, one, 2)),
            ("height 0", root(0, one, 2)),
            ("height 9", root(9, node(&pages, 9, &[(good, 4, "a")]), 4)),
            ("a child that lies about its height", root(3, node(&pages, 3, &[(one, 2, "a")]), 2)),
            ("no children", root(2, node(&pages, 2, &[]), 0)),
            ("a wrong sum", root(2, good, 5)),
            ("a child without entries", root(2, node(&pages, 2, &[(one, 2, "a"), (two, 0, "m")]), 2)),
            ("a wrong first path", root(2, node(&pages, 2, &[(one, 2, "A"), (two, 2, "m")]), 4)),
            ("children out of order", root(2, node(&pages, 2, &[(two, 2, "m"), (one, 2, "a")]), 4)),
            ("the same child twice", root(2, node(&pages, 2, &[(one, 2, "a"), (one, 2, "a")]), 4)),
            (
                "children that overlap",
                root(2, node(&pages, 2, &[(leaf(&pages, &["a", "z"]), 2, "a"), (two, 2, "m")]), 4),
            ),
            (
                "grandchildren that overlap",
                root(
                    3,
                    node(
                        &pages,
                        3,
                        &[(node(&pages, 2, &[(one, 2, "a"), (two, 2, "m")]), 4, "a"), (leaf(&pages, &["m"]), 1, "m")],
                    ),
                    5,
                ),
            ),
            ("sums that overflow", root(2, node(&pages, 2, &[(one, u64::MAX, "a"), (two, 5, "m")]), 4)),
        ];
        for (what, root) in cases {
            let error = failure(root, &pages).unwrap_or_else(|| panic!("{what} was accepted"));
            assert!(matches!(error, Error::Damaged { what: "catalogue page", .. }), "{what}: {error}");
        }
    }

    /// Every byte of a leaf and of a node changed to every value: what is accepted is the one
    /// encoding of what is read from it.
    #[test]
    fn every_changed_byte_is_noticed_or_is_another_page() {
        let pages = MemoryPages::default();
        let items: Vec<LeafItem> = [(0, "a"), (1, "/b"), (2, "cd"), (0, "b")]
            .map(|(shared, suffix)| LeafItem { shared, suffix: suffix.into(), entry: directory("x") })
            .to_vec();
        let leaf = pages.put_page(&encode_leaf(&items).unwrap()).unwrap();
        let top = node(&pages, 2, &[(leaf, 4, "a"), (leaf, 4, "b/x")]);
        let bytes = |wanted: &PageRef| pages.each().into_iter().find(|(page, _)| page == wanted).unwrap().1.to_vec();
        let expect = |page, height, entries| Expected::root(&CatalogueRoot { height, page, entries });
        let original = bytes(&leaf);
        for position in 0..original.len() {
            for byte in 0..=255 {
                let mut changed = original.clone();
                changed[position] = byte;
                pages.replace(&leaf, changed.clone());
                if let Ok(read) = read_leaf(&pages, &expect(leaf, 1, 4)) {
                    assert_eq!(encode_leaf(&read).unwrap(), changed, "byte {position} = {byte}");
                }
            }
        }
        let original = bytes(&top);
        for position in 0..original.len() {
            for byte in 0..=255 {
                let mut changed = original.clone();
                changed[position] = byte;
                pages.replace(&top, changed.clone());
                if let Ok(read) = read_node(&pages, &expect(top, 2, 8)) {
                    let children: Vec<CatalogueChild> = read
                        .into_iter()
                        .map(|Expected { page, entries, first, .. }| CatalogueChild {
                            page,
                            entries,
                            first: first.unwrap(),
                        })
                        .collect();
                    assert_eq!(CatalogueChild::encode(&children, 2).unwrap(), changed, "byte {position} = {byte}");
                }
            }
        }
    }

    #[test]
    fn a_damaged_entry_does_not_hide_the_others() {
        let pages = MemoryPages::default();
        let item = |name: &str, entry: Vec<u8>| LeafItem { shared: 0, suffix: name.into(), entry };
        let items = [item("a", directory("a")), item("b", vec![0xff]), item("c", directory("c"))];
        let page = pages.put_page(&encode_leaf(&items).unwrap()).unwrap();
        let reader = CatalogueReader::new(CatalogueRoot { height: 1, page, entries: 3 }, &pages);
        let read: Vec<_> = reader.entries(None).collect();
        assert!(read[0].is_ok() && read[2].is_ok());
        assert!(matches!(read[1], Err(Error::Damaged { what: "entry", .. })));
        assert!(reader.get(&path("c")).unwrap().is_some());
    }

    #[test]
    fn reads_few_pages_for_one_entry() {
        let pages = MemoryPages::default();
        let mut sorter = EntrySorter::new(KEY);
        for number in 0..50_000u32 {
            let entry = Entry::new(path(&format!("d{}/f{number:06}", number / 1000)), EntryKind::File);
            sorter.push(EncodedEntry::new(&entry).unwrap(), &pages).unwrap();
        }
        let reader = CatalogueReader::new(sorter.finish(&pages).unwrap(), &pages);
        for number in [0, 31_415, 49_999] {
            let wanted = path(&format!("d{}/f{number:06}", number / 1000));
            assert_eq!(reader.get(&wanted).unwrap().unwrap().path, wanted);
            assert!(pages.take_read() <= 3);
        }
        assert!(reader.get(&path("d9/f009999x")).unwrap().is_none());
        assert!(reader.get(&path("zzz")).unwrap().is_none());
    }

    #[test]
    fn a_damaged_page_does_not_hide_the_others() {
        let pages = MemoryPages::default();
        let leaves = [&["a", "b"], &["m", "n"], &["x", "y"]].map(|paths| (leaf(&pages, paths), paths[0]));
        let children = leaves.map(|(page, first)| (page, 2, first));
        let root = CatalogueRoot { height: 2, page: node(&pages, 2, &children), entries: 6 };
        pages.replace(&leaves[1].0, vec![0xff; 10]);
        let read = |entries: CatalogueEntries<'_>| -> Vec<_> {
            entries.map(|entry| entry.map(|entry| entry.path.to_string()).map_err(|error| error.kind())).collect()
        };
        let entry = |path: &str| Ok(path.to_owned());
        let damaged = Err(crate::ErrorKind::Damaged);
        let reader = CatalogueReader::new(root, &pages);
        assert_eq!(read(reader.entries(None)), [entry("a"), entry("b"), damaged.clone()]);
        assert_eq!(
            read(reader.entries(None).past_damage()),
            [entry("a"), entry("b"), damaged.clone(), entry("x"), entry("y")]
        );
        pages.replace(&root.page, vec![0xff; 10]);
        assert_eq!(read(reader.entries(None).past_damage()), [damaged]);
    }

    proptest! {
        #[test]
        fn changed_pages_do_no_harm(paths in prop::collection::btree_set(any_path(), 1..400), which: prop::sample::Index, at: prop::sample::Index, byte: u8) {
            let pages = MemoryPages::default();
            let mut sorter = EntrySorter::new(KEY);
            for path in &paths {
                let entry = Entry::new(path.clone(), EntryKind::Fifo);
                sorter.push(EncodedEntry::new(&entry).unwrap(), &pages).unwrap();
            }
            let root = sorter.finish(&pages).unwrap();
            let all = pages.each();
            let (page, bytes) = &all[which.index(all.len())];
            let mut changed = bytes.to_vec();
            let position = at.index(changed.len());
            changed[position] = byte;
            pages.replace(page, changed);
            let read: Vec<Result<Entry>> = CatalogueReader::new(root, &pages).entries(None).collect();
            let good: Vec<EntryPath> = read.into_iter().filter_map(Result::ok).map(|entry| entry.path).collect();
            prop_assert!(good.is_sorted_by(|one, two| one < two));
        }
    }
}
