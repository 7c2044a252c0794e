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
    // Nor where another one works.
    let mut both = vec![active(1, 100), active(2, 200)];
    let one_gone = supply(&["2"], &["1"], 0);
    follow(&mut both, &one_gone, &policy(GRACE), sure(1_000_000));
    assert_eq!(both[0].life.retired, None);
    // Nor does what nobody names any more end, as long as nothing else works.
    let followed = follow(&mut keys, &supply(&[], &[], 0), &policy(0), sure(1_000_000));
    assert_eq!(
        (keys[0].life.retired, followed),
        (None, Followed::default())
    );
    let followed = follow(&mut keys, &supply(&[], &[], 1), &policy(0), sure(1_000_000));
    let comes = Followed {
        room: 1,
        ..Followed::default()
    };
    assert_eq!((keys[0].life.retired, followed), (None, comes));
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

#[test]
fn what_never_worked_makes_room_first() {
    // 1 works; 2 and 3 stood there for less than servers take to learn of them; a fourth stands now.
    let mut keys = vec![active(1, 100), key(2, 200), key(3, 201)];
    for key in &mut keys[1..] {
        key.life.published = key.life.created;
    }
    let changed = supply(&[], &["1", "2", "3"], 1);
    let followed = follow(&mut keys, &changed, &policy(GRACE), sure(202));
    assert_eq!((followed.overtaken, followed.room), (vec!["2".into()], 1));
    assert!(followed.crowded_out.is_empty());
    let removed: Vec<_> = keys.iter().map(|k| k.life.removed.is_some()).collect();
    assert_eq!(removed, [false, true, false]);
    // Also before one whose grace has begun.
    let mut keys = vec![active(1, 100), active(2, 150), key(3, 200)];
    keys[0].life.retired = Some(at(152));
    let followed = follow(&mut keys, &changed, &policy(GRACE), sure(202));
    assert_eq!((followed.overtaken, followed.room), (vec!["3".into()], 1));
    // More than there may be, as an older version has left them.
    let mut keys: Vec<_> = (1..=6).map(|id| key(id, 100 + id)).collect();
    keys[0] = active(1, 100);
    let stands = supply(&["6"], &[], 0);
    let followed = follow(&mut keys, &stands, &policy(GRACE), sure(107));
    assert_eq!(followed.overtaken, ["2", "3", "4"]);
    assert_eq!(keys[0].life.removed, None);
}

#[test]
fn a_new_one_waits_where_all_are_supplied_and_work() {
    // Two places, whose contents change at once, beside one whose grace runs.
    let mut keys = vec![active(1, 100), active(2, 200), active(3, 300)];
    keys[0].life.retired = Some(at(300));
    let both = supply(&[], &["2", "3"], 2);
    let followed = follow(&mut keys, &both, &policy(GRACE), sure(400));
    assert_eq!(followed.crowded_out, ["1"]);
    assert_eq!(followed.room, 1, "the other one comes later");
    // Nobody supplies them, and their graces have not begun: the last that works stays.
    let mut keys = vec![active(1, 100), active(2, 200), active(3, 300)];
    let elsewhere = supply(&[], &[], 2);
    let followed = follow(&mut keys, &elsewhere, &policy(GRACE), sure(400));
    assert_eq!((followed.crowded_out.len(), followed.room), (2, 2));
    assert_eq!(keys[2].life.removed, None);
}

/// What happens to a technical user that names two places.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// The content of a place is another one now, perhaps a former one.
    Put(usize, u32),
    Delete(usize),
    /// The spec names the second place too, or does not.
    Name(bool),
    /// Milliseconds pass.
    Wait(i64),
    Trust(bool),
}

fn deed() -> impl proptest::strategy::Strategy<Value = Deed> {
    use proptest::prelude::*;
    let place = || 0_usize..2;
    prop_oneof![
        6 => (place(), 0_u32..12).prop_map(|(place, content)| Deed::Put(place, content)),
        1 => place().prop_map(Deed::Delete),
        1 => any::<bool>().prop_map(Deed::Name),
        4 => (0_i64..4_000).prop_map(Deed::Wait),
        1 => (0_i64..8_000_000).prop_map(Deed::Wait),
        1 => any::<bool>().prop_map(Deed::Trust),
    ]
}

struct Told {
    place: usize,
    content: u32,
    key: KeyFacts<SecretId>,
}

