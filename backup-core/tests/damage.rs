//! Removed and hostile objects: never wrong bytes, never a panic, and the next backup makes up for what is lost.
//! Every other change of every object is tried in `corruption.rs`.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_core::content::EntryPath;
use backup_core::extent::{Extent, ExtentKind};
use backup_core::id::{BackupId, ObjectName};
use backup_core::keys::{Credential, RecoveryKey};
use backup_core::repository::{
    FindingKind, LockedRepository, Parent, Repository, Selection, Share, UnlockOptions, VerifyLevel, VerifyOptions,
    VerifyReport,
};
use backup_core::source::BlockSource;
use backup_core::storage::fault::{Fault, FaultStorage, OperationKind};
use backup_core::storage::{Key, MemoryStorage, Storage, StorageError};
use backup_core::{ErrorKind, testing};
use bytes::Bytes;
use support::forger::{get, keys_of, overwrite, pack_of_kind, replace_body};
use support::tree::{Made, Node, Target, Tree};
use support::{
    assert_sound, control, environment, init_with, memory, noise, open, options, path, small_options, verify,
};

type Objects = BTreeMap<Key, Bytes>;

/// Two backups, and what is in them.
struct Fixture {
    objects: Objects,
    recovery: RecoveryKey,
    backups: Vec<(BackupId, BTreeMap<EntryPath, Vec<u8>>)>,
}

fn contents(number: u64) -> BTreeMap<EntryPath, Vec<u8>> {
    let mut stream = noise(1, 40_000);
    stream.extend(b"insert into t values (1);\n".repeat(2000));
    stream.extend(noise(10 + number, 20_000));
    let mut image = noise(2, 200_000);
    image[65_536..131_072].fill(0);
    image[0] = number as u8;
    BTreeMap::from([
        (path("dump"), stream),
        (path("tree/image"), image),
        (path("tree/note"), format!("note {number}").into_bytes()),
        (path("tree/same"), b"the same".to_vec()),
    ])
}

fn back_up(repository: &Repository, number: u64) -> backup_core::Result<BackupId> {
    let contents = contents(number);
    let mut session = repository.begin(options(1))?;
    session.add_stream(path("dump"), &mut contents[&path("dump")].as_slice())?;
    let file = |name: &str| Node::file(name, contents[&path(name)].clone());
    let image = file("tree/image").image().with_hole(65_536, 65_536);
    session.add_tree(&mut Tree::new(vec![Node::directory("tree"), image, file("tree/note"), file("tree/same")]))?;
    session.commit().map(|backup| backup.id)
}

impl Fixture {
    fn new() -> Self {
        let storage = memory();
        let repository = init_with(storage.clone(), &small_options(), 1).unwrap();
        let (_, recovery) = repository.add_recovery_key("paper").unwrap();
        repository.rotate_root_key().unwrap();
        let repository = open(storage.clone(), 2).unwrap();
        let backups = (0..2).map(|number| (back_up(&repository, number).unwrap(), contents(number))).collect();
        Self { objects: storage.snapshot(), recovery, backups }
    }

    fn storage(&self) -> Arc<MemoryStorage> {
        Arc::new(MemoryStorage::from_objects(self.objects.clone()))
    }

    /// Without the cost of a password.
    fn open(&self, storage: Arc<dyn Storage>) -> backup_core::Result<Repository> {
        Repository::open(storage, &Credential::RecoveryKey(&self.recovery), environment(3))
    }

    /// With one object changed, or removed.
    fn with(&self, key: &Key, bytes: Option<Vec<u8>>) -> Arc<MemoryStorage> {
        let mut objects = self.objects.clone();
        match bytes {
            Some(bytes) => drop(objects.insert(key.clone(), bytes.into())),
            None => drop(objects.remove(key)),
        }
        Arc::new(MemoryStorage::from_objects(objects))
    }

    fn keys(&self, prefix: &str) -> Vec<Key> {
        let keys: Vec<Key> = self.objects.keys().filter(|key| key.as_str().starts_with(prefix)).cloned().collect();
        assert!(!keys.is_empty(), "{prefix}");
        keys
    }
}

/// What came of a repository.
#[derive(Debug)]
struct Seen {
    /// It opened, or says why not.
    opened: Result<(), ErrorKind>,
    /// Verification with the password says that something is wrong, at the level bytes.
    reported: bool,
    /// So does verification without it.
    reported_locked: bool,
    /// Every backup was restored whole.
    restored: bool,
}

const LEVELS: [VerifyLevel; 4] =
    [VerifyLevel::Presence, VerifyLevel::Bytes, VerifyLevel::Structure, VerifyLevel::Content];

