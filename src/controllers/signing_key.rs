//! The `SigningKey` controller: carries out what [`crate::domain::rotation::plan`] wants.
//!
//! One visit writes only what what it saw allows; what a write makes possible is done by the
//! visit that sees that write. Secret, then JWKS, then publication and activation, then status.

mod copies;
mod publish;
mod report;
mod see;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;

use super::{Decision, Fill, Note, Object, Write};
use crate::api::v1alpha1::{Conditions, SigningKey};
use crate::domain::jwk::PublicJwk;
use crate::domain::reasons as r;
use crate::domain::rotation::{self, KeyFacts, Phase, Plan, Step};
use crate::domain::settings::Settings;
use crate::objects::key_secret::{self, Life};
use crate::objects::{Ownership, jwks_map};

pub use copies::{Troubles, publishing, write as write_copies};
use report::{conditions, read_jwk, time, whole};
pub use see::see;

/// How long to wait before looking again at something foreign, which is not watched.
const FOREIGN_RECHECK: SignedDuration = SignedDuration::from_secs(30);

/// What there is to see of a ring.
pub struct Seen {
    /// The resource; none when it is gone.
    pub ring: Option<Arc<SigningKey>>,
    /// Its name.
    pub name: String,
    /// The Secrets of its key pairs' names.
    pub secrets: Vec<SecretSeen>,
    /// The `ConfigMap` of the ring's name.
    pub ring_map: Option<Arc<ConfigMap>>,
    /// The `ConfigMap` of the issuer's name.
    pub issuer_map: Option<Arc<ConfigMap>>,
    /// What the other rings publish, by their own `ConfigMap`s.
    pub others: BTreeMap<String, Vec<PublicJwk>>,
    /// Its JWKS in other namespaces.
    pub copies: publish::Copies,
}

/// A Secret that has the name of a key pair of the ring.
pub struct SecretSeen {
    /// The number in its name.
    pub sequence: i64,
    /// The Secret.
    pub secret: Arc<Secret>,
    /// Who owns it.
    pub ownership: Ownership,
    /// The key in it, or why there is none.
    pub key: Result<PublicJwk, String>,
}

impl SecretSeen {
    fn usable(&self) -> Option<&PublicJwk> {
        let dying = self.secret.metadata.deletion_timestamp.is_some();
        self.key
            .as_ref()
            .ok()
            .filter(|_| self.ownership != Ownership::Anothers && !dying)
    }
}

/// How long a key that has ceased to sign must verify.
pub fn policy(settings: &Settings) -> rotation::Policy {
    let grace = settings.tokens.max_ttl.as_duration() + settings.jwks.max_age.as_duration();
    rotation::Policy { grace }
}

/// What to do with a ring.
pub fn decide(seen: &Seen, settings: &Settings, now: Timestamp) -> Decision {
    match &seen.ring {
        None => {
            let (mut decision, name) = (gone(seen, settings), (seen.name.as_str(), None));
            let none = Conditions::default();
            publish::decide(
                &seen.copies,
                name,
                &[],
                (settings, now),
                none,
                &mut decision,
            );
            decision
        }
        Some(ring) if ring.metadata.deletion_timestamp.is_some() => Decision::default(),
        Some(ring) => Visit {
            seen,
            ring,
            settings,
            now,
        }
        .decide(),
    }
}

/// The ring was deleted: its keys leave the issuer's JWKS. Its own objects go with it, by their
/// owner references.
fn gone(seen: &Seen, settings: &Settings) -> Decision {
    let map = seen
        .issuer_map
        .as_deref()
        .filter(|m| jwks_map::is_issuer_map(m, &settings.environment));
    let Some(map) = map.filter(|m| jwks_map::shares(m).contains_key(&seen.name)) else {
        return Decision::default();
    };
    let (namespace, environment) = (&settings.operator_namespace, &settings.environment);
    let after = jwks_map::of_issuer(
        &seen.name,
        &[],
        Some(map),
        &seen.others,
        namespace,
        environment,
    );
    Decision {
        writes: vec![Write::Replace(
            Object::ConfigMap(Box::new(after)),
            Fill::Nothing,
        )],
        wake_at: None,
    }
}

struct Visit<'a> {
    seen: &'a Seen,
    ring: &'a SigningKey,
    settings: &'a Settings,
    now: Timestamp,
}

