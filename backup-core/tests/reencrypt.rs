//! Copies with both passwords, between repositories with keys of their own: what arrives is what was there, interrupted
//! everywhere, beside other copiers and with damage at the source.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backup_core::content::{Attributes, Entry, EntryKind, EntryPath};
use backup_core::copy::{CopyMethod, CopyOptions, CopyReceipt, CopyStatus};
use backup_core::extent::{Extent, ExtentKind};
use backup_core::id::BackupId;
use backup_core::keys::Credential;
use backup_core::progress::CancelToken;
use backup_core::repository::{
    Backup, BackupKind, BackupOptions, InitOptions, LockedRepository, Repository, Selection, VerifyLevel, VerifyOptions,
};
use backup_core::secret::Password;
use backup_core::source::BlockSource;
use backup_core::storage::fault::{Fault, FaultStorage};
use backup_core::storage::{MemoryStorage, Storage};
use backup_core::time::Timestamp;
use backup_core::{Error, ErrorKind, testing};
use support::faults::faults_of;
use support::forger::{keys_of, overwrite};
use support::tree::{Made, Manner, Node, Target, Tree};
use support::{
    assert_sound, chain, control, environment_at, init_options, init_with, memory, noise, open, path, small_options,
};

const OTHER_PASSWORD: &str = "another password";

/// Other copiers have randomness of their own, and copies are made later than what they are copies of.
fn unlike_others() -> backup_core::repository::Environment {
    static SEED: AtomicU64 = AtomicU64::new(5000);
    environment_at(SEED.fetch_add(1, Ordering::Relaxed), 1_800_000_000)
}

/// A new repository with keys of its own.
fn another(storage: Arc<dyn Storage>, options: &InitOptions) -> Repository {
    let password = Password::from(OTHER_PASSWORD);
    Repository::init(storage, &Credential::from(&password), options, unlike_others()).unwrap()
}

fn open_other(storage: Arc<dyn Storage>) -> backup_core::Result<Repository> {
    let password = Password::from(OTHER_PASSWORD);
    Repository::open(storage, &Credential::from(&password), unlike_others())
}

fn copy(from: &Repository, to: &Repository) -> CopyReceipt {
    from.copy_to(to, &CopyOptions::default(), &control(2)).unwrap()
}

fn statuses(receipt: &CopyReceipt) -> Vec<CopyStatus> {
    receipt.backups.iter().map(|backup| backup.status).collect()
}

fn copies(receipt: &CopyReceipt) -> Vec<BackupId> {
    receipt.backups.iter().filter_map(|backup| backup.copy).collect()
}

fn find(repository: &Repository, id: BackupId) -> Backup {
    repository.find_backup(&id.to_string()).unwrap()
}

/// What a catalogue says of an entry beside where its content is, and the content.
#[derive(Debug, PartialEq)]
struct Known {
    kind: EntryKind,
    attributes: Attributes,
    digest: Option<String>,
    hard_link: Option<EntryPath>,
    inconsistent: bool,
    content: Vec<u8>,
}

fn known(repository: &Repository, backup: &Backup) -> BTreeMap<EntryPath, Known> {
    let describe = |entry: Entry| {
        let mut content = Vec::new();
        if entry.kind.has_content() && entry.hard_link.is_none() {
            repository.restore_stream(&entry, &mut content, &control(2)).unwrap();
        }
        let known = Known {
            kind: entry.kind.clone(),
            attributes: entry.attributes.clone(),
            digest: entry.digest.map(|digest| digest.to_string()),
            hard_link: entry.hard_link.clone(),
            inconsistent: entry.inconsistent,
            content,
        };
        (entry.path, known)
    };
    repository.entries(backup).unwrap().map(|entry| describe(entry.unwrap())).collect()
}

/// The whole of a backup as a restore makes it, holes included.
fn restored(repository: &Repository, backup: &Backup) -> BTreeMap<EntryPath, Made> {
    let target = Target::default();
    let report = repository.restore_tree(backup, &Selection::all(), &target, &control(3)).unwrap();
    assert!(report.is_complete(), "{:?}", report.problems);
    target.into_map()
}