fn report(result: backup_core::Result<VerifyReport>, what: &str) -> bool {
    let report = result.unwrap_or_else(|error| panic!("{what}: verification failed: {error}"));
    assert!(report.findings.iter().all(|finding| !finding.object.is_empty() && !finding.message.is_empty()));
    !report.ok
}

/// Opens, verifies at `levels` and restores. Panics where wrong bytes come out.
fn look(fixture: &Fixture, storage: &Arc<MemoryStorage>, levels: &[VerifyLevel], what: &str) -> Seen {
    let locked = LockedRepository::open(storage.clone(), environment(3));
    let reported_locked = locked
        .as_ref()
        .map_or(true, |locked| report(locked.verify(&VerifyOptions::new(VerifyLevel::Bytes), &control(1)), what));
    let repository = match fixture.open(storage.clone()) {
        Ok(repository) => repository,
        Err(error) => return Seen { opened: Err(error.kind()), reported: false, reported_locked, restored: false },
    };
    let mut found = BTreeMap::new();
    for level in levels {
        found.insert(*level, report(verify(&repository, *level), what));
    }
    assert!(found.values().is_sorted(), "{what}: a lower level found what a higher one did not: {found:?}");
    let reported = found[&VerifyLevel::Bytes];
    let restored = fixture
        .backups
        .iter()
        .fold(true, |all, (id, contents)| restore(&repository, id, contents, what).is_ok_and(|whole| whole) && all);
    Seen { opened: Ok(()), reported, reported_locked, restored }
}

/// Whether everything was restored. Whatever was is right.
fn restore(
    repository: &Repository,
    id: &BackupId,
    contents: &BTreeMap<EntryPath, Vec<u8>>,
    what: &str,
) -> backup_core::Result<bool> {
    let backup = repository.find_backup(&id.to_string())?;
    let target = Target::default();
    let report = repository.restore_tree(&backup, &Selection::all(), &target, &control(1))?;
    let made = target.into_map();
    let mut whole = report.is_complete();
    for (path, expected) in contents {
        match made.get(path) {
            Some(Made::Content(bytes, _)) => assert!(**bytes == *expected, "{what}: wrong bytes in {path}"),
            Some(other) => panic!("{what}: {path} became {other:?}"),
            None => whole = false,
        }
    }
    assert!(!report.is_complete() || whole, "{what}: a restore says that it is complete");
    // A stream may have written something before the damage, but says so.
    let mut dump = Vec::new();
    match repository
        .entry(&backup, &path("dump"))
        .and_then(|entry| repository.restore_stream(&entry, &mut dump, &control(1)))
    {
        Ok(_) => assert!(dump == contents[&path("dump")], "{what}: wrong bytes in the stream"),
        Err(_) => whole = false,
    }
    Ok(whole)
}

/// What nothing depends on: that a session began is only looked at while it has no outcome.
fn is_unneeded(key: &Key) -> bool {
    key.as_str().ends_with("/open")
}

#[test]
fn removed_objects_are_reported_and_the_next_backup_makes_up_for_them() {
    let fixture = Fixture::new();
    let newest = fixture.backups[1].0;
    for key in fixture.objects.keys() {
        let what = format!("{key} removed");
        let storage = fixture.with(key, None);
        if key.as_str() == "keyring/00000001" {
            // The second one holds everything that it held.
            assert!(look(&fixture, &storage, &LEVELS, &what).restored);
            continue;
        }
        let seen = look(&fixture, &storage, &LEVELS, &what);
        if key.as_str() == "keyring/00000002" {
            // The first one opens, lacks a key, and nothing is written with it.
            assert!(seen.opened.is_ok() && seen.reported && !seen.restored, "{what}: {seen:?}");
            let error = back_up(&fixture.open(storage).unwrap(), 1).unwrap_err();
            assert!(error.to_string().contains("keyring/00000001"), "{error}");
            continue;
        }
        let opens = ["config", "keys/"].iter().any(|prefix| key.as_str().starts_with(prefix));
        if opens {
            let other_slot = key.as_str().starts_with("keys/") && seen.opened.is_ok();
            assert!(seen.opened.is_err() || other_slot, "{what}: {seen:?}");
            continue;
        }
        let repository = fixture.open(storage.clone()).unwrap();
        let is_newest = repository.backups().is_ok_and(|backups| backups.iter().all(|backup| backup.id != newest));
        if is_unneeded(key) {
            assert!(seen.restored && !seen.reported, "{what}");
        } else if is_newest {
            // A storage that shows an older state is seen by whoever knows a newer one.
            assert!(!seen.reported && !seen.restored, "{what}: {seen:?}");
            let options = VerifyOptions::new(VerifyLevel::Presence).with_expected_head(newest);
            assert!(report(repository.verify(&options, None, &control(1)), &what));
        } else {
            assert!(report(verify(&repository, VerifyLevel::Presence), &what), "{what}: {seen:?}");
            assert!(seen.reported && seen.reported_locked, "{what}: {seen:?}");
            // An index can be done without: the directories of packs say the same. A closure is for those without
            // the password.
            let spare = ["index/", "closures/"].iter().any(|prefix| key.as_str().starts_with(prefix));
            assert_eq!(seen.restored, spare, "{what}");
        }
        let id = back_up(&fixture.open(storage.clone()).unwrap(), 1).unwrap_or_else(|error| panic!("{what}: {error}"));
        let repository = fixture.open(storage).unwrap();
        assert!(restore(&repository, &id, &contents(1), &what).unwrap(), "{what}: the next backup is not whole");
        let only = VerifyOptions::new(VerifyLevel::Content).with_backups(vec![id]);
        let report = repository.verify(&only, None, &control(1)).unwrap();
        let about_others = |object: &str| object.parse::<BackupId>().is_ok();
        let all_old = report.findings.iter().all(|finding| about_others(&finding.object));
        assert!(all_old, "{what}: {:#?}", report.findings);
    }
}

