//! Random policies, pauses, edits, withdrawals, losses and clocks: the invariants of design §3.

use std::collections::{BTreeMap, BTreeSet};

use chancery::controllers::PlanFn;
use chancery::domain::jwk::KeyMembers;
use chancery::domain::moment::Moment;
use chancery::domain::rotation::{self, Cause, KeyFacts, Note, Policy, Source, Step, signer};
use jiff::SignedDuration;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use super::ring::{Ring, at, policy, secs};

/// What a person or fate does.
#[derive(Clone, Debug)]
enum Move {
    Pause(i64),
    Interval(Option<i64>),
    Lead(i64),
    Grace(i64),
    Retention(i64),
    MaxTtl(i64),
    Rotate(u8),
    Algorithm,
    Inject(Option<i64>),
    Withdraw(usize, Option<i64>),
    TakeBack,
    SignWith(Option<usize>),
    ValidTo(Option<i64>),
    Lose(usize),
    JwksLost,
    Jump(i64),
    Heal,
}

fn moves() -> impl Strategy<Value = Move> {
    let span = || prop_oneof![0..3_i64, 1..400_i64, 1..4000_i64, 1000..50_000_i64];
    let year = 365 * 86_400_i64;
    prop_oneof![
        12 => span().prop_map(Move::Pause),
        1 => proptest::option::of(2000..20_000_i64).prop_map(Move::Interval),
        1 => span().prop_map(Move::Lead),
        1 => span().prop_map(Move::Grace),
        1 => span().prop_map(Move::Retention),
        1 => (1..900_i64).prop_map(Move::MaxTtl),
        2 => any::<u8>().prop_map(|v| Move::Rotate(v % 4)),
        1 => Just(Move::Algorithm),
        1 => proptest::option::of(1000..1003_i64).prop_map(Move::Inject),
        2 => (0..4_usize, proptest::option::of(prop_oneof![Just(0_i64), span()]))
            .prop_map(|(which, grace)| Move::Withdraw(which, grace)),
        2 => Just(Move::TakeBack),
        1 => proptest::option::of(0..4_usize).prop_map(Move::SignWith),
        1 => proptest::option::of(span()).prop_map(Move::ValidTo),
        1 => (0..4_usize).prop_map(Move::Lose),
        1 => Just(Move::JwksLost),
        1 => prop_oneof![Just(300), Just(-300), Just(86_400), Just(-86_400), Just(year), Just(-year)]
            .prop_map(Move::Jump),
        2 => Just(Move::Heal),
    ]
}

/// What an onlooker with a true clock has seen.
#[derive(Default)]
struct Onlooker {
    /// Since when each kid stands in the JWKS.
    since: BTreeMap<String, i64>,
    /// When each kid could sign last, with the longest token life at that time.
    signed: BTreeMap<String, (i64, i64)>,
    made: BTreeSet<i64>,
    /// Keys that signed, and that another one followed.
    followed: BTreeSet<String>,
    /// The value of the last rotation that was asked for.
    requested: Option<String>,
}

struct World {
    ring: Ring,
    /// True time.
    now: i64,
    /// How far the replica's clock is off.
    offset: i64,
    seen: Onlooker,
    size: i64,
}

impl World {
    fn moment(&self) -> Moment {
        Moment {
            now: at(self.now + self.offset),
            sure: self.offset == 0,
        }
    }

    fn nth(&self, which: usize) -> Option<String> {
        let keys = &self.ring.keys;
        let key = keys.get(which % keys.len().max(1))?;
        Some(key.kid().to_owned())
    }

