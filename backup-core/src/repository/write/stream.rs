//! Streams: read or pushed bytes, cut by content.

use std::io;
use std::sync::{Arc, Mutex};

use crate::chunk::{Gear, is_zero};
use crate::content::{ChunkRef, Content, Entry, EntryKind, EntryPath, StreamContentBuilder};
use crate::crypto::hash::DigestHasher;
use crate::error::{Error, Result};
use crate::extent::ExtentKind;
use crate::id::Digest;
use crate::length::to_u64;
use crate::limits;
use crate::progress::Event;
use crate::repository::parallel::{Queue, lock, with_queue};
use crate::repository::write::assembler::{Assembler, Piece};
use crate::repository::write::session::BackupSession;
use crate::repository::write::store::{ChunkStore, StoreWorker};

/// What is done with a content once its last chunk is stored: on whichever thread that happens.
pub(crate) type OnComplete<'env> = Box<dyn FnOnce(Content) -> Result<()> + Send + 'env>;

/// A content on its way: hands chunks to the queue and completes when all are stored.
pub(crate) struct ContentJobs<'env> {
    store: &'env ChunkStore,
    shared: Arc<Shared<'env>>,
    pieces: u64,
}

struct Shared<'env> {
    assembler: Assembler<'env>,
    on_complete: Mutex<Option<OnComplete<'env>>>,
}

impl<'env> Shared<'env> {
    fn complete(&self, content: Option<Content>) -> Result<()> {
        let Some(content) = content else { return Ok(()) };
        let action = lock(&self.on_complete)?.take();
        action.map_or(Ok(()), |action| action(content))
    }
}

impl<'env> ContentJobs<'env> {
    pub(crate) fn new(store: &'env ChunkStore, assembler: Assembler<'env>, on_complete: OnComplete<'env>) -> Self {
        let shared = Shared { assembler, on_complete: Mutex::new(Some(on_complete)) };
        Self { store, shared: Arc::new(shared), pieces: 0 }
    }

    pub(crate) const fn store(&self) -> &'env ChunkStore {
        self.store
    }

    /// Hands in the next piece of content, which `make` computes on a worker.
    pub(crate) fn submit(
        &mut self,
        queue: &Queue<'env, '_, StoreWorker>,
        make: impl FnOnce(&ChunkStore, &mut StoreWorker) -> Result<Piece> + Send + 'env,
    ) -> Result<()> {
        let number = self.next_piece();
        let (store, shared) = (self.store, Arc::clone(&self.shared));
        queue.submit(Box::new(move |worker| {
            let piece = make(store, worker)?;
            let content = shared.assembler.take(number, piece)?;
            shared.complete(content)
        }))
    }

    /// Takes the next piece as it is.
    pub(crate) fn take(&mut self, piece: Piece) -> Result<()> {
        let number = self.next_piece();
        let content = self.shared.assembler.take(number, piece)?;
        self.shared.complete(content)
    }

    /// No piece follows.
    pub(crate) fn end(self) -> Result<()> {
        let content = self.shared.assembler.end(self.pieces)?;
        self.shared.complete(content)
    }

    fn next_piece(&mut self) -> u64 {
        let number = self.pieces;
        self.pieces = self.pieces.saturating_add(1);
        number
    }
}

/// Cuts bytes that arrive in any portions into chunks.
pub(crate) struct Cutter {
    gear: Arc<Gear>,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were cut already.
    start: usize,
    digest: DigestHasher,
    length: u64,
}

impl Cutter {
    pub(crate) fn new(gear: Arc<Gear>) -> Self {
        Self { gear, buffer: Vec::new(), start: 0, digest: DigestHasher::new(), length: 0 }
    }

    /// How many bytes the buffer takes: two chunks of the largest size, so that moving the rest to the
    /// front is rare.
    fn capacity(&self) -> usize {
        self.gear.maximum().saturating_mul(2)
    }

