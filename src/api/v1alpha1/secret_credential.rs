//! The credential `secret` of a technical user: how a client secret reaches its owner, and when it is replaced.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::unquoted::unquoted;
use crate::domain::client::DEFAULT_SECRET_GRACE;
use crate::domain::period::Period;
use crate::domain::vocabulary;

/// A client secret: one that the operator generates, or that you supply.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.delivery != 'Reference' || has(self.secretRefs)")
        .message("delivery is Reference, and secretRefs is absent: name the Secret of this namespace that holds the client secret.")
        .field_path(".secretRefs"),
    validation = Rule::new("self.delivery == 'Reference' || !has(self.secretRefs)")
        .message("secretRefs names Secrets that you supply, and the operator generates the client secret: set delivery to Reference, or take secretRefs away.")
        .field_path(".secretRefs"),
    validation = Rule::new("self.delivery != 'Reference' || !has(self.secretName)")
        .message("secretName says where a generated secret is delivered, and with delivery Reference you supply it: take the field away, and name your Secret in secretRefs.")
        .field_path(".secretName"),
    validation = Rule::new("self.delivery != 'Reference' || !has(self.keys) || self.keys.clientId == 'client_id' && self.keys.clientSecret == 'client_secret' && self.keys.tokenUrl == 'token_url' && self.keys.issuer == 'issuer'")
        .message("keys says what a generated secret is delivered under, and with delivery Reference you supply it: take the field away, and name your Secret's key in secretRefs.")
        .field_path(".keys"),
    validation = Rule::new("self.delivery != 'Reference' || !has(self.labels) && !has(self.annotations)")
        .message("labels and annotations are put on a Secret that the operator delivers, and with delivery Reference it touches none: take them away, and put them on your Secret yourself."),
    validation = unquoted("recipient", vocabulary::AGE_RECIPIENT),
    validation = unquoted("secretName", vocabulary::OBJECT_NAME),
    validation = Rule::new("self.delivery != 'Reference' || !has(self.rotation) || !has(self.rotation.interval)")
        .message("rotation.interval has the operator generate secrets, and with delivery Reference you supply them: take it away, and rotate by changing your Secret, or by a second one in secretRefs.")
        .field_path(".rotation.interval"),
    validation = Rule::new("!has(self.recipient) || self.delivery == 'OneTime'")
        .message("recipient is whom a client secret is sealed to, which is done with delivery OneTime alone: set that, or take recipient away.").field_path(".recipient"),
    validation = Rule::new("self.delivery != 'OneTime' || !has(self.secretName) && !has(self.labels) && !has(self.annotations)")
        .message("secretName, labels and annotations are for the Secret that delivers a client secret, and with delivery OneTime there is none: take them away."),
    validation = Rule::new("self.delivery != 'OneTime' || !has(self.keys) || self.keys.clientId == 'client_id' && self.keys.clientSecret == 'client_secret' && self.keys.tokenUrl == 'token_url' && self.keys.issuer == 'issuer'")
        .message("keys says what a client secret is delivered under in a Secret, and with delivery OneTime there is none: take the field away.")
        .field_path(".keys"),
)]
pub struct SecretCredential {
    /// How you get it. Secret: in a Secret of this namespace. OneTime: it is stored nowhere; whoever
    /// claims it first gives a public key, and then it is made, and stands in status sealed to that key.
    /// Reference: you supply it yourself, in Secrets that secretRefs names, as does External Secrets, say.
    #[serde(default)]
    pub delivery: Delivery,
    /// With delivery OneTime: the age recipient (age1..., as age-keygen -y prints it) that client secrets
    /// are sealed to. Without it each waits until somebody claims it: kubectl chancery claim. Another
    /// recipient is that of the next client secret; the one that is there stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "vocabulary::age_recipient")]
    pub recipient: Option<String>,
    /// With delivery Reference: the Secrets of this namespace that hold the client secret, which you
    /// supply. Both work where there are two, so that one can take the other's place without an
    /// outage. They are read and followed, and never written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 2))]
    #[x_kube(validation = Rule::new("self.size() < 2 || self[0].name != self[1].name || (has(self[0].key) ? self[0].key : 'client_secret') != (has(self[1].key) ? self[1].key : 'client_secret')")
        .message("secretRefs names the same key of the same Secret twice: take one away, or name where the other client secret is."))]
    pub secret_refs: Vec<SuppliedRef>,
    /// The Secret's name; <name>-credentials where absent. A Secret that the operator did not
    /// make is never touched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "vocabulary::secret_name")]
    pub secret_name: Option<String>,
    /// What the Secret's keys are called, where not client_id, client_secret, token_url, issuer. Keys
    /// that are renamed stand there under both names for a gracePeriod.
    #[serde(default)]
    pub keys: SecretKeys,
    /// Labels of your choosing on the Secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "vocabulary::chosen_labels")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of your choosing on the Secret, such as those that a tool which restarts Deployments
    /// or copies Secrets looks for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "vocabulary::chosen_annotations")]
    pub annotations: BTreeMap<String, String>,
    /// When secrets follow one another, and for how long the old one works beside the new one. Without
    /// it a new one is made when the annotation chancery.dev/rotate gets a new value. With delivery
    /// Reference there is only a gracePeriod: for so long a client secret works on that your Secrets do
    /// not hold any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<SecretRotation>,
}

