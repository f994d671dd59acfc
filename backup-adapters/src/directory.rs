//! An open directory: everything below it is reached from its descriptor, one component at a time,
//! and no symbolic link is ever followed. So nothing that is planted or moved meanwhile leads elsewhere.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fchmod, fstat, mkdirat, openat, statat, unlinkat};
use rustix::io::Errno;

/// A directory that is open for reading.
#[derive(Debug)]
pub(crate) struct Directory(OwnedFd);

/// What stands in a directory.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) name: Vec<u8>,
    /// [`FileType::Unknown`] only where it vanished meanwhile.
    pub(crate) kind: FileType,
}

impl Directory {
    /// Opens the directory that the caller named; links in this path are the caller's wish.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(retry(|| rustix::fs::open(path, flags, Mode::empty()))?))
    }

    /// Opens the directory `name` in this one.
    ///
    /// A symbolic link gives `ELOOP` on every system.
    pub(crate) fn child(&self, name: &[u8]) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match retry(|| openat(&self.0, name, flags, Mode::empty())) {
            Ok(descriptor) => Ok(Self(descriptor)),
            Err(Errno::NOTDIR | Errno::MLINK) if self.is_symlink(name) => Err(Errno::LOOP.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the directory at `path`, components joined by `/`, below this one; itself for an empty path.
    ///
    /// Where the system can, in one step for many components.
    pub(crate) fn below(&self, path: &[u8]) -> io::Result<Self> {
        if path.is_empty() {
            return self.duplicate();
        }
        if let Some(outcome) = self.below_at_once(path) {
            return outcome;
        }
        let mut components = path.split(|byte| *byte == b'/');
        let first = self.child(components.next().unwrap_or_default())?;
        components.try_fold(first, |directory, name| directory.child(name))
    }

    /// `None` where the system does not know this call, or something calls for a closer look.
    #[cfg(target_os = "linux")]
    fn below_at_once(&self, path: &[u8]) -> Option<io::Result<Self>> {
        use rustix::fs::{ResolveFlags, openat2};
        /// The system takes paths of less than 4096 bytes.
        const PATH: usize = 4000;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let open = |from: &OwnedFd, path: &[u8]| retry(|| openat2(from, path, flags, Mode::empty(), resolve)).ok();
        let mut rest = path;
        let mut directory = None;
        while !rest.is_empty() {
            let (part, after) = match rest.get(..PATH).and_then(|part| part.iter().rposition(|byte| *byte == b'/')) {
                Some(slash) => (rest.get(..slash)?, rest.get(slash + 1..)?),
                None => (rest, &[][..]),
            };
            directory = Some(open(directory.as_ref().unwrap_or(&self.0), part)?);
            rest = after;
        }
        directory.map(|directory| Ok(Self(directory)))
    }

    #[cfg(not(target_os = "linux"))]
    fn below_at_once(&self, _path: &[u8]) -> Option<io::Result<Self>> {
        None
    }

    /// Opens `name` in this directory with `flags`, never through a link and without waiting for the
    /// other end of a pipe.
    pub(crate) fn open_file(&self, name: &[u8], flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        Ok(File::from(retry(|| openat(&self.0, name, flags, Mode::empty()))?))
    }

    /// Creates the new file `name`, readable and writable by its owner whatever the umask says.
    pub(crate) fn create_file(&self, name: &[u8]) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let descriptor = retry(|| openat(&self.0, name, flags, mode))?;
        fchmod(&descriptor, mode)?;
        Ok(File::from(descriptor))
    }

    /// Creates the directory `name`, for its owner only whatever the umask says.
    pub(crate) fn make(&self, name: &[u8]) -> io::Result<()> {
        Ok(retry(|| mkdirat(&self.0, name, Mode::RWXU))?)
    }

    /// Opens the directory `name` in this one; made where it is missing, also by somebody else meanwhile.
    pub(crate) fn child_or_make(&self, name: &[u8]) -> io::Result<Self> {
        match self.child(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match self.make(name) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                    _ => {}
                }
                self.child(name)
            }
            outcome => outcome,
        }
    }

    /// What is known of `name`; of a link, not of what it points to.
    pub(crate) fn stat(&self, name: &[u8]) -> io::Result<Stat> {
        Ok(retry(|| statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW))?)
    }

    /// What is known of the directory itself.
    pub(crate) fn stat_self(&self) -> io::Result<Stat> {
        Ok(retry(|| fstat(&self.0))?)
    }

    /// Removes `name`, which is not a directory.
    pub(crate) fn remove(&self, name: &[u8]) -> io::Result<()> {
        Ok(retry(|| unlinkat(&self.0, name, AtFlags::empty()))?)
    }

    /// Everything in it but `.` and `..`, in no order.
    pub(crate) fn children(&self) -> io::Result<Vec<Child>> {
        let mut children = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let kind = match entry.file_type() {
                // Some file systems do not tell.
                FileType::Unknown => self.stat(name).map_or(FileType::Unknown, |stat| file_type(&stat)),
                kind => kind,
            };
            children.push(Child { name: name.to_vec(), kind });
        }
        Ok(children)
    }

    /// Makes names that were created, renamed and removed in it durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        match File::from(self.0.try_clone()?).sync_all() {
            // Some network and FUSE file systems cannot sync directories; there is nothing more to do.
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::INVAL | Errno::NOTSUP)) => Ok(()),
            outcome => outcome,
        }
    }

    /// A second descriptor of the same directory.
    pub(crate) fn duplicate(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    fn is_symlink(&self, name: &[u8]) -> bool {
        self.stat(name).is_ok_and(|stat| file_type(&stat) == FileType::Symlink)
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes a directory and its missing ancestors, for their owner only, durably.
pub(crate) fn create_all(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> =
        path.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.is_dir()).collect();
    for path in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => fs::set_permissions(path, Permissions::from_mode(0o700))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        Directory::open(parent(path))?.sync()?;
    }
    Ok(())
}