#[test]
fn a_damaged_body_keeps_nobody_from_the_other_backups() {
    let fixture = Fixture::new();
    for key in fixture.keys("bodies/") {
        let mut bytes = fixture.objects[&key].to_vec();
        bytes[200] ^= 1;
        let storage = fixture.with(&key, Some(bytes));
        let repository = fixture.open(storage).unwrap();
        let whole = fixture
            .backups
            .iter()
            .filter(|(id, contents)| restore(&repository, id, contents, "").is_ok_and(|whole| whole));
        assert_eq!(whole.count(), 1);
        let id = back_up(&repository, 2).unwrap();
        assert!(restore(&repository, &id, &contents(2), "").unwrap());
    }
}

#[test]
fn an_unreadable_backup_is_listed_beside_the_others() {
    let fixture = Fixture::new();
    let (old, newest) = (fixture.backups[0].0, fixture.backups[1].0);
    for key in fixture.keys("bodies/") {
        for removed in [false, true] {
            let mut bytes = fixture.objects[&key].to_vec();
            bytes[200] ^= 1;
            let repository = fixture.open(fixture.with(&key, (!removed).then_some(bytes))).unwrap();
            let listed = repository.list().unwrap();
            let ids: Vec<BackupId> =
                listed.iter().map(|one| one.as_ref().map_or_else(|lost| lost.id, |backup| backup.id)).collect();
            assert_eq!(ids, [old, newest], "each in its place");
            let lost: Vec<_> = listed.iter().filter_map(|one| one.as_ref().err()).collect();
            let [lost] = lost.as_slice() else { panic!("{listed:?}") };
            assert!(lost.reason.contains(key.as_str()), "{lost:?}");
            assert_eq!(lost.time.to_unix().0, 1_790_000_000);
            assert_eq!(repository.backups().unwrap_err().kind(), ErrorKind::Damaged);

            let status = repository.status().unwrap();
            let (lost_newest, statistics) = (lost.id == newest, repository.statistics().unwrap());
            assert_eq!((status.backups, statistics.backups), (2, 2));
            assert_eq!(status.newest.map(|backup| backup.id), (!lost_newest).then_some(newest));
            assert_eq!(status.newest_unreadable.is_some(), lost_newest);
            assert_eq!(statistics.unreadable_backups, [(*lost).clone()]);
            assert_eq!(repository.find_backup("latest").is_ok(), !lost_newest, "it needs the newest body only");
        }
    }
}

/// A storage that shows an object in its listings and does not give it out.
fn withholding(storage: Arc<MemoryStorage>, key: &Key) -> Arc<dyn Storage> {
    let key = key.to_string();
    let faults = FaultStorage::with_script(storage, move |operation| {
        if operation.key == key && operation.kind != OperationKind::List { Fault::FailBefore } else { Fault::None }
    });
    Arc::new(faults.with_error(|_| StorageError::NotFound))
}

