//! What will happen to a ring if nobody intervenes: [`plan()`](super::plan()) itself, driven through
//! a time that is imagined, so that no timetable says anything else than what the operator does.
//!
//! Each plan is carried out at once and the JWKS is seen at once; then the next wake-up is taken.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::{
    Cause, KeyFacts, Life, Note, Plan, Policy, Source, Step, accept_window, carry_out, later, plan,
    signer,
};
use crate::domain::jwk::PublicJwk;
use crate::domain::moment::Moment;
use crate::domain::period::Period;

/// A timetable has no more keys than this: an interval of a second would fill it without end.
pub const MOST_KEYS: i64 = 500;

/// How often a key is looked at, on average, in the longest of lives; beyond that the plan would
/// not come to rest.
const LOOKS_PER_KEY: usize = 20;

/// What happens to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Event {
    /// Its key pair is made.
    Made,
    /// It is in the JWKS.
    Published,
    /// It begins to sign.
    Signs,
    /// It ceases to sign, and verifies only.
    Retired,
    /// It leaves the JWKS.
    LeavesJwks,
    /// Its key pair is deleted.
    Deleted,
}

impl Event {
    /// All of them, in the order in which a key meets them.
    pub const ALL: [Self; 6] = [
        Self::Made,
        Self::Published,
        Self::Signs,
        Self::Retired,
        Self::LeavesJwks,
        Self::Deleted,
    ];

    /// A name for programs, which does not change.
    pub fn name(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::Published => "published",
            Self::Signs => "signs",
            Self::Retired => "retired",
            Self::LeavesJwks => "leavesJwks",
            Self::Deleted => "deleted",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Made => "made",
            Self::Published => "published",
            Self::Signs => "signs",
            Self::Retired => "retired",
            Self::LeavesJwks => "leaves the JWKS",
            Self::Deleted => "deleted",
        })
    }
}

/// Why it happens; as text, half a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The ring has no key yet.
    First,
    /// The ring has no key yet, and a person brings this one.
    Brought,
    /// It is to follow that key, and is published before it does.
    ToFollow(i64),
    /// It was made, and verifiers can fetch it from now on.
    InJwks,
    /// Nothing signed before it, so that nobody has to learn of it first.
    NothingSigned,
    /// The ring's window begins.
    ValidFrom,
    /// That key has signed for the interval.
    Interval(i64, SignedDuration),
    /// Its lead is over, later than that key was due.
    LeadOver(i64, SignedDuration, Timestamp),
    /// That key signs in its place.
    FollowedBy(i64),
    /// It is not needed any more.
    NotNeeded,
    /// The ring's window ends.
    ValidTo,
    /// No token of it is valid any more.
    GraceOver(SignedDuration),
    /// It is out of the JWKS, and is not kept.
    NotKept,
    /// It was kept for as long as that.
    RetentionOver(SignedDuration),
    /// For another reason to rotate.
    Other(Cause),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = |duration: &SignedDuration| Period::from_secs(duration.as_secs());
        match self {
            Self::First => write!(f, "the ring's first key"),
            Self::Brought => write!(f, "the key that privateKey brings"),
            Self::ToFollow(before) => write!(f, "to follow #{before}, and to be known before"),
            Self::InJwks => write!(f, "verifiers can fetch it from now on"),
            Self::NothingSigned => write!(f, "nothing signed before, so it need not wait"),
            Self::ValidFrom => write!(f, "validFrom: the ring's window begins"),
            Self::Interval(before, interval) => {
                write!(
                    f,
                    "#{before} has signed for its interval of {}",
                    span(interval)
                )
            }
            Self::LeadOver(before, lead, due) => write!(
                f,
                "published for its lead of {}; #{before} was due at {due}",
                span(lead)
            ),
            Self::FollowedBy(next) => write!(f, "#{next} signs in its place; it verifies only"),
            Self::NotNeeded => write!(f, "it is not needed any more"),
            Self::ValidTo => write!(f, "validTo: the ring's window ends"),
            Self::GraceOver(grace) => write!(f, "its grace of {} is over", span(grace)),
            Self::NotKept => write!(f, "it has left the JWKS, and no retention keeps it"),
            Self::RetentionOver(kept) => write!(f, "its retention of {} is over", span(kept)),
            Self::Other(cause) => write!(f, "{}", cause.name()),
        }
    }
}

