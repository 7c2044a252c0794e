//! A device and its companion agent: made, edited, suspended, revoked and back, with a fault at every
//! write. What a server makes of it is looked at all along: it follows the same objects with watches of
//! its own.

use chancery::api::v1alpha1::TechnicalUserStatus;
use chancery::crypto::hash;
use chancery::domain::client::{Client as Known, Family};
use chancery::objects::credentials;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::scene::{Gate, eventually};
use super::*;

const DEVICE: &str = "phone";
const AGENT: &str = "phone-agent";

/// An API server with a tenant and its device, and what a server knows of it.
struct Street {
    api: ApiServer,
    client: Client,
    feed: Feed,
    _watches: JoinSet<()>,
}

impl Street {
    async fn new(companion: Value) -> Self {
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

    async fn make<K>(&self, namespace: &str, object: Value)
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

    fn users(&self) -> Api<TechnicalUser> {
        Api::namespaced(self.client.clone(), TENANT)
    }

    async fn patch(&self, name: &str, patch: Value) {
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        let patched = self.users().patch(name, &params, &patch).await;
        patched.expect("patched");
    }

    async fn delete(&self, name: &str) {
        let (users, params) = (self.users(), DeleteParams::default());
        let deleted = users.delete(name, &params).await;
        deleted.expect("deleted");
    }

    async fn rotate(&self, name: &str, value: &str) {
        let annotations = json!({"chancery.dev/rotate": value});
        self.patch(name, json!({"metadata": {"annotations": annotations}}))
            .await;
    }

    async fn status(&self, name: &str) -> Option<TechnicalUserStatus> {
        let user = self.users().get_opt(name).await.expect("an answer")?;
        let status = user.status?;
        (Some(status.observed_generation) == user.metadata.generation).then_some(status)
    }

    async fn ready(&self, name: &str) -> Option<TechnicalUserStatus> {
        let status = self.status(name).await?;
        let ready = |c: &Condition| c.type_ == "Ready" && c.status == "True";
        let settled = status.conditions.iter().any(ready) && status.secret_name.is_some();
        settled.then_some(status)
    }

    async fn secrets(&self, namespace: &str) -> Vec<Secret> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let secrets = secrets.list(&ListParams::default()).await;
        secrets.expect("a list").items
    }

    async fn delivered(&self, name: &str) -> Option<String> {
        let secrets = self.secrets(TENANT).await;
        let name = format!("{name}-credentials");
        let secret = secrets.into_iter().find(|s| s.name_any() == name)?;
        let plain = delivery::plain_secrets(&secret, "client_secret").pop()?;
        Some(plain.to_string())
    }

    async fn events(&self, reason: &str) -> Vec<String> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), TENANT);
        let events = events.list(&ListParams::default()).await.expect("a list");
        let of = events.items.into_iter();
        let of = of.filter(|e| e.reason.as_deref() == Some(reason));
        of.filter_map(|event| event.note).collect()
    }

    /// A client as a server knows it now.
    fn known(&mut self, name: &str) -> Option<Arc<Known>> {
        let snapshot = self.feed.build(None);
        snapshot.clients.get(&format!("acme.{name}")).cloned()
    }

    /// Whether a server takes that secret now.
    fn takes(&mut self, name: &str, plain: &str) -> bool {
        self.known(name).is_some_and(|client| {
            let mut hashes = client.credentials.iter();
            !client.suspended && hashes.any(|c| hash::verify(plain, &c.hash))
        })
    }

    /// As a server notes it, which the device asks.
    async fn revoke(&self) {
        let now = clock::system().now().as_second();
        let of = |id: &str| {
            (
                format!("acme.{id}"),
                json!({"before": now, "until": now + 360}),
            )
        };
        let mut share = serde_json::Map::from_iter([of(DEVICE), of(AGENT)]);
        share["acme.phone"]["device"] = now.into();
        let data = json!({"data": {TENANT: Value::Object(share).to_string()}});
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), OPERATOR);
        let patch = Patch::Merge(data);
        let params = PatchParams::default();
        let patched = maps.patch("chancery-outbox", &params, &patch).await;
        patched.expect("noted");
    }
}

