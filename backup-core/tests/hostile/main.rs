//! Published states of the golden repository that every program of the format must refuse, and others that it must
//! read although they are unusual.
//!
//! `BACKUP_VECTORS=write cargo test -p backup-core --test hostile` writes them anew.
#![expect(
    clippy::disallowed_methods,
    reason = "the rule that the core reads no files and no environment is not for its tests"
)]

mod cases;
mod config;
mod entries;
mod keyring;
mod packs;
mod pages;
mod records;
mod sealed;
mod slots;
#[path = "../support/mod.rs"]
mod support;
mod tolerated;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::Result;
use backup_core::repository::{LockedRepository, Repository, Selection, VerifyLevel};
use backup_core::storage::MemoryStorage;
use cases::{Cases, apply};
use serde_json::Value;
use support::tree::{Made, Target};
use support::vectors::{NOW, Objects, golden, is_writing, open, vectors};
use support::{chain, control, environment_at, path, verify};

const LEVELS: [VerifyLevel; 4] =
    [VerifyLevel::Presence, VerifyLevel::Bytes, VerifyLevel::Structure, VerifyLevel::Content];

/// What verification does not compare: it reads every pack once, not every entry.
const NOT_COMPARED: [&str; 1] = ["entry-digest"];

/// Every case that is to be published.
fn hostile(golden: Objects) -> Cases {
    let mut cases = Cases::new(golden);
    config::add(&mut cases);
    slots::add(&mut cases);
    keyring::add(&mut cases);
    sealed::add(&mut cases);
    records::add(&mut cases);
    packs::add(&mut cases);
    pages::add(&mut cases);
    entries::add(&mut cases);
    cases
}

fn files(directory: &Path) -> Vec<(String, Value)> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let read = |file: PathBuf| {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap())
    };
    files.into_iter().map(read).collect()
}

