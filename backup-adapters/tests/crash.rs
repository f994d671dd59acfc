//! A process that dies in the middle of writing an object into a directory: what it left there under a temporary name is
//! no object, and nothing else changed.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use backup_adapters::LocalStorage;
use backup_core::crypto::Argon2Parameters;
use backup_core::entropy::SeededEntropy;
use backup_core::keys::Credential;
use backup_core::repository::{
    BackupKind, BackupOptions, Control, Environment, InitOptions, Repository, VerifyLevel, VerifyOptions,
};
use backup_core::secret::Password;
use backup_core::storage::{Capabilities, Key, ListPage, ObjectInfo, PutMode, Storage, StorageError, list_all};
use backup_core::time::{FixedClock, Timestamp};
use bytes::Bytes;

/// How much of the object was in the temporary file when the process died.
#[derive(Clone, Copy, Debug)]
enum Torn {
    Nothing,
    Half,
    /// All of it, not yet published.
    Whole,
    /// It was published, and the first name not yet removed: where files are published by a second link.
    Linked,
}

/// Writes into a directory and dies in the middle of a put.
struct Dying {
    inner: LocalStorage,
    /// Puts that are left.
    left: AtomicUsize,
    torn: Torn,
}

impl Dying {
    fn dead(&self) -> Result<(), StorageError> {
        if self.left.load(Ordering::SeqCst) == 0 {
            Err(StorageError::Other("the process is dead".into()))
        } else {
            Ok(())
        }
    }

    fn die(&self, key: &Key, bytes: &Bytes, mode: PutMode) {
        let temporary = self.inner.path().join(".tmp");
        fs::create_dir_all(&temporary).unwrap();
        let place = temporary.join(format!("{}-{}", std::process::id(), u64::MAX));
        let length = match self.torn {
            Torn::Nothing => 0,
            Torn::Half => bytes.len() / 2,
            Torn::Whole | Torn::Linked => bytes.len(),
        };
        fs::write(&place, &bytes[..length]).unwrap();
        if matches!(self.torn, Torn::Linked) {
            let target = self.inner.path().join(key.as_str());
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            if mode == PutMode::Create {
                // A probe is put twice: the second link fails as it must.
                let _ = fs::hard_link(place, target);
            }
        }
    }
}

impl Storage for Dying {
    fn put(&self, key: &Key, bytes: Bytes, mode: PutMode) -> Result<(), StorageError> {
        self.dead()?;
        if self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.die(key, &bytes, mode);
            return self.dead();
        }
        self.inner.put(key, bytes, mode)
    }
    fn get(&self, key: &Key, limit: u64) -> Result<Bytes, StorageError> {
        self.dead()?;
        self.inner.get(key, limit)
    }
    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StorageError> {
        self.dead()?;
        self.inner.get_range(key, range)
    }
    fn stat(&self, key: &Key) -> Result<ObjectInfo, StorageError> {
        self.dead()?;
        self.inner.stat(key)
    }
    fn list(&self, prefix: &str, after: Option<&Key>) -> Result<ListPage, StorageError> {
        self.dead()?;
        self.inner.list(prefix, after)
    }
    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.dead()?;
        self.inner.delete(key)
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
}

fn environment(seed: u64) -> Environment {
    let clock = FixedClock(Timestamp::from_unix(1_790_000_000, 0).unwrap());
    Environment::new(Arc::new(clock), Arc::new(SeededEntropy::new(seed)))
}

fn open(storage: Arc<dyn Storage>, seed: u64) -> backup_core::Result<Repository> {
    Repository::open(storage, &Credential::from(&Password::from("password")), environment(seed))
}

fn content(number: u64) -> Vec<u8> {
    let mut bytes = vec![0; 30_000];
    SeededEntropy::new(number).fill_all(&mut bytes);
    bytes
}

trait FillAll {
    fn fill_all(&self, bytes: &mut [u8]);
}

