//! Reading everything, repairing what can be, and making parity of what has none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use bytes::Bytes;
use hashbrown::HashSet;

use crate::crypto::hash;
use crate::error::{Error, Result};
use crate::format::layout::{self, Place};
use crate::id::{Digest, ObjectName};
use crate::length::to_u64;
use crate::limits;
use crate::object::name_of;
use crate::parity::create;
use crate::parity::group::{self, Group, Member};
use crate::parity::mend::{self, Bad};
use crate::parity::report::ScrubReport;
use crate::progress::Event;
use crate::repository::{Control, LockedRepository, for_each, read_closure};
use crate::session::{History, open_outcome, read_outcome};
use crate::storage::{Key, PutMode, Storage, StorageError, list_all};

/// What a scrub does besides reading and repairing.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ScrubOptions {
    /// Make parity of objects that have none.
    pub add_parity: bool,
    /// Repair nothing, change nothing: only say what would be.
    pub dry_run: bool,
}

impl ScrubOptions {
    /// Sets whether parity is made.
    #[must_use]
    pub const fn with_add_parity(mut self, yes: bool) -> Self {
        self.add_parity = yes;
        self
    }

    /// Sets whether nothing is changed.
    #[must_use]
    pub const fn with_dry_run(mut self, yes: bool) -> Self {
        self.dry_run = yes;
        self
    }
}

/// Reads every object of `repository`, compares it with its name, and brings back from parity what is damaged, or missing
/// and needed by a backup. Needs no password.
///
/// What is brought back has the hash that it was protected with, and, where its name is a hash, that one. Key slots are neither
/// protected nor brought back: one that was removed must stay so. Memory: a group of parity (16 MiB and more), and the blocks
/// of it that are lost; on each thread one object.
///
/// # Errors
///
/// [`Error::Storage`] where nothing can be listed or stored; [`Error::ReadOnly`]; [`Error::Cancelled`]. Damage is in the report.
pub fn scrub(repository: &LockedRepository, options: &ScrubOptions, control: &Control) -> Result<ScrubReport> {
    if options.dry_run && options.add_parity {
        return Err(Error::invalid("dry run", "it makes no parity"));
    }
    let mut scrub = Scrub {
        repository,
        storage: &*repository.storage,
        options,
        control,
        groups: BTreeMap::new(),
        hashes: BTreeMap::new(),
        good: BTreeMap::new(),
        condemned: HashSet::new(),
        report: ScrubReport::default(),
    };
    let damaged_parity = scrub.read_groups()?;
    // What says what is needed comes first.
    for class in [Class::Records, Class::Metadata, Class::Packs] {
        scrub.pass(class)?;
    }
    scrub.parity(damaged_parity)?;
    let mut report = scrub.report;
    report.ok = report.unrepaired == 0 && (!options.dry_run || report.findings.is_empty());
    Ok(report)
}

/// Objects that are looked at together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Config, keyrings and what is signed.
    Records,
    /// Index segments, bodies and closures.
    Metadata,
    Packs,
}

struct Scrub<'s> {
    repository: &'s LockedRepository,
    storage: &'s dyn Storage,
    options: &'s ScrubOptions,
    control: &'s Control,
    groups: BTreeMap<ObjectName, Group>,
    /// Hashes that objects were protected with.
    hashes: BTreeMap<Key, BTreeSet<Digest>>,
    /// Objects that are as they were stored, with their sizes and hashes.
    good: BTreeMap<Key, (u64, Digest)>,
    /// Packs that collections condemned.
    condemned: HashSet<ObjectName>,
    report: ScrubReport,
}

/// The class of an object that is protected, and the size that it may have.
pub(crate) fn class(place: Place) -> Option<(Class, u64)> {
    match place {
        Place::Config => Some((Class::Records, limits::CONFIG)),
        Place::Keyring(_) => Some((Class::Records, limits::KEYRING)),
        Place::SessionOutcome(..) | Place::Forget(_) => Some((Class::Records, limits::COMMIT)),
        Place::CollectionMark(_) | Place::CollectionOutcome(_) => Some((Class::Records, limits::COLLECTION)),
        Place::Index(_) => Some((Class::Metadata, limits::INDEX)),
        Place::Body(_) => Some((Class::Metadata, limits::BODY)),
        Place::Closure(_) => Some((Class::Metadata, limits::CLOSURE)),
        Place::Pack(_) => Some((Class::Packs, limits::PACK)),
        // With its parity, a removed slot could be made again, and opened with the password that was removed.
        Place::Slot(_) => None,
        Place::SessionOpen(..) | Place::CollectionOpen(_) | Place::Parity(_) => None,
    }
}