#[test]
fn what_is_listed_and_cannot_be_fetched_is_missing() {
    let fixture = Fixture::new();
    for prefix in ["packs/", "index/", "bodies/", "closures/"] {
        for key in fixture.keys(prefix) {
            let storage = withholding(fixture.storage(), &key);
            let locked = LockedRepository::open(storage.clone(), environment(3)).unwrap();
            let report = locked.verify(&VerifyOptions::new(VerifyLevel::Bytes), &control(1)).unwrap();
            assert!(!report.ok, "{key} without the password");
            let repository = fixture.open(storage).unwrap();
            for level in [VerifyLevel::Bytes, VerifyLevel::Structure, VerifyLevel::Content] {
                let report = verify(&repository, level).unwrap();
                let about: Vec<_> = report.findings.iter().filter(|finding| finding.object == key.as_str()).collect();
                assert!(!report.ok && !about.is_empty(), "{key} at {level:?}: {report:#?}");
                let missing = about.iter().filter(|finding| finding.kind == FindingKind::Missing).count();
                assert_eq!(missing, usize::from(prefix != "closures/"), "{key} at {level:?}: {report:#?}");
            }
        }
    }
}

/// Two backups: of one image, and of two that share its pages of references.
fn shared_pages() -> (Arc<MemoryStorage>, Repository, Vec<BackupId>) {
    let storage = memory();
    let repository = init_with(storage.clone(), &small_options(), 1).unwrap();
    let image = noise(7, 600_000);
    let mut ids = Vec::new();
    for names in [&["a"][..], &["a", "b", "c"]] {
        let mut session = repository.begin(options(1)).unwrap();
        let file = |name: &&str| Node::file(name, image.clone()).image();
        session.add_tree(&mut Tree::new(names.iter().map(file).collect())).unwrap();
        ids.push(session.commit().unwrap().id);
    }
    (storage, repository, ids)
}

