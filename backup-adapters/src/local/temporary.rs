//! Files on their way to becoming objects.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::{FileType, FlockOperation, OFlags, flock};

use crate::directory::{Directory, file_type};
use crate::new_file::NewFile;

/// Where they are, directly below the storage's directory, so that renaming never leaves the file system.
const DIRECTORY: &[u8] = b".tmp";

/// Older ones are removed where no living process of this machine holds them.
const HELD: Duration = Duration::from_secs(60 * 60);

/// Older ones are removed in any case: a write changes the time, and no pause within a put is so long.
const FORGOTTEN: Duration = Duration::from_secs(24 * 60 * 60);

/// A file that nobody sees yet, held by this process.
pub(super) fn create(root: &Directory) -> io::Result<NewFile> {
    let new = NewFile::create(Arc::new(root.child_or_make(DIRECTORY)?), "")?;
    // Shows that a living process holds it. Without locks, age alone must do.
    let _ = flock(new.file(), FlockOperation::NonBlockingLockExclusive);
    Ok(new)
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn left(root: &Path) -> usize {
        std::fs::read_dir(root.join(".tmp")).unwrap().count()
    }

    #[test]
    fn removes_only_what_nobody_holds() {
        let here = tempfile::tempdir().unwrap();
        let root = Directory::open(here.path()).unwrap();
        let held = create(&root).unwrap();
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
