//! What is brought home, in which order, and what is refused.

use super::*;

const NOW: i64 = 1_800_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).expect("a time")
}

fn settings() -> Settings {
    Settings {
        issuer: "https://id.example.com".into(),
        ..Settings::default()
    }
}

/// Both maps, as they stand with these shares.
fn seen(outbox: &[(&str, String)], list: &[(&str, String)]) -> Seen {
    let settings = settings();
    let with = |mut map: ConfigMap, shares: &[(&str, String)]| {
        let data: BTreeMap<_, _> = shares
            .iter()
            .map(|(tenant, text)| ((*tenant).to_owned(), text.clone()))
            .collect();
        map.data = (!data.is_empty()).then_some(data);
        map.metadata.resource_version = Some("7".into());
        Some(map)
    };
    Seen {
        outbox: with(revocations::outbox(&settings), outbox),
        list: with(revocations::list(&settings), list),
        lost: Revocations::default(),
        tenancy: Arc::default(),
        devices: Vec::new(),
    }
}

fn share(client: &str, id: &str, expires: i64) -> String {
    format!(
        r#"{{"{client}":{{"tokens":{{"{id}":[{},{expires}]}}}}}}"#,
        NOW - 10
    )
}

/// The writes in their order, each in a few words.
fn told(seen: &Seen) -> (Vec<String>, Option<Timestamp>) {
    let decision = decide(seen, &settings(), now());
    let words = |write: &Write| match write {
        Write::Create(Object::ConfigMap(map), _) => {
            format!(
                "create {}",
                map.metadata.name.as_deref().unwrap_or_default()
            )
        }
        Write::Replace(Object::ConfigMap(map), _) => format!(
            "replace {} with {:?}",
            map.metadata.name.as_deref().unwrap_or_default(),
            map.data
                .as_ref()
                .map(|data| data.keys().collect::<Vec<_>>())
        ),
        Write::Event(note) => format!("{}: {}", note.reason, note.message),
        other => format!("{other:?}"),
    };
    let words = decision.writes.iter().map(words).collect();
    (words, decision.wake_at)
}

#[test]
fn both_are_made_where_there_is_neither() {
    let nothing = Seen {
        outbox: None,
        list: None,
        lost: Revocations::default(),
        tenancy: Arc::default(),
        devices: Vec::new(),
    };
    let (writes, wake_at) = told(&nothing);
    assert_eq!(
        writes,
        ["create chancery-revocations", "create chancery-outbox"]
    );
    assert_eq!(wake_at, None);
    assert_eq!(
        told(&seen(&[], &[])),
        (Vec::new(), None),
        "and then nothing"
    );
}

/// Servers that start just then would know of nothing else.
#[test]
fn a_list_that_is_deleted_is_made_again_as_it_was() {
    let remembered = Remembered::default();
    let share = share("acme.a", "one", NOW + 350);
    let mut stands = seen(&[], &[("acme", share.clone())]);
    let list = stands.list.as_mut().expect("a list");
    list.metadata.uid = Some("first".into());
    assert_eq!(remembered.compare(Some(list)), Revocations::default());
    list.data = None;
    let emptied = remembered.compare(Some(list));
    assert_eq!(emptied, Revocations::default(), "a person's decision");
    list.data = Some(BTreeMap::from([("acme".to_owned(), share)]));
    remembered.compare(Some(list));

    for deleted in [true, false] {
        // Deleted, or another one stands there already.
        let mut after = seen(&[], &[]);
        let list = after.list.as_mut().expect("a list");
        list.metadata.uid = Some("second".into());
        if deleted {
            after.list = None;
        }
        after.lost = remembered.compare(after.list.as_ref());
        let writes = decide(&after, &settings(), now()).writes;
        let written = writes.iter().find_map(|write| match write {
            Write::Create(Object::ConfigMap(map), _)
            | Write::Replace(Object::ConfigMap(map), _) => Some(map),
            _ => None,
        });
        let written = revocations::read(written.expect("a write")).0;
        assert_eq!(written, after.lost);
        assert!(written.0["acme"]["acme.a"].tokens.contains_key("one"));
    }
}

