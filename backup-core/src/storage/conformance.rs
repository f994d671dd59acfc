//! What every [`Storage`] must do, as a suite that anybody can run against their own.
//!
//! ```
//! use backup_core::storage::{MemoryStorage, conformance};
//!
//! conformance::run(&|| Box::new(MemoryStorage::new())).unwrap();
//! ```

use std::fmt;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bytes::Bytes;

use crate::length::to_u64;
use crate::storage::{Key, ListPage, ObjectInfo, PutMode, Storage, StorageError, list_all};

/// Runs every rule, each on a new and empty storage from `make`.
///
/// Takes several hundred puts and about 30 MB; storages may be removed when they are dropped.
///
/// # Errors
///
/// The first rule that is broken, and how.
pub fn run(make: &dyn Fn() -> Box<dyn Storage>) -> Result<(), Failure> {
    RULES.iter().try_for_each(|rule| rule.check(&*make()))
}

/// Every rule of the suite, to run them one by one.
pub const RULES: &[Rule] = &[
    Rule { name: "a new storage is empty", test: new_is_empty },
    Rule { name: "what was put is got, byte for byte", test: round_trip },
    Rule { name: "create refuses an existing key and changes nothing", test: create_refuses },
    Rule { name: "overwrite replaces the whole object", test: overwrite_replaces },
    Rule { name: "of racing creates exactly one wins", test: one_create_wins },
    Rule { name: "get honours its limit", test: get_limit },
    Rule { name: "ranges are exact", test: ranges },
    Rule { name: "an empty object is an object", test: empty_object },
    Rule { name: "a large object stays whole", test: large_object },
    Rule { name: "absent objects are not found", test: absent },
    Rule { name: "deleting is idempotent and frees the key", test: deleting },
    Rule { name: "listings are in byte order of keys", test: list_order },
    Rule { name: "a prefix is a plain string prefix", test: list_prefix },
    Rule { name: "a listing begins behind `after`", test: list_after },
    Rule { name: "the longest key works", test: longest_key },
    Rule { name: "many objects are all listed", test: many_objects },
    Rule { name: "readers see whole objects while they are replaced", test: replacing_is_atomic },
    Rule { name: "a created object is whole as soon as it is seen", test: creating_is_atomic },
];

/// One rule of the suite.
#[derive(Clone, Copy)]
pub struct Rule {
    name: &'static str,
    test: fn(&dyn Storage) -> Outcome,
}

impl Rule {
    /// What must hold.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Checks it on a new and empty storage.
    ///
    /// # Errors
    ///
    /// How the rule is broken.
    pub fn check(&self, storage: &dyn Storage) -> Result<(), Failure> {
        (self.test)(storage).map_err(|detail| Failure { rule: self.name, detail })
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rule({:?})", self.name)
    }
}

/// A rule that a storage breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the storage breaks the rule \"{rule}\": {detail}")]
#[non_exhaustive]
pub struct Failure {
    /// The rule.
    pub rule: &'static str,
    /// What was seen.
    pub detail: String,
}

type Outcome<T = ()> = Result<T, String>;

fn new_is_empty(storage: &dyn Storage) -> Outcome {
    equal("list of everything", &done("list", storage.list("", None))?, &ListPage::default())?;
    equal("read_only", &storage.capabilities().read_only, &false)
}

fn round_trip(storage: &dyn Storage) -> Outcome {
    let every_byte: Vec<u8> = (0..=u8::MAX).collect();
    for (name, content) in [
        ("config", b"x".to_vec()),
        ("packs/ab/abcdef", every_byte),
        ("a.b-c_d", b"\r\n\0\x1a".to_vec()),
        ("zeros", vec![0; 70_000]),
    ] {
        let key = key(name)?;
        put(storage, &key, &content, PutMode::Create)?;
        equal(name, &get(storage, &key)?, &Bytes::from(content.clone()))?;
        let info = done("stat", storage.stat(&key))?;
        equal("stat", &info, &ObjectInfo::new(key, to_u64(content.len())))?;
    }
    Ok(())
}

