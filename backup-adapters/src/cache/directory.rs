//! [`Cache`]: objects in a directory, by the hash of their content.

use std::fs::{File, FileTimes};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rustix::fs::{FileType, OFlags};

use crate::directory::{Directory, create_all, file_type, number};
use crate::new_file::NewFile;

/// Where the objects are, below the directory of the cache.
const OBJECTS: &[u8] = b"objects";

/// Where objects are written before they have their name, below the objects.
const TEMPORARY: &[u8] = b"tmp";

/// Programs that make backups leave directories with this file out. The text is that of the convention.
const TAG: &[u8] = b"CACHEDIR.TAG";
const TAG_CONTENT: &[u8] =
    b"Signature: 8a477f597d28d172789f06886806bc55\n# Copies of objects of backup repositories.\n";

/// The longest object that is kept or read: the limit of the format for packs and index segments.
const LONGEST: u64 = 256 * 1024 * 1024;

/// What a process that died has left is removed when it is so old.
const FORGOTTEN: Duration = Duration::from_secs(60 * 60);

/// A directory of objects that are named by the hash of their content. See the [module](crate::cache).
#[derive(Debug)]
pub struct Cache {
    objects: Directory,
    path: PathBuf,
    limit: u64,
    /// Bytes that this process has added since it looked how much there is.
    added: AtomicU64,
    looked: AtomicBool,
}

/// How much is in a [`Cache`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheUsage {
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Cache {
    /// Bytes, where nobody says otherwise: 4 GiB.
    pub const DEFAULT_LIMIT: u64 = 4 * 1024 * 1024 * 1024;

    /// Opens the cache at `path` and makes the directory where it does not exist. What was used least recently is removed
    /// when there are more than `limit` bytes; each process may be a sixteenth above that before it looks.
    ///
    /// # Errors
    ///
    /// Whatever keeps the directory from being made or opened.
    pub fn open(path: impl Into<PathBuf>, limit: u64) -> io::Result<Self> {
        let path = path.into();
        create_all(&path)?;
        let root = Directory::open(&path)?;
        if let Ok(mut tag) = root.create_file(TAG) {
            tag.write_all(TAG_CONTENT)?;
        }
        let objects = root.child_or_make(OBJECTS)?;
        Ok(Self { objects, path, limit, added: AtomicU64::new(0), looked: AtomicBool::new(false) })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes there may be.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// The object whose content has the hash `name` (64 hexadecimal digits in lower case); `None` where there is no copy,
    /// or none that is right.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Bytes> {
        let directory = self.objects.child(shard(name)?).ok()?;
        let file = directory.open_file(name.as_bytes(), OFlags::RDONLY).ok()?;
        let content = read(&file);
        if let Some(content) = content.filter(|content| is_named(content, name)) {
            // Where the time cannot be set, the copy goes earlier than it should.
            let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
            return Some(content);
        }
        let _ = directory.remove(name.as_bytes());
        None
    }

    /// Keeps a copy of the object `name`. Bytes that have another hash are not kept, nor are those that would take more
    /// than an eighth of the cache. Where keeping fails, nothing is kept.
    pub fn insert(&self, name: &str, content: &[u8]) {
        let length = u64::try_from(content.len()).unwrap_or(u64::MAX);
        if length <= (self.limit / 8).min(LONGEST) && is_named(content, name) && self.write(name, content).is_ok() {
            let added = self.added.fetch_add(length, Ordering::Relaxed).saturating_add(length);
            if added > self.limit / 16 || !self.looked.swap(true, Ordering::Relaxed) {
                self.added.store(0, Ordering::Relaxed);
                self.evict(SystemTime::now());
            }
        }
    }

    /// Removes the copy of an object, where there is one.
    pub fn remove(&self, name: &str) {
        if let Some(directory) = shard(name).and_then(|shard| self.objects.child(shard).ok()) {
            let _ = directory.remove(name.as_bytes());
        }
    }

    /// How much there is.
    ///
    /// # Errors
    ///
    /// Whatever keeps the directory from being read.
    pub fn usage(&self) -> io::Result<CacheUsage> {
        let mut usage = CacheUsage::default();
        self.visit(|_, copy| {
            usage.objects += 1;
            usage.bytes = usage.bytes.saturating_add(copy.length);
        })?;
        Ok(usage)
    }

    /// Removes all copies, and nothing else that may be in the directory. Returns how much that was.
    ///
    /// # Errors
    ///
    /// Whatever keeps the directory from being read, or a copy from being removed.
    pub fn clear(&self) -> io::Result<CacheUsage> {
        let mut usage = CacheUsage::default();
        let mut failed = None;
        self.visit(|directory, copy| match directory.remove(&copy.name) {
            Ok(()) => {
                usage.objects += 1;
                usage.bytes = usage.bytes.saturating_add(copy.length);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => failed = Some(error),
        })?;
        failed.map_or(Ok(usage), Err)
    }

    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let shard = shard(name).ok_or(io::ErrorKind::InvalidInput)?;
        let new = NewFile::create(Arc::new(self.objects.child_or_make(TEMPORARY)?), "")?;
        // Not made durable: what a power cut leaves of it has another hash.
        new.file().write_all(content)?;
        new.publish_over(&self.objects.child_or_make(shard)?, name.as_bytes())
    }

    /// Removes what was used least recently until an eighth of the space is free, and what dead processes have left.
    fn evict(&self, now: SystemTime) {
        if let Ok(temporary) = self.objects.child(TEMPORARY) {
            for child in temporary.children().unwrap_or_default() {
                let age = temporary.stat(&child.name).ok().and_then(|stat| now.duration_since(modified(&stat)).ok());
                if age.is_some_and(|age| age > FORGOTTEN) {
                    let _ = temporary.remove(&child.name);
                }
            }
        }
        let mut copies = Vec::new();
        let mut total = 0_u64;
        let visited = self.visit(|_, copy| {
            total = total.saturating_add(copy.length);
            copies.push(copy);
        });
        if visited.is_err() || total <= self.limit {
            return;
        }
        copies.sort_by_key(|copy| copy.used);
        let enough = self.limit - self.limit / 8;
        for copy in copies {
            if total <= enough {
                return;
            }
            if let Ok(name) = std::str::from_utf8(&copy.name) {
                self.remove(name);
            }
            total = total.saturating_sub(copy.length);
        }
    }

    /// Every copy, and the directory that it stands in.
    fn visit(&self, mut each: impl FnMut(&Directory, Copy)) -> io::Result<()> {
        for child in self.objects.children()? {
            let is_shard = child.kind == FileType::Directory && child.name.len() == 2;
            // Another process may have removed it.
            let Some(shard) = is_shard.then(|| self.objects.child(&child.name).ok()).flatten() else { continue };
            for file in shard.children()? {
                let is_copy = file.name.starts_with(&child.name) && std::str::from_utf8(&file.name).is_ok_and(is_name);
                let Some(stat) = is_copy.then(|| shard.stat(&file.name).ok()).flatten() else { continue };
                if file_type(&stat) == FileType::RegularFile {
                    each(&shard, Copy { name: file.name, length: number(stat.st_size), used: modified(&stat) });
                }
            }
        }
        Ok(())
    }
}

