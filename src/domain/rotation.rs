//! The life of a ring of keys: one pure function from what the ring holds and the time to what it
//! should hold and when to look again.
//!
//! ```text
//!     Next ──▶ Active ──▶ Retired ──▶ gone
//!     in JWKS   signs      verifies
//! ```
//!
//! Each step is taken only when what must come before it was *seen*, not merely ordered: a key is
//! published when its Secret was seen, and signs when the issuer's JWKS was seen to hold it. A
//! crash between two steps so leaves a ring that the next look continues.

use jiff::{SignedDuration, Timestamp};

use super::jwk::PublicJwk;

/// What is known of one key pair of a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFacts {
    /// Its number in the ring.
    pub sequence: i64,
    /// Its public half; the `kid` is its RFC 7638 thumbprint.
    pub jwk: PublicJwk,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// When it was first seen in the issuer's JWKS.
    pub published: Option<Timestamp>,
    /// When it began to sign.
    pub activated: Option<Timestamp>,
    /// When it ceased to sign.
    pub retired: Option<Timestamp>,
    /// Whether the Secret with its private key is there.
    pub has_material: bool,
    /// Whether the issuer's JWKS was seen to hold it.
    pub in_jwks: bool,
}

/// Where a key is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Made; perhaps published; does not sign.
    Next,
    /// Signs.
    Active,
    /// Verifies only.
    Retired,
}

impl KeyFacts {
    /// Where it is in its life, as written down.
    pub fn phase(&self) -> Phase {
        match (self.activated, self.retired) {
            (Some(_), None) if self.has_material => Phase::Active,
            (None, None) => Phase::Next,
            _ => Phase::Retired,
        }
    }

    /// When it leaves the JWKS, if that is settled.
    pub fn verifies_until(&self, policy: Policy) -> Option<Timestamp> {
        self.retired.map(|retired| {
            retired
                .saturating_add(policy.grace)
                .unwrap_or(Timestamp::MAX)
        })
    }
}

/// What bounds a ring's steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long a key that has ceased to sign must still verify: the longest token life, clock
    /// leeway and the JWKS's `max-age` together.
    pub grace: SignedDuration,
}

/// One step towards the ring wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make a key pair with this number, and its Secret.
    Generate {
        /// The number in the ring.
        sequence: i64,
    },
    /// Write down that the key was seen in the issuer's JWKS.
    StampPublished {
        /// Which key.
        key_id: String,
    },
    /// Write down that the key signs from now on.
    Activate {
        /// Which key.
        key_id: String,
    },
    /// Write down that the private key is gone, and the key so ceased to sign.
    NoteLost {
        /// Which key.
        key_id: String,
    },
    /// Write down that the key has ceased to sign: another one does.
    Retire {
        /// Which key.
        key_id: String,
    },
    /// The key's grace is over: strike it off.
    Forget {
        /// Which key.
        key_id: String,
    },
}

/// What a ring should come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The keys that the JWKS should hold, oldest first.
    pub publish: Vec<PublicJwk>,
    /// What to do, in this order; all of it can be done now.
    pub steps: Vec<Step>,
    /// When to look again at the latest, if nothing happens before. Never in the past.
    pub wake_at: Option<Timestamp>,
}

/// What to do with a ring now. The same facts and the same time give the same plan, and a plan
/// that was carried out in full leaves nothing to do but wait.
pub fn plan(keys: &[KeyFacts], policy: Policy, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let mut keys: Vec<&KeyFacts> = keys.iter().collect();
    keys.sort_by_key(|k| k.sequence);

    for key in &keys {
        if !key.has_material && key.retired.is_none() {
            plan.steps.push(Step::NoteLost {
                key_id: key.jwk.kid.clone(),
            });
        }
        match key.verifies_until(policy) {
            Some(until) if until <= now => {
                plan.steps.push(Step::Forget {
                    key_id: key.jwk.kid.clone(),
                });
                continue;
            }
            Some(until) => plan.wake_at = plan.wake_at.into_iter().chain([until]).min(),
            None => {}
        }
        plan.publish.push(key.jwk.clone());
    }

    // A key that was lost and has come back finds another in its place: the newer one signs.
    let active = || keys.iter().filter(|k| k.phase() == Phase::Active);
    for older in active().take(active().count().saturating_sub(1)) {
        plan.steps.push(Step::Retire {
            key_id: older.jwk.kid.clone(),
        });
    }

    let usable = |k: &&&KeyFacts| k.has_material && k.retired.is_none();
    let signing = keys.iter().find(|k| k.phase() == Phase::Active);
    if signing.is_none() {
        // The ring's first key, or an emergency: nothing signs, so that no lead is owed.
        match keys.iter().find(usable) {
            None => plan.steps.push(Step::Generate {
                sequence: keys
                    .last()
                    .map_or(0, |k| k.sequence.max(0))
                    .saturating_add(1),
            }),
            Some(next) if next.in_jwks => {
                if next.published.is_none() {
                    plan.steps.push(Step::StampPublished {
                        key_id: next.jwk.kid.clone(),
                    });
                }
                plan.steps.push(Step::Activate {
                    key_id: next.jwk.kid.clone(),
                });
            }
            // Published first; seen there, it is activated.
            Some(_) => {}
        }
    }
    plan
}

#[cfg(test)]
#[path = "rotation/tests.rs"]
mod tests;
