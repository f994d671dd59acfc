//! Entries of another repository: read there and stored here, with all that the catalogue there says of them.
//!
//! Whatever fails in the other repository is [`Error::Source`] with the engine's own error in it, so that it can be
//! told from what fails here ([`of_source`], [`source_of`]).

use std::io;
use std::sync::{Mutex, PoisonError};

use crate::content::{CatalogueReader, ChunkRef, Content, ContentRoot, Entry, EntryPath, Refs, StreamContentBuilder};
use crate::crypto::hash;
use crate::error::{Error, Result};
use crate::extent::{Extent, ExtentKind};
use crate::id::{ChunkId, Digest};
use crate::length::{to_u64, to_usize};
use crate::pack::ChunkKind;
use crate::progress::Event;
use crate::repository::backup::Backup;
use crate::repository::environment::Control;
use crate::repository::handle::{Inner, Repository};
use crate::repository::parallel::{for_each, lock, with_queue};
use crate::repository::read::{Decoded, Fetcher, Wanted, for_each_in_order, unknown_chunk};
use crate::repository::write::assembler::Assembler;
use crate::repository::write::blocks::store_blocks;
use crate::repository::write::parent::{ParentEntries, ParentEntry};
use crate::repository::write::session::BackupSession;
use crate::repository::write::store::StoreWorker;
use crate::repository::write::stream::{ContentJobs, Cutter, keep, submit_chunks, taken};
use crate::source::BlockSource;

/// Small files that are read together, pack by pack.
const BATCH_FILES: usize = 4096;
/// Bytes of small files that are read together.
const BATCH_BYTES: u64 = 64 << 20;
/// Chunks of one pack that a thread reads at a time.
const PIECE: usize = 512;
/// Zeros that are pushed at a time.
const ZEROS: usize = 64 << 10;

/// A backup that was copied before, and its copy: what did not change since is taken over from that.
#[derive(Clone, Copy)]
pub(crate) struct Earlier<'b> {
    pub(crate) there: &'b Backup,
    pub(crate) here: &'b Backup,
}

/// An error of the other repository.
pub(crate) fn of_source(name: &EntryPath, error: Error) -> Error {
    match error {
        Error::Cancelled => Error::Cancelled,
        error => Error::Source { name: name.to_string(), source: io::Error::other(error) },
    }
}

/// The error of the other repository that `error` stands for, or `error`, which is of this one.
pub(crate) fn source_of(error: Error) -> Result<Error, Error> {
    match error {
        Error::Source { name, source } => match source.downcast::<Error>() {
            Ok(inner) => Ok(inner),
            Err(source) => Ok(Error::Source { name, source }),
        },
        error => Err(error),
    }
}

impl BackupSession {
    /// Adds every entry of `backup` in the repository `source`, with contents whose bytes and digests are the same.
    /// Holds some thousand entries and, of contents, what the session's byte budget says.
    ///
    /// # Errors
    ///
    /// [`Error::Source`] where something cannot be read there, see [`source_of`]; otherwise as
    /// [`add_tree`](Self::add_tree). The session is of no more use then.
    pub(crate) fn add_entries_of(
        &mut self,
        source: &Repository,
        backup: &Backup,
        earlier: Option<Earlier<'_>>,
    ) -> Result<()> {
        self.check_usable()?;
        let result = Transfer::new(self, &source.inner).entries(backup, earlier);
        self.note(result)
    }
}

/// Entries on their way.
struct Transfer<'t> {
    session: &'t BackupSession,
    source: &'t Inner,
    /// How the source is read: beside the threads that store.
    reading: Control,
    /// Contents up to this size are one chunk here.
    small: u64,
    /// It is another place of the same repository: references there are references here.
    is_same: bool,
}

/// Entries whose content is one chunk there and will be one here.
#[derive(Default)]
struct Batch {
    entries: Vec<Entry>,
    bytes: u64,
}

/// The same path in the backup that was copied before, and in its copy.
type Before = (ParentEntry, ParentEntry);

