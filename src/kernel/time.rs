//! A moment, as data: microseconds since 1970 in UTC. Stages get it handed in; none reads a clock.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// A moment in microseconds since 1970-01-01T00:00:00Z.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Reads RFC 3339 text, for example `2026-11-21T10:15:00.5Z`; `None` if it is not that.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        if let Some(own) = Self::parse_own(text.as_bytes()) {
            return Some(own);
        }
        DateTime::parse_from_rfc3339(text).ok().map(|time| Self(time.timestamp_micros()))
    }

    /// Reads the form that we write ourselves, `2026-11-21T10:15:00.500000Z`: every event has one.
    fn parse_own(text: &[u8]) -> Option<Self> {
        let text: &[u8; 27] = text.try_into().ok()?;
        let marks =
            [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (26, b'Z')];
        let number = |from: usize, to: usize| {
            text[from..to].iter().try_fold(0_i64, |number, digit| {
                digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0'))
            })
        };
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        let micros = number(20, 26)?;
        // The last days of months and leap seconds are left to those who know all about them.
        let plain = (1..=12).contains(&month)
            && (1..=28).contains(&day)
            && (hour < 24 && minute < 60 && second < 60)
            && marks.iter().all(|(place, mark)| text[*place] == *mark);
        if !plain {
            return None;
        }
        // Days since 1970, of a year that begins in March (Hinnant's `days_from_civil`).
        let year = if month <= 2 { year - 1 } else { year };
        let (era, month) = (year.div_euclid(400), (month + 9) % 12);
        let year_of_era = year.rem_euclid(400);
        let day_of_year = (153 * month + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * 146_097 + day_of_era - 719_468;
        let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
        Some(Self(seconds * 1_000_000 + micros))
    }

    /// Writes RFC 3339 in UTC with microseconds.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        self.to_chrono().to_rfc3339_opts(SecondsFormat::Micros, true)
    }

    /// Converts to chrono's type; a moment that chrono cannot hold becomes 1970.
    #[must_use]
    pub fn to_chrono(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0).unwrap_or_default()
    }

    /// Makes a moment of Kafka's milliseconds.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    /// Whole milliseconds, rounded towards the past.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// The moment this many seconds later (or earlier, if negative).
    #[must_use]
    pub const fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_writes() {
        let moment = Timestamp(1_763_720_100_123_456);
        assert_eq!(Timestamp::parse_rfc3339(&moment.to_rfc3339()), Some(moment));
        assert_eq!(
            Timestamp::parse_rfc3339("2026-11-21T10:15:00+01:00").map(Timestamp::to_rfc3339),
            Some("2026-11-21T09:15:00.000000Z".to_owned())
        );
        assert_eq!(Timestamp::parse_rfc3339("yesterday"), None);
    }

    #[test]
    fn our_own_form_is_read_as_any_other() {
        // Every day from 1800 to 2200, and some that are none.
        let day = 24 * 60 * 60 * 1_000_000_i64;
        for days in -62_000..84_000 {
            let moment = Timestamp(days * day + (days * 7_919 * 1_000_003).rem_euclid(day));
            let text = moment.to_rfc3339();
            assert_eq!(Timestamp::parse_rfc3339(&text), Some(moment), "{text}");
            let own = Timestamp::parse_own(text.as_bytes());
            assert!(own.is_none_or(|own| own == moment), "{text}");
        }
        for text in [
            "2026-02-31T10:15:00.000000Z",
            "2026-00-01T10:15:00.000000Z",
            "2026-01-01T24:15:00.000000Z",
            "2026-01-01 10:15:00.00000 Z",
            "2026-01-01T10:15:00.00000\u{fc}",
            "+026-01-01T10:15:00.000000Z",
        ] {
            assert_eq!(Timestamp::parse_own(text.as_bytes()), None, "{text}");
        }
    }
}
