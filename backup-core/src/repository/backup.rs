//! A backup as people and programs see it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::content::CatalogueRoot;
use crate::error::{Error, Result};
use crate::format::layout::Place;
use crate::id::{BackupId, RepositoryId};
use crate::session::BackupBody;
use crate::time::Timestamp;

/// A recovery point: what was backed up, when, from where, and whether it is complete.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Backup {
    /// Its id: the name of its signed commit.
    pub id: BackupId,
    /// Ids that it had before, oldest first: repacking gives a backup a new commit. Each still finds it.
    pub replaces: Vec<BackupId>,
    /// What it protects.
    pub kind: BackupKind,
    /// The host that the data came from, as the caller named it.
    pub host: String,
    /// Tags, ascending, each once.
    pub tags: Vec<String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// When the session began.
    pub started: Timestamp,
    /// When it was committed.
    pub finished: Timestamp,
    /// The backup that it was made relative to. It does not depend on it. Where its trees were found in different ones
    /// ([`Parent::Newest`](crate::repository::Parent::Newest)), the newest of them.
    pub parent: Option<BackupId>,
    /// Amounts.
    pub statistics: BackupStatistics,
    /// What could not be read, at most the first 1000 problems.
    pub problems: Vec<Problem>,
    /// How many problems there were in all.
    pub problem_count: u64,
    /// The backups of other repositories that it is a copy of; empty where it was made here. The first is the one that
    /// was made where the data was, the last the one that was read to make this one.
    pub origins: Vec<Origin>,
    #[serde(skip)]
    pub(crate) catalogue: CatalogueRoot,
}

impl Backup {
    /// Whether everything that was asked for is in it.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.problem_count == 0
    }
}

/// A backup of another repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[non_exhaustive]
pub struct Origin {
    /// That repository.
    pub repository: RepositoryId,
    /// The backup's id there.
    pub backup: BackupId,
}

impl Origin {
    pub(crate) const fn new(repository: RepositoryId, backup: BackupId) -> Self {
        Self { repository, backup }
    }
}

/// A backup that is there and whose body cannot be opened: nothing but what its commit says is known of it.
/// Verification says what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UnreadableBackup {
    /// Its id.
    pub id: BackupId,
    /// When it was made, as its commit says.
    pub time: Timestamp,
    /// What keeps it from being opened, naming the object.
    pub reason: String,
}

/// What a backup protects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum BackupKind {
    /// Databases and files: `data`.
    Data,
    /// Keys, certificates and other secrets that the data backup leaves out: `sensitive-configuration`.
    SensitiveConfiguration,
    /// A whole virtual machine: `virtual-machine`.
    VirtualMachine,
    /// The caller's own kind: 1 to 64 characters of `a-z 0-9 . _ -`.
    Other(String),
}

impl BackupKind {
    /// Its stable name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Data => "data",
            Self::SensitiveConfiguration => "sensitive-configuration",
            Self::VirtualMachine => "virtual-machine",
            Self::Other(label) => label,
        }
    }
}

impl fmt::Display for BackupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for BackupKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "data" => Ok(Self::Data),
            "sensitive-configuration" => Ok(Self::SensitiveConfiguration),
            "virtual-machine" => Ok(Self::VirtualMachine),
            label
                if (1..=64).contains(&label.len())
                    && label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-')) =>
            {
                Ok(Self::Other(label.to_owned()))
            }
            _ => Err(Error::invalid("backup kind", format!("{text:?} is not 1 to 64 characters of a-z 0-9 . _ -"))),
        }
    }
}

impl Serialize for BackupKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Amounts of a backup, in bytes and counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BackupStatistics {
    /// Entries.
    pub entries: u64,
    /// Bytes of content, holes included.
    pub bytes_logical: u64,
    /// Bytes read from the sources: neither holes nor what was known to be unchanged.
    pub bytes_read: u64,
    /// Bytes taken over from the parent backup without reading them.
    pub bytes_unchanged: u64,
    /// Bytes of chunks that the repository did not have, before compression.
    pub bytes_new: u64,
    /// Bytes of all objects that were written to the storage.
    pub bytes_stored: u64,
    /// References to chunks in the content that was read.
    pub chunks: u64,
    /// Chunks that the repository did not have.
    pub chunks_new: u64,
}

