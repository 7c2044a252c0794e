//! An API server in memory: a [`tower::Service`] behind kube's own `Client`, so that
//! controllers, feed and watches run the very same code on it as on a cluster.
//!
//! It serves `chancery dev` and the simulation tests. It holds what Chancery uses of the
//! Kubernetes API and refuses the rest with an error; `tests/embedded_conformance.rs` makes the
//! same calls of it and of a real kube-apiserver and compares the answers. It has no clock and
//! no randomness of its own, and everything it keeps is kept in order, so that a simulation with
//! the same seed sees the same answers.
//!
//! | file | what is in it |
//! |---|---|
//! | `service` | HTTP in and out |
//! | `request`, `selector` | what a request asks for |
//! | `read`, `watch`, `write`, `delete`, `discovery` | the verbs |
//! | `admit` | decoding, defaults and checks, from the files below |
//! | `meta`, `names` | object metadata |
//! | `builtin` | Secrets, `ConfigMaps`, `ServiceAccount`s, Namespaces, Events, Leases |
//! | `kinds`, `schema`, `validate`, `formats`, `rules` | CRDs |
//! | `gc` | owner references and namespaces |
//! | `store`, `persist`, `ids` | what is kept, in memory and in files |
//! | `status`, `field` | refusals, worded as the real server words them |

mod admit;
mod builtin;
mod delete;
mod discovery;
mod field;
mod formats;
mod gc;
mod ids;
mod kinds;
mod meta;
mod names;
mod persist;
mod read;
mod request;
mod rules;
mod schema;
mod selector;
mod service;
mod status;
mod store;
#[cfg(test)]
mod tests;
mod validate;
mod watch;
mod write;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::client::retry::RetryPolicy;
use serde_json::{Value, json};
use tower::ServiceBuilder;
use tower::retry::RetryLayer;

pub use self::ids::Ids;
pub use self::service::Service;

use self::kinds::{Builtin, Kinds};
use self::persist::Disk;
use self::store::State;
use crate::clock::SharedClock;

/// What an [`ApiServer`] is made of.
pub struct Options {
    /// The kinds served besides the built-in ones.
    pub crds: Vec<CustomResourceDefinition>,
    /// Where objects are kept across restarts; `None`: in memory only.
    pub state_dir: Option<PathBuf>,
    /// Where creation and deletion times come from.
    pub clock: SharedClock,
    /// Where UIDs and the endings of generated names come from.
    pub ids: Ids,
}

/// Why an [`ApiServer`] could not start. Nothing on the disk was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the directory.
    #[error("{path} is in use by another process (process id {holder}): stop that one, or choose another state directory", path = .path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process that holds it.
        holder: String,
    },
    /// The directory was there before, and is not for us.
    #[error("{path} {why}; choose an empty or new directory with --state", path = .path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What about it.
        why: &'static str,
    },
    /// A file that is not what was written.
    #[error("{path} can not be read: {why}. Mend it, or move it away", path = .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The disk refused.
    #[error("{path}: {why}", path = .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// A CRD that this server can not serve.
    #[error("the custom resource definition {name} can not be served: {why}")]
    Definition {
        /// The CRD.
        name: String,
        /// What about it.
        why: String,
    },
}

/// A handle to an API server in memory; clones are the same server.
#[derive(Clone)]
pub struct ApiServer {
    inner: Arc<Inner>,
}

