//! Restoring many entries: pack by pack, files written by several threads.

use std::io;
use std::sync::Mutex;

use hashbrown::HashSet;
use serde::Serialize;

use crate::content::{ChunkRef, Content, ContentRoot, Entry, EntryKind, EntryPath};
use crate::crypto::hash;
use crate::error::{Error, Result};
use crate::extent::ExtentKind;
use crate::length::to_u64;
use crate::progress::Event;
use crate::repository::backup::{Backup, Problem, Problems, error_chain};
use crate::repository::environment::Control;
use crate::repository::handle::Repository;
use crate::repository::parallel::{for_each, lock};
use crate::repository::read::chunks::{Fetcher, Wanted, unknown_chunk};
use crate::source::{BlockSink, TreeSink};

/// Small files that are restored together.
const BATCH_FILES: usize = 4096;
/// Bytes of small files that are restored together.
const BATCH_BYTES: u64 = 64 << 20;

/// Which entries to restore.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub(crate) within: Option<Vec<EntryPath>>,
}

impl Selection {
    /// Every entry.
    #[must_use]
    pub const fn all() -> Self {
        Self { within: None }
    }

    /// These entries, everything below them, and the directories above them. At least one path.
    #[must_use]
    pub const fn within(paths: Vec<EntryPath>) -> Self {
        Self { within: Some(paths) }
    }

    pub(crate) fn contains(&self, entry: &Entry) -> bool {
        self.within.as_ref().is_none_or(|paths| {
            paths
                .iter()
                .any(|path| entry.path.is_within(path) || (!entry.kind.has_content() && path.is_within(&entry.path)))
        })
    }
}

/// What a restore did.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct RestoreReport {
    /// Entries that were restored whole.
    pub entries: u64,
    /// Bytes of their content, holes included.
    pub bytes: u64,
    /// What could not be restored, at most the first 1000 problems.
    pub problems: Vec<Problem>,
    /// How many problems there were in all.
    pub problem_count: u64,
}

impl RestoreReport {
    /// Whether everything that was selected was restored.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.problem_count == 0
    }
}

/// What the threads of a restore count.
#[derive(Default)]
struct Progress {
    entries: u64,
    bytes: u64,
    problems: Problems,
    /// Hashes of the paths of what was restored and may be linked to. There may be as many of these as files.
    linkable: HashSet<PathHash>,
}

/// The first 128 bits of a path's hash, with a key that no author of a backup can know.
type PathHash = [u8; 16];

/// A restore in progress.
struct Restore<'r> {
    repository: &'r Repository,
    backup: &'r Backup,
    sink: &'r dyn TreeSink,
    control: &'r Control,
    path_key: [u8; 32],
    progress: Mutex<Progress>,
}

impl Repository {
    /// Restores entries to `sink`, on the threads of `control`. What fails is recorded and the rest goes on.
    ///
    /// A catalogue that is damaged is a problem of the report as well; what stands behind the damage is then
    /// not restored.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] naming every path of the selection at and below which there is nothing: nothing was
    /// restored. [`Error::Storage`] where the catalogue cannot be read on: the report would not say what is
    /// missing; [`Error::Cancelled`].
    pub fn restore_tree(
        &self,
        backup: &Backup,
        selection: &Selection,
        sink: &dyn TreeSink,
        control: &Control,
    ) -> Result<RestoreReport> {
        self.check_selection(backup, selection)?;
        let expected = Event::Expected { entries: backup.statistics.entries, bytes: backup.statistics.bytes_logical };
        control.event(&expected);
        self.restore_part(backup, &|entry| selection.contains(entry), sink, control)
    }

    /// Restores the entries that `is_wanted` chooses, as [`restore_tree`](Self::restore_tree) does.
    pub(crate) fn restore_part(
        &self,
        backup: &Backup,
        is_wanted: &dyn Fn(&Entry) -> bool,
        sink: &dyn TreeSink,
        control: &Control,
    ) -> Result<RestoreReport> {
        let mut path_key = [0; 32];
        self.inner.environment.entropy.fill(&mut path_key)?;
        let restore = Restore { repository: self, backup, sink, control, path_key, progress: Mutex::default() };
        let mut batch = Batch::default();
        for entry in self.entries(backup)? {
            control.cancel().check()?;
            let entry = match entry {
                Ok(entry) => entry,
                Err(error @ (Error::Storage { .. } | Error::Cancelled)) => return Err(error),
                Err(error) => {
                    restore.problem("entry", &error)?;
                    continue;
                }
            };
            if !is_wanted(&entry) {
                continue;
            }
            restore.entry(entry, &mut batch)?;
        }
        restore.flush(&mut batch)?;
        for (path, error) in sink.complete() {
            restore.problem(&path.to_string(), &error)?;
        }
        let progress = restore.progress.into_inner().map_err(|_| crate::repository::parallel::POISONED)?;
        Ok(RestoreReport {
            entries: progress.entries,
            bytes: progress.bytes,
            problems: progress.problems.first,
            problem_count: progress.problems.count,
        })
    }

