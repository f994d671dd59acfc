//! Verification in shards: together they are one verification of everything, and damage is found by the shard that has it.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_core::repository::{
    Finding, FindingKind, LockedRepository, Repository, Shard, VerificationLedger, VerifyLevel, VerifyOptions,
    VerifyReport,
};
use backup_core::storage::{Key, MemoryStorage, Storage};
use support::forger::{get, keys_of, overwrite};
use support::tree::{Node, Tree};
use support::{control, environment, init_with, memory, noise, open, options, path, small_options};

/// Two backups with a catalogue of several leaves, contents of several pages, and a link.
fn repository() -> (Arc<MemoryStorage>, Repository) {
    let storage = memory();
    let repository = init_with(storage.clone(), &small_options(), 1).unwrap();
    for number in 0..2 {
        let mut session = repository.begin(options(1)).unwrap();
        session.add_stream(path("stream"), &mut noise(number, 400_000).as_slice()).unwrap();
        let mut nodes: Vec<Node> = (0..1500u64)
            .map(|file| Node::file(&format!("files/{file:04}"), noise(1000 + file + number * (file % 7), 20)))
            .collect();
        nodes.push(Node::directory("files"));
        nodes.push(Node::file("zz/link", noise(1000, 20)).link_to("files/0000"));
        session.add_tree(&mut Tree::new(nodes)).unwrap();
        session.commit().unwrap();
    }
    (storage, repository)
}

fn shard(number: u32, count: u32) -> Shard {
    Shard::new(number, count).unwrap()
}

fn verify(storage: &Arc<MemoryStorage>, options: &VerifyOptions) -> VerifyReport {
    match options.level {
        VerifyLevel::Presence | VerifyLevel::Bytes => {
            LockedRepository::open(storage.clone(), environment(5)).unwrap().verify(options, &control(1)).unwrap()
        }
        _ => open(storage.clone(), 5).unwrap().verify(options, None, &control(2)).unwrap(),
    }
}

fn in_shards(storage: &Arc<MemoryStorage>, level: VerifyLevel, count: u32) -> Vec<VerifyReport> {
    let reports = (1..=count).map(|number| {
        let report = verify(storage, &VerifyOptions::new(level).with_shard(shard(number, count)));
        // As they travel.
        let text = serde_json::to_string(&report).unwrap();
        let read: VerifyReport = serde_json::from_str(&text).unwrap();
        assert_eq!(read, report);
        read
    });
    reports.collect()
}

const LEVELS: [VerifyLevel; 4] =
    [VerifyLevel::Presence, VerifyLevel::Bytes, VerifyLevel::Structure, VerifyLevel::Content];

/// Findings of a whole verification that only it can make: how many entries can be read of all.
fn comparable(report: &VerifyReport) -> Vec<Finding> {
    let mut findings = report.findings.clone();
    findings.retain(|finding| !finding.message.contains("entries can be read of"));
    for finding in &mut findings {
        // Which of many are listed depends on who came first; how many there are does not.
        if finding.entries_omitted > 0 {
            finding.entries.clear();
        }
        finding.entries.sort_by(|a, b| (a.backup, &a.path).cmp(&(b.backup, &b.path)));
    }
    findings.sort_by(|a, b| (a.kind, &a.object, &a.message).cmp(&(b.kind, &b.object, &b.message)));
    findings
}

#[test]
fn shards_together_are_everything_once() {
    let (storage, _) = repository();
    for level in LEVELS {
        let whole = verify(&storage, &VerifyOptions::new(level));
        assert!(whole.ok && whole.shard.is_none(), "{whole:#?}");
        for count in 1..=8 {
            let reports = in_shards(&storage, level, count);
            let merged = VerifyReport::merge(reports.clone()).unwrap();
            assert_eq!(merged, whole, "{count} at {level:?}");
            // In any order.
            assert_eq!(VerifyReport::merge(reports.into_iter().rev().collect()).unwrap(), whole);
        }
    }
    let reports = in_shards(&storage, VerifyLevel::Content, 4);
    assert!(reports.iter().filter(|report| report.entries_checked > 0).count() > 1, "leaves are divided");
    assert!(reports.iter().filter(|report| report.chunks_checked > 0).count() > 2, "packs are divided");
}

