//! [`Limits`]: bytes per second, for each direction.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use backup_core::progress::CancelToken;

/// The piece that is granted at once, as a time: what a changed limit must wait for.
const PIECE: Duration = Duration::from_millis(100);

/// The time that limits are measured in.
pub trait Time: Send + Sync {
    /// Time since some moment that stays the same. Never goes back.
    fn now(&self) -> Duration;

    /// Waits about so long.
    fn sleep(&self, time: Duration);
}

/// The clock of the operating system that is never set.
#[derive(Debug)]
struct Steady(Instant);

impl Time for Steady {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, time: Duration) {
        thread::sleep(time);
    }
}

/// Bytes per second that may be read from sources, sent to a storage, and fetched from it. 0 is no limit, and the default.
///
/// Shared in an [`Arc`], and changed at any time by any thread.
pub struct Limits {
    read: Rate,
    upload: Rate,
    download: Rate,
    time: Arc<dyn Time>,
    cancel: CancelToken,
}

impl Limits {
    /// No limits yet.
    #[must_use]
    pub fn new() -> Self {
        Self::with_time(Arc::new(Steady(Instant::now())))
    }

    /// As [`new`](Self::new), with another clock.
    #[must_use]
    pub fn with_time(time: Arc<dyn Time>) -> Self {
        let rate = Rate::default;
        Self { read: rate(), upload: rate(), download: rate(), time, cancel: CancelToken::new() }
    }

    /// Nobody waits any more once `cancel` was used: the operation that it stops notices that itself.
    #[must_use]
    pub fn with_cancel(mut self, cancel: CancelToken) -> Self {
        self.cancel = cancel;
        self
    }

