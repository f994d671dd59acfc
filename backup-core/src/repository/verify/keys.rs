//! Config, key slots and keyring: without them nobody opens the repository again.

use crate::crypto::hash;
use crate::error::Result;
use crate::format::header::Header;
use crate::format::layout::{self, Place};
use crate::keys::{list_slots, newest_keyring, read_newest_keyring};
use crate::length::to_u64;
use crate::limits;
use crate::object::ObjectType;
use crate::repository::handle::{Inner, read_error};
use crate::repository::verify::report::{FindingKind, Findings};
use crate::repository::verify::sites::Site;
use crate::storage::StorageError;

/// Checks that the repository can be opened again, as far as that can be seen: `config` is the one that was
/// opened, slots and the newest keyring are there and look like what they are.
///
/// What a slot holds only its password can tell. The keyring is opened where `inner` has its key.
pub(crate) fn check_keys(site: &Site<'_>, inner: Option<&Inner>, findings: &Findings) -> Result<()> {
    let key = Place::Config.key();
    match site.storage.get(&key, limits::CONFIG) {
        Ok(bytes) if hash::digest(&bytes) == site.config_hash => {}
        Ok(_) => findings.add(FindingKind::Bytes, key.as_str(), "it is not the config that the repository had")?,
        Err(StorageError::NotFound) => findings.missing(key.as_str())?,
        Err(error) => findings.add_error(FindingKind::Bytes, key.as_str(), read_error(&key, error))?,
    }
    check_slots(site, findings)?;
    check_keyring(site, inner, findings)
}

fn check_slots(site: &Site<'_>, findings: &Findings) -> Result<()> {
    let (slots, damaged) = match list_slots(site.storage, site.signers.repository) {
        Ok(listed) => listed,
        Err(error) => return findings.add_error(FindingKind::Record, layout::SLOTS, error),
    };
    for slot in damaged {
        findings.add_error(FindingKind::Record, Place::Slot(slot.id).key().as_str(), slot.error)?;
    }
    if slots.is_empty() {
        findings.add(FindingKind::Missing, layout::SLOTS, "there is no key slot that can be read")?;
    }
    Ok(())
}

fn check_keyring(site: &Site<'_>, inner: Option<&Inner>, findings: &Findings) -> Result<()> {
    let wanted = inner.map_or(1, |inner| inner.keyring_number);
    let newest = newest_keyring(site.storage, site.signers.repository)?;
    for number in newest.foreign {
        let message = "it is of another repository: an interrupted init left it, or it is damaged";
        findings.add(FindingKind::Record, Place::Keyring(number).key().as_str(), message)?;
    }
    let Some((newest, read)) = newest.found.filter(|(newest, _)| *newest >= wanted) else {
        // An older one lacks keys.
        return findings.missing(Place::Keyring(wanted).key().as_str());
    };
    let key = Place::Keyring(newest).key();
    let read = read.map_err(|error| read_error(&key, error)).and_then(|bytes| {
        let kind = ObjectType::Keyring;
        Header::parse(&bytes, to_u64(bytes.len()), kind.name(), key.as_str()).map(drop)?;
        let Some(inner) = inner else { return Ok(()) };
        let provider = &*inner.environment.aead;
        let config = site.storage.get(&Place::Config.key(), limits::CONFIG);
        // A config that is not the right one was reported.
        match config {
            Ok(config) if hash::digest(&config) == site.config_hash => {
                read_newest_keyring(site.storage, provider, site.signers.repository, &inner.keyring_key, &config)
                    .map(drop)
            }
            _ => Ok(()),
        }
    });
    match read {
        Ok(()) => Ok(()),
        Err(error) => findings.add_error(FindingKind::Bytes, key.as_str(), error),
    }
}