/// Every object in turn: changed, or gone.
#[test]
fn damage_is_found_once_and_hurts_the_same_entries() {
    let (storage, _) = repository();
    let keys: Vec<Key> = ["packs/", "bodies/", "closures/", "index/", "sessions/"]
        .iter()
        .flat_map(|prefix| keys_of(&storage, prefix))
        .filter(|key| !key.as_str().ends_with("/open"))
        .collect();
    for (turn, key) in (0..).zip(&keys) {
        for is_gone in [false, true] {
            let broken = Arc::new((*storage).clone());
            if is_gone {
                broken.delete(key).unwrap();
            } else {
                let mut bytes = get(&broken, key);
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                overwrite(&broken, key, bytes);
            }
            for level in LEVELS {
                let whole = verify(&broken, &VerifyOptions::new(level));
                let count = 2 + turn % 7;
                let reports = in_shards(&broken, level, count);
                let merged = VerifyReport::merge(reports.clone()).unwrap();
                assert_eq!(merged.ok, whole.ok, "{key}, {count} at {level:?}");
                assert_eq!(comparable(&merged), comparable(&whole), "{key}, {count} at {level:?}");
                // What is wrong with the object itself one shard says. That pages in it cannot be read, others may say.
                let is_about =
                    |finding: &Finding| finding.object == key.as_str() && finding.kind != FindingKind::Structure;
                let finders: BTreeSet<Shard> = reports
                    .iter()
                    .filter(|report| report.findings.iter().any(is_about))
                    .filter_map(|report| report.shard)
                    .collect();
                let is_known = whole.findings.iter().any(is_about);
                assert_eq!(finders.len(), usize::from(is_known), "{key}, {count} at {level:?}: {finders:?}");
            }
        }
    }
}

#[test]
fn reports_that_do_not_belong_together_are_refused() {
    let (storage, _) = repository();
    let of = |level, number, count| verify(&storage, &VerifyOptions::new(level).with_shard(shard(number, count)));
    let one = of(VerifyLevel::Presence, 1, 3);
    let two = of(VerifyLevel::Presence, 2, 3);
    let three = of(VerifyLevel::Presence, 3, 3);
    assert!(VerifyReport::merge(vec![one.clone(), two.clone(), three.clone()]).unwrap().ok);
    let (other, _) = repository();
    let foreign = {
        let storage = memory();
        init_with(storage.clone(), &small_options(), 2).unwrap();
        verify(&storage, &VerifyOptions::new(VerifyLevel::Presence).with_shard(shard(3, 3)))
    };
    assert!(VerifyReport::merge(vec![of(VerifyLevel::Presence, 1, 1)]).unwrap().ok);
    for (reports, says) in [
        (vec![], "none"),
        (vec![one.clone(), two.clone()], "shard 3/3 is missing"),
        (vec![one.clone(), two.clone(), two.clone()], "2/3 is there twice"),
        (vec![one.clone(), two.clone(), of(VerifyLevel::Bytes, 3, 3)], "another verification"),
        (vec![one.clone(), two.clone(), of(VerifyLevel::Presence, 3, 4)], "another verification"),
        (vec![one.clone(), two.clone(), foreign], "another verification"),
        (vec![verify(&other, &VerifyOptions::new(VerifyLevel::Presence))], "not of a shard"),
    ] {
        let error = VerifyReport::merge(reports).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

/// A share a day of a shard covers the shard, and its ledger remembers nothing of others.
#[test]
fn a_rotating_share_of_a_shard_covers_the_shard() {
    let (storage, _) = repository();
    let repository = open(storage.clone(), 5).unwrap();
    let mut covered = 0;
    for number in 1..=3 {
        let options = VerifyOptions::new(VerifyLevel::Content).with_shard(shard(number, 3));
        let all = repository.verify(&options, None, &control(1)).unwrap();
        let mut ledger = VerificationLedger::default();
        let mut chunks = 0;
        for _ in 0..4 {
            let share = backup_core::repository::Share::Rotating { days: 4 };
            let report = repository.verify(&options.clone().with_share(share), Some(&mut ledger), &control(1)).unwrap();
            chunks += report.chunks_checked;
        }
        assert!(chunks >= all.chunks_checked, "{chunks} of {}", all.chunks_checked);
        covered += all.chunks_checked;
    }
    let whole = repository.verify(&VerifyOptions::new(VerifyLevel::Content), None, &control(1)).unwrap();
    assert_eq!(covered, whole.chunks_checked);
}
