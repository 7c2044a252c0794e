//! The life of a ring of keys: one pure function, [`plan()`], from what the ring holds, its policy
//! and the time to what it should hold and when to look again. A technical user's client secrets
//! live by the same function, with another [`Policy`] (see [`Rotated`]).
//!
//! ```text
//!     Next ──publishLead──▶ Active ──interval──▶ Retired ──grace──▶ Removed ──retention──▶ gone
//!     in JWKS, not signing   signs                verifies only      Secret kept
//! ```
//!
//! Each step is taken only when what must come before it was *seen*, not merely ordered. What a
//! key is, stands in its own Secret, whose resourceVersion so guards each step:
//!
//! - towards more trust: Secret, then JWKS, *seen there*, then `published` and, its lead over,
//!   `activated` in the Secret;
//! - towards less: `retired` or `withdrawn`, then `removed` in the Secret, *seen there*, then the
//!   JWKS without it, *seen there*, then the Secret is deleted.
//!
//! The active key is the one that was activated last: one write makes the new one active and the
//! old one not. A crash between two steps leaves a ring that the next look continues.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::jwk::PublicJwk;

mod carry_out;
mod plan;
mod policy;
pub mod timetable;

pub use carry_out::carry_out;
pub use plan::plan;
pub use policy::{
    History, Policy, Rotated, Source, Window, WindowRefused, accept_window, effective_lead, jitter,
    later,
};

/// The most keys that a ring publishes: beyond it the schedule waits, as an interval that is far
/// shorter than the grace would fill the JWKS without end.
pub const MOST_PUBLISHED: usize = 64;

/// The most client secrets of one technical user that work at once: the old and the new one of a
/// rotation, and one more for a rotation before the grace of the last is over. Beyond it a rotation
/// waits, as each costs a comparison with whatever is presented.
pub const MOST_SECRETS: usize = 3;

/// For how long a withdrawn key may go on signing until its successor is published: a moment
/// without any key would be an outage, a long one would ignore the order.
pub const PATIENCE: SignedDuration = SignedDuration::from_secs(5);

/// The longest value of the rotate annotation: it is copied into Secrets and status.
pub const LONGEST_REQUEST: usize = 253;

/// A time in a key's life that lies further ahead than this was written by a wrong clock.
pub const SKEW: SignedDuration = SignedDuration::from_mins(5);

/// Why a key was made, which decides when it signs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// The ring's first.
    #[default]
    First,
    /// By the interval: it signs when that is over.
    Schedule,
    /// A person asked by annotation: it signs as soon as its lead is over.
    Request,
    /// The ring's algorithm or key size was changed.
    Algorithm,
    /// A person injected another key.
    Injected,
    /// Nothing could sign any more.
    Emergency,
}

impl Cause {
    /// As annotations write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Schedule => "schedule",
            Self::Request => "request",
            Self::Algorithm => "algorithm",
            Self::Injected => "injected",
            Self::Emergency => "emergency",
        }
    }

    /// Reads what [`Self::name`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [
            Self::First,
            Self::Schedule,
            Self::Request,
            Self::Algorithm,
            Self::Injected,
            Self::Emergency,
        ];
        all.into_iter().find(|cause| cause.name() == name)
    }
}

/// The times of a key's life, as its Secret holds them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Life {
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Since when it stands in the issuer's JWKS without interruption.
    pub published: Option<Timestamp>,
    /// When it began to sign, the last time.
    pub activated: Option<Timestamp>,
    /// When it ceased to sign; or, of a key that never signed, when it was given up.
    pub retired: Option<Timestamp>,
    /// When a person's withdrawal was first seen.
    pub withdrawn: Option<Timestamp>,
    /// When it was decided that it leaves the JWKS.
    pub removed: Option<Timestamp>,
}

impl Life {
    /// Whether it was made, and nothing came of it yet: it was neither published nor did it sign.
    pub fn is_fresh(&self) -> bool {
        self.published.is_none() && self.activated.is_none()
    }

    /// Whether it began to sign, and nothing ended that.
    pub fn may_sign(&self) -> bool {
        self.activated.is_some() && self.retired.is_none() && self.removed.is_none()
    }
}

/// What everyone may know of something that rotates.
pub trait Public: Clone + PartialEq {
    /// Names it among its like.
    fn id(&self) -> &str;
}

/// A key pair: its public half, by the `kid`.
impl Public for PublicJwk {
    fn id(&self) -> &str {
        &self.kid
    }
}

/// A client secret: nothing but what it is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretId(pub String);

impl Public for SecretId {
    fn id(&self) -> &str {
        &self.0
    }
}

/// What is known of one key pair of a ring, or of one client secret of a technical user.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyFacts<P = PublicJwk> {
    /// Its number in the ring.
    pub sequence: i64,
    /// Its public half; the `kid` is its RFC 7638 thumbprint.
    pub jwk: P,
    /// The times of its life.
    pub life: Life,
    /// Why it was made.
    pub cause: Cause,
    /// The value of the rotate annotation that had been handled when it was made.
    pub handled: Option<String>,
    /// How often it came back after it was removed.
    pub edition: i64,
    /// The longest token life that was allowed while it signed; none if it never did.
    pub max_ttl: Option<SignedDuration>,
    /// The window that was accepted for it.
    pub window: Window,
    /// Whether it is of the algorithm and size that the ring wants now.
    pub fits: bool,
    /// Whether the Secret with its private key is there; of a client secret, whether its plain text
    /// can still be had.
    pub has_material: bool,
    /// Whether the issuer's JWKS was seen to hold it, in this edition; of a client secret, whether it
    /// stands where its holder finds it.
    pub in_jwks: bool,
}

