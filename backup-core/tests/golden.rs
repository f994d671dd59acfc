//! A published repository that every program of this format must read.
//!
//! `BACKUP_VECTORS=write cargo test -p backup-core --test golden` writes it anew. That is right together with
//! a change of the format, or of the zstd library, which may compress the same bytes to others.
#![expect(
    clippy::disallowed_methods,
    reason = "the rule that the core reads no files and no environment is not for its tests"
)]

mod support;

use std::sync::Arc;

use backup_core::repository::{BackupKind, BackupOptions, LockedRepository, Selection};
use backup_core::storage::MemoryStorage;
use bytes::Bytes;
use serde_json::Value;
use support::tree::{Made, Target};
use support::vectors::{NOW, Objects, describe, golden, is_writing, make, open, vectors};
use support::{assert_sound, control, environment_at, path};

#[test]
fn the_golden_repository_is_what_this_program_writes_and_reads() {
    let made = make();
    if is_writing() {
        let root = vectors("golden/repository");
        let _ = std::fs::remove_dir_all(&root);
        for (key, bytes) in &made {
            let file = root.join(key.as_str());
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, bytes).unwrap();
        }
        let storage = Arc::new(MemoryStorage::from_objects(made.clone()));
        let text = serde_json::to_string_pretty(&describe(&open(&storage, 1, NOW).unwrap())).unwrap() + "\n";
        std::fs::write(vectors("golden/contents.json"), text).unwrap();
    }
    let published = golden();
    let names = |objects: &Objects| objects.keys().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&published), names(&made), "objects have other names, and so other bytes");
    for (key, bytes) in &published {
        assert!(made[key] == bytes, "{key} has other bytes");
    }
    assert!(published.values().map(Bytes::len).sum::<usize>() < 200_000, "it stays small");

    let storage = Arc::new(MemoryStorage::from_objects(published));
    let repository = open(&storage, 1, NOW).unwrap();
    let expected: Value = serde_json::from_slice(&std::fs::read(vectors("golden/contents.json")).unwrap()).unwrap();
    assert_eq!(describe(&repository), expected);
    assert_sound(&repository);
    let backup = &repository.backups().unwrap()[0];
    assert!(!backup.is_complete() && backup.tags == ["before-upgrade", "nightly"]);
    let target = Target::default();
    let report = repository.restore_tree(backup, &Selection::all(), &target, &control(3)).unwrap();
    assert!(report.is_complete(), "{:?}", report.problems);
    let made = target.into_map();
    assert_eq!(made[&path("etc/link")], Made::Link(path("etc/config")));
    let Made::Content(image, holes) = &made[&path("vm/disk.raw")] else { panic!() };
    assert_eq!((image.len(), *holes), (163_840, 65_536));
    let locked = LockedRepository::open(storage.clone(), environment_at(1, NOW)).unwrap();
    assert_eq!(locked.commits().unwrap().len(), 2);

    // It can be written on.
    let mut session = repository.begin(BackupOptions::new(BackupKind::Data).with_host("golden")).unwrap();
    assert_eq!(session.parent().unwrap().id, backup.id);
    session.add_stream(path("more"), &mut &b"more"[..]).unwrap();
    session.commit().unwrap();
    assert_sound(&repository);
}
