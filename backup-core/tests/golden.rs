//! A published repository that every program of this format must read, and published files that it must refuse.
//!
//! `BACKUP_VECTORS=write cargo test -p backup-core --test golden` writes them anew. That is right together with
//! a change of the format, or of the zstd library, which may compress the same bytes to others.
#![expect(
    clippy::disallowed_methods,
    reason = "the rule that the core reads no files and no environment is not for its tests"
)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::content::{Attributes, EntryKind, EntryPath};
use backup_core::keys::Credential;
use backup_core::repository::{BackupKind, BackupOptions, LockedRepository, Repository, Selection, VerifyLevel};
use backup_core::secret::Password;
use backup_core::storage::{Key, MemoryStorage, PutMode, Storage};
use backup_core::time::Timestamp;
use backup_core::{Result, testing};
use bytes::Bytes;
use serde_json::{Value, json};
use support::forger::{get, keys_of, overwrite, pack_of_kind, replace_as, replace_body, replace_closure};
use support::tree::{Made, Node, Target, Tree};
use support::{assert_sound, control, environment_at, init_with, noise, path, small_options, verify};

type Objects = BTreeMap<Key, Bytes>;

const NOW: i64 = 1_790_000_000;

fn vectors(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}

fn is_writing() -> bool {
    std::env::var_os("BACKUP_VECTORS").is_some_and(|value| value == "write")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// What the golden repository holds, made by this program.
fn make() -> Objects {
    let storage = Arc::new(MemoryStorage::new());
    let options = small_options().with_slot_label("golden");
    init_with(storage.clone(), &options, 0x901d).unwrap();
    let repository = open(&storage, 0x901e, NOW).unwrap();

    let mut session = repository
        .begin(
            BackupOptions::new(BackupKind::Data)
                .with_host("golden")
                .with_tag("nightly")
                .with_tag("before-upgrade")
                .with_label("database", "tenants"),
        )
        .unwrap();
    let mut dump = b"INSERT INTO customers VALUES (1, 'somebody');\n".repeat(300);
    dump.extend(noise(1, 12_000));
    dump.extend(vec![0; 200_000]);
    session.add_stream(path("dump.sql"), &mut dump.as_slice()).unwrap();
    let mut image = vec![0x11; 65_536 * 5 / 2];
    image[65_536..131_072].fill(0);
    let time = |seconds| Some(Timestamp::from_unix(seconds, 5).unwrap());
    let mut attributes = Attributes::default();
    (attributes.mode, attributes.uid, attributes.gid) = (Some(0o640), Some(1000), Some(0));
    (attributes.user, attributes.group) = (Some("büro".into()), Some("root".into()));
    (attributes.modified, attributes.changed, attributes.inode) = (time(-1), time(1_700_000_000), Some(77));
    attributes.extended = vec![(b"user.note".to_vec(), b"\x00\xff".to_vec())];
    let raw = |bytes: &[u8], node: Node| Node { path: EntryPath::new(bytes).unwrap(), ..node };
    let nodes = vec![
        Node::directory("etc"),
        Node { attributes: Some(attributes), ..Node::file("etc/config", b"key = value\n") },
        Node::file("etc/empty", b""),
        Node::file("etc/link", b"key = value\n").link_to("etc/config"),
        Node::symlink("etc/symlink", "../elsewhere"),
        raw(b"etc/\xff\n", Node::file("x", b"a name that is not text")),
        Node::new("fifo", EntryKind::Fifo),
        Node::new("null", EntryKind::CharacterDevice { major: 1, minor: 3 }),
        Node::file("vm/disk.raw", image).image().with_hole(65_536, 65_536),
    ];
    session.add_tree(&mut Tree::new(nodes)).unwrap();
    session.record_problem("etc/shadow", "permission denied");
    session.commit().unwrap();

    let repository = open(&storage, 0x901f, NOW + 3600).unwrap();
    let mut session =
        repository.begin(BackupOptions::new(BackupKind::SensitiveConfiguration).with_host("golden")).unwrap();
    session.add_tree(&mut Tree::new(vec![Node::file("tls/key.pem", b"-----BEGIN NOTHING-----\n")])).unwrap();
    session.commit().unwrap();
    storage.snapshot()
}

fn open(storage: &Arc<MemoryStorage>, seed: u64, now: i64) -> Result<Repository> {
    let password = Password::from(support::PASSWORD);
    Repository::open(storage.clone(), &Credential::from(&password), environment_at(seed, now))
}

/// Everything that a reader gets out of a repository.
fn describe(repository: &Repository) -> Value {
    let backups = repository.backups().unwrap();
    let described = backups.iter().map(|backup| {
        let entries: Vec<Value> = repository
            .entries(backup)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let mut content = Vec::new();
                if entry.kind.has_content() && entry.hard_link.is_none() {
                    repository.restore_stream(&entry, &mut content, &control(1)).unwrap();
                }
                let attributes = &entry.attributes;
                json!({
                    "path": hex(entry.path.as_bytes()),
                    "path_text": entry.path,
                    "kind": format!("{:?}", entry.kind),
                    "length": content.len(),
                    "blake3": entry.kind.has_content().then(|| blake3::hash(&content).to_string()),
                    "hard_link": entry.hard_link,
                    "mode": attributes.mode,
                    "owner": [json!(attributes.uid), json!(attributes.gid), json!(attributes.user), json!(attributes.group)],
                    "modified": attributes.modified,
                    "changed": attributes.changed,
                    "inode": attributes.inode,
                    "extended": attributes.extended.iter().map(|(name, value)| [hex(name), hex(value)]).collect::<Vec<_>>(),
                })
            })
            .collect();
        json!({ "backup": backup, "entries": entries })
    });
    json!({ "password": support::PASSWORD, "repository": repository.id(), "backups": described.collect::<Vec<_>>() })
}

