//! Files that are complete before anybody sees them under their name.

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use rustix::fs::{AtFlags, CWD, fstat, linkat, renameat};
use rustix::io::Errno;

use crate::directory::{Directory, retry};

/// Makes names different within a process.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// Makes names of different processes different, also of those in containers that count processes alike. Exclusive
/// creation would notice equal ones; this keeps everybody from being slowed by it.
static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());

/// A file under a temporary name or none. Dropped before it was published, it is removed.
#[derive(Debug)]
pub(crate) struct NewFile {
    directory: Arc<Directory>,
    name: Name,
    file: File,
}

#[derive(Debug)]
enum Name {
    /// None: the file goes with its descriptor, even when the process dies.
    None,
    Temporary(Vec<u8>),
    /// Its own.
    Published,
}

impl NewFile {
    /// A new empty file in `directory`, for its owner only.
    pub(crate) fn create(directory: Arc<Directory>, prefix: &str) -> io::Result<Self> {
        let (name, file) = unused_name(prefix, |name| directory.create_file(name))?;
        Ok(Self { directory, name: Name::Temporary(name), file })
    }

    /// As [`create`](Self::create), without any name where the file system can do that: nothing is left behind
    /// by a process that dies, and publishing changes the directory once. For [`publish_new`](Self::publish_new) only.
    pub(crate) fn create_unnamed(directory: Arc<Directory>, prefix: &str) -> io::Result<Self> {
        match unnamed(&directory) {
            Some(file) => Ok(Self { directory, name: Name::None, file }),
            None => Self::create(directory, prefix),
        }
    }

    /// The open file.
    pub(crate) const fn file(&self) -> &File {
        &self.file
    }

    /// The directory that holds it under its temporary name.
    pub(crate) const fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// Gives it the name `name` in `target`, which must not exist ([`io::ErrorKind::AlreadyExists`]).
    pub(crate) fn publish_new(mut self, target: &Directory, name: &[u8]) -> io::Result<()> {
        let Name::Temporary(temporary) = &self.name else {
            return self.name_unnamed(target, name);
        };
        match rename_new(&self.directory, temporary, target, name) {
            Ok(()) => {
                self.name = Name::Published;
                Ok(())
            }
            // The file system does not know this flag: NFS, some FUSE file systems, old kernels.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => self.link_new(target, name),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives it the name `name` in `target` and replaces what is there.
    pub(crate) fn publish_over(mut self, target: &Directory, name: &[u8]) -> io::Result<()> {
        let Name::Temporary(temporary) = &self.name else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a file without a name replaces nothing"));
        };
        retry(|| renameat(&self.directory, temporary.as_slice(), target, name))?;
        self.name = Name::Published;
        Ok(())
    }

    /// The first name of a file that has none.
    fn name_unnamed(mut self, target: &Directory, name: &[u8]) -> io::Result<()> {
        let path = format!("{DESCRIPTORS}/{}", self.file.as_raw_fd());
        retry(|| linkat(CWD, path.as_str(), target, name, AtFlags::SYMLINK_FOLLOW))?;
        self.name = Name::Published;
        Ok(())
    }

    /// A second name; the first is removed when `self` is dropped.
    fn link_new(&self, target: &Directory, name: &[u8]) -> io::Result<()> {
        let Name::Temporary(temporary) = &self.name else { return Ok(()) };
        match retry(|| linkat(&self.directory, temporary.as_slice(), target, name, AtFlags::empty())) {
            Ok(()) => Ok(()),
            // Over a network the answer may be lost and the request sent again: a second name shows
            // that it was this very file that won.
            Err(Errno::EXIST) if fstat(&self.file).is_ok_and(|stat| stat.st_nlink > 1) => Ok(()),
            Err(Errno::PERM | Errno::NOTSUP | Errno::NOSYS) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the file system can neither rename without replacing nor make hard links",
            )),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Name::Temporary(name) = &self.name {
            // What cannot be removed stays behind under its temporary name.
            let _ = self.directory.remove(name);
        }
    }
}

/// Where a descriptor can be named by a path.
const DESCRIPTORS: &str = "/proc/self/fd";

