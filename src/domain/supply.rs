//! The lives of client secrets that a person supplies: one pure function, [`follow`].
//!
//! A person decides what follows what, so that there is no schedule and nothing to make. What is
//! supplied works, also where it is two at once. What is not supplied any more works on for the grace, as
//! an old generated secret does: whoever has read it is not to be cut off by somebody who replaces it in
//! place. What can not be seen, as the Secret is gone or holds what can not be used, stays as it is: a
//! slip is no order.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::moment::Moment;
use super::rotation::{KeyFacts, MOST_SECRETS, Policy, SecretId, later};

/// What was seen where client secrets are supplied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Supply {
    /// The ids of the stored ones that stand there.
    pub stands: BTreeSet<String>,
    /// The ids of those that stood where nothing can be seen now.
    pub unseen: BTreeSet<String>,
    /// How many stand there that are not stored yet.
    pub new: usize,
    /// How long servers have to learn of a new one before another one's grace begins.
    pub servers_follow: SignedDuration,
}

/// What became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// When each of them ceases to work, as far as that is settled.
    pub ends: BTreeMap<String, Timestamp>,
    /// Those whose grace begins now.
    pub retired: Vec<String>,
    /// Those that were ended before their grace was over, as newer ones need the room.
    pub crowded_out: Vec<String>,
    /// Those that were ended before anyone was told that they work, for the same reason.
    pub overtaken: Vec<String>,
    /// How many of the new ones there is room for now: at most [`MOST_SECRETS`] are stored at any time.
    pub room: usize,
    /// When to look again.
    pub wake_at: Option<Timestamp>,
}

/// Writes down on `keys` what follows from what was seen.
pub fn follow(
    keys: &mut [KeyFacts<SecretId>],
    supply: &Supply,
    policy: &Policy,
    moment: Moment,
) -> Followed {
    let mut followed = Followed::default();
    let mut wakes = Vec::new();
    take_up(keys, supply, policy, moment.now, &mut wakes);
    if moment.sure {
        retire(keys, supply, moment.now, &mut followed);
    }
    make_room(keys, supply, policy, moment.now, &mut followed);
    for key in keys.iter_mut().filter(|k| k.life.removed.is_none()) {
        let Some(end) = policy.end(key, true) else {
            continue;
        };
        if end <= moment.now && moment.sure {
            key.life.removed = Some(moment.now);
        } else {
            followed.ends.insert(key.kid().to_owned(), end);
            wakes.push(end);
        }
    }
    // Until the clock is believed nothing ends, and nobody tells when that is.
    let unsure = (!moment.sure).then(|| later(moment.now, UNSURE_RECHECK));
    let wakes = wakes.into_iter().chain(unsure);
    followed.wake_at = wakes.filter(|at| *at > moment.now).min();
    followed
}

/// How soon to look again while the clock can not be relied upon.
const UNSURE_RECHECK: SignedDuration = SignedDuration::from_secs(30);

/// What stands there works, also if it had been on its way out. A new one takes another's place only
/// once servers know it.
fn take_up(
    keys: &mut [KeyFacts<SecretId>],
    supply: &Supply,
    policy: &Policy,
    now: Timestamp,
    wakes: &mut Vec<Timestamp>,
) {
    let works = |k: &KeyFacts<SecretId>| k.life.activated.is_some() && k.life.removed.is_none();
    let at_once = policy.grace.is_zero() || !keys.iter().any(works);
    let latest = keys.iter().filter_map(|k| k.life.activated).max();
    let next = latest.map_or(now, |t| later(t, SignedDuration::from_millis(1)).max(now));
    for key in keys.iter_mut().filter(|k| supply.stands.contains(k.kid())) {
        key.life.retired = None;
        key.life.published = key.life.published.or(Some(now));
        if key.life.activated.is_some() {
            continue;
        }
        let known = later(key.life.created.unwrap_or(now), supply.servers_follow);
        // A clock that was wrong is not to hold it up.
        let known = known.min(later(now, supply.servers_follow));
        if at_once || known <= now {
            key.life.activated = Some(next);
        } else {
            wakes.push(known);
        }
    }
}

/// The grace begins of what does not stand there any more, once something else works.
fn retire(
    keys: &mut [KeyFacts<SecretId>],
    supply: &Supply,
    now: Timestamp,
    followed: &mut Followed,
) {
    let lives = |k: &KeyFacts<SecretId>| k.life.retired.is_none() && k.life.removed.is_none();
    let stays =
        |k: &KeyFacts<SecretId>| supply.stands.contains(k.kid()) || supply.unseen.contains(k.kid());
    let other = keys
        .iter()
        .any(|k| lives(k) && stays(k) && k.life.activated.is_some());
    if !other {
        return;
    }
    for key in keys.iter_mut().filter(|k| lives(k) && !stays(k)) {
        if key.life.published.is_some() {
            // It stood there for a moment: somebody may hold it.
            key.life.activated = key.life.activated.or(Some(now));
        }
        key.life.retired = Some(now);
        if key.life.activated.is_some() {
            followed.retired.push(key.kid().to_owned());
        }
    }
}

/// What stands there goes before what stood there: whoever supplies it uses it already. What never came
/// to work goes first, then what ends first. What works and is not on its way out goes only if nobody
/// supplies it and another one works; where nothing may go, the new ones wait.
fn make_room(
    keys: &mut [KeyFacts<SecretId>],
    supply: &Supply,
    policy: &Policy,
    now: Timestamp,
    followed: &mut Followed,
) {
    let stored = keys.iter().filter(|k| k.life.removed.is_none()).count();
    let over = (stored + supply.new).saturating_sub(MOST_SECRETS);
    let goes = going(keys, supply, policy);
    let gone = over.min(goes.len());
    for index in goes.into_iter().take(over) {
        let key = &mut keys[index];
        let told = match key.life.activated {
            Some(_) => &mut followed.crowded_out,
            None => &mut followed.overtaken,
        };
        told.push(key.kid().to_owned());
        key.life.removed = Some(now);
    }
    let free = MOST_SECRETS.saturating_sub(stored - gone);
    followed.room = free.min(supply.new);
}

/// Which of them may give way, by their places, the first to go first.
fn going(keys: &[KeyFacts<SecretId>], supply: &Supply, policy: &Policy) -> Vec<usize> {
    let all = || keys.iter().enumerate();
    let all = || all().filter(|(_, k)| k.life.removed.is_none());
    let lives = || all().filter(|(_, k)| k.life.retired.is_none());
    let stands = |k: &KeyFacts<SecretId>| supply.stands.contains(k.kid());

    let fresh = lives().filter(|(_, k)| k.life.activated.is_none() && !stands(k));
    let mut fresh: Vec<_> = fresh.collect();
    fresh.sort_by_key(|(_, k)| k.sequence);

    let mut old: Vec<_> = all().filter(|(_, k)| k.life.retired.is_some()).collect();
    old.sort_by_key(|(_, k)| (policy.end(k, true), k.sequence));

    let working = lives().filter(|(_, k)| k.life.activated.is_some());
    let (supplied, mut idle): (Vec<_>, Vec<_>) =
        working.partition(|(_, k)| stands(k) || supply.unseen.contains(k.kid()));
    idle.sort_by_key(|(_, k)| (k.life.activated, k.sequence));
    if supplied.is_empty() {
        // The last that works.
        idle.pop();
    }
    let order = fresh.into_iter().chain(old).chain(idle);
    order.map(|(index, _)| index).collect()
}

#[cfg(test)]
mod tests;
