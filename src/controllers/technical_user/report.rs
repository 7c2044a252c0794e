//! What is told of a technical user: what stands against its spec, its conditions, its status.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::assertions::{OWN, judge};
use super::one_time::Sealing;
use super::rotation::{Rotation, SecretFacts};
use super::{RESTRICTED, Tenant, Visit};
use crate::api::v1alpha1::{
    Conditions, CredentialState, CredentialStatus, Observed, READY, ROTATION_PAUSED,
    TechnicalUserStatus,
};
use crate::controllers::{Write, status};
use crate::domain::reasons as r;
use crate::domain::rotation::{MOST_SECRETS, Phase, Source};
use crate::domain::subscription::{SubscriptionFacts, cut_down};
use crate::tenancy::Claim;

impl Visit<'_> {
    /// What stands against the spec, on a look at the release and at the others.
    pub(super) fn violation(&self) -> Option<(&'static str, String)> {
        let (namespace, id) = (
            self.user.namespace().unwrap_or_default(),
            self.user.client_id(),
        );
        if let Some(fault) = self.audience_violation() {
            return Some((r::POLICY_VIOLATION, fault));
        }
        if !self.seen.tenancy.may_have(&namespace, &id) {
            return Some((
                r::CLIENT_ID_NOT_ALLOWED,
                format!(
                    "spec.clientId is {id:?}, which does not begin with \"{namespace}.\": choose one that does, take the field away, or have a platform administrator list it in allowed.clientIds of the Subscription."
                ),
            ));
        }
        if let Some(Claim {
            namespace: theirs,
            name,
            ..
        }) = self.seen.tenancy.rival(self.user)
        {
            let who = if *theirs == namespace {
                format!("TechnicalUser {name}")
            } else {
                "another TechnicalUser".into()
            };
            return Some((
                r::CLIENT_ID_CONFLICT,
                format!(
                    "spec.clientId {id:?} is already that of {who}, which is older: choose another."
                ),
            ));
        }
        self.nameless_device()
    }

    /// What the spec asks for beyond the release's bounds. The bounds hold meanwhile, and nothing waits for a
    /// person to mend it: least of all that a stolen secret is replaced.
    pub(super) fn excess(&self) -> Option<String> {
        let spec = &self.user.spec;
        let longest = self.settings.tokens.max_ttl;
        if let Some(ttl) = spec.token_ttl.filter(|ttl| *ttl > longest) {
            return Some(format!(
                "spec.tokenTtl is {ttl}, and this release lets tokens live at most {longest}, which is how long its tokens live: set it to that or less."
            ));
        }
        let most = self.settings.throttle.max_token_rate;
        let rate = spec.token_rate.filter(|rate| rate.exceeds(most))?;
        Some(format!(
            "spec.tokenRate is {rate}, and this release lets a client ask for tokens at most {most} times, which holds: set it to that or less."
        ))
    }

    /// What this release said of a namespace that nobody served is put right once; from then on it is
    /// another's to tell.
    pub(super) fn left_to_another(&self, namespace: &str) -> Vec<Write> {
        let status = self.user.status.as_ref();
        let mut stood = status.iter().flat_map(|status| &status.conditions);
        let environment = self.seen.tenancy.environments.get(namespace);
        let Some(environment) = environment
            .filter(|_| stood.any(|c| c.type_ == READY && c.reason == r::NO_SUBSCRIPTION))
        else {
            return Vec::new();
        };
        let conditions = Conditions::reconciling(
            r::ANOTHER_ENVIRONMENT,
            format!(
                "The Subscription of namespace {namespace} names environment {environment}: the release of that name serves it, and no other."
            ),
        );
        let rotation = self.rotation(self.own_hashes(), Source::Hold);
        self.status(&conditions, &rotation, None)
    }

    pub(super) fn conditions(&self, tenant: &Tenant, rotation: &Rotation<'_>) -> Conditions {
        let id = self.user.client_id();
        let Tenant::Current(current) = tenant else {
            return Conditions::reconciling(
                r::SUBSCRIPTION_NOT_CURRENT,
                "No Subscription of this namespace is current, so that no token is issued: kubectl get subscriptions tells why.",
            );
        };
        if let Some(conditions) = self.no_signer() {
            return conditions;
        }
        let beyond = self.beyond(current);
        let restricted = format!(
            "Subscription {} does not allow {}, so that tokens go without.",
            current.name,
            beyond.join("; ")
        );
        if cut_down(&self.user.spec.audiences, &current.allowed.audiences).is_empty() {
            return Conditions::stalled(
                r::BEYOND_SUBSCRIPTION,
                format!(
                    "No token is issued: Subscription {} allows none of the audiences {}. Ask for one that it allows, or have a platform administrator list one in its allowed.audiences.",
                    current.name,
                    self.user.spec.audiences.join(", ")
                ),
            );
        }
        let told = |reason, message| match self.unheard(rotation) {
            Some(stalled) => Conditions::ready_but_stalled((reason, message), stalled),
            None => Conditions::ready(reason, message),
        };
        let device = self.device().filter(|device| device.suspended);
        let mut conditions = if self.user.spec.suspended {
            let message = format!(
                "{id} is suspended: no token is issued until spec.suspended is taken back."
            );
            told(r::SUSPENDED, message)
        } else if let Some(device) = device {
            let message = format!(
                "{id} is suspended with its device {}: no token is issued until spec.suspended of that is taken back.",
                device.name
            );
            told(r::SUSPENDED, message)
        } else if let Some(credential) = &self.user.spec.credential.public_key {
            self.of_public_keys(&credential.jwks)
        } else if let Some(credential) = &self.user.spec.credential.service_account {
            self.of_service_account(credential)
        } else if self.user.one_time().is_some() {
            told(r::SUCCEEDED, self.of_one_time(rotation))
        } else if self.is_supplied() {
            told(r::SUCCEEDED, self.told_of_supply(rotation))
        } else {
            let secret = self.user.secret_name();
            let message = match rotation.current {
                Some(_) => format!("{id} gets tokens with the secret in Secret {secret}."),
                None => format!(
                    "{id} gets tokens with the client secret that was claimed; the next one is about to stand in Secret {secret}."
                ),
            };
            told(r::SUCCEEDED, message)
        };
        if !beyond.is_empty() {
            // Where people look first: in the table, and in what `dev` prints.
            let told = conditions.ready_adds(&restricted);
            conditions = told.and(RESTRICTED, true, r::BEYOND_SUBSCRIPTION, restricted);
        }
        if let Some(cause) = rotation.awaits {
            let (reason, told) = self.paused(cause);
            conditions = conditions.ready_adds(&told);
            conditions = conditions.and(ROTATION_PAUSED, true, reason, told);
        } else if let Some(told) = self.unheard_amid_exchange(rotation) {
            conditions = conditions.ready_adds(&told);
            conditions = conditions.and(ROTATION_PAUSED, true, r::CREDENTIAL_EXCHANGED, told);
        } else if rotation.plan.crowded && self.user.secret_credential().is_some() {
            conditions = conditions.and(
                ROTATION_PAUSED,
                true,
                r::TOO_MANY_CREDENTIALS,
                format!("{MOST_SECRETS} client secrets work at once, which is the most: the next is made when the grace of one is over. A shorter credential.secret.rotation.gracePeriod ends old ones sooner."),
            );
        }
        conditions
    }

    /// A rotation that is wanted and can not be.
    fn unheard(&self, rotation: &Rotation<'_>) -> Option<(&'static str, String)> {
        self.user.secret_credential()?;
        if let Some(slip) = &rotation.slip {
            return Some((r::INVALID_SPEC, slip.clone()));
        }
        if let Some(why) = self.too_often() {
            return Some((r::POLICY_VIOLATION, why));
        }
        if self.user.one_time().is_some() {
            return match self.sealing() {
                Sealing::Faulty(why) => Some((r::INVALID_SPEC, why)),
                Sealing::To(_) | Sealing::Unclaimed => None,
            };
        }
        if self.is_supplied() {
            return self.unheard_of_supply(rotation);
        }
        let target = self.user.secret_name();
        let standing = self.seen.deliveries.iter();
        let mut standing = standing.filter(|d| d.secret.name_any() == target);
        let wanted = rotation.policy.interval.is_some()
            || rotation.policy.rotate.is_some() && !rotation.is_handled();
        (Self::is_frozen(standing.next()) && wanted).then(|| {
            (
                r::SECRET_NAME_CONFLICT,
                format!("Secret {target} is immutable, so that no other client secret can be put there, and no rotation takes place: delete it, and a new one is made."),
            )
        })
    }

    fn no_signer(&self) -> Option<Conditions> {
        let message = match &self.user.spec.signing_key {
            Some(ring) if !self.seen.rings.contains(ring) => format!("spec.signingKey is {ring:?}, and no SigningKey of that name with audience client has a key that signs: mend the name, or make that SigningKey."),
            None if self.seen.rings.is_empty() => "No SigningKey with audience client has a key that signs: make one in the operator's namespace.".to_owned(),
            _ => return None,
        };
        Some(Conditions::reconciling(r::NO_SIGNING_KEY, message))
    }

    /// What the user asks for and the Subscription does not allow.
    fn beyond(&self, current: &SubscriptionFacts) -> Vec<String> {
        let (spec, allowed) = (&self.user.spec, &current.allowed);
        [
            ("roles", &spec.roles, &allowed.roles),
            ("scopes", &spec.scopes, &allowed.scopes),
            ("audiences", &spec.audiences, &allowed.audiences),
        ]
        .into_iter()
        .filter_map(|(what, wanted, allowed)| {
            let granted = cut_down(wanted, allowed);
            let denied: Vec<_> = wanted
                .iter()
                .map(String::as_str)
                .filter(|w| !granted.contains(w))
                .collect();
            (!denied.is_empty()).then(|| format!("the {what} {}", denied.join(", ")))
        })
        .collect()
    }

    pub(super) fn status(
        &self,
        conditions: &Conditions,
        rotation: &Rotation<'_>,
        current: Option<&SubscriptionFacts>,
    ) -> Vec<Write> {
        let before = self.user.status.as_ref();
        let observed = Observed {
            generation: self.user.metadata.generation.unwrap_or(0),
            now: self.moment.now,
        };
        let working = self.seen.deliveries.iter().any(|d| d.proves().is_some());
        let until = self.secret_until();
        let spec = &self.user.spec.credential;
        let (kind, key_ids) = match (&spec.public_key, &spec.service_account) {
            (Some(credential), _) => {
                let judged = judge(&credential.jwks, OWN, self.settings);
                ("PublicKey", judged.key_ids)
            }
            (None, Some(_)) => ("ServiceAccount", Vec::new()),
            (None, None) if self.user.one_time().is_some() => ("OneTime", Vec::new()),
            (None, None) if self.is_supplied() => ("Reference", Vec::new()),
            (None, None) => ("Secret", Vec::new()),
        };
        let secret_name = match self.user.delivers_in() {
            Some(name) => working.then_some(name),
            None if self.is_supplied() => self.supplied_by(rotation),
            None => self.delivered(),
        };
        let former_secrets = self.former_status(secret_name.as_deref(), rotation);
        let credentials = credentials(rotation, until);
        let ends = credentials.iter().filter_map(|c| c.expires_at.clone());
        let grace_ends_at = ends.max();
        let stood = before.map_or(&[][..], |s| &s.conditions);
        let after = TechnicalUserStatus {
            observed_generation: observed.generation,
            conditions: conditions.write(stood, observed),
            client_id: Some(self.user.client_id()),
            credential: Some(kind.to_owned()),
            key_ids,
            service_account: self.bound(),
            secret_name,
            former_secrets,
            credentials,
            last_credential_id: Some(self.highest(&rotation.stored))
                .filter(|highest| *highest > 0)
                .map(|highest| highest.to_string()),
            grace_ends_at,
            next_rotation: rotation.next_at().map(whole),
            last_handled_rotation: (rotation
                .is_handled()
                .then(|| rotation.policy.rotate.clone()))
            .flatten()
            .or_else(|| before.and_then(|s| s.last_handled_rotation.clone())),
            sealed: self.to_show(rotation).0.cloned(),
            last_handled_claim: self.handled_claim(),
            subscription: current.map(|c| c.name.clone()),
            companion_agent: self.companion_status(),
            revoked: self.revoked(),
        };
        let events = status::warnings(stood, conditions);
        let mut writes = status::write(self.user, before, &after, events);
        writes.extend(self.newly_bound());
        writes
    }
}

/// What status tells of the secrets that work: with all that is written down now, and without the one
/// that is just being made.
fn credentials(rotation: &Rotation<'_>, until: Option<Timestamp>) -> Vec<CredentialStatus> {
    let told = |key: &SecretFacts| {
        let state = match rotation.phase(key) {
            Phase::Active => CredentialState::Active,
            Phase::Next => CredentialState::Next,
            Phase::Retired | Phase::Withdrawn => CredentialState::Retired,
            Phase::Removed => return None,
        };
        let end = rotation.plan.ends.get(key.kid()).copied();
        let end = end.into_iter().chain(until).min();
        Some(CredentialStatus {
            id: key.kid().to_owned(),
            created_at: whole(key.life.created.unwrap_or(Timestamp::UNIX_EPOCH)),
            state,
            expires_at: end.map(whole),
            secret_name: rotation.read_from(key.kid()),
        })
    };
    let mut keys: Vec<&SecretFacts> = rotation.keys.iter().collect();
    keys.sort_by_key(|k| k.sequence);
    keys.into_iter().filter_map(told).collect()
}

fn whole(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}
