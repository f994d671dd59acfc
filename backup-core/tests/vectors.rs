//! The published vectors of `tests/vectors` are what this program writes, byte for byte.
//!
//! `BACKUP_VECTORS=write cargo test -p backup-core --test vectors` writes them anew, which is right
//! only together with a change of the format. `tests/vectors/check.py` confirms them with other
//! implementations of the primitives.
#![expect(
    clippy::disallowed_methods,
    reason = "the rule that the core reads no files and no environment is not for its tests"
)]

use std::path::Path;

use backup_core::crypto::{AeadProvider, AesGcm, Argon2Parameters};
use backup_core::entropy::{Entropy, EntropyError};
use backup_core::id::{Digest, RepositoryId, SessionId, SlotId};
use backup_core::keys::{Credential, RecoveryKey};
use backup_core::secret::Password;
use backup_core::testing;
use serde_json::{Value, json};

const REPOSITORY: [u8; 16] = *b"repository 0001.";
const SESSION: [u8; 16] = *b"a session's id..";

/// Says the same at every call.
struct Fixed(u8);

impl Entropy for Fixed {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), EntropyError> {
        buffer.fill(self.0);
        Ok(())
    }
}

/// Thirty-two bytes that differ, beginning with `first`.
fn secret(first: u8) -> [u8; 32] {
    std::array::from_fn(|position| first.wrapping_add(position as u8))
}

/// A body that is described by its length.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|position| (position * 7 + position / 251 + 1) as u8).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn compare(file: &str, vectors: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(file);
    let text = serde_json::to_string_pretty(vectors).unwrap() + "\n";
    if std::env::var_os("BACKUP_VECTORS").is_some_and(|value| value == "write") {
        std::fs::write(&path, &text).unwrap();
    }
    let published = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(published == text.as_bytes(), "{file} differs from what this program writes:\n{text:.2000}");
}

#[test]
fn keys() {
    let vectors: Vec<_> = [(1, 0x10, 0x80), (0x0102_0304, 0x20, 0x90)]
        .into_iter()
        .map(|(generation, root, dedup)| {
            let keys = testing::derived_keys(RepositoryId::new(REPOSITORY), generation, &secret(root), &secret(dedup));
            json!({
                "repository": hex(&REPOSITORY),
                "generation": generation,
                "root_key": hex(&secret(root)),
                "dedup_key": hex(&secret(dedup)),
                "derived": keys.unwrap().iter().map(|(name, key)| (*name, hex(key))).collect::<std::collections::BTreeMap<_, _>>(),
            })
        })
        .collect();
    compare("keys.json", &json!(vectors));
}

fn objects(provider: &dyn AeadProvider) -> Value {
    let cases = [
        ("empty body", 5, 1, 0, true),
        ("one frame of 4 KiB", 2, 1, 100, true),
        ("one frame, exactly full", 3, 1, 4088, true),
        ("two frames of 4 KiB", 4, 0, 4089, false),
        ("keyring", 1, 0, 300, false),
        ("last with small frames", 2, 7, 65_528, true),
        ("first with frames of 64 KiB", 2, 7, 65_529, true),
        ("three frames of 64 KiB", 3, 1, 140_000, true),
        ("Padmé beyond a frame boundary", 2, 1, 1_050_000, true),
    ];
    let vectors = cases.iter().map(|(name, kind, generation, length, padme)| {
        let vector = testing::ObjectVector {
            kind: *kind,
            repository: RepositoryId::new(REPOSITORY),
            generation: *generation,
            session: SessionId::new(if *kind == 1 { [0; 16] } else { SESSION }),
            key: &secret(0x30),
            hedge: &secret(0x50),
            padme: *padme,
        };
        let (object_name, object) = vector.seal(provider, &Fixed(0xe7), &pattern(*length)).unwrap();
        json!({
            "case": name,
            "type": kind,
            "repository": hex(&REPOSITORY),
            "generation": generation,
            "session": hex(vector.session.as_bytes()),
            "type_key": hex(vector.key),
            "hedge_key": hex(vector.hedge),
            "random": hex(&[0xe7; 32]),
            "padding": if *padme { "padme" } else { "frames" },
            "body_length": length,
            "size": object.len(),
            "name": object_name.to_string(),
            "header": hex(&object[..128]),
            // Larger objects are given by their name.
            "object": (object.len() < 5000).then(|| hex(&object)),
        })
    });
    json!(vectors.collect::<Vec<_>>())
}