/// That `copy` is `backup` in another repository, to the last byte.
fn assert_copy(from: &Repository, id: BackupId, to: &Repository, copy: BackupId) {
    let (backup, copied) = (find(from, id), find(to, copy));
    assert_eq!(known(from, &backup), known(to, &copied), "{id}");
    let what = |backup: &Backup| {
        let b = backup.clone();
        (b.kind, b.host, b.tags, b.labels, b.started, b.finished, b.problems, b.problem_count)
    };
    assert_eq!(what(&backup), what(&copied));
    let (there, here) = (backup.statistics, copied.statistics);
    assert_eq!((there.entries, there.bytes_logical), (here.entries, here.bytes_logical));
    let time = |repository: &LockedRepository, id| {
        repository.commits().unwrap().into_iter().find(|commit| commit.id == id).unwrap().time
    };
    assert_eq!(time(&locked(from), id), time(&locked(to), copy));
    let last = copied.origins.last().unwrap();
    assert_eq!((last.repository, last.backup), (from.id(), id));
}

fn locked(repository: &Repository) -> LockedRepository {
    LockedRepository::open(testing::storage_of(repository), unlike_others()).unwrap()
}

/// A disk image in memory with a hole.
struct Image {
    bytes: Vec<u8>,
    hole: (u64, u64),
}

impl BlockSource for Image {
    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn extents(&self, from: u64, visit: &mut dyn FnMut(Extent) -> bool) -> std::io::Result<()> {
        let (offset, length) = self.hole;
        let end = offset + length;
        [
            Extent::new(0, offset, ExtentKind::Data),
            Extent::new(offset, length, ExtentKind::Zero),
            Extent::new(end, self.length() - end, ExtentKind::Data),
        ]
        .into_iter()
        .filter(|extent| extent.end() > from)
        .all(visit);
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        buffer.copy_from_slice(&self.bytes[offset as usize..][..buffer.len()]);
        Ok(())
    }
}

/// 3 MiB with a hole of 1 MiB; `change` is where one block differs.
fn image(change: Option<usize>) -> Image {
    let mut bytes = noise(7, 3 << 20);
    bytes[1 << 20..2 << 20].fill(0);
    if let Some(at) = change {
        bytes[at] ^= 0xff;
    }
    Image { bytes, hole: (1 << 20, 1 << 20) }
}

fn all_attributes() -> Attributes {
    let mut attributes = Attributes::default();
    let time = |seconds, nanoseconds| Some(Timestamp::from_unix(seconds, nanoseconds).unwrap());
    (attributes.mode, attributes.uid, attributes.gid) = (Some(0o4751), Some(7), Some(8));
    (attributes.user, attributes.group) = (Some("root".into()), Some("wheel".into()));
    (attributes.modified, attributes.changed) = (time(-5, 999_999_999), time(1_700_000_000, 1));
    attributes.inode = Some(u64::MAX);
    attributes.extended = vec![(b"security.x".to_vec(), vec![0, 255]), (b"user.empty".to_vec(), Vec::new())];
    attributes
}

fn nodes(number: u64) -> Vec<Node> {
    let mut all = Node::file("tree/attributes", noise(1, 3000));
    all.attributes = Some(all_attributes());
    let mut nodes = vec![
        Node::directory("tree"),
        all,
        Node::file("tree/changed", noise(2, 90_000)).with_manner(Manner::Changed),
        Node::file("tree/empty", []),
        Node::file("tree/image", image(None).bytes).image().with_hole(1 << 20, 1 << 20),
        Node::file("tree/large", [noise(3, 300_000), vec![0; 200_000], noise(4, 100_000)].concat()),
        Node::file("tree/linked", noise(5, 70_000)),
        Node::file("tree/linked-later", noise(5, 70_000)).link_to("tree/linked"),
        Node::file("tree/lost", b"x").with_manner(Manner::Vanished),
        Node::new("tree/null", EntryKind::CharacterDevice { major: 1, minor: 3 }),
        Node::new("tree/pipe", EntryKind::Fifo),
        Node::file("tree/small-zeros", vec![0; 4096]),
        Node::symlink("tree/symlink", "nowhere"),
        Node::file("tree/zeros", vec![0; 500_000]).image().with_hole(0, 500_000),
        Node::file("tree/of-this-backup", noise(900 + number, 20_000)),
    ];
    nodes.extend((0..200).map(|n| Node::file(&format!("tree/{n:03}"), noise(2000 + n, 100 + n as usize))));
    nodes
}

