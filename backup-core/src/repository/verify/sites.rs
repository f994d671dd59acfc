//! Presence and bytes: what anybody can check who can read the storage.

use std::collections::{BTreeMap, BTreeSet};

use crate::crypto::hash;
use crate::error::{Error, Result};
use crate::format::layout::{self, Place};
use crate::id::{BackupId, Digest, ObjectName};
use crate::length::to_u64;
use crate::limits;
use crate::object::verify_name;
use crate::progress::Event;
use crate::repository::environment::{Control, Environment};
use crate::repository::handle::read_error;
use crate::repository::parallel::{each, for_each};
use crate::repository::verify::keys::check_keys;
use crate::repository::verify::ledger;
use crate::repository::verify::options::{Share, VerifyLevel, VerifyOptions};
use crate::repository::verify::report::{FindingKind, Findings, VerifyReport};
use crate::session::{Closure, Commit, History, Records, Signers};
use crate::storage::{Key, Storage, StorageError, list_all};

/// A storage and what its repository says of itself.
pub(crate) struct Site<'s> {
    pub(crate) storage: &'s dyn Storage,
    pub(crate) signers: &'s Signers,
    pub(crate) config_hash: Digest,
}

/// What is known after the presence of everything was checked.
pub(crate) struct Present {
    pub(crate) history: History,
    /// The commits that were looked at.
    pub(crate) commits: Vec<Commit>,
    /// Packs that they need and that are there with their sizes.
    pub(crate) packs: BTreeMap<ObjectName, u64>,
    /// Every pack that is there, needed or not.
    pub(crate) stored: BTreeSet<ObjectName>,
    /// Packs that they need and that are not there, or have another size.
    pub(crate) lost: BTreeSet<ObjectName>,
}

impl Present {
    /// The packs that are read.
    pub(crate) fn packs_of(&self, options: &VerifyOptions) -> BTreeMap<ObjectName, u64> {
        self.packs
            .iter()
            .filter(|(name, _)| options.has(&Place::Pack(**name)))
            .map(|(name, size)| (*name, *size))
            .collect()
    }
}

/// Verifies at the levels that need no password.
pub(crate) fn without_password(
    site: &Site<'_>,
    options: &VerifyOptions,
    control: &Control,
    environment: &Environment,
) -> Result<VerifyReport> {
    options.check()?;
    if options.level > VerifyLevel::Bytes {
        return Err(Error::invalid("level", "structure and content need the password"));
    }
    if matches!(options.share, Share::Rotating { .. }) {
        return Err(Error::invalid("share", "a rotating share needs the password and a ledger"));
    }
    let findings = Findings::new(site.signers.repository, options, environment);
    check_keys(site, None, &findings)?;
    let present = presence(site, options, control, &findings)?;
    findings.set_shared(false);
    if options.level >= VerifyLevel::Bytes {
        let packs = present.packs_of(options);
        let (chosen, all) = ledger::choose(options.share, &packs, &present.stored, None, environment.now());
        findings.count(|report| report.partial |= !all)?;
        small_objects(site, &present, options, control, &findings)?;
        for_each(control, chosen.len(), &|| Ok(()), &|(), number| {
            chosen.get(number).map_or(Ok(()), |name| {
                check_bytes(site, "pack", Place::Pack(*name), name, limits::PACK, control, &findings).map(drop)
            })
        })?;
    }
    name_backups(site, &present.commits, control, &findings)?;
    findings.finish(&present.history, site.storage, environment)
}

