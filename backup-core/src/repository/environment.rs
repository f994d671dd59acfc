//! What a repository needs from its caller, and how much an operation may use.

use std::fmt;
use std::sync::Arc;

use crate::crypto::{AeadProvider, AesGcm};
use crate::entropy::Entropy;
use crate::progress::{CancelToken, Event, Observer, Silent};
use crate::time::{Clock, Timestamp};

/// Clock, randomness and cipher implementation of a repository handle. Cheap to clone.
#[derive(Clone)]
pub struct Environment {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) aead: Arc<dyn AeadProvider>,
}

impl Environment {
    /// An environment with the default AES-256-GCM provider, [`AesGcm`].
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { clock, entropy, aead: Arc::new(AesGcm) }
    }

    /// Another AES-256-GCM provider. The bytes on storage are the same.
    #[must_use]
    pub fn with_aead(mut self, aead: Arc<dyn AeadProvider>) -> Self {
        self.aead = aead;
        self
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("aead", &self.aead).finish_non_exhaustive()
    }
}

/// How an operation runs: threads, memory, progress, stopping. Cheap to clone.
///
/// The default is one thread (the caller's), a budget of 160 MiB, nobody watching.
#[derive(Clone)]
pub struct Control {
    threads: usize,
    byte_budget: u64,
    observer: Arc<dyn Observer>,
    cancel: CancelToken,
}

impl Control {
    /// The default memory budget in bytes.
    pub const DEFAULT_BYTE_BUDGET: u64 = 160 << 20;

    /// Worker threads, at most 256. With 1, all work runs on the caller's thread; with more, threads exist only
    /// inside the call, and each seals and stores the packs that it fills. 0 counts as 1.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads.clamp(1, 256);
        self
    }

    /// Bytes of content that may be in memory at once: chunks that were read and not yet packed,
    /// packs on their way to the storage, and restored content on its way to its target. On top come
    /// the index (at most 40 bytes a chunk), a chunk and its compressed form for each thread, three packs
    /// that are being filled, and some 20 MiB of entries that wait for their place in the catalogue. Small
    /// budgets are raised to what one thread needs to make progress.
    #[must_use]
    pub const fn with_byte_budget(mut self, bytes: u64) -> Self {
        self.byte_budget = bytes;
        self
    }

    /// Who learns of progress.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// What can stop the operation.
    #[must_use]
    pub fn with_cancel(mut self, cancel: CancelToken) -> Self {
        self.cancel = cancel;
        self
    }

    /// How calls that take no control read many small objects: they wait for the storage, not for the processor.
    pub(crate) fn waiting() -> Self {
        Self::default().with_threads(8)
    }

    pub(crate) const fn threads(&self) -> usize {
        self.threads
    }

    pub(crate) const fn byte_budget(&self) -> u64 {
        self.byte_budget
    }

    pub(crate) const fn cancel(&self) -> &CancelToken {
        &self.cancel
    }

    pub(crate) fn event(&self, event: &Event<'_>) {
        self.observer.event(event);
    }
}

impl Default for Control {
    fn default() -> Self {
        Self {
            threads: 1,
            byte_budget: Self::DEFAULT_BYTE_BUDGET,
            observer: Arc::new(Silent),
            cancel: CancelToken::new(),
        }
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("threads", &self.threads)
            .field("byte_budget", &self.byte_budget)
            .field("cancel", &self.cancel)
            .finish_non_exhaustive()
    }
}