/// A stream, a tree twice with little between them, and an image twice. Made on days of their own.
fn source(storage: Arc<dyn Storage>) -> (Repository, Vec<BackupId>) {
    init_with(storage.clone(), &small_options(), 1).unwrap();
    let on_day = |day: i64, options: BackupOptions, add: &dyn Fn(&mut backup_core::repository::BackupSession)| {
        let password = Password::from(support::PASSWORD);
        let environment = environment_at(10 + day as u64, 1_700_000_000 + 86_400 * day);
        let repository = Repository::open(storage.clone(), &Credential::from(&password), environment).unwrap();
        let mut session = repository.begin(options.with_control(control(2))).unwrap();
        add(&mut session);
        session.commit().unwrap().id
    };
    let secret = BackupOptions::new(BackupKind::SensitiveConfiguration)
        .with_host("vault")
        .with_tag("nightly")
        .with_tag("keys")
        .with_label("database", "tenants");
    let tree = || BackupOptions::new(BackupKind::Data).with_host("node");
    let machine = || BackupOptions::new(BackupKind::VirtualMachine).with_host("vm");
    let ids = vec![
        on_day(0, secret, &|session| {
            session.add_stream(path("etc/keys"), &mut noise(20, 700_000).as_slice()).unwrap();
            session.add_stream(path("etc/none"), &mut &b""[..]).unwrap();
        }),
        on_day(1, tree(), &|session| session.add_tree(&mut Tree::new(nodes(1))).unwrap()),
        on_day(2, machine(), &|session| drop(session.add_blocks(path("disk"), &image(None)).unwrap())),
        on_day(3, tree(), &|session| session.add_tree(&mut Tree::new(nodes(3))).unwrap()),
        on_day(4, machine(), &|session| drop(session.add_blocks(path("disk"), &image(Some(5000))).unwrap())),
    ];
    (open(storage, 99).unwrap(), ids)
}

#[test]
fn all_of_a_backup_arrives_in_a_repository_with_other_keys() {
    let (from, ids) = source(memory());
    for (threads, options) in [(1, small_options()), (3, init_options())] {
        let storage = memory();
        let to = another(storage.clone(), &options);
        let content = CopyOptions::default().with_verify(VerifyLevel::Content);
        let receipt = from.copy_to(&to, &content, &control(threads)).unwrap();
        assert!(receipt.ok && receipt.problems.is_empty(), "{receipt:#?}");
        assert_eq!(receipt.method, CopyMethod::Reencrypted);
        assert_eq!((receipt.repository, receipt.destination), (from.id(), to.id()));
        assert_eq!(statuses(&receipt), [CopyStatus::Copied; 5]);
        assert_eq!(receipt.backups.iter().map(|backup| backup.id).collect::<Vec<_>>(), ids);
        let copies = copies(&receipt);
        assert_eq!(to.backups().unwrap().iter().map(|backup| backup.id).collect::<Vec<_>>(), copies, "in this order");
        for (id, copy) in ids.iter().zip(&copies) {
            assert_ne!(id, copy);
            assert_copy(&from, *id, &to, *copy);
            assert_eq!(find(&to, *copy).origins.len(), 1);
        }
        // Holes stay holes where they are cut alike.
        if threads == 1 {
            for (id, copy) in ids.iter().zip(&copies) {
                assert_eq!(restored(&from, &find(&from, *id)), restored(&to, &find(&to, *copy)));
            }
        }
        // Incomplete is incomplete, and a parent is the copy of the parent.
        let (tree, next) = (find(&to, copies[1]), find(&to, copies[3]));
        assert!(!tree.is_complete() && tree.problems.iter().any(|problem| problem.name == "tree/lost"));
        assert_eq!((find(&from, ids[3]).parent, next.parent), (Some(ids[1]), Some(copies[1])));
        assert_sound(&to);
        // What was written is what the receipt says.
        let written: u64 = ["packs/", "index/", "bodies/", "closures/"]
            .iter()
            .flat_map(|prefix| keys_of(&storage, prefix))
            .map(|key| storage.get(&key, 1 << 30).unwrap().len() as u64)
            .sum();
        assert_eq!((receipt.bytes_copied, receipt.bytes_found), (written, 0));
    }
}

