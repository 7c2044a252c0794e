//! Subscriptions: which namespace speaks for which legal entity, what it may, and which of
//! several subscriptions is the current one.

use std::collections::HashMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::settings::Settings;
use super::tier::{self, Entitlements};
use super::vocabulary;

/// What tokens of a tenant may say at most. An entry `*` stands for every scope, role or audience;
/// client ids are each listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Allowed {
    /// The scopes that technical users of this namespace may be given; `*` allows any.
    #[schemars(schema_with = "vocabulary::allowed_scopes")]
    pub scopes: Vec<String>,
    /// The roles that technical users of this namespace may be given; `*` allows any.
    #[schemars(schema_with = "vocabulary::allowed_roles")]
    pub roles: Vec<String>,
    /// The audiences that tokens of this namespace may name; `*` allows any.
    #[schemars(schema_with = "vocabulary::allowed_audiences")]
    pub audiences: Vec<String>,
    /// Client ids that technical users here may choose although they do not begin with the
    /// namespace.
    #[schemars(schema_with = "vocabulary::allowed_client_ids")]
    pub client_ids: Vec<String>,
}

/// What of `wanted` a list of allowed values lets through, in the order wanted.
pub fn cut_down<'a>(wanted: &'a [String], allowed: &[String]) -> Vec<&'a str> {
    let any = allowed.iter().any(|a| a == "*");
    wanted
        .iter()
        .filter(|w| any || allowed.contains(w))
        .map(String::as_str)
        .collect()
}

/// What there is to know about one Subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionFacts {
    /// The namespace that it binds.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// When it was created: the oldest wins a conflict.
    pub created: Timestamp,
    /// Its UID, which decides between those of the same second.
    pub uid: String,
    /// The release that serves it.
    pub environment: String,
    /// The tenant's id.
    pub legal_entity_id: String,
    /// The tenant's name.
    pub legal_entity_name: String,
    /// The tier, by name.
    pub tier: String,
    /// What tokens may say.
    pub allowed: Allowed,
    /// Limits of its own, over the tier's.
    pub entitlements: Entitlements,
    /// Not current before; absent: since ever.
    pub period_from: Option<Timestamp>,
    /// Not current from then on; absent: without end.
    pub period_to: Option<Timestamp>,
}

/// Where a Subscription is in its period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Phase {
    /// Its period contains now.
    Active,
    /// Its period has ended.
    Expired,
    /// Its period has not begun.
    Scheduled,
}

/// Why a Subscription does not take effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It stands in the operator namespace, which is no tenant's.
    InOperatorNamespace,
    /// An older one of its namespace names another legal entity or another environment.
    NamespaceBound {
        /// The older Subscription's name.
        by: String,
        /// The legal entity that it names.
        legal_entity: String,
        /// The environment that it names.
        environment: String,
    },
    /// Another namespace had the legal entity first.
    LegalEntityBound {
        /// The namespace that has it.
        namespace: String,
    },
    /// The catalogue has no such tier.
    UnknownTier {
        /// The tiers that there are.
        known: Vec<String>,
    },
    /// The tier is a draft, and the release does not allow drafts.
    DraftTier,
}

impl SubscriptionFacts {
    fn seniority(&self) -> (Timestamp, &str, &str, &str) {
        (self.created, &self.uid, &self.namespace, &self.name)
    }

    /// Whether its period contains `now`: from `periodFrom`, and before `periodTo`.
    pub fn contains(&self, now: Timestamp) -> bool {
        self.period_from.is_none_or(|from| from <= now) && self.period_to.is_none_or(|to| now < to)
    }

    /// Where it is in its period; one that ends before it begins has expired.
    pub fn phase(&self, now: Timestamp) -> Phase {
        match (self.contains(now), self.period_to) {
            (true, _) => Phase::Active,
            (false, Some(to)) if to <= now => Phase::Expired,
            (false, _) => Phase::Scheduled,
        }
    }