impl<'t> Transfer<'t> {
    fn new(session: &'t BackupSession, source: &'t Inner) -> Self {
        let budget = session.control.byte_budget();
        let reading = session.control.clone().with_byte_budget(budget / 2);
        let is_same = session.repository.id() == source.config.repository;
        Self { session, source, reading, small: to_u64(session.gear().minimum()), is_same }
    }

    fn entries(&self, backup: &Backup, earlier: Option<Earlier<'_>>) -> Result<()> {
        let session = self.session;
        let mut earlier = earlier.map(|Earlier { there, here }| {
            (ParentEntries::of(there, self.source, None), ParentEntries::of(here, session.parent_pages(), None))
        });
        let mut batch = Batch::default();
        for entry in CatalogueReader::new(backup.catalogue, self.source).entries(None) {
            session.control.cancel().check()?;
            let entry = entry.map_err(|error| match error {
                Error::Cancelled => Error::Cancelled,
                error => Error::Source { name: backup.id.to_string(), source: io::Error::other(error) },
            })?;
            let before = earlier.as_mut().and_then(|(there, here)| {
                Some((session.same_path(there, &entry.path)?, session.same_path(here, &entry.path)?))
            });
            self.entry(entry, before, &mut batch)?;
        }
        self.flush(&mut batch)
    }

    fn entry(&self, mut entry: Entry, before: Option<Before>, batch: &mut Batch) -> Result<()> {
        let session = self.session;
        session.control.event(&Event::EntryStarted { path: &entry.path });
        if !entry.kind.has_content() || entry.hard_link.is_some() {
            return self.insert(&entry);
        }
        if entry.size() == 0 {
            if let Some(digest) = entry.digest {
                check_digest(&entry, digest, hash::digest(&[]))?;
            }
            return self.insert(&entry);
        }
        if self.is_same && session.store.refer_all(&entry.content, self.source)? {
            self.unchanged(entry.size());
            return self.insert(&entry);
        }
        let before = before.filter(|(there, here)| is_copy(&there.entry, &here.entry));
        if let Some((there, here)) = &before
            && (&there.entry.content, there.entry.digest) == (&entry.content, entry.digest)
            && session.store.refer_all(&here.entry.content, session.parent_pages())?
        {
            let count = entry.size();
            entry.content = here.entry.content.clone();
            self.unchanged(count);
            return self.insert(&entry);
        }
        match (entry.digest, single_chunk(&entry.content)) {
            (None, _) => self.image(entry, before),
            (Some(_), Some(_)) if entry.size() <= self.small => {
                batch.bytes = batch.bytes.saturating_add(entry.size());
                batch.entries.push(entry);
                if batch.entries.len() >= BATCH_FILES || batch.bytes >= BATCH_BYTES {
                    self.flush(batch)?;
                }
                Ok(())
            }
            (Some(digest), _) => self.stream(entry, digest),
        }
    }

    /// Contents that were cut at fixed positions, and are again.
    fn image(&self, mut entry: Entry, before: Option<Before>) -> Result<()> {
        let before = before.filter(|(there, _)| there.entry.size() == entry.size());
        let blocks = ContentBlocks {
            source: self.source,
            control: &self.reading,
            content: &entry.content,
            before: before.as_ref().map(|(there, _)| &there.entry.content),
            fetchers: Mutex::default(),
        };
        let parent = before.as_ref().map(|(_, here)| &here.entry.content);
        let content = store_blocks(self.session, &entry.path, &blocks, parent)?;
        if content.length != entry.size() {
            return Err(Error::Internal("a copied image has another length"));
        }
        entry.content = content;
        self.insert(&entry)
    }