fn files_below(directory: &Path, prefix: &str, found: &mut Objects) {
    for file in std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
        let file = file.unwrap();
        let name = format!("{prefix}{}", file.file_name().to_str().unwrap());
        if file.file_type().unwrap().is_dir() {
            files_below(&file.path(), &format!("{name}/"), found);
        } else {
            found.insert(Key::new(name).unwrap(), std::fs::read(file.path()).unwrap().into());
        }
    }
}

fn golden() -> Objects {
    let mut objects = Objects::new();
    files_below(&vectors("golden/repository"), "", &mut objects);
    objects
}

#[test]
fn the_golden_repository_is_what_this_program_writes_and_reads() {
    let made = make();
    if is_writing() {
        let root = vectors("golden/repository");
        let _ = std::fs::remove_dir_all(&root);
        for (key, bytes) in &made {
            let file = root.join(key.as_str());
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, bytes).unwrap();
        }
        let storage = Arc::new(MemoryStorage::from_objects(made.clone()));
        let text = serde_json::to_string_pretty(&describe(&open(&storage, 1, NOW).unwrap())).unwrap() + "\n";
        std::fs::write(vectors("golden/contents.json"), text).unwrap();
    }
    let published = golden();
    let names = |objects: &Objects| objects.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&published), names(&made), "objects have other names, and so other bytes");
    for (key, bytes) in &published {
        assert!(made[key] == bytes, "{key} has other bytes");
    }
    assert!(published.values().map(Bytes::len).sum::<usize>() < 200_000, "it stays small");

    let storage = Arc::new(MemoryStorage::from_objects(published));
    let repository = open(&storage, 1, NOW).unwrap();
    let expected: Value = serde_json::from_slice(&std::fs::read(vectors("golden/contents.json")).unwrap()).unwrap();
    assert_eq!(describe(&repository), expected);
    assert_sound(&repository);
    let backup = &repository.backups().unwrap()[0];
    assert!(!backup.is_complete() && backup.tags == ["before-upgrade", "nightly"]);
    let target = Target::default();
    let report = repository.restore_tree(backup, &Selection::all(), &target, &control(3)).unwrap();
    assert!(report.is_complete(), "{:?}", report.problems);
    let made = target.into_map();
    assert_eq!(made[&path("etc/link")], Made::Link(path("etc/config")));
    let Made::Content(image, holes) = &made[&path("vm/disk.raw")] else { panic!() };
    assert_eq!((image.len(), *holes), (163_840, 65_536));
    let locked = LockedRepository::open(storage.clone(), environment_at(1, NOW)).unwrap();
    assert_eq!(locked.commits().unwrap().len(), 2);

    // It can be written on.
    let mut session = repository.begin(BackupOptions::new(BackupKind::Data).with_host("golden")).unwrap();
    assert_eq!(session.parent().unwrap().id, backup.id);
    session.add_stream(path("more"), &mut &b"more"[..]).unwrap();
    session.commit().unwrap();
    assert_sound(&repository);
}

