//! The decisions on secrets that are delivered once, visit for visit.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use zeroize::Zeroizing;

use super::super::{Companionship, DeliverySeen, Seen, Workload, decide};
use crate::api::v1alpha1::{
    CLAIM_ANNOTATION, CredentialState, Delivery, ROTATE_ANNOTATION, SealedBy, SealedStatus,
    TechnicalUser, TechnicalUserStatus,
};
use crate::controllers::{Fill, Object, Write};
use crate::crypto::age::Identity;
use crate::domain::client::StoredCredential;
use crate::domain::moment::Moment;
use crate::domain::reasons as r;
use crate::domain::settings::Settings;
use crate::domain::subscription::{Allowed, SubscriptionFacts};
use crate::domain::tier::Entitlements;
use crate::objects::credentials::{self, Stored};
use crate::objects::{Ownership, delivery};
use crate::tenancy::Tenancy;

/// A technical user with what the operator has made of it.
struct Desk {
    user: TechnicalUser,
    hashes: Option<Secret>,
    /// A delivered Secret, and the id of the client secret that it proves.
    delivered: Option<(Secret, String)>,
    now: Timestamp,
    sure: bool,
    /// The secrets that were made: their id, and whom they were sealed to.
    made: Vec<(String, Option<String>)>,
    /// The reasons of events.
    told: Vec<&'static str>,
}

fn recipient() -> String {
    Identity::generate().recipient().to_string()
}

fn subscription() -> SubscriptionFacts {
    SubscriptionFacts {
        namespace: "acme".into(),
        name: "main".into(),
        created: Timestamp::UNIX_EPOCH,
        uid: "uid".into(),
        environment: "default".into(),
        legal_entity_id: "acme".into(),
        legal_entity_name: "Acme".into(),
        tier: "Free".into(),
        allowed: Allowed {
            audiences: vec!["a".into()],
            ..Allowed::default()
        },
        entitlements: Entitlements::new(),
        period_from: None,
        period_to: None,
    }
}

impl Desk {
    fn new(secret: &serde_json::Value) -> Self {
        let user = json!({
            "apiVersion": "chancery.dev/v1alpha1", "kind": "TechnicalUser",
            "metadata": {"name": "user", "namespace": "acme", "uid": "uid", "generation": 1, "resourceVersion": "0"},
            "spec": {"audiences": ["a"], "credential": {"secret": secret}},
        });
        Self {
            user: serde_json::from_value(user).expect("valid"),
            hashes: None,
            delivered: None,
            now: Timestamp::from_second(1_800_000_000).expect("a time"),
            sure: true,
            made: Vec::new(),
            told: Vec::new(),
        }
    }

    /// One that was claimed, by that key.
    fn claimed() -> (Self, String) {
        let mut desk = Self::new(&json!({"delivery": "OneTime"}));
        let key = recipient();
        desk.annotate(CLAIM_ANNOTATION, &key);
        desk.settle();
        assert_eq!(desk.made, [("1".into(), Some(key.clone()))]);
        (desk, key)
    }

    fn annotate(&mut self, name: &str, value: &str) {
        let annotations = self.user.metadata.annotations.get_or_insert_default();
        annotations.insert(name.into(), value.into());
    }

    fn secret(&mut self) -> &mut crate::api::v1alpha1::SecretCredential {
        let secret = &mut self.user.spec.credential.secret;
        secret.as_mut().expect("a client secret")
    }

    fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
        self.settle();
    }

    fn status(&self) -> TechnicalUserStatus {
        self.user.status.clone().unwrap_or_default()
    }

    /// The reason and the sentence of a condition that is true.
    fn holds(&self, kind: &str) -> Option<(String, String)> {
        let conditions = self.status().conditions;
        let mut found = conditions
            .into_iter()
            .filter(|c| c.type_ == kind && c.status == "True");
        found.next().map(|c| (c.reason, c.message))
    }

    fn states(&self) -> Vec<CredentialState> {
        self.status().credentials.iter().map(|c| c.state).collect()
    }

    fn shown_to(&self) -> Option<String> {
        self.status().sealed.map(|s| s.recipient)
    }

    fn settle(&mut self) {
        for _ in 0..20 {
            if !self.visit(usize::MAX) {
                return;
            }
            self.now += SignedDuration::from_millis(1);
        }
        panic!("it does not settle");
    }

    /// One visit, of which so many writes are done; whether there was any.
    fn visit(&mut self, most: usize) -> bool {
        let stored = self
            .hashes
            .as_ref()
            .map(credentials::read)
            .unwrap_or_default();
        let deliveries = self.delivered.iter().map(|(secret, id)| DeliverySeen {
            secret: Arc::new(secret.clone()),
            ownership: Ownership::Ours,
            plain: Some((
                Zeroizing::new("plain".into()),
                stored
                    .iter()
                    .any(|s| s.credential.id == *id)
                    .then(|| id.clone()),
            )),
        });
        let mut tenancy = Tenancy::default();
        tenancy.environments.insert("acme".into(), "default".into());
        tenancy.sound.insert("acme".into(), vec![subscription()]);
        let seen = Seen {
            user: Some(Arc::new(self.user.clone())),
            tenancy: Arc::new(tenancy),
            rings: vec!["main".into()],
            hashes: self.hashes.clone().map(Arc::new),
            deliveries: deliveries.collect(),
            made: None,
            supplied: Vec::new(),
            others_wait: None,
            workload: Workload::default(),
            companionship: Companionship::default(),
        };
        let settings = Settings {
            issuer: "http://127.0.0.1:8080".into(),
            ..Settings::default()
        };
        let (now, sure) = (self.now, self.sure);
        let decision = decide(&seen, &settings, Moment { now, sure });
        let writes = decision.writes.into_iter();
        let mut done = 0;
        for write in writes {
            if let Write::Event(note) = write {
                self.told.push(note.reason);
                continue;
            }
            if done == most {
                break;
            }
            done += 1;
            self.write(write);
        }
        done > 0
    }

    fn write(&mut self, write: Write) {
        match write {
            Write::Status { status, .. } => {
                self.user.status = serde_json::from_value(status).expect("a status");
            }
            Write::Delete(Object::Secret(s)) if s.metadata.namespace.as_deref() == Some("acme") => {
                self.delivered = None;
            }
            Write::Create(Object::Secret(s), fill) | Write::Replace(Object::Secret(s), fill) => {
                let mut secret = *s;
                match fill {
                    Fill::NewHash {
                        id,
                        cause,
                        handled,
                        seal,
                        now,
                        ..
                    } => {
                        let credential = StoredCredential {
                            id: id.clone(),
                            hash: format!("hash {}", self.made.len()),
                            created_at: now,
                            expires_at: None,
                        };
                        let mut new = Stored::new(credential, cause, handled);
                        let to = seal.as_ref().map(|to| to.recipient.to_string());
                        new.known.sealed = seal.map(|to| SealedStatus {
                            credential_id: id.clone(),
                            recipient: to.recipient.to_string(),
                            by: to.by,
                            sealed_at: Time(now),
                            ciphertext: format!("sealed {}", self.made.len()),
                        });
                        credentials::put(&mut secret, new);
                        self.made.push((id, to));
                        self.hashes = Some(secret);
                    }
                    Fill::NewSecret(under) => {
                        delivery::fill(&mut secret, &under, "plain");
                        let (id, _) = self.made.last().cloned().expect("made before");
                        self.delivered = Some((secret, id));
                    }
                    Fill::Secret(under, plain) => {
                        delivery::fill(&mut secret, &under, &plain);
                        let id = delivery::credential_id(&secret).expect("an id").to_owned();
                        self.delivered = Some((secret, id));
                    }
                    _ => self.hashes = Some(secret),
                }
            }
            Write::TryOut(_) => {}
            other => panic!("it writes {other:?}"),
        }
    }
}

#[test]
fn nothing_is_made_before_it_is_claimed() {
    let mut desk = Desk::new(&json!({"delivery": "OneTime"}));
    desk.settle();
    assert!(desk.made.is_empty() && desk.hashes.is_none());
    let (reason, told) = desk.holds("Reconciling").expect("told");
    assert_eq!(reason, r::CLAIM_AWAITED);
    assert!(
        told.contains("kubectl chancery claim user -n acme"),
        "{told}"
    );
    assert_eq!(desk.told, [r::CLAIM_AWAITED], "once");

    // The hash, and the sealed text with it, in one write: whatever dies after it loses nothing.
    let key = recipient();
    desk.annotate(CLAIM_ANNOTATION, &key);
    assert!(desk.visit(1));
    assert_eq!(desk.shown_to(), None, "died before status was written");
    desk.settle();
    assert_eq!(
        desk.made,
        [("1".into(), Some(key.clone()))],
        "no second one"
    );
    assert_eq!(desk.states(), [CredentialState::Active]);
    let sealed = desk.status().sealed.expect("shown");
    assert_eq!((sealed.by, &sealed.recipient), (SealedBy::Claim, &key));
    assert_eq!(
        desk.delivered.is_none(),
        desk.status().secret_name.is_none()
    );

    // A restore drops status: it is as it was.
    let before = desk.status();
    desk.user.status = None;
    desk.settle();
    assert_eq!(desk.status().sealed, before.sealed);
    assert_eq!(desk.status().last_handled_claim, Some(key));
    assert_eq!(desk.made.len(), 1);
}

