//! What holds for outside identity providers.

use serde::{Deserialize, Serialize};

use super::super::address::Cidr;
use super::super::period::Period;

/// How outside identity providers are asked, and how long they are believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProviderSettings {
    /// Ranges of addresses, such as `10.96.0.0/12`, that a request to a provider may go to although they
    /// are not public: for providers within the cluster. It holds for tenants' providers too.
    pub allowed_addresses: Vec<String>,
    /// How long keys are trusted that could not be refreshed, from 1m to [`LONGEST_PROVIDER_STALENESS`].
    pub max_staleness: Period,
    /// Whether providers in tenants' namespaces may leave `issuers` empty, so that `iss` is not looked at.
    pub allow_tenants_any_issuer: bool,
}

/// The longest that a provider's keys can be trusted without having been seen.
pub const LONGEST_PROVIDER_STALENESS: Period = Period::from_hours(24 * 30);

impl Default for ProviderSettings {
    fn default() -> Self {
        Self {
            allowed_addresses: Vec::new(),
            max_staleness: Period::from_hours(24),
            allow_tenants_any_issuer: false,
        }
    }
}

impl ProviderSettings {
    /// The ranges; what is none is a problem that was told before.
    pub fn allowed(&self) -> Vec<Cidr> {
        let ranges = self.allowed_addresses.iter();
        ranges.filter_map(|text| text.parse().ok()).collect()
    }

    /// Every mistake, as [`super::Settings::problems`].
    pub(super) fn problems(&self) -> Vec<String> {
        let ranges = self.allowed_addresses.iter();
        let odd = ranges.filter(|text| text.parse::<Cidr>().is_err());
        let mut problems: Vec<_> = odd
            .map(|text| {
                format!(
                    "providers.allowedAddresses has {text:?}, which is no range of addresses: write one \
                     such as 10.96.0.0/12 or fd00::/8, without bits beyond its prefix."
                )
            })
            .collect();
        let most = LONGEST_PROVIDER_STALENESS;
        if self.max_staleness < Period::from_mins(1) || self.max_staleness > most {
            problems.push(format!(
                "providers.maxStaleness is {}: set it between 1m and {most}, as a provider's key is \
                 trusted for so long after the provider has withdrawn it and can not be asked.",
                self.max_staleness
            ));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_told() {
        let settings = ProviderSettings {
            allowed_addresses: vec!["10.0.0.0/8".into(), "10.0.0.1/8".into()],
            max_staleness: Period::from_secs(59),
            ..ProviderSettings::default()
        };
        let problems = settings.problems();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].contains("\"10.0.0.1/8\""), "{problems:?}");
        assert!(
            problems[1].contains("providers.maxStaleness is 59s"),
            "{problems:?}"
        );
        assert_eq!(settings.allowed().len(), 1);
        assert!(ProviderSettings::default().problems().is_empty());
    }
}
