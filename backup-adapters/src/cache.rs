//! A local copy of what a remote repository is asked for again and again: index segments, backup bodies, closures, and
//! packs of metadata.
//!
//! All of them are named by the hash of their bytes and never change, so that a copy needs no other check than its name: it
//! is read, hashed and compared each time. A copy that is not what it is called is removed, and the object is fetched as if
//! there were none. Packs of content are not kept: they are read once, and would push out everything else.
//!
//! The directory can be removed at any moment, also while programs use it. Any number of processes may share it, and any
//! number of repositories. What fails in it (a full disk, missing permissions) makes things slower and is no error.
//!
//! Copies say nothing about the state of the storage. Verify and copy without a cache.

mod directory;
mod storage;

pub use self::directory::{Cache, CacheUsage};
pub use self::storage::CachedStorage;
