//! The engine from end to end, on a storage in memory.

use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use backup_core::content::{EntryKind, EntryPath};
use backup_core::crypto::Argon2Parameters;
use backup_core::entropy::SeededEntropy;
use backup_core::extent::{Extent, ExtentKind};
use backup_core::keys::Credential;
use backup_core::progress::{Event, Observer};
use backup_core::repository::{
    BackupKind, BackupOptions, Control, Environment, InitOptions, LockedRepository, Parent, Repository, Share,
    VerificationLedger, VerifyLevel, VerifyOptions,
};
use backup_core::secret::Password;
use backup_core::source::{BlockSink, BlockSource};
use backup_core::storage::{Capabilities, Key, ListPage, MemoryStorage, ObjectInfo, PutMode, Storage, StorageError};
use backup_core::time::{FixedClock, Timestamp};
use bytes::Bytes;

fn environment(seed: u64) -> Environment {
    let clock = FixedClock(Timestamp::from_unix(1_790_000_000, 0).unwrap());
    Environment::new(Arc::new(clock), Arc::new(SeededEntropy::new(seed)))
}

fn init(storage: &Arc<dyn Storage>) -> Repository {
    let options = InitOptions::default().with_argon2(Argon2Parameters::minimum_for_tests()).with_pack_target(1 << 20);
    let password = Password::from("correct horse");
    Repository::init(Arc::clone(storage), &Credential::from(&password), &options, environment(1)).unwrap()
}

fn memory() -> Arc<dyn Storage> {
    Arc::new(MemoryStorage::default())
}

fn path(text: &str) -> EntryPath {
    text.parse().unwrap()
}

/// Bytes that do not compress and do not repeat.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn options(threads: usize) -> BackupOptions {
    BackupOptions::new(BackupKind::Data).with_host("node").with_control(Control::default().with_threads(threads))
}

struct Image {
    bytes: Vec<u8>,
    extents: Option<Vec<Extent>>,
    reads: Mutex<u64>,
}

impl Image {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, extents: None, reads: Mutex::new(0) }
    }
}

impl BlockSource for Image {
    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }
    fn extents(&self, from: u64, visit: &mut dyn FnMut(Extent) -> bool) -> std::io::Result<()> {
        match &self.extents {
            None => drop(visit(Extent::new(from, self.length() - from, ExtentKind::Data))),
            Some(extents) => drop(extents.iter().filter(|extent| extent.end() > from).all(|extent| visit(*extent))),
        }
        Ok(())
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        *self.reads.lock().unwrap() += buffer.len() as u64;
        let offset = offset as usize;
        buffer.copy_from_slice(&self.bytes[offset..offset + buffer.len()]);
        Ok(())
    }
}

/// A target that begins with rubbish, so that what is not written shows.
struct Target(Mutex<Vec<u8>>);

impl BlockSink for Target {
    fn write_at(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.0.lock().unwrap()[offset as usize..offset as usize + data.len()].copy_from_slice(data);
        Ok(())
    }
    fn hole(&self, offset: u64, length: u64) -> std::io::Result<()> {
        self.0.lock().unwrap()[offset as usize..(offset + length) as usize].fill(0);
        Ok(())
    }
    fn finish(&self, length: u64) -> std::io::Result<()> {
        assert_eq!(self.0.lock().unwrap().len() as u64, length);
        Ok(())
    }
}

fn content(repository: &Repository, name: &str, threads: usize) -> Vec<u8> {
    let backup = repository.find_backup("latest").unwrap();
    let entry = repository.entry(&backup, &path(name)).unwrap();
    let mut out = Vec::new();
    repository.restore_stream(&entry, &mut out, &Control::default().with_threads(threads)).unwrap();
    out
}

