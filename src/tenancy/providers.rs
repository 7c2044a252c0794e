//! Which outside providers are trusted: judged together, for controller and feed alike.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::ResourceExt;

use super::Tenancy;
use crate::api::v1alpha1::OidcProvider;
use crate::domain::provider::{Conflict, MOST_PER_NAMESPACE, Provider, Standing, conflicts};
use crate::domain::settings::Settings;
use crate::stores::Stores;

/// An outside provider of this release.
#[derive(Clone, Debug, PartialEq)]
pub struct JudgedProvider {
    /// Its UID.
    pub uid: String,
    /// What is trusted, if nothing stands against it; none: it can not be read.
    pub provider: Option<Provider>,
    /// Why it is not trusted.
    pub problem: Option<ProviderProblem>,
}

impl JudgedProvider {
    /// The provider, if its tokens are taken.
    pub fn trusted(&self) -> Option<&Provider> {
        let sound = self.provider.as_ref().filter(|p| p.active);
        sound.filter(|_| self.problem.is_none())
    }
}

/// Why no token of a provider is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderProblem {
    /// Its namespace is no tenant's: it has no sound Subscription.
    NoSubscription,
    /// What the schema lets pass and can not be used; a sentence.
    Unsound(String),
    /// A tenant's provider lists no issuers, and the release does not allow that.
    AnyIssuer,
    /// It enrols legal entities, which is not for it; a sentence.
    EnrolsLegalEntities(&'static str),
    /// It lists this server's own issuer.
    OwnIssuer,
    /// Examples, by their number from 1, and how what comes of them differs from what they expect.
    Examples(Vec<(usize, Vec<String>)>),
    /// Another one takes the same tokens.
    Conflict(Conflict),
    /// Its namespace has as many as may be, which are older.
    TooMany,
}

/// Judges all of them. Those in namespaces of other environments are left out.
pub fn judge(
    stores: &Stores,
    tenancy: &Tenancy,
    settings: &Settings,
) -> BTreeMap<(String, String), JudgedProvider> {
    let mut created: BTreeMap<String, Timestamp> = BTreeMap::new();
    let mut judged = BTreeMap::new();
    let mut all = stores.oidc_providers.state();
    all.sort_by_key(|provider| {
        let provider = provider.0.as_ref().ok();
        let at = provider.and_then(|p| p.creation_timestamp().map(|at| at.0));
        (at, provider.and_then(ResourceExt::uid))
    });
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for provider in all {
        let Ok(provider) = &provider.0 else { continue };
        let namespace = provider.namespace().unwrap_or_default();
        let environment = tenancy.environments.get(&namespace);
        let dying = provider.metadata.deletion_timestamp.is_some();
        if dying || environment.is_some_and(|of| *of != settings.environment) {
            continue;
        }
        let count = counts.entry(namespace.clone()).or_default();
        *count += 1;
        let one = if *count > MOST_PER_NAMESPACE {
            JudgedProvider {
                uid: provider.uid().unwrap_or_default(),
                provider: None,
                problem: Some(ProviderProblem::TooMany),
            }
        } else {
            alone(provider, &namespace, tenancy, settings)
        };
        let at = provider.creation_timestamp();
        created.insert(one.uid.clone(), at.map_or(Timestamp::MAX, |at| at.0));
        judged.insert((namespace, provider.name_any()), one);
    }
    let standing = judged.values().filter_map(|one: &JudgedProvider| {
        Some(Standing {
            provider: one.trusted()?,
            created: created.get(&one.uid).copied()?,
            uid: &one.uid,
        })
    });
    let conflicts: BTreeMap<String, Conflict> = conflicts(standing)
        .into_iter()
        .map(|(uid, conflict)| (uid.to_owned(), conflict))
        .collect();
    for one in judged.values_mut() {
        if let Some(conflict) = conflicts.get(&one.uid) {
            one.problem = Some(ProviderProblem::Conflict(conflict.clone()));
        }
    }
    judged
}

/// What can be said of one without the others.
fn alone(
    resource: &OidcProvider,
    namespace: &str,
    tenancy: &Tenancy,
    settings: &Settings,
) -> JudgedProvider {
    let operators = namespace == settings.operator_namespace;
    let (provider, problem) = match resource.provider(&settings.operator_namespace) {
        Err(sentence) => (None, Some(ProviderProblem::Unsound(sentence))),
        Ok(provider) => {
            let problem = if !operators && tenancy.of(namespace).is_empty() {
                Some(ProviderProblem::NoSubscription)
            } else {
                problem(resource, &provider, operators, settings)
            };
            (Some(provider), problem)
        }
    };
    JudgedProvider {
        uid: resource.uid().unwrap_or_default(),
        provider,
        problem,
    }
}

fn problem(
    resource: &OidcProvider,
    provider: &Provider,
    operators: bool,
    settings: &Settings,
) -> Option<ProviderProblem> {
    if provider.issuers.contains(&settings.issuer) {
        return Some(ProviderProblem::OwnIssuer);
    }
    let any_issuer = provider.issuers.is_empty();
    if any_issuer && !operators && !settings.providers.allow_tenants_any_issuer {
        return Some(ProviderProblem::AnyIssuer);
    }
    if provider.auto_enroll.legal_entities {
        if !operators {
            return Some(ProviderProblem::EnrolsLegalEntities(
                "spec.autoEnroll.legalEntities is for providers in the operator's namespace alone, as a tenant's speaks of no other legal entity: take it away.",
            ));
        }
        if !settings.legal_entities.auto_enroll {
            return Some(ProviderProblem::EnrolsLegalEntities(
                "spec.autoEnroll.legalEntities is true, which this release does not allow: take it away, or have a platform administrator set legalEntities.autoEnroll.",
            ));
        }
    }
    let tried = resource.examples().enumerate().map(|(at, example)| {
        let differences = provider.try_example(&example, &settings.issuer);
        (at + 1, differences)
    });
    let failed: Vec<_> = tried.filter(|(_, all)| !all.is_empty()).collect();
    (!failed.is_empty()).then_some(ProviderProblem::Examples(failed))
}
