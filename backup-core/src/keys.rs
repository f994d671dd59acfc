//! Who can open a repository: key slots, the keyring and the recovery key.
