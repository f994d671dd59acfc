//! [`LocalStorage`]: objects as files below a directory.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use backup_core::storage::{Capabilities, Key, ListPage, ObjectInfo, PutMode, Storage, StorageError};
use backup_core::{Error, Result};
use bytes::Bytes;
use rustix::fs::{Access, AtFlags, FileType, OFlags, accessat, fstatvfs};
use rustix::io::Errno;

use super::error::{is_absent, reading, writing};
use super::listing;
use super::temporary;
use crate::directory::{Directory, create_all, file_type};

/// Objects as files below a directory. See the [module](crate::local).
///
/// Any number of processes and machines may use the same directory at once, as far as its file
/// system keeps one name for one file. Directories that become empty are kept.
pub struct LocalStorage {
    root: Directory,
    path: PathBuf,
    page_size: usize,
    cleaned: AtomicBool,
    /// Directories of which this process knows that they survive a power cut.
    durable: Mutex<BTreeSet<String>>,
}

impl LocalStorage {
    /// Objects in a page of a listing, unless [`with_page_size`](Self::with_page_size) says otherwise.
    ///
    /// Large, because every page reads the directory anew in which it begins.
    pub const DEFAULT_PAGE_SIZE: usize = 10_000;

    /// Opens an existing directory.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::Storage`] where it is not a directory or cannot be opened.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        match Directory::open(&path) {
            Ok(root) => Ok(Self {
                root,
                path,
                page_size: Self::DEFAULT_PAGE_SIZE,
                cleaned: AtomicBool::new(false),
                durable: Mutex::default(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Error::NotFound { what: "directory", name: path.display().to_string() })
            }
            Err(error) => Err(failed("open", &path, error)),
        }
    }

    /// Opens a directory and creates it where it does not exist, with its ancestors.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`] where it cannot be created or opened.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        create_all(&path).map_err(|error| failed("create", &path, error))?;
        Self::open(path)
    }

    /// Pages of at most `objects` objects (at least 1).
    #[must_use]
    pub fn with_page_size(mut self, objects: usize) -> Self {
        self.page_size = objects.max(1);
        self
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn store(&self, key: &Key, content: &[u8], mode: PutMode) -> Result<(), StorageError> {
        if !self.cleaned.swap(true, Ordering::Relaxed) {
            temporary::clean(&self.root, SystemTime::now());
        }
        let (path, name) = split(key);
        let directory = self.make_directory(path).map_err(writing)?;
        if mode == PutMode::Create {
            match directory.stat(name) {
                Ok(_) => return Err(occupied(&directory, name)),
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(writing(error)),
            }
        }
        let new = temporary::create(&self.root).map_err(writing)?;
        new.file().write_all(content).and_then(|()| new.file().sync_all()).map_err(writing)?;
        let outcome = match mode {
            PutMode::Create => new.publish_new(&directory, name),
            PutMode::Overwrite => new.publish_over(&directory, name),
        };
        match outcome {
            Ok(()) => directory.sync().map_err(writing),
            Err(error) if mode == PutMode::Create && error.kind() == io::ErrorKind::AlreadyExists => {
                Err(occupied(&directory, name))
            }
            Err(error) => Err(writing(error)),
        }
    }

    /// The directory of an object, made and made durable where that is not known of it.
    ///
    /// That it exists is not enough: whoever made it may not have come to make it durable.
    fn make_directory(&self, path: &str) -> io::Result<Directory> {
        let mut directory = self.root.duplicate()?;
        for (end, component) in components(path) {
            let child = directory.child_or_make(component)?;
            let ancestor = path.get(..end).unwrap_or(path);
            let is_durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner).contains(ancestor);
            if !is_durable {
                directory.sync()?;
                self.durable.lock().unwrap_or_else(PoisonError::into_inner).insert(ancestor.to_owned());
            }
            directory = child;
        }
        Ok(directory)
    }

    fn directory(&self, path: &str) -> io::Result<Directory> {
        components(path).try_fold(self.root.duplicate()?, |directory, (_, component)| directory.child(component))
    }

    fn open_object(&self, key: &Key) -> Result<(File, u64), StorageError> {
        let (path, name) = split(key);
        let file =
            self.directory(path).and_then(|directory| directory.open_file(name, OFlags::RDONLY)).map_err(reading)?;
        let metadata = file.metadata().map_err(reading)?;
        if metadata.is_file() { Ok((file, metadata.len())) } else { Err(StorageError::NotFound) }
    }
}