#[test]
fn what_did_not_change_is_neither_read_nor_stored_again() {
    let (from, ids) = source(memory());
    let to = another(memory(), &small_options());
    let receipt = copy(&from, &to);
    let copies = copies(&receipt);
    // 20 000 bytes of one file; one block of 64 KiB of the image. What changed while it was read is not taken over.
    let tree = find(&to, copies[3]).statistics;
    assert!(tree.bytes_read < 30_000 && tree.bytes_unchanged > 1_000_000, "{tree:?}");
    assert_eq!(find(&to, copies[4]).statistics.bytes_read, 64 << 10);
    assert_eq!(find(&to, copies[4]).statistics.chunks_new, 1);

    let again = copy(&from, &to);
    assert!(again.ok && again.verification.is_none(), "{again:#?}");
    assert_eq!((again.objects_copied, again.bytes_copied), (0, 0));
    assert_eq!(statuses(&again), [CopyStatus::Found; 5]);
    assert_eq!(self::copies(&again), copies);

    // Another one: only what is new travels, although only it is asked for.
    let mut session = from.begin(BackupOptions::new(BackupKind::VirtualMachine).with_host("vm")).unwrap();
    session.add_blocks(path("disk"), &image(Some(2_500_000))).unwrap();
    let next = session.commit().unwrap().id;
    let only = CopyOptions::default().with_backups(vec![next]);
    let more = from.copy_to(&to, &only, &control(1)).unwrap();
    assert_eq!(statuses(&more), [CopyStatus::Copied]);
    assert_copy(&from, next, &to, more.backups[0].copy.unwrap());
    let statistics = find(&to, more.backups[0].copy.unwrap()).statistics;
    // The block that changed, and the one that changed back, which the destination has.
    assert_eq!((statistics.bytes_read, statistics.chunks_new), (128 << 10, 1));
    assert!(more.bytes_copied < 200_000 && more.bytes_found > 1_000_000, "{more:#?}");
    drop(ids);
}

/// A backup is the same wherever it comes from, and comes back to where it was made as what it is.
#[test]
fn copies_of_copies_are_found() {
    let (first, ids) = source(memory());
    let (second, third) = (another(memory(), &small_options()), another(memory(), &small_options()));
    copy(&first, &second);
    let receipt = copy(&second, &third);
    assert_eq!(statuses(&receipt), [CopyStatus::Copied; 5]);
    for (id, copy) in ids.iter().zip(copies(&receipt)) {
        let origins = find(&third, copy).origins;
        assert_eq!(origins.iter().map(|origin| origin.repository).collect::<Vec<_>>(), [first.id(), second.id()]);
        assert_eq!(origins[0].backup, *id);
    }
    for (from, to) in [(&first, &third), (&third, &first), (&second, &first), (&third, &second)] {
        let receipt = copy(from, to);
        assert_eq!((statuses(&receipt), receipt.bytes_copied), (vec![CopyStatus::Found; 5], 0));
    }
    assert_eq!(copies(&copy(&third, &first)), ids);
}

#[test]
fn damage_at_the_source_is_named_and_keeps_no_other_backup() {
    let storage = memory();
    let (from, ids) = source(storage.clone());
    let mut failures = 0;
    for key in keys_of(&storage, "packs/").into_iter().chain(keys_of(&storage, "bodies/")) {
        let bad = Arc::new((*storage).clone());
        let mut bytes = bad.get(&key, 1 << 30).unwrap().to_vec();
        for position in (200..bytes.len()).step_by(2000) {
            bytes[position] ^= 1;
        }
        overwrite(&bad, &key, bytes);
        let to = another(memory(), &small_options());
        let damaged = open(bad, 3).unwrap();
        let receipt = damaged.copy_to(&to, &CopyOptions::default(), &control(2)).unwrap();
        assert!(!receipt.ok, "{key}");
        for (id, backup) in ids.iter().zip(&receipt.backups) {
            match backup.status {
                CopyStatus::Copied => assert_copy(&from, *id, &to, backup.copy.unwrap()),
                CopyStatus::Failed => {
                    failures += 1;
                    let reason = backup.reason.as_deref().unwrap();
                    assert!(reason.contains("damaged") && !reason.contains("at the destination"), "{key}: {reason}");
                }
                status => panic!("{key}: {status:?}"),
            }
        }
        assert_eq!(to.backups().unwrap().len(), copies(&receipt).len(), "what failed is not committed");
        assert_sound(&to);
        // Mended, the rest follows.
        assert!(copy(&from, &to).ok);
        assert_eq!(to.backups().unwrap().len(), 5);
    }
    assert!(failures > 10, "{failures}");
}