/// The directory in which `path` stands.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What tells a file from all others: its file system and its inode.
pub(crate) fn identity(stat: &Stat) -> (u64, u64) {
    (number(stat.st_dev), number(stat.st_ino))
}

/// The types of the fields of [`Stat`] differ between systems.
pub(crate) fn number(field: impl TryInto<u64>) -> u64 {
    field.try_into().unwrap_or(u64::MAX)
}

/// The type of what `stat` describes.
pub(crate) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Calls again what a signal interrupted.
pub(crate) fn retry<T>(call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    rustix::io::retry_on_intr(call)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn links_are_never_followed() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "x").unwrap();
        let here = tempfile::tempdir().unwrap();
        symlink(outside.path(), here.path().join("dir")).unwrap();
        symlink(outside.path().join("secret"), here.path().join("file")).unwrap();
        let directory = Directory::open(here.path()).unwrap();
        let eloop = Some(Errno::LOOP.raw_os_error());
        assert_eq!(directory.child(b"dir").unwrap_err().raw_os_error(), eloop);
        assert_eq!(directory.open_file(b"file", OFlags::RDONLY).unwrap_err().raw_os_error(), eloop);
        assert!(directory.create_file(b"file").is_err());
        assert_eq!(file_type(&directory.stat(b"file").unwrap()), FileType::Symlink);
    }

    #[test]
    fn deep_directories_are_reached() {
        let outside = tempfile::tempdir().unwrap();
        let here = tempfile::tempdir().unwrap();
        let root = Directory::open(here.path()).unwrap();
        let mut path = Vec::new();
        let mut deepest = root.duplicate().unwrap();
        for level in 0..200 {
            let name = format!("{level:0>100}");
            deepest.make(name.as_bytes()).unwrap();
            deepest = deepest.child(name.as_bytes()).unwrap();
            if level > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            assert_eq!(
                identity(&root.below(&path).unwrap().stat_self().unwrap()),
                identity(&deepest.stat_self().unwrap())
            );
        }
        path.extend_from_slice(b"/missing");
        assert_eq!(root.below(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        symlink(outside.path(), here.path().join("link")).unwrap();
        fs::create_dir(outside.path().join("in")).unwrap();
        let eloop = Some(Errno::LOOP.raw_os_error());
        for path in [&b"link"[..], b"link/in"] {
            assert_eq!(root.below(path).unwrap_err().raw_os_error(), eloop);
        }
        assert_eq!(identity(&root.below(b"").unwrap().stat_self().unwrap()), identity(&root.stat_self().unwrap()));
    }

    #[test]
    fn modes_do_not_depend_on_the_caller() {
        let here = tempfile::tempdir().unwrap();
        let directory = Directory::open(here.path()).unwrap();
        let file = directory.create_file(b"f").unwrap();
        directory.make(b"d").unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::metadata(here.path().join("d")).unwrap().mode() & 0o7777, 0o700);
        assert!(directory.create_file(b"f").is_err(), "only new files");
        let mut names: Vec<_> =
            directory.children().unwrap().into_iter().map(|child| (child.name, child.kind)).collect();
        names.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(names, [(b"d".to_vec(), FileType::Directory), (b"f".to_vec(), FileType::RegularFile)]);
    }
}
