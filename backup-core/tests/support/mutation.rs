//! Changes to the golden repository, told by arbitrary bytes, and what must hold whatever was changed: no panic, an
//! error or the right data, and nothing that verification calls right and a restore then refuses.
//!
//! Somebody with the storage alone changes objects; somebody with the keys makes new ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use backup_core::content::EntryPath;
use backup_core::id::{BackupId, ObjectName};
use backup_core::keys::{Credential, RecoveryKey};
use backup_core::repository::{Backup, Control, LockedRepository, Repository, Selection, VerifyLevel, VerifyOptions};
use backup_core::secret::Password;
use backup_core::storage::{Key, MemoryStorage, Storage};
use backup_core::{Error, ErrorKind, testing};
use bytes::Bytes;

use super::forger::{get, keys_of, overwrite, replace_body};
use super::tree::{Made, Target};
use super::{PASSWORD, environment_at};

const NOW: i64 = 1_790_000_000;
/// Changes that are made for one input.
const MOST_CHANGES: usize = 4;
/// Bytes that are taken of one content: the keys let somebody claim as much as 2^62.
const MOST_CONTENT: usize = 1 << 20;

/// The golden repository with a recovery key, which opens it without the cost of a password, and all that is in it.
struct Golden {
    objects: BTreeMap<Key, Bytes>,
    keys: Vec<Key>,
    recovery: RecoveryKey,
    backups: BTreeMap<BackupId, Expected>,
}

struct Expected {
    description: String,
    entries: BTreeMap<EntryPath, (String, Option<Vec<u8>>)>,
}

fn golden() -> &'static Golden {
    static GOLDEN: OnceLock<Golden> = OnceLock::new();
    GOLDEN.get_or_init(|| {
        let mut objects = BTreeMap::new();
        read_below(&directory(), "", &mut objects);
        let storage = Arc::new(MemoryStorage::from_objects(objects));
        let password = Password::from(PASSWORD);
        let repository =
            Repository::open(storage.clone(), &Credential::from(&password), environment_at(0xf0, NOW)).unwrap();
        let (_, recovery) = repository.add_recovery_key("fuzz").unwrap();
        let objects = storage.snapshot();
        let backups = repository.backups().unwrap();
        let backups = backups.iter().map(|backup| (backup.id, expected(&repository, backup))).collect();
        Golden { keys: objects.keys().cloned().collect(), objects, recovery, backups }
    })
}

fn expected(repository: &Repository, backup: &Backup) -> Expected {
    let mut entries = BTreeMap::new();
    for entry in repository.entries(backup).unwrap() {
        let entry = entry.unwrap();
        let content = entry.kind.has_content().then(|| {
            let mut content = Vec::new();
            let entry = repository.content_entry(backup, &entry.path).unwrap();
            repository.restore_stream(&entry, &mut content, &Control::default()).unwrap();
            content
        });
        entries.insert(entry.path.clone(), (format!("{entry:?}"), content));
    }
    Expected { description: format!("{backup:?}"), entries }
}

/// Where the golden repository is: this file is compiled as a part of several packages.
fn directory() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = ["tests/vectors/golden/repository", "../backup-core/tests/vectors/golden/repository"];
    places.map(|place| package.join(place)).into_iter().find(|place| place.is_dir()).expect("the golden repository")
}

#[expect(clippy::disallowed_methods, reason = "the rule that the core reads no files is not for its tests")]
fn read_below(directory: &Path, prefix: &str, found: &mut BTreeMap<Key, Bytes>) {
    for file in std::fs::read_dir(directory).unwrap() {
        let file = file.unwrap();
        let name = format!("{prefix}{}", file.file_name().to_str().unwrap());
        if file.file_type().unwrap().is_dir() {
            read_below(&file.path(), &format!("{name}/"), found);
        } else {
            found.insert(Key::new(name).unwrap(), std::fs::read(file.path()).unwrap().into());
        }
    }
}

