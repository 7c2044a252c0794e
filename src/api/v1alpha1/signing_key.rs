//! `SigningKey`: a ring of key pairs.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Publish;
use super::unquoted::unquoted;
use crate::domain::algorithm::{Algorithm, RsaKeySize};
use crate::domain::jwk::PublicJwk;
use crate::domain::period::Period;
use crate::domain::staleness::DEFAULT_PUBLISH_LEAD;
use crate::domain::vocabulary::{self, key_id};

/// A ring of key pairs for one audience and one algorithm. The operator makes its keys, publishes
/// them in a JWKS (the ConfigMap <name>-jwks, the issuer's ConfigMap chancery-issuer, and HTTP),
/// and signs tokens with the active one. It lives in the operator's namespace.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "chancery.dev",
    version = "v1alpha1",
    kind = "SigningKey",
    namespaced,
    status = "SigningKeyStatus",
    shortname = "sk",
    category = "identity",
    derive = "PartialEq",
    doc = "A ring of key pairs for one audience and one algorithm. The operator makes its keys, publishes them in a JWKS, and signs tokens with the active one. It lives in the operator's namespace.",
    validation = Rule::new("self.metadata.name.size() <= 52").message("metadata.name is longer than 52 characters: the names of the ring's Secrets and ConfigMap follow from it, so choose a shorter one."),
    printcolumn(name = "Audience", type_ = "string", json_path = ".spec.audience"),
    printcolumn(name = "Algorithm", type_ = "string", json_path = ".spec.algorithm"),
    printcolumn(name = "Active key", type_ = "string", json_path = ".status.activeKeyId", description = "The kid of the ring's active key"),
    printcolumn(name = "Signing", type_ = "string", json_path = ".status.conditions[?(@.type=='Signing')].status", description = "Whether it is the ring that signs for its audience"),
    printcolumn(name = "Next", type_ = "string", json_path = ".status.nextTransition.what", description = "What happens next by the clock"),
    printcolumn(name = "At", type_ = "string", json_path = ".status.nextTransition.at", description = "When that is; in the past: it is overdue"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Stalled", type_ = "string", json_path = ".status.conditions[?(@.type=='Stalled')].reason", description = "Why a person has to do something, although it may go on signing"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason", priority = 1),
    printcolumn(name = "Rotates", type_ = "string", json_path = ".status.nextRotation", description = "When the next key signs in the active one's place", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = 1),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.rsaKeySize) || self.algorithm.startsWith('RS') || self.algorithm.startsWith('PS')")
        .message("rsaKeySize is only for the RS and PS algorithms: take it away, or choose one of those.").field_path(".rsaKeySize"),
    validation = Rule::new("!has(self.validFrom) || !has(self.validTo) || self.validFrom < self.validTo")
        .message("validTo is not after validFrom: the ring signs between the two, and would never do so.").field_path(".validTo"),
    validation = Rule::new("!has(self.signWith) || !has(self.invalidated) || !self.invalidated.exists(i, i.keyId == self.signWith)")
        .message("signWith names a key that invalidated withdraws: take it out of one of the two.").field_path(".signWith"),
    validation = Rule::new("!has(self.privateKey) || !has(self.rotation) || !has(self.rotation.interval)")
        .message("rotation.interval is for keys that the operator generates, and privateKey brings the ring's keys from elsewhere: take one of the two away. New content of the Secret is a rotation.").field_path(".rotation.interval"),
)]
pub struct SigningKeySpec {
    /// Which subjects the ring's tokens speak for: client (technical users) or human (people; its
    /// keys are made and published, and no grant of this version signs with them yet).
    #[x_kube(validation = Rule::new("self == oldSelf").message("audience can not be changed on a ring that exists: make a second SigningKey for the other audience."))]
    pub audience: KeyAudience,

    /// The signature algorithm, by its name in JWT headers (RFC 7518): one of RS256 RS384 RS512
    /// PS256 PS384 PS512 ES256 ES384 ES512 EdDSA. RS256 where absent.
    #[serde(default = "default_algorithm")]
    pub algorithm: Algorithm,

    /// The size of RSA keys in bits: 2048 (the default), 3072 or 4096. Only for RS and PS
    /// algorithms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rsa_key_size_schema")]
    pub rsa_key_size: Option<i32>,

    /// Where several rings have the same audience, the one with the highest priority signs, then
    /// the first by name. From -1000 to 1000; 0 where absent.
    #[serde(default)]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: i32,

    /// When keys follow one another, and how long each phase of a key's life lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,