#[test]
fn a_claim_counts_for_one_client_secret() {
    let (mut desk, first) = Desk::claimed();
    let second = recipient();
    desk.annotate(CLAIM_ANNOTATION, &second);
    desk.settle();
    assert_eq!(
        desk.shown_to(),
        Some(first.clone()),
        "what is sealed stays so"
    );
    assert_eq!(
        desk.told.iter().filter(|t| **t == r::CLAIM_REFUSED).count(),
        1
    );

    // Neither of both has the next one.
    desk.annotate(ROTATE_ANNOTATION, "lost");
    for before in [&second, &first] {
        desk.annotate(CLAIM_ANNOTATION, before);
        desk.settle();
        assert_eq!(desk.made.len(), 1);
        let (reason, told) = desk.holds("RotationPaused").expect("told");
        assert_eq!(reason, r::CLAIM_AWAITED);
        assert!(told.contains("as a rotation was asked for"), "{told}");
        assert_eq!(
            desk.states(),
            [CredentialState::Active],
            "the old one works"
        );
    }
    let third = recipient();
    desk.annotate(CLAIM_ANNOTATION, &third);
    desk.settle();
    assert_eq!(desk.made[1..], [("2".into(), Some(third.clone()))]);
    assert_eq!(
        desk.states(),
        [CredentialState::Active, CredentialState::Next]
    );
    assert_eq!(desk.shown_to(), Some(first), "until servers know of it");
    assert_eq!(desk.status().last_handled_claim, Some(third.clone()));
    // Another one that comes in between is too late.
    let late = recipient();
    desk.annotate(CLAIM_ANNOTATION, &late);
    desk.pass(2);
    assert_eq!(desk.shown_to(), Some(third));
    assert_eq!(
        desk.states(),
        [CredentialState::Retired, CredentialState::Active]
    );
    assert_eq!(desk.made.len(), 2);
    assert_eq!(desk.status().last_handled_rotation.as_deref(), Some("lost"));
    desk.pass(24 * 3600);
    assert_eq!(desk.states(), [CredentialState::Active]);
    assert_eq!(desk.made.len(), 2);
}

/// What came with a manifest, or from a backup, was made for a resource that is no more, and its key is gone.
#[test]
fn a_claim_is_for_one_resource() {
    let mut desk = Desk::new(&json!({"delivery": "OneTime"}));
    let (old, new) = (recipient(), recipient());
    desk.annotate(CLAIM_ANNOTATION, &format!("{old}@another"));
    desk.settle();
    assert!(desk.made.is_empty());
    assert!(
        desk.holds("Reconciling")
            .is_some_and(|(reason, _)| reason == r::CLAIM_AWAITED)
    );
    let claim = desk.user.claim_for(&new);
    assert!(claim.len() > new.len());
    desk.annotate(CLAIM_ANNOTATION, &claim);
    desk.settle();
    assert_eq!(desk.made, [("1".into(), Some(new.clone()))]);
    assert_eq!(desk.status().last_handled_claim, Some(new.clone()));
    // Nor does it count a second time, however it is written.
    desk.annotate(ROTATE_ANNOTATION, "lost");
    for again in [&claim, &new] {
        desk.annotate(CLAIM_ANNOTATION, again);
        desk.settle();
        assert_eq!(desk.made.len(), 1);
    }
}

#[test]
fn the_spec_goes_before_a_claim() {
    let (spec, claim) = (recipient(), recipient());
    let mut desk = Desk::new(&json!({"delivery": "OneTime", "recipient": spec}));
    desk.annotate(CLAIM_ANNOTATION, &claim);
    desk.settle();
    assert_eq!(desk.made, [("1".into(), Some(spec))]);
    // Another recipient asks for nothing by itself.
    let other = recipient();
    desk.secret().recipient = Some(other.clone());
    desk.settle();
    assert_eq!(desk.made.len(), 1);
    desk.annotate(ROTATE_ANNOTATION, "now");
    desk.settle();
    assert_eq!(desk.made[1..], [("2".into(), Some(other))]);
    // The claim that lost does not have the next one.
    desk.pass(2);
    desk.secret().recipient = None;
    desk.annotate(ROTATE_ANNOTATION, "again");
    desk.settle();
    assert_eq!(desk.made.len(), 2);
    assert!(desk.holds("RotationPaused").is_some());
}

