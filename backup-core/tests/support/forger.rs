//! Makes what only somebody with the keys of a repository can make, and what no honest program does.

use std::collections::BTreeMap;

use backup_core::id::ObjectName;
use backup_core::repository::Repository;
use backup_core::storage::{Key, MemoryStorage, PutMode, Storage, list_all};
use backup_core::testing;

pub fn keys_of(storage: &MemoryStorage, prefix: &str) -> Vec<Key> {
    list_all(storage, prefix).unwrap().into_iter().map(|object| object.key).collect()
}

pub fn get(storage: &MemoryStorage, key: &Key) -> Vec<u8> {
    storage.get(key, u64::MAX).unwrap().to_vec()
}

pub fn overwrite(storage: &MemoryStorage, key: &Key, bytes: impl Into<Vec<u8>>) {
    storage.put(key, bytes.into().into(), PutMode::Overwrite).unwrap();
}

fn name_of(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

fn name_in(key: &Key) -> [u8; 32] {
    *key.as_str().rsplit('/').next().unwrap().parse::<ObjectName>().unwrap().as_bytes()
}

fn packs_key(name: &[u8; 32]) -> Key {
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
    let old = get(storage, key);
    let (name, bytes) = testing::seal_object(repository, kind, body).unwrap();
    storage.delete(key).unwrap();
    let directory = key.as_str().split('/').next().unwrap();
    let new_key = match directory {
        "packs" => packs_key(name.as_bytes()),
        other => Key::new(format!("{other}/{name}")).unwrap(),
    };
    overwrite(storage, &new_key, bytes.clone());
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
fn resign(storage: &MemoryStorage, repository: &Repository, mut names: BTreeMap<[u8; 32], [u8; 32]>) {
    let mut left: Vec<Key> =
        keys_of(storage, "sessions/").into_iter().filter(|key| key.as_str().ends_with("/outcome")).collect();
    let ids: Vec<[u8; 32]> = left.iter().map(|key| name_of(&get(storage, key))).collect();
    while !left.is_empty() {
        let before = left.len();
        left.retain(|key| {
            let bytes = get(storage, key);
            let payload = testing::record_payload(&bytes).unwrap();
            let waits = ids.iter().any(|id| !names.contains_key(id) && contains(&payload, id));
            if !waits {
                let label = "backup/v1/commit";
                let signed = testing::sign_record(repository, label, &replaced(&payload, &names)).unwrap();
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
