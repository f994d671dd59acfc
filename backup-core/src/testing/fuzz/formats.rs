//! Plain and structured objects.

use bytes::Bytes;

use super::{Item, assert_blames_bytes, judged, without_ignorable};
use crate::crypto::{AesGcm, SigningKey, VerifyingKey, hash};
use crate::entropy::SeededEntropy;
use crate::error::{Error, ErrorKind};
use crate::format::cbor::{self, Value};
use crate::format::config::{Config, Padding};
use crate::format::keyring::Keyring;
use crate::format::layout::Place;
use crate::format::slot::{Derivation, Slot};
use crate::id::{BackupId, RepositoryId, SessionId, SlotId};
use crate::keys::{Credential, KeyringKey, RecoveryKey, open_slots, read_newest_keyring, wrap};
use crate::object::{ObjectType, Sealer};
use crate::session::{
    BackupBody, Closure, CollectionOutcome, Outcome, read_forget, read_mark, read_outcome, records, seal_record,
};
use crate::storage::{MemoryStorage, PutMode, Storage};

const REPOSITORY: RepositoryId = RepositoryId::new([0x11; 16]);

/// Structured bodies: two decoders agree on every document, through validation and through the readers, and what they
/// accept has no other encoding.
pub fn cbor(bytes: &[u8]) {
    let reference = Item::decode(bytes);
    match (cbor::decode(bytes, "document", &"fuzz"), reference) {
        (Err(error), reference) => {
            assert_blames_bytes(&error);
            assert_eq!(reference, None, "refused: {error}");
        }
        (Ok(_), None) => panic!("accepted by the first decoder only"),
        (Ok(value), Some(reference)) => {
            assert_eq!(item_of(value, &reference), reference);
            assert_eq!(reference.encode(), bytes);
        }
    }
}

/// Whether bytes are a structured body.
#[must_use]
pub fn is_structured(bytes: &[u8]) -> bool {
    cbor::validate(bytes).is_ok()
}

/// The item, through the readers that everything else uses. Only the keys of maps are taken from the reference.
fn item_of(value: Value<'_>, reference: &Item) -> Item {
    if let Ok(number) = value.u64() {
        // Narrower readers take exactly what fits.
        assert_eq!(value.u32().ok(), u32::try_from(number).ok());
        assert_eq!(value.u8().ok(), u8::try_from(number).ok());
        assert_eq!(value.i64().ok(), i64::try_from(number).ok());
        Item::Unsigned(number)
    } else if let Ok(number) = value.i64() {
        Item::Negative(u64::try_from(-1 - i128::from(number)).expect("a number that u64 refused is negative"))
    } else if let Ok(value) = value.bool() {
        Item::Bool(value)
    } else if let Ok(bytes) = value.bytes() {
        assert_eq!(value.fixed::<32>().is_ok(), bytes.len() == 32);
        Item::Bytes(bytes.to_vec())
    } else if let Ok(text) = value.text() {
        Item::Text(text.to_owned())
    } else if let Ok(array) = value.array() {
        let Item::Array(reference) = reference else { panic!("an array to the first decoder only") };
        assert_eq!(u64::try_from(reference.len()), Ok(array.remaining()));
        let items = array.zip(reference).map(|(value, reference)| item_of(value, reference));
        Item::Array(items.collect())
    } else {
        let Item::Map(reference) = reference else { panic!("a map to the first decoder only") };
        let map = value.map().expect("an item of no kind");
        let mut reader = map.clone();
        let fields = reference
            .iter()
            .map(|(key, reference)| (*key, item_of(reader.required(*key).expect("a field is missing"), reference)))
            .collect();
        assert!(reader.finish().is_ok());
        // Whoever reads none of the fields must be told of those that have to be understood.
        assert_eq!(map.finish().is_ok(), reference.iter().all(|(key, _)| *key >= 128));
        Item::Map(fields)
    }
}