#[test]
fn streams_come_back_and_deduplicate() {
    for threads in [1, 3] {
        let storage = memory();
        let repository = init(&storage);
        let mut data = noise(1, 9 << 20);
        data.extend(vec![0; 3 << 20]);
        data.extend(b"-- a dump\n".repeat(100_000));
        let mut session = repository.begin(options(threads)).unwrap();
        let entry = session.add_stream(path("dump.sql"), &mut data.as_slice()).unwrap();
        assert_eq!(entry.size(), data.len() as u64);
        assert_eq!(entry.digest.unwrap().as_bytes(), blake3::hash(&data).as_bytes());
        let first = session.commit().unwrap();
        assert!(first.is_complete());
        assert_eq!(content(&repository, "dump.sql", threads), data);

        // The same again, with bytes inserted in the middle, pushed in odd portions.
        let mut changed = data.clone();
        changed.splice(4_000_000..4_000_000, b"inserted".iter().copied());
        let mut session = repository.begin(options(threads)).unwrap();
        assert_eq!(session.parent().unwrap().id, first.id);
        let mut writer = session.stream_writer(path("dump.sql")).unwrap();
        for portion in changed.chunks(77_777) {
            writer.write_all(portion).unwrap();
        }
        writer.finish().unwrap();
        let second = session.commit().unwrap();
        assert!(second.statistics.bytes_new < 6 << 20, "{:?}", second.statistics);
        assert_eq!(content(&repository, "dump.sql", threads), changed);
        assert_eq!(repository.backups().unwrap().len(), 2);

        // Another handle, opened with the password, sees the same.
        let password = Password::from("correct horse");
        let other = Repository::open(Arc::clone(&storage), &Credential::from(&password), environment(2)).unwrap();
        assert_eq!(content(&other, "dump.sql", threads), changed);
        let wrong = Password::from("incorrect horse");
        let error = Repository::open(Arc::clone(&storage), &Credential::from(&wrong), environment(2)).unwrap_err();
        assert_eq!(error.kind(), backup_core::ErrorKind::WrongPassword);
    }
}

#[test]
fn images_with_holes_and_change_maps() {
    for threads in [1, 3] {
        let storage = memory();
        let repository = init(&storage);
        let size = 600 << 20;
        let mut image = vec![0; size];
        for (number, start) in [0usize, 5 << 20, (300 << 20) + 12_345, size - 1000].into_iter().enumerate() {
            let length = (3_000_000).min(size - start);
            image[start..start + length].copy_from_slice(&noise(number as u64, length));
        }
        let source = Image::new(image.clone());
        let mut session = repository.begin(options(threads)).unwrap();
        let entry = session.add_blocks(path("disk.raw"), &source).unwrap();
        assert_eq!((entry.kind.clone(), entry.size()), (EntryKind::Disk, size as u64));
        let first = session.commit().unwrap();
        let check = |expected: &[u8]| {
            let backup = repository.find_backup("latest").unwrap();
            let entry = repository.entry(&backup, &path("disk.raw")).unwrap();
            let target = Target(Mutex::new(vec![0xee; size]));
            repository.restore_blocks(&entry, &target, &Control::default().with_threads(threads)).unwrap();
            let restored = target.0.lock().unwrap();
            let differs = restored.iter().zip(expected).position(|(a, b)| a != b);
            assert_eq!(differs, None, "{:?}", differs.map(|at| (&restored[at..at + 8], &expected[at..at + 8])));
        };
        check(&image);

        // Next day: 3 bytes changed, and the change map says where.
        image[300 << 20] ^= 1;
        image[(300 << 20) + 70_000] ^= 1;
        let at = 300u64 << 20;
        let mut source = Image::new(image.clone());
        source.extents = Some(vec![
            Extent::new(0, at, ExtentKind::Unchanged),
            Extent::new(at, 131_072, ExtentKind::Data),
            Extent::new(at + 131_072, size as u64 - at - 131_072, ExtentKind::Unchanged),
        ]);
        // The map means one parent, and only its caller knows which: the newest one may be another.
        let mut session = repository.begin(options(threads)).unwrap();
        assert_eq!(session.parent().map(|parent| parent.id), Some(first.id));
        let error = session.add_blocks(path("disk.raw"), &source).unwrap_err();
        assert_eq!(error.kind(), backup_core::ErrorKind::InvalidArgument, "{error}");
        assert!(error.to_string().contains("disk.raw"), "{error}");
        session.abort();
        assert_eq!(*source.reads.lock().unwrap(), 0);
        let mut session = repository.begin(options(threads).with_parent(Parent::Backup(first.id))).unwrap();
        session.add_blocks(path("disk.raw"), &source).unwrap();
        let backup = session.commit().unwrap();
        assert_eq!(*source.reads.lock().unwrap(), 1 << 20, "only the changed chunk is read");
        assert_eq!(backup.statistics.bytes_read, 1 << 20);
        assert!(backup.statistics.bytes_stored < 3 << 20, "{:?}", backup.statistics);
        check(&image);

        // Reading anywhere.
        let entry = repository.entry(&backup, &path("disk.raw")).unwrap();
        let mut reader = repository.open_entry(&entry).unwrap();
        for start in [0usize, (5 << 20) - 10, (300 << 20) - 5, size - 17] {
            reader.seek(SeekFrom::Start(start as u64)).unwrap();
            let mut bytes = vec![0; 100_000.min(size - start)];
            reader.read_exact(&mut bytes).unwrap();
            assert!(bytes == image[start..start + bytes.len()], "at {start}");
        }
        let mut out = Vec::new();
        let range = (300u64 << 20) - 100..(300 << 20) + 200_000;
        repository.restore_range(&entry, range.clone(), &mut out, &Control::default()).unwrap();
        assert!(out == image[range.start as usize..range.end as usize]);
    }
}

