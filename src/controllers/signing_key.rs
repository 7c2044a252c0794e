//! The `SigningKey` controller: carries out what [`crate::domain::rotation::plan`] wants.
//!
//! One visit writes only what what it saw allows; what a write makes possible is done by the
//! visit that sees that write: Secret, then JWKS, then what is noted of the key, then status; and
//! towards less trust the other way round. What the watches have shown only tells whether there is
//! anything to do: what is written is decided on what the API server itself shows now ([`look`]).

mod copies;
mod facts;
mod look;
mod preference;
mod publish;
mod report;
mod see;
mod story;
mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use zeroize::Zeroizing;

use super::{Decision, Fill, Object, Write};
use crate::api::v1alpha1::{Conditions, SigningKey};
use crate::domain::jwk::PublicJwk;
use crate::domain::moment::Moment;
use crate::domain::rotation::{self, History, KeyFacts, Plan, Policy, Step, carry_out};
use crate::domain::settings::Settings;
use crate::objects::Ownership;
use crate::objects::jwks_map::{self, Share};

pub use copies::{Troubles, publishing, see as see_copies, write as write_copies};
pub use facts::{algorithm_violation_of, policy_of, violation_of};
pub use look::{Looked, ParsedKeys, Reads, look};
pub use preference::{Peer, Told, all_told, is_urgent, peers};
pub use publish::Copies;
pub use see::brought_from;

/// How long to wait before looking again at something foreign, which is not watched.
const FOREIGN_RECHECK: SignedDuration = SignedDuration::from_secs(30);

/// The pure function that drives a ring. It is a value so that the tests can put broken ones in
/// its place, to see that they would be caught.
pub type PlanFn = fn(&[KeyFacts], &Policy, Moment) -> Plan;

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
    /// What the other rings have in their own `ConfigMap`s, where that matters.
    pub elsewhere: Elsewhere,
    /// Its JWKS in other namespaces.
    pub copies: publish::Copies,
    /// The other rings of its audience that have a key to sign with.
    pub peers: Vec<Peer>,
    /// The key pair that a person injects, or why there is none; none if the ring makes its own.
    pub injected: Option<Result<Injected, String>>,
}

/// The kids that can not come into a ring, as they are other rings'.
#[derive(Clone, Debug, Default)]
pub struct Elsewhere {
    /// Those that stand in another ring's own `ConfigMap`, and that ring's name. A key that is removed
    /// leaves the issuer's map first, so that for a moment it is only here.
    pub standing: BTreeMap<String, String>,
    /// Those that another ring remembers as used up.
    pub spent: BTreeSet<String>,
}