fn create_refuses(storage: &dyn Storage) -> Outcome {
    let key = key("dir/object")?;
    put(storage, &key, b"first", PutMode::Create)?;
    for other in [&b"second"[..], b"", b"first"] {
        match storage.put(&key, Bytes::copy_from_slice(other), PutMode::Create) {
            Err(StorageError::AlreadyExists) => {}
            outcome => return Err(format!("create of an existing key gave {outcome:?}")),
        }
        equal("content after the refused create", &get(storage, &key)?, &Bytes::from_static(b"first"))?;
    }
    Ok(())
}

fn overwrite_replaces(storage: &dyn Storage) -> Outcome {
    let key = key("object")?;
    for content in [&b"overwrite creates"[..], b"a longer content than before", b"short", b"", b"again"] {
        put(storage, &key, content, PutMode::Overwrite)?;
        equal("content", &get(storage, &key)?, &Bytes::copy_from_slice(content))?;
        equal("size", &done("stat", storage.stat(&key))?.size, &to_u64(content.len()))?;
    }
    equal("objects", &done("list", list_all(storage, ""))?.len(), &1)
}

fn one_create_wins(storage: &dyn Storage) -> Outcome {
    const THREADS: u8 = 8;
    for round in 0..16 {
        let key = key(&format!("race/{round}"))?;
        let barrier = Barrier::new(usize::from(THREADS));
        let outcomes = thread::scope(|scope| {
            let racers: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let (key, barrier) = (&key, &barrier);
                    scope.spawn(move || {
                        let content = Bytes::from(vec![thread; 5_000 + usize::from(thread)]);
                        barrier.wait();
                        storage.put(key, content, PutMode::Create)
                    })
                })
                .collect();
            racers.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>()
        });
        let mut winners = Vec::new();
        for (thread, outcome) in (0..THREADS).zip(outcomes) {
            match outcome {
                Ok(Ok(())) => winners.push(thread),
                Ok(Err(StorageError::AlreadyExists)) => {}
                Ok(Err(error)) => return Err(format!("a racing create failed: {}", chain(&error))),
                Err(_) => return Err("a racing create panicked".to_owned()),
            }
        }
        let [winner] = winners.as_slice() else {
            return Err(format!("{} of {THREADS} racing creates succeeded", winners.len()));
        };
        let expected = Bytes::from(vec![*winner; 5_000 + usize::from(*winner)]);
        equal("the winner's content", &(get(storage, &key)? == expected), &true)?;
    }
    Ok(())
}

fn get_limit(storage: &dyn Storage) -> Outcome {
    let key = key("object")?;
    put(storage, &key, b"0123456789", PutMode::Create)?;
    for limit in [10, 11, u64::MAX] {
        let bytes = done("get with a sufficient limit", storage.get(&key, limit))?;
        equal("content", &bytes, &Bytes::from_static(b"0123456789"))?;
    }
    for below in [0, 1, 9] {
        match storage.get(&key, below) {
            Err(StorageError::TooLarge { size: 10, limit }) if limit == below => {}
            outcome => return Err(format!("get of 10 bytes with limit {below} gave {outcome:?}")),
        }
    }
    Ok(())
}

fn ranges(storage: &dyn Storage) -> Outcome {
    let key = key("object")?;
    let content = b"0123456789";
    put(storage, &key, content, PutMode::Create)?;
    for start in 0..=10 {
        for end in start..=10 {
            let bytes = done("get_range", storage.get_range(&key, start..end))?;
            let expected: Bytes =
                (start..end).filter_map(|at| content.get(usize::try_from(at).ok()?).copied()).collect();
            equal(&format!("range {start}..{end}"), &bytes, &expected)?;
        }
    }
    for range in [0..11, 9..11, 10..11, 11..11, 11..12, 0..u64::MAX, u64::MAX - 1..u64::MAX] {
        match storage.get_range(&key, range.clone()) {
            Err(StorageError::OutOfRange { size: 10 }) => {}
            outcome => return Err(format!("range {range:?} of 10 bytes gave {outcome:?}")),
        }
    }
    Ok(())
}

