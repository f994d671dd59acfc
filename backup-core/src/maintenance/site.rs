//! Where maintenance is done, and with what.

use crate::crypto::SigningKey;
use crate::error::{Error, Result};
use crate::format::config::{Access, Config};
use crate::format::layout::Place;
use crate::id::RepositoryId;
use crate::keys::{MaintenanceKey, read_newest_keyring};
use crate::limits;
use crate::repository::{Control, Environment, Inner, LockedRepository, Repository, each, for_each};
use crate::session::{History, Records, Signers};
use crate::storage::{Key, ObjectInfo, Storage, list_all};

/// A repository to look at.
pub(super) struct Site<'s> {
    pub(super) storage: &'s dyn Storage,
    pub(super) signers: &'s Signers,
    pub(super) environment: &'s Environment,
    pub(super) config: &'s Config,
    pub(super) control: &'s Control,
    /// The repository, where the password opened it.
    pub(super) unlocked: Option<&'s Inner>,
}

impl<'s> Site<'s> {
    pub(super) fn locked(repository: &'s LockedRepository, control: &'s Control) -> Self {
        Self {
            storage: &*repository.storage,
            signers: &repository.signers,
            environment: &repository.environment,
            config: &repository.config,
            control,
            unlocked: None,
        }
    }

    pub(super) fn unlocked(repository: &'s Repository, control: &'s Control) -> Self {
        let inner = &*repository.inner;
        Self {
            storage: &*inner.storage,
            signers: &inner.signers,
            environment: &inner.environment,
            config: &inner.config,
            control,
            unlocked: Some(inner),
        }
    }

    pub(super) const fn repository(&self) -> RepositoryId {
        self.config.repository
    }

    /// The key that signs, if it is the one of this repository and the repository can be written.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for the key of another repository; [`Error::ReadOnly`].
    pub(super) fn signing_key(&self, key: &MaintenanceKey) -> Result<SigningKey> {
        if key.verifying_key() != self.signers.maintenance {
            let reason = format!("it is not the one of repository {}", self.repository());
            return Err(Error::invalid("maintenance key", reason));
        }
        if let Access::ReadOnly { feature } = self.config.access()? {
            return Err(Error::ReadOnly { what: format!("the repository, for its feature {feature} is not known") });
        }
        if self.storage.capabilities().read_only {
            return Err(Error::ReadOnly { what: "the storage".into() });
        }
        Ok(key.signing_key())
    }

    /// The history now, `before` being an earlier reading of it.
    pub(super) fn history(&self, before: &History) -> Result<History> {
        let each = each(self.control);
        before.read_again(&Records { storage: self.storage, signers: self.signers, each: &each })
    }

    pub(super) fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        self.control.cancel().check()?;
        list_all(self.storage, prefix).map_err(|source| Error::list(prefix, source))
    }

    /// Deletes these objects, in no particular order.
    pub(super) fn delete(&self, keys: &[Key]) -> Result<()> {
        for_each(self.control, keys.len(), &|| Ok(()), &|(), number| {
            let Some(key) = keys.get(number) else { return Ok(()) };
            self.storage.delete(key).map_err(|error| Error::storage("delete", key, error))
        })
    }
}

impl Repository {
    /// The key that forgets and collects, to be used where the password is not. Whoever has it can make every
    /// backup be deleted.
    ///
    /// # Errors
    ///
    /// Those of reading the keyring.
    pub fn maintenance_key(&self) -> Result<MaintenanceKey> {
        let inner = &self.inner;
        let config = inner.get(&Place::Config.key(), limits::CONFIG, &Control::default())?;
        let provider = &*inner.environment.aead;
        let keyring = read_newest_keyring(&*inner.storage, provider, self.id(), &inner.keyring_key, &config)?;
        Ok(MaintenanceKey::of_keyring(&keyring))
    }
}
