//! Slots and keyrings together, on a storage.

use bytes::Bytes;

use super::*;
use crate::crypto::{AesGcm, Argon2Parameters};
use crate::entropy::SeededEntropy;
use crate::error::{Error, ErrorKind, Result};
use crate::format::config::Config;
use crate::format::keyring::Keyring;
use crate::format::layout::Place;
use crate::format::slot::{Derivation, Slot};
use crate::id::{RepositoryId, SlotId};
use crate::secret::Password;
use crate::storage::{
    Capabilities, Key, ListPage, MemoryStorage, ObjectInfo, PutMode, Storage, StorageError, list_all,
};

const REPOSITORY: RepositoryId = RepositoryId::new([1; 16]);
const MEMORY: u64 = 1 << 30;

struct Fixture {
    storage: MemoryStorage,
    entropy: SeededEntropy,
    key: KeyringKey,
}

impl Fixture {
    fn new() -> Self {
        Self { storage: MemoryStorage::new(), entropy: SeededEntropy::new(3), key: KeyringKey::from_bytes(&[0x77; 32]) }
    }

    fn create(&self, credential: Credential<'_>, label: &str) -> Result<KeySlot> {
        let parameters = Argon2Parameters::minimum_for_tests();
        let new = NewSlot { credential, label, parameters };
        create_slot(&self.storage, &AesGcm, &self.entropy, REPOSITORY, new, false, &self.key)
    }

    fn open<'a>(&self, credential: impl Into<Credential<'a>>) -> Result<[u8; 32]> {
        open_slots(&self.storage, &AesGcm, REPOSITORY, credential.into(), MEMORY).map(|(_, key)| *key.expose())
    }

    fn open_error<'a>(&self, credential: impl Into<Credential<'a>>) -> ErrorKind {
        self.open(credential).unwrap_err().kind()
    }

    fn put(&self, key: &Key, bytes: &[u8]) {
        self.storage.put(key, Bytes::copy_from_slice(bytes), PutMode::Overwrite).unwrap();
    }

    fn get(&self, key: &Key) -> Vec<u8> {
        self.storage.get(key, 1 << 20).unwrap().to_vec()
    }
}

#[test]
fn passwords_and_recovery_keys_open_their_slots_and_nothing_else_does() {
    let fixture = Fixture::new();
    let (right, wrong) = (Password::from("right"), Password::from("wrong"));
    let recovery = RecoveryKey::generate(&fixture.entropy).unwrap();
    let other_recovery = RecoveryKey::generate(&fixture.entropy).unwrap();
    assert_eq!(fixture.open_error(&right), ErrorKind::Damaged);

    let slot = fixture.create((&right).into(), "laptop").unwrap();
    assert_eq!((slot.kind, slot.label.as_str()), (KeySlotKind::Password, "laptop"));
    assert_eq!(slot.argon2, Some(Argon2Parameters::minimum_for_tests()));
    assert_eq!(fixture.open(&right).unwrap(), [0x77; 32]);
    assert_eq!(fixture.open_error(&wrong), ErrorKind::WrongPassword);
    assert_eq!(fixture.open_error(&recovery), ErrorKind::WrongPassword);

    let slot = fixture.create((&recovery).into(), "safe").unwrap();
    assert_eq!((slot.kind, slot.argon2), (KeySlotKind::RecoveryKey, None));
    assert_eq!(fixture.open(&recovery).unwrap(), [0x77; 32]);
    assert_eq!(fixture.open_error(&other_recovery), ErrorKind::WrongPassword);
    assert_eq!(fixture.open(&right).unwrap(), [0x77; 32]);

    let (slots, damaged) = list_slots(&fixture.storage, REPOSITORY).unwrap();
    assert_eq!((slots.len(), damaged.len()), (2, 0));
}

#[test]
fn a_key_file_is_needed_where_the_slot_was_made_with_one() {
    let fixture = Fixture::new();
    let password = Password::from("right");
    let with = |file| Credential::Password { password: &password, key_file: Some(file) };
    fixture.create(with(b"file"), "").unwrap();
    assert_eq!(fixture.open(with(b"file")).unwrap(), [0x77; 32]);
    assert_eq!(fixture.open_error(with(b"fila")), ErrorKind::WrongPassword);
    assert_eq!(fixture.open_error(&password), ErrorKind::WrongPassword);
    assert_eq!(fixture.open_error(with(b"")), ErrorKind::InvalidArgument);
    assert_eq!(fixture.open_error(&Password::from("")), ErrorKind::InvalidArgument);
}