    /// Reads once from `source`. 0 is the end.
    pub(crate) fn read(&mut self, source: &mut dyn io::Read) -> io::Result<usize> {
        self.make_room();
        let filled = self.buffer.len();
        // Portions of at most 1 MiB, so that a slow pipe does not keep the workers waiting.
        let want = self.capacity().saturating_sub(filled).min(1 << 20);
        self.buffer.resize(filled.saturating_add(want), 0);
        let target = self.buffer.get_mut(filled..).unwrap_or_default();
        let count = loop {
            match source.read(target) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let count = count.inspect_err(|_| self.buffer.truncate(filled))?;
        if count > want {
            self.buffer.truncate(filled);
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the source claims to have read more than it was asked for",
            ));
        }
        self.buffer.truncate(filled.saturating_add(count));
        self.took(filled);
        Ok(count)
    }

    /// Takes as much of `bytes` as fits and returns how much that was.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> usize {
        self.make_room();
        let filled = self.buffer.len();
        let count = self.capacity().saturating_sub(filled).min(bytes.len());
        self.buffer.extend_from_slice(bytes.get(..count).unwrap_or_default());
        self.took(filled);
        count
    }

    /// The next whole chunk, if one is there.
    pub(crate) fn next_chunk(&mut self, end_of_input: bool) -> Option<&[u8]> {
        let rest = self.buffer.get(self.start..)?;
        if rest.is_empty() {
            return None;
        }
        let length = self.gear.cut(rest, end_of_input)?;
        let from = self.start;
        self.start = from.saturating_add(length);
        self.buffer.get(from..self.start)
    }

    pub(crate) const fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn digest(&self) -> Digest {
        self.digest.finish()
    }

    fn took(&mut self, from: usize) {
        let new = self.buffer.get(from..).unwrap_or_default();
        self.digest.update(new);
        self.length = self.length.saturating_add(to_u64(new.len()));
    }

    fn make_room(&mut self) {
        if self.start == self.buffer.len() || (self.start > 0 && self.buffer.len() == self.capacity()) {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
    }
}

/// Hands every whole chunk of the cutter to the queue.
pub(crate) fn submit_chunks<'env>(
    cutter: &mut Cutter,
    end_of_input: bool,
    jobs: &mut ContentJobs<'env>,
    queue: &Queue<'env, '_, StoreWorker>,
) -> Result<()> {
    while let Some(chunk) = cutter.next_chunk(end_of_input) {
        let chunk = chunk.to_vec();
        jobs.submit(queue, move |store, worker| {
            store_chunk(store, worker, &chunk).map(|reference| Piece::Refs(vec![reference]))
        })?;
    }
    Ok(())
}

/// Stores a chunk of a stream. Long runs of zeros become holes.
fn store_chunk(store: &ChunkStore, worker: &mut StoreWorker, chunk: &[u8]) -> Result<ChunkRef> {
    let count = to_u64(chunk.len());
    store.control().event(&Event::Bytes { count, kind: ExtentKind::Data });
    if chunk.len() >= SMALLEST_HOLE && is_zero(chunk) {
        return Ok(ChunkRef::Hole { length: count });
    }
    store.store(worker, chunk)
}

/// Zeros of a stream that are worth a hole.
const SMALLEST_HOLE: usize = 4096;

/// Reads `source` to its end into chunks. Returns its length and digest; the content arrives at `jobs`.
pub(crate) fn read_stream<'env>(
    source: &mut dyn io::Read,
    name: &EntryPath,
    mut cutter: Cutter,
    mut jobs: ContentJobs<'env>,
    queue: &Queue<'env, '_, StoreWorker>,
) -> Result<(u64, Digest)> {
    loop {
        let count = cutter.read(source).map_err(|error| Error::Source { name: name.to_string(), source: error })?;
        submit_chunks(&mut cutter, count == 0, &mut jobs, queue)?;
        if cutter.length() > limits::CONTENT {
            return Err(Error::limit(format!("content of {name}"), cutter.length(), limits::CONTENT));
        }
        if count == 0 {
            break;
        }
    }
    jobs.end()?;
    Ok((cutter.length(), cutter.digest()))
}

/// Backs up a whole stream as one entry.
pub(crate) fn add_stream(session: &mut BackupSession, path: EntryPath, source: &mut dyn io::Read) -> Result<Entry> {
    let mut entry = Entry::new(path, EntryKind::Stream);
    session.control.event(&Event::EntryStarted { path: &entry.path });
    let content = Mutex::new(None);
    let cutter = Cutter::new(session.gear());
    let (length, digest) = {
        let store = &session.store;
        let content = &content;
        with_queue(&session.control, session.queue_depth(), &|| store.worker(), |queue| {
            let jobs = ContentJobs::new(store, Assembler::stream(store), keep(content));
            read_stream(source, &entry.path, cutter, jobs, queue)
        })?
    };
    entry.content = taken(&content)?;
    entry.digest = Some(digest);
    session.read_bytes(length);
    session.control.event(&Event::EntryFinished { path: &entry.path });
    session.insert(&entry)?;
    Ok(entry)
}

/// Keeps a completed content for the caller that waits for it.
pub(crate) fn keep<'env>(slot: &'env Mutex<Option<Content>>) -> OnComplete<'env> {
    Box::new(move |content| {
        *lock(slot)? = Some(content);
        Ok(())
    })
}