    /// What the tenant is entitled to under it; nothing if the tier is unknown.
    pub fn effective_entitlements(&self, settings: &Settings) -> Entitlements {
        settings
            .catalogue()
            .get(&self.tier)
            .map(|tier| tier::effective(tier, &self.entitlements))
            .unwrap_or_default()
    }

    fn tier_problem(&self, settings: &Settings) -> Option<Problem> {
        let catalogue = settings.catalogue();
        match catalogue.get(&self.tier) {
            None => Some(Problem::UnknownTier {
                known: catalogue.into_keys().collect(),
            }),
            Some(tier) if tier.draft && !settings.policy.allow_draft_tiers => {
                Some(Problem::DraftTier)
            }
            Some(_) => None,
        }
    }
}

/// Every Subscription of the cluster with what is wrong with it, oldest first. A younger one
/// yields to an older one that is bound itself; those of other environments are judged too,
/// since they can hold a namespace.
pub fn judge<'a>(
    all: impl IntoIterator<Item = &'a SubscriptionFacts>,
    settings: &Settings,
) -> Vec<(&'a SubscriptionFacts, Option<Problem>)> {
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by(|a, b| a.seniority().cmp(&b.seniority()));
    let mut bound = Bound::default();
    let mut judged = Vec::with_capacity(all.len());
    for subscription in all {
        let problem = if subscription.namespace == settings.operator_namespace {
            Some(Problem::InOperatorNamespace)
        } else {
            bound.claim(subscription)
        };
        let problem = problem.or_else(|| subscription.tier_problem(settings));
        judged.push((subscription, problem));
    }
    judged
}

/// What the older Subscriptions have bound.
#[derive(Default)]
struct Bound<'a> {
    by_namespace: HashMap<&'a str, &'a SubscriptionFacts>,
    by_tenant: HashMap<(&'a str, &'a str), &'a str>,
}

impl<'a> Bound<'a> {
    /// Binds, unless an older one stands against it.
    fn claim(&mut self, new: &'a SubscriptionFacts) -> Option<Problem> {
        let tenant = (new.environment.as_str(), new.legal_entity_id.as_str());
        if let Some(old) = self.by_namespace.get(new.namespace.as_str()) {
            let same = (old.environment.as_str(), old.legal_entity_id.as_str()) == tenant;
            return (!same).then(|| Problem::NamespaceBound {
                by: old.name.clone(),
                legal_entity: old.legal_entity_id.clone(),
                environment: old.environment.clone(),
            });
        }
        if let Some(namespace) = self.by_tenant.get(&tenant) {
            return Some(Problem::LegalEntityBound {
                namespace: (*namespace).to_owned(),
            });
        }
        self.by_namespace.insert(&new.namespace, new);
        self.by_tenant.insert(tenant, &new.namespace);
        None
    }
}

/// The current one among the sound Subscriptions of one namespace: the latest `periodFrom` among
/// those whose period contains `now`; of two that begin together, the younger.
pub fn current<S: AsRef<SubscriptionFacts>>(
    of_namespace: &[S],
    now: Timestamp,
) -> Option<&SubscriptionFacts> {
    of_namespace
        .iter()
        .map(AsRef::as_ref)
        .filter(|s| s.contains(now))
        .max_by(|a, b| (a.period_from, a.seniority()).cmp(&(b.period_from, b.seniority())))
}

impl AsRef<SubscriptionFacts> for SubscriptionFacts {
    fn as_ref(&self) -> &SubscriptionFacts {
        self
    }
}

/// When the answer of [`current`] can next change, after `now`.
pub fn next_change<S: AsRef<SubscriptionFacts>>(
    of_namespace: &[S],
    now: Timestamp,
) -> Option<Timestamp> {
    of_namespace
        .iter()
        .map(AsRef::as_ref)
        .flat_map(|s| [s.period_from, s.period_to])
        .flatten()
        .filter(|t| *t > now)
        .min()
}

#[cfg(test)]
#[path = "subscription/tests.rs"]
mod tests;
