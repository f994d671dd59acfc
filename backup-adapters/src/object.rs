//! Repositories in object storage: Amazon S3 and what speaks its protocol, Google Cloud Storage, Azure Blob Storage.
//!
//! An object of the repository is an object of the bucket, under the prefix of the [address](Address) and a slash. Buckets
//! are not created.
//!
//! * **Put-if-absent** is the condition of the cloud (`If-None-Match: *` on S3). Servers exist that ignore it; the engine
//!   probes that before it writes.
//! * **Lost answers.** A request whose answer did not come is repeated. Every object that is created carries a random
//!   number in its metadata, so that the repetition of a creation that had arrived is told from a creation by somebody
//!   else, also where both store the same bytes.
//! * **Retries** are bounded ([`RetryPolicy`]): connections that are cut, timeouts, throttling (429, 503) and failures of
//!   the server (5xx). What is left is [`StorageError::Transient`](backup_core::storage::StorageError::Transient).
//! * **Threads.** A storage owns two threads that run its requests. Callers may be threads of any kind, those of
//!   another asynchronous runtime too: they wait, and never panic.
//!
//! Credentials come from the environment, as the tools of the clouds take them, and from the metadata services of the
//! clouds. See `docs/storage.md`.

mod address;
mod cloud;
mod error;
mod options;
mod requests;
mod retry;
mod storage;

pub use self::address::{Address, Cloud};
pub use self::options::ObjectOptions;
pub use self::retry::RetryPolicy;
pub use self::storage::ObjectStorage;
