//! [`FileTreeSink`]: a directory to restore into.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backup_core::content::{Attributes, Entry, EntryKind, EntryPath};
use backup_core::source::{BlockSink, TreeSink};
use backup_core::{Error, Result};
use rustix::fs::{AtFlags, FileType, Mode, linkat, makedev, mknodat, renameat, symlinkat};

use super::metadata::{Restored, apply, apply_at};
use crate::directory::{Directory, create_all, file_type, retry};
use crate::new_file::{NewFile, unused_name};
use crate::sparse;

/// Begins the names of files whose content is not complete.
const TEMPORARY: &str = ".restore-";

/// Directories that stay open: entries that are restored together mostly stand in few of them.
const OPEN_DIRECTORIES: usize = 64;

/// Contents up to this size are written before it shows that their name is taken.
const WRITTEN_FIRST: u64 = 1 << 20;

/// Problems that are kept for [`TreeSink::complete`]; a target that refuses every attribute of a
/// million files would fill memory with them.
const PROBLEMS_KEPT: usize = 10_000;

/// The whole message of an entry that is not restored because something stands in its place.
pub const EXISTS: &str = "it exists already in the target";

/// What a restore does with what exists in its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OverwritePolicy {
    /// It is kept; the entry fails with [`io::ErrorKind::AlreadyExists`]. Directories that exist are used.
    #[default]
    Refuse,
    /// It is replaced, each file at once by its complete successor. Directories are never
    /// replaced by something else.
    Overwrite,
}

/// Options of a [`FileTreeSink`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SinkOptions {
    /// What happens to what exists. Default: it is kept.
    pub overwrite: OverwritePolicy,
    /// Restore owners and groups, by number. Default: when this process is root's.
    pub ownership: bool,
    /// Create device nodes. Default: when this process is root's.
    pub devices: bool,
    /// Restore extended attributes. Default: yes.
    pub extended_attributes: bool,
    /// Make everything durable before it is reported as restored. Default: no; only a file that may replace
    /// another is made durable before it does.
    pub sync: bool,
}

impl Default for SinkOptions {
    fn default() -> Self {
        let is_root = rustix::process::geteuid().is_root();
        Self {
            overwrite: OverwritePolicy::Refuse,
            ownership: is_root,
            devices: is_root,
            extended_attributes: true,
            sync: false,
        }
    }
}

impl SinkOptions {
    /// What happens to what exists.
    #[must_use]
    pub const fn with_overwrite(mut self, policy: OverwritePolicy) -> Self {
        self.overwrite = policy;
        self
    }

    /// Whether to restore owners and groups.
    #[must_use]
    pub const fn with_ownership(mut self, yes: bool) -> Self {
        self.ownership = yes;
        self
    }

    /// Whether to create device nodes.
    #[must_use]
    pub const fn with_devices(mut self, yes: bool) -> Self {
        self.devices = yes;
        self
    }

    /// Whether to restore extended attributes.
    #[must_use]
    pub const fn with_extended_attributes(mut self, yes: bool) -> Self {
        self.extended_attributes = yes;
        self
    }

    /// Whether to make everything durable.
    #[must_use]
    pub const fn with_sync(mut self, yes: bool) -> Self {
        self.sync = yes;
        self
    }
}

/// A directory that a backup is restored into, as a [`TreeSink`].
///
/// Nothing outside it is written, whatever paths and links the backup has and whatever links exist
/// in the target: every component is opened from its parent without following links.
///
/// A file has no name, or a temporary one (`.restore-...`), until its content and attributes are complete; blocks of 4 KiB
/// that hold nothing but zeros become holes.
/// Directories that no entry describes are made for their owner only. Set-uid and set-gid are given
/// only to files whose owner was restored. Attributes that cannot be restored do not undo the file:
/// they are reported by [`TreeSink::complete`] (the first ten thousand of them).
pub struct FileTreeSink {
    target: Arc<Directory>,
    options: SinkOptions,
    unfinished: Mutex<HashMap<EntryPath, Arc<NewFile>>>,
    directories: Mutex<BTreeMap<EntryPath, Attributes>>,
    open: Mutex<HashMap<EntryPath, Arc<Directory>>>,
    problems: Mutex<Vec<(EntryPath, io::Error)>>,
}

impl FileTreeSink {
    /// Restores into `target`, which is made if it does not exist.
    ///
    /// # Errors
    ///
    /// [`Error::Sink`] where it cannot be made or opened.
    pub fn new(target: impl AsRef<Path>, options: SinkOptions) -> Result<Self> {
        let path = target.as_ref();
        let target = create_all(path)
            .and_then(|()| Directory::open(path))
            .map_err(|error| Error::Sink { name: path.display().to_string(), source: error })?;
        Ok(Self {
            target: Arc::new(target),
            options,
            unfinished: Mutex::default(),
            directories: Mutex::default(),
            open: Mutex::default(),
            problems: Mutex::default(),
        })
    }

