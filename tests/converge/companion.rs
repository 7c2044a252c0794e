//! A device and its companion agent: made, edited, suspended, restored, with a fault at every write.

use chancery::domain::client::Family;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::scene::{Gate, eventually};
use super::street::{AGENT, DEVICE, Mortal, Street, at_every_write};
use super::*;

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
    gate.refuse_replacing("technicalusers", AGENT);
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