    /// The ring signs nothing before this time (RFC 3339). Its keys are published before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("timestamp('0001-01-01T00:00:00Z') <= self && self < timestamp('9999-01-01T00:00:00Z')")
        .message("a date lies in the years 1 to 9998: for a window without beginning leave validFrom away."))]
    pub valid_from: Option<Time>,

    /// The ring signs nothing from this time on (RFC 3339); no token's exp lies past it, and its keys
    /// then leave the JWKS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("timestamp('0001-01-01T00:00:00Z') <= self && self < timestamp('9999-01-01T00:00:00Z')")
        .message("a date lies in the years 1 to 9998: for a window without end leave validTo away."))]
    pub valid_to: Option<Time>,

    /// Keys that are withdrawn: they sign no more, and verify until their grace ends. Taking an entry
    /// away while the key pair is kept brings the key back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "invalidated_schema")]
    pub invalidated: Vec<Invalidated>,

    /// The kid of a published key of the ring that signs, and the schedule waits, until this field is
    /// taken away: the way back from a rotation that went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "key_id")]
    pub sign_with: Option<String>,

    /// A key pair that is brought from elsewhere rather than generated. New content is a rotation: the
    /// old key signs until the new one's publishLead is over, and verifies through its grace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<PrivateKey>,

    /// Where the ring's JWKS is published besides: ConfigMaps in other namespaces. The condition
    /// Published says whether they stand; nothing that a key does waits for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub publish: Vec<Publish>,
}

/// When keys follow one another. Durations are hours, minutes and seconds such as 720h or 1h30m.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.interval) || !self.interval.matches('^([0-9]{1,5}(h|m|s)){1,3}$') || duration(self.interval) < duration('1s') || has(self.publishLead) && !self.publishLead.matches('^([0-9]{1,5}(h|m|s)){1,3}$') || duration(has(self.publishLead) ? self.publishLead : '30m') < duration(self.interval)")
        .message("publishLead (30m where absent) is not shorter than interval: a key is published for so long before it signs, so shorten publishLead or lengthen interval.").field_path(".publishLead"),
)]
pub struct Rotation {
    /// How long a key signs before the next one does, such as 720h. Rings rotate up to a tenth of it
    /// (a day at most) earlier, each by a time of its own, so that they do not all do so together.
    /// Without it keys rotate only when a person says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!self.matches('^([0-9]{1,5}(h|m|s)){1,3}$') || duration(self) >= duration('1s')")
        .message("interval is zero: let a key sign for at least 1s, or take the field away for a ring that rotates only when a person says so."))]
    pub interval: Option<Period>,

    /// How long a key is in the JWKS before it signs; 30m where absent, which is longer than gateways
    /// take to fetch the JWKS again. It is raised to more than the JWKS's max-age.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!self.matches('^([0-9]{1,5}(h|m|s)){1,3}$') || duration(self) >= duration('1s')")
        .message("publishLead is zero: verifiers have to see a key before it signs, so give at least 1s, or take the field away for 30m."))]
    pub publish_lead: Option<Period>,

    /// How long a key verifies after it has ceased to sign. It is raised to what is safe: the longest
    /// token life, clock leeway, the JWKS's max-age and maxStaleness together; that is what holds where
    /// it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<Period>,

    /// How long a key pair is kept after its key left the JWKS, so that a withdrawal can be taken back.
    /// 0s where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Period>,
}

/// A key that is withdrawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Invalidated {
    /// The kid of one of the ring's keys, as status.keys shows it.
    #[schemars(schema_with = "key_id")]
    pub key_id: String,
    /// How long it still verifies, from when this entry was first seen; absent: as long as a key that
    /// was replaced. 0s is the emergency: it leaves the JWKS at once, its key pair is deleted, and the
    /// next key signs at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<Period>,
}

/// Where a key pair is brought from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrivateKey {
    /// A Secret of the operator's namespace.
    pub secret_ref: SecretRef,
}

/// A Secret with a private key in PEM: PKCS#8, PKCS#1 or SEC1, not encrypted.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = unquoted("name", vocabulary::OBJECT_NAME),
    validation = unquoted("key", vocabulary::DATA_KEY),
)]
pub struct SecretRef {
    /// The name of the Secret.
    #[schemars(schema_with = "vocabulary::secret_name")]
    pub name: String,
    /// The key under which the PEM stands; absent: tls.key in a Secret of type kubernetes.io/tls, else
    /// private-key.pem, else the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "vocabulary::data_key")]
    pub key: Option<String>,
}

/// The annotation that asks for a rotation: any new value. An empty one asks for nothing.
pub const ROTATE_ANNOTATION: &str = "chancery.dev/rotate";

fn invalidated_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let item = Invalidated::json_schema(generator);
    schemars::json_schema!({
        "type": "array",
        "maxItems": 64,
        "items": item,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["keyId"],
    })
}