#[test]
fn the_list_is_written_before_the_outbox_is_emptied() {
    let noted = seen(&[("acme", share("acme.a", "one", NOW + 350))], &[]);
    let (writes, wake_at) = told(&noted);
    assert_eq!(
        writes,
        [
            "replace chancery-revocations with Some([\"acme\"])",
            "replace chancery-outbox with None"
        ]
    );
    let after = Timestamp::from_second(NOW + 365).expect("a time");
    assert_eq!(wake_at, Some(after));
    // After a crash in between: what is home is not written again.
    let one = share("acme.a", "one", NOW + 350);
    let (writes, _) = told(&seen(&[("acme", one.clone())], &[("acme", one)]));
    assert_eq!(writes, ["replace chancery-outbox with None"]);
}

#[test]
fn what_can_not_be_believed_is_taken_away_and_told() {
    let tampered = [
        ("acme", share("globex.a", "one", NOW + 350)),
        ("globex", "garbage".to_owned()),
    ];
    let (writes, _) = told(&seen(&tampered, &[]));
    assert_eq!(writes.len(), 3, "{writes:?}");
    assert_eq!(writes[0], "replace chancery-outbox with None");
    assert!(writes[1].starts_with("OutboxEntryRefused"), "{writes:?}");
    assert!(!writes[2].contains("garbage"), "nobody's words are quoted");
    // In the list too; what is sound in it stays.
    let list = [
        ("acme", share("acme.a", "one", NOW + 350)),
        ("globex", "x".to_owned()),
    ];
    let (writes, _) = told(&seen(&[], &list));
    assert!(writes[0].starts_with("OutboxEntryRefused"), "{writes:?}");
    assert_eq!(
        writes[1],
        "replace chancery-revocations with Some([\"acme\"])"
    );
}

#[test]
fn what_has_expired_leaves_the_list() {
    let list = [
        ("acme", share("acme.a", "one", NOW)),
        ("globex", share("globex.a", "two", NOW + 1)),
    ];
    let (writes, _) = told(&seen(&[], &list));
    assert_eq!(
        writes,
        ["replace chancery-revocations with Some([\"globex\"])"]
    );
}

#[test]
fn without_their_labels_they_are_put_right() {
    let mut stripped = seen(&[], &[]);
    for map in [&mut stripped.outbox, &mut stripped.list] {
        map.as_mut().expect("it is there").metadata.labels = None;
    }
    assert_eq!(
        told(&stripped).0,
        [
            "replace chancery-revocations with None",
            "replace chancery-outbox with None"
        ]
    );
}

/// A device that has noted that it revoked itself.
fn phone(rotate: &str, hashes: Option<Secret>) -> DeviceSeen {
    let user = serde_json::json!({
        "apiVersion": "chancery.dev/v1alpha1", "kind": "TechnicalUser",
        "metadata": {
            "name": "phone", "namespace": "acme", "uid": "u-1",
            "annotations": {ROTATE_ANNOTATION: rotate},
        },
        "spec": {"family": "Device", "audiences": ["a"], "credential": {"secret": {}}},
    });
    DeviceSeen {
        user: Some(serde_json::from_value(user).expect("a device")),
        hashes,
        noted: Device {
            tenant: "acme".into(),
            client_id: "acme.phone".into(),
            at: NOW,
        },
    }
}

/// Once the device is back, an outbox that could not be emptied before does not revoke it again; a
/// revocation that came later does.
#[test]
fn what_was_brought_home_is_not_brought_home_again() {
    for (last, revoked) in [(NOW - 1, true), (NOW, false), (NOW + 1, false)] {
        let mut device = phone("found", None);
        let user = device.user.as_ref().expect("a device");
        let mut hashes = credentials::hashes_template(user, &settings());
        let last = Timestamp::from_second(last).expect("a time");
        credentials::set_last_revocation(&mut hashes, last);
        device.hashes = Some(hashes);
        let mut decision = Decision::default();
        assert_eq!(revoke_device(&device, &settings(), &mut decision), None);
        assert_eq!(!decision.writes.is_empty(), revoked, "{last}");
    }
}

#[test]
fn what_a_tenant_wrote_into_an_annotation_keeps_no_note_from_being_written() {
    for (rotate, kept) in [("one", Some("one")), (&*"\"".repeat(200_000), None)] {
        let mut decision = Decision::default();
        assert_eq!(
            revoke_device(&phone(rotate, None), &settings(), &mut decision),
            None
        );
        let [Write::Create(Object::Secret(noted), _)] = &decision.writes[..] else {
            panic!("{:?}", decision.writes.len());
        };
        let revoked = credentials::revoked(noted).expect("revoked");
        assert_eq!(revoked.rotate.as_deref(), kept);
    }
}