/// Every entry of a finding about an object whose name ends so, as backup and path.
fn affected(report: &VerifyReport, ids: &[BackupId]) -> Vec<String> {
    let entries = report.findings.iter().flat_map(|finding| &finding.entries);
    let number = |id: &BackupId| ids.iter().position(|known| known == id).unwrap();
    let mut names: Vec<String> = entries.map(|entry| format!("{}{}", number(&entry.backup), entry.path)).collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn every_entry_that_shares_something_damaged_is_named() {
    let (storage, repository, ids) = shared_pages();
    let state = storage.snapshot();
    let first_pages = |storage: &MemoryStorage| {
        // The pages of the first backup: the pack of pages that the closure of the first names.
        let closures: Vec<Vec<u8>> = keys_of(storage, "closures/").iter().map(|key| get(storage, key)).collect();
        let in_all = |key: &&Key| {
            let name: ObjectName = key.as_str().rsplit('/').next().unwrap().parse().unwrap();
            closures.iter().all(|closure| closure.windows(32).any(|window| window == name.as_bytes()))
        };
        pack_of_kind(storage, 3).iter().filter(in_all).cloned().collect::<Vec<_>>()
    };
    let lost = first_pages(&storage);
    assert_eq!(lost.len(), 1);

    // A page that all three entries of the second backup share. The first has lost its catalogue as well.
    storage.delete(&lost[0]).unwrap();
    let report = verify(&repository, VerifyLevel::Structure).unwrap();
    assert_eq!(affected(&report, &ids), ["1a", "1b", "1c"], "{report:#?}");
    // And damaged instead of lost.
    storage.restore(state.clone());
    let mut bytes = get(&storage, &lost[0]);
    bytes[300..].fill(0);
    overwrite(&storage, &lost[0], bytes);
    for level in [VerifyLevel::Structure, VerifyLevel::Content] {
        let report = verify(&repository, level).unwrap();
        assert_eq!(affected(&report, &ids), ["1a", "1b", "1c"], "{level:?}: {report:#?}");
    }

    // A chunk that all four share: lost, damaged, and without any place.
    for way in 0..3 {
        storage.restore(state.clone());
        let pack = pack_of_kind(&storage, 2).remove(0);
        let mut bytes = get(&storage, &pack);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        match way {
            0 => storage.delete(&pack).unwrap(),
            1 => overwrite(&storage, &pack, bytes),
            _ => {
                storage.delete(&pack).unwrap();
                keys_of(&storage, "index/").iter().for_each(|key| storage.delete(key).unwrap());
            }
        }
        let report = verify(&repository, VerifyLevel::Content).unwrap();
        assert_eq!(affected(&report, &ids), ["0a", "1a", "1b", "1c"], "{way}: {report:#?}");
        let mut found: Vec<_> =
            report.findings.iter().map(|finding| (finding.kind, &finding.object, &finding.message)).collect();
        found.sort();
        let all = found.len();
        found.dedup();
        assert_eq!(found.len(), all, "something is reported twice: {report:#?}");
    }
}

#[test]
fn what_the_index_says_is_held_against_references_and_packs() {
    // Lengths and kinds against the references and sizes of packs against the closures, at the level structure; offsets
    // against the directories.
    for (way, from) in [VerifyLevel::Structure; 5].into_iter().chain([VerifyLevel::Content]).enumerate() {
        let (storage, repository, data) = compressible();
        let key = keys_of(&storage, "index/").remove(0);
        let mut body = testing::open_object(&repository, key.as_str(), &get(&storage, &key)).unwrap();
        let packs = u32::from_le_bytes(body[4..8].try_into().unwrap()) as usize;
        let entries = body.len().saturating_sub(16 + 40 * packs) / 52;
        // The first chunk of content, and of pages: id 32, pack 4, offset 4, stored 4, raw 4, codec 1, kind 1.
        let at =
            |kind: u8| (0..entries).map(|entry| 16 + 40 * packs + 52 * entry).find(|at| body[at + 49] == kind).unwrap();
        let (content, page) = (at(0), at(1));
        let size_of_pack =
            |entry: usize| 16 + 40 * u32::from_le_bytes(body[entry + 32..entry + 36].try_into().unwrap()) as usize + 32;
        let (content_size, page_size) = (size_of_pack(content), size_of_pack(page));
        match way {
            0 => body[content + 44] ^= 1,
            1 => body[content + 49] = 1,
            2 => body[page + 49] = 0,
            3 => body[content_size] ^= 2,
            4 => body[page_size] ^= 2,
            _ => body[content + 36] ^= 1,
        }
        replace_body(&storage, &repository, &key, &body);
        let repository = open(storage.clone(), 4).unwrap();
        for level in LEVELS {
            let report = verify(&repository, level).unwrap();
            assert_eq!(report.ok, level < from, "{way} at {level:?}: {report:#?}");
            assert!(report.ok || report.findings.iter().all(|finding| finding.kind != FindingKind::Bytes));
            if level >= from && way != 2 && way != 4 {
                let named = report.findings.iter().flat_map(|finding| &finding.entries).count();
                assert!(named > 0, "{way} at {level:?}: {report:#?}");
            }
        }
        let mut out = Vec::new();
        let backup = repository.find_backup("latest").unwrap();
        let restored = repository
            .entry(&backup, &path("file"))
            .and_then(|entry| repository.restore_stream(&entry, &mut out, &control(1)));
        assert!(restored.is_err() || out == data, "wrong bytes");
    }
}

#[test]
fn pages_that_backups_share_are_read_once() {
    let storage = memory();
    let repository = init_with(storage.clone(), &small_options(), 1).unwrap();
    for changed in 0..8 {
        let content = |number: usize| if number == 0 { format!("{changed}") } else { format!("file {number}") };
        let file = |number: usize| Node::file(&format!("d/{number:05}"), content(number)).stamped(number as i64, 1);
        let mut session = repository.begin(options(1)).unwrap();
        let mut nodes: Vec<Node> = (0..5000).map(file).collect();
        nodes.push(Node::file("image", noise(1, 900_000)).image());
        session.add_tree(&mut Tree::new(nodes)).unwrap();
        session.commit().unwrap();
    }
    let faults = Arc::new(FaultStorage::new(storage.clone()));
    let repository = open(faults.clone(), 5).unwrap();
    let packs = pack_of_kind(&storage, 3).len();
    let read = || {
        faults
            .log()
            .iter()
            .filter(|operation| operation.key.starts_with("packs/") && operation.kind != OperationKind::List)
            .count()
    };
    let before = read();
    let options = VerifyOptions::new(VerifyLevel::Structure).with_share(Share::Sample { fraction: 0.0, seed: 0 });
    let report = repository.verify(&options, None, &control(1)).unwrap();
    assert!(report.ok, "{:#?}", report.findings);
    assert_eq!(report.entries_checked, 8 * 5001, "entries of pages that are known count");
    assert!(read() - before <= 2 * packs, "{} reads for {packs} packs of pages", read() - before);
}

/// The image of a backup, of which the source says that nothing changed.
struct Unchanged(Vec<u8>);

impl BlockSource for Unchanged {
    fn length(&self) -> u64 {
        self.0.len() as u64
    }
    fn extents(&self, from: u64, visit: &mut dyn FnMut(Extent) -> bool) -> std::io::Result<()> {
        visit(Extent::new(from, self.length() - from, ExtentKind::Unchanged));
        Ok(())
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        let offset = offset as usize;
        buffer.copy_from_slice(&self.0[offset..offset + buffer.len()]);
        Ok(())
    }
}

#[test]
fn ranges_of_a_parent_that_are_lost_are_read_again() {
    let storage = memory();
    let repository = init_with(storage.clone(), &small_options(), 1).unwrap();
    // More chunks than an entry holds itself, so that there are pages of references.
    let image = noise(1, 40 * 65_536);
    let add = |repository: &Repository, source: &dyn BlockSource, parent: Parent| {
        let mut session = repository.begin(options(1).with_parent(parent))?;
        session.add_blocks(path("disk"), source)?;
        session.commit()
    };
    struct All(Vec<u8>);
    impl BlockSource for All {
        fn length(&self) -> u64 {
            self.0.len() as u64
        }
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
            Unchanged(self.0.clone()).read_at(offset, buffer)
        }
    }
    let first = add(&repository, &All(image.clone()), Parent::None).unwrap();
    let state = storage.snapshot();
    for key in keys_of(&storage, "packs/") {
        storage.restore(state.clone());
        storage.delete(&key).unwrap();
        let is_page = state[&key][9] == 3;
        let repository = open(storage.clone(), 5).unwrap();
        let second = match add(&repository, &Unchanged(image.clone()), Parent::Backup(first.id)) {
            Ok(backup) => backup,
            Err(error) => {
                // Without the catalogue nobody knows what was unchanged: the caller says so without a change map.
                assert!(is_page && error.kind() == ErrorKind::InvalidArgument, "{key}: {error}");
                add(&repository, &All(image.clone()), Parent::Newest).unwrap()
            }
        };
        assert!(second.statistics.bytes_read > 0, "{key}");
        assert_eq!(second.parent, Some(first.id));
        let entry = repository.entry(&second, &path("disk")).unwrap();
        let mut out = Vec::new();
        repository.restore_stream(&entry, &mut out, &control(1)).unwrap();
        assert!(out == image);
        let only = VerifyOptions::new(VerifyLevel::Content).with_backups(vec![second.id]);
        let report = repository.verify(&only, None, &control(1)).unwrap();
        assert!(report.ok, "{key}: {report:#?}");
    }
}

