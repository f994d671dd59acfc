//! What a verification found.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::HashSet;
use serde::{Deserialize, Serialize};

use crate::content::EntryPath;
use crate::crypto::hash;
use crate::error::{Error, Result};
use crate::id::{BackupId, Digest, RepositoryId};
use crate::repository::backup::error_chain;
use crate::repository::environment::Environment;
use crate::repository::parallel::{POISONED, lock};
use crate::repository::shard::Shard;
use crate::repository::verify::options::{VerifyLevel, VerifyOptions};
use crate::session::History;
use crate::storage::Storage;
use crate::time::Timestamp;

/// The result of a verification: a value to print, to store and to act on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VerifyReport {
    /// The repository.
    pub repository: RepositoryId,
    /// How thorough it was.
    pub level: VerifyLevel,
    /// The shard that was looked at; `None` for everything.
    pub shard: Option<Shard>,
    /// Whether nothing was found.
    pub ok: bool,
    /// Whether only a share of the packs was read, or only some backups were looked at.
    pub partial: bool,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// Names the backups that there were: BLAKE3 of their ids in ascending order. The same for all shards of one
    /// verification, unless backups were made or forgotten meanwhile.
    pub history: Digest,
    /// Backups that were looked at.
    pub backups_checked: u64,
    /// Objects that were looked at.
    pub objects_checked: u64,
    /// Bytes of objects that were read and checked.
    pub bytes_checked: u64,
    /// Chunks that were opened and checked against their ids.
    pub chunks_checked: u64,
    /// Entries whose contents were walked.
    pub entries_checked: u64,
    /// What was found, at most the first 1000 findings.
    pub findings: Vec<Finding>,
    /// Findings that are not listed.
    pub findings_omitted: u64,
    /// Backups that are as they were made, and already lacked something then. Known at the levels structure and content. No
    /// finding: nothing happened to them since.
    #[serde(default)]
    pub incomplete: Vec<IncompleteBackup>,
}

/// A backup that lacks what could not be read when it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct IncompleteBackup {
    /// The backup.
    pub backup: BackupId,
    /// How many problems there were.
    pub problem_count: u64,
}

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// The storage key, chunk id or path concerned.
    pub object: String,
    /// What is wrong with it.
    pub message: String,
    /// Entries that cannot be restored whole because of it, at most the first 100.
    pub entries: Vec<AffectedEntry>,
    /// Entries that are not listed.
    pub entries_omitted: u64,
    /// Backups that need the object, at most the first 100. Of config, keys and what is only known by its content there are
    /// none: those are of all backups, or of the `entries`.
    #[serde(default)]
    pub backups: Vec<BackupId>,
    /// Backups that are not listed.
    #[serde(default)]
    pub backups_omitted: u64,
}

/// An entry that a finding hurts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AffectedEntry {
    /// The backup.
    pub backup: BackupId,
    /// The entry.
    pub path: EntryPath,
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FindingKind {
    /// An object that is needed is not there.
    Missing,
    /// An object has another size than it was stored with.
    Size,
    /// The bytes of an object are not those that were stored.
    Bytes,
    /// A signed record or its signature is not valid.
    Record,
    /// A commit names another that is not there, or an expected one is not there.
    History,
    /// A backup's body, a catalogue or a page is not valid.
    Structure,
    /// A chunk cannot be found, opened, or does not have its id.
    Chunk,
    /// The storage could not be read.
    Storage,
}

impl FindingKind {
    /// Its stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Size => "size",
            Self::Bytes => "bytes",
            Self::Record => "record",
            Self::History => "history",
            Self::Structure => "structure",
            Self::Chunk => "chunk",
            Self::Storage => "storage",
        }
    }
}

/// Findings and amounts that gather on several threads.
pub(crate) struct Findings {
    state: Mutex<VerifyReport>,
    /// Findings about what everybody looks at are those of one shard.
    is_shared: AtomicBool,
    /// Nothing is found or counted; only what is hurt is still noted.
    is_muted: AtomicBool,
    /// Hashes of what was found, so that nothing is counted twice.
    known: Mutex<HashSet<Digest>>,
}

/// Findings that are listed.
pub(super) const LISTED: usize = 1000;
/// Entries that a finding lists.
pub(super) const LISTED_ENTRIES: usize = 100;
/// Backups that a finding lists.
pub(super) const LISTED_BACKUPS: usize = 100;

impl Findings {
    pub(crate) fn new(repository: RepositoryId, options: &VerifyOptions, environment: &Environment) -> Self {
        let now = environment.now();
        Self {
            known: Mutex::default(),
            is_shared: AtomicBool::new(true),
            is_muted: AtomicBool::new(false),
            state: Mutex::new(VerifyReport {
                repository,
                shard: options.shard,
                level: options.level,
                ok: true,
                partial: !options.backups.is_empty(),
                started: now,
                finished: now,
                history: hash::digest(&[]),
                backups_checked: 0,
                objects_checked: 0,
                bytes_checked: 0,
                chunks_checked: 0,
                entries_checked: 0,
                findings: Vec::new(),
                findings_omitted: 0,
                incomplete: Vec::new(),
            }),
        }
    }

