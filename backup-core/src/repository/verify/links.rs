//! Hard links lead to files of the same backup.

use crate::content::{CatalogueEntries, CatalogueReader, Entry, EntryPath};
use crate::error::Result;
use crate::id::BackupId;
use crate::repository::list::link_target;
use crate::repository::verify::report::{AffectedEntry, FindingKind, Findings};

/// As many entries are passed over before a wanted one is looked for from the root.
const NEAR: usize = 1024;

/// Checks `links`, entries of a backup, against its catalogue. What cannot be read there is reported elsewhere.
pub(crate) fn check_links(
    backup: BackupId,
    catalogue: CatalogueReader<'_>,
    links: &[Entry],
    findings: &Findings,
) -> Result<()> {
    let mut links: Vec<(&EntryPath, &Entry)> =
        links.iter().filter_map(|link| link.hard_link.as_ref().map(|target| (target, link))).collect();
    links.sort_by_key(|(target, _)| *target);
    let mut lookup = Lookup { catalogue, entries: None, at: None };
    for (target, link) in links {
        let Ok(found) = lookup.find(target) else { return Ok(()) };
        if let Err(reason) = link_target(link, found) {
            let path = link.path.to_string();
            let message = format!("in backup {backup} it is a hard link to {target}, {reason}");
            findings.add(FindingKind::Structure, &path, &message)?;
            findings.affect(&[path], &AffectedEntry { backup, path: link.path.clone() })?;
        }
    }
    Ok(())
}

/// Finds entries whose paths are asked for in ascending order: pages of neighbours are read once.
struct Lookup<'s> {
    catalogue: CatalogueReader<'s>,
    entries: Option<CatalogueEntries<'s>>,
    /// The entry that was read last.
    at: Option<Entry>,
}

impl Lookup<'_> {
    fn find(&mut self, path: &EntryPath) -> Result<Option<Entry>> {
        for _ in 0..NEAR {
            if let Some(entry) = self.at.as_ref().filter(|entry| entry.path >= *path) {
                return Ok(Some(entry.clone()).filter(|entry| entry.path == *path));
            }
            let Some(entries) = &mut self.entries else { break };
            match entries.next().transpose()? {
                Some(entry) => self.at = Some(entry),
                None => return Ok(None),
            }
        }
        let mut entries = self.catalogue.entries(Some(path));
        self.at = entries.next().transpose()?;
        self.entries = Some(entries);
        Ok(self.at.clone().filter(|entry| entry.path == *path))
    }
}
