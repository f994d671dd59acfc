//! Block sources: disk images, snapshots and large sparse files, cut at fixed positions.
//!
//! Workers read, so one large image keeps every thread busy. Holes and unchanged ranges are never
//! read. References are gathered per leaf, a fixed span of the image, so that a leaf whose span is
//! unchanged is taken over from the parent without decoding more of it than its references.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::chunk::is_zero;
use crate::content::{ChunkRef, Content, Entry, EntryKind, EntryPath, IMAGE_LEAF_CHUNKS, Leaves, PageSource, Refs};
use crate::error::{Error, Result};
use crate::extent::{Extent, ExtentKind};
use crate::length::{to_u64, to_usize};
use crate::limits;
use crate::progress::Event;
use crate::repository::parallel::{Queue, lock, with_queue};
use crate::repository::write::assembler::{Assembler, Piece};
use crate::repository::write::read_at::ReadAt;
use crate::repository::write::session::BackupSession;
use crate::repository::write::store::{ChunkStore, StoreWorker};
use crate::repository::write::stream::{ContentJobs, keep, taken};
use crate::source::BlockSource;

/// What a leaf's worth of an image needs: one decision a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    Read,
    Hole,
    /// As the parent has it.
    Take(ChunkRef),
}

/// The image being read, shared by its jobs.
pub(crate) struct Image<'env> {
    source: Arc<dyn BlockSource + 'env>,
    name: EntryPath,
    chunk_size: u32,
    /// Whether a failure to read ends this image only (a file of a tree) or the operation.
    tolerant: bool,
    failure: Mutex<Option<Error>>,
    ended_early: AtomicBool,
}

impl<'env> Image<'env> {
    pub(crate) fn new(source: Arc<dyn BlockSource + 'env>, name: EntryPath, chunk_size: u32, tolerant: bool) -> Self {
        Self { source, name, chunk_size, tolerant, failure: Mutex::new(None), ended_early: AtomicBool::new(false) }
    }

    /// Whether it ended before its length: a tolerant image is kept up to there.
    pub(crate) fn ended_early(&self) -> bool {
        self.ended_early.load(Ordering::Acquire)
    }

    /// Why the image could not be read, where it is tolerant of that.
    pub(crate) fn failure(&self) -> Result<Option<Error>> {
        Ok(lock(&self.failure)?.take())
    }

    fn has_failed(&self) -> Result<bool> {
        Ok(lock(&self.failure)?.is_some())
    }
}

/// Bytes that were not read, by reason.
#[derive(Clone, Copy, Default)]
pub(crate) struct Amounts {
    pub(crate) read: u64,
    pub(crate) unchanged: u64,
}

/// Backs up a block source as one entry.
pub(crate) fn add_blocks(session: &mut BackupSession, path: EntryPath, source: &dyn BlockSource) -> Result<Entry> {
    let mut entry = Entry::new(path, EntryKind::Disk);
    session.control.event(&Event::EntryStarted { path: &entry.path });
    // What is unchanged is unchanged since one certain backup, and only who made the change map knows which.
    let parent = if session.has_named_parent() { session.parent_entry(&entry.path)? } else { None };
    let parent = parent.filter(|parent| parent.kind == EntryKind::Disk && parent.size() == source.length());
    entry.content = store_blocks(session, &entry.path, source, parent.as_ref().map(|parent| &parent.content))?;
    session.control.event(&Event::EntryFinished { path: &entry.path });
    session.insert(&entry)?;
    Ok(entry)
}

