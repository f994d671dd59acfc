//! Making parity of what has none, without reading what has.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::crypto::hash;
use crate::error::{Error, Result};
use crate::format::layout::{self, Place};
use crate::length::to_u64;
use crate::parity::create;
use crate::parity::group::{self, Group, Member};
use crate::parity::scrub::{class, named};
use crate::progress::Event;
use crate::repository::{Control, LockedRepository, read_error};
use crate::session::History;
use crate::storage::{Key, Storage, list_all};

/// First read of a parity object: mostly all that it says.
const FIRST_READ: u64 = 64 << 10;
/// Most bytes before the parity of an object that is believed to protect something.
const MOST_HEAD: u64 = 64 << 20;

/// What was protected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ProtectReport {
    /// Parity objects that were made.
    pub parity_added: u64,
    /// Their bytes.
    pub parity_bytes: u64,
    /// Objects that they protect.
    pub protected: u64,
    /// Storage keys of objects that are damaged or went away meanwhile: there is no parity of them.
    pub damaged: Vec<String>,
}

/// Makes parity of every object that has none, as [`scrub`](super::scrub) does with
/// [`add_parity`](super::ScrubOptions::add_parity), but reads nothing else: of parity objects that are there what they say they
/// protect, and what they do not. So it is cheap after each backup, and shows that what was written can be read again. Whether
/// older objects and their parity are whole only a scrub says; it also replaces parity of objects that were deleted.
///
/// Needs no password. Memory: a group of parity, 16 MiB and more, and the keys of the objects.
///
/// # Errors
///
/// [`Error::Storage`] where something cannot be listed, read or stored; [`Error::ReadOnly`]; [`Error::Cancelled`].
pub fn protect(repository: &LockedRepository, control: &Control) -> Result<ProtectReport> {
    let storage = &*repository.storage;
    let history = repository.with_records(control, History::read)?;
    let flaws: BTreeSet<&str> = history.flaws.iter().map(|flaw| flaw.key.as_str()).collect();
    let protected = protected(storage, control)?;
    let mut report = ProtectReport::default();
    let mut open = Vec::new();
    for object in list_all(storage, "").map_err(|source| Error::list("", source))? {
        control.cancel().check()?;
        let (key, size) = (object.key, object.size);
        let Some(place) = Place::parse(&key) else { continue };
        let Some((_, limit)) = class(place) else { continue };
        // A collector that sleeps may still delete what has such a name.
        let is_condemned = matches!(place, Place::Pack(name) if history.condemned.contains(&name));
        if size == 0 || is_condemned || flaws.contains(key.as_str()) || protected.get(&key) == Some(&size) {
            continue;
        }
        if size > limit {
            report.damaged.push(key.to_string());
            continue;
        }
        let hash = match named(place) {
            Some(hash) => hash,
            None => {
                let bytes = storage.get(&key, limit).map_err(|error| read_error(&key, error))?;
                control.event(&Event::Fetched { bytes: to_u64(bytes.len()) });
                hash::digest(&bytes)
            }
        };
        open.push(Member { key, size, hash, offset: 0 });
    }
    let mut groups = create::groups(open);
    while let Some(group) = groups.pop() {
        let members = group.members.clone();
        match create::store(storage, group, control) {
            Ok((_, size)) => {
                report.parity_added = report.parity_added.saturating_add(1);
                report.parity_bytes = report.parity_bytes.saturating_add(size);
                report.protected = report.protected.saturating_add(to_u64(members.len()));
            }
            Err(Error::Damaged { name, .. }) if members.iter().any(|member| member.key.as_str() == name) => {
                groups
                    .extend(create::groups(members.into_iter().filter(|member| member.key.as_str() != name).collect()));
                report.damaged.push(name);
            }
            Err(error) => return Err(error),
        }
    }
    report.damaged.sort();
    Ok(report)
}

/// Sizes of the objects that parity objects say they protect.
fn protected(storage: &dyn Storage, control: &Control) -> Result<BTreeMap<Key, u64>> {
    let mut protected = BTreeMap::new();
    let prefix = layout::PARITIES;
    for object in list_all(storage, prefix).map_err(|source| Error::list(prefix, source))? {
        control.cancel().check()?;
        if !matches!(Place::parse(&object.key), Some(Place::Parity(_))) {
            continue;
        }
        // One that is damaged or gone protects nothing.
        let Some(group) = read_group(storage, &object.key, object.size, control)? else { continue };
        for member in group.members {
            let is_of_name =
                Place::parse(&member.key).is_some_and(|place| named(place).is_none_or(|name| name == member.hash));
            if is_of_name {
                protected.insert(member.key, member.size);
            }
        }
    }
    Ok(protected)
}

/// What a parity object says, without its parity.
fn read_group(storage: &dyn Storage, key: &Key, size: u64, control: &Control) -> Result<Option<Group>> {
    let read = |end: u64| match storage.get_range(key, 0..end).map_err(|error| read_error(key, error)) {
        Ok(bytes) => {
            control.event(&Event::Fetched { bytes: to_u64(bytes.len()) });
            Ok(Some(bytes))
        }
        Err(Error::Damaged { .. }) => Ok(None),
        Err(error) => Err(error),
    };
    let Some(mut bytes) = read(size.min(FIRST_READ))? else { return Ok(None) };
    let Some(head) = group::head_length(&bytes, size).filter(|head| *head <= MOST_HEAD) else { return Ok(None) };
    if head > to_u64(bytes.len()) {
        let Some(more) = read(head)? else { return Ok(None) };
        bytes = more;
    }
    Ok(Group::decode_head(&bytes, size))
}
