//! Structure: every backup opens, every page is whole, every chunk has a place.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::content::{
    CatalogueBelow, CataloguePage, CatalogueReader, CatalogueRoot, ChunkRef, ContentBelow, ContentRoot, Entry, PageRef,
    content_below,
};
use crate::error::{Error, Result};
use crate::format::layout::Place;
use crate::id::{BackupId, ChunkId, ObjectName};
use crate::index::{Index, Location};
use crate::pack::ChunkKind;
use crate::progress::Event;
use crate::repository::environment::Control;
use crate::repository::handle::Inner;
use crate::repository::read::IndexedPages;
use crate::repository::shard::Shard;
use crate::repository::verify::content::Damage;
use crate::repository::verify::links::check_links;
use crate::repository::verify::report::{AffectedEntry, FindingKind, Findings, IncompleteBackup};
use crate::session::{Closure, Commit};

/// Subtrees with more hard links than this are walked again in every backup.
const REMEMBERED_LINKS: usize = 64;
/// Subtrees that need more packs than this are not remembered themselves; those below them are.
const REMEMBERED_PACKS: usize = 4096;

/// Walks backups. What several of them share is walked once, unless something in it is not as it must be: then
/// every entry that it hurts is named.
pub(crate) struct Walk<'w> {
    inner: &'w Inner,
    index: &'w Index,
    pages: IndexedPages,
    damage: &'w Damage,
    control: &'w Control,
    findings: &'w Findings,
    /// Leaves of catalogues that are walked, with the contents of their entries: all, those of a shard, or all but those.
    shard: Option<Shard>,
    others: bool,
    /// Subtrees in which everything is good, and what they need of the rest of their backup.
    good: HashMap<Subtree, Needs>,
    /// Numbers of packs, given as they are met.
    packs: HashMap<ObjectName, u32>,
}

/// A page and what its parent says of it: all that decides whether what is below it is good.
#[derive(PartialEq, Eq, Hash)]
enum Subtree {
    Content(PageRef, u8, u64),
    Catalogue(CataloguePage),
}

/// What must be there outside of a subtree.
struct Needs {
    packs: Vec<u32>,
    links: Vec<Entry>,
    /// Entries that were walked in it.
    entries: u64,
}

/// The backup that is walked.
struct Walked {
    id: BackupId,
    catalogue: CatalogueRoot,
    /// The storage key of its body.
    body: String,
    /// The packs that its closure names, if that can be read.
    closure: Option<HashSet<u32>>,
}

/// What was found below a page.
struct Below {
    is_good: bool,
    packs: BTreeSet<u32>,
    /// Hard links. Whether they lead anywhere is another matter in every backup.
    links: Vec<Entry>,
    entries: u64,
}

impl Below {
    fn new() -> Self {
        Self { is_good: true, packs: BTreeSet::new(), links: Vec::new(), entries: 0 }
    }

    fn add(&mut self, other: Self) {
        self.is_good &= other.is_good;
        self.packs.extend(other.packs);
        if self.links.len() <= REMEMBERED_LINKS {
            self.links.extend(other.links);
        }
        self.entries = self.entries.saturating_add(other.entries);
    }
}

impl<'w> Walk<'w> {
    /// `damage` is what reading the packs has shown.
    pub(crate) fn new(
        inner: &'w Arc<Inner>,
        index: &'w Arc<Index>,
        damage: &'w Damage,
        control: &'w Control,
        findings: &'w Findings,
        shard: Option<Shard>,
        others: bool,
    ) -> Self {
        // Not the caches that other readers fill: damage is to be seen.
        let pages = IndexedPages::new(inner, Arc::clone(index), Arc::default(), control);
        Self {
            inner,
            index,
            pages,
            damage,
            control,
            findings,
            shard,
            others,
            good: HashMap::new(),
            packs: HashMap::new(),
        }
    }

