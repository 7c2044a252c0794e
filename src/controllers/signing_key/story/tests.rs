//! What is told is true of what the plan does: each ring is planned by the function that drives it.

use super::*;
use crate::domain::jwk::PublicJwk;
use crate::domain::moment::Moment;
use crate::domain::rotation::{Life, Window, carry_out, plan};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn now() -> Timestamp {
    at(1_000_000)
}

const fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

/// A key that was made and published so long ago that its lead is over, and never signed.
fn next(kid: &str, sequence: i64) -> KeyFacts {
    let then = Some(at(900_000 + sequence));
    KeyFacts {
        sequence,
        jwk: PublicJwk::stand_in(kid),
        life: Life {
            created: then,
            published: then,
            ..Life::default()
        },
        cause: Cause::Schedule,
        handled: None,
        edition: 0,
        max_ttl: None,
        window: Window::default(),
        fits: true,
        has_material: true,
        in_jwks: true,
    }
}

fn active(kid: &str, sequence: i64) -> KeyFacts {
    let mut key = next(kid, sequence);
    key.life.activated = Some(at(950_000 + sequence));
    key.max_ttl = Some(hours(1));
    key
}

fn retired(kid: &str, sequence: i64) -> KeyFacts {
    let mut key = active(kid, sequence);
    key.life.retired = Some(at(999_000));
    key
}

fn policy() -> Policy {
    Policy {
        publish_lead: SignedDuration::from_mins(30),
        max_ttl: hours(1),
        grace: hours(2),
        cached_for: hours(1),
        ..Policy::default()
    }
}

fn withdrawing(kid: &str, grace: Option<SignedDuration>) -> Policy {
    Policy {
        withdrawals: [(kid.to_owned(), grace)].into(),
        ..policy()
    }
}

/// The sentence with this reason that a visit of the ring tells.
#[track_caller]
fn told(before: &[KeyFacts], policy: &Policy, reason: &str) -> String {
    let moment = Moment {
        now: now(),
        sure: true,
    };
    let plan = plan(before, policy, moment);
    let mut after = before.to_vec();
    for step in &plan.steps {
        carry_out(&mut after, step, now());
    }
    let story = Story::new(before, &after, &plan, policy, now());
    let mut told = story.rest().filter_map(|write| match write {
        Write::Event(note) if note.reason == reason => Some(note.message),
        _ => None,
    });
    let sentence = told.next();
    assert_eq!(told.next(), None, "one {reason} a visit");
    sentence.unwrap_or_else(|| panic!("no {reason}: {:?}", plan.steps))
}

#[test]
fn a_lost_key_that_never_signed_costs_no_token() {
    let mut lost = next("B", 2);
    lost.has_material = false;
    assert_eq!(
        told(
            &[active("A", 1), lost.clone()],
            &policy(),
            r::KEY_MATERIAL_LOST
        ),
        "The Secret with the private key of B is gone or spoilt. The key never signed, so that no token is lost with it: it leaves the JWKS."
    );
    let mut lost = active("A", 1);
    lost.has_material = false;
    let until = "Tokens that it signed verify until 1970-01-12T15:46:40Z.";
    assert_eq!(
        told(&[lost.clone()], &policy(), r::KEY_MATERIAL_LOST),
        format!(
            "The Secret with the private key of A is gone or spoilt: nothing signs until another key takes its place. {until}"
        )
    );
    let ring = [lost, next("B", 2)];
    assert_eq!(
        told(&ring, &policy(), r::KEY_MATERIAL_LOST),
        format!(
            "The Secret with the private key of A is gone or spoilt: another key signs from now on. {until}"
        )
    );
    assert_eq!(
        told(&ring, &policy(), r::KEY_ACTIVATED),
        "Key B signs from now on, since the private key of A is lost."
    );
}

