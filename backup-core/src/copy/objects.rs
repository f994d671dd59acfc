//! Objects that are named by hashes, on their way: each is compared with its name and size as it passes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use crate::copy::CopyOptions;
use crate::error::{Error, Result};
use crate::extent::ExtentKind;
use crate::format::layout::{self, Place};
use crate::length::to_u64;
use crate::object::verify_name;
use crate::progress::Event;
use crate::repository::{Control, NamedObject, POISONED, for_each, lock, read_error};
use crate::storage::{Key, PutMode, Storage, StorageError, list_all};

/// An object that the destination must have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needed {
    pub(crate) object: NamedObject,
    /// Its size, as a signed record or a listing of the source says; `None` where the source does not have it.
    pub(crate) size: Option<u64>,
}

/// What was carried so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) objects_copied: u64,
    pub(crate) bytes_copied: u64,
    pub(crate) objects_found: u64,
    pub(crate) bytes_found: u64,
    /// Objects that were written.
    pub(crate) written: BTreeSet<NamedObject>,
    /// Objects that were counted, so that none is twice.
    counted: BTreeSet<Place>,
    /// Objects that could not be carried, and why.
    pub(crate) failed: BTreeMap<Place, String>,
    expected: u64,
}

/// Carries objects from one storage to another.
pub(crate) struct Carrier<'c> {
    pub(crate) source: &'c dyn Storage,
    pub(crate) destination: &'c dyn Storage,
    pub(crate) options: &'c CopyOptions,
    pub(crate) control: &'c Control,
    tally: Mutex<Tally>,
}

/// What stands at a place now: sizes by key.
pub(crate) type Listed = BTreeMap<Key, u64>;

impl<'c> Carrier<'c> {
    pub(crate) fn new(
        source: &'c dyn Storage,
        destination: &'c dyn Storage,
        options: &'c CopyOptions,
        control: &'c Control,
    ) -> Self {
        Self { source, destination, options, control, tally: Mutex::default() }
    }

    pub(crate) fn into_tally(self) -> Result<Tally> {
        self.tally.into_inner().map_err(|_| POISONED)
    }

    /// Carries every object that the destination does not have, as `there` says. What is wrong with single objects
    /// is [kept](Self::failure) and keeps no other from being carried.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`], [`Error::ReadOnly`], [`Error::Cancelled`].
    pub(crate) fn carry(&self, needed: &[Needed], there: &Listed) -> Result<()> {
        let missing = needed.iter().filter(|one| !there.contains_key(&one.object.place.key()));
        let bytes = missing.filter_map(|one| one.size).fold(0, u64::saturating_add);
        {
            let mut tally = lock(&self.tally)?;
            tally.expected = tally.expected.saturating_add(bytes);
            self.control.event(&Event::Expected { entries: 0, bytes: tally.expected });
        }
        // Every thread holds one object.
        let largest = needed.iter().filter_map(|one| one.size).max().unwrap_or(0).max(1);
        let fit = self.control.byte_budget().checked_div(largest).unwrap_or(1);
        let threads = usize::try_from(fit).unwrap_or(usize::MAX).clamp(1, self.control.threads());
        let control = self.control.clone().with_threads(threads);
        for_each(&control, needed.len(), &|| Ok(()), &|(), number| {
            let Some(one) = needed.get(number) else { return Ok(()) };
            match self.carry_one(one, there) {
                Ok(()) => Ok(()),
                Err(error) if error.is_of_one_object() => {
                    let message = error.to_string();
                    let key = one.object.place.key();
                    self.control.event(&Event::Problem { name: key.as_str(), message: &message });
                    lock(&self.tally)?.failed.insert(one.object.place, message);
                    Ok(())
                }
                Err(error) => Err(error),
            }
        })
    }

    /// Why one of these places could not be filled.
    pub(crate) fn failure(&self, places: impl IntoIterator<Item = Place>) -> Result<Option<String>> {
        let tally = lock(&self.tally)?;
        Ok(places.into_iter().find_map(|place| tally.failed.get(&place).cloned()))
    }

