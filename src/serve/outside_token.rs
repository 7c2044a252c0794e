//! Whether a token of an outside provider is taken now, whom it speaks of, and which tenant that person is
//! of. Whatever takes such a token, or is asked about one, asks here and nowhere else (token exchange,
//! introspection, `/account`), so that no way to use one forgets a reason to refuse it.
//! [`super::bearer`] is the same for this issuer's own.

use serde_json::{Map, Value};

use super::app::App;
use super::enrol;
use super::reply::Refusal;
use super::snapshot::View;
use super::trust::OutsideProvider;
use crate::crypto::own_token::MAX_TOKEN;
use crate::domain::algorithm::Algorithm;
use crate::domain::assertion::strict;
use crate::domain::client::Client;
use crate::domain::oauth_error::ErrorCode;
use crate::domain::provider::{self, Circumstances, Subject};
use crate::domain::revocation::leeway;
use crate::domain::subscription::{SubscriptionFacts, current};

/// Who is told that a provider seems to have a key that is not known here. It must not wait: a request
/// stands behind it, which is refused whatever becomes of this.
pub trait KeysWanted: Send + Sync + 'static {
    /// The keys of that provider are wanted.
    fn want(&self, provider: &OutsideProvider);
}

/// Nobody is told.
impl KeysWanted for () {
    fn want(&self, _: &OutsideProvider) {}
}

/// A token that is taken.
pub(super) struct Vouched<'v> {
    /// Whom it speaks of, with the roles that a User gives them.
    pub subject: Subject,
    /// The provider that vouches for them.
    pub provider: &'v OutsideProvider,
    /// What the person's tenant has now.
    pub subscription: &'v SubscriptionFacts,
    /// All that the tenant has.
    pub subscriptions: &'v [SubscriptionFacts],
}

/// Why a token is not taken.
#[derive(Clone, Debug)]
pub(super) struct Untaken<'v> {
    why: Why,
    /// The provider that it is of, or whose it would be.
    pub provider: Option<&'v OutsideProvider>,
    /// Whom it speaks of, where that is verified.
    pub subject: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Why {
    /// It is of no provider that is trusted here, or no key of it signed it.
    Unknown(Unknown),
    /// Its provider is trusted, and has not been asked for its keys with success yet.
    NotYet,
    /// The provider's key signed it, and it breaks a rule.
    Broken(provider::Refusal),
    /// It speaks of another tenant's person.
    OtherTenant,
    /// A User keeps the person out.
    Suspended,
}

/// Why nobody vouches for a token. Strangers are told the same of all; what comes later says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unknown {
    Issuer,
    IssuerOfKey,
    OtherTenants,
    TooOld,
    Inactive,
    KeyId,
    Signature,
    Ambiguous,
}

impl From<Why> for Untaken<'_> {
    fn from(why: Why) -> Self {
        Self {
            why,
            provider: None,
            subject: None,
        }
    }
}

impl<'v> Untaken<'v> {
    fn of(why: Why, provider: &'v OutsideProvider) -> Self {
        Self {
            provider: Some(provider),
            ..why.into()
        }
    }

    /// What a client is told whose tenant the token is to be of.
    pub fn into_refusal(self) -> Refusal {
        match self.why {
            Why::Unknown(_) => {
                Refusal::invalid_request("subject_token is of no provider that is trusted here.")
            }
            Why::NotYet => Self::not_yet(),
            Why::Broken(why) => Refusal::invalid_request(why.to_string()),
            Why::Suspended => enrol::suspended(),
            Why::OtherTenant => Refusal::new(
                ErrorCode::AccessDenied,
                "the subject token speaks of another legal entity's person.",
            ),
        }
    }

    /// What the client is not told, for whoever runs this.
    pub fn cause(&self) -> Option<&'static str> {
        let Why::Unknown(why) = self.why else {
            return None;
        };
        Some(match why {
            Unknown::Issuer => "no provider that is active and sound has the iss of the token.",
            Unknown::IssuerOfKey => {
                "the provider has a key with the kid of the token, and not its iss."
            }
            Unknown::OtherTenants => "the provider with the iss of the token is another tenant's.",
            Unknown::TooOld => "the provider's keys have not been fetched again for too long.",
            Unknown::Inactive => "the provider is not active.",
            Unknown::KeyId => "the provider has no key with the kid and alg of the token.",
            Unknown::Signature => "the signature is not by the provider's key with that kid.",
            Unknown::Ambiguous => "the token could be of several tenants.",
        })
    }

    /// Neither yes nor no can be said.
    pub fn not_yet() -> Refusal {
        Refusal::unavailable("the keys of the token's provider are not known here yet.")
    }

    /// Whether neither yes nor no can be said.
    pub fn is_not_yet(&self) -> bool {
        self.why == Why::NotYet
    }

    /// The better reason of two.
    fn or(self, other: Self) -> Self {
        match (&self.why, &other.why) {
            (Why::Unknown(mine), Why::Unknown(others)) if others <= mine => self,
            (Why::Unknown(_), _) => other,
            _ => self,
        }
    }
}

