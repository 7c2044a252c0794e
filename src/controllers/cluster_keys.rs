//! Follows the keys that sign the cluster's own ServiceAccount tokens, and hands them to the servers in
//! a ConfigMap. What is there is only ever replaced by keys that were read: an API server that does not
//! answer, or answers with nothing, takes nothing away.
#![allow(clippy::doc_markdown)]

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};
use serde::Deserialize;
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::info;

use super::apply::MANAGER;
use super::operator::{Context, READ_LIMIT};
use crate::crypto::public_key::PublicKey;
use crate::domain::names::CLUSTER_KEYS;
use crate::objects::cluster_keys::{self, ClusterKeys};
use crate::stores::Stores;

/// How often they are read. A cluster's new key is published long before it signs.
const INTERVAL: Duration = Duration::from_mins(1);

/// What is known of the last look.
#[derive(Default)]
pub struct Followed {
    trouble: Mutex<Option<String>>,
    /// Someone has altered the ConfigMap.
    stir: Notify,
    /// `trouble` has changed.
    changed: Notify,
}

impl Followed {
    /// Why the keys could not be read when they were last asked for.
    pub fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock();
        trouble.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads them again soon.
    pub fn stir(&self) {
        self.stir.notify_one();
    }

    /// Waits until `trouble` says something else.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn say(&self, now: Option<String>) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if *trouble == now {
            return;
        }
        if let Some(why) = &now {
            // Whoever needs them is told in status.
            info!("the cluster's keys can not be read: {why}");
        } else {
            info!("the cluster's keys can be read again");
        }
        *trouble = now;
        self.changed.notify_one();
    }
}

/// Reads the keys now and then, and writes them where they are new, while this process leads. Without
/// an end.
pub async fn follow(cx: &Context) {
    loop {
        if cx.leadership.leads() {
            let outcome = look(cx).await;
            cx.cluster_keys.say(outcome.err());
        } else {
            cx.leadership.becomes(true).await;
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = cx.cluster_keys.stir.notified() => {
                // What is written and undone again is not to be a hot loop.
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// An error is a sentence without its end.
async fn look(cx: &Context) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Discovery {
        issuer: String,
    }
    let discovery = get(cx, "/.well-known/openid-configuration").await?;
    let Discovery { issuer } = serde_json::from_str(&discovery)
        .map_err(|e| format!("its /.well-known/openid-configuration is no such document: {e}"))?;
    // Where the API server itself has it: jwks_uri is where others are to find it.
    let document = get(cx, "/openid/v1/jwks").await?;
    let mut keys = cluster_keys::parse(&document).unwrap_or_default();
    keys.retain(|key| PublicKey::from_jwk(key, 2048).is_ok());
    if keys.is_empty() || issuer.is_empty() {
        return Err("its /openid/v1/jwks has no key that can be used".to_owned());
    }
    write(cx, &ClusterKeys { issuer, keys }).await
}

async fn get(cx: &Context, path: &str) -> Result<String, String> {
    let request = http::Request::get(path).body(Vec::new());
    let request = request.map_err(|e| e.to_string())?;
    match timeout(READ_LIMIT, cx.client.request_text(request)).await {
        Err(_) => Err(format!("the API server did not answer for {path}")),
        Ok(Err(kube::Error::Api(status))) => Err(format!(
            "the API server refuses {path} ({}): {}",
            status.code, status.message
        )),
        Ok(answer) => answer.map_err(|e| format!("asking the API server for {path}: {e}")),
    }
}

async fn write(cx: &Context, keys: &ClusterKeys) -> Result<(), String> {
    let namespace = cx.settings.operator_namespace.as_str();
    let before = Stores::get(&cx.stores.config_maps, namespace, CLUSTER_KEYS);
    let after = cluster_keys::write(keys, &cx.settings, before.as_deref());
    if before.as_deref() == Some(&after) {
        return Ok(());
    }
    let api: Api<ConfigMap> = Api::namespaced(cx.client.clone(), namespace);
    let params = PostParams {
        field_manager: Some(MANAGER.into()),
        ..PostParams::default()
    };
    let call = async {
        match &before {
            None => api.create(&params, &after).await,
            Some(_) => api.replace(CLUSTER_KEYS, &params, &after).await,
        }
    };
    let written = timeout(READ_LIMIT, cx.leadership.while_leading(call)).await;
    match written {
        Err(_) => Err(format!(
            "ConfigMap {namespace}/{CLUSTER_KEYS} could not be written in time"
        )),
        // Another process leads by now.
        Ok(None) => Ok(()),
        Ok(Some(Ok(_))) => {
            info!(
                issuer = keys.issuer,
                keys = keys.keys.len(),
                "the cluster's keys are known"
            );
            Ok(())
        }
        Ok(Some(Err(kube::Error::Api(status)))) if status.code == 409 && before.is_some() => {
            // Its watch shows it soon.
            cx.cluster_keys.stir();
            Ok(())
        }
        Ok(Some(Err(error))) => Err(format!(
            "ConfigMap {namespace}/{CLUSTER_KEYS} could not be written: {error}"
        )),
    }
}
