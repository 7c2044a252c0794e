//! Jumps, drift, and what brings trust back.

use proptest::prelude::*;

use super::*;

const MINUTE: u64 = 60;
const DAY: i64 = 86_400;

/// A machine whose wall clock can be moved beside its monotonic one, and an API server that is right.
struct World {
    trust: ClockTrust,
    /// Monotonic seconds, which are also the true time.
    elapsed: u64,
    /// How far the wall clock is ahead.
    ahead: i64,
}

impl World {
    fn new() -> Self {
        Self {
            trust: ClockTrust::new(Limits::default()),
            elapsed: 1000,
            ahead: 0,
        }
    }

    /// One that is sure.
    fn checked() -> Self {
        let mut world = Self::new();
        world.look();
        world.compare();
        assert!(world.trust.sure());
        world
    }

    fn now(&self) -> Look {
        let true_time = 1_800_000_000 + i64::try_from(self.elapsed).expect("small");
        Look {
            now: Timestamp::from_second(true_time + self.ahead).expect("a time"),
            elapsed: Duration::from_secs(self.elapsed),
        }
    }

    fn look(&mut self) -> Option<i64> {
        let look = self.now();
        self.trust.look(look).map(|jump| jump.as_secs())
    }

    fn compare(&mut self) {
        let look = self.now();
        let date = Timestamp::from_second(look.now.as_second() - self.ahead).expect("a time");
        self.trust.check_begins(look.elapsed);
        self.trust.compared(date, look);
    }

    fn due(&self) -> bool {
        self.trust.check_due(Duration::from_secs(self.elapsed))
    }
}

#[test]
fn not_sure_before_the_first_comparison() {
    let mut world = World::new();
    assert!(world.due() && !world.trust.sure());
    world.look();
    assert_eq!(world.trust.problem(), Some(Problem::Unchecked));
    world.compare();
    assert!(world.trust.sure() && world.trust.problem().is_none());
    assert_eq!(world.trust.offset(), Some(SignedDuration::ZERO));
    assert!(!world.due());
    world.elapsed += 5 * MINUTE;
    assert!(world.due());
}

#[test]
fn a_jump_is_noticed_whatever_the_pause() {
    for jump in [5 * 60, DAY, 365 * DAY].into_iter().flat_map(|s| [s, -s]) {
        for pause in [0, 1, 59, 3600, 40 * 86_400] {
            let mut world = World::checked();
            world.elapsed += pause;
            world.ahead = jump;
            assert_eq!(world.look(), Some(jump), "after {pause} s");
            assert!(!world.trust.sure() && world.due(), "{jump} after {pause} s");
            // And another look does not forget it.
            assert_eq!(world.look(), None);
            assert!(!world.trust.sure());
        }
    }
}

#[test]
fn a_jump_is_confirmed_by_two_comparisons_a_minute_apart() {
    let mut world = World::checked();
    // API server and process share the clock, as in `dev`: both have jumped, and agree.
    let jump = |world: &mut World, by: i64| {
        world.ahead += by;
        world.look().expect("a jump");
        world.ahead -= by;
        world.trust.last = Some(world.now());
    };
    jump(&mut world, DAY);
    world.compare();
    assert!(!world.trust.sure() && !world.due());
    world.elapsed += 59;
    world.compare();
    assert!(!world.trust.sure() && !world.due());
    world.elapsed += 1;
    world.trust.tried = None;
    assert!(world.due());
    world.compare();
    assert!(world.trust.sure());

    // A second jump in between begins anew.
    jump(&mut world, -DAY);
    world.compare();
    world.elapsed += 30;
    jump(&mut world, DAY);
    world.elapsed += 40;
    world.compare();
    assert!(!world.trust.sure());
    world.elapsed += 60;
    world.compare();
    assert!(world.trust.sure());
}

#[test]
fn what_does_not_agree_does_not_confirm() {
    let mut world = World::checked();
    world.ahead = DAY;
    world.look();
    for _ in 0..5 {
        world.compare();
        assert!(matches!(world.trust.problem(), Some(Problem::Off { .. })));
        world.elapsed += 61;
        assert!(world.due());
    }
    // It is set right, which is a jump too.
    world.ahead = 0;
    assert_eq!(world.look(), Some(-DAY));
    world.compare();
    assert!(world.trust.problem().is_none() && !world.trust.sure());
    world.elapsed += 60;
    world.compare();
    assert!(world.trust.sure());
}

#[test]
fn slow_drift_is_no_jump_and_is_caught_by_the_date() {
    let mut world = World::checked();
    for _ in 0..301 {
        world.elapsed += 1;
        world.ahead += 1;
        assert_eq!(world.look(), None);
    }
    world.compare();
    assert!(!world.trust.sure());
    let said = world.trust.problem().expect("off").to_string();
    for part in [
        "2027-01-15T08:26:42Z",
        "2027-01-15T08:21:41Z",
        "5 minutes",
        "NTP",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(world.trust.offset(), Some(SignedDuration::from_secs(301)));
    assert!(!world.due(), "not more often than `retry`");
    world.elapsed += 5;
    assert!(world.due());
    // It drifts back: one comparison is enough, as it has not jumped.
    while world.ahead > 290 {
        world.elapsed += 1;
        world.ahead -= 1;
        world.look();
    }
    world.compare();
    assert!(world.trust.sure());
}

#[test]
fn a_comparison_that_a_jump_ran_into_does_not_count() {
    let mut world = World::new();
    world.look();
    let began = world.now();
    world.trust.check_begins(began.elapsed);
    // The machine sleeps for an hour, of which the monotonic clock knows nothing.
    world.ahead += 3600;
    let look = world.now();
    world.trust.compared(began.now, look);
    assert_eq!(world.trust.problem(), Some(Problem::Unchecked));
    assert!(world.due(), "at once");
    world.ahead = 0;
    world.look();
    world.compare();
    assert!(world.trust.problem().is_none());
}

#[test]
fn without_an_answer_what_held_goes_on() {
    let mut world = World::checked();
    for _ in 0..2000 {
        world.elapsed += 60;
        world.look();
        if world.due() {
            world.trust.check_begins(Duration::from_secs(world.elapsed));
            assert!(!world.due());
        }
        assert!(world.trust.sure());
    }
}

proptest! {
    #[test]
    fn a_jump_never_passes_and_trust_always_returns(
        steps in proptest::collection::vec((0_u64..100_000, -400_000_000_i64..400_000_000), 1..40),
    ) {
        let mut world = World::checked();
        for (pause, jump) in steps {
            world.elapsed += pause;
            world.ahead += jump;
            let noticed = world.look();
            prop_assert_eq!(noticed, (jump.abs() > 10).then_some(jump));
            if noticed.is_some() {
                prop_assert!(!world.trust.sure());
                prop_assert!(world.due());
            }
            prop_assert!(!world.trust.sure() || world.ahead.abs() <= 300, "sure of what is off");
        }
        // The clock is set right: never sure in less than a minute after a jump, and soon sure.
        let noticed = { world.ahead = 0; world.look().is_some() };
        let since = world.elapsed;
        let doubted = !world.trust.sure();
        for _ in 0..200 {
            if world.due() {
                world.compare();
            }
            if world.trust.sure() {
                break;
            }
            world.elapsed += 1;
            world.look();
        }
        prop_assert!(world.trust.sure());
        prop_assert!(!noticed || world.elapsed >= since + 60);
        prop_assert!(!doubted || world.elapsed <= since + 70);
    }
}
