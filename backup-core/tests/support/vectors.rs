//! The published repository of `tests/vectors`, and what is published beside it.
#![allow(
    clippy::disallowed_methods,
    reason = "the rule that the core reads no files and no environment is not for tests"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::Result;
use backup_core::content::{Attributes, EntryKind, EntryPath};
use backup_core::keys::Credential;
use backup_core::repository::{BackupKind, BackupOptions, Repository};
use backup_core::secret::Password;
use backup_core::storage::{Key, MemoryStorage};
use backup_core::time::Timestamp;
use bytes::Bytes;
use serde_json::{Value, json};

use super::tree::{Node, Tree};
use super::{PASSWORD, control, environment_at, init_with, noise, path, small_options};

pub type Objects = BTreeMap<Key, Bytes>;

pub const NOW: i64 = 1_790_000_000;

pub fn vectors(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}

pub fn is_writing() -> bool {
    std::env::var_os("BACKUP_VECTORS").is_some_and(|value| value == "write")
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// What the golden repository holds, made by this program.
pub fn make() -> Objects {
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

pub fn open(storage: &Arc<MemoryStorage>, seed: u64, now: i64) -> Result<Repository> {
    let password = Password::from(PASSWORD);
    Repository::open(storage.clone(), &Credential::from(&password), environment_at(seed, now))
}

/// Everything that a reader gets out of a repository.
pub fn describe(repository: &Repository) -> Value {
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
    json!({ "password": PASSWORD, "repository": repository.id(), "backups": described.collect::<Vec<_>>() })
}

pub fn files_below(directory: &Path, prefix: &str, found: &mut Objects) {
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

pub fn golden() -> Objects {
    let mut objects = Objects::new();
    files_below(&vectors("golden/repository"), "", &mut objects);
    objects
}