/// Checks signatures, closures and that every object is there with its size.
pub(crate) fn presence(
    site: &Site<'_>,
    options: &VerifyOptions,
    control: &Control,
    findings: &Findings,
) -> Result<Present> {
    let history = History::read(&Records { storage: site.storage, signers: site.signers, each: &each(control) })?;
    for flaw in &history.flaws {
        findings.add(FindingKind::Record, &flaw.key, &flaw.error.to_string())?;
    }
    if let Some((key, reason)) = history.lost_outcome(site.storage)? {
        findings.add(FindingKind::History, key.as_str(), reason)?;
    }
    for missing in history.missing().into_iter().filter(|_| !options.partial_history) {
        findings.add(FindingKind::History, &missing.to_string(), "a commit that another names is not there")?;
    }
    if let Some(head) = options.expected_head
        && !history.knows(&head)
        && !history.forgotten.contains(&head)
    {
        findings.add(FindingKind::History, &head.to_string(), "the expected backup is not there")?;
    }
    let mut wanted = BTreeSet::new();
    for backup in &options.backups {
        wanted.insert(history.find(backup).ok_or_else(|| Error::not_found("backup", backup))?.origin());
    }
    let commits: Vec<Commit> = history
        .live
        .values()
        .filter(|commit| options.backups.is_empty() || wanted.contains(&commit.origin()))
        .cloned()
        .collect();
    let listed = |prefix: &str| {
        let objects = list_all(site.storage, prefix).map_err(|source| Error::list(prefix, source))?;
        Ok::<_, Error>(objects.into_iter().map(|object| (object.key, object.size)).collect::<BTreeMap<Key, u64>>())
    };
    let packs_there = listed(layout::PACKS)?;
    let mut there = listed(layout::BODIES)?;
    there.extend(listed(layout::CLOSURES)?);
    there.extend(listed(layout::INDEXES)?);
    let mut packs: BTreeMap<ObjectName, u64> = BTreeMap::new();
    let mut looked_at: BTreeSet<Key> = BTreeSet::new();
    for commit in &commits {
        control.cancel().check()?;
        let content = &commit.content;
        let key = commit.place().key();
        if content.config != site.config_hash {
            findings.add(FindingKind::Record, key.as_str(), "it was made for another config")?;
        }
        let mut places = vec![Place::Body(content.body), Place::Closure(content.closure)];
        places.extend(content.indexes.iter().map(|name| Place::Index(*name)));
        for place in places {
            let key = place.key();
            if !there.contains_key(&key) && looked_at.insert(key.clone()) {
                findings.missing(key.as_str())?;
            }
            looked_at.insert(key);
        }
        let key = Place::Closure(content.closure).key();
        match read_closure(site.storage, commit, control) {
            Ok(closure) => packs.extend(closure.packs),
            Err(error) if there.contains_key(&key) => findings.add_error(FindingKind::Bytes, key.as_str(), error)?,
            Err(error @ (Error::Cancelled | Error::Internal(_))) => return Err(error),
            Err(_) => {}
        }
    }
    let needed = packs.keys().filter(|name| options.has(&Place::Pack(**name))).count();
    let mut present = BTreeMap::new();
    let mut lost = BTreeSet::new();
    for (name, size) in packs {
        let key = Place::Pack(name).key();
        match packs_there.get(&key) {
            None => {
                lost.insert(name);
                findings.missing(key.as_str())?;
            }
            Some(found) if *found != size => {
                lost.insert(name);
                findings.add(FindingKind::Size, key.as_str(), &format!("{found} bytes instead of {size}"))?;
            }
            Some(_) => drop(present.insert(name, size)),
        }
    }
    let mut ids: Vec<BackupId> = commits.iter().map(|commit| commit.id).collect();
    ids.sort_unstable();
    let ids: Vec<&[u8]> = ids.iter().map(|id| id.as_bytes().as_slice()).collect();
    findings.count(|report| {
        report.history = hash::digest_of_parts(&ids);
        let has = |key: &Key| options.shard.is_none_or(|shard| shard.has_text(key.as_str()));
        let backups = commits.iter().filter(|commit| has(&commit.place().key())).count();
        let looked_at = looked_at.iter().filter(|key| has(key)).count();
        report.backups_checked = to_u64(backups);
        report.objects_checked = to_u64(looked_at.saturating_add(needed).saturating_add(backups));
    })?;
    let stored = packs_there.keys().filter_map(|key| match Place::parse(key) {
        Some(Place::Pack(name)) => Some(name),
        _ => None,
    });
    Ok(Present { history, commits, packs: present, stored: stored.collect(), lost })
}

/// Says of every finding which of the backups need the object.
pub(crate) fn name_backups(site: &Site<'_>, commits: &[Commit], control: &Control, findings: &Findings) -> Result<()> {
    if findings.is_ok()? {
        return Ok(());
    }
    for commit in commits {
        let content = &commit.content;
        let mut needed = BTreeSet::from([
            commit.place().key(),
            Place::Body(content.body).key(),
            Place::Closure(content.closure).key(),
        ]);
        needed.extend(content.indexes.iter().map(|name| Place::Index(*name).key()));
        match read_closure(site.storage, commit, control) {
            Ok(closure) => needed.extend(closure.packs.keys().map(|name| Place::Pack(*name).key())),
            Err(error @ (Error::Cancelled | Error::Internal(_))) => return Err(error),
            // It was reported.
            Err(_) => {}
        }
        let needed: BTreeSet<&str> = needed.iter().map(Key::as_str).collect();
        findings.needed_by(commit.id, |object| needed.contains(object))?;
    }
    Ok(())
}

