//! Events: what `kubectl describe` tells of an object's life.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tracing::{info, warn};

use super::{Key, Note};

/// How long an event may hold up a visit.
const LIMIT: Duration = Duration::from_secs(5);

/// Writes events; an event that can not be written is logged and not tried again.
#[derive(Clone)]
pub struct Events(Recorder);

impl Events {
    /// Events that this process reports.
    pub fn new(client: Client) -> Self {
        let reporter = Reporter {
            controller: "chancery".into(),
            instance: std::env::var("POD_NAME")
                .or_else(|_| std::env::var("HOSTNAME"))
                .ok(),
        };
        Self(Recorder::new(client, reporter))
    }

    /// Tells what was done with an object.
    pub async fn tell(&self, key: &Key, uid: Option<String>, note: Note) {
        let Note {
            warning,
            reason,
            message,
        } = note;
        info!(kind = key.kind.name(), namespace = %key.namespace, name = %key.name, reason, "{message}");
        let event = Event {
            type_: if warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: reason.to_owned(),
            // kube's recorder counts events that differ in their sentence alone as one, and keeps the
            // first sentence: the action tells them apart.
            action: format!("Reconcile-{:08x}", crc32fast::hash(message.as_bytes())),
            note: Some(message),
            secondary: None,
        };
        let resource = super::apply::api_resource(key.kind);
        let reference = ObjectReference {
            api_version: Some(resource.api_version),
            kind: Some(resource.kind),
            namespace: Some(key.namespace.clone()),
            name: Some(key.name.clone()),
            uid,
            ..ObjectReference::default()
        };
        match tokio::time::timeout(LIMIT, self.0.publish(&event, &reference)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(reason, %error, "an event could not be written"),
            Err(_) => warn!(reason, "an event could not be written in time"),
        }
    }
}
