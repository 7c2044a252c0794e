//! Decides where a ring's JWKS stands besides the operator's namespace (`spec.publish`). Nothing
//! here holds up a rotation: its writes stand [aside](Write::Aside), and what is wrong with them is
//! told in a condition of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;

use crate::api::v1alpha1::{Conditions, PUBLISHED, SigningKey};
use crate::controllers::{Decision, Fill, Object, Write};
use crate::domain::jwk::{JwkSet, PublicJwk};
use crate::domain::names;
use crate::domain::reasons as r;
use crate::domain::settings::Settings;
use crate::objects::jwks_map;
use crate::objects::published::Publisher;

/// How long to wait before looking again at something foreign, which is not watched.
const FOREIGN_RECHECK: SignedDuration = SignedDuration::from_secs(30);
/// How many writes one visit makes at most: the ring has other things to do.
const MOST_WRITES: usize = 64;
/// When the rest follows.
const NEXT_BATCH: SignedDuration = SignedDuration::from_millis(200);
/// How many troubles the condition tells of at length.
const MOST_TOLD: usize = 5;

/// Namespace and name of a `ConfigMap`.
pub type Target = (String, String);

/// What there is to see of a ring's copies.
#[derive(Default)]
pub struct Copies {
    /// The cluster's namespaces.
    pub namespaces: Vec<Place>,
    /// The `ConfigMap`s that were published for the ring, wherever they stand, and what is known to
    /// stand where one should be.
    pub maps: BTreeMap<Target, Arc<ConfigMap>>,
    /// The other rings that publish.
    pub rivals: Vec<Arc<SigningKey>>,
    /// Writes that the API server did not carry out.
    pub refused: BTreeMap<Target, Refused>,
}

/// A namespace.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it is being deleted.
    pub terminating: bool,
}

/// A write that the API server did not carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its own words.
    pub message: String,
    /// Not to be tried again before then.
    pub until: Timestamp,
}

/// The `ConfigMap`s that a ring asks for in the namespaces that are there, with their keys. Entries
/// that name the same one are put together.
pub fn targets(
    ring: &SigningKey,
    namespaces: &[Place],
    operator_namespace: &str,
) -> BTreeMap<Target, BTreeSet<String>> {
    let mut targets: BTreeMap<Target, BTreeSet<String>> = BTreeMap::new();
    for entry in &ring.spec.publish {
        let name = config_map_name(ring, entry.config_map_name.as_deref());
        for place in namespaces {
            let selector = entry.namespace_selector.as_ref();
            let meant = entry.namespaces.contains(&place.name)
                || selector.is_some_and(|s| s.matches(&place.labels));
            if meant && !place.terminating && place.name != operator_namespace {
                let target = (place.name.clone(), name.clone());
                let keys = targets.entry(target).or_default();
                keys.extend(entry.data_keys());
            }
        }
    }
    targets
}

/// Whether a ring may publish a `ConfigMap` of that name, somewhere.
pub fn publishes_as(ring: &SigningKey, name: &str) -> bool {
    let mut entries = ring.spec.publish.iter();
    entries.any(|e| config_map_name(ring, e.config_map_name.as_deref()) == name)
}

fn config_map_name(ring: &SigningKey, chosen: Option<&str>) -> String {
    chosen.map_or_else(|| names::ring_jwks(&ring.name_any()), str::to_owned)
}

/// What to do with the copies: the writes and the time of the next look go into the decision, and
/// the condition to the others. `ring` is none when it is gone: then all copies go. `jwks` is none
/// when no key of it is known: then they stay as they are; and empty when all its keys are over.
pub fn decide(
    copies: &Copies,
    (name, ring): (&str, Option<&SigningKey>),
    jwks: Option<&[PublicJwk]>,
    (settings, now): (&Settings, Timestamp),
    conditions: Conditions,
    decision: &mut Decision,
) -> Conditions {
    let publisher = Publisher {
        environment: &settings.environment,
        operator_namespace: &settings.operator_namespace,
        ring: name,
    };
    let mut visit = Visit {
        copies,
        publisher,
        now,
        writes: Vec::new(),
        wake_at: None,
        troubles: Vec::new(),
        pending: false,
    };
    let standing = visit.each(ring, jwks);
    decision.wake_by(visit.wake_at);
    decision.writes.append(&mut visit.writes);
    match ring {
        Some(ring) if !ring.spec.publish.is_empty() => {
            let (holds, reason, message) = visit.told(standing, jwks.is_none());
            conditions.and(PUBLISHED, holds, reason, message)
        }
        _ => conditions,
    }
}

