//! Processes: writers, readers, and those who forget, repack and collect.

use backup_core::ErrorKind;
use backup_core::id::BackupId;
use backup_core::maintenance::{CollectOptions, OpenSessions, RepackOptions};
use backup_core::repository::{Backup, Repository};

use crate::collector::{Omission, collect};
use crate::oracle::{Oracle, bytes_of, ids};
use crate::scheduler::Running;
use crate::support::{chain, control, open, options, path};

/// Makes some backups, of few blocks that others have too.
pub(crate) fn writer(running: &Running, oracle: &Oracle, number: usize) {
    let Ok(repository) = open(running.storage(), 100 + number as u64) else { return };
    for round in 0..1 + running.below(3) {
        let host = format!("writer-{number}-{round}");
        let blocks: Vec<u64> = (0..1 + running.below(3)).map(|_| running.below(5) as u64).collect();
        oracle.begins(&host, blocks.clone());
        let made = (|| {
            let mut session = repository.begin(options(1).with_host(host.clone()))?;
            session.add_stream(path("data"), &mut bytes_of(&blocks).as_slice())?;
            session.commit()
        })();
        match made {
            Ok(backup) => oracle.acknowledged(&host, backup.id),
            Err(_) if running.is_dead() => return,
            Err(error) => match error.kind() {
                ErrorKind::UnknownOutcome => {}
                ErrorKind::Storage | ErrorKind::Conflict => oracle.refused(&host),
                _ => panic!("{host}: {}", chain(&error)),
            },
        }
    }
}

fn content(repository: &Repository, backup: &Backup) -> backup_core::Result<Vec<u8>> {
    let entry = repository.entry(backup, &path("data"))?;
    let mut out = Vec::new();
    repository.restore_stream(&entry, &mut out, &control(1))?;
    Ok(out)
}

/// Lists and restores.
pub(crate) fn reader(running: &Running, oracle: &Oracle, number: usize) {
    let repository = open(running.storage(), 200 + number as u64).unwrap_or_else(|error| panic!("{}", chain(&error)));
    for _ in 0..1 + running.below(4) {
        let due = oracle.due();
        let shown = match repository.backups() {
            Ok(shown) => shown,
            Err(error) => panic!("listing: {}", chain(&error)),
        };
        for id in due.iter().filter(|id| oracle.is_due(id)) {
            assert!(
                shown.iter().any(|backup| ids(backup).any(|of| of == id)),
                "{id} was acknowledged and is not shown"
            );
        }
        assert_each_once(&shown);
        if shown.is_empty() {
            continue;
        }
        let backup = &shown[running.below(shown.len())];
        let expected = oracle.content(&backup.host);
        match content(&repository, backup) {
            Ok(found) => assert!(found == expected, "{} of {} is restored wrong", backup.id, backup.host),
            Err(_) if oracle.is_forgotten(backup) => {}
            Err(error) => panic!("{} of {}: {}", backup.id, backup.host, chain(&error)),
        }
    }
}

/// Forgets some backups, repacks, and collects: with the engine's own collector, or by the steps of the format alone. Both are at
/// work in one repository. What is left out, the second one leaves out.
pub(crate) fn maintainer(running: &Running, oracle: &Oracle, signer: &Repository, number: usize, omission: Omission) {
    let storage = running.storage();
    let Ok(repository) = open(running.storage(), 300 + number as u64) else { return };
    for _ in 0..1 + running.below(4) {
        if running.below(3) > 0
            && let Ok(shown) = repository.backups()
            && !shown.is_empty()
        {
            let backup = &shown[running.below(shown.len())];
            // By any id that it has or had.
            let known: Vec<BackupId> = ids(backup).copied().collect();
            oracle.forgets(backup);
            match repository.forget(&[known[running.below(known.len())]], &control(1)) {
                Ok(_) => oracle.was_forgotten(backup),
                Err(error) => expect_kind(&error, &[ErrorKind::NotFound]),
            }
        }
        if running.is_dead() {
            return;
        }
        if omission == Omission::Nothing && running.below(4) > 0 {
            let options = RepackOptions::default().with_below_percent(100);
            match repository.repack(&options, &control(1)) {
                Ok(report) => oracle.repacked(report.backups.len()),
                Err(error) => expect_kind(&error, &[]),
            }
        }
        if running.is_dead() {
            return;
        }
        if omission != Omission::Nothing || running.below(3) == 0 {
            drop(collect(&*storage, signer, running, omission));
        } else if let Err(error) = repository.collect(&collect_options(running), &control(1)) {
            // It refuses where bodies are and no commit is, as commits may have been lost.
            let is_refused = chain(&error).contains("no commit of any backup is");
            expect_kind(&error, if is_refused { &[ErrorKind::Damaged] } else { &[] });
        }
        if running.is_dead() {
            return;
        }
    }
}

fn collect_options(running: &Running) -> CollectOptions {
    let sessions = if running.below(4) == 0 { OpenSessions::Wait } else { OpenSessions::RevokeAll };
    CollectOptions::default().with_open_sessions(sessions)
}

/// What a storage that does not answer, and others who were quicker, lead to; and `others`.
fn expect_kind(error: &backup_core::Error, others: &[ErrorKind]) {
    let usual = [ErrorKind::Storage, ErrorKind::Conflict, ErrorKind::UnknownOutcome];
    assert!(usual.contains(&error.kind()) || others.contains(&error.kind()), "{}", chain(error));
}

/// However many programs replaced a backup.
fn assert_each_once(shown: &[Backup]) {
    let hosts: std::collections::BTreeSet<&str> = shown.iter().map(|backup| backup.host.as_str()).collect();
    assert_eq!(hosts.len(), shown.len(), "a backup is shown twice");
}

/// When all is over: whoever opens the repository finds what was promised, and can go on.
pub(crate) fn check(repository: &Repository, oracle: &Oracle) -> u64 {
    let shown = repository.backups().unwrap_or_else(|error| panic!("{}", chain(&error)));
    let known: Vec<&BackupId> = shown.iter().flat_map(ids).collect();
    for id in oracle.due() {
        assert!(known.contains(&&id), "{id} was acknowledged and is lost");
    }
    assert_each_once(&shown);
    for backup in &shown {
        assert!(!oracle.is_gone(backup), "{} was forgotten and is shown", backup.id);
        let expected = oracle.content(&backup.host);
        let found = content(repository, backup)
            .unwrap_or_else(|error| panic!("{} of {}: {}", backup.id, backup.host, chain(&error)));
        assert!(found == expected, "{} of {} is restored wrong", backup.id, backup.host);
    }
    crate::support::assert_sound(repository);
    shown.len() as u64
}
