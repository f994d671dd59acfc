//! Time as an argument: the core has no clock of its own.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// An instant in UTC with nanoseconds, within the years -9999 to 9999.
///
/// Shown, parsed and serialized as RFC 3339 text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timestamp(jiff::Timestamp);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const UNIX_EPOCH: Self = Self(jiff::Timestamp::UNIX_EPOCH);

    /// From seconds since the Unix epoch and nanoseconds within that second (0 to 999 999 999).
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] where the instant lies outside the supported years.
    pub fn from_unix(seconds: i64, nanoseconds: u32) -> Result<Self> {
        let out_of_range = || Error::invalid("timestamp", format!("{seconds}.{nanoseconds:09} is out of range"));
        if nanoseconds > 999_999_999 {
            return Err(out_of_range());
        }
        let whole = i128::from(seconds).saturating_mul(1_000_000_000).saturating_add(i128::from(nanoseconds));
        jiff::Timestamp::from_nanosecond(whole).map(Self).map_err(|_| out_of_range())
    }

    /// Seconds since the Unix epoch (rounded down) and nanoseconds within that second.
    #[must_use]
    pub fn to_unix(self) -> (i64, u32) {
        let whole = self.0.as_nanosecond();
        let seconds = whole.div_euclid(1_000_000_000);
        let nanoseconds = whole.rem_euclid(1_000_000_000);
        (i64::try_from(seconds).unwrap_or(0), u32::try_from(nanoseconds).unwrap_or(0))
    }

    /// Seconds from `earlier` to this instant; negative where `earlier` is later.
    #[must_use]
    pub fn seconds_since(self, earlier: Self) -> f64 {
        self.0.duration_since(earlier.0).as_secs_f64()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.parse().map(Self).map_err(|_| Error::invalid("timestamp", format!("not RFC 3339: {text:?}")))
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// By which clock days begin: UTC by default.
#[derive(Clone, Debug)]
pub struct TimeZone(jiff::tz::TimeZone);

impl Default for TimeZone {
    fn default() -> Self {
        Self::UTC
    }
}

/// An instant as calendars show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Calendar {
    pub(crate) year: i64,
    pub(crate) month: i64,
    pub(crate) day: i64,
    pub(crate) hour: i64,
    /// Seconds east of UTC.
    pub(crate) offset: i64,
    /// Year and number of the week (ISO 8601).
    pub(crate) week_year: i64,
    pub(crate) week: i64,
}

impl TimeZone {
    /// UTC.
    pub const UTC: Self = Self(jiff::tz::TimeZone::UTC);

    /// A zone that is always so many seconds east of UTC.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] beyond 25:59:59 hours.
    pub fn fixed(seconds_east: i32) -> Result<Self> {
        let offset = jiff::tz::Offset::from_seconds(seconds_east)
            .map_err(|_| Error::invalid("time zone", format!("{seconds_east} seconds are out of range")))?;
        Ok(Self(offset.to_time_zone()))
    }

    /// A zone of the time zone database: its name, and the bytes of its file (RFC 9636).
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] where the bytes are no such file.
    pub fn from_tzif(name: &str, bytes: &[u8]) -> Result<Self> {
        let zone = jiff::tz::TimeZone::tzif(name, bytes);
        zone.map(Self).map_err(|_| Error::invalid("time zone", format!("not a file of a time zone: {name}")))
    }

    pub(crate) fn calendar(&self, instant: Timestamp) -> Calendar {
        let there = instant.0.to_zoned_datetime(self.0.clone());
        let week = there.date().iso_week_date();
        Calendar {
            year: there.year().into(),
            month: there.month().into(),
            day: there.day().into(),
            hour: there.hour().into(),
            offset: there.offset().seconds().into(),
            week_year: week.year().into(),
            week: week.week().into(),
        }
    }
}

/// Where the engine learns what time it is. Times are information for people; no decision about
/// the safety of data depends on them.
pub trait Clock: Send + Sync {
    /// The present instant.
    fn now(&self) -> Timestamp;
}

impl<C: Clock + ?Sized> Clock for &C {
    fn now(&self) -> Timestamp {
        (**self).now()
    }
}

impl<C: Clock + ?Sized> Clock for std::sync::Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }
}

/// A clock that always shows the same instant: for tests, vectors and reproducible files.
#[derive(Clone, Copy, Debug)]
pub struct FixedClock(pub Timestamp);

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_numbers_round_trip() {
        for (seconds, nanoseconds, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (-1, 999_999_999, "1969-12-31T23:59:59.999999999Z"),
            (1_790_000_000, 5, "2026-09-21T14:13:20.000000005Z"),
        ] {
            let instant = Timestamp::from_unix(seconds, nanoseconds).unwrap();
            assert_eq!(instant.to_unix(), (seconds, nanoseconds));
            assert_eq!(instant.to_string(), text);
            assert_eq!(text.parse::<Timestamp>().unwrap(), instant);
        }
        assert!(Timestamp::from_unix(i64::MAX, 0).is_err());
        assert!(Timestamp::from_unix(0, 1_000_000_000).is_err());
    }
}
