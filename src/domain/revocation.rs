//! Access tokens that were revoked before they expired (RFC 7009): what is remembered of them, for
//! how long, and how that stays bounded without anything being lost.
//!
//! Everything here only ever grows until it expires: [`Revocations::join`] is commutative and
//! idempotent, so that what is brought home twice, or by two, comes to the same.
//!
//! A client may have so many single tokens revoked; beyond that all that it was issued until now
//! is. Where the whole is full, the tenant that holds the most gives: its clients' single tokens
//! become such a time.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::settings::{LONGEST_CLOCK_LEEWAY, LONGEST_TOKEN_TTL, Settings};

mod index;

pub use index::Index;

/// The most that clocks of replicas are apart: one whose clock is further off is not ready.
const SKEW: i64 = 300;
/// The longest id of a token that is remembered; ours have 22 characters.
const LONGEST_ID: usize = 64;

/// A token that is to be revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its `jti`.
    pub id: String,
    /// Its `iat`, in seconds since 1970.
    pub issued_at: i64,
    /// Its `exp`, in seconds since 1970.
    pub expires_at: i64,
}

/// What of a client's tokens is revoked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OfClient {
    /// All that was issued until then, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<i64>,
    /// When the last of those has expired everywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// Single tokens by `jti`: when each was issued, and when it has expired everywhere.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tokens: BTreeMap<String, (i64, i64)>,
    /// When the client, a device, revoked itself. It stands here until the operator has written it
    /// where it lasts, and does not expire.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<i64>,
}

/// A device that has revoked itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Device {
    /// Its namespace.
    pub tenant: String,
    /// Its client id.
    pub client_id: String,
    /// When, in seconds since 1970.
    pub at: i64,
}

/// The same by client id.
pub type OfTenant = BTreeMap<String, OfClient>;

/// All that is revoked, by the tenants' namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocations(pub BTreeMap<String, OfTenant>);

/// How much may be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Single tokens of one client.
    pub tokens_per_client: usize,
    /// Single tokens and clients of one tenant.
    pub entries_per_tenant: usize,
    /// Bytes of all of it.
    pub bytes: usize,
    /// The longest, in seconds, that a token issued now lives anywhere.
    pub longest_life: i64,
    /// For how many seconds a replica that has not heard of it may still issue tokens to a device that has
    /// revoked itself, by its own clock.
    pub follow: i64,
}

/// Within so many seconds each replica that has contact knows what was answered.
const KNOWN_WITHIN: i64 = 2;

impl Bounds {
    /// Those of a release.
    pub fn of(settings: &Settings) -> Self {
        let usize = |number: i32| usize::try_from(number).unwrap_or(1);
        Self {
            tokens_per_client: usize(settings.revocation.tokens_per_client),
            entries_per_tenant: usize(settings.revocation.entries_per_tenant),
            bytes: MOST_BYTES,
            longest_life: settings.tokens.max_ttl.as_secs() + leeway(settings),
            follow: (KNOWN_WITHIN + leeway(settings)).min(SKEW),
        }
    }
}

/// A ConfigMap holds a mebibyte; its metadata needs some of it.
const MOST_BYTES: usize = 900_000;

/// For how long verifiers may still take a token that has expired.
pub fn leeway(settings: &Settings) -> i64 {
    settings.tokens.clock_leeway.as_secs()
}

/// There is no room for more: to come again later loses nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl OfClient {
    /// Whether a token of this client is revoked.
    pub fn holds(&self, id: &str, issued_at: i64) -> bool {
        self.tokens.contains_key(id) || self.before.is_some_and(|before| issued_at <= before)
    }

    fn join(&mut self, other: &Self) {
        self.before = self.before.max(other.before);
        self.until = self.until.max(other.until);
        self.device = self.device.max(other.device);
        for (id, (issued, expires)) in &other.tokens {
            let known = self.tokens.entry(id.clone()).or_insert((*issued, *expires));
            *known = (known.0.max(*issued), known.1.max(*expires));
        }
        let before = self.before;
        // A time says it already.
        self.tokens
            .retain(|_, (issued, _)| before.is_none_or(|before| *issued > before));
    }

    /// All that it was issued until `now` is revoked, and every single one of these.
    pub fn revoke_all(&mut self, now: i64, bounds: &Bounds) {
        // A replica whose clock is ahead has dated its tokens later.
        let issued = self.tokens.values().map(|(issued, _)| *issued);
        let before = issued.chain([now]).max().unwrap_or(now);
        let expires = self.tokens.values().map(|(_, expires)| *expires);
        let until = expires.chain([now + bounds.longest_life]).max();
        self.before = self.before.max(Some(before));
        self.until = self.until.max(until);
        self.tokens.clear();
    }

    fn forget(&mut self, now: i64) {
        self.tokens.retain(|_, (_, expires)| *expires > now);
        if self.until.is_none_or(|until| until <= now) {
            (self.before, self.until) = (None, None);
        }
    }

    fn is_empty(&self) -> bool {
        self.before.is_none() && self.tokens.is_empty() && self.device.is_none()
    }

    /// What could be no revocation that this release has answered.
    fn problem(&self, now: i64) -> Option<&'static str> {
        let soon = now + SKEW;
        // Whatever this release allows now: it may have allowed more when the token was issued.
        let latest = soon + LONGEST_TOKEN_TTL.as_secs() + LONGEST_CLOCK_LEEWAY.as_secs();
        let times = self.tokens.values();
        if !self.tokens.keys().all(|id| is_token_id(id)) {
            return Some("the id of a token is none of ours");
        }
        let sound = |(issued, expires): &(i64, i64)| {
            *issued >= 0 && *issued <= soon && issued < expires && *expires <= latest
        };
        if !times.clone().all(sound) {
            return Some("a token has times that none of ours can have");
        }
        if !self.device.is_none_or(|at| (0..=soon).contains(&at)) {
            return Some("a device can not have revoked itself at that time");
        }
        match (self.before, self.until) {
            (None, None) => None,
            (Some(before), Some(until))
                if (0..=soon + SKEW).contains(&before) && before < until && until <= latest =>
            {
                None
            }
            _ => Some("a time is one before which no token of ours can have been issued"),
        }
    }
}