/// Reads a closure and holds it against its commit.
pub(crate) fn read_closure(storage: &dyn Storage, commit: &Commit, control: &Control) -> Result<Closure> {
    let content = &commit.content;
    let key = Place::Closure(content.closure).key();
    let bytes = storage.get(&key, limits::CLOSURE).map_err(|error| read_error(&key, error))?;
    control.event(&Event::Fetched { bytes: to_u64(bytes.len()) });
    verify_name("closure", key.as_str(), &content.closure, &bytes)?;
    let closure = Closure::decode(&bytes, key.as_str())?;
    if to_u64(closure.packs.len()) != content.closure_packs || closure.bytes() != content.closure_bytes {
        return Err(Error::damaged("closure", &key, "it is not the one that the commit describes"));
    }
    Ok(closure)
}

/// An object that is named by a hash, and what it is called in errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NamedObject {
    pub(crate) place: Place,
    pub(crate) what: &'static str,
    pub(crate) name: ObjectName,
    pub(crate) limit: u64,
}

/// Checks what came with a copy: at the level presence that all of the chosen backups is there, at bytes also every
/// byte of the objects that `arrived`.
pub(crate) fn arrived(
    site: &Site<'_>,
    options: &VerifyOptions,
    arrived: &[NamedObject],
    control: &Control,
    environment: &Environment,
) -> Result<VerifyReport> {
    let findings = Findings::new(site.signers.repository, options, environment);
    check_keys(site, None, &findings)?;
    let present = presence(site, options, control, &findings)?;
    if options.level >= VerifyLevel::Bytes {
        for_each(control, arrived.len(), &|| Ok(()), &|(), number| {
            arrived.get(number).map_or(Ok(()), |NamedObject { place, what, name, limit }| {
                check_bytes(site, what, *place, name, *limit, control, &findings).map(drop)
            })
        })?;
    }
    name_backups(site, &present.commits, control, &findings)?;
    findings.finish(&present.history, site.storage, environment)
}

/// Checks the bytes of bodies and indexes.
pub(crate) fn small_objects(
    site: &Site<'_>,
    present: &Present,
    options: &VerifyOptions,
    control: &Control,
    findings: &Findings,
) -> Result<()> {
    let mut objects: BTreeSet<(Place, &'static str, ObjectName, u64)> = BTreeSet::new();
    for commit in &present.commits {
        let content = &commit.content;
        objects.insert((Place::Body(content.body), "backup body", content.body, limits::BODY));
        for name in &content.indexes {
            objects.insert((Place::Index(*name), "index", *name, limits::INDEX));
        }
    }
    let objects: Vec<_> = objects.into_iter().filter(|(place, ..)| options.has(place)).collect();
    for_each(control, objects.len(), &|| Ok(()), &|(), number| {
        objects.get(number).map_or(Ok(()), |(place, what, name, limit)| {
            check_bytes(site, what, *place, name, *limit, control, findings).map(drop)
        })
    })
}

/// Reads an object and checks that its bytes have the hash that is its name. Returns whether they have.
pub(crate) fn check_bytes(
    site: &Site<'_>,
    what: &'static str,
    place: Place,
    name: &ObjectName,
    limit: u64,
    control: &Control,
    findings: &Findings,
) -> Result<bool> {
    let key = place.key();
    let bytes = match site.storage.get(&key, limit) {
        Ok(bytes) => bytes,
        // The listing may have shown it nevertheless.
        Err(StorageError::NotFound) => {
            findings.missing(key.as_str())?;
            return Ok(false);
        }
        Err(error) => {
            findings.add_error(FindingKind::Bytes, key.as_str(), read_error(&key, error))?;
            return Ok(false);
        }
    };
    let count = to_u64(bytes.len());
    control.event(&Event::Fetched { bytes: count });
    findings.count(|report| report.bytes_checked = report.bytes_checked.saturating_add(count))?;
    match verify_name(what, key.as_str(), name, &bytes) {
        Ok(()) => Ok(true),
        Err(error) => {
            findings.add_error(FindingKind::Bytes, key.as_str(), error)?;
            Ok(false)
        }
    }
}
