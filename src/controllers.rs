//! The operator: one loop for all kinds. A visit to an object gathers what there is to *see*
//! (IO), *decides* (a pure function of what was seen and the time), and *applies* the decision,
//! a plain list of writes. An invalid spec is a condition, never an `Err`: that means that IO
//! failed, and gets backoff.

mod apply;
mod cluster_keys;
mod enrolments;
mod events;
mod oidc_provider;
mod operator;
mod outbox;
mod queue;
mod signing_key;
mod status;
mod subscription;
mod technical_user;
mod user;
mod visit;
mod wanted_keys;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::api::v1alpha1::{SealedBy, Subscription, TechnicalUser, User};
use crate::crypto::age::Recipient;
use crate::domain::algorithm::{Algorithm, RsaKeySize};
use crate::domain::client::Family;
use crate::domain::rotation::Cause;

pub use operator::{Operator, Outcome};
#[doc(hidden)] // For the search in tests/, which drives visits call by call.
pub use signing_key::{Copies, Looked, Reads, look as look_at_ring};
#[doc(hidden)] // For the simulation in tests/, which carries its writes out one by one.
pub mod secrets {
    pub use super::technical_user::{
        Companionship, DeliverySeen, Found, MadeSeen, SERVERS_FOLLOW, Seen, SuppliedSeen, Workload,
        decide,
    };
}
pub use signing_key::{
    PlanFn, algorithm_violation_of as algorithm_violation, policy_of as rotation_policy,
    violation_of as policy_violation,
};

/// The kinds that have a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `SigningKey`
    SigningKey,
    /// `Subscription`
    Subscription,
    /// `TechnicalUser`
    TechnicalUser,
    /// `OidcProvider`
    OidcProvider,
    /// `User`
    User,
    /// The `ConfigMap` in which servers note what is to last.
    Outbox,
    /// The `ConfigMap` in which servers note which providers' keys are wanted.
    WantedKeys,
    /// The `ConfigMap` in which servers note people who are new.
    Enrolments,
}

impl Kind {
    /// The kind's name in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::SigningKey => "SigningKey",
            Self::Subscription => "Subscription",
            Self::TechnicalUser => "TechnicalUser",
            Self::OidcProvider => "OidcProvider",
            Self::User => "User",
            Self::Outbox | Self::Enrolments | Self::WantedKeys => "ConfigMap",
        }
    }
}

/// An object to visit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What a visit comes to.
#[derive(Debug, Default)]
pub struct Decision {
    /// What to write, in this order. The first that fails ends the visit: the next one looks
    /// again.
    pub writes: Vec<Write>,
    /// When to come back, if nothing happens before.
    pub wake_at: Option<Timestamp>,
}

impl Decision {
    /// Come back at the first of these times at the latest.
    pub fn wake_by(&mut self, times: impl IntoIterator<Item = Timestamp>) {
        self.wake_at = self.wake_at.into_iter().chain(times).min();
    }
}

/// One write to the API server.
#[derive(Debug)]
pub enum Write {
    /// Creates an object; one of that name that is there already is left as it is.
    Create(Object, Fill),
    /// Replaces an object, if it is still as it was seen (by its resourceVersion).
    Replace(Object, Fill),
    /// Has the API server judge an object without writing it.
    TryOut(Object),
    /// Deletes an object, if it is still as it was seen (by UID and resourceVersion).
    Delete(Object),
    /// Replaces the status of the visited object, if that is still as it was seen.
    Status {
        /// The resourceVersion that was seen.
        resource_version: String,
        /// The status.
        status: Value,
    },
    /// A write that nothing else waits for: it comes last, and that it fails ends no visit.
    Aside(Box<Write>),
    /// Tells a person what was done, once what stands before it in the list was done.
    Event(Note),
}

/// What controllers make.
#[derive(Clone, Debug)]
pub enum Object {
    /// A Secret.
    Secret(Box<Secret>),
    /// A `ConfigMap`.
    ConfigMap(Box<ConfigMap>),
    /// A technical user: the companion agent of a device.
    TechnicalUser(Box<TechnicalUser>),
    /// A person who is enrolled.
    User(Box<User>),
    /// Of a legal entity that is enrolled.
    Subscription(Box<Subscription>),
    /// The same one's.
    Namespace(Box<Namespace>),
}

/// Secret material that is put into an object just before it is written, so that no decision
/// holds it.
pub enum Fill {
    /// Nothing: the object is whole.
    Nothing,
    /// A new key pair.
    KeyPair(Algorithm, RsaKeySize),
    /// A key pair that a person injects: PKCS#8 in PEM.
    InjectedKey(Zeroizing<String>),
    /// The hash of a new client secret, beside those that are there. The secret is remembered for
    /// [`Fill::NewSecret`], in this visit or a later one.
    NewHash {
        /// The family, whose prefix the secret has.
        family: Family,
        /// What the credential is called.
        id: String,
        /// Why it is made.
        cause: Cause,
        /// The value of the rotate annotation that is handled with it.
        handled: Option<String>,
        /// Whom the secret is sealed to, in the same write, where it is delivered once. It is not
        /// remembered then.
        seal: Option<SealTo>,
        /// The time of the visit.
        now: Timestamp,
    },
    /// The hash of a client secret that a delivered Secret holds.
    HashOf {
        /// The secret.
        plain: Zeroizing<String>,
        /// What the credential is called.
        id: String,
        /// The time of the visit.
        now: Timestamp,
    },
    /// The client secret of the last [`Fill::NewHash`], under these keys.
    NewSecret(Vec<String>),
    /// A client secret that a delivered Secret holds, under these keys.
    Secret(Vec<String>, Zeroizing<String>),
}

/// Whom a client secret is sealed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealTo {
    /// The public key.
    pub recipient: Recipient,
    /// Who gave it.
    pub by: SealedBy,
}

impl std::fmt::Debug for Fill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::KeyPair(..) => "KeyPair",
            Self::InjectedKey(_) => "InjectedKey",
            Self::NewHash { .. } => "NewHash",
            Self::HashOf { .. } => "HashOf",
            Self::NewSecret(_) => "NewSecret",
            Self::Secret(..) => "Secret",
        })
    }
}

/// Something to tell a person, as a Kubernetes Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Whether it is something to worry about.
    pub warning: bool,
    /// One of [`crate::domain::reasons`].
    pub reason: &'static str,
    /// The sentence.
    pub message: String,
}

impl Note {
    /// Good news.
    pub fn normal(reason: &'static str, message: impl Into<String>) -> Write {
        Write::Event(Self {
            warning: false,
            reason,
            message: message.into(),
        })
    }

    /// Something to worry about.
    pub fn warning(reason: &'static str, message: impl Into<String>) -> Write {
        Write::Event(Self {
            warning: true,
            reason,
            message: message.into(),
        })
    }
}

/// Why a visit failed: IO, and nothing else.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused, or could not be reached.
    #[error("{what}: {source}")]
    Api {
        /// What was tried.
        what: String,
        /// What came back.
        source: Box<kube::Error>,
    },
    /// The API server did not answer in time.
    #[error("{0}: no answer from the API server within 10 s")]
    Timeout(String),
    /// The API server refused: a quota, an admission policy, a missing right.
    #[error("{what}: {message}")]
    Refused {
        /// What was tried.
        what: String,
        /// Its own words.
        message: String,
    },
    /// A bug.
    #[error("the visit panicked, which is a bug: please report it with the log's lines before")]
    Panicked,
    /// Key generation or hashing failed.
    #[error("making key material failed: {0}")]
    Material(String),
}
