//! Trees of files: small files are read by the workers, large ones are cut by the caller's thread.
//!
//! A file whose size, times and inode are those of the parent backup is not read again, provided
//! that it had not just been changed then, and that the repository still has every chunk of it.

use std::io;
use std::sync::{Arc, Mutex};

use crate::chunk::Gear;
use crate::content::{Content, EncodedEntry, Entry, EntryKind, EntryPath, PageSource, StreamContentBuilder};
use crate::crypto::hash;
use crate::error::{Error, Result};
use crate::extent::ExtentKind;
use crate::length::to_u64;
use crate::limits;
use crate::progress::Event;
use crate::repository::backup::error_chain;
use crate::repository::parallel::{Queue, lock, with_queue};
use crate::repository::write::assembler::Assembler;
use crate::repository::write::blocks::{Image, leaf_span, read_blocks};
use crate::repository::write::collected::Collected;
use crate::repository::write::hard_links::{FirstNames, LaterName, LaterNames};
use crate::repository::write::parent::{ParentEntries, ParentEntry};
use crate::repository::write::read_at::ReadAt;
use crate::repository::write::session::BackupSession;
use crate::repository::write::store::{ChunkStore, StoreWorker};
use crate::repository::write::stream::{ContentJobs, Cutter, read_stream};
use crate::source::{BlockSource, FileContent, OpenContent, TreeNode, TreeSource};
use crate::time::Timestamp;

/// What the nodes of one walk share.
#[derive(Clone, Copy)]
struct Walk<'env> {
    store: &'env ChunkStore,
    collected: &'env Collected,
    parent_pages: &'env dyn PageSource,
    fixed_chunk_size: u32,
    /// Files up to this size are one chunk, whatever they contain.
    small: u64,
    gear: &'env Arc<Gear>,
    names: &'env FirstNames,
}