struct World {
    places: [Option<u32>; 2],
    named: usize,
    stored: Vec<Told>,
    last: i64,
    now: Timestamp,
    sure: bool,
    policy: Policy,
}

impl World {
    /// As the operator does it. `pending`: nothing is hashed yet.
    fn visit(&mut self, pending: bool) {
        let (mut now, mut new) = (supply(&[], &[], 0), Vec::new());
        for place in 0..self.named {
            let content = self.places[place];
            let is = |t: &&mut Told| Some(t.content) == content;
            if let Some(told) = self.stored.iter_mut().find(is) {
                told.place = place;
                now.stands.insert(told.key.kid().to_owned());
                continue;
            }
            if let Some(content) = content.filter(|_| !pending)
                && !new.contains(&(place, content))
            {
                new.push((place, content));
            }
            let lives = |t: &&Told| t.place == place && t.key.life.retired.is_none();
            let all = self.stored.iter().filter(lives);
            let rank = |t: &Told| Some((t.key.life.activated?, t.key.sequence));
            let newest = all.clone().filter_map(rank).max();
            let of = all.filter(|t| rank(t).is_none_or(|rank| Some(rank) == newest));
            now.unseen.extend(of.map(|t| t.key.kid().to_owned()));
        }
        new.dedup_by_key(|(_, content)| *content);
        now.new = new.len();
        let before: Vec<_> = self.stored.iter().map(|t| t.key.clone()).collect();
        let mut keys = before.clone();
        let moment = Moment {
            now: self.now,
            sure: self.sure,
        };
        let followed = follow(&mut keys, &now, &self.policy, moment);
        assert!(followed.room > 0 || new.is_empty(), "something comes in");
        let works = |keys: &[KeyFacts<SecretId>]| {
            let works = |k: &KeyFacts<_>| k.life.activated.is_some() && k.life.removed.is_none();
            keys.iter().any(works)
        };
        assert!(works(&keys) || !works(&before), "the last stays");
        for (before, after) in before.iter().zip(&keys) {
            let there = now.stands.contains(before.kid());
            assert!(!there || after.life.removed.is_none(), "what stands stays");
            let crowded = followed.crowded_out.contains(&before.kid().to_owned());
            let unseen = now.unseen.contains(before.kid());
            if before.life.may_sign() && crowded {
                assert!(!unseen, "what works and was supplied last stays");
            }
        }
        for (told, key) in self.stored.iter_mut().zip(keys) {
            told.key = key;
        }
        self.stored.retain(|t| t.key.life.removed.is_none());
        for (place, content) in new.into_iter().take(followed.room) {
            self.last += 1;
            let mut key = key(self.last, 0);
            key.life.created = Some(self.now);
            self.stored.push(Told {
                place,
                content,
                key,
            });
        }
        assert!(self.stored.len() <= MOST_SECRETS);
    }

    fn play(&mut self, deeds: Vec<(Deed, bool)>) {
        for (deed, pending) in deeds {
            match deed {
                Deed::Put(place, content) => self.places[place] = Some(content),
                Deed::Delete(place) => self.places[place] = None,
                Deed::Name(both) => self.named = 1 + usize::from(both),
                Deed::Wait(ms) => self.now = later(self.now, SignedDuration::from_millis(ms)),
                Deed::Trust(sure) => self.sure = sure,
            }
            self.visit(pending);
        }
        // At rest: all that is supplied works.
        self.sure = true;
        for _ in 0..6 {
            self.visit(false);
            self.now = later(self.now, SignedDuration::from_secs(2));
        }
        for content in self.places[..self.named].iter().flatten() {
            let mut all = self.stored.iter();
            let works = all.any(|t| t.content == *content && t.key.life.may_sign());
            assert!(works, "{content} works");
        }
    }
}

proptest::proptest! {
    #[test]
    fn however_they_change_few_are_stored_and_what_works_goes_on(
        deeds in proptest::collection::vec((deed(), proptest::prelude::any::<bool>()), 1..60),
        grace in proptest::sample::select(vec![0, 5, GRACE]),
    ) {
        let mut world = World {
            places: [Some(0), None],
            named: 1,
            stored: Vec::new(),
            last: 0,
            now: at(1_000),
            sure: true,
            policy: policy(grace),
        };
        world.play(deeds);
    }
}
