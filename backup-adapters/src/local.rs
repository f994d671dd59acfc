//! Repositories in a local directory: any mounted file system.
//!
//! An object is a file whose path below the directory is its key. Every put writes a file of another
//! name below `.tmp`, makes it durable, and renames it, so that an object is seen whole or not at all,
//! whenever the process or the machine stops. Creating relies on the file system's "rename without
//! replacing", or on hard links where it has none; a file system with neither is refused.
//!
//! Files are for their owner only (0600), directories too (0700).
//!
//! **Symbolic links** inside the directory are not followed, in no component: reading, replacing or
//! storing through one fails, and listings leave them out. The directory itself may be named through
//! links.
//!
//! What a crash leaves below `.tmp` is never listed; it is removed by a later process, before
//! its first put, once it is an hour old and no living process holds it, or a day old.

mod error;
mod listing;
mod storage;
mod temporary;

pub use self::storage::LocalStorage;
