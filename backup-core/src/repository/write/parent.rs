//! The backup that a new one is made relative to. One that cannot be read makes the new one slower, not wrong.

use std::iter::Peekable;

use crate::content::{CatalogueEntries, CatalogueReader, Entry, EntryPath, PageSource};
use crate::error::{Error, Result};
use crate::format::layout::Place;
use crate::id::BackupId;
use crate::progress::Event;
use crate::repository::backup::{Backup, error_chain};
use crate::repository::handle::Inner;
use crate::repository::write::options::{BackupOptions, Parent};
use crate::repository::write::session::BackupSession;
use crate::session::History;
use crate::time::Timestamp;

/// Backups of one kind and host that are looked at for a root that the newest of them does not have.
const LOOK_BACK: usize = 64;

/// The backups that a session may be made relative to.
pub(crate) struct Parents {
    /// Those that were read: the named one, or the newest of the same kind and host, newest first.
    read: Vec<Backup>,
    /// The commits before them, newest last. Of what kind and host they are is not known yet.
    unread: Vec<BackupId>,
    /// The newest of those that a tree was found in.
    used: Option<usize>,
}

impl Parents {
    /// Those that `options` mean; of several, the newest is read.
    pub(crate) fn find(inner: &Inner, history: &History, options: &BackupOptions) -> Result<Self> {
        let mut parents = Self { read: Vec::new(), unread: Vec::new(), used: None };
        match &options.parent {
            Parent::None => {}
            Parent::Newest => {
                parents.unread = history.in_order().into_iter().map(|commit| commit.id).collect();
                parents.read_next(inner, history, options)?;
            }
            Parent::Backup(id) => {
                let commit = history.find(id).ok_or_else(|| Error::not_found("backup", id))?;
                parents.read.push(inner.read_backup(commit, &options.control)?);
            }
        }
        Ok(parents)
    }

    /// Reads the next older backup of the same kind and host; `false` where there is none. One whose body cannot be
    /// read is passed over: verification reports it, and it must not keep anybody from making new backups.
    fn read_next(&mut self, inner: &Inner, history: &History, options: &BackupOptions) -> Result<bool> {
        while let Some(commit) = self.unread.pop().and_then(|id| history.commits.get(&id)) {
            match inner.read_backup(commit, &options.control) {
                Ok(backup) if backup.kind == options.kind && backup.host == options.host => {
                    self.read.push(backup);
                    return Ok(true);
                }
                Ok(_) => {}
                Err(error) if error.is_of_one_object() => {
                    inner.check_keyring_is_not_older(commit, &options.control)?;
                    let name = Place::Body(commit.content.body).key();
                    options.control.event(&Event::Problem { name: name.as_str(), message: &error_chain(&error) });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// The one that the backup names as its parent.
    pub(crate) fn named(&self) -> Option<&Backup> {
        self.read.get(self.used.unwrap_or(0))
    }
}

/// Entries of the backup that a tree is compared with, in the order of the walk.
pub(crate) struct ParentEntries<'r> {
    backup: &'r Backup,
    entries: Peekable<CatalogueEntries<'r>>,
}

/// What a parent has at a path.
pub(crate) struct ParentEntry {
    pub(crate) entry: Entry,
    /// When the parent began.
    pub(crate) started: Timestamp,
}

impl<'r> ParentEntries<'r> {
    /// The entries of `backup`, read from `pages`.
    pub(crate) fn of(backup: &'r Backup, pages: &'r dyn PageSource, from: Option<&EntryPath>) -> Self {
        let entries = CatalogueReader::new(backup.catalogue, pages).entries(from).past_damage();
        Self { backup, entries: entries.peekable() }
    }
}

impl BackupSession {
    /// Whether the caller said which backup the parent is.
    pub(crate) const fn has_named_parent(&self) -> bool {
        matches!(self.options.parent, Parent::Backup(_))
    }

    pub(crate) fn parent_pages(&self) -> &dyn PageSource {
        self.store.stored_pages()
    }

    pub(crate) fn parent_entry(&self, path: &EntryPath) -> Result<Option<Entry>> {
        match self.parent() {
            Some(parent) => match CatalogueReader::new(parent.catalogue, self.parent_pages()).get(path) {
                // A parent that cannot be read makes the backup slower, not wrong.
                Err(error) if error.is_of_one_object() => {
                    let name = path.to_string();
                    self.control.event(&Event::Problem { name: &name, message: &error_chain(&error) });
                    Ok(None)
                }
                found => found,
            },
            None => Ok(None),
        }
    }

    /// The backup that the tree below `root` is compared with: the newest that has something there, and where none
    /// has, the newest of all.
    pub(crate) fn choose_parent(&mut self, root: &EntryPath) -> Result<Option<usize>> {
        if self.has_named_parent() {
            return Ok(Some(0));
        }
        for number in 0..LOOK_BACK {
            let inner = &self.repository.inner;
            if self.parents.read.len() <= number && !self.parents.read_next(inner, &self.history, &self.options)? {
                break;
            }
            let Some(backup) = self.parents.read.get(number) else { break };
            match CatalogueReader::new(backup.catalogue, self.store.stored_pages()).get(root) {
                Ok(Some(_)) => {
                    self.parents.used = Some(self.parents.used.map_or(number, |used| used.min(number)));
                    return Ok(Some(number));
                }
                Ok(None) => {}
                // One that cannot be read makes the backup slower, not wrong.
                Err(error) if error.is_of_one_object() => {
                    let name = backup.id.to_string();
                    self.control.event(&Event::Problem { name: &name, message: &error_chain(&error) });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Some(0).filter(|_| !self.parents.read.is_empty()))
    }

    /// The entries of a chosen parent, `from` this path on.
    pub(crate) fn parent_entries(&self, chosen: usize, from: &EntryPath) -> Option<ParentEntries<'_>> {
        let backup = self.parents.read.get(chosen)?;
        Some(ParentEntries::of(backup, self.parent_pages(), Some(from)))
    }

    /// The parent's entry at `path`; the walk and the parent's catalogue have the same order.
    pub(crate) fn same_path(&self, parent: &mut ParentEntries<'_>, path: &EntryPath) -> Option<ParentEntry> {
        loop {
            match parent.entries.peek()? {
                Ok(entry) if entry.path < *path => drop(parent.entries.next()),
                Ok(entry) if entry.path == *path => {
                    let entry = parent.entries.next()?.ok()?;
                    return Some(ParentEntry { entry, started: parent.backup.started });
                }
                Ok(_) => return None,
                // A parent that cannot be read makes the backup slower, not wrong: on with what is behind it.
                Err(error) => {
                    let name = parent.backup.id.to_string();
                    self.control.event(&Event::Problem { name: &name, message: &error_chain(error) });
                    drop(parent.entries.next());
                }
            }
        }
    }
}