/// Where a key is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Made; perhaps published; does not sign.
    Next,
    /// Signs.
    Active,
    /// Verifies only.
    Retired,
    /// A person withdrew it: it verifies at most until the grace that was given with the order.
    Withdrawn,
    /// Out of the JWKS; its Secret may be kept.
    Removed,
}

impl<P: Public> KeyFacts<P> {
    /// The `kid`; of a client secret, its id.
    pub fn kid(&self) -> &str {
        self.jwk.id()
    }

    /// Whether it could sign now, were it chosen: it is there, and nothing ended it.
    pub fn is_usable(&self) -> bool {
        self.has_material && self.life.retired.is_none() && self.life.removed.is_none()
    }

    /// Whether it was made and has never signed, nor been given up.
    pub fn is_next(&self) -> bool {
        self.is_usable() && self.life.activated.is_none() && self.life.withdrawn.is_none()
    }

    /// Where it is in its life, given which key of the ring signs.
    pub fn phase(&self, signer: Option<&str>) -> Phase {
        if signer == Some(self.kid()) {
            Phase::Active
        } else if self.life.removed.is_some() {
            Phase::Removed
        } else if self.life.withdrawn.is_some() {
            Phase::Withdrawn
        } else if self.is_next() {
            Phase::Next
        } else {
            Phase::Retired
        }
    }
}

/// The key that signs: of those that were activated and not ended, the one activated last. So the
/// one write that activates a key also ends its predecessor's signing.
pub fn signer<P>(keys: &[KeyFacts<P>]) -> Option<&KeyFacts<P>> {
    keys.iter()
        .filter(|k| k.has_material && k.life.may_sign())
        .max_by_key(|k| (k.life.activated, k.sequence))
}

/// One step towards the ring wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Make a key pair with this number, and its Secret.
    Generate {
        /// The number in the ring.
        sequence: i64,
        /// Why.
        cause: Cause,
    },
    /// Make the Secret of an injected key again, which was lost; or a client secret that was lost
    /// before it was delivered, with the same number and for the same reason.
    Restore {
        /// Which key.
        key_id: String,
    },
    /// What is written down of a key in its Secret (or, where that is lost, in status).
    Note {
        /// Which key.
        key_id: String,
        /// What.
        note: Note,
    },
    /// Delete the key's Secret.
    Destroy {
        /// Which key.
        key_id: String,
    },
    /// Strike the key off: nothing of it is left.
    Forget {
        /// Which key.
        key_id: String,
    },
}

/// What is written down of a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Note {
    /// It was seen in the issuer's JWKS.
    Published,
    /// It does not stand in the JWKS (any more), so that its lead counts anew.
    Unpublished,
    /// It signs from now on.
    Activated {
        /// Whether it does so before its lead is over, as nothing else can.
        emergency: bool,
        /// The longest token life that is allowed now.
        max_ttl: SignedDuration,
    },
    /// It has ceased to sign: another one does.
    Retired,
    /// It was made and is not wanted any more; it never signed.
    GivenUp,
    /// Its private key is gone, and it so ceased to sign.
    Lost,
    /// A person withdrew it.
    Withdrawn,
    /// The person took that back.
    Reactivated,
    /// It leaves the JWKS.
    Removed,
    /// It was made already when a person asked for a rotation with this value: it signs as soon as
    /// it may.
    Hastened {
        /// The value of the annotation.
        value: String,
    },
    /// Tokens of this life are allowed now, longer ones than before, and it signs them.
    LongerTokens(SignedDuration),
    /// The ring's window is another now.
    Window(Window),
    /// A time in its life lay in the future: a wrong clock wrote it.
    TimesCorrected {
        /// Its place among those that are put right, in the order of their activations.
        rank: i64,
    },
}

/// Something that will happen by the clock.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Transition {
    /// When; a time that has passed is overdue.
    pub at: Timestamp,
    /// What.
    pub what: Coming,
    /// To which key; none for one that is not made yet.
    pub key_id: Option<String>,
}

/// What will happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Coming {
    /// The next key is made and published.
    Generate,
    /// A key begins to sign.
    Activate,
    /// The ring's window begins, and its active key signs from then on.
    Open,
    /// A key leaves the JWKS.
    Remove,
    /// A key's Secret is deleted.
    Destroy,
    /// A withdrawn and removed key is accepted by no cache any more.
    Forget,
}

/// What a ring should come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan<P = PublicJwk> {
    /// The keys that the JWKS should hold, oldest first, each with its edition; of client secrets,
    /// those that are accepted.
    pub publish: Vec<(P, i64)>,
    /// What to do, in this order; all of it can be done now.
    pub steps: Vec<Step>,
    /// When to look again at the latest, if nothing happens before. Never in the past.
    pub wake_at: Option<Timestamp>,
    /// What happens next by the clock.
    pub next: Option<Transition>,
    /// When the next key signs in the active one's place, as far as that is settled.
    pub rotates_at: Option<Timestamp>,
    /// Whether `signWith` names a key that can not sign now.
    pub sign_with_waits: bool,
    /// Whether the schedule waits since `signWith` is obeyed.
    pub paused: bool,
    /// Whether a rotation waits since too many keys are published.
    pub crowded: bool,
    /// When each key leaves the JWKS, as far as that is settled.
    pub ends: BTreeMap<String, Timestamp>,
}

impl<P> Default for Plan<P> {
    fn default() -> Self {
        Self {
            publish: Vec::new(),
            steps: Vec::new(),
            wake_at: None,
            next: None,
            rotates_at: None,
            sign_with_waits: false,
            paused: false,
            crowded: false,
            ends: BTreeMap::new(),
        }
    }
}