/// A file of the cache.
struct Copy {
    name: Vec<u8>,
    length: u64,
    used: SystemTime,
}

fn modified(stat: &rustix::fs::Stat) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(number(stat.st_mtime), u32::try_from(stat.st_mtime_nsec).unwrap_or(0))
}

/// The directory of an object; `None` for what is no name.
fn shard(name: &str) -> Option<&[u8]> {
    is_name(name).then(|| name.as_bytes().get(..2)).flatten()
}

fn is_name(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_named(content: &[u8], name: &str) -> bool {
    blake3::hash(content).to_hex().as_str() == name
}

fn read(file: &File) -> Option<Bytes> {
    let metadata = file.metadata().ok().filter(|metadata| metadata.is_file() && metadata.len() <= LONGEST)?;
    let length = usize::try_from(metadata.len()).ok()?;
    let mut content = Vec::new();
    content.try_reserve_exact(length).ok()?;
    file.take(metadata.len()).read_to_end(&mut content).ok()?;
    Some(content.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn name(content: &[u8]) -> String {
        blake3::hash(content).to_hex().to_string()
    }

    fn file(cache: &Cache, content: &[u8]) -> PathBuf {
        let name = name(content);
        cache.path().join("objects").join(&name[..2]).join(&name)
    }

    /// Content of `length` bytes, another for each number.
    fn content(number: u8, length: usize) -> Vec<u8> {
        vec![number; length]
    }

    fn used_at(cache: &Cache, content: &[u8], seconds: u64) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let file = fs::OpenOptions::new().write(true).open(file(cache, content)).unwrap();
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
    }

    #[test]
    fn what_was_kept_is_there_for_its_owner_only() {
        let here = tempfile::tempdir().unwrap();
        let cache = Cache::open(here.path().join("a/b"), 1 << 20).unwrap();
        assert_eq!(cache.get(&name(b"x")), None);
        cache.insert(&name(b"x"), b"x");
        cache.insert(&name(b""), b"");
        let another = Cache::open(here.path().join("a/b"), 1 << 20).unwrap();
        assert_eq!(another.get(&name(b"x")).unwrap(), "x");
        assert_eq!(another.get(&name(b"")).unwrap(), "");
        assert_eq!(another.usage().unwrap(), CacheUsage { objects: 2, bytes: 1 });
        assert_eq!(fs::metadata(file(&cache, b"x")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(here.path().join("a")).unwrap().permissions().mode() & 0o777, 0o700);
        let tag = fs::read_to_string(here.path().join("a/b/CACHEDIR.TAG")).unwrap();
        assert!(tag.starts_with("Signature: 8a477f597d28d172789f06886806bc55"), "{tag}");
        assert_eq!(fs::read_dir(here.path().join("a/b/objects/tmp")).unwrap().count(), 0);
    }

    #[test]
    fn a_wrong_byte_anywhere_is_a_miss_and_goes_away() {
        let here = tempfile::tempdir().unwrap();
        let cache = Cache::open(here.path(), 1 << 20).unwrap();
        let content: Vec<u8> = (0..=u8::MAX).collect();
        let path = file(&cache, &content);
        let mut changes: Vec<Vec<u8>> = vec![Vec::new(), content[..255].to_vec(), [&content[..], b"x"].concat()];
        for at in 0..content.len() {
            let mut changed = content.clone();
            changed[at] ^= 1;
            changes.push(changed);
        }
        for changed in changes {
            cache.insert(&name(&content), &content);
            assert!(cache.get(&name(&content)).is_some());
            fs::write(&path, &changed).unwrap();
            assert_eq!(cache.get(&name(&content)), None);
            assert!(!path.exists());
        }
        cache.insert(&name(b"another"), &content);
        assert_eq!(cache.usage().unwrap().objects, 0, "bytes of another name are not kept");
    }

    #[test]
    fn what_is_no_file_and_no_name_is_a_miss() {
        let here = tempfile::tempdir().unwrap();
        let cache = Cache::open(here.path(), 1 << 20).unwrap();
        let path = file(&cache, b"x");
        fs::create_dir_all(&path).unwrap();
        assert_eq!(cache.get(&name(b"x")), None);
        cache.insert(&name(b"x"), b"x");
        fs::remove_dir(&path).unwrap();
        fs::write(here.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink(here.path().join("secret"), &path).unwrap();
        assert_eq!(cache.get(&name(b"x")), None, "links are not followed");
        for bad in ["", "x", "../../secret", &"A".repeat(64), &"0".repeat(63), &"é".repeat(32)] {
            cache.insert(bad, b"x");
            assert_eq!(cache.get(bad), None, "{bad}");
            cache.remove(bad);
        }
        assert!(here.path().join("secret").exists());
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        const LENGTH: usize = 1000;
        let here = tempfile::tempdir().unwrap();
        let cache = Cache::open(here.path(), 20 * 1000).unwrap();
        for number in 0..20 {
            cache.insert(&name(&content(number, LENGTH)), &content(number, LENGTH));
        }
        assert_eq!(cache.usage().unwrap().objects, 20);
        for number in 0..20 {
            used_at(&cache, &content(number, LENGTH), 1000 + u64::from(number));
        }
        // Used now, and so the newest.
        assert!(cache.get(&name(&content(0, LENGTH))).is_some());
        for number in 20..22 {
            cache.insert(&name(&content(number, LENGTH)), &content(number, LENGTH));
        }
        let left: Vec<u8> = (0..22).filter(|number| file(&cache, &content(*number, LENGTH)).exists()).collect();
        let bytes = cache.usage().unwrap().bytes;
        assert!(bytes <= 20_000 + 20_000 / 16, "{bytes} bytes");
        assert!(left.contains(&0) && left.contains(&20) && left.contains(&21), "{left:?}");
        assert!(!left.contains(&1) && !left.contains(&2), "{left:?}");
        assert!(left.contains(&19), "more than necessary was removed: {left:?}");
        let large = content(1, 3000);
        cache.insert(&name(&large), &large);
        assert_eq!(cache.get(&name(&large)), None, "one object must not push out all others");
    }

    #[test]
    fn what_dead_processes_left_goes_away() {
        let here = tempfile::tempdir().unwrap();
        let cache = Cache::open(here.path(), 1 << 20).unwrap();
        let temporary = here.path().join("objects/tmp");
        fs::create_dir_all(&temporary).unwrap();
        for (name, seconds) in [("old", 1000), ("new", 6000)] {
            let file = File::create(temporary.join(name)).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            file.set_times(FileTimes::new().set_modified(time)).unwrap();
        }
        cache.evict(SystemTime::UNIX_EPOCH + Duration::from_secs(6001));
        assert!(!temporary.join("old").exists() && temporary.join("new").exists());
    }

    #[test]
    fn clearing_removes_copies_and_nothing_else() {
        let here = tempfile::tempdir().unwrap();
        let cache = Cache::open(here.path(), 1 << 20).unwrap();
        for number in 0..5 {
            cache.insert(&name(&content(number, 10)), &content(number, 10));
        }
        for other in ["photo.jpg", "objects/photo.jpg", "objects/ab/photo.jpg", "objects/tmp/x"] {
            let path = here.path().join(other);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        assert_eq!(cache.clear().unwrap(), CacheUsage { objects: 5, bytes: 50 });
        assert_eq!(cache.usage().unwrap(), CacheUsage::default());
        for other in ["photo.jpg", "objects/photo.jpg", "objects/ab/photo.jpg", "objects/tmp/x"] {
            assert!(here.path().join(other).exists(), "{other}");
        }
    }

    #[test]
    fn it_may_vanish_while_it_is_used() {
        let here = tempfile::tempdir().unwrap();
        let cache = Cache::open(here.path().join("cache"), 1 << 20).unwrap();
        cache.insert(&name(b"x"), b"x");
        fs::remove_dir_all(here.path().join("cache")).unwrap();
        assert_eq!(cache.get(&name(b"x")), None);
        cache.insert(&name(b"x"), b"x");
        cache.remove(&name(b"x"));
        assert!(!here.path().join("cache").exists());
    }
}
