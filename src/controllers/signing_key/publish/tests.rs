use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::json;

use super::*;
use crate::api::v1alpha1::{Observed, SigningKeySpec};

const OPERATOR: &str = "chancery-system";

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).expect("a time")
}

fn settings() -> Settings {
    Settings {
        operator_namespace: OPERATOR.into(),
        ..Settings::default()
    }
}

/// A ring of that age in seconds, with this `spec.publish` in YAML.
fn ring(name: &str, created: i64, publish: &str) -> SigningKey {
    let publish: serde_json::Value = serde_saphyr::from_str(publish).expect("YAML");
    let spec = json!({"audience": "client", "publish": publish});
    let spec: SigningKeySpec = serde_json::from_value(spec).expect("a spec");
    let mut ring = SigningKey::new(name, spec);
    let created = Timestamp::from_second(created).expect("a time");
    ring.metadata = ObjectMeta {
        name: Some(name.into()),
        namespace: Some(OPERATOR.into()),
        creation_timestamp: Some(Time(created)),
        ..ObjectMeta::default()
    };
    ring
}

fn jwks(kid: &str) -> Vec<PublicJwk> {
    vec![PublicJwk::stand_in(kid)]
}

fn places(names: &[&str]) -> Vec<Place> {
    let place = |name: &&str| Place {
        name: (*name).into(),
        labels: BTreeMap::from([("name".into(), (*name).into())]),
        terminating: false,
    };
    names.iter().map(place).collect()
}

/// What a visit came to: writes in short, whether `Published` holds, its reason and sentence.
struct Told {
    writes: Vec<String>,
    condition: Option<(bool, String, String)>,
    wake_at: Option<Timestamp>,
    decision: Decision,
}

fn visit(copies: &Copies, ring: Option<&SigningKey>, jwks: &[PublicJwk]) -> Told {
    let mut decision = Decision::default();
    let (settings, none) = (settings(), Conditions::default());
    let name = ring.map_or("main".to_owned(), ResourceExt::name_any);
    let when = (&settings, now());
    let jwks = Some(jwks).filter(|jwks| !jwks.is_empty());
    let conditions = decide(copies, (&name, ring), jwks, when, none, &mut decision);
    let observed = Observed {
        generation: 1,
        now: now(),
    };
    let condition = conditions.write(&[], observed).pop();
    let writes = decision.writes.iter().map(|write| {
        let Write::Aside(write) = write else {
            panic!("it holds up the ring: {write:?}")
        };
        let (verb, Object::ConfigMap(map)) = (match &**write {
            Write::Create(object, _) => ("create", object),
            Write::Replace(object, _) => ("replace", object),
            Write::Delete(object) => ("delete", object),
            other => panic!("{other:?}"),
        }) else {
            panic!("no ConfigMap")
        };
        let namespace = map.namespace().unwrap_or_default();
        format!("{verb} {namespace}/{}", map.name_any())
    });
    Told {
        writes: writes.collect(),
        condition: condition.map(|c| (c.status == "True", c.reason, c.message)),
        wake_at: decision.wake_at,
        decision,
    }
}

