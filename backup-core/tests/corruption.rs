//! Every byte of every object of a small repository changed, every object cut short at every length, removed, exchanged
//! with every other and copied under another name: it is reported by the object's name, or refused, or harmless for a
//! reason that is written down here. Never a panic, never wrong data.
//!
//! An ordinary run takes a share that is the same every time. `BACKUP_CAMPAIGN=full` takes all of it
//! (`scripts/campaign.sh corruption`).

mod support;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use backup_core::ErrorKind;
use backup_core::content::{EntryKind, EntryPath};
use backup_core::id::BackupId;
use backup_core::keys::{Credential, RecoveryKey};
use backup_core::repository::{
    LockedRepository, Repository, Selection, UnlockOptions, VerifyLevel, VerifyOptions, VerifyReport,
};
use backup_core::secret::Password;
use backup_core::storage::{Key, MemoryStorage};
use bytes::Bytes;
use support::tree::{Made, Node, Target, Tree};
use support::{
    PASSWORD, chain, control, environment, init_with, is_full_campaign, memory, noise, open, options, path,
    small_options,
};

type Objects = BTreeMap<Key, Bytes>;
type Contents = BTreeMap<EntryPath, Made>;

/// Of all states, an ordinary run takes every so many.
const SHARE: usize = 83;

/// A repository of a few objects of a few KiB, with two backups of a stream, a tree and an image each.
struct Small {
    objects: Objects,
    keys: Vec<Key>,
    recovery: RecoveryKey,
    recovery_slot: Key,
    backups: Vec<(BackupId, Contents)>,
}

fn content(bytes: Vec<u8>, holes: u64) -> Made {
    Made::Content(Arc::new(bytes), holes)
}

fn contents(number: u64) -> Contents {
    let mut stream = noise(1, 600);
    stream.extend(format!("insert into t values ({number});\n").repeat(60).bytes());
    let mut image = vec![0x22; 3 * 65_536];
    image[65_536..131_072].fill(0);
    image[7] = number as u8;
    BTreeMap::from([
        (path("dump"), content(stream, 0)),
        (path("tree"), Made::Other(EntryKind::Directory)),
        (path("tree/image"), content(image, 65_536)),
        (path("tree/link"), Made::Other(EntryKind::Symlink { target: b"note".to_vec() })),
        (path("tree/note"), content(format!("note {number}").into_bytes(), 0)),
        (path("tree/same"), content(b"the same".to_vec(), 0)),
    ])
}

fn bytes_of(contents: &Contents, name: &str) -> Vec<u8> {
    match &contents[&path(name)] {
        Made::Content(bytes, _) => bytes.to_vec(),
        other => panic!("{name} is {other:?}"),
    }
}

fn back_up(repository: &Repository, contents: &Contents) -> backup_core::Result<BackupId> {
    let file = |name: &str| Node::file(name, bytes_of(contents, name));
    let mut session = repository.begin(options(1))?;
    session.add_stream(path("dump"), &mut bytes_of(contents, "dump").as_slice())?;
    session.add_tree(&mut Tree::new(vec![
        Node::directory("tree"),
        file("tree/image").image().with_hole(65_536, 65_536),
        Node::symlink("tree/link", "note"),
        file("tree/note"),
        file("tree/same"),
    ]))?;
    session.commit().map(|backup| backup.id)
}

impl Small {
    fn new() -> Self {
        let storage = memory();
        let repository = init_with(storage.clone(), &small_options(), 1).unwrap();
        let (slot, recovery) = repository.add_recovery_key("paper").unwrap();
        repository.rotate_root_key().unwrap();
        let repository = open(storage.clone(), 2).unwrap();
        let backups =
            (0..2).map(|number| (back_up(&repository, &contents(number)).unwrap(), contents(number))).collect();
        let objects = storage.snapshot();
        let keys = objects.keys().cloned().collect();
        let recovery_slot = Key::new(format!("keys/{slot}")).unwrap();
        Self { objects, keys, recovery, recovery_slot, backups }
    }

    fn unlock(&self, storage: &Arc<MemoryStorage>, credential: &Credential<'_>) -> backup_core::Result<Repository> {
        // A changed slot may ask for much: that is refused here as it is by careful callers.
        let cost = UnlockOptions::default().with_max_memory_kib(64 << 10);
        LockedRepository::open(storage.clone(), environment(3))?.unlock(credential, &cost)
    }

