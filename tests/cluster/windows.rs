//! `validFrom` and `validTo`: a hard window, told ahead, and never a slip of the pen.

use jiff::Timestamp;
use serde_json::json;

use crate::load::expiry;
use crate::release::{LIMIT, Release};
use crate::ring::{Ring, SECONDS, between, in_seconds, kid, now, published, text, wait_published};
use crate::support::eventually;

fn trial(prefix: &str) -> (Release, String) {
    let mut release = Release::prepared(prefix);
    release.run(&SECONDS);
    let tenant = release.tenant(&format!("{prefix}-tenant"));
    (release, tenant)
}

/// Published ahead of `validFrom`, and no signature before it; the next ring signs meanwhile.
#[test]
fn nothing_signs_before_valid_from() {
    let (release, tenant) = trial("validfrom");
    let from = in_seconds(25);
    let begins: Timestamp = from.parse().expect("a time");
    let spec = format!(
        "algorithm: ES256, priority: 5, validFrom: '{from}', rotation: {{publishLead: 2s}}"
    );
    let ring = Ring::apply(&release, "main", &spec);
    let ahead = ring.active();
    assert!(
        published(&release).contains(&ahead),
        "it is published ahead"
    );
    let told = ring.condition("Ready").expect("ready to sign");
    assert!(told.contains("spec.validFrom"), "{told}");
    assert_eq!(ring.key(&ahead)["validFrom"], from.as_str());

    release.user(&tenant, "user", "");
    let (id, secret) = release.credentials(&tenant, "user");
    let refused = eventually("503", LIMIT, || {
        let answer = release.ask(&id, &secret, "");
        (answer.status == 503)
            .then_some(answer.json())
            .ok_or(answer.text())
    });
    assert_eq!(refused["error"], "temporarily_unavailable", "{refused}");
    // A second ring of lower priority stands in.
    let second = Ring::apply(&release, "second", "algorithm: EdDSA");
    let stand_in = second.active();
    let token = release.token(&id, &secret, "");
    assert!(now() < begins, "this machine is too slow for this test");
    assert_eq!(kid(&token), stand_in);
    let first_of_main = eventually("the ring signs", LIMIT, || {
        let asked = now();
        let token = release.token(&id, &secret, "");
        if kid(&token) == ahead {
            Ok(now())
        } else {
            Err(asked.to_string())
        }
    });
    let late = between(begins, first_of_main);
    println!("the first token {late:.2} s after validFrom");
    assert!(late >= 0.0, "{late}");
    ring.wait("no word of validFrom any more", |_| {
        let told = ring.condition("Ready")?;
        (!told.contains("validFrom")).then_some(())
    });
}

/// No token's `exp` lies past `validTo`, and then the keys leave the JWKS.
#[test]
fn nothing_outlives_valid_to() {
    let (release, tenant) = trial("validto");
    let other = Ring::apply(&release, "other", "algorithm: EdDSA");
    release.user(&tenant, "user", "  signingKey: main\n");
    let to = in_seconds(30);
    let ends: Timestamp = to.parse().expect("a time");
    let spec = format!("algorithm: ES256, validTo: '{to}', rotation: {{publishLead: 2s}}");
    let ring = Ring::apply(&release, "main", &spec);
    ring.wait_told("ExpiresSoon", "ValidityEndsSoon");
    let first = ring.active();
    let (id, secret) = release.credentials(&tenant, "user");
    release.token(&id, &secret, "");
    // A rotation meanwhile, so that two keys have to leave.
    let second = ring.rotate("now");
    let (mut tokens, mut shortened, mut last) = (0, 0, now());
    let refused = eventually("no more tokens", LIMIT, || {
        let asked = now();
        let answer = release.ask(&id, &secret, "");
        let token = text(&answer.json()["access_token"]);
        let Some(token) = token else {
            return Ok(answer);
        };
        tokens += 1;
        let exp = expiry(&token);
        assert!(exp <= ends.as_second(), "exp {exp} lies past {ends}");
        shortened += usize::from(exp < asked.as_second() + 3);
        last = asked;
        Err(format!("{exp}"))
    });
    assert_eq!(refused.status, 503, "{}", refused.text());
    let early = between(last, ends);
    println!(
        "{tokens} tokens, {shortened} of them shortened; the last {early:.2} s before validTo"
    );
    assert!(early > 0.0 && shortened > 0);
    let told = ring.wait_told("Stalled", "ValidityEnded");
    assert!(told.contains("spec.validTo"), "{told}");
    for kid in [&first, &second] {
        wait_published(&release, kid, false);
    }
    println!(
        "out of the JWKS {:.2} s after validTo",
        between(ends, now())
    );
    assert_eq!(published(&release), [other.active()]);
    assert_eq!(ring.condition("Ready"), None);

    // A later time: it lives again, with keys that are new.
    ring.edit(&json!({ "validTo": in_seconds(3600) }));
    let third = ring.wait("it signs again", |ring| {
        text(&ring["status"]["activeKeyId"]).filter(|kid| *kid != first && *kid != second)
    });
    let token = release.token(&id, &secret, "");
    assert_eq!(kid(&token), third);
}

