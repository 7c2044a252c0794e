//! A technical user as the token endpoint knows it.

use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::period::Period;
use super::rate::Rate;
use super::subscription::{SubscriptionFacts, current};

/// What a technical user is for. Its generated secrets begin with the family's prefix, so that
/// a scanner recognises a leaked one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Family {
    /// A service that calls another (`sk-`).
    #[default]
    Integration,
    /// A machine in somebody's hands, which may be lost, and can revoke itself (`dk-`).
    Device,
    /// A program that acts by itself (`ak-`).
    Agent,
}

impl Family {
    /// All families.
    pub const ALL: [Self; 3] = [Self::Integration, Self::Device, Self::Agent];

    /// What its generated secrets begin with.
    pub fn secret_prefix(self) -> &'static str {
        match self {
            Self::Integration => "sk-",
            Self::Device => "dk-",
            Self::Agent => "ak-",
        }
    }

    /// As manifests and tokens name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Integration => "Integration",
            Self::Device => "Device",
            Self::Agent => "Agent",
        }
    }
}

/// How long an old client secret works beside what took its place where nothing else is said: a
/// Deployment that reads its Secret as environment variables sees a change only when it is
/// restarted, and a day is time for that.
pub const DEFAULT_SECRET_GRACE: Period = Period::from_hours(24);

/// A client secret as it is kept: its hash, and when it works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StoredCredential {
    /// Names the credential in status and audit; no secret.
    pub id: String,
    /// The bcrypt hash.
    pub hash: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ceases to work; none: not by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl StoredCredential {
    /// Whether it works then.
    pub fn works_at(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

/// A technical user with what it may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The client id.
    pub id: String,
    /// What it is for.
    pub family: Family,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Gets no token while set.
    pub suspended: bool,
    /// When it was made; none where nobody knows. What was issued before to one of the same id was
    /// issued to another.
    pub created_at: Option<Timestamp>,
    /// When it last revoked itself, whether that is over or not, as far as the operator has written it.
    pub last_revocation: Option<Timestamp>,
    /// May ask whether tokens of its tenant hold.
    pub introspect: bool,
    /// May act for people whose tokens it presents.
    pub on_behalf_of: bool,
    /// The roles that it was given, before the subscription cuts them down.
    pub roles: Vec<String>,
    /// The scopes that it was given, before the subscription cuts them down.
    pub scopes: Vec<String>,
    /// The audiences that it was given, before the subscription cuts them down.
    pub audiences: Vec<String>,
    /// How long its tokens live, where not the release's default.
    pub token_ttl: Option<Period>,
    /// How often it may ask for a token, where not the release's default.
    pub token_rate: Option<Rate>,
    /// The ring that signs for it, where not the release's choice.
    pub signing_key: Option<String>,
    /// What it may authenticate with.
    pub credentials: Vec<StoredCredential>,
    /// The client id of its companion agent, if it is a device that has one.
    pub companion: Option<String>,
    /// The sound Subscriptions of its namespace, whenever they are current.
    pub subscriptions: Arc<Vec<SubscriptionFacts>>,
}

impl Client {
    /// The earliest second, since 1970, in which it can revoke itself as it is now: what was noted of it
    /// before is of one that is gone, or is over.
    pub fn revocable_from(&self) -> i64 {
        let made = self.created_at.map(Timestamp::as_second);
        let back = self.last_revocation.map(|last| last.as_second() + 1);
        made.max(back).unwrap_or(0)
    }

    /// The Subscription that holds for it now.
    pub fn subscription(&self, now: Timestamp) -> Option<&SubscriptionFacts> {
        current(&self.subscriptions, now)
    }
}
