//! A backup in the making.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::chunk::Gear;
use crate::content::{EncodedEntry, Entry, EntryPath, EntrySorter};
use crate::error::{Error, Result};
use crate::format::layout::Place;
use crate::id::{BackupId, ObjectName, RepositoryId, SessionId};
use crate::object::{ObjectType, name_of};
use crate::repository::backup::{Backup, BackupStatistics};
use crate::repository::environment::Control;
use crate::repository::handle::{Inner, Repository};
use crate::repository::parallel::lock;
use crate::repository::view;
use crate::repository::write::collected::Collected;
use crate::repository::write::options::BackupOptions;
use crate::repository::write::parent::Parents;
use crate::repository::write::store::ChunkStore;
use crate::repository::write::stream::{StreamWriter, queue_depth};
use crate::repository::write::{blocks, stream, tree};
use crate::session::{BackupBody, Closure, History, NewCommit, SessionWriter};
use crate::source::{BlockSource, TreeSource};
use crate::time::Timestamp;

/// A backup in the making. Nothing of it is visible before [`commit`](Self::commit); dropping it is
/// [`abort`](Self::abort).
///
/// What a session that ended early uploaded is found and used by the next one.
pub struct BackupSession {
    pub(crate) repository: Repository,
    writer: SessionWriter,
    pub(crate) options: BackupOptions,
    /// What it may refer to.
    pub(crate) history: History,
    pub(crate) parents: Parents,
    started: Timestamp,
    names: BTreeSet<EntryPath>,
    /// A failed operation may have left claims without chunks: nothing can be committed then.
    failed: AtomicBool,
    pub(crate) control: Control,
    pub(crate) store: ChunkStore,
    pub(crate) collected: Collected,
}

/// What a copy has from the backup that it is a copy of, in place of what a session finds out itself.
pub(crate) struct Inherited {
    /// When that backup began and ended, and the time of its commit.
    pub(crate) started: Timestamp,
    pub(crate) finished: Timestamp,
    pub(crate) time: Timestamp,
    /// The copy of its parent.
    pub(crate) parent: Option<BackupId>,
    pub(crate) problems: Vec<(String, String)>,
    pub(crate) problem_count: u64,
    pub(crate) origins: Vec<(RepositoryId, BackupId)>,
    /// What its commit names before it; the heads of the history where `None`.
    pub(crate) heads: Option<Vec<BackupId>>,
    /// The ids that it has had.
    pub(crate) replaces: Vec<BackupId>,
}

/// A backup that was committed, and the packs of its closure with their sizes.
pub(crate) struct Committed {
    pub(crate) backup: Backup,
    pub(crate) packs: BTreeMap<ObjectName, u64>,
}

impl BackupSession {
    /// Opens a session (see [`Repository::begin`]).
    pub(crate) fn begin(repository: &Repository, options: BackupOptions) -> Result<Self> {
        Self::begin_after(repository, options, 0)
    }

    /// Opens a session whose generation is `least` or more, as that of a replacement must be.
    pub(crate) fn begin_after(repository: &Repository, mut options: BackupOptions, least: u32) -> Result<Self> {
        options.check()?;
        let inner = &repository.inner;
        inner.check_writable()?;
        let environment = &inner.environment;
        let started = environment.now();
        let control = options.control.clone();
        let (writer, history) = inner.with_records(&control, |records| {
            SessionWriter::open(records, inner.config.single_writer, least, &*environment.entropy, started)
        })?;
        let (parents, store) = Self::prepare(inner, &options, writer.session, &history)
            .inspect_err(|_| writer.abandon(&*inner.storage))?;
        Ok(Self {
            repository: repository.clone(),
            history,
            writer,
            options,
            parents,
            started,
            names: BTreeSet::new(),
            failed: AtomicBool::new(false),
            control,
            store,
            collected: Collected::new(EntrySorter::new(inner.chunk_keys.page_boundary())),
        })
    }

    /// What a session needs besides its mark: its parents, and a store on an index of what may be referred to.
    fn prepare(
        inner: &Arc<Inner>,
        options: &BackupOptions,
        session: SessionId,
        history: &History,
    ) -> Result<(Parents, ChunkStore)> {
        let control = &options.control;
        let view = view::for_writing(inner, history, control)?;
        let parents = Parents::find(inner, history, options)?;
        let level = options.compression_level.unwrap_or(inner.config.compression_level);
        // What may be referred to is less than what can be read: other readers of the handle do not see it.
        let store = ChunkStore::new(Arc::clone(inner), session, level, control.clone(), view.index, view.orphans)?;
        Ok((parents, store))
    }

