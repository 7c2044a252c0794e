//! What is told of a ring: what stands in its way, its conditions, its status.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::{Obstacle, Visit, policy};
use crate::api::v1alpha1::{Conditions, KeyState, KeyStatus, Observed, SigningKeyStatus};
use crate::controllers::{Write, status};
use crate::domain::algorithm::KeyKind;
use crate::domain::jwk::PublicJwk;
use crate::domain::names;
use crate::domain::reasons as r;
use crate::domain::rotation::{self, KeyFacts, Phase};
use crate::objects::{Ownership, jwks_map};

impl Visit<'_> {
    /// What the release's policy has against the spec.
    pub(super) fn violation(&self) -> Option<Obstacle> {
        let (spec, policy) = (&self.ring.spec, &self.settings.policy);
        if !policy.allowed_algorithms.contains(&spec.algorithm) {
            let allowed: Vec<_> = policy.allowed_algorithms.iter().map(|a| a.name()).collect();
            return Some((
                r::POLICY_VIOLATION,
                format!(
                    "spec.algorithm is {}, which this release does not allow: use one of {}, or add it to policy.allowedAlgorithms.",
                    spec.algorithm,
                    allowed.join(", ")
                ),
            ));
        }
        let bits = spec.rsa_size().bits();
        if spec.algorithm.key_kind() == KeyKind::Rsa && bits < policy.min_rsa_key_size {
            return Some((
                r::POLICY_VIOLATION,
                format!(
                    "spec.rsaKeySize is {bits}, and this release allows no RSA key below {}: set it to at least that.",
                    policy.min_rsa_key_size
                ),
            ));
        }
        None
    }

    /// What stands where an object of ours should be.
    pub(super) fn obstacle(&self) -> Option<Obstacle> {
        let namespace = &self.settings.operator_namespace;
        let remembered = self.ring.status.as_ref().map_or(&[][..], |s| &s.keys);
        for seen in &self.seen.secrets {
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
                (Ok(_), _) => continue,
            };
            return Some((
                r::SECRET_NAME_CONFLICT,
                format!(
                    "Secret {namespace}/{secret} is in the way of the ring's key pair, and was left as it is: {why}. Delete or rename it, or give this SigningKey another name."
                ),
            ));
        }
        let uid = self.ring.uid().unwrap_or_default();
        let foreign_ring_map = self
            .seen
            .ring_map
            .as_deref()
            .filter(|map| !jwks_map::is_ring_map(map, &self.seen.name, &uid));
        let foreign_issuer_map = self
            .seen
            .issuer_map
            .as_deref()
            .filter(|map| !jwks_map::is_issuer_map(map, &self.settings.environment));
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

    pub(super) fn status(&self, keys: &[KeyFacts], conditions: &Conditions) -> Option<Write> {
        let before = self.ring.status.as_ref();
        let observed = Observed {
            generation: self.ring.metadata.generation.unwrap_or(0),
            now: self.now,
        };
        let mut keys: Vec<&KeyFacts> = keys.iter().collect();
        keys.sort_by_key(|k| k.sequence);
        let active = keys.iter().find(|k| k.phase() == Phase::Active);
        let after = SigningKeyStatus {
            observed_generation: observed.generation,
            conditions: conditions.write(before.map_or(&[], |s| &s.conditions), observed),
            active_key_id: active.map(|k| k.jwk.kid.clone()),
            keys: keys
                .iter()
                .map(|k| key_status(k, policy(self.settings)))
                .collect(),
            jwks_config_map: (!keys.is_empty()).then(|| names::ring_jwks(&self.seen.name)),
        };
        status::write(self.ring, before, &after)
    }
}

pub(super) fn conditions(keys: &[KeyFacts], trouble: Option<Obstacle>) -> Conditions {
    let active = keys.iter().find(|k| k.phase() == Phase::Active);
    match (active, trouble) {
        (Some(key), None) => Conditions::ready(r::SUCCEEDED, signs(key)),
        (Some(key), Some(trouble)) => {
            Conditions::ready_but_stalled((r::SUCCEEDED, signs(key)), trouble)
        }
        (None, Some((reason, message))) => Conditions::stalled(reason, message),
        (None, None) => Conditions::reconciling(
            r::PROGRESSING,
            if keys.is_empty() {
                "The ring's first key pair is being made."
            } else {
                "A key pair is being published before it signs."
            },
        ),
    }
}

fn signs(key: &KeyFacts) -> String {
    format!("Key {} signs.", key.jwk.kid)
}

fn key_status(key: &KeyFacts, policy: rotation::Policy) -> KeyStatus {
    KeyStatus {
        key_id: key.jwk.kid.clone(),
        sequence: key.sequence,
        state: match key.phase() {
            Phase::Next => KeyState::Next,
            Phase::Active => KeyState::Active,
            Phase::Retired => KeyState::Retired,
        },
        created_at: key.created.map(whole),
        published_at: key.published.map(whole),
        activated_at: key.activated.map(whole),
        retired_at: key.retired.map(whole),
        verifies_until: key.verifies_until(policy).map(whole),
        material_lost: !key.has_material,
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

pub(super) fn read_jwk(key: &KeyStatus) -> Option<PublicJwk> {
    let value = serde_json::to_value(&key.public_jwk).ok()?;
    serde_json::from_value::<PublicJwk>(value)
        .ok()
        .filter(|jwk| jwk.kid == key.key_id)
}