/// A file without a name, for its owner only; `None` where the system or the file system has none.
#[cfg(target_os = "linux")]
fn unnamed(directory: &Directory) -> Option<File> {
    use rustix::fs::{Mode, OFlags, openat};
    static CAN_BE_NAMED: LazyLock<bool> = LazyLock::new(|| std::path::Path::new(DESCRIPTORS).is_dir());
    if !*CAN_BE_NAMED {
        return None;
    }
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    retry(|| openat(directory, c".", flags, Mode::RUSR | Mode::WUSR)).ok().map(File::from)
}

#[cfg(not(target_os = "linux"))]
fn unnamed(_directory: &Directory) -> Option<File> {
    None
}

/// Renames, where nothing has the name yet.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
pub(crate) fn rename_new(
    directory: &Directory,
    temporary: &[u8],
    target: &Directory,
    name: &[u8],
) -> rustix::io::Result<()> {
    use rustix::fs::{RenameFlags, renameat_with};
    retry(|| renameat_with(directory, temporary, target, name, RenameFlags::NOREPLACE))
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
pub(crate) fn rename_new(_: &Directory, _: &[u8], _: &Directory, _: &[u8]) -> rustix::io::Result<()> {
    Err(Errno::NOSYS)
}

/// Makes something under a temporary name that nothing else has, and returns that name.
pub(crate) fn unused_name<T>(prefix: &str, make: impl Fn(&[u8]) -> io::Result<T>) -> io::Result<(Vec<u8>, T)> {
    loop {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{prefix}{:016x}-{number}", *PROCESS).into_bytes();
        match make(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            outcome => return outcome.map(|made| (name, made)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn written(directory: &Directory, content: &[u8]) -> NewFile {
        let new = NewFile::create(Arc::new(directory.duplicate().unwrap()), ".new-").unwrap();
        new.file().write_all(content).unwrap();
        new
    }

    #[test]
    fn publishes_by_renaming_and_by_linking() {
        let here = tempfile::tempdir().unwrap();
        let root = Directory::open(here.path()).unwrap();
        written(&root, b"1").publish_new(&root, b"a").unwrap();
        let error = written(&root, b"2").publish_new(&root, b"a").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        written(&root, b"3").link_new(&root, b"b").unwrap();
        let error = written(&root, b"4").link_new(&root, b"b").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        written(&root, b"5").publish_over(&root, b"b").unwrap();
        drop(written(&root, b"6"));
        assert_eq!(std::fs::read(here.path().join("a")).unwrap(), b"1");
        assert_eq!(std::fs::read(here.path().join("b")).unwrap(), b"5");
        assert_eq!(std::fs::read_dir(here.path()).unwrap().count(), 2, "no temporary names are left");
    }

    #[test]
    fn a_file_without_a_name_is_not_seen_before() {
        let here = tempfile::tempdir().unwrap();
        let root = Arc::new(Directory::open(here.path()).unwrap());
        let Some(_) = unnamed(&root) else {
            eprintln!("SKIPPED: this file system has no files without names");
            return;
        };
        let new = |content: &[u8]| {
            let new = NewFile::create_unnamed(Arc::clone(&root), ".new-").unwrap();
            new.file().write_all(content).unwrap();
            new
        };
        let first = new(b"1");
        assert_eq!(std::fs::read_dir(here.path()).unwrap().count(), 0);
        first.publish_new(&root, b"a").unwrap();
        assert_eq!(new(b"2").publish_new(&root, b"a").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(new(b"3").publish_over(&root, b"a").unwrap_err().kind(), io::ErrorKind::InvalidInput);
        drop(new(b"4"));
        assert_eq!(std::fs::read(here.path().join("a")).unwrap(), b"1");
        assert_eq!(std::fs::read_dir(here.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_whose_answer_was_lost_counts_as_won() {
        let here = tempfile::tempdir().unwrap();
        let root = Directory::open(here.path()).unwrap();
        let new = written(&root, b"1");
        new.link_new(&root, b"a").unwrap();
        new.link_new(&root, b"a").unwrap();
    }
}
