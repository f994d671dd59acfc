//! What a fuzzer begins with: the real objects of a repository, opened, and one genuine input for every property that
//! asks for keys or numbers of its own.

use super::Item;
use crate::compress::Decompressor;
use crate::crypto::Argon2Parameters;
use crate::entropy::SeededEntropy;
use crate::error::Result;
use crate::format::layout::Place;
use crate::id::{BackupId, Digest, ObjectName, RepositoryId, SessionId, SlotId};
use crate::keys::{Credential, RecoveryKey};
use crate::pack::Directory;
use crate::repository::Repository;
use crate::storage::list_all;
use crate::testing;

/// Inputs by the name of their target.
///
/// # Errors
///
/// Those of reading `repository`.
pub fn seeds(repository: &Repository) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let storage = &*repository.inner.storage;
    let mut seeds = made()?;
    seeds.extend(crate::archive::properties::seeds().into_iter().map(|seed| ("archive", seed)));
    seeds.push(("parity", crate::parity::seed()));
    let objects = list_all(storage, "").expect("the storage can be listed");
    for object in objects {
        let Some(place) = Place::parse(&object.key) else { continue };
        let bytes = storage.get(&object.key, u64::MAX).expect("the object is there").to_vec();
        seeds.push(("text", object.key.as_str().as_bytes().to_vec()));
        match place {
            Place::Config => seeds.extend([("config", bytes.clone()), ("cbor", bytes)]),
            Place::Slot(_) => seeds.push(("key_slot", bytes)),
            Place::Closure(_) => seeds.push(("closure", bytes)),
            Place::SessionOutcome(..) => {
                let payload = of_fuzz_repository(&testing::record_payload(&bytes)?, repository.id());
                seeds.extend([("cbor", bytes), ("cbor", payload.clone())]);
                seeds.push(("record", [&[0], &*payload].concat()));
            }
            Place::Pack(_) | Place::Index(_) | Place::Body(_) => {
                let body = testing::open_object(repository, object.key.as_str(), &bytes)?;
                if bytes.len() < 10_000 {
                    seeds.push(("sealed_object", [&[0], &*bytes].concat()));
                }
                let size = bytes.len().to_le_bytes();
                seeds.push(("sealed_object", [&[3], &size[..], &bytes[..128]].concat()));
                match place {
                    Place::Pack(_) => add_pack(&mut seeds, &body)?,
                    Place::Index(_) => seeds.push(("index_segment", body)),
                    _ => seeds.extend([("backup_body", body.clone()), ("cbor", body)]),
                }
            }
            _ => {}
        }
    }
    Ok(seeds)
}