fn default_algorithm() -> Algorithm {
    Algorithm::RS256
}

fn rsa_key_size_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "integer", "format": "int32", "enum": [2048, 3072, 4096] })
}

/// Which subjects a ring's tokens speak for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyAudience {
    /// People: sign-in and on-behalf-of.
    Human,
    /// Technical users.
    Client,
}

impl SigningKeySpec {
    /// How long a key is published before it signs.
    pub fn publish_lead(&self) -> Period {
        let set = self.rotation.as_ref().and_then(|r| r.publish_lead);
        set.unwrap_or(DEFAULT_PUBLISH_LEAD)
    }

    /// The size of an RSA key of this ring.
    pub fn rsa_size(&self) -> RsaKeySize {
        self.rsa_key_size
            .and_then(RsaKeySize::from_bits)
            .unwrap_or(RsaKeySize::Bits2048)
    }
}

/// What the operator says of a ring.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SigningKeyStatus {
    /// The metadata.generation that this status speaks of; -1 before the first visit.
    pub observed_generation: i64,
    /// Ready; Reconciling and Stalled while they hold (kstatus); and while there is something to tell:
    /// GracePeriodRaised and PublishLeadRaised (a longer span holds than the spec says), RotationPaused
    /// (signWith is obeyed, or too many keys are published), ExpiresSoon (validTo is near), Published (whether
    /// the ConfigMaps of spec.publish stand), and Signing (whether it is the one that signs for its
    /// audience: of several the one with the highest priority, then the first by name). docs/reasons.md tells of each reason.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The kid of the key that signs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_key_id: Option<String>,
    /// Every key pair of the ring, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyStatus>,
    /// What happens next by the clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_transition: Option<NextTransition>,
    /// When the next key signs in the active one's place, as far as that is settled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_rotation: Option<Time>,
    /// The value of the annotation chancery.dev/rotate that was handled last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_handled_rotation: Option<String>,
    /// The ConfigMap with the ring's JWKS, in the same namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_config_map: Option<String>,
}

/// What happens next to a ring by the clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NextTransition {
    /// When it happens; if that has passed, it is overdue.
    pub at: Time,
    /// What happens then.
    pub what: TransitionKind,
    /// To which key; absent for one that is not made yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
}

/// What happens to a ring's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TransitionKind {
    /// The next key is made and published.
    Publish,
    /// A key begins to sign.
    Activate,
    /// The ring's validFrom: its active key signs from then on.
    Open,
    /// A key leaves the JWKS.
    Remove,
    /// A key pair is deleted.
    Delete,
    /// A withdrawn key is in no verifier's cache any more.
    Forget,
}

/// One key pair of a ring.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyStatus {
    /// Its kid in JWT headers: the RFC 7638 thumbprint.
    pub key_id: String,
    /// Its number in the ring; the Secret is called <ring>-<sequence>.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub sequence: i64,
    /// Next (made, perhaps published, does not sign), Active (signs), Retired (verifies only), Withdrawn
    /// (by a person; verifies until its grace ends) or Removed (out of the JWKS).
    pub state: KeyState,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,
    /// When it was first seen in the issuer's JWKS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_at: Option<Time>,
    /// When it began to sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activated_at: Option<Time>,
    /// When it ceased to sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired_at: Option<Time>,
    /// When its withdrawal was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn_at: Option<Time>,
    /// When it leaves the JWKS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verifies_until: Option<Time>,
    /// When it left the JWKS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed_at: Option<Time>,
    /// Of a key that left the JWKS: until then a verifier that has cached the JWKS may accept it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_until: Option<Time>,
    /// It signs nothing before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_from: Option<Time>,
    /// It signs nothing from then on, and no token's exp lies past it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_to: Option<Time>,
    /// True when the Secret with the private key is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub material_lost: bool,
    /// The public key as it stands in the JWKS.
    #[serde(default)]
    pub public_jwk: BTreeMap<String, String>,
}

impl KeyStatus {
    /// The public key, if what stands here is one, and of that id.
    pub fn jwk(&self) -> Option<PublicJwk> {
        let value = serde_json::to_value(&self.public_jwk).ok()?;
        let jwk = serde_json::from_value::<PublicJwk>(value).ok();
        jwk.filter(|jwk| jwk.kid == self.key_id)
    }
}

/// Where a key pair is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KeyState {
    /// Made, and not signing yet.
    Next,
    /// Signs.
    Active,
    /// Verifies only.
    Retired,
    /// Withdrawn by a person: verifies until its grace ends.
    Withdrawn,
    /// Out of the JWKS.
    Removed,
}