/// Stores a block source as the content of the entry `name`. `parent` is a content of the repository with the same
/// length, which the source's unchanged ranges are those of.
pub(crate) fn store_blocks(
    session: &BackupSession,
    name: &EntryPath,
    source: &dyn BlockSource,
    parent: Option<&Content>,
) -> Result<Content> {
    let slot = Mutex::new(None);
    let amounts = {
        let store = &session.store;
        let slot = &slot;
        let parent = parent.map(|content| (content, session.parent_pages()));
        let image = Image::new(Arc::new(source), name.clone(), session.fixed_chunk_size(), false);
        let image = Arc::new(image);
        with_queue(&session.control, session.queue_depth(), &|| store.worker(), |queue| {
            let jobs = ContentJobs::new(store, Assembler::image(store, leaf_span(image.chunk_size)), keep(slot));
            read_blocks(&image, parent, store, jobs, queue)
        })?
    };
    session.read_bytes(amounts.read);
    session.unchanged_bytes(amounts.unchanged);
    taken(&slot)
}

/// Reads an image leaf by leaf into `jobs`. `parent` is the same image in the parent backup.
pub(crate) fn read_blocks<'env>(
    image: &Arc<Image<'env>>,
    parent: Option<(&Content, &dyn PageSource)>,
    store: &'env ChunkStore,
    mut jobs: ContentJobs<'env>,
    queue: &Queue<'env, '_, StoreWorker>,
) -> Result<Amounts> {
    let length = image.source.length();
    if length > limits::CONTENT {
        return Err(Error::limit(format!("content of {}", image.name), length, limits::CONTENT));
    }
    let chunk_size = u64::from(image.chunk_size);
    let span = leaf_span(image.chunk_size);
    let mut extents = Extents::new(&*image.source, &image.name);
    let mut amounts = Amounts::default();
    let mut leaf_start = 0;
    while leaf_start < length {
        let holes = extents.hole_leaves(leaf_start, length, span)?;
        if holes > 0 {
            let bytes = holes.saturating_mul(span);
            report(store, bytes, ExtentKind::Zero);
            jobs.take(Piece::HoleLeaves(holes))?;
            leaf_start = leaf_start.saturating_add(bytes);
            continue;
        }
        let leaf_end = leaf_start.saturating_add(span).min(length);
        let kinds = extents.of_leaf(leaf_start, leaf_end, chunk_size)?;
        let all_unchanged = kinds.iter().all(|kind| *kind == Some(ExtentKind::Unchanged));
        let has_unchanged = kinds.contains(&Some(ExtentKind::Unchanged));
        let parent_refs = match (has_unchanged, parent) {
            (false, _) => Vec::new(),
            (true, None) => {
                return Err(Error::invalid(
                    format!("block source {}", image.name),
                    "it reports unchanged ranges, and no parent backup is named that has this image with this length",
                ));
            }
            (true, Some((content, pages))) => match aligned(content, pages, leaf_start, leaf_end, chunk_size) {
                // References that are lost make the leaf be read again.
                Err(Error::Damaged { .. }) => Vec::new(),
                found => found?,
            },
        };
        let mut plan = Vec::with_capacity(kinds.len());
        for (position, kind) in kinds.iter().enumerate() {
            plan.push(match kind {
                Some(ExtentKind::Zero) => Plan::Hole,
                Some(ExtentKind::Unchanged) => match parent_refs.get(position).copied().flatten() {
                    Some(ChunkRef::Hole { .. }) => Plan::Hole,
                    // A chunk that the repository lost is read again.
                    Some(ChunkRef::Data { id, length }) if store.refer(&id)? => {
                        amounts.unchanged = amounts.unchanged.saturating_add(u64::from(length));
                        Plan::Take(ChunkRef::Data { id, length })
                    }
                    _ => Plan::Read,
                },
                Some(ExtentKind::Data) | None => Plan::Read,
            });
        }
        let nothing_to_read = plan.iter().all(|step| *step != Plan::Read);
        if all_unchanged && nothing_to_read {
            report(store, leaf_end.saturating_sub(leaf_start), ExtentKind::Unchanged);
            if let Some((content, pages)) = parent
                && let Some((offset, covered, page)) =
                    Leaves::new(content, leaf_start..leaf_end, pages).next().transpose()?
                && offset == leaf_start
                && leaf_start.saturating_add(covered) == leaf_end
                && store.refer(&page.id)?
            {
                jobs.take(Piece::Leaf(page, covered))?;
                leaf_start = leaf_end;
                continue;
            }
        }
        let read = submit_leaf(image, leaf_start, leaf_end, &plan, &mut jobs, queue)?;
        amounts.read = amounts.read.saturating_add(read);
        leaf_start = leaf_end;
    }
    jobs.end()?;
    Ok(amounts)
}