/// What the properties of `testing::fuzz` begin with, and [`repository`].
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let storage = Arc::new(MemoryStorage::from_objects(golden().objects.clone()));
    let mut seeds = testing::fuzz::seeds(&open(&storage, 1).unwrap()).unwrap();
    // Every kind of change, of every object.
    for object in 0..u8::try_from(golden().keys.len()).unwrap() {
        seeds.push(("repository", vec![0, object, 150, 0, 1]));
        seeds.push(("repository", vec![6, object, 0, 20, 0, 1, 0xff]));
        seeds.push(("repository", vec![3, object]));
    }
    seeds.push(("repository", Vec::new()));
    for change in [1, 2, 4, 5, 7, 8, 9, 10, 11] {
        seeds.push(("repository", vec![change, 3, 1, 0, 2, 7, 1, 2, 3, 4]));
    }
    seeds
}

/// The property. Every change is a few bytes: what is done, to which object, and how.
pub fn repository(input: &[u8]) {
    let golden = golden();
    let storage = Arc::new(MemoryStorage::from_objects(golden.objects.clone()));
    let mut input = Input(input);
    let mut with_keys = false;
    for _ in 0..MOST_CHANGES {
        if input.0.is_empty() {
            break;
        }
        with_keys |= change(&storage, &mut input);
    }
    check(&storage, with_keys);
}

struct Input<'i>(&'i [u8]);

impl<'i> Input<'i> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()]))
    }

    fn bytes(&mut self) -> &'i [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }
}

/// Changes the storage. Whether that took the keys of the repository.
fn change(storage: &Arc<MemoryStorage>, input: &mut Input<'_>) -> bool {
    let kind = input.byte() % 12;
    let keys = keys_of(storage, "");
    let key = keys[usize::from(input.byte()) % keys.len()].clone();
    match kind {
        0..=2 => {
            let mut bytes = get(storage, &key);
            edit(&mut bytes, kind, input);
            overwrite(storage, &key, bytes);
        }
        3 => storage.delete(&key).unwrap(),
        4 | 5 => {
            let other = keys[usize::from(input.byte()) % keys.len()].clone();
            let (one, two) = (get(storage, &key), get(storage, &other));
            overwrite(storage, &other, one);
            if kind == 4 {
                overwrite(storage, &key, two);
            }
        }
        // From here on with the keys.
        6 => forge_body(storage, &key, input),
        7 => {
            let outcomes: Vec<Key> = keys.into_iter().filter(|key| key.as_str().ends_with("/outcome")).collect();
            let Some(key) = outcomes.get(usize::from(input.byte()) % outcomes.len().max(1)) else { return false };
            let Ok(mut payload) = testing::record_payload(&get(storage, key)) else { return false };
            let how = input.byte();
            edit(&mut payload, how, input);
            let Ok(repository) = open(storage, 2) else { return false };
            let Ok(signed) = testing::sign_record(&repository, "backup/v1/commit", &payload) else { return false };
            overwrite(storage, key, signed);
        }
        _ => {
            let Ok(repository) = open(storage, 3) else { return false };
            let packs: Vec<ObjectName> = names(&keys, "packs/");
            let condemned = &packs[..usize::from(input.byte()) % (packs.len() + 1)];
            let number = u32::from(input.byte() % 3) + 1;
            let outcomes = keys.iter().filter(|key| key.as_str().ends_with("/outcome"));
            let outcomes: Vec<Vec<u8>> = outcomes.map(|key| get(storage, key)).collect();
            let checkpoint = &outcomes[..usize::from(input.byte()) % (outcomes.len() + 1)];
            let made = match kind {
                8 => testing::forget(
                    &repository,
                    BackupId::new(*blake3::hash(outcomes.first().map_or(&[], |o| o)).as_bytes()),
                ),
                9 => testing::collection_mark(&repository, number, condemned),
                10 => testing::collection_final(&repository, number, condemned, checkpoint, &names(&keys, "index/")),
                _ => {
                    let sessions: Vec<&str> = keys
                        .iter()
                        .filter_map(|key| key.as_str().strip_prefix("sessions/")?.split('/').nth(1))
                        .collect();
                    let Some(session) = sessions.get(usize::from(input.byte()) % sessions.len().max(1)) else {
                        return false;
                    };
                    let Ok(session) = session.parse() else { return false };
                    testing::revocation(&repository, number, session)
                }
            };
            let Ok((key, bytes)) = made else { return false };
            overwrite(storage, &key, bytes);
        }
    }
    kind >= 6
}