#[test]
fn foreign_files_are_ignored() {
    let fixture = Fixture::new();
    let storage = fixture.storage();
    let name = "ab".repeat(32);
    for foreign in [
        "readme.txt",
        "config.bak",
        "keys/readme.txt",
        "keyring/0000000g",
        "keyring/backup",
        "packs/ab/readme",
        &format!("packs/{name}"),
        &format!("packs/ab/{name}"),
        "index/readme",
        &format!("index/{name}"),
        &format!("bodies/{name}"),
        &format!("closures/{name}"),
        "sessions/readme",
        "sessions/00000001/abababababababababababababababab/lost-found",
        "collections/readme",
        "collections/00000001/readme",
        "forgets/readme",
        "parity/readme",
        "probes/readme",
    ] {
        overwrite(&storage, &Key::new(foreign).unwrap(), b"not of this repository".to_vec());
    }
    let seen = look(&fixture, &storage, &LEVELS, "foreign files");
    assert!(!seen.reported && !seen.reported_locked && seen.restored, "{seen:?}");
    let repository = open(storage, 4).unwrap();
    back_up(&repository, 2).unwrap();
    assert_sound(&repository);
    repository.statistics().unwrap();
}

#[test]
fn other_versions_and_features_are_named() {
    let fixture = Fixture::new();
    let key = Key::new("config").unwrap();
    let config = fixture.objects[&key].to_vec();
    let open = |config: Vec<u8>| {
        LockedRepository::open(fixture.with(&key, Some(config)), environment(3)).map(drop).unwrap_err()
    };
    // Field 1 is the version.
    let at = config.windows(2).position(|pair| pair == [1, 1]).unwrap() + 1;
    for version in [0, 2, 23] {
        let mut changed = config.clone();
        changed[at] = version;
        let error = open(changed);
        assert_eq!(error.to_string(), format!("unsupported format version: {version}"));
    }
    // Fields 3, 4 and 5 are empty lists of features.
    let at = config.windows(6).position(|part| part == [3, 0x80, 4, 0x80, 5, 0x80]).unwrap();
    let with_word = |field: usize| {
        let mut changed = config.clone();
        changed.splice(at + 2 * field + 1..=at + 2 * field + 1, [&[0x81, 0x64][..], b"word"].concat());
        changed
    };
    assert_eq!(open(with_word(2)).to_string(), "unsupported feature: word");
    for (field, signed) in [(0, false), (1, true)] {
        // It opens. As it is not the config that the keyring was made for, it does not unlock.
        let locked = LockedRepository::open(fixture.with(&key, Some(with_word(field))), environment(3)).unwrap();
        assert_eq!(locked.commits().unwrap().len(), 2, "{signed}");
        let unlocked = locked.unlock(&Credential::RecoveryKey(&fixture.recovery), &UnlockOptions::default());
        assert_eq!(unlocked.unwrap_err().kind(), ErrorKind::Damaged);
    }
}

