//! A tenant with a device that may have a companion agent, and what a server makes of them: it follows the
//! same objects with watches of its own.

use chancery::api::v1alpha1::TechnicalUserStatus;
use chancery::crypto::hash;
use chancery::domain::client::Client as Known;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::scene::eventually;
use super::*;

pub const DEVICE: &str = "phone";
pub const AGENT: &str = "phone-agent";

/// An API server with a tenant and its device, and what a server knows of it.
pub struct Street {
    pub api: ApiServer,
    pub client: Client,
    feed: Feed,
    _watches: JoinSet<()>,
}

impl Street {
    pub async fn new(companion: Value) -> Self {
        let (api, client) = empty_world().await;
        let (stores, watches) = Stores::start(&client, &settings(), Scope::Server, Vec::new());
        stores.synced().await;
        let feed = Feed::new(
            stores,
            settings(),
            clock::system(),
            Readiness::waiting_for([]),
        );
        let street = Self {
            api,
            client,
            feed,
            _watches: watches,
        };
        let ring = json!({
            "apiVersion": "chancery.dev/v1alpha1", "kind": "SigningKey", "metadata": {"name": "main"},
            "spec": {"audience": "client", "algorithm": "ES256"},
        });
        let subscription = json!({
            "apiVersion": "chancery.dev/v1alpha1", "kind": "Subscription", "metadata": {"name": "acme"},
            "spec": {
                "legalEntity": {"id": "acme", "name": "Acme"}, "tier": "Free",
                "allowed": {"audiences": ["*"], "roles": ["*"], "scopes": ["*"]},
            },
        });
        street.make::<SigningKey>(OPERATOR, ring).await;
        street.make::<Subscription>(TENANT, subscription).await;
        let device = json!({
            "apiVersion": "chancery.dev/v1alpha1", "kind": "TechnicalUser", "metadata": {"name": DEVICE},
            "spec": {
                "family": "Device", "roles": ["clerk", "driver"], "scopes": ["read", "write"],
                "audiences": ["a", "b"], "companionAgent": companion,
                "credential": {"secret": {"rotation": {"gracePeriod": "0s"}}},
            },
        });
        street.make::<TechnicalUser>(TENANT, device).await;
        street
    }