/// A small source for what is tried at every operation.
fn small_source(storage: Arc<dyn Storage>) -> (Repository, Vec<BackupId>) {
    let repository = init_with(storage, &small_options(), 1).unwrap();
    let make = |number: u64| {
        let mut session = repository.begin(support::options(1)).unwrap();
        let data = [noise(1, 150_000), noise(100 + number, 40_000)].concat();
        session.add_stream(path("data"), &mut data.as_slice()).unwrap();
        session.add_tree(&mut Tree::new(vec![Node::file("file", noise(number, 5000)).stamped(5, 6)])).unwrap();
        session.commit().unwrap().id
    };
    let ids = (0..2).map(make).collect();
    (repository, ids)
}

/// A destination with keys of its own and nothing in it, to begin with again and again.
fn empty_destination() -> Arc<MemoryStorage> {
    let storage = memory();
    another(storage.clone(), &small_options());
    storage
}

#[test]
fn a_crash_at_any_operation_of_either_side_loses_nothing_and_the_copy_is_continued() {
    let origin = memory();
    let (from, ids) = small_source(origin.clone());
    let empty = empty_destination();
    let options = CopyOptions::default();
    let logged = |at_source: bool| {
        let storage = Arc::new(FaultStorage::new((*if at_source { &origin } else { &empty }).as_ref().clone()));
        let faulty: Arc<dyn Storage> = storage.clone();
        let (a, b) = if at_source {
            (open(faulty, 2).unwrap(), open_other(Arc::new((*empty).clone())).unwrap())
        } else {
            (from.clone(), open_other(faulty).unwrap())
        };
        let opening = storage.operations();
        assert!(a.copy_to(&b, &options, &control(1)).unwrap().ok);
        storage.log().into_iter().filter(move |operation| operation.number >= opening)
    };
    let mut crashes = 0;
    for operation in logged(false) {
        for fault in faults_of(&operation) {
            let what = format!("{fault:?} at {} {:?} {}", operation.number, operation.kind, operation.key);
            let storage = Arc::new(FaultStorage::at((*empty).clone(), operation.number, fault));
            let faulty: Arc<dyn Storage> = storage.clone();
            let to = open_other(faulty).unwrap();
            let result = from.copy_to(&to, &options, &control(1));
            let acknowledged = match &result {
                Ok(receipt) => receipt.backups.iter().filter_map(|backup| Some((backup.id, backup.copy?))).collect(),
                Err(_) => Vec::new(),
            };
            drop(to);
            let survivors = Arc::new(Arc::into_inner(storage).unwrap().into_inner());
            let to = open_other(survivors.clone()).unwrap();
            for (id, copy) in &acknowledged {
                assert_copy(&from, *id, &to, *copy);
            }
            // Whatever is visible is whole.
            for backup in to.backups().unwrap() {
                assert_copy(&from, backup.origins[0].backup, &to, backup.id);
            }
            let packs = keys_of(&survivors, "packs/").len();
            let receipt = copy(&from, &to);
            assert!(receipt.ok, "{what}: {receipt:#?}");
            assert_eq!(to.backups().unwrap().len(), ids.len(), "{what}: each once");
            for (id, copy) in ids.iter().zip(copies(&receipt)) {
                assert_copy(&from, *id, &to, copy);
            }
            if packs == keys_of(&survivors, "packs/").len() {
                // All had been uploaded: nothing was again.
                assert!(receipt.bytes_copied < 40_000, "{what}: {receipt:#?}");
            }
            assert_sound(&to);
            crashes += 1;
        }
    }
    for operation in logged(true) {
        for fault in [Fault::FailBefore, Fault::CrashBefore] {
            let what = format!("{fault:?} at {} {:?} {}", operation.number, operation.kind, operation.key);
            let faulty: Arc<dyn Storage> = Arc::new(FaultStorage::at((*origin).clone(), operation.number, fault));
            let to = open_other(Arc::new((*empty).clone())).unwrap();
            match open(faulty, 2).unwrap().copy_to(&to, &options, &control(1)) {
                // An error that another place of the same thing made good.
                Ok(receipt) => assert!(receipt.ok || fault == Fault::CrashBefore, "{what}: {receipt:#?}"),
                Err(error) => {
                    let text = chain(&error);
                    assert!(text.contains(&operation.key) && !text.contains("at the destination"), "{what}: {text}");
                }
            }
            let receipt = copy(&from, &to);
            assert!(receipt.ok, "{what}: {receipt:#?}");
            for (id, copy) in ids.iter().zip(copies(&receipt)) {
                assert_copy(&from, *id, &to, copy);
            }
            assert_eq!(to.backups().unwrap().len(), ids.len(), "{what}: each once");
            crashes += 1;
        }
    }
    assert!(crashes > 150, "{crashes}");
}

