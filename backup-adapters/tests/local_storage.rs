//! `LocalStorage` on real file systems.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use backup_adapters::LocalStorage;
use backup_core::Error;
use backup_core::storage::fault::FaultStorage;
use backup_core::storage::{Key, PutMode, Storage, StorageError, conformance, list_all};
use bytes::Bytes;
use support::{Tmpfs, is_root, run_as_nobody};

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn put(storage: &dyn Storage, name: &str, content: &[u8]) -> Result<(), StorageError> {
    storage.put(&key(name), Bytes::copy_from_slice(content), PutMode::Create)
}

fn names(storage: &dyn Storage) -> Vec<String> {
    list_all(storage, "").unwrap().into_iter().map(|object| object.key.to_string()).collect()
}

fn conforms(base: &Path, page_size: usize) {
    let number = AtomicU32::new(0);
    conformance::run(&|| {
        let path = base.join(number.fetch_add(1, Ordering::Relaxed).to_string());
        Box::new(FaultStorage::new(LocalStorage::create(path).unwrap().with_page_size(page_size)))
    })
    .unwrap();
}

#[test]
fn conforms_on_a_disk() {
    for page_size in [LocalStorage::DEFAULT_PAGE_SIZE, 1, 3] {
        conforms(tempfile::tempdir().unwrap().path(), page_size);
    }
}

#[test]
fn conforms_in_memory() {
    if let Some(tmpfs) = Tmpfs::mount("size=200m") {
        conforms(tmpfs.path(), 2);
    }
}

#[test]
fn opening_and_creating() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("a/b/c");
    assert!(matches!(LocalStorage::open(&path), Err(Error::NotFound { name, .. }) if name.ends_with("a/b/c")));
    let storage = LocalStorage::create(&path).unwrap();
    put(&storage, "x/y/object", b"1").unwrap();
    assert_eq!(names(&LocalStorage::create(&path).unwrap()), ["x/y/object"], "creating keeps what exists");
    for directory in ["a", "a/b", "a/b/c", "a/b/c/x", "a/b/c/x/y", "a/b/c/.tmp"] {
        assert_eq!(fs::metadata(base.path().join(directory)).unwrap().mode() & 0o7777, 0o700, "{directory}");
    }
    assert_eq!(fs::metadata(path.join("x/y/object")).unwrap().mode() & 0o7777, 0o600);
    let file = base.path().join("file");
    fs::write(&file, "").unwrap();
    for outcome in [LocalStorage::open(&file), LocalStorage::create(&file), LocalStorage::create(file.join("below"))] {
        assert!(matches!(outcome, Err(Error::Storage { key, .. }) if key.contains("file")));
    }
}