/// Why a ring can not go on, as reason and sentence.
type Obstacle = (&'static str, String);

impl Visit<'_> {
    fn decide(&self) -> Decision {
        let mut keys = self.facts();
        let plan = rotation::plan(&keys, policy(self.settings), self.now);
        let violation = self.violation();
        let obstacle = self.obstacle();
        let mut decision = Decision {
            writes: Vec::new(),
            wake_at: plan.wake_at,
        };
        if obstacle.is_some() {
            // Nothing tells us when a foreign object goes.
            let recheck = self
                .now
                .saturating_add(FOREIGN_RECHECK)
                .unwrap_or(Timestamp::MAX);
            decision.wake_at = decision.wake_at.into_iter().chain([recheck]).min();
        } else {
            if violation.is_none() {
                self.generate(&plan, &mut decision.writes);
            }
            self.publish(&plan, &keys, &mut decision.writes);
        }
        self.carry_on(&plan, &mut keys, &mut decision.writes);
        let conditions = conditions(&keys, obstacle.or(violation));
        let conditions = publish::decide(
            &self.seen.copies,
            (&self.seen.name, Some(self.ring)),
            &plan.publish,
            (self.settings, self.now),
            conditions,
            &mut decision,
        );
        decision.writes.extend(self.status(&keys, &conditions));
        decision
    }

    /// The ring's keys: those whose Secrets are there, and those that status remembers.
    fn facts(&self) -> Vec<KeyFacts> {
        let published = self
            .issuer_map()
            .and_then(jwks_map::read)
            .unwrap_or_default();
        let remembered = self.ring.status.as_ref().map_or(&[][..], |s| &s.keys);
        let mut keys: Vec<KeyFacts> = Vec::new();
        for seen in &self.seen.secrets {
            let Some(jwk) = seen.usable() else { continue };
            let Life {
                created,
                published: at,
                activated,
                retired,
            } = key_secret::life(&seen.secret);
            keys.push(KeyFacts {
                sequence: seen.sequence,
                in_jwks: published.keys.contains(jwk),
                jwk: jwk.clone(),
                created,
                published: at,
                activated,
                // Its Secret knows; status is believed only of keys that have none.
                retired,
                has_material: true,
            });
        }
        // A key without its Secret stays published where it was; status alone publishes nothing,
        // else who may write status could have a key of his own trusted.
        let of_ring = self.seen.ring_map.as_deref().and_then(jwks_map::read);
        let stands = |jwk: &PublicJwk| {
            published.keys.contains(jwk) || of_ring.as_ref().is_some_and(|s| s.keys.contains(jwk))
        };
        for key in remembered {
            let known = keys.iter().any(|k| k.jwk.kid == key.key_id);
            let Some(jwk) = read_jwk(key).filter(|jwk| !known && stands(jwk)) else {
                continue;
            };
            keys.push(KeyFacts {
                sequence: key.sequence,
                in_jwks: published.keys.contains(&jwk),
                jwk,
                created: time(key.created_at.as_ref()),
                published: time(key.published_at.as_ref()),
                activated: time(key.activated_at.as_ref()),
                retired: time(key.retired_at.as_ref()),
                has_material: false,
            });
        }
        keys
    }

    fn issuer_map(&self) -> Option<&ConfigMap> {
        let ours = |m: &&ConfigMap| jwks_map::is_issuer_map(m, &self.settings.environment);
        self.seen.issuer_map.as_deref().filter(ours)
    }

    fn generate(&self, plan: &Plan, writes: &mut Vec<Write>) {
        for step in &plan.steps {
            let Step::Generate { sequence } = step else {
                continue;
            };
            // A spoilt Secret may stand where the next key would go.
            let highest = self.seen.secrets.iter().map(|s| s.sequence).max();
            let sequence = highest.map_or(*sequence, |highest| {
                highest.max(sequence - 1).saturating_add(1)
            });
            let spec = &self.ring.spec;
            let secret =
                key_secret::template(self.ring, &self.settings.environment, sequence, self.now);
            let name = secret.name_any();
            writes.push(Write::Create(
                Object::Secret(Box::new(secret)),
                Fill::KeyPair(spec.algorithm, spec.rsa_size()),
            ));
            writes.push(Note::normal(
                r::KEY_CREATED,
                format!("Made a key pair for {} in Secret {name}.", spec.algorithm),
            ));
        }
    }

    /// Brings the ring's and the issuer's `ConfigMap` to what the plan publishes.
    fn publish(&self, plan: &Plan, keys: &[KeyFacts], writes: &mut Vec<Write>) {
        // Never empty because of an error: a ring that has nothing yet publishes nothing yet.
        if plan.publish.is_empty() {
            return;
        }
        let Settings {
            operator_namespace,
            environment,
            ..
        } = self.settings;
        let before = self.seen.ring_map.as_deref();
        let ring_map = jwks_map::of_ring(self.ring, environment, &plan.publish, before);
        let issuer_before = self.issuer_map();
        let (name, others) = (&self.seen.name, &self.seen.others);
        let issuer_map = jwks_map::of_issuer(
            name,
            &plan.publish,
            issuer_before,
            others,
            operator_namespace,
            environment,
        );
        let settled = plan.steps.is_empty()
            && keys
                .iter()
                .any(|k| k.phase() == Phase::Active && k.published.is_some());
        for (before, after) in [(before, ring_map), (issuer_before, issuer_map)] {
            let repaired = after.name_any();
            let object = Object::ConfigMap(Box::new(after.clone()));
            match before {
                Some(before) if jwks_map::same(before, &after) => continue,
                Some(_) => writes.push(Write::Replace(object, Fill::Nothing)),
                None => writes.push(Write::Create(object, Fill::Nothing)),
            }
            let published = before.and_then(jwks_map::read).unwrap_or_default();
            let lacked = !plan.publish.iter().all(|k| published.keys.contains(k));
            if settled && lacked {
                writes.push(Note::warning(
                    r::JWKS_REPAIRED,
                    format!("ConfigMap {repaired} was deleted or altered by someone else; it holds the ring's keys again."),
                ));
            }
        }
    }

    /// Writes down the steps that need no more than that, in the keys' Secrets and in `keys`.
    fn carry_on(&self, plan: &Plan, keys: &mut Vec<KeyFacts>, writes: &mut Vec<Write>) {
        for step in &plan.steps {
            match step {
                Step::Generate { .. } => {}
                Step::StampPublished { key_id } => {
                    set(keys, key_id, |k| k.published = Some(self.now));
                }
                Step::Activate { key_id } => set(keys, key_id, |k| k.activated = Some(self.now)),
                Step::Retire { key_id } => {
                    set(keys, key_id, |k| k.retired = Some(self.now));
                    writes.push(Note::warning(
                        r::KEY_RETIRED,
                        format!("Key {key_id} has come back after another began to sign in its place: it verifies, and signs no more."),
                    ));
                }
                Step::NoteLost { key_id } => {
                    set(keys, key_id, |k| k.retired = Some(self.now));
                    let until = keys
                        .iter()
                        .find(|k| k.jwk.kid == *key_id)
                        .and_then(|k| k.verifies_until(policy(self.settings)));
                    writes.push(Note::warning(
                        r::KEY_MATERIAL_LOST,
                        format!("The Secret with the private key of {key_id} is gone or spoilt: another key signs from now on. Tokens that it signed verify until {}.", until.map_or_else(|| "they expire".to_owned(), |t| whole(t).0.to_string())),
                    ));
                }
                Step::Forget { key_id } => {
                    keys.retain(|k| k.jwk.kid != *key_id);
                    writes.push(Note::normal(
                        r::KEY_REMOVED,
                        format!("Key {key_id} left the JWKS: its grace is over."),
                    ));
                }
            }
        }
        for seen in &self.seen.secrets {
            let Some(jwk) = seen.usable() else { continue };
            let Some(key) = keys.iter().find(|k| k.jwk.kid == jwk.kid) else {
                continue;
            };
            self.stamp(seen, key, writes);
        }
    }

    /// Brings a key's Secret to what is known of the key, and adopts it if nobody owns it.
    fn stamp(&self, seen: &SecretSeen, key: &KeyFacts, writes: &mut Vec<Write>) {
        let KeyFacts {
            created,
            published,
            activated,
            retired,
            ..
        } = *key;
        let environment = &self.settings.environment;
        let template =
            key_secret::template(self.ring, environment, seen.sequence, self.now).metadata;
        let mut after = (*seen.secret).clone();
        let all_labels = after.metadata.labels.get_or_insert_default();
        all_labels.extend(template.labels.unwrap_or_default());
        after.metadata.owner_references = template.owner_references;
        key_secret::stamp(
            &mut after,
            Life {
                created,
                published,
                activated,
                retired,
            },
        );
        if after.metadata == seen.secret.metadata {
            return;
        }
        writes.push(Write::Replace(
            Object::Secret(Box::new(after)),
            Fill::Nothing,
        ));
        let before = key_secret::life(&seen.secret);
        let kid = &key.jwk.kid;
        if before.published.is_none() && published.is_some() {
            writes.push(Note::normal(
                r::KEY_PUBLISHED,
                format!("Key {kid} stands in the issuer's JWKS."),
            ));
        }
        if before.activated.is_none() && activated.is_some() {
            writes.push(Note::normal(
                r::KEY_ACTIVATED,
                format!("Key {kid} signs from now on."),
            ));
        }
    }
}

fn set(keys: &mut [KeyFacts], key_id: &str, change: impl Fn(&mut KeyFacts)) {
    keys.iter_mut()
        .filter(|k| k.jwk.kid == key_id)
        .for_each(change);
}
