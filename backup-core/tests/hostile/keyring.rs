//! Keyrings.

use backup_core::repository::Repository;
use backup_core::storage::{Key, MemoryStorage, Storage};
use backup_core::testing;

use crate::cases::Cases;
use crate::support::cbor::{Item, list};
use crate::support::forger::{get, overwrite, replace_keyring, sealed};

pub(crate) fn add(cases: &mut Cases) {
    let key = cases.first("keyring/", "");
    let damaged = ("open", "damaged");
    cases.rule(2);
    cases.edit("keyring-tag", "keyring: frames are authentic", damaged, &key, |bytes| {
        let last = bytes.len() - 1;
        bytes[last] ^= 0x80;
    });
    cases.edit("keyring-flags", "sealed object: flags are zero", ("open", "unsupported"), &key, |bytes| bytes[12] = 1);
    let with_header = |storage: &MemoryStorage, repository: &Repository, change: &dyn Fn(&mut [u8; 96])| {
        let body = testing::keyring_body(repository).unwrap();
        overwrite(storage, &key, sealed(storage, repository, &key, &body, change));
        key.to_string()
    };
    cases.add("keyring-generation", "keyring: its generation is 0", damaged, |storage, repository| {
        with_header(storage, repository, &|header| header[32] = 1)
    });
    cases.add("keyring-session", "keyring: its session is zero", damaged, |storage, repository| {
        with_header(storage, repository, &|header| header[40] = 1)
    });
    cases.rule(1);
    cases.edit("keyring-long", "keyring: at most 64 KiB", ("open", "limit-exceeded"), &key, |bytes| {
        bytes.resize(65_537, 0);
    });
    cases.add("keyring-missing", "keyring: there is one", ("open", "damaged"), |storage, _| {
        storage.delete(&key).unwrap();
        "keyring/".to_owned()
    });
    cases.rule(5);
    cases.add("keyring-number", "keyring: it stands under its number", damaged, |storage, _| {
        let copy = Key::new("keyring/00000002").unwrap();
        overwrite(storage, &copy, get(storage, &key));
        copy.to_string()
    });
    cases.add("keyring-newest", "keyring: no older one stands in for the newest", damaged, |storage, _| {
        let newest = Key::new("keyring/ffffffff").unwrap();
        overwrite(storage, &newest, &get(storage, &key)[..4000]);
        newest.to_string()
    });
    let mut with = |name, rule, change: &dyn Fn(Item) -> Item| {
        cases.add(name, rule, damaged, |storage, repository| {
            let body = Item::decode(&testing::keyring_body(repository).unwrap());
            replace_keyring(storage, repository, &change(body).encode());
            key.to_string()
        });
    };
    let root = |generation: u64| Item::Array(vec![generation.into(), [0x11; 32].into()]);
    with("keyring-zero", "keyring: numbers begin with 1", &|body| body.with(1, 0));
    with("keyring-roots-none", "keyring: at least one root key", &|body| body.with(2, list([])));
    with("keyring-roots-zero", "keyring: generations begin with 1", &|body| body.with(2, list([root(0), root(1)])));
    with("keyring-roots-order", "keyring: generations ascend", &|body| body.with(2, list([root(2), root(1)])));
    with("keyring-roots-twice", "keyring: generations ascend strictly", &|body| body.with(2, list([root(1), root(1)])));
    with("keyring-roots-many", "keyring: at most 1024 root keys", &|body| {
        body.with(2, (1..=1025).map(root).collect::<Vec<Item>>())
    });
    with("keyring-root-short", "keyring: a root key has 32 bytes", &|body| {
        body.with(2, list([Item::Array(vec![1.into(), [0; 31].into()])]))
    });
    with("keyring-root-item", "keyring: a root key has two items", &|body| {
        body.with(2, list([Item::Array(vec![1.into(), [0; 32].into(), 0.into()])]))
    });
    with("keyring-dedup-short", "keyring: the dedup key has 32 bytes", &|body| body.with(3, [0; 31]));
    with("keyring-config", "keyring: it names the config's hash", &|body| body.with(6, [0; 32]));
    with("keyring-unknown-field", "keyring: fields below 128 are known", &|body| body.with(7, 0));
    with("keyring-missing-field", "keyring: no field is missing", &|body| body.without(5));
}
