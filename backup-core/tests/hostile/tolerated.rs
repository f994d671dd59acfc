//! States that every program must read: what later versions may add, and what chance may leave behind.

use std::sync::Arc;

use backup_core::id::SessionId;
use backup_core::repository::Repository;
use backup_core::storage::{Key, MemoryStorage};
use backup_core::testing;
use serde_json::{Value, json};

use crate::cases::difference;
use crate::entries::{CONTENT, directory, good};
use crate::pages::root;
use crate::support::cbor::{Item, list, map};
use crate::support::forger::{Draft, get, keys_of, overwrite, record, replace_config, replace_keyring, seeds};
use crate::support::vectors::{NOW, Objects, open};

/// The states, as they are published.
pub(crate) fn published(golden: Objects) -> Vec<(&'static str, Value)> {
    let mut states = States { golden, states: Vec::new() };
    config(&mut states);
    fields(&mut states);
    contents(&mut states);
    history(&mut states);
    leftovers(&mut states);
    states.states
}

/// Bytes that are shared with the path before, the rest of the path, the entry.
type LeafEntry = (u64, &'static [u8], Vec<u8>);

struct States {
    golden: Objects,
    states: Vec<(&'static str, Value)>,
}

impl States {
    fn add(&mut self, name: &'static str, rule: &'static str, change: impl FnOnce(&Arc<MemoryStorage>, &Repository)) {
        let storage = Arc::new(MemoryStorage::from_objects(self.golden.clone()));
        let seed = blake3::hash(name.as_bytes()).as_bytes()[..8].try_into().unwrap();
        let repository = open(&storage, u64::from_le_bytes(seed), NOW).unwrap();
        change(&storage, &repository);
        let repository = open(&storage, 1, NOW).unwrap_or_else(|error| panic!("{name}: {error}"));
        let backups: Vec<String> = repository.backups().unwrap().iter().map(|backup| backup.id.to_string()).collect();
        let value = json!({
            "rule": rule,
            "backups": backups,
            "read_only": repository.is_read_only(),
            "objects": difference(&self.golden, &storage.snapshot()),
        });
        self.states.push((name, value));
    }

    /// A third backup with this catalogue of one leaf.
    fn entries(&mut self, name: &'static str, rule: &'static str, make: &dyn Fn(&Repository) -> Vec<LeafEntry>) {
        self.add(name, rule, |storage, repository| {
            let mut draft = Draft::new(repository);
            let entries = make(repository);
            let page = draft.page(&Draft::leaf(&entries));
            draft.store(storage, root(1, page, entries.len() as u64), |_, _| ());
        });
    }
}

/// Something of every type that the profile has, 8 deep.
fn later() -> Item {
    let deep = (0..5).fold(Item::Array(Vec::new()), |inner, _| Item::Array(vec![inner]));
    let inside = map(vec![(0, Item::Negative(u64::MAX >> 1)), (u64::MAX, "\u{10ffff}".into())]);
    Item::Array(vec![deep, inside, u64::MAX.into(), vec![0xff].into(), Item::Boolean(false)])
}

fn config(states: &mut States) {
    let config = Item::decode(&states.golden[&Key::new("config").unwrap()]);
    for (name, rule, changed) in [
        (
            "config-later-field",
            "config: unknown fields from 128 on are ignored",
            config.clone().with(128, later()).with(u64::MAX, 0),
        ),
        (
            "config-compatible",
            "config: unknown compatible features are ignored",
            config.clone().with(3, list(["a-2".into(), "b".into()])),
        ),
        (
            "config-read-only",
            "config: with an unknown read-only feature a program may read",
            config.with(4, list(["parity".into()])),
        ),
    ] {
        states.add(name, rule, |storage, repository| replace_config(storage, repository, &changed.encode()));
    }
}

fn fields(states: &mut States) {
    states.add("keyring-later-field", "keyring: unknown fields from 128 on are ignored", |storage, repository| {
        let body = Item::decode(&testing::keyring_body(repository).unwrap());
        replace_keyring(storage, repository, &body.with(128, later()).encode());
    });
    states.add("keyring-generations", "keyring: generations may have gaps", |storage, repository| {
        let body = Item::decode(&testing::keyring_body(repository).unwrap());
        let mut roots = body.get(2).array().to_vec();
        roots.push(Item::Array(vec![u64::from(u32::MAX).into(), [0x33; 32].into()]));
        replace_keyring(storage, repository, &body.with(2, roots).encode());
    });
    for (name, rule, of_record) in [
        ("outcome-later-field", "record: unknown fields from 128 on are ignored", true),
        ("commit-later-field", "commit: unknown fields from 128 on are ignored", false),
    ] {
        states.add(name, rule, |storage, repository| {
            let mut draft = Draft::new(repository);
            let page = draft.page(&Draft::leaf(&[(0, b"file", good(repository).encode())]));
            let drafted = draft.store(storage, root(1, page, 1), |_, commit| {
                if !of_record {
                    commit.set(128, later());
                }
            });
            if of_record {
                let changed = Item::decode(&get(storage, &drafted.outcome)).with(128, later());
                overwrite(storage, &drafted.outcome, changed.encode());
            }
        });
    }
    states.add("body-later-field", "body: unknown fields from 128 on are ignored", |storage, repository| {
        let mut draft = Draft::new(repository);
        let page = draft.page(&Draft::leaf(&[(0, b"file", good(repository).encode())]));
        draft.store(storage, root(1, page, 1), |body, _| body.set(128, later()));
    });
    states.add("body-origins", "body: it may be a copy of a copy", |storage, repository| {
        let mut draft = Draft::new(repository);
        let page = draft.page(&Draft::leaf(&[(0, b"file", good(repository).encode())]));
        let origin = |number: u8| Item::Array(vec![vec![number; 16].into(), vec![number; 32].into()]);
        draft.store(storage, root(1, page, 1), |body, _| body.set(14, Item::Array((1..=64).map(origin).collect())));
    });
    states.add("page-later-field", "page: unknown fields from 128 on are ignored", |storage, repository| {
        let mut draft = Draft::new(repository);
        let page = draft.page(&Draft::leaf(&[(0, b"file", good(repository).encode())]).with(128, later()));
        draft.store(storage, root(1, page, 1), |_, _| ());
    });
    states.entries("entry-later-field", "entry: unknown fields from 128 on are ignored", &|repository| {
        vec![(0, b"file", good(repository).with(128, later()).encode())]
    });
}

fn contents(states: &mut States) {
    states.add(
        "catalogue-empty",
        "catalogue: a backup without entries has one leaf without items",
        |storage, repository| {
            let mut draft = Draft::new(repository);
            let page = draft.page(&Draft::leaf(&[]));
            draft.store(storage, root(1, page, 0), |_, _| ());
        },
    );
    states.add("catalogue-high", "catalogue: readers accept any pages within the limits", |storage, repository| {
        let mut draft = Draft::new(repository);
        let mut page = draft.page(&Draft::leaf(&[(0, b"file", good(repository).encode())]));
        for height in 2..=8u64 {
            let [id, length] = page;
            let items = vec![id, length, 1.into(), b"file".to_vec().into()];
            page = draft.page(&map(vec![(1, 2.into()), (2, height.into()), (3, items.into())]));
        }
        draft.store(storage, root(8, page, 1), |_, _| ());
    });
    states.add("content-high", "content: readers accept any pages within the limits", |storage, repository| {
        let mut draft = Draft::new(repository);
        let length = CONTENT.len() as u64;
        let items = good(repository).get(5).array().to_vec();
        let mut page = draft.page(&map(vec![(1, 1.into()), (2, 1.into()), (3, items.into())]));
        for height in 2..=8u64 {
            let [id, size] = page;
            let items = vec![id, size, length.into()];
            page = draft.page(&map(vec![(1, 1.into()), (2, height.into()), (3, items.into())]));
        }
        let [id, size] = page;
        let entry = good(repository).without(5).with(6, list([8.into(), id, size])).encode();
        let page = draft.page(&Draft::leaf(&[(0, b"file", entry)]));
        draft.store(storage, root(1, page, 1), |_, _| ());
    });
    states.entries("path-odd", "path: any bytes but 00, in the order with / as 00", &|_| {
        vec![
            (0, b"\x01\xff", directory()),
            (0, b"...", directory()),
            (3, b"/..a", directory()),
            (3, b"\x01", directory()),
            (0, b"a\nb", directory()),
        ]
    });
    states.entries("entry-odd", "entry: everything at its limit", &|repository| {
        let entry = good(repository)
            .with(9, Item::Boolean(true))
            .with(16, 0o7777)
            .with(17, u64::from(u32::MAX))
            .with(21, Item::Array(vec![Item::Negative(377_705_023_200), 0.into()]))
            .with(22, Item::Array(vec![253_402_207_200.into(), 999_999_999.into()]))
            .with(23, u64::MAX)
            .with(24, list([b"a".to_vec().into(), Vec::<u8>::new().into()]));
        vec![(0, b"file", entry.encode())]
    });
}

fn history(states: &mut States) {
    let outcomes = |storage: &MemoryStorage| -> Vec<Key> {
        keys_of(storage, "sessions/").into_iter().filter(|key| key.as_str().ends_with("/outcome")).collect()
    };
    let stranger = SessionId::new([0xab; 16]);
    states.add("session-revoked", "outcome: a revoked session made no backup", |storage, repository| {
        let (key, bytes) = testing::revocation(repository, 1, stranger).unwrap();
        overwrite(storage, &key, bytes);
    });
    states.add("session-open", "session: one without outcome made no backup, whatever its mark says", |storage, _| {
        overwrite(storage, &Key::new(format!("sessions/00000001/{stranger}/open")).unwrap(), *b"\xff");
    });
    states.add("backup-forgotten", "forget: a forgotten backup is not shown", |storage, repository| {
        let (key, bytes) = testing::forget(repository, repository.backups().unwrap()[0].id).unwrap();
        overwrite(storage, &key, bytes);
    });
    let finale = |storage: &MemoryStorage, repository: &Repository, kept: &[Key]| {
        let checkpoint: Vec<Vec<u8>> = kept.iter().map(|key| get(storage, key)).collect();
        let indexes: Vec<_> = keys_of(storage, "index/")
            .iter()
            .map(|key| key.as_str().rsplit('/').next().unwrap().parse().unwrap())
            .collect();
        let (key, bytes) = testing::collection_final(repository, 1, &[], &checkpoint, &indexes).unwrap();
        overwrite(storage, &key, bytes);
    };
    // A commit beside the first one, with the same body: its storage key and its payload.
    let beside = |storage: &MemoryStorage, number: u8, generation: u8| {
        let first = Item::decode(&testing::record_payload(&get(storage, &outcomes(storage)[0])).unwrap());
        let session = [number; 16];
        let key = format!("sessions/{generation:08x}/{}/outcome", SessionId::new(session));
        (Key::new(key).unwrap(), first.with(2, session).with(3, u64::from(generation)))
    };
    let put = |storage: &MemoryStorage, repository: &Repository, commit: &(Key, Item)| {
        let bytes = record(&seeds(repository)[0], "backup/v1/commit", &commit.1.encode()).encode();
        let id = *blake3::hash(&bytes).as_bytes();
        overwrite(storage, &commit.0, bytes);
        id
    };
    let id_of = |storage: &MemoryStorage, key: &Key| *blake3::hash(&get(storage, key)).as_bytes();
    let replace =
        |storage: &MemoryStorage, repository: &Repository, number: u8, generation: u8, earlier: &[[u8; 32]]| {
            let (key, commit) = beside(storage, number, generation);
            let commit = commit.with(13, Item::Array(earlier.iter().map(|id| (*id).into()).collect()));
            put(storage, repository, &(key, commit))
        };
    states.add("backup-replaced", "commit: one that a valid one replaces is not shown", |storage, repository| {
        let first = id_of(storage, &outcomes(storage)[0]);
        replace(storage, repository, 0xab, 1, &[first]);
    });
    states.add("backup-replaced-twice", "commit: what replaces one replaces all before", |storage, repository| {
        let first = id_of(storage, &outcomes(storage)[0]);
        let second = replace(storage, repository, 0xab, 1, &[first]);
        replace(storage, repository, 0xff, 2, &[first, second]);
    });
    states.add(
        "backup-replaced-beside",
        "commit: a backup that was replaced by two is shown once",
        |storage, repository| {
            let first = id_of(storage, &outcomes(storage)[0]);
            replace(storage, repository, 0xab, 1, &[first]);
            replace(storage, repository, 0xff, 2, &[first]);
            replace(storage, repository, 0xfe, 2, &[first]);
        },
    );
    states.add(
        "backup-replaced-older",
        "commit: one of a smaller generation replaces nothing",
        |storage, repository| {
            let (key, commit) = beside(storage, 0xab, 2);
            let newer = put(storage, repository, &(key, commit));
            replace(storage, repository, 0xff, 1, &[newer]);
        },
    );
    states.add("backup-replaced-void", "commit: one that is not valid replaces nothing", |storage, repository| {
        let kept = outcomes(storage);
        let first = id_of(storage, &kept[0]);
        finale(storage, repository, &kept);
        replace(storage, repository, 0xff, 1, &[first]);
    });
    states.add(
        "backup-replaced-forgotten",
        "forget: what replaces a forgotten backup is forgotten",
        |storage, repository| {
            let first = id_of(storage, &outcomes(storage)[0]);
            replace(storage, repository, 0xff, 1, &[first]);
            let (key, bytes) = testing::forget(repository, backup_core::id::BackupId::new(first)).unwrap();
            overwrite(storage, &key, bytes);
        },
    );
    states.add("backup-replacement-forgotten", "forget: a backup does not come back", |storage, repository| {
        let first = id_of(storage, &outcomes(storage)[0]);
        let second = replace(storage, repository, 0xff, 1, &[first]);
        let (key, bytes) = testing::forget(repository, backup_core::id::BackupId::new(second)).unwrap();
        overwrite(storage, &key, bytes);
    });
    states.add("collection-begun", "collection: one without mark means nothing", |storage, _| {
        overwrite(storage, &Key::new("collections/00000001/open").unwrap(), *b"");
    });
    states.add("collection-marked", "collection: what a mark condemns is read", |storage, repository| {
        let packs: Vec<_> = keys_of(storage, "packs/")
            .iter()
            .map(|key| key.as_str().rsplit('/').next().unwrap().parse().unwrap())
            .collect();
        let (key, bytes) = testing::collection_mark(repository, 1, &packs).unwrap();
        overwrite(storage, &key, bytes);
    });
    states.add("collection-aborted", "collection: an aborted one means nothing", |storage, repository| {
        let payload = map(vec![(1, (*repository.id().as_bytes()).into()), (2, 1.into())]).encode();
        let bytes = record(&seeds(repository)[1], "backup/v1/collection-abort", &payload).encode();
        overwrite(storage, &Key::new("collections/00000001/outcome").unwrap(), bytes);
    });
    states.add("checkpoint", "commit: one of a checkpoint is valid without its slot", |storage, repository| {
        let outcomes = outcomes(storage);
        finale(storage, repository, &outcomes);
        outcomes.iter().for_each(|key| backup_core::storage::Storage::delete(&**storage, key).unwrap());
    });
    states.add(
        "commit-void",
        "commit: one that is not newer than the newest final and not in its checkpoint is void",
        |storage, repository| {
            finale(storage, repository, &outcomes(storage));
            let mut draft = Draft::new(repository);
            let page = draft.page(&Draft::leaf(&[(0, b"file", good(repository).encode())]));
            draft.store(storage, root(1, page, 1), |_, _| ());
        },
    );
    states.add(
        "commit-after-final",
        "commit: one of a later generation than the newest final is valid",
        |storage, repository| {
            finale(storage, repository, &outcomes(storage));
            let mut draft = Draft::new(repository);
            let page = draft.page(&Draft::leaf(&[(0, b"file", good(repository).encode())]));
            let drafted = draft.store(storage, root(1, page, 1), |_, commit| commit.set(3, 2));
            let bytes = get(storage, &drafted.outcome);
            backup_core::storage::Storage::delete(&**storage, &drafted.outcome).unwrap();
            let moved = drafted.outcome.as_str().replace("/00000001/", "/00000002/");
            overwrite(storage, &Key::new(moved).unwrap(), bytes);
        },
    );
}

fn leftovers(states: &mut States) {
    states.add("foreign-keys", "storage keys: objects under other keys are ignored", |storage, _| {
        let name = "ab".repeat(32);
        for foreign in [
            "readme.txt",
            "keys/readme",
            "keyring/0000000g",
            "keyring/1",
            &format!("packs/{name}"),
            &format!("packs/cd/{name}"),
            &format!("index/{name}.json"),
            "sessions/00000001/abababababababababababababababab/outcome.old",
            &format!("probes/{}", "ab".repeat(16)),
            &format!("parity/{name}"),
        ] {
            overwrite(storage, &Key::new(foreign).unwrap(), *b"foreign");
        }
    });
    states.add("unreferenced", "objects that nothing names are not looked at", |storage, _| {
        let name = "ab".repeat(32);
        for key in
            [format!("packs/ab/{name}"), format!("index/{name}"), format!("bodies/{name}"), format!("closures/{name}")]
        {
            overwrite(storage, &Key::new(key).unwrap(), *b"torn");
        }
    });
    states.add("chunk-twice", "chunk: the same chunk may stand in several packs", |storage, repository| {
        // The later backup has the page of the earlier one, and another, in a pack of its own.
        let entries = |draft: &mut Draft<'_>| draft.page(&Draft::leaf(&[(0, b"file", good(repository).encode())]));
        let mut draft = Draft::new(repository);
        let page = entries(&mut draft);
        draft.store(storage, root(1, page, 1), |_, _| ());
        let first = get(storage, &draft_key());
        let mut draft = Draft::new(repository);
        draft.page(&Draft::leaf(&[(0, b"other", directory())]));
        let page = entries(&mut draft);
        let drafted = draft.store(storage, root(1, page, 1), |_, commit| commit.set(2, [0x88; 16]));
        let second = get(storage, &drafted.outcome);
        let moved = drafted.outcome.as_str().replace(&"77".repeat(16), &"88".repeat(16));
        overwrite(storage, &Key::new(moved).unwrap(), second);
        overwrite(storage, &drafted.outcome, first);
    });
}

/// Where the outcome of a draft stands.
fn draft_key() -> Key {
    Key::new(format!("sessions/00000001/{}/outcome", "77".repeat(16))).unwrap()
}