/// 2^62 bytes of nothing, and a little at its end.
struct Void(u64);

impl BlockSource for Void {
    fn length(&self) -> u64 {
        1 << 62
    }
    fn extents(&self, from: u64, visit: &mut dyn FnMut(Extent) -> bool) -> std::io::Result<()> {
        let data = self.length() - self.0;
        if from >= data || visit(Extent::new(from, data - from, ExtentKind::Zero)) {
            let from = from.max(data);
            visit(Extent::new(from, self.length() - from, ExtentKind::Data));
        }
        Ok(())
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        let data = self.length() - self.0;
        buffer.iter_mut().zip(offset..).for_each(|(byte, at)| *byte = if at < data { 0 } else { 7 });
        Ok(())
    }
}

#[derive(Default)]
struct Count(AtomicU64);

impl Observer for Count {
    fn event(&self, _: &Event<'_>) {
        // Chunk by chunk, this would not end before its reader does.
        assert!(self.0.fetch_add(1, Ordering::SeqCst) < 10_000, "too many steps");
    }
}

#[test]
fn a_hole_costs_nothing_whatever_its_length() {
    for threads in [1, 3] {
        let repository = init(&memory());
        let steps = Arc::new(Count::default());
        let control = Control::default().with_threads(threads).with_observer(steps);
        let mut session = repository.begin(options(threads).with_control(control)).unwrap();
        let entry = session.add_blocks(path("void"), &Void(3_000_000)).unwrap();
        assert_eq!(entry.size(), 1 << 62);
        let backup = session.commit().unwrap();
        assert!(backup.statistics.bytes_stored < 1 << 20, "{:?}", backup.statistics);
        let entry = repository.entry(&backup, &path("void")).unwrap();
        let mut reader = repository.open_entry(&entry).unwrap();
        for (at, expected) in
            [(0, 0), (1 << 61, 0), ((1 << 62) - 3_000_001, 0), ((1 << 62) - 3_000_000, 7), ((1 << 62) - 1, 7)]
        {
            reader.seek(SeekFrom::Start(at)).unwrap();
            let mut byte = [1];
            reader.read_exact(&mut byte).unwrap();
            assert_eq!(byte, [expected], "at {at}");
        }
    }
}

#[test]
fn a_reader_says_that_content_ends_early() {
    let storage = memory();
    let repository = init(&storage);
    let mut session = repository.begin(options(1)).unwrap();
    let mut entry = session.add_stream(path("a"), &mut b"content".as_slice()).unwrap();
    session.commit().unwrap();
    entry.content.length += 1;
    let mut reader = repository.open_entry(&entry).unwrap();
    let mut read = Vec::new();
    let error = reader.read_to_end(&mut read).unwrap_err();
    assert_eq!(read, b"content");
    assert!(error.to_string().contains("damaged entry a"), "{error}");
}

