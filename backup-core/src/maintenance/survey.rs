//! What is needed, what is there, and whether the two can be trusted enough to delete anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use hashbrown::{HashMap, HashSet};

use crate::error::{Error, Result};
use crate::format::layout::{self, Place};
use crate::id::{BackupId, ObjectName};
use crate::limits;
use crate::maintenance::options::CollectOptions;
use crate::maintenance::site::Site;
use crate::repository::{POISONED, for_each, lock, read_closure};
use crate::session::{Commit, Hidden, History, read_mark};
use crate::storage::StorageError;

/// Packs that backups need, as their closures say.
#[derive(Default)]
pub(super) struct Needs {
    packs: HashMap<ObjectName, u64>,
    /// Commits whose closures were read.
    counted: BTreeSet<BackupId>,
}

impl Needs {
    /// Adds what the live backups of `history` need. What was added before stays, forgotten meanwhile or not.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] naming a closure that cannot be read: then nobody knows what a backup needs, and nothing
    /// may be deleted.
    pub(super) fn add(&mut self, site: &Site<'_>, history: &History) -> Result<()> {
        let new: Vec<&Commit> = history.live.values().filter(|commit| !self.counted.contains(&commit.id)).collect();
        let packs = Mutex::new(std::mem::take(&mut self.packs));
        for_each(site.control, new.len(), &|| Ok(()), &|(), number| {
            let Some(commit) = new.get(number) else { return Ok(()) };
            let closure = read_closure(site.storage, commit, site.control)?;
            let mut packs = lock(&packs)?;
            for (name, size) in closure.packs {
                packs.insert(name, size);
            }
            Ok(())
        })?;
        self.packs = packs.into_inner().map_err(|_| POISONED)?;
        self.counted.extend(new.iter().map(|commit| commit.id));
        Ok(())
    }

    pub(super) fn contains(&self, pack: &ObjectName) -> bool {
        self.packs.contains_key(pack)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ObjectName, &u64)> {
        self.packs.iter()
    }
}

/// Every pack that is there, with its size.
pub(super) fn packs(site: &Site<'_>) -> Result<BTreeMap<ObjectName, u64>> {
    let parse = |object: crate::storage::ObjectInfo| match Place::parse(&object.key) {
        Some(Place::Pack(name)) => Some((name, object.size)),
        _ => None,
    };
    Ok(site.list(layout::PACKS)?.into_iter().filter_map(parse).collect())
}

/// Refuses to delete anything where a live backup may be one that nobody sees.
///
/// # Errors
///
/// [`Error::Damaged`] naming the record that cannot be used, or a commit that is not there.
pub(super) fn check_sound(site: &Site<'_>, history: &History, options: &CollectOptions) -> Result<()> {
    for (flaw, hidden) in history.hiding() {
        let reason = match hidden {
            Hidden::AllBackups => "it may hold the commits of all backups",
            Hidden::OneBackup if options.despite_damage => continue,
            Hidden::OneBackup => "it may be the commit of a backup",
        };
        let reason = format!("{reason}, so nothing is collected: {}", flaw.error);
        return Err(Error::damaged("repository", &flaw.key, reason));
    }
    if options.despite_damage {
        return Ok(());
    }
    if let Some(missing) = history.missing().first().filter(|_| !options.partial_history) {
        let reason = "another backup names it and it is not there, so nothing is collected";
        return Err(Error::damaged("commit", missing, reason));
    }
    if history.valid.is_empty()
        && let Some(body) = site.list(layout::BODIES)?.first()
    {
        let reason = "it is there and no commit of any backup is, so nothing is collected";
        return Err(Error::damaged("repository", &body.key, reason));
    }
    Ok(())
}