#[test]
fn foreign_names_are_not_objects() {
    let base = tempfile::tempdir().unwrap();
    let storage = LocalStorage::open(base.path()).unwrap();
    put(&storage, "packs/ab/object", b"1").unwrap();
    fs::create_dir_all(base.path().join("lost+found/x")).unwrap();
    fs::create_dir_all(base.path().join("packs/empty")).unwrap();
    for name in ["README", ".hidden", ".tmp/1-1", "packs/ab/object (copy)", "packs/.DS_Store", "packs/Upper"] {
        fs::write(base.path().join(name), "foreign").unwrap();
    }
    fs::write(base.path().join("n".repeat(101)), "too long for a key").unwrap();
    symlink("object", base.path().join("packs/ab/link")).unwrap();
    symlink("packs", base.path().join("linked")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        base.path().join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert_eq!(names(&storage), ["packs/ab/object"]);
    assert!(matches!(storage.get(&key("pipe"), 9), Err(StorageError::NotFound)), "and reading it does not wait");
    assert!(matches!(storage.stat(&key("packs")), Err(StorageError::NotFound)));
    assert!(matches!(storage.get(&key("packs"), 9), Err(StorageError::NotFound)));
    storage.delete(&key("packs/ab")).unwrap();
    assert_eq!(names(&storage), ["packs/ab/object"], "deleting never touches directories");
    assert!(matches!(put(&storage, "packs/ab", b"x"), Err(StorageError::Other(_))), "a directory is in the way");
    assert!(matches!(put(&storage, "packs/ab/object/below", b"x"), Err(StorageError::Other(_))));
}

#[test]
fn links_inside_are_refused() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("object"), "outside").unwrap();
    let base = tempfile::tempdir().unwrap();
    let storage = LocalStorage::open(base.path()).unwrap();
    symlink(outside.path(), base.path().join("dir")).unwrap();
    symlink(outside.path().join("object"), base.path().join("file")).unwrap();
    symlink(outside.path().join("new"), base.path().join("dangling")).unwrap();
    for name in ["dir/object", "file", "dangling"] {
        let key = key(name);
        assert!(matches!(storage.get(&key, 99), Err(StorageError::Other(_))), "{name}");
        assert!(matches!(storage.get_range(&key, 0..1), Err(StorageError::Other(_))), "{name}");
        assert!(matches!(storage.stat(&key), Err(StorageError::Other(_))), "{name}");
        assert!(matches!(put(&storage, name, b"x"), Err(StorageError::Other(_))), "{name}");
    }
    assert!(storage.delete(&key("dir/object")).is_err());
    assert_eq!(fs::read(outside.path().join("object")).unwrap(), b"outside");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    // A link in the place of the directory of temporary files is refused, too.
    let base = tempfile::tempdir().unwrap();
    symlink(outside.path(), base.path().join(".tmp")).unwrap();
    assert!(put(&LocalStorage::open(base.path()).unwrap(), "object", b"x").is_err());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn the_directory_itself_may_be_a_link() {
    let base = tempfile::tempdir().unwrap();
    fs::create_dir(base.path().join("real")).unwrap();
    symlink("real", base.path().join("link")).unwrap();
    put(&LocalStorage::open(base.path().join("link")).unwrap(), "a", b"1").unwrap();
    assert_eq!(fs::read(base.path().join("real/a")).unwrap(), b"1");
}

#[test]
fn two_processes_may_share_it() {
    let base = tempfile::tempdir().unwrap();
    let (one, two) = (LocalStorage::open(base.path()).unwrap(), LocalStorage::open(base.path()).unwrap());
    put(&one, "a/b", b"one").unwrap();
    assert!(matches!(put(&two, "a/b", b"two"), Err(StorageError::AlreadyExists)));
    assert_eq!(two.get(&key("a/b"), 9).unwrap(), "one");
    two.delete(&key("a/b")).unwrap();
    assert!(matches!(one.get(&key("a/b"), 9), Err(StorageError::NotFound)));
    // A directory that another process removed is made again.
    fs::remove_dir(base.path().join("a")).unwrap();
    put(&one, "a/b", b"again").unwrap();
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    let Some(tmpfs) = Tmpfs::mount("size=1m") else { return };
    let storage = LocalStorage::open(tmpfs.path()).unwrap();
    put(&storage, "small", &[1; 1000]).unwrap();
    let free = storage.capabilities().free_bytes.unwrap();
    assert!((1..1 << 20).contains(&free), "{free}");
    assert!(matches!(put(&storage, "large", &vec![2; 2 << 20]), Err(StorageError::Full(_))));
    assert!(matches!(
        storage.put(&key("small"), vec![2; 2 << 20].into(), PutMode::Overwrite),
        Err(StorageError::Full(_))
    ));
    assert_eq!(names(&storage), ["small"]);
    assert_eq!(storage.get(&key("small"), 1000).unwrap(), vec![1; 1000]);
    assert_eq!(fs::read_dir(tmpfs.path().join(".tmp")).unwrap().count(), 0);
    put(&storage, "fits", &[3; 100_000]).unwrap();
}