/// Hands one leaf to the queue, a job per few chunks, and returns how many bytes will be read.
fn submit_leaf<'env>(
    image: &Arc<Image<'env>>,
    leaf_start: u64,
    leaf_end: u64,
    plan: &[Plan],
    jobs: &mut ContentJobs<'env>,
    queue: &Queue<'env, '_, StoreWorker>,
) -> Result<u64> {
    let chunk_size = u64::from(image.chunk_size);
    let mut read = 0u64;
    let mut refs: Vec<ChunkRef> = Vec::new();
    for (position, step) in plan.iter().enumerate() {
        let offset = leaf_start.saturating_add(to_u64(position).saturating_mul(chunk_size));
        let length = leaf_end.saturating_sub(offset).min(chunk_size);
        match step {
            Plan::Hole => {
                report(jobs.store(), length, ExtentKind::Zero);
                refs.push(ChunkRef::Hole { length });
            }
            Plan::Take(reference) => {
                report(jobs.store(), length, ExtentKind::Unchanged);
                refs.push(*reference);
            }
            Plan::Read => {
                if !refs.is_empty() {
                    jobs.take(Piece::Refs(std::mem::take(&mut refs)))?;
                }
                read = read.saturating_add(length);
                let image = Arc::clone(image);
                jobs.submit(queue, move |store, worker| read_chunk(&image, offset, length, store, worker))?;
            }
        }
    }
    if !refs.is_empty() {
        jobs.take(Piece::Refs(refs))?;
    }
    Ok(read)
}

fn read_chunk(
    image: &Image<'_>,
    offset: u64,
    length: u64,
    store: &ChunkStore,
    worker: &mut StoreWorker,
) -> Result<Piece> {
    let filler = Piece::Refs(vec![ChunkRef::Hole { length }]);
    if image.tolerant && image.has_failed()? {
        return Ok(filler);
    }
    let mut buffer = std::mem::take(&mut worker.buffer);
    let result = read_and_store(image, offset, length, store, worker, &mut buffer);
    worker.buffer = buffer;
    report(store, length, ExtentKind::Data);
    match result {
        // The image's content is thrown away when it completes; the hole only fills the place.
        Err(error @ Error::Source { .. }) if image.tolerant => {
            lock(&image.failure)?.get_or_insert(error);
            Ok(filler)
        }
        other => other,
    }
}

fn read_and_store(
    image: &Image<'_>,
    offset: u64,
    length: u64,
    store: &ChunkStore,
    worker: &mut StoreWorker,
    buffer: &mut Vec<u8>,
) -> Result<Piece> {
    let failed = |error| Error::Source { name: image.name.to_string(), source: error };
    buffer.resize(to_usize(length, "chunk")?, 0);
    let mut ended = false;
    match image.source.read_at(offset, buffer) {
        // It was truncated meanwhile: what is there still is kept.
        Err(error) if image.tolerant && error.kind() == io::ErrorKind::UnexpectedEof => {
            let mut reader = ReadAt::new(&*image.source, offset, offset.saturating_add(length));
            buffer.clear();
            io::Read::read_to_end(&mut reader, buffer).map_err(failed)?;
            ended = reader.ended_early;
        }
        read => read.map_err(failed)?,
    }
    let mut refs = Vec::with_capacity(1);
    if is_zero(buffer) && !buffer.is_empty() {
        refs.push(ChunkRef::Hole { length: to_u64(buffer.len()) });
    } else if !buffer.is_empty() {
        refs.push(store.store(worker, buffer)?);
    }
    if !ended {
        return Ok(Piece::Refs(refs));
    }
    image.ended_early.store(true, Ordering::Release);
    Ok(Piece::Last(refs))
}