/// Refuses to begin or go on where the outcome of a collection is lost. For before this collector has a mark of its own.
///
/// # Errors
///
/// [`Error::Damaged`] naming the outcome; [`Error::Storage`].
pub(super) fn check_outcome(site: &Site<'_>, history: &History, options: &CollectOptions) -> Result<()> {
    match history.lost_outcome(site.storage)?.filter(|_| !options.despite_damage) {
        Some((key, reason)) => {
            Err(Error::damaged("collection outcome", &key, format!("{reason}, so nothing is collected")))
        }
        None => Ok(()),
    }
}

/// Refuses to delete anything while packs are missing that backups need: another pack may have what they had.
///
/// `listed` may be older than `needs`: what was committed in between needs packs that it lacks, so it is listed again
/// before anything is called missing.
///
/// # Errors
///
/// [`Error::Damaged`] naming one of them; [`Error::Storage`].
pub(super) fn check_packs(
    site: &Site<'_>,
    needs: &Needs,
    listed: &BTreeMap<ObjectName, u64>,
    options: &CollectOptions,
) -> Result<()> {
    let is_there = |listed: &BTreeMap<ObjectName, u64>| needs.iter().all(|(name, size)| listed.get(name) == Some(size));
    if options.despite_damage || is_there(listed) {
        return Ok(());
    }
    let listed = packs(site)?;
    for (name, size) in needs.iter() {
        let reason = match listed.get(name) {
            Some(found) if found == size => continue,
            Some(_) => "it has another size than a backup says that needs it, so nothing is collected",
            None => "it is missing and a backup needs it, so nothing is collected",
        };
        return Err(Error::damaged("pack", Place::Pack(*name).key(), reason));
    }
    Ok(())
}

/// The collection that is next.
pub(super) enum Stage {
    /// One that has no mark yet. What stands in the way of it are collections whose marks are not genuine.
    Begin { number: u32, spoiled: Vec<u32> },
    /// One that has a mark and no outcome: its collector crashed, waits for sessions, or is at work now.
    Continue { number: u32, condemned: HashSet<ObjectName> },
}

impl Stage {
    /// # Errors
    ///
    /// [`Error::Storage`]; [`Error::LimitExceeded`] where numbers are used up.
    pub(super) fn find(site: &Site<'_>, history: &History) -> Result<Self> {
        let mut marks = BTreeSet::new();
        let mut outcomes = BTreeSet::new();
        for object in site.list(layout::COLLECTIONS)? {
            match Place::parse(&object.key) {
                Some(Place::CollectionMark(number)) => drop(marks.insert(number)),
                Some(Place::CollectionOutcome(number)) => drop(outcomes.insert(number)),
                _ => {}
            }
        }
        let mut spoiled = Vec::new();
        let mut number = history.newest_mark;
        loop {
            if number > 0 && marks.contains(&number) && !outcomes.contains(&number) {
                let key = Place::CollectionMark(number).key();
                let bytes = match site.storage.get(&key, limits::COLLECTION) {
                    Ok(bytes) => bytes,
                    Err(StorageError::TooLarge { .. }) => bytes::Bytes::new(),
                    Err(error) => return Err(Error::storage("get", &key, error)),
                };
                let maintenance = &site.signers.maintenance;
                match read_mark(&bytes, maintenance, site.repository(), number, key.as_str()) {
                    Ok(condemned) => return Ok(Self::Continue { number, condemned }),
                    Err(_) => spoiled.push(number),
                }
            } else if number > history.newest_mark && !outcomes.contains(&number) {
                return Ok(Self::Begin { number, spoiled });
            }
            number = number.checked_add(1).ok_or_else(|| {
                Error::limit("number of a collection", u64::from(u32::MAX).saturating_add(1), u64::from(u32::MAX))
            })?;
        }
    }

    pub(super) const fn number(&self) -> u32 {
        match self {
            Self::Begin { number, .. } | Self::Continue { number, .. } => *number,
        }
    }

    /// Whether it condemns a pack that nobody needs.
    pub(super) fn condemns(&self, pack: &ObjectName) -> bool {
        match self {
            Self::Begin { .. } => true,
            Self::Continue { condemned, .. } => condemned.contains(pack),
        }
    }
}
