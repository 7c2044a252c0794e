use proptest::prelude::*;

use super::*;
use crate::domain::algorithm::Algorithm;
use crate::domain::jwk::{KeyMembers, Usage};

const POLICY: Policy = Policy {
    grace: SignedDuration::from_secs(100),
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn key(sequence: i64) -> KeyFacts {
    KeyFacts {
        sequence,
        jwk: PublicJwk {
            key: KeyMembers::Okp {
                crv: "Ed25519".into(),
                x: format!("x{sequence}"),
            },
            kid: format!("kid-{sequence}"),
            alg: Algorithm::EdDSA,
            usage: Usage::Signature,
        },
        created: Some(at(0)),
        published: None,
        activated: None,
        retired: None,
        has_material: true,
        in_jwks: false,
    }
}

/// Carries out a plan on the ring as the controller does on a cluster.
fn carry_out(keys: &mut Vec<KeyFacts>, plan: &Plan, now: Timestamp) {
    for key in keys.iter_mut() {
        key.in_jwks = plan.publish.iter().any(|j| j.kid == key.jwk.kid);
    }
    for step in &plan.steps {
        let mut find = |id: &str, f: &dyn Fn(&mut KeyFacts)| {
            keys.iter_mut().filter(|k| k.jwk.kid == id).for_each(f);
        };
        match step {
            Step::Generate { sequence } => keys.push(key(*sequence)),
            Step::StampPublished { key_id } => find(key_id, &|k| k.published = Some(now)),
            Step::Activate { key_id } => find(key_id, &|k| k.activated = Some(now)),
            Step::Retire { key_id } | Step::NoteLost { key_id } => {
                find(key_id, &|k| k.retired = Some(now));
            }
            Step::Forget { key_id } => keys.retain(|k| k.jwk.kid != *key_id),
        }
    }
}

#[test]
fn a_first_key_is_made_published_activated() {
    let mut keys = Vec::new();
    let first = plan(&keys, POLICY, at(0));
    assert_eq!(first.steps, [Step::Generate { sequence: 1 }]);
    carry_out(&mut keys, &first, at(0));
    let second = plan(&keys, POLICY, at(1));
    assert_eq!(
        (second.steps.len(), second.publish.len()),
        (0, 1),
        "published before it signs"
    );
    carry_out(&mut keys, &second, at(1));
    let third = plan(&keys, POLICY, at(2));
    let kid = || "kid-1".to_owned();
    assert_eq!(
        third.steps,
        [
            Step::StampPublished { key_id: kid() },
            Step::Activate { key_id: kid() }
        ]
    );
    carry_out(&mut keys, &third, at(2));
    let settled = plan(&keys, POLICY, at(3));
    assert_eq!((settled.steps.as_slice(), settled.wake_at), (&[][..], None));
}

#[test]
fn a_lost_key_verifies_through_its_grace_and_another_signs() {
    let mut keys = vec![KeyFacts {
        activated: Some(at(0)),
        in_jwks: true,
        ..key(1)
    }];
    keys[0].has_material = false;
    let lost = plan(&keys, POLICY, at(10));
    assert_eq!(
        lost.steps,
        [
            Step::NoteLost {
                key_id: "kid-1".into()
            },
            Step::Generate { sequence: 2 }
        ]
    );
    assert_eq!(lost.publish.len(), 1, "tokens that it signed still verify");
    carry_out(&mut keys, &lost, at(10));
    let next = plan(&keys, POLICY, at(11));
    assert_eq!(next.publish.len(), 2);
    assert_eq!(next.wake_at, Some(at(110)));
    carry_out(&mut keys, &next, at(11));
    let activation = plan(&keys, POLICY, at(12));
    carry_out(&mut keys, &activation, at(12));
    assert_eq!(keys[1].phase(), Phase::Active);
    let over = plan(&keys, POLICY, at(110));
    assert_eq!(
        over.steps,
        [Step::Forget {
            key_id: "kid-1".into()
        }]
    );
    assert_eq!(over.publish.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever is lost and however long the pauses: at most one key signs, none signs that was
    /// not in the JWKS, no number comes twice, none leaves the JWKS before its grace, it always
    /// settles, and it never asks to be woken in the past.
    #[test]
    fn invariants(moves in proptest::collection::vec((0_i64..300, 0_u8..4), 1..40)) {
        let (mut keys, mut now, mut numbers) = (Vec::<KeyFacts>::new(), 0, Vec::new());
        for (pause, what) in moves {
            now += pause;
            if what == 0 {
                // The active key's Secret is deleted by hand.
                keys.iter_mut().filter(|k| k.phase() == Phase::Active).for_each(|k| k.has_material = false);
            }
            if what == 1 {
                // A lost one's Secret is restored from a backup, which knows nothing of its loss.
                for key in keys.iter_mut().filter(|k| !k.has_material) {
                    key.has_material = true;
                    key.retired = None;
                }
            }
            let mut rounds = 0;
            loop {
                let plan = plan(&keys, POLICY, at(now));
                prop_assert!(plan.wake_at.is_none_or(|t| t > at(now)));
                for key in &keys {
                    let due = key.retired.is_some_and(|r| r.as_second() + 100 <= now);
                    let published = plan.publish.iter().any(|j| j.kid == key.jwk.kid);
                    prop_assert_eq!(published, !due);
                }
                for step in &plan.steps {
                    if let Step::Generate { sequence } = step {
                        prop_assert!(!numbers.contains(sequence));
                        numbers.push(*sequence);
                    }
                    if let Step::Activate { key_id } = step {
                        prop_assert!(keys.iter().any(|k| k.jwk.kid == *key_id && k.in_jwks));
                    }
                }
                let before = keys.clone();
                carry_out(&mut keys, &plan, at(now));
                let signing = keys.iter().filter(|k| k.phase() == Phase::Active).count();
                prop_assert!(signing <= 1, "{signing} sign after a visit");
                rounds += 1;
                if plan.steps.is_empty() && keys == before { break; }
                prop_assert!(rounds < 10, "it settles");
            }
            prop_assert_eq!(keys.iter().filter(|k| k.phase() == Phase::Active).count(), 1);
        }
    }
}
