//! A device that revokes itself, and its companion agent with it: both stay so, and come back, with a fault
//! at every write.

use chancery::objects::credentials;
use serde_json::json;

use super::scene::{Gate, eventually};
use super::street::{AGENT, DEVICE, Mortal, Street, at_every_write};
use super::*;

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
        street.outbox().await.is_none().then_some(())
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

/// Where the hashes of one device can not be written, the other's revocation is brought home, and the
/// outbox is kept. It is judged again and again meanwhile: a device that a person has brought back is not
/// revoked by it once more.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_can_not_be_written_holds_up_no_other() {
    const OTHER: &str = "watch";
    let mut street = Street::new(json!({})).await;
    let device = json!({
        "apiVersion": "chancery.dev/v1alpha1", "kind": "TechnicalUser", "metadata": {"name": OTHER},
        "spec": {
            "family": "Device", "audiences": ["a"],
            "credential": {"secret": {"rotation": {"gracePeriod": "0s"}}},
        },
    });
    street.make::<TechnicalUser>(TENANT, device).await;
    let gate = Gate::new(&street.api);
    let _running = operator(Client::new(gate.clone(), "default"));
    for name in [DEVICE, AGENT, OTHER] {
        eventually(name, async || street.ready(name).await).await;
    }
    let (phones, old) = (
        street.delivered(DEVICE).await.expect("a secret"),
        street.delivered(OTHER).await.expect("a secret"),
    );
    street.takes_it(OTHER, true, &old).await;
    gate.refuse_replacing("secrets", "acme.phone-credentials");
    street.revoke_these(&[DEVICE, OTHER]).await;
    eventually("the other is revoked", async || {
        street.status(OTHER).await?.revoked
    })
    .await;
    street.takes_it(OTHER, false, &old).await;
    street.takes_it(DEVICE, false, &phones).await;
    assert!(street.outbox().await.is_some(), "it holds the first");

    street.rotate(OTHER, "found").await;
    let new = eventually("the other is back", async || {
        street.ready(OTHER).await?;
        street.delivered(OTHER).await.filter(|new| *new != old)
    })
    .await;
    street.takes_it(OTHER, true, &new).await;
    let tries = gate.refusals().len();
    eventually("the outbox is judged again", async || {
        (gate.refusals().len() > tries).then_some(())
    })
    .await;
    gate.refuse(false);
    eventually("the first is revoked too", async || {
        street.status(DEVICE).await?.revoked
    })
    .await;
    eventually("the outbox is empty", async || {
        street.outbox().await.is_none().then_some(())
    })
    .await;
    let status = street.ready(OTHER).await.expect("it is ready");
    assert!(status.revoked.is_none(), "{status:?}");
    assert!(street.takes(OTHER, &new) && !street.takes(DEVICE, &phones));
}
