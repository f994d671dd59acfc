//! Puts the references of one content in order while workers finish its chunks in any order.

use std::collections::BTreeMap;

use crate::content::{ChunkRef, Content, ImageContentBuilder, PageRef, PageStore, StreamContentBuilder};
use crate::error::{Error, Result};
use crate::repository::parallel::POISONED;
use crate::sync::Mutex;

/// A numbered piece of content.
pub(crate) enum Piece {
    /// References in order.
    Refs(Vec<ChunkRef>),
    /// A leaf page of the parent backup, taken over whole, and the bytes that it covers.
    Leaf(PageRef, u64),
    /// So many leaves that are nothing but a hole.
    HoleLeaves(u64),
    /// References in order, and the end of the content: what follows does not count.
    Last(Vec<ChunkRef>),
}

/// Collects the pieces 0, 1, 2, ... of a content. Pieces may arrive in any order; few wait at a time,
/// as the queue of jobs is short.
pub(crate) struct Assembler<'p> {
    state: Mutex<State<'p>>,
}

struct State<'p> {
    builder: Option<Builder<'p>>,
    next: u64,
    waiting: BTreeMap<u64, Piece>,
    /// Number of pieces, once known.
    total: Option<u64>,
}

/// How references become a content.
enum Builder<'p> {
    Stream(StreamContentBuilder<'p>),
    Image {
        builder: ImageContentBuilder<'p>,
        /// References of the leaf that is being filled, and the bytes that they cover.
        leaf: Vec<ChunkRef>,
        covered: u64,
        /// Bytes that a whole leaf covers.
        span: u64,
        /// The last piece has come.
        ended: bool,
    },
}

impl<'p> Assembler<'p> {
    /// For content that is cut where its bytes say so.
    pub(crate) fn stream(pages: &'p dyn PageStore) -> Self {
        Self::new(Builder::Stream(StreamContentBuilder::new(pages)))
    }

    /// For content that is cut at fixed positions, `span` bytes to a leaf.
    pub(crate) fn image(pages: &'p dyn PageStore, span: u64) -> Self {
        let builder = ImageContentBuilder::new(pages);
        Self::new(Builder::Image { builder, leaf: Vec::new(), covered: 0, span, ended: false })
    }

    fn new(builder: Builder<'p>) -> Self {
        Self { state: Mutex::new(State { builder: Some(builder), next: 0, waiting: BTreeMap::new(), total: None }) }
    }

    /// Takes piece `number`. Returns the content where this was the last one.
    pub(crate) fn take(&self, number: u64, piece: Piece) -> Result<Option<Content>> {
        let mut state = self.state.lock().map_err(|_| POISONED)?;
        state.waiting.insert(number, piece);
        state.advance()
    }

    /// Says that there are `total` pieces. Returns the content where all have arrived.
    pub(crate) fn end(&self, total: u64) -> Result<Option<Content>> {
        let mut state = self.state.lock().map_err(|_| POISONED)?;
        state.total = Some(total);
        state.advance()
    }
}

impl State<'_> {
    fn advance(&mut self) -> Result<Option<Content>> {
        while let Some(piece) = self.waiting.remove(&self.next) {
            self.next = self.next.saturating_add(1);
            self.builder.as_mut().ok_or(AFTER_END)?.push(piece)?;
        }
        if self.total != Some(self.next) {
            return Ok(None);
        }
        if !self.waiting.is_empty() {
            return Err(AFTER_END);
        }
        self.total = None;
        self.builder.take().ok_or(AFTER_END)?.finish().map(Some)
    }
}

const AFTER_END: Error = Error::Internal("a content has more pieces than its end said");

impl Builder<'_> {
    fn push(&mut self, piece: Piece) -> Result<()> {
        match (self, piece) {
            (Self::Stream(builder), Piece::Refs(refs)) => refs.into_iter().try_for_each(|item| builder.push(item)),
            (Self::Stream(_), Piece::Leaf(..) | Piece::HoleLeaves(_) | Piece::Last(_)) => {
                Err(Error::Internal("a stream was put together like an image"))
            }
            (Self::Image { ended: true, .. }, _) => Ok(()),
            (image @ Self::Image { .. }, Piece::Last(refs)) => {
                image.push(Piece::Refs(refs))?;
                if let Self::Image { ended, .. } = image {
                    *ended = true;
                }
                Ok(())
            }
            (Self::Image { builder, leaf, covered, span, .. }, Piece::Refs(refs)) => {
                for reference in refs {
                    *covered = covered.saturating_add(reference.length());
                    leaf.push(reference);
                    if covered >= span {
                        *covered = 0;
                        builder.push_leaf(std::mem::take(leaf))?;
                    }
                }
                Ok(())
            }
            (Self::Image { leaf, .. }, Piece::Leaf(..) | Piece::HoleLeaves(_)) if !leaf.is_empty() => {
                Err(Error::Internal("a leaf was taken over into the middle of another"))
            }
            (Self::Image { builder, .. }, Piece::Leaf(page, covered)) => builder.push_existing_leaf(page, covered),
            (Self::Image { builder, span, .. }, Piece::HoleLeaves(count)) => builder.push_hole_leaves(*span, count),
        }
    }

    fn finish(self) -> Result<Content> {
        match self {
            Self::Stream(builder) => builder.finish(),
            Self::Image { mut builder, leaf, .. } => {
                if !leaf.is_empty() {
                    builder.push_leaf(leaf)?;
                }
                builder.finish()
            }
        }
    }
}