/// The content that [`keep`] kept.
pub(crate) fn taken(slot: &Mutex<Option<Content>>) -> Result<Content> {
    lock(slot)?.take().ok_or(Error::Internal("a content did not complete"))
}

/// Takes the bytes of one entry as a program pushes them.
///
/// Work is done inside [`write`](io::Write::write) whenever enough bytes have gathered, on the
/// session's threads. The entry exists once [`finish`](Self::finish) returned; a writer that is
/// dropped before leaves nothing in the backup. One that failed leaves a session that cannot be
/// committed, whether or not its error was looked at. Not for use from several threads at once.
pub struct StreamWriter<'s> {
    session: &'s BackupSession,
    entry: Entry,
    cutter: Cutter,
    builder: StreamContentBuilder<'s>,
    batch: Vec<Vec<u8>>,
    batched: usize,
}

/// Bytes that gather before a [`StreamWriter`] puts its threads to work.
const BATCH: usize = 16 << 20;

impl<'s> StreamWriter<'s> {
    pub(crate) fn new(session: &'s BackupSession, path: EntryPath) -> Self {
        session.control.event(&Event::EntryStarted { path: &path });
        let cutter = Cutter::new(session.gear());
        Self {
            session,
            entry: Entry::new(path, EntryKind::Stream),
            cutter,
            builder: StreamContentBuilder::new(&session.store),
            batch: Vec::new(),
            batched: 0,
        }
    }

    /// Takes bytes; all of them, or an error after which the writer and its session are of no more use.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`] and others of storing chunks, [`Error::Cancelled`].
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.session.check_usable()?;
        while !bytes.is_empty() {
            let count = self.cutter.push(bytes);
            bytes = bytes.get(count..).unwrap_or_default();
            let gathered = self.gather(false);
            self.session.note(gathered)?;
        }
        Ok(())
    }

    /// Ends the entry and adds it to the backup.
    ///
    /// # Errors
    ///
    /// As [`push`](Self::push); [`Error::AlreadyExists`] where the backup has an entry of this path.
    pub fn finish(self) -> Result<Entry> {
        let session = self.session;
        session.check_usable()?;
        session.note(self.complete())
    }

    fn complete(mut self) -> Result<Entry> {
        self.gather(true)?;
        self.process()?;
        self.entry.content = self.builder.finish()?;
        self.entry.digest = Some(self.cutter.digest());
        self.session.read_bytes(self.cutter.length());
        self.session.control.event(&Event::EntryFinished { path: &self.entry.path });
        self.session.insert(&self.entry)?;
        Ok(self.entry)
    }

    fn gather(&mut self, end_of_input: bool) -> Result<()> {
        while let Some(chunk) = self.cutter.next_chunk(end_of_input) {
            self.batched = self.batched.saturating_add(chunk.len());
            self.batch.push(chunk.to_vec());
            if self.batched >= BATCH {
                self.process()?;
            }
        }
        Ok(())
    }

    fn process(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        self.batched = 0;
        if batch.is_empty() {
            return Ok(());
        }
        let store = &self.session.store;
        let references = Mutex::new(vec![None; batch.len()]);
        {
            let references = &references;
            with_queue(&self.session.control, self.session.queue_depth(), &|| store.worker(), |queue| {
                for (number, chunk) in batch.into_iter().enumerate() {
                    queue.submit(Box::new(move |worker: &mut StoreWorker| {
                        let reference = store_chunk(store, worker, &chunk)?;
                        let mut references = lock(references)?;
                        if let Some(slot) = references.get_mut(number) {
                            *slot = Some(reference);
                        }
                        Ok(())
                    }))?;
                }
                Ok(())
            })?;
        }
        let references = references.into_inner().map_err(|_| crate::repository::parallel::POISONED)?;
        references
            .into_iter()
            .try_for_each(|reference| self.builder.push(reference.ok_or(Error::Internal("a chunk was not stored"))?))
    }
}

impl io::Write for StreamWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for StreamWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamWriter").field("path", &self.entry.path).finish_non_exhaustive()
    }
}

/// Chunks that may wait for a worker, given what they may hold.
#[expect(clippy::arithmetic_side_effects, reason = "the divisor is at least one")]
pub(crate) fn queue_depth(threads: usize, byte_budget: u64, largest_chunk: u32) -> usize {
    let by_budget = byte_budget / 4 / u64::from(largest_chunk.max(1));
    let by_budget = usize::try_from(by_budget).unwrap_or(usize::MAX);
    threads.saturating_mul(2).min(by_budget).clamp(1, 4096)
}