/// Something that happens to a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// When.
    pub at: Timestamp,
    /// The key's number in the ring.
    pub key: i64,
    /// What.
    pub event: Event,
    /// Why.
    pub why: Why,
}

/// What will happen to a ring.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timetable {
    /// What happens, in the order of time.
    pub rows: Vec<Row>,
    /// Where it ends early, since it would have more than [`MOST_KEYS`] keys.
    pub cut: Option<Timestamp>,
    /// Since when a rotation waits, as the JWKS is full.
    pub crowded: Option<Timestamp>,
    /// Whether the window's end had passed before the ring was there, so that no key is made.
    pub too_late: bool,
}

/// The times of one key, as far as they lie in the timetable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyTimes {
    /// Its number in the ring.
    pub key: i64,
    times: [Option<Timestamp>; Event::ALL.len()],
}

impl KeyTimes {
    /// When that happens to it.
    pub fn at(&self, event: Event) -> Option<Timestamp> {
        self.times[event as usize]
    }
}

impl Timetable {
    /// The same by key, in the order of their numbers.
    pub fn keys(&self) -> Vec<KeyTimes> {
        let mut keys: Vec<KeyTimes> = Vec::new();
        for row in &self.rows {
            let place = keys.binary_search_by_key(&row.key, |k| k.key);
            let place = place.unwrap_or_else(|place| {
                let (key, times) = (row.key, [None; Event::ALL.len()]);
                keys.insert(place, KeyTimes { key, times });
                place
            });
            keys[place].times[row.event as usize] = Some(row.at);
        }
        keys
    }
}

/// What happens to a new ring with this policy, from its first moment until then.
pub fn timetable(policy: &Policy, from: Timestamp, until: Timestamp) -> Timetable {
    let moment = |now| Moment { now, sure: true };
    let mut world = World {
        policy: policy.clone(),
        keys: Vec::new(),
        done: Timetable::default(),
    };
    if accept_window(policy.window, &[], moment(from)).1.is_some() {
        world.done.too_late = true;
        return world.done;
    }
    let mut now = from;
    let most_looks = LOOKS_PER_KEY * usize::try_from(MOST_KEYS).unwrap_or(usize::MAX);
    for _ in 0..most_looks {
        let before = world.keys.clone();
        let plan = world.look(moment(now));
        if world.done.cut.is_some() {
            break;
        }
        if !plan.steps.is_empty() || world.keys != before {
            // What was done has to be seen first.
            continue;
        }
        match plan.wake_at {
            Some(next) if next <= until => now = next,
            _ => return world.finish(until),
        }
    }
    world.done.cut = Some(now);
    world.finish(now)
}

/// A ring, imagined.
struct World {
    policy: Policy,
    keys: Vec<KeyFacts>,
    done: Timetable,
}

impl World {
    /// One look, and everything that is to be done.
    fn look(&mut self, moment: Moment) -> Plan {
        let plan = plan(&self.keys, &self.policy, moment);
        if plan.crowded && self.done.crowded.is_none() {
            self.done.crowded = Some(moment.now);
        }
        for key in &mut self.keys {
            let stands = |(jwk, edition): &(PublicJwk, i64)| {
                jwk.kid == key.jwk.kid && *edition == key.edition
            };
            key.in_jwks = plan.publish.iter().any(stands);
        }
        for step in &plan.steps {
            self.tell(step, moment.now);
            if let Step::Generate { sequence, cause } = step {
                if *sequence > MOST_KEYS {
                    self.done.cut = Some(moment.now);
                    return plan;
                }
                self.make(*sequence, *cause, moment.now);
            }
            if let Step::Forget { key_id } = step {
                self.policy.history.spent.insert(key_id.clone());
            }
            carry_out(&mut self.keys, step, moment.now);
        }
        plan
    }

    fn make(&mut self, sequence: i64, cause: Cause, now: Timestamp) {
        let kid = match &self.policy.source {
            Source::Inject(kid) => kid.clone(),
            _ => sequence.to_string(),
        };
        // Status remembers it beyond the life of the key.
        self.policy.handled.clone_from(&self.policy.rotate);
        self.policy.history.highest = sequence;
        self.keys.push(KeyFacts {
            sequence,
            jwk: PublicJwk::stand_in(kid),
            life: Life {
                created: Some(now),
                ..Life::default()
            },
            cause,
            handled: self.policy.rotate.clone(),
            edition: 0,
            max_ttl: None,
            window: self.policy.window,
            fits: true,
            has_material: true,
            in_jwks: false,
        });
    }