impl BackupStatistics {
    /// In the order of `docs/format.md`, "Backup body".
    pub(crate) const fn to_amounts(self) -> [u64; 8] {
        [
            self.entries,
            self.bytes_logical,
            self.bytes_read,
            self.bytes_unchanged,
            self.bytes_new,
            self.bytes_stored,
            self.chunks,
            self.chunks_new,
        ]
    }

    const fn from_amounts(amounts: [u64; 8]) -> Self {
        let [entries, bytes_logical, bytes_read, bytes_unchanged, bytes_new, bytes_stored, chunks, chunks_new] =
            amounts;
        Self { entries, bytes_logical, bytes_read, bytes_unchanged, bytes_new, bytes_stored, chunks, chunks_new }
    }
}

impl Backup {
    /// `place` is that of the body.
    pub(crate) fn from_body(id: BackupId, place: Place, body: BackupBody) -> Result<Self> {
        Ok(Self {
            id,
            replaces: Vec::new(),
            kind: (body.kind.parse())
                .map_err(|_| Error::damaged("backup body", place.key(), "its kind is not valid"))?,
            host: body.host,
            tags: body.tags,
            labels: body.labels,
            started: body.started,
            finished: body.finished,
            parent: body.parent,
            statistics: BackupStatistics::from_amounts(body.amounts),
            problems: body.problems.into_iter().map(|(name, message)| Problem { name, message }).collect(),
            problem_count: body.problem_count,
            origins: body.origins.into_iter().map(|(repository, backup)| Origin::new(repository, backup)).collect(),
            catalogue: body.catalogue,
        })
    }
}

/// Something that was left out or could not be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Problem {
    /// The path or object.
    pub name: String,
    /// What happened.
    pub message: String,
}

impl Problem {
    /// A problem with the thing called `name`.
    #[must_use]
    pub fn new(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self { name: name.into(), message: message.into() }
    }
}

/// Problems of a running operation: the first are kept, all are counted.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    pub(crate) first: Vec<Problem>,
    pub(crate) count: u64,
}

impl Problems {
    /// Problems that a backup or report lists; more are counted only, so that a tree of unreadable
    /// files cannot exhaust memory.
    pub(crate) const KEPT: usize = 1000;
    /// Longest text of a name or message that is kept, in bytes.
    const TEXT: usize = 1000;

    pub(crate) fn record(&mut self, name: &str, message: &str) {
        self.count = self.count.saturating_add(1);
        if self.first.len() < Self::KEPT {
            let clip = |text: &str| {
                text.chars()
                    .scan(0usize, |used, c| {
                        *used = used.saturating_add(c.len_utf8());
                        (*used <= Self::TEXT).then_some(c)
                    })
                    .collect::<String>()
            };
            self.first.push(Problem { name: clip(name), message: clip(message) });
        }
    }
}

/// An error and its sources as one line.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_round_trip() {
        for name in ["data", "sensitive-configuration", "virtual-machine", "wiki.attachments"] {
            assert_eq!(name.parse::<BackupKind>().unwrap().to_string(), name);
        }
        for bad in ["", "Data", "a b", &"x".repeat(65)] {
            assert!(bad.parse::<BackupKind>().is_err(), "{bad}");
        }
    }

    #[test]
    fn problems_are_counted_beyond_those_kept() {
        let mut problems = Problems::default();
        for number in 0..2000 {
            problems.record(&format!("file {number}"), &"x".repeat(5000));
        }
        assert_eq!(problems.count, 2000);
        assert_eq!(problems.first.len(), Problems::KEPT);
        assert!(problems.first[0].message.len() <= 1000);
    }
}
