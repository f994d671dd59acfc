//! What the engine's coordination of threads is made of, in one place: the tests put primitives in its place that let
//! them choose every interleaving (`tests/interleavings.rs`).

pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
pub(crate) use std::thread;

pub(crate) use crossbeam_channel::{Sender, bounded};