fn names(keys: &[Key], prefix: &str) -> Vec<ObjectName> {
    let keys = keys.iter().filter(|key| key.as_str().starts_with(prefix));
    keys.filter_map(|key| key.as_str().rsplit('/').next()?.parse().ok()).collect()
}

/// Changes bytes: one of them, the length, a part.
fn edit(bytes: &mut Vec<u8>, how: u8, input: &mut Input<'_>) {
    let position = input.number() % (bytes.len() + 1);
    match how % 5 {
        0 => {
            let mask = input.byte().max(1);
            if let Some(byte) = bytes.get_mut(position) {
                *byte ^= mask;
            }
        }
        1 => bytes.truncate(position),
        2 => drop(bytes.splice(position..position, input.bytes().to_vec())),
        3 => {
            let end = (position + usize::from(input.byte())).min(bytes.len());
            bytes.drain(position..end);
        }
        _ => {
            let new = input.bytes();
            let end = (position + new.len()).min(bytes.len());
            bytes.splice(position..end, new.to_vec());
        }
    }
}

/// Another body in a sealed object, and all that names the object follows.
fn forge_body(storage: &Arc<MemoryStorage>, key: &Key, input: &mut Input<'_>) {
    let old = get(storage, key);
    let is_sealed = ["packs/", "index/", "bodies/"].iter().any(|prefix| key.as_str().starts_with(prefix));
    let Ok(repository) = open(storage, 4) else { return };
    if !is_sealed || old.len() < 128 {
        return;
    }
    let Ok(mut body) = testing::open_object(&repository, key.as_str(), &old) else { return };
    let how = input.byte();
    edit(&mut body, how, input);
    let Ok((_, sealed)) = testing::seal_object(&repository, old[9], &body) else { return };
    // What names it is not taught another size; and the records that name it must be readable.
    let outcomes = keys_of(storage, "sessions/").into_iter().filter(|key| key.as_str().ends_with("/outcome"));
    let readable = outcomes.map(|key| get(storage, &key)).all(|bytes| testing::record_payload(&bytes).is_ok());
    let closures = keys_of(storage, "closures/").into_iter().all(|key| get(storage, &key).len() % 40 == 16);
    if sealed.len() == old.len() && readable && closures {
        replace_body(storage, &repository, key, &body);
    }
}

fn open(storage: &Arc<MemoryStorage>, seed: u64) -> backup_core::Result<Repository> {
    Repository::open(storage.clone(), &Credential::RecoveryKey(&golden().recovery), environment_at(seed, NOW))
}

/// Does everything that a reader can do.
fn check(storage: &Arc<MemoryStorage>, with_keys: bool) {
    let control = Control::default();
    if let Some(locked) = allowed(LockedRepository::open(storage.clone(), environment_at(5, NOW))) {
        allowed(locked.key_slots());
        allowed(locked.commits());
        for level in [VerifyLevel::Presence, VerifyLevel::Bytes] {
            allowed(locked.verify(&VerifyOptions::new(level), &control));
        }
    }
    let Some(repository) = allowed(open(storage, 6)) else { return };
    allowed(repository.status());
    allowed(repository.statistics());
    let report = allowed(repository.verify(&VerifyOptions::new(VerifyLevel::Content), None, &control));
    let is_sound = report.as_ref().is_some_and(|report| report.ok);
    allowed(repository.verify(&VerifyOptions::new(VerifyLevel::Structure), None, &control));
    let Some(backups) = allowed(repository.backups()) else {
        assert!(!is_sound, "verification finds nothing and the backups cannot be listed");
        return;
    };
    for backup in &backups {
        let original = golden().backups.get(&backup.id);
        if !with_keys {
            assert_eq!(original.map(|original| &original.description), Some(&format!("{backup:?}")));
        }
        read_backup(&repository, backup, original, is_sound);
        if let (Some(original), false) = (original, with_keys) {
            let target = Target::default();
            if allowed(repository.restore_tree(backup, &Selection::all(), &target, &control)).is_some() {
                for (path, made) in target.into_map() {
                    let (_, content) = &original.entries[&path];
                    if let Made::Content(bytes, _) = made {
                        assert_eq!(Some(&*bytes), content.as_ref(), "{path} is restored wrong");
                    }
                }
            }
        }
    }
    if let [first, second, ..] = &*backups {
        allowed(repository.differences(first, second));
    }
}