fn empty_object(storage: &dyn Storage) -> Outcome {
    let key = key("empty")?;
    put(storage, &key, b"", PutMode::Create)?;
    equal("size", &done("stat", storage.stat(&key))?.size, &0)?;
    equal("content with limit 0", &done("get", storage.get(&key, 0))?, &Bytes::new())?;
    equal("range 0..0", &done("get_range", storage.get_range(&key, 0..0))?, &Bytes::new())?;
    match storage.get_range(&key, 0..1) {
        Err(StorageError::OutOfRange { size: 0 }) => {}
        outcome => return Err(format!("range 0..1 of an empty object gave {outcome:?}")),
    }
    match storage.put(&key, Bytes::from_static(b"x"), PutMode::Create) {
        Err(StorageError::AlreadyExists) => Ok(()),
        outcome => Err(format!("create over an empty object gave {outcome:?}")),
    }
}

fn large_object(storage: &dyn Storage) -> Outcome {
    // Longer than one part of the usual multipart uploads, and not a multiple of any block.
    let length: u32 = 9 * 1024 * 1024 + 17;
    let content: Bytes =
        (0..length).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()).map(|[top, ..]| top).collect();
    let key = key("large")?;
    done("put", storage.put(&key, content.clone(), PutMode::Create))?;
    equal("size", &done("stat", storage.stat(&key))?.size, &u64::from(length))?;
    equal("whole content", &(done("get", storage.get(&key, u64::from(length)))? == content), &true)?;
    for (start, end) in [(0, 1), (5 * 1024 * 1024 - 3, 5 * 1024 * 1024 + 3), (length - 100, length), (4095, 8_388_609)]
    {
        let bytes = done("get_range", storage.get_range(&key, u64::from(start)..u64::from(end)))?;
        let expected = content.slice(crate::length::index(start)..crate::length::index(end));
        equal(&format!("range {start}..{end}"), &(bytes == expected), &true)?;
    }
    Ok(())
}

fn absent(storage: &dyn Storage) -> Outcome {
    put(storage, &key("dir/present")?, b"x", PutMode::Create)?;
    for name in ["absent", "dir", "dir/absent", "dir/presen", "dir/present.x", "dir/present/below", "other/dir/absent"]
    {
        let key = key(name)?;
        for (operation, outcome) in [
            ("get", storage.get(&key, 100).map(drop)),
            ("get_range", storage.get_range(&key, 0..0).map(drop)),
            ("get_range", storage.get_range(&key, 0..1).map(drop)),
            ("stat", storage.stat(&key).map(drop)),
        ] {
            if !matches!(outcome, Err(StorageError::NotFound)) {
                return Err(format!("{operation} of {name}, which does not exist, gave {outcome:?}"));
            }
        }
    }
    Ok(())
}

fn deleting(storage: &dyn Storage) -> Outcome {
    let (gone, kept) = (key("dir/gone")?, key("dir/kept")?);
    put(storage, &gone, b"1", PutMode::Create)?;
    put(storage, &kept, b"2", PutMode::Create)?;
    for _ in 0..2 {
        done("delete", storage.delete(&gone))?;
        match storage.get(&gone, 100) {
            Err(StorageError::NotFound) => {}
            outcome => return Err(format!("get of a deleted object gave {outcome:?}")),
        }
        let listed = done("list", list_all(storage, ""))?;
        equal("objects left", &listed, &vec![ObjectInfo::new(kept.clone(), 1)])?;
    }
    done("delete of a key never used", storage.delete(&key("never/used")?))?;
    put(storage, &gone, b"again", PutMode::Create)?;
    equal("content of the key used again", &get(storage, &gone)?, &Bytes::from_static(b"again"))
}

