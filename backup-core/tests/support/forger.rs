//! Makes what only somebody with the keys of a repository can make, and what no honest program does.

use std::collections::BTreeMap;

use backup_core::id::ObjectName;
use backup_core::repository::Repository;
use backup_core::storage::{Key, MemoryStorage, PutMode, Storage, list_all};
use backup_core::testing;

use super::cbor::{self, Item, list};

pub fn keys_of(storage: &MemoryStorage, prefix: &str) -> Vec<Key> {
    list_all(storage, prefix).unwrap().into_iter().map(|object| object.key).collect()
}

pub fn get(storage: &MemoryStorage, key: &Key) -> Vec<u8> {
    storage.get(key, u64::MAX).unwrap().to_vec()
}

pub fn overwrite(storage: &MemoryStorage, key: &Key, bytes: impl Into<Vec<u8>>) {
    storage.put(key, bytes.into().into(), PutMode::Overwrite).unwrap();
}

pub fn name_of(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

pub fn name_in(key: &Key) -> [u8; 32] {
    *key.as_str().rsplit('/').next().unwrap().parse::<ObjectName>().unwrap().as_bytes()
}

pub fn packs_key(name: &[u8; 32]) -> Key {
    let name = ObjectName::new(*name);
    Key::new(format!("packs/{}/{name}", &name.to_string()[..2])).unwrap()
}

/// Replaces an object of the repository by one with another body, and everything that names it, up to the signed
/// commits, so that only the body itself is wrong. Index objects that name packs are dropped: readers then go by
/// the directories of the packs.
pub fn replace_body(storage: &MemoryStorage, repository: &Repository, key: &Key, body: &[u8]) -> Key {
    replace_as(storage, repository, key, get(storage, key)[9], body)
}

/// The same with an object of another type.
pub fn replace_as(storage: &MemoryStorage, repository: &Repository, key: &Key, kind: u8, body: &[u8]) -> Key {
    let (_, bytes) = testing::seal_object(repository, kind, body).unwrap();
    replace_object(storage, repository, key, &bytes)
}

/// The same with all of the object.
pub fn replace_object(storage: &MemoryStorage, repository: &Repository, key: &Key, bytes: &[u8]) -> Key {
    let old = get(storage, key);
    let name = ObjectName::new(name_of(bytes));
    storage.delete(key).unwrap();
    let directory = key.as_str().split('/').next().unwrap();
    let new_key = match directory {
        "packs" => packs_key(name.as_bytes()),
        other => Key::new(format!("{other}/{name}")).unwrap(),
    };
    overwrite(storage, &new_key, bytes);
    let mut names = BTreeMap::from([(name_in(key), *name.as_bytes())]);
    if directory == "packs" {
        assert_eq!(bytes.len(), old.len(), "padding hides the difference");
        keys_of(storage, "index/").iter().for_each(|index| storage.delete(index).unwrap());
        for closure in keys_of(storage, "closures/") {
            let (old, mut packs) = (name_in(&closure), get(storage, &closure));
            let mut entries: Vec<Vec<u8>> = packs[16..].chunks(40).map(|entry| replaced(entry, &names)).collect();
            entries.sort();
            packs.splice(16.., entries.concat());
            storage.delete(&closure).unwrap();
            overwrite(storage, &Key::new(format!("closures/{}", ObjectName::new(name_of(&packs)))).unwrap(), &*packs);
            names.insert(old, name_of(&packs));
        }
    }
    resign(storage, repository, names);
    new_key
}

/// Replaces the closure of a commit by other bytes, properly named and signed.
pub fn replace_closure(storage: &MemoryStorage, repository: &Repository, key: &Key, bytes: &[u8]) -> Key {
    storage.delete(key).unwrap();
    let new_key = Key::new(format!("closures/{}", ObjectName::new(name_of(bytes)))).unwrap();
    overwrite(storage, &new_key, bytes);
    resign(storage, repository, BTreeMap::from([(name_in(key), name_of(bytes))]));
    new_key
}

/// Replaces names in all commits and signs them again. A commit's own name changes as well, so this is repeated
/// for the commits that name it.
pub fn resign(storage: &MemoryStorage, repository: &Repository, mut names: BTreeMap<[u8; 32], [u8; 32]>) {
    let mut left: Vec<Key> =
        keys_of(storage, "sessions/").into_iter().filter(|key| key.as_str().ends_with("/outcome")).collect();
    let seeds = seeds(repository);
    let ids: Vec<[u8; 32]> = left.iter().map(|key| name_of(&get(storage, key))).collect();
    while !left.is_empty() {
        let before = left.len();
        left.retain(|key| {
            let bytes = get(storage, key);
            let payload = testing::record_payload(&bytes).unwrap();
            let waits = ids.iter().any(|id| !names.contains_key(id) && contains(&payload, id));
            if !waits {
                let label = "backup/v1/commit";
                let signed = record(&seeds[0], label, &replaced(&payload, &names)).encode();
                names.insert(name_of(&bytes), name_of(&signed));
                overwrite(storage, key, signed);
            }
            waits
        });
        assert!(left.len() < before, "commits name each other in a circle");
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn replaced(bytes: &[u8], names: &BTreeMap<[u8; 32], [u8; 32]>) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for at in 0..bytes.len().saturating_sub(31) {
        if let Some(new) = names.get(&bytes[at..at + 32]) {
            bytes[at..at + 32].copy_from_slice(new);
        }
    }
    bytes
}

/// The only pack of the kind: 2 for contents, 3 for pages.
pub fn pack_of_kind(storage: &MemoryStorage, kind: u8) -> Vec<Key> {
    keys_of(storage, "packs/").into_iter().filter(|key| get(storage, key)[9] == kind).collect()
}

/// Puts another config in place: a new keyring names its hash, and all commits are signed again for it.
pub fn replace_config(storage: &MemoryStorage, repository: &Repository, config: &[u8]) {
    let key = Key::new("config").unwrap();
    let names = BTreeMap::from([(name_of(&get(storage, &key)), name_of(config))]);
    let keyring = replaced(&testing::keyring_body(repository).unwrap(), &names);
    // Signing needs the old keyring and config.
    resign(storage, repository, names);
    replace_keyring(storage, repository, &keyring);
    overwrite(storage, &key, config);
}

/// Puts another body into the only keyring.
pub fn replace_keyring(storage: &MemoryStorage, repository: &Repository, body: &[u8]) {
    let key = keys_of(storage, "keyring/").pop().unwrap();
    overwrite(storage, &key, sealed(storage, repository, &key, body, |_| ()));
}

/// Seals `body` as the object under `key` was sealed, in as few frames of its size as hold it. `change` changes the
/// header before that.
pub fn sealed(
    storage: &MemoryStorage,
    repository: &Repository,
    key: &Key,
    body: &[u8],
    change: impl FnOnce(&mut [u8; 96]),
) -> Vec<u8> {
    let mut header: [u8; 96] = get(storage, key)[..96].try_into().unwrap();
    let plain = plaintext(body, 1 << header[11]);
    let frames = (plain.len() >> header[11]) as u32;
    header[36..40].copy_from_slice(&frames.to_le_bytes());
    // A salt of its own, so that no key is used twice.
    let salt = name_of(&[&header[..], body].concat());
    header[64..].copy_from_slice(&salt);
    change(&mut header);
    testing::seal_frames(repository, &header, &plain, &|frame| frame + 1 == frames).unwrap()
}

/// Length, body and zeros up to whole frames.
pub fn plaintext(body: &[u8], frame: usize) -> Vec<u8> {
    let mut plain = [&(body.len() as u64).to_le_bytes(), body].concat();
    plain.resize(plain.len().next_multiple_of(frame), 0);
    plain
}

/// A record with any label, signed with any seed.
pub fn record(seed: &[u8], label: &str, payload: &[u8]) -> Item {
    let (_, signature) = testing::signature(seed.try_into().unwrap(), label, payload);
    cbor::map(vec![(1, label.into()), (2, payload.into()), (3, signature.into())])
}

/// The seeds of a repository: writer, maintenance.
pub fn seeds(repository: &Repository) -> [Vec<u8>; 2] {
    let keyring = Item::decode(&testing::keyring_body(repository).unwrap());
    [4, 5].map(|field| keyring.get(field).bytes().to_vec())
}

/// A backup made by hand. What it says of itself is what its maker wants.
pub struct Draft<'r> {
    repository: &'r Repository,
    /// Ids and plaintexts.
    pages: Vec<([u8; 32], Vec<u8>)>,
}

/// What a draft became.
pub struct Drafted {
    pub pack: Key,
    pub body: Key,
    pub outcome: Key,
    pub backup: String,
}

impl<'r> Draft<'r> {
    pub fn new(repository: &'r Repository) -> Self {
        Self { repository, pages: Vec::new() }
    }

    /// Adds a page and returns how a parent refers to it.
    pub fn page(&mut self, page: &Item) -> [Item; 2] {
        let bytes = page.encode();
        let id = testing::chunk_id(self.repository, true, &bytes);
        let length = bytes.len() as u64;
        self.pages.push((id, bytes));
        [id.into(), length.into()]
    }

    /// A leaf of the catalogue with these entries, whose paths have no common prefixes beyond what the items say.
    pub fn leaf(entries: &[(u64, &[u8], Vec<u8>)]) -> Item {
        let items = entries
            .iter()
            .flat_map(|(shared, rest, entry)| [(*shared).into(), (*rest).into(), entry.clone().into()])
            .collect::<Vec<Item>>();
        cbor::map(vec![(1, 2.into()), (2, 1.into()), (3, items.into())])
    }

    /// Stores everything. `root` is the catalogue field of the body; `change` changes body and commit before they are
    /// sealed and signed.
    pub fn store(self, storage: &MemoryStorage, root: Vec<Item>, change: impl FnOnce(&mut Item, &mut Item)) -> Drafted {
        let repository = self.repository;
        let count = self.pages.len() as u32;
        let mut pack = [&b"PKB1"[..], &count.to_le_bytes(), &[0; 8]].concat();
        let mut offset = 16 + 44 * count;
        let mut entries = Vec::new();
        for (id, page) in &self.pages {
            let length = page.len() as u32;
            pack.extend([&id[..], &length.to_le_bytes(), &length.to_le_bytes(), &[0, 1, 0, 0]].concat());
            let place = [0u32, offset, length, length].map(u32::to_le_bytes).concat();
            entries.push([&id[..], &place, &[0, 1, 0, 0]].concat());
            offset += length;
        }
        pack.extend(self.pages.iter().flat_map(|(_, page)| page));
        let put = |directory: &str, bytes: &[u8]| {
            let name = name_of(bytes);
            let key = match directory {
                "packs" => packs_key(&name),
                directory => Key::new(format!("{directory}/{}", ObjectName::new(name))).unwrap(),
            };
            overwrite(storage, &key, bytes);
            key
        };
        let seal = |kind, body: &[u8]| testing::seal_object(repository, kind, body).unwrap().1;
        let pack_bytes = seal(3, &pack);
        let pack = put("packs", &pack_bytes);
        entries.sort();
        let place = [&name_in(&pack)[..], &(pack_bytes.len() as u64).to_le_bytes()].concat();
        let index =
            [&b"BIX1"[..], &1u32.to_le_bytes(), &count.to_le_bytes(), &[0; 4], &place, &entries.concat()].concat();
        let index = put("index", &seal(4, &index));
        // It may refer to any chunk of the repository.
        let mut packs: Vec<(Key, u64)> =
            keys_of(storage, "packs/").into_iter().map(|key| (key.clone(), get(storage, &key).len() as u64)).collect();
        packs.sort();
        let places: Vec<u8> =
            packs.iter().flat_map(|(key, size)| [&name_in(key)[..], &size.to_le_bytes()].concat()).collect();
        let closure = [&b"BCL1\0\0\0\0"[..], &(packs.len() as u64).to_le_bytes(), &places].concat();
        let closure = put("closures", &closure);

        let newest = repository.backups().unwrap().pop().unwrap();
        let entries = root.last().map_or(0, |item| if let Item::Unsigned(count) = item { *count } else { 0 });
        let mut body = cbor::map(vec![
            (1, "data".into()),
            (2, "forger".into()),
            (3, list([])),
            (4, list([])),
            (5, 1_790_010_000.into()),
            (6, 0.into()),
            (7, 1_790_010_001.into()),
            (8, 0.into()),
            (10, root.into()),
            (
                11,
                (0..8).map(|amount| if amount == 0 { entries.into() } else { 0.into() }).collect::<Vec<Item>>().into(),
            ),
            (12, list([])),
            (13, 0.into()),
        ]);
        let session = [0x77; 16];
        let mut commit = cbor::map(vec![
            (1, (*repository.id().as_bytes()).into()),
            (2, session.into()),
            (3, 1.into()),
            (5, list([name_in(&index).into()])),
            (6, name_in(&closure).into()),
            (7, (packs.len() as u64).into()),
            (8, packs.iter().map(|(_, size)| size).sum::<u64>().into()),
            (9, name_of(&get(storage, &Key::new("config").unwrap())).into()),
            (10, list([(*newest.id.as_bytes()).into()])),
            (11, 1_790_010_002.into()),
            (12, 0.into()),
        ]);
        change(&mut body, &mut commit);
        let body = put("bodies", &seal(5, &body.encode()));
        if !matches!(&commit, Item::Map(fields) if fields.iter().any(|(key, _)| *key == 4)) {
            commit.set(4, name_in(&body));
        }
        let outcome = record(&seeds(repository)[0], "backup/v1/commit", &commit.encode()).encode();
        let backup = ObjectName::new(name_of(&outcome)).to_string();
        let key = Key::new(format!("sessions/00000001/{}/outcome", "77".repeat(16))).unwrap();
        overwrite(storage, &key, outcome);
        Drafted { pack, body, outcome: key, backup }
    }
}
