//! Whether a ring is the one of its audience that signs, where there are several: the servers decide
//! that by the same function ([`crate::domain::preference`]), of the same Secrets.

use std::cmp::Reverse;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;

use super::writes::said;
use crate::api::v1alpha1::{Conditions, KeyAudience, SIGNING, SigningKey};
use crate::domain::names;
use crate::domain::preference::{Candidate, defers_until, in_order};
use crate::domain::reasons as r;
use crate::domain::rotation::{Cause, KeyFacts, Life, Policy, Window, effective_lead, signer};
use crate::domain::settings::Settings;
use crate::objects::{Ownership, key_secret, label, ownership};
use crate::stores::Stores;

/// A ring with a key to sign with, among those of its audience.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its name.
    pub name: String,
    priority: i32,
    window: Window,
    published: Option<Timestamp>,
    defers_until: Option<Timestamp>,
}

impl Candidate for Peer {
    fn window(&self) -> Window {
        self.window
    }
    fn published(&self) -> Option<Timestamp> {
        self.published
    }
    fn defers_until(&self) -> Option<Timestamp> {
        self.defers_until
    }
}

impl Peer {
    /// A ring, as the watches have shown it with its Secrets.
    fn of(ring: &SigningKey, secrets: &[&Secret], settings: &Settings) -> Option<Self> {
        let (name, uid) = (ring.name_any(), ring.uid()?);
        let ours = |secret: &&&Secret| {
            let dying = secret.metadata.deletion_timestamp.is_some();
            !dying && ownership(&secret.metadata, &uid) == Ownership::Ours
        };
        let keys = secrets.iter().filter(ours).filter_map(|secret| {
            let sequence = names::key_sequence(&name, &secret.name_any())?;
            Some((sequence, key_secret::read(secret)))
        });
        // As `rotation::signer` chooses.
        let able = keys.filter(|(_, written)| written.life.may_sign());
        let (_, key) = able.max_by_key(|(sequence, key)| (key.life.activated, *sequence))?;
        let lead = effective_lead(
            ring.spec.publish_lead().as_duration(),
            settings.jwks.max_age.as_duration(),
        );
        Some(Self::with(ring, key.window, (&key.life, key.cause), lead))
    }

    fn with(
        ring: &SigningKey,
        window: Window,
        (life, cause): (&Life, Cause),
        lead: jiff::SignedDuration,
    ) -> Self {
        Self {
            name: ring.name_any(),
            priority: ring.spec.priority,
            window,
            published: life.published,
            defers_until: defers_until(cause, life.published, lead),
        }
    }

    fn rank(&self) -> (Reverse<i32>, &str) {
        (Reverse(self.priority), &self.name)
    }
}

/// The other rings of a ring's audience.
pub fn peers(stores: &Stores, settings: &Settings, ring: &SigningKey) -> Vec<Peer> {
    let name = ring.name_any();
    let others = stores.signing_keys.state();
    let others: Vec<&SigningKey> = others
        .iter()
        .filter_map(|other| other.0.as_ref().ok())
        .filter(|other| other.spec.audience == ring.spec.audience && other.name_any() != name)
        .filter(|other| other.metadata.deletion_timestamp.is_none())
        .collect();
    if others.is_empty() {
        return Vec::new();
    }
    let secrets = stores.secrets.state();
    let of = |ring: &str| -> Vec<&Secret> {
        let of_ring = |s: &&Secret| label(&s.metadata, names::RING_LABEL) == Some(ring);
        secrets.iter().map(|s| &**s).filter(of_ring).collect()
    };
    let peers = others
        .into_iter()
        .filter_map(|other| Peer::of(other, &of(&other.name_any()), settings));
    peers.collect()
}

/// With the condition that says whether this ring signs, where another could; and when that is to be
/// looked at again.
pub(super) fn told(
    ring: &SigningKey,
    keys: &[KeyFacts],
    (policy, peers): (&Policy, &[Peer]),
    now: Timestamp,
    conditions: Conditions,
) -> (Conditions, Option<Timestamp>) {
    if peers.is_empty() {
        return (conditions, None);
    }
    let own = signer(keys).filter(|key| key.life.published.is_some());
    let own = own.map(|key| Peer::with(ring, policy.window, (&key.life, key.cause), policy.lead()));
    let deferred = own.as_ref().and_then(|own| own.defers_until);
    let mut ranked: Vec<Peer> = peers.iter().cloned().chain(own).collect();
    ranked.sort_by(|a, b| a.rank().cmp(&b.rank()));
    let times = ranked
        .iter()
        .flat_map(|peer| [peer.window.from, peer.window.to, peer.defers_until]);
    let next = times.flatten().filter(|at| *at > now).min();
    let audience = match ring.spec.audience {
        KeyAudience::Client => "client",
        KeyAudience::Human => "human",
    };
    let (name, priority) = (ring.name_any(), ring.spec.priority);
    let unless = "unless a technical user names another in spec.signingKey";
    let conditions = match in_order(&ranked, now).next() {
        Some(first) if first.name == name => conditions.and(
            SIGNING,
            true,
            r::PREFERRED,
            format!("Of the rings with audience {audience} this one signs, {unless}."),
        ),
        Some(first) => {
            let other = &first.name;
            let why = if !ranked.iter().any(|peer| peer.name == name) {
                "this ring has no key that could sign".to_owned()
            } else if !policy.window.contains(now) {
                "this ring's window (spec.validFrom, spec.validTo) is not open".to_owned()
            } else if let Some(until) = deferred.filter(|until| now < *until) {
                format!(
                    "verifiers know its key for longer, until this ring's publishLead is over at {}",
                    said(until)
                )
            } else if first.priority > priority {
                format!(
                    "its priority is {}, and this ring's {priority}",
                    first.priority
                )
            } else {
                "their priority is the same, and it is the first by name".to_owned()
            };
            conditions.and(
                SIGNING,
                false,
                r::OUTRANKED,
                format!("SigningKey {other} signs for audience {audience}, {unless}: {why}."),
            )
        }
        None => conditions.and(
            SIGNING,
            false,
            r::OUTRANKED,
            format!("No ring with audience {audience} can sign now."),
        ),
    };
    (conditions, next)
}
