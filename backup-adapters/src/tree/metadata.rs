//! What a file system knows of a file, as [`Attributes`], and back.

use std::io;
use std::os::fd::AsFd;

use backup_core::content::Attributes;
use backup_core::time::Timestamp;
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chownat, fchmod, fchown,
    fgetxattr, flistxattr, fsetxattr, futimens, lgetxattr, llistxattr, utimensat,
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

/// Bytes of names and values of one file. The kernel has no limit of its own for the sum; an entry has.
const EXTENDED_LIMIT: usize = 1 << 20;

/// Extended attributes, ascending by name, and why some of them are missing.
#[derive(Debug, Default)]
pub(super) struct Extended {
    pub(super) attributes: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) failure: Option<io::Error>,
}

/// The extended attributes of the file `name`, without opening it where that can be avoided.
#[cfg(target_os = "linux")]
pub(super) fn extended(directory: &Directory, name: &[u8]) -> Extended {
    use std::os::fd::AsRawFd;

    let mut path = format!("/proc/self/fd/{}/", directory.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    let path = path.as_slice();
    match read_list(|buffer| llistxattr(path, buffer)) {
        // There is no /proc, or no such file: opening it tells.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => extended_by_opening(directory, name),
        names => read_values(names, |name, buffer| lgetxattr(path, name, buffer)),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn extended(directory: &Directory, name: &[u8]) -> Extended {
    extended_by_opening(directory, name)
}

fn extended_by_opening(directory: &Directory, name: &[u8]) -> Extended {
    match directory.open_file(name, OFlags::RDONLY) {
        Ok(file) => extended_of(file),
        Err(error) => Extended { failure: Some(error), ..Extended::default() },
    }
}

/// The extended attributes of an open file or directory.
pub(super) fn extended_of(file: impl AsFd) -> Extended {
    let file = file.as_fd();
    let names = read_list(|buffer| flistxattr(file, buffer));
    read_values(names, |name, buffer| fgetxattr(file, name, buffer))
}

/// A file system without extended attributes has none.
fn read_list(list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    match sized(list) {
        Err(Errno::NOTSUP | Errno::NOSYS) => Ok(Vec::new()),
        outcome => outcome,
    }
}

fn read_values(
    names: rustix::io::Result<Vec<u8>>,
    get: impl Fn(&[u8], &mut [u8]) -> rustix::io::Result<usize>,
) -> Extended {
    let mut all = Extended::default();
    let mut room = EXTENDED_LIMIT;
    let names = names.unwrap_or_else(|error| {
        all.failure = Some(lost("they", error));
        Vec::new()
    });
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match sized(|buffer| get(name, buffer)) {
            Ok(value) => match room.checked_sub(name.len() + value.len()) {
                Some(left) => {
                    room = left;
                    all.attributes.push((name.to_vec(), value));
                }
                None => all.failure = Some(lost(&String::from_utf8_lossy(name), Errno::TOOBIG)),
            },
            // Removed meanwhile.
            Err(Errno::NODATA) => {}
            Err(error) => all.failure = Some(lost(&String::from_utf8_lossy(name), error)),
        }
    }
    all.attributes.sort();
    all
}

fn lost(what: &str, error: Errno) -> io::Error {
    let error = io::Error::from(error);
    io::Error::new(error.kind(), format!("extended attributes: {what} cannot be read: {error}"))
}

/// What a sink restores beside content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Restored {
    pub(crate) ownership: bool,
    pub(crate) extended: bool,
}

/// Gives an open file or directory its attributes. Goes on after a failure; returns every failure.
pub(crate) fn apply(file: impl AsFd, attributes: &Attributes, restored: Restored) -> Vec<io::Error> {
    let file = file.as_fd();
    let mut failures = Vec::new();
    // First the owner: changing it clears the set-id bits and file capabilities.
    let mut is_owner_restored = rustix::fs::fstat(file).is_ok_and(|stat| is_owner(&stat, attributes));
    if restored.ownership && !is_owner_restored {
        let (uid, gid) = owner(attributes);
        match fchown(file, uid, gid) {
            Ok(()) => is_owner_restored = uid.is_some() && gid.is_some(),
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
            Ok(()) => is_owner_restored = uid.is_some() && gid.is_some(),
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

    use rustix::fs::{chmod, openat};
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

/// Whether it belongs to whom the backup says, both of whom must be known: see [`SET_ID`].
fn is_owner(stat: &Stat, attributes: &Attributes) -> bool {
    attributes.uid == Some(stat.st_uid) && attributes.gid == Some(stat.st_gid)
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

/// Reads a list or value of unknown size: most fit the first buffer, so that one call tells all.
fn sized(read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut size = 256;
    loop {
        let mut buffer = vec![0; size];
        match retry(|| read(&mut buffer)) {
            Ok(read) => {
                buffer.truncate(read);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if size < EXTENDED_LIMIT => size *= 4,
            Err(Errno::RANGE) => return Err(Errno::TOOBIG),
            Err(error) => return Err(error),
        }
    }
}