/// A damaged or hostile state of the golden repository.
struct Case {
    name: &'static str,
    rule: &'static str,
    /// What is wrong.
    object: Key,
    /// "open", "list", "restore" or "verify".
    operation: &'static str,
    /// The kind of the error; of the finding where the operation is "verify".
    expect: &'static str,
    objects: Objects,
}

/// The objects that differ from the golden repository; as a patch, where that is shorter.
fn difference(golden: &Objects, changed: &Objects) -> Value {
    let mut out = serde_json::Map::new();
    for (key, bytes) in changed {
        let value = match golden.get(key) {
            Some(before) if before == bytes => continue,
            Some(before) if before.len() == bytes.len() => {
                let first = before.iter().zip(bytes).position(|(a, b)| a != b).unwrap();
                let last = before.iter().zip(bytes).rposition(|(a, b)| a != b).unwrap();
                json!({ "at": first, "hex": hex(&bytes[first..=last]) })
            }
            Some(before) if before.starts_with(bytes) => json!({ "length": bytes.len() }),
            _ => json!({ "hex": hex(bytes) }),
        };
        out.insert(key.to_string(), value);
    }
    for key in golden.keys().filter(|key| !changed.contains_key(*key)) {
        out.insert(key.to_string(), Value::Null);
    }
    Value::Object(out)
}

fn apply(golden: &Objects, difference: &Value) -> Objects {
    let mut objects = golden.clone();
    for (name, change) in difference.as_object().unwrap() {
        let key = Key::new(name.as_str()).unwrap();
        if change.is_null() {
            objects.remove(&key).unwrap();
        } else if let Some(length) = change["length"].as_u64() {
            let bytes = objects[&key].slice(..usize::try_from(length).unwrap());
            objects.insert(key, bytes);
        } else if let Some(at) = change["at"].as_u64() {
            let (mut bytes, patch) = (objects[&key].to_vec(), from_hex(change["hex"].as_str().unwrap()));
            let at = usize::try_from(at).unwrap();
            bytes[at..at + patch.len()].copy_from_slice(&patch);
            objects.insert(key, bytes.into());
        } else {
            objects.insert(key, from_hex(change["hex"].as_str().unwrap()).into());
        }
    }
    objects
}

/// Collects cases, each made from the golden repository.
struct Cases {
    golden: Objects,
    cases: Vec<Case>,
}

impl Cases {
    fn first(&self, prefix: &str, ends: &str) -> Key {
        let mut keys = self.golden.keys();
        keys.find(|key| key.as_str().starts_with(prefix) && key.as_str().ends_with(ends)).unwrap().clone()
    }

    /// `change` works on the storage; `object` is what is wrong afterwards.
    fn add(
        &mut self,
        name: &'static str,
        rule: &'static str,
        (operation, expect): (&'static str, &'static str),
        change: impl FnOnce(&Arc<MemoryStorage>) -> Key,
    ) {
        let storage = Arc::new(MemoryStorage::from_objects(self.golden.clone()));
        let object = change(&storage);
        self.cases.push(Case { name, rule, object, operation, expect, objects: storage.snapshot() });
    }

    /// The bytes of one object change.
    fn edit(
        &mut self,
        name: &'static str,
        rule: &'static str,
        expected: (&'static str, &'static str),
        key: &Key,
        change: impl FnOnce(&mut Vec<u8>),
    ) {
        self.add(name, rule, expected, |storage| {
            let mut bytes = get(storage, key);
            change(&mut bytes);
            overwrite(storage, key, bytes);
            key.clone()
        });
    }

    /// The body of a sealed object changes, and all that names it follows.
    fn forge(
        &mut self,
        name: &'static str,
        rule: &'static str,
        expected: (&'static str, &'static str),
        key: &Key,
        change: impl FnOnce(&mut Vec<u8>),
    ) {
        self.add(name, rule, expected, |storage| {
            let repository = open(storage, 0xf0, NOW).unwrap();
            let mut body = testing::open_object(&repository, key.as_str(), &get(storage, key)).unwrap();
            change(&mut body);
            replace_body(storage, &repository, key, &body)
        });
    }
}

