//! Tables of single rotations.

use chancery::domain::moment::Moment;
use chancery::domain::rotation::{
    Cause, KeyFacts, Policy, Source, Window, WindowRefused, accept_window,
};
use jiff::SignedDuration;

use super::ring::{Ring, at, key, kid, policy, secs};

#[test]
fn a_rotation_by_schedule() {
    let mut ring = Ring::new(policy());
    assert_eq!(
        ring.settle(0),
        ["Generate First", "kid-1 Published", "kid-1 Activated"]
    );
    // The next is made a lead before it is due.
    let waiting = ring.visit(Moment {
        now: at(1),
        sure: true,
    });
    assert_eq!(waiting.wake_at, Some(at(9000)));
    assert!(ring.settle(8999).is_empty());
    assert_eq!(
        ring.settle(9000),
        ["Generate Schedule", "kid-2 Published"],
        "published, not signing"
    );
    assert!(ring.settle(9999).is_empty());
    assert_eq!(ring.active(), Some(kid(1)));
    assert_eq!(ring.settle(10_000), ["kid-2 Activated", "kid-1 Retired"]);
    assert_eq!(ring.published(), [1, 2]);
    // Token life and margin: 500 s.
    assert!(ring.settle(10_499).is_empty());
    assert_eq!(
        ring.settle(10_500),
        ["kid-1 Removed", "kid-1 Destroy", "kid-1 Forget"]
    );
    assert_eq!(ring.published(), [2]);
}

#[test]
fn rings_do_not_turn_over_together() {
    let mut ring = Ring::new(Policy {
        jitter: u16::MAX,
        ..policy()
    });
    ring.settle(0);
    assert!(ring.settle(8000).is_empty());
    assert!(!ring.settle(8001).is_empty(), "up to a tenth earlier");
}

#[test]
fn a_request_rotates_once_per_value() {
    let mut ring = Ring::new(Policy {
        interval: None,
        rotate: Some("a".into()),
        ..policy()
    });
    assert_eq!(ring.settle(0)[0], "Generate First", "handled with it");
    assert!(ring.settle(100_000).is_empty());
    ring.policy.rotate = Some("b".into());
    assert_eq!(
        ring.settle(100_000),
        ["Generate Request", "kid-2 Published"]
    );
    assert_eq!(ring.settle(101_000), ["kid-2 Activated", "kid-1 Retired"]);
    ring.settle(200_000);
    ring.policy.rotate = Some("a".into());
    ring.handled = Some("b".into());
    ring.keys.retain(|k| k.sequence == 2);
    assert_eq!(ring.settle(300_000)[0], "Generate Request");
}

#[test]
fn a_request_hastens_what_the_schedule_has_begun() {
    let mut ring = Ring::new(Policy {
        publish_lead: secs(1000),
        jitter: 0,
        ..policy()
    });
    ring.settle(0);
    ring.settle(9000);
    ring.policy.interval = Some(secs(10_900));
    ring.policy.rotate = Some("now".into());
    assert_eq!(ring.settle(9950), ["kid-2 Hastened"]);
    assert_eq!(ring.settle(10_000), ["kid-2 Activated", "kid-1 Retired"]);
}

#[test]
fn another_algorithm_is_a_rotation() {
    let mut ring = Ring::new(Policy {
        interval: None,
        ..policy()
    });
    ring.settle(0);
    ring.keys[0].fits = false;
    assert_eq!(ring.settle(10), ["Generate Algorithm", "kid-2 Published"]);
    assert_eq!(ring.settle(1010), ["kid-2 Activated", "kid-1 Retired"]);
}

#[test]
fn an_emergency() {
    let mut ring = Ring::new(policy());
    ring.settle(0);
    ring.policy
        .withdrawals
        .insert(kid(1), Some(SignedDuration::ZERO));
    let notes = ring.settle(50);
    assert_eq!(
        notes,
        [
            "kid-1 Withdrawn",
            "Generate Emergency",
            "kid-2 Published",
            "kid-2 Activated",
            "kid-1 Removed",
            "kid-1 Destroy"
        ]
    );
    assert_eq!(ring.published(), [2]);
    assert!(
        ring.settle(199).is_empty(),
        "status tells until no cache has it"
    );
    assert_eq!(ring.settle(200), ["kid-1 Forget"]);
}