/// The hash that is the name of an object.
pub(crate) fn named(place: Place) -> Option<Digest> {
    match place {
        Place::Pack(name) | Place::Index(name) | Place::Body(name) | Place::Closure(name) => {
            Some(Digest::new(*name.as_bytes()))
        }
        _ => None,
    }
}

impl Scrub<'_> {
    /// Reads what every parity object protects. Returns those that are damaged.
    fn read_groups(&mut self) -> Result<Vec<Key>> {
        let mut damaged = Vec::new();
        let prefix = layout::PARITIES;
        for object in list_all(self.storage, prefix).map_err(|source| Error::list(prefix, source))? {
            self.control.cancel().check()?;
            let Some(Place::Parity(name)) = Place::parse(&object.key) else { continue };
            match self.read_group(&object.key, &name)? {
                Some((group, _, _)) => {
                    for member in &group.members {
                        self.hashes.entry(member.key.clone()).or_default().insert(member.hash);
                    }
                    self.report.parity_objects = self.report.parity_objects.saturating_add(1);
                    self.report.parity_bytes = self.report.parity_bytes.saturating_add(object.size);
                    self.groups.insert(name, group);
                }
                None => {
                    self.report.parity_damaged = self.report.parity_damaged.saturating_add(1);
                    damaged.push(object.key);
                }
            }
        }
        Ok(damaged)
    }

    /// A parity object, where its parity begins, and all its bytes; `None` where it is damaged or gone.
    fn read_group(&self, key: &Key, name: &ObjectName) -> Result<Option<(Group, u64, Bytes)>> {
        let bytes = match self.storage.get(key, group::MOST_BYTES) {
            Ok(bytes) => bytes,
            Err(StorageError::NotFound | StorageError::TooLarge { .. }) => return Ok(None),
            Err(error) => return Err(Error::storage("get", key, error)),
        };
        self.control.event(&Event::Fetched { bytes: to_u64(bytes.len()) });
        if name_of(&bytes) != *name {
            return Ok(None);
        }
        let Ok((group, head)) = Group::decode(&bytes, key.as_str()) else { return Ok(None) };
        // Nothing that no repository has is brought back, whoever made this.
        let is_sound = group.members.iter().all(|member| {
            let place = Place::parse(&member.key);
            place.is_some_and(|place| {
                class(place).is_some_and(|(_, limit)| member.size <= limit)
                    && named(place).is_none_or(|name| name == member.hash)
            })
        });
        Ok(is_sound.then_some((group, head, bytes)))
    }

    /// Looks at the objects of a class and repairs them.
    fn pass(&mut self, class_of: Class) -> Result<()> {
        let history = self.repository.with_records(self.control, History::read)?;
        self.condemned.clone_from(&history.condemned);
        let flaws: BTreeSet<&str> = history.flaws.iter().map(|flaw| flaw.key.as_str()).collect();
        let mut objects = Vec::new();
        for object in list_all(self.storage, "").map_err(|source| Error::list("", source))? {
            if let Some(place) = Place::parse(&object.key)
                && let Some((found, limit)) = class(place)
                && found == class_of
            {
                objects.push((object, place, limit));
            }
        }
        let checked = Mutex::new(Vec::new());
        for_each(self.control, objects.len(), &|| Ok(()), &|(), number| {
            let Some((object, place, limit)) = objects.get(number) else { return Ok(()) };
            let state = self.look(&object.key, *place, *limit, &flaws)?;
            checked.lock().map_err(|_| Error::Internal("a scrubbing thread panicked"))?.push((number, state));
            Ok(())
        })?;
        let checked = checked.into_inner().map_err(|_| Error::Internal("a scrubbing thread panicked"))?;
        let mut bad: BTreeMap<Key, &'static str> = BTreeMap::new();
        let mut damaged = Bad::new();
        for (number, state) in checked {
            let Some((object, _, _)) = objects.get(number) else { continue };
            self.report.objects_checked = self.report.objects_checked.saturating_add(1);
            self.report.bytes_checked = self.report.bytes_checked.saturating_add(object.size);
            match state {
                Ok(good) => drop(self.good.insert(object.key.clone(), good)),
                Err(problem) => {
                    bad.insert(object.key.clone(), problem);
                    damaged.insert(object.key.clone(), true);
                }
            }
        }
        let there: BTreeSet<&Key> = objects.iter().map(|(object, _, _)| &object.key).collect();
        for key in self.missing(class_of, &history)?.into_iter().filter(|key| !there.contains(key)) {
            damaged.insert(key.clone(), false);
            bad.insert(key, "it is missing");
        }
        self.repair(&bad, &damaged)
    }

    /// Whether an object is as it was stored.
    fn look(
        &self,
        key: &Key,
        place: Place,
        limit: u64,
        flaws: &BTreeSet<&str>,
    ) -> Result<Result<(u64, Digest), &'static str>> {
        let bytes = match self.storage.get(key, limit) {
            Ok(bytes) => bytes,
            Err(StorageError::NotFound) => return Ok(Err("it is missing")),
            Err(StorageError::TooLarge { .. }) => return Ok(Err("it is larger than its kind can be")),
            Err(StorageError::Other(_) | StorageError::OutOfRange { .. }) => return Ok(Err("it cannot be read")),
            Err(error) => return Err(Error::storage("get", key, error)),
        };
        let size = to_u64(bytes.len());
        self.control.event(&Event::Fetched { bytes: size });
        let found = hash::digest(&bytes);
        let is_good = match place {
            // It was read to open the repository, and is compared where the password is.
            Place::Config => true,
            // They are never replaced, so other bytes than the protected ones are damage.
            Place::Keyring(_) => self.hashes.get(key).is_none_or(|hashes| hashes.contains(&found)),
            _ => named(place).map_or_else(|| !flaws.contains(key.as_str()), |name| name == found),
        };
        Ok(if is_good { Ok((size, found)) } else { Err("its bytes are not those that were stored") })
    }

    /// Objects of a class that should be there.
    fn missing(&mut self, class_of: Class, history: &History) -> Result<BTreeSet<Key>> {
        let mut wanted = BTreeSet::new();
        match class_of {
            Class::Records => {
                // Outcomes of collections are never deleted. One that is missing may be the newest final, which ended the
                // slots of all sessions up to its number.
                let outcomes = self.hashes.keys().filter_map(|key| match Place::parse(key) {
                    Some(Place::CollectionOutcome(number)) if !history.has_ended(number) => Some(number),
                    _ => None,
                });
                let newest_final = outcomes.fold(history.newest_final, u32::max);
                for key in self.hashes.keys() {
                    match Place::parse(key) {
                        Some(Place::Keyring(_) | Place::CollectionOutcome(_)) => drop(wanted.insert(key.clone())),
                        // What a collection deleted stays so.
                        Some(Place::SessionOutcome(generation, _)) if generation > newest_final => {
                            wanted.insert(key.clone());
                        }
                        _ => {}
                    }
                }
            }
            Class::Metadata => {
                wanted.extend(history.indexes.iter().map(|name| Place::Index(*name).key()));
                for commit in history.live.values() {
                    wanted.insert(Place::Body(commit.content.body).key());
                    wanted.insert(Place::Closure(commit.content.closure).key());
                }
            }
            Class::Packs => {
                for commit in history.live.values() {
                    // A closure that is lost was reported.
                    match read_closure(self.storage, commit, self.control) {
                        Ok(closure) => wanted.extend(closure.packs.keys().map(|name| Place::Pack(*name).key())),
                        Err(error @ (Error::Cancelled | Error::Internal(_))) => return Err(error),
                        Err(_) => {}
                    }
                }
            }
        }
        Ok(wanted)
    }

    fn repair(&mut self, bad: &BTreeMap<Key, &'static str>, damaged: &Bad) -> Result<()> {
        let mut open: BTreeMap<&Key, &'static str> = bad.iter().map(|(key, problem)| (key, *problem)).collect();
        let groups: Vec<ObjectName> = self.groups.keys().copied().collect();
        for name in groups {
            let Some(group) = self.groups.get(&name) else { continue };
            let wanted = |member: &Member| open.contains_key(&member.key);
            if !group.members.iter().any(wanted) {
                continue;
            }
            let of_group: Bad = group
                .members
                .iter()
                .filter_map(|member| damaged.get(&member.key).map(|is_there| (member.key.clone(), *is_there)))
                .collect();
            let Some((group, head, object)) = self.read_group(&Place::Parity(name).key(), &name)? else { continue };
            for (key, bytes) in mend::mend(self.storage, &group, &object, head, &of_group, self.control)? {
                let Some(problem) = open.remove(&key) else { continue };
                let outcome = self.put_back(&key, bytes)?;
                self.report.add(&key, problem, outcome);
            }
        }
        for (key, problem) in open {
            let is_protected = self.hashes.contains_key(key);
            let reason = if is_protected { "too much is lost of its group" } else { "no parity protects it" };
            self.report.add(key, problem, Err(reason.to_owned()));
        }
        Ok(())
    }

    /// Stores what was brought back. Returns why it was not.
    fn put_back(&mut self, key: &Key, bytes: Bytes) -> Result<Result<(), String>> {
        // A collector that sleeps may still delete whatever has this name.
        if matches!(Place::parse(key), Some(Place::Pack(name)) if self.condemned.contains(&name)) {
            return Ok(Err("a collection condemned it".to_owned()));
        }
        let (size, digest) = (to_u64(bytes.len()), hash::digest(&bytes));
        let signers = &self.repository.signers;
        let is_genuine = match Place::parse(key) {
            Some(Place::SessionOutcome(..)) => open_outcome(&bytes, signers, key.as_str()).is_ok(),
            Some(Place::CollectionOutcome(number)) => {
                read_outcome(&bytes, &signers.maintenance, signers.repository, number, key.as_str()).is_ok()
            }
            _ => true,
        };
        if !is_genuine {
            return Ok(Err("what was protected is not genuine".to_owned()));
        }
        if self.options.dry_run {
            return Ok(Ok(()));
        }
        // A slot that is free may be won by somebody else just now: that decides.
        let is_slot = matches!(Place::parse(key), Some(Place::SessionOutcome(..) | Place::CollectionOutcome(_)));
        let is_free = is_slot && matches!(self.storage.stat(key), Err(StorageError::NotFound));
        let mode = if is_free { PutMode::Create } else { PutMode::Overwrite };
        match self.storage.put(key, bytes, mode) {
            Ok(()) => {
                self.control.event(&Event::Stored { bytes: size });
                self.good.insert(key.clone(), (size, digest));
                Ok(Ok(()))
            }
            Err(error @ StorageError::Full(_)) => Err(Error::storage("put", key, error)),
            Err(error) => Ok(Err(format!("it cannot be stored: {error}"))),
        }
    }

    /// Counts what is protected, and makes parity of what is not.
    fn parity(&mut self, damaged_parity: Vec<Key>) -> Result<()> {
        let is_good = |member: &Member| self.good.get(&member.key) == Some(&(member.size, member.hash));
        // A group that lacks a member for good brings back less than it should.
        let (whole, stale): (Vec<_>, Vec<_>) =
            self.groups.iter().partition(|(_, group)| group.members.iter().all(is_good));
        let protected: BTreeSet<&Key> = whole.iter().flat_map(|(_, group)| &group.members).map(|m| &m.key).collect();
        let open: Vec<Member> = self
            .good
            .iter()
            .filter(|(key, (size, _))| !protected.contains(key) && *size > 0)
            .map(|(key, (size, hash))| Member { key: key.clone(), size: *size, hash: *hash, offset: 0 })
            .collect();
        let stale: Vec<Key> = stale.iter().map(|(name, _)| Place::Parity(**name).key()).collect();
        self.report.protected = to_u64(protected.len());
        self.report.unprotected = to_u64(open.len());
        if !self.options.add_parity {
            return Ok(());
        }
        let mut made = BTreeSet::new();
        for group in create::groups(open) {
            let count = to_u64(group.members.len());
            let (name, size) = create::store(self.storage, group, self.control)?;
            made.insert(Place::Parity(name).key());
            self.report.parity_added = self.report.parity_added.saturating_add(1);
            self.report.parity_objects = self.report.parity_objects.saturating_add(1);
            self.report.parity_bytes = self.report.parity_bytes.saturating_add(size);
            self.report.protected = self.report.protected.saturating_add(count);
            self.report.unprotected = self.report.unprotected.saturating_sub(count);
        }
        // While something is not repaired, nothing that may help is thrown away.
        if self.report.unrepaired > 0 {
            return Ok(());
        }
        let stale_count = to_u64(stale.len());
        for key in stale.into_iter().chain(damaged_parity).filter(|key| !made.contains(key)) {
            self.storage.delete(&key).map_err(|error| Error::storage("delete", &key, error))?;
            self.report.parity_removed = self.report.parity_removed.saturating_add(1);
        }
        self.report.parity_objects = self.report.parity_objects.saturating_sub(stale_count);
        Ok(())
    }
}