#[test]
fn what_an_interrupted_copy_uploaded_is_not_uploaded_again() {
    let (from, _) = small_source(memory());
    let empty = empty_destination();
    let operations = {
        let storage = Arc::new(FaultStorage::new((*empty).clone()));
        let to = open_other(storage.clone()).unwrap();
        assert!(copy(&from, &to).ok);
        storage.log()
    };
    // The commit of the first backup does not arrive.
    let commit = operations.iter().find(|operation| operation.key.ends_with("/outcome") && operation.kind.is_change());
    let storage = Arc::new(FaultStorage::at((*empty).clone(), commit.unwrap().number, Fault::CrashBefore));
    let to = open_other(storage.clone()).unwrap();
    assert!(from.copy_to(&to, &CopyOptions::default(), &control(1)).is_err());
    drop(to);
    let survivors = Arc::new(Arc::into_inner(storage).unwrap().into_inner());
    let to = open_other(survivors.clone()).unwrap();
    let before = keys_of(&survivors, "packs/");
    assert!(!before.is_empty());
    let receipt = copy(&from, &to);
    assert!(receipt.ok);
    let first = find(&to, receipt.backups[0].copy.unwrap());
    assert_eq!((first.statistics.chunks_new, first.statistics.bytes_new), (0, 0), "all of it was there");
    assert!(receipt.bytes_found > 150_000, "{receipt:#?}");
}

#[test]
fn a_copy_that_is_stopped_is_cancelled_and_continued() {
    let (from, ids) = small_source(memory());
    let empty = empty_destination();
    for stop_at in (10..80).step_by(3) {
        let cancel = CancelToken::new();
        let storage = {
            let (cancel, mut count) = (cancel.clone(), 0);
            Arc::new(FaultStorage::with_script((*empty).clone(), move |_| {
                count += 1;
                if count == stop_at {
                    cancel.cancel();
                }
                Fault::None
            }))
        };
        let to = open_other(storage).unwrap();
        match from.copy_to(&to, &CopyOptions::default(), &control(2).with_cancel(cancel)) {
            Err(Error::Cancelled) => {}
            Ok(receipt) => assert!(receipt.ok),
            Err(error) => panic!("{stop_at}: {}", chain(&error)),
        }
        assert!(copy(&from, &to).ok);
        assert_eq!(to.backups().unwrap().len(), ids.len());
    }
}

/// A second copier copies all while the first stands before any of its operations. Each backup arrives once, but where
/// both decide at the same moment; then it is there twice, and whoever comes later finds one.
#[test]
fn two_copiers_at_once_do_not_disturb_each_other() {
    let (from, ids) = small_source(memory());
    let empty = empty_destination();
    let log = {
        let storage = Arc::new(FaultStorage::new((*empty).clone()));
        let to = open_other(storage.clone()).unwrap();
        let opening = storage.operations();
        from.copy_to(&to, &CopyOptions::default(), &control(1)).unwrap();
        storage.log().split_off(opening as usize)
    };
    let mut twice = 0;
    for operation in log {
        let shared = Arc::new((*empty).clone());
        let storage = {
            let (from, shared) = (from.clone(), Arc::clone(&shared));
            Arc::new(FaultStorage::with_script(Arc::clone(&shared), move |now| {
                if now.number == operation.number {
                    let to = open_other(shared.clone()).unwrap();
                    assert!(from.copy_to(&to, &CopyOptions::default(), &control(1)).unwrap().ok);
                }
                Fault::None
            }))
        };
        let to = open_other(storage).unwrap();
        let what = format!("{} {:?} {}", operation.number, operation.kind, operation.key);
        let receipt = from.copy_to(&to, &CopyOptions::default(), &control(1)).unwrap();
        assert!(receipt.ok, "{what}: {receipt:#?}");
        for (id, copy) in ids.iter().zip(copies(&receipt)) {
            assert_copy(&from, *id, &to, copy);
        }
        let backups = to.backups().unwrap().len();
        assert!(backups == ids.len() || backups == ids.len() + 1, "{what}: {backups}");
        twice += backups - ids.len();
        let later = copy(&from, &to);
        assert_eq!((statuses(&later), later.bytes_copied), (vec![CopyStatus::Found; 2], 0), "{what}");
        assert_sound(&to);
    }
    // Between the last look and the commit of each backup stand its history, closure, body and commit.
    assert!((1..40).contains(&twice), "{twice}");
    let to = open_other(Arc::new((*empty).clone())).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert!(copy(&from, &to).ok));
        }
    });
    assert_sound(&to);
    assert_eq!(statuses(&copy(&from, &to)), [CopyStatus::Found; 2]);
}