fn hostile(golden: Objects) -> Vec<Case> {
    let mut cases = Cases { golden, cases: Vec::new() };
    let storage = MemoryStorage::from_objects(cases.golden.clone());
    let config = cases.first("config", "");
    let slot = cases.first("keys/", "");
    let keyring = cases.first("keyring/", "");
    let outcome = cases.first("sessions/", "/outcome");
    let body = cases.first("bodies/", "");
    let index = cases.first("index/", "");
    let closure = cases.first("closures/", "");
    let data = pack_of_kind(&storage, 2).into_iter().max_by_key(|key| get(&storage, key).len()).unwrap();
    let one_chunk = pack_of_kind(&storage, 2).into_iter().min_by_key(|key| get(&storage, key).len()).unwrap();
    let pages = pack_of_kind(&storage, 3).remove(0);

    let open_ = |kind| ("open", kind);
    cases.edit("config-version", "config: the version is 1", open_("unsupported"), &config, |bytes| {
        let at = bytes.windows(2).position(|pair| pair == [1, 1]).unwrap();
        bytes[at + 1] = 2;
    });
    cases.edit("config-feature", "config: incompatible features are known", open_("unsupported"), &config, |bytes| {
        let at = bytes.windows(2).position(|pair| pair == [5, 0x80]).unwrap();
        bytes.splice(at + 1..=at + 1, *b"\x81\x6aother-pack");
    });
    cases.edit("config-cut", "config: nothing is missing", open_("damaged"), &config, |bytes| bytes.truncate(40));
    cases.edit("config-tail", "config: nothing follows", open_("damaged"), &config, |bytes| bytes.push(0));
    cases.edit("config-chunks", "config: chunk sizes are in bounds", open_("damaged"), &config, |bytes| {
        // The average of stream chunks, 16384.
        let at = bytes.windows(4).position(|part| part == [3, 0x19, 0x40, 0]).unwrap();
        bytes[at + 2] = 0x41;
    });
    cases.edit("config-other", "config: the keyring names its hash", open_("damaged"), &config, |bytes| {
        let at = bytes.windows(2).position(|pair| pair == [6, 0xf4]).unwrap();
        bytes[at + 1] = 0xf5;
    });
    cases.edit("slot-memory", "key slot: memory is bounded", open_("limit-exceeded"), &slot, |bytes| {
        bytes[48..52].fill(0xff);
    });
    cases.edit("slot-passes", "key slot: passes are bounded", open_("limit-exceeded"), &slot, |bytes| {
        bytes[52..56].fill(0xff);
    });
    cases.edit("slot-reserved", "key slot: reserved bytes are zero", open_("damaged"), &slot, |bytes| bytes[10] = 1);
    cases.edit("slot-derivation", "key slot: the derivation is known", open_("unsupported"), &slot, |bytes| {
        bytes[9] = 3;
    });
    cases.edit("slot-commitment", "key slot: the key is committed to", open_("wrong-password"), &slot, |bytes| {
        bytes[180] ^= 1;
    });
    cases.edit("slot-cut", "key slot: 256 bytes", open_("damaged"), &slot, |bytes| bytes.truncate(255));
    cases.edit("keyring-tag", "keyring: frames are authentic", open_("damaged"), &keyring, |bytes| {
        let last = bytes.len() - 1;
        bytes[last] ^= 0x80;
    });
    cases.edit("keyring-flags", "sealed object: flags are zero", open_("unsupported"), &keyring, |bytes| bytes[12] = 1);
    cases.add("keyring-number", "keyring: it stands under its number", open_("damaged"), |storage| {
        let key = Key::new("keyring/00000002").unwrap();
        overwrite(storage, &key, get(storage, &keyring));
        key
    });
    cases.add("keyring-missing", "keyring: there is one", open_("not-found"), |storage| {
        storage.delete(&keyring).unwrap();
        keyring.clone()
    });
    cases.edit("outcome-signature", "outcome: the signature is valid", ("verify", "record"), &outcome, |bytes| {
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
    });
    cases.add("outcome-moved", "outcome: it stands in the slot of its session", ("verify", "record"), |storage| {
        let key = Key::new("sessions/00000001/abababababababababababababababab/outcome").unwrap();
        overwrite(storage, &key, get(storage, &outcome));
        key
    });
    cases.edit("body-name", "body: its name is its hash", ("list", "damaged"), &body, |bytes| bytes[300] ^= 1);
    cases.forge("body-tail", "body: nothing follows", ("list", "damaged"), &body, |body| body.push(0));
    cases.forge("body-cut", "body: nothing is missing", ("list", "damaged"), &body, |body| body.truncate(20));
    cases.forge("body-empty", "body: a map", ("list", "damaged"), &body, Vec::clear);
    cases.add("body-type", "sealed object: its type is that of its place", ("list", "damaged"), |storage| {
        let repository = open(storage, 0xf4, NOW).unwrap();
        let bytes = testing::open_object(&repository, body.as_str(), &get(storage, &body)).unwrap();
        replace_as(storage, &repository, &body, 4, &bytes)
    });
    cases.add("index-missing", "index: every one that a commit names is there", ("verify", "missing"), |storage| {
        storage.delete(&index).unwrap();
        index.clone()
    });
    cases.add("closure-order", "closure: packs ascend", ("verify", "bytes"), |storage| {
        let repository = open(storage, 0xf1, NOW).unwrap();
        let closures = keys_of(storage, "closures/").into_iter().map(|key| (get(storage, &key), key));
        let (mut bytes, key) = closures.max_by_key(|(bytes, _)| bytes.len()).unwrap();
        let first: Vec<u8> = bytes.drain(16..56).collect();
        bytes.extend(first);
        replace_closure(storage, &repository, &key, &bytes)
    });
    cases.edit("closure-count", "closure: its name is its hash", ("verify", "bytes"), &closure, |bytes| bytes[8] ^= 1);
    cases.edit("pack-cut", "sealed object: its size follows from its header", ("restore", "damaged"), &data, |bytes| {
        bytes.truncate(4000);
    });
    cases.edit("pack-frames", "sealed object: frames have their places", ("restore", "damaged"), &data, |bytes| {
        let frame = (1 << bytes[11]) + 16;
        let (first, second) = bytes[128..].split_at_mut(frame);
        first.swap_with_slice(&mut second[..frame]);
    });
    cases.add("pack-missing", "pack: every one that a closure names is there", ("verify", "missing"), |storage| {
        storage.delete(&data).unwrap();
        data.clone()
    });
    let entry =
        |at: usize, patch: &'static [u8]| move |body: &mut Vec<u8>| body[at..at + patch.len()].copy_from_slice(patch);
    let broken = ("restore", "damaged");
    cases.forge("pack-magic", "pack: it begins with PKB1", broken, &one_chunk, entry(0, b"PKB2"));
    cases.forge("pack-count", "pack: at most 262144 entries", broken, &one_chunk, entry(4, &[0xff; 4]));
    cases.forge("pack-empty-chunk", "pack: no chunk is empty", broken, &one_chunk, entry(52, &[0; 4]));
    cases.forge("pack-raw-length", "pack: a chunk has at most 16 MiB", broken, &one_chunk, entry(52, &[0, 0, 0, 0x7f]));
    cases.forge("pack-codec", "pack: the codec is known", broken, &one_chunk, entry(56, &[9]));
    cases.forge("pack-chunk-id", "pack: a chunk has its id", broken, &one_chunk, entry(16, &[0xaa; 32]));
    cases.forge("pack-tail", "pack: nothing follows the last payload", broken, &one_chunk, |body| body.push(0));
    cases.forge("pack-bomb", "pack: a chunk decompresses to its length", broken, &one_chunk, |body| {
        // One chunk of 1000 bytes, compressed, which is 2.5 MiB of zeros.
        let bomb = [&[0x28, 0xb5, 0x2f, 0xfd, 0, 0x38][..], &[2, 0, 0x10, 0].repeat(20)].concat();
        body.truncate(60);
        body[48..58].copy_from_slice(&[bomb.len() as u8, 0, 0, 0, 0xe8, 3, 0, 0, 1, 0]);
        body.extend(bomb);
    });
    cases.forge("page-id", "catalogue: a page has its id", broken, &pages, entry(16, &[0xaa; 32]));
    cases.add("forget-stranger", "forget: the maintenance key signs it", ("verify", "record"), |storage| {
        let repository = open(storage, 0xf2, NOW).unwrap();
        let id = repository.backups().unwrap()[0].id;
        let (key, mut bytes) = testing::forget(&repository, id).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        overwrite(storage, &key, bytes);
        key
    });
    cases.add("final-stranger", "collection: the maintenance key signs it", ("verify", "record"), |storage| {
        let repository = open(storage, 0xf3, NOW).unwrap();
        let (key, mut bytes) = testing::collection_final(&repository, 1, &[], &[], &[]).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        overwrite(storage, &key, bytes);
        key
    });
    cases.cases
}

