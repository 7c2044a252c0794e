//! Whether a ring is the one of its audience that signs, where there are several: the servers decide
//! that by the same function ([`crate::domain::preference`]), of the same Secrets.

use std::cmp::Reverse;
use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;

use super::writes::said;
use crate::api::v1alpha1::{Conditions, KeyAudience, SIGNING, SigningKey};
use crate::domain::names;
use crate::domain::preference::{Standing, in_order};
use crate::domain::reasons as r;
use crate::domain::rotation::{KeyFacts, Policy, effective_lead, signer};
use crate::domain::settings::Settings;
use crate::objects::jwks_map::Share;
use crate::objects::{Ownership, key_secret, label, ownership};
use crate::stores::Stores;

/// A ring with a key to sign with, among those of its audience.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its name.
    pub name: String,
    priority: i32,
    standing: Standing,
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
        let standing = Standing::of(key.window, key.life.published, lead);
        Some(Self::with(ring, standing))
    }

    fn with(ring: &SigningKey, standing: Standing) -> Self {
        Self {
            name: ring.name_any(),
            priority: ring.spec.priority,
            standing,
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
    let mut of_rings: HashMap<&str, Vec<&Secret>> = HashMap::new();
    for secret in &secrets {
        if let Some(ring) = label(&secret.metadata, names::RING_LABEL) {
            of_rings.entry(ring).or_default().push(secret);
        }
    }
    let peers = others.into_iter().filter_map(|other| {
        let secrets = of_rings.get(other.name_any().as_str())?;
        Peer::of(other, secrets, settings)
    });
    peers.collect()
}

/// What others have to know of a ring.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    name: String,
    priority: i32,
    /// Whether it has an active key.
    active: bool,
    /// Whether it is the one that signs.
    signing: bool,
}

/// What of each ring others have to know, as status last told it.
pub fn all_told(stores: &Stores) -> Vec<Told> {
    let rings = stores.signing_keys.state();
    let rings = rings.iter().filter_map(|ring| ring.0.as_ref().ok());
    let mut told: Vec<_> = rings
        .map(|ring| {
            let status = ring.status.as_ref();
            let signs = |c: &Condition| c.type_ == SIGNING && c.status == "True";
            Told {
                name: ring.name_any(),
                priority: ring.spec.priority,
                active: status.is_some_and(|s| s.active_key_id.is_some()),
                signing: status.is_some_and(|s| s.conditions.iter().any(signs)),
            }
        })
        .collect();
    told.sort();
    told
}

/// Whether somebody waits for a ring: it has no key that signs, or a person has ordered that a key is
/// trusted no more from now on, and it still stands in what the ring has in the issuer's JWKS.
pub fn is_urgent(ring: &SigningKey, share: Option<&Share>) -> bool {
    let at_once = ring.spec.invalidated.iter().filter(|i| {
        let grace = i.grace_period;
        grace.is_some_and(|grace| grace.as_duration().is_zero())
    });
    let published = |kid: &str| share.is_some_and(|s| s.keys.iter().any(|k| k.jwk.kid == kid));
    let unsigned = ring
        .status
        .as_ref()
        .is_none_or(|s| s.active_key_id.is_none());
    unsigned || at_once.map(|i| i.key_id.as_str()).any(published)
}

/// With the condition that says whether this ring is the one that signs; and when that is to be looked
/// at again.
pub(super) fn told(
    ring: &SigningKey,
    keys: &[KeyFacts],
    (policy, peers): (&Policy, &[Peer]),
    now: Timestamp,
    conditions: Conditions,
) -> (Conditions, Option<Timestamp>) {
    let own = signer(keys).filter(|key| key.life.published.is_some());
    let own = own.map(|key| {
        Peer::with(
            ring,
            Standing::of(policy.window, key.life.published, policy.lead()),
        )
    });
    let mut ranked: Vec<Peer> = peers.iter().cloned().chain(own).collect();
    ranked.sort_by(|a, b| a.rank().cmp(&b.rank()));
    let times = ranked
        .iter()
        .map(|peer| &peer.standing)
        .flat_map(|s| [s.window.from, s.window.to, s.known_from]);
    let next = times.flatten().filter(|at| *at > now).min();
    let audience = match ring.spec.audience {
        KeyAudience::Client => "client",
        KeyAudience::Human => "human",
    };
    let name = ring.name_any();
    let unless = "unless a technical user names another in spec.signingKey";
    let conditions = match in_order(&ranked, |peer| &peer.standing, now).next() {
        Some(first) if first.name == name && peers.is_empty() => conditions.and(
            SIGNING,
            true,
            r::PREFERRED,
            format!("This ring signs for audience {audience}: there is no other."),
        ),
        Some(first) if first.name == name => conditions.and(
            SIGNING,
            true,
            r::PREFERRED,
            format!("Of the rings with audience {audience} this one signs, {unless}."),
        ),
        Some(first) => {
            let own = ranked.iter().find(|peer| peer.name == name);
            let why = why_not(own, first, now);
            conditions.and(
                SIGNING,
                false,
                r::OUTRANKED,
                format!(
                    "SigningKey {} signs for audience {audience}, {unless}: {why}.",
                    first.name
                ),
            )
        }
        None => conditions.and(
            SIGNING,
            false,
            r::NO_SIGNING_KEY,
            format!("No ring with audience {audience} can sign now."),
        ),
    };
    (conditions, next)
}

/// Why another ring goes before this one.
fn why_not(own: Option<&Peer>, first: &Peer, now: Timestamp) -> String {
    let Some(own) = own else {
        return "this ring has no key that could sign".to_owned();
    };
    if !own.standing.window.contains(now) {
        return "this ring's window (spec.validFrom, spec.validTo) is not open".to_owned();
    }
    if own.rank() < first.rank() {
        let until = own.standing.known_from.map(said).unwrap_or_default();
        return format!(
            "verifiers have known its key for longer, until this ring's publishLead is over at {until}"
        );
    }
    if first.priority > own.priority {
        return format!(
            "its priority is {}, and this ring's {}",
            first.priority, own.priority
        );
    }
    "their priority is the same, and it is the first by name".to_owned()
}