#[test]
fn verification_finds_damage_and_names_what_it_hurts() {
    let storage = Arc::new(MemoryStorage::default());
    let shared: Arc<dyn Storage> = storage.clone();
    let repository = init(&shared);
    let mut session = repository.begin(options(2)).unwrap();
    session.add_stream(path("good"), &mut noise(1, 5 << 20).as_slice()).unwrap();
    session.add_stream(path("hurt"), &mut noise(2, 5 << 20).as_slice()).unwrap();
    session.commit().unwrap();
    let locked = || LockedRepository::open(shared.clone(), environment(3)).unwrap();
    for level in [VerifyLevel::Presence, VerifyLevel::Bytes, VerifyLevel::Structure, VerifyLevel::Content] {
        let options = VerifyOptions::new(level);
        let report = repository.verify(&options, None, &Control::default().with_threads(2)).unwrap();
        assert!(report.ok && !report.partial, "{level:?}: {report:?}");
        if level <= VerifyLevel::Bytes {
            assert!(locked().verify(&options, &Control::default()).unwrap().ok);
        } else {
            assert!(locked().verify(&options, &Control::default()).is_err());
            assert_eq!(report.entries_checked, 2);
        }
    }
    let mut ledger = VerificationLedger::default();
    let share = VerifyOptions::new(VerifyLevel::Content).with_share(Share::Rotating { days: 3 });
    let report = repository.verify(&share, Some(&mut ledger), &Control::default()).unwrap();
    assert!(report.ok && report.partial);
    assert!(ledger.oldest().is_some());

    // One flipped bit in a pack.
    let packs = backup_core::storage::list_all(&*shared, "packs/").unwrap();
    let pack = packs.iter().max_by_key(|object| object.size).unwrap();
    let whole = shared.get(&pack.key, u64::MAX).unwrap();
    let mut bytes = whole.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    shared.put(&pack.key, bytes.into(), PutMode::Overwrite).unwrap();
    assert!(locked().verify(&VerifyOptions::new(VerifyLevel::Presence), &Control::default()).unwrap().ok);
    let report = locked().verify(&VerifyOptions::new(VerifyLevel::Bytes), &Control::default()).unwrap();
    assert_eq!(report.findings.len(), 1);
    assert_eq!(report.findings[0].object, pack.key.to_string());
    let report = repository.verify(&VerifyOptions::new(VerifyLevel::Content), None, &Control::default()).unwrap();
    assert!(!report.ok);
    assert!(report.findings.iter().any(|finding| !finding.entries.is_empty()), "{report:?}");
    serde_json::to_string(&report).unwrap();

    // And the pack gone.
    shared.delete(&pack.key).unwrap();
    let report = locked().verify(&VerifyOptions::new(VerifyLevel::Presence), &Control::default()).unwrap();
    assert_eq!(report.findings.len(), 1, "{report:?}");
    let report = repository.verify(&VerifyOptions::new(VerifyLevel::Structure), None, &Control::default()).unwrap();
    assert!(report.findings.iter().any(|finding| !finding.entries.is_empty()), "{report:?}");

    // The next backup of the same data mends it: what is lost is stored again.
    let mut session = repository.begin(options(2)).unwrap();
    session.add_stream(path("good"), &mut noise(1, 5 << 20).as_slice()).unwrap();
    session.add_stream(path("hurt"), &mut noise(2, 5 << 20).as_slice()).unwrap();
    let backup = session.commit().unwrap();
    assert!(backup.statistics.bytes_new > 0);
    assert_eq!(content(&repository, "hurt", 1), noise(2, 5 << 20));
}

#[test]
fn passwords_and_keys() {
    let storage = memory();
    let repository = init(&storage);
    let mut session = repository.begin(options(1)).unwrap();
    session.add_stream(path("a"), &mut b"before".as_slice()).unwrap();
    session.commit().unwrap();
    let fast = Argon2Parameters::minimum_for_tests();
    let (old, second, new) = (Password::from("correct horse"), Password::from("second"), Password::from("new"));
    repository.add_password(&Credential::from(&second), "second", fast).unwrap();
    let (_, recovery) = repository.add_recovery_key("paper").unwrap();
    assert_eq!(repository.key_slots().unwrap().len(), 3);
    repository.change_password(&Credential::from(&old), &Credential::from(&new), fast).unwrap();
    let open = |credential: Credential<'_>| Repository::open(Arc::clone(&storage), &credential, environment(9));
    assert!(open(Credential::from(&old)).is_err());
    for credential in [Credential::from(&second), Credential::from(&new), Credential::RecoveryKey(&recovery)] {
        assert_eq!(content(&open(credential).unwrap(), "a", 1), b"before");
    }
    assert_eq!(repository.rotate_root_key().unwrap(), 2);
    let rotated = open(Credential::from(&new)).unwrap();
    let mut session = rotated.begin(options(1)).unwrap();
    session.add_stream(path("a"), &mut b"after".as_slice()).unwrap();
    session.commit().unwrap();
    assert_eq!(content(&open(Credential::from(&second)).unwrap(), "a", 1), b"after");
    for slot in repository.key_slots().unwrap().iter().skip(1) {
        repository.remove_slot(&slot.id).unwrap();
    }
    let last = repository.key_slots().unwrap()[0].id;
    assert!(repository.remove_slot(&last).is_err());
}

