//! Which backups of other repositories a repository has: its bodies say what they are copies of.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::error::Result;
use crate::format::layout::Place;
use crate::id::BackupId;
use crate::repository::{Backup, Control, Inner, Origin, POISONED, Problem, error_chain, for_each, lock};
use crate::session::{Commit, History};

/// The backups of a repository by what they are: themselves, and copies of others.
#[derive(Default)]
pub(crate) struct Arrivals {
    by_origin: BTreeMap<Origin, BTreeMap<BackupId, bool>>,
    /// Backups that were looked at already, and whether they are forgotten.
    seen: BTreeMap<BackupId, bool>,
    /// Backups whose bodies cannot be read: nobody knows what they are copies of.
    pub(crate) problems: Vec<Problem>,
}

/// What a repository has of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It is there, under this id.
    There(BackupId),
    /// It was there and is forgotten. After a collection that cannot be known.
    Forgotten,
}

/// All that a backup is known as: what it is a copy of, and itself, by every id that it has or had.
pub(crate) fn names_of(inner: &Inner, backup: &Backup) -> Vec<Origin> {
    let ids = backup.replaces.iter().chain([&backup.id]);
    let itself = ids.map(|id| Origin::new(inner.config.repository, *id));
    backup.origins.iter().copied().chain(itself).collect()
}

impl Arrivals {
    /// Looks at the backups of `history` that were not looked at before.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`](crate::Error::Storage), [`Error::Cancelled`](crate::Error::Cancelled).
    pub(crate) fn look(&mut self, inner: &Inner, history: &History, control: &Control) -> Result<()> {
        let is_forgotten = |commit: &Commit| history.is_forgotten(commit);
        let is_news = |commit: &&Commit| self.seen.get(&commit.id) != Some(&is_forgotten(commit));
        let news: Vec<&Commit> = history.valid.values().filter(is_news).collect();
        let found = Mutex::new(Vec::new());
        for_each(control, news.len(), &|| Ok(()), &|(), number| {
            let Some(commit) = news.get(number) else { return Ok(()) };
            match inner.read_backup(commit, control) {
                Err(error) if !error.is_of_one_object() => return Err(error),
                read => lock(&found)?.push((*commit, read)),
            }
            Ok(())
        })?;
        for (commit, read) in found.into_inner().map_err(|_| POISONED)? {
            let is_forgotten = is_forgotten(commit);
            self.seen.insert(commit.id, is_forgotten);
            match read {
                Ok(backup) => {
                    for name in names_of(inner, &backup) {
                        self.by_origin.entry(name).or_default().insert(commit.id, is_forgotten);
                    }
                }
                // The body of a forgotten one may be gone by now.
                Err(_) if is_forgotten => {}
                Err(error) => {
                    let name = format!("{} at the destination", Place::Body(commit.content.body).key());
                    self.problems.push(Problem::new(name, error_chain(&error)));
                }
            }
        }
        Ok(())
    }

    /// Notes a copy that was made just now.
    pub(crate) fn add(&mut self, copy: BackupId, names: &[Origin]) {
        self.seen.insert(copy, false);
        for name in names {
            self.by_origin.entry(*name).or_default().insert(copy, false);
        }
    }

    /// What there is of the backup that is known by these names. Where two copiers were at work at once there may be
    /// two copies: the one with the smallest id is meant.
    pub(crate) fn find(&self, names: &[Origin]) -> Option<Arrival> {
        let copies: BTreeMap<BackupId, bool> =
            names.iter().filter_map(|name| self.by_origin.get(name)).flatten().map(|(id, gone)| (*id, *gone)).collect();
        let there = copies.iter().find(|(_, is_forgotten)| !**is_forgotten);
        let found = there.map(|(id, _)| Arrival::There(*id));
        found.or_else(|| (!copies.is_empty()).then_some(Arrival::Forgotten))
    }
}
