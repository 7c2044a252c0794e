//! Carries out a decision, one write at a time. Each is an API call with a limit of its own, so
//! that the client's retries can not outlive what was decided.

use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use kube::core::{DynamicObject, NamespaceResourceScope};
use kube::discovery::ApiResource;
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::operator::Context;
use super::technical_user::{Made, MadeSecret};
use super::{Error, Fill, Key, Kind, Object, SealTo, Write};
use crate::api::v1alpha1::{
    OidcProvider, SealedStatus, SigningKey, Subscription, TechnicalUser, User,
};
use crate::crypto;
use crate::crypto::key_pair::KeyPair;
use crate::domain::client::StoredCredential;
use crate::domain::rotation::Cause;
use crate::leader::Leadership;
use crate::objects::credentials::{self, Stored};
use crate::objects::{delivery, key_secret};

/// How long one write may take, retries included.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// Field manager of all that we write.
pub const MANAGER: &str = "chancery";

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Done.
    Done,
    /// The world is not as it was seen, or is another process's to change: look again.
    LookAgain,
}

/// Carries out the writes of one visit.
pub struct Applier<'a> {
    client: &'a Client,
    leadership: &'a Leadership,
    key: &'a Key,
    /// Client secrets between their hash's write and their delivery.
    made: &'a Made,
    /// The bcrypt cost of generated secrets.
    cost: u32,
    /// The one whose hash is just being written.
    secret: Option<MadeSecret>,
}

impl<'a> Applier<'a> {
    /// For a visit to that object.
    pub fn new(cx: &'a Context, key: &'a Key) -> Self {
        Self {
            client: &cx.client,
            leadership: &cx.leadership,
            key,
            made: &cx.made,
            cost: cx.settings.secrets.generated_cost,
            secret: None,
        }
    }

    /// Carries out one write; events and what stands aside are not for it.
    pub async fn apply(&mut self, write: Write) -> Result<Applied, Error> {
        let delivers = matches!(
            write,
            Write::Create(_, Fill::NewSecret(_)) | Write::Replace(_, Fill::NewSecret(_))
        );
        let applied = self.write(write).await?;
        if applied == Applied::Done {
            if let Some(secret) = self.secret.take() {
                // Now that its hash is stored; were that not sure, it would be made again.
                self.made.put(self.key, secret);
            } else if delivers {
                self.made.forget(self.key);
            }
        }
        Ok(applied)
    }

    async fn write(&mut self, write: Write) -> Result<Applied, Error> {
        match write {
            Write::Create(object, fill) => {
                let object = self.fill(object, fill).await?;
                let what = format!("creating {}", describe(&object));
                self.put(what, &object, Put::Create, false).await
            }
            Write::Replace(object, fill) => {
                let object = self.fill(object, fill).await?;
                let what = format!("replacing {}", describe(&object));
                self.put(what, &object, Put::Replace, false).await
            }
            Write::TryOut(object) => {
                let what = format!("writing {}", describe(&object));
                let put = match meta(&object).resource_version {
                    Some(_) => Put::Replace,
                    None => Put::Create,
                };
                self.put(what, &object, put, true).await
            }
            Write::Delete(object) => {
                let what = format!("deleting {}", describe(&object));
                match object {
                    Object::Secret(s) => self.delete(what, &*s).await,
                    Object::ConfigMap(m) => self.delete(what, &*m).await,
                    Object::TechnicalUser(u) => self.delete(what, &*u).await,
                    // Whatever was enrolled is a person's to delete.
                    Object::User(_) | Object::Subscription(_) | Object::Namespace(_) => {
                        Ok(Applied::Done)
                    }
                }
            }
            Write::Status {
                resource_version,
                status,
            } => {
                let Key {
                    kind,
                    namespace,
                    name,
                } = self.key;
                let resource = api_resource(*kind);
                let api: Api<DynamicObject> =
                    Api::namespaced_with(self.client.clone(), namespace, &resource);
                let mut object = DynamicObject::new(name, &resource).within(namespace);
                object.metadata.resource_version = Some(resource_version);
                // The spec is not sent: the API server takes only the status from this call.
                object.data = json!({ "status": status });
                let params = PostParams {
                    field_manager: Some(MANAGER.into()),
                    ..PostParams::default()
                };
                let what = format!("writing the status of {} {namespace}/{name}", kind.name());
                self.settle(what, api.replace_status(name, &params, &object))
                    .await
            }
            // Neither is for it.
            Write::Event(_) | Write::Aside(_) => Ok(Applied::Done),
        }
    }

