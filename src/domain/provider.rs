//! Outside identity providers: which of their tokens are taken, and whom those speak of.
//!
//! Nothing here looks at a signature: whoever calls [`Provider::judge`] has found the token's key among
//! those of this provider, and verified with it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

mod claim_path;
mod conflict;
pub mod discovery;
mod example;
mod read;
mod refusal;

pub use claim_path::{ClaimPath, PathFault};
pub use conflict::{Conflict, Standing, conflicts};
pub use example::{Example, Expected};
pub use read::{is_legal_entity, is_line as is_subject};
pub use refusal::Refusal;

/// The longest subject in bytes (`OpenID` Connect Core §2).
pub const LONGEST_SUBJECT: usize = 255;
/// So many providers one namespace has: each token may be tried against them, and each change judges them.
pub const MOST_PER_NAMESPACE: usize = 32;
/// The longest legal entity's id in bytes, as in a Subscription.
const LONGEST_LEGAL_ENTITY: usize = 100;

/// An outside identity provider, as it is trusted here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// The namespace of the tenant that alone it speaks for; none: the release's, for every tenant.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Since when it is trusted, in seconds since 1970: what it issued before is not taken.
    pub registered: i64,
    /// False: nothing of it is trusted.
    pub active: bool,
    /// What `iss` may be, byte for byte; none: anything that is not this server's own.
    pub issuers: Vec<String>,
    /// Of these one must stand in `aud`; none: no token is taken.
    pub audiences: Vec<String>,
    /// Where in its tokens stands what is needed here.
    pub claims: ClaimPaths,
    /// What must stand in its tokens besides.
    pub required: Vec<Required>,
    /// From its roles to ours; none: its roles are ours as they are.
    pub role_mappings: Vec<RoleMapping>,
    /// Who of its people are enrolled by themselves.
    pub auto_enroll: AutoEnroll,
}

/// Who of a provider's people are enrolled by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AutoEnroll {
    /// True: whoever comes with a token of it for the first time is noted as a User, without roles.
    pub users: bool,
    /// True: a legal entity that its tokens name, and that no namespace has, gets a namespace and a
    /// Subscription. Only in the operator's namespace, and where the release allows it
    /// (legalEntities.autoEnroll).
    pub legal_entities: bool,
}

/// Where in a provider's tokens stands what is needed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPaths {
    /// Whom the token speaks of.
    pub subject: ClaimPath,
    /// The organisation that the subject belongs to.
    pub organisation: ClaimPath,
    /// The tenant.
    pub legal_entity: ClaimPath,
    /// The roles: an array, an object's keys, or a text with spaces between them.
    pub roles: ClaimPath,
}

/// A claim that must be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Required {
    /// Where.
    pub claim: ClaimPath,
    /// What it must be, or what must be in it if it is an array; none: anything but `null`.
    pub value: Option<String>,
}

/// What a role of the provider is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleMapping {
    /// The provider's role, as it stands in its tokens.
    pub from: String,
    /// Our roles.
    pub to: Vec<String>,
}

/// What a token is judged by besides its provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Circumstances<'a> {
    /// The time, in seconds since 1970.
    pub now: i64,
    /// How far the provider's clock may be off, in seconds.
    pub leeway: i64,
    /// This server's issuer, which no provider may speak as.
    pub own_issuer: &'a str,
}

/// Whom a provider's token speaks of, and what it says of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// What the person is called here: `<provider>:<sub>`, of a tenant's provider
    /// `<namespace>/<provider>:<sub>`. No client's id has a colon.
    pub id: String,
    /// What the provider calls them.
    pub subject: String,
    /// `iss`; none only where the provider lists no issuers.
    pub issuer: Option<String>,
    /// `aud`, each once.
    pub audiences: Vec<String>,
    /// The organisation, where the token names one.
    pub organisation: Option<String>,
    /// The tenant, where the token names one: of a provider for all tenants it always does.
    /// See [`Self::belongs_to`].
    pub legal_entity: Option<String>,
    /// Our roles, by the provider's mapping, each once. Not yet cut down to a Subscription.
    pub roles: Vec<String>,
    /// What the token is limited to (`scope`, `scp`); none: it says nothing of scopes.
    pub scopes: Option<Vec<String>>,
    /// `exp`, in seconds since 1970.
    pub expires: i64,
    /// `iat`, in seconds since 1970.
    pub issued_at: i64,
    /// The provider's client that asked for the token (`client_id` or `azp`), where it is named.
    pub client: Option<String>,
    /// `may_act` (RFC 8693 §4.4): who may act for the subject; none: it says nothing of that.
    pub may_act: Option<Map<String, Value>>,
    /// `act` (RFC 8693 §4.1): who acts for the subject already.
    pub act: Option<Map<String, Value>>,
    /// `jti`, where it has one.
    pub token_id: Option<String>,
}

impl Subject {
    /// Whether the person belongs to a tenant, by its legal entity's id. A token of a tenant's provider
    /// that names none speaks of that tenant's people, and such a provider is never asked for
    /// another tenant.
    pub fn belongs_to(&self, legal_entity: &str) -> bool {
        self.legal_entity
            .as_deref()
            .is_none_or(|named| named == legal_entity)
    }
}

impl Provider {
    /// What a provider is called in messages and ids: `<name>` or `<namespace>/<name>`.
    pub fn id(&self) -> String {
        match &self.namespace {
            None => self.name.clone(),
            Some(namespace) => format!("{namespace}/{}", self.name),
        }
    }