    /// Refuses a selection of which a path selects nothing.
    pub(crate) fn check_selection(&self, backup: &Backup, selection: &Selection) -> Result<()> {
        let Some(paths) = &selection.within else { return Ok(()) };
        if paths.is_empty() {
            return Err(Error::invalid("selection", "it has no paths"));
        }
        let mut missing = Vec::new();
        for path in paths {
            match self.entries_from(backup, Some(path))?.next() {
                Some(Ok(entry)) if entry.path.is_within(path) => {}
                Some(Err(error @ (Error::Storage { .. } | Error::Cancelled))) => return Err(error),
                // The restore will say what it is.
                Some(Err(_)) => {}
                _ => missing.push(path.to_string()),
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(Error::not_found("entry", missing.join(", "))) }
    }
}

/// Files of one chunk or none, and hard links, that are restored together.
#[derive(Default)]
struct Batch {
    files: Vec<Entry>,
    links: Vec<Entry>,
    bytes: u64,
}

impl Restore<'_> {
    fn entry(&self, entry: Entry, batch: &mut Batch) -> Result<()> {
        if entry.hard_link.is_some() {
            batch.links.push(entry);
        } else if !entry.kind.has_content() {
            self.contentless(&entry)?;
        } else if single_chunk(&entry.content).is_some() {
            batch.bytes = batch.bytes.saturating_add(entry.size());
            batch.files.push(entry);
        } else {
            return self.large(&entry);
        }
        if batch.files.len().saturating_add(batch.links.len()) >= BATCH_FILES || batch.bytes >= BATCH_BYTES {
            self.flush(batch)?;
        }
        Ok(())
    }

    fn contentless(&self, entry: &Entry) -> Result<()> {
        match self.sink.create(entry, None) {
            Ok(_) => self.done(entry),
            Err(error) => self.problem(&entry.path.to_string(), &error),
        }
    }

    /// A file of many chunks, by itself, on all threads.
    fn large(&self, entry: &Entry) -> Result<()> {
        self.control.event(&Event::EntryStarted { path: &entry.path });
        let sink = match self.create(entry) {
            Ok(sink) => sink,
            Err(error) => return self.problem(&entry.path.to_string(), &error),
        };
        match self.repository.restore_blocks(entry, &*sink, self.control) {
            Ok(()) => self.finish(entry, sink),
            Err(error) => {
                self.sink.abandon(entry, sink);
                if matches!(error, Error::Cancelled) {
                    Err(error)
                } else {
                    self.problem(&entry.path.to_string(), &error)
                }
            }
        }
    }

    fn flush(&self, batch: &mut Batch) -> Result<()> {
        let Batch { files, links, .. } = std::mem::take(batch);
        let inner = &*self.repository.inner;
        let mut chunks = Vec::new();
        let mut of_chunk = Vec::new();
        let mut empty = Vec::new();
        for (number, file) in files.iter().enumerate() {
            match single_chunk(&file.content) {
                Some(Some(ChunkRef::Data { id, length })) => {
                    chunks.push((id, length));
                    of_chunk.push(number);
                }
                _ => empty.push(number),
            }
        }
        let (packs, unknown) = inner.locate(&chunks, self.control)?;
        let file_of = |tag: usize| of_chunk.get(tag).and_then(|number| files.get(*number));
        for (tag, id) in unknown {
            if let Some(file) = file_of(tag) {
                self.problem(&file.path.to_string(), &unknown_chunk(&id))?;
            }
        }
        for_each(self.control, empty.len(), &|| Ok(()), &|(), number| {
            let file = empty.get(number).and_then(|number| files.get(*number));
            file.map_or(Ok(()), |file| self.small(file, Ok(&[])))
        })?;
        // Pieces of packs, so that all threads have work where few packs hold many files.
        let mut jobs: Vec<Mutex<Vec<Wanted>>> = Vec::new();
        for mut wanted in packs.into_values() {
            wanted.sort_by_key(|item| item.location.offset);
            jobs.extend(wanted.chunks(512).map(|part| Mutex::new(part.to_vec())));
        }
        for_each(self.control, jobs.len(), &|| Fetcher::new(inner, self.control), &|fetcher, number| {
            let Some(job) = jobs.get(number) else { return Ok(()) };
            let mut wanted = std::mem::take(&mut *lock(job)?);
            fetcher
                .fetch(&mut wanted, &mut |item, plain| file_of(item.tag).map_or(Ok(()), |file| self.small(file, plain)))
        })?;
        links.iter().try_for_each(|entry| self.link(entry))
    }