    /// Contents that were cut by content: cut anew, by this repository's secret.
    fn stream(&self, mut entry: Entry, digest: Digest) -> Result<()> {
        let session = self.session;
        let store = &session.store;
        let slot = Mutex::new(None);
        let mut cutter = Cutter::new(session.gear());
        {
            let (slot, cutter, entry) = (&slot, &mut cutter, &entry);
            with_queue(&session.control, session.queue_depth(), &|| store.worker(), |queue| {
                let mut jobs = ContentJobs::new(store, Assembler::stream(store), keep(slot));
                let mut failed = None;
                let mut push = |mut bytes: &[u8]| {
                    while !bytes.is_empty() {
                        let count = cutter.push(bytes);
                        bytes = bytes.get(count..).unwrap_or_default();
                        submit_chunks(cutter, false, &mut jobs, queue)?;
                    }
                    Ok(())
                };
                let read = for_each_in_order(self.source, entry, 0..entry.size(), &self.reading, &mut |piece| {
                    let pushed = match piece {
                        Decoded::Data(bytes) => push(&bytes),
                        Decoded::Hole(length) => push_zeros(length, &mut push),
                    };
                    // What fails here is not an error of there.
                    failed = pushed.err();
                    Ok(failed.is_none())
                });
                if let Some(error) = failed {
                    return Err(error);
                }
                read.map_err(|error| of_source(&entry.path, error))?;
                submit_chunks(cutter, true, &mut jobs, queue)?;
                jobs.end()
            })?;
        }
        check_digest(&entry, digest, cutter.digest())?;
        session.read_bytes(cutter.length());
        entry.content = taken(&slot)?;
        self.insert(&entry)
    }

    /// Reads the gathered small contents, on all threads.
    fn flush(&self, batch: &mut Batch) -> Result<()> {
        let Batch { entries, .. } = std::mem::take(batch);
        let Some(first) = entries.first() else { return Ok(()) };
        let source = self.source;
        let chunks: Vec<(ChunkId, u32)> = entries.iter().filter_map(|entry| single_chunk(&entry.content)).collect();
        let located = source.locate(&chunks, &self.reading);
        let (packs, unknown) = located.map_err(|error| of_source(&first.path, error))?;
        let entry_of = |tag: usize| entries.get(tag).ok_or(Error::Internal("a chunk without an entry"));
        if let Some((tag, id)) = unknown.first() {
            return Err(of_source(&entry_of(*tag)?.path, unknown_chunk(id)));
        }
        let mut pieces: Vec<Mutex<Vec<Wanted>>> = Vec::new();
        for mut wanted in packs.into_values() {
            wanted.sort_by_key(|item| item.location.offset);
            pieces.extend(wanted.chunks(PIECE).map(|piece| Mutex::new(piece.to_vec())));
        }
        let worker = || {
            let fetcher = Fetcher::new(source, &self.reading).map_err(|error| of_source(&first.path, error))?;
            Ok((fetcher, self.session.store.worker()?))
        };
        for_each(&self.session.control, pieces.len(), &worker, &|(fetcher, worker), number| {
            let Some(piece) = pieces.get(number) else { return Ok(()) };
            let mut wanted = std::mem::take(&mut *lock(piece)?);
            fetcher.fetch(&mut wanted, &mut |item, plain| {
                let entry = entry_of(item.tag)?;
                self.small(entry, plain.map_err(|error| of_source(&entry.path, error))?, worker)
            })
        })
    }

    fn small(&self, entry: &Entry, plain: &[u8], worker: &mut StoreWorker) -> Result<()> {
        let store = &self.session.store;
        if let Some(digest) = entry.digest {
            check_digest(entry, digest, hash::digest(plain))?;
        }
        let mut builder = StreamContentBuilder::new(store);
        builder.push(store.store(worker, plain)?)?;
        let mut entry = entry.clone();
        entry.content = builder.finish()?;
        let count = to_u64(plain.len());
        self.session.read_bytes(count);
        self.session.control.event(&Event::Bytes { count, kind: ExtentKind::Data });
        self.insert(&entry)
    }

    fn unchanged(&self, count: u64) {
        self.session.unchanged_bytes(count);
        self.session.control.event(&Event::Bytes { count, kind: ExtentKind::Unchanged });
    }

    fn insert(&self, entry: &Entry) -> Result<()> {
        self.session.control.event(&Event::EntryFinished { path: &entry.path });
        self.session.insert(entry)
    }
}

