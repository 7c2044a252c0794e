//! What is watched: one reflector a kind, and a stream that tells what has changed. Controllers
//! and feed both read here; neither asks the API server for what it can find in a store.

mod hints;
mod known;
mod mirror;
mod progress;
mod reconnect;
mod starter;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, ServiceAccount};
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::Config;
use kube::{Client, Resource, ResourceExt};
use tokio::sync::mpsc;

use crate::api::v1alpha1::{OidcProvider, SigningKey, Subscription, TechnicalUser, User};
use crate::domain::names::{
    ENVIRONMENT_LABEL, MANAGED_BY, MANAGED_BY_LABEL, PART_DELIVERY, PART_LABEL, PART_PUBLISHED,
};
use crate::domain::settings::Settings;

// A custom resource as it is watched: one that does not parse is an error of its own, and holds
// up no other (CVE-2022-39272 is what happens otherwise).
pub use kube::core::DeserializeGuard as Guarded;
pub use mirror::{Listed, Mirror};
use progress::Progress;
use starter::Starter;

/// The kinds that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Watched {
    /// `SigningKey`s of the operator namespace.
    SigningKeys,
    /// Subscriptions everywhere.
    Subscriptions,
    /// Technical users everywhere.
    TechnicalUsers,
    /// Outside identity providers everywhere.
    OidcProviders,
    /// Users everywhere.
    Users,
    /// Our Secrets in the operator namespace: key pairs and hashes.
    Secrets,
    /// Our ConfigMaps in the operator namespace.
    ConfigMaps,
    /// Delivered Secrets everywhere; only the operator watches them.
    Deliveries,
    /// Published JWKS everywhere; only the operator watches them.
    Published,
    /// Namespaces; only the operator watches them.
    Namespaces,
    /// All Secrets everywhere, their names and versions alone: people name some in `SigningKey`s and
    /// technical users. Only the operator watches them.
    NamedSecrets,
    /// `ServiceAccount`s everywhere, their metadata alone: technical users name some. Only the operator
    /// watches them.
    ServiceAccounts,
}

/// As a person knows them.
impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SigningKeys => "SigningKeys",
            Self::Subscriptions => "Subscriptions",
            Self::TechnicalUsers => "TechnicalUsers",
            Self::OidcProviders => "OidcProviders",
            Self::Users => "Users",
            Self::Secrets => "Secrets of key pairs and hashes",
            Self::ConfigMaps => "ConfigMaps",
            Self::Deliveries => "delivered Secrets",
            Self::Published => "published ConfigMaps",
            Self::Namespaces => "Namespaces",
            Self::NamedSecrets => "names of Secrets",
            Self::ServiceAccounts => "ServiceAccounts",
        })
    }
}

/// Something that was made, changed or deleted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Of which kind.
    pub kind: Watched,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it points at: labels and owner names, which are gone with a deleted object.
    pub hints: Vec<String>,
    /// Whether more than its status may have changed.
    pub spec: bool,
}

/// The reflectors' stores.
#[derive(Clone)]
pub struct Stores {
    /// `SigningKey`s of the operator namespace.
    pub signing_keys: Store<Guarded<SigningKey>>,
    /// Subscriptions everywhere.
    pub subscriptions: Store<Guarded<Subscription>>,
    /// Technical users everywhere.
    pub technical_users: Store<Guarded<TechnicalUser>>,
    /// Outside identity providers everywhere.
    pub oidc_providers: Store<Guarded<OidcProvider>>,
    /// Users everywhere.
    pub users: Store<Guarded<User>>,
    /// Our Secrets in the operator namespace.
    pub secrets: Store<Secret>,
    /// Our ConfigMaps in the operator namespace.
    pub config_maps: Store<ConfigMap>,
    /// Delivered Secrets everywhere; empty where they are not watched.
    pub deliveries: Store<Secret>,
    /// `ConfigMap`s with a JWKS in other namespaces; empty where they are not watched.
    pub published: Store<ConfigMap>,
    /// Namespaces; empty where they are not watched.
    pub namespaces: Store<Namespace>,
    /// The names and versions of all Secrets; empty where they are not watched.
    pub named_secrets: Store<PartialObjectMeta<Secret>>,
    /// The metadata of all `ServiceAccount`s; empty where they are not watched.
    pub service_accounts: Store<PartialObjectMeta<ServiceAccount>>,
    /// Each of these that the feed reads, with the way to compare it with the API server.
    pub mirrors: Arc<[Mirror]>,
    progress: Arc<Progress>,
}