/// Bytes that a leaf page of an image covers.
pub(crate) fn leaf_span(chunk_size: u32) -> u64 {
    u64::from(chunk_size).saturating_mul(to_u64(IMAGE_LEAF_CHUNKS))
}

fn report(store: &ChunkStore, count: u64, kind: ExtentKind) {
    store.control().event(&Event::Bytes { count, kind });
}

/// The parent's references of a span, where they fall on chunk positions: one per chunk, `None` where
/// the parent was cut otherwise.
#[expect(clippy::arithmetic_side_effects, reason = "the size of a chunk is not zero: a config says at least 64 KiB")]
fn aligned(
    content: &Content,
    pages: &dyn PageSource,
    from: u64,
    to: u64,
    chunk_size: u64,
) -> Result<Vec<Option<ChunkRef>>> {
    let mut out = vec![None; to_usize(to.saturating_sub(from).div_ceil(chunk_size), "leaf")?];
    for item in Refs::new(content, from..to, pages) {
        let (offset, reference) = item?;
        match reference {
            ChunkRef::Data { length, .. } => {
                let whole = offset >= from
                    && offset.saturating_sub(from) % chunk_size == 0
                    && u64::from(length) == to.saturating_sub(offset).min(chunk_size);
                let position = to_usize(offset.saturating_sub(from) / chunk_size, "leaf")?;
                if whole && let Some(slot) = out.get_mut(position) {
                    *slot = Some(reference);
                }
            }
            ChunkRef::Hole { length } => {
                // Every chunk that lies wholly inside the hole.
                let begin = offset.max(from).saturating_sub(from).div_ceil(chunk_size);
                let hole_end = offset.saturating_add(length).min(to);
                let end = if hole_end == to { to_u64(out.len()) } else { hole_end.saturating_sub(from) / chunk_size };
                for position in begin..end {
                    if let Some(slot) = out.get_mut(to_usize(position, "leaf")?) {
                        *slot = Some(ChunkRef::Hole { length: chunk_size });
                    }
                }
            }
        }
    }
    Ok(out)
}

/// Walks a source's extents once, leaf by leaf, and checks what it says.
struct Extents<'a> {
    source: &'a dyn BlockSource,
    name: &'a EntryPath,
    /// Extents that were reported and reach beyond the leaves handled so far.
    pending: VecDeque<Extent>,
}

/// Extents that are asked for at a time.
const EXTENTS: usize = 4096;

impl<'a> Extents<'a> {
    fn new(source: &'a dyn BlockSource, name: &'a EntryPath) -> Self {
        Self { source, name, pending: VecDeque::new() }
    }