    fn open(&self, storage: &Arc<MemoryStorage>) -> backup_core::Result<Repository> {
        self.unlock(storage, &Credential::RecoveryKey(&self.recovery))
    }

    fn open_by_password(&self, storage: &Arc<MemoryStorage>) -> backup_core::Result<Repository> {
        self.unlock(storage, &Credential::from(&Password::from(PASSWORD)))
    }

    /// Whether every backup comes out whole. Whatever comes out is right, or this is an error.
    fn restores(&self, repository: &Repository) -> Result<bool, String> {
        let mut whole = true;
        for (id, contents) in &self.backups {
            whole &= restores(repository, id, contents)?;
        }
        Ok(whole)
    }

    /// The kind of an object.
    fn kind(&self, key: &Key) -> String {
        let first = key.as_str().split('/').next().unwrap();
        match (first, self.objects[key].get(9)) {
            ("packs", Some(2)) => "packs of content".to_owned(),
            ("packs", _) => "packs of pages".to_owned(),
            ("sessions", _) => format!("sessions: {}", key.as_str().rsplit('/').next().unwrap()),
            ("keys", Some(2)) => "keys: recovery".to_owned(),
            ("keys", _) => "keys: password".to_owned(),
            ("keyring", _) if key.as_str() == "keyring/00000001" => "keyring: older".to_owned(),
            ("keyring", _) => "keyring: newest".to_owned(),
            (first, _) => first.to_owned(),
        }
    }

    fn outcome_id(&self, key: &Key) -> String {
        BackupId::new(*blake3::hash(&self.objects[key]).as_bytes()).to_string()
    }
}

fn restores(repository: &Repository, id: &BackupId, contents: &Contents) -> Result<bool, String> {
    let Ok(backup) = repository.find_backup(&id.to_string()) else { return Ok(false) };
    let target = Target::default();
    let Ok(report) = repository.restore_tree(&backup, &Selection::all(), &target, &control(1)) else {
        return Ok(false);
    };
    let made = target.into_map();
    for (path, made) in &made {
        if contents.get(path) != Some(made) {
            return Err(format!("WRONG DATA in {path}"));
        }
    }
    let mut whole = made.len() == contents.len();
    if report.is_complete() && !whole {
        return Err("a restore says that it is complete".to_owned());
    }
    let mut dump = Vec::new();
    let streamed = repository
        .entry(&backup, &path("dump"))
        .and_then(|entry| repository.restore_stream(&entry, &mut dump, &control(1)));
    match streamed {
        Ok(_) if dump != bytes_of(contents, "dump") => return Err("WRONG DATA in the stream".to_owned()),
        Ok(_) => {}
        Err(_) => whole = false,
    }
    Ok(whole)
}

/// What is done to the repository. Objects are numbered in the order of their keys.
#[derive(Clone, Copy, Debug)]
enum Change {
    Flip { object: usize, at: usize, mask: u8 },
    Cut { object: usize, length: usize },
    Extend { object: usize },
    Remove { object: usize },
    Exchange { one: usize, two: usize },
    Copy { object: usize },
}

impl Change {
    fn name(self) -> &'static str {
        match self {
            Self::Flip { .. } => "byte changed",
            Self::Cut { .. } => "cut short",
            Self::Extend { .. } => "a byte more",
            Self::Remove { .. } => "removed",
            Self::Exchange { .. } => "exchanged",
            Self::Copy { .. } => "copied",
        }
    }

    fn first(self) -> usize {
        match self {
            Self::Flip { object, .. }
            | Self::Cut { object, .. }
            | Self::Extend { object }
            | Self::Remove { object }
            | Self::Exchange { one: object, .. }
            | Self::Copy { object } => object,
        }
    }

    /// Every state that there is: three changes of every byte, every length, every object and every pair of them.
    fn all(small: &Small) -> (Vec<Self>, Vec<Self>) {
        let (mut many, mut few) = (Vec::new(), Vec::new());
        for (object, key) in small.keys.iter().enumerate() {
            let length = small.objects[key].len();
            for at in 0..length {
                let random = blake3::hash(format!("{key} {at}").as_bytes()).as_bytes()[0] & 0x7e | 2;
                many.extend([0x01, 0x80, random].map(|mask| Self::Flip { object, at, mask }));
            }
            many.extend((0..length).map(|length| Self::Cut { object, length }));
            few.extend([Self::Extend { object }, Self::Remove { object }, Self::Copy { object }]);
            few.extend((object + 1..small.keys.len()).map(|two| Self::Exchange { one: object, two }));
        }
        (many, few)
    }

    /// Makes the change. Returns the keys whose objects are not what they were.
    fn apply(self, small: &Small) -> Option<(Objects, Vec<Key>)> {
        let mut objects = small.objects.clone();
        let mut keys = vec![small.keys[self.first()].clone()];
        let key = keys[0].clone();
        match self {
            Self::Flip { at, mask, .. } => {
                let mut bytes = objects[&key].to_vec();
                bytes[at] ^= mask;
                objects.insert(key, bytes.into());
            }
            Self::Cut { length, .. } => drop(objects.insert(key.clone(), objects[&key].slice(..length))),
            Self::Extend { .. } => drop(objects.insert(key.clone(), [&objects[&key], &[0][..]].concat().into())),
            Self::Remove { .. } => drop(objects.remove(&key)),
            Self::Exchange { two, .. } => {
                keys.push(small.keys[two].clone());
                let (one, two) = (objects[&keys[0]].clone(), objects[&keys[1]].clone());
                objects.insert(keys[0].clone(), two);
                objects.insert(keys[1].clone(), one);
            }
            Self::Copy { .. } => {
                keys = vec![another_name(&key)?];
                objects.insert(keys[0].clone(), objects[&key].clone());
            }
        }
        Some((objects, keys))
    }
}

