//! A repository behind a cache: the same results, fewer requests, and no trust in what is on the disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use backup_adapters::OsClock;
use backup_adapters::cache::{Cache, CachedStorage};
use backup_core::crypto::Argon2Parameters;
use backup_core::entropy::OsEntropy;
use backup_core::keys::Credential;
use backup_core::repository::{
    Backup, BackupKind, BackupOptions, Control, Environment, InitOptions, LockedRepository, Parent, Repository,
    VerifyLevel, VerifyOptions,
};
use backup_core::secret::Password;
use backup_core::storage::fault::{FaultStorage, OperationKind};
use backup_core::storage::{Key, MemoryStorage, PutMode, Storage, conformance, list_all};
use bytes::Bytes;
use tempfile::TempDir;

type Remote = Arc<FaultStorage<MemoryStorage>>;

const PASSWORD: &str = "cached";

fn environment() -> Environment {
    Environment::new(Arc::new(OsClock), Arc::new(OsEntropy))
}

fn control() -> Control {
    Control::default().with_threads(2)
}

/// A repository that is far away, and a directory for copies.
struct World {
    remote: Remote,
    place: TempDir,
}

impl World {
    fn new() -> Self {
        let remote: Remote = Arc::new(FaultStorage::new(MemoryStorage::new()));
        let options = InitOptions::default().with_argon2(Argon2Parameters::minimum_for_tests());
        let password = Password::from(PASSWORD);
        Repository::init(
            Arc::clone(&remote) as Arc<dyn Storage>,
            &Credential::from(&password),
            &options,
            environment(),
        )
        .unwrap();
        Self { remote, place: tempfile::tempdir().unwrap() }
    }

    fn cache(&self) -> PathBuf {
        self.place.path().join("cache")
    }

    /// As another process would open it.
    fn open(&self, limit: u64) -> Repository {
        let cache = Arc::new(Cache::open(self.cache(), limit).unwrap());
        let storage = Arc::new(CachedStorage::new(Arc::clone(&self.remote), cache));
        Repository::open(storage, &Credential::from(&Password::from(PASSWORD)), environment()).unwrap()
    }

    /// The keys of reads since operation `from`.
    fn reads(&self, from: usize) -> Vec<String> {
        let reads = self.remote.log().into_iter().skip(from);
        let reads = reads.filter(|read| matches!(read.kind, OperationKind::Get | OperationKind::GetRange));
        reads.map(|read| read.key).collect()
    }

    /// The files with copies.
    fn copies(&self) -> Vec<PathBuf> {
        let mut copies = Vec::new();
        for shard in fs::read_dir(self.cache().join("objects")).unwrap() {
            let shard = shard.unwrap();
            if shard.file_name() != "tmp" {
                copies.extend(fs::read_dir(shard.path()).unwrap().map(|file| file.unwrap().path()));
            }
        }
        copies.sort();
        copies
    }
}

/// Different in every part, and as long as several packs of pages refer to.
fn content(seed: u8) -> Vec<u8> {
    let mut hash = blake3::Hasher::new();
    hash.update(&[seed]);
    let mut content = vec![0; 3 << 20];
    hash.finalize_xof().fill(&mut content);
    content
}

fn store(repository: &Repository, content: &[u8]) -> Backup {
    let options = BackupOptions::new(BackupKind::Data).with_control(control()).with_parent(Parent::None);
    let mut session = repository.begin(options).unwrap();
    for number in 0..40 {
        session
            .add_stream(format!("stream-{number:02}").parse().unwrap(), &mut &content[number..number + 100])
            .unwrap();
    }
    session.add_stream("large".parse().unwrap(), &mut &*content).unwrap();
    session.commit().unwrap()
}

fn check(repository: &Repository, backup: &Backup, content: &[u8]) {
    let read = |name: &str| {
        let mut read = Vec::new();
        let entry = repository.entry(backup, &name.parse().unwrap()).unwrap();
        repository.restore_stream(&entry, &mut read, &control()).unwrap();
        read
    };
    assert!(read("large") == content, "the content differs");
    for number in [0, 39] {
        assert_eq!(read(&format!("stream-{number:02}")), &content[number..number + 100]);
    }
    assert_eq!(repository.entries(backup).unwrap().count(), 41);
}

#[test]
fn it_conforms() {
    conformance::run(&|| {
        let place = tempfile::tempdir().unwrap();
        let cache = Arc::new(Cache::open(place.path(), 1 << 30).unwrap());
        // Its directory vanishes at once, which must not matter.
        Box::new(CachedStorage::new(MemoryStorage::new().with_page_size(7), cache))
    })
    .unwrap();
}

#[test]
fn metadata_is_fetched_once() {
    let world = World::new();
    let content = content(1);
    let backup = store(&world.open(1 << 30), &content);
    fs::remove_dir_all(world.cache()).unwrap();

    let before = world.remote.log().len();
    check(&world.open(1 << 30), &backup, &content);
    let cold = world.reads(before);
    let before = world.remote.log().len();
    check(&world.open(1 << 30), &backup, &content);
    let warm = world.reads(before);

    let kept = |keys: &[String]| keys.iter().filter(|key| key.starts_with("index/")).count();
    assert_eq!(kept(&cold), 1, "{cold:?}");
    assert_eq!(kept(&warm), 0, "{warm:?}");
    // Of the packs, only those with content are asked for.
    let packs = |keys: &[String]| {
        let mut packs: Vec<_> = keys.iter().filter(|key| key.starts_with("packs/")).cloned().collect();
        packs.sort();
        packs.dedup();
        packs
    };
    assert!(packs(&warm).len() < packs(&cold).len(), "cold {:?}, warm {:?}", packs(&cold), packs(&warm));
    for pack in packs(&warm) {
        let header = world.remote.inner().get_range(&Key::new(pack).unwrap(), 0..128).unwrap();
        assert_eq!(header[9], 2, "a pack of data");
    }
}

