//! The bytes of catalogue pages (`docs/format.md`, "Catalogue").
//!
//! ```text
//! leaf: [ bytes shared with the path before, rest of the path, entry, ... ]
//! node: [ id, length of the page, entries below, first path below, ... ]
//! ```

use std::cmp::Ordering;

use crate::content::entry::PageRef;
use crate::content::page::{PageSource, Tree, encode_page, read_page_ref, with_page, write_page_ref};
use crate::content::path::EntryPath;
use crate::content::tree::Child;
use crate::error::{Error, Result};
use crate::format::cbor::ArrayReader;
use crate::length::{to_u64, to_usize};
use crate::limits;

/// A catalogue: its topmost page and how many entries there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CatalogueRoot {
    /// Levels of pages, 1 to 8; 1 is a leaf.
    pub(crate) height: u8,
    pub(crate) page: PageRef,
    /// Number of entries; 0 only with an empty leaf.
    pub(crate) entries: u64,
}

/// A child of a catalogue node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CatalogueChild {
    pub(super) page: PageRef,
    pub(super) entries: u64,
    /// Path of the first entry below it.
    pub(super) first: EntryPath,
}

impl Child for CatalogueChild {
    fn encode(children: &[Self], height: u8) -> Result<Vec<u8>> {
        encode_page(Tree::Catalogue, height, |array| {
            for child in children {
                write_page_ref(array, &child.page);
                array.u64(child.entries);
                array.bytes(child.first.as_bytes());
            }
        })
    }

    fn parent(children: Vec<Self>, page: PageRef) -> Result<Self> {
        let entries = children.iter().map(|child| child.entries).sum();
        let first = children.into_iter().next().ok_or(Error::Internal("a node without children"))?.first;
        Ok(Self { page, entries, first })
    }

    fn size(&self) -> usize {
        self.first.as_bytes().len().saturating_add(50)
    }
}

/// A path and an encoded entry, ready for a leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeafItem {
    /// Bytes that the path has in common with the one before it in the page.
    pub(super) shared: usize,
    pub(super) suffix: Vec<u8>,
    pub(super) entry: Vec<u8>,
}

/// Encodes a leaf.
pub(super) fn encode_leaf(items: &[LeafItem]) -> Result<Vec<u8>> {
    encode_page(Tree::Catalogue, 1, |array| {
        for item in items {
            array.u64(to_u64(item.shared));
            array.bytes(&item.suffix);
            array.bytes(&item.entry);
        }
    })
}

/// What a page must hold, as its parent says: the number of entries, and paths from `first` on that
/// stay below `end`. The root has neither bound.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Expected {
    pub(crate) page: PageRef,
    pub(super) height: u8,
    pub(crate) entries: u64,
    pub(super) first: Option<EntryPath>,
    pub(super) end: Option<EntryPath>,
}

impl Expected {
    /// Whether it holds entries.
    pub(crate) const fn is_leaf(&self) -> bool {
        self.height == 1
    }

    /// What the root must hold.
    pub(crate) fn root(root: &CatalogueRoot) -> Self {
        Self { page: root.page, height: root.height, entries: root.entries, first: None, end: None }
    }

    fn is_first(&self, path: &[u8]) -> bool {
        self.first.as_ref().is_none_or(|first| first.as_bytes() == path)
    }

    fn is_below_end(&self, path: &[u8]) -> bool {
        self.end.as_ref().is_none_or(|end| EntryPath::order(path, end.as_bytes()) == Ordering::Less)
    }
}

