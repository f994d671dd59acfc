//! Finding backups and entries.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::content::{CatalogueCursor, CatalogueReader, Entry, EntryPath};
use crate::error::{Error, Result};
use crate::format::header::Header;
use crate::format::layout::Place;
use crate::length::to_u64;
use crate::limits;
use crate::object::{ObjectType, verify_name};
use crate::repository::backup::{Backup, Problem, UnreadableBackup, error_chain};
use crate::repository::environment::Control;
use crate::repository::handle::{Inner, Repository};
use crate::repository::locked::lost_records;
use crate::repository::parallel::{POISONED, for_each, lock};
use crate::session::{BackupBody, Commit, History};

impl Repository {
    /// All backups, oldest first.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`]; [`Error::Damaged`] naming a body that cannot be opened. [`list`](Self::list) is for
    /// those who want the others nevertheless.
    pub fn backups(&self) -> Result<Vec<Backup>> {
        let history = self.inner.history(&Control::waiting())?;
        self.opened(&history)?.into_iter().map(|(_, backup)| backup).collect()
    }

    /// All backups, oldest first, those among them that cannot be opened as `Err`.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`] where the storage cannot be listed or a commit cannot be read.
    pub fn list(&self) -> Result<Vec<Result<Backup, UnreadableBackup>>> {
        let history = self.inner.history(&Control::waiting())?;
        self.listed(&history)
    }

    /// As [`LockedRepository::lost_records`](crate::repository::LockedRepository::lost_records).
    ///
    /// # Errors
    ///
    /// [`Error::Storage`].
    pub fn lost_records(&self) -> Result<Vec<Problem>> {
        lost_records(&*self.inner.history(&Control::waiting())?, &*self.inner.storage)
    }

    /// The backup called `name`: `latest`, an id, or the beginning of the ids of one backup only (at least 4 digits). Ids that a
    /// backup had before it was replaced count. Other backups need not be readable.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::InvalidArgument`] where several ids begin so; [`Error::Storage`];
    /// [`Error::Damaged`] naming the body of the backup.
    pub fn find_backup(&self, name: &str) -> Result<Backup> {
        let history = self.inner.history(&Control::waiting())?;
        if name == "latest" {
            let none = || Error::not_found("backup", "latest (there are no backups in the repository)");
            let latest = history.in_order().pop().ok_or_else(none)?;
            return self.inner.read_backup(latest, &Control::default());
        }
        if name.len() < 4 {
            return Err(Error::invalid("backup", format!("{name:?} is shorter than 4 digits")));
        }
        match history.find_all(name).as_slice() {
            [] => Err(Error::not_found("backup", name)),
            [commit] => self.inner.read_backup(commit, &Control::default()),
            _ => Err(Error::invalid("backup", format!("several backups begin with {name}"))),
        }
    }

    /// The entries of a backup, in the order of their paths.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`], [`Error::Damaged`] where the index cannot be read; later errors come as items.
    pub fn entries(&self, backup: &Backup) -> Result<Entries> {
        self.entries_from(backup, None)
    }

    /// The entries of a backup from the path `from` on.
    ///
    /// # Errors
    ///
    /// As [`entries`](Self::entries).
    pub fn entries_from(&self, backup: &Backup, from: Option<&EntryPath>) -> Result<Entries> {
        self.inner.index(&Control::default())?;
        let cursor = CatalogueCursor::new(&backup.catalogue, from);
        Ok(Entries { inner: Arc::clone(&self.inner), cursor })
    }

    /// One entry, as the catalogue has it: a hard link names the entry that it links to and has no content
    /// of its own.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] naming it; [`Error::Storage`], [`Error::Damaged`].
    pub fn entry(&self, backup: &Backup, path: &EntryPath) -> Result<Entry> {
        let found = CatalogueReader::new(backup.catalogue, &*self.inner).get(path)?;
        found.ok_or_else(|| Error::not_found("entry", path))
    }

    /// One entry with its content: that of a hard link is the content of the entry that it links to, and
    /// its `hard_link` is then `None`.
    ///
    /// # Errors
    ///
    /// As [`entry`](Self::entry); [`Error::Damaged`] naming a link that leads nowhere.
    pub fn content_entry(&self, backup: &Backup, path: &EntryPath) -> Result<Entry> {
        self.with_content(backup, self.entry(backup, path)?)
    }