#[test]
fn sealed_objects() {
    compare("objects.json", &objects(&AesGcm));
}

#[cfg(feature = "aws-lc-rs")]
#[test]
fn sealed_objects_of_the_other_provider() {
    assert!(objects(&backup_core::crypto::AwsLcRs) == objects(&AesGcm), "providers differ");
}

#[test]
fn slots() {
    let parameters = Argon2Parameters::minimum_for_tests();
    let recovery = RecoveryKey::generate(&Fixed(0x42)).unwrap();
    let key_file: &[u8] = b"content of a key file\n";
    let cases = [
        ("password", Some("correct horse battery staple"), None),
        ("password and key file", Some("correct horse battery staple"), Some(key_file)),
        ("composed password", Some("caf\u{e9} \u{212b}"), None),
        ("decomposed password", Some("cafe\u{301} A\u{30a}"), None),
        ("recovery key", None, None),
    ];
    let vectors = cases.iter().zip(1u8..).map(|((name, password, key_file), number)| {
        let typed = password.map(Password::from);
        let credential = match &typed {
            Some(password) => Credential::Password { password, key_file: *key_file },
            None => Credential::RecoveryKey(&recovery),
        };
        let id = SlotId::new([number; 16]);
        let salt = secret(0x60);
        let repository = RepositoryId::new(REPOSITORY);
        let slot = testing::slot(repository, id, credential, parameters, salt, "büro", &secret(0x70)).unwrap();
        json!({
            "case": name,
            "repository": hex(&REPOSITORY),
            "slot_id": id.to_string(),
            "label": "büro",
            "keyring_key": hex(&secret(0x70)),
            "password": password,
            "key_file": key_file.map(hex),
            "argon2": password.map(|_| parameters),
            "salt": password.map(|_| hex(&salt)),
            "recovery_key": password.is_none().then(|| hex(&[0x42; 32])),
            "recovery_text": password.is_none().then(|| recovery.to_text().unwrap().to_string()),
            "slot": hex(&slot),
        })
    });
    compare("slots.json", &json!(vectors.collect::<Vec<_>>()));
}

#[test]
fn records() {
    let repository = RepositoryId::new(REPOSITORY);
    let (writer, maintenance) = (secret(0xa0), secret(0xb0));
    let (writer_key, signature) = testing::signature(&writer, "backup/v1/test", &pattern(1000));
    let (maintenance_key, _) = testing::signature(&maintenance, "backup/v1/test", b"");
    let config = testing::config(repository, writer_key, maintenance_key).unwrap();
    let config_hash = Digest::new(*blake3::hash(&config).as_bytes());
    let roots = [(1, secret(0x10)), (2, secret(0x18))];
    let (body, object) = testing::keyring(
        &Fixed(0xe7),
        repository,
        &secret(0x70),
        2,
        &roots,
        [&secret(0x80), &writer, &maintenance],
        config_hash,
    )
    .unwrap();
    compare(
        "records.json",
        &json!({
            "repository": hex(&REPOSITORY),
            "signature": {
                "seed": hex(&writer),
                "verifying_key": hex(&writer_key),
                "label": "backup/v1/test",
                "message_length": 1000,
                "signature": hex(&signature),
            },
            "config": { "bytes": hex(&config), "blake3": config_hash.to_string() },
            "keyring": {
                "keyring_key": hex(&secret(0x70)),
                "number": 2,
                "root_keys": roots.iter().map(|(generation, root)| json!([generation, hex(root)])).collect::<Vec<_>>(),
                "dedup_key": hex(&secret(0x80)),
                "writer_seed": hex(&writer),
                "maintenance_seed": hex(&maintenance),
                "random": hex(&[0xe7; 32]),
                "body": hex(&body),
                "object": hex(&object),
            },
        }),
    );
}