/// Backs up a tree.
pub(crate) fn add_tree(session: &mut BackupSession, source: &mut dyn TreeSource) -> Result<()> {
    let mut roots = source.roots();
    let mut first = None;
    while roots.is_empty() {
        match source.next_node() {
            Some(Ok(node)) => {
                roots.push(node.path.clone());
                first = Some(Ok(node));
            }
            Some(Err(problem)) => session.record_problem(&problem.name, &error_chain(&problem.error)),
            None => return Ok(()),
        }
        session.control.cancel().check()?;
    }
    roots.sort_unstable();
    let chosen = roots.iter().map(|root| session.choose_parent(root)).collect::<Result<Vec<_>>>()?;
    let mut roots = roots.iter().zip(chosen).peekable();
    let session = &*session;
    let store = &session.store;
    let gear = session.gear();
    let names = FirstNames::default();
    let walk = Walk {
        store,
        collected: &session.collected,
        parent_pages: session.parent_pages(),
        fixed_chunk_size: session.fixed_chunk_size(),
        small: to_u64(gear.minimum()),
        gear: &gear,
        names: &names,
    };
    let mut later = LaterNames::new();
    let mut parent: Option<(usize, ParentEntries<'_>)> = None;
    let mut nodes = first.into_iter().chain(std::iter::from_fn(|| source.next_node()));
    with_queue(&session.control, session.queue_depth(), &|| store.worker(), |queue| {
        for node in &mut nodes {
            session.control.cancel().check()?;
            match node {
                Err(problem) => walk.problem(&problem.name, &error_chain(&problem.error)),
                Ok(node) => {
                    // The root of this node, and with it what it is compared with.
                    while let Some((_, chosen)) = roots.next_if(|(root, _)| **root <= node.path) {
                        if chosen != parent.as_ref().map(|(current, _)| *current) {
                            let entries = chosen.and_then(|chosen| session.parent_entries(chosen, &node.path));
                            parent = chosen.zip(entries);
                        }
                    }
                    let before = parent.as_mut().and_then(|(_, entries)| session.same_path(entries, &node.path));
                    if node.hard_link.is_some() {
                        later.push_back((node, before));
                    } else {
                        walk.node(node, before, queue)?;
                    }
                    walk.later_names(&mut later, queue)?;
                }
            }
        }
        Ok(())
    })?;
    // Nothing is being read any more, so every round decides at least one name.
    while !later.is_empty() {
        with_queue(&session.control, session.queue_depth(), &|| store.worker(), |queue| {
            walk.later_names(&mut later, queue)
        })?;
    }
    Ok(())
}

impl<'env> Walk<'env> {
    /// Decides later names in their order, up to one whose content is being read.
    fn later_names(self, later: &mut LaterNames, queue: &Queue<'env, '_, StoreWorker>) -> Result<()> {
        while let Some((node, before)) = later.pop_front() {
            let Some(first) = &node.hard_link else {
                self.node(node, before, queue)?;
                continue;
            };
            match self.names.decide(&node.path, first)? {
                LaterName::Waits => {
                    later.push_front((node, before));
                    break;
                }
                LaterName::Link(holder) => {
                    let mut entry = Entry::new(node.path, node.kind);
                    entry.attributes = node.attributes;
                    entry.hard_link = Some(holder);
                    self.store.control().event(&Event::EntryStarted { path: &entry.path });
                    self.insert(&entry)?;
                }
                LaterName::File if node.content.is_none() => {
                    self.lost(&node.path, "the first name of the file could not be read")?;
                }
                LaterName::File => self.node(TreeNode { hard_link: None, ..node }, before, queue)?,
            }
        }
        Ok(())
    }

    fn node(self, node: TreeNode, before: Option<ParentEntry>, queue: &Queue<'env, '_, StoreWorker>) -> Result<()> {
        let TreeNode { path, kind, attributes, size, content, hard_link: _ } = node;
        let mut entry = Entry::new(path, kind);
        entry.attributes = attributes;
        self.store.control().event(&Event::EntryStarted { path: &entry.path });
        let Some(content) = content.filter(|_| entry.kind.has_content()) else {
            return self.insert(&entry);
        };
        if let Some(before) = before
            && is_same_file(&entry, size, &before)
            && self.store.refer_all(&before.entry.content, self.parent_pages)?
        {
            entry.content = before.entry.content;
            entry.digest = before.entry.digest;
            self.collected.unchanged_bytes(size);
            self.store.control().event(&Event::Bytes { count: size, kind: ExtentKind::Unchanged });
            return self.insert(&entry);
        }
        self.names.begin(&entry.path)?;
        if size <= self.small {
            return queue.submit(Box::new(move |worker| self.small_file(entry, content, worker)));
        }
        match content.open() {
            Err(error) => self.lost(&entry.path, &error_chain(&error)),
            Ok(file) if file.length() > limits::CONTENT => {
                self.lost(&entry.path, &format!("its length is {}, the limit is {}", file.length(), limits::CONTENT))
            }
            Ok(file) if file.is_image() => self.image(entry, Arc::from(file), queue),
            Ok(file) => self.large_file(entry, &*file, queue),
        }
    }

    /// Opens, reads and stores a file of one chunk, on a worker.
    fn small_file(self, mut entry: Entry, content: Box<dyn OpenContent>, worker: &mut StoreWorker) -> Result<()> {
        let file = match content.open() {
            Ok(file) => file,
            Err(error) => return self.lost(&entry.path, &error_chain(&error)),
        };
        if file.length() > self.small {
            // It grew since it was listed: the part that was announced is kept, and marked.
            entry.inconsistent = true;
        }
        let length = file.length().min(self.small);
        let mut buffer = std::mem::take(&mut worker.buffer);
        buffer.clear();
        let mut reader = ReadAt::new(&*file, 0, length);
        let result = io::Read::read_to_end(&mut reader, &mut buffer);
        entry.inconsistent |= reader.ended_early || has_more(&*file, length) || !file.is_unchanged().unwrap_or(false);
        let stored = match result {
            Ok(_) if buffer.is_empty() => Ok(Some(Vec::new())),
            Ok(_) => self.store.store(worker, &buffer).map(|reference| Some(vec![reference])),
            Err(error) => {
                self.lost(&entry.path, &error_chain(&error))?;
                Ok(None)
            }
        };
        if let Ok(Some(references)) = &stored {
            let mut builder = StreamContentBuilder::new(self.store);
            references.iter().try_for_each(|reference| builder.push(*reference))?;
            entry.content = builder.finish()?;
            entry.digest = Some(hash::digest(&buffer));
            let count = to_u64(buffer.len());
            self.collected.read_bytes(count);
            self.store.control().event(&Event::Bytes { count, kind: ExtentKind::Data });
        }
        worker.buffer = buffer;
        if stored?.is_some() { self.read_entry(&entry) } else { Ok(()) }
    }

    /// Cuts a large file here; its chunks are stored by the workers.
    fn large_file(self, mut entry: Entry, file: &dyn FileContent, queue: &Queue<'env, '_, StoreWorker>) -> Result<()> {
        // The entry needs what is known only after the last byte was read, while its content completes
        // on a worker: whichever comes second inserts it.
        let meeting = Arc::new(Mutex::new((None::<Content>, None::<Entry>)));
        let other = Arc::clone(&meeting);
        let on_complete = Box::new(move |content: Content| {
            let mut meeting = lock(&other)?;
            meeting.0 = Some(content);
            self.meet(&mut meeting)
        });
        let jobs = ContentJobs::new(self.store, Assembler::stream(self.store), on_complete);
        let path = entry.path.clone();
        let mut reader = ReadAt::new(file, 0, file.length());
        let cutter = Cutter::new(Arc::clone(self.gear));
        match read_stream(&mut reader, &path, cutter, jobs, queue) {
            Ok((length, digest)) => {
                let more = has_more(file, file.length());
                entry.inconsistent = reader.ended_early || more || !file.is_unchanged().unwrap_or(false);
                entry.digest = Some(digest);
                self.collected.read_bytes(length);
                let mut meeting = lock(&meeting)?;
                meeting.1 = Some(entry);
                self.meet(&mut meeting)
            }
            Err(Error::Source { source, .. }) => self.lost(&path, &error_chain(&source)),
            Err(error) => Err(error),
        }
    }

    fn meet(self, meeting: &mut (Option<Content>, Option<Entry>)) -> Result<()> {
        match (meeting.0.take(), meeting.1.take()) {
            (Some(content), Some(mut entry)) => {
                entry.content = content;
                self.read_entry(&entry)
            }
            (content, entry) => {
                *meeting = (content, entry);
                Ok(())
            }
        }
    }

    /// Plans an image here; the workers read it.
    fn image(self, entry: Entry, file: Arc<dyn FileContent>, queue: &Queue<'env, '_, StoreWorker>) -> Result<()> {
        let source: Arc<dyn BlockSource> = Arc::<dyn FileContent>::clone(&file);
        let image = Arc::new(Image::new(source, entry.path.clone(), self.fixed_chunk_size, true));
        let path = entry.path.clone();
        let shared = Arc::clone(&image);
        let on_complete = Box::new(move |content: Content| {
            if let Some(error) = shared.failure()? {
                let message = match &error {
                    Error::Source { source, .. } => error_chain(source),
                    other => error_chain(other),
                };
                return self.lost(&entry.path, &message);
            }
            let mut entry = entry;
            entry.inconsistent = shared.ended_early() || !file.is_unchanged().unwrap_or(false);
            entry.content = content;
            self.read_entry(&entry)
        });
        let jobs =
            ContentJobs::new(self.store, Assembler::image(self.store, leaf_span(self.fixed_chunk_size)), on_complete);
        match read_blocks(&image, None, self.store, jobs, queue) {
            Ok(amounts) => {
                self.collected.read_bytes(amounts.read);
                Ok(())
            }
            Err(Error::Source { source, .. }) => self.lost(&path, &error_chain(&source)),
            Err(error) => Err(error),
        }
    }

    /// Inserts an entry whose content was read just now.
    fn read_entry(self, entry: &Entry) -> Result<()> {
        if entry.inconsistent {
            self.problem(&entry.path.to_string(), "changed while it was read");
        }
        self.insert(entry)
    }

    /// Inserts an entry, or records that the format has no place for what it holds: whoever may attach to a file what
    /// he likes must not be able to end the backup of everybody.
    fn insert(self, entry: &Entry) -> Result<()> {
        match EncodedEntry::new(entry) {
            Ok(encoded) => {
                self.names.end(&entry.path, true)?;
                self.store.control().event(&Event::EntryFinished { path: &entry.path });
                self.collected.insert(entry.size(), encoded, self.store)
            }
            Err(error) => self.lost(&entry.path, &error_chain(&error)),
        }
    }

    /// Records that a file is left out.
    fn lost(self, path: &EntryPath, message: &str) -> Result<()> {
        self.problem(&path.to_string(), message);
        self.names.end(path, false)
    }

    fn problem(self, name: &str, message: &str) {
        self.collected.problem(self.store.control(), name, message);
    }
}

/// Whether the file system says that nothing changed since the parent backup read it.
fn is_same_file(entry: &Entry, size: u64, ParentEntry { entry: before, started }: &ParentEntry) -> bool {
    let (now, then) = (&entry.attributes, &before.attributes);
    let is_settled = |changed: Timestamp| started.seconds_since(changed) >= COARSEST_TICK;
    entry.kind == EntryKind::File
        && before.kind == EntryKind::File
        && before.hard_link.is_none()
        && !before.inconsistent
        && before.size() == size
        && now.modified.is_some()
        && now.modified == then.modified
        && now.changed.is_some_and(is_settled)
        && now.changed == then.changed
        && now.inode == then.inode
}

/// Whether a file goes on behind its length: those of `/proc` announce nothing and hold something.
fn has_more(file: &dyn FileContent, length: u64) -> bool {
    file.read_at(length, &mut [0]).is_ok()
}

/// Seconds within which a file system may give two changes the same time. A file that was changed so shortly before
/// it was read may have been changed again afterwards without a trace.
const COARSEST_TICK: f64 = 2.0;