/// A name of the same kind that nothing has.
fn another_name(key: &Key) -> Option<Key> {
    let parts: Vec<&str> = key.as_str().split('/').collect();
    let name = "5a".repeat(32);
    let session = "5a".repeat(16);
    let key = match parts[0] {
        "keys" => format!("keys/{session}"),
        "keyring" => "keyring/00000003".to_owned(),
        "packs" => format!("packs/5a/{name}"),
        "sessions" => format!("sessions/{}/{session}/{}", parts[1], parts[3]),
        "config" => return None,
        kind => format!("{kind}/{name}"),
    };
    Some(Key::new(key).unwrap())
}

/// What came of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// The repository does not open, by the name of what is wrong.
    Refused,
    /// One slot does not open it any more; the other does, and everything is there.
    SlotRefused,
    /// Verification reports it by its name.
    Reported,
    /// The newest commit was withheld: whoever knows it reports it.
    ReportedByWhoeverKnowsIt,
    /// Everything is there and verification finds nothing: only that it exists counts, and only while the session has no
    /// outcome.
    HarmlessMark,
    /// Everything is there and verification finds nothing: the newest keyring has all keys of older ones.
    HarmlessOldKeyring,
    /// Everything is there and verification finds nothing: no commit names the object.
    HarmlessUnnamed,
}

/// Why the object under a key is of no importance.
fn harmless(key: &Key, change: Change) -> Option<Verdict> {
    let is = |prefix: &str| key.as_str().starts_with(prefix);
    if key.as_str().ends_with("/open") {
        Some(Verdict::HarmlessMark)
    } else if key.as_str() == "keyring/00000001" {
        Some(Verdict::HarmlessOldKeyring)
    } else if matches!(change, Change::Copy { .. }) && ["packs/", "index/", "bodies/", "closures/"].into_iter().any(is)
    {
        Some(Verdict::HarmlessUnnamed)
    } else {
        None
    }
}

fn verify(repository: &Repository, options: &VerifyOptions) -> Result<VerifyReport, String> {
    repository.verify(options, None, &control(1)).map_err(|error| format!("verification failed: {error}"))
}

fn names(report: &VerifyReport, object: &str) -> bool {
    report.findings.iter().any(|finding| finding.object == object && !finding.message.is_empty())
}

