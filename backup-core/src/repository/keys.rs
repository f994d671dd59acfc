//! Passwords, recovery keys and the root key of an open repository.

use crate::crypto::Argon2Parameters;
use crate::error::Result;
use crate::format::layout::Place;
use crate::id::SlotId;
use crate::keys::{
    Credential, DamagedSlot, KeySlot, NewSlot, RecoveryKey, create_slot, list_slots, open_slots, read_newest_keyring,
    remove_slot, seal_keyring, with_new_root, write_keyring,
};
use crate::limits;
use crate::repository::environment::{Control, Environment};
use crate::repository::handle::Repository;

impl Repository {
    /// The key slots.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`](crate::Error::Storage).
    pub fn key_slots(&self) -> Result<Vec<KeySlot>> {
        Ok(list_slots(&*self.inner.storage, self.id())?.0)
    }

    /// What stands in the place of key slots and opens nothing. [`remove_slot`](Self::remove_slot) removes it.
    ///
    /// # Errors
    ///
    /// As [`key_slots`](Self::key_slots).
    pub fn damaged_key_slots(&self) -> Result<Vec<DamagedSlot>> {
        Ok(list_slots(&*self.inner.storage, self.id())?.1)
    }

    /// Adds a password. `label` is for people and visible to everybody, at most 63 bytes.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for an empty password, a long label or weak
    /// parameters; [`Error::LimitExceeded`](crate::Error::LimitExceeded) where there are 8 slots; failures of
    /// the storage.
    pub fn add_password(
        &self,
        credential: &Credential<'_>,
        label: &str,
        parameters: Argon2Parameters,
    ) -> Result<SlotId> {
        self.add_slot(NewSlot { credential: *credential, label, parameters }, false)
    }

    fn add_slot(&self, new: NewSlot<'_>, replaces: bool) -> Result<SlotId> {
        let inner = &self.inner;
        inner.check_writable()?;
        let Environment { aead, entropy, .. } = &inner.environment;
        let slot = create_slot(&*inner.storage, &**aead, &**entropy, self.id(), new, replaces, &inner.keyring_key)?;
        Ok(slot.id)
    }

    /// Makes a recovery key and adds it. It is returned once and stored nowhere.
    ///
    /// # Errors
    ///
    /// As [`add_password`](Self::add_password).
    pub fn add_recovery_key(&self, label: &str) -> Result<(SlotId, RecoveryKey)> {
        let key = RecoveryKey::generate(&*self.inner.environment.entropy)?;
        let slot = self.add_password(&Credential::RecoveryKey(&key), label, Argon2Parameters::default())?;
        Ok((slot, key))
    }

    /// Removes a key slot. Who copied it before, and knows its password, can still open what he copied. The one that
    /// [`opened_by`](Self::opened_by) names is removed like any other: ask before.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`](crate::Error::NotFound); [`Error::Conflict`](crate::Error::Conflict) for the last
    /// slot; failures of the storage.
    pub fn remove_slot(&self, id: &SlotId) -> Result<()> {
        self.inner.check_writable()?;
        remove_slot(&*self.inner.storage, self.id(), *id)
    }

    /// Adds a slot for `new`, and then removes the slot that `old` opens, keeping its label.
    ///
    /// # Errors
    ///
    /// [`Error::WrongPassword`](crate::Error::WrongPassword) where `old` opens no slot; as
    /// [`add_password`](Self::add_password), but that there may be 8 slots. An interrupted change leaves both; the
    /// new one may not be tried then, until one of more than 8 is removed.
    pub fn change_password(
        &self,
        old: &Credential<'_>,
        new: &Credential<'_>,
        parameters: Argon2Parameters,
    ) -> Result<SlotId> {
        let inner = &self.inner;
        let max_memory = u64::from(Argon2Parameters::MAX_MEMORY_KIB).saturating_mul(1024);
        let (slot, _) = open_slots(&*inner.storage, &*inner.environment.aead, self.id(), *old, max_memory)?;
        let label = self.key_slots()?.into_iter().find(|known| known.id == slot).map(|known| known.label);
        let new = NewSlot { credential: *new, label: label.as_deref().unwrap_or_default(), parameters };
        let id = self.add_slot(new, true)?;
        self.remove_slot(&slot)?;
        Ok(id)
    }

    /// Makes a new root key: what is written from now on, by handles opened from now on, uses it. Old data
    /// stays readable. Returns the new generation.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`](crate::Error::Conflict) where somebody rotated at the same time; failures of the
    /// storage.
    pub fn rotate_root_key(&self) -> Result<u32> {
        let inner = &self.inner;
        inner.check_writable()?;
        let environment = &inner.environment;
        let provider = &*environment.aead;
        let config = inner.get(&Place::Config.key(), limits::CONFIG, &Control::default())?;
        let newest = read_newest_keyring(&*inner.storage, provider, self.id(), &inner.keyring_key, &config)?;
        let entropy = &*environment.entropy;
        let mut next = with_new_root(&newest, entropy)?;
        let sealed = seal_keyring(provider, entropy, self.id(), &inner.keyring_key, &next)?;
        write_keyring(&*inner.storage, provider, entropy, self.id(), &inner.keyring_key, &mut next, sealed)?;
        Ok(next.generations.last().map_or(0, |(generation, _)| *generation))
    }
}