/// Whether this can be a `jti` of ours.
pub fn is_token_id(id: &str) -> bool {
    let sound = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(sound)
}

impl Revocations {
    /// Whether a token of that client is revoked; by whichever tenant's entry.
    pub fn of(&self, client_id: &str) -> impl Iterator<Item = &OfClient> {
        self.0.values().filter_map(move |of| of.get(client_id))
    }

    /// Adds all that another holds.
    pub fn join(&mut self, other: &Self) {
        for (tenant, clients) in &other.0 {
            self.join_tenant(tenant, clients);
        }
    }

    /// Adds all that is held of a tenant elsewhere.
    pub fn join_tenant(&mut self, tenant: &str, clients: &OfTenant) {
        if clients.is_empty() {
            return;
        }
        let mine = self.0.entry(tenant.to_owned()).or_default();
        for (id, client) in clients {
            mine.entry(id.clone()).or_default().join(client);
        }
    }

    /// Drops what has expired.
    pub fn forget(&mut self, now: Timestamp) {
        let now = now.as_second();
        for clients in self.0.values_mut() {
            for client in clients.values_mut() {
                client.forget(now);
            }
            clients.retain(|_, client| !client.is_empty());
        }
        self.0.retain(|_, clients| !clients.is_empty());
    }

    /// When the next of it expires.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        let clients = self.0.values().flat_map(BTreeMap::values);
        let times = clients.flat_map(|c| {
            let single = c.tokens.values().map(|(_, expires)| *expires);
            single.chain(c.until)
        });
        times
            .min()
            .and_then(|second| Timestamp::from_second(second).ok())
    }

    /// How many single tokens, and how many clients with all that they were issued until a time.
    pub fn count(&self) -> (usize, usize) {
        let clients = || self.0.values().flat_map(BTreeMap::values);
        (
            clients().map(|c| c.tokens.len()).sum(),
            clients().filter(|c| c.before.is_some()).count(),
        )
    }

    /// Notes that a client had a token revoked. `elsewhere` is what is remembered beside this, and
    /// counts towards the bounds. Whether anything had to be noted.
    ///
    /// # Errors
    /// There is no room, and nothing was noted.
    pub fn revoke(
        &mut self,
        elsewhere: &Self,
        (tenant, client_id): (&str, &str),
        token: &Token,
        (now, leeway, bounds): (Timestamp, i64, &Bounds),
    ) -> Result<bool, Full> {
        let now = now.as_second();
        let expires_at = token.expires_at.saturating_add(leeway);
        let known = [&*self, elsewhere].into_iter().any(|all| {
            all.of(client_id)
                .any(|c| c.holds(&token.id, token.issued_at))
        });
        if known || expires_at <= now || !is_token_id(&token.id) {
            return Ok(false);
        }
        let mut all = elsewhere.clone();
        all.0.retain(|namespace, _| namespace == tenant);
        all.join_tenant(tenant, self.0.get(tenant).unwrap_or(&OfTenant::new()));
        let of_tenant = all.0.remove(tenant).unwrap_or_default();
        let entries: usize = of_tenant.values().map(|c| 1 + c.tokens.len()).sum();
        let held = of_tenant.get(client_id).cloned().unwrap_or_default();
        let mut after = self.clone();
        let clients = after.0.entry(tenant.to_owned()).or_default();
        let mine = clients.entry(client_id.to_owned()).or_default();
        mine.tokens
            .insert(token.id.clone(), (token.issued_at, expires_at));
        let full = entries + 2 > bounds.entries_per_tenant;
        if held.tokens.len() >= bounds.tokens_per_client || full {
            if full && held.is_empty() {
                return Err(Full);
            }
            // With those that are held elsewhere, so that one time says all of it.
            mine.join(&held);
            mine.revoke_all(now, bounds);
        }
        after.fit(now, bounds)?;
        *self = after;
        Ok(true)
    }

    /// Notes that a device revoked itself, and all that it and its companion agent, if it has one, were
    /// issued until now. `from` is the earliest second in which it can have done so
    /// ([`Client::revocable_from`](super::client::Client::revocable_from)): the note bears no earlier one,
    /// also where the clock is behind.
    ///
    /// # Errors
    /// There is no room, and nothing was noted.
    pub fn revoke_device(
        &mut self,
        elsewhere: &Self,
        (tenant, client_id): (&str, &str),
        (companion, from): (Option<&str>, i64),
        (now, bounds): (Timestamp, &Bounds),
    ) -> Result<bool, Full> {
        let now = now.as_second();
        let mut after = self.clone();
        let clients = after.0.entry(tenant.to_owned()).or_default();
        let noted = clients.get(client_id).and_then(|client| client.device);
        if noted.is_some_and(|at| at >= from) {
            return Ok(false);
        }
        let held = elsewhere.0.get(tenant);
        for id in [client_id].into_iter().chain(companion) {
            let one = clients.entry(id.to_owned()).or_default();
            if let Some(held) = held.and_then(|of| of.get(id)) {
                one.join(held);
            }
            // A thief who asks all the while is not to keep what a slower replica gave him meanwhile.
            one.revoke_all(now + bounds.follow, bounds);
        }
        clients.entry(client_id.to_owned()).or_default().device = Some(now.max(from));
        let entries: usize = clients.values().map(|c| 1 + c.tokens.len()).sum();
        // Twice as many: a lost device is not to wait for tokens to expire.
        if entries > bounds.entries_per_tenant.saturating_mul(2) {
            return Err(Full);
        }
        after.fit(now, bounds)?;
        *self = after;
        Ok(true)
    }

    /// Takes out the devices that have revoked themselves.
    pub fn take_devices(&mut self) -> Vec<Device> {
        let mut devices = Vec::new();
        for (tenant, clients) in &mut self.0 {
            for (client_id, client) in clients {
                devices.extend(client.device.take().map(|at| Device {
                    tenant: tenant.clone(),
                    client_id: client_id.clone(),
                    at,
                }));
            }
        }
        devices
    }

    /// Makes room where it is needed: the tenant that holds the most gives first.
    ///
    /// # Errors
    /// There is nothing left that could be told in fewer words.
    pub fn fit(&mut self, now: i64, bounds: &Bounds) -> Result<(), Full> {
        while self.bytes() > bounds.bytes {
            let singles = |of: &OfTenant| of.values().map(|c| c.tokens.len()).sum::<usize>();
            let most = self
                .0
                .iter_mut()
                .filter(|(_, of)| singles(of) > 0)
                .max_by_key(|(_, of)| of.values().map(|c| 1 + c.tokens.len()).sum::<usize>());
            let Some((_, clients)) = most else {
                return Err(Full);
            };
            let most = clients.values_mut().max_by_key(|c| c.tokens.len());
            if let Some(client) = most {
                client.revoke_all(now, bounds);
            }
        }
        Ok(())
    }

    /// How much room it takes, in bytes, written as JSON by tenant.
    pub fn bytes(&self) -> usize {
        let written = |(tenant, of): (&String, &OfTenant)| {
            tenant.len() + serde_json::to_string(of).map_or(0, |text| text.len())
        };
        self.0.iter().map(written).sum()
    }
}