    /// One kind per chunk of the leaf; `None` where a chunk has parts of several kinds or data.
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "the size of a chunk is not zero: a config says at least 64 KiB"
    )]
    fn of_leaf(&mut self, from: u64, to: u64, chunk_size: u64) -> Result<Vec<Option<ExtentKind>>> {
        let count = to_usize(to.saturating_sub(from).div_ceil(chunk_size), "leaf")?;
        let mut kinds: Vec<Option<ExtentKind>> = vec![None; count];
        let mut seen = vec![false; count];
        let mut position = from;
        while position < to {
            let extent = self.at(position)?;
            let end = extent.end().min(to);
            let first = position.saturating_sub(from) / chunk_size;
            let last = end.saturating_sub(from).saturating_sub(1) / chunk_size;
            for chunk in first..=last {
                let chunk = to_usize(chunk, "leaf")?;
                if let (Some(kind), Some(seen)) = (kinds.get_mut(chunk), seen.get_mut(chunk)) {
                    *kind = if *seen { kind.filter(|kind| *kind == extent.kind) } else { Some(extent.kind) };
                    *seen = true;
                }
            }
            position = end;
        }
        Ok(kinds)
    }

    /// How many whole leaves from `leaf_start` on one hole covers: a sparse file may have more of them than anybody
    /// lives to count.
    fn hole_leaves(&mut self, leaf_start: u64, length: u64, span: u64) -> Result<u64> {
        let extent = self.at(leaf_start)?;
        if extent.kind != ExtentKind::Zero {
            return Ok(0);
        }
        Ok(extent.end().min(length).saturating_sub(leaf_start).checked_div(span).unwrap_or(0))
    }

    /// The extent that contains `position`.
    fn at(&mut self, position: u64) -> Result<Extent> {
        loop {
            while self.pending.front().is_some_and(|extent| extent.end() <= position) {
                self.pending.pop_front();
            }
            if let Some(extent) = self.pending.front() {
                return Ok(*extent);
            }
            let mut expected = position;
            let mut fault = None;
            let pending = &mut self.pending;
            self.source
                .extents(position, &mut |extent| {
                    let begins = if pending.is_empty() { extent.offset <= expected } else { extent.offset == expected };
                    if !begins || extent.length == 0 || extent.end() <= expected {
                        fault = Some(extent);
                        return false;
                    }
                    expected = extent.end();
                    pending.push_back(extent);
                    pending.len() < EXTENTS
                })
                .map_err(|error| Error::Source { name: self.name.to_string(), source: error })?;
            if let Some(extent) = fault {
                return Err(self
                    .contradiction(&format!("extent {}+{} does not follow {expected}", extent.offset, extent.length)));
            }
            if self.pending.is_empty() {
                return Err(self.contradiction(&format!("nothing is reported at {position}")));
            }
        }
    }

    fn contradiction(&self, what: &str) -> Error {
        let source = io::Error::new(io::ErrorKind::InvalidData, format!("contradictory extents: {what}"));
        Error::Source { name: self.name.to_string(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Listed(Vec<Extent>, u64);

    impl BlockSource for Listed {
        fn length(&self) -> u64 {
            self.1
        }
        fn extents(&self, from: u64, visit: &mut dyn FnMut(Extent) -> bool) -> io::Result<()> {
            self.0.iter().filter(|extent| extent.end() > from).all(|extent| visit(*extent));
            Ok(())
        }
        fn read_at(&self, _: u64, buffer: &mut [u8]) -> io::Result<()> {
            buffer.fill(1);
            Ok(())
        }
    }

    fn name() -> EntryPath {
        "disk".parse().unwrap()
    }

    #[test]
    fn chunks_get_the_kind_of_all_their_extents() {
        use ExtentKind::{Data, Unchanged, Zero};
        let source = Listed(
            vec![
                Extent::new(0, 10, Zero),
                Extent::new(10, 5, Data),
                Extent::new(15, 15, Unchanged),
                Extent::new(30, 7, Zero),
            ],
            37,
        );
        let name = name();
        let mut extents = Extents::new(&source, &name);
        assert_eq!(extents.of_leaf(0, 20, 10).unwrap(), [Some(Zero), None]);
        assert_eq!(extents.of_leaf(20, 37, 10).unwrap(), [Some(Unchanged), Some(Zero)]);
    }

    #[test]
    fn contradictory_extents_are_errors() {
        for extents in [
            vec![],
            vec![Extent::new(5, 10, ExtentKind::Data)],
            vec![Extent::new(0, 5, ExtentKind::Data), Extent::new(6, 10, ExtentKind::Data)],
            vec![Extent::new(0, 0, ExtentKind::Data)],
        ] {
            let source = Listed(extents.clone(), 20);
            let name = name();
            let error = Extents::new(&source, &name).of_leaf(0, 20, 10).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Source, "{extents:?}");
        }
    }
}