/// Whether an entry of a copy is what that of its origin says.
fn is_copy(there: &Entry, here: &Entry) -> bool {
    let whole = |entry: &Entry| (entry.size(), entry.digest, entry.hard_link.is_some());
    there.kind == here.kind && whole(there) == whole(here) && here.hard_link.is_none()
}

fn check_digest(entry: &Entry, expected: Digest, found: Digest) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let reason = "its content does not have the digest that it had";
    Err(of_source(&entry.path, Error::damaged("entry", &entry.path, reason)))
}

fn push_zeros(length: u64, push: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let zeros = [0; ZEROS];
    let mut left = length;
    while left > 0 {
        let count = left.min(to_u64(ZEROS));
        push(zeros.get(..to_usize(count, "hole")?).unwrap_or_default())?;
        left = left.saturating_sub(count);
    }
    Ok(())
}

/// The chunk that a content consists of, if it is one.
fn single_chunk(content: &Content) -> Option<(ChunkId, u32)> {
    match &content.root {
        ContentRoot::Inline(refs) => match refs.as_slice() {
            [ChunkRef::Data { id, length }] => Some((*id, *length)),
            _ => None,
        },
        ContentRoot::Tree { .. } => None,
    }
}

/// A content of the other repository as a block source. What is the same in `before` is unchanged.
struct ContentBlocks<'b> {
    source: &'b Inner,
    control: &'b Control,
    content: &'b Content,
    /// The content of the same length that was copied before.
    before: Option<&'b Content>,
    /// Those that no thread uses now.
    fetchers: Mutex<Vec<Fetcher<'b>>>,
}

impl BlockSource for ContentBlocks<'_> {
    fn length(&self) -> u64 {
        self.content.length
    }

    fn extents(&self, from: u64, visit: &mut dyn FnMut(Extent) -> bool) -> io::Result<()> {
        let mut before = self
            .before
            .map(|content| Refs::new(content, from..content.length, self.source))
            .into_iter()
            .flatten()
            // Where the earlier one cannot be read any more, the rest is read anew.
            .map_while(Result::ok)
            .peekable();
        for item in Refs::new(self.content, from..self.content.length, self.source) {
            let (offset, reference) = item.map_err(io::Error::other)?;
            let kind = match reference {
                ChunkRef::Hole { .. } => ExtentKind::Zero,
                ChunkRef::Data { .. } => {
                    while before.next_if(|(at, _)| *at < offset).is_some() {}
                    match before.peek() {
                        Some(found) if *found == (offset, reference) => ExtentKind::Unchanged,
                        _ => ExtentKind::Data,
                    }
                }
            };
            if !visit(Extent::new(offset, reference.length(), kind)) {
                break;
            }
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let range = offset..offset.saturating_add(to_u64(buffer.len()));
        let idle = self.fetchers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut fetcher = match idle {
            Some(fetcher) => fetcher,
            None => Fetcher::new(self.source, self.control).map_err(io::Error::other)?,
        };
        let mut position = offset;
        for item in Refs::new(self.content, range.clone(), self.source) {
            let (begin, reference) = item.map_err(io::Error::other)?;
            let end = begin.saturating_add(reference.length()).min(range.end);
            let place = |at: u64| to_usize(at.saturating_sub(offset), "read").map_err(io::Error::other);
            let target = buffer.get_mut(place(position)?..place(end)?);
            let target = target.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
            match reference {
                ChunkRef::Hole { .. } => target.fill(0),
                ChunkRef::Data { id, length } => {
                    let plain = fetcher.fetch_one(ChunkKind::Data, &id, length);
                    let plain = plain.map_err(io::Error::other)?;
                    let skip = to_usize(position.saturating_sub(begin), "chunk").map_err(io::Error::other)?;
                    let part = plain.get(skip..skip.saturating_add(target.len()));
                    target.copy_from_slice(part.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
                }
            }
            position = end;
        }
        self.fetchers.lock().unwrap_or_else(PoisonError::into_inner).push(fetcher);
        if position < range.end {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}