/// The token, if a provider vouches for it whose tokens this client's tenant may bring, and the person is of
/// that tenant.
pub(super) fn of_tenant<'v>(
    app: &App,
    view: &'v View,
    client: &'v Client,
    token: &Unverified<'_>,
) -> Result<Vouched<'v>, Untaken<'v>> {
    let now = app.clock.now();
    let nobody = || Untaken::from(Why::Unknown(Unknown::Issuer));
    let subscription = client.subscription(now).ok_or_else(nobody)?;
    let mut why = nobody();
    for trusted in view.snapshot.providers_of(&client.namespace, now) {
        match judged(app, trusted, token, true) {
            Ok(subject) if subject.belongs_to(&subscription.legal_entity_id) => {
                return Ok(Vouched {
                    subject: admitted(view, &client.namespace, trusted, subject)?,
                    provider: trusted,
                    subscription,
                    subscriptions: &client.subscriptions,
                });
            }
            Ok(subject) => {
                enrol::enrol_legal_entity(app, view, &trusted.provider, &subject);
                return Err(Untaken {
                    subject: Some(subject.id),
                    ..Untaken::of(Why::OtherTenant, trusted)
                });
            }
            Err(other) => why = why.or(other),
        }
    }
    // Those that were not asked.
    for trusted in &view.snapshot.providers {
        let unasked = if !trusted.provider.serves(&client.namespace) {
            Unknown::OtherTenants
        } else if !trusted.is_good(now) {
            Unknown::TooOld
        } else {
            continue;
        };
        let (issuer, own) = (token.issuer(), app.settings.issuer.as_str());
        if !trusted.provider.issuers.is_empty() && trusted.provider.may_issue_as(issuer, own) {
            why = why.or(Untaken::of(Why::Unknown(unasked), trusted));
        }
    }
    Err(why)
}

/// The person, unless a User keeps them out.
fn admitted<'v>(
    view: &View,
    namespace: &str,
    trusted: &'v OutsideProvider,
    subject: Subject,
) -> Result<Subject, Untaken<'v>> {
    let id = subject.id.clone();
    enrol::admit(view, namespace, subject).ok_or_else(|| Untaken {
        subject: Some(id),
        ..Untaken::of(Why::Suspended, trusted)
    })
}