/// Keys whose order as bytes differs from an order by directories: `-` and `.` sort before `/`.
const ORDERED: [&str; 14] =
    ["a-", "a-b", "a.b", "a/b", "a/b-c", "a/b.c/d", "a/b0", "a/c/d/e", "a0", "a_", "aa", "b/-", "b/_/x", "b0/0"];

fn list_order(storage: &dyn Storage) -> Outcome {
    for (size, name) in ORDERED.iter().enumerate().rev() {
        put(storage, &key(name)?, &vec![b'x'; size], PutMode::Create)?;
    }
    let listed = done("list", list_all(storage, ""))?;
    let names: Vec<&str> = listed.iter().map(|object| object.key.as_str()).collect();
    equal("keys", &names, &ORDERED.to_vec())?;
    let sizes: Vec<u64> = listed.iter().map(|object| object.size).collect();
    equal("sizes", &sizes, &(0..to_u64(ORDERED.len())).collect())
}

fn list_prefix(storage: &dyn Storage) -> Outcome {
    for name in ORDERED {
        put(storage, &key(name)?, b"x", PutMode::Create)?;
    }
    for prefix in [
        "", "a", "a-", "a-b", "a-bc", "a/", "a/b", "a/b.c", "a/b.c/", "a/b.c/d", "a/b.c/dd", "a/c/d/", "a//", "b",
        "b/", "c", "zzz/", "/", "A",
    ] {
        let expected: Vec<&str> = ORDERED.into_iter().filter(|name| name.starts_with(prefix)).collect();
        let listed = done("list", list_all(storage, prefix))?;
        let names: Vec<&str> = listed.iter().map(|object| object.key.as_str()).collect();
        equal(&format!("keys with prefix {prefix:?}"), &names, &expected)?;
    }
    Ok(())
}

fn list_after(storage: &dyn Storage) -> Outcome {
    for name in ORDERED {
        put(storage, &key(name)?, b"x", PutMode::Create)?;
    }
    let others = ["0", "a", "a/a", "a/b.c", "a/b.c/c", "a/b.c/e", "a/z", "b/a", "b0", "zz"];
    for prefix in ["", "a", "a/", "a/b", "b/"] {
        for after in ORDERED.into_iter().chain(others) {
            let expected: Vec<&str> =
                ORDERED.into_iter().filter(|name| name.starts_with(prefix) && *name > after).collect();
            let page = done("list", storage.list(prefix, Some(&key(after)?)))?;
            let names: Vec<&str> = page.objects.iter().map(|object| object.key.as_str()).collect();
            let what = format!("page with prefix {prefix:?} after {after:?}");
            equal(&what, &names.as_slice(), &expected.get(..names.len()).unwrap_or(&expected))?;
            if names.len() < expected.len() && (names.is_empty() || !page.more) {
                return Err(format!("{what} has {} of {} objects and does not lead on", names.len(), expected.len()));
            }
        }
    }
    Ok(())
}

fn longest_key(storage: &dyn Storage) -> Outcome {
    let component = "k".repeat(Key::MAX_COMPONENT);
    let path = format!("{}/{}", "d".repeat(Key::MAX_COMPONENT), "z".repeat(Key::MAX_LENGTH - Key::MAX_COMPONENT - 1));
    for name in [component, path] {
        let key = key(&name)?;
        put(storage, &key, b"x", PutMode::Create)?;
        equal("listed", &done("list", list_all(storage, &name))?, &vec![ObjectInfo::new(key.clone(), 1)])?;
        done("delete", storage.delete(&key))?;
    }
    Ok(())
}

