//! Times and spans of time as people give them to `chancery plan`.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::domain::period::Period;

/// Nobody plans further ahead than a hundred years.
const MOST_DAYS: i64 = 36_500;
const DAY: i64 = 86_400;

/// A moment: a time (RFC 3339), or a date, whose midnight in UTC is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instant(pub Timestamp);

impl FromStr for Instant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let date = || text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok();
        let time = if text.len() == "2027-01-01".len() {
            date().map(|midnight| midnight.timestamp())
        } else {
            text.parse::<Timestamp>().ok()
        };
        let time = time.filter(|at| at.as_second() > FIRST);
        time.map(Self).ok_or_else(|| {
            "that is no time: give one as in RFC 3339, such as 2027-01-01T00:00:00Z, or a date such as 2027-01-01".to_owned()
        })
    }
}

/// The beginning of the year 1.
const FIRST: i64 = -62_135_596_800;

/// A span of time in whole seconds, from one second to a hundred years.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    seconds: i64,
    text: String,
}

impl Span {
    /// Its length.
    pub fn seconds(&self) -> i64 {
        self.seconds
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || {
            "that is no duration: give days (of 24h), hours, minutes and seconds, such as 90d, 36h or 1d12h"
                .to_owned()
        };
        let (days, rest) = match text.split_once('d') {
            Some((days, rest)) => (Some(days), rest),
            None => (None, text),
        };
        let days = match days {
            Some(days) if days.bytes().all(|b| b.is_ascii_digit()) => {
                // More digits than a number holds are more than the most.
                let many = days.parse::<i64>().unwrap_or(i64::MAX);
                if days.is_empty() {
                    return Err(refused());
                }
                many
            }
            Some(_) => return Err(refused()),
            None => 0,
        };
        let rest = match rest {
            "" if text.ends_with('d') => 0,
            rest => rest.parse::<Period>().map_err(|_| refused())?.as_secs(),
        };
        let seconds = days.saturating_mul(DAY).saturating_add(rest);
        if seconds == 0 {
            return Err("that is no time at all: give at least 1s".to_owned());
        }
        if seconds > MOST_DAYS * DAY {
            return Err(format!(
                "that is more than a hundred years: give at most {MOST_DAYS}d"
            ));
        }
        let text = text.to_owned();
        Ok(Self { seconds, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_dates_are_read() {
        for (text, time) in [
            ("2027-01-01", "2027-01-01T00:00:00Z"),
            ("2028-02-29", "2028-02-29T00:00:00Z"),
            ("2027-01-01T01:00:00+01:00", "2027-01-01T00:00:00Z"),
            ("2027-01-01T00:00:00.5Z", "2027-01-01T00:00:00.5Z"),
        ] {
            let read = text.parse::<Instant>().map(|Instant(at)| at.to_string());
            assert_eq!(read.as_deref(), Ok(time), "{text}");
        }
        for bad in [
            "",
            "now",
            "tomorrow",
            "2027",
            "2027-02-29",
            "2027-01-01T00:00:00",
            "1767225600",
            "-2027-01-01",
            "0000-01-01",
            "99999-01-01",
            "2027-13-01",
            "20270101",
        ] {
            let told = bad.parse::<Instant>().expect_err(bad);
            assert!(told.contains("2027-01-01T00:00:00Z"), "{told}");
        }
    }

    #[test]
    fn spans_have_days_besides() {
        for (text, seconds) in [
            ("90d", 90 * DAY),
            ("1d12h", DAY + 43_200),
            ("36h", 129_600),
            ("1s", 1),
            ("0d1s", 1),
            ("36500d", 36_500 * DAY),
        ] {
            let read = text.parse::<Span>().map(|span| span.seconds());
            assert_eq!(read, Ok(seconds), "{text}");
        }
        for (bad, told) in [
            ("", "no duration"),
            ("d", "no duration"),
            ("-90d", "no duration"),
            ("-1h", "no duration"),
            ("1.5d", "no duration"),
            ("90", "no duration"),
            ("90d5", "no duration"),
            ("1h2d", "no duration"),
            ("3w", "no duration"),
            ("0d", "no time at all"),
            ("0s", "no time at all"),
            ("36500d1s", "at most 36500d"),
            ("99999999999999999999999d", "at most 36500d"),
        ] {
            let error = bad.parse::<Span>().expect_err(bad);
            assert!(error.contains(told), "{bad}: {error}");
        }
    }
}
