//! Table, JSON and SVG say the same, since they are made of the same rows.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::domain::rotation::Window;
use crate::domain::rotation::timetable::{Event, Row};

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn ring(name: &str, policy: Policy, from: Timestamp, until: Timestamp) -> Ring {
    Ring {
        namespace: "chancery-system".into(),
        name: name.into(),
        shown: name.into(),
        file: "m/ring.yaml".into(),
        timetable: timetable(&policy, from, until),
        audience: crate::api::v1alpha1::KeyAudience::Client,
        priority: 0,
        policy,
        notes: vec!["A note.".into()],
    }
}

/// A ring with a schedule, one with a window, one without keys.
fn three() -> Plan {
    let (from, until) = (time("2027-01-01T00:00:00Z"), time("2027-04-01T00:00:00Z"));
    let hours = SignedDuration::from_hours;
    let policy = Policy {
        interval: Some(hours(720)),
        publish_lead: hours(1),
        max_ttl: hours(1),
        retention: hours(24),
        ..Policy::default()
    };
    let windowed = Policy {
        window: Window {
            from: Some(time("2027-02-01T00:00:00Z")),
            to: Some(time("2027-03-20T12:00:00Z")),
        },
        ..policy.clone()
    };
    let none = Policy {
        source: Source::Hold,
        ..policy.clone()
    };
    let rings = vec![
        ring("a", policy, from, until),
        ring("b", windowed, from, until),
        ring("c", none, from, until),
    ];
    Plan { from, until, rings }
}

fn words(plan: &Plan) -> Vec<(String, String, i64, Event)> {
    let word =
        |(ring, row): (&Ring, &Row)| (row.at.to_string(), ring.name.clone(), row.key, row.event);
    plan.rows().into_iter().map(word).collect()
}

#[test]
fn the_table_has_a_line_for_each_row() {
    let plan = three();
    let table = table::render(&plan);
    let lines: Vec<&str> = table.lines().take_while(|line| !line.is_empty()).collect();
    let expected = words(&plan);
    assert!(expected.len() > 20 && expected.is_sorted_by_key(|row| time(&row.0)));
    assert_eq!(lines.len() - 1, expected.len());
    for (line, (at, ring, key, event)) in lines[1..].iter().zip(expected) {
        let start = format!("{at}  {ring}     #{key}   {event:<14}  ");
        assert!(line.starts_with(&start), "{line}\n{start}");
        assert!(line.len() > start.len(), "{line} has a reason");
    }
    assert!(table.contains("\nc (m/ring.yaml): interval 720h, publishLead 1h, gracePeriod 1h, "));
}

#[test]
fn json_has_them_twice_as_they_happen_and_by_key() {
    let plan = three();
    let json: Value = serde_json::from_str(&json::render(&plan).expect("JSON")).expect("JSON");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let row = |t: &Value| {
        assert!(!text(&t["why"]).is_empty());
        let event = Event::ALL.into_iter().find(|e| t["what"] == e.name());
        let key = t["key"].as_i64().expect("a number");
        (text(&t["at"]), text(&t["ring"]), key, event.expect("known"))
    };
    let transitions = json["transitions"].as_array().expect("a list");
    let told: Vec<_> = transitions.iter().map(row).collect();
    assert_eq!(told, words(&plan));
    let mut by_key = BTreeSet::new();
    for ring in json["rings"].as_array().expect("a list") {
        for key in ring["keys"].as_array().expect("a list") {
            for (event, field) in Event::ALL.into_iter().zip([
                "madeAt",
                "publishedAt",
                "signsFrom",
                "retiredAt",
                "leavesJwksAt",
                "deletedAt",
            ]) {
                if let Some(at) = key[field].as_str() {
                    let number = key["key"].as_i64().expect("a number");
                    by_key.insert((at.to_owned(), text(&ring["name"]), number, event));
                }
            }
        }
    }
    assert_eq!(by_key, told.into_iter().collect());
    assert_eq!(
        json["rings"][1]["policy"]["validTo"],
        "2027-03-20T12:00:00Z"
    );
    assert_eq!(json["rings"][2]["keys"], Value::Array(vec![]));
}

#[test]
fn the_picture_has_a_bar_for_each_key_and_is_the_same_each_time() {
    let plan = three();
    let svg = svg::render(&plan);
    assert_eq!(svg, svg::render(&three()));
    // Well-formed: every element that is opened is closed.
    let mut open = Vec::new();
    for tag in svg.split('<').skip(1) {
        let tag = tag.split('>').next().expect("a tag");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "{svg}");
        } else if !tag.ends_with('/') {
            let name = tag.split_whitespace().next().expect("a name");
            open.push(name.to_owned());
        }
    }
    assert!(open.is_empty(), "{open:?}");
    let bars = svg.split("<g><title>").skip(1);
    let bars: Vec<&str> = bars.filter_map(|bar| bar.split('<').next()).collect();
    let mut told = bars.iter();
    for ring in &plan.rings {
        for key in ring.timetable.keys() {
            let bar = told.next().expect("a bar for each key");
            let (number, times) = bar.split_once(": ").expect("a number");
            assert_eq!(number, format!("#{}", key.key));
            let expected: Vec<String> = Event::ALL
                .into_iter()
                .filter_map(|event| Some(format!("{event} {}", key.at(event)?)))
                .collect();
            assert_eq!(times, expected.join(", "));
        }
    }
    assert!(told.next().is_none());
    assert!(svg.contains("no key is made"), "{svg}");
}