/// When client secrets follow one another. Durations are hours, minutes and seconds such as 720h or
/// 1h30m.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.interval) || !self.interval.matches('^([0-9]{1,5}(h|m|s)){1,3}$') || duration(self.interval) < duration('1s') || has(self.gracePeriod) && !self.gracePeriod.matches('^([0-9]{1,5}(h|m|s)){1,3}$') || duration(has(self.gracePeriod) ? self.gracePeriod : '24h') < duration(self.interval)")
        .message("gracePeriod (24h where absent) is not shorter than interval: an old secret works for so long beside the new one, and would pile up, so shorten gracePeriod or lengthen interval.").field_path(".gracePeriod"),
)]
pub struct SecretRotation {
    /// How long a secret is the newest before another one takes its place, such as 720h. Technical users
    /// rotate up to a tenth of it (a day at most) earlier, each by a time of its own, so that they do not
    /// all do so together. Without it secrets rotate only when a person says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!self.matches('^([0-9]{1,5}(h|m|s)){1,3}$') || duration(self) >= duration('1s')")
        .message("interval is zero: let a secret be the newest for at least 1s, or take the field away for secrets that rotate only when a person says so."))]
    pub interval: Option<Period>,

    /// How long an old secret works after the new one was delivered; 24h where absent. Whatever uses the
    /// Secret has to read it again within this time: a mounted one is seen up to two minutes later,
    /// environment variables only after a restart. 0s: the old one ends at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<Period>,
}

impl SecretCredential {
    /// Whether a person supplies it.
    pub fn is_supplied(&self) -> bool {
        self.delivery == Delivery::Reference
    }

    /// How long an old secret works beside the new one.
    pub fn grace_period(&self) -> Period {
        let set = self.rotation.as_ref().and_then(|r| r.grace_period);
        set.unwrap_or(DEFAULT_SECRET_GRACE)
    }
}

/// How a client secret comes to whoever uses it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Delivery {
    /// In a Secret of the technical user's namespace.
    #[default]
    Secret,
    /// In status, sealed to a public key: that of spec.credential.secret.recipient, or of whoever claims it.
    OneTime,
    /// The person supplies it.
    Reference,
}

/// Where a client secret stands that a person supplies.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = unquoted("name", vocabulary::OBJECT_NAME),
    validation = unquoted("key", vocabulary::DATA_KEY),
)]
pub struct SuppliedRef {
    /// The Secret's name, in the namespace of the technical user.
    #[schemars(schema_with = "vocabulary::secret_name")]
    pub name: String,
    /// The key in it; client_secret where absent.
    // No defaults in the schema, as kubectl apply would find the list changed each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "vocabulary::data_key")]
    pub key: Option<String>,
    /// What stands there. Plain, also where absent: the client secret itself, 16 to 72 printable ASCII
    /// characters. BcryptHash: its bcrypt hash, of the cost that the release wants (12 unless it says
    /// otherwise).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<SecretFormat>,
}

impl SuppliedRef {
    /// The key in the Secret.
    pub fn key(&self) -> &str {
        self.key.as_deref().unwrap_or("client_secret")
    }

    /// Whether a hash stands there.
    pub fn is_hashed(&self) -> bool {
        self.format == Some(SecretFormat::BcryptHash)
    }
}

/// In which form a person supplies a client secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SecretFormat {
    /// As it is.
    #[default]
    Plain,
    /// As a bcrypt hash: the secret itself is nowhere in the cluster.
    BcryptHash,
}

/// What the keys of the delivered Secret are called.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[self.clientId, self.clientSecret, self.tokenUrl, self.issuer].all(k, [self.clientId, self.clientSecret, self.tokenUrl, self.issuer].exists_one(l, l == k))")
        .message("two of the keys have the same name: each of clientId, clientSecret, tokenUrl and issuer needs a name of its own."),
    validation = unquoted("clientId", vocabulary::DATA_KEY),
    validation = unquoted("clientSecret", vocabulary::DATA_KEY),
    validation = unquoted("tokenUrl", vocabulary::DATA_KEY),
    validation = unquoted("issuer", vocabulary::DATA_KEY),
)]
pub struct SecretKeys {
    /// Under which key the client id stands.
    #[serde(default = "key_names::client_id")]
    #[schemars(schema_with = "vocabulary::data_key")]
    pub client_id: String,
    /// Under which key the secret stands.
    #[serde(default = "key_names::client_secret")]
    #[schemars(schema_with = "vocabulary::data_key")]
    pub client_secret: String,
    /// Under which key the token endpoint's URL stands.
    #[serde(default = "key_names::token_url")]
    #[schemars(schema_with = "vocabulary::data_key")]
    pub token_url: String,
    /// Under which key the issuer's URL stands.
    #[serde(default = "key_names::issuer")]
    #[schemars(schema_with = "vocabulary::data_key")]
    pub issuer: String,
}

impl SecretKeys {
    /// The names, each with what stands under it.
    pub fn named(&self) -> [(&str, SecretValue); 4] {
        [
            (&self.client_id, SecretValue::ClientId),
            (&self.client_secret, SecretValue::ClientSecret),
            (&self.token_url, SecretValue::TokenUrl),
            (&self.issuer, SecretValue::Issuer),
        ]
    }
}

/// What stands under a key of the delivered Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SecretValue {
    /// The client id.
    ClientId,
    /// The client secret.
    ClientSecret,
    /// The token endpoint's URL.
    TokenUrl,
    /// The issuer's URL.
    Issuer,
}

impl Default for SecretKeys {
    fn default() -> Self {
        Self {
            client_id: key_names::client_id(),
            client_secret: key_names::client_secret(),
            token_url: key_names::token_url(),
            issuer: key_names::issuer(),
        }
    }
}

/// The keys' names where a manifest gives none.
mod key_names {
    pub fn client_id() -> String {
        "client_id".into()
    }
    pub fn client_secret() -> String {
        "client_secret".into()
    }
    pub fn token_url() -> String {
        "token_url".into()
    }
    pub fn issuer() -> String {
        "issuer".into()
    }
}
