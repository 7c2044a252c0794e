use super::*;
use crate::domain::rotation::{Cause, Life, Rotated, Window};

const GRACE: i64 = 3600;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn key(id: i64, created: i64) -> KeyFacts<SecretId> {
    KeyFacts {
        sequence: id,
        jwk: SecretId(id.to_string()),
        life: Life {
            created: Some(at(created)),
            ..Life::default()
        },
        cause: Cause::First,
        handled: None,
        edition: 0,
        max_ttl: Some(SignedDuration::ZERO),
        window: Window::default(),
        fits: true,
        has_material: true,
        in_jwks: false,
    }
}

fn active(id: i64, since: i64) -> KeyFacts<SecretId> {
    let mut key = key(id, since);
    key.life.published = Some(at(since));
    key.life.activated = Some(at(since));
    key
}

fn supply(stands: &[&str], unseen: &[&str], new: usize) -> Supply {
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
    Supply {
        stands: ids(stands),
        unseen: ids(unseen),
        new,
        servers_follow: SignedDuration::from_secs(2),
    }
}

fn policy(grace: i64) -> Policy {
    Policy {
        rotated: Rotated::Secrets,
        grace: SignedDuration::from_secs(grace),
        ..Policy::default()
    }
}

fn sure(second: i64) -> Moment {
    Moment {
        now: at(second),
        sure: true,
    }
}

#[test]
fn the_first_works_at_once_and_a_second_once_servers_know_it() {
    let mut keys = vec![key(1, 100)];
    let followed = follow(
        &mut keys,
        &supply(&["1"], &[], 0),
        &policy(GRACE),
        sure(100),
    );
    assert_eq!(keys[0].life.activated, Some(at(100)));
    assert_eq!(followed, Followed::default());

    keys.push(key(2, 200));
    let both = supply(&["1", "2"], &[], 0);
    let followed = follow(&mut keys, &both, &policy(GRACE), sure(200));
    assert_eq!(keys[1].life.activated, None);
    assert_eq!(followed.wake_at, Some(at(202)));
    let followed = follow(&mut keys, &both, &policy(GRACE), sure(202));
    assert_eq!(keys[1].life.activated, Some(at(202)));
    // Both go on, without end.
    assert_eq!(followed, Followed::default());
    assert!(keys.iter().all(|k| k.life.retired.is_none()));
}

#[test]
fn what_is_replaced_works_through_its_grace() {
    let mut keys = vec![active(1, 100), key(2, 200)];
    let new = supply(&["2"], &[], 0);
    // Not before servers know the new one.
    follow(&mut keys, &new, &policy(GRACE), sure(200));
    assert_eq!(keys[0].life.retired, None);
    let followed = follow(&mut keys, &new, &policy(GRACE), sure(202));
    assert_eq!(followed.retired, ["1"]);
    assert_eq!(followed.ends["1"], at(202 + GRACE));
    assert_eq!(followed.wake_at, Some(at(202 + GRACE)));
    // An unsure clock ends nothing.
    let unsure = Moment {
        now: at(202 + GRACE),
        sure: false,
    };
    let followed = follow(&mut keys, &new, &policy(GRACE), unsure);
    assert_eq!(keys[0].life.removed, None);
    assert!(followed.wake_at > Some(unsure.now));
    follow(&mut keys, &new, &policy(GRACE), sure(202 + GRACE));
    assert_eq!(keys[0].life.removed, Some(at(202 + GRACE)));
    assert_eq!(keys[1].life.removed, None);
}

#[test]
fn with_a_grace_of_zero_the_old_one_ends_with_the_new_one() {
    let mut keys = vec![active(1, 100), key(2, 200)];
    follow(&mut keys, &supply(&["2"], &[], 0), &policy(0), sure(200));
    assert_eq!(keys[1].life.activated, Some(at(200)));
    assert_eq!(keys[0].life.removed, Some(at(200)));
}

#[test]
fn what_can_not_be_seen_goes_on() {
    let mut keys = vec![active(1, 100)];
    let gone = supply(&[], &["1"], 0);
    let followed = follow(&mut keys, &gone, &policy(GRACE), sure(1_000_000));
    assert_eq!(
        (keys[0].life.retired, followed),
        (None, Followed::default())
    );
    // Nor does what nobody names any more end, as long as nothing else works.
    let followed = follow(&mut keys, &supply(&[], &[], 0), &policy(0), sure(1_000_000));
    assert_eq!(
        (keys[0].life.retired, followed),
        (None, Followed::default())
    );
    let followed = follow(&mut keys, &supply(&[], &[], 1), &policy(0), sure(1_000_000));
    assert_eq!(
        (keys[0].life.retired, followed),
        (None, Followed::default())
    );
}

#[test]
fn what_comes_back_lives_again() {
    let mut keys = vec![active(1, 100), active(2, 200)];
    follow(
        &mut keys,
        &supply(&["2"], &[], 0),
        &policy(GRACE),
        sure(300),
    );
    assert_eq!(keys[0].life.retired, Some(at(300)));
    let followed = follow(
        &mut keys,
        &supply(&["1"], &[], 0),
        &policy(GRACE),
        sure(400),
    );
    assert_eq!(keys[0].life.retired, None);
    assert_eq!(followed.retired, ["2"]);
}

#[test]
fn a_new_one_goes_before_old_ones() {
    let mut keys = vec![active(1, 100), active(2, 200), active(3, 300)];
    follow(
        &mut keys,
        &supply(&["2", "3"], &[], 0),
        &policy(GRACE),
        sure(300),
    );
    follow(
        &mut keys,
        &supply(&["3"], &[], 0),
        &policy(GRACE),
        sure(400),
    );
    let followed = follow(
        &mut keys,
        &supply(&["3"], &[], 1),
        &policy(GRACE),
        sure(500),
    );
    assert_eq!(followed.crowded_out, ["1"]);
    assert_eq!(keys[0].life.removed, Some(at(500)));
    // Those that are supplied make no room.
    let mut keys = vec![active(1, 100), active(2, 200), active(3, 300)];
    let all = supply(&["1", "2"], &["3"], 2);
    let followed = follow(&mut keys, &all, &policy(GRACE), sure(500));
    assert!(followed.crowded_out.is_empty());
}

#[test]
fn one_that_stood_there_for_a_moment_has_its_grace() {
    let mut keys = vec![active(1, 100), key(2, 200)];
    follow(
        &mut keys,
        &supply(&["1", "2"], &[], 0),
        &policy(GRACE),
        sure(200),
    );
    let followed = follow(
        &mut keys,
        &supply(&["1"], &[], 0),
        &policy(GRACE),
        sure(201),
    );
    assert_eq!(followed.ends.get("2"), Some(&at(201 + GRACE)));
    // A generated one that was never delivered is nobody's.
    let mut keys = vec![active(1, 100), key(2, 200)];
    follow(
        &mut keys,
        &supply(&["1"], &[], 0),
        &policy(GRACE),
        sure(201),
    );
    assert_eq!(keys[1].life.removed, Some(at(201)));
}