impl Storage for LocalStorage {
    fn put(&self, key: &Key, bytes: Bytes, mode: PutMode) -> Result<(), StorageError> {
        self.store(key, &bytes, mode)
    }

    fn get(&self, key: &Key, limit: u64) -> Result<Bytes, StorageError> {
        let (file, size) = self.open_object(key)?;
        if size > limit {
            return Err(StorageError::TooLarge { size, limit });
        }
        let mut content = buffer(size).map_err(writing)?;
        let read = file.take(size).read_to_end(&mut content).map_err(writing)?;
        if u64::try_from(read).is_ok_and(|read| read == size) {
            Ok(content.into())
        } else {
            Err(writing(io::ErrorKind::UnexpectedEof.into()))
        }
    }

    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StorageError> {
        let (file, size) = self.open_object(key)?;
        let length = match range.end.checked_sub(range.start) {
            Some(length) if range.end <= size => length,
            _ => return Err(StorageError::OutOfRange { size }),
        };
        let mut content = buffer(length).map_err(writing)?;
        content.resize(usize::try_from(length).map_err(|error| StorageError::Other(error.into()))?, 0);
        file.read_exact_at(&mut content, range.start).map_err(writing)?;
        Ok(content.into())
    }

    fn stat(&self, key: &Key) -> Result<ObjectInfo, StorageError> {
        let (path, name) = split(key);
        let stat = self.directory(path).and_then(|directory| directory.stat(name)).map_err(reading)?;
        match (file_type(&stat), u64::try_from(stat.st_size)) {
            (FileType::RegularFile, Ok(size)) => Ok(ObjectInfo::new(key.clone(), size)),
            (FileType::Symlink, _) => Err(writing(Errno::LOOP.into())),
            _ => Err(StorageError::NotFound),
        }
    }

    fn list(&self, prefix: &str, after: Option<&Key>) -> Result<ListPage, StorageError> {
        listing::page(&self.root, prefix, after, self.page_size).map_err(writing)
    }

    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        let (path, name) = split(key);
        let directory = match self.directory(path) {
            Ok(directory) => directory,
            Err(error) if is_absent(&error) => return Ok(()),
            Err(error) => return Err(writing(error)),
        };
        match directory.stat(name) {
            Ok(stat) if file_type(&stat) == FileType::Directory => return Ok(()),
            Err(error) if is_absent(&error) => return Ok(()),
            Err(error) => return Err(writing(error)),
            Ok(_) => {}
        }
        match directory.remove(name) {
            Ok(()) => directory.sync().map_err(writing),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(writing(error)),
        }
    }

    fn capabilities(&self) -> Capabilities {
        let access = accessat(&self.root, c".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS);
        let is_read_only = matches!(access, Err(Errno::ACCESS | Errno::ROFS | Errno::PERM));
        let free = fstatvfs(&self.root).ok().map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        Capabilities::default().with_read_only(is_read_only).with_free_bytes(free)
    }
}

impl fmt::Debug for LocalStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalStorage").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The error of creating what exists. It is also made durable: the caller acts on its existence, and
/// whoever stored it may not have come to that.
fn occupied(directory: &Directory, name: &[u8]) -> StorageError {
    match directory.stat(name).map(|stat| file_type(&stat)) {
        Ok(FileType::Directory) => writing(Errno::ISDIR.into()),
        Ok(FileType::Symlink) => writing(Errno::LOOP.into()),
        _ => directory.sync().map_or_else(writing, |()| StorageError::AlreadyExists),
    }
}

/// The directory and the file name of an object.
fn split(key: &Key) -> (&str, &[u8]) {
    let (path, name) = key.as_str().rsplit_once('/').unwrap_or(("", key.as_str()));
    (path, name.as_bytes())
}

/// The components of a path and where each ends.
fn components(path: &str) -> impl Iterator<Item = (usize, &[u8])> {
    let mut end = 0_usize;
    path.split('/').filter(|component| !component.is_empty()).map(move |component| {
        end += component.len() + usize::from(end > 0);
        (end, component.as_bytes())
    })
}

/// Space for `length` bytes, or an error where memory has none.
fn buffer(length: u64) -> io::Result<Vec<u8>> {
    let mut buffer = Vec::new();
    let length = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
    buffer.try_reserve_exact(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
    Ok(buffer)
}

fn failed(operation: &'static str, path: &Path, error: io::Error) -> Error {
    Error::Storage { operation, key: path.display().to_string(), source: writing(error) }
}
