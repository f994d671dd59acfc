//! What is repeated, how often, and after which pause.

use std::future::Future;
use std::time::Duration;

use backup_core::entropy::{Entropy, OsEntropy};
use backup_core::storage::StorageError;

use super::error::Problem;

/// How often a request is repeated that failed in a way that may pass, and how long it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Tries in all, at least 1. Default 9.
    pub attempts: u32,
    /// The pause before the first repetition; it doubles with each. Between half of it and all of it is waited, at
    /// random, so that clients that failed together do not come back together. Default 200 ms.
    pub first_pause: Duration,
    /// The longest pause. Default 15 s. With the other defaults, a storage that stays away is given up after 20 to 40
    /// seconds of pauses.
    pub longest_pause: Duration,
    /// How long one try may take, besides the time for what it carries. Default 60 s.
    pub patience: Duration,
    /// Bytes per second that any connection brings about: the time for what a request carries. Default 64 KiB/s.
    pub slowest: u64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 9,
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(15),
            patience: Duration::from_secs(60),
            slowest: 64 * 1024,
        }
    }
}

impl RetryPolicy {
    /// Tries in all.
    #[must_use]
    pub const fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// The first and the longest pause.
    #[must_use]
    pub const fn with_pauses(mut self, first: Duration, longest: Duration) -> Self {
        self.first_pause = first;
        self.longest_pause = longest;
        self
    }

    /// How long one try may take, besides the time for what it carries.
    #[must_use]
    pub const fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// How long one try may take that carries `bytes`.
    fn time_for(&self, bytes: u64) -> Duration {
        self.patience.saturating_add(Duration::from_secs(bytes / self.slowest.max(1)))
    }

    /// The pause before repetition `number` (from 0), where `random` decides between half and all of it.
    fn pause(&self, number: u32, random: u8) -> Duration {
        let whole = self.first_pause.saturating_mul(2_u32.saturating_pow(number)).min(self.longest_pause);
        whole / 2 + whole.mul_f64(f64::from(random) / 512.0)
    }

    /// One try that carries `bytes`, or a [`Problem`] that may pass where it took too long.
    pub(super) async fn attempt<T>(
        &self,
        bytes: u64,
        request: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        let time = self.time_for(bytes);
        match tokio::time::timeout(time, request).await {
            Ok(result) => result,
            Err(_) => Err(Problem::timeout(time)),
        }
    }

    /// Waits before repetition `number`, or `false` where there is none.
    pub(super) async fn again(&self, number: u32) -> bool {
        if number.saturating_add(1) >= self.attempts {
            return false;
        }
        let mut random = [0; 1];
        // Without randomness the pauses are the longest ones.
        if OsEntropy.fill(&mut random).is_err() {
            random = [u8::MAX];
        }
        tokio::time::sleep(self.pause(number, random[0])).await;
        true
    }

    /// Repeats a request that may be repeated freely.
    pub(super) async fn repeat<T, F>(&self, bytes: u64, mut request: impl FnMut() -> F) -> Result<T, StorageError>
    where
        F: Future<Output = Result<T, Problem>>,
    {
        let mut number = 0;
        loop {
            match self.attempt(bytes, request()).await {
                Ok(value) => return Ok(value),
                Err(problem) if problem.may_pass() && self.again(number).await => number += 1,
                Err(problem) => return Err(problem.into_storage_error(number + 1)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_vary() {
        let policy = RetryPolicy::default();
        let seconds = |number, random| policy.pause(number, random).as_secs_f64();
        assert!((seconds(0, 0) - 0.1).abs() < 1e-6 && seconds(0, 255) < 0.2);
        assert!(seconds(3, 0) >= 0.8 && seconds(3, 255) > 1.59);
        for number in [7, 8, 100, u32::MAX] {
            assert!(seconds(number, 0) >= 7.5 && seconds(number, 255) <= 15.0, "{number}");
        }
        let all: f64 = (0..policy.attempts - 1).map(|number| seconds(number, 255)).sum();
        assert!(all < 41.0, "the documentation of longest_pause says 40 seconds: {all}");
    }

    #[test]
    fn large_requests_have_more_time() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.time_for(0), Duration::from_secs(60));
        assert_eq!(policy.time_for(16 << 20), Duration::from_secs(60 + 256));
    }
}
