//! What a final allows to delete: step G8 of `docs/format.md`, "Collection".
//!
//! Every object is one that no session can refer to any more, so that all of this may stop anywhere and be done
//! again, by anybody and at any time.

use hashbrown::HashSet;

use crate::error::Result;
use crate::format::layout::{self, Place};
use crate::id::ObjectName;
use crate::length::to_u64;
use crate::limits;
use crate::maintenance::plan::PackAmount;
use crate::maintenance::site::Site;
use crate::repository::{for_each, lock};
use crate::session::{Closure, History};
use crate::storage::{Key, StorageError};

/// What was deleted.
#[derive(Default)]
pub(super) struct Swept {
    pub(super) packs: PackAmount,
    pub(super) objects: u64,
}

/// Deletes what the newest final, that of collection `number`, condemns and replaces. `history` was read after its mark.
pub(super) fn after_final(
    site: &Site<'_>,
    number: u32,
    condemned: &HashSet<ObjectName>,
    history: &History,
    swept: &mut Swept,
) -> Result<()> {
    // Closures first: they are found by the packs that they name, which the final has as long as it is the newest.
    closures(site, condemned, history, swept)?;
    let mut keys = Vec::new();
    let mut amount = PackAmount::default();
    for object in site.list(layout::PACKS)? {
        if let Some(Place::Pack(name)) = Place::parse(&object.key)
            && condemned.contains(&name)
        {
            amount.add(object.size);
            keys.push(object.key);
        }
    }
    site.delete(&keys)?;
    swept.packs.packs = swept.packs.packs.saturating_add(amount.packs);
    swept.packs.bytes = swept.packs.bytes.saturating_add(amount.bytes);
    let is_condemned = |place| match place {
        Place::Parity(name) | Place::Body(name) | Place::Index(name) => condemned.contains(&name),
        _ => false,
    };
    for prefix in [layout::PARITIES, layout::BODIES, layout::INDEXES] {
        delete_where(site, prefix, &is_condemned, swept)?;
    }
    // An `open` goes before its outcome: alone, it would look like a session that runs.
    let of_session = |place| matches!(place, Place::SessionOpen(generation, _) if generation <= number);
    delete_where(site, layout::SESSIONS, &of_session, swept)?;
    let of_session = |place| matches!(place, Place::SessionOutcome(generation, _) if generation <= number);
    delete_where(site, layout::SESSIONS, &of_session, swept)?;
    // Outcomes of collections stay: a collector that slept must never win one a second time.
    let is_old = |place| matches!(place, Place::CollectionMark(other) | Place::CollectionOpen(other) if other < number);
    delete_where(site, layout::COLLECTIONS, &is_old, swept)
}

/// Deletes the forget records of backups that nobody misses any more: those that an earlier final dropped, when every session
/// that could name or replace them in its commit has ended, and no commit does. `history` is that of step G6.
pub(super) fn forgets(site: &Site<'_>, history: &History, swept: &mut Swept) -> Result<()> {
    let heads: HashSet<_> = history.valid.values().flat_map(|commit| &commit.content.heads).collect();
    let done = history.forgotten.iter().filter(|id| !history.knows(id) && !heads.contains(id));
    let keys: Vec<Key> = done.map(|id| Place::Forget(*id).key()).collect();
    delete(site, &keys, swept)
}

/// Deletes the closures that name a condemned pack: nobody makes such a closure any more. Others stay, though no
/// commit names them: they have no random part, so a running session may count on the one that it found.
fn closures(site: &Site<'_>, condemned: &HashSet<ObjectName>, history: &History, swept: &mut Swept) -> Result<()> {
    if condemned.is_empty() {
        return Ok(());
    }
    let live: HashSet<ObjectName> = history.live.values().map(|commit| commit.content.closure).collect();
    let mut unnamed: Vec<Key> = Vec::new();
    for object in site.list(layout::CLOSURES)? {
        if let Some(Place::Closure(name)) = Place::parse(&object.key)
            && !live.contains(&name)
        {
            unnamed.push(object.key);
        }
    }
    let gone = crate::sync::Mutex::new(Vec::new());
    for_each(site.control, unnamed.len(), &|| Ok(()), &|(), number| {
        let Some(key) = unnamed.get(number) else { return Ok(()) };
        let bytes = match site.storage.get(key, limits::CLOSURE) {
            Ok(bytes) => bytes,
            Err(StorageError::NotFound | StorageError::TooLarge { .. }) => return Ok(()),
            Err(error) => return Err(crate::Error::storage("get", key, error)),
        };
        // One that cannot be read stays: nobody knows what it was.
        let Ok(closure) = Closure::decode(&bytes, key.as_str()) else { return Ok(()) };
        if closure.packs.keys().any(|pack| condemned.contains(pack)) {
            lock(&gone)?.push(key.clone());
        }
        Ok(())
    })?;
    let gone = gone.into_inner().map_err(|_| crate::repository::POISONED)?;
    delete(site, &gone, swept)
}

fn delete_where(site: &Site<'_>, prefix: &str, chosen: &dyn Fn(Place) -> bool, swept: &mut Swept) -> Result<()> {
    let objects = site.list(prefix)?.into_iter();
    let keys: Vec<Key> =
        objects.filter(|object| Place::parse(&object.key).is_some_and(chosen)).map(|object| object.key).collect();
    delete(site, &keys, swept)
}

fn delete(site: &Site<'_>, keys: &[Key], swept: &mut Swept) -> Result<()> {
    site.delete(keys)?;
    swept.objects = swept.objects.saturating_add(to_u64(keys.len()));
    Ok(())
}
