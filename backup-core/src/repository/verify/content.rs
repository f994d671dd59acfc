//! The levels that need the password, and the entry point of all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use hashbrown::{HashMap, HashSet};

use crate::compress::Decompressor;
use crate::error::Result;
use crate::format::layout::Place;
use crate::id::{ChunkId, ObjectName};
use crate::index::{Index, Location};
use crate::length::to_u64;
use crate::limits;
use crate::object::verify_name;
use crate::pack::{ChunkKind, Directory, HEADER_LENGTH, PackEntry};
use crate::progress::Event;
use crate::repository::environment::Control;
use crate::repository::handle::{Inner, Repository, read_error};
use crate::repository::parallel::{POISONED, for_each, lock};
use crate::repository::verify::keys::check_keys;
use crate::repository::verify::ledger::{self, VerificationLedger};
use crate::repository::verify::options::{VerifyLevel, VerifyOptions};
use crate::repository::verify::report::{FindingKind, Findings, VerifyReport};
use crate::repository::verify::sites::{
    Present, Site, check_bytes, name_backups, presence, read_closure, small_objects,
};
use crate::repository::verify::structure::Walk;
use crate::repository::view;
use crate::storage::StorageError;

/// What could not be verified.
#[derive(Default)]
pub(crate) struct Damage {
    /// Whole packs. The finding about one is under its storage key.
    pub(crate) packs: HashSet<ObjectName>,
    /// Single chunks of packs. The finding about one is under its id.
    pub(crate) chunks: HashSet<(ObjectName, ChunkId)>,
}

type Damaged = Mutex<Damage>;

impl Repository {
    /// Proves that backups can be restored, as thoroughly as `options` say. Damage is in the report, with the
    /// entries that it hurts, and is not an error.
    ///
    /// At the level content, every chosen pack is read once: its name is the hash of its bytes, every chunk of it
    /// opens, decompresses and has its id, and stands where the index says. With a `ledger`, what was verified is
    /// remembered there.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`](crate::Error::NotFound) for a backup that does not exist;
    /// [`Error::Storage`](crate::Error::Storage) where the storage cannot be listed;
    /// [`Error::Conflict`](crate::Error::Conflict) where something is missing and a collection ended meanwhile;
    /// [`Error::Cancelled`](crate::Error::Cancelled).
    pub fn verify(
        &self,
        options: &VerifyOptions,
        mut ledger: Option<&mut VerificationLedger>,
        control: &Control,
    ) -> Result<VerifyReport> {
        options.check()?;
        let inner = &*self.inner;
        let environment = &inner.environment;
        let site = Site { storage: &*inner.storage, signers: &inner.signers, config_hash: inner.config_hash };
        let findings = Findings::new(inner.config.repository, options, environment);
        check_keys(&site, Some(inner), &findings)?;
        let present = presence(&site, options, control, &findings)?;
        if options.level >= VerifyLevel::Bytes {
            findings.set_shared(false);
            small_objects(&site, &present, options, control, &findings)?;
            findings.set_shared(true);
            if let Some(commit) = present.history.in_order().last()
                && let Err(error) = inner.check_keyring_is_not_older(commit, control)
            {
                findings.add_error(FindingKind::History, Place::Keyring(inner.keyring_number).key().as_str(), error)?;
            }
        }
        let index = match options.level {
            VerifyLevel::Presence | VerifyLevel::Bytes => None,
            VerifyLevel::Structure | VerifyLevel::Content => Some(load_index(inner, &present, control, &findings)?),
        };
        let damaged = Damaged::default();
        if let Some(index) = &index {
            check_sizes(index, &present, &damaged, &findings)?;
        }
        findings.set_shared(false);
        if options.level >= VerifyLevel::Bytes {
            let packs = present.packs_of(options);
            let (chosen, all) =
                ledger::choose(options.share, &packs, &present.stored, ledger.as_deref_mut(), environment.now());
            findings.count(|report| report.partial |= !all)?;
            let total =
                chosen.iter().filter_map(|name| present.packs.get(name)).fold(0u64, |a, b| a.saturating_add(*b));
            control.event(&Event::Expected { entries: 0, bytes: total });
            let places = index.as_deref().filter(|_| options.level >= VerifyLevel::Content).map(Places::new);
            let good = check_packs(inner, &site, places.as_ref(), &chosen, &damaged, control, &findings)?;
            if let Some(ledger) = ledger {
                for (name, good) in good {
                    let now = environment.now();
                    if good { ledger.verified(name, now) } else { ledger.failed(name, now) }
                }
            }
        }
        if let Some(index) = index {
            let mut damage = std::mem::take(&mut *lock(&damaged)?);
            damage.packs.extend(&present.lost);
            let walk = |others: bool| {
                let mut walk = Walk::new(&self.inner, &index, &damage, control, &findings, options.shard, others);
                present.commits.iter().try_for_each(|commit| {
                    // A closure that cannot be read was reported.
                    let closure = read_closure(&*inner.storage, commit, control).ok();
                    walk.backup(commit, closure.as_ref())
                })
            };
            walk(false)?;
            // What this shard found may hurt entries that others look at.
            if options.shard.is_some() && !findings.is_ok()? {
                findings.set_muted(true);
                walk(true)?;
                findings.set_muted(false);
            }
        }
        name_backups(&site, &present.commits, control, &findings)?;
        findings.finish(&present.history, &*inner.storage, environment)
    }
}