fn write(directory: &Path, cases: Vec<(&'static str, Value)>) {
    let _ = std::fs::remove_dir_all(directory);
    std::fs::create_dir_all(directory).unwrap();
    for (name, value) in cases {
        let file = directory.join(format!("{name}.json"));
        assert!(!file.exists(), "{name} is there twice");
        std::fs::write(file, serde_json::to_string_pretty(&value).unwrap() + "\n").unwrap();
    }
}

/// Digests of everything that the golden repository holds, and of nothing.
fn known_digests() -> BTreeSet<String> {
    let contents: Value = serde_json::from_slice(&std::fs::read(vectors("golden/contents.json")).unwrap()).unwrap();
    let backups = contents["backups"].as_array().unwrap().iter();
    let entries = backups.flat_map(|backup| backup["entries"].as_array().unwrap());
    let digests = entries.filter_map(|entry| entry["blake3"].as_str()).map(str::to_owned);
    digests.chain([blake3::hash(b"").to_string()]).collect()
}

/// An error with its sources.
/// Reads every entry of every backup.
fn restore(repository: &Repository) -> Result<()> {
    let mut first = None;
    for backup in repository.backups()? {
        for entry in repository.entries(&backup)? {
            let mut out = Vec::new();
            let outcome = entry
                .and_then(|entry| repository.content_entry(&backup, &entry.path))
                .and_then(|entry| repository.restore_stream(&entry, &mut out, &control(1)));
            first = first.or(outcome.err());
        }
    }
    first.map_or(Ok(()), Err)
}

/// What an operation says: nothing, or the kind of what went wrong with `object`.
fn run(storage: &Arc<MemoryStorage>, operation: &str, object: &str) -> String {
    let outcome = open(storage, 7, NOW).and_then(|repository| match operation {
        "open" => Ok(()),
        "list" => repository.backups().map(drop),
        "restore" => restore(&repository),
        "verify" => Ok(()),
        other => panic!("unknown operation {other}"),
    });
    match outcome {
        Err(error) if chain(&error).contains(object) || operation == "open" => error.kind().to_string(),
        Err(error) => format!("{} that does not name {object}: {}", error.kind(), chain(&error)),
        Ok(()) if operation == "verify" => {
            let report = verify(&open(storage, 7, NOW).unwrap(), VerifyLevel::Content).unwrap();
            let finding = report.findings.iter().find(|finding| finding.object == object);
            finding.map_or_else(
                || format!("no such finding: {:#?}", report.findings),
                |finding| finding.kind.name().into(),
            )
        }
        Ok(()) => "ok".into(),
    }
}

/// Whatever is done with a repository: nothing wrong comes out. Returns whether verification finds anything.
fn is_harmless(storage: &Arc<MemoryStorage>, known: &BTreeSet<String>, name: &str) -> bool {
    if let Ok(locked) = LockedRepository::open(storage.clone(), environment_at(8, NOW)) {
        locked.commits().unwrap();
    }
    let Ok(repository) = open(storage, 8, NOW) else { return true };
    let findings: Vec<bool> = LEVELS.iter().map(|level| !verify(&repository, *level).unwrap().ok).collect();
    for backup in repository.backups().unwrap_or_default() {
        for entry in repository.entries(&backup).unwrap().flatten().filter(|entry| entry.kind.has_content()) {
            let Ok(entry) = repository.content_entry(&backup, &entry.path) else { continue };
            let mut out = Vec::new();
            if repository.restore_stream(&entry, &mut out, &control(1)).is_ok() {
                let digest = blake3::hash(&out).to_string();
                assert!(known.contains(&*digest), "{name}: wrong bytes in {}", entry.path);
            }
        }
        let target = Target::default();
        if repository.restore_tree(&backup, &Selection::all(), &target, &control(1)).is_ok() {
            for (path, made) in target.into_map() {
                let Made::Content(bytes, _) = made else { continue };
                assert!(known.contains(&*blake3::hash(&bytes).to_string()), "{name}: wrong bytes in {path}");
            }
        }
    }
    *findings.last().unwrap()
}

#[test]
fn hostile_states_are_refused_as_they_must_be() {
    let golden = golden();
    let directory = vectors("hostile");
    if is_writing() {
        write(&directory, hostile(golden.clone()).published());
    }
    let known = known_digests();
    let mut wrong = Vec::new();
    let mut rules = BTreeSet::new();
    let files = files(&directory);
    assert!(files.len() >= 60);
    for (name, case) in &files {
        let text = |field: &str| case[field].as_str().unwrap();
        rules.insert(case["rejects"].as_u64().unwrap());
        let storage = Arc::new(MemoryStorage::from_objects(apply(&golden, &case["objects"])));
        let found = run(&storage, text("operation"), text("object"));
        if found != text("expect") {
            wrong.push(format!("{name}: {found} instead of {} ({})", text("expect"), text("rule")));
        }
        if !is_harmless(&storage, &known, name) && !NOT_COMPARED.contains(&&**name) {
            wrong.push(format!("{name}: not noticed by verification"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(rules.into_iter().eq(1..=16), "a rule of \"What a reader must reject\" has no vector");
}

#[test]
fn unusual_states_are_read() {
    let golden = golden();
    let directory = vectors("tolerated");
    if is_writing() {
        write(&directory, tolerated::published(golden.clone()));
    }
    let known = known_digests();
    for (name, case) in files(&directory) {
        let storage = Arc::new(MemoryStorage::from_objects(apply(&golden, &case["objects"])));
        let repository = open(&storage, 7, NOW).unwrap_or_else(|error| panic!("{name}: {error}"));
        let found: Vec<String> = repository.backups().unwrap().iter().map(|backup| backup.id.to_string()).collect();
        assert_eq!(serde_json::json!(found), case["backups"], "{name}");
        restore(&repository).unwrap_or_else(|error| panic!("{name}: {error}"));
        let report = verify(&repository, VerifyLevel::Content).unwrap();
        assert!(report.ok, "{name}: {:#?}", report.findings);
        assert!(!is_harmless(&storage, &known, &name), "{name}");
        if case["read_only"].as_bool().unwrap() {
            assert!(repository.is_read_only(), "{name}");
            assert!(repository.begin(support::options(1)).is_err(), "{name}");
        } else {
            let mut session = repository.begin(support::options(1)).unwrap();
            session.add_stream(path("more"), &mut &b"more"[..]).unwrap();
            session.commit().unwrap_or_else(|error| panic!("{name}: {error}"));
            support::assert_sound(&repository);
        }
    }
}