    /// Adds a finding, once.
    pub(crate) fn add(&self, kind: FindingKind, object: &str, message: &str) -> Result<()> {
        let parts = [kind.name().as_bytes(), b"\0", object.as_bytes(), b"\0", message.as_bytes()];
        if self.is_muted.load(Ordering::Relaxed) || !lock(&self.known)?.insert(hash::digest_of_parts(&parts)) {
            return Ok(());
        }
        let mut report = lock(&self.state)?;
        if self.is_shared.load(Ordering::Relaxed) && report.shard.is_some_and(|shard| !shard.has_text(object)) {
            return Ok(());
        }
        report.ok = false;
        if report.findings.len() < LISTED {
            report.findings.push(Finding {
                kind,
                object: object.to_owned(),
                message: message.to_owned(),
                entries: Vec::new(),
                entries_omitted: 0,
                backups: Vec::new(),
                backups_omitted: 0,
            });
        } else {
            report.findings_omitted = report.findings_omitted.saturating_add(1);
        }
        Ok(())
    }

    /// Whether there is a finding about `object`, as far as findings are listed.
    pub(crate) fn has_finding_about(&self, object: &str) -> Result<bool> {
        Ok(lock(&self.state)?.findings.iter().any(|finding| finding.object == object))
    }

    /// An object that is needed is not there.
    pub(crate) fn missing(&self, object: &str) -> Result<()> {
        self.add(FindingKind::Missing, object, "it is not there")
    }

    /// An error as a finding; cancelling stays an error.
    pub(crate) fn add_error(&self, kind: FindingKind, object: &str, error: Error) -> Result<()> {
        match error {
            Error::Cancelled | Error::Internal(_) => Err(error),
            Error::Storage { .. } => self.add(FindingKind::Storage, object, &error_chain(&error)),
            error => self.add(kind, object, &error_chain(&error)),
        }
    }

    /// An entry that the findings about `objects` hurt.
    pub(crate) fn affect(&self, objects: &[String], entry: &AffectedEntry) -> Result<()> {
        let mut report = lock(&self.state)?;
        for finding in report.findings.iter_mut().filter(|finding| objects.contains(&finding.object)) {
            if finding.entries.contains(entry) {
                continue;
            }
            if finding.entries.len() < LISTED_ENTRIES {
                finding.entries.push(entry.clone());
            } else {
                finding.entries_omitted = finding.entries_omitted.saturating_add(1);
            }
        }
        Ok(())
    }

    /// Notes that `backup` needs the objects that `is_needed` knows.
    pub(crate) fn needed_by(&self, backup: BackupId, is_needed: impl Fn(&str) -> bool) -> Result<()> {
        let mut report = lock(&self.state)?;
        for finding in report.findings.iter_mut().filter(|finding| is_needed(&finding.object)) {
            if finding.backups.len() < LISTED_BACKUPS {
                finding.backups.push(backup);
            } else {
                finding.backups_omitted = finding.backups_omitted.saturating_add(1);
            }
        }
        Ok(())
    }

    /// Whether what is looked at from here on is looked at by every shard, or by this one alone.
    pub(crate) fn set_shared(&self, is_shared: bool) {
        self.is_shared.store(is_shared, Ordering::Relaxed);
    }

    /// Whether findings and counts are those of another shard from here on.
    pub(crate) fn set_muted(&self, is_muted: bool) {
        self.is_muted.store(is_muted, Ordering::Relaxed);
    }

    /// Calls `report` with nothing found or counted where `mute` says so.
    pub(crate) fn muted<T>(&self, mute: bool, report: impl FnOnce() -> T) -> T {
        let before = self.is_muted.load(Ordering::Relaxed);
        self.set_muted(before || mute);
        let result = report();
        self.set_muted(before);
        result
    }

    pub(crate) fn is_ok(&self) -> Result<bool> {
        Ok(lock(&self.state)?.ok)
    }

    pub(crate) fn count(&self, count: impl FnOnce(&mut VerifyReport)) -> Result<()> {
        if self.is_muted.load(Ordering::Relaxed) {
            return Ok(());
        }
        count(&mut *lock(&self.state)?);
        Ok(())
    }

    /// The report, if the state that `history` describes is still there.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] where something was found and a collection ended meanwhile: it may be what that deleted.
    pub(crate) fn finish(
        self,
        history: &History,
        storage: &dyn Storage,
        environment: &Environment,
    ) -> Result<VerifyReport> {
        let mut report = self.state.into_inner().map_err(|_| POISONED)?;
        if !report.ok && history.is_overtaken(storage)? {
            let reason = "a collection ended while it was verified";
            return Err(Error::Conflict { what: "the repository".into(), reason: reason.into(), transient: true });
        }
        report.incomplete.sort_by_key(|backup| backup.backup);
        report.findings.sort_by(|a, b| (a.kind, &a.object).cmp(&(b.kind, &b.object)));
        report.finished = environment.now();
        Ok(report)
    }
}