    /// The backup that this one is made relative to: the one that was named, or with
    /// [`Parent::Newest`](crate::repository::Parent::Newest) the newest of those that its trees were found in so far.
    /// Where none was, it is the newest of the same kind and host. [`Backup::parent`] will name it.
    #[must_use]
    pub fn parent(&self) -> Option<&Backup> {
        self.parents.named()
    }

    /// Backs up a stream as one entry, to its end.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyExists`] for a path that the backup has: nothing has happened then. After any other the
    /// session is of no more use: [`Error::Source`] where the source fails, [`Error::Storage`] and others of storing.
    pub fn add_stream(&mut self, path: EntryPath, source: &mut dyn io::Read) -> Result<Entry> {
        self.reserve(&path)?;
        let result = stream::add_stream(self, path, source);
        self.note(result)
    }

    /// An entry whose bytes the caller pushes.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyExists`] for a path that the backup has.
    pub fn stream_writer(&mut self, path: EntryPath) -> Result<StreamWriter<'_>> {
        self.reserve(&path)?;
        Ok(StreamWriter::new(self, path))
    }

    /// Backs up a disk image or another block source as one entry.
    ///
    /// Ranges reported as [`Unchanged`](crate::extent::ExtentKind::Unchanged) are those of the entry of
    /// the same path in the [parent](Self::parent), which must have the same length and be named:
    /// [`Parent::Backup`](crate::repository::Parent::Backup). The newest backup may be another than the source compares with.
    ///
    /// # Errors
    ///
    /// As [`add_stream`](Self::add_stream); [`Error::InvalidArgument`] where unchanged ranges are
    /// reported and no parent is named, or it has no such entry.
    pub fn add_blocks(&mut self, path: EntryPath, source: &dyn BlockSource) -> Result<Entry> {
        self.reserve(&path)?;
        let result = blocks::add_blocks(self, path, source);
        self.note(result)
    }

    /// Backs up a tree of files. What cannot be read, or what the format has no place for (more than 4 MiB of
    /// extended attributes), is recorded, and the backup is incomplete.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`] and others of storing; the session is of no more use then.
    pub fn add_tree(&mut self, source: &mut dyn TreeSource) -> Result<()> {
        let result = tree::add_tree(self, source);
        self.note(result)
    }

    /// Records that something is missing: the backup is then incomplete.
    pub fn record_problem(&mut self, name: &str, message: &str) {
        self.collected.problem(&self.control, name, message);
    }

    /// Makes the backup visible, durably.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyExists`] where two entries have the same path; [`Error::Conflict`] where a
    /// collection took over meanwhile; [`Error::UnknownOutcome`] where the storage does not say whether
    /// it took the commit; [`Error::Storage`]. No backup exists after any error but
    /// [`Error::UnknownOutcome`].
    pub fn commit(mut self) -> Result<Backup> {
        self.finish(None).map(|committed| committed.backup)
    }

    /// Makes the backup visible with what it inherits. The session is of no use afterwards but to say what it
    /// [stored](Self::stored).
    ///
    /// # Errors
    ///
    /// As [`commit`](Self::commit).
    pub(crate) fn finish(&mut self, inherited: Option<Inherited>) -> Result<Committed> {
        self.check_usable()?;
        self.failed.store(true, Ordering::Release);
        self.control.cancel().check()?;
        let inner = &self.repository.inner;
        let unused = EntrySorter::new(inner.chunk_keys.page_boundary());
        let sorter = std::mem::replace(&mut *lock(&self.collected.sorter)?, unused);
        let entries = sorter.len();
        let catalogue = sorter.finish(&self.store)?;
        let stored = self.store.finish()?;
        let closure = Closure { packs: stored.packs };
        let closure_object = closure.encode()?;
        let closure_name = name_of(&closure_object);
        self.store.put(Place::Closure(closure_name), closure_object.into())?;
        let problems = std::mem::take(&mut *lock(&self.collected.problems)?);
        let counters = &self.store.counters;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let statistics = BackupStatistics {
            entries,
            bytes_logical: load(&self.collected.bytes_logical),
            bytes_read: load(&self.collected.bytes_read),
            bytes_unchanged: load(&self.collected.bytes_unchanged),
            bytes_new: load(&counters.bytes_new),
            bytes_stored: load(&counters.bytes_stored),
            chunks: load(&counters.chunks),
            chunks_new: load(&counters.chunks_new),
        };
        let inherited = match inherited {
            Some(inherited) => inherited,
            None => {
                let finished = inner.environment.now();
                Inherited {
                    started: self.started,
                    finished,
                    time: finished,
                    parent: self.parents.named().map(|parent| parent.id),
                    problems: problems.first.into_iter().map(|p| (p.name, p.message)).collect(),
                    problem_count: problems.count,
                    origins: Vec::new(),
                    heads: None,
                    replaces: Vec::new(),
                }
            }
        };
        let body = BackupBody {
            kind: self.options.kind.name().to_owned(),
            host: self.options.host.clone(),
            tags: self.options.tags.clone(),
            labels: self.options.labels.clone(),
            started: inherited.started,
            finished: inherited.finished,
            parent: inherited.parent,
            catalogue,
            amounts: statistics.to_amounts(),
            problems: inherited.problems,
            problem_count: inherited.problem_count,
            origins: inherited.origins,
        };
        let padding = inner.config.padding;
        let sealed = inner.keys.seal(ObjectType::Body, &self.writer.session, &[&body.encode()?], padding)?;
        self.store.put(Place::Body(sealed.name), sealed.bytes)?;
        self.control.cancel().check()?;
        let commit = NewCommit {
            repository: inner.config.repository,
            session: self.writer.session,
            generation: self.writer.generation,
            body: sealed.name,
            indexes: stored.indexes,
            closure: closure_name,
            closure_packs: crate::length::to_u64(closure.packs.len()),
            closure_bytes: closure.bytes(),
            config: inner.config_hash,
            heads: inherited.heads.unwrap_or_else(|| self.history.heads()),
            time: inherited.time,
            replaces: inherited.replaces,
        };
        let id = inner.with_records(&self.control, |records| {
            self.writer.commit(records, &self.history, &commit, &inner.writer_key)
        })?;
        inner.forget_view();
        let backup = Backup::from_body(id, Place::Body(sealed.name), body)?;
        Ok(Committed { backup, packs: closure.packs })
    }

    /// The objects that the session stored so far, with their sizes.
    pub(crate) fn stored(&self) -> Result<BTreeMap<Place, u64>> {
        Ok(std::mem::take(&mut *lock(&self.store.objects)?))
    }

    /// Ends a session that turned out not to be needed. Its mark goes away where nothing was stored under it.
    pub(crate) fn give_up(self) {
        if self.store.counters.bytes_stored.load(Ordering::Relaxed) == 0 {
            self.writer.abandon(&*self.repository.inner.storage);
        }
    }

    /// Ends the session without a backup. What it stored is used by later sessions, or collected.
    pub fn abort(self) {
        drop(self);
    }

    pub(crate) fn gear(&self) -> Arc<Gear> {
        Arc::clone(&self.repository.inner.gear)
    }

    pub(crate) fn fixed_chunk_size(&self) -> u32 {
        self.repository.inner.config.chunking.fixed_size
    }

    pub(crate) fn queue_depth(&self) -> usize {
        let largest = self.repository.inner.config.chunking.stream_max;
        queue_depth(self.control.threads(), self.control.byte_budget(), largest)
    }

    pub(crate) fn insert(&self, entry: &Entry) -> Result<()> {
        self.collected.insert(entry.size(), EncodedEntry::new(entry)?, &self.store)
    }

    pub(crate) fn read_bytes(&self, count: u64) {
        self.collected.read_bytes(count);
    }

    pub(crate) fn unchanged_bytes(&self, count: u64) {
        self.collected.unchanged_bytes(count);
    }

    fn reserve(&mut self, path: &EntryPath) -> Result<()> {
        self.check_usable()?;
        if self.names.insert(path.clone()) {
            Ok(())
        } else {
            Err(Error::AlreadyExists { what: "entry", name: path.to_string() })
        }
    }

    /// Refuses to go on after a failure.
    pub(crate) fn check_usable(&self) -> Result<()> {
        if self.failed.load(Ordering::Acquire) {
            return Err(Error::invalid("backup session", "an operation of it failed; only abort is possible"));
        }
        Ok(())
    }

    pub(crate) fn note<T>(&self, result: Result<T>) -> Result<T> {
        result.inspect_err(|_| self.failed.store(true, Ordering::Release))
    }
}

impl std::fmt::Debug for BackupSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackupSession").field("session", &self.writer.session).finish_non_exhaustive()
    }
}