    /// Walks one backup. `closure` is what its commit says that it needs.
    pub(crate) fn backup(&mut self, commit: &Commit, closure: Option<&Closure>) -> Result<()> {
        let body = Place::Body(commit.content.body).key().to_string();
        let backup = match self.inner.read_backup(commit, self.control) {
            Ok(backup) => backup,
            // Missing ones and those with other bytes were reported.
            Err(Error::Damaged { .. } | Error::LimitExceeded { .. } | Error::Storage { .. })
                if self.findings.has_finding_about(&body)? =>
            {
                return Ok(());
            }
            Err(error) => {
                let add = || self.findings.add_error(FindingKind::Structure, &body, error);
                return self.findings.muted(!self.reports(&body), add);
            }
        };
        if !backup.is_complete() && self.reports(&body) {
            let incomplete = IncompleteBackup { backup: backup.id, problem_count: backup.problem_count };
            self.findings.count(|report| report.incomplete.push(incomplete))?;
        }
        let closure = closure.map(|closure| closure.packs.keys().map(|pack| self.number(pack)).collect());
        let walked = Walked { id: backup.id, catalogue: backup.catalogue, body, closure };
        let entries = self.catalogue(&walked, &CataloguePage::root(&backup.catalogue))?.entries;
        let expected = backup.statistics.entries;
        match self.shard {
            None if entries != expected => {
                let message = format!("{entries} entries can be read of {expected}");
                self.findings.add(FindingKind::Structure, &walked.body, &message)?;
            }
            // A shard does not know what others can read.
            Some(_) if backup.catalogue.entries != expected && self.reports(&walked.body) => {
                let message = format!("its catalogue has {} entries instead of {expected}", backup.catalogue.entries);
                self.findings.add(FindingKind::Structure, &walked.body, &message)?;
            }
            _ => {}
        }
        self.findings.count(|report| report.entries_checked = report.entries_checked.saturating_add(entries))
    }

    /// Checks a page of the catalogue and everything below it.
    fn catalogue(&mut self, walked: &Walked, page: &CataloguePage) -> Result<Below> {
        self.control.cancel().check()?;
        let mut below = Below::new();
        let is_mine = self.shard.is_none_or(|shard| shard.has_hash(page.page.id.as_bytes()) != self.others);
        if !is_mine && page.is_leaf() {
            return Ok(below);
        }
        let subtree = Subtree::Catalogue(page.clone());
        if self.is_known(walked, &subtree, &mut below) {
            check_links(walked.id, CatalogueReader::new(walked.catalogue, &self.pages), &below.links, self.findings)?;
            return Ok(below);
        }
        // A page without a place is reported when it is read.
        let mut hurt = Vec::new();
        // Nodes are read by every shard, and reported by one.
        let findings = self.findings;
        findings.muted(!is_mine, || {
            self.check_place(walked, &page.page.id, page.page.length, ChunkKind::Meta, &mut below, &mut hurt)
        })?;
        match page.below(&self.pages) {
            Ok(CatalogueBelow::Pages(children)) => {
                for child in children {
                    below.add(self.catalogue(walked, &child)?);
                }
            }
            Ok(CatalogueBelow::Entries(entries)) => {
                let mut links = Vec::new();
                for entry in entries {
                    match entry {
                        Ok(entry) => {
                            below.add(self.entry(walked, &entry)?);
                            links.extend(Some(entry).filter(|entry| entry.hard_link.is_some()));
                        }
                        Err(error) => self.damaged(&walked.body, error, &mut below)?,
                    }
                }
                check_links(walked.id, CatalogueReader::new(walked.catalogue, &self.pages), &links, self.findings)?;
                below.links = links;
            }
            Err(error) => findings.muted(!is_mine, || self.damaged(&walked.body, error, &mut below))?,
        }
        self.remember(subtree, &below);
        Ok(below)
    }

    fn entry(&mut self, walked: &Walked, entry: &Entry) -> Result<Below> {
        let mut below = Below::new();
        let mut hurt = Vec::new();
        match &entry.content.root {
            ContentRoot::Inline(refs) => self.refs(walked, refs, &mut below, &mut hurt)?,
            ContentRoot::Tree { height, page } => {
                below.add(self.content(walked, page, *height, entry.content.length, &mut hurt)?);
            }
        }
        if !hurt.is_empty() {
            hurt.sort_unstable();
            hurt.dedup();
            self.findings.affect(&hurt, &AffectedEntry { backup: walked.id, path: entry.path.clone() })?;
        }
        self.control.event(&Event::EntryFinished { path: &entry.path });
        below.entries = 1;
        Ok(below)
    }

    /// Checks a page of a content and everything below it. What is not good enters `hurt`.
    fn content(
        &mut self,
        walked: &Walked,
        page: &PageRef,
        height: u8,
        covered: u64,
        hurt: &mut Vec<String>,
    ) -> Result<Below> {
        self.control.cancel().check()?;
        let mut below = Below::new();
        let subtree = Subtree::Content(*page, height, covered);
        if self.is_known(walked, &subtree, &mut below)
            || !self.check_place(walked, &page.id, page.length, ChunkKind::Meta, &mut below, hurt)?
        {
            return Ok(below);
        }
        match content_below(&self.pages, page, height, covered) {
            Ok(ContentBelow::Pages(children)) => {
                for (child, covered) in children {
                    below.add(self.content(walked, &child, height.saturating_sub(1), covered, hurt)?);
                }
            }
            Ok(ContentBelow::Refs(refs)) => self.refs(walked, &refs, &mut below, hurt)?,
            Err(error) => {
                let object = match &error {
                    Error::Damaged { name, .. } => name.clone(),
                    _ => page.id.to_string(),
                };
                self.damaged(&object, error, &mut below)?;
                hurt.push(object);
                let packs = self.index.lookup_all(&page.id).into_iter().map(|place| place.pack);
                hurt.extend(packs.filter(|pack| self.damage.packs.contains(pack)).map(pack_key));
            }
        }
        self.remember(subtree, &below);
        Ok(below)
    }