    /// Writes a step into the timetable; called before it is carried out.
    fn tell(&mut self, step: &Step, now: Timestamp) {
        let (key, event, why) = match step {
            Step::Generate { sequence, .. } if *sequence > MOST_KEYS => return,
            Step::Generate { sequence, cause } => (*sequence, Event::Made, self.why_made(*cause)),
            Step::Destroy { key_id } => {
                let Some(key) = self.find(key_id) else { return };
                let why = match self.policy.kept_for(key) {
                    SignedDuration::ZERO => Why::NotKept,
                    kept => Why::RetentionOver(kept),
                };
                (key.sequence, Event::Deleted, why)
            }
            Step::Note { key_id, note } => {
                let Some(key) = self.find(key_id).cloned() else {
                    return;
                };
                return self.tell_note(&key, note, now);
            }
            Step::Restore { .. } | Step::Forget { .. } => return,
        };
        self.row(now, key, event, why);
    }

    fn tell_note(&mut self, key: &KeyFacts, note: &Note, now: Timestamp) {
        let number = key.sequence;
        match note {
            Note::Published => self.row(now, number, Event::Published, Why::InJwks),
            Note::Activated { .. } => {
                // It is chosen then, and signs once the window has begun.
                let begins = self.policy.window.from.filter(|from| *from > now);
                let why = match begins {
                    Some(_) => Why::ValidFrom,
                    None => self.why_it_signs(key, now),
                };
                self.row(begins.unwrap_or(now), number, Event::Signs, why);
            }
            Note::Retired => {
                let why =
                    signer(&self.keys).map_or(Why::NotNeeded, |k| Why::FollowedBy(k.sequence));
                self.row(now, number, Event::Retired, why);
            }
            Note::GivenUp => self.row(now, number, Event::Retired, Why::NotNeeded),
            Note::Removed => {
                let ended = self.policy.window.to.is_some_and(|to| to <= now);
                if ended && key.life.may_sign() {
                    self.row(now, number, Event::Retired, Why::ValidTo);
                }
                let grace = self.policy.grace_of(key);
                let over = key.life.retired.is_some_and(|at| later(at, grace) <= now);
                let why = match key.life.activated {
                    _ if ended && !over => Why::ValidTo,
                    Some(_) => Why::GraceOver(grace),
                    None => Why::NotNeeded,
                };
                self.row(now, number, Event::LeavesJwks, why);
            }
            _ => {}
        }
    }

    fn why_made(&self, cause: Cause) -> Why {
        match (cause, signer(&self.keys)) {
            (Cause::First, _) if matches!(self.policy.source, Source::Inject(_)) => Why::Brought,
            (Cause::First, _) => Why::First,
            (Cause::Schedule, Some(active)) => Why::ToFollow(active.sequence),
            (other, _) => Why::Other(other),
        }
    }

    fn why_it_signs(&self, key: &KeyFacts, now: Timestamp) -> Why {
        let Some(active) = signer(&self.keys) else {
            return Why::NothingSigned;
        };
        match (key.cause, self.policy.due(active), self.policy.interval) {
            (Cause::Schedule, Some(due), _) if due < now => {
                Why::LeadOver(active.sequence, self.policy.lead(), due)
            }
            (Cause::Schedule, _, Some(interval)) => Why::Interval(active.sequence, interval),
            _ => Why::Other(key.cause),
        }
    }

    fn find(&self, kid: &str) -> Option<&KeyFacts> {
        self.keys.iter().find(|k| k.kid() == kid)
    }

    fn row(&mut self, at: Timestamp, key: i64, event: Event, why: Why) {
        let row = Row {
            at,
            key,
            event,
            why,
        };
        self.done.rows.push(row);
    }

    fn finish(mut self, until: Timestamp) -> Timetable {
        self.done.rows.retain(|row| row.at <= until);
        // What happens at the same time stays in the order in which it is done.
        self.done.rows.sort_by_key(|row| row.at);
        self.done
    }
}

#[cfg(test)]
#[path = "timetable/tests.rs"]
mod tests;
