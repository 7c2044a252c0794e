//! The release's settings: what Helm values, a file or flags set, and what bounds every resource.

// Addresses alone: std::net has the sockets too, which nothing in the domain may have.
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::algorithm::{Algorithm, RsaKeySize};
use super::client::Family;
use super::period::Period;
use super::tier::{Catalogue, default_catalogue};

mod claims;
mod providers;
mod revocation;
pub mod secrets;
mod throttle;
mod tiers;
mod users;

pub use claims::ClaimNames;
pub use providers::{LONGEST_PROVIDER_STALENESS, ProviderSettings};
pub use revocation::{MOST_ENTRIES, MOST_TOKENS, RevocationSettings};
pub use secrets::SecretSettings;
pub use throttle::{ForwardedHeader, MOST_PROXIES, ThrottleSettings};
pub use users::{AllowedTo, LegalEntitySettings, UserSettings};

/// Everything that a release decides for all of its resources. Read from YAML (`--config`);
/// what is absent has the default given here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// The release's name among several on one cluster; Subscriptions name it.
    pub environment: String,
    /// The issuer URL, `iss` in every token: https, or http on loopback; no trailing slash.
    pub issuer: String,
    /// Where `SigningKey`s, their Secrets and the JWKS live.
    pub operator_namespace: String,
    /// How long tokens live.
    pub tokens: TokenSettings,
    /// How client secrets are hashed.
    pub secrets: SecretSettings,
    /// How the JWKS is served.
    pub jwks: JwksSettings,
    /// How long a replica goes on by itself.
    pub serving: ServingSettings,
    /// How often clients may ask, and fail.
    pub throttle: ThrottleSettings,
    /// How much is remembered of revoked tokens.
    pub revocation: RevocationSettings,
    /// How outside identity providers are asked, and how long they are believed.
    pub providers: ProviderSettings,
    /// How outside people are enrolled.
    pub users: UserSettings,
    /// How legal entities are enrolled that no namespace has.
    pub legal_entities: LegalEntitySettings,
    /// What resources may ask for.
    pub policy: Policy,
    /// What the claims of the Cyoda profile are called.
    pub claims: ClaimNames,
    /// Further tiers, or other limits for those of the default catalogue.
    pub tiers: Catalogue,
}

/// How long access tokens live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TokenSettings {
    /// Where a technical user sets none: of the family Integration.
    pub default_ttl: Period,
    /// The same of the family Device; none: 15m, or `max_ttl` where that is shorter.
    pub device_default_ttl: Option<Period>,
    /// The same of the family Agent; none: 5m, or `max_ttl` where that is shorter.
    pub agent_default_ttl: Option<Period>,
    /// The most that a technical user may set.
    pub max_ttl: Period,
    /// How far verifiers' clocks may be off, at most [`LONGEST_CLOCK_LEEWAY`]: a retired key
    /// verifies for longer by this.
    pub clock_leeway: Period,
}

/// How the JWKS is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct JwksSettings {
    /// `Cache-Control: max-age` of the document, at most [`LONGEST_JWKS_MAX_AGE`]. With 0s each
    /// verification asks again: that is slow, and sound.
    pub max_age: Period,
}

/// How long a replica goes on by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServingSettings {
    /// The most connections that a replica's public port holds open, from [`FEWEST_CONNECTIONS`] to
    /// [`MOST_CONNECTIONS`]. Further ones wait until one of these ends.
    pub max_connections: i32,
    /// How long a replica signs without contact with the API server, from 1s to
    /// [`LONGEST_STALENESS`]: a key withdrawn meanwhile lives on in it for so long.
    pub max_staleness: Period,
}