/// What the handles share.
struct Inner {
    kinds: Kinds,
    clock: SharedClock,
    state: Mutex<State>,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves whole objects behind: each is swapped in one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ApiServer {
    /// Starts a server, with what its directory holds. A file that can not be read is an error
    /// that names it; nothing is overwritten then.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        let kinds = Kinds::new(&options.crds)?;
        let plurals = plurals(&kinds)?;
        let (disk, loaded) = match &options.state_dir {
            Some(root) => {
                let (disk, loaded) = Disk::open(root, &plurals)?;
                (Some(disk), loaded)
            }
            None => (
                None,
                persist::Loaded {
                    objects: Vec::new(),
                    version: 0,
                },
            ),
        };
        let versions = loaded.objects.iter().map(|(_, object)| version_of(object));
        let start = versions.max().unwrap_or(0).max(loaded.version);
        let ids = ids::Source::new(options.ids, start);
        let mut state = State::new(kinds.all().len(), start, ids, disk);
        for (plural, mut object) in loaded.objects {
            if let Some(kind) = kinds
                .all()
                .iter()
                .find(|k| k.persisted() && k.plural == plural)
            {
                admit::default(kind, &mut object);
                let version = version_of(&object);
                state.load(kind, object, version);
            }
        }
        let crd_kind = kinds.builtin(Builtin::CustomResourceDefinition).clone();
        for crd in &options.crds {
            let mut document = kinds::crd_document(crd).map_err(|why| OpenError::Definition {
                name: crd.spec.names.plural.clone(),
                why: why.to_string(),
            })?;
            let metadata = meta::metadata(&mut document);
            metadata.insert("uid".into(), json!(state.ids.uid()));
            metadata.insert("creationTimestamp".into(), meta::time(options.clock.now()));
            metadata.insert("generation".into(), json!(1));
            metadata.insert("resourceVersion".into(), json!((start + 1).to_string()));
            state.load(&crd_kind, document, start + 1);
        }
        let inner = Arc::new(Inner {
            kinds,
            clock: options.clock,
            state: Mutex::new(state),
        });
        inner.settle().map_err(|refusal| OpenError::Io {
            path: options.state_dir.unwrap_or_default(),
            why: io::Error::other(refusal.message),
        })?;
        Ok(Self { inner })
    }

    /// A client as programs have it, with kube's own retries.
    pub fn client(&self, default_namespace: &str) -> kube::Client {
        let service = ServiceBuilder::new()
            .layer(RetryLayer::new(RetryPolicy::server_retry()))
            .service(self.service());
        kube::Client::new(service, default_namespace)
    }

    /// The bare service, round which tests can wrap layers that fail.
    pub fn service(&self) -> Service {
        Service::new(self.inner.clone())
    }

    /// Drops all open watches.
    pub fn disconnect_watches(&self) {
        let mut state = self.inner.state();
        state.epoch += 1;
        state.wake();
    }

    /// Forgets the history: older versions answer 410 from now on.
    pub fn compact(&self) {
        self.inner.state().compact();
    }

    /// The version of the newest write.
    pub fn resource_version(&self) -> u64 {
        self.inner.state().version()
    }
}

impl Inner {
    /// Makes the `default` namespace, and finishes what a crash may have cut short.
    fn settle(&self) -> Result<(), status::Refusal> {
        let mut state = self.state();
        let namespaces = self.kinds.builtin(Builtin::Namespace);
        if state.get(namespaces, "default").is_none() {
            let mut object = json!({
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {
                    "name": "default",
                    "uid": state.ids.uid(),
                    "creationTimestamp": meta::time(self.clock.now()),
                },
            });
            admit::normalise(namespaces, &mut object);
            state.put(namespaces, object)?;
        }
        let terminating: Vec<String> = state.all(namespaces).keys().cloned().collect();
        for name in terminating {
            state.pending.insert((namespaces.index, name));
        }
        gc::collect(self, &mut state);
        Ok(())
    }
}

/// The directories of the kinds that are kept; two of a name would share one.
fn plurals(kinds: &Kinds) -> Result<Vec<String>, OpenError> {
    let mut plurals: Vec<String> = Vec::new();
    for kind in kinds.all().iter().filter(|k| k.persisted()) {
        if plurals.contains(&kind.plural) {
            return Err(OpenError::Definition {
                name: kind.resource(),
                why: format!("another kind is called {} too", kind.plural),
            });
        }
        plurals.push(kind.plural.clone());
    }
    Ok(plurals)
}

fn version_of(object: &Value) -> u64 {
    meta::text(object, "resourceVersion").parse().unwrap_or(0)
}