/// Whether delivered Secrets are watched too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All that the operator needs.
    Operator,
    /// Only what the server may read.
    Server,
}

impl Stores {
    /// Starts the watches, which tell their changes to all of `listeners`. They end with the
    /// returned set.
    pub fn start(
        client: &Client,
        settings: &Settings,
        scope: Scope,
        listeners: Vec<mpsc::UnboundedSender<Change>>,
    ) -> (Self, tokio::task::JoinSet<()>) {
        let progress = Arc::<Progress>::default();

        let namespace = &settings.operator_namespace;
        let ours = format!(
            "{MANAGED_BY_LABEL}={MANAGED_BY},{ENVIRONMENT_LABEL}={}",
            settings.environment
        );
        let mine = Config::default().labels(&ours);
        let part = |part| Config::default().labels(&format!("{ours},{PART_LABEL}={part}"));

        let mut starter = Starter::new(scope, listeners, progress.clone());
        let all = Config::default;
        let mut stores = Self {
            mirrors: Arc::new([]),
            signing_keys: starter.go(
                Watched::SigningKeys,
                Api::namespaced(client.clone(), namespace),
                all(),
                hints::none,
            ),
            subscriptions: starter.go(
                Watched::Subscriptions,
                Api::all(client.clone()),
                all(),
                hints::of_subscription,
            ),
            technical_users: starter.go(
                Watched::TechnicalUsers,
                Api::all(client.clone()),
                all(),
                hints::of_technical_user,
            ),
            oidc_providers: starter.go(
                Watched::OidcProviders,
                Api::all(client.clone()),
                all(),
                hints::none,
            ),
            users: starter.go(
                Watched::Users,
                Api::all(client.clone()),
                all(),
                hints::of_user,
            ),
            secrets: starter.go(
                Watched::Secrets,
                Api::namespaced(client.clone(), namespace),
                mine.clone(),
                hints::of_secret,
            ),
            config_maps: starter.go(
                Watched::ConfigMaps,
                Api::namespaced(client.clone(), namespace),
                mine,
                hints::of_config_map,
            ),
            deliveries: starter.operators(
                Watched::Deliveries,
                Api::all(client.clone()),
                part(PART_DELIVERY),
                hints::of_delivery,
            ),
            published: starter.operators(
                Watched::Published,
                Api::all(client.clone()),
                part(PART_PUBLISHED),
                hints::ring_of,
            ),
            namespaces: starter.operators(
                Watched::Namespaces,
                Api::all(client.clone()),
                all(),
                hints::none,
            ),
            named_secrets: starter.operators(
                Watched::NamedSecrets,
                Api::all(client.clone()),
                all(),
                hints::none,
            ),
            service_accounts: starter.operators(
                Watched::ServiceAccounts,
                Api::all(client.clone()),
                all(),
                hints::none,
            ),
            progress,
        };
        let (mirrors, tasks) = starter.end();
        stores.mirrors = mirrors.into();
        (stores, tasks)
    }

    /// Stores that are filled by hand rather than by watches: for simulations.
    #[doc(hidden)]
    pub fn by_hand() -> (Self, Hands) {
        let (signing_keys, of_signing_keys) = reflector::store();
        let (subscriptions, of_subscriptions) = reflector::store();
        let (technical_users, of_technical_users) = reflector::store();
        let (secrets, of_secrets) = reflector::store();
        let (config_maps, of_config_maps) = reflector::store();
        let (deliveries, of_deliveries) = reflector::store();
        let stores = Self {
            signing_keys,
            subscriptions,
            technical_users,
            oidc_providers: reflector::store().0,
            users: reflector::store().0,
            secrets,
            config_maps,
            deliveries,
            published: reflector::store().0,
            namespaces: reflector::store().0,
            named_secrets: reflector::store().0,
            service_accounts: reflector::store().0,
            mirrors: Arc::new([]),
            progress: Arc::default(),
        };
        let hands = Hands {
            signing_keys: of_signing_keys,
            subscriptions: of_subscriptions,
            technical_users: of_technical_users,
            secrets: of_secrets,
            config_maps: of_config_maps,
            deliveries: of_deliveries,
        };
        (stores, hands)
    }

