//! Tiers and entitlements: what a subscription gives its tenant.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The eight things that a tier limits.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EntitlementId {
    /// Fields of one model.
    NumModelFields,
    /// Fields of all models together.
    NumModelFieldsCumulative,
    /// Models.
    NumModels,
    /// Client nodes connected at once.
    NumClientNodes,
    /// The size of one request in bytes.
    PayloadSize,
    /// Stored data in bytes.
    DiskUsage,
    /// API requests in an interval.
    ApiRequest,
    /// Calls to a client's own processors in an interval.
    ExternalizedCall,
}

impl EntitlementId {
    /// All eight.
    pub const ALL: [Self; 8] = [
        Self::NumModelFields,
        Self::NumModelFieldsCumulative,
        Self::NumModels,
        Self::NumClientNodes,
        Self::PayloadSize,
        Self::DiskUsage,
        Self::ApiRequest,
        Self::ExternalizedCall,
    ];

    /// Whether the limit holds over everything of its kind together rather than for each one.
    pub fn is_cumulative(self) -> bool {
        matches!(self, Self::NumModelFieldsCumulative | Self::DiskUsage)
    }
}

/// The interval in which a rate is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TimeInterval {
    /// For each second.
    Seconds,
    /// For each minute.
    Minutes,
    /// For each hour.
    Hours,
    /// For each day.
    Days,
}

/// How much of something a tier gives: a number, or explicitly no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limit {
    /// How many, or how many bytes; absent when unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub limit: Option<i64>,
    /// No limit at all. It has to be said: a limit that is merely missing is an error.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unlimited: bool,
    /// For a rate: in which interval `limit` holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_interval_bound: Option<TimeInterval>,
}

impl Limit {
    /// At most `limit`.
    pub const fn of(limit: i64) -> Self {
        Self {
            limit: Some(limit),
            unlimited: false,
            time_interval_bound: None,
        }
    }

    /// At most `limit` in each interval.
    pub const fn rate(limit: i64, interval: TimeInterval) -> Self {
        Self {
            limit: Some(limit),
            unlimited: false,
            time_interval_bound: Some(interval),
        }
    }

    /// No limit.
    pub const UNLIMITED: Self = Self {
        limit: None,
        unlimited: true,
        time_interval_bound: None,
    };

    /// Whether exactly one of `limit` and `unlimited` is said.
    pub fn is_valid(self) -> bool {
        self.limit.is_some() != self.unlimited && self.limit.is_none_or(|l| l >= 0)
    }
}

/// What a tenant is entitled to.
pub type Entitlements = BTreeMap<EntitlementId, Limit>;

/// A tier of the release's catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tier {
    /// A draft can not be subscribed to, unless the release allows drafts.
    #[serde(default)]
    pub draft: bool,
    /// The limit of each of the eight entitlements.
    pub entitlements: Entitlements,
}

/// The tiers that can be subscribed to, by name.
pub type Catalogue = BTreeMap<String, Tier>;

const MB: i64 = 1_000_000;
const GB: i64 = 1_000 * MB;
const TB: i64 = 1_000 * GB;

/// The tiers that every release has: Free, Developer, Pro and Enterprise.
pub fn default_catalogue() -> Catalogue {
    use TimeInterval::{Minutes, Seconds};
    let tier = |draft, limits: [Limit; 8]| Tier {
        draft,
        entitlements: EntitlementId::ALL.into_iter().zip(limits).collect(),
    };
    let small = [
        Limit::of(150),
        Limit::of(300),
        Limit::of(20),
        Limit::of(1),
        Limit::of(5 * MB),
        Limit::of(2 * GB),
        Limit::rate(300, Minutes),
        Limit::rate(300, Minutes),
    ];
    let pro = [
        Limit::of(500),
        Limit::of(2000),
        Limit::of(100),
        Limit::of(5),
        Limit::of(50 * MB),
        Limit::of(TB),
        Limit::rate(50, Seconds),
        Limit::rate(50, Seconds),
    ];
    BTreeMap::from([
        ("Free".to_owned(), tier(false, small)),
        ("Developer".to_owned(), tier(true, small)),
        ("Pro".to_owned(), tier(true, pro)),
        ("Enterprise".to_owned(), tier(false, [Limit::UNLIMITED; 8])),
    ])
}

/// The tier's entitlements with a subscription's own overrides laid over them.
pub fn effective(tier: &Tier, overrides: &Entitlements) -> Entitlements {
    let mut entitlements = tier.entitlements.clone();
    entitlements.extend(overrides.iter().map(|(id, limit)| (*id, *limit)));
    entitlements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_whole_and_valid() {
        let catalogue = default_catalogue();
        assert_eq!(catalogue.len(), 4);
        for (name, tier) in &catalogue {
            assert_eq!(tier.entitlements.len(), 8, "{name}");
            assert!(tier.entitlements.values().all(|l| l.is_valid()), "{name}");
        }
        assert_eq!(
            catalogue["Pro"].entitlements[&EntitlementId::DiskUsage],
            Limit::of(TB)
        );
        assert!(catalogue["Pro"].draft && !catalogue["Free"].draft);
    }

    #[test]
    fn an_override_replaces_one_limit() {
        let overrides = Entitlements::from([(EntitlementId::NumModels, Limit::UNLIMITED)]);
        let all = effective(&default_catalogue()["Free"], &overrides);
        assert_eq!(all[&EntitlementId::NumModels], Limit::UNLIMITED);
        assert_eq!(all[&EntitlementId::NumModelFields], Limit::of(150));
        assert_eq!(all.len(), 8);
    }

    #[test]
    fn a_limit_says_one_thing() {
        assert!(
            !Limit {
                limit: None,
                unlimited: false,
                time_interval_bound: None
            }
            .is_valid()
        );
        assert!(
            !Limit {
                limit: Some(1),
                unlimited: true,
                time_interval_bound: None
            }
            .is_valid()
        );
    }
}
