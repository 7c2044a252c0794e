//! What is told of a ring: what stands in its way, its conditions, its status.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::facts::seconds;
use super::writes::said;
use super::{Obstacle, Trouble, Visit};
use crate::api::v1alpha1::{
    Conditions, EXPIRES_SOON, GRACE_PERIOD_RAISED, KeyState, KeyStatus, NextTransition, Observed,
    PUBLISH_LEAD_RAISED, ROTATION_PAUSED, SigningKeyStatus, TransitionKind,
};
use crate::controllers::{Note, Write, status};
use crate::domain::jwk::PublicJwk;
use crate::domain::names;
use crate::domain::reasons as r;
use crate::domain::rotation::{
    Coming, KeyFacts, MOST_PUBLISHED, Phase, Plan, Policy, later, signer,
};
use crate::objects::{Ownership, jwks_map};

const FORTNIGHT: SignedDuration = SignedDuration::from_hours(14 * 24);

impl Visit<'_> {
    /// What stands where an object of ours should be.
    pub(super) fn obstacle(&self) -> Option<Obstacle> {
        let namespace = &self.settings.operator_namespace;
        let remembered = self.ring.status.as_ref().map_or(&[][..], |s| &s.keys);
        let usable = self.seen.secrets.iter().filter(|s| s.usable().is_some());
        let numbers = usable
            .map(|s| s.sequence)
            .chain(remembered.iter().map(|k| k.sequence));
        let highest = numbers.fold(self.history.highest, i64::max);
        // One with a higher number is passed by when its turn comes.
        let near = self.seen.secrets.iter();
        for seen in near.filter(|s| s.sequence <= highest.saturating_add(1)) {
            let (secret, known) = (
                seen.secret.name_any(),
                remembered.iter().any(|k| k.sequence == seen.sequence),
            );
            let why = match (&seen.key, seen.ownership) {
                _ if seen.secret.metadata.deletion_timestamp.is_some() => continue,
                (_, Ownership::Anothers) => "something else owns it".to_owned(),
                // A key that the ring knew and that was spoilt: it is lost, and replaced.
                (Err(_), _) if known => continue,
                (Err(why), _) => why.clone(),
                (Ok(jwk), _) => match self.taken(seen) {
                    Some(whose) => format!(
                        "it holds key {}, {whose}, and one key can not be in two rings",
                        jwk.kid
                    ),
                    None => continue,
                },
            };
            return Some((
                r::SECRET_NAME_CONFLICT,
                format!(
                    "Secret {namespace}/{secret} is in the way of the ring's key pair, and was left as it is: {why}. Delete or rename it, or give this SigningKey another name."
                ),
            ));
        }
        let foreign = |map: &&ConfigMap| self.is_foreign(map);
        let foreign_ring_map = self.seen.ring_map.as_deref().filter(foreign);
        let foreign_issuer_map = self.seen.issuer_map.as_deref().filter(foreign);
        let map = foreign_ring_map.or(foreign_issuer_map)?;
        Some((
            r::CONFIG_MAP_NAME_CONFLICT,
            format!(
                "ConfigMap {namespace}/{} is in the way of the JWKS, and was left as it is, since it is not of this release's making. Delete or rename it{}.",
                map.name_any(),
                if foreign_ring_map.is_some() {
                    ", or give this SigningKey another name"
                } else {
                    ""
                }
            ),
        ))
    }

    /// Whether a `ConfigMap` that has the name of one of ours is somebody else's.
    pub(super) fn is_foreign(&self, map: &ConfigMap) -> bool {
        let uid = self.ring.uid().unwrap_or_default();
        let ours = if map.name_any() == names::ISSUER_JWKS {
            jwks_map::is_issuer_map(map, &self.settings.environment)
        } else {
            jwks_map::is_ring_map(map, &self.seen.name, &uid)
        };
        !ours
    }

    /// What is told of the ring as a whole.
    pub(super) fn conditions(
        &self,
        keys: &[KeyFacts],
        plan: &Plan,
        policy: &Policy,
        trouble: Trouble,
    ) -> Conditions {
        let active = signer(keys);
        let ended = policy.window.to.filter(|to| *to <= self.now);
        let trouble = trouble
            .obstacle
            .or(trouble.violation)
            .or_else(|| self.unsound_sign_with(keys, plan));
        let conditions = match (active, trouble) {
            _ if ended.is_some() => Conditions::stalled(
                r::VALIDITY_ENDED,
                format!(
                    "spec.validTo, {}, has passed: nothing signs, and the ring's keys have left the JWKS. Make another SigningKey, or set a later time.",
                    ended.map(said).unwrap_or_default()
                ),
            ),
            (Some(key), None) => Conditions::ready(r::SUCCEEDED, self.signs(key, keys, policy)),
            (Some(key), Some(trouble)) => Conditions::ready_but_stalled(
                (r::SUCCEEDED, self.signs(key, keys, policy)),
                trouble,
            ),
            (None, Some((reason, message))) => Conditions::stalled(reason, message),
            (None, None) => Conditions::reconciling(
                r::PROGRESSING,
                if keys.iter().all(|k| k.life.removed.is_some()) {
                    "The ring's first key pair is being made."
                } else {
                    "A key pair is being published before it signs."
                },
            ),
        };
        self.notices(keys, plan, policy, conditions)
    }

    fn signs(&self, key: &KeyFacts, keys: &[KeyFacts], policy: &Policy) -> String {
        let mut told = match policy.window.from.filter(|from| *from > self.now) {
            Some(from) => format!(
                "Key {} signs from {} on (spec.validFrom).",
                key.kid(),
                said(from)
            ),
            None => format!("Key {} signs.", key.kid()),
        };
        let cached = keys
            .iter()
            .filter_map(|k| Some((k, cached_until(k, policy)?)));
        for (key, until) in
            cached.filter(|(k, until)| k.life.withdrawn.is_some() && *until > self.now)
        {
            let _ = write!(
                told,
                " Key {} was withdrawn and is out of the JWKS; a verifier that cached the JWKS may accept it until {}.",
                key.kid(),
                said(until)
            );
        }
        told
    }

    /// What a person should know although all is well.
    fn notices(
        &self,
        keys: &[KeyFacts],
        plan: &Plan,
        policy: &Policy,
        mut conditions: Conditions,
    ) -> Conditions {
        let rotation = self.ring.spec.rotation.clone().unwrap_or_default();
        let today = policy.max_ttl.saturating_add(policy.margin);
        let stands = keys.iter().filter(|k| k.life.removed.is_none());
        let longest = stands.max_by_key(|k| policy.safe_grace(k));
        let safe = longest.map_or(today, |k| policy.safe_grace(k));
        if let Some(grace) = rotation.grace_period.filter(|g| g.as_duration() < safe) {
            let because = match longest {
                Some(key) if safe > today => format!(
                    "{} is what holds for key {}, as tokens of {} were allowed while it signed (with clock leeway, the JWKS's max-age and maxStaleness); it is {} for a key that signs under today's settings",
                    seconds(safe),
                    key.kid(),
                    seconds(key.max_ttl.unwrap_or(policy.max_ttl)),
                    seconds(today.max(grace.as_duration())),
                ),
                _ => format!(
                    "{} is what holds (the longest token life, clock leeway, the JWKS's max-age and maxStaleness together)",
                    seconds(safe)
                ),
            };
            conditions = conditions.and(
                GRACE_PERIOD_RAISED,
                true,
                r::BELOW_SAFE_MINIMUM,
                format!("spec.rotation.gracePeriod is {grace}, and tokens could outlive their key: {because}."),
            );
        }
        if policy.lead() > policy.publish_lead {
            conditions = conditions.and(
                PUBLISH_LEAD_RAISED,
                true,
                r::BELOW_SAFE_MINIMUM,
                format!(
                    "spec.rotation.publishLead is {}, and verifiers may cache the JWKS for {}: {} is what holds.",
                    seconds(policy.publish_lead),
                    seconds(policy.max_age),
                    seconds(policy.lead())
                ),
            );
        }
        if plan.paused {
            let kid = policy.sign_with.as_deref().unwrap_or_default();
            conditions = conditions.and(
                ROTATION_PAUSED,
                true,
                r::SIGN_WITH,
                format!("Key {kid} signs as spec.signWith says, and no rotation takes place until that field is taken away."),
            );
        } else if plan.crowded {
            conditions = conditions.and(
                ROTATION_PAUSED,
                true,
                r::TOO_MANY_KEYS,
                format!("{MOST_PUBLISHED} keys of the ring are published, which is the most: the next is made when one has left. Use a longer interval or a shorter gracePeriod."),
            );
        }
        if let Some(to) = expires_soon(policy, self.now) {
            conditions = conditions.and(
                EXPIRES_SOON,
                true,
                r::VALIDITY_ENDS_SOON,
                format!("spec.validTo, {}, is near: from then on nothing signs. Make another SigningKey for the same audience ahead of it, or set a later time.", said(to)),
            );
        }
        conditions
    }

    /// `signWith` names what never can sign here.
    fn unsound_sign_with(&self, keys: &[KeyFacts], plan: &Plan) -> Option<Obstacle> {
        let named = self.ring.spec.sign_with.as_ref()?;
        let next = keys.iter().any(|k| k.kid() == named && k.is_next());
        (plan.sign_with_waits && !next).then(|| {
            (
                r::UNKNOWN_KEY,
                format!("spec.signWith names {named}, which is no published key of this ring that could sign: the ring goes on by its schedule. Name one of status.keys, or take the field away."),
            )
        })
    }

    pub(super) fn status(
        &self,
        keys: &[KeyFacts],
        plan: &Plan,
        policy: &Policy,
        conditions: &Conditions,
    ) -> Vec<Write> {
        let before = self.ring.status.as_ref();
        let stood = before.map_or(&[][..], |s| &s.conditions);
        let observed = Observed {
            generation: self.ring.metadata.generation.unwrap_or(0),
            now: self.now,
        };
        let mut sorted: Vec<&KeyFacts> = keys.iter().collect();
        sorted.sort_by_key(|k| k.sequence);
        let handled = |value: &&String| keys.iter().any(|k| k.handled.as_ref() == Some(*value));
        let remembered = before.and_then(|s| s.last_handled_rotation.clone());
        let after = SigningKeyStatus {
            observed_generation: observed.generation,
            conditions: conditions.write(stood, observed),
            active_key_id: signer(keys).map(|k| k.kid().to_owned()),
            keys: sorted
                .iter()
                .map(|k| key_status(k, Self::phase(k, keys), plan, policy))
                .collect(),
            next_transition: plan.next.as_ref().map(|next| NextTransition {
                at: whole(next.at),
                what: match next.what {
                    Coming::Generate => TransitionKind::Publish,
                    Coming::Activate => TransitionKind::Activate,
                    Coming::Open => TransitionKind::Open,
                    Coming::Remove => TransitionKind::Remove,
                    Coming::Destroy => TransitionKind::Delete,
                    Coming::Forget => TransitionKind::Forget,
                },
                key_id: next.key_id.clone(),
            }),
            next_rotation: plan.rotates_at.map(whole),
            last_handled_rotation: policy
                .rotate
                .as_ref()
                .filter(handled)
                .cloned()
                .or(remembered),
            jwks_config_map: (!keys.is_empty()).then(|| names::ring_jwks(&self.seen.name)),
        };
        let mut events = status::warnings(stood, conditions);
        events.extend(self.opened(keys));
        status::write(self.ring, before, &after, events)
    }

    /// That the ring's window has begun, where status said that it would.
    fn opened(&self, keys: &[KeyFacts]) -> Option<Write> {
        let awaited = self.ring.status.as_ref()?.next_transition.as_ref()?;
        let opens = awaited.what == TransitionKind::Open;
        let from = self.ring.spec.valid_from.as_ref()?;
        let key = signer(keys).filter(|_| opens && from.0 <= self.now)?;
        let told = format!(
            "Key {} signs from now on: the ring's validFrom, {}, has come.",
            key.kid(),
            said(from.0)
        );
        Some(Note::normal(r::KEY_ACTIVATED, told))
    }
}