/// An operator whose n-th write meets its fate, and the one that takes its place.
struct Mortal {
    running: Running,
    dead: mpsc::UnboundedReceiver<()>,
    writes: Arc<AtomicU64>,
}

impl Mortal {
    fn new(street: &Street, n: i64, fault: Fault) -> Self {
        let (faulty, dead) = faulty(&street.api, n, fault);
        let writes = faulty.writes.clone();
        Self {
            running: operator(Client::new(faulty, "default")),
            dead,
            writes,
        }
    }

    fn replace_if_dead(&mut self, street: &Street) {
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
async fn at_every_write(story: impl AsyncFn(i64, Fault) -> u64) {
    let writes = story(i64::MAX, Fault::Refused).await;
    println!("undisturbed: {writes} writes");
    assert!(writes > 5);
    for fault in FAULTS {
        for n in 1..=writes {
            story(n.cast_signed(), fault).await;
        }
    }
}

async fn made(n: i64, fault: Fault) -> u64 {
    let what = format!("{fault:?} at write {n}");
    let mut street = Street::new(json!({"roles": ["driver"]})).await;
    let mut mortal = Mortal::new(&street, n, fault);
    for name in [DEVICE, AGENT] {
        eventually(&format!("{what}: {name}"), async || {
            mortal.replace_if_dead(&street);
            street.ready(name).await
        })
        .await;
    }
    let named = eventually(&what, async || {
        mortal.replace_if_dead(&street);
        street.status(DEVICE).await?.companion_agent
    })
    .await;
    assert_eq!(
        (&*named.name, &*named.client_id),
        (AGENT, "acme.phone-agent")
    );
    let users = street.users().list(&ListParams::default()).await;
    assert_eq!(users.expect("a list").items.len(), 2, "{what}");
    let called = |secrets: Vec<Secret>| -> Vec<String> {
        secrets.iter().map(ResourceExt::name_any).collect()
    };
    assert_eq!(
        called(street.secrets(OPERATOR).await),
        [
            "acme.phone-agent-credentials",
            "acme.phone-credentials",
            "main-1"
        ],
        "{what}"
    );
    let plain = street.delivered(AGENT).await.expect("a secret");
    assert!(plain.starts_with("ak-"), "{what}");
    eventually(&what, async || street.takes(AGENT, &plain).then_some(())).await;
    let device = street.known(DEVICE).expect("it is known");
    assert_eq!(device.companion.as_deref(), Some("acme.phone-agent"));
    let agent = street.known(AGENT).expect("it is known");
    assert_eq!(
        (agent.family, &*agent.roles),
        (Family::Agent, &["driver".to_owned()][..])
    );
    assert_eq!(agent.audiences, ["a", "b"]);

    // It goes with the device, and nothing of either is left.
    street.delete(DEVICE).await;
    eventually(&format!("{what}: all is gone"), async || {
        mortal.replace_if_dead(&street);
        let users = street.users().list(&ListParams::default()).await;
        let left = called(street.secrets(OPERATOR).await);
        let gone = users.expect("a list").items.is_empty()
            && left == ["main-1"]
            && street.secrets(TENANT).await.is_empty();
        gone.then_some(())
    })
    .await;
    mortal.writes.load(Ordering::SeqCst)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_companion_is_made_and_goes_with_a_fault_at_every_write() {
    at_every_write(made).await;
}

async fn revoked_and_back(n: i64, fault: Fault) -> u64 {
    let what = format!("{fault:?} at write {n}");
    let mut street = Street::new(json!({})).await;
    let first = operator(street.api.client("default"));
    for name in [DEVICE, AGENT] {
        eventually(&what, async || street.ready(name).await).await;
    }
    drop(first);
    let names = [DEVICE, AGENT];
    let mut old = Vec::new();
    for name in names {
        let plain = street.delivered(name).await.expect("a secret");
        eventually(&what, async || street.takes(name, &plain).then_some(())).await;
        old.push(plain);
    }
    street.revoke().await;
    // The outbox alone is enough for a server.
    for (name, plain) in names.iter().zip(&old) {
        let refused = || format!("{what}: {name} is refused");
        eventually(&refused(), async || {
            (!street.takes(name, plain)).then_some(())
        })
        .await;
    }
    let mut mortal = Mortal::new(&street, n, fault);
    let mut taken = false;
    for name in names {
        eventually(&format!("{what}: {name} is revoked"), async || {
            mortal.replace_if_dead(&street);
            taken |= names.iter().zip(&old).any(|(n, old)| street.takes(n, old));
            let revoked = street.status(name).await?.revoked?;
            (revoked.reason == "RevokedByDevice").then_some(())
        })
        .await;
    }
    // Neither the companion's own annotation nor another look at the device brings one back.
    street.rotate(AGENT, "the agent alone").await;
    street
        .patch(DEVICE, json!({"spec": {"tokenTtl": "2m"}}))
        .await;
    eventually(&format!("{what}: that was seen"), async || {
        mortal.replace_if_dead(&street);
        taken |= names.iter().zip(&old).any(|(n, old)| street.takes(n, old));
        street.status(DEVICE).await
    })
    .await;
    for name in names {
        let client = street.known(name).expect("it is known");
        assert!(client.suspended, "{what}: {name}");
    }

    street.rotate(DEVICE, "found").await;
    for name in names {
        eventually(&format!("{what}: {name} is back"), async || {
            mortal.replace_if_dead(&street);
            taken |= names.iter().zip(&old).any(|(n, old)| street.takes(n, old));
            let status = street.ready(name).await?;
            status.revoked.is_none().then_some(())
        })
        .await;
    }
    for (name, old) in names.iter().zip(&old) {
        let new = street.delivered(name).await.expect("a secret");
        assert_ne!(new, *old, "{what}: {name}");
        eventually(&what, async || {
            mortal.replace_if_dead(&street);
            street.takes(name, &new).then_some(())
        })
        .await;
        assert!(!street.takes(name, old), "{what}: {name}");
    }
    assert!(!taken, "{what}: a revoked secret was taken");
    let hashes = street.secrets(OPERATOR).await;
    for hashes in hashes
        .iter()
        .filter(|s| credentials::hashes_of(s).is_some())
    {
        assert_eq!(
            credentials::read(hashes).len(),
            1,
            "{what}: one secret each"
        );
    }
    mortal.writes.load(Ordering::SeqCst)
}

#[tokio::test(flavor = "multi_thread")]
async fn both_are_revoked_and_come_back_with_a_fault_at_every_write() {
    at_every_write(revoked_and_back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_follows_its_device_and_is_put_back() {
    let mut street = Street::new(json!({"roles": ["driver"], "scopes": ["read"]})).await;
    let running = operator(street.api.client("default"));
    eventually("both", async || street.ready(AGENT).await).await;
    let spec = async |street: &Street| street.users().get(AGENT).await.expect("there").spec;

    let companion =
        json!({"roles": ["clerk"], "scopes": [], "audiences": ["b"], "tokenTtl": "90s"});
    let rotation = json!({"interval": "48h", "gracePeriod": "1h"});
    street
        .patch(DEVICE, json!({"spec": {"companionAgent": companion, "credential": {"secret": {"rotation": rotation}}}}))
        .await;
    let after = eventually("it follows", async || {
        let spec = spec(&street).await;
        (spec.roles == ["clerk"]).then_some(spec)
    })
    .await;
    assert!(after.scopes.is_empty());
    assert_eq!(after.audiences, ["b"]);
    assert_eq!(json!(after.token_ttl), json!("1m30s"));
    let secret = after.credential.secret.expect("a secret");
    assert_eq!(json!(secret.rotation), rotation);
    let told = eventually("it is told", async || {
        street.events("CompanionUpdated").await.pop()
    })
    .await;
    for field in [
        "roles",
        "scopes",
        "audiences",
        "tokenTtl",
        "credential.secret.rotation",
    ] {
        assert!(told.contains(field), "{field} in {told}");
    }

    // What a person puts there is put back, and a server does not wait for that.
    drop(running);
    let more = json!({
        "roles": ["admin", "driver", "clerk"], "scopes": ["read"], "audiences": ["a", "b"],
        "tokenTtl": "1h", "signingKey": "other",
    });
    street.patch(AGENT, json!({"spec": more})).await;
    eventually("that was seen", async || {
        let client = street.known(AGENT).expect("known");
        // Neither more than its device has, nor more than that says of it.
        (client.roles == ["clerk"]).then_some(())
    })
    .await;
    let client = street.known(AGENT).expect("known");
    assert!(client.scopes.is_empty(), "{:?}", client.scopes);
    assert_eq!(client.audiences, ["b"]);
    assert_eq!(json!(client.token_ttl), json!("1m30s"));
    assert_eq!(client.signing_key, None);
    let _running = operator(street.api.client("default"));
    eventually("it is put back", async || {
        (spec(&street).await.roles == ["clerk"]).then_some(())
    })
    .await;

    // What the device says nothing of is the person's.
    let own = json!({"tokenRate": "7/m", "suspended": true, "credential": {"secret": {"secretName": "own"}}});
    street.patch(AGENT, json!({"spec": own})).await;
    street
        .patch(
            DEVICE,
            json!({"spec": {"companionAgent": {"roles": ["driver"]}}}),
        )
        .await;
    let after = eventually("it follows again", async || {
        let spec = spec(&street).await;
        (spec.roles == ["driver"]).then_some(spec)
    })
    .await;
    assert!(after.suspended);
    assert_eq!(json!(after.token_rate), json!("7/m"));
    assert_eq!(
        after
            .credential
            .secret
            .expect("a secret")
            .secret_name
            .as_deref(),
        Some("own")
    );
    street
        .patch(
            AGENT,
            json!({"spec": {"suspended": false, "credential": {"secret": {"secretName": null}}}}),
        )
        .await;
    let before = eventually("a secret", async || {
        street.ready(AGENT).await?;
        street.delivered(AGENT).await
    })
    .await;

    // Its own annotation rotates it, and not its device.
    let of_device = street.delivered(DEVICE).await;
    street.rotate(AGENT, "now").await;
    eventually("another secret", async || {
        street.delivered(AGENT).await.filter(|now| *now != before)
    })
    .await;
    assert_eq!(street.delivered(DEVICE).await, of_device);

    // Suspended with its device, and back with it.
    street
        .patch(DEVICE, json!({"spec": {"suspended": true}}))
        .await;
    eventually("suspended", async || {
        street.known(AGENT).expect("known").suspended.then_some(())
    })
    .await;
    let told = eventually("its status tells", async || {
        let status = street.ready(AGENT).await?;
        let ready = status
            .conditions
            .into_iter()
            .find(|c| c.reason == "Suspended")?;
        Some(ready.message)
    })
    .await;
    assert!(told.contains("suspended with its device phone"), "{told}");
    street
        .patch(DEVICE, json!({"spec": {"suspended": false}}))
        .await;
    eventually("back", async || {
        let suspended = street.known(AGENT).expect("known").suspended;
        (!suspended).then_some(())
    })
    .await;

    // Another name is another agent; none takes it away.
    street
        .patch(
            DEVICE,
            json!({"spec": {"companionAgent": {"name": "helper"}}}),
        )
        .await;
    eventually("the other one", async || street.ready("helper").await).await;
    eventually("the former one is gone", async || {
        let former = street.users().get_opt(AGENT).await.expect("an answer");
        former.is_none().then_some(())
    })
    .await;
    street
        .patch(DEVICE, json!({"spec": {"companionAgent": null}}))
        .await;
    eventually("none", async || {
        let users = street.users().list(&ListParams::default()).await;
        let status = street.status(DEVICE).await?;
        let none = users.expect("a list").items.len() == 1 && status.companion_agent.is_none();
        none.then_some(())
    })
    .await;
    assert_eq!(street.events("CompanionDeleted").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_made_for_the_device_is_left_alone() {
    let mut street = Street::new(json!({"name": "taken"})).await;
    let mine = json!({
        "apiVersion": "chancery.dev/v1alpha1", "kind": "TechnicalUser", "metadata": {"name": "taken"},
        "spec": {"audiences": ["a"], "roles": ["other"], "credential": {"secret": {}}},
    });
    street.make::<TechnicalUser>(TENANT, mine).await;
    let _running = operator(street.api.client("default"));
    let status = eventually("it is told", async || {
        let status = street.ready(DEVICE).await?;
        let stalled = |c: &Condition| c.type_ == "Stalled" && c.reason == "CompanionNameConflict";
        status.conditions.iter().any(stalled).then_some(status)
    })
    .await;
    assert_eq!(status.companion_agent, None);
    eventually("and as an event", async || {
        street.events("CompanionNameConflict").await.pop()
    })
    .await;
    eventually("the other one works", async || street.ready("taken").await).await;
    let plain = street.delivered(DEVICE).await.expect("a secret");
    eventually("the device works", async || {
        street.takes(DEVICE, &plain).then_some(())
    })
    .await;
    assert_eq!(street.known(DEVICE).expect("known").companion, None);
    let taken = street.users().get("taken").await.expect("there");
    assert_eq!(
        (&*taken.spec.roles, taken.owner_references().len()),
        (&["other".to_owned()][..], 0)
    );

    // Once it is gone, the companion takes its place.
    street.delete("taken").await;
    eventually("a companion", async || {
        let taken = street.ready("taken").await?;
        (taken.client_id.as_deref() == Some("acme.taken")).then_some(())?;
        let user = street.users().get("taken").await.expect("there");
        (user.spec.family == Family::Agent).then_some(())?;
        street.status(DEVICE).await?.companion_agent
    })
    .await;
}

/// A value of the annotation that is too long to be remembered asks for nothing, and is told.
#[tokio::test(flavor = "multi_thread")]
async fn an_annotation_that_is_too_long_brings_nothing_back() {
    let mut street = Street::new(json!({})).await;
    let _running = operator(street.api.client("default"));
    for name in [DEVICE, AGENT] {
        eventually(name, async || street.ready(name).await).await;
    }
    street.revoke().await;
    let revoked = async |street: &Street, name: &str, told: &str| {
        let status = street.status(name).await?;
        let mut conditions = status.conditions.iter();
        let stalled = conditions.find(|c| c.type_ == "Stalled" && c.reason == "RevokedByDevice")?;
        stalled.message.contains(told).then_some(())
    };
    for name in [DEVICE, AGENT] {
        eventually(name, async || {
            revoked(&street, name, "revoked itself").await
        })
        .await;
    }
    street.rotate(DEVICE, &"x".repeat(1000)).await;
    eventually("it is told", async || {
        revoked(&street, DEVICE, "has 1000 characters").await
    })
    .await;
    for name in [DEVICE, AGENT] {
        assert!(street.known(name).expect("known").suspended, "{name}");
    }
    street.rotate(DEVICE, "short").await;
    for name in [DEVICE, AGENT] {
        eventually(name, async || street.ready(name).await).await;
    }
}

/// What authenticates with a key has no hash that could be destroyed: the note keeps it out.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_with_a_key_stays_revoked_too() {
    let mut street = Street::new(json!({})).await;
    let _running = operator(street.api.client("default"));
    for name in [DEVICE, AGENT] {
        eventually(name, async || street.ready(name).await).await;
    }
    let jwk = json!({
        "kty": "EC", "crv": "P-256", "kid": "k1",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    });
    let credential =
        json!({"secret": null, "gracePeriod": "0s", "publicKey": {"jwks": {"keys": [jwk]}}});
    street
        .patch(DEVICE, json!({"spec": {"credential": credential}}))
        .await;
    eventually("the secret is gone", async || {
        let status = street.status(DEVICE).await?;
        (status.key_ids == ["k1"] && status.credentials.is_empty()).then_some(())?;
        street.delivered(DEVICE).await.is_none().then_some(())
    })
    .await;
    assert!(!street.known(DEVICE).expect("known").suspended);
    let agents = street.delivered(AGENT).await.expect("a secret");
    street.revoke().await;
    for name in [DEVICE, AGENT] {
        eventually(&format!("{name} is revoked"), async || {
            street.status(name).await?.revoked
        })
        .await;
    }
    eventually("the outbox is empty", async || {
        let maps: Api<ConfigMap> = Api::namespaced(street.client.clone(), OPERATOR);
        let map = maps.get("chancery-outbox").await.expect("there");
        map.data.is_none().then_some(())
    })
    .await;
    for name in [DEVICE, AGENT] {
        eventually(name, async || street.known(name)?.suspended.then_some(())).await;
    }
    street.rotate(DEVICE, "found").await;
    eventually("the device is back", async || {
        let status = street.status(DEVICE).await?;
        let back = status.revoked.is_none() && status.key_ids == ["k1"];
        (back && !street.known(DEVICE)?.suspended).then_some(())
    })
    .await;
    eventually("and told", async || {
        street.events("RevocationEnded").await.pop()
    })
    .await;
    let new = eventually("its agent is back", async || {
        street.ready(AGENT).await?;
        let plain = street.delivered(AGENT).await?;
        street.takes(AGENT, &plain).then_some(plain)
    })
    .await;
    assert_ne!(new, agents);
    assert!(street.events("CredentialExchanged").await.is_empty());
}

impl Street {
    /// The message of a condition that is true, of that reason.
    async fn told(&self, name: &str, reason: &str) -> Option<String> {
        let mut conditions = self.status(name).await?.conditions.into_iter();
        let told = conditions.find(|c| c.reason == reason && c.type_ != "Ready")?;
        Some(told.message)
    }

    async fn takes_it(&mut self, name: &str, takes: bool, plain: &str) {
        eventually(&format!("{name} is taken: {takes}"), async || {
            (self.takes(name, plain) == takes).then_some(())
        })
        .await;
    }

    /// As a restore leaves it.
    async fn strip(&self, name: &str) {
        let stripped = json!({"metadata": {"ownerReferences": null}});
        self.patch(name, stripped).await;
    }
}

/// Nothing bounds an agent that has lost its device, so that it gets nothing, until a device takes it over
/// or a person makes it an ordinary technical user.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_its_device_gets_nothing() {
    let mut street = Street::new(json!({"roles": ["driver"]})).await;
    let running = operator(street.api.client("default"));
    for name in [DEVICE, AGENT] {
        eventually(name, async || street.ready(name).await).await;
    }
    let plain = street.delivered(AGENT).await.expect("a secret");
    street.takes_it(AGENT, true, &plain).await;
    drop(running);

    // No server waits for the operator; and that takes it over.
    street.strip(AGENT).await;
    street.takes_it(AGENT, false, &plain).await;
    let running = operator(street.api.client("default"));
    eventually("it is its device's again", async || {
        let agent = street.users().get(AGENT).await.expect("there");
        (agent.companion_of()?.0 == DEVICE).then_some(())
    })
    .await;
    let told = eventually("that is told", async || {
        street.events("CompanionAdopted").await.pop()
    })
    .await;
    assert!(told.contains(AGENT), "{told}");
    street.takes_it(AGENT, true, &plain).await;
    // While the operator watches, too.
    street.strip(AGENT).await;
    eventually("again", async || {
        let agent = street.users().get(AGENT).await.expect("there");
        agent.companion_of().map(|_| ())
    })
    .await;
    drop(running);

    // The device is gone for good, and left its agent behind.
    street.strip(AGENT).await;
    street.delete(DEVICE).await;
    let _running = operator(street.api.client("default"));
    let told = eventually("it is told", async || {
        street.told(AGENT, "CompanionOrphaned").await
    })
    .await;
    for part in [
        "companion agent of device phone",
        "companion-of-",
        "Delete it",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!street.takes(AGENT, &plain));
    // As a technical user of its own it is as any.
    let label =
        |value: Value| json!({"metadata": {"labels": {"chancery.dev/companion-of": value}}});
    street.patch(AGENT, label(Value::Null)).await;
    street.takes_it(AGENT, true, &plain).await;
    eventually("it is ready", async || {
        let status = street.ready(AGENT).await?;
        let stalled = status.conditions.iter().any(|c| c.type_ == "Stalled");
        (!stalled).then_some(())
    })
    .await;
    // A device of that name leaves such a one alone, and takes over what was made for one of its name.
    let device = json!({
        "apiVersion": "chancery.dev/v1alpha1", "kind": "TechnicalUser", "metadata": {"name": DEVICE},
        "spec": {
            "family": "Device", "roles": ["driver"], "audiences": ["a"], "companionAgent": {},
            "credential": {"secret": {}},
        },
    });
    street.make::<TechnicalUser>(TENANT, device).await;
    eventually("the name is taken", async || {
        street.told(DEVICE, "CompanionNameConflict").await
    })
    .await;
    street.patch(AGENT, label(json!(DEVICE))).await;
    eventually("it is that device's", async || {
        let named = street.status(DEVICE).await?.companion_agent?;
        (named.name == AGENT).then_some(())?;
        street.ready(AGENT).await
    })
    .await;
    let agent = street.users().get(AGENT).await.expect("there");
    assert!(agent.spec.roles.is_empty(), "{:?}", agent.spec.roles);
    street.takes_it(AGENT, true, &plain).await;
    assert_eq!(street.delivered(AGENT).await, Some(plain));
}

/// A person supplies the agent's secret, which the device's interval does not rotate.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_authenticated_otherwise_follows_its_device() {
    let street = Street::new(json!({})).await;
    let _running = operator(street.api.client("default"));
    eventually("both", async || street.ready(AGENT).await).await;
    let mine = json!({
        "metadata": {"name": "mine"}, "stringData": {"client_secret": "0123456789abcdef0123456789abcdef"},
    });
    street.make::<Secret>(TENANT, mine).await;
    let supplied = json!({"delivery": "Reference", "secretRefs": [{"name": "mine"}]});
    street
        .patch(AGENT, json!({"spec": {"credential": {"secret": supplied}}}))
        .await;
    let rotation = json!({"interval": "48h", "gracePeriod": "1h"});
    street
        .patch(
            DEVICE,
            json!({"spec": {"credential": {"secret": {"rotation": rotation}}}}),
        )
        .await;
    eventually("its grace follows", async || {
        let agent = street.users().get(AGENT).await.expect("there");
        let secret = agent.spec.credential.secret?;
        (json!(secret.rotation) == json!({"gracePeriod": "1h"})).then_some(())
    })
    .await;
    let status = eventually("the device tells of its rotation", async || {
        let status = street.ready(DEVICE).await?;
        status.next_rotation.is_some().then_some(status)
    })
    .await;
    let stalled = status.conditions.iter().find(|c| c.type_ == "Stalled");
    assert_eq!(stalled, None);
}

/// What an admission policy refuses of the agent holds up nothing of the device, nor what status tells of
/// it.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_goes_on_whose_agent_can_not_be_written() {
    let street = Street::new(json!({})).await;
    let gate = Gate::new(&street.api);
    let _running = operator(Client::new(gate.clone(), "default"));
    eventually("both", async || street.ready(AGENT).await).await;
    gate.refuse_replacing(AGENT);
    let spec = json!({
        "companionAgent": {"roles": ["driver"]}, "credential": {"secret": {"delivery": "OneTime"}},
    });
    street.patch(DEVICE, json!({"spec": spec})).await;
    let waits = eventually("it is told", async || {
        let told = street.told(DEVICE, "WriteRefused").await?;
        assert!(
            told.contains("exceeded quota: none") && told.contains(AGENT),
            "{told}"
        );
        // And so is what else there is to tell.
        street.told(DEVICE, "ClaimAwaited").await
    })
    .await;
    assert!(waits.contains("kubectl chancery claim phone"), "{waits}");
    let identity = chancery::crypto::age::Identity::generate();
    let recipient = identity.recipient().to_string();
    let claim = json!({"chancery.dev/claim": recipient});
    street
        .patch(DEVICE, json!({"metadata": {"annotations": claim}}))
        .await;
    eventually("the claim is granted", async || {
        let sealed = street.status(DEVICE).await?.sealed?;
        (sealed.recipient == recipient).then_some(())
    })
    .await;
    assert!(!gate.refusals().is_empty());
    let events = street.events("WriteRefused").await;
    assert_eq!(events.len(), 1, "{events:?}");
    gate.refuse(false);
    eventually("once it can be written, it is", async || {
        let agent = street.users().get(AGENT).await.expect("there");
        (agent.spec.roles == ["driver"]).then_some(())?;
        let status = street.status(DEVICE).await?;
        let stalled = status.conditions.iter().any(|c| c.type_ == "Stalled");
        (!stalled).then_some(())
    })
    .await;
}

/// A device that may not have its client id can neither authenticate nor revoke its agent.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_without_its_client_id_has_no_agent_that_works() {
    let mut street = Street::new(json!({})).await;
    let _running = operator(street.api.client("default"));
    let device = json!({
        "apiVersion": "chancery.dev/v1alpha1", "kind": "TechnicalUser", "metadata": {"name": "tablet"},
        "spec": {
            "family": "Device", "clientId": "special", "audiences": ["a"], "companionAgent": {},
            "credential": {"secret": {}},
        },
    });
    street.make::<TechnicalUser>(TENANT, device).await;
    let told = eventually("it is told", async || {
        street.told("tablet-agent", "ClientIdNotAllowed").await
    })
    .await;
    assert!(told.contains("its device tablet"), "{told}");
    assert!(street.known("tablet-agent").expect("known").suspended);
    let subscriptions: Api<Subscription> = Api::namespaced(street.client.clone(), TENANT);
    let allow = |ids: Value| {
        let patch = Patch::Merge(json!({"spec": {"allowed": {"clientIds": ids}}}));
        let subscriptions = subscriptions.clone();
        async move {
            let params = PatchParams::default();
            let patched = subscriptions.patch("acme", &params, &patch).await;
            patched.expect("patched");
        }
    };
    allow(json!(["special"])).await;
    let plain = eventually("both work", async || {
        street.ready("tablet").await?;
        street.ready("tablet-agent").await?;
        street.delivered("tablet-agent").await
    })
    .await;
    street.takes_it("tablet-agent", true, &plain).await;
    allow(json!([])).await;
    street.takes_it("tablet-agent", false, &plain).await;
    eventually("and its status says why", async || {
        street.told("tablet-agent", "ClientIdNotAllowed").await
    })
    .await;
}
