//! Which chunks and pages backups need: a walk through all of their pages, each of which is read once.

use hashbrown::HashSet;
use std::sync::Arc;

use crate::content::{
    CatalogueBelow, CataloguePage, CatalogueRoot, ChunkRef, ContentBelow, ContentRoot, Entry, PageRef, content_below,
};
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::index::{Index, Marked, Marks};
use crate::maintenance::repack::Shared;
use crate::repository::{Control, IndexedPages};

/// Marks what is met.
pub(super) struct Walk<'w> {
    pages: IndexedPages,
    marks: Marks,
    /// Pages below which not everything could be found.
    incomplete: HashSet<ChunkId>,
    /// Why not, of the backup that is walked.
    reason: Option<Error>,
    control: &'w Control,
}

impl<'w> Walk<'w> {
    pub(super) fn new(inner: &Shared, index: &Arc<Index>, control: &'w Control) -> Self {
        Self {
            pages: IndexedPages::new(inner, Arc::clone(index), Arc::default(), control),
            marks: Marks::new(Arc::clone(index)),
            incomplete: HashSet::new(),
            reason: None,
            control,
        }
    }

    /// Marks everything that a backup needs. Returns why not all of it could be found, if so.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`], [`Error::Cancelled`].
    pub(super) fn backup(&mut self, catalogue: &CatalogueRoot) -> Result<Option<Error>> {
        self.reason = None;
        if self.catalogue(&CataloguePage::root(catalogue))? {
            return Ok(None);
        }
        // What another backup met before has its reason there.
        let met_before = || Error::damaged("catalogue", catalogue.page.id, "a page below it cannot be read");
        Ok(Some(self.reason.take().unwrap_or_else(met_before)))
    }

    pub(super) fn into_marks(self) -> Marks {
        self.marks
    }

    /// Whether everything below a page of a catalogue could be found.
    fn catalogue(&mut self, page: &CataloguePage) -> Result<bool> {
        if let Some(known) = self.enter(&page.page)? {
            return Ok(known);
        }
        let mut is_complete = true;
        match page.below(&self.pages) {
            Ok(CatalogueBelow::Pages(children)) => {
                for child in children {
                    is_complete &= self.catalogue(&child)?;
                }
            }
            Ok(CatalogueBelow::Entries(entries)) => {
                for entry in entries {
                    is_complete &= match entry {
                        Ok(entry) => self.entry(&entry)?,
                        Err(error) => self.fails(error)?,
                    };
                }
            }
            Err(error) => is_complete = self.fails(error)?,
        }
        self.leave(&page.page, is_complete);
        Ok(is_complete)
    }

    fn entry(&mut self, entry: &Entry) -> Result<bool> {
        match &entry.content.root {
            ContentRoot::Inline(refs) => self.refs(refs),
            ContentRoot::Tree { height, page } => self.content(page, *height, entry.content.length),
        }
    }

    fn content(&mut self, page: &PageRef, height: u8, covered: u64) -> Result<bool> {
        if let Some(known) = self.enter(page)? {
            return Ok(known);
        }
        let mut is_complete = true;
        match content_below(&self.pages, page, height, covered) {
            Ok(ContentBelow::Pages(children)) => {
                for (child, covered) in children {
                    is_complete &= self.content(&child, height.saturating_sub(1), covered)?;
                }
            }
            Ok(ContentBelow::Refs(refs)) => is_complete = self.refs(&refs)?,
            Err(error) => is_complete = self.fails(error)?,
        }
        self.leave(page, is_complete);
        Ok(is_complete)
    }

    fn refs(&mut self, refs: &[ChunkRef]) -> Result<bool> {
        let mut is_complete = true;
        for reference in refs {
            if let ChunkRef::Data { id, .. } = reference
                && self.marks.mark(id) == Marked::Unknown
            {
                is_complete = self.fails(Error::damaged("chunk", id, "no index names it"))?;
            }
        }
        Ok(is_complete)
    }

    /// Marks a page. Where it was met before, or is not to be had: whether all below it is known.
    fn enter(&mut self, page: &PageRef) -> Result<Option<bool>> {
        self.control.cancel().check()?;
        match self.marks.mark(&page.id) {
            Marked::First => Ok(None),
            Marked::Again => Ok(Some(!self.incomplete.contains(&page.id))),
            Marked::Unknown => self.fails(Error::damaged("page", page.id, "no index names it")).map(Some),
        }
    }

    fn leave(&mut self, page: &PageRef, is_complete: bool) {
        if !is_complete {
            self.incomplete.insert(page.id);
        }
    }

    /// Notes damage, with which the walk goes on.
    fn fails(&mut self, error: Error) -> Result<bool> {
        if !error.is_of_one_object() {
            return Err(error);
        }
        self.reason.get_or_insert(error);
        Ok(false)
    }
}
