//! Who can open a repository: key slots, the keyring and the recovery key.
//!
//! A password or recovery key opens a *key slot*, which yields the keyring key, which opens the
//! newest *keyring*, which holds everything else. So a password is changed by adding a slot and
//! removing another, and no data is touched.

mod content;
mod credential;
mod keyring;
mod maintenance;
mod recovery;
mod slot;
mod text;

pub(crate) use self::content::ContentKeys;
pub use self::credential::Credential;
pub(crate) use self::keyring::{
    create_keyring, is_of_another, keyring_numbers, newest_keyring, read_newest_keyring, seal_keyring, with_new_root,
    write_keyring,
};
pub use self::maintenance::MaintenanceKey;
pub use self::recovery::RecoveryKey;
#[cfg(any(test, feature = "testing"))]
pub(crate) use self::slot::wrap;
pub use self::slot::{DamagedSlot, KeySlot, KeySlotKind};
pub(crate) use self::slot::{
    KeyringKey, NewSlot, create_slot, list_slots, make_slot, open_slots, read_slot, remove_slot, store_slot,
};

#[cfg(test)]
mod tests;