/// The token, whoever brings it: the provider that vouches for it, and the legal entity that it names, say
/// which tenant the person is of. A provider for all tenants goes before a tenant's own, and one in whose
/// tokens the legal entity stands before one that takes all of its people for the tenant's: so nobody who
/// trusts the same issuer makes a token doubtful that names its tenant. One that could be of two tenants all the
/// same is of none: each would be told of the other.
pub(super) fn of_anyone<'v>(
    app: &App,
    view: &'v View,
    token: &Unverified<'_>,
) -> Result<Vouched<'v>, Untaken<'v>> {
    let now = app.clock.now();
    let mut found: Option<(u8, &str, Vouched<'v>)> = None;
    let mut doubtful = None;
    let mut why = Untaken::from(Why::Unknown(Unknown::Issuer));
    for trusted in view.snapshot.providers.iter().filter(|p| p.is_good(now)) {
        let subject = match judged(app, trusted, token, false) {
            Ok(subject) => subject,
            // Of a tenant's provider that is said to its own technical users alone.
            Err(no) if no.is_not_yet() && trusted.provider.namespace.is_some() => continue,
            Err(other) => {
                why = why.or(other);
                continue;
            }
        };
        let tenants = view.snapshot.tenants.iter();
        let mut its_own = tenants.filter_map(|(namespace, subscriptions)| {
            let subscription = current(subscriptions, now)?;
            let legal_entity = &subscription.legal_entity_id;
            let speaks_for = match &trusted.provider.namespace {
                Some(own) => own == namespace && subject.belongs_to(legal_entity),
                None => subject.legal_entity.as_ref() == Some(legal_entity),
            };
            speaks_for.then_some((namespace, subscription, subscriptions))
        });
        let Some((namespace, subscription, subscriptions)) = its_own.next() else {
            enrol::enrol_legal_entity(app, view, &trusted.provider, &subject);
            continue;
        };
        let rank = match (&trusted.provider.namespace, &subject.legal_entity) {
            (None, _) => 0,
            (Some(_), Some(_)) => 1,
            (Some(_), None) => 2,
        };
        match &found {
            Some((before, other, _)) if *before == rank && other != namespace => {
                doubtful = Some(rank);
                continue;
            }
            // The one that exchange would take.
            Some((before, ..)) if *before <= rank => continue,
            _ => {}
        }
        let vouched = Vouched {
            subject,
            provider: trusted,
            subscription,
            subscriptions,
        };
        found = Some((rank, namespace, vouched));
    }
    let Some((rank, namespace, mut vouched)) = found else {
        return Err(why);
    };
    if doubtful == Some(rank) {
        return Err(Why::Unknown(Unknown::Ambiguous).into());
    }
    vouched.subject = admitted(view, namespace, vouched.provider, vouched.subject)?;
    Ok(vouched)
}

/// Whom the token speaks of, if that provider vouches for it. `tells`: whether whoever asks is told which rule
/// a token breaks that the provider's key signed.
fn judged<'v>(
    app: &App,
    trusted: &'v OutsideProvider,
    token: &Unverified<'_>,
    tells: bool,
) -> Result<Subject, Untaken<'v>> {
    let (provider, own_issuer) = (&trusted.provider, app.settings.issuer.as_str());
    let unknown = |why| Untaken::of(Why::Unknown(why), trusted);
    let key = trusted.keys.named(token.key_id(), token.algorithm);
    if !provider.may_issue_as(token.issuer(), own_issuer) {
        return Err(if token.key_id().is_some() && key.is_some() {
            unknown(Unknown::IssuerOfKey)
        } else {
            Why::Unknown(Unknown::Issuer).into()
        });
    }
    if !provider.active {
        return Err(unknown(Unknown::Inactive));
    }
    let judge = || {
        let now = app.clock.now().as_second();
        let by = Circumstances {
            now,
            leeway: leeway(&app.settings),
            own_issuer,
        };
        let subject = provider.judge(&token.header, &token.claims, &by)?;
        // The leeway is for when it begins: nobody is told that one holds which says itself that it does not.
        if subject.expires <= now {
            return Err(provider::Refusal::Expired);
        }
        Ok(subject)
    };
    // A look at the claims costs next to nothing, a signature much more: who sends what no key can help has
    // nothing verified, however many providers there are. Only whoever holds the key is told which rule
    // it breaks.
    let outcome = judge();
    if let Some(key) = key.filter(|_| outcome.is_ok() || tells)
        && key.verifies(token.signed.as_bytes(), &token.signature)
    {
        return outcome.map_err(|why| Untaken::of(Why::Broken(why), trusted));
    }
    let may_be_new = token
        .key_id()
        .is_none_or(|kid| trusted.keys.0.iter().all(|key| key.key_id() != kid));
    // One that a key would not help is no reason to ask for keys.
    if may_be_new && outcome.is_ok() {
        if trusted.keys.0.is_empty() {
            return Err(Untaken::of(Why::NotYet, trusted));
        }
        if trusted.fetched {
            app.keys_wanted.want(trusted);
        }
    }
    Err(unknown(if key.is_some() {
        Unknown::Signature
    } else {
        Unknown::KeyId
    }))
}

/// A JWT of which nothing is verified yet.
pub(super) struct Unverified<'a> {
    header: Map<String, Value>,
    algorithm: Algorithm,
    claims: Map<String, Value>,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Unverified<'a> {
    /// None for what is no JWT as RFC 7519 and RFC 8725 have it.
    pub fn parse(token: &'a str) -> Option<Self> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let object = |part| strict::object(&strict::base64url(part)?);
        let header = object(header)?;
        // No `none`, and nothing symmetric: there is no such algorithm here.
        let algorithm = serde_json::from_value(header.get("alg")?.clone()).ok()?;
        if header.get("kid").is_some_and(|kid| !kid.is_string()) {
            return None;
        }
        Some(Self {
            header,
            algorithm,
            claims: object(claims)?,
            signed,
            signature: strict::base64url(signature)?,
        })
    }

    /// `iss`, as it is claimed.
    pub fn issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(Value::as_str)
    }

    /// `kid`, as it is claimed.
    pub fn key_id(&self) -> Option<&str> {
        self.header.get("kid").and_then(Value::as_str)
    }
}
