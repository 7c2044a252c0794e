//! How often clients may ask, and fail.

use serde::{Deserialize, Serialize};

use super::super::rate::Rate;

/// How often clients may ask for tokens, and how often authentication may fail. Each replica
/// counts for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ThrottleSettings {
    /// Failed authentications under one client id, whether there is such a client or not.
    pub failures_per_client: Rate,
    /// Failed authentications from one address; of IPv6 from one /64.
    pub failures_per_source: Rate,
    /// Tokens that a client may ask for where its technical user sets no rate.
    pub token_rate: Rate,
    /// The most that a technical user may set.
    pub max_token_rate: Rate,
    /// The header in which proxies tell whom they speak for. Where there is none, a server behind
    /// a proxy does not know its clients' addresses, and counts no failures by them.
    pub forwarded_header: Option<ForwardedHeader>,
    /// How many proxies add to that header before a request is here, from 1 to
    /// [`MOST_PROXIES`]: what stands further to the left anyone may have written.
    pub trusted_proxies: i32,
}

/// A header in which proxies tell whom they speak for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForwardedHeader {
    /// Addresses with commas between them, as most proxies write.
    #[serde(rename = "X-Forwarded-For")]
    XForwardedFor,
    /// RFC 7239.
    Forwarded,
}

/// The most proxies that a release can trust.
pub const MOST_PROXIES: i32 = 16;

impl Default for ThrottleSettings {
    fn default() -> Self {
        Self {
            failures_per_client: Rate::per_minute(30),
            failures_per_source: Rate::per_minute(120),
            token_rate: Rate::per_second(100),
            max_token_rate: Rate::per_second(1000),
            forwarded_header: None,
            trusted_proxies: 1,
        }
    }
}

impl ThrottleSettings {
    /// Every mistake, as [`super::Settings::problems`].
    pub(super) fn problems(self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.token_rate.exceeds(self.max_token_rate) {
            problems.push(format!(
                "throttle.tokenRate is {}, which is more than throttle.maxTokenRate of {}: lower \
                 the first or raise the second.",
                self.token_rate, self.max_token_rate
            ));
        }
        if !(1..=MOST_PROXIES).contains(&self.trusted_proxies) {
            problems.push(format!(
                "throttle.trustedProxies is {}: set it to the number of proxies that add to \
                 throttle.forwardedHeader, from 1 to {MOST_PROXIES}.",
                self.trusted_proxies
            ));
        }
        problems
    }
}
