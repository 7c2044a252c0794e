//! A technical user in memory, with what the operator makes of it: for tests of what is decided, visit for
//! visit.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use zeroize::Zeroizing;

use super::{Companionship, DeliverySeen, Found, Seen, SuppliedSeen, Workload, decide};
use crate::api::v1alpha1::{
    CLAIM_ANNOTATION, CredentialState, SealedStatus, TechnicalUser, TechnicalUserStatus,
};
use crate::controllers::{Fill, Object, Write};
use crate::crypto::age::Identity;
use crate::domain::client::StoredCredential;
use crate::domain::moment::Moment;
use crate::domain::rotation::Cause;
use crate::domain::settings::Settings;
use crate::domain::subscription::{Allowed, SubscriptionFacts};
use crate::domain::tier::Entitlements;
use crate::objects::credentials::{self, Stored};
use crate::objects::{Ownership, delivery};
use crate::tenancy::Tenancy;

/// A technical user with what the operator has made of it.
pub(super) struct Desk {
    pub(super) user: TechnicalUser,
    pub(super) hashes: Option<Secret>,
    /// A delivered Secret, and the id of the client secret that it proves.
    pub(super) delivered: Option<(Secret, String)>,
    pub(super) now: Timestamp,
    pub(super) sure: bool,
    /// The secrets that were made: their id, and whom they were sealed to.
    pub(super) made: Vec<(String, Option<String>)>,
    /// The reasons of events.
    pub(super) told: Vec<&'static str>,
    /// Which release serves its namespace; none: nobody.
    pub(super) environment: Option<&'static str>,
    /// What stands in each of the places that the spec names.
    pub(super) supplied: Option<fn() -> Found>,
}

pub(super) fn recipient() -> String {
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
    pub(super) fn new(secret: &serde_json::Value) -> Self {
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
            environment: Some("default"),
            supplied: None,
        }
    }

    /// One that was claimed, by that key.
    pub(super) fn claimed() -> (Self, String) {
        let mut desk = Self::new(&json!({"delivery": "OneTime"}));
        let key = recipient();
        desk.annotate(CLAIM_ANNOTATION, &key);
        desk.settle();
        assert_eq!(desk.made, [("1".into(), Some(key.clone()))]);
        (desk, key)
    }

    pub(super) fn annotate(&mut self, name: &str, value: &str) {
        let annotations = self.user.metadata.annotations.get_or_insert_default();
        annotations.insert(name.into(), value.into());
    }

    pub(super) fn secret(&mut self) -> &mut crate::api::v1alpha1::SecretCredential {
        let secret = &mut self.user.spec.credential.secret;
        secret.as_mut().expect("a client secret")
    }

    pub(super) fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
        self.settle();
    }

    pub(super) fn status(&self) -> TechnicalUserStatus {
        self.user.status.clone().unwrap_or_default()
    }

    /// The reason and the sentence of a condition that is true.
    pub(super) fn holds(&self, kind: &str) -> Option<(String, String)> {
        let conditions = self.status().conditions;
        let mut found = conditions
            .into_iter()
            .filter(|c| c.type_ == kind && c.status == "True");
        found.next().map(|c| (c.reason, c.message))
    }

    pub(super) fn states(&self) -> Vec<CredentialState> {
        self.status().credentials.iter().map(|c| c.state).collect()
    }

    pub(super) fn shown_to(&self) -> Option<String> {
        self.status().sealed.map(|s| s.recipient)
    }

    pub(super) fn settle(&mut self) {
        for _ in 0..20 {
            if !self.visit(usize::MAX) {
                return;
            }
            self.now += SignedDuration::from_millis(1);
        }
        panic!("it does not settle");
    }

    /// One visit, of which so many writes are done; whether there was any.
    pub(super) fn visit(&mut self, most: usize) -> bool {
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
        let secret = self.user.secret_credential();
        let places = secret.map(|secret| secret.secret_refs.clone());
        let supplied = places.into_iter().flatten().filter_map(|place| {
            let found = self.supplied?();
            Some(SuppliedSeen { place, found })
        });
        let supplied = supplied.collect();
        let mut tenancy = Tenancy::default();
        if let Some(environment) = self.environment {
            tenancy
                .environments
                .insert("acme".into(), environment.into());
            tenancy.sound.insert("acme".into(), vec![subscription()]);
        }
        let seen = Seen {
            user: Some(Arc::new(self.user.clone())),
            tenancy: Arc::new(tenancy),
            rings: vec!["main".into()],
            hashes: self.hashes.clone().map(Arc::new),
            deliveries: deliveries.collect(),
            made: None,
            supplied,
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
                    Fill::HashOf { id, now, .. } => {
                        let credential = StoredCredential {
                            hash: format!("hash of {id}"),
                            id,
                            created_at: now,
                            expires_at: None,
                        };
                        let stored = Stored::new(credential, Cause::First, None);
                        credentials::put(&mut secret, stored);
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
