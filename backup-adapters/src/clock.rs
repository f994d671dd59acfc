//! The operating system's clock.

use std::time::{SystemTime, UNIX_EPOCH};

use backup_core::time::{Clock, Timestamp};

/// The operating system's clock. A clock outside the years that a [`Timestamp`] knows shows 1970.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsClock;

impl Clock for OsClock {
    fn now(&self) -> Timestamp {
        timestamp(SystemTime::now())
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    let (seconds, nanoseconds) = match time.duration_since(UNIX_EPOCH) {
        Ok(since) => (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos()),
        Err(error) => {
            // Seconds are rounded down, so that nanoseconds count forwards before 1970, too.
            let before = error.duration();
            let seconds = i64::try_from(before.as_secs()).map_or(i64::MIN, |seconds| -seconds);
            match before.subsec_nanos() {
                0 => (seconds, 0),
                nanoseconds => (seconds.saturating_sub(1), 1_000_000_000 - nanoseconds),
            }
        }
    };
    Timestamp::from_unix(seconds, nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn counts_on_both_sides_of_1970() {
        assert_eq!(timestamp(UNIX_EPOCH + Duration::new(3, 5)).to_unix(), (3, 5));
        assert_eq!(timestamp(UNIX_EPOCH - Duration::new(3, 0)).to_unix(), (-3, 0));
        assert_eq!(timestamp(UNIX_EPOCH - Duration::new(3, 5)).to_unix(), (-4, 999_999_995));
        assert!(OsClock.now() > Timestamp::from_unix(1_700_000_000, 0).unwrap());
    }
}