/// A trouble: reason and sentence.
type Trouble = (&'static str, String);

struct Visit<'a> {
    copies: &'a Copies,
    publisher: Publisher<'a>,
    now: Timestamp,
    writes: Vec<Write>,
    wake_at: Option<Timestamp>,
    troubles: Vec<Trouble>,
    /// Whether something was or is to be written that the next look will show.
    pending: bool,
}

impl Visit<'_> {
    /// Decides of each copy; how many stand as they should.
    fn each(&mut self, ring: Option<&SigningKey>, jwks: Option<&[PublicJwk]>) -> usize {
        let copies = self.copies;
        let own = self.publisher.operator_namespace;
        let mut wanted = BTreeMap::new();
        if let Some(ring) = ring {
            self.places(ring);
            wanted = targets(ring, &copies.namespaces, own);
            for rival in copies.rivals.iter().filter(|rival| older(rival, ring)) {
                for target in targets(rival, &copies.namespaces, own).into_keys() {
                    if wanted.remove(&target).is_some() {
                        self.trouble(r::CONFIG_MAP_CLAIMED, &target, &format!("is published by the older SigningKey {}: give it another configMapName", rival.name_any()));
                    }
                }
            }
        }
        // What is not wanted any more goes first, so that a name is free for who wants it.
        let going = |namespace: &str| {
            let place = copies.namespaces.iter().find(|p| p.name == namespace);
            place.is_none_or(|p| p.terminating)
        };
        for (target, map) in &copies.maps {
            let ours = self.publisher.made(map);
            if ours && !wanted.contains_key(target) && !going(&target.0) {
                self.remove(target, map);
            }
        }
        let document = jwks.map(|jwks| {
            let keys = jwks.to_vec();
            JwkSet { keys }.to_document()
        });
        let mut standing = 0;
        for (target, keys) in &wanted {
            let before = copies.maps.get(target).map(|map| &**map);
            if before.is_some_and(|map| !self.publisher.made_once(map)) {
                self.trouble(r::CONFIG_MAP_NAME_CONFLICT, target, "is not of this ring's making, and was left as it is: delete or rename it, or choose another configMapName");
                self.wake_after(FOREIGN_RECHECK);
                continue;
            }
            // Never empty because of an error: a ring that has nothing yet publishes nothing yet.
            let Some(document) = &document else {
                continue;
            };
            let place = (target.0.as_str(), target.1.as_str());
            let after = self.publisher.over(place, keys, document, before);
            match before {
                Some(map) if map.metadata.deletion_timestamp.is_some() => self.pending = true,
                Some(map) if jwks_map::same(map, &after) => standing += 1,
                // Somebody has made it immutable.
                Some(map) if map.immutable == Some(true) => self.remove(target, map),
                Some(_) => self.write(target, |map| Write::Replace(map, Fill::Nothing), after),
                None => self.write(target, |map| Write::Create(map, Fill::Nothing), after),
            }
        }
        standing
    }

    /// Tells of namespaces that are named and can not be published in.
    fn places(&mut self, ring: &SigningKey) {
        let named = ring.spec.publish.iter().flat_map(|e| &e.namespaces);
        for name in named.collect::<BTreeSet<_>>() {
            let place = self.copies.namespaces.iter().find(|p| p.name == *name);
            let (reason, sentence) = match place {
                _ if name == self.publisher.operator_namespace => (
                    r::WRONG_NAMESPACE,
                    format!(
                        "Namespace {name} is the operator's own, where the ring's JWKS stands in ConfigMap {}: take it away from spec.publish.",
                        names::ring_jwks(self.publisher.ring)
                    ),
                ),
                None => (
                    r::NAMESPACE_NOT_FOUND,
                    format!("There is no namespace {name}: it gets its ConfigMap when it is made."),
                ),
                Some(place) if place.terminating => (
                    r::NAMESPACE_TERMINATING,
                    format!(
                        "Namespace {name} is being deleted: it gets its ConfigMap when it is made again."
                    ),
                ),
                Some(_) => continue,
            };
            self.troubles.push((reason, sentence));
        }
    }

    fn remove(&mut self, target: &Target, map: &ConfigMap) {
        if map.metadata.deletion_timestamp.is_none() {
            self.write(target, Write::Delete, map.clone());
        }
    }

    fn write(&mut self, target: &Target, write: fn(Object) -> Write, map: ConfigMap) {
        self.pending = true;
        if let Some(Refused { message, until }) = self.copies.refused.get(target) {
            self.trouble(
                r::WRITE_REFUSED,
                target,
                &format!("was refused by the API server, and is tried again: {message}"),
            );
            if *until > self.now {
                self.wake_at = self.wake_at.into_iter().chain([*until]).min();
                return;
            }
        }
        if self.writes.len() >= MOST_WRITES {
            self.wake_after(NEXT_BATCH);
            return;
        }
        let write = write(Object::ConfigMap(Box::new(map)));
        self.writes.push(Write::Aside(Box::new(write)));
    }

    fn trouble(&mut self, reason: &'static str, (namespace, name): &Target, what: &str) {
        let what = what.trim_end_matches('.');
        self.troubles
            .push((reason, format!("ConfigMap {namespace}/{name} {what}.")));
    }

    fn wake_after(&mut self, wait: SignedDuration) {
        let at = self.now.saturating_add(wait).unwrap_or(Timestamp::MAX);
        self.wake_at = self.wake_at.into_iter().chain([at]).min();
    }

    /// The condition: whether it holds, its reason, its sentences.
    fn told(&mut self, standing: usize, unknown: bool) -> (bool, &'static str, String) {
        self.troubles.sort_by_key(|(reason, _)| rank(reason));
        if let Some((reason, _)) = self.troubles.first() {
            let told = self.troubles.iter().take(MOST_TOLD);
            let mut told: Vec<&str> = told.map(|(_, sentence)| sentence.as_str()).collect();
            let rest = format!(
                "And {} more.",
                self.troubles.len().saturating_sub(MOST_TOLD)
            );
            if self.troubles.len() > MOST_TOLD {
                told.push(&rest);
            }
            return (false, reason, told.join(" "));
        }
        if unknown {
            return (
                false,
                r::PROGRESSING,
                "The ring has no key to publish yet.".into(),
            );
        }
        if self.pending {
            return (
                false,
                r::PROGRESSING,
                "ConfigMaps are being written.".into(),
            );
        }
        let message = match standing {
            0 => "No namespace is meant at present.".to_owned(),
            1 => "The JWKS stands in 1 ConfigMap.".to_owned(),
            many => format!("The JWKS stands in {many} ConfigMaps."),
        };
        (true, r::SUCCEEDED, message)
    }
}

/// The worst comes first, and names the condition's reason: what a person has to mend, then what
/// another's deed brings, then what is harmless.
fn rank(reason: &str) -> usize {
    const WORST_FIRST: [&str; 6] = [
        r::WRITE_REFUSED,
        r::CONFIG_MAP_NAME_CONFLICT,
        r::CONFIG_MAP_CLAIMED,
        r::NAMESPACE_NOT_FOUND,
        r::NAMESPACE_TERMINATING,
        r::WRONG_NAMESPACE,
    ];
    let place = WORST_FIRST.iter().position(|r| *r == reason);
    place.unwrap_or(WORST_FIRST.len())
}

/// Whether a ring is older than another: it has what both claim.
fn older(rival: &SigningKey, ring: &SigningKey) -> bool {
    let age = |r: &SigningKey| (r.creation_timestamp().map(|t| t.0), r.name_any());
    age(rival) < age(ring)
}

#[cfg(test)]
mod tests;
