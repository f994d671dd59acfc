//! What the tests of the engine share: environments, data, trees in memory.
#![allow(dead_code, unreachable_pub, reason = "every test program uses a part of it")]

pub mod cbor;
pub mod faults;
pub mod file;
pub mod forger;
pub mod hooked;
pub mod mutation;
pub mod tree;
pub mod vectors;

use std::sync::Arc;

use backup_core::Error;
use backup_core::content::EntryPath;
use backup_core::crypto::Argon2Parameters;
use backup_core::entropy::SeededEntropy;
use backup_core::keys::Credential;
use backup_core::repository::{
    BackupKind, BackupOptions, ChunkingParameters, Control, Environment, InitOptions, Repository, VerifyLevel,
    VerifyOptions, VerifyReport,
};
use backup_core::secret::Password;
use backup_core::storage::{MemoryStorage, Storage};
use backup_core::time::{FixedClock, Timestamp};

/// The message of an error and of its causes.
pub fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

pub const PASSWORD: &str = "correct horse";

pub fn environment(seed: u64) -> Environment {
    environment_at(seed, 1_790_000_000)
}

pub fn environment_at(seed: u64, seconds: i64) -> Environment {
    let clock = FixedClock(Timestamp::from_unix(seconds, 0).unwrap());
    Environment::new(Arc::new(clock), Arc::new(SeededEntropy::new(seed)))
}

/// Cheap passwords, small packs.
pub fn init_options() -> InitOptions {
    InitOptions::default().with_argon2(Argon2Parameters::minimum_for_tests()).with_pack_target(1 << 20)
}

/// Chunks of few KiB as well, so that little data makes many chunks.
pub fn small_options() -> InitOptions {
    let mut chunking = ChunkingParameters::default();
    (chunking.fixed_size, chunking.stream_min, chunking.stream_avg, chunking.stream_max) =
        (64 << 10, 4 << 10, 16 << 10, 64 << 10);
    init_options().with_chunking(chunking).with_pack_target(64 << 10)
}

pub fn init_with(storage: Arc<dyn Storage>, options: &InitOptions, seed: u64) -> backup_core::Result<Repository> {
    let password = Password::from(PASSWORD);
    Repository::init(storage, &Credential::from(&password), options, environment(seed))
}

pub fn init(storage: Arc<dyn Storage>) -> Repository {
    init_with(storage, &init_options(), 1).unwrap()
}

pub fn open(storage: Arc<dyn Storage>, seed: u64) -> backup_core::Result<Repository> {
    let password = Password::from(PASSWORD);
    Repository::open(storage, &Credential::from(&password), environment(seed))
}

pub fn memory() -> Arc<MemoryStorage> {
    Arc::new(MemoryStorage::new())
}

pub fn path(text: &str) -> EntryPath {
    text.parse().unwrap()
}

/// Bytes that do not compress and do not repeat.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

pub fn options(threads: usize) -> BackupOptions {
    BackupOptions::new(BackupKind::Data).with_host("node").with_control(control(threads))
}

pub fn control(threads: usize) -> Control {
    Control::default().with_threads(threads)
}

pub fn verify(repository: &Repository, level: VerifyLevel) -> backup_core::Result<VerifyReport> {
    repository.verify(&VerifyOptions::new(level), None, &Control::default())
}

pub fn assert_sound(repository: &Repository) {
    let report = verify(repository, VerifyLevel::Content).unwrap();
    assert!(report.ok, "{:#?}", report.findings);
}

/// What collections do of closures that no backup names: those that name a pack that is gone are gone as well.
pub fn assert_closures_name_packs(storage: &MemoryStorage, what: &str) {
    for key in forger::keys_of(storage, "closures/") {
        let closure = storage.get(&key, u64::MAX).unwrap();
        for entry in closure[16..].chunks_exact(40) {
            let name: String = entry[..32].iter().map(|byte| format!("{byte:02x}")).collect();
            let pack = format!("packs/{}/{name}", &name[..2]).parse().unwrap();
            assert!(storage.stat(&pack).is_ok(), "{what}: {key} names {pack}, which is gone");
        }
    }
}

/// Whether everything is to be tried instead of the share that belongs to an ordinary run.
#[allow(clippy::disallowed_methods, reason = "the rule that the core reads no environment is not for its tests")]
pub fn is_full_campaign() -> bool {
    std::env::var_os("BACKUP_CAMPAIGN").is_some_and(|value| value == "full")
}
