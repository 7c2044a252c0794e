//! Starts the watches, and keeps each of them going.

use std::any::Any;
use std::sync::Arc;

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Secret;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, Config, Event};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::known::Known;
use super::progress::Progress;
use super::reconnect::{Reconnect, Said, sentence};
use super::{Change, Mirror, Scope, Watched};

/// What can be watched.
pub trait Watchable:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static
{
}

impl<K> Watchable for K where
    K: Resource<DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static
{
}

/// The longest value that is kept of what a tenant may write at will, in bytes: one of them is not to fill
/// this process's memory.
const LONGEST_VALUE: usize = 16 * 1024;

/// Takes away what nobody here reads.
fn trim<K: Watchable>(kind: Watched, object: &mut K) {
    object.meta_mut().managed_fields = None;
    if kind == Watched::NamedSecrets {
        // There may be many, and name and version are all that is asked for.
        let meta = object.meta_mut();
        (meta.labels, meta.annotations) = (None, None);
        return;
    }
    let annotations = object.annotations_mut();
    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    match kind {
        // The operator's own namespace: what stands there is ours.
        Watched::SigningKeys | Watched::Secrets | Watched::ConfigMaps => return,
        _ => {}
    }
    for value in annotations.values_mut() {
        let end = (0..=LONGEST_VALUE.min(value.len()))
            .rev()
            .find(|at| value.is_char_boundary(*at));
        value.truncate(end.unwrap_or_default());
        value.shrink_to_fit();
    }
    let secret = (object as &mut dyn Any).downcast_mut::<Secret>();
    if let Some(data) = secret.and_then(|secret| secret.data.as_mut()) {
        data.retain(|_, value| value.0.len() <= LONGEST_VALUE);
    }
}

/// Starts watches.
pub struct Starter {
    scope: Scope,
    mirrors: Vec<Mirror>,
    tasks: JoinSet<()>,
    listeners: Vec<mpsc::UnboundedSender<Change>>,
    progress: Arc<Progress>,
}

impl Starter {
    /// Watches for such a scope, which tell their changes to all of `listeners`.
    pub fn new(
        scope: Scope,
        listeners: Vec<mpsc::UnboundedSender<Change>>,
        progress: Arc<Progress>,
    ) -> Self {
        Self {
            scope,
            mirrors: Vec::new(),
            tasks: JoinSet::new(),
            listeners,
            progress,
        }
    }

    /// What can be compared with the API server, and the watches.
    pub fn end(self) -> (Vec<Mirror>, JoinSet<()>) {
        (self.mirrors, self.tasks)
    }

    /// Watches what the feed reads too: it can be compared with the API server.
    pub fn go<K: Watchable>(
        &mut self,
        kind: Watched,
        api: Api<K>,
        config: Config,
        hints: fn(&K) -> Vec<String>,
    ) -> Store<K> {
        let (listed, by) = (api.clone(), config.clone());
        let store = self.watch(kind, api, config, hints);
        self.mirrors
            .push(Mirror::new(kind, listed, &by, store.clone()));
        store
    }

    /// Watches what is the operator's alone: no token depends on it.
    pub fn operators<K: Watchable>(
        &mut self,
        kind: Watched,
        api: Api<K>,
        config: Config,
        hints: fn(&K) -> Vec<String>,
    ) -> Store<K> {
        match self.scope {
            Scope::Operator => self.watch(kind, api, config, hints),
            Scope::Server => reflector::store().0,
        }
    }

    fn watch<K: Watchable>(
        &mut self,
        kind: Watched,
        api: Api<K>,
        config: Config,
        hints: fn(&K) -> Vec<String>,
    ) -> Store<K> {
        let (store, writer) = reflector::store();
        // Nobody asks what is waited for before all are.
        self.progress.begins(kind);
        let (listeners, progress) = (self.listeners.clone(), self.progress.clone());
        self.tasks.spawn(async move {
            let stream = watcher::watcher(api, config)
                .modify(move |object| trim(kind, object))
                .reflect(writer);
            pin_mut!(stream);
            let mut known = Known::new(kind, hints);
            let mut mishap = Mishap::default();
            while let Some(event) = stream.next().await {
                let event = match event {
                    Ok(event) => event,
                    Err(error) => {
                        // The stream does nothing while nobody asks it for more.
                        mishap.sit_out(kind, &error, &progress).await;
                        continue;
                    }
                };
                // A list that begins has delivered nothing yet: it may fail as the one before.
                if !matches!(event, Event::Init) {
                    mishap.over(kind, &progress);
                }
                let done = matches!(event, Event::InitDone);
                let changes = known.take(&event);
                let tenancy = matches!(
                    kind,
                    Watched::Subscriptions | Watched::TechnicalUsers | Watched::OidcProviders
                );
                if tenancy && changes.iter().any(|c| c.spec) {
                    progress.tenancy_changed();
                }
                if kind == Watched::Users && changes.iter().any(|c| c.spec) {
                    progress.people_changed();
                }
                for change in &changes {
                    for listener in &listeners {
                        // One that has ended hears no more; the others do.
                        let _ = listener.send(change.clone());
                    }
                }
                if done {
                    progress.seen(kind);
                }
            }
        });
        store
    }
}

/// What is remembered of a watch that fails.
#[derive(Default)]
struct Mishap {
    reconnect: Reconnect,
    said: Said,
    failing: bool,
    /// The log told that it fails, and not yet that it is well again.
    told: bool,
}

impl Mishap {
    /// Tells of a failure, and waits until it is time to try again.
    async fn sit_out(&mut self, kind: Watched, error: &watcher::Error, progress: &Progress) {
        let sentence = sentence(error);
        if self.said.is_news(&sentence, Instant::now()) {
            warn!(?kind, error = %sentence, "a watch failed; trying again");
            self.told = true;
        }
        self.failing = true;
        progress.failed(kind, sentence);
        let luck = crate::crypto::random::fraction();
        sleep(self.reconnect.wait(error, luck)).await;
    }

    /// It has delivered something.
    fn over(&mut self, kind: Watched, progress: &Progress) {
        if !self.failing {
            return;
        }
        self.failing = false;
        self.reconnect.reset();
        progress.well(kind);
        if std::mem::take(&mut self.told) {
            info!(?kind, "the watch works again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tenant_writes_at_will_does_not_fill_memory() {
        let secret = || -> Secret {
            let long = "ä".repeat(200_000);
            serde_json::from_value(serde_json::json!({
                "metadata": {"annotations": {"a/b": long, "c": "short"}},
                "data": {"client_secret": "c2VjcmV0", "filler": "QUFB".repeat(100_000)},
            }))
            .expect("a Secret")
        };
        let mut delivered = secret();
        trim(Watched::Deliveries, &mut delivered);
        assert!(delivered.annotations()["a/b"].len() <= LONGEST_VALUE);
        assert_eq!(delivered.annotations()["c"], "short");
        let data = delivered.data.expect("data");
        assert_eq!(data.keys().collect::<Vec<_>>(), ["client_secret"]);
        let mut own = secret();
        trim(Watched::Secrets, &mut own);
        assert_eq!(own, secret(), "what is the operator's is left whole");
    }
}
