//! One technical user, its Secrets, and a process that dies.

use std::collections::BTreeMap;
use std::sync::Arc;

use chancery::api::v1alpha1::{Delivery, SecretCredential, SuppliedRef, TechnicalUser};
use chancery::controllers::secrets::{
    Companionship, DeliverySeen, Found, MadeSeen, Seen, SuppliedSeen, Workload, decide,
};
use chancery::controllers::{Decision, Fill, Object, Write};
use chancery::domain::client::StoredCredential;
use chancery::domain::moment::Moment;
use chancery::domain::settings::Settings;
use chancery::objects::credentials::{self, SourceOf, Stored};
use chancery::objects::{delivery, ownership};
use chancery::tenancy::Tenancy;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use serde_json::json;
use zeroize::Zeroizing;

use super::onlooker::{Onlooker, hash_of};

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The process dies before it.
    KilledBefore,
    /// The process dies after it.
    KilledAfter,
    /// It is done, and the process does not learn of it.
    AnswerLost,
}

/// What a person, or fate, does.
#[derive(Clone, Copy, Debug)]
pub enum Deed {
    Look,
    Interval(Option<i64>),
    Grace(i64),
    Rotate(&'static str),
    Rename(&'static str),
    Move(&'static str),
    DeleteDelivered,
    Alter,
    /// A client secret is supplied, in the place of one that was supplied before or generated.
    Supply(&'static str),
    /// Where it is supplied, nothing is to be seen any more.
    Lose,
    /// The operator generates again.
    Generate,
    /// The clock is off by so much, and known to be.
    Jump(i64),
}

/// Status tells times in whole seconds.
const SECOND: SignedDuration = SignedDuration::from_secs(1);

struct Made {
    id: String,
    hash: String,
    plain: String,
    since: Timestamp,
}

pub struct World {
    user: TechnicalUser,
    hashes: Option<Secret>,
    delivered: BTreeMap<String, Secret>,
    made: Option<Made>,
    /// What a person supplies.
    supplied: Option<&'static str>,
    now: Timestamp,
    begun: Timestamp,
    offset: i64,
    version: u64,
    secrets: usize,
    seen: Onlooker,
    fates: Vec<(usize, Fate)>,
    tamper: fn(&mut Decision),
    wake_at: Option<Timestamp>,
    /// How many writes were tried.
    pub writes: usize,
    /// What was told: reasons and sentences of events.
    pub told: Vec<(&'static str, String)>,
}

/// Where a person supplies a client secret.
fn place() -> SuppliedRef {
    SuppliedRef {
        name: "mine".into(),
        key: None,
        format: None,
    }
}

/// How a visit ended.
#[derive(PartialEq, Eq)]
enum End {
    Idle,
    Wrote,
}

impl World {
    pub fn new(fates: &[(usize, Fate)], tamper: fn(&mut Decision)) -> Self {
        let user = json!({
            "apiVersion": "chancery.dev/v1alpha1", "kind": "TechnicalUser",
            "metadata": {"name": "user", "namespace": "acme", "uid": "uid", "generation": 1, "resourceVersion": "0"},
            "spec": {"audiences": ["a"], "credential": {"secret": {}}},
        });
        let begun = Timestamp::from_second(1_800_000_000).expect("a time");
        Self {
            user: serde_json::from_value(user).expect("valid"),
            hashes: None,
            delivered: BTreeMap::new(),
            made: None,
            supplied: None,
            now: begun,
            begun,
            offset: 0,
            version: 0,
            secrets: 0,
            seen: Onlooker::new(24 * 3600),
            fates: fates.to_vec(),
            tamper,
            wake_at: None,
            writes: 0,
            told: Vec::new(),
        }
    }

    /// Seconds since it began.
    pub fn second(&self) -> i64 {
        self.now.duration_since(self.begun).as_secs()
    }

    pub fn act(&mut self, deed: Deed) {
        let secret = self.user.spec.credential.secret.get_or_insert_default();
        let period = |seconds: i64| {
            format!("{}h{}m{}s", seconds / 3600, seconds / 60 % 60, seconds % 60)
                .parse()
                .ok()
        };
        match deed {
            Deed::Look => {}
            Deed::Interval(seconds) => {
                secret.rotation.get_or_insert_default().interval = seconds.and_then(period);
            }
            Deed::Grace(seconds) => {
                secret.rotation.get_or_insert_default().grace_period = period(seconds);
                self.seen.grace(seconds);
            }
            Deed::Rotate(value) => {
                let annotations = self.user.metadata.annotations.get_or_insert_default();
                annotations.insert("chancery.dev/rotate".into(), value.into());
                if !value.is_empty() {
                    self.seen.asked.insert(value);
                }
            }
            Deed::Rename(key) => secret.keys.client_secret = key.into(),
            Deed::Move(name) => secret.secret_name = Some(name.into()),
            Deed::DeleteDelivered => {
                let name = self.user.secret_name();
                self.delivered.remove(&name);
            }
            Deed::Alter => {
                self.seen.tampered = true;
                let name = self.user.secret_name();
                if let Some(secret) = self.delivered.get_mut(&name) {
                    let key = &self.user.secret_keys().client_secret;
                    delivery::fill(secret, std::slice::from_ref(key), "made up");
                }
            }
            Deed::Supply(plain) => {
                secret.delivery = Delivery::Reference;
                secret.secret_refs = vec![place()];
                self.supplied = Some(plain);
                self.seen.made(plain);
                self.seen.tampered = true;
            }
            Deed::Lose => {
                self.supplied = None;
                self.seen.tampered = true;
            }
            Deed::Generate => {
                secret.delivery = Delivery::Secret;
                secret.secret_refs = Vec::new();
            }
            Deed::Jump(seconds) => self.offset = seconds,
        }
        self.version += 1;
        self.user.metadata.resource_version = Some(self.version.to_string());
    }

    fn moment(&self) -> Moment {
        let off = SignedDuration::from_secs(self.offset);
        Moment {
            now: self.now.saturating_add(off).expect("a time"),
            sure: self.offset == 0,
        }
    }

    /// On to that second, with whatever comes by the clock.
    pub fn pass_until(&mut self, second: i64) -> Result<(), String> {
        let until = self.begun + SignedDuration::from_secs(second);
        loop {
            let off = SignedDuration::from_secs(self.offset);
            let wake = self.wake_at.and_then(|at| at.checked_sub(off).ok());
            let wake = wake.unwrap_or(Timestamp::MAX);
            if wake > until {
                self.now = self.now.max(until);
                return Ok(());
            }
            self.now = wake.max(self.now + SignedDuration::from_millis(50));
            self.settle()?;
        }
    }

    /// Visits until nothing is left to do.
    pub fn settle(&mut self) -> Result<(), String> {
        for _ in 0..30 {
            if self.visit()? == End::Idle {
                self.seen.tampered = false;
                self.shows_what_works()?;
                return self.look();
            }
            self.now += SignedDuration::from_millis(20);
        }
        Err("it does not settle".into())
    }

    /// What holds when all graces are over.
    pub fn at_rest(&self) -> Result<(), String> {
        self.seen
            .at_rest(self.second(), &self.stored(), self.plain().as_deref())
    }

    fn stored(&self) -> Vec<Stored> {
        self.hashes
            .as_ref()
            .map(credentials::read)
            .unwrap_or_default()
    }

    /// What the holder finds.
    fn plain(&self) -> Option<String> {
        let spec = self.user.spec.credential.secret.as_ref();
        if spec.is_some_and(SecretCredential::is_supplied) {
            return self.supplied.map(str::to_owned);
        }
        let secret = self.delivered.get(&self.user.secret_name())?;
        let key = &self.user.secret_keys().client_secret;
        let value = secret.data.as_ref()?.get(key)?;
        String::from_utf8(value.0.clone()).ok()
    }

    fn look(&mut self) -> Result<(), String> {
        let (now, stored, plain) = (self.second(), self.stored(), self.plain());
        self.seen.look(now, &stored, plain.as_deref())
    }

    /// Once nothing is left to do: no delivered Secret, under whatever name, shows a client secret that does
    /// not work, and status tells until when those are there that are about to go.
    fn shows_what_works(&self) -> Result<(), String> {
        let stored = self.stored();
        let works = |plain: &str| stored.iter().any(|s| s.credential.hash == hash_of(plain));
        let status = self.user.status.clone().unwrap_or_default();
        for (name, secret) in &self.delivered {
            let data = secret.data.iter().flatten();
            let texts = data.filter_map(|(_, v)| String::from_utf8(v.0.clone()).ok());
            let mut dead = texts.filter(|t| t.starts_with("secret ") && !works(t));
            if let Some(plain) = dead.next() {
                return Err(format!("Secret {name} shows {plain}, which does not work"));
            }
            let named = status.secret_name.as_ref() == Some(name);
            let told = status.former_secrets.iter().find(|f| f.name == *name);
            let until = told.and_then(|f| f.until.as_ref());
            if !named && self.offset == 0 && until.is_none_or(|until| until.0 + SECOND < self.now) {
                return Err(format!(
                    "of Secret {name} status says {told:?}, at {}",
                    self.now
                ));
            }
        }
        Ok(())
    }

    /// Status names, and `Ready` claims, no supplied Secret that holds nothing which works.
    fn claims_what_works(&self) -> Result<(), String> {
        let status = self.user.status.as_ref();
        let told = status.and_then(|s| s.conditions.iter().find(|c| c.type_ == "Ready"));
        let told = told.map(|c| c.message.as_str()).unwrap_or_default();
        let works = self.stored().into_iter().any(|s| {
            let supplied = self.supplied.map(hash_of);
            s.life().may_sign() && Some(s.credential.hash) == supplied
        });
        let claimed = told.contains("with the client secret in Secret mine");
        let before = self
            .stored()
            .into_iter()
            .any(|s| s.life().may_sign() && s.known.source.is_some());
        let named = status.and_then(|s| s.secret_name.as_deref()) == Some("mine");
        if claimed && !works || named && !before {
            return Err(format!("status claims that Secret mine works: {told:?}"));
        }
        Ok(())
    }

    fn see(&self) -> Seen {
        let stored = self.stored();
        let deliveries = self.delivered.values().map(|secret| {
            let data = secret.data.iter().flatten();
            let texts = data.filter_map(|(_, v)| String::from_utf8(v.0.clone()).ok());
            let shaped: Vec<String> = texts.filter(|t| t.starts_with("secret ")).collect();
            let proof = shaped.iter().find_map(|plain| {
                let hit = stored
                    .iter()
                    .find(|s| s.credential.hash == hash_of(plain))?;
                Some((plain.clone(), Some(hit.credential.id.clone())))
            });
            let proof = proof.or_else(|| Some((shaped.first()?.clone(), None)));
            DeliverySeen {
                secret: Arc::new(secret.clone()),
                ownership: ownership(&secret.metadata, "uid"),
                plain: proof.map(|(plain, id)| (Zeroizing::new(plain), id)),
            }
        });
        let mut tenancy = Tenancy::default();
        tenancy.environments.insert("acme".into(), "default".into());
        let stands = |m: &&Made| {
            stored
                .iter()
                .any(|s| s.credential.id == m.id && s.credential.hash == m.hash)
        };
        Seen {
            user: Some(Arc::new(self.user.clone())),
            tenancy: Arc::new(tenancy),
            rings: vec!["main".into()],
            hashes: self.hashes.clone().map(Arc::new),
            deliveries: deliveries.collect(),
            made: self.made.as_ref().filter(stands).map(|m| MadeSeen {
                id: m.id.clone(),
                hash: m.hash.clone(),
                age: self.now.duration_since(m.since),
            }),
            supplied: self.see_supplied(),
            others_wait: None,
            workload: Workload::default(),
            companionship: Companionship::default(),
        }
    }

    fn see_supplied(&self) -> Vec<SuppliedSeen> {
        let spec = self.user.spec.credential.secret.as_ref();
        if !spec.is_some_and(SecretCredential::is_supplied) {
            return Vec::new();
        }
        let found = match self.supplied {
            None => Found::Missing("It is not there.".into()),
            Some(plain) => {
                let source = SourceOf {
                    secret: "mine".into(),
                    key: "client_secret".into(),
                    ..SourceOf::default()
                };
                let stored = self.stored();
                let same = stored.iter().find(|s| s.credential.hash == hash_of(plain));
                match same {
                    Some(same) => Found::Stored(same.credential.id.clone(), source),
                    None => Found::New(hash_of(plain), source, None),
                }
            }
        };
        vec![SuppliedSeen {
            place: place(),
            found,
        }]
    }

    fn visit(&mut self) -> Result<End, String> {
        let settings = Settings {
            issuer: "http://127.0.0.1:8080".into(),
            ..Settings::default()
        };
        let mut decision = decide(&self.see(), &settings, self.moment());
        (self.tamper)(&mut decision);
        self.wake_at = decision.wake_at;
        let mut end = End::Idle;
        for write in decision.writes {
            let write = match write {
                Write::TryOut(_) => continue,
                Write::Event(note) => {
                    self.told.push((note.reason, note.message));
                    continue;
                }
                write => write,
            };
            let of_status = matches!(write, Write::Status { .. });
            end = End::Wrote;
            let fate = self.fates.iter().find(|(at, _)| *at == self.writes);
            let fate = fate.map(|(_, fate)| *fate);
            self.writes += 1;
            if fate == Some(Fate::KilledBefore) {
                self.made = None;
                break;
            }
            let made = self.write(write);
            self.look()?;
            if of_status {
                self.claims_what_works()?;
            }
            match fate {
                Some(Fate::KilledAfter) => {
                    self.made = None;
                    break;
                }
                Some(_) => break,
                None => made.into_iter().for_each(|made| self.made = Some(made)),
            }
        }
        Ok(end)
    }

    /// Carries out a write; gives the secret that was made with it.
    fn write(&mut self, write: Write) -> Option<Made> {
        match write {
            Write::Create(Object::Secret(secret), fill)
            | Write::Replace(Object::Secret(secret), fill) => {
                let mut secret = *secret;
                let made = self.fill(&mut secret, fill);
                self.version += 1;
                secret.metadata.resource_version = Some(self.version.to_string());
                if secret.namespace().as_deref() == Some("acme") {
                    self.delivered.insert(secret.name_any(), secret);
                } else {
                    self.hashes = Some(secret);
                }
                made
            }
            Write::Delete(Object::Secret(secret)) => {
                if secret.namespace().as_deref() == Some("acme") {
                    self.delivered.remove(&secret.name_any());
                } else {
                    self.hashes = None;
                }
                None
            }
            Write::Status { status, .. } => {
                self.user.status = serde_json::from_value(status).ok();
                None
            }
            other => panic!("it writes {other:?}"),
        }
    }

    fn fill(&mut self, secret: &mut Secret, fill: Fill) -> Option<Made> {
        match fill {
            Fill::Nothing => None,
            Fill::NewHash {
                id,
                cause,
                handled,
                now,
                ..
            } => {
                self.secrets += 1;
                let plain = format!("secret {}", self.secrets);
                self.seen.made(&plain);
                let credential = StoredCredential {
                    id: id.clone(),
                    hash: hash_of(&plain),
                    created_at: now,
                    expires_at: None,
                };
                credentials::put(secret, Stored::new(credential, cause, handled));
                Some(Made {
                    id,
                    hash: hash_of(&plain),
                    plain,
                    since: self.now,
                })
            }
            Fill::NewSecret(under) => {
                let plain = self.made.as_ref().map(|m| m.plain.clone());
                delivery::fill(secret, &under, plain.as_deref().unwrap_or("nothing"));
                None
            }
            Fill::Secret(under, plain) => {
                delivery::fill(secret, &under, &plain);
                None
            }
            other => panic!("it fills in {other:?}"),
        }
    }
}
