//! What is known of a ring's keys, and the policy that its spec and the release make.

use jiff::{SignedDuration, Timestamp, TimestampRound, Unit};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::report::time;
use super::{Obstacle, SecretSeen, Visit};
use crate::api::v1alpha1::{KeyStatus, ROTATE_ANNOTATION, SigningKey};
use crate::domain::algorithm::KeyKind;
use crate::domain::jwk::PublicJwk;
use crate::domain::moment::Moment;
use crate::domain::period::Period;
use crate::domain::reasons as r;
use crate::domain::rotation::{
    Cause, History, KeyFacts, LONGEST_REQUEST, Life, Policy, Rotated, Source, Window,
    accept_window, jitter, signer,
};
use crate::domain::settings::Settings;
use crate::objects::Ownership;
use crate::objects::jwks_map::{self, Gone, Share};
use crate::objects::key_secret::{self, Written};

impl Visit<'_> {
    /// The ring's keys: those whose Secrets are there, and those that status remembers.
    pub(super) fn facts(&self) -> Vec<KeyFacts> {
        let none = Share::default();
        let share = self.shares.get(&self.seen.name).unwrap_or(&none);
        let ring_map = self.seen.ring_map.as_deref();
        // A key is out of the JWKS once both ConfigMaps were written by somebody who knew that it
        // was removed: no write that was decided before can bring it back.
        let gone_of_ring = ring_map.map(jwks_map::gone);
        let out = |kid: &str, written: &Written| {
            let edition = written.edition;
            let knows = |gone: &[Gone]| gone.iter().any(|g| g.kid == kid && g.edition == edition);
            written.life.removed.is_none()
                || gone_of_ring.as_deref().is_none_or(knows)
                    && (self.issuer_map.is_none() || knows(&share.gone))
        };
        let share = &share.keys;
        // Made by a call that came late, under a number that had its time: nobody waits for it.
        let of_ring = ring_map.and_then(jwks_map::read).unwrap_or_default();
        let fresh = |written: &Written| {
            // One that came back after it was removed is of another edition.
            written.life.is_fresh() && written.edition == 0
        };
        let late = |sequence: i64, jwk: &PublicJwk, written: &Written| {
            let stands = of_ring.keys.contains(jwk) || share.iter().any(|e| e.jwk == *jwk);
            fresh(written) && !stands && sequence <= self.history.highest
        };
        // Injected into two rings at the same moment: it is the ring's that published it first, as
        // the issuer's map, which both write, says.
        let lost_race = |jwk: &PublicJwk, written: &Written| {
            let mine = share.iter().any(|e| e.jwk == *jwk);
            fresh(written) && !mine && self.elsewhere(&jwk.kid).is_some()
        };
        let remembered = self.ring.status.as_ref().map_or(&[][..], |s| &s.keys);
        let mut keys: Vec<KeyFacts> = Vec::new();
        for seen in &self.seen.secrets {
            let Some(jwk) = seen.usable().filter(|_| self.taken(seen).is_none()) else {
                continue;
            };
            if keys.iter().any(|k| k.kid() == jwk.kid) {
                // A copy, made by hand: one key has one life.
                continue;
            }
            let known = remembered.iter().find(|k| k.key_id == jwk.kid);
            let mut written = key_secret::read(&seen.secret);
            if let Some(known) = known.filter(|_| !key_secret::is_written(&seen.secret)) {
                // Its annotations were stripped by hand.
                written.life = life_of(known);
            }
            let at = |e: &&jwks_map::Entry| e.jwk == *jwk && e.edition == written.edition;
            let mut in_jwks = share.iter().any(|e| at(&e)) || !out(&jwk.kid, &written);
            let back =
                self.history.is_spent(&jwk.kid, written.edition) && written.life.removed.is_none();
            if back || late(seen.sequence, jwk, &written) || lost_race(jwk, &written) {
                written.life.removed = written.life.removed.or(written.life.created);
                in_jwks = false;
            }
            keys.push(KeyFacts {
                sequence: seen.sequence,
                in_jwks,
                fits: key_secret::fits(jwk, written.cause, &self.ring.spec),
                jwk: jwk.clone(),
                life: written.life,
                cause: written.cause,
                handled: written.handled,
                edition: written.edition,
                max_ttl: written.max_ttl,
                window: written.window,
                has_material: true,
            });
        }
        // A key without its Secret stays published where it was; status alone publishes nothing,
        // else who may write status could have a key of his own trusted.
        for key in remembered {
            let known = keys.iter().any(|k| k.jwk.kid == key.key_id);
            let Some(jwk) = key.jwk().filter(|_| !known) else {
                continue;
            };
            let in_share = share.iter().any(|e| e.jwk == jwk);
            let stands = in_share || of_ring.keys.contains(&jwk);
            let life = life_of(key);
            if !stands && life.removed.is_none() {
                continue;
            }
            keys.push(KeyFacts {
                sequence: key.sequence,
                in_jwks: in_share,
                jwk,
                life,
                cause: Cause::First,
                handled: None,
                edition: 0,
                max_ttl: None,
                window: Window {
                    from: time(key.valid_from.as_ref()),
                    to: time(key.valid_to.as_ref()),
                },
                fits: false,
                has_material: false,
            });
        }
        keys.sort_by_key(|k| k.sequence);
        keys
    }

    /// Whose key a Secret holds, if that is another ring's, or was: one key is in one ring, whoever
    /// copied its Secret.
    pub(super) fn taken(&self, seen: &SecretSeen) -> Option<String> {
        let kid = &seen.usable()?.kid;
        let nobodys = seen.ownership == Ownership::Nobodys;
        let life = key_secret::read(&seen.secret).life;
        // A fresh one of ours is an injected key of which another ring was faster.
        let fresh = !nobodys && life.is_fresh();
        let other = self.elsewhere(kid).filter(|_| !fresh);
        let leaves = || self.leaves(kid).filter(|_| nobodys);
        if let Some(other) = other.or_else(leaves) {
            return Some(format!("which stands in SigningKey {other}"));
        }
        let burned = nobodys && self.seen.elsewhere.spent.contains(kid);
        burned.then(|| "which was withdrawn or removed from another ring".to_owned())
    }

    /// The other ring that publishes a key: as the issuer's map says, which all of them write, and
    /// where that is lost, as the ring's own map does.
    fn elsewhere(&self, kid: &str) -> Option<String> {
        if self.issuer_map.is_none() {
            let mut others = self.seen.others.iter();
            let (ring, _) = others.find(|(_, keys)| keys.iter().any(|k| k.kid == kid))?;
            return Some(ring.clone());
        }
        let has = |share: &Share| share.keys.iter().any(|entry| entry.jwk.kid == kid);
        // By hand it could stand in two.
        if self.shares.get(&self.seen.name).is_some_and(has) {
            return None;
        }
        let (ring, _) = self.shares.iter().find(|(_, share)| has(share))?;
        Some(ring.clone())
    }

    /// The other ring whose own `ConfigMap` has a key, while the issuer's does not have it as this one's.
    fn leaves(&self, kid: &str) -> Option<String> {
        let mine = self.shares.get(&self.seen.name);
        let mine = mine.is_some_and(|share| share.keys.iter().any(|e| e.jwk.kid == kid));
        let other = self.seen.elsewhere.standing.get(kid).filter(|_| !mine)?;
        Some(other.clone())
    }

    /// What bounds the ring's steps, and what of the spec is not obeyed.
    pub(super) fn policy(&self, keys: &[KeyFacts], moment: Moment) -> (Policy, Option<Obstacle>) {
        let mut policy = policy_of(self.ring, self.settings);
        policy.history = self.history.clone();
        // Known also where the ConfigMap with the history was deleted.
        let conditions = self.ring.status.as_ref().map_or(&[][..], |s| &s.conditions);
        let ended = conditions.iter().any(|c| c.reason == r::VALIDITY_ENDED);
        let (window, refused) = if keys.is_empty() && (ended || !policy.history.spent.is_empty()) {
            // All keys are gone, so that there is nothing to protect.
            (policy.window, None)
        } else {
            accept_window(policy.window, keys, moment)
        };
        let mut slip = None;
        if refused.is_some() {
            let wanted = policy.window.to.unwrap_or(moment.now);
            let goes_on = if keys.is_empty() {
                "no key is made"
            } else {
                "the ring goes on as it was"
            };
            slip = Some((
                r::VALIDITY_REFUSED,
                format!(
                    "spec.validTo is {wanted}, which had passed before it was ever in force: {goes_on}. Set it to a time ahead, or take it away."
                ),
            ));
            if keys.is_empty() {
                policy.source = Source::Hold;
            }
        }
        policy.window = window;
        if let Some(value) = policy.rotate.as_ref().filter(|v| v.len() > LONGEST_REQUEST) {
            slip = slip.or(Some((
                r::INVALID_SPEC,
                format!("The annotation {ROTATE_ANNOTATION} has {} characters, and at most {LONGEST_REQUEST} bytes are remembered: use a short value, such as a date.", value.chars().count()),
            )));
            policy.rotate = None;
        }
        if let Some((source, trouble)) = self.source(keys, &policy) {
            policy.source = source;
            slip = slip.or(trouble);
        }
        slip = slip.or_else(|| self.unanswerable_request(keys, &policy));
        (policy, slip)
    }

    /// A rotation is asked for, and the only key pair that there is for it signs already.
    fn unanswerable_request(&self, keys: &[KeyFacts], policy: &Policy) -> Option<Obstacle> {
        let value = policy.rotate.as_ref()?;
        let handled = policy.handled.as_ref() == Some(value)
            || keys.iter().any(|k| k.handled.as_ref() == Some(value));
        let signs = signer(keys)?.kid();
        let brought = &self.ring.spec.private_key.as_ref()?.secret_ref.name;
        let stuck = !handled && policy.source == Source::Inject(signs.to_owned());
        stuck.then(|| {
            let told = format!(
                "The annotation {ROTATE_ANNOTATION} asks for a rotation ({value}), and the key pairs of this ring are brought by Secret {brought}, which holds key {signs} still: put a new key pair into it, or take the annotation away."
            );
            (r::INVALID_SPEC, told)
        })
    }

    /// Where the next key comes from, if not from here.
    fn source(&self, keys: &[KeyFacts], policy: &Policy) -> Option<(Source, Option<Obstacle>)> {
        let refused = |why: String| {
            let goes_on = match signer(keys) {
                Some(_) => "The ring goes on with the keys that it has.",
                None => "This ring signs nothing until then.",
            };
            let obstacle = (r::INJECTED_KEY_REFUSED, format!("{why} {goes_on}"));
            Some((Source::Hold, Some(obstacle)))
        };
        let injected = match self.seen.injected.as_ref()? {
            Ok(injected) => injected,
            Err(why) => return refused(why.clone()),
        };
        let kid = &injected.jwk.kid;
        // Of two rings that are given it at the same moment, either may have its copy already.
        let comes = keys.iter().all(|k| k.kid() != kid);
        let leaves = || self.leaves(kid).filter(|_| comes);
        if let Some(other) = self.elsewhere(kid).or_else(leaves) {
            return refused(format!(
                "The injected key {kid} stands in SigningKey {other} already, and one key can not be in two rings: inject another one."
            ));
        }
        if self.seen.elsewhere.spent.contains(kid) {
            return refused(format!(
                "The injected key {kid} was withdrawn or removed from another ring, and no key comes back by being injected again: inject a new one."
            ));
        }
        let withdrawn = policy.withdrawals.contains_key(kid);
        if withdrawn || policy.history.spent.contains(kid) {
            return refused(format!(
                "The injected key {kid} was withdrawn or removed from this ring, and no key comes back by being injected again: inject a new one."
            ));
        }
        if let Some(key) = keys.iter().find(|k| k.kid() == kid) {
            if key.life.withdrawn.is_some()
                || key.life.removed.is_some()
                || key.life.retired.is_some() && key.has_material
            {
                return refused(format!(
                    "The injected key {kid} has signed in this ring before and was replaced: inject a new one, or name it in signWith while it is published."
                ));
            }
            if key.jwk.alg != injected.jwk.alg {
                return refused(format!(
                    "The injected key {kid} signs with {}, and a key keeps its algorithm: for {} inject another key.",
                    key.jwk.alg, injected.jwk.alg
                ));
            }
        }
        Some((Source::Inject(kid.clone()), None))
    }
}