/// Brings what a server has noted down to what can be believed: `may_have` says whether a client id
/// can be of a tenant's namespace. What is left out is told, a sentence for each tenant.
pub fn judge(
    noted: &BTreeMap<String, String>,
    may_have: impl Fn(&str, &str) -> bool,
    now: Timestamp,
    bounds: &Bounds,
) -> (Revocations, Vec<String>) {
    let now = now.as_second();
    let (mut sound, mut refused) = (Revocations::default(), Vec::new());
    for (tenant, text) in noted {
        // Nobody's words are quoted: what stands here anyone may have written.
        let name: String = tenant.chars().take(63).collect();
        let mut refuse = |why: &str| refused.push(format!("the entry of {name:?}: {why}"));
        let Ok(clients) = serde_json::from_str::<OfTenant>(text) else {
            refuse("it is no list of revocations");
            continue;
        };
        if clients.values().map(|c| 1 + c.tokens.len()).sum::<usize>()
            > bounds.entries_per_tenant.saturating_mul(2)
        {
            refuse("it is longer than any tenant's can be");
            continue;
        }
        let mut strangers = 0_usize;
        for (client_id, client) in clients {
            if !may_have(tenant, &client_id) {
                strangers += 1;
            } else if let Some(why) = client.problem(now) {
                refuse(why);
            } else {
                let of_tenant = OfTenant::from([(client_id, client)]);
                sound.join_tenant(tenant, &of_tenant);
            }
        }
        if strangers > 0 {
            refuse(&format!(
                "{strangers} client ids in it are not that tenant's"
            ));
        }
    }
    (sound, refused)
}

#[cfg(test)]
#[path = "revocation/tests.rs"]
mod tests;