/// The release's policy: a resource beyond it is `Stalled`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Policy {
    /// The algorithms that a `SigningKey` may use.
    pub allowed_algorithms: Vec<Algorithm>,
    /// The smallest RSA modulus in bits.
    pub min_rsa_key_size: i32,
    /// Whether tiers marked `draft` can be subscribed to.
    pub allow_draft_tiers: bool,
    /// The longest interval between rotations that a `SigningKey` may set; none: no bound.
    pub longest_rotation_interval: Option<Period>,
    /// The shortest interval between rotations of a client secret that a `TechnicalUser` may set;
    /// none: no bound. A shorter one holds as if it were this.
    pub shortest_secret_rotation_interval: Option<Period>,
    /// The audiences that `ServiceAccount` tokens may have, beside the issuer.
    pub service_account_audiences: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            environment: "default".into(),
            issuer: String::new(),
            operator_namespace: "chancery-system".into(),
            tokens: TokenSettings::default(),
            secrets: SecretSettings::default(),
            jwks: JwksSettings::default(),
            serving: ServingSettings::default(),
            throttle: ThrottleSettings::default(),
            revocation: RevocationSettings::default(),
            providers: ProviderSettings::default(),
            users: UserSettings::default(),
            legal_entities: LegalEntitySettings::default(),
            policy: Policy::default(),
            claims: ClaimNames::default(),
            tiers: Catalogue::new(),
        }
    }
}

impl Default for TokenSettings {
    fn default() -> Self {
        Self {
            default_ttl: Period::from_mins(5),
            device_default_ttl: None,
            agent_default_ttl: None,
            max_ttl: Period::from_hours(1),
            clock_leeway: Period::from_mins(1),
        }
    }
}

impl TokenSettings {
    /// How long the tokens of a technical user of this family live that sets nothing else.
    pub fn default_of(&self, family: Family) -> Period {
        let usual = |set: Option<Period>, minutes| set.unwrap_or(Period::from_mins(minutes));
        let ttl = match family {
            Family::Integration => self.default_ttl,
            Family::Device => usual(self.device_default_ttl, 15),
            Family::Agent => usual(self.agent_default_ttl, 5),
        };
        ttl.min(self.max_ttl)
    }
}

impl Default for ServingSettings {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_staleness: Period::from_hours(1),
        }
    }
}

impl Default for JwksSettings {
    fn default() -> Self {
        Self {
            max_age: Period::from_mins(5),
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            allowed_algorithms: Algorithm::ALL.to_vec(),
            min_rsa_key_size: RsaKeySize::Bits2048.bits(),
            allow_draft_tiers: false,
            longest_rotation_interval: None,
            shortest_secret_rotation_interval: None,
            service_account_audiences: Vec::new(),
        }
    }
}

/// The longest life that any token can be given, whatever a release sets.
pub const LONGEST_TOKEN_TTL: Period = Period::from_hours(24);

/// The longest that verifiers may cache the JWKS: a retired key stays published for so long, and a
/// compromised one is believed for so long.
pub const LONGEST_JWKS_MAX_AGE: Period = Period::from_hours(24);

/// The most that verifiers' clocks may be off.
pub const LONGEST_CLOCK_LEEWAY: Period = Period::from_mins(10);

/// The longest that a replica signs without contact with the API server.
pub const LONGEST_STALENESS: Period = Period::from_hours(24);

/// The fewest connections that a replica can be held to: with fewer no load balancer could work.
pub const FEWEST_CONNECTIONS: i32 = 16;

/// The most connections that a replica can hold, whatever a release sets.
pub const MOST_CONNECTIONS: i32 = 65_536;

impl Settings {
    /// The tiers that can be subscribed to: the defaults with the release's own laid over them.
    pub fn catalogue(&self) -> Catalogue {
        let mut catalogue = default_catalogue();
        catalogue.extend(self.tiers.clone());
        catalogue
    }

    /// The path of the issuer's URL, without a trailing slash; empty if it has none.
    pub fn issuer_path(&self) -> &str {
        let after_scheme = self.issuer.split_once("://").map_or("", |(_, rest)| rest);
        after_scheme.find('/').map_or("", |at| &after_scheme[at..])
    }

    /// The URL of the token endpoint.
    pub fn token_url(&self) -> String {
        format!("{}/oauth/token", self.issuer)
    }