#[test]
fn a_read_only_mount_can_be_read() {
    let Some(tmpfs) = Tmpfs::mount("size=1m") else { return };
    let storage = LocalStorage::open(tmpfs.path()).unwrap();
    put(&storage, "a/b", b"content").unwrap();
    assert!(!storage.capabilities().read_only);
    tmpfs.remount("ro");
    let storage = LocalStorage::open(tmpfs.path()).unwrap();
    assert!(storage.capabilities().read_only);
    assert_eq!(storage.get(&key("a/b"), 9).unwrap(), "content");
    assert_eq!(names(&storage), ["a/b"]);
    for name in ["a/b", "a/c", "d/e"] {
        let outcome = storage.put(&key(name), Bytes::new(), PutMode::Overwrite);
        assert!(matches!(outcome, Err(StorageError::ReadOnly)), "{name}: {outcome:?}");
    }
    assert!(matches!(storage.delete(&key("a/b")), Err(StorageError::ReadOnly)));
}

#[test]
fn a_directory_without_permission_is_read_only() {
    if is_root() {
        return run_as_nobody("a_directory_without_permission_is_read_only");
    }
    let base = tempfile::tempdir().unwrap();
    let storage = LocalStorage::open(base.path()).unwrap();
    fs::set_permissions(base.path(), fs::Permissions::from_mode(0o500)).unwrap();
    assert!(storage.capabilities().read_only);
    assert!(matches!(put(&storage, "a", b""), Err(StorageError::PermissionDenied(_))));
    fs::set_permissions(base.path(), fs::Permissions::from_mode(0o700)).unwrap();
}

const CRASH_DIRECTORY: &str = "BACKUP_TEST_CRASH_DIRECTORY";

/// The content of object `number`: its length and bytes follow from the number.
fn expected(number: u64) -> Vec<u8> {
    let length = 1 + (number * 7919) % 300_000;
    (0..length).map(|at| ((at * 31 + number) % 251).to_le_bytes()[0]).collect()
}

/// The child of the next test: puts objects and tells of each, until it is killed.
#[test]
fn crash_child() {
    let Some(path) = std::env::var_os(CRASH_DIRECTORY) else { return };
    let storage = LocalStorage::open(path).unwrap();
    let next = std::sync::atomic::AtomicU64::new(names(&storage).len() as u64);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let key = key(&format!("objects/{:x}/{number}", number % 8));
                    match storage.put(&key, expected(number).into(), PutMode::Create) {
                        Ok(()) => println!("stored {number}"),
                        Err(StorageError::AlreadyExists) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                    let fixed = uniform(number);
                    storage.put(&self::key("replaced"), fixed.into(), PutMode::Overwrite).unwrap();
                }
            });
        }
    });
}

fn uniform(number: u64) -> Vec<u8> {
    let byte = (number % 200).to_le_bytes()[0];
    vec![byte; 50_000 + 100 * usize::from(byte)]
}

#[test]
fn a_killed_process_leaves_only_whole_objects() {
    let base = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash_child", "--nocapture"])
            .env(CRASH_DIRECTORY, base.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        // Killed after a number of objects that differs from round to round; no clock is involved.
        while seen < 5 + round * 7 {
            let line = lines.next().expect("the child died by itself").unwrap();
            if let Some(number) = line.rsplit_once("stored ").and_then(|(_, number)| number.parse::<u64>().ok()) {
                acknowledged.insert(number);
                seen += 1;
            }
        }
        child.kill().unwrap();
        for line in lines.map_while(Result::ok) {
            if let Some(number) = line.strip_prefix("stored ").and_then(|number| number.parse::<u64>().ok()) {
                acknowledged.insert(number);
            }
        }
        child.wait().unwrap();

        let storage = LocalStorage::open(base.path()).unwrap();
        let mut visible = BTreeSet::new();
        for object in list_all(&storage, "objects/").unwrap() {
            let number: u64 = object.key.as_str().rsplit_once('/').unwrap().1.parse().unwrap();
            let content = storage.get(&object.key, u64::MAX).unwrap();
            assert!(content == expected(number), "object {number} is not whole: {} bytes", content.len());
            visible.insert(number);
        }
        assert!(acknowledged.is_subset(&visible), "lost: {:?}", acknowledged.difference(&visible));
        let replaced = storage.get(&key("replaced"), u64::MAX).unwrap();
        assert!(replaced == uniform(u64::from(replaced[0])), "the replaced object is a mixture");
    }
    assert!(acknowledged.len() > 50);
}