#[test]
fn what_was_forgotten_at_the_destination_stays_forgotten_as_long_as_that_is_known() {
    let (from, ids) = small_source(memory());
    let storage = empty_destination();
    let to = open_other(storage.clone()).unwrap();
    let receipt = copy(&from, &to);
    let (key, bytes) = testing::forget(&to, receipt.backups[0].copy.unwrap()).unwrap();
    overwrite(&storage, &key, bytes);
    let again = copy(&from, &to);
    assert_eq!(statuses(&again), [CopyStatus::Forgotten, CopyStatus::Found]);
    assert!(again.ok);
    let named = from.copy_to(&to, &CopyOptions::default().with_backups(vec![ids[0]]), &control(1)).unwrap();
    assert!(!named.ok, "who names it wants it");
    assert_eq!(to.backups().unwrap().len(), 1);
}

#[test]
fn a_single_writer_destination_is_copied_to() {
    let (from, ids) = small_source(memory());
    let storage = memory();
    let to = another(storage.clone(), &small_options().with_single_writer(true));
    let receipt = copy(&from, &to);
    assert!(receipt.ok);
    assert!(keys_of(&storage, "probes/").is_empty());
    for (id, copy) in ids.iter().zip(copies(&receipt)) {
        assert_copy(&from, *id, &to, copy);
    }
}

/// The destination's own backups are beside the copies, and what it has of the data is used.
#[test]
fn a_destination_with_backups_of_its_own_keeps_them() {
    let (from, ids) = small_source(memory());
    let to = another(memory(), &small_options());
    let mut session = to.begin(support::options(1)).unwrap();
    session.add_stream(path("same"), &mut [noise(1, 150_000), noise(100, 40_000)].concat().as_slice()).unwrap();
    let own = session.commit().unwrap();
    let receipt = copy(&from, &to);
    let copies = copies(&receipt);
    let first = find(&to, copies[0]).statistics;
    assert_eq!(first.bytes_new, 5000, "the stream was there: {first:?}");
    assert!(own.origins.is_empty());
    let listed: Vec<BackupId> = to.backups().unwrap().iter().map(|backup| backup.id).collect();
    assert_eq!(listed, [own.id, copies[0], copies[1]], "what it knew stands before what came later");
    for (id, copy) in ids.iter().zip(copies) {
        assert_copy(&from, *id, &to, copy);
    }
    assert_sound(&to);
}

#[test]
fn what_cannot_be_copied_to_is_refused_at_once() {
    let storage = memory();
    let (from, _) = small_source(storage.clone());
    // A copy of the same repository gets its backups as they are.
    let same = open(Arc::new((*storage).clone()), 4).unwrap();
    let receipt = copy(&from, &same);
    assert_eq!((receipt.method, statuses(&receipt)), (CopyMethod::Verbatim, vec![CopyStatus::Found; 2]));
    let other = another(memory(), &small_options());
    let error = from.copy_anew(&other, receipt, &CopyOptions::default(), &control(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let to = another(memory(), &small_options());
    let unknown = CopyOptions::default().with_backups(vec![BackupId::new([7; 32])]);
    assert_eq!(from.copy_to(&to, &unknown, &control(1)).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(to.backups().unwrap().is_empty());
    let report = to.verify(&VerifyOptions::new(VerifyLevel::Content), None, &control(1)).unwrap();
    assert!(report.ok);
}