    /// Every mistake in the settings, each a sentence that names the setting, its value and what
    /// to do.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        problems.extend(issuer_problem(&self.issuer));
        for (setting, name) in [
            ("environment", &self.environment),
            ("operatorNamespace", &self.operator_namespace),
        ] {
            if !is_dns_label(name) {
                problems.push(format!(
                    "{setting} is {name:?}, which is no DNS label: use at most 63 of a-z, 0-9 \
                     and -, beginning and ending with a letter or digit."
                ));
            }
        }
        let TokenSettings {
            default_ttl,
            device_default_ttl,
            agent_default_ttl,
            max_ttl,
            clock_leeway,
        } = self.tokens;
        if max_ttl.as_secs() == 0 || max_ttl > LONGEST_TOKEN_TTL {
            problems.push(format!(
                "tokens.maxTtl is {max_ttl}: set it between 1s and {LONGEST_TOKEN_TTL}."
            ));
        }
        for (setting, ttl) in [
            ("defaultTtl", Some(default_ttl)),
            ("deviceDefaultTtl", device_default_ttl),
            ("agentDefaultTtl", agent_default_ttl),
        ] {
            let unfit = |ttl: &Period| ttl.as_secs() == 0 || *ttl > max_ttl;
            if let Some(ttl) = ttl.filter(unfit) {
                problems.push(format!(
                    "tokens.{setting} is {ttl}: set it between 1s and tokens.maxTtl, which is \
                     {max_ttl}."
                ));
            }
        }
        if clock_leeway > LONGEST_CLOCK_LEEWAY {
            problems.push(format!(
                "tokens.clockLeeway is {clock_leeway}: set it between 0s and \
                 {LONGEST_CLOCK_LEEWAY}, and set the clocks that are further off right."
            ));
        }
        let max_staleness = self.serving.max_staleness;
        if max_staleness.as_secs() == 0 || max_staleness > LONGEST_STALENESS {
            problems.push(format!(
                "serving.maxStaleness is {max_staleness}: set it between 1s and \
                 {LONGEST_STALENESS}, as a replica that is cut off signs for so long with a key \
                 that was withdrawn."
            ));
        }
        let max_connections = self.serving.max_connections;
        if !(FEWEST_CONNECTIONS..=MOST_CONNECTIONS).contains(&max_connections) {
            problems.push(format!(
                "serving.maxConnections is {max_connections}: set it between \
                 {FEWEST_CONNECTIONS} and {MOST_CONNECTIONS}, as many as the replica has memory and \
                 file descriptors for."
            ));
        }
        let max_age = self.jwks.max_age;
        if max_age > LONGEST_JWKS_MAX_AGE {
            problems.push(format!(
                "jwks.maxAge is {max_age}: set it between 0s and {LONGEST_JWKS_MAX_AGE}, as \
                 verifiers would believe a key for so long after it was withdrawn."
            ));
        }
        if self.policy.allowed_algorithms.is_empty() {
            problems.push(
                "policy.allowedAlgorithms is empty, so no key could sign: name at least one \
                 algorithm, such as RS256."
                    .into(),
            );
        }
        if RsaKeySize::from_bits(self.policy.min_rsa_key_size).is_none() {
            problems.push(format!(
                "policy.minRsaKeySize is {}: use 2048, 3072 or 4096.",
                self.policy.min_rsa_key_size
            ));
        }
        if self.policy.longest_rotation_interval == Some(Period::from_secs(0)) {
            problems.push(
                "policy.longestRotationInterval is 0s, which no SigningKey could keep: set it to \
                 the longest interval that you allow, such as 2160h, or leave it out."
                    .into(),
            );
        }
        if self.policy.shortest_secret_rotation_interval == Some(Period::from_secs(0)) {
            problems.push(
                "policy.shortestSecretRotationInterval is 0s, which bounds nothing: set it to the \
                 shortest interval that you allow, such as 1m, or leave it out."
                    .into(),
            );
        }
        problems.extend(self.secrets.problems());
        problems.extend(self.throttle.problems());
        problems.extend(self.revocation.problems());
        problems.extend(self.providers.problems());
        problems.extend(self.users.problems());
        let catalogue = self.catalogue();
        let drafts = self.policy.allow_draft_tiers;
        let known = |tier: &str| {
            catalogue
                .get(tier)
                .is_some_and(|tier| drafts || !tier.draft)
        };
        problems.extend(self.legal_entities.problems(known));
        problems.extend(self.policy.audience_problems());
        problems.extend(self.claims.problems());
        problems.extend(tiers::problems(&self.tiers));
        problems
    }
}