    /// Bytes per second that may be read from sources.
    pub fn set_read(&self, bytes_per_second: u64) {
        self.read.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Bytes per second that may be sent to the storage.
    pub fn set_upload(&self, bytes_per_second: u64) {
        self.upload.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Bytes per second that may be fetched from the storage.
    pub fn set_download(&self, bytes_per_second: u64) {
        self.download.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Whether sources are read no faster than somebody said.
    pub(super) fn is_reading_limited(&self) -> bool {
        self.read.bytes_per_second.load(Ordering::Relaxed) > 0
    }

    /// Waits until `bytes` more may be read from a source.
    pub(super) fn wait_to_read(&self, bytes: usize) {
        self.wait(&self.read, bytes);
    }

    /// Waits until `bytes` more may be sent.
    pub(super) fn wait_to_send(&self, bytes: usize) {
        self.wait(&self.upload, bytes);
    }

    /// Waits as long as `bytes` that were fetched must take.
    pub(super) fn wait_for_fetched(&self, bytes: usize) {
        self.wait(&self.download, bytes);
    }

    fn wait(&self, rate: &Rate, bytes: usize) {
        let mut left = u64::try_from(bytes).unwrap_or(u64::MAX);
        while left > 0 && !self.cancel.is_cancelled() {
            let Some((granted, at)) = rate.grant(left, self.time.now()) else { return };
            left = left.saturating_sub(granted);
            // The moment may be further away than a piece where several threads wait; each stays interruptible.
            while let Some(time) = at.checked_sub(self.time.now()).filter(|time| !time.is_zero()) {
                if self.cancel.is_cancelled() {
                    return;
                }
                self.time.sleep(time.min(PIECE));
            }
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |rate: &Rate| rate.bytes_per_second.load(Ordering::Relaxed);
        f.debug_struct("Limits")
            .field("read", &rate(&self.read))
            .field("upload", &rate(&self.upload))
            .field("download", &rate(&self.download))
            .finish_non_exhaustive()
    }
}

/// A bucket of tokens, kept as the moment at which it has paid for everything that was granted.
#[derive(Debug, Default)]
struct Rate {
    bytes_per_second: AtomicU64,
    paid: Mutex<Duration>,
}

impl Rate {
    /// Grants the next piece of `wanted` bytes: how many, and when they are paid for. `None` without a limit.
    fn grant(&self, wanted: u64, now: Duration) -> Option<(u64, Duration)> {
        let rate = self.bytes_per_second.load(Ordering::Relaxed);
        if rate == 0 {
            return None;
        }
        let piece = wanted.min((rate / 10).max(1));
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        // What nobody used is not saved up for longer than a piece.
        let begin = (*paid).max(now.saturating_sub(PIECE));
        *paid = begin.saturating_add(time_for(piece, rate));
        Some((piece, *paid))
    }
}

fn time_for(bytes: u64, rate: u64) -> Duration {
    let nanoseconds = u128::from(bytes).saturating_mul(1_000_000_000).div_ceil(u128::from(rate));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A clock that goes on while somebody sleeps, and does something at some moment.
    #[derive(Default)]
    pub(in crate::limits) struct Simulated {
        now: Mutex<Duration>,
        at: Mutex<Option<Alarm>>,
    }

    type Alarm = (Duration, Box<dyn FnOnce() + Send>);

    impl Simulated {
        pub(in crate::limits) fn seconds(&self) -> f64 {
            self.now().as_secs_f64()
        }

        fn pass(&self, time: Duration) {
            *self.now.lock().unwrap() += time;
        }

        fn at(&self, seconds: u64, action: impl FnOnce() + Send + 'static) {
            *self.at.lock().unwrap() = Some((Duration::from_secs(seconds), Box::new(action)));
        }
    }

    impl Time for Simulated {
        fn now(&self) -> Duration {
            *self.now.lock().unwrap()
        }

        fn sleep(&self, time: Duration) {
            assert!(time <= PIECE, "nobody sleeps longer than a piece: {time:?}");
            self.pass(time);
            let due = self.at.lock().unwrap().take_if(|(moment, _)| *moment <= self.now());
            if let Some((_, action)) = due {
                action();
            }
        }
    }

    pub(in crate::limits) fn limits() -> (Arc<Simulated>, Arc<Limits>) {
        let time = Arc::new(Simulated::default());
        (Arc::clone(&time), Arc::new(Limits::with_time(time)))
    }

    fn near(seconds: f64, expected: f64) {
        assert!((seconds - expected).abs() <= 0.2, "{seconds} s instead of {expected} s");
    }

    #[test]
    fn without_a_limit_nobody_waits() {
        let (time, limits) = limits();
        limits.wait_to_read(usize::MAX);
        limits.wait_to_send(usize::MAX);
        limits.wait_for_fetched(usize::MAX);
        assert_eq!(time.seconds(), 0.0);
    }

    #[test]
    fn the_average_holds_for_any_pieces() {
        for (rate, pieces, length) in
            [(1_000_000, 10, 1_000_000), (1000, 10_000, 1), (3, 30, 1), (1, 10, 1), (1 << 40, 64, 1 << 34), (7, 1, 70)]
        {
            let (time, limits) = limits();
            limits.set_upload(rate);
            for _ in 0..pieces {
                limits.wait_to_send(length);
            }
            let expected = f64::from(pieces) * length as f64 / rate as f64;
            // Something may be sent at once that is paid for later, never more than a piece.
            near(time.seconds().max(expected - 1.0 / rate as f64), expected);
        }
    }

    #[test]
    fn what_was_not_used_is_not_saved_up() {
        let (time, limits) = limits();
        limits.set_read(1000);
        time.pass(Duration::from_secs(3600));
        limits.wait_to_read(10_000);
        near(time.seconds(), 3610.0);
    }

    #[test]
    fn another_limit_counts_at_once() {
        let (time, limits) = limits();
        limits.set_read(1000);
        let other = Arc::clone(&limits);
        time.at(2, move || other.set_read(100_000));
        limits.wait_to_read(100_000);
        near(time.seconds(), 2.0 + 98_000.0 / 100_000.0);
        let other = Arc::clone(&limits);
        time.at(4, move || other.set_read(0));
        limits.wait_to_read(1 << 30);
        near(time.seconds(), 4.0);
    }

    #[test]
    fn directions_do_not_hinder_each_other() {
        let (time, limits) = limits();
        limits.set_upload(10);
        limits.wait_to_read(1 << 30);
        limits.wait_for_fetched(1 << 30);
        assert_eq!(time.seconds(), 0.0);
    }

    #[test]
    fn an_interrupt_ends_the_wait() {
        let time = Arc::new(Simulated::default());
        let cancel = CancelToken::new();
        let limits = Limits::with_time(Arc::clone(&time) as Arc<dyn Time>).with_cancel(cancel.clone());
        limits.set_upload(1);
        time.at(3, move || cancel.cancel());
        limits.wait_to_send(1_000_000);
        near(time.seconds(), 3.0);
    }

    /// Threads that share a limit have it together.
    #[test]
    fn several_threads_share_it() {
        let (_, limits) = limits();
        limits.set_upload(1000);
        let mut paid = Duration::ZERO;
        // As they would be granted, without any thread having waited yet.
        for _ in 0..50 {
            let (piece, at) = limits.upload.grant(100, Duration::from_secs(1)).unwrap();
            assert_eq!(piece, 100);
            assert!(at > paid);
            paid = at;
        }
        near(paid.as_secs_f64(), 1.0 + 5.0 - PIECE.as_secs_f64());
    }
}
