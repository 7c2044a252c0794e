//! How outside people, and their legal entities, are enrolled.

use serde::{Deserialize, Serialize};

use super::super::rate::Rate;
use super::super::subscription::Allowed;
use super::is_dns_label;

/// How people are enrolled as Users (`spec.autoEnroll` of an `OidcProvider`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UserSettings {
    /// With so many Users in a tenant's namespace, from 1 to [`MOST_USERS`], nobody is enrolled there any
    /// more; people may still make some.
    pub max_per_tenant: i32,
    /// How many people of a tenant may be enrolled, in the long run and at once.
    pub enrolment_rate: Rate,
}

/// How legal entities are enrolled that no namespace has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LegalEntitySettings {
    /// Whether providers in the operator's namespace may have legal entities enrolled.
    pub auto_enroll: bool,
    /// What the names of the namespaces begin with that are made for them.
    pub namespace_prefix: String,
    /// The tier that they get.
    pub tier: String,
    /// What their tokens may say at most.
    pub allowed: AllowedTo,
    /// So many are enrolled at most, from 1 to [`MOST_LEGAL_ENTITIES`].
    pub max: i32,
    /// How many may be enrolled, in the long run and at once.
    pub enrolment_rate: Rate,
}

/// What tokens of a legal entity that is enrolled may say at most, as a Subscription has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AllowedTo {
    /// Scopes; `*` allows any.
    pub scopes: Vec<String>,
    /// Roles; `*` allows any.
    pub roles: Vec<String>,
    /// Audiences; `*` allows any.
    pub audiences: Vec<String>,
}

impl AllowedTo {
    /// As a Subscription has it.
    pub fn allowed(&self) -> Allowed {
        Allowed {
            scopes: self.scopes.clone(),
            roles: self.roles.clone(),
            audiences: self.audiences.clone(),
            client_ids: Vec::new(),
        }
    }
}

/// The most Users of a tenant.
pub const MOST_USERS: i32 = 100_000;
/// The most legal entities that are enrolled.
pub const MOST_LEGAL_ENTITIES: i32 = 10_000;
/// The longest prefix: a hash and some letters follow it in a DNS label.
pub const LONGEST_PREFIX: usize = 24;

impl Default for UserSettings {
    fn default() -> Self {
        Self {
            max_per_tenant: 1000,
            enrolment_rate: Rate::per_minute(300),
        }
    }
}

impl Default for LegalEntitySettings {
    fn default() -> Self {
        Self {
            auto_enroll: false,
            namespace_prefix: "org-".into(),
            tier: "Free".into(),
            allowed: AllowedTo::default(),
            max: 100,
            enrolment_rate: Rate::per_minute(10),
        }
    }
}

impl UserSettings {
    /// Every mistake, as [`super::Settings::problems`].
    pub(super) fn problems(self) -> Vec<String> {
        let most = self.max_per_tenant;
        let odd = !(1..=MOST_USERS).contains(&most);
        let told = || format!("users.maxPerTenant is {most}: set it between 1 and {MOST_USERS}.");
        odd.then(told).into_iter().collect()
    }
}

impl LegalEntitySettings {
    /// Every mistake, as [`super::Settings::problems`]. `known` says whether there is a tier of that name.
    pub(super) fn problems(&self, known: impl Fn(&str) -> bool) -> Vec<String> {
        let mut problems = Vec::new();
        let prefix = &self.namespace_prefix;
        // With a letter behind it, it has to be a label.
        if prefix.is_empty()
            || prefix.len() > LONGEST_PREFIX
            || !is_dns_label(&format!("{prefix}x"))
        {
            problems.push(format!(
                "legalEntities.namespacePrefix is {prefix:?}: use 1 to {LONGEST_PREFIX} of a-z, 0-9 and -, \
                 beginning with a letter or digit, such as org-."
            ));
        }
        if ["kube-", "chancery-"]
            .iter()
            .any(|own| prefix.starts_with(own))
        {
            problems.push(format!(
                "legalEntities.namespacePrefix is {prefix:?}, as the cluster's own namespaces begin: choose \
                 another one, such as org-."
            ));
        }
        if self.auto_enroll && !known(&self.tier) {
            problems.push(format!(
                "legalEntities.tier is {:?}, which can not be subscribed to: name one of the catalogue that is \
                 no draft, or set policy.allowDraftTiers.",
                self.tier
            ));
        }
        if !(1..=MOST_LEGAL_ENTITIES).contains(&self.max) {
            problems.push(format!(
                "legalEntities.max is {}: set it between 1 and {MOST_LEGAL_ENTITIES}.",
                self.max
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
        let users = UserSettings {
            max_per_tenant: 0,
            ..UserSettings::default()
        };
        assert_eq!(users.problems().len(), 1);
        assert!(UserSettings::default().problems().is_empty());
        let known = |tier: &str| tier == "Free";
        let good = LegalEntitySettings::default();
        assert!(good.problems(known).is_empty());
        for prefix in ["", "-a", "Org-", "kube-", "org_", &"a".repeat(25)] {
            let bad = LegalEntitySettings {
                namespace_prefix: prefix.into(),
                ..good.clone()
            };
            assert_eq!(bad.problems(known).len(), 1, "{prefix:?}");
        }
        let bad = LegalEntitySettings {
            auto_enroll: true,
            tier: "Pro".into(),
            max: 0,
            ..good
        };
        assert_eq!(bad.problems(known).len(), 2);
    }
}