#[test]
fn an_emergency_without_a_successor_ends_by_patience() {
    let mut ring = Ring::new(policy());
    ring.settle(0);
    ring.policy.source = Source::Hold;
    ring.policy
        .withdrawals
        .insert(kid(1), Some(SignedDuration::ZERO));
    assert_eq!(ring.settle(50), ["kid-1 Withdrawn"]);
    assert_eq!(ring.active(), Some(kid(1)), "for a moment");
    assert_eq!(
        ring.settle(55),
        ["kid-1 Retired", "kid-1 Removed", "kid-1 Destroy"]
    );
    assert!(ring.published().is_empty() && ring.active().is_none());
}

#[test]
fn a_withdrawal_can_be_taken_back_while_the_key_is_kept() {
    let mut ring = Ring::new(Policy {
        interval: None,
        retention: secs(1000),
        ..policy()
    });
    ring.settle(0);
    ring.policy.withdrawals.insert(kid(1), Some(secs(100)));
    ring.settle(50);
    assert_eq!(
        (ring.active(), ring.published()),
        (Some(kid(2)), vec![1, 2])
    );
    assert_eq!(ring.settle(150), ["kid-1 Removed"]);
    assert_eq!(ring.published(), [2]);
    ring.policy.withdrawals.clear();
    assert_eq!(ring.settle(500), ["kid-1 Reactivated", "kid-1 Published"]);
    assert_eq!(
        (ring.active(), ring.published()),
        (Some(kid(2)), vec![1, 2])
    );
    assert_eq!(ring.settle(1000), ["kid-1 Removed"]);
    assert_eq!(ring.settle(2000), ["kid-1 Destroy", "kid-1 Forget"]);
}

#[test]
fn a_withdrawal_lengthens_the_trust_of_no_retired_key() {
    // Retired at 10,000 with a grace of 500 s, and withdrawn at 10,100 with these.
    for (grace, ends) in [
        (Some(secs(100_000)), 10_500),
        (Some(secs(400)), 10_500),
        (Some(secs(399)), 10_499),
        (Some(secs(0)), 10_100),
        (None, 10_500),
    ] {
        let mut ring = Ring::new(policy());
        for second in [0, 9000, 10_000] {
            ring.settle(second);
        }
        ring.policy.withdrawals.insert(kid(1), grace);
        ring.settle(10_100);
        if ends > 10_100 {
            ring.settle(ends - 1);
            assert_eq!(ring.published(), [1, 2], "{grace:?}");
            ring.settle(ends);
        }
        assert_eq!(ring.published(), [2], "{grace:?}");
    }
    // One that signs is trusted for as long as the person says.
    let mut ring = Ring::new(policy());
    ring.settle(0);
    ring.policy.withdrawals.insert(kid(1), Some(secs(5000)));
    ring.settle(50);
    ring.settle(5049);
    assert_eq!(ring.published(), [1, 2]);
    ring.settle(5050);
    assert_eq!(ring.published(), [2]);
}

#[test]
fn the_way_back_from_a_rotation_that_went_wrong() {
    let mut ring = Ring::new(policy());
    for second in [0, 9000, 10_000] {
        ring.settle(second);
    }
    ring.policy.sign_with = Some(kid(1));
    assert_eq!(ring.settle(10_100), ["kid-1 Activated", "kid-2 Retired"]);
    assert!(ring.settle(10_599).is_empty());
    ring.settle(10_600);
    assert!(
        ring.settle(90_000).is_empty() && ring.active() == Some(kid(1)),
        "the schedule waits"
    );
    ring.policy.sign_with = None;
    assert_eq!(ring.settle(90_000)[0], "Generate Schedule");
    // What is not in the JWKS can not be named.
    ring.policy.sign_with = Some("unknown".into());
    let plan = ring.visit(Moment {
        now: at(90_001),
        sure: true,
    });
    assert!(plan.sign_with_waits && !plan.paused);
}

