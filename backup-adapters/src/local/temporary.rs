//! Files on their way to becoming objects.

use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FileType, FlockOperation, OFlags, flock, fstat, linkat, renameat};
use rustix::io::Errno;

use crate::directory::{Directory, file_type, retry};

/// Where they are, directly below the storage's directory, so that renaming never leaves the file system.
const DIRECTORY: &[u8] = b".tmp";

/// Older ones are removed where no living process of this machine holds them.
const HELD: Duration = Duration::from_secs(60 * 60);

/// Older ones are removed in any case: a write changes the time, and no pause within a put is so long.
const FORGOTTEN: Duration = Duration::from_secs(24 * 60 * 60);

/// Makes names different within a process; other processes are kept apart by exclusive creation.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// A file that nobody sees yet. Dropped before it was published, it is removed.
pub(super) struct Temporary {
    directory: Directory,
    name: String,
    file: File,
    published: bool,
}

impl Temporary {
    /// A new empty file.
    pub(super) fn new(root: &Directory) -> io::Result<Self> {
        let directory = directory(root)?;
        loop {
            let name = format!("{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
            match directory.create_file(name.as_bytes()) {
                Ok(file) => {
                    // Shows that a living process holds it. Without locks, age alone must do.
                    let _ = flock(&file, FlockOperation::NonBlockingLockExclusive);
                    return Ok(Self { directory, name, file, published: false });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes the content and makes it durable.
    pub(super) fn write(&mut self, content: &[u8]) -> io::Result<()> {
        self.file.write_all(content)?;
        self.file.sync_all()
    }

    /// Gives it the name `name` in `target`, which must not exist ([`io::ErrorKind::AlreadyExists`]).
    pub(super) fn publish_new(mut self, target: &Directory, name: &[u8]) -> io::Result<()> {
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
    pub(super) fn publish_over(mut self, target: &Directory, name: &[u8]) -> io::Result<()> {
        retry(|| renameat(&self.directory, self.name.as_str(), target, name))?;
        self.published = true;
        Ok(())
    }

    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    fn rename_new(&self, target: &Directory, name: &[u8]) -> rustix::io::Result<()> {
        use rustix::fs::{RenameFlags, renameat_with};
        retry(|| renameat_with(&self.directory, self.name.as_str(), target, name, RenameFlags::NOREPLACE))
    }

    #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
    fn rename_new(&self, _target: &Directory, _name: &[u8]) -> rustix::io::Result<()> {
        Err(Errno::NOSYS)
    }

    /// A second name; the first is removed when `self` is dropped.
    fn link_new(&self, target: &Directory, name: &[u8]) -> io::Result<()> {
        match retry(|| linkat(&self.directory, self.name.as_str(), target, name, AtFlags::empty())) {
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

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published {
            // What stays behind is removed later.
            let _ = self.directory.remove(self.name.as_bytes());
        }
    }
}

/// Removes what processes that died have left. Whatever fails is left for the next time.
pub(super) fn clean(root: &Directory, now: SystemTime) {
    let Ok(directory) = root.child(DIRECTORY) else { return };
    for child in directory.children().unwrap_or_default() {
        let _ = clean_one(&directory, &child.name, now);
    }
}

fn clean_one(directory: &Directory, name: &[u8], now: SystemTime) -> io::Result<()> {
    if file_type(&directory.stat(name)?) != FileType::RegularFile {
        return Ok(());
    }
    let file = directory.open_file(name, OFlags::RDONLY)?;
    let age = now.duration_since(file.metadata()?.modified()?).unwrap_or_default();
    let is_held = || flock(&file, FlockOperation::NonBlockingLockExclusive).is_err();
    if age > FORGOTTEN || (age > HELD && !is_held()) {
        directory.remove(name)?;
    }
    Ok(())
}

fn directory(root: &Directory) -> io::Result<Directory> {
    match root.child(DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match root.make(DIRECTORY) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            root.child(DIRECTORY)
        }
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn written(root: &Directory, content: &[u8]) -> Temporary {
        let mut temporary = Temporary::new(root).unwrap();
        temporary.write(content).unwrap();
        temporary
    }

    fn left(root: &Path) -> usize {
        std::fs::read_dir(root.join(".tmp")).unwrap().count()
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
        assert_eq!(left(here.path()), 0);
    }

    #[test]
    fn a_link_whose_answer_was_lost_counts_as_won() {
        let here = tempfile::tempdir().unwrap();
        let root = Directory::open(here.path()).unwrap();
        let temporary = written(&root, b"1");
        temporary.link_new(&root, b"a").unwrap();
        temporary.link_new(&root, b"a").unwrap();
    }

    #[test]
    fn removes_only_what_nobody_holds() {
        let here = tempfile::tempdir().unwrap();
        let root = Directory::open(here.path()).unwrap();
        let held = written(&root, b"held");
        std::fs::write(here.path().join(".tmp/dead"), "x").unwrap();
        let now = SystemTime::now();
        clean(&root, now);
        assert_eq!(left(here.path()), 2, "both are too young");
        clean(&root, now + HELD + Duration::from_secs(60));
        assert_eq!(left(here.path()), 1, "a living process holds the other");
        clean(&root, now + FORGOTTEN + Duration::from_secs(60));
        assert_eq!(left(here.path()), 0);
        assert!(held.publish_new(&root, b"a").is_err(), "a put that slept a day fails, loses nothing");
    }
}
