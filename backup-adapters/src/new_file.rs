//! Files that are complete before anybody sees them under their name.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, fstat, linkat, renameat};
use rustix::io::Errno;

use crate::directory::{Directory, retry};

/// Makes names different within a process; other processes are kept apart by exclusive creation.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// A file under a temporary name. Dropped before it was published, it is removed.
#[derive(Debug)]
pub(crate) struct NewFile {
    directory: Directory,
    name: Vec<u8>,
    file: File,
    published: bool,
}

impl NewFile {
    /// A new empty file in `directory`, for its owner only.
    pub(crate) fn create(directory: Directory, prefix: &str) -> io::Result<Self> {
        let (name, file) = unused_name(prefix, |name| directory.create_file(name))?;
        Ok(Self { directory, name, file, published: false })
    }

    /// The open file.
    pub(crate) const fn file(&self) -> &File {
        &self.file
    }

    /// The directory that holds it under its temporary name.
    pub(crate) const fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Gives it the name `name` in `target`, which must not exist ([`io::ErrorKind::AlreadyExists`]).
    pub(crate) fn publish_new(mut self, target: &Directory, name: &[u8]) -> io::Result<()> {
        match self.rename_new(target, name) {
            Ok(()) => {
                self.published = true;
                Ok(())
            }
            // The file system does not know this flag: NFS, some FUSE file systems, old kernels.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => self.link_new(target, name),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives it the name `name` in `target` and replaces what is there.
    pub(crate) fn publish_over(mut self, target: &Directory, name: &[u8]) -> io::Result<()> {
        retry(|| renameat(&self.directory, self.name.as_slice(), target, name))?;
        self.published = true;
        Ok(())
    }

    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    fn rename_new(&self, target: &Directory, name: &[u8]) -> rustix::io::Result<()> {
        use rustix::fs::{RenameFlags, renameat_with};
        retry(|| renameat_with(&self.directory, self.name.as_slice(), target, name, RenameFlags::NOREPLACE))
    }

    #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
    fn rename_new(&self, _target: &Directory, _name: &[u8]) -> rustix::io::Result<()> {
        Err(Errno::NOSYS)
    }

    /// A second name; the first is removed when `self` is dropped.
    fn link_new(&self, target: &Directory, name: &[u8]) -> io::Result<()> {
        match retry(|| linkat(&self.directory, self.name.as_slice(), target, name, AtFlags::empty())) {
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
        if !self.published {
            // What cannot be removed stays behind under its temporary name.
            let _ = self.directory.remove(&self.name);
        }
    }
}

/// Makes something under a temporary name that nothing else has, and returns that name.
pub(crate) fn unused_name<T>(prefix: &str, make: impl Fn(&[u8]) -> io::Result<T>) -> io::Result<(Vec<u8>, T)> {
    loop {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{prefix}{}-{number}", std::process::id()).into_bytes();
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
        let new = NewFile::create(directory.duplicate().unwrap(), ".new-").unwrap();
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
    fn a_link_whose_answer_was_lost_counts_as_won() {
        let here = tempfile::tempdir().unwrap();
        let root = Directory::open(here.path()).unwrap();
        let new = written(&root, b"1");
        new.link_new(&root, b"a").unwrap();
        new.link_new(&root, b"a").unwrap();
    }
}