/// What a spec and the release's settings say, before anything was looked at.
pub fn policy_of(ring: &SigningKey, settings: &Settings) -> Policy {
    let spec = &ring.spec;
    let rotation = spec.rotation.clone().unwrap_or_default();
    let span = |period: Option<Period>| period.unwrap_or_default().as_duration();
    let longest = settings.policy.longest_rotation_interval;
    let interval = match (rotation.interval, longest) {
        (Some(interval), Some(longest)) => Some(interval.min(longest)),
        (None, longest) if spec.private_key.is_none() => longest,
        (interval, _) => interval,
    };
    let max_age = settings.jwks.max_age.as_duration();
    let stale = settings.serving.max_staleness.as_duration();
    let cached_for = max_age.saturating_add(stale);
    let withdrawals = spec.invalidated.iter();
    let withdrawals =
        withdrawals.map(|i| (i.key_id.clone(), i.grace_period.map(Period::as_duration)));
    let rotate = ring.annotations().get(ROTATE_ANNOTATION);
    Policy {
        rotated: Rotated::KeyPairs,
        interval: interval.map(Period::as_duration),
        jitter: jitter(&ring.uid().unwrap_or_default()),
        publish_lead: spec.publish_lead().as_duration(),
        max_age,
        grace: span(rotation.grace_period),
        max_ttl: settings.tokens.max_ttl.as_duration(),
        margin: cached_for.saturating_add(settings.tokens.clock_leeway.as_duration()),
        cached_for,
        retention: span(rotation.retention),
        window: Window {
            from: spec.valid_from.as_ref().map(millis),
            to: spec.valid_to.as_ref().map(millis),
        },
        withdrawals: withdrawals.collect(),
        sign_with: spec.sign_with.clone(),
        rotate: rotate.filter(|value| !value.is_empty()).cloned(),
        handled: ring
            .status
            .as_ref()
            .and_then(|s| s.last_handled_rotation.clone()),
        source: Source::Generate,
        history: History::default(),
    }
}