#[test]
fn a_window_ends_all() {
    let mut ring = Ring::new(policy());
    ring.policy.window = Window {
        from: Some(at(5000)),
        to: Some(at(20_000)),
    };
    ring.settle(0);
    assert_eq!(ring.active(), Some(kid(1)), "the server minds the window");
    assert!(
        ring.settle(13_999).is_empty(),
        "the interval counts from it"
    );
    assert!(!ring.settle(14_000).is_empty());
    ring.settle(15_000);
    ring.settle(20_000);
    assert!(ring.keys.is_empty() && ring.settle(100_000).is_empty());
}

#[test]
fn a_window_in_the_past_that_never_held_is_refused() {
    let window = |to| Window {
        from: None,
        to: Some(at(to)),
    };
    let moment = Moment {
        now: at(100),
        sure: true,
    };
    let known = KeyFacts {
        window: window(150),
        ..key(1, Cause::First, at(0))
    };
    let keys = [known];
    let refused = Some(WindowRefused);
    assert_eq!(
        accept_window(window(99), &keys, moment),
        (window(150), refused)
    );
    assert_eq!(
        accept_window(window(101), &keys, moment),
        (window(101), None)
    );
    let later = Moment {
        now: at(160),
        sure: true,
    };
    assert_eq!(
        accept_window(window(150), &keys, later),
        (window(150), None)
    );
    assert_eq!(
        accept_window(window(99), &[], moment),
        (Window::default(), refused)
    );
    // All its keys have left the JWKS, and their Secrets with what was written of them are gone.
    let mut gone = key(1, Cause::First, at(0));
    gone.life.removed = Some(at(100));
    assert_eq!(
        accept_window(window(99), &[gone], moment),
        (window(99), None)
    );
}

#[test]
fn a_lost_key_is_an_emergency_and_verifies_through_its_grace() {
    let mut ring = Ring::new(policy());
    ring.settle(0);
    ring.keys[0].has_material = false;
    assert_eq!(
        ring.settle(10),
        [
            "kid-1 Lost",
            "Generate Emergency",
            "kid-2 Published",
            "kid-2 Activated"
        ]
    );
    assert_eq!(ring.published(), [1, 2]);
    // Its Secret is restored from a backup, which knows nothing of its loss.
    ring.keys[0].has_material = true;
    ring.keys[0].life.retired = None;
    assert_eq!(ring.settle(20), ["kid-1 Retired"]);
    assert_eq!(ring.settle(520)[0], "kid-1 Removed");
}

#[test]
fn an_injected_key_that_is_lost_is_made_again() {
    let mut ring = Ring::new(Policy {
        source: Source::Inject(kid(1)),
        ..policy()
    });
    ring.settle(0);
    ring.keys[0].has_material = false;
    assert_eq!(ring.settle(10), ["kid-1 Restore"]);
    assert_eq!(ring.active(), Some(kid(1)));
    ring.policy.source = Source::Inject(kid(2));
    assert_eq!(ring.settle(20), ["Generate Injected", "kid-2 Published"]);
    assert_eq!(ring.settle(1020), ["kid-2 Activated", "kid-1 Retired"]);
}

#[test]
fn nothing_irreversible_on_a_clock_that_jumped() {
    let mut ring = Ring::new(policy());
    for second in [0, 9000, 10_000] {
        ring.settle(second);
    }
    let year = 365 * 86_400;
    for now in [at(10_000 + year), at(10_000 - 300), at(10_000 + 300)] {
        let mut copy = ring.clone();
        let plan = copy.visit(Moment { now, sure: false });
        assert!(plan.steps.is_empty(), "{:?}", plan.steps);
        assert!(plan.wake_at.is_some_and(|t| t > now));
    }
    // Times that a wrong clock wrote are put right.
    ring.keys[1].life.activated = Some(at(10_000 + year));
    assert_eq!(ring.settle(10_001), ["kid-2 TimesCorrected"]);
}

#[test]
fn a_cause_reads_back() {
    for cause in [
        Cause::First,
        Cause::Request,
        Cause::Injected,
        Cause::Emergency,
    ] {
        assert_eq!(Cause::from_name(cause.name()), Some(cause));
    }
}