    pub async fn make<K>(&self, namespace: &str, object: Value)
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + serde::de::DeserializeOwned
            + serde::Serialize
            + std::fmt::Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let object = serde_json::from_value(object).expect("valid");
        let made = api.create(&PostParams::default(), &object).await;
        made.expect("created");
    }

    pub fn users(&self) -> Api<TechnicalUser> {
        Api::namespaced(self.client.clone(), TENANT)
    }

    pub async fn patch(&self, name: &str, patch: Value) {
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        let patched = self.users().patch(name, &params, &patch).await;
        patched.expect("patched");
    }

    pub async fn delete(&self, name: &str) {
        let (users, params) = (self.users(), DeleteParams::default());
        let deleted = users.delete(name, &params).await;
        deleted.expect("deleted");
    }

    pub async fn rotate(&self, name: &str, value: &str) {
        let annotations = json!({"chancery.dev/rotate": value});
        self.patch(name, json!({"metadata": {"annotations": annotations}}))
            .await;
    }

    pub async fn status(&self, name: &str) -> Option<TechnicalUserStatus> {
        let user = self.users().get_opt(name).await.expect("an answer")?;
        let status = user.status?;
        (Some(status.observed_generation) == user.metadata.generation).then_some(status)
    }

    pub async fn ready(&self, name: &str) -> Option<TechnicalUserStatus> {
        let status = self.status(name).await?;
        let ready = |c: &Condition| c.type_ == "Ready" && c.status == "True";
        let settled = status.conditions.iter().any(ready) && status.secret_name.is_some();
        settled.then_some(status)
    }

    pub async fn secrets(&self, namespace: &str) -> Vec<Secret> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let secrets = secrets.list(&ListParams::default()).await;
        secrets.expect("a list").items
    }

    pub async fn delivered(&self, name: &str) -> Option<String> {
        let secrets = self.secrets(TENANT).await;
        let name = format!("{name}-credentials");
        let secret = secrets.into_iter().find(|s| s.name_any() == name)?;
        let plain = delivery::plain_secrets(&secret, "client_secret").pop()?;
        Some(plain.to_string())
    }

    pub async fn events(&self, reason: &str) -> Vec<String> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), TENANT);
        let events = events.list(&ListParams::default()).await.expect("a list");
        let of = events.items.into_iter();
        let of = of.filter(|e| e.reason.as_deref() == Some(reason));
        of.filter_map(|event| event.note).collect()
    }

    /// A client as a server knows it now.
    pub fn known(&mut self, name: &str) -> Option<Arc<Known>> {
        let snapshot = self.feed.build(None);
        snapshot.clients.get(&format!("acme.{name}")).cloned()
    }

    /// Whether a server takes that secret now.
    pub fn takes(&mut self, name: &str, plain: &str) -> bool {
        self.known(name).is_some_and(|client| {
            let mut hashes = client.credentials.iter();
            !client.suspended && hashes.any(|c| hash::verify(plain, &c.hash))
        })
    }

    /// As a server notes it, which the device asks.
    pub async fn revoke(&self) {
        self.revoke_these(&[DEVICE]).await;
    }

    /// The same of several; the first has a companion agent.
    pub async fn revoke_these(&self, devices: &[&str]) {
        let now = clock::system().now().as_second();
        let mut share = serde_json::Map::new();
        for name in [AGENT].iter().chain(devices) {
            let noted = json!({"before": now, "until": now + 360});
            share.insert(format!("acme.{name}"), noted);
        }
        for device in devices {
            share[&format!("acme.{device}")]["device"] = now.into();
        }
        let data = json!({"data": {TENANT: Value::Object(share).to_string()}});
        let (params, patch) = (PatchParams::default(), Patch::Merge(data));
        let patched = self.maps().patch("chancery-outbox", &params, &patch).await;
        patched.expect("noted");
    }

    fn maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), OPERATOR)
    }

    /// What stands in the outbox, if anything does.
    pub async fn outbox(&self) -> Option<std::collections::BTreeMap<String, String>> {
        self.maps()
            .get("chancery-outbox")
            .await
            .expect("there")
            .data
    }
}

/// An operator whose n-th write meets its fate, and the one that takes its place.
pub struct Mortal {
    running: Running,
    dead: mpsc::UnboundedReceiver<()>,
    pub writes: Arc<AtomicU64>,
}

impl Mortal {
    pub fn new(street: &Street, n: i64, fault: Fault) -> Self {
        let (faulty, dead) = faulty(&street.api, n, fault);
        let writes = faulty.writes.clone();
        Self {
            running: operator(Client::new(faulty, "default")),
            dead,
            writes,
        }
    }

    pub fn replace_if_dead(&mut self, street: &Street) {
        if self.dead.try_recv().is_ok() {
            self.running = operator(street.api.client("default"));
        }
    }
}

const FAULTS: [Fault; 4] = [
    Fault::KillBefore,
    Fault::KillAfter,
    Fault::AnswerLost,
    Fault::Refused,
];

/// Tries a story with each fault at each write of it.
pub async fn at_every_write(story: impl AsyncFn(i64, Fault) -> u64) {
    let writes = story(i64::MAX, Fault::Refused).await;
    println!("undisturbed: {writes} writes");
    assert!(writes > 5);
    for fault in FAULTS {
        for n in 1..=writes {
            story(n.cast_signed(), fault).await;
        }
    }
}

impl Street {
    /// The message of a condition that is true, of that reason.
    pub async fn told(&self, name: &str, reason: &str) -> Option<String> {
        let mut conditions = self.status(name).await?.conditions.into_iter();
        let told = conditions.find(|c| c.reason == reason && c.type_ != "Ready")?;
        Some(told.message)
    }

    pub async fn takes_it(&mut self, name: &str, takes: bool, plain: &str) {
        eventually(&format!("{name} is taken: {takes}"), async || {
            (self.takes(name, plain) == takes).then_some(())
        })
        .await;
    }

    /// As a restore leaves it.
    pub async fn strip(&self, name: &str) {
        let stripped = json!({"metadata": {"ownerReferences": null}});
        self.patch(name, stripped).await;
    }
}