/// What a backup has just written, the next one finds here.
#[test]
fn what_was_written_need_not_be_fetched() {
    let world = World::new();
    let content = content(2);
    let backup = store(&world.open(1 << 30), &content);
    let before = world.remote.log().len();
    let second = store(&world.open(1 << 30), &content);
    let reads = world.reads(before);
    assert!(!reads.iter().any(|key| key.starts_with("index/") || key.starts_with("bodies/")), "{reads:?}");
    check(&world.open(1 << 30), &backup, &content);
    check(&world.open(1 << 30), &second, &content);
}

#[test]
fn wrong_copies_are_never_an_error() {
    let world = World::new();
    let content = content(3);
    let backup = store(&world.open(1 << 30), &content);
    check(&world.open(1 << 30), &backup, &content);
    let copies = world.copies();
    // All but the closure are read again: index segment, body, pack of metadata.
    let is_read = |copy: &&PathBuf| {
        let closure = format!("closures/{}", copy.file_name().and_then(|name| name.to_str()).unwrap());
        world.remote.inner().stat(&Key::new(closure).unwrap()).is_err()
    };
    assert!(copies.iter().filter(is_read).count() >= 3, "{copies:?}");
    for copy in copies.iter().filter(is_read) {
        let good = fs::read(copy).unwrap();
        let mut flipped = good.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 0x10;
        let other = fs::read(copies.iter().find(|other| *other != copy).unwrap()).unwrap();
        for bad in [flipped, good[..good.len() - 1].to_vec(), Vec::new(), other] {
            fs::write(copy, bad).unwrap();
            let repository = world.open(1 << 30);
            assert_eq!(repository.backups().unwrap().len(), 1);
            check(&repository, &backup, &content);
            assert!(fs::read(copy).unwrap() == good, "{} was not fetched again", copy.display());
        }
    }
}

#[test]
fn it_may_vanish_or_be_unusable_at_any_moment() {
    let world = World::new();
    let content = content(4);
    let repository = world.open(1 << 30);
    let backup = store(&repository, &content);
    fs::remove_dir_all(world.cache()).unwrap();
    check(&repository, &backup, &content);
    // Files stand where directories belong.
    let unusable = world.open(1 << 30);
    for number in 0..=255 {
        let shard = world.cache().join(format!("objects/{number:02x}"));
        let _ = fs::remove_dir_all(&shard);
        fs::write(&shard, "in the way").unwrap();
    }
    check(&unusable, &backup, &content);
    let second = store(&unusable, &content);
    check(&unusable, &second, &content);
}

/// Threads as processes: each has a cache of its own over the same directory, which is far too small.
#[test]
fn several_may_share_it_while_it_is_emptied() {
    let world = World::new();
    let first = content(5);
    let backup = store(&world.open(64 << 10), &first);
    thread::scope(|scope| {
        for number in 0..3 {
            let (world, first, backup) = (&world, &first, &backup);
            scope.spawn(move || {
                let own = content(10 + number);
                for _ in 0..3 {
                    let repository = world.open(64 << 10);
                    let written = store(&repository, &own);
                    check(&repository, &written, &own);
                    check(&repository, backup, first);
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..20 {
                Cache::open(world.cache(), 64 << 10).unwrap().clear().unwrap();
            }
        });
    });
    let repository = world.open(64 << 10);
    assert_eq!(repository.backups().unwrap().len(), 10);
    let report = repository.verify(&VerifyOptions::new(VerifyLevel::Content), None, &control()).unwrap();
    assert!(report.ok, "{:?}", report.findings);
}

/// A writer that finds its object stored already looks whether it is right. A copy would always say so.
#[test]
fn damage_on_the_storage_is_not_hidden_from_writers() {
    let world = World::new();
    let content = content(6);
    store(&world.open(1 << 30), &content);
    let remote: &dyn Storage = world.remote.inner();
    let closures = list_all(remote, "closures/").unwrap();
    let [closure] = closures.as_slice() else { panic!("{closures:?}") };
    let good = remote.get(&closure.key, closure.size).unwrap();
    let mut bad = good.to_vec();
    bad[40] ^= 1;
    remote.put(&closure.key, Bytes::from(bad), PutMode::Overwrite).unwrap();
    // The same packs, and so the same closure.
    store(&world.open(1 << 30), &content);
    if list_all(remote, "closures/").unwrap().len() == 1 {
        assert!(remote.get(&closure.key, closure.size).unwrap() == good, "the writer did not see the damage");
    }
    let locked = LockedRepository::open(Arc::clone(&world.remote) as Arc<dyn Storage>, environment()).unwrap();
    let report = locked.verify(&VerifyOptions::new(VerifyLevel::Bytes), &control()).unwrap();
    assert!(report.ok, "{:?}", report.findings);
}

/// Nothing of it can be read without the password, and only its owner sees it.
#[test]
fn copies_are_the_objects_of_the_repository() {
    let world = World::new();
    store(&world.open(1 << 30), &content(7));
    let remote: &dyn Storage = world.remote.inner();
    let objects = list_all(remote, "").unwrap();
    for copy in world.copies() {
        let name = copy.file_name().and_then(|name| name.to_str()).unwrap().to_owned();
        let object = objects.iter().find(|object| object.key.as_str().ends_with(&name)).unwrap();
        assert!(fs::read(&copy).unwrap() == remote.get(&object.key, object.size).unwrap());
        assert!(is_private(&copy), "{}", copy.display());
    }
}

fn is_private(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o077 == 0
}
