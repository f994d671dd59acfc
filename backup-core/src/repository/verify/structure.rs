//! Structure: every backup opens, every page is whole, every chunk has a place.

use std::collections::BTreeSet;

use hashbrown::HashSet;

use crate::content::{CatalogueReader, ChunkRef, Entry, PageSource, Refs, walk_pages};
use crate::error::{Error, Result};
use crate::format::layout::Place;
use crate::id::{ChunkId, ObjectName};
use crate::index::{Index, Location};
use crate::progress::Event;
use crate::repository::backup::Backup;
use crate::repository::environment::Control;
use crate::repository::handle::Inner;
use crate::repository::read::IndexedPages;
use crate::repository::verify::content::Damage;
use crate::repository::verify::report::{AffectedEntry, FindingKind, Findings};
use crate::session::{Closure, Commit};

/// What was walked already; equal pages of several backups are walked once.
#[derive(Default)]
pub(crate) struct Walked {
    /// Content pages: id, height, bytes covered.
    pages: HashSet<(ChunkId, u8, u64)>,
}

/// Walks one backup. `closure` is what its commit says that it needs.
pub(crate) fn check_backup(
    inner: &Inner,
    index: &Index,
    pages: &IndexedPages,
    commit: &Commit,
    closure: Option<&Closure>,
    walked: &mut Walked,
    control: &Control,
    findings: &Findings,
) -> Result<()> {
    let body = Place::Body(commit.content.body).key();
    let backup = match inner.read_backup(commit, control) {
        Ok(backup) => backup,
        Err(error) => return findings.add_error(FindingKind::Structure, body.as_str(), error),
    };
    let catalogue = CatalogueReader::new(backup.catalogue, pages);
    let outside = |pack: &ObjectName| closure.is_some_and(|closure| !closure.packs.contains_key(pack));
    let mut reported: HashSet<ObjectName> = HashSet::new();
    let mut check_place = |id: &ChunkId| {
        let Some(Location { pack, .. }) = index.lookup(id) else { return Ok(false) };
        // Two writers may have stored the same chunk: one of its places must be named.
        if outside(&pack)
            && index.lookup_all(id).iter().all(|location| outside(&location.pack))
            && reported.insert(pack)
        {
            let key = Place::Pack(pack).key();
            findings.add(
                FindingKind::Structure,
                key.as_str(),
                &format!("backup {} needs it and its closure does not name it", commit.id),
            )?;
        }
        Ok(true)
    };
    // A page without a place is reported when the entries below it are read.
    let result = catalogue.walk_pages(&mut |page, _| check_place(&page.id));
    if let Err(error) = result {
        findings.add_error(FindingKind::Structure, body.as_str(), error)?;
    }
    let mut entries = 0u64;
    for entry in catalogue.entries(None) {
        control.cancel().check()?;
        match entry {
            Ok(entry) => {
                entries = entries.saturating_add(1);
                check_entry(&backup, &entry, pages, walked, &mut check_place, findings)?;
                control.event(&Event::EntryFinished { path: &entry.path });
            }
            Err(error) => findings.add_error(FindingKind::Structure, body.as_str(), error)?,
        }
    }
    if entries != backup.statistics.entries {
        findings.add(
            FindingKind::Structure,
            body.as_str(),
            &format!("{entries} entries can be read of {}", backup.statistics.entries),
        )?;
    }
    findings.count(|report| report.entries_checked = report.entries_checked.saturating_add(entries))
}

/// Walks the content of an entry: pages first, each once, then references. `check_place` says whether a chunk has
/// a place.
fn check_entry(
    backup: &Backup,
    entry: &Entry,
    pages: &dyn PageSource,
    walked: &mut Walked,
    check_place: &mut dyn FnMut(&ChunkId) -> Result<bool>,
    findings: &Findings,
) -> Result<()> {
    let affected = AffectedEntry { backup: backup.id, path: entry.path.clone() };
    let mut fresh = false;
    let mut lost: Vec<ChunkId> = Vec::new();
    let result = walk_pages(&entry.content, pages, &mut |page, height, covered| {
        if !check_place(&page.id)? {
            lost.push(page.id);
            return Ok(false);
        }
        let new = walked.pages.insert((page.id, height, covered));
        fresh |= new;
        Ok(new)
    });
    let mut damage = result.err();
    let inline = matches!(entry.content.root, crate::content::ContentRoot::Inline(_));
    if damage.is_none() && lost.is_empty() && (fresh || inline) {
        for item in Refs::new(&entry.content, 0..entry.content.length, pages) {
            match item {
                Ok((_, ChunkRef::Data { id, .. })) => {
                    if !check_place(&id)? {
                        lost.push(id);
                    }
                }
                Ok((_, ChunkRef::Hole { .. })) => {}
                Err(error) => damage = Some(error),
            }
        }
    }
    if let Some(error) = damage {
        let object = match &error {
            Error::Damaged { name, .. } => name.clone(),
            _ => entry.path.to_string(),
        };
        findings.add_error(FindingKind::Structure, &object, error)?;
        findings.affect(&[object], &affected)?;
    }
    lost.sort_unstable();
    lost.dedup();
    for id in lost {
        let object = id.to_string();
        findings.add(FindingKind::Chunk, &object, "no index names it")?;
        findings.affect(&[object], &affected)?;
    }
    Ok(())
}

/// Adds to findings about packs and chunks the entries that need them.
pub(crate) fn affected_entries(
    inner: &Inner,
    index: &Index,
    pages: &IndexedPages,
    commit: &Commit,
    damage: &Damage,
    control: &Control,
    findings: &Findings,
) -> Result<()> {
    let Ok(backup) = inner.read_backup(commit, control) else { return Ok(()) };
    for entry in CatalogueReader::new(backup.catalogue, pages).entries(None) {
        control.cancel().check()?;
        // What cannot be read was reported by the walk.
        let Ok(entry) = entry else { continue };
        // Hundreds of chunks of one entry are usually in few packs.
        let mut objects: BTreeSet<String> = BTreeSet::new();
        for item in Refs::new(&entry.content, 0..entry.content.length, pages) {
            let Ok((_, ChunkRef::Data { id, .. })) = item else { continue };
            if damage.chunks.contains(&id) {
                objects.insert(id.to_string());
            }
            // A chunk that another, good pack has is not lost.
            let places = index.lookup_all(&id);
            if places.iter().all(|location| damage.packs.contains(&location.pack)) {
                objects.extend(places.iter().map(|location| Place::Pack(location.pack).key().to_string()));
            }
        }
        if !objects.is_empty() {
            findings.affect(
                &objects.into_iter().collect::<Vec<_>>(),
                &AffectedEntry { backup: backup.id, path: entry.path },
            )?;
        }
    }
    Ok(())
}