/// The index, of which everything is reported that cannot be used.
fn load_index(inner: &Inner, present: &Present, control: &Control, findings: &Findings) -> Result<Arc<Index>> {
    let (index, unusable) = view::for_verifying(inner, &present.history, control)?;
    let needed: BTreeSet<&ObjectName> = present.commits.iter().flat_map(|commit| &commit.content.indexes).collect();
    for (name, error) in unusable.into_iter().filter(|(name, _)| needed.contains(name)) {
        let key = Place::Index(name).key();
        // Missing ones and those with other bytes were reported.
        if !findings.has_finding_about(key.as_str())? {
            findings.add_error(FindingKind::Structure, key.as_str(), error)?;
        }
    }
    // A backup that was copied from elsewhere names the segments of its own session only.
    if present.packs.keys().any(|pack| index.pack_size(pack).is_none()) {
        view::supplement(inner, &index, &present.history, view::Failing::IsTolerated, control)?;
    }
    Ok(index)
}

/// Whether the index knows the sizes of packs that closures and listing agree on: readers take them from the index, and
/// refuse a pack of another.
fn check_sizes(index: &Index, present: &Present, damaged: &Damaged, findings: &Findings) -> Result<()> {
    for (name, size) in &present.packs {
        if index.pack_size(name).is_some_and(|indexed| indexed != *size) {
            let key = Place::Pack(*name).key();
            findings.add(FindingKind::Structure, key.as_str(), "the index says that it has another size")?;
            lock(damaged)?.packs.insert(*name);
        }
    }
    Ok(())
}

/// An index, to be held against the directories of the packs.
struct Places<'i> {
    index: &'i Index,
    /// How many places it has in each pack.
    counts: HashMap<ObjectName, u64>,
}

impl<'i> Places<'i> {
    fn new(index: &'i Index) -> Self {
        Self { index, counts: index.places() }
    }

    /// Whether the index has this place. Of a pack that it does not know it need not.
    fn has(&self, pack: &ObjectName, entry: &PackEntry) -> bool {
        let PackEntry { id, offset, stored, raw, codec, kind } = *entry;
        !self.counts.contains_key(pack)
            || self.index.lookup_all(&id).contains(&Location { pack: *pack, offset, stored, raw, codec, kind })
    }

    /// Whether it has more places in a pack than the pack's directory.
    fn has_more(&self, pack: &ObjectName, directory: &Directory) -> bool {
        self.counts.get(pack).is_some_and(|count| *count > to_u64(directory.entries().len()))
    }
}