/// Carries out the writes on what is seen, as an API server would.
fn carry_out(copies: &mut Copies, told: Told) {
    for write in told.decision.writes {
        let Write::Aside(write) = write else { continue };
        match *write {
            Write::Create(Object::ConfigMap(map), _)
            | Write::Replace(Object::ConfigMap(map), _) => {
                let place = (map.namespace().unwrap_or_default(), map.name_any());
                copies.maps.insert(place, Arc::from(map));
            }
            Write::Delete(Object::ConfigMap(map)) => {
                let place = (map.namespace().unwrap_or_default(), map.name_any());
                copies.maps.remove(&place);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Visits until nothing is written any more; the last one, and all that was written.
fn settle(
    copies: &mut Copies,
    ring: Option<&SigningKey>,
    jwks: &[PublicJwk],
) -> (Told, Vec<String>) {
    let mut written = Vec::new();
    for _ in 0..200 {
        let told = visit(copies, ring, jwks);
        if told.writes.is_empty() {
            return (told, written);
        }
        let holds = told.condition.as_ref().is_some_and(|c| c.0);
        assert!(!holds, "it is not seen yet");
        written.extend(told.writes.clone());
        carry_out(copies, told);
    }
    panic!("it goes on and on: {written:?}");
}

#[track_caller]
fn says(told: &Told, holds: bool, reason: &str, sentence: &str) {
    let (found, why, message) = told.condition.as_ref().expect("Published");
    assert_eq!((*found, why.as_str()), (holds, reason), "{message}");
    assert!(message.contains(sentence), "{message}");
}

#[test]
fn by_name_and_by_label_and_never_in_the_operators_own() {
    let mut copies = Copies {
        namespaces: places(&["a", "b", "c", OPERATOR]),
        ..Copies::default()
    };
    let main = ring(
        "main",
        0,
        "[{namespaces: [a]}, {configMapName: all, namespaceSelector: {}, keys: [k]}]",
    );
    let (told, written) = settle(&mut copies, Some(&main), &jwks("one"));
    assert_eq!(
        written,
        [
            "create a/all",
            "create a/main-jwks",
            "create b/all",
            "create c/all"
        ]
    );
    says(&told, true, r::SUCCEEDED, "4 ConfigMaps");
    let keys = |copies: &Copies, place: (&str, &str)| {
        let map = &copies.maps[&(place.0.to_owned(), place.1.to_owned())];
        map.data
            .clone()
            .expect("data")
            .into_keys()
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(&copies, ("a", "main-jwks")), ["jwks", "jwks.json"]);
    assert_eq!(keys(&copies, ("b", "all")), ["k"]);

    // A rotation reaches all of them, a new namespace gets its own, and one that stops matching
    // loses it.
    let (_, written) = settle(&mut copies, Some(&main), &jwks("two"));
    assert_eq!(written.len(), 4);
    assert!(written.iter().all(|w| w.starts_with("replace ")));
    copies.namespaces = places(&["a", "b", "d"]);
    let (_, written) = settle(&mut copies, Some(&main), &jwks("two"));
    assert_eq!(written, ["create d/all"], "what was in c went with it");
    let b = ring(
        "main",
        0,
        "[{configMapName: other, namespaceSelector: {matchLabels: {name: b}}}]",
    );
    let (told, written) = settle(&mut copies, Some(&b), &jwks("two"));
    assert_eq!(
        written,
        [
            "delete a/all",
            "delete a/main-jwks",
            "delete b/all",
            "delete d/all",
            "create b/other"
        ]
    );
    says(&told, true, r::SUCCEEDED, "1 ConfigMap.");
}

#[test]
fn all_go_with_the_ring_or_with_the_field() {
    let mut copies = Copies {
        namespaces: places(&["a", "b"]),
        ..Copies::default()
    };
    let main = ring("main", 0, "[{namespaceSelector: {}}]");
    settle(&mut copies, Some(&main), &jwks("one"));
    let told = visit(&copies, Some(&ring("main", 0, "[]")), &jwks("one"));
    assert_eq!(told.writes, ["delete a/main-jwks", "delete b/main-jwks"]);
    assert_eq!(told.condition, None);
    let (told, written) = settle(&mut copies, None, &[]);
    assert_eq!(written, ["delete a/main-jwks", "delete b/main-jwks"]);
    assert_eq!(told.condition, None);
}

#[test]
fn the_worst_is_told_first() {
    let mut copies = Copies {
        namespaces: places(&["a", "b", OPERATOR]),
        ..Copies::default()
    };
    copies.namespaces[1].terminating = true;
    let foreign = ConfigMap::default();
    let place = ("a".to_owned(), "main-jwks".to_owned());
    copies.maps.insert(place, Arc::new(foreign));
    let publish = format!("[{{namespaces: [a, b, missing, {OPERATOR}]}}]");
    let told = visit(&copies, Some(&ring("main", 0, &publish)), &jwks("one"));
    let (_, reason, message) = told.condition.expect("Published");
    assert_eq!(reason, r::CONFIG_MAP_NAME_CONFLICT);
    let places = [
        "ConfigMap a/main-jwks",
        "no namespace missing",
        "Namespace b",
        "operator's own",
    ];
    let found = places.map(|part| message.find(part));
    assert!(found.is_sorted() && found[0] == Some(0), "{message}");
}

#[test]
fn entries_that_name_the_same_are_put_together() {
    let mut copies = Copies {
        namespaces: places(&["a"]),
        ..Copies::default()
    };
    let main = ring(
        "main",
        0,
        "[{namespaces: [a], keys: [x]}, {namespaceSelector: {}, keys: [z]}]",
    );
    let (_, written) = settle(&mut copies, Some(&main), &jwks("one"));
    assert_eq!(written, ["create a/main-jwks"]);
    let map = copies.maps.values().next().expect("one");
    assert_eq!(map.data.as_ref().expect("data").len(), 2);
}

type Change = fn(&mut ConfigMap);

fn put(map: &mut Option<BTreeMap<String, String>>, key: &str, value: &str) {
    map.get_or_insert_default().insert(key.into(), value.into());
}

#[test]
fn what_is_altered_is_put_right_and_what_is_foreign_is_left() {
    let mut copies = Copies {
        namespaces: places(&["a"]),
        ..Copies::default()
    };
    let main = ring("main", 0, "[{namespaces: [a]}]");
    settle(&mut copies, Some(&main), &jwks("one"));
    let (place, good) = copies.maps.pop_first().expect("one");
    let alter = |change: Change| {
        let mut map = (*good).clone();
        change(&mut map);
        map
    };
    // Also where only its annotation still tells whose it is.
    let ours: [(Change, &str); 8] = [
        (|m| m.metadata.labels = None, "replace"),
        (
            |m| put(&mut m.metadata.labels, "chancery.dev/part", "jwks"),
            "replace",
        ),
        (
            |m| put(&mut m.metadata.labels, "chancery.dev/signing-key", "other"),
            "replace",
        ),
        (|m| m.data = None, "replace"),
        (|m| put(&mut m.data, "more", "x"), "replace"),
        (|m| put(&mut m.data, "jwks", "{}"), "replace"),
        (|m| m.binary_data = Some(BTreeMap::new()), "replace"),
        (
            |m| {
                m.data = None;
                m.immutable = Some(true);
            },
            "delete",
        ),
    ];
    for (change, verb) in ours {
        copies.maps.insert(place.clone(), Arc::new(alter(change)));
        let told = visit(&copies, Some(&main), &jwks("one"));
        assert_eq!(told.writes, [format!("{verb} a/main-jwks")]);
        says(&told, false, r::PROGRESSING, "being written");
        settle(&mut copies, Some(&main), &jwks("one"));
        assert_eq!(copies.maps[&place].data, good.data);
    }
    // What others put beside it is theirs.
    let labelled = alter(|m| put(&mut m.metadata.labels, "x", "z"));
    copies.maps.insert(place.clone(), Arc::new(labelled));
    assert!(visit(&copies, Some(&main), &jwks("one")).writes.is_empty());

    let foreign: [Change; 3] = [
        |m| m.metadata.annotations = None,
        |m| put(&mut m.metadata.labels, "chancery.dev/environment", "other"),
        |m| {
            let by = "chancery.dev/published-by";
            put(&mut m.metadata.annotations, by, "other/main");
        },
    ];
    for change in foreign {
        copies.maps.insert(place.clone(), Arc::new(alter(change)));
        for ring in [Some(&main), None] {
            let told = visit(&copies, ring, &jwks("two"));
            assert!(told.writes.is_empty(), "{:?}", told.writes);
            if ring.is_some() {
                says(
                    &told,
                    false,
                    r::CONFIG_MAP_NAME_CONFLICT,
                    "ConfigMap a/main-jwks is not of this ring's making",
                );
                assert!(told.wake_at > Some(now()), "nothing tells when it goes");
            }
        }
    }
}

#[test]
fn the_older_ring_has_what_two_claim() {
    let publish = "[{configMapName: jwks, namespaces: [a]}]";
    let (old, young) = (ring("z", 1, publish), ring("a", 2, publish));
    let mut copies = Copies {
        namespaces: places(&["a"]),
        ..Copies::default()
    };
    // The younger was alone, and gives way.
    settle(&mut copies, Some(&young), &jwks("one"));
    copies.rivals = vec![Arc::new(old.clone())];
    let (told, written) = settle(&mut copies, Some(&young), &jwks("one"));
    assert_eq!(written, ["delete a/jwks"]);
    says(
        &told,
        false,
        r::CONFIG_MAP_CLAIMED,
        "by the older SigningKey z",
    );
    copies.rivals = vec![Arc::new(young)];
    let (told, written) = settle(&mut copies, Some(&old), &jwks("two"));
    assert_eq!(written, ["create a/jwks"]);
    says(&told, true, r::SUCCEEDED, "1 ConfigMap");
    // Of the same age: the first by name.
    let (first, second) = (ring("a", 1, publish), ring("b", 1, publish));
    assert!(older(&first, &second) && !older(&second, &first));
}

#[test]
fn a_namespace_that_can_not_be_published_in_is_told_of_once_it_is_named() {
    let mut namespaces = places(&["a", "going", OPERATOR]);
    namespaces[1].terminating = true;
    let copies = Copies {
        namespaces,
        ..Copies::default()
    };
    for (namespace, reason, sentence) in [
        (OPERATOR, r::WRONG_NAMESPACE, "is the operator's own"),
        (
            "absent",
            r::NAMESPACE_NOT_FOUND,
            "There is no namespace absent",
        ),
        ("going", r::NAMESPACE_TERMINATING, "is being deleted"),
    ] {
        let main = ring("main", 0, &format!("[{{namespaces: [a, {namespace}]}}]"));
        let told = visit(&copies, Some(&main), &jwks("one"));
        assert_eq!(told.writes, ["create a/main-jwks"], "the others get theirs");
        says(&told, false, reason, sentence);
        assert_eq!(told.wake_at, None, "the namespaces are watched");
    }
    // Selected, they are not meant.
    let all = ring("main", 0, "[{namespaceSelector: {}}]");
    let told = visit(&copies, Some(&all), &jwks("one"));
    assert_eq!(told.writes, ["create a/main-jwks"]);
    says(&told, false, r::PROGRESSING, "being written");
    let none = ring("main", 0, "[{namespaceSelector: {matchLabels: {x: z}}}]");
    says(
        &visit(&copies, Some(&none), &jwks("one")),
        true,
        r::SUCCEEDED,
        "No namespace",
    );
}

#[test]
fn a_ring_without_keys_publishes_nothing_and_takes_nothing_away() {
    let mut copies = Copies {
        namespaces: places(&["a", "b"]),
        ..Copies::default()
    };
    let main = ring("main", 0, "[{namespaces: [a]}]");
    let told = visit(&copies, Some(&main), &[]);
    assert!(told.writes.is_empty());
    says(&told, false, r::PROGRESSING, "no key to publish yet");
    settle(&mut copies, Some(&main), &jwks("one"));
    assert!(visit(&copies, Some(&main), &[]).writes.is_empty());
}

#[test]
fn keys_that_are_over_leave_the_copies_too() {
    let mut copies = Copies {
        namespaces: places(&["a"]),
        ..Copies::default()
    };
    let main = ring("main", 0, "[{namespaces: [a], keys: [k]}]");
    settle(&mut copies, Some(&main), &jwks("one"));
    let settings = settings();
    let (mut decision, of) = (Decision::default(), ("main", Some(&main)));
    let (when, none) = ((&settings, now()), Conditions::default());
    decide(&copies, of, Some(&[]), when, none, &mut decision);
    let [Write::Aside(write)] = &*decision.writes else {
        panic!("{:?}", decision.writes)
    };
    let Write::Replace(Object::ConfigMap(map), _) = &**write else {
        panic!("{write:?}")
    };
    let no = BTreeMap::new();
    assert_eq!(map.data.as_ref().unwrap_or(&no)["k"], r#"{"keys":[]}"#);
}

#[test]
fn a_refused_write_waits_and_is_told() {
    let place = ("a".to_owned(), "main-jwks".to_owned());
    let main = ring("main", 0, "[{namespaces: [a, b]}]");
    for (until, writes) in [(1, 1), (0, 2)] {
        let until = now()
            .saturating_add(SignedDuration::from_secs(until))
            .expect("a time");
        let message = "exceeded quota.".to_owned();
        let copies = Copies {
            namespaces: places(&["a", "b"]),
            refused: BTreeMap::from([(place.clone(), Refused { message, until })]),
            ..Copies::default()
        };
        let told = visit(&copies, Some(&main), &jwks("one"));
        assert_eq!(told.writes.len(), writes);
        assert_eq!(told.wake_at, (writes == 1).then_some(until));
        says(
            &told,
            false,
            r::WRITE_REFUSED,
            "ConfigMap a/main-jwks was refused by the API server, and is tried again: exceeded quota.",
        );
    }
}

#[test]
fn many_are_written_in_batches_and_many_troubles_told_in_short() {
    let names: Vec<String> = (0..500).map(|n| format!("team-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut copies = Copies {
        namespaces: places(&names),
        ..Copies::default()
    };
    let main = ring("main", 0, "[{namespaceSelector: {}}]");
    let told = visit(&copies, Some(&main), &jwks("one"));
    assert_eq!(told.writes.len(), MOST_WRITES);
    assert!(told.wake_at > Some(now()));
    let (told, written) = settle(&mut copies, Some(&main), &jwks("one"));
    assert_eq!(written.len(), 500);
    says(&told, true, r::SUCCEEDED, "500 ConfigMaps");
    for map in copies.maps.values_mut() {
        Arc::make_mut(map).metadata.annotations = None;
    }
    let told = visit(&copies, Some(&main), &jwks("one"));
    says(&told, false, r::CONFIG_MAP_NAME_CONFLICT, "And 495 more.");
}

mod any {
    use proptest::prelude::*;

    use super::*;

    fn publish() -> impl Strategy<Value = String> {
        let entry = (
            prop::sample::select(vec!["", "configMapName: x, ", "configMapName: z, "]),
            prop::sample::subsequence(vec!["a", "b", "c", "absent", OPERATOR], 1..4),
            prop::sample::select(vec![
                "",
                "namespaceSelector: {}, ",
                "namespaceSelector: {matchLabels: {name: b}}, ",
            ]),
            prop::sample::select(vec!["[jwks]", "[jwks, k]"]),
        );
        prop::collection::vec(entry, 0..4).prop_map(|entries| {
            let entries = entries.iter().map(|(name, namespaces, selector, keys)| {
                format!(
                    "{{{name}namespaces: [{}], {selector}keys: {keys}}}",
                    namespaces.join(", ")
                )
            });
            format!("[{}]", entries.collect::<Vec<_>>().join(", "))
        })
    }

    proptest! {
        /// Two rings whose specs change as they please, on one cluster: it always comes to rest, each
        /// copy has one owner, what is foreign is as it was, and after the rings nothing is left.
        #[test]
        fn two_rings_come_to_rest(
            specs in prop::collection::vec((publish(), publish()), 1..4),
            foreign in prop::sample::subsequence(vec![("a", "x"), ("b", "z"), ("c", "main-jwks")], 0..3),
        ) {
            let mut copies = Copies { namespaces: places(&["a", "b", "c", OPERATOR]), ..Copies::default() };
            for (namespace, name) in &foreign {
                let place = ((*namespace).to_owned(), (*name).to_owned());
                let mut map = ConfigMap::default();
                map.metadata.namespace = Some(place.0.clone());
                map.metadata.name = Some(place.1.clone());
                copies.maps.insert(place, Arc::new(map));
            }
            for (of_main, of_other) in specs.iter().chain([&("[]".into(), "[]".into())]) {
                let rings = [ring("main", 1, of_main), ring("other", 2, of_other)];
                let mut rest = false;
                for _ in 0..10 {
                    rest = true;
                    for (n, ring) in rings.iter().enumerate() {
                        copies.rivals = vec![Arc::new(rings[1 - n].clone())];
                        let (_, written) = settle(&mut copies, Some(ring), &jwks(&ring.name_any()));
                        rest &= written.is_empty();
                    }
                    if rest { break }
                }
                prop_assert!(rest, "they fight");
                let no = BTreeMap::new();
                let wanted: Vec<_> = rings.iter().map(|r| targets(r, &copies.namespaces, OPERATOR)).collect();
                for (place, map) in &copies.maps {
                    prop_assert!(place.0 != OPERATOR);
                    if foreign.contains(&(&place.0, &place.1)) {
                        prop_assert_eq!(&map.data, &None);
                        continue;
                    }
                    let owner = usize::from(!wanted[0].contains_key(place));
                    prop_assert!(wanted[owner].contains_key(place));
                    prop_assert!(map.data.as_ref().unwrap_or(&no)["jwks"].contains(&rings[owner].name_any()));
                }
                for place in wanted.iter().flat_map(BTreeMap::keys) {
                    prop_assert!(copies.maps.contains_key(place));
                }
            }
            prop_assert_eq!(copies.maps.len(), foreign.len());
        }
    }
}