fn many_objects(storage: &dyn Storage) -> Outcome {
    const THREADS: u32 = 4;
    const EACH: u32 = 64;
    let name = |number: u32| format!("packs/{:02x}/{number:08x}", number % 16);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    (0..EACH).try_for_each(|at| {
                        let number = thread.wrapping_mul(EACH).wrapping_add(at);
                        put(storage, &key(&name(number))?, &number.to_le_bytes(), PutMode::Create)
                    })
                })
            })
            .collect();
        writers.into_iter().try_for_each(|writer| writer.join().map_err(|_| "a writer panicked".to_owned())?)
    })?;
    let mut expected: Vec<String> = (0..THREADS * EACH).map(name).collect();
    expected.sort();
    let listed = done("list", list_all(storage, "packs/"))?;
    let names: Vec<&str> = listed.iter().map(|object| object.key.as_str()).collect();
    equal("keys", &names, &expected.iter().map(String::as_str).collect())?;
    let some = key(&name(77))?;
    equal("one of them", &get(storage, &some)?, &Bytes::copy_from_slice(&77_u32.to_le_bytes()))
}

/// A content that shows whether it is whole: one byte, repeated as often as that byte says.
fn uniform(byte: u8) -> Bytes {
    Bytes::from(vec![byte; usize::from(byte).saturating_mul(1_000).saturating_add(20_000)])
}

fn whole(bytes: &Bytes) -> Outcome {
    match bytes.first() {
        Some(byte) if *bytes == uniform(*byte) => Ok(()),
        _ => Err(format!("a reader saw a mixture or a part of an object: {} bytes", bytes.len())),
    }
}

fn replacing_is_atomic(storage: &dyn Storage) -> Outcome {
    let key = key("object")?;
    done("put", storage.put(&key, uniform(0), PutMode::Create))?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    while !over.load(Ordering::SeqCst) {
                        whole(&done("get", storage.get(&key, 1_000_000))?)?;
                        let start = done("get_range", storage.get_range(&key, 0..20_000))?;
                        if start.iter().any(|byte| Some(byte) != start.first()) {
                            return Err("a range was a mixture of two objects".to_owned());
                        }
                        let size = done("stat", storage.stat(&key))?.size;
                        if size < 20_000 || size % 1_000 != 0 {
                            return Err(format!("stat saw {size} bytes: part of an object"));
                        }
                        let listed = done("list", storage.list("object", None))?.objects.len();
                        equal("objects listed while one is replaced", &listed, &1)?;
                    }
                    Ok(())
                })
            })
            .collect();
        let written = (1..=60).try_for_each(|byte| done("put", storage.put(&key, uniform(byte), PutMode::Overwrite)));
        over.store(true, Ordering::SeqCst);
        let read: Vec<_> = readers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        written?;
        read.into_iter().try_for_each(|outcome| outcome.map_err(|_| "a reader panicked".to_owned())?)
    })?;
    equal("the last content", &(get(storage, &key)? == uniform(60)), &true)
}

fn creating_is_atomic(storage: &dyn Storage) -> Outcome {
    let keys: Vec<Key> = (0..24).map(|number| key(&format!("new/{number}"))).collect::<Outcome<_>>()?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                for key in &keys {
                    match storage.get(key, 1_000_000) {
                        Ok(bytes) => whole(&bytes)?,
                        Err(StorageError::NotFound) => break,
                        Err(error) => return Err(format!("get of an object being created failed: {}", chain(&error))),
                    }
                }
            }
            Ok(())
        });
        let written = keys
            .iter()
            .zip(0..)
            .try_for_each(|(key, byte)| done("put", storage.put(key, uniform(byte), PutMode::Create)));
        over.store(true, Ordering::SeqCst);
        let read = reader.join();
        written?;
        read.map_err(|_| "the reader panicked".to_owned())?
    })
}

fn key(text: &str) -> Outcome<Key> {
    Key::new(text).map_err(|error| error.to_string())
}

fn put(storage: &dyn Storage, key: &Key, content: &[u8], mode: PutMode) -> Outcome {
    done(&format!("put of {key}"), storage.put(key, Bytes::copy_from_slice(content), mode))
}

fn get(storage: &dyn Storage, key: &Key) -> Outcome<Bytes> {
    done(&format!("get of {key}"), storage.get(key, u64::MAX))
}