/// Reads packs whole, and opens them where `places` are there to be compared. Returns which of them were good.
fn check_packs(
    inner: &Inner,
    site: &Site<'_>,
    places: Option<&Places<'_>>,
    chosen: &[ObjectName],
    damaged: &Damaged,
    control: &Control,
    findings: &Findings,
) -> Result<BTreeMap<ObjectName, bool>> {
    let good = Mutex::new(BTreeMap::new());
    for_each(control, chosen.len(), &Decompressor::new, &|decompressor, number| {
        let Some(name) = chosen.get(number) else { return Ok(()) };
        let ok = if let Some(places) = places {
            check_pack(inner, places, name, decompressor, damaged, control, findings)?
        } else {
            let ok = check_bytes(site, "pack", Place::Pack(*name), name, limits::PACK, control, findings)?;
            if !ok {
                lock(damaged)?.packs.insert(*name);
            }
            ok
        };
        lock(&good)?.insert(*name, ok);
        Ok(())
    })?;
    good.into_inner().map_err(|_| POISONED)
}

/// Opens a pack and every chunk in it. Returns whether all of it is good.
fn check_pack(
    inner: &Inner,
    places: &Places<'_>,
    name: &ObjectName,
    decompressor: &mut Decompressor,
    damaged: &Damaged,
    control: &Control,
    findings: &Findings,
) -> Result<bool> {
    let key = Place::Pack(*name).key();
    let object = match inner.storage.get(&key, limits::PACK) {
        Ok(object) => object,
        Err(error) => {
            match error {
                StorageError::NotFound => findings.missing(key.as_str())?,
                error => findings.add_error(FindingKind::Bytes, key.as_str(), read_error(&key, error))?,
            }
            lock(damaged)?.packs.insert(*name);
            return Ok(false);
        }
    };
    let count = to_u64(object.len());
    control.event(&Event::Fetched { bytes: count });
    control.event(&Event::Bytes { count, kind: crate::extent::ExtentKind::Data });
    let mut good = true;
    if let Err(error) = verify_name("pack", key.as_str(), name, &object) {
        findings.add_error(FindingKind::Bytes, key.as_str(), error)?;
        good = false;
    }
    let opened = view::pack_reader(inner, key.as_str(), &object, count).and_then(|reader| reader.open_all(&object));
    drop(object);
    let body = match opened {
        Ok(body) => body,
        Err(error) => {
            if good {
                findings.add_error(FindingKind::Chunk, key.as_str(), error)?;
            }
            lock(damaged)?.packs.insert(*name);
            return Ok(false);
        }
    };
    let directory = directory_of(&body, &key);
    let directory = match directory {
        Ok(directory) => directory,
        Err(error) => {
            findings.add_error(FindingKind::Chunk, key.as_str(), error)?;
            lock(damaged)?.packs.insert(*name);
            return Ok(false);
        }
    };
    if places.has_more(name, &directory) {
        good = false;
        findings.add(FindingKind::Structure, key.as_str(), "the index names chunks that it does not hold")?;
    }
    let mut checked = 0u64;
    for entry in directory.entries() {
        control.cancel().check()?;
        let chunk = Directory::payload(&body, entry, &key)
            .and_then(|stored| decompressor.decompress(entry.codec, stored, entry.raw, &entry.id))
            .map(|plain| match entry.kind {
                ChunkKind::Data => inner.chunk_keys.data_id(&plain),
                ChunkKind::Meta => inner.chunk_keys.meta_id(&plain),
            });
        let message = match chunk {
            Ok(id) if id == entry.id => {
                checked = checked.saturating_add(1);
                if places.has(name, entry) {
                    continue;
                }
                "the index names another place".to_owned()
            }
            Ok(_) => "its content does not have its id".to_owned(),
            Err(error) => error.to_string(),
        };
        good = false;
        let object = entry.id.to_string();
        findings.add(FindingKind::Chunk, &object, &format!("in {key}: {message}"))?;
        lock(damaged)?.chunks.insert((*name, entry.id));
    }
    findings.count(|report| {
        report.chunks_checked = report.chunks_checked.saturating_add(checked);
        report.bytes_checked = report.bytes_checked.saturating_add(count);
    })?;
    Ok(good)
}

fn directory_of(body: &[u8], key: &crate::storage::Key) -> Result<Directory> {
    let header = body.get(..HEADER_LENGTH).unwrap_or(body);
    let length = Directory::length(header, key)?;
    Directory::parse(body.get(..length).unwrap_or(body), to_u64(body.len()), key)
}
