//! [`FileSink`]: one file or block device to restore into.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use backup_core::content::Attributes;
use backup_core::source::BlockSink;

use super::device_length;
use crate::directory::{Directory, parent};
use crate::new_file::NewFile;
use crate::sparse;
use crate::tree::OverwritePolicy;
use crate::tree::metadata::{Restored, apply};

/// A file or block device that a restore writes.
///
/// A file is sparse (blocks of 4 KiB that hold nothing but zeros are holes), for its owner only unless
/// [`with_attributes`](Self::with_attributes) says otherwise, and has a temporary name or none until everything was written: a part of it
/// never looks like the whole. A
/// block device is written in place; one that is too small is refused before anything is written.
#[derive(Debug)]
pub struct FileSink {
    file: File,
    target: Target,
    sync: bool,
    attributes: Option<Attributes>,
    /// What of the attributes could not be given to the file.
    problems: Mutex<Vec<io::Error>>,
}

#[derive(Debug)]
enum Target {
    New { new: Mutex<Option<NewFile>>, name: Vec<u8>, policy: OverwritePolicy },
    Device { length: u64 },
}

impl FileSink {
    /// Restores into `path`. A block device, and a file that exists, need
    /// [`OverwritePolicy::Overwrite`]; a link that exists is itself replaced unless it leads to a block device.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`]; whatever keeps it from being created.
    pub fn create(path: impl AsRef<Path>, policy: OverwritePolicy) -> io::Result<Self> {
        let path = path.as_ref();
        if policy == OverwritePolicy::Refuse && path.symlink_metadata().is_ok() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} exists already", path.display())));
        }
        if std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_block_device()) {
            let file = OpenOptions::new().write(true).open(path)?;
            let length = device_length(&file)?;
            return Ok(Self {
                file,
                target: Target::Device { length },
                sync: true,
                attributes: None,
                problems: Mutex::default(),
            });
        }
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.as_bytes().to_vec();
        let directory = Arc::new(Directory::open(parent(path))?);
        let new = match policy {
            OverwritePolicy::Refuse => NewFile::create_unnamed(directory, ".restore-")?,
            OverwritePolicy::Overwrite => NewFile::create(directory, ".restore-")?,
        };
        let file = new.file().try_clone()?;
        // What replaces a good file must be as safe as that was.
        let sync = policy == OverwritePolicy::Overwrite;
        let target = Target::New { new: Mutex::new(Some(new)), name, policy };
        Ok(Self { file, target, sync, attributes: None, problems: Mutex::default() })
    }

    /// Makes the file durable before it is reported as restored. A file that may replace another is in any
    /// case, and so is a device. Default: no; the operating system writes it when it sees fit.
    #[must_use]
    pub const fn with_sync(mut self, yes: bool) -> Self {
        self.sync = self.sync || yes;
        self
    }

    /// Gives the file this mode and these times before it has its name; set-uid and set-gid only where the owner is the same.
    /// Owner and extended attributes are not restored, and a device keeps what it has. Default: a file for its owner only.
    #[must_use]
    pub fn with_attributes(mut self, attributes: &Attributes) -> Self {
        self.attributes = Some(attributes.clone());
        self
    }

    /// What of the attributes could not be given to the file, which is good nevertheless.
    pub fn take_problems(&self) -> Vec<io::Error> {
        std::mem::take(&mut *self.problems.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl BlockSink for FileSink {
    fn begin(&self, length: u64) -> io::Result<()> {
        match self.target {
            Target::Device { length: available } if available < length => Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!("the device has {available} bytes, the content {length}"),
            )),
            _ => Ok(()),
        }
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match self.target {
            Target::New { .. } => sparse::write_at(&self.file, offset, data),
            Target::Device { .. } => self.file.write_all_at(data, offset),
        }
    }

    fn hole(&self, offset: u64, length: u64) -> io::Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        if matches!(self.target, Target::New { .. }) {
            return Ok(());
        }
        // What the device held before must not show through.
        let end = offset.checked_add(length).ok_or(io::ErrorKind::InvalidInput)?;
        let mut at = offset;
        while at < end {
            let part = usize::try_from(end - at).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
            self.file.write_all_at(ZEROS.get(..part).unwrap_or_default(), at)?;
            at = at.saturating_add(u64::try_from(part).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    fn finish(&self, length: u64) -> io::Result<()> {
        self.begin(length)?;
        match &self.target {
            Target::Device { .. } => self.file.sync_all(),
            Target::New { new, name, policy } => {
                let new = new.lock().unwrap_or_else(PoisonError::into_inner).take();
                let new = new.ok_or_else(|| io::Error::other("it was finished before"))?;
                self.file.set_len(length)?;
                if let Some(attributes) = &self.attributes {
                    let failures = apply(&self.file, attributes, Restored { ownership: false, extended: false });
                    self.problems.lock().unwrap_or_else(PoisonError::into_inner).extend(failures);
                }
                if self.sync {
                    self.file.sync_all()?;
                }
                let directory = Arc::clone(new.directory());
                match policy {
                    OverwritePolicy::Refuse => new.publish_new(&directory, name)?,
                    OverwritePolicy::Overwrite => new.publish_over(&directory, name)?,
                }
                if self.sync { directory.sync() } else { Ok(()) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_file_is_seen_when_it_is_complete_and_sparse() {
        let here = tempfile::tempdir().unwrap();
        let path = here.path().join("disk.img");
        let sink = FileSink::create(&path, OverwritePolicy::Refuse).unwrap();
        sink.write_at(5 << 20, b"data").unwrap();
        sink.hole(0, 5 << 20).unwrap();
        assert!(!path.exists());
        sink.finish(16 << 20).unwrap();
        let metadata = path.metadata().unwrap();
        assert_eq!(metadata.len(), 16 << 20);
        assert!(metadata.blocks() * 512 < 1 << 20, "it is not sparse");
        assert!(sink.finish(1).is_err(), "only once");

        let error = FileSink::create(&path, OverwritePolicy::Refuse).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(error.to_string().contains("disk.img"));
        let sink = FileSink::create(&path, OverwritePolicy::Overwrite).unwrap();
        sink.write_at(0, b"new").unwrap();
        drop(sink);
        assert_eq!(path.metadata().unwrap().len(), 16 << 20, "an unfinished one changes nothing");
        let sink = FileSink::create(&path, OverwritePolicy::Overwrite).unwrap();
        sink.write_at(0, b"new").unwrap();
        sink.finish(3).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(here.path()).unwrap().count(), 1, "no temporary names are left");
    }

    #[test]
    fn a_file_that_appears_meanwhile_is_kept() {
        let here = tempfile::tempdir().unwrap();
        let path = here.path().join("f");
        let sink = FileSink::create(&path, OverwritePolicy::Refuse).unwrap();
        std::fs::write(&path, "other").unwrap();
        assert_eq!(sink.finish(0).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"other");
    }
}
