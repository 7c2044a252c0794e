//! What a step makes of what is known of a ring. The controller writes down what this says, and
//! the timetable and the tests live by it.

use jiff::{SignedDuration, Timestamp};

use super::{Cause, KeyFacts, Life, Note, Public, Step, policy::later};

/// Carries a step out on what is known. What needs more than a note, a new key and the JWKS, is
/// for the caller.
pub fn carry_out<P: Public>(keys: &mut Vec<KeyFacts<P>>, step: &Step, now: Timestamp) {
    match step {
        Step::Generate { .. } => {}
        Step::Restore { key_id } => {
            if let Some(key) = find(keys, key_id) {
                key.has_material = true;
                key.life.retired = None;
            }
        }
        Step::Destroy { key_id } => {
            if let Some(key) = find(keys, key_id) {
                key.has_material = false;
            }
        }
        Step::Forget { key_id } => keys.retain(|k| k.kid() != key_id),
        Step::Note { key_id, note } => {
            // A later activation than any other is what makes a key the one that signs, also where
            // a clock went back.
            let latest = keys.iter().filter_map(|k| k.life.activated).max();
            if let Some(key) = find(keys, key_id) {
                write_down(key, note, latest, now);
            }
        }
    }
}

fn find<'a, P: Public>(keys: &'a mut [KeyFacts<P>], key_id: &str) -> Option<&'a mut KeyFacts<P>> {
    keys.iter_mut().find(|k| k.kid() == key_id)
}

fn write_down<P>(key: &mut KeyFacts<P>, note: &Note, latest: Option<Timestamp>, now: Timestamp) {
    let life = &mut key.life;
    match note {
        Note::Published => life.published = Some(now),
        Note::Unpublished => life.published = None,
        Note::Activated { max_ttl, .. } => {
            let after = latest.map(|t| later(t, SignedDuration::from_millis(1)));
            life.activated = Some(after.map_or(now, |after| after.max(now)));
            life.published = life.published.or(Some(now));
            life.retired = None;
            key.max_ttl = Some(key.max_ttl.map_or(*max_ttl, |before| before.max(*max_ttl)));
        }
        Note::Retired | Note::GivenUp | Note::Lost => life.retired = Some(now),
        Note::Withdrawn => life.withdrawn = Some(now),
        Note::Reactivated => {
            life.withdrawn = None;
            if life.removed.take().is_some() {
                key.edition += 1;
                life.published = None;
                // Its grace may be over: it verifies again, for another one.
                if life.activated.is_some() {
                    life.retired = Some(now);
                }
            }
        }
        Note::Removed => life.removed = Some(now),
        Note::Hastened { value } => {
            key.cause = Cause::Request;
            key.handled = Some(value.clone());
        }
        Note::LongerTokens(max_ttl) => key.max_ttl = Some(*max_ttl),
        Note::Window(window) => key.window = *window,
        Note::TimesCorrected { rank } => correct(life, *rank, now),
    }
}

/// Whether a time of this life lies after the bound.
pub fn is_ahead(life: &Life, bound: Timestamp) -> bool {
    let all = [
        life.created,
        life.published,
        life.activated,
        life.retired,
        life.withdrawn,
        life.removed,
    ];
    all.into_iter().flatten().any(|t| t > bound)
}

fn correct(life: &mut Life, rank: i64, now: Timestamp) {
    if life.activated.is_some_and(|t| t > now) {
        life.activated = Some(later(now, SignedDuration::from_millis(rank)));
    }
    for time in [
        &mut life.created,
        &mut life.published,
        &mut life.retired,
        &mut life.withdrawn,
        &mut life.removed,
    ] {
        *time = time.map(|t| t.min(now));
    }
}