#[test]
fn a_password_is_changed_where_no_further_slot_may_be_added() {
    let storage = memory();
    let repository = init(&storage);
    let fast = Argon2Parameters::minimum_for_tests();
    let (old, other) = (Password::from("correct horse"), Password::from("other"));
    repository.add_password(&Credential::from(&other), "other", fast).unwrap();
    while repository.key_slots().unwrap().len() < 8 {
        repository.add_recovery_key("paper").unwrap();
    }
    let error = repository.add_password(&Credential::from(&other), "one more", fast).unwrap_err();
    assert_eq!(error.kind(), backup_core::ErrorKind::LimitExceeded);
    let open = |password: &Password| {
        Repository::open(Arc::clone(&storage), &Credential::from(password), environment(9)).map(drop)
    };
    let mut last = old;
    for number in 0..3 {
        let new = Password::from(format!("new {number}").as_str());
        repository.change_password(&Credential::from(&last), &Credential::from(&new), fast).unwrap();
        assert_eq!(open(&last).unwrap_err().kind(), backup_core::ErrorKind::WrongPassword);
        open(&new).unwrap();
        open(&other).unwrap();
        assert_eq!(repository.key_slots().unwrap().len(), 8);
        last = new;
    }
}

/// Counts the packs that are being stored at the same time.
#[derive(Default)]
struct Crowd {
    storage: MemoryStorage,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Storage for Crowd {
    fn put(&self, key: &Key, bytes: Bytes, mode: PutMode) -> Result<(), StorageError> {
        let is_pack = key.as_str().starts_with("packs/");
        if is_pack {
            self.most.fetch_max(self.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // Whoever may come at the same time gets the occasion.
            (0..300).for_each(|_| std::thread::yield_now());
            self.now.fetch_sub(1, Ordering::SeqCst);
        }
        self.storage.put(key, bytes, mode)
    }
    fn get(&self, key: &Key, limit: u64) -> Result<Bytes, StorageError> {
        self.storage.get(key, limit)
    }
    fn get_range(&self, key: &Key, range: std::ops::Range<u64>) -> Result<Bytes, StorageError> {
        self.storage.get_range(key, range)
    }
    fn stat(&self, key: &Key) -> Result<ObjectInfo, StorageError> {
        self.storage.stat(key)
    }
    fn list(&self, prefix: &str, after: Option<&Key>) -> Result<ListPage, StorageError> {
        self.storage.list(prefix, after)
    }
    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.storage.delete(key)
    }
    fn capabilities(&self) -> Capabilities {
        self.storage.capabilities()
    }
}

#[test]
fn no_more_packs_are_stored_at_once_than_the_budget_allows() {
    // A pack of 1 MiB is in memory twice while it is sealed, and half of the budget is for that.
    for (budget, most) in [(0, 1), (4 << 20, 1), (8 << 20, 2), (12 << 20, 3)] {
        let storage = Arc::new(Crowd::default());
        let shared: Arc<dyn Storage> = storage.clone();
        let repository = init(&shared);
        let control = Control::default().with_threads(8).with_byte_budget(budget);
        let mut session = repository.begin(options(8).with_control(control)).unwrap();
        session.add_stream(path("data"), &mut noise(1, 48 << 20).as_slice()).unwrap();
        session.commit().unwrap();
        let found = storage.most.load(Ordering::SeqCst);
        assert!((1..=most).contains(&found), "{found} at once with {budget} bytes");
        assert_eq!(content(&repository, "data", 1), noise(1, 48 << 20));
    }
}