/// The object `config`.
pub fn config(bytes: &[u8]) {
    let Some(config) = judged(Config::decode(bytes)) else { return };
    let again = config.encode().expect("what was read can be written");
    assert_eq!(again, without_ignorable(bytes));
    assert_eq!(Config::decode(&again).expect("what was written can be read"), config);
    if let Err(error) = config.access() {
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
    for key in [config.writer_key, config.maintenance_key] {
        if let Ok(usable) = VerifyingKey::from_bytes(&key) {
            assert_eq!(*usable.as_bytes(), key);
        }
    }
}

/// A key slot, and opening it with a recovery key: only the one genuine slot opens.
pub fn key_slot(bytes: &[u8]) {
    let recovery = RecoveryKey::generate(&SeededEntropy::new(1)).expect("entropy does not fail");
    if let Some(slot) = judged(Slot::decode(bytes, "keys/fuzz")) {
        assert_eq!(slot.encode().expect("what was read can be written"), bytes);
    }
    let id = SlotId::new([0x22; 16]);
    let storage = MemoryStorage::new();
    storage.put(&Place::Slot(id).key(), Bytes::copy_from_slice(bytes), PutMode::Create).expect("an empty storage");
    // No memory is allowed, so that no password is derived for a slot that says it needs one.
    match open_slots(&storage, &AesGcm, REPOSITORY, Credential::RecoveryKey(&recovery), 0) {
        Ok((opened, key)) => {
            assert_eq!((opened, key.expose()), (id, &[0x33; 32]));
            assert_eq!(bytes, genuine_slot(id, &recovery), "a forged slot opens");
        }
        Err(Error::WrongPassword) => {}
        Err(error) => assert_blames_bytes(&error),
    }
}

/// The slot that [`key_slot`] opens.
fn genuine_slot(id: SlotId, recovery: &RecoveryKey) -> [u8; 256] {
    let label = "genuine".to_owned();
    let derivation = Derivation::Raw;
    let slot = Slot { repository: REPOSITORY, id, derivation, label, commitment: [0; 32], wrapped: [0; 48] };
    let slot = wrap(slot, Credential::RecoveryKey(recovery), &AesGcm, &KeyringKey::from_bytes(&[0x33; 32]));
    slot.and_then(|slot| slot.encode()).expect("a slot can be made")
}

/// The body of a keyring, and a keyring object that holds it, sealed by somebody who has the keyring key.
pub fn keyring(body: &[u8]) {
    let decoded = judged(Keyring::decode(body, "keyring/fuzz"));
    if let Some(keyring) = &decoded {
        let again = keyring.encode().expect("what was read can be written");
        assert_eq!(*again, without_ignorable(body));
    }
    let key = KeyringKey::from_bytes(&[0x44; 32]);
    let sealer = Sealer {
        provider: &AesGcm,
        entropy: &SeededEntropy::new(2),
        repository: REPOSITORY,
        kind: ObjectType::Keyring,
        generation: 0,
        session: SessionId::new([0; 16]),
        key: key.expose(),
        hedge: &[0x55; 32],
        padding: Padding::Frames,
    };
    // Larger than the format allows.
    let Some(sealed) = judged(sealer.seal(&[body])) else { return };
    let storage = MemoryStorage::new();
    storage.put(&Place::Keyring(1).key(), sealed.bytes, PutMode::Create).expect("an empty storage");
    let config = b"config";
    let read = judged(read_newest_keyring(&storage, &AesGcm, REPOSITORY, &key, config));
    let fits = |keyring: &Keyring| keyring.number == 1 && keyring.config_hash == hash::digest(config);
    assert_eq!(read.is_some(), decoded.as_ref().is_some_and(fits));
}

/// A closure.
pub fn closure(bytes: &[u8]) {
    let Some(closure) = judged(Closure::decode(bytes, "closures/fuzz")) else { return };
    assert_eq!(closure.encode().expect("what was read can be written"), bytes);
    assert!(closure.bytes() >= closure.packs.values().copied().max().unwrap_or_default());
}

/// The body of a backup.
pub fn backup_body(bytes: &[u8]) {
    let Some(body) = judged(BackupBody::decode(bytes, "bodies/fuzz")) else { return };
    let again = body.encode().expect("what was read can be written");
    assert_eq!(BackupBody::decode(&again, "bodies/fuzz").expect("what was written can be read"), body);
    // Labels that are not in the order of writers are read as well, the last of a name counts; so there is more than
    // one text for them.
    if has_labels_in_order(bytes) {
        assert_eq!(again, without_ignorable(bytes));
    }
}

fn has_labels_in_order(body: &[u8]) -> bool {
    let Some(Item::Map(fields)) = Item::decode(body) else { return false };
    let labels = fields.into_iter().find_map(|(key, item)| match item {
        Item::Array(labels) if key == 4 => Some(labels),
        _ => None,
    });
    let name = |label: &Item| match label {
        Item::Array(pair) => pair.first().cloned(),
        _ => None,
    };
    let names: Vec<_> = labels.unwrap_or_default().iter().map(name).collect();
    names.is_sorted_by(|one, two| matches!((one, two), (Some(Item::Text(one)), Some(Item::Text(two))) if one < two))
}

/// Records whose signature is valid, with any payload, for all places where records stand; and the bytes as a record
/// themselves. The first byte chooses the label.
pub fn record(bytes: &[u8]) {
    let Some((selector, payload)) = bytes.split_first() else { return };
    let writer = SigningKey::from_seed(&[0x66; 32]);
    let maintenance = SigningKey::from_seed(&[0x77; 32]);
    let labels = [
        ("backup/v1/commit", &writer),
        ("backup/v1/revoke", &maintenance),
        ("backup/v1/forget", &maintenance),
        ("backup/v1/collection-mark", &maintenance),
        ("backup/v1/collection-final", &maintenance),
        ("backup/v1/collection-abort", &maintenance),
        // Right labels under the wrong key.
        ("backup/v1/commit", &maintenance),
        ("backup/v1/forget", &writer),
        ("backup/v1/collection-final", &writer),
    ];
    let (label, key) = labels[usize::from(*selector) % labels.len()];
    let signed = seal_record(label, payload, key).expect("a payload can be signed");
    let genuine = usize::from(*selector) % labels.len() < 6;
    let keys = (&writer, &maintenance);
    let read = read_everywhere(&signed, keys);
    assert!(genuine || read.is_none(), "a record under another key is accepted");
    // What was read says all that the record says: written again it is the same, up to fields to ignore.
    if let Some((label_read, written)) = read {
        assert_eq!(label_read, label);
        if without_ignorable(payload) == payload {
            assert_eq!(written, signed);
        }
    }
    // Without the keys nobody can make another record. (Those of the corpus are made with them.)
    read_everywhere(payload, keys);
}

/// Reads a record at every place where one may stand. The label that is accepted and the record made anew from what
/// was read.
fn read_everywhere(bytes: &[u8], (writer, maintenance): (&SigningKey, &SigningKey)) -> Option<(&'static str, Vec<u8>)> {
    const NUMBER: u32 = 7;
    const BACKUP: BackupId = BackupId::new([0x88; 32]);
    let public = maintenance.verifying_key();
    let mut found = Vec::new();
    match judged(Outcome::open(bytes, &writer.verifying_key(), &public, REPOSITORY, "sessions/fuzz")) {
        Some(Outcome::Committed(commit)) => {
            // Writers name at most 256 heads; what names more is read but cannot be written.
            let again = if commit.content.heads.len() > 256 { Ok(bytes.to_vec()) } else { commit.content.seal(writer) };
            match again {
                Ok(again) => found.push(("backup/v1/commit", again)),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
                    found.push(("backup/v1/commit", bytes.to_vec()));
                }
            }
        }
        Some(Outcome::Revoked(session)) => {
            found.push(("backup/v1/revoke", records::revoke(maintenance, REPOSITORY, session)));
        }
        None => {}
    }
    if judged(read_forget(bytes, &public, REPOSITORY, &BACKUP, "forgets/fuzz")).is_some() {
        found.push(("backup/v1/forget", records::forget(maintenance, REPOSITORY, BACKUP)));
    }
    if let Some(condemned) = judged(read_mark(bytes, &public, REPOSITORY, NUMBER, "collections/fuzz/mark")) {
        let names: Vec<_> = condemned.into_iter().collect();
        found.push(("backup/v1/collection-mark", records::mark(maintenance, REPOSITORY, NUMBER, &names)));
    }
    match judged(read_outcome(bytes, &public, REPOSITORY, NUMBER, "collections/fuzz/outcome")) {
        Some(CollectionOutcome::Final(read)) => {
            let names: Vec<_> = read.condemned.into_iter().collect();
            let again = records::finale(maintenance, REPOSITORY, NUMBER, &names, &read.checkpoint, &read.indexes);
            found.push(("backup/v1/collection-final", again));
        }
        Some(CollectionOutcome::Aborted) => {
            found.push(("backup/v1/collection-abort", records::abort(maintenance, REPOSITORY, NUMBER)));
        }
        None => {}
    }
    assert!(found.len() <= 1, "a record is accepted as several: {:?}", found.iter().map(|(label, _)| label));
    found.pop()
}