fn add_pack(seeds: &mut Vec<(&'static str, Vec<u8>)>, body: &[u8]) -> Result<()> {
    let directory = Directory::parse(body, crate::length::to_u64(body.len()), &"pack")?;
    let mut decompressor = Decompressor::new()?;
    for entry in directory.entries() {
        let payload = Directory::payload(body, entry, &"pack")?;
        let plain = decompressor.decompress(entry.codec, payload, entry.raw, &"pack")?;
        if payload.len() < 2000 {
            seeds.push(("decompress", [&entry.raw.to_le_bytes()[..3], payload].concat()));
        }
        add_page(seeds, &plain);
    }
    if body.len() < 10_000 {
        seeds.push(("pack", body.to_vec()));
    }
    Ok(())
}

/// A page, where it is one, and the entries in it.
fn add_page(seeds: &mut Vec<(&'static str, Vec<u8>)>, page: &[u8]) {
    let Some(Item::Map(fields)) = Item::decode(page) else { return };
    let [(1, Item::Unsigned(tree)), (2, Item::Unsigned(height)), (3, Item::Array(items))] = &*fields else { return };
    let selector = [u8::from(*tree == 2) | u8::try_from(*height).expect("a height") << 1];
    seeds.push(("page", [&selector, page].concat()));
    if (*tree, *height) == (2, 1) {
        for item in items.chunks(3) {
            if let [_, Item::Bytes(path), Item::Bytes(entry)] = item {
                seeds.extend([("text", path.clone()), ("entry", entry.clone()), ("cbor", entry.clone())]);
            }
        }
    }
}

/// The payload of a record, for the repository of the properties.
fn of_fuzz_repository(payload: &[u8], repository: RepositoryId) -> Vec<u8> {
    let mut payload = payload.to_vec();
    for at in 0..payload.len().saturating_sub(15) {
        if payload[at..at + 16] == *repository.as_bytes() {
            payload[at..at + 16].fill(0x11);
        }
    }
    payload
}

/// What no repository has.
fn made() -> Result<Vec<(&'static str, Vec<u8>)>> {
    let repository = RepositoryId::new([0x11; 16]);
    let recovery = RecoveryKey::generate(&SeededEntropy::new(1))?;
    let credential = Credential::RecoveryKey(&recovery);
    let parameters = Argon2Parameters::minimum_for_tests();
    let id = SlotId::new([0x22; 16]);
    let slot = testing::slot(repository, id, credential, parameters, [0; 32], "genuine", &[0x33; 32])?;
    let config_hash = Digest::new(*blake3::hash(b"config").as_bytes());
    let roots = [(1, [1; 32]), (5, [2; 32])];
    let secrets = [&[3; 32], &[4; 32], &[5; 32]];
    let (keyring, _) =
        testing::keyring(&SeededEntropy::new(2), repository, &[0x44; 32], 1, &roots, secrets, config_hash)?;

    let maintenance = crate::crypto::SigningKey::from_seed(&[0x77; 32]);
    let names = [ObjectName::new([1; 32]), ObjectName::new([2; 32])];
    let of = repository;
    let records = [
        (1, testing::records::revoke(&maintenance, of, SessionId::new([9; 16]))),
        (2, testing::records::forget(&maintenance, of, BackupId::new([0x88; 32]))),
        (3, testing::records::mark(&maintenance, of, 7, &names)),
        (4, testing::records::finale(&maintenance, of, 7, &names, &[vec![1, 2, 3]], &names[..1])),
        (5, testing::records::abort(&maintenance, of, 7)),
    ];
    let node = Item::Map(vec![
        (1, Item::Unsigned(1)),
        (2, Item::Unsigned(2)),
        (3, Item::Array(vec![Item::Bytes(vec![7; 32]), Item::Unsigned(900), Item::Unsigned(1 << 20)])),
    ]);
    let catalogue_child =
        |first: &[u8]| [Item::Bytes(vec![7; 32]), Item::Unsigned(900), Item::Unsigned(3), Item::Bytes(first.to_vec())];
    let catalogue_node = Item::Map(vec![
        (1, Item::Unsigned(2)),
        (2, Item::Unsigned(2)),
        (3, Item::Array([catalogue_child(b"a"), catalogue_child(b"b/c")].concat())),
    ]);
    let mut seeds = vec![
        ("key_slot", slot),
        ("keyring", keyring.clone()),
        ("cbor", keyring),
        ("page", [&[2 << 1], &*node.encode()].concat()),
        ("page", [&[2 << 1 | 1], &*catalogue_node.encode()].concat()),
        ("sealed_object", [&[1, 0x20, 0x40][..], &[200, 0, 0, 1], &[0x10, 0x30, 0, 0x80]].concat()),
        ("sealed_object", vec![1, 0x20, 0x40]),
        ("sealed_object", [&[2][..], &5000u64.to_le_bytes(), &[1; 5000]].concat()),
        ("sealed_object", [&[2][..], &5u64.to_le_bytes(), b"hello"].concat()),
        ("text", recovery.to_text()?.as_bytes().to_vec()),
        ("text", recovery.to_text()?.to_uppercase().into_bytes()),
        ("text", b"2026-09-21T14:13:20.000000005Z".to_vec()),
        ("text", b"collections/00000001/outcome".to_vec()),
        ("text", b"forgets/".iter().chain(&[b'a'; 64]).copied().collect()),
        ("text", vec![b'0'; 32]),
        (
            "decompress",
            [&1000u32.to_le_bytes()[..3], &zstd::bulk::compress(&[7; 1000], 3).expect("zstd works")].concat(),
        ),
    ];
    for (selector, record) in records {
        let payload = testing::record_payload(&record)?;
        seeds.extend([("record", [&[selector], &*payload].concat()), ("record", [&[0], &*record].concat())]);
    }
    Ok(seeds)
}