/// Times as annotations hold them, so that what is read back is what was wanted.
fn millis(time: &Time) -> Timestamp {
    let rounding = TimestampRound::new()
        .smallest(Unit::Millisecond)
        .mode(jiff::RoundMode::Floor);
    time.0.round(rounding).unwrap_or(time.0)
}

fn life_of(key: &KeyStatus) -> Life {
    Life {
        created: time(key.created_at.as_ref()),
        published: time(key.published_at.as_ref()),
        activated: time(key.activated_at.as_ref()),
        retired: time(key.retired_at.as_ref()),
        withdrawn: time(key.withdrawn_at.as_ref()),
        removed: time(key.removed_at.as_ref()),
    }
}

impl Visit<'_> {
    /// What the release's policy has against the spec.
    pub(super) fn violation(&self) -> Option<Obstacle> {
        let sentence = violation_of(self.ring, self.settings)?;
        Some((r::POLICY_VIOLATION, sentence))
    }

    pub(super) fn algorithm_violation(&self) -> Option<Obstacle> {
        let sentence = algorithm_violation_of(self.ring, self.settings)?;
        Some((r::POLICY_VIOLATION, sentence))
    }
}

/// What the release's policy has against a spec, in sentences: first what keeps it from having keys.
pub fn violation_of(ring: &SigningKey, settings: &Settings) -> Option<String> {
    let forbidden = algorithm_violation_of(ring, settings);
    let slow = interval_violation_of(ring, settings, forbidden.is_some());
    let sentences: Vec<String> = forbidden.into_iter().chain(slow).collect();
    (!sentences.is_empty()).then(|| sentences.join(" "))
}