#[test]
fn hostile_costs_of_a_password_are_refused() {
    let fixture = Fixture::new();
    let slot = fixture.keys("keys/").into_iter().find(|key| fixture.objects[key][9] == 1).unwrap();
    let good = fixture.objects[&slot].to_vec();
    for (memory, passes, lanes) in [
        (u32::MAX, 1, 1),
        (1 << 21, 1, 1),
        (8 << 10, u32::MAX, 4),
        (8 << 10, 17, 4),
        (8 << 10, 1, u32::MAX),
        (1 << 20, 16, 1),
        (8 << 10, 0, 4),
        (8 << 10, 1, 0),
        (0, 1, 1),
        (8, 1, 16),
    ] {
        let mut bytes = good.clone();
        for (at, value) in [(48, memory), (52, passes), (56, lanes)] {
            bytes[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
        }
        let error = open(fixture.with(&slot, Some(bytes)), 4).unwrap_err();
        let kinds = [ErrorKind::LimitExceeded, ErrorKind::InvalidArgument, ErrorKind::WrongPassword];
        assert!(kinds.contains(&error.kind()), "{memory} {passes} {lanes}: {error}");
    }
    // What the caller allows counts as well.
    let locked = LockedRepository::open(fixture.storage(), environment(3)).unwrap();
    let password = backup_core::secret::Password::from(support::PASSWORD);
    let little = UnlockOptions::default().with_max_memory_kib(4 << 10);
    assert_eq!(locked.unlock(&Credential::from(&password), &little).unwrap_err().kind(), ErrorKind::LimitExceeded);
}

/// A repository with one backup of one file that compresses.
fn compressible() -> (Arc<MemoryStorage>, Repository, Vec<u8>) {
    let storage = memory();
    let repository = init_with(storage.clone(), &small_options(), 1).unwrap();
    let data = b"0123456789abcdef".repeat(2000);
    let mut session = repository.begin(options(1)).unwrap();
    session.add_stream(path("file"), &mut data.as_slice()).unwrap();
    session.commit().unwrap();
    (storage, repository, data)
}

/// Lets `change` change the body of the only pack of contents, as somebody with the password could.
fn with_pack(change: impl Fn(&mut Vec<u8>)) -> (Arc<MemoryStorage>, backup_core::Result<Vec<u8>>, VerifyReport) {
    let (storage, repository, data) = compressible();
    let key = pack_of_kind(&storage, 2).remove(0);
    let mut body = testing::open_object(&repository, key.as_str(), &get(&storage, &key)).unwrap();
    change(&mut body);
    replace_body(&storage, &repository, &key, &body);
    let repository = open(storage.clone(), 4).unwrap();
    let mut out = Vec::new();
    let restored = repository.find_backup("latest").and_then(|backup| {
        let entry = repository.entry(&backup, &path("file"))?;
        repository.restore_stream(&entry, &mut out, &control(1))
    });
    if restored.is_ok() {
        assert!(out == data, "wrong bytes");
    }
    (storage, restored.map(|_| out), verify(&repository, VerifyLevel::Content).unwrap())
}

#[test]
fn forged_packs_are_damage() {
    let (_, restored, _) = with_pack(|_| ());
    restored.expect("forging itself works");
    // Entry 0 of the directory: id at 16, stored at 48, raw at 52, codec at 56, kind at 57.
    let change =
        |at: usize, bytes: &'static [u8]| move |body: &mut Vec<u8>| body[at..at + bytes.len()].copy_from_slice(bytes);
    type Change = Box<dyn Fn(&mut Vec<u8>)>;
    let bomb = |length: usize| zstd_frame(length);
    let cases: Vec<(&str, Change)> = vec![
        ("a length beyond all limits", Box::new(change(52, &[0xff; 4]))),
        ("a length of 0", Box::new(change(52, &[0; 4]))),
        ("a length that is too small", Box::new(change(52, &[0, 1, 0, 0]))),
        ("a stored length beyond the pack", Box::new(change(48, &[0xff, 0xff, 0, 0]))),
        ("a stored length of 0", Box::new(change(48, &[0; 4]))),
        ("an unknown codec", Box::new(change(56, &[7]))),
        ("an unknown kind", Box::new(change(57, &[7]))),
        ("another kind", Box::new(change(57, &[1]))),
        ("another codec", Box::new(change(56, &[0]))),
        ("reserved bytes", Box::new(change(58, &[1]))),
        ("another id", Box::new(change(16, &[0; 32]))),
        ("no entries", Box::new(change(4, &[0; 4]))),
        ("more entries than bytes", Box::new(change(4, &[0xff, 0xff, 3, 0]))),
        ("more entries than allowed", Box::new(change(4, &[0xff; 4]))),
        ("another magic", Box::new(change(0, b"PKB2"))),
        ("cut short", Box::new(|body| body.truncate(body.len() - 1))),
        ("a byte more", Box::new(|body| body.push(0))),
        ("nothing", Box::new(Vec::clear)),
        (
            "a bomb",
            Box::new(move |body| {
                // The payload of the first chunk claims 1 GiB in a few bytes.
                let count = u32::from_le_bytes(body[4..8].try_into().unwrap()) as usize;
                let stored = u32::from_le_bytes(body[48..52].try_into().unwrap()) as usize;
                let frame = bomb(1 << 30);
                let at = 16 + 44 * count;
                body.splice(at..at + stored, frame.iter().copied());
                body[48..52].copy_from_slice(&(frame.len() as u32).to_le_bytes());
            }),
        ),
        (
            "a payload that is no zstd",
            Box::new(|body| {
                let count = u32::from_le_bytes(body[4..8].try_into().unwrap()) as usize;
                body[16 + 44 * count..].fill(0x55);
            }),
        ),
    ];
    for (name, change) in cases {
        let (_, restored, report) = with_pack(change);
        let error = restored.expect_err(name);
        assert_eq!(error.kind(), ErrorKind::Damaged, "{name}: {error}");
        assert!(report.findings.iter().any(|finding| finding.kind.name() != "missing"), "{name}: {report:#?}");
        assert!(report.findings.iter().any(|finding| !finding.entries.is_empty()), "{name}: {report:#?}");
    }
}

/// A frame of `length` zeros: 128 KiB in a block of 4 bytes.
fn zstd_frame(length: usize) -> Vec<u8> {
    // Magic, then a descriptor (no content size, no checksum), a window of 128 KiB.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 7 << 3];
    let block: usize = 128 << 10;
    let blocks = length / block;
    for number in 0..blocks.min(300) {
        let last = u32::from(number + 1 == blocks.min(300));
        // Type 1 is a run of one byte.
        let header = last | (1 << 1) | ((block as u32) << 3);
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}

#[test]
fn forged_bodies_and_pages_are_damage() {
    let (storage, repository, _) = compressible();
    let body_key = keys_of(&storage, "bodies/").remove(0);
    let body = testing::open_object(&repository, body_key.as_str(), &get(&storage, &body_key)).unwrap();
    let page_key = pack_of_kind(&storage, 3).remove(0);
    let pages = testing::open_object(&repository, page_key.as_str(), &get(&storage, &page_key)).unwrap();
    let state = storage.snapshot();
    let mut restorable = 0;
    for (key, body) in [(&body_key, &body), (&page_key, &pages)] {
        for at in (0..body.len()).step_by(3) {
            for cut in [false, true] {
                storage.restore(state.clone());
                let mut changed = body.clone();
                if cut {
                    changed.truncate(at);
                } else {
                    changed[at] ^= 0x11;
                }
                replace_body(&storage, &repository, key, &changed);
                let repository = Repository::open(
                    storage.clone(),
                    &Credential::from(&backup_core::secret::Password::from(support::PASSWORD)),
                    environment(9),
                );
                let repository = repository.unwrap();
                for level in LEVELS {
                    verify(&repository, level).unwrap();
                }
                let listed = repository.backups();
                let Ok(backup) = repository.find_backup("latest") else {
                    assert!(listed.is_err());
                    continue;
                };
                let Ok(entry) = repository.entry(&backup, &path("file")) else { continue };
                let mut out = Vec::new();
                if repository.restore_stream(&entry, &mut out, &control(1)).is_ok() {
                    restorable += 1;
                }
            }
        }
    }
    assert!(restorable > 0, "a changed time or tag is a valid body");
}