    /// The directory of an entry; missing ones are made.
    fn parent(&self, path: &EntryPath) -> io::Result<Arc<Directory>> {
        let Some(parent) = path.parent() else { return Ok(Arc::clone(&self.target)) };
        if let Some(directory) = lock(&self.open).get(&parent) {
            return Ok(Arc::clone(directory));
        }
        let directory = match self.target.below(parent.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_all(&parent)?,
            outcome => outcome?,
        };
        let directory = Arc::new(directory);
        let mut open = lock(&self.open);
        if open.len() >= OPEN_DIRECTORIES {
            open.clear();
        }
        open.insert(parent, Arc::clone(&directory));
        Ok(directory)
    }

    /// Makes what is missing of a directory and of those above it.
    fn make_all(&self, path: &EntryPath) -> io::Result<Directory> {
        path.components().try_fold(self.target.duplicate()?, |directory, name| directory.child_or_make(name))
    }

    /// An existing directory of the target.
    fn existing(&self, path: &EntryPath) -> io::Result<Arc<Directory>> {
        self.target.below(path.as_bytes()).map(Arc::new)
    }

    /// Fails where what exists under the entry's name may not be replaced.
    fn check_replaceable(&self, parent: &Directory, path: &EntryPath) -> io::Result<()> {
        match parent.stat(path.file_name()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(_) if self.options.overwrite == OverwritePolicy::Refuse => Err(exists()),
            Ok(stat) if file_type(&stat) == FileType::Directory => {
                Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory in the target"))
            }
            Ok(_) => Ok(()),
        }
    }

    fn make_directory(&self, parent: &Directory, entry: &Entry) -> io::Result<()> {
        let name = entry.path.file_name();
        match parent.make(name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if file_type(&parent.stat(name)?) != FileType::Directory {
                    self.check_replaceable(parent, &entry.path)?;
                    parent.remove(name)?;
                    parent.make(name)?;
                }
            }
            outcome => outcome?,
        }
        lock(&self.directories).insert(entry.path.clone(), entry.attributes.clone());
        Ok(())
    }

    fn create_file(&self, parent: Arc<Directory>, entry: &Entry) -> io::Result<Box<dyn BlockSink>> {
        if entry.size() > WRITTEN_FIRST {
            self.check_replaceable(&parent, &entry.path)?;
        }
        let new = match self.options.overwrite {
            OverwritePolicy::Refuse => NewFile::create_unnamed(parent, TEMPORARY),
            OverwritePolicy::Overwrite => NewFile::create(parent, TEMPORARY),
        };
        let new = Arc::new(new?);
        lock(&self.unfinished).insert(entry.path.clone(), Arc::clone(&new));
        Ok(Box::new(FileContentSink(new)))
    }

    /// Makes something without content: at once under its name, or, where it may replace something,
    /// under another that is then renamed.
    fn place(
        &self,
        parent: &Directory,
        path: &EntryPath,
        make: impl Fn(&[u8]) -> io::Result<()>,
        decorate: impl Fn(&[u8]),
    ) -> io::Result<()> {
        self.check_replaceable(parent, path)?;
        if self.options.overwrite == OverwritePolicy::Refuse {
            make(path.file_name()).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => exists(),
                _ => error,
            })?;
            decorate(path.file_name());
        } else {
            let (temporary, ()) = unused_name(TEMPORARY, make)?;
            decorate(&temporary);
            if let Err(error) = retry(|| renameat(parent, temporary.as_slice(), parent, path.file_name())) {
                let _ = parent.remove(&temporary);
                return Err(error.into());
            }
            // Renaming one name of a file over another of the same file does nothing at all.
            match parent.remove(&temporary) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.options.sync { parent.sync() } else { Ok(()) }
    }

    fn place_special(
        &self,
        parent: &Directory,
        entry: &Entry,
        make: impl Fn(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let is_symlink = matches!(entry.kind, EntryKind::Symlink { .. });
        self.place(parent, &entry.path, make, |name| {
            self.report(&entry.path, apply_at(parent, name, &entry.attributes, self.restored(), is_symlink));
        })
    }

    fn make_device(&self, parent: &Directory, entry: &Entry, kind: FileType, numbers: (u32, u32)) -> io::Result<()> {
        if !self.options.devices {
            let reason = "device nodes are created by root only";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
        }
        self.place_special(parent, entry, |name| make_node(parent, name, kind, numbers))
    }

    fn make_link(&self, parent: &Directory, entry: &Entry, earlier: &EntryPath) -> io::Result<()> {
        let name = earlier.file_name();
        let directory = match earlier.parent() {
            Some(path) => self.existing(&path)?,
            None => Arc::clone(&self.target),
        };
        let link = |new: &[u8]| Ok(retry(|| linkat(&directory, name, parent, new, AtFlags::empty()))?);
        self.place(parent, &entry.path, link, |_| ())
    }

    fn complete_directory(&self, path: &EntryPath, attributes: &Attributes) -> io::Result<()> {
        let directory = self.existing(path)?;
        self.report(path, apply(&directory, attributes, self.restored()));
        if self.options.sync { directory.sync() } else { Ok(()) }
    }

    const fn restored(&self) -> Restored {
        Restored { ownership: self.options.ownership, extended: self.options.extended_attributes }
    }

    fn report(&self, path: &EntryPath, failures: Vec<io::Error>) {
        let mut problems = lock(&self.problems);
        let room = PROBLEMS_KEPT.saturating_sub(problems.len());
        problems.extend(failures.into_iter().take(room).map(|error| (path.clone(), error)));
    }
}