    fn apply(&mut self, what: &Move) {
        let policy = &mut self.ring.policy;
        match what {
            Move::Pause(s) => self.now += s,
            Move::Interval(s) => policy.interval = s.map(secs),
            Move::Lead(s) => policy.publish_lead = secs(*s),
            Move::Grace(s) => policy.grace = secs(*s),
            Move::Retention(s) => policy.retention = secs(*s),
            Move::MaxTtl(s) => policy.max_ttl = secs(*s),
            Move::Rotate(v) => policy.rotate = Some(v.to_string()),
            Move::Algorithm => self.size += 1,
            Move::Inject(None) => policy.source = Source::Generate,
            Move::Inject(Some(n)) => policy.source = Source::Inject(format!("injected-{n}")),
            Move::Withdraw(which, grace) => {
                if let Some(kid) = self.nth(*which) {
                    let withdrawals = &mut self.ring.policy.withdrawals;
                    withdrawals.insert(kid, grace.map(secs));
                }
            }
            Move::TakeBack => policy.withdrawals.clear(),
            Move::SignWith(None) => policy.sign_with = None,
            Move::SignWith(Some(which)) => self.ring.policy.sign_with = self.nth(*which),
            Move::ValidTo(s) => {
                policy.window.to = s.map(|s| at(self.now + s));
            }
            Move::Lose(which) => {
                if let Some(kid) = self.nth(*which) {
                    let keys = self.ring.keys.iter_mut();
                    keys.filter(|k| k.kid() == kid)
                        .for_each(|k| k.has_material = false);
                }
            }
            Move::JwksLost => self.ring.keys.iter_mut().for_each(|k| k.in_jwks = false),
            Move::Jump(s) => self.offset = *s,
            Move::Heal => self.offset = 0,
        }
    }

    fn visit(&mut self) -> Result<bool, TestCaseError> {
        let moment = self.moment();
        for key in &mut self.ring.keys {
            key.fits = size_of(key) == self.size;
        }
        let before = self.ring.keys.clone();
        let active = signer(&before).cloned();
        let policy = self.ring.policy.clone();
        let plan = self.ring.visit(moment);
        prop_assert!(
            plan.wake_at.is_none_or(|t| t > moment.now),
            "woken in the past"
        );
        for step in &plan.steps {
            self.judge(step, &before, &policy, moment)?;
        }
        self.left(&before, &policy)?;
        if self.ring.handled == policy.rotate {
            self.seen.requested.clone_from(&policy.rotate);
        }
        let follows = signer(&self.ring.keys).map(KeyFacts::kid);
        self.seen.followed.extend(
            active
                .as_ref()
                .filter(|k| follows.is_some_and(|f| f != k.kid()))
                .map(|k| k.kid().to_owned()),
        );
        // What was the signer up to now may have signed up to now.
        for key in active.iter().chain(signer(&self.ring.keys)) {
            let ttl = policy.max_ttl.as_secs();
            let entry = self.seen.signed.entry(key.kid().to_owned()).or_default();
            *entry = (self.now, entry.1.max(ttl));
        }
        let in_jwks: Vec<String> = self
            .ring
            .keys
            .iter()
            .filter(|k| k.in_jwks)
            .map(|k| k.kid().to_owned())
            .collect();
        self.seen.since.retain(|kid, _| in_jwks.contains(kid));
        for kid in in_jwks {
            self.seen.since.entry(kid).or_insert(self.now);
        }
        Ok(plan.steps.is_empty() && self.ring.keys == before)
    }

    fn judge(
        &mut self,
        step: &Step,
        before: &[KeyFacts],
        policy: &Policy,
        moment: Moment,
    ) -> Result<(), TestCaseError> {
        match step {
            Step::Generate { sequence, cause } => {
                prop_assert!(self.seen.made.insert(*sequence), "a number comes twice");
                if *cause == Cause::Request {
                    prop_assert!(
                        self.seen.requested != policy.rotate,
                        "rotated twice for a value"
                    );
                }
                prop_assert!(moment.sure || *cause != Cause::Schedule);
                // The new key: of the source's kid, and of the size wanted now.
                let source = policy.source.clone();
                let size = self.size;
                let made = self.ring.keys.iter_mut().find(|k| k.sequence == *sequence);
                let made = made.expect("just made");
                if let Source::Inject(kid) = source {
                    made.jwk.kid = kid;
                }
                made.jwk.key = KeyMembers::Okp {
                    crv: "Ed25519".into(),
                    x: format!("x{sequence}/{size}"),
                };
            }
            Step::Note {
                key_id,
                note: Note::Activated { emergency, .. },
            } => {
                let key = before.iter().find(|k| k.kid() == key_id).expect("known");
                prop_assert!(key.in_jwks && key.has_material);
                prop_assert!(!policy.withdrawals.contains_key(key_id));
                let named = policy.sign_with.as_deref() == Some(key_id);
                prop_assert!(
                    named || key.life.retired.is_none() && !self.seen.followed.contains(key_id),
                    "a retired key signs again"
                );
                let nothing_signed = signer(before).is_none_or(|k| {
                    policy.withdrawals.contains_key(k.kid()) || k.life.withdrawn.is_some()
                });
                let led = self
                    .seen
                    .since
                    .get(key_id)
                    .is_some_and(|since| secs(self.now - since) >= policy.lead());
                prop_assert!(
                    led || nothing_signed || named && key.life.activated.is_some(),
                    "it signs before its lead is over"
                );
                prop_assert!(!emergency || nothing_signed);
                prop_assert!(moment.sure || nothing_signed, "a jumped clock was trusted");
            }
            Step::Note {
                note: Note::Hastened { value },
                ..
            } => {
                prop_assert!(self.seen.requested.as_ref() != Some(value));
                self.seen.requested = Some(value.clone());
            }
            Step::Note {
                key_id,
                note: Note::Removed,
            } => {
                let at_once = policy.withdrawals.get(key_id) == Some(&Some(SignedDuration::ZERO));
                prop_assert!(moment.sure || at_once, "a jumped clock was trusted");
            }
            _ => {}
        }
        Ok(())
    }