/// The end of a ring's window, if it is nearer than 14 days or a fifth of the window.
fn expires_soon(policy: &Policy, now: Timestamp) -> Option<Timestamp> {
    let soon = soon_from(policy).is_some_and(|from| from <= now);
    policy.window.to.filter(|to| soon && *to > now)
}

/// From when on the end of a ring's window is near.
fn soon_from(policy: &Policy) -> Option<Timestamp> {
    let to = policy.window.to?;
    let fifth = policy.window.from.map(|from| to.duration_since(from) / 5);
    let near = fifth.map_or(FORTNIGHT, |fifth| fifth.min(FORTNIGHT));
    Some(to.saturating_sub(near).unwrap_or(to))
}

/// The times at which other things are to be told of a ring although nothing happens to its keys.
pub(super) fn news(
    keys: &[KeyFacts],
    policy: &Policy,
    now: Timestamp,
) -> impl Iterator<Item = Timestamp> {
    let cached = keys.iter().filter(|k| k.life.withdrawn.is_some());
    let cached: Vec<_> = cached.filter_map(|k| cached_until(k, policy)).collect();
    [policy.window.from, policy.window.to, soon_from(policy)]
        .into_iter()
        .flatten()
        .chain(cached)
        .filter(move |at| *at > now)
}

fn cached_until(key: &KeyFacts, policy: &Policy) -> Option<Timestamp> {
    Some(later(key.life.removed?, policy.cached_for))
}

