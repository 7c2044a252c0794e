//! The writes of a visit: new key pairs, the JWKS, what is noted of keys, and deletions.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use super::story::Story;
use super::{SecretSeen, Visit};
use crate::controllers::{Fill, Note, Object, Write};
use crate::domain::jwk::PublicJwk;
use crate::domain::reasons as r;
use crate::domain::rotation::{Cause, KeyFacts, Phase, Plan, Policy, Source, Step, signer};
use crate::objects::jwks_map::{self, Entry, Gone, Share};
use crate::objects::key_secret::{self, Written};
use crate::objects::{Ownership, write_time};

/// How many kids one event names: an event's sentence has at most 1024 characters.
const MOST_NAMED: usize = 5;

impl Visit<'_> {
    /// Makes key pairs, and makes injected ones again.
    pub(super) fn make(
        &self,
        plan: &Plan,
        keys: &[KeyFacts],
        policy: &Policy,
        writes: &mut Vec<Write>,
    ) {
        let forbidden = self.algorithm_violation().is_some();
        for step in &plan.steps {
            match step {
                Step::Generate { .. } if forbidden => {}
                Step::Generate { sequence, cause } => {
                    // Something of another's, or a spoilt Secret, may stand where it would go.
                    let taken = |n: i64| self.seen.secrets.iter().any(|s| s.sequence == n);
                    let mut sequence = *sequence;
                    while taken(sequence) {
                        sequence = sequence.saturating_add(1);
                    }
                    let mut written = Written {
                        cause: *cause,
                        handled: policy.rotate.clone().or_else(|| policy.handled.clone()),
                        window: policy.window,
                        ..Written::default()
                    };
                    written.life.created = Some(self.now);
                    self.create(sequence, &written, policy, writes);
                }
                Step::Restore { key_id } => {
                    if let Some(key) = keys.iter().find(|k| k.kid() == key_id) {
                        self.create(key.sequence, &Written::of(key), policy, writes);
                    }
                }
                _ => {}
            }
        }
    }

    fn create(&self, sequence: i64, written: &Written, policy: &Policy, writes: &mut Vec<Write>) {
        let spec = &self.ring.spec;
        let environment = &self.settings.environment;
        let mut secret = key_secret::template(self.ring, environment, sequence, spec.algorithm);
        key_secret::stamp(&mut secret, spec.algorithm, written);
        let name = secret.name_any();
        let (fill, done) = match (&policy.source, &self.seen.injected) {
            (Source::Inject(_), Some(Ok(injected))) => {
                let kid = &injected.jwk.kid;
                (
                    Fill::InjectedKey(injected.pem.clone()),
                    format!("Copied the injected key {kid} into Secret {name}."),
                )
            }
            (Source::Generate, _) => (
                Fill::KeyPair(spec.algorithm, spec.rsa_size()),
                format!(
                    "Made a key pair for {} in Secret {name}{}.",
                    spec.algorithm,
                    why(written.cause)
                ),
            ),
            _ => return,
        };
        writes.push(Write::Create(Object::Secret(Box::new(secret)), fill));
        writes.push(Note::normal(r::KEY_CREATED, done));
    }

    /// Brings the ring's and the issuer's `ConfigMap` to what the plan publishes.
    pub(super) fn publish(
        &self,
        plan: &Plan,
        before: &[KeyFacts],
        policy: &Policy,
        writes: &mut Vec<Write>,
    ) {
        // Never empty because of an error: a ring that knows of no key leaves what is there.
        if before.is_empty() {
            return;
        }
        let entries: Vec<Entry> = plan
            .publish
            .iter()
            .map(|(jwk, edition)| Entry {
                jwk: jwk.clone(),
                edition: *edition,
                sequence: before
                    .iter()
                    .find(|k| k.jwk == *jwk)
                    .map_or(0, |k| k.sequence),
            })
            .collect();
        let jwks: Vec<_> = entries.iter().map(|e| e.jwk.clone()).collect();
        let ring_before = self.seen.ring_map.as_deref();
        let issuer_before = self.issuer_map;
        let gone = before
            .iter()
            .filter(|k| k.life.removed.is_some() && k.has_material);
        let gone: Vec<Gone> = gone
            .map(|k| Gone {
                kid: k.kid().to_owned(),
                edition: k.edition,
            })
            .collect();
        let share = |before: Option<(Vec<PublicJwk>, Vec<Gone>)>| {
            // What is gone for good is struck off when there is something else to write.
            let stays = before.filter(|(keys, known)| {
                *keys == jwks && gone.iter().all(|key| known.contains(key))
            });
            Share {
                keys: entries.clone(),
                gone: stays.map_or_else(|| gone.clone(), |(_, known)| known),
            }
        };
        let of_ring =
            ring_before.and_then(|map| Some((jwks_map::read(map)?.keys, jwks_map::gone(map))));
        let own = self.shares.get(&self.seen.name);
        let stood_at_issuer = own.map_or(&[][..], |share| &share.keys);
        let of_issuer = own.map(|share| {
            let keys = share.keys.iter().map(|e| e.jwk.clone());
            (keys.collect(), share.gone.clone())
        });
        let (ring_share, issuer_share) = (share(of_ring), share(of_issuer));
        let mut history = policy.history.clone();
        for key in before {
            history.highest = history.highest.max(key.sequence);
            let (kid, life) = (key.kid(), &key.life);
            if life.removed.is_some() {
                history.spent.insert(kid.to_owned());
            } else {
                // It came back while it was kept.
                history.spent.remove(kid);
            }
            if life.removed.is_some() && key.edition > 0 {
                history.editions.insert(kid.to_owned(), key.edition);
            } else {
                history.editions.remove(kid);
            }
            if life.removed.is_some() && life.activated.is_none() && life.withdrawn.is_none() {
                history.unused.insert(kid.to_owned());
            } else {
                history.unused.remove(kid);
            }
        }
        let environment = &self.settings.environment;
        let ring_map =
            jwks_map::of_ring(self.ring, environment, &ring_share, &history, ring_before);
        let issuer = |share: &Share| {
            jwks_map::of_issuer(
                &self.seen.name,
                share,
                issuer_before,
                &self.seen.others,
                &self.settings.operator_namespace,
                environment,
            )
        };
        let issuer_map = issuer(&issuer_share);
        let active = signer(before).filter(|k| k.life.published.is_some());
        // A ring that was just made with keys that were there already has lost nothing.
        let remembers = self
            .ring
            .status
            .as_ref()
            .is_some_and(|s| !s.keys.is_empty());
        let settled = plan.steps.is_empty() && active.is_some() && remembers;
        // Whatever stands in the JWKS is this ring's, or another's.
        let others = self
            .shares
            .iter()
            .filter(|(ring, _)| **ring != self.seen.name);
        let theirs: Vec<_> = others.flat_map(|(_, share)| &share.keys).collect();
        let known = |jwk: &PublicJwk| {
            before.iter().any(|k| k.jwk == *jwk)
                || theirs.iter().any(|e| e.jwk == *jwk)
                || self.seen.others.values().flatten().any(|k| k == jwk)
        };
        let issuer_there = self.seen.issuer_map.as_deref();
        let of_the_ring = (ring_before, ring_map, ring_before);
        // A key that goes, goes from the issuer's first: that one is served, and an order to withdraw is
        // not to wait for a write of the ring's own that is refused. What comes beside it comes after.
        let goes = |e: &Entry| !jwks.contains(&e.jwk);
        let leaves = stood_at_issuer.iter().any(goes);
        let mut maps = vec![of_the_ring, (issuer_before, issuer_map, issuer_there)];
        if leaves {
            let stays = issuer_share
                .keys
                .iter()
                .filter(|e| stood_at_issuer.contains(e));
            let less = Share {
                keys: stays.cloned().collect(),
                gone: issuer_share.gone.clone(),
            };
            maps.swap(0, 1);
            maps[0].1 = issuer(&less);
        }
        for (was, is, there) in maps {
            if there.is_some_and(|map| self.is_foreign(map)) {
                continue;
            }
            let repaired = is.name_any();
            let object = Object::ConfigMap(Box::new(is.clone()));
            match was {
                Some(was) if jwks_map::same(was, &is) => continue,
                Some(_) => writes.push(Write::Replace(object, Fill::Nothing)),
                None => writes.push(Write::Create(object, Fill::Nothing)),
            }
            let published = was.and_then(jwks_map::read).unwrap_or_default();
            // A key that never stood there is published for the first time.
            let stood = |k: &&KeyFacts| k.life.published.is_some() && jwks.contains(&k.jwk);
            let lacked = before
                .iter()
                .filter(stood)
                .any(|k| !published.keys.contains(&k.jwk));
            let told = if lacked {
                "was deleted or altered by someone else; it holds the ring's keys again."
            } else if !published.keys.iter().all(&known) {
                "held a key that is no ring's, put there by someone else; it is out again. Tokens signed with it may have been believed meanwhile."
            } else {
                continue;
            };
            if settled {
                let told = format!("ConfigMap {repaired} {told}");
                writes.push(Note::warning(r::JWKS_REPAIRED, told));
            }
        }
    }

    /// Brings the Secrets of the keys to what is known of them. A key that comes to sign goes first:
    /// what it takes over from is written down after, since a moment without a signer would be an
    /// outage. The others go in the order of their activations, so that of two the later stays the
    /// later at every moment (times that a wrong clock wrote are put right one by one).
    pub(super) fn write_down(
        &self,
        before: &[KeyFacts],
        keys: &[KeyFacts],
        tale: &mut Story<'_>,
        writes: &mut Vec<Write>,
    ) {
        let active = signer(keys).map(KeyFacts::kid);
        let takes_over = active != signer(before).map(KeyFacts::kid);
        let mut secrets: Vec<(&SecretSeen, &KeyFacts)> = Vec::new();
        for seen in &self.seen.secrets {
            let Some(jwk) = seen.usable() else { continue };
            let known = keys
                .iter()
                .find(|k| k.kid() == jwk.kid && k.sequence == seen.sequence);
            secrets.extend(known.map(|key| (seen, key)));
        }
        secrets.sort_by_key(|(_, key)| {
            let first = takes_over && active == Some(key.kid());
            (!first, key.life.activated, key.sequence)
        });
        for (seen, key) in secrets {
            let was = key_secret::read(&seen.secret);
            let back = key.life.removed.is_some()
                && was.life.removed.is_none()
                && self.history.is_spent(key.kid(), was.edition);
            self.stamp(seen, key, writes);
            if back {
                let (name, kid) = (seen.secret.name_any(), key.kid());
                writes.push(Note::warning(
                    r::KEY_REMOVED,
                    format!("Secret {name} with key {kid} came back, and that key is gone for good: it is not published again, and the Secret is deleted."),
                ));
            }
            writes.extend(tale.of(key.kid()));
        }
    }

    /// Brings a key's Secret to what is known of the key, and adopts it if nobody owns it.
    fn stamp(&self, seen: &SecretSeen, key: &KeyFacts, writes: &mut Vec<Write>) {
        let environment = &self.settings.environment;
        let template = key_secret::template(self.ring, environment, seen.sequence, key.jwk.alg);
        let mut after: Secret = (*seen.secret).clone();
        let all_labels = after.metadata.labels.get_or_insert_default();
        all_labels.extend(template.metadata.labels.unwrap_or_default());
        after.metadata.owner_references = template.metadata.owner_references;
        key_secret::stamp(&mut after, key.jwk.alg, &Written::of(key));
        if after.metadata != seen.secret.metadata {
            let name = after.name_any();
            writes.push(Write::Replace(
                Object::Secret(Box::new(after)),
                Fill::Nothing,
            ));
            if seen.ownership == Ownership::Nobodys {
                let kid = key.kid();
                writes.push(Note::normal(
                    r::KEY_ADOPTED,
                    format!("Secret {name} with the key pair {kid} belonged to nobody, as after a restore: it is the ring's."),
                ));
            }
        }
    }

    /// Deletes the Secrets of keys that are over, and what is left of spoilt ones.
    pub(super) fn destroy(
        &self,
        plan: &Plan,
        before: &[KeyFacts],
        tale: &mut Story<'_>,
        writes: &mut Vec<Write>,
    ) {
        for step in &plan.steps {
            let (kid, spoilt) = match step {
                Step::Destroy { key_id } => (key_id, false),
                Step::Forget { key_id } => (key_id, true),
                _ => continue,
            };
            let sequence = before.iter().find(|k| k.kid() == kid).map(|k| k.sequence);
            let ours = self.seen.secrets.iter().filter(|s| {
                let ours = match s.ownership {
                    Ownership::Ours => true,
                    Ownership::Nobodys => !spoilt,
                    Ownership::Anothers => false,
                };
                let dying = s.secret.metadata.deletion_timestamp.is_some();
                let same = s.key.as_ref().is_ok_and(|jwk| jwk.kid == *kid);
                ours && !dying && (same || spoilt && s.key.is_err() && Some(s.sequence) == sequence)
            });
            for seen in ours {
                writes.push(Write::Delete(Object::Secret(Box::new(
                    (*seen.secret).clone(),
                ))));
            }
            writes.extend(tale.of(kid));
        }
    }

    /// Kids in the list of withdrawals that the ring does not have: a person may have mistyped one.
    /// Said once, when the list is new.
    pub(super) fn unknown_withdrawals(&self, keys: &[KeyFacts]) -> Vec<Write> {
        let status = self.ring.status.as_ref();
        if status.map(|s| s.observed_generation) == self.ring.metadata.generation {
            return Vec::new();
        }
        let spent = &self.history.spent;
        let unknown = |kid: &&str| !keys.iter().any(|k| k.kid() == *kid) && !spent.contains(*kid);
        let listed = self.ring.spec.invalidated.iter().map(|i| i.key_id.as_str());
        let unknown: Vec<&str> = listed.filter(unknown).collect();
        let named = unknown.iter().take(MOST_NAMED).copied();
        let named = named.collect::<Vec<_>>().join(", ");
        let told = match unknown.len() {
            0 => return Vec::new(),
            1 => format!("{named}, which is no key"),
            n if n <= MOST_NAMED => format!("{named}, which are no keys"),
            n => format!("{named} and {} more, which are no keys", n - MOST_NAMED),
        };
        vec![Note::warning(
            r::UNKNOWN_KEY,
            format!(
                "spec.invalidated names {told} of this ring: nothing was done. The ring's keys are in status.keys."
            ),
        )]
    }

    /// The state of a key, for status.
    pub(super) fn phase(key: &KeyFacts, keys: &[KeyFacts]) -> Phase {
        key.phase(signer(keys).map(KeyFacts::kid))
    }
}

fn why(cause: Cause) -> &'static str {
    match cause {
        Cause::First => "",
        Cause::Schedule => ", as its turn comes",
        Cause::Request => ", as a rotation was asked for",
        Cause::Algorithm => ", as the ring's algorithm or key size has changed",
        Cause::Injected => ", as another key was injected",
        Cause::Emergency => ", as no key can sign",
    }
}

/// A time for a sentence.
pub(super) fn said(time: jiff::Timestamp) -> String {
    let whole = jiff::Timestamp::from_second(time.as_second()).unwrap_or(time);
    write_time(whole)
}