    /// Nothing leaves the JWKS early, and nothing is deleted that still stands in it.
    fn left(&self, before: &[KeyFacts], policy: &Policy) -> Result<(), TestCaseError> {
        for key in before.iter().filter(|k| k.in_jwks) {
            let after = self.ring.keys.iter().find(|k| k.kid() == key.kid());
            prop_assert!(
                after.is_some_and(|k| k.has_material || !key.has_material),
                "deleted while published"
            );
            if after.is_some_and(|k| k.in_jwks) {
                continue;
            }
            let ended = policy.window.to.is_some_and(|to| to <= at(self.now));
            let removed = key.life.removed.expect("its Secret says so first");
            let ordered = key.life.withdrawn.is_some();
            let to_passed = key.window.to.is_some_and(|to| to <= removed);
            let reedited = after.is_some_and(|k| k.edition != key.edition);
            let Some((last, ttl)) = self.seen.signed.get(key.kid()) else {
                continue;
            };
            let safe = last + ttl + policy.margin.as_secs();
            prop_assert!(
                ended || ordered || to_passed || reedited || self.now >= safe,
                "left the JWKS at {} before {safe}",
                self.now
            );
        }
        Ok(())
    }
}

/// The size that the ring wanted when the key was made stands in its public half.
fn size_of(key: &KeyFacts) -> i64 {
    match &key.jwk.key {
        KeyMembers::Okp { x, .. } => x
            .rsplit_once('/')
            .and_then(|(_, size)| size.parse().ok())
            .unwrap_or(0),
        _ => 0,
    }
}

/// Plays so many stories with this engine; what it breaks is a sentence.
pub fn holds(engine: PlanFn, cases: u32, rng: Option<TestRng>) -> Result<(), String> {
    let config = Config {
        failure_persistence: None,
        max_shrink_iters: 500,
        ..Config::with_cases(cases)
    };
    let mut runner = match rng {
        Some(rng) => TestRunner::new_with_rng(config, rng),
        None => TestRunner::new(config),
    };
    let stories = proptest::collection::vec(moves(), 1..40);
    let played = runner.run(&stories, |moves| story(engine, &moves));
    played.map_err(|error| match error {
        TestError::Fail(reason, moves) => format!("{reason}; it takes {moves:?}"),
        TestError::Abort(reason) => panic!("{reason}"),
    })
}

/// Always the same dice.
pub fn fixed() -> TestRng {
    TestRng::deterministic_rng(RngAlgorithm::ChaCha)
}

fn story(engine: PlanFn, moves: &[Move]) -> Result<(), TestCaseError> {
    let mut world = World {
        ring: Ring {
            engine,
            ..Ring::new(policy())
        },
        now: 1_000_000_000,
        offset: 0,
        seen: Onlooker::default(),
        size: 0,
    };
    for what in moves {
        world.apply(what);
        let mut rounds = 0;
        while !world.visit()? {
            rounds += 1;
            prop_assert!(rounds < 20, "it does not settle");
        }
        let policy = &world.ring.policy;
        let ended = policy.window.to.is_some_and(|to| to <= world.moment().now);
        let injected = matches!(policy.source, Source::Inject(_));
        if !ended && !injected {
            prop_assert!(world.ring.active().is_some(), "nothing signs");
        }
    }
    Ok(())
}

#[test]
fn whatever_happens() {
    const CASES: u32 = 10_000;
    if let Err(why) = holds(rotation::plan, CASES, None) {
        panic!("{why}");
    }
    println!("{CASES} stories of up to 40 moves hold");
}