#[test]
fn a_password_is_changed_by_a_new_slot_and_the_last_slot_stays() {
    let fixture = Fixture::new();
    let (old, new) = (Password::from("old"), Password::from("new"));
    let first = fixture.create((&old).into(), "").unwrap();
    assert_eq!(remove_slot(&fixture.storage, REPOSITORY, first.id).unwrap_err().kind(), ErrorKind::Conflict);
    let second = fixture.create((&new).into(), "").unwrap();
    remove_slot(&fixture.storage, REPOSITORY, first.id).unwrap();
    assert_eq!(fixture.open_error(&old), ErrorKind::WrongPassword);
    assert_eq!(fixture.open(&new).unwrap(), [0x77; 32]);
    assert_eq!(remove_slot(&fixture.storage, REPOSITORY, first.id).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(remove_slot(&fixture.storage, REPOSITORY, second.id).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(list_slots(&fixture.storage, REPOSITORY).unwrap().0, [second]);
}

#[test]
fn a_damaged_slot_does_not_count_as_one_that_is_left() {
    let fixture = Fixture::new();
    let good = fixture.create((&Password::from("x")).into(), "").unwrap();
    let bad = SlotId::new([0; 16]);
    fixture.put(&Place::Slot(bad).key(), b"rubbish");
    assert_eq!(remove_slot(&fixture.storage, REPOSITORY, good.id).unwrap_err().kind(), ErrorKind::Conflict);
    remove_slot(&fixture.storage, REPOSITORY, bad).unwrap();
}

/// A storage at which something happens directly before the first deletion.
struct Interrupted<'a> {
    storage: &'a MemoryStorage,
    before_delete: std::sync::Mutex<Option<Box<dyn FnOnce() + Send + 'a>>>,
}

impl Storage for Interrupted<'_> {
    fn put(&self, key: &Key, bytes: Bytes, mode: PutMode) -> Result<(), StorageError> {
        self.storage.put(key, bytes, mode)
    }
    fn get(&self, key: &Key, limit: u64) -> Result<Bytes, StorageError> {
        self.storage.get(key, limit)
    }
    fn get_range(&self, key: &Key, range: std::ops::Range<u64>) -> Result<Bytes, StorageError> {
        self.storage.get_range(key, range)
    }
    fn stat(&self, key: &Key) -> Result<ObjectInfo, StorageError> {
        self.storage.stat(key)
    }
    fn list(&self, prefix: &str, after: Option<&Key>) -> Result<ListPage, StorageError> {
        self.storage.list(prefix, after)
    }
    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        let event = self.before_delete.lock().unwrap().take();
        event.into_iter().for_each(|event| event());
        self.storage.delete(key)
    }
    fn capabilities(&self) -> Capabilities {
        self.storage.capabilities()
    }
}

#[test]
fn two_who_remove_at_once_leave_a_slot() {
    let fixture = Fixture::new();
    let (one, two) = (Password::from("one"), Password::from("two"));
    let first = fixture.create((&one).into(), "").unwrap();
    let second = fixture.create((&two).into(), "").unwrap();
    let other = || remove_slot(&fixture.storage, REPOSITORY, second.id).unwrap();
    let storage =
        Interrupted { storage: &fixture.storage, before_delete: std::sync::Mutex::new(Some(Box::new(other))) };
    let error = remove_slot(&storage, REPOSITORY, first.id).unwrap_err();
    assert!(matches!(error, Error::Conflict { .. }) && !error.is_transient(), "{error}");
    assert_eq!(fixture.open(&one).unwrap(), [0x77; 32], "it is put back");
    assert_eq!(fixture.open_error(&two), ErrorKind::WrongPassword);
}