impl FillAll for SeededEntropy {
    fn fill_all(&self, bytes: &mut [u8]) {
        backup_core::entropy::Entropy::fill(self, bytes).unwrap();
    }
}

fn control() -> Control {
    Control::default().with_threads(1)
}

fn back_up(repository: &Repository, number: u64) -> backup_core::Result<()> {
    let mut session = repository.begin(BackupOptions::new(BackupKind::Data).with_control(control()))?;
    session.add_stream("data".parse()?, &mut content(number).as_slice())?;
    session.commit().map(drop)
}

fn restored(repository: &Repository, name: &str) -> backup_core::Result<Vec<u8>> {
    let backup = repository.find_backup(name)?;
    let mut out = Vec::new();
    repository.restore_stream(&repository.entry(&backup, &"data".parse()?)?, &mut out, &control())?;
    Ok(out)
}

/// Two backups and a restore. Returns how many backups were acknowledged.
fn process(storage: &Arc<dyn Storage>) -> (usize, backup_core::Result<()>) {
    let mut committed = 0;
    let mut run = || {
        let repository = open(Arc::clone(storage), 5)?;
        for number in 0..2 {
            back_up(&repository, number)?;
            committed += 1;
        }
        assert!(restored(&repository, "latest")? == content(1));
        Ok(())
    };
    let outcome = run();
    (committed, outcome)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let target = to.join(file.file_name());
        if file.file_type().unwrap().is_dir() {
            copy(&file.path(), &target);
        } else {
            fs::copy(file.path(), target).unwrap();
        }
    }
}

#[test]
fn half_written_objects_are_no_objects() {
    // In memory where there is such a place: what counts here is what is seen, not what survives a power cut.
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let place = base.path().join("base");
    let options = InitOptions::default().with_argon2(Argon2Parameters::minimum_for_tests());
    let storage = Arc::new(LocalStorage::create(&place).unwrap());
    Repository::init(storage, &Credential::from(&Password::from("password")), &options, environment(1)).unwrap();

    let mut deaths = 0;
    for number in 1.. {
        let mut ended = false;
        for torn in [Torn::Nothing, Torn::Half, Torn::Whole, Torn::Linked] {
            let what = format!("{torn:?} at put {number}");
            let directory = base.path().join("repository");
            let _ = fs::remove_dir_all(&directory);
            copy(&place, &directory);
            let inner = LocalStorage::open(&directory).unwrap();
            let dying: Arc<dyn Storage> = Arc::new(Dying { inner, left: AtomicUsize::new(number), torn });
            let (committed, outcome) = process(&dying);
            if outcome.is_ok() {
                ended = true;
                break;
            }
            deaths += 1;
            assert!(fs::read_dir(directory.join(".tmp")).unwrap().count() > 0, "{what}");

            let storage: Arc<dyn Storage> = Arc::new(LocalStorage::open(&directory).unwrap());
            let listed = list_all(&*storage, "").unwrap();
            assert!(listed.iter().all(|object| !object.key.as_str().contains("tmp")), "{what}");
            let repository = open(Arc::clone(&storage), 6).unwrap();
            let backups = repository.backups().unwrap();
            // A commit that was published counts, acknowledged or not.
            let possible = committed..=committed + usize::from(matches!(torn, Torn::Linked));
            assert!(possible.contains(&backups.len()), "{what}: {} of {committed}", backups.len());
            for (number, backup) in backups.iter().enumerate() {
                let content = content(number as u64);
                assert!(restored(&repository, &backup.id.to_string()).unwrap() == content, "{what}");
            }
            let sound = |repository: &Repository| {
                let options = VerifyOptions::new(VerifyLevel::Content);
                let report = repository.verify(&options, None, &control()).unwrap();
                assert!(report.ok, "{what}: {:#?}", report.findings);
            };
            sound(&repository);
            back_up(&repository, 7).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(restored(&repository, "latest").unwrap() == content(7), "{what}");
            sound(&repository);
        }
        if ended {
            break;
        }
    }
    assert!(deaths > 40, "{deaths}");
}
