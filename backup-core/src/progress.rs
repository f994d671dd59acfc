//! Progress and events as values, and stopping from another thread.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};
use crate::extent::ExtentKind;

/// Receives [`Event`]s while an operation runs. Called from several threads; must be quick.
///
/// Implemented for closures `Fn(&Event<'_>)`.
pub trait Observer: Send + Sync {
    /// Something happened.
    fn event(&self, event: &Event<'_>);
}

impl<F: Fn(&Event<'_>) + Send + Sync> Observer for F {
    fn event(&self, event: &Event<'_>) {
        self(event);
    }
}

/// An observer that ignores everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _: &Event<'_>) {}
}

/// What an [`Observer`] learns. Byte counts are increments, to be added up.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The expected total of the running operation, as far as known: entries and bytes.
    Expected {
        /// Entries.
        entries: u64,
        /// Bytes of content.
        bytes: u64,
    },
    /// Work on an entry began.
    EntryStarted {
        /// Its path.
        path: &'a crate::content::EntryPath,
    },
    /// An entry is complete.
    EntryFinished {
        /// Its path.
        path: &'a crate::content::EntryPath,
    },
    /// Content was processed: read and chunked by a backup, written by a restore, checked by a verification.
    Bytes {
        /// How many bytes.
        count: u64,
        /// What kind of content: holes and unchanged ranges count too, though nothing is read for them.
        kind: ExtentKind,
    },
    /// Bytes went to the storage.
    Stored {
        /// How many bytes.
        bytes: u64,
    },
    /// Bytes came from the storage.
    Fetched {
        /// How many bytes.
        bytes: u64,
    },
    /// Something was left out or could not be done; the operation goes on and its result will say so.
    Problem {
        /// The path or object.
        name: &'a str,
        /// What happened.
        message: &'a str,
    },
}

/// Stops a running operation from another thread (or a signal handler's thread).
///
/// Clones share one state. The operation ends with [`Error::Cancelled`] at its next step; nothing
/// half-done becomes visible.
#[derive(Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A token that nobody has used yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the operation to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// `Err` once somebody asked.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`].
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CancelToken({})", self.is_cancelled())
    }
}