fn key_status(key: &KeyFacts, phase: Phase, plan: &Plan, policy: &Policy) -> KeyStatus {
    KeyStatus {
        key_id: key.kid().to_owned(),
        sequence: key.sequence,
        state: match phase {
            Phase::Next => KeyState::Next,
            Phase::Active => KeyState::Active,
            Phase::Retired => KeyState::Retired,
            Phase::Withdrawn => KeyState::Withdrawn,
            Phase::Removed => KeyState::Removed,
        },
        created_at: key.life.created.map(whole),
        published_at: key.life.published.map(whole),
        activated_at: key.life.activated.map(whole),
        retired_at: key.life.retired.map(whole),
        withdrawn_at: key.life.withdrawn.map(whole),
        removed_at: key.life.removed.map(whole),
        verifies_until: plan.ends.get(key.kid()).copied().map(whole),
        cached_until: cached_until(key, policy).map(whole),
        valid_from: key.window.from.map(whole),
        valid_to: key.window.to.map(whole),
        material_lost: !key.has_material && key.life.removed.is_none(),
        public_jwk: write_jwk(&key.jwk),
    }
}

/// Kubernetes' times have whole seconds; written as they are read back, status does not change
/// from visit to visit.
pub(super) fn whole(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

pub(super) fn time(time: Option<&Time>) -> Option<Timestamp> {
    time.map(|t| t.0)
}

fn write_jwk(jwk: &PublicJwk) -> BTreeMap<String, String> {
    serde_json::to_value(jwk)
        .and_then(serde_json::from_value)
        .unwrap_or_default()
}
