//! What changed between two backups.

use std::cmp::Ordering;

use serde::Serialize;

use crate::content::{Entry, EntryPath};
use crate::error::Result;
use crate::repository::backup::Backup;
use crate::repository::handle::Repository;

/// A path that is not the same in two backups, or in a backup and the live data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Difference {
    /// The path.
    pub path: EntryPath,
    /// What changed.
    pub change: Change,
}

impl Difference {
    pub(crate) const fn new(path: EntryPath, change: Change) -> Self {
        Self { path, change }
    }
}

/// How an entry changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Change {
    /// It is in the second only.
    Added,
    /// It is in the first only.
    Removed,
    /// It is in both.
    Modified {
        /// Its content, kind or link differs.
        content: bool,
        /// Its permissions, owner, times or extended attributes differ.
        attributes: bool,
    },
}

impl Repository {
    /// What changed from the backup `first` to `second`, in the order of paths. Contents are compared by the
    /// chunks that they refer to: nothing is read but catalogues.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`](crate::Error::Damaged), [`Error::Storage`](crate::Error::Storage) where a catalogue
    /// cannot be read.
    pub fn differences(&self, first: &Backup, second: &Backup) -> Result<Vec<Difference>> {
        let (mut left, mut right) = (self.entries(first)?, self.entries(second)?);
        let (mut old, mut new) = (left.next().transpose()?, right.next().transpose()?);
        let mut differences = Vec::new();
        loop {
            let order = match (&old, &new) {
                (None, None) => return Ok(differences),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.path.cmp(&new.path),
            };
            match order {
                Ordering::Less => {
                    differences.extend(old.take().map(|entry| Difference::new(entry.path, Change::Removed)));
                    old = left.next().transpose()?;
                }
                Ordering::Greater => {
                    differences.extend(new.take().map(|entry| Difference::new(entry.path, Change::Added)));
                    new = right.next().transpose()?;
                }
                Ordering::Equal => {
                    if let (Some(old), Some(new)) = (old.take(), new.take())
                        && let Some(change) = change(&old, &new)
                    {
                        differences.push(Difference::new(new.path, change));
                    }
                    old = left.next().transpose()?;
                    new = right.next().transpose()?;
                }
            }
        }
    }
}

fn change(old: &Entry, new: &Entry) -> Option<Change> {
    let same_bytes = match (old.digest, new.digest) {
        (Some(old), Some(new)) => old == new,
        _ => old.content == new.content,
    };
    let content = old.kind != new.kind || old.hard_link != new.hard_link || old.size() != new.size() || !same_bytes;
    let attributes = !same_attributes(old, new);
    (content || attributes).then_some(Change::Modified { content, attributes })
}

/// Inode numbers and inode change times are not what a user would call an attribute.
pub(crate) fn same_attributes(old: &Entry, new: &Entry) -> bool {
    let (old, new) = (&old.attributes, &new.attributes);
    (old.mode, old.uid, old.gid, old.modified) == (new.mode, new.uid, new.gid, new.modified)
        && old.extended == new.extended
}