/// A `validTo` within 14 days, or the last fifth of the window, is told; others are not.
#[test]
fn an_end_that_is_near_is_told() {
    let (release, _) = trial("expires");
    let (hour, day) = (3600, 86_400);
    for (name, from, to, soon) in [
        ("ten-days", None, 10 * day, true),
        ("twenty-days", None, 20 * day, false),
        ("fresh-hours", Some(-hour), 9 * hour, false),
        ("last-fifth", Some(-9 * hour), hour, true),
    ] {
        let from = from.map_or(String::new(), |f| {
            format!("validFrom: '{}',", in_seconds(f))
        });
        let spec = format!("algorithm: ES256, {from} validTo: '{}'", in_seconds(to));
        let ring = Ring::apply(&release, name, &spec);
        let told = ring.condition("ExpiresSoon");
        assert_eq!(told.is_some(), soon, "{name}: {told:?}");
        let gauge = |name: &str| gauge(&release, name, ring.name);
        eventually("the metrics tell of it too", LIMIT, || {
            let told = gauge("expires_soon").map(|soon| soon > 0.0);
            (told == Some(soon))
                .then_some(())
                .ok_or(format!("{told:?}"))
        });
        let left = gauge("expires_seconds").expect("it has a validTo");
        let wanted = f64::from(u32::try_from(to).expect("ahead"));
        assert!(left <= wanted && left > wanted - 120.0, "{left}");
        let age = gauge("active_age_seconds").expect("it signs");
        assert!((-1.0..120.0).contains(&age), "{age}");
        // What comes next is that the keys leave.
        let next = gauge("next_transition_seconds").expect("validTo");
        assert!((next - left).abs() < 2.0, "{next} {left}");
        assert_eq!(gauge("overdue"), Some(0.0));
    }
    // A ring without an end has none in the metrics, and one that is gone has nothing.
    let plain = Ring::apply(&release, "plain", "algorithm: ES256");
    eventually("it is measured", LIMIT, || {
        gauge(&release, "active_age_seconds", "plain").ok_or("not yet")
    });
    assert_eq!(gauge(&release, "expires_seconds", "plain"), None);
    assert_eq!(gauge(&release, "next_transition_seconds", "plain"), None);
    plain.kubectl(&["delete"], &[]);
    eventually("nothing of it is told", LIMIT, || {
        match gauge(&release, "overdue", "plain") {
            None => Ok(()),
            Some(value) => Err(value),
        }
    });

    // Nobody leads: the next transition comes to be overdue, and the server tells.
    let spec = "algorithm: ES256, rotation: {interval: 5s, publishLead: 2s}";
    Ring::apply(&release, "late", spec);
    eventually("its next transition is known", LIMIT, || {
        gauge(&release, "next_transition_seconds", "late").ok_or("not yet")
    });
    let mut release = release;
    release.kill();
    release.serve(&SECONDS);
    let due = eventually("the server tells too", LIMIT, || {
        gauge(&release, "next_transition_seconds", "late").ok_or_else(|| release.tail())
    });
    println!("next transition in {due:.1} s, and no operator");
    let late = eventually("it is overdue", 2 * LIMIT, || {
        let late = gauge(&release, "next_transition_seconds", "late").expect("it is there");
        let overdue = gauge(&release, "overdue", "late");
        // Two scrapes: between them it may have become so.
        assert!(late > -60.0 || overdue == Some(1.0), "{late} {overdue:?}");
        assert!(late < -50.0 || overdue == Some(0.0), "{late} {overdue:?}");
        if late < -61.0 { Ok(late) } else { Err(late) }
    });
    assert_eq!(gauge(&release, "overdue", "late"), Some(1.0));
    println!("overdue by {:.1} s", -late);
}

/// What a gauge of a ring says on the release's admin port.
fn gauge(release: &Release, name: &str, ring: &str) -> Option<f64> {
    let url = format!("http://127.0.0.1:{}/metrics", release.admin_port);
    let metrics = crate::support::http::get(&url).ok()?.text();
    let line = format!("chancery_signing_key_{name}{{signing_key=\"{ring}\"}} ");
    let value = metrics.lines().find_map(|l| l.strip_prefix(&line))?;
    Some(value.parse().expect("a number"))
}

/// A `validTo` in the past on a ring that runs: refused, told, and nobody notices.
#[test]
fn a_valid_to_in_the_past_is_refused() {
    let (release, tenant) = trial("past");
    let ring = Ring::apply(&release, "main", "algorithm: ES256");
    release.user(&tenant, "user", "");
    let load = crate::rotation::client(&release, &tenant).load();
    let before = (published(&release), ring.secrets());
    let past = in_seconds(-3600);
    ring.edit(&json!({ "validTo": past }));
    let told = ring.wait_told("Stalled", "ValidityRefused");
    assert!(told.contains(&past) && told.contains("goes on"), "{told}");
    ring.wait_observed();
    assert!(ring.condition("Ready").is_some());
    assert_eq!((published(&release), ring.secrets()), before);
    ring.edit(&json!({ "validTo": null }));
    ring.wait("no complaint any more", |_| {
        ring.condition("Stalled").is_none().then_some(())
    });
    load.unnoticed("validTo in the past");

    // On a ring that is new, no key is made.
    release.ring("new", &format!("algorithm: ES256, validTo: '{past}'"));
    let new = Ring {
        release: &release,
        name: "new",
    };
    new.wait_told("Stalled", "ValidityRefused");
    assert_eq!(new.secret_names(), Vec::<String>::new());
    new.edit(&json!({ "validTo": in_seconds(3600) }));
    new.active();
}