impl TreeSink for FileTreeSink {
    fn create(&self, entry: &Entry, hard_link: Option<&EntryPath>) -> io::Result<Option<Box<dyn BlockSink>>> {
        let parent = self.parent(&entry.path)?;
        if let Some(earlier) = hard_link {
            return self.make_link(&parent, entry, earlier).map(|()| None);
        }
        match &entry.kind {
            EntryKind::File | EntryKind::Stream | EntryKind::Disk => self.create_file(parent, entry).map(Some),
            EntryKind::Directory => self.make_directory(&parent, entry).map(|()| None),
            EntryKind::Symlink { target } => {
                let link = |name: &[u8]| Ok(retry(|| symlinkat(target.as_slice(), &parent, name))?);
                self.place_special(&parent, entry, link).map(|()| None)
            }
            EntryKind::Fifo => {
                let make = |name: &[u8]| make_node(&parent, name, FileType::Fifo, (0, 0));
                self.place_special(&parent, entry, make).map(|()| None)
            }
            EntryKind::CharacterDevice { major, minor } => {
                self.make_device(&parent, entry, FileType::CharacterDevice, (*major, *minor)).map(|()| None)
            }
            EntryKind::BlockDevice { major, minor } => {
                self.make_device(&parent, entry, FileType::BlockDevice, (*major, *minor)).map(|()| None)
            }
            other => Err(io::Error::new(io::ErrorKind::Unsupported, format!("entries of kind {}", other.name()))),
        }
    }

    fn finish(&self, entry: &Entry, sink: Box<dyn BlockSink>) -> io::Result<()> {
        drop(sink);
        let new = lock(&self.unfinished).remove(&entry.path);
        let new = new.and_then(|new| Arc::try_unwrap(new).ok());
        let new = new.ok_or_else(|| io::Error::other("this entry was not begun here, or is still being written"))?;
        self.report(&entry.path, apply(new.file(), &entry.attributes, self.restored()));
        // What replaces a good file must be as safe as that was.
        if self.options.sync || self.options.overwrite == OverwritePolicy::Overwrite {
            new.file().sync_all()?;
        }
        let directory = Arc::clone(new.directory());
        match self.options.overwrite {
            OverwritePolicy::Refuse => {
                new.publish_new(&directory, entry.path.file_name()).map_err(|error| match error.kind() {
                    io::ErrorKind::AlreadyExists => exists(),
                    _ => error,
                })?;
            }
            OverwritePolicy::Overwrite => new.publish_over(&directory, entry.path.file_name())?,
        }
        if self.options.sync { directory.sync() } else { Ok(()) }
    }

    fn abandon(&self, entry: &Entry, sink: Box<dyn BlockSink>) {
        // The last of both to go removes the file.
        drop(lock(&self.unfinished).remove(&entry.path));
        drop(sink);
    }

    fn complete(&self) -> Vec<(EntryPath, io::Error)> {
        let directories = std::mem::take(&mut *lock(&self.directories));
        // Deepest first: a directory that may not be written or entered is closed after what is in it.
        for (path, attributes) in directories.iter().rev() {
            if let Err(error) = self.complete_directory(path, attributes) {
                self.report(path, vec![error]);
            }
        }
        std::mem::take(&mut *lock(&self.problems))
    }
}

impl fmt::Debug for FileTreeSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileTreeSink").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Writes into a file of which nobody knows yet.
struct FileContentSink(Arc<NewFile>);

impl BlockSink for FileContentSink {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        sparse::write_at(self.0.file(), offset, data)
    }

    /// A new file is nothing but a hole.
    fn hole(&self, _offset: u64, _length: u64) -> io::Result<()> {
        Ok(())
    }

    fn finish(&self, length: u64) -> io::Result<()> {
        self.0.file().set_len(length)
    }
}

fn exists() -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, EXISTS)
}

#[cfg(not(target_vendor = "apple"))]
fn make_node(parent: &Directory, name: &[u8], kind: FileType, (major, minor): (u32, u32)) -> io::Result<()> {
    Ok(retry(|| mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, makedev(major, minor)))?)
}

#[cfg(target_vendor = "apple")]
fn make_node(_: &Directory, _: &[u8], _: FileType, _: (u32, u32)) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "pipes and devices are not restored on this system"))
}

// A panic elsewhere leaves these maps whole: every change is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
