//! How often something may happen, as people write it in manifests.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// So many within a second, a minute or an hour: `10/s`, `600/m`, `5000/h`. As many can come at
/// once; what was used comes back evenly (the generic cell rate algorithm, ITU-T I.371).
///
/// ```
/// use chancery::domain::rate::Rate;
///
/// let rate: Rate = "600/m".parse()?;
/// assert_eq!((rate.burst(), rate.window_secs()), (600, 60));
/// # Ok::<(), chancery::domain::rate::RateError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    count: u64,
    window_secs: u64,
}

/// What a rate looks like; a rule of the CRDs carries it.
pub const PATTERN: &str = "^[1-9][0-9]{0,5}/[smh]$";

const NANOS: u64 = 1_000_000_000;

impl Rate {
    /// So many in each second.
    pub const fn per_second(count: u64) -> Self {
        let window_secs = 1;
        Self { count, window_secs }
    }

    /// So many in each minute.
    pub const fn per_minute(count: u64) -> Self {
        let window_secs = 60;
        Self { count, window_secs }
    }

    /// How many can come at once.
    pub const fn burst(self) -> u64 {
        self.count
    }

    /// The time in seconds within which as many come back.
    pub const fn window_secs(self) -> u64 {
        self.window_secs
    }

    /// Whether this allows more than another in the long run.
    pub fn exceeds(self, other: Self) -> bool {
        u128::from(self.count) * u128::from(other.window_secs)
            > u128::from(other.count) * u128::from(self.window_secs)
    }

    /// One more at `now`, where the bucket is empty from `empty_at` on (both in nanoseconds of a
    /// monotonic clock): when it will be empty then.
    ///
    /// # Errors
    /// The bucket is full: how many nanoseconds it takes until one more fits.
    pub fn take(self, empty_at: u64, now: u64) -> Result<u64, u64> {
        let window = self.window_secs * NANOS;
        let one = (window / self.count).max(1);
        let after = empty_at.max(now).saturating_add(one);
        // A clock that stands still or goes back (it does not) would only be stricter.
        match after.saturating_sub(now).checked_sub(window) {
            None | Some(0) => Ok(after),
            Some(wait) => Err(wait),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.window_secs {
            1 => 's',
            60 => 'm',
            _ => 'h',
        };
        write!(f, "{}/{unit}", self.count)
    }
}

/// Text that is no rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a rate: write a whole number from 1 to 999999 and s, m or h, such as 10/s, 600/m or 5000/h"
)]
pub struct RateError(String);

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || RateError(text.chars().take(32).collect());
        let (digits, unit) = text.split_once('/').ok_or_else(error)?;
        let window_secs = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return Err(error()),
        };
        let sound = (1..=6).contains(&digits.len())
            && digits.bytes().all(|b| b.is_ascii_digit())
            && !digits.starts_with('0');
        if !sound {
            return Err(error());
        }
        let count = digits.parse().map_err(|_| error())?;
        Ok(Self { count, window_secs })
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Rate {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Rate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 8,
            "x-kubernetes-validations": [{
                "rule": format!("self.matches('{PATTERN}')"),
                "message": "a rate is a whole number from 1 to 999999, a slash, and s, m or h, such as 10/s, 600/m or 5000/h.",
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
    fn reads_what_people_write_and_prints_it_back() {
        for text in ["1/s", "600/m", "999999/h"] {
            let rate: Rate = text.parse().expect("a rate");
            assert_eq!(rate.to_string(), text);
        }
        for bad in [
            "",
            "0/s",
            "1",
            "/s",
            "1/d",
            "01/s",
            "-1/s",
            "1 /s",
            "1000000/s",
            "1/s ",
            "1.5/s",
            "٣/m",
            "1/",
        ] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_burst_passes_and_comes_back_evenly() {
        let rate = Rate::per_minute(3);
        let now = 1_000 * NANOS;
        let mut empty_at = 0;
        for _ in 0..3 {
            empty_at = rate.take(empty_at, now).expect("within the burst");
        }
        assert_eq!(rate.take(empty_at, now), Err(20 * NANOS));
        assert_eq!(rate.take(empty_at, now + 19 * NANOS), Err(NANOS));
        let later = now + 20 * NANOS;
        empty_at = rate.take(empty_at, later).expect("one came back");
        assert_eq!(rate.take(empty_at, later), Err(20 * NANOS));
        // After a whole window all of them are back.
        let later = later + 60 * NANOS;
        for _ in 0..3 {
            empty_at = rate.take(empty_at, later).expect("all came back");
        }
        assert!(rate.take(empty_at, later).is_err());
    }

    #[test]
    fn rates_of_different_units_compare() {
        let rate = |text: &str| text.parse::<Rate>().expect("a rate");
        assert!(rate("2/s").exceeds(rate("119/m")) && !rate("2/s").exceeds(rate("120/m")));
        assert!(rate("1/s").exceeds(rate("3599/h")) && !rate("1/m").exceeds(rate("60/h")));
    }
}