fn done<T>(what: &str, outcome: Result<T, StorageError>) -> Outcome<T> {
    outcome.map_err(|error| format!("{what} failed: {}", chain(&error)))
}

fn equal<T: PartialEq + fmt::Debug>(what: &str, seen: &T, expected: &T) -> Outcome {
    if seen == expected { Ok(()) } else { Err(format!("{what}: expected {expected:?}, got {seen:?}")) }
}

/// An error with its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::storage::{Capabilities, MemoryStorage};

    /// A memory storage with one defect.
    struct Defective(MemoryStorage, Defect);

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Defect {
        CreateReplaces,
        OverwriteRefused,
        LimitIgnored,
        ShortRanges,
        DeleteOfAbsentFails,
        DirectoryOrder,
        PagesStop,
        AfterIncluded,
        PrefixIsDirectory,
        TruncatesLarge,
    }

    impl Storage for Defective {
        fn put(&self, key: &Key, mut bytes: Bytes, mut mode: PutMode) -> Result<(), StorageError> {
            match self.1 {
                Defect::CreateReplaces => mode = PutMode::Overwrite,
                Defect::OverwriteRefused => mode = PutMode::Create,
                Defect::TruncatesLarge => bytes.truncate(8 << 20),
                _ => {}
            }
            self.0.put(key, bytes, mode)
        }
        fn get(&self, key: &Key, limit: u64) -> Result<Bytes, StorageError> {
            self.0.get(key, if self.1 == Defect::LimitIgnored { u64::MAX } else { limit })
        }
        fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StorageError> {
            let size = self.0.stat(key)?.size;
            let short = range.start.min(size)..range.end.min(size);
            self.0.get_range(key, if self.1 == Defect::ShortRanges { short } else { range })
        }
        fn stat(&self, key: &Key) -> Result<ObjectInfo, StorageError> {
            self.0.stat(key)
        }
        fn list(&self, prefix: &str, after: Option<&Key>) -> Result<ListPage, StorageError> {
            let mut page = self.0.list(prefix, after)?;
            match self.1 {
                Defect::DirectoryOrder => {
                    page.objects.sort_by(|a, b| a.key.as_str().split('/').cmp(b.key.as_str().split('/')));
                }
                Defect::PagesStop => page.more = false,
                Defect::AfterIncluded => {
                    if let Some(info) = after.and_then(|key| self.0.stat(key).ok()) {
                        page.objects.insert(0, info);
                    }
                }
                Defect::PrefixIsDirectory => page
                    .objects
                    .retain(|object| prefix.is_empty() || prefix.ends_with('/') || object.key.as_str() == prefix),
                _ => {}
            }
            Ok(page)
        }
        fn delete(&self, key: &Key) -> Result<(), StorageError> {
            if self.1 == Defect::DeleteOfAbsentFails {
                self.0.stat(key)?;
            }
            self.0.delete(key)
        }
        fn capabilities(&self) -> Capabilities {
            self.0.capabilities()
        }
    }

    #[test]
    fn finds_every_defect() {
        for (defect, rule) in [
            (Defect::CreateReplaces, "create refuses an existing key and changes nothing"),
            (Defect::OverwriteRefused, "overwrite replaces the whole object"),
            (Defect::LimitIgnored, "get honours its limit"),
            (Defect::ShortRanges, "ranges are exact"),
            (Defect::DeleteOfAbsentFails, "deleting is idempotent and frees the key"),
            (Defect::DirectoryOrder, "listings are in byte order of keys"),
            (Defect::PagesStop, "listings are in byte order of keys"),
            (Defect::AfterIncluded, "listings are in byte order of keys"),
            (Defect::PrefixIsDirectory, "a prefix is a plain string prefix"),
            (Defect::TruncatesLarge, "a large object stays whole"),
        ] {
            let failure = run(&|| Box::new(Defective(MemoryStorage::new().with_page_size(5), defect))).unwrap_err();
            assert_eq!(failure.rule, rule, "{defect:?}: {failure}");
        }
    }
}
