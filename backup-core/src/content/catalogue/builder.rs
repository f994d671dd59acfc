//! Writing a catalogue from entries in order.

use std::cmp::Ordering;

use crate::content::catalogue::page::{CatalogueChild, CatalogueRoot, LeafItem, encode_leaf};
use crate::content::page::PageStore;
use crate::content::path::EntryPath;
use crate::content::tree::{Boundaries, Nodes};
use crate::error::{Error, Result};
use crate::length::to_u64;

/// Takes encoded entries in ascending order of their paths, and puts pages into a store as they are full.
pub(super) struct CatalogueBuilder {
    /// Key of the hash of paths that decides where pages end.
    boundary_key: [u8; 32],
    leaf: Vec<LeafItem>,
    leaf_size: usize,
    /// Path of the first entry of the leaf.
    first: Option<EntryPath>,
    previous: Option<EntryPath>,
    nodes: Nodes<CatalogueChild>,
    entries: u64,
}

impl CatalogueBuilder {
    pub(super) fn new(boundary_key: &[u8; 32]) -> Self {
        Self {
            boundary_key: *boundary_key,
            leaf: Vec::new(),
            leaf_size: 0,
            first: None,
            previous: None,
            nodes: Nodes::new(Boundaries::ByHash),
            entries: 0,
        }
    }

    /// Adds an entry.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyExists`] where the path is that of the entry before, or whatever the store says.
    pub(super) fn push(&mut self, path: EntryPath, entry: Vec<u8>, store: &dyn PageStore) -> Result<()> {
        match self.previous.as_ref().map_or(Ordering::Less, |previous| previous.cmp(&path)) {
            Ordering::Less => {}
            Ordering::Equal => return Err(Error::AlreadyExists { what: "entry", name: path.to_string() }),
            Ordering::Greater => return Err(Error::Internal("entries of a catalogue out of order")),
        }
        let shared = match &self.previous {
            Some(previous) if !self.leaf.is_empty() => common_prefix(previous.as_bytes(), path.as_bytes()),
            _ => 0,
        };
        let suffix = path.as_bytes().get(shared..).unwrap_or_default().to_vec();
        let size = suffix.len().saturating_add(entry.len()).saturating_add(16);
        self.leaf_size = self.leaf_size.saturating_add(size);
        self.leaf.push(LeafItem { shared, suffix, entry });
        self.entries = self.entries.saturating_add(1);
        if self.first.is_none() {
            self.first = Some(path.clone());
        }
        let hash = blake3::keyed_hash(&self.boundary_key, path.as_bytes());
        self.previous = Some(path);
        if Boundaries::ByHash.ends(1, self.leaf.len(), self.leaf_size, Some(hash.as_bytes())) {
            self.flush(Some(hash.as_bytes()), store)?;
        }
        Ok(())
    }

    /// The catalogue is complete.
    ///
    /// # Errors
    ///
    /// Whatever the store says.
    pub(super) fn finish(mut self, store: &dyn PageStore) -> Result<CatalogueRoot> {
        if self.entries == 0 {
            let page = store.put_page(&encode_leaf(&[])?)?;
            return Ok(CatalogueRoot { height: 1, page, entries: 0 });
        }
        if !self.leaf.is_empty() {
            self.flush(None, store)?;
        }
        let (height, root) = self.nodes.finish(store)?;
        Ok(CatalogueRoot { height, page: root.page, entries: self.entries })
    }

    fn flush(&mut self, hash: Option<&[u8; 32]>, store: &dyn PageStore) -> Result<()> {
        let leaf = std::mem::take(&mut self.leaf);
        self.leaf_size = 0;
        let page = store.put_page(&encode_leaf(&leaf)?)?;
        let first = self.first.take().ok_or(Error::Internal("a leaf without entries"))?;
        self.nodes.push(CatalogueChild { page, entries: to_u64(leaf.len()), first }, hash, store)
    }
}

/// How many bytes two paths begin with in common.
fn common_prefix(one: &[u8], two: &[u8]) -> usize {
    one.iter().zip(two).take_while(|(one, two)| one == two).count()
}