/// Reads and checks a leaf. Paths stay compressed, so that the leaf takes no more memory than its page.
pub(super) fn read_leaf(source: &dyn PageSource, expected: &Expected) -> Result<Vec<LeafItem>> {
    with_page(source, Tree::Catalogue, 1, &expected.page, |mut items| {
        let end = items.clone();
        let mut leaf = Vec::new();
        let mut path: Vec<u8> = Vec::new();
        let mut previous: Vec<u8> = Vec::new();
        while items.remaining() > 0 {
            if to_u64(leaf.len()) == limits::PAGE_ITEMS {
                return Err(end.damaged("it has more than 1024 entries"));
            }
            let shared = to_usize(items.required()?.u64()?, "prefix of a path")?;
            let suffix = items.required()?.bytes()?;
            let entry = items.required()?.bytes()?;
            std::mem::swap(&mut path, &mut previous);
            let prefix = previous.get(..shared).ok_or_else(|| end.damaged("a path shares more than there is"))?;
            if suffix.len() > limits::PATH {
                return Err(end.damaged("a path is longer than 65536 bytes"));
            }
            path.clear();
            path.extend_from_slice(prefix);
            path.extend_from_slice(suffix);
            check_path(&path, (!leaf.is_empty()).then_some(&previous), expected, &end)?;
            if previous.get(shared).is_some_and(|byte| suffix.first() == Some(byte)) {
                return Err(end.damaged("a path shares more than it says"));
            }
            leaf.push(LeafItem { shared, suffix: suffix.to_vec(), entry: entry.to_vec() });
        }
        if to_u64(leaf.len()) != expected.entries {
            return Err(end.damaged(format!("it has {} entries instead of {}", leaf.len(), expected.entries)));
        }
        Ok(leaf)
    })
}

/// Reads and checks a node of at least height 2: what its children must hold.
pub(super) fn read_node(source: &dyn PageSource, expected: &Expected) -> Result<Vec<Expected>> {
    let Expected { page, height, .. } = expected;
    if *height < 2 || *height > limits::TREE_HEIGHT {
        return Err(Error::damaged(Tree::Catalogue.page_name(), page.id, format!("its height is {height}")));
    }
    with_page(source, Tree::Catalogue, *height, page, |mut items| {
        let end = items.clone();
        let mut children: Vec<Expected> = Vec::new();
        let mut sum = 0u64;
        while items.remaining() > 0 {
            if to_u64(children.len()) == limits::PAGE_ITEMS {
                return Err(end.damaged("it has more than 1024 children"));
            }
            let page = read_page_ref(&mut items)?;
            let entries = items.required()?.u64()?;
            let first = items.required()?.bytes()?;
            if entries == 0 {
                return Err(end.damaged("a child has no entries"));
            }
            sum = sum.saturating_add(entries);
            let previous = children.last().and_then(|child| child.first.as_ref()).map(EntryPath::as_bytes);
            check_path(first, previous, expected, &end)?;
            let first = EntryPath::new(first).map_err(|error| end.damaged(error.to_string()))?;
            if let Some(last) = children.last_mut() {
                last.end = Some(first.clone());
            }
            let height = height.saturating_sub(1);
            children.push(Expected { page, height, entries, first: Some(first), end: None });
        }
        if let Some(last) = children.last_mut() {
            last.end.clone_from(&expected.end);
        }
        if sum != expected.entries {
            return Err(end.damaged(format!("it has {sum} entries instead of {}", expected.entries)));
        }
        if children.is_empty() {
            return Err(end.damaged("it has no children"));
        }
        Ok(children)
    })
}

/// Checks a path against the one before it in the page and against what the parent says.
fn check_path(
    path: &[u8],
    previous: Option<impl AsRef<[u8]>>,
    expected: &Expected,
    page: &ArrayReader<'_>,
) -> Result<()> {
    if let Some(rule) = EntryPath::fault(path) {
        return Err(page.damaged(format!("a path breaks a rule: {rule}")));
    }
    let in_order = match previous {
        None => expected.is_first(path),
        Some(previous) => EntryPath::order(previous.as_ref(), path) == Ordering::Less,
    };
    if !in_order || !expected.is_below_end(path) {
        return Err(page.damaged("its paths are not in the order that its parent says"));
    }
    Ok(())
}