#[test]
fn by_the_clock_only_with_a_recipient() {
    let rotation = json!({"interval": "240h", "gracePeriod": "1h"});
    let key = recipient();
    let mut desk =
        Desk::new(&json!({"delivery": "OneTime", "recipient": key, "rotation": rotation}));
    desk.settle();
    desk.pass(240 * 3600);
    desk.pass(2);
    assert_eq!(
        desk.states(),
        [CredentialState::Retired, CredentialState::Active]
    );
    assert_eq!(desk.made.len(), 2);

    // By claim the old one works on past its interval.
    let mut desk = Desk::new(&json!({"delivery": "OneTime", "rotation": rotation}));
    desk.annotate(CLAIM_ANNOTATION, &key);
    desk.settle();
    desk.pass(1000 * 3600);
    assert_eq!(desk.states(), [CredentialState::Active]);
    let (_, told) = desk.holds("RotationPaused").expect("told");
    assert!(told.contains("as its turn has come"), "{told}");
    assert_eq!(
        desk.told.iter().filter(|t| **t == r::CLAIM_AWAITED).count(),
        1
    );
    // What is not due by a clock that can be relied upon is neither granted nor refused.
    desk.sure = false;
    let other = recipient();
    desk.annotate(CLAIM_ANNOTATION, &other);
    desk.settle();
    assert_eq!(desk.made.len(), 1);
    desk.sure = true;
    desk.settle();
    assert_eq!(desk.made[1..], [("2".into(), Some(other))]);
}

#[test]
fn what_is_no_key_is_told() {
    // The checksum is wrong.
    let wrong = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8q";
    let mut desk = Desk::new(&json!({"delivery": "OneTime", "recipient": wrong}));
    desk.settle();
    let (reason, told) = desk.holds("Stalled").expect("told");
    assert_eq!(reason, r::INVALID_SPEC);
    assert!(told.contains(wrong) && told.contains("checksum"), "{told}");
    desk.secret().recipient = Some(recipient());
    desk.settle();
    assert_eq!((desk.made.len(), desk.holds("Stalled")), (1, None));
    // Nobody is asked to claim what could not be claimed.
    desk.secret().recipient = Some(wrong.into());
    desk.annotate(ROTATE_ANNOTATION, "now");
    desk.settle();
    let (reason, told) = desk.holds("RotationPaused").expect("told");
    assert_eq!(reason, r::INVALID_SPEC);
    assert!(
        told.contains("once spec.credential.secret.recipient is"),
        "{told}"
    );
    assert!(!desk.told.contains(&r::CLAIM_AWAITED));

    let mut desk = Desk::new(&json!({"delivery": "OneTime"}));
    desk.annotate(CLAIM_ANNOTATION, "me");
    desk.settle();
    let (_, told) = desk.holds("Stalled").expect("told");
    assert!(told.contains("kubectl chancery claim"), "{told}");
    assert!(desk.made.is_empty());
}

#[test]
fn from_a_delivered_secret_and_back_without_an_outage() {
    let mut desk = Desk::new(&json!({}));
    desk.settle();
    assert_eq!(desk.states(), [CredentialState::Active]);
    assert_eq!(desk.made, [("1".into(), None)]);
    desk.secret().delivery = Delivery::OneTime;
    desk.settle();
    assert_eq!(
        desk.states(),
        [CredentialState::Active],
        "until it is claimed"
    );
    assert!(desk.delivered.is_some() && desk.status().secret_name.is_some());
    assert!(desk.holds("RotationPaused").is_some());
    let key = recipient();
    desk.annotate(CLAIM_ANNOTATION, &key);
    desk.settle();
    desk.pass(2);
    assert_eq!(
        desk.states(),
        [CredentialState::Retired, CredentialState::Active]
    );
    assert!(desk.delivered.is_some(), "it works, so it stands there");
    desk.pass(24 * 3600);
    assert_eq!(desk.states(), [CredentialState::Active]);
    assert!(desk.delivered.is_none(), "nothing plain is left");

    desk.secret().delivery = Delivery::Secret;
    desk.visit(usize::MAX);
    assert_eq!(desk.made.len(), 3);
    assert_eq!(desk.shown_to(), Some(key), "it works on");
}

#[test]
fn revoked_stays_revoked() {
    let (mut desk, _) = Desk::claimed();
    let revoked = crate::api::v1alpha1::RevokedStatus {
        at: Time(desk.now),
        reason: r::REVOKED_BY_DEVICE.into(),
        rotate: None,
    };
    credentials::set_revoked(desk.hashes.as_mut().expect("hashes"), Some(&revoked));
    desk.settle();
    assert_eq!(desk.shown_to(), None, "nor is what was sealed kept");
    desk.annotate(CLAIM_ANNOTATION, &recipient());
    desk.settle();
    assert_eq!(desk.made.len(), 1);
    assert_eq!(desk.holds("Stalled").expect("told").0, r::REVOKED_BY_DEVICE);
    // Found again: the claim that waits has it.
    desk.annotate(ROTATE_ANNOTATION, "found");
    desk.settle();
    assert_eq!(desk.made.len(), 2);
    assert_eq!(desk.states(), [CredentialState::Active]);
}
