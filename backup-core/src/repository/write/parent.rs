//! The backup that a new one is made relative to. One that cannot be read makes the new one slower, not wrong.

use std::iter::Peekable;

use crate::content::{CatalogueEntries, CatalogueReader, Entry, EntryPath, PageSource};
use crate::error::Result;
use crate::format::layout::Place;
use crate::progress::Event;
use crate::repository::backup::{Backup, error_chain};
use crate::repository::handle::Inner;
use crate::repository::write::options::{BackupOptions, Parent};
use crate::repository::write::session::BackupSession;
use crate::session::History;

/// The newest backup of the same kind and host. One whose body cannot be read is passed over: verification
/// reports it, and it must not keep anybody from making new backups.
pub(crate) fn newest_like(inner: &Inner, history: &History, options: &BackupOptions) -> Result<Option<Backup>> {
    for commit in history.in_order().into_iter().rev() {
        match inner.read_backup(commit, &options.control) {
            Ok(backup) if backup.kind == options.kind && backup.host == options.host => return Ok(Some(backup)),
            Ok(_) => {}
            Err(error) if error.is_of_one_object() => {
                inner.check_keyring_is_not_older(commit, &options.control)?;
                let name = Place::Body(commit.content.body).key();
                options.control.event(&Event::Problem { name: name.as_str(), message: &error_chain(&error) });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Entries of the parent backup, none without one.
pub(crate) type ParentEntries<'r> = std::iter::Flatten<std::option::IntoIter<CatalogueEntries<'r>>>;

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

    pub(crate) fn parent_entries(&self, from: &EntryPath) -> Option<CatalogueEntries<'_>> {
        let parent = self.parent()?;
        Some(CatalogueReader::new(parent.catalogue, self.parent_pages()).entries(Some(from)).past_damage())
    }

    /// The parent's entry at `path`; the walk and the parent's catalogue have the same order.
    pub(crate) fn same_path(&self, entries: &mut Peekable<ParentEntries<'_>>, path: &EntryPath) -> Option<Entry> {
        loop {
            match entries.peek()? {
                Ok(entry) if entry.path < *path => drop(entries.next()),
                Ok(entry) if entry.path == *path => return entries.next()?.ok(),
                Ok(_) => return None,
                // A parent that cannot be read makes the backup slower, not wrong: on with what is behind it.
                Err(error) => {
                    let name = self.parent().map(|parent| parent.id.to_string()).unwrap_or_default();
                    self.control.event(&Event::Problem { name: &name, message: &error_chain(error) });
                    drop(entries.next());
                }
            }
        }
    }
}
