//! How much is remembered of revoked tokens.

use serde::{Deserialize, Serialize};

/// How much is remembered of revoked tokens, until they expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RevocationSettings {
    /// Single tokens that a client may have revoked, from 1 to [`MOST_TOKENS`]; beyond that all that
    /// it was issued until then is.
    pub tokens_per_client: i32,
    /// Single tokens and clients of one tenant together, from 2 to [`MOST_ENTRIES`]; beyond that
    /// a client that has some revoked has all of them revoked, and another is to come again later.
    pub entries_per_tenant: i32,
}

/// The most single tokens of a client.
pub const MOST_TOKENS: i32 = 1000;
/// The most entries of a tenant: some 150 kB.
pub const MOST_ENTRIES: i32 = 3000;

impl Default for RevocationSettings {
    fn default() -> Self {
        Self {
            tokens_per_client: 50,
            entries_per_tenant: 1000,
        }
    }
}

impl RevocationSettings {
    /// Every mistake, as [`super::Settings::problems`].
    pub(super) fn problems(self) -> Vec<String> {
        let mut problems = Vec::new();
        if !(1..=MOST_TOKENS).contains(&self.tokens_per_client) {
            problems.push(format!(
                "revocation.tokensPerClient is {}: set it between 1 and {MOST_TOKENS}.",
                self.tokens_per_client
            ));
        }
        if !(2..=MOST_ENTRIES).contains(&self.entries_per_tenant) {
            problems.push(format!(
                "revocation.entriesPerTenant is {}: set it between 2 and {MOST_ENTRIES}.",
                self.entries_per_tenant
            ));
        }
        problems
    }
}
