//! [`SharedFile`]: one file that several processes restore together.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use backup_core::source::BlockSink;
use rustix::fs::{AtFlags, Mode, OFlags, linkat, openat, renameat};
use rustix::io::Errno;

use crate::directory::{Directory, parent, retry};
use crate::new_file::rename_new;
use crate::sparse;
use crate::tree::OverwritePolicy;

/// A file that shards of a restore write, each its own ranges, in any number of processes, on one machine or on several with a
/// file system in common.
///
/// It stands beside its target under a name that is made of `id`, the same for all shards of one restore and for no other,
/// until it is [published](Self::publish): a part never looks like the whole. It is sparse, and for its owner only.
#[derive(Debug)]
pub struct SharedFile {
    directory: Directory,
    /// The name until it is whole.
    unfinished: Vec<u8>,
    name: Vec<u8>,
    target: PathBuf,
    file: File,
}

impl SharedFile {
    /// The file of the restore `id` into `target`; made where no shard has made it. With [`OverwritePolicy::Refuse`], `target`
    /// must not exist.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`]; whatever keeps it from being made.
    pub fn open(target: impl AsRef<Path>, id: &str, policy: OverwritePolicy) -> io::Result<Self> {
        let target = target.as_ref();
        if policy == OverwritePolicy::Refuse && target.symlink_metadata().is_ok() {
            return Err(exists(target));
        }
        Self::with_flags(target, id, OFlags::CREATE)
    }

    /// The same where shards have made it.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] where none has; whatever keeps it from being opened.
    pub fn existing(target: impl AsRef<Path>, id: &str) -> io::Result<Self> {
        Self::with_flags(target.as_ref(), id, OFlags::empty())
    }

    fn with_flags(target: &Path, id: &str, flags: OFlags) -> io::Result<Self> {
        let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?.as_bytes().to_vec();
        let directory = Directory::open(parent(target))?;
        let unfinished = format!(".restore-{id}").into_bytes();
        // Who can write here must not be able to lead the content elsewhere.
        let flags = flags | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = File::from(retry(|| openat(&directory, unfinished.as_slice(), flags, Mode::RUSR | Mode::WUSR))?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other(format!(".restore-{id} beside {} is no file", target.display())));
        }
        Ok(Self { directory, unfinished, name, target: target.to_path_buf(), file })
    }

    /// Tells this file from another that came to stand in its place: shards that wrote to different files are no whole.
    ///
    /// # Errors
    ///
    /// Where its metadata cannot be read.
    pub fn identity(&self) -> io::Result<String> {
        let metadata = self.file.metadata()?;
        // Numbers of files are used again; not every file system says when one was made.
        let made = metadata.created().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        Ok(format!("{}-{}", metadata.ino(), made.map_or(0, |made| made.as_nanos())))
    }

    /// Gives it the name of its target, durably: for who knows that all shards are complete.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`] where the target exists and may not be replaced, [`io::ErrorKind::InvalidData`] where
    /// the file is not `length` bytes long; the file is kept.
    pub fn publish(self, length: u64, policy: OverwritePolicy) -> io::Result<()> {
        let found = self.file.metadata()?.len();
        if found != length {
            let message = format!("{} has {found} bytes instead of {length}", self.target.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        self.file.sync_all()?;
        let (directory, old, new) = (&self.directory, self.unfinished.as_slice(), self.name.as_slice());
        if policy == OverwritePolicy::Overwrite {
            retry(|| renameat(directory, old, directory, new))?;
        } else {
            match rename_new(directory, old, directory, new) {
                Ok(()) => {}
                Err(Errno::EXIST) => return Err(exists(&self.target)),
                // The file system does not know this flag.
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                    match retry(|| linkat(directory, old, directory, new, AtFlags::empty())) {
                        Ok(()) => self.directory.remove(old)?,
                        Err(Errno::EXIST) => return Err(exists(&self.target)),
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.directory.sync()
    }
}

impl BlockSink for SharedFile {
    fn begin(&self, length: u64) -> io::Result<()> {
        // Nobody writes behind it, so that shards that do this at once take nothing from each other.
        self.file.set_len(length)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        sparse::write_at(&self.file, offset, data)
    }

    fn hole(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    /// What a shard reports as restored must outlive the machine, as nobody restores it again.
    fn finish(&self, _: u64) -> io::Result<()> {
        self.file.sync_all()
    }
}

fn exists(target: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::AlreadyExists, format!("{} exists already", target.display()))
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn shards_write_one_file_that_is_seen_when_it_is_whole() {
        let here = tempfile::tempdir().unwrap();
        let target = here.path().join("disk.img");
        let open = || SharedFile::open(&target, "one", OverwritePolicy::Refuse).unwrap();
        assert_eq!(SharedFile::existing(&target, "one").unwrap_err().kind(), io::ErrorKind::NotFound);
        let (first, second) = (open(), open());
        for shard in [&first, &second] {
            shard.begin(16 << 20).unwrap();
        }
        second.write_at(8 << 20, b"second").unwrap();
        first.write_at(0, b"first").unwrap();
        // A third is of another restore, and in nobody's way.
        let other = SharedFile::open(&target, "two", OverwritePolicy::Refuse).unwrap();
        other.begin(5).unwrap();
        for shard in [&first, &second] {
            shard.finish(16 << 20).unwrap();
        }
        assert!(!target.exists());
        let error = SharedFile::existing(&target, "one").unwrap().publish(1, OverwritePolicy::Refuse).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        SharedFile::existing(&target, "one").unwrap().publish(16 << 20, OverwritePolicy::Refuse).unwrap();
        let bytes = std::fs::read(&target).unwrap();
        assert_eq!((&bytes[..5], &bytes[8 << 20..][..6], bytes.len()), (&b"first"[..], &b"second"[..], 16 << 20));
        let metadata = target.metadata().unwrap();
        assert!(metadata.blocks() * 512 < 1 << 20, "it is not sparse");
        assert_eq!(metadata.mode() & 0o777, 0o600);

        // The name is taken now: what another restore made is kept.
        assert_eq!(
            SharedFile::open(&target, "two", OverwritePolicy::Refuse).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        let refused = SharedFile::existing(&target, "two").unwrap().publish(5, OverwritePolicy::Refuse).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        SharedFile::existing(&target, "two").unwrap().publish(5, OverwritePolicy::Overwrite).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), [0; 5]);
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let here = tempfile::tempdir().unwrap();
        let victim = here.path().join("victim");
        std::fs::write(&victim, "kept").unwrap();
        std::os::unix::fs::symlink(&victim, here.path().join(".restore-one")).unwrap();
        assert!(SharedFile::open(here.path().join("f"), "one", OverwritePolicy::Refuse).is_err());
        assert_eq!(std::fs::read(&victim).unwrap(), b"kept");
    }
}