    async fn put(
        &self,
        what: String,
        object: &Object,
        put: Put,
        dry_run: bool,
    ) -> Result<Applied, Error> {
        match object {
            Object::Secret(s) => self.put_one(what, &**s, put, dry_run).await,
            Object::ConfigMap(m) => self.put_one(what, &**m, put, dry_run).await,
            Object::TechnicalUser(u) => self.put_one(what, &**u, put, dry_run).await,
            Object::User(u) => self.put_one(what, &**u, put, dry_run).await,
            Object::Subscription(s) => self.put_one(what, &**s, put, dry_run).await,
            Object::Namespace(n) => {
                let params = PostParams {
                    dry_run,
                    field_manager: Some(MANAGER.into()),
                };
                // They are only made, and never edited.
                let api: Api<Namespace> = Api::all(self.client.clone());
                self.settle(what, api.create(&params, n)).await
            }
        }
    }

    async fn put_one<K: Ours>(
        &self,
        what: String,
        object: &K,
        put: Put,
        dry_run: bool,
    ) -> Result<Applied, Error> {
        let params = PostParams {
            dry_run,
            field_manager: Some(MANAGER.into()),
        };
        let (api, name) = (api::<K>(self.client, object), object.name_any());
        match put {
            Put::Create => self.settle(what, api.create(&params, object)).await,
            Put::Replace => {
                let call = api.replace(&name, &params, object);
                self.settle(what, call).await
            }
        }
    }

    async fn delete<K: Ours>(&self, what: String, object: &K) -> Result<Applied, Error> {
        let (api, name) = (api::<K>(self.client, object), object.name_any());
        let params = if_unchanged(object.meta());
        self.settle(what, api.delete(&name, &params)).await
    }

    /// Carries out a write. Nothing is written, or tried again, once another process may lead.
    async fn settle<T>(
        &self,
        what: String,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<Applied, Error> {
        let call = self.leadership.while_leading(call);
        match tokio::time::timeout(WRITE_LIMIT, call).await {
            Err(_) => Err(Error::Timeout(what)),
            Ok(None) => {
                tracing::debug!(%what, "left to the process that leads");
                Ok(Applied::LookAgain)
            }
            Ok(Some(answer)) => applied(what, answer),
        }
    }

    async fn fill(&mut self, object: Object, fill: Fill) -> Result<Object, Error> {
        let Object::Secret(mut secret) = object else {
            return Ok(object);
        };
        match fill {
            Fill::Nothing => {}
            Fill::KeyPair(algorithm, size) => {
                let pem = blocking(move || {
                    KeyPair::generate_pem(algorithm, size).map_err(|e| e.to_string())
                })
                .await?;
                let bytes = ByteString(pem.as_bytes().to_vec());
                secret
                    .data
                    .get_or_insert_default()
                    .insert(key_secret::PRIVATE_KEY.into(), bytes);
            }
            Fill::InjectedKey(pem) => {
                let bytes = ByteString(pem.as_bytes().to_vec());
                secret
                    .data
                    .get_or_insert_default()
                    .insert(key_secret::PRIVATE_KEY.into(), bytes);
            }
            Fill::NewHash {
                family,
                id,
                cause,
                handled,
                seal,
                now,
            } => {
                let plain = crypto::secret::generate(family);
                let new = hashed(plain.clone(), self.cost, id, now).await?;
                let mut stored = Stored::new(new, cause, handled);
                match seal {
                    Some(to) => stored.known.sealed = Some(sealed(&plain, &to, &stored)?),
                    None => {
                        self.secret = Some(MadeSecret {
                            id: stored.credential.id.clone(),
                            hash: stored.credential.hash.clone(),
                            plain,
                            since: Instant::now(),
                        });
                    }
                }
                credentials::put(&mut secret, stored);
            }
            Fill::HashOf { plain, id, now } => {
                let new = hashed(plain, self.cost, id, now).await?;
                credentials::put(&mut secret, Stored::new(new, Cause::First, None));
            }
            Fill::NewSecret(under) => {
                let made = self.made.get(self.key).ok_or_else(|| {
                    Error::Material("a client secret was to be delivered before it was made".into())
                })?;
                delivery::fill(&mut secret, &under, &made.plain);
            }
            Fill::Secret(under, plain) => delivery::fill(&mut secret, &under, &plain),
        }
        Ok(Object::Secret(secret))
    }
}

/// A client secret, sealed to whoever claimed it.
fn sealed(plain: &str, to: &SealTo, stored: &Stored) -> Result<SealedStatus, Error> {
    let ciphertext = crypto::age::seal(&to.recipient, plain.as_bytes());
    Ok(SealedStatus {
        credential_id: stored.credential.id.clone(),
        recipient: to.recipient.to_string(),
        by: to.by,
        sealed_at: Time(credentials::whole_second(stored.credential.created_at)),
        ciphertext: ciphertext.map_err(|e| Error::Material(e.to_string()))?,
    })
}

async fn hashed(
    plain: Zeroizing<String>,
    cost: u32,
    id: String,
    now: jiff::Timestamp,
) -> Result<StoredCredential, Error> {
    let hash =
        blocking(move || crypto::hash::hash(&plain, cost).map_err(|e| e.to_string())).await?;
    Ok(StoredCredential {
        id,
        hash,
        created_at: now,
        expires_at: None,
    })
}

/// RSA generation takes up to seconds, and bcrypt milliseconds: not on the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(Error::Material),
        Err(error) => Err(Error::Material(error.to_string())),
    }
}