    fn carry_one(&self, needed: &Needed, there: &Listed) -> Result<()> {
        let Needed { object: NamedObject { place, what, name, .. }, size } = needed;
        let key = place.key();
        if let Some(found) = there.get(&key) {
            return self.found(needed, &key, *found);
        }
        let size = size.as_ref().ok_or_else(|| read_error(&key, StorageError::NotFound))?;
        let bytes = self.source.get(&key, *size).map_err(|error| read_error(&key, error))?;
        if to_u64(bytes.len()) != *size {
            return Err(Error::damaged(what, &key, format!("it has {} bytes instead of {size}", bytes.len())));
        }
        verify_name(what, key.as_str(), name, &bytes)?;
        self.control.event(&Event::Fetched { bytes: *size });
        match self.destination.put(&key, bytes, PutMode::Create) {
            Ok(()) => {}
            // Somebody else copies the same.
            Err(StorageError::AlreadyExists) => {
                let found = self.destination.stat(&key).map_err(|error| at_destination(read_error(&key, error)))?;
                return self.found(needed, &key, found.size);
            }
            Err(error) => return Err(at_destination(Error::storage("put", &key, error))),
        }
        self.control.event(&Event::Stored { bytes: *size });
        self.control.event(&Event::Bytes { count: *size, kind: ExtentKind::Data });
        let mut tally = lock(&self.tally)?;
        tally.counted.insert(*place);
        tally.written.insert(needed.object);
        tally.objects_copied = tally.objects_copied.saturating_add(1);
        tally.bytes_copied = tally.bytes_copied.saturating_add(*size);
        Ok(())
    }

    /// An object that is there is the right one if its size is, or its name.
    fn found(&self, needed: &Needed, key: &Key, size: u64) -> Result<()> {
        let NamedObject { place, what, name, limit } = needed.object;
        if !lock(&self.tally)?.counted.insert(place) {
            return Ok(());
        }
        if let Some(right) = needed.size.filter(|right| *right != size) {
            let reason = format!("it has {size} bytes instead of {right}; nothing is ever replaced");
            return Err(at_destination(Error::damaged(what, key, reason)));
        }
        // Of what the source does not have, only the name tells whether it is the right one.
        if self.options.check_existing || needed.size.is_none() {
            let bytes = self.destination.get(key, limit).map_err(|error| at_destination(read_error(key, error)))?;
            self.control.event(&Event::Fetched { bytes: to_u64(bytes.len()) });
            verify_name(what, key.as_str(), &name, &bytes).map_err(at_destination)?;
        }
        let mut tally = lock(&self.tally)?;
        tally.objects_found = tally.objects_found.saturating_add(1);
        tally.bytes_found = tally.bytes_found.saturating_add(size);
        Ok(())
    }
}

/// What of the named objects is on a storage.
pub(crate) fn listing(storage: &dyn Storage) -> Result<Listed> {
    let mut listed = Listed::new();
    for prefix in [layout::PACKS, layout::INDEXES, layout::BODIES, layout::CLOSURES] {
        let objects = list_all(storage, prefix).map_err(|source| Error::list(prefix, source))?;
        listed.extend(objects.into_iter().map(|object| (object.key, object.size)));
    }
    Ok(listed)
}

/// An error about an object of the destination: the source has one under the same key.
pub(crate) fn at_destination(error: Error) -> Error {
    let there = |key: String| format!("{key} at the destination");
    match error {
        Error::Damaged { what, name, reason } => Error::Damaged { what, name: there(name), reason },
        Error::Storage { operation, key, source } => Error::Storage { operation, key: there(key), source },
        Error::AlreadyExists { what, name } => Error::AlreadyExists { what, name: there(name) },
        Error::ReadOnly { what } => Error::ReadOnly { what: there(what) },
        error => error,
    }
}
