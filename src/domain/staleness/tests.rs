//! Ages by two clocks, and the limits that follow from settings.

use super::*;

#[test]
fn the_clock_that_says_longer_counts() {
    let at = |second| Timestamp::from_second(second).expect("a time");
    let contact = Contact {
        wall: at(1000),
        elapsed: Duration::from_secs(50),
    };
    for (now, elapsed, age) in [
        (1000, 50, 0),
        (1010, 60, 10),
        // Suspended for an hour: the monotonic clock stood still.
        (4600, 51, 3600),
        // Set back by an hour.
        (-2600, 60, 10),
        // Earlier than itself: never negative.
        (900, 40, 0),
    ] {
        let found = contact.age(at(now), Duration::from_secs(elapsed));
        assert_eq!(found, Duration::from_secs(age), "{now} {elapsed}");
    }
}

#[test]
fn limits_follow_from_settings() {
    let period = |text: &str| -> Period { text.parse().expect("a period") };
    for (staleness, lead, max_age, signing, readiness, interval) in [
        // The defaults: half of 25 minutes.
        ("1h", None, "5m", 3600.0, 750.0, 250.0),
        ("24h", Some("24h"), "5m", 86_400.0, 43_050.0, 300.0),
        ("10s", None, "5m", 10.0, 10.0, 10.0 / 6.0),
        ("10m", Some("1m"), "30s", 600.0, 15.0, 5.0),
        // The lead is eaten up by max-age.
        ("1h", Some("5m"), "5m", 3600.0, 2.0, 2.0 / 3.0),
        ("1h", Some("1m"), "5m", 3600.0, 2.0, 2.0 / 3.0),
        ("1s", None, "0s", 1.0, 1.0, 1.0 / 6.0),
    ] {
        let limits = Limits::new(period(staleness), lead.map(period), period(max_age));
        let close = |found: Duration, wanted: f64| (found.as_secs_f64() - wanted).abs() < 1e-6;
        assert!(
            close(limits.signing, signing)
                && close(limits.readiness, readiness)
                && close(limits.interval, interval),
            "{staleness} {lead:?} {max_age}: {limits:?}"
        );
    }
}