/// How an object is put there.
#[derive(Clone, Copy)]
enum Put {
    /// Where there is none.
    Create,
    /// Where one is, if that is still as it was seen.
    Replace,
}

/// What we write.
trait Ours:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + std::fmt::Debug
    + DeserializeOwned
    + Serialize
{
}

impl Ours for Secret {}
impl Ours for ConfigMap {}
impl Ours for TechnicalUser {}
impl Ours for User {}
impl Ours for Subscription {}

fn api<K: Ours>(client: &Client, object: &K) -> Api<K> {
    Api::namespaced(client.clone(), &object.namespace().unwrap_or_default())
}

/// The resource of a kind.
pub fn api_resource(kind: Kind) -> ApiResource {
    match kind {
        Kind::SigningKey => ApiResource::erase::<SigningKey>(&()),
        Kind::Subscription => ApiResource::erase::<Subscription>(&()),
        Kind::TechnicalUser => ApiResource::erase::<TechnicalUser>(&()),
        Kind::OidcProvider => ApiResource::erase::<OidcProvider>(&()),
        Kind::User => ApiResource::erase::<User>(&()),
        Kind::Outbox | Kind::Enrolments | Kind::WantedKeys => ApiResource::erase::<ConfigMap>(&()),
    }
}

fn if_unchanged(meta: &ObjectMeta) -> DeleteParams {
    DeleteParams::background().preconditions(Preconditions {
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
    })
}

fn meta(object: &Object) -> &ObjectMeta {
    match object {
        Object::Secret(s) => &s.metadata,
        Object::ConfigMap(m) => &m.metadata,
        Object::TechnicalUser(u) => &u.metadata,
        Object::User(u) => &u.metadata,
        Object::Subscription(s) => &s.metadata,
        Object::Namespace(n) => &n.metadata,
    }
}

fn describe(object: &Object) -> String {
    let kind = match object {
        Object::Secret(_) => "Secret",
        Object::ConfigMap(_) => "ConfigMap",
        Object::TechnicalUser(_) => "TechnicalUser",
        Object::User(_) => "User",
        Object::Subscription(_) => "Subscription",
        Object::Namespace(_) => "Namespace",
    };
    let meta = meta(object);
    let or_empty = |s: &Option<String>| s.clone().unwrap_or_default();
    format!(
        "{kind} {}/{}",
        or_empty(&meta.namespace),
        or_empty(&meta.name)
    )
}

/// Tells a world that has moved on (409, 404) from a failure.
fn applied<T>(what: String, answer: Result<T, kube::Error>) -> Result<Applied, Error> {
    match answer {
        Ok(_) => Ok(Applied::Done),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
            // A missing namespace would not come of looking again at once.
            let gone = status
                .details
                .as_ref()
                .is_some_and(|d| d.kind == "namespaces");
            if gone {
                let message = status.message;
                return Err(Error::Refused { what, message });
            }
            tracing::debug!(%what, reason = %status.reason, "the world has moved on: looking again");
            Ok(Applied::LookAgain)
        }
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 403 | 405 | 422) => {
            let message = status.message;
            Err(Error::Refused { what, message })
        }
        Err(source) => Err(Error::Api {
            what,
            source: Box::new(source),
        }),
    }
}
