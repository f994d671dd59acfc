//! What the engine's coordination of threads is made of, in one place: the tests put primitives in its place that let
//! them choose every interleaving (`tests/interleavings.rs`).

pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
pub(crate) use std::thread;

pub(crate) use crossbeam_channel::{Receiver, Sender, bounded};

/// Starts a thread. `false` where the system grants no more of them.
pub(crate) fn spawn<'scope>(scope: &'scope thread::Scope<'scope, '_>, work: impl FnOnce() + Send + 'scope) -> bool {
    builder().spawn_scoped(scope, work).is_ok()
}

#[cfg(not(test))]
fn builder() -> thread::Builder {
    thread::Builder::new()
}

#[cfg(test)]
thread_local! {
    /// How many threads the system grants to this one from now on.
    pub(crate) static GRANTED: std::cell::Cell<usize> = const { std::cell::Cell::new(usize::MAX) };
}

/// A stack larger than all memory makes starting fail, as too many threads do.
#[cfg(test)]
fn builder() -> thread::Builder {
    let granted = GRANTED.get();
    GRANTED.set(granted.saturating_sub(1));
    if granted == 0 { thread::Builder::new().stack_size(1 << 60) } else { thread::Builder::new() }
}