    /// Returns when every store has seen the whole of its kind once.
    pub async fn synced(&self) {
        self.progress.complete().await;
    }

    /// The kinds that have not been seen whole yet.
    pub fn waiting_for(&self) -> BTreeSet<Watched> {
        self.progress.waiting()
    }

    /// A sentence on what has not been seen whole yet, and the last error that stands against it.
    pub fn told(&self) -> String {
        self.progress.told()
    }

    /// A number that grows when a Subscription, a technical user or an outside provider is made, deleted, or
    /// has its spec changed.
    pub fn tenancy_version(&self) -> u64 {
        self.progress.tenancy()
    }

    /// A number that grows when a User is made, deleted, or has its spec changed.
    pub fn people_version(&self) -> u64 {
        self.progress.people()
    }

    /// Everything that is there, as if it had just been made.
    pub fn everything(&self) -> Vec<Change> {
        use Watched::{
            ConfigMaps, Deliveries, NamedSecrets, Namespaces, OidcProviders, Published, Secrets,
            ServiceAccounts, SigningKeys, Subscriptions, TechnicalUsers, Users,
        };
        all_of(SigningKeys, &self.signing_keys, hints::none)
            .chain(all_of(
                Subscriptions,
                &self.subscriptions,
                hints::of_subscription,
            ))
            .chain(all_of(
                TechnicalUsers,
                &self.technical_users,
                hints::of_technical_user,
            ))
            .chain(all_of(OidcProviders, &self.oidc_providers, hints::none))
            .chain(all_of(Users, &self.users, hints::of_user))
            .chain(all_of(Secrets, &self.secrets, hints::of_secret))
            .chain(all_of(ConfigMaps, &self.config_maps, hints::of_config_map))
            .chain(all_of(Deliveries, &self.deliveries, hints::of_delivery))
            .chain(all_of(Published, &self.published, hints::ring_of))
            .chain(all_of(Namespaces, &self.namespaces, hints::none))
            .chain(all_of(NamedSecrets, &self.named_secrets, hints::none))
            .chain(all_of(ServiceAccounts, &self.service_accounts, hints::none))
            .collect()
    }

    /// The object of that name in a store.
    pub fn get<K>(store: &Store<K>, namespace: &str, name: &str) -> Option<Arc<K>>
    where
        K: Resource<DynamicType = ()> + Clone + 'static,
    {
        store.get(&ObjectRef::new(name).within(namespace))
    }
}

/// All that a store holds, as changes.
fn all_of<'a, K>(
    kind: Watched,
    store: &Store<K>,
    hints: impl Fn(&K) -> Vec<String> + 'a,
) -> impl Iterator<Item = Change> + 'a
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.state().into_iter().map(move |object| Change {
        kind,
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        hints: hints(&object),
        spec: true,
    })
}

/// What fills [`Stores::by_hand`].
#[doc(hidden)]
pub struct Hands {
    /// `SigningKey`s of the operator namespace.
    pub signing_keys: reflector::store::Writer<Guarded<SigningKey>>,
    /// Subscriptions everywhere.
    pub subscriptions: reflector::store::Writer<Guarded<Subscription>>,
    /// Technical users everywhere.
    pub technical_users: reflector::store::Writer<Guarded<TechnicalUser>>,
    /// Our Secrets in the operator namespace.
    pub secrets: reflector::store::Writer<Secret>,
    /// Our ConfigMaps in the operator namespace.
    pub config_maps: reflector::store::Writer<ConfigMap>,
    /// Delivered Secrets everywhere.
    pub deliveries: reflector::store::Writer<Secret>,
}
