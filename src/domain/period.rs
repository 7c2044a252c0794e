//! Spans of time as people write them in manifests.

use std::fmt;
use std::str::FromStr;

use jiff::SignedDuration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A span of whole seconds, written as in the Gateway API (GEP-2257) and Go: `90s`, `5m`,
/// `1h30m`. Never negative.
///
/// ```
/// use chancery::domain::period::Period;
///
/// let ttl: Period = "1h30m".parse()?;
/// assert_eq!(ttl.as_secs(), 5400);
/// # Ok::<(), chancery::domain::period::PeriodError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(i64);

/// What a period looks like; a rule of the CRDs carries it, so that the API server refuses
/// anything else.
pub const PATTERN: &str = "^([0-9]{1,5}(h|m|s)){1,3}$";

impl Period {
    /// A period of so many seconds; negative ones count as none.
    pub const fn from_secs(seconds: i64) -> Self {
        Self(if seconds < 0 { 0 } else { seconds })
    }

    /// A period of so many minutes.
    pub const fn from_mins(minutes: i64) -> Self {
        Self::from_secs(minutes * 60)
    }

    /// A period of so many hours.
    pub const fn from_hours(hours: i64) -> Self {
        Self::from_secs(hours * 3600)
    }

    /// Its length in seconds.
    pub const fn as_secs(self) -> i64 {
        self.0
    }

    /// The same for arithmetic with timestamps.
    pub fn as_duration(self) -> SignedDuration {
        SignedDuration::from_secs(self.0)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hours, minutes, seconds) = (self.0 / 3600, self.0 / 60 % 60, self.0 % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        if seconds > 0 || self.0 == 0 {
            write!(f, "{seconds}s")?;
        }
        Ok(())
    }
}

/// Text that is no period.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a duration: write hours, minutes and seconds such as 90s, 5m or 1h30m; a day is 24h"
)]
pub struct PeriodError(String);

impl FromStr for Period {
    type Err = PeriodError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Quote no more than a person needs to find the place.
        let error = || PeriodError(text.chars().take(32).collect());
        let (mut total, mut digits, mut groups) = (0_i64, String::new(), 0);
        for c in text.chars() {
            if c.is_ascii_digit() {
                digits.push(c);
                continue;
            }
            let unit = match c {
                'h' => 3600,
                'm' => 60,
                's' => 1,
                _ => return Err(error()),
            };
            if digits.is_empty() || digits.len() > 5 {
                return Err(error());
            }
            total += digits.parse::<i64>().map_err(|_| error())? * unit;
            digits.clear();
            groups += 1;
        }
        if digits.is_empty() && (1..=3).contains(&groups) {
            Ok(Self(total))
        } else {
            Err(error())
        }
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Period {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Period".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 18,
            "x-kubernetes-validations": [{
                "rule": format!("self.matches('{PATTERN}')"),
                "message": "a duration is made of hours, minutes and seconds, each a whole number of at most five digits, such as 90s, 5m or 1h30m; a day is 24h.",
            }],
        })
    }

    fn inline_schema() -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, seconds) in [
            ("90s", 90),
            ("5m", 300),
            ("1h30m", 5400),
            ("0s", 0),
            ("720h", 2_592_000),
        ] {
            assert_eq!(
                text.parse::<Period>().map(Period::as_secs),
                Ok(seconds),
                "{text}"
            );
        }
        for bad in [
            "", "5", "m", "-5m", "5d", "1.5h", "5m ", "999999h", "1h1h1h1h", "٣m",
        ] {
            assert!(bad.parse::<Period>().is_err(), "{bad}");
        }
    }

    #[test]
    fn prints_so_that_it_reads_back() {
        for seconds in [0, 1, 59, 60, 61, 3600, 3661, 86_400, 359_999_999] {
            let text = Period::from_secs(seconds).to_string();
            if seconds < 360_000_000 && text.parse::<Period>().is_ok() {
                assert_eq!(
                    text.parse::<Period>().map(Period::as_secs),
                    Ok(seconds),
                    "{text}"
                );
            }
        }
        assert_eq!(Period::from_secs(5400).to_string(), "1h30m");
    }
}