impl Elsewhere {
    /// Adds what another ring's `ConfigMap` says. `lives`: the ring is there; else only what it had used
    /// up counts.
    pub fn add(&mut self, ring: &str, map: &ConfigMap, lives: bool) {
        let keys = jwks_map::read(map).filter(|_| lives).unwrap_or_default();
        let kids = keys.keys.into_iter().map(|key| (key.kid, ring.to_owned()));
        self.standing.extend(kids);
        self.spent.extend(jwks_map::history(map).burned().cloned());
    }
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

/// A key pair that a person injects.
pub struct Injected {
    /// Its public half.
    pub jwk: PublicJwk,
    /// The private key, PKCS#8 in PEM.
    pub pem: Zeroizing<String>,
}

impl Seen {
    /// Whether it matters which kids other rings have used up: a key could come in that they had.
    fn asks_others(&self) -> bool {
        let nobodys = |s: &SecretSeen| s.ownership == Ownership::Nobodys;
        self.injected.is_some() || self.secrets.iter().any(nobodys)
    }
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

/// What to do with a ring.
pub fn decide(seen: &Seen, settings: &Settings, moment: Moment, plan: PlanFn) -> Decision {
    match &seen.ring {
        None => {
            let mut decision = gone(seen, settings);
            let (name, none) = ((seen.name.as_str(), None), Conditions::default());
            let when = (settings, moment.now);
            publish::decide(&seen.copies, name, None, when, none, &mut decision);
            decision
        }
        Some(ring) if ring.metadata.deletion_timestamp.is_some() => Decision::default(),
        Some(ring) => Visit::new(seen, ring, settings, moment.now).decide(moment, plan),
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
        &jwks_map::Share::default(),
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
    /// The issuer's `ConfigMap`, if it is ours.
    issuer_map: Option<&'a ConfigMap>,
    /// Which ring has what in it.
    shares: BTreeMap<String, Share>,
    /// What the ring's own `ConfigMap` remembers.
    history: History,
}

/// Why a ring can not go on, as reason and sentence.
type Obstacle = (&'static str, String);

/// What is told of a ring besides its keys.
#[derive(Default)]
struct Trouble {
    /// Something foreign stands where an object of ours should be: nothing is made or published.
    obstacle: Option<Obstacle>,
    /// The release's policy, or the spec, asks for what is not done.
    violation: Option<Obstacle>,
}

impl<'a> Visit<'a> {
    fn new(seen: &'a Seen, ring: &'a SigningKey, settings: &'a Settings, now: Timestamp) -> Self {
        let ours = |m: &&ConfigMap| jwks_map::is_issuer_map(m, &settings.environment);
        let issuer_map = seen.issuer_map.as_deref().filter(ours);
        let history = seen.ring_map.as_deref().map(jwks_map::history);
        Self {
            seen,
            ring,
            settings,
            now,
            issuer_map,
            shares: issuer_map.map(jwks_map::shares).unwrap_or_default(),
            history: history.unwrap_or_default(),
        }
    }

    /// That a key leaves is noted anew while what is served is slow to lose it, and not for the ring's own
    /// `ConfigMap`, which may be refused for ever.
    fn spare_repeats(&self, keys: &[KeyFacts], plan: &mut Plan) {
        let share = self.shares.get(&self.seen.name);
        plan.steps.retain(|step| match step {
            Step::Note {
                key_id,
                note: rotation::Note::Removed,
            } => {
                let mut known = keys.iter().filter(|k| k.kid() == key_id);
                let repeats = known.any(|k| k.life.removed.is_some());
                let served = |share: &Share| share.keys.iter().any(|e| e.jwk.kid == *key_id);
                !repeats || share.is_some_and(served)
            }
            _ => true,
        });
    }

    fn decide(&self, moment: Moment, plan: PlanFn) -> Decision {
        let mut keys = self.facts();
        let (policy, slips) = self.policy(&keys, moment);
        let mut plan = plan(&keys, &policy, moment);
        self.spare_repeats(&keys, &mut plan);
        let trouble = Trouble {
            obstacle: self.obstacle(),
            violation: self.violation().or(slips),
        };
        let mut decision = Decision {
            writes: Vec::new(),
            wake_at: plan.wake_at,
        };
        let before = keys.clone();
        for step in &plan.steps {
            carry_out(&mut keys, step, self.now);
        }
        let news = report::news(&keys, &policy, self.now);
        decision.wake_by(news);
        let mut tale = story::Story::new(&before, &keys, &plan, &policy, self.now);
        if trouble.obstacle.is_some() {
            // Nothing tells us when a foreign object goes.
            decision.wake_by([rotation::later(self.now, FOREIGN_RECHECK)]);
        }
        // Before the JWKS is mended: that a key did not stand there is not to be forgotten.
        self.write_down(&before, &keys, &mut tale, &mut decision.writes);
        self.publish(&plan, &before, &policy, &mut decision.writes);
        self.destroy(&plan, &before, &mut tale, &mut decision.writes);
        decision.writes.extend(tale.rest());
        decision
            .writes
            .extend(self.warn_of_unknown_withdrawals(&before));
        // Last, since it may be refused (a quota, say): no order to withdraw a key waits for it.
        if trouble.obstacle.is_none() {
            self.make(&plan, &keys, &policy, &mut decision.writes);
        }
        let conditions = self.conditions(&keys, &plan, &policy, trouble);
        let among = (&policy, self.seen.peers.as_slice());
        let (conditions, again) = preference::told(self.ring, &keys, among, self.now, conditions);
        decision.wake_by(again);
        let jwks: Vec<_> = plan.publish.iter().map(|(jwk, _)| jwk.clone()).collect();
        let conditions = publish::decide(
            &self.seen.copies,
            (&self.seen.name, Some(self.ring)),
            // A ring that knows of no key leaves what is there.
            Some(jwks.as_slice()).filter(|_| !before.is_empty()),
            (self.settings, self.now),
            conditions,
            &mut decision,
        );
        let status = self.status(&keys, &plan, &policy, &conditions);
        decision.writes.extend(status);
        decision
    }
}

#[cfg(test)]
mod tests;
