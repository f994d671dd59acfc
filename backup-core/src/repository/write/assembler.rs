//! Puts the references of one content in order while workers finish its chunks in any order.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::content::{ChunkRef, Content, ContentBuilder, PageRef};
use crate::error::{Error, Result};
use crate::repository::write::store::{Pages, lock};

/// A numbered piece of content.
pub(crate) enum Piece {
    /// References in order.
    Refs(Vec<ChunkRef>),
    /// A leaf page of the parent backup, taken over whole, and the bytes that it covers.
    Leaf(PageRef, u64),
}

/// Collects the pieces 0, 1, 2, ... of a content. Pieces may arrive in any order; few wait at a time,
/// as the queue of jobs is short.
pub(crate) struct Assembler {
    state: Mutex<State>,
}

struct State {
    builder: ContentBuilder,
    next: u64,
    waiting: BTreeMap<u64, Piece>,
    /// Number of pieces, once known.
    total: Option<u64>,
}

impl Assembler {
    pub(crate) fn new(builder: ContentBuilder) -> Self {
        Self { state: Mutex::new(State { builder, next: 0, waiting: BTreeMap::new(), total: None }) }
    }

    /// Takes piece `number`. Returns the content where this was the last one.
    pub(crate) fn take(&self, number: u64, piece: Piece, pages: &Pages<'_>) -> Result<Option<Content>> {
        let mut state = lock(&self.state)?;
        state.waiting.insert(number, piece);
        state.advance(pages)
    }

    /// Says that there are `total` pieces. Returns the content where all have arrived.
    pub(crate) fn end(&self, total: u64, pages: &Pages<'_>) -> Result<Option<Content>> {
        let mut state = lock(&self.state)?;
        state.total = Some(total);
        state.advance(pages)
    }
}

impl State {
    fn advance(&mut self, pages: &Pages<'_>) -> Result<Option<Content>> {
        while let Some(piece) = self.waiting.remove(&self.next) {
            self.next = self.next.saturating_add(1);
            match piece {
                Piece::Refs(refs) => self.builder.push_piece(&refs, pages)?,
                Piece::Leaf(page, covered) => self.builder.push_leaf(page, covered, pages)?,
            }
        }
        if self.total != Some(self.next) {
            return Ok(None);
        }
        if !self.waiting.is_empty() {
            return Err(Error::Internal("a content has more pieces than its end said"));
        }
        self.total = None;
        std::mem::take(&mut self.builder).finish(pages).map(Some)
    }
}