#[test]
fn every_flipped_bit_of_a_slot_keeps_it_closed() {
    let fixture = Fixture::new();
    // A recovery key costs nothing, so that every bit can be tried.
    let recovery = RecoveryKey::generate(&fixture.entropy).unwrap();
    let key = Place::Slot(fixture.create((&recovery).into(), "label").unwrap().id).key();
    let bytes = fixture.get(&key);
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        fixture.put(&key, &changed);
        assert!(fixture.open(&recovery).is_err(), "bit {bit}");
    }
    // A slot of another id or repository, copied to this place.
    for offset in [16, 32] {
        let mut moved = bytes.clone();
        moved[offset] ^= 1;
        fixture.put(&key, &moved);
        assert_eq!(fixture.open_error(&recovery), ErrorKind::Damaged);
    }
    for length in [0, 255, 257, 5000] {
        let mut other = bytes.clone();
        other.resize(length, 0);
        fixture.put(&key, &other);
        assert_eq!(fixture.open_error(&recovery), ErrorKind::Damaged, "{length}");
    }
    fixture.put(&key, &bytes);
    assert_eq!(fixture.open(&recovery).unwrap(), [0x77; 32]);
}

fn hostile(id: u8, memory_kib: u32, iterations: u32, parallelism: u32) -> (Key, [u8; 256]) {
    let id = SlotId::new([id; 16]);
    let slot = Slot {
        repository: REPOSITORY,
        id,
        derivation: Derivation::Argon2id { memory_kib, iterations, parallelism, salt: [0; 32] },
        label: String::new(),
        commitment: [0; 32],
        wrapped: [0; 48],
    };
    (Place::Slot(id).key(), slot.encode().unwrap())
}

#[test]
fn hostile_parameters_are_refused_without_being_paid() {
    let password = Password::from("right");
    for (memory_kib, iterations, parallelism) in [
        (u32::MAX, 1, 1),
        ((1 << 20) + 1, 1, 1),
        (1 << 20, 5, 1),
        (8, u32::MAX, 1),
        (8, 17, 1),
        (8, 1, u32::MAX),
        (1 << 10, 1, 17),
        (u32::MAX, u32::MAX, u32::MAX),
    ] {
        let fixture = Fixture::new();
        let (key, bytes) = hostile(0, memory_kib, iterations, parallelism);
        fixture.put(&key, &bytes);
        assert_eq!(fixture.open_error(&password), ErrorKind::LimitExceeded, "{memory_kib} {iterations} {parallelism}");
        // It does not keep an honest slot from opening.
        fixture.create((&password).into(), "").unwrap();
        assert_eq!(fixture.open(&password).unwrap(), [0x77; 32]);
        assert_eq!(fixture.open_error(&Password::from("wrong")), ErrorKind::LimitExceeded);
    }
    // Parameters that Argon2 does not have.
    for (memory_kib, iterations, parallelism) in [(0, 0, 0), (8, 0, 1), (8, 1, 0), (7, 1, 1), (8, 1, 16)] {
        let fixture = Fixture::new();
        let (key, bytes) = hostile(0, memory_kib, iterations, parallelism);
        fixture.put(&key, &bytes);
        assert!(fixture.open(&password).is_err());
        fixture.create((&password).into(), "").unwrap();
        assert_eq!(fixture.open(&password).unwrap(), [0x77; 32]);
    }
    // The caller's own limit.
    let fixture = Fixture::new();
    fixture.create((&password).into(), "").unwrap();
    let open = |limit| open_slots(&fixture.storage, &AesGcm, REPOSITORY, (&password).into(), limit).map(drop);
    open(8 << 20).unwrap();
    assert_eq!(open((8 << 20) - 1).unwrap_err().kind(), ErrorKind::LimitExceeded);
}

#[test]
fn slots_that_cannot_be_used_do_not_hide_the_one_that_can() {
    let fixture = Fixture::new();
    let password = Password::from("right");
    // Sorted before and behind every other slot.
    fixture.put(&Place::Slot(SlotId::new([0; 16])).key(), b"rubbish");
    fixture.put(&Place::Slot(SlotId::new([0xff; 16])).key(), b"rubbish");
    fixture.put(&Key::new("keys/readme").unwrap(), b"no slot at all");
    assert_eq!(fixture.open_error(&password), ErrorKind::Damaged);
    fixture.create((&password).into(), "").unwrap();
    assert_eq!(fixture.open(&password).unwrap(), [0x77; 32]);
    assert_eq!(fixture.open_error(&Password::from("wrong")), ErrorKind::WrongPassword);
    let (slots, damaged) = list_slots(&fixture.storage, REPOSITORY).unwrap();
    assert_eq!((slots.len(), damaged.len()), (1, 2));
}

