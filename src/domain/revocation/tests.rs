//! What is remembered, for how long, and what gives way.

use super::*;

const NOW: i64 = 1_800_000_000;
const BOUNDS: Bounds = Bounds {
    tokens_per_client: 3,
    entries_per_tenant: 10,
    bytes: 100_000,
    longest_life: 3660,
    follow: 62,
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn token(id: &str) -> Token {
    Token {
        id: id.into(),
        issued_at: NOW - 10,
        expires_at: NOW + 290,
    }
}

fn revoke(all: &mut Revocations, of: (&str, &str), id: &str) -> Result<bool, Full> {
    let nothing = Revocations::default();
    all.revoke(&nothing, of, &token(id), (at(NOW), 60, &BOUNDS))
}

fn holds(all: &Revocations, client: &str, id: &str, issued_at: i64) -> bool {
    all.of(client).any(|c| c.holds(id, issued_at))
}

#[test]
fn a_token_is_revoked_until_it_has_expired_everywhere() {
    let mut all = Revocations::default();
    assert_eq!(revoke(&mut all, ("acme", "acme.a"), "one"), Ok(true));
    assert_eq!(
        revoke(&mut all, ("acme", "acme.a"), "one"),
        Ok(false),
        "known"
    );
    assert!(holds(&all, "acme.a", "one", NOW - 10));
    assert!(!holds(&all, "acme.b", "one", NOW - 10), "another client's");
    assert!(!holds(&all, "acme.a", "two", NOW - 10));
    assert_eq!(all.next_expiry(), Some(at(NOW + 350)));
    all.forget(at(NOW + 349));
    assert!(holds(&all, "acme.a", "one", NOW - 10));
    all.forget(at(NOW + 350));
    assert_eq!(all, Revocations::default());
    // One that has expired is not noted at all, nor what could be no id of ours.
    let old = Token {
        expires_at: NOW - 60,
        ..token("old")
    };
    let nothing = Revocations::default();
    let with = (at(NOW), 60, &BOUNDS);
    assert_eq!(
        all.revoke(&nothing, ("acme", "acme.a"), &old, with),
        Ok(false)
    );
    for odd in ["", "a b", &"x".repeat(65)] {
        assert_eq!(
            revoke(&mut all, ("acme", "acme.a"), odd),
            Ok(false),
            "{odd}"
        );
    }
    assert_eq!(all, nothing);
}

#[test]
fn beyond_its_number_all_that_a_client_was_issued_is_revoked() {
    let mut all = Revocations::default();
    for id in ["1", "2", "3"] {
        assert_eq!(revoke(&mut all, ("acme", "acme.a"), id), Ok(true));
    }
    assert_eq!(all.count(), (3, 0));
    assert!(!holds(&all, "acme.a", "other", NOW - 10));
    // By a replica whose clock is ahead.
    let ahead = Token {
        issued_at: NOW + 30,
        ..token("4")
    };
    let nothing = Revocations::default();
    let with = (at(NOW), 60, &BOUNDS);
    assert_eq!(
        all.revoke(&nothing, ("acme", "acme.a"), &ahead, with),
        Ok(true)
    );
    assert_eq!(all.count(), (0, 1));
    for id in ["1", "2", "3", "other"] {
        assert!(holds(&all, "acme.a", id, NOW - 10), "{id}");
    }
    assert!(holds(&all, "acme.a", "4", NOW + 30));
    assert!(!holds(&all, "acme.a", "later", NOW + 31));
    // For as long as any of these could live.
    all.forget(at(NOW + BOUNDS.longest_life - 1));
    assert!(holds(&all, "acme.a", "1", NOW - 10));
    all.forget(at(NOW + BOUNDS.longest_life));
    assert_eq!(all, nothing);
}

#[test]
fn what_is_held_elsewhere_counts() {
    let mut home = Revocations::default();
    for id in ["1", "2", "3"] {
        revoke(&mut home, ("acme", "acme.a"), id).expect("room");
    }
    let mut outbox = Revocations::default();
    let with = (at(NOW), 60, &BOUNDS);
    let one = token("1");
    assert_eq!(
        outbox.revoke(&home, ("acme", "acme.a"), &one, with),
        Ok(false)
    );
    let four = token("4");
    assert_eq!(
        outbox.revoke(&home, ("acme", "acme.a"), &four, with),
        Ok(true)
    );
    assert_eq!(outbox.count(), (0, 1));
    home.join(&outbox);
    assert_eq!(home.count(), (0, 1), "the time says it all");
}

#[test]
fn a_tenant_that_is_full_is_told_so_and_another_is_not() {
    let mut all = Revocations::default();
    for client in 0..4 {
        revoke(&mut all, ("acme", &format!("acme.{client}")), "t").expect("room");
    }
    // 8 entries of 10; a ninth and tenth fit, and then a client that holds some tells them in fewer.
    assert_eq!(revoke(&mut all, ("acme", "acme.4"), "t"), Ok(true));
    assert_eq!(revoke(&mut all, ("acme", "acme.5"), "t"), Err(Full));
    assert_eq!(revoke(&mut all, ("acme", "acme.4"), "u"), Ok(true));
    assert!(holds(&all, "acme.4", "anything", NOW));
    assert_eq!(revoke(&mut all, ("globex", "globex.0"), "t"), Ok(true));
}

#[test]
fn where_all_is_full_the_tenant_with_the_most_gives_and_nothing_is_lost() {
    let bounds = Bounds {
        tokens_per_client: 1000,
        entries_per_tenant: 1000,
        bytes: 3000,
        ..BOUNDS
    };
    let mut all = Revocations::default();
    let nothing = Revocations::default();
    let with = (at(NOW), 60, &bounds);
    let small = ("globex", "globex.a");
    all.revoke(&nothing, small, &token("mine"), with)
        .expect("room");
    let mut noted = Vec::new();
    for n in 0..200 {
        let client = format!("acme.{}", n % 3);
        let one = token(&format!("token-{n}"));
        all.revoke(&nothing, ("acme", &client), &one, with)
            .expect("room");
        noted.push((client, one));
        assert!(all.bytes() <= bounds.bytes);
        for (client, token) in &noted {
            assert!(holds(&all, client, &token.id, token.issued_at));
        }
    }
    assert!(
        !holds(&all, "globex.a", "another", NOW - 10),
        "it gave nothing"
    );
    // When nobody has anything left to give.
    let tight = Bounds {
        bytes: 10,
        ..bounds
    };
    assert_eq!(all.clone().fit(NOW, &tight), Err(Full));
}

#[test]
fn joining_is_the_same_in_any_order_and_twice() {
    let mut some: Vec<Revocations> = Vec::new();
    for n in 0..6 {
        let mut one = Revocations::default();
        for id in 0..=n {
            let client = format!("acme.{}", n % 2);
            revoke(&mut one, ("acme", &client), &format!("{n}-{id}")).expect("room");
        }
        some.push(one);
    }
    let joined = |order: &[usize]| {
        let mut all = Revocations::default();
        for n in order {
            all.join(&some[*n]);
        }
        all
    };
    let all = joined(&[0, 1, 2, 3, 4, 5]);
    assert_eq!(all, joined(&[5, 4, 3, 2, 1, 0]));
    assert_eq!(all, joined(&[3, 0, 5, 5, 1, 4, 2, 0, 3]));
}

#[test]
fn what_a_server_has_noted_is_judged() {
    let sound = format!(
        r#"{{"acme.a":{{"tokens":{{"one":[{},{}]}}}},"acme.b":{{"before":{NOW},"until":{}}}}}"#,
        NOW - 10,
        NOW + 350,
        NOW + 3660
    );
    let may_have =
        |tenant: &str, id: &str| id.strip_prefix(tenant).is_some_and(|r| r.starts_with('.'));
    let of = |tenant: &str, text: &str| {
        let noted = BTreeMap::from([(tenant.to_owned(), text.to_owned())]);
        judge(&noted, may_have, at(NOW), &BOUNDS)
    };
    let (all, refused) = of("acme", &sound);
    assert_eq!((all.count(), refused.len()), ((1, 1), 0), "{refused:?}");
    let many: Vec<String> = (0..30)
        .map(|n| format!(r#""{n}":[{NOW},{}]"#, NOW + 9))
        .collect();
    for (tenant, text, why) in [
        (
            "globex",
            sound.clone(),
            "2 client ids in it are not that tenant's",
        ),
        ("acme", "garbage".into(), "no list of revocations"),
        ("acme", "x".repeat(900_000), "no list of revocations"),
        (
            "acme",
            r#"{"acme.a":{"more":1}}"#.into(),
            "no list of revocations",
        ),
        (
            "acme",
            format!(r#"{{"acme.a":{{"tokens":{{"a b":[{NOW},{}]}}}}}}"#, NOW + 9),
            "none of ours",
        ),
        (
            "acme",
            format!(
                r#"{{"acme.a":{{"tokens":{{"a":[{NOW},{}]}}}}}}"#,
                NOW + 99_999
            ),
            "times that none",
        ),
        (
            "acme",
            format!(
                r#"{{"acme.a":{{"tokens":{{"a":[{},{}]}}}}}}"#,
                NOW + 999,
                NOW + 1000
            ),
            "times that none",
        ),
        (
            "acme",
            format!(r#"{{"acme.a":{{"tokens":{{"a":[{NOW},{NOW}]}}}}}}"#),
            "times that none",
        ),
        (
            "acme",
            format!(
                r#"{{"acme.a":{{"before":{},"until":{}}}}}"#,
                NOW + 999,
                NOW + 1999
            ),
            "a time is one",
        ),
        (
            "acme",
            format!(r#"{{"acme.a":{{"before":{NOW}}}}}"#),
            "a time is one",
        ),
        (
            "acme",
            format!(r#"{{"acme.a":{{"tokens":{{{}}}}}}}"#, many.join(",")),
            "longer than any",
        ),
    ] {
        let (all, refused) = of(tenant, &text);
        assert_eq!(all, Revocations::default(), "{why}");
        assert!(
            refused.len() == 1 && refused[0].contains(why),
            "{why}: {refused:?}"
        );
        assert!(refused[0].len() < 200, "{}", refused[0].len());
    }
}

#[test]
fn a_device_that_revoked_itself_is_told_apart_and_all_its_tokens_are_revoked() {
    let of = ("acme", "acme.device");
    let mut home = Revocations::default();
    revoke(&mut home, of, "held").expect("room");
    let mut all = Revocations::default();
    let with = (at(NOW), &BOUNDS);
    let agent = (Some("acme.device-agent"), NOW - 10);
    assert_eq!(all.revoke_device(&home, of, agent, with), Ok(true));
    assert_eq!(
        all.revoke_device(&home, of, agent, with),
        Ok(false),
        "known"
    );
    for id in ["acme.device", "acme.device-agent"] {
        // Also what a replica that has not heard of it yet issues meanwhile.
        assert!(holds(&all, id, "any", NOW + BOUNDS.follow), "{id}");
        assert!(!holds(&all, id, "any", NOW + BOUNDS.follow + 1), "{id}");
    }
    assert!(!holds(&all, "acme.other", "any", NOW));
    // It waits for the operator, however long.
    all.forget(at(NOW + 99_999));
    let device = Device {
        tenant: "acme".into(),
        client_id: "acme.device".into(),
        at: NOW,
    };
    assert_eq!(all.clone().take_devices(), std::slice::from_ref(&device));
    // It was back within that second, and revokes itself again: that is another revocation, although the
    // first still stands there.
    let again = (None, NOW + 1);
    assert_eq!(all.revoke_device(&home, of, again, with), Ok(true));
    let device = Device {
        at: NOW + 1,
        ..device
    };
    assert_eq!(all.take_devices(), [device]);
    all.forget(at(NOW + 99_999));
    assert_eq!(all, Revocations::default());
}