    /// Whether tokens for a client of this namespace may be this provider's.
    pub fn serves(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|own| own == namespace)
    }

    /// Whether a token with this `iss` can be this provider's at all, so that its keys are worth a try.
    /// That of this server never is.
    pub fn may_issue_as(&self, issuer: Option<&str>, own_issuer: &str) -> bool {
        self.judge_issuer(issuer, own_issuer).is_ok()
    }

    /// Whom a verified token speaks of, or why it is not taken. `header` and `claims` are those of the
    /// JWT, in which no name stands twice.
    ///
    /// # Errors
    /// The first rule that the token breaks.
    pub fn judge(
        &self,
        header: &Map<String, Value>,
        claims: &Map<String, Value>,
        by: &Circumstances<'_>,
    ) -> Result<Subject, Refusal> {
        if !self.active {
            return Err(Refusal::Inactive);
        }
        read::judge_kind(header, claims)?;
        read::judge_marks(header, claims)?;
        let issuer = read::optional_text(claims, "iss")?;
        self.judge_issuer(issuer.as_deref(), by.own_issuer)?;
        let audiences = read::audiences(claims.get("aud"))?;
        self.judge_audiences(&audiences)?;
        let (issued_at, expires) = self.judge_times(claims, by)?;
        let mapped = self.map(claims)?;
        Ok(Subject {
            issuer,
            audiences,
            expires,
            issued_at,
            ..mapped
        })
    }

    /// What the claims say of the subject, with neither times, issuer nor audiences looked at.
    fn map(&self, claims: &Map<String, Value>) -> Result<Subject, Refusal> {
        for required in &self.required {
            let found = required.claim.find(claims);
            if !read::satisfies(found, required.value.as_deref()) {
                return Err(Refusal::Required(required.claim.to_string()));
            }
        }
        let subject = read::subject(&self.claims.subject, claims)?;
        let client = match read::optional_text(claims, "client_id")? {
            Some(client) => Some(client),
            None => read::optional_text(claims, "azp")?,
        };
        if read::is_of_client(claims) {
            return Err(Refusal::OfClient);
        }
        let legal_entity = read::legal_entity(&self.claims.legal_entity, claims)?;
        if legal_entity.is_none() && self.namespace.is_none() {
            return Err(Refusal::LegalEntityMissing(
                self.claims.legal_entity.to_string(),
            ));
        }
        let theirs = read::roles(&self.claims.roles, claims)?;
        Ok(Subject {
            id: format!("{}:{subject}", self.id()),
            subject,
            issuer: None,
            audiences: Vec::new(),
            organisation: read::organisation(&self.claims.organisation, claims)?,
            legal_entity,
            roles: self.map_roles(theirs),
            scopes: read::scopes(claims)?,
            expires: 0,
            issued_at: 0,
            client,
            may_act: read::object(claims, "may_act")?,
            act: read::object(claims, "act")?,
            token_id: read::optional_text(claims, "jti")?,
        })
    }

    /// Ours for theirs, each once, in the order of theirs.
    fn map_roles(&self, theirs: Vec<String>) -> Vec<String> {
        if self.role_mappings.is_empty() {
            return read::unique(theirs.into_iter().filter(|role| read::is_role(role)));
        }
        let of = |role: String| {
            let mappings = self.role_mappings.iter();
            mappings
                .filter(move |mapping| mapping.from == role)
                .flat_map(|mapping| mapping.to.iter().cloned())
        };
        read::unique(theirs.into_iter().flat_map(of))
    }

    fn judge_issuer(&self, issuer: Option<&str>, own_issuer: &str) -> Result<(), Refusal> {
        if issuer == Some(own_issuer) {
            return Err(Refusal::OwnIssuer);
        }
        if self.issuers.is_empty() {
            return Ok(());
        }
        let issuer = issuer.ok_or(Refusal::Missing("iss"))?;
        if self.issuers.iter().any(|known| known == issuer) {
            Ok(())
        } else {
            Err(Refusal::Issuer)
        }
    }

    fn judge_audiences(&self, audiences: &[String]) -> Result<(), Refusal> {
        if audiences.iter().any(|one| self.audiences.contains(one)) {
            Ok(())
        } else {
            Err(Refusal::Audience)
        }
    }

    /// When it was issued, and when it expires.
    fn judge_times(
        &self,
        claims: &Map<String, Value>,
        by: &Circumstances<'_>,
    ) -> Result<(i64, i64), Refusal> {
        let leeway = by.leeway.max(0);
        let latest = by.now.saturating_add(leeway);
        let expires = read::time(claims, "exp")?.ok_or(Refusal::Missing("exp"))?;
        if expires <= by.now.saturating_sub(leeway) {
            return Err(Refusal::Expired);
        }
        if read::time(claims, "nbf")?.is_some_and(|at| at > latest) {
            return Err(Refusal::NotYet);
        }
        // Without it a token could be of a time before the provider was trusted.
        let issued_at = read::time(claims, "iat")?.ok_or(Refusal::Missing("iat"))?;
        if issued_at > latest {
            return Err(Refusal::IssuedAhead);
        }
        if issued_at < self.registered.saturating_sub(leeway) {
            return Err(Refusal::BeforeRegistration);
        }
        Ok((issued_at, expires))
    }
}

#[cfg(test)]
mod tests;