fn read_backup(repository: &Repository, backup: &Backup, original: Option<&Expected>, is_sound: bool) {
    let mut count = 0;
    let Some(entries) = allowed(repository.entries(backup)) else {
        assert!(!is_sound, "verification finds nothing and the entries cannot be listed");
        return;
    };
    for entry in entries {
        let Some(entry) = allowed(entry) else {
            assert!(!is_sound, "verification finds nothing and an entry cannot be read");
            continue;
        };
        count += 1;
        // Names of backups are hashes of their records, which are hashes of all that they hold: under the old name
        // there is the old content, whoever has which keys.
        let expected = original.map(|original| &original.entries[&entry.path]);
        if let Some((description, _)) = expected {
            assert_eq!(*description, format!("{entry:?}"));
        }
        if !entry.kind.has_content() {
            continue;
        }
        // A hard link has the content of another entry.
        let Some(entry) = allowed(repository.content_entry(backup, &entry.path)) else {
            assert!(!is_sound, "verification finds nothing and {} has no content", entry.path);
            continue;
        };
        let mut out = Bounded(Vec::new());
        let restored = repository.restore_stream(&entry, &mut out, &Control::default());
        if let (Ok(_), Some((_, Some(content)))) = (&restored, expected) {
            assert_eq!(out.0, *content, "{} is restored wrong", entry.path);
        }
        match restored {
            Err(Error::Sink { .. }) => assert!(original.is_none(), "more content than there was"),
            restored => {
                let reason = restored.as_ref().err().map(ToString::to_string);
                let is_restored = allowed(restored).is_some();
                assert!(
                    is_restored || !is_sound,
                    "verification finds nothing and {} cannot be read: {reason:?}",
                    entry.path
                );
            }
        }
        let middle = entry.size() / 2;
        let mut out = Bounded(Vec::new());
        if repository.restore_range(&entry, middle..middle.saturating_add(1000), &mut out, &Control::default()).is_ok()
            && let Some((_, Some(content))) = expected
        {
            let start = usize::try_from(middle).unwrap();
            assert_eq!(out.0, content[start..(start + 1000).min(content.len())]);
        }
    }
    let all = original.map_or(0, |original| original.entries.len());
    assert!(!is_sound || count >= all, "verification finds nothing and {count} of {all} entries are listed");
}

/// Takes a little content, no more.
struct Bounded(Vec<u8>);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > MOST_CONTENT {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What was done. An error must say that something on the storage is wrong, not that the program or its caller is.
fn allowed<T>(result: backup_core::Result<T>) -> Option<T> {
    result
        .map_err(|error| {
            let kind = error.kind();
            let is_allowed = matches!(
                kind,
                ErrorKind::Damaged
                    | ErrorKind::Unsupported
                    | ErrorKind::LimitExceeded
                    | ErrorKind::NotFound
                    | ErrorKind::WrongPassword
                    | ErrorKind::Storage
                    | ErrorKind::ReadOnly
            );
            assert!(is_allowed, "changed objects cause an error of another kind: {error:?}");
        })
        .ok()
}
