//! What a file system knows of a file, as [`Attributes`], and back.

use std::io;
use std::os::fd::AsFd;

use backup_core::content::Attributes;
use backup_core::time::Timestamp;
use rustix::fs::{
    AtFlags, Gid, Mode, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chownat, fchmod, fchown, fgetxattr,
    fgetxattr_query, flistxattr, flistxattr_query, fsetxattr, futimens, utimensat,
};
use rustix::io::Errno;

use crate::directory::{Directory, number, retry};

/// Set-uid and set-gid: given only to files whose owner was restored, else they would lend somebody
/// else's rights.
const SET_ID: u32 = 0o6000;

/// The attributes that `stat` shows.
pub(super) fn attributes(stat: &Stat) -> Attributes {
    let mut attributes = Attributes::default();
    attributes.mode = u32::try_from(number(stat.st_mode)).ok().map(|mode| mode & 0o7777);
    attributes.uid = Some(stat.st_uid);
    attributes.gid = Some(stat.st_gid);
    attributes.modified = timestamp(stat.st_mtime, stat.st_mtime_nsec);
    attributes.changed = timestamp(stat.st_ctime, stat.st_ctime_nsec);
    attributes.inode = Some(number(stat.st_ino));
    attributes
}

/// The extended attributes of an open file, ascending by name. A file system without them has none.
pub(super) fn extended(file: impl AsFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let file = file.as_fd();
    let names = match sized(|| flistxattr_query(file), |buffer| flistxattr(file, buffer)) {
        Ok(names) => names,
        Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut all = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match sized(|| fgetxattr_query(file, name), |buffer| fgetxattr(file, name, buffer)) {
            Ok(value) => all.push((name.to_vec(), value)),
            // Removed meanwhile, or not for this process.
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS | Errno::NOTSUP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    all.sort();
    Ok(all)
}

/// What a sink restores beside content.
#[derive(Clone, Copy, Debug)]
pub(super) struct Restored {
    pub(super) ownership: bool,
    pub(super) extended: bool,
}

/// Gives an open file or directory its attributes. Goes on after a failure; returns every failure.
pub(super) fn apply(file: impl AsFd, attributes: &Attributes, restored: Restored) -> Vec<io::Error> {
    let file = file.as_fd();
    let mut failures = Vec::new();
    // First the owner: changing it clears the set-id bits and file capabilities.
    let mut is_owner_restored = rustix::fs::fstat(file).is_ok_and(|stat| is_owner(&stat, attributes));
    if restored.ownership && !is_owner_restored {
        let (uid, gid) = owner(attributes);
        match fchown(file, uid, gid) {
            Ok(()) => is_owner_restored = true,
            Err(error) => failures.push(failure("ownership", error)),
        }
    }
    // Then what needs write permission.
    if restored.extended {
        for (name, value) in &attributes.extended {
            if let Err(error) = fsetxattr(file, name.as_slice(), value, XattrFlags::empty()) {
                let name = String::from_utf8_lossy(name);
                failures.push(failure(&format!("extended attribute {name}"), error));
            }
        }
    }
    if let Some(mode) = mode(attributes, is_owner_restored)
        && let Err(error) = fchmod(file, mode)
    {
        failures.push(failure("mode", error));
    }
    if let Some(times) = times(attributes)
        && let Err(error) = futimens(file, &times)
    {
        failures.push(failure("time", error));
    }
    failures
}

/// As [`apply`], for what cannot be opened: links, pipes, devices. They have no extended attributes here.
pub(super) fn apply_at(
    directory: &Directory,
    name: &[u8],
    attributes: &Attributes,
    restored: Restored,
    is_symlink: bool,
) -> Vec<io::Error> {
    let mut failures = Vec::new();
    let mut is_owner_restored = directory.stat(name).is_ok_and(|stat| is_owner(&stat, attributes));
    if restored.ownership && !is_owner_restored {
        let (uid, gid) = owner(attributes);
        match chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) => is_owner_restored = true,
            Err(error) => failures.push(failure("ownership", error)),
        }
    }
    if let Some(mode) = mode(attributes, is_owner_restored).filter(|_| !is_symlink)
        && let Err(error) = change_mode(directory, name, mode)
    {
        failures.push(failure("mode", error));
    }
    if let Some(times) = times(attributes)
        && let Err(error) = utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)
    {
        failures.push(failure("time", error));
    }
    failures
}

/// Changes the mode of what `name` is, never of what it points to.
#[cfg(target_os = "linux")]
fn change_mode(directory: &Directory, name: &[u8], mode: Mode) -> rustix::io::Result<()> {
    use std::os::fd::AsRawFd;

    use rustix::fs::{OFlags, chmod, openat};
    // Linux has learnt to change a mode without following links only lately; a descriptor that names
    // the file without opening it does the same.
    let file = openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    chmod(format!("/proc/self/fd/{}", file.as_raw_fd()), mode)
}

#[cfg(not(target_os = "linux"))]
fn change_mode(directory: &Directory, name: &[u8], mode: Mode) -> rustix::io::Result<()> {
    rustix::fs::chmodat(directory, name, mode, AtFlags::SYMLINK_NOFOLLOW)
}

fn failure(what: &str, error: Errno) -> io::Error {
    let error = io::Error::from(error);
    io::Error::new(error.kind(), format!("{what} cannot be restored: {error}"))
}

fn is_owner(stat: &Stat, attributes: &Attributes) -> bool {
    attributes.uid.is_none_or(|uid| uid == stat.st_uid) && attributes.gid.is_none_or(|gid| gid == stat.st_gid)
}

/// The owner to set. The highest number means "leave as it is" to the system and is no owner.
fn owner(attributes: &Attributes) -> (Option<Uid>, Option<Gid>) {
    let known = |number: &u32| *number != u32::MAX;
    (attributes.uid.filter(known).map(Uid::from_raw), attributes.gid.filter(known).map(Gid::from_raw))
}

fn mode(attributes: &Attributes, is_owner_restored: bool) -> Option<Mode> {
    let mode = attributes.mode? & 0o7777;
    let mode = if is_owner_restored { mode } else { mode & !SET_ID };
    Some(Mode::from_raw_mode(converted(mode)?))
}

fn times(attributes: &Attributes) -> Option<Timestamps> {
    let (seconds, nanoseconds) = attributes.modified?.to_unix();
    Some(Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() },
    })
}

/// The types of these fields differ between systems.
fn timestamp(seconds: impl TryInto<i64>, nanoseconds: impl TryInto<u32>) -> Option<Timestamp> {
    Timestamp::from_unix(converted(seconds)?, converted(nanoseconds)?).ok()
}

fn converted<T>(field: impl TryInto<T>) -> Option<T> {
    field.try_into().ok()
}

/// Reads a value whose size must be asked for before, and may grow meanwhile.
fn sized(
    query: impl Fn() -> rustix::io::Result<usize>,
    read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<u8>> {
    /// The kernel's own limit of names and values is 64 KiB; other systems allow more.
    const LARGEST: usize = 16 << 20;
    loop {
        let size = retry(&query)?;
        if size > LARGEST {
            return Err(Errno::TOOBIG);
        }
        let mut buffer = vec![0; size];
        match retry(|| read(&mut buffer)) {
            Ok(read) => {
                buffer.truncate(read);
                return Ok(buffer);
            }
            Err(Errno::RANGE) => {}
            Err(error) => return Err(error),
        }
    }
}