/// What an operation says: nothing, or the kind of what went wrong.
fn run(storage: &Arc<MemoryStorage>, operation: &str, object: &str) -> String {
    let repository = match open(storage, 7, NOW) {
        Ok(repository) => repository,
        Err(error) => return error.kind().to_string(),
    };
    match operation {
        "open" => "ok".into(),
        "list" => repository.backups().map_or_else(|error| error.kind().to_string(), |_| "ok".into()),
        "restore" => {
            let mut kind = "ok".to_owned();
            for backup in repository.backups().unwrap() {
                let entries: Vec<_> = repository.entries(&backup).unwrap().collect();
                let results = entries.into_iter().map(|entry| {
                    let mut out = Vec::new();
                    let entry = entry?;
                    repository.restore_stream(&entry, &mut out, &control(1)).map(drop)
                });
                if let Some(Err(error)) = results.into_iter().find(Result::is_err) {
                    kind = error.kind().to_string();
                }
            }
            kind
        }
        "verify" => {
            let report = verify(&repository, VerifyLevel::Content).unwrap();
            let finding = report.findings.iter().find(|finding| finding.object == object);
            finding.map_or("ok".into(), |finding| finding.kind.name().into())
        }
        other => panic!("unknown operation {other}"),
    }
}

#[test]
fn hostile_files_are_refused_as_they_must_be() {
    let golden = if is_writing() { make() } else { golden() };
    let directory = vectors("hostile");
    if is_writing() {
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        for case in hostile(golden.clone()) {
            let value = json!({
                "rule": case.rule,
                "object": case.object.as_str(),
                "operation": case.operation,
                "expect": case.expect,
                "objects": difference(&golden, &case.objects),
            });
            assert!(apply(&golden, &value["objects"]) == case.objects, "{}", case.name);
            let text = serde_json::to_string_pretty(&value).unwrap() + "\n";
            std::fs::write(directory.join(format!("{}.json", case.name)), text).unwrap();
        }
    }
    let contents: Value = serde_json::from_slice(&std::fs::read(vectors("golden/contents.json")).unwrap()).unwrap();
    let known: Vec<&str> = contents["backups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|backup| backup["entries"].as_array().unwrap())
        .filter_map(|entry| entry["blake3"].as_str())
        .collect();
    let mut wrong = Vec::new();
    let mut files: Vec<PathBuf> = std::fs::read_dir(&directory).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 20);
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let case: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let text = |field: &str| case[field].as_str().unwrap().to_owned();
        let storage = Arc::new(MemoryStorage::from_objects(apply(&golden, &case["objects"])));
        let found = run(&storage, &text("operation"), &text("object"));
        if found != text("expect") {
            wrong.push(format!("{name}: {} instead of {} ({})", found, text("expect"), text("rule")));
        }
        // Whatever else is done with it, nothing wrong comes out.
        if let Ok(repository) = open(&storage, 8, NOW) {
            for level in [VerifyLevel::Presence, VerifyLevel::Bytes, VerifyLevel::Structure, VerifyLevel::Content] {
                verify(&repository, level).unwrap();
            }
            let report = verify(&repository, VerifyLevel::Content).unwrap();
            assert!(!report.ok, "{name} is not noticed by verification");
            for backup in repository.backups().unwrap_or_default() {
                for entry in repository.entries(&backup).unwrap().flatten().filter(|entry| entry.kind.has_content()) {
                    let mut out = Vec::new();
                    if repository.restore_stream(&entry, &mut out, &control(1)).is_ok() {
                        let digest = blake3::hash(&out).to_string();
                        assert!(known.contains(&&*digest), "{name}: wrong bytes in {}", entry.path);
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let storage = MemoryStorage::from_objects(golden);
    assert!(storage.put(&Key::new("config").unwrap(), Bytes::new(), PutMode::Create).is_err());
}
