//! The upper levels of a tree of pages, as they are written.

use crate::content::entry::PageRef;
use crate::content::page::PageStore;
use crate::error::{Error, Result};
use crate::length::to_u64;
use crate::limits;

/// Fewest items of a page that ends where its content says so. Keeps trees low, whatever the content:
/// 64^8 items lie below the greatest height.
const FEWEST: usize = 64;
/// Items of a page of fixed size.
pub(super) const FIXED: usize = 256;
/// A page of this size ends in any case.
const LARGE: usize = 1 << 20;

/// Where pages end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Boundaries {
    /// Where the hash of the last item says so, so that equal runs of items make equal pages: after 64
    /// items, on average 256 more, 1024 at most.
    ByHash,
    /// After 256 items.
    Fixed,
}

impl Boundaries {
    /// Whether a page of `height` with `count` items in about `size` bytes ends after an item with
    /// this hash. Each level looks at another byte of it, from the last one on.
    pub(super) fn ends(self, height: u8, count: usize, size: usize, hash: Option<&[u8; 32]>) -> bool {
        let by_rule = match self {
            Self::ByHash => {
                let byte = 32usize.saturating_sub(usize::from(height));
                count >= FEWEST && hash.and_then(|hash| hash.get(byte)) == Some(&0)
            }
            Self::Fixed => count >= FIXED,
        };
        by_rule || size >= LARGE || to_u64(count) >= limits::PAGE_ITEMS
    }
}

/// An item of a node: a page one level below.
pub(super) trait Child: Sized {
    /// Encodes a node.
    fn encode(children: &[Self], height: u8) -> Result<Vec<u8>>;

    /// The item that refers to a node of these children (at least one).
    fn parent(children: Vec<Self>, page: PageRef) -> Result<Self>;

    /// About how many bytes it takes in its node.
    fn size(&self) -> usize;
}

/// All levels above the leaves.
pub(super) struct Nodes<C> {
    boundaries: Boundaries,
    /// The unfinished node of every level; the first is of height 2.
    levels: Vec<Level<C>>,
}

struct Level<C> {
    children: Vec<C>,
    size: usize,
}

impl<C: Child> Nodes<C> {
    pub(super) fn new(boundaries: Boundaries) -> Self {
        Self { boundaries, levels: Vec::new() }
    }

    /// Whether no leaf was added.
    pub(super) fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    /// Adds a leaf. `hash` is that of its last item.
    pub(super) fn push(&mut self, leaf: C, hash: Option<&[u8; 32]>, store: &dyn PageStore) -> Result<()> {
        self.push_at(0, leaf, hash, store)
    }

    /// Adds `count` equal leaves of a tree of pages of fixed size, in a number of steps that hardly depends on it:
    /// equal leaves have equal nodes above them.
    pub(super) fn push_alike(&mut self, leaf: &C, count: u64, store: &dyn PageStore) -> Result<()>
    where
        C: Clone,
    {
        if self.boundaries != Boundaries::Fixed {
            return Err(Error::Internal("equal leaves are added at once to a tree whose pages end by hash"));
        }
        self.push_alike_at(0, leaf, count, store)
    }

    fn push_alike_at(&mut self, position: usize, child: &C, mut count: u64, store: &dyn PageStore) -> Result<()>
    where
        C: Clone,
    {
        let whole = to_u64(FIXED);
        while count > 0 {
            if count < whole || self.levels.get(position).is_some_and(|level| !level.children.is_empty()) {
                self.push_at(position, child.clone(), None, store)?;
                count = count.saturating_sub(1);
                continue;
            }
            if position == self.levels.len() {
                self.levels.push(Level { children: Vec::new(), size: 0 });
            }
            let mut node = Level { children: vec![child.clone(); FIXED], size: 0 };
            let parent = node.close(height_of(position)?, store)?;
            self.push_alike_at(position.saturating_add(1), &parent, count.checked_div(whole).unwrap_or(0), store)?;
            count = count.checked_rem(whole).unwrap_or(0);
        }
        Ok(())
    }

    /// Adds a child to the level at `position`.
    fn push_at(&mut self, position: usize, child: C, hash: Option<&[u8; 32]>, store: &dyn PageStore) -> Result<()> {
        let mut child = child;
        for position in position.. {
            let height = height_of(position)?;
            if position == self.levels.len() {
                self.levels.push(Level { children: Vec::new(), size: 0 });
            }
            let level = self.levels.get_mut(position).ok_or(Error::Internal("a tree has no such level"))?;
            level.size = level.size.saturating_add(child.size());
            level.children.push(child);
            if !self.boundaries.ends(height, level.children.len(), level.size, hash) {
                break;
            }
            child = level.close(height, store)?;
        }
        Ok(())
    }

    /// Finishes all levels: the root's height and the child that refers to it. At least one leaf must
    /// have been added.
    pub(super) fn finish(mut self, store: &dyn PageStore) -> Result<(u8, C)> {
        let mut carried: Option<C> = None;
        let top = self.levels.len();
        for (position, mut level) in self.levels.drain(..).enumerate() {
            level.children.extend(carried.take());
            let is_root = position.saturating_add(1) == top && level.children.len() == 1;
            if is_root {
                let root = level.children.pop().ok_or(Error::Internal("a tree has no root"))?;
                return Ok((height_of(position)?.saturating_sub(1), root));
            }
            if !level.children.is_empty() {
                carried = Some(level.close(height_of(position)?, store)?);
            }
        }
        let root = carried.ok_or(Error::Internal("a tree has no pages"))?;
        Ok((height_of(top.saturating_sub(1))?, root))
    }
}

impl<C: Child> Level<C> {
    fn close(&mut self, height: u8, store: &dyn PageStore) -> Result<C> {
        self.size = 0;
        let children = std::mem::take(&mut self.children);
        let page = store.put_page(&C::encode(&children, height)?)?;
        C::parent(children, page)
    }
}

/// Height of the nodes of a level.
fn height_of(position: usize) -> Result<u8> {
    let height = to_u64(position).saturating_add(2);
    u8::try_from(height)
        .ok()
        .filter(|height| *height <= limits::TREE_HEIGHT)
        .ok_or_else(|| Error::limit("height of a tree of pages", height, limits::TREE_HEIGHT.into()))
}
