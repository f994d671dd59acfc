//! How fast a backup may read and send: limits that can be changed while it runs.
//!
//! A [`Limits`] is shared by everything that it limits. [`LimitedStorage`] asks it before it sends and behind what it
//! fetched; [`LimitedRead`], [`LimitedBlocks`] and [`LimitedTree`] ask it before they read a source. Whoever must wait
//! waits on its own thread, in pieces of at most a tenth of a second, so that another limit or an interrupt counts at once.
//!
//! Objects are sent whole: a limit holds on average, not within an object.

mod rate;
mod source;
mod storage;

pub use self::rate::{Limits, Time};
pub use self::source::{LimitedBlocks, LimitedRead, LimitedTree};
pub use self::storage::LimitedStorage;