/// Holds a state against the rules.
fn judge(small: &Small, change: Change, objects: Objects, keys: &[Key]) -> Result<Verdict, String> {
    let storage = Arc::new(MemoryStorage::from_objects(objects));
    let is_slot = |key: &&Key| key.as_str().starts_with("keys/");
    let repository = match small.open(&storage) {
        Ok(repository) => repository,
        Err(error) if keys.contains(&small.recovery_slot) && !keys.iter().any(|key| opens(key) && !is_slot(&key)) => {
            let kinds =
                [ErrorKind::WrongPassword, ErrorKind::Damaged, ErrorKind::Unsupported, ErrorKind::LimitExceeded];
            if !kinds.contains(&error.kind()) {
                return Err(format!("refused as {error}"));
            }
            // The other slot, unless that was changed as well.
            if keys.iter().filter(is_slot).count() == 1 && keys.len() == 1 {
                let repository = small.open_by_password(&storage).map_err(|error| format!("no slot opens: {error}"))?;
                return if small.restores(&repository)? {
                    Ok(Verdict::SlotRefused)
                } else {
                    Err("something is lost".into())
                };
            }
            return Ok(Verdict::Refused);
        }
        Err(error) => {
            let kinds = [ErrorKind::Damaged, ErrorKind::Unsupported, ErrorKind::NotFound, ErrorKind::LimitExceeded];
            let text = chain(&error);
            // A config that names another repository cannot be told from slots and keyrings of another one.
            let by_config = keys.iter().any(|key| key.as_str() == "config")
                && ["keys/", "keyring/"].iter().any(|prefix| text.contains(prefix));
            let named = by_config
                || keys.iter().any(|key| opens(key) && text.contains(key.as_str()))
                // What a later version would write is named by what is new in it.
                || (error.kind() == ErrorKind::Unsupported && keys.iter().any(opens));
            return if named && kinds.contains(&error.kind()) {
                Ok(Verdict::Refused)
            } else {
                Err(format!("refused as {text}"))
            };
        }
    };
    let content = VerifyOptions::new(VerifyLevel::Content);
    let report = verify(&repository, &content)?;
    let locked = LockedRepository::open(storage.clone(), environment(3))
        .and_then(|locked| locked.verify(&VerifyOptions::new(VerifyLevel::Bytes), &control(1)))
        .map_err(|error| format!("without the password: {error}"))?;
    // Nothing of what verification read may help.
    let whole = small.restores(&small.open(&storage).map_err(|error| error.to_string())?)?;
    let found = keys.iter().map(|key| judge_object(small, change, &storage, key, (&report, &locked), whole));
    let found: Vec<_> = found.collect();
    // Where objects of different kinds are exchanged, one may have been what leads to the other: a commit to its closure,
    // a closure to its packs. Then that one is reported, and the other once it is mended.
    let may_hide = keys.len() == 2 && small.kind(&keys[0]) != small.kind(&keys[1]);
    let is_reported = found.contains(&Ok(Verdict::Reported));
    let verdicts: Result<Vec<_>, _> =
        if may_hide && is_reported { Ok(found.into_iter().flatten().collect()) } else { found.into_iter().collect() };
    // Of two objects the one that counts more.
    let verdict = verdicts?.into_iter().min().ok_or("nothing was changed")?;
    if report.ok && !whole {
        let expected = content.with_expected_head(small.backups[1].0);
        if verdict != Verdict::ReportedByWhoeverKnowsIt || verify(&repository, &expected)?.ok {
            return Err("something is lost and nothing says so".to_owned());
        }
    }
    // Another backup works, and is all there.
    if matches!(change, Change::Remove { .. } | Change::Copy { .. } | Change::Extend { .. }) {
        next(small, &storage, &repository, keys)?;
    }
    Ok(verdict)
}

/// Objects without which nobody opens the repository.
fn opens(key: &Key) -> bool {
    key.as_str() == "config"
        || key.as_str().starts_with("keys/")
        || (key.as_str().starts_with("keyring/") && key.as_str() != "keyring/00000001")
}

fn judge_object(
    small: &Small,
    change: Change,
    storage: &Arc<MemoryStorage>,
    key: &Key,
    (report, locked): (&VerifyReport, &VerifyReport),
    whole: bool,
) -> Result<Verdict, String> {
    if let Some(verdict) = harmless(key, change) {
        let alone = !matches!(change, Change::Exchange { .. });
        return match alone && !(whole && report.ok) {
            true => Err(format!("{key} was thought harmless: {:#?}", report.findings)),
            false => Ok(verdict),
        };
    }
    let removed = matches!(change, Change::Remove { .. });
    if key.as_str().starts_with("keys/") {
        // What a slot holds only its password can tell; that it is no slot, or not there, everybody.
        let is_copy = matches!(change, Change::Copy { .. });
        if names(report, key.as_str()) {
            return Ok(Verdict::Reported);
        }
        if is_copy || !whole {
            return Err(format!("{key} is not reported"));
        }
        return match small.open_by_password(storage) {
            Ok(_) if *key != small.recovery_slot => Err(format!("{key} still opens")),
            _ => Ok(Verdict::SlotRefused),
        };
    }
    if removed && key.as_str() == "keyring/00000002" {
        let named = report.findings.iter().any(|finding| finding.object.starts_with("keyring/"));
        return if named && !whole {
            Ok(Verdict::Reported)
        } else {
            Err("a missing keyring is not reported".to_owned())
        };
    }
    let is_newest = small.objects.contains_key(key)
        && key.as_str().ends_with("/outcome")
        && small.outcome_id(key) == small.backups[1].0.to_string();
    if removed && is_newest {
        return Ok(Verdict::ReportedByWhoeverKnowsIt);
    }
    let reported = |report: &VerifyReport| {
        let by_id = removed && key.as_str().ends_with("/outcome") && names(report, &small.outcome_id(key));
        names(report, key.as_str()) || by_id
    };
    if !reported(report) {
        return Err(format!("{key} is not reported: {:#?}", report.findings));
    }
    if !key.as_str().starts_with("keyring/") && !reported(locked) {
        return Err(format!("{key} is not reported without the password: {:#?}", locked.findings));
    }
    Ok(Verdict::Reported)
}

