//! Timetables of policies, as tables.

use super::super::Window;
use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn secs(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

/// An interval of 10,000 s, a lead of 1,000 s, and a safe grace of 500 s.
fn policy() -> Policy {
    Policy {
        interval: Some(secs(10_000)),
        publish_lead: secs(1000),
        max_age: secs(100),
        max_ttl: secs(300),
        margin: secs(200),
        cached_for: secs(150),
        ..Policy::default()
    }
}

fn lines(table: &Timetable) -> Vec<String> {
    let line = |row: &Row| {
        let Row {
            at,
            key,
            event,
            why,
        } = row;
        format!("{} #{key} {event}: {why}", at.as_second())
    };
    table.rows.iter().map(line).collect()
}

#[track_caller]
fn holds(policy: &Policy, until: i64, expected: &[&str]) {
    let table = timetable(policy, at(0), at(until));
    assert_eq!(lines(&table), expected);
    assert_eq!(table.cut, None);
}

#[test]
fn a_ring_without_a_schedule_has_one_key() {
    let manual = Policy {
        interval: None,
        ..policy()
    };
    let first = [
        "0 #1 made: the ring's first key",
        "0 #1 published: verifiers can fetch it from now on",
        "0 #1 signs: nothing signed before, so it need not wait",
    ];
    holds(&manual, 1_000_000_000, &first);
    // A request that stands in the manifest is handled by the first key.
    let asked = Policy {
        rotate: Some("now".into()),
        ..manual.clone()
    };
    holds(&asked, 1_000_000_000, &first);
    let brought = Policy {
        source: Source::Inject("kid".into()),
        ..manual
    };
    let mut by_hand = first;
    by_hand[0] = "0 #1 made: the key that privateKey brings";
    holds(&brought, 1_000_000_000, &by_hand);
}

#[test]
fn a_rotation_is_told_step_by_step() {
    holds(
        &policy(),
        19_000,
        &[
            "0 #1 made: the ring's first key",
            "0 #1 published: verifiers can fetch it from now on",
            "0 #1 signs: nothing signed before, so it need not wait",
            "9000 #2 made: to follow #1, and to be known before",
            "9000 #2 published: verifiers can fetch it from now on",
            "10000 #2 signs: #1 has signed for its interval of 2h46m40s",
            "10000 #1 retired: #2 signs in its place; it verifies only",
            "10500 #1 leaves the JWKS: its grace of 8m20s is over",
            "10500 #1 deleted: it has left the JWKS, and no retention keeps it",
            // The end itself belongs to it.
            "19000 #3 made: to follow #2, and to be known before",
            "19000 #3 published: verifiers can fetch it from now on",
        ],
    );
}

#[test]
fn retention_keeps_a_key_pair_and_an_own_grace_holds_where_it_is_long_enough() {
    let kept = Policy {
        grace: secs(3600),
        retention: secs(7200),
        ..policy()
    };
    let table = timetable(&kept, at(0), at(30_000));
    let of_first: Vec<String> = lines(&table)
        .into_iter()
        .filter(|line| line.split(' ').nth(1) == Some("#1"))
        .skip(3)
        .collect();
    assert_eq!(
        of_first,
        [
            "10000 #1 retired: #2 signs in its place; it verifies only",
            "13600 #1 leaves the JWKS: its grace of 1h is over",
            "20800 #1 deleted: its retention of 2h is over",
        ]
    );
    let keys = table.keys();
    assert_eq!(keys.iter().map(|k| k.key).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(keys[0].at(Event::Deleted), Some(at(20_800)));
    assert_eq!(keys[1].at(Event::Signs), Some(at(10_000)));
    assert_eq!(keys[3].at(Event::Signs), Some(at(30_000)));
    assert_eq!(keys[3].at(Event::Retired), None);
}

#[test]
fn a_window_bounds_every_signature() {
    let bounded = Policy {
        window: Window {
            from: Some(at(2000)),
            to: Some(at(13_000)),
        },
        retention: secs(100),
        ..policy()
    };
    holds(
        &bounded,
        100_000,
        &[
            "0 #1 made: the ring's first key",
            "0 #1 published: verifiers can fetch it from now on",
            "2000 #1 signs: validFrom: the ring's window begins",
            "11000 #2 made: to follow #1, and to be known before",
            "11000 #2 published: verifiers can fetch it from now on",
            "12000 #2 signs: #1 has signed for its interval of 2h46m40s",
            "12000 #1 retired: #2 signs in its place; it verifies only",
            "12500 #1 leaves the JWKS: its grace of 8m20s is over",
            "12600 #1 deleted: its retention of 1m40s is over",
            "13000 #2 retired: validTo: the ring's window ends",
            "13000 #2 leaves the JWKS: validTo: the ring's window ends",
            "13100 #2 deleted: its retention of 1m40s is over",
        ],
    );
    // A rotation that would begin after the end is none.
    let shorter = Policy {
        window: Window {
            from: None,
            to: Some(at(10_000)),
        },
        ..policy()
    };
    let table = timetable(&shorter, at(0), at(100_000));
    assert_eq!(table.keys().len(), 1, "{:?}", lines(&table));
    // One that had ended makes nothing.
    let table = timetable(&shorter, at(10_000), at(100_000));
    assert!(table.too_late && table.rows.is_empty());
    // One that begins after the timetable ends is published, and signs nothing yet.
    let far = Policy {
        window: Window {
            from: Some(at(1_000_000)),
            to: None,
        },
        ..policy()
    };
    let table = timetable(&far, at(0), at(100_000));
    assert_eq!(lines(&table).len(), 2, "{:?}", lines(&table));
}

#[test]
fn short_policies_are_raised_rather_than_broken() {
    // The interval is shorter than the lead that max-age asks for: the lead holds.
    let short = Policy {
        interval: Some(secs(10)),
        publish_lead: secs(1),
        ..policy()
    };
    let table = timetable(&short, at(0), at(250));
    let signs: Vec<String> = lines(&table)
        .into_iter()
        .filter(|line| line.contains("signs:"))
        .collect();
    assert_eq!(
        signs,
        [
            "0 #1 signs: nothing signed before, so it need not wait",
            "101 #2 signs: published for its lead of 1m41s; #1 was due at 1970-01-01T00:00:10Z",
            "202 #3 signs: published for its lead of 1m41s; #2 was due at 1970-01-01T00:01:51Z",
        ]
    );
    // Seconds, under rules of seconds.
    let tiny = Policy {
        interval: Some(secs(10)),
        publish_lead: secs(2),
        max_age: secs(1),
        max_ttl: secs(2),
        margin: secs(1),
        ..Policy::default()
    };
    holds(
        &tiny,
        13,
        &[
            "0 #1 made: the ring's first key",
            "0 #1 published: verifiers can fetch it from now on",
            "0 #1 signs: nothing signed before, so it need not wait",
            "8 #2 made: to follow #1, and to be known before",
            "8 #2 published: verifiers can fetch it from now on",
            "10 #2 signs: #1 has signed for its interval of 10s",
            "10 #1 retired: #2 signs in its place; it verifies only",
            "13 #1 leaves the JWKS: its grace of 3s is over",
            "13 #1 deleted: it has left the JWKS, and no retention keeps it",
        ],
    );
}

#[test]
fn it_ends_where_it_would_not() {
    let endless = Policy {
        interval: Some(secs(2)),
        publish_lead: secs(1),
        max_ttl: secs(1),
        ..Policy::default()
    };
    let quarter = at(90 * 86_400);
    let table = timetable(&endless, at(0), quarter);
    let cut = table.cut.expect("it is cut");
    assert_eq!(table.keys().len(), usize::try_from(MOST_KEYS).expect("few"));
    assert!(table.rows.iter().all(|row| row.at <= cut) && cut < quarter);
    assert_eq!(table.crowded, None);
    // A grace that is far longer than the interval fills the JWKS, and the next key waits.
    let crowded = Policy {
        grace: secs(86_400),
        ..endless.clone()
    };
    let table = timetable(&crowded, at(0), quarter);
    let since = table.crowded.expect("the JWKS is full");
    assert!(since < at(200), "{since}");
    // Nor do key pairs that are kept for years take the time of years.
    let kept = Policy {
        retention: SignedDuration::from_hours(90_000),
        ..endless
    };
    assert!(timetable(&kept, at(0), quarter).cut.is_some());
}

/// Whatever the policy, a timetable tells of lives in order, with at most one signer at a time.
#[test]
fn lives_are_in_order() {
    for interval in [3, 50, 1000, 20_000] {
        for lead in [1, 30, 500, 30_000] {
            for grace in [0, 10, 5000] {
                let policy = Policy {
                    interval: Some(secs(interval)),
                    publish_lead: secs(lead),
                    grace: secs(grace),
                    ..policy()
                };
                let table = timetable(&policy, at(0), at(60_000));
                let keys = table.keys();
                let times = |key: &KeyTimes| Event::ALL.map(|event| key.at(event));
                let last = keys.last().map(|key| key.key);
                for pair in keys.windows(2) {
                    let told: Vec<_> = times(&pair[0]).into_iter().flatten().collect();
                    assert!(told.is_sorted(), "{policy:?}: {told:?}");
                    if let Some(signs) = pair[1].at(Event::Signs) {
                        // Where the timetable is cut, it may end between the two.
                        let cut = table.cut.is_some() && last == Some(pair[1].key);
                        let retired = pair[0].at(Event::Retired).or(cut.then_some(signs));
                        assert_eq!(retired, Some(signs), "{policy:?}");
                        let published = pair[1].at(Event::Published).expect("published");
                        assert!(later(published, policy.lead()) <= signs, "{policy:?}");
                    }
                }
            }
        }
    }
}