    /// The same of an entry that was read already.
    pub(crate) fn with_content(&self, backup: &Backup, mut entry: Entry) -> Result<Entry> {
        let Some(target) = entry.hard_link.take() else { return Ok(entry) };
        let original = CatalogueReader::new(backup.catalogue, &*self.inner).get(&target)?;
        let original = link_target(&entry, original).map_err(|reason| {
            Error::damaged("entry", &entry.path, format!("it is a hard link to {target}, {reason}"))
        })?;
        (entry.content, entry.digest, entry.inconsistent) = (original.content, original.digest, original.inconsistent);
        Ok(entry)
    }

    pub(crate) fn listed(&self, history: &History) -> Result<Vec<Result<Backup, UnreadableBackup>>> {
        let opened = self.opened(history)?.into_iter();
        Ok(opened.map(|(commit, backup)| backup.map_err(|error| unreadable(commit, &error))).collect())
    }

    /// Every backup in order, opened where it can be.
    fn opened<'h>(&self, history: &'h History) -> Result<Vec<(&'h Commit, Result<Backup>)>> {
        let commits: Vec<&Commit> = history.in_order();
        let opened = Mutex::new(BTreeMap::new());
        let control = Control::waiting();
        for_each(&control, commits.len(), &|| Ok(()), &|(), number| {
            let Some(commit) = commits.get(number) else { return Ok(()) };
            let backup = self.inner.read_backup(commit, &control);
            lock(&opened)?.insert(number, (*commit, backup));
            Ok(())
        })?;
        Ok(opened.into_inner().map_err(|_| POISONED)?.into_values().collect())
    }
}

/// The entry that has the content of a hard link, if what was `found` under the name is one.
pub(crate) fn link_target(link: &Entry, found: Option<Entry>) -> Result<Entry, &'static str> {
    match found {
        None => Err("which is not there"),
        Some(found) if found.hard_link.is_some() => Err("which is a link itself"),
        Some(found) if found.kind.has_content() != link.kind.has_content() => Err("which is something else"),
        Some(found) => Ok(found),
    }
}

/// What is known of a backup without its body.
pub(crate) fn unreadable(commit: &Commit, error: &Error) -> UnreadableBackup {
    UnreadableBackup { id: commit.id, time: commit.content.time, reason: error_chain(error) }
}

impl Inner {
    /// Opens the body of a backup.
    pub(crate) fn read_backup(&self, commit: &Commit, control: &Control) -> Result<Backup> {
        let name = &commit.content.body;
        let place = Place::Body(*name);
        let key = place.key();
        let bytes = self.get(&key, limits::BODY, control)?;
        verify_name("backup body", key.as_str(), name, &bytes)?;
        let body = self.keys.open(ObjectType::Body, key.as_str(), &bytes)?;
        let backup = Backup::from_body(commit.id, place, BackupBody::decode(&body, key.as_str())?)?;
        Ok(Backup { replaces: commit.content.replaces.clone(), ..backup })
    }

    /// Refuses a keyring that is older than `commit`: the storage lost the newest one, or hides it, or this handle
    /// was opened before the root key was changed. The commit is signed, so its body's header can be trusted.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] naming the keyring. A body that cannot be read says nothing.
    pub(crate) fn check_keyring_is_not_older(&self, commit: &Commit, control: &Control) -> Result<()> {
        let name = &commit.content.body;
        let key = Place::Body(*name).key();
        let header = self.get(&key, limits::BODY, control).and_then(|bytes| {
            verify_name("backup body", key.as_str(), name, &bytes)?;
            Header::parse(&bytes, to_u64(bytes.len()), "backup body", key.as_str())
        });
        match header {
            Ok(header) if header.generation > self.generation => Err(Error::damaged(
                "keyring",
                Place::Keyring(self.keyring_number).key(),
                format!("backup {} was made with root key {}, which it lacks", commit.id, header.generation),
            )),
            _ => Ok(()),
        }
    }
}

/// Entries of a backup, in the order of their paths. An entry that cannot be read is an `Err` item;
/// the iteration ends behind an error that keeps it from going on.
pub struct Entries {
    inner: Arc<Inner>,
    cursor: CatalogueCursor,
}

impl Iterator for Entries {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        self.cursor.next(&*self.inner)
    }
}

impl std::fmt::Debug for Entries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entries").finish_non_exhaustive()
    }
}