/// Makes one more backup of everything and looks at that alone.
fn next(small: &Small, storage: &Arc<MemoryStorage>, repository: &Repository, keys: &[Key]) -> Result<(), String> {
    let contents = &small.backups[1].1;
    let id = match back_up(repository, contents) {
        Ok(id) => id,
        // Nothing is written with an older keyring.
        Err(error) if chain(&error).contains("keyring/") && keys[0].as_str().starts_with("keyring/") => return Ok(()),
        Err(error) => return Err(format!("no backup can be made: {}", chain(&error))),
    };
    let repository = small.open(storage).map_err(|error| error.to_string())?;
    if !restores(&repository, &id, contents)? {
        return Err("the next backup is not whole".to_owned());
    }
    let report = verify(&repository, &VerifyOptions::new(VerifyLevel::Content).with_backups(vec![id]))?;
    // What was wrong before still is; what the new backup needs is not.
    let old = |object: &str| {
        keys.iter().any(|key| key.as_str() == object) || small.backups.iter().any(|(id, _)| id.to_string() == object)
    };
    let wrong: Vec<_> = report.findings.iter().filter(|finding| !old(&finding.object)).collect();
    let harmed = report.findings.iter().any(|finding| !finding.entries.is_empty());
    if wrong.is_empty() && !harmed { Ok(()) } else { Err(format!("the next backup: {:#?}", report.findings)) }
}

#[expect(clippy::disallowed_macros, reason = "the core prints nothing; the result of a campaign is wanted")]
fn report(line: &str) {
    println!("{line}");
}

#[test]
fn every_change_is_reported_or_harmless() {
    let small = Small::new();
    let bytes: usize = small.objects.values().map(Bytes::len).sum();
    assert!(bytes < 120_000 && small.keys.len() > 15, "{bytes} bytes in {} objects", small.keys.len());
    let (many, few) = Change::all(&small);
    let everything = many.len() + few.len();
    let step = if is_full_campaign() { 1 } else { SHARE };
    let states: Vec<Change> = many.into_iter().step_by(step).chain(few).collect();

    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let table: Mutex<BTreeMap<(String, &str, Verdict), usize>> = Mutex::default();
    let work = || {
        while let Some(change) = states.get(next.fetch_add(1, Ordering::Relaxed)) {
            let Some((objects, keys)) = change.apply(&small) else { continue };
            let outcome = catch_unwind(AssertUnwindSafe(|| judge(&small, *change, objects, &keys)))
                .unwrap_or_else(|_| Err("PANIC".to_owned()));
            match outcome {
                Ok(verdict) => {
                    let row = (small.kind(&small.keys[change.first()]), change.name(), verdict);
                    *table.lock().unwrap().entry(row).or_default() += 1;
                }
                Err(why) => failures.lock().unwrap().push(format!("{change:?} of {keys:?}: {why}")),
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    report(&format!("{} of {everything} states of {} objects, {bytes} bytes:", states.len(), small.keys.len()));
    for ((kind, change, verdict), count) in table.into_inner().unwrap() {
        report(&format!("{count:>8}  {kind:<18} {change:<13} {verdict:?}"));
    }
    let failures = failures.into_inner().unwrap();
    assert!(
        failures.is_empty(),
        "{} failures, the first ones: {:#?}",
        failures.len(),
        &failures[..failures.len().min(10)]
    );
}
