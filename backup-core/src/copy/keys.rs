//! Config, keyrings and key slots: what makes a place a repository that the same passwords open.
//!
//! They are not named by hashes, so nobody without the password can tell whether they are damaged: the copy is
//! compared with the source byte by byte, and its form is checked.

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::format::header::Header;
use crate::format::layout::Place;
use crate::keys::{is_of_another, keyring_numbers, list_slots, read_slot, store_slot};
use crate::length::to_u64;
use crate::limits;
use crate::object::ObjectType;
use crate::repository::{LockedRepository, Problem, check_no_remains, error_chain, put_config, read_error};
use crate::storage::{PutMode, Storage, StorageError};

use super::objects::at_destination;

/// Makes `destination` the same repository as `source`, if it is not yet: its config comes last, as when a
/// repository is created. Keyrings and slots that are missing are added.
///
/// # Errors
///
/// [`Error::Conflict`] where the destination holds another repository, or its root keys were changed on their own;
/// [`Error::AlreadyExists`] where it lost its config; [`Error::Damaged`] naming a keyring of the source;
/// [`Error::Storage`].
pub(crate) fn bring(source: &LockedRepository, destination: &dyn Storage) -> Result<Vec<Problem>> {
    let config = Place::Config.key();
    let mut is_new = !is_copy(source, destination)?;
    if is_new && let Err(error) = check_no_remains(destination) {
        // Another copier may have been faster.
        if !matches!(error, Error::AlreadyExists { .. }) || !is_copy(source, destination)? {
            return Err(at_destination(error));
        }
        is_new = false;
    }
    bring_keyrings(source, destination)?;
    let problems = bring_slots(source, destination)?;
    if is_new {
        put_config(destination, &config, &source.config_bytes).map_err(|error| match error {
            Error::AlreadyExists { .. } => another_repository(),
            error => at_destination(error),
        })?;
    }
    Ok(problems)
}

/// Whether the destination is a copy already; `false` where it is no repository.
fn is_copy(source: &LockedRepository, destination: &dyn Storage) -> Result<bool> {
    let config = Place::Config.key();
    match destination.get(&config, limits::CONFIG) {
        Ok(found) if found == source.config_bytes => Ok(true),
        Ok(_) | Err(StorageError::TooLarge { .. }) => Err(another_repository()),
        Err(StorageError::NotFound) => Ok(false),
        Err(error) => Err(at_destination(Error::storage("get", &config, error))),
    }
}

fn another_repository() -> Error {
    Error::Conflict {
        what: "the destination".into(),
        reason: "it holds another repository; with the passwords of both, contents can be copied".into(),
        transient: false,
    }
}

fn bring_keyrings(source: &LockedRepository, destination: &dyn Storage) -> Result<()> {
    let repository = source.id();
    let mut brought = false;
    for number in keyring_numbers(&*source.storage)? {
        let key = Place::Keyring(number).key();
        let ours = source.storage.get(&key, limits::KEYRING).map_err(|error| read_error(&key, error))?;
        // What an interrupted creation left is nobody's.
        if is_of_another(&ours, repository) {
            continue;
        }
        let kind = ObjectType::Keyring;
        let header = Header::parse(&ours, to_u64(ours.len()), kind.name(), key.as_str())?;
        if header.repository != repository || header.kind != kind.number() {
            return Err(Error::damaged(kind.name(), &key, "its header is not one of a keyring of this repository"));
        }
        brought = true;
        match destination.put(&key, ours.clone(), PutMode::Create) {
            Ok(()) => continue,
            Err(StorageError::AlreadyExists) => {}
            Err(error) => return Err(at_destination(Error::storage("put", &key, error))),
        }
        let theirs = destination.get(&key, limits::KEYRING).map_err(|error| at_destination(read_error(&key, error)))?;
        check_same_keyring(&ours, &theirs, source, number)?;
    }
    if brought { Ok(()) } else { Err(Error::not_found("keyring", "keyring/*")) }
}

fn check_same_keyring(ours: &Bytes, theirs: &Bytes, source: &LockedRepository, number: u32) -> Result<()> {
    if ours == theirs {
        return Ok(());
    }
    let reason = if is_of_another(theirs, source.id()) {
        "it is of another repository, whose creation was interrupted; delete it there if nobody is creating one"
    } else {
        "it differs from the source's: root keys were changed in both places, or one is damaged"
    };
    let what = format!("{} at the destination", Place::Keyring(number).key());
    Err(Error::Conflict { what, reason: reason.into(), transient: false })
}

/// Adds slots that are missing; none is removed. A slot that would not be tried there is not added.
fn bring_slots(source: &LockedRepository, destination: &dyn Storage) -> Result<Vec<Problem>> {
    let repository = source.id();
    let (slots, damaged) = list_slots(&*source.storage, repository)?;
    let mut problems: Vec<Problem> = damaged
        .iter()
        .map(|slot| Problem::new(Place::Slot(slot.id).key().as_str(), error_chain(&slot.error)))
        .collect();
    if slots.is_empty() {
        return Err(Error::not_found("key slot", "keys/*"));
    }
    let (there, _) = list_slots(destination, repository).map_err(at_destination)?;
    let mut count = there.len();
    for slot in slots.iter().filter(|slot| there.iter().all(|known| known.id != slot.id)) {
        let key = Place::Slot(slot.id).key();
        if count >= limits::SLOTS_TRIED {
            let message = "the destination has as many slots as are tried: remove those of old passwords there";
            problems.push(Problem::new(key.as_str(), message));
            continue;
        }
        let slot = read_slot(&*source.storage, repository, slot.id)?;
        match store_slot(destination, &slot) {
            Ok(_) => count = count.saturating_add(1),
            // Somebody else copies, or something that is no slot is in its place.
            Err(Error::AlreadyExists { .. }) => {
                if let Err(error) = read_slot(destination, repository, slot.id) {
                    problems.push(Problem::new(format!("{key} at the destination"), error_chain(&error)));
                }
            }
            Err(error) => return Err(at_destination(error)),
        }
    }
    Ok(problems)
}