impl Policy {
    fn audience_problems(&self) -> Vec<String> {
        let own = super::service_account::API_SERVER;
        let mut problems = Vec::new();
        for audience in &self.service_account_audiences {
            let plain = !audience.is_empty() && audience.bytes().all(|b| b.is_ascii_graphic());
            if !plain || audience.starts_with(own) {
                problems.push(format!(
                    "policy.serviceAccountAudiences has {audience:?}, which is the API server's own \
                     or no visible ASCII text: name one that no other server takes."
                ));
            }
        }
        problems
    }
}

fn issuer_problem(issuer: &str) -> Option<String> {
    let advice = "use a URL such as https://id.example.com, with no query, fragment, user or \
                  trailing slash (RFC 8414 §2)";
    let wrong = |what: &str| Some(format!("issuer is {issuer:?}{what}: {advice}."));
    let (https, rest) = match (
        issuer.strip_prefix("https://"),
        issuer.strip_prefix("http://"),
    ) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return wrong(""),
    };
    let clean = rest
        .bytes()
        .all(|b| b.is_ascii_graphic() && !b"?#@\\\"<>{}|^`%".contains(&b));
    if !clean || rest.ends_with('/') || rest.contains("//") {
        return wrong("");
    }
    let authority = rest.split('/').next().unwrap_or_default();
    // The colons of an IPv6 address are within its brackets.
    let host_end = authority.find(']').map_or_else(
        || authority.find(':').unwrap_or(authority.len()),
        |bracket| bracket + 1,
    );
    let (host, port) = authority.split_at(host_end);
    let Some(loopback) = host_is_loopback(host) else {
        return wrong(&format!(", whose host {host:?} is no name or address"));
    };
    let port_sound = port.is_empty()
        || port.strip_prefix(':').is_some_and(|digits| {
            digits.bytes().all(|b| b.is_ascii_digit())
                && digits.parse::<u16>().is_ok_and(|number| number > 0)
        });
    if !port_sound {
        return wrong(&format!(
            ", whose port {port:?} is none between :1 and :65535"
        ));
    }
    if !https && !loopback {
        return Some(format!(
            "issuer is {issuer:?}, where anyone on the way could put keys of their own into the \
             JWKS: use https, as http is for this machine alone (localhost, 127.0.0.1, [::1])."
        ));
    }
    None
}

/// Whether a URL's host is this machine; none if it is no host at all.
fn host_is_loopback(host: &str) -> Option<bool> {
    if let Some(inner) = host.strip_prefix('[') {
        let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
        return Some(IpAddr::V6(address).to_canonical().is_loopback());
    }
    let label = |label: &str| is_dns_label(&label.to_ascii_lowercase());
    if host.len() > 253 || !host.split('.').all(label) {
        return None;
    }
    let last = host.rsplit('.').next().unwrap_or_default();
    // What ends in a number is an address, also to browsers; nobody has such a name.
    if last.bytes().all(|b| b.is_ascii_digit()) {
        return Some(host.parse::<Ipv4Addr>().ok()?.is_loopback());
    }
    Some(host.eq_ignore_ascii_case("localhost"))
}

/// Whether `name` is a DNS label (RFC 1123), as namespaces and environments are named.
pub fn is_dns_label(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&name.len())
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

#[cfg(test)]
mod tests;