#[test]
fn a_withdrawal_is_told_as_it_is_carried_out() {
    let (signs, waits) = (active("A", 2), next("B", 3));
    let over = retired("O", 1);
    let zero = Some(SignedDuration::ZERO);
    let hour = Some(hours(1));
    let in_an_hour = "1970-01-12T14:46:40Z";
    for (ring, withdrawn, grace, sentence) in [
        (
            vec![signs.clone()],
            "A",
            hour,
            format!("it signs no more as soon as another key does, and verifies until {in_an_hour}"),
        ),
        (
            vec![signs.clone(), waits.clone()],
            "A",
            hour,
            format!("another key signs from now on, and it verifies until {in_an_hour}"),
        ),
        (
            vec![over.clone(), signs.clone()],
            "O",
            hour,
            format!("it had ceased to sign already, and verifies until {in_an_hour}"),
        ),
        (
            vec![signs.clone(), waits.clone()],
            "B",
            hour,
            format!("it never signed and never will, and verifies until {in_an_hour}"),
        ),
        (
            vec![over, signs.clone()],
            "O",
            zero,
            "it leaves the JWKS at once, and its key pair is deleted".into(),
        ),
        (
            vec![signs.clone(), waits],
            "A",
            zero,
            "it leaves the JWKS at once, and its key pair is deleted".into(),
        ),
        (
            vec![signs],
            "A",
            zero,
            "it leaves the JWKS as soon as another key signs, after 5 seconds at the latest, and its key pair is deleted".into(),
        ),
    ] {
        assert_eq!(
            told(&ring, &withdrawing(withdrawn, grace), r::KEY_WITHDRAWN),
            format!("Key {withdrawn} was withdrawn: {sentence}.")
        );
    }
}

#[test]
fn a_withdrawal_that_is_taken_back_says_what_that_changes() {
    let withdrawn = |mut key: KeyFacts| {
        key.life.withdrawn = Some(at(999_999));
        key
    };
    let mut removed = withdrawn(retired("O", 1));
    removed.life.removed = Some(at(999_999));
    removed.in_jwks = false;
    for (key, sentence) in [
        (
            removed,
            "it comes back into the JWKS, and verifies until 1970-01-12T15:46:40Z",
        ),
        (
            withdrawn(retired("O", 1)),
            "it stands in the JWKS as before, and verifies until 1970-01-12T15:30:00Z",
        ),
        (
            withdrawn(next("O", 1)),
            "it has never signed, and may do so when its turn comes",
        ),
    ] {
        assert_eq!(
            told(&[key, active("A", 2)], &policy(), r::KEY_REACTIVATED),
            format!("The withdrawal of key O was taken back: {sentence}.")
        );
    }
    assert_eq!(
        told(&[withdrawn(active("A", 1))], &policy(), r::KEY_REACTIVATED),
        "The withdrawal of key A was taken back: it goes on signing."
    );
}

#[test]
fn a_key_that_comes_to_sign_says_why() {
    let ring = || vec![active("A", 1), next("B", 2)];
    let interval = Policy {
        interval: Some(hours(1)),
        ..policy()
    };
    let asked = Policy {
        rotate: Some("after-the-audit".into()),
        ..policy()
    };
    let sign_with = Policy {
        sign_with: Some("O".into()),
        ..policy()
    };
    let injected = Policy {
        source: Source::Inject("B".into()),
        ..policy()
    };
    let ahead = Policy {
        window: Window {
            from: Some(at(2_000_000)),
            to: None,
        },
        ..policy()
    };
    let mut unfit = ring();
    unfit[0].fits = false;
    let mut fresh = ring();
    fresh[1].life.published = None;
    for (ring, policy, sentence) in [
        (
            ring(),
            &interval,
            "Key B signs from now on, as the interval of key A is over.",
        ),
        (
            ring(),
            &asked,
            "Key B signs from now on, as the annotation chancery.dev/rotate asks (after-the-audit).",
        ),
        (
            vec![retired("O", 1), active("A", 2)],
            &sign_with,
            "Key O signs from now on, as spec.signWith says.",
        ),
        (
            ring(),
            &withdrawing("A", Some(hours(1))),
            "Key B signs from now on, since key A was withdrawn.",
        ),
        (
            fresh,
            &withdrawing("A", None),
            "Key B signs at once, before its publishLead is over, since key A was withdrawn. A verifier that cached the JWKS before may refuse its tokens until 1970-01-12T14:46:40Z.",
        ),
        (
            ring(),
            &injected,
            "Key B signs from now on, as it is the new content of the Secret of spec.privateKey.",
        ),
        (
            unfit,
            &policy(),
            "Key B signs from now on, as the ring's algorithm or key size has changed.",
        ),
        (
            vec![next("A", 1)],
            &policy(),
            "Key A signs from now on; it is the ring's first.",
        ),
        (
            vec![next("A", 1)],
            &ahead,
            "Key A signs from 1970-01-24T03:33:20Z (spec.validFrom) on; it is the ring's first.",
        ),
    ] {
        assert_eq!(told(&ring, policy, r::KEY_ACTIVATED), sentence);
    }
}