/// What it has against the interval. `no_key`: none is made.
fn interval_violation_of(ring: &SigningKey, settings: &Settings, no_key: bool) -> Option<String> {
    let longest = settings.policy.longest_rotation_interval?;
    let interval = ring.spec.rotation.as_ref().and_then(|r| r.interval);
    let says = match interval {
        Some(interval) if interval > longest => format!("is {interval}"),
        None if ring.spec.private_key.is_none() => "is not set".to_owned(),
        _ => return None,
    };
    let done = if no_key {
        ""
    } else {
        ", which is what is done"
    };
    Some(format!(
        "spec.rotation.interval {says}, and this release has every key that the operator makes replaced within {longest} (policy.longestRotationInterval){done}: set it to at most that."
    ))
}

/// The same of its algorithm and key size alone: then no key is made.
pub fn algorithm_violation_of(ring: &SigningKey, settings: &Settings) -> Option<String> {
    let (spec, policy) = (&ring.spec, &settings.policy);
    if !policy.allowed_algorithms.contains(&spec.algorithm) {
        let allowed: Vec<_> = policy.allowed_algorithms.iter().map(|a| a.name()).collect();
        return Some(format!(
            "spec.algorithm is {}, which this release does not allow: use one of {}, or add it to policy.allowedAlgorithms.",
            spec.algorithm,
            allowed.join(", ")
        ));
    }
    let bits = spec.rsa_size().bits();
    if spec.algorithm.key_kind() == KeyKind::Rsa && bits < policy.min_rsa_key_size {
        let absent = if spec.rsa_key_size.is_none() {
            " (as it is absent)"
        } else {
            ""
        };
        return Some(format!(
            "spec.rsaKeySize is {bits}{absent}, and this release allows no RSA key below {}: set it to at least that.",
            policy.min_rsa_key_size
        ));
    }
    None
}

/// For how long a key is safe at least, for the sentence that says so.
pub(super) fn seconds(duration: SignedDuration) -> Period {
    Period::from_secs(duration.as_secs())
}