#[test]
fn there_are_no_more_slots_than_opening_tries() {
    let fixture = Fixture::new();
    let keys: Vec<_> = (0..8).map(|_| RecoveryKey::generate(&fixture.entropy).unwrap()).collect();
    for key in &keys {
        fixture.create(key.into(), "").unwrap();
    }
    for key in &keys {
        fixture.open(key).unwrap();
    }
    assert_eq!(fixture.create((&keys[0]).into(), "").unwrap_err().kind(), ErrorKind::LimitExceeded);
    // A flood of cheap slots is not tried to its end.
    for id in 0..60 {
        let (key, bytes) = hostile(id, 8, 1, 1);
        fixture.put(&key, &bytes);
    }
    assert_eq!(fixture.open_error(&Password::from("wrong")), ErrorKind::WrongPassword);
}

#[test]
fn unusable_slots_are_not_made() {
    let fixture = Fixture::new();
    let password = Password::from("x");
    let empty = Password::from("");
    assert_eq!(fixture.create((&empty).into(), "").unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(fixture.create((&password).into(), &"x".repeat(64)).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(fixture.create((&password).into(), "a\nb").unwrap_err().kind(), ErrorKind::InvalidArgument);
    for (memory_kib, iterations, parallelism, kind) in [
        (1024, 1, 1, ErrorKind::InvalidArgument),
        (64 << 10, 0, 1, ErrorKind::InvalidArgument),
        (64 << 10, 17, 1, ErrorKind::LimitExceeded),
        (u32::MAX, 1, 1, ErrorKind::LimitExceeded),
    ] {
        let parameters = Argon2Parameters { memory_kib, iterations, parallelism };
        let new = NewSlot { credential: (&password).into(), label: "", parameters };
        let slot = create_slot(&fixture.storage, &AesGcm, &fixture.entropy, REPOSITORY, new, false, &fixture.key);
        assert_eq!(slot.unwrap_err().kind(), kind);
    }
    assert!(list_all(&fixture.storage, "").unwrap().is_empty());
}

fn keyring_of(fixture: &Fixture) -> (Keyring, Vec<u8>) {
    create_keyring(&fixture.entropy, |writer, maintenance| {
        Config::new(REPOSITORY, *writer.as_bytes(), *maintenance.as_bytes()).encode()
    })
    .unwrap()
}

fn write_as(fixture: &Fixture, repository: RepositoryId, keyring: &mut Keyring) -> Result<()> {
    let sealed = seal_keyring(&AesGcm, &fixture.entropy, repository, &fixture.key, keyring)?;
    write_keyring(&fixture.storage, &AesGcm, &fixture.entropy, repository, &fixture.key, keyring, sealed)
}

fn write(fixture: &Fixture, keyring: &mut Keyring) -> Result<()> {
    write_as(fixture, REPOSITORY, keyring)
}

fn read(fixture: &Fixture, config: &[u8]) -> Result<Keyring> {
    read_newest_keyring(&fixture.storage, &AesGcm, REPOSITORY, &fixture.key, config)
}

#[test]
fn the_newest_keyring_is_read_and_keeps_the_old_keys() {
    let fixture = Fixture::new();
    let (mut first, config) = keyring_of(&fixture);
    assert_eq!(read(&fixture, &config).unwrap_err().kind(), ErrorKind::Damaged);
    write(&fixture, &mut first).unwrap();
    assert_eq!(read(&fixture, &config).unwrap().encode().unwrap(), first.encode().unwrap());
    let decoded = Config::decode(&config).unwrap();
    assert_eq!(&decoded.writer_key, first.writer_key().verifying_key().as_bytes());
    assert_eq!(&decoded.maintenance_key, first.maintenance_key().verifying_key().as_bytes());

    let mut second = with_new_root(&first, &fixture.entropy).unwrap();
    write(&fixture, &mut second).unwrap();
    assert!(write(&fixture, &mut second).is_err_and(|error| error.is_transient()));
    let found = read(&fixture, &config).unwrap();
    assert_eq!(found.number, 2);
    assert!(found.generations.iter().map(|(generation, _)| *generation).eq([1, 2]));
    assert_eq!(found.generations[0].1.expose(), first.generations[0].1.expose());
    assert_ne!(found.generations[1].1.expose(), first.generations[0].1.expose());
    assert_eq!(found.dedup.expose(), first.dedup.expose());
}

#[test]
fn keyrings_are_bound_to_number_config_and_key() {
    let fixture = Fixture::new();
    let (mut keyring, config) = keyring_of(&fixture);
    write(&fixture, &mut keyring).unwrap();
    let bytes = fixture.get(&Place::Keyring(1).key());
    assert_eq!(
        read(&fixture, b"another config").unwrap_err().to_string(),
        "damaged config config: is not the one that the keyring was made for"
    );
    let other = KeyringKey::from_bytes(&[0x78; 32]);
    assert!(read_newest_keyring(&fixture.storage, &AesGcm, REPOSITORY, &other, &config).is_err());
    assert!(read_newest_keyring(&fixture.storage, &AesGcm, RepositoryId::new([2; 16]), &fixture.key, &config).is_err());
    // An old keyring under a new number; a damaged newest one.
    for content in [&bytes[..], &bytes[..200], b""] {
        fixture.put(&Place::Keyring(2).key(), content);
        assert_eq!(read(&fixture, &config).unwrap_err().kind(), ErrorKind::Damaged);
    }
    fixture.put(&Place::Keyring(2).key(), &vec![0; 100_000]);
    assert_eq!(read(&fixture, &config).unwrap_err().kind(), ErrorKind::LimitExceeded);
    fixture.storage.delete(&Place::Keyring(2).key()).unwrap();
    for bit in 0..1024 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        fixture.put(&Place::Keyring(1).key(), &changed);
        assert!(read(&fixture, &config).is_err(), "{bit}");
    }
}

#[test]
fn keyrings_of_other_repositories_are_passed_over() {
    let fixture = Fixture::new();
    let other = RepositoryId::new([0xf0; 16]);
    let (mut stranger, _) = keyring_of(&fixture);
    write_as(&fixture, other, &mut stranger).unwrap();
    let (mut keyring, config) = keyring_of(&fixture);
    assert_eq!(read(&fixture, &config).unwrap_err().kind(), ErrorKind::Damaged);
    write(&fixture, &mut keyring).unwrap();
    assert_eq!(keyring.number, 2);
    stranger.number = 3;
    write_as(&fixture, other, &mut stranger).unwrap();
    assert_eq!(read(&fixture, &config).unwrap().number, 2);
    let mut next = with_new_root(&keyring, &fixture.entropy).unwrap();
    write(&fixture, &mut next).unwrap();
    assert_eq!(read(&fixture, &config).unwrap().number, 4);
    assert!(newest_keyring(&fixture.storage, REPOSITORY).unwrap().foreign.is_empty());
    // One of which few bits say that it is another's is ours, and damaged: an older one lacks keys.
    let mut damaged = fixture.get(&Place::Keyring(4).key());
    damaged[16] ^= 0xff;
    damaged[31] ^= 0xff;
    fixture.put(&Place::Keyring(6).key(), &damaged);
    assert_eq!(read(&fixture, &config).unwrap_err().kind(), ErrorKind::Damaged);
    fixture.storage.delete(&Place::Keyring(6).key()).unwrap();
    // Nor is one passed over that is damaged elsewhere.
    let mut damaged = fixture.get(&Place::Keyring(3).key());
    damaged[0] ^= 1;
    fixture.put(&Place::Keyring(5).key(), &damaged);
    assert_eq!(read(&fixture, &config).unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn public_information_is_data() {
    let fixture = Fixture::new();
    let slot = fixture.create((&Password::from("x")).into(), "büro").unwrap();
    let json = serde_json::to_value(&slot).unwrap();
    assert_eq!(json["kind"], "password");
    assert_eq!(json["label"], "büro");
    assert_eq!(json["argon2"]["memory_kib"], 8192);
}
