//! Putting signed records where the first one counts.

use bytes::Bytes;

use crate::crypto::SigningKey;
use crate::error::{Error, Result};
use crate::format::layout::Place;
use crate::id::BackupId;
use crate::limits;
use crate::maintenance::site::Site;
use crate::session::seal_forget;
use crate::storage::{Key, PutMode, Storage, StorageError};

/// What came of the attempt to put a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// The storage said that it took it.
    Stored,
    /// It is there; whether this attempt or another with the same bytes put it is not known.
    Same,
    /// Something else is there.
    Taken,
}

/// Puts a record that nothing replaces. Where the storage does not say that it took it, what is there decides.
///
/// # Errors
///
/// [`Error::UnknownOutcome`] where nobody can say; [`Error::Storage`] where it was not taken.
pub(super) fn put(storage: &dyn Storage, key: &Key, bytes: Vec<u8>, limit: u64) -> Result<Decision> {
    let bytes = Bytes::from(bytes);
    let Err(error) = storage.put(key, bytes.clone(), PutMode::Create) else { return Ok(Decision::Stored) };
    match storage.get(key, limit) {
        Ok(found) if found == bytes => Ok(Decision::Same),
        Ok(_) | Err(StorageError::TooLarge { .. }) => Ok(Decision::Taken),
        Err(StorageError::NotFound)
            if matches!(error, StorageError::Full(_) | StorageError::PermissionDenied(_) | StorageError::ReadOnly) =>
        {
            Err(Error::storage("put", key, error))
        }
        Err(_) => Err(Error::UnknownOutcome { what: key.to_string(), source: error }),
    }
}

/// Puts the record that a backup with this id is forgotten.
///
/// # Errors
///
/// Those of [`put`]; [`Error::Damaged`] naming the record whose place something else has.
pub(super) fn put_forget(site: &Site<'_>, key: &SigningKey, id: BackupId) -> Result<()> {
    let place = Place::Forget(id).key();
    match put(site.storage, &place, seal_forget(key, site.repository(), id)?, limits::COMMIT)? {
        Decision::Stored | Decision::Same => Ok(()),
        Decision::Taken => Err(Error::damaged("forget record", &place, "another object stands in its place")),
    }
}