    fn refs(&mut self, walked: &Walked, refs: &[ChunkRef], below: &mut Below, hurt: &mut Vec<String>) -> Result<()> {
        for reference in refs {
            if let ChunkRef::Data { id, length } = reference {
                self.check_place(walked, id, *length, ChunkKind::Data, below, hurt)?;
            }
        }
        Ok(())
    }

    /// Checks that a chunk has a place, with the length and of the kind that the reference to it asks for, in a
    /// pack that the closure names and that is not damaged. Returns whether it has a place.
    fn check_place(
        &mut self,
        walked: &Walked,
        id: &ChunkId,
        length: u32,
        kind: ChunkKind,
        below: &mut Below,
        hurt: &mut Vec<String>,
    ) -> Result<bool> {
        let mut places = self.index.lookup_all(id);
        let is_known = !places.is_empty();
        places.retain(|place| place.raw == length && place.kind == kind);
        let Some(first) = places.first() else {
            let message = if is_known { "the index has it with another length or kind" } else { "no index names it" };
            below.is_good = false;
            hurt.push(id.to_string());
            self.findings.add(FindingKind::Chunk, &id.to_string(), message)?;
            return Ok(false);
        };
        // Two writers may have stored the same chunk: one of its places must be named, and one must be good.
        let number = self.number(&first.pack);
        let named = match &walked.closure {
            None => Some(number),
            Some(closure) => {
                let numbers = places.iter().filter_map(|place| self.packs.get(&place.pack).copied());
                numbers.into_iter().find(|number| closure.contains(number))
            }
        };
        if named.is_none() {
            let message = format!("backup {} needs it and its closure does not name it", walked.id);
            self.findings.add(FindingKind::Structure, &pack_key(first.pack), &message)?;
        }
        below.packs.insert(named.unwrap_or(number));
        // Whether a page can be read is seen by reading it.
        if kind == ChunkKind::Data && places.iter().all(|place| self.damage.concerns(id, place)) {
            below.is_good = false;
            hurt.push(id.to_string());
            hurt.extend(places.iter().map(|place| pack_key(place.pack)));
        }
        Ok(true)
    }

    /// Whether what is called so is this shard's to report, of what all of them look at.
    fn reports(&self, object: &str) -> bool {
        self.shard.is_none_or(|shard| shard.has_text(object))
    }

    fn damaged(&self, object: &str, error: Error, below: &mut Below) -> Result<()> {
        below.is_good = false;
        self.findings.add_error(FindingKind::Structure, object, error)
    }

    /// Whether a subtree is known to be good, and this backup's closure names what it needs.
    fn is_known(&self, walked: &Walked, subtree: &Subtree, below: &mut Below) -> bool {
        let Some(needs) = self.good.get(subtree) else { return false };
        if walked.closure.as_ref().is_some_and(|closure| needs.packs.iter().any(|pack| !closure.contains(pack))) {
            return false;
        }
        below.packs.extend(&needs.packs);
        below.links.clone_from(&needs.links);
        below.entries = needs.entries;
        true
    }

    fn remember(&mut self, subtree: Subtree, below: &Below) {
        if below.is_good && below.packs.len() <= REMEMBERED_PACKS && below.links.len() <= REMEMBERED_LINKS {
            let packs = below.packs.iter().copied().collect();
            let needs = Needs { packs, links: below.links.clone(), entries: below.entries };
            self.good.insert(subtree, needs);
        }
    }

    fn number(&mut self, pack: &ObjectName) -> u32 {
        let next = u32::try_from(self.packs.len()).unwrap_or(u32::MAX);
        *self.packs.entry(*pack).or_insert(next)
    }
}

impl Damage {
    fn concerns(&self, id: &ChunkId, place: &Location) -> bool {
        self.packs.contains(&place.pack) || self.chunks.contains(&(place.pack, *id))
    }
}

fn pack_key(pack: ObjectName) -> String {
    Place::Pack(pack).key().to_string()
}
