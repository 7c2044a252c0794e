//! What is said of a provider.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Outcome, Visit};
use crate::api::v1alpha1::{Conditions, ISSUER_VALIDATED, Observed, OidcProviderStatus, REACHABLE};
use crate::controllers::{Decision, status};
use crate::crypto::public_key::PublicKey;
use crate::domain::client_key::GivenJwk;
use crate::domain::provider::MOST_PER_NAMESPACE;
use crate::domain::reasons as r;
use crate::objects::provider_keys::{Known, whole_second};
use crate::outside::Fault;
use crate::tenancy::ProviderProblem;

/// So many failed examples are told of.
const MOST_EXAMPLES: usize = 3;

/// What keys are called, those that can be used.
pub fn key_ids(keys: &[GivenJwk]) -> Vec<String> {
    let keys = keys.iter();
    let parsed = keys.filter_map(|key| PublicKey::from_jwk(key, 2048).ok());
    parsed.map(|key| key.key_id().to_owned()).collect()
}

impl Visit<'_> {
    /// Writes status, if it says something new.
    pub(super) fn report(&self, known: Option<&Known>, foreign: bool, decision: &mut Decision) {
        let before = self.provider.status.as_ref();
        let environment = before.and_then(|status| status.environment.as_ref());
        let anothers = environment.is_some_and(|of| *of != self.settings.environment);
        if anothers && self.judged.problem == Some(ProviderProblem::NoSubscription) {
            // It may be for every tenant of that other release, whose namespace this is.
            return;
        }
        let spec = &self.provider.spec;
        let generation = self.provider.metadata.generation.unwrap_or(0);
        let outcome = self.seen.asked.outcome.as_ref();
        let trusted = self.judged.trusted().is_some();
        let told = before.is_some_and(|status| status.observed_generation == generation);
        let waits = trusted && spec.well_known_uri.is_some() && outcome.is_none();
        if waits && told && known.is_some() {
            // A process that has just begun to lead knows less than what stands there.
            return;
        }
        let conditions = self.and_issuer(self.conditions(known, foreign));
        let observed = Observed {
            generation,
            now: self.moment.now,
        };
        let stood = before.map_or(&[][..], |status| &status.conditions);
        let keys = known.map_or(&spec.jwks.keys, |known| &known.keys);
        let after = OidcProviderStatus {
            observed_generation: generation,
            conditions: conditions.write(stood, observed),
            environment: Some(self.settings.environment.clone()),
            issuer: known.map(|known| known.issuer.clone()),
            jwks_uri: known.map(|known| known.jwks_uri.clone()),
            key_ids: if trusted { key_ids(keys) } else { Vec::new() },
            last_refresh: known.map(|known| Time(known.refreshed)),
            next_refresh: outcome.map(|outcome| Time(whole_second(outcome.next))),
            last_handled_reload: match outcome {
                Some(outcome) => outcome.reload.clone(),
                None => before.and_then(|status| status.last_handled_reload.clone()),
            },
        };
        let events = status::warnings(stood, &conditions);
        let writes = status::write(self.provider, before, &after, events);
        decision.writes.extend(writes);
    }

    fn conditions(&self, known: Option<&Known>, foreign: bool) -> Conditions {
        if let Some(problem) = &self.judged.problem {
            return self.stands_against_it(problem);
        }
        let spec = &self.provider.spec;
        if !spec.active {
            return Conditions::ready(
                r::INACTIVE,
                "It is not active: none of its tokens is taken until spec.active is true.",
            );
        }
        if foreign {
            return Conditions::stalled(
                r::CONFIG_MAP_NAME_CONFLICT,
                "A ConfigMap in the operator's namespace is in the way of this provider's keys, and was left as it is: a platform administrator has to delete it.",
            );
        }
        if spec.well_known_uri.is_none() {
            return self.inline();
        }
        self.fetched(known)
    }

    fn stands_against_it(&self, problem: &ProviderProblem) -> Conditions {
        match problem {
            ProviderProblem::NoSubscription => Conditions::reconciling(
                r::NO_SUBSCRIPTION,
                format!(
                    "Namespace {} has no sound Subscription, so that it is no tenant's: a platform administrator has to make one.",
                    self.seen.key.namespace
                ),
            ),
            ProviderProblem::Unsound(sentence) => Conditions::stalled(r::INVALID_SPEC, sentence),
            ProviderProblem::AnyIssuer => Conditions::stalled(
                r::POLICY_VIOLATION,
                "spec.issuers is empty, so that iss would not be looked at, which this release does not allow tenants' providers: list the provider's issuers, or have a platform administrator set providers.allowTenantsAnyIssuer.",
            ),
            ProviderProblem::EnrolsLegalEntities(sentence) => {
                Conditions::stalled(r::POLICY_VIOLATION, *sentence)
            }
            ProviderProblem::OwnIssuer => Conditions::stalled(
                r::INVALID_SPEC,
                format!(
                    "spec.issuers has {}, which is this server's own issuer: its tokens are verified with its own keys alone. Take it away.",
                    self.settings.issuer
                ),
            ),
            ProviderProblem::Examples(failed) => {
                let told = failed.iter().take(MOST_EXAMPLES).map(|(at, differences)| {
                    format!(
                        "Of spec.examples the {} does not come out as expected: {}.",
                        ordinal(*at),
                        differences.join("; ")
                    )
                });
                let told: Vec<_> = told.collect();
                let more = match failed.len().saturating_sub(MOST_EXAMPLES) {
                    0 => String::new(),
                    more => format!(" {more} more do not."),
                };
                Conditions::stalled(
                    r::EXAMPLE_FAILED,
                    format!(
                        "{}{more} No token of the provider is taken until they do, or are taken away.",
                        told.join(" ")
                    ),
                )
            }
            ProviderProblem::TooMany => Conditions::stalled(
                r::TOO_MANY_PROVIDERS,
                format!(
                    "Namespace {} has {MOST_PER_NAMESPACE} older OidcProviders, which is the most: delete those that are not needed.",
                    self.seen.key.namespace
                ),
            ),
            ProviderProblem::Conflict(conflict) => {
                let issuer = match &conflict.issuer {
                    Some(issuer) => format!("issuer {issuer}"),
                    None => "any issuer".to_owned(),
                };
                let operators = &self.settings.operator_namespace;
                // A tenant can not change it, nor see it.
                let for_all = !conflict.with.contains('/') && self.seen.key.namespace != *operators;
                let (whose, then) = if for_all {
                    (
                        format!(
                            " of the operator's namespace {operators}, which is for every tenant,"
                        ),
                        "give this one other audiences, or delete it, as the other goes before",
                    )
                } else {
                    let then = "give the two different audiences, or delete one";
                    (String::new(), then)
                };
                Conditions::stalled(
                    r::PROVIDER_CONFLICT,
                    format!(
                        "OidcProvider {}{whose} takes tokens of {issuer} for audience {} too, and a token has one provider: {then}.",
                        conflict.with, conflict.audience
                    ),
                )
            }
        }
    }

    /// Of one whose keys stand in its spec.
    fn inline(&self) -> Conditions {
        let keys = &self.provider.spec.jwks.keys;
        let ids = key_ids(keys);
        let fault = keys.iter().enumerate().find_map(|(at, key)| {
            let fault = PublicKey::from_jwk(key, 2048).err()?;
            let at = ordinal(at + 1);
            Some(format!(
                "The {at} of spec.jwks.keys can not be used: {fault}."
            ))
        });
        let ready = format!(
            "Tokens that these keys signed are taken: {}.",
            ids.join(", ")
        );
        match fault {
            None => Conditions::ready(r::SUCCEEDED, ready),
            Some(fault) if ids.is_empty() => Conditions::stalled(r::PUBLIC_KEY_REFUSED, fault),
            Some(fault) => {
                Conditions::ready_but_stalled((r::SUCCEEDED, ready), (r::PUBLIC_KEY_REFUSED, fault))
            }
        }
    }

    /// Of one whose keys are fetched.
    fn fetched(&self, known: Option<&Known>) -> Conditions {
        let outcome = self.seen.asked.outcome.as_ref();
        let ready = known.filter(|known| !known.keys.is_empty()).map(|known| {
            let ids = key_ids(&known.keys).join(", ");
            format!(
                "Tokens of {} are taken that these keys signed: {ids}.",
                known.issuer
            )
        });
        let Some(fault) = outcome.and_then(Outcome::fault) else {
            let conditions = match (ready, known) {
                (Some(ready), _) => Conditions::ready(r::SUCCEEDED, ready),
                (None, Some(_)) => self.expired("It is being asked."),
                (None, None) => Conditions::reconciling(
                    r::PROGRESSING,
                    "The provider is being asked for its keys.",
                ),
            };
            return match outcome {
                Some(_) => {
                    conditions.and(REACHABLE, true, r::SUCCEEDED, "It answered the last time.")
                }
                None => conditions,
            };
        };
        let (reason, needs_a_person) = match fault {
            Fault::Unreachable(_) => (r::PROVIDER_UNREACHABLE, false),
            Fault::Refused(_) => (r::PROVIDER_REFUSED, true),
            Fault::Issuer(_) => (r::ISSUER_MISMATCH, true),
        };
        let why = format!("The provider does not tell its keys: {fault}. It is tried again.");
        let conditions = match (ready, known) {
            (Some(ready), Some(known)) => {
                let until = known.good_until(self.settings);
                let why = format!("{why} Those that are known are trusted until {until}.");
                if needs_a_person {
                    Conditions::ready_but_stalled((r::SUCCEEDED, ready), (reason, why))
                } else {
                    Conditions::ready(r::SUCCEEDED, format!("{ready} {why}"))
                }
            }
            (None, Some(_)) => self.expired(&why),
            _ if needs_a_person => Conditions::stalled(reason, why),
            _ => Conditions::reconciling(reason, why),
        };
        conditions.and(REACHABLE, false, reason, format!("{fault}."))
    }

    fn expired(&self, why: &str) -> Conditions {
        Conditions::stalled(
            r::PROVIDER_KEYS_EXPIRED,
            format!(
                "The provider could not be asked for {}, and its keys are not trusted any more: none of its tokens is taken. {why}",
                self.settings.providers.max_staleness
            ),
        )
    }

    /// Whether the issuer of its tokens is looked at.
    fn and_issuer(&self, conditions: Conditions) -> Conditions {
        let issuers = &self.provider.spec.issuers;
        if issuers.is_empty() {
            let told = "spec.issuers is empty: whatever a token with these keys and audiences says as its issuer (iss) is taken.";
            return conditions.ready_adds(told).and(
                ISSUER_VALIDATED,
                false,
                r::ISSUER_NOT_VALIDATED,
                told,
            );
        }
        let message = format!(
            "The issuer (iss) of a token is one of these: {}.",
            issuers.join(", ")
        );
        conditions.and(ISSUER_VALIDATED, true, r::SUCCEEDED, message)
    }
}

fn ordinal(number: usize) -> String {
    let end = match (number % 10, number % 100) {
        (1, n) if n != 11 => "st",
        (2, n) if n != 12 => "nd",
        (3, n) if n != 13 => "rd",
        _ => "th",
    };
    format!("{number}{end}")
}