    /// Writes a file whose content is here, or is one hole.
    fn small(&self, entry: &Entry, plain: Result<&[u8]>) -> Result<()> {
        let plain = match plain {
            Ok(plain) => plain,
            Err(error) => return self.problem(&entry.path.to_string(), &error),
        };
        let sink = match self.create(entry) {
            Ok(sink) => sink,
            Err(error) => return self.problem(&entry.path.to_string(), &error),
        };
        let written = if plain.is_empty() {
            if entry.size() > 0 { sink.hole(0, entry.size()) } else { Ok(()) }
        } else {
            sink.write_at(0, plain)
        };
        match written.and_then(|()| sink.finish(entry.size())) {
            Ok(()) => {
                let kind = if plain.is_empty() { ExtentKind::Zero } else { ExtentKind::Data };
                self.control.event(&Event::Bytes { count: entry.size(), kind });
                self.finish(entry, sink)
            }
            Err(error) => {
                self.sink.abandon(entry, sink);
                self.problem(&entry.path.to_string(), &error)
            }
        }
    }

    /// A hard link to an entry that this restore has restored, or a copy of it: what else stands under the
    /// first name in the target is not the file of the backup.
    fn link(&self, entry: &Entry) -> Result<()> {
        let Some(target) = &entry.hard_link else { return Ok(()) };
        if lock(&self.progress)?.linkable.contains(&self.hash(target)) {
            match self.sink.create(entry, Some(target)) {
                Ok(_) => return self.done(entry),
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return self.problem(&entry.path.to_string(), &error);
                }
                Err(_) => {}
            }
        }
        match self.repository.with_content(self.backup, entry.clone()) {
            Ok(copy) if copy.kind.has_content() => self.large(&copy),
            Ok(copy) => self.contentless(&copy),
            Err(error @ Error::Cancelled) => Err(error),
            Err(error) => self.problem(&entry.path.to_string(), &error),
        }
    }

    fn create(&self, entry: &Entry) -> io::Result<Box<dyn BlockSink>> {
        let sink = self.sink.create(entry, None)?;
        sink.ok_or_else(|| io::Error::other("the target takes no content for it"))
    }

    fn finish(&self, entry: &Entry, sink: Box<dyn BlockSink>) -> Result<()> {
        match self.sink.finish(entry, sink) {
            Ok(()) => self.done(entry),
            Err(error) => self.problem(&entry.path.to_string(), &error),
        }
    }

    fn done(&self, entry: &Entry) -> Result<()> {
        self.control.event(&Event::EntryFinished { path: &entry.path });
        let mut progress = lock(&self.progress)?;
        progress.entries = progress.entries.saturating_add(1);
        progress.bytes = progress.bytes.saturating_add(entry.size());
        if entry.hard_link.is_none() && entry.kind != EntryKind::Directory {
            progress.linkable.insert(self.hash(&entry.path));
        }
        Ok(())
    }

    fn hash(&self, path: &EntryPath) -> PathHash {
        let mut short = PathHash::default();
        let hash = hash::keyed(&self.path_key, &[path.as_bytes()]);
        short.iter_mut().zip(hash).for_each(|(out, byte)| *out = byte);
        short
    }

    fn problem(&self, name: &str, error: &dyn std::error::Error) -> Result<()> {
        let message = error_chain(error);
        self.control.event(&Event::Problem { name, message: &message });
        lock(&self.progress)?.problems.record(name, &message);
        Ok(())
    }
}

/// The only reference of a content that has one or none; `None` for larger ones.
fn single_chunk(content: &Content) -> Option<Option<ChunkRef>> {
    match &content.root {
        ContentRoot::Inline(refs) => match refs.as_slice() {
            [] => Some(None),
            [reference] if to_u64(4 << 20) >= reference.length() => Some(Some(*reference)),
            _ => None,
        },
        ContentRoot::Tree { .. } => None,
    }
}
