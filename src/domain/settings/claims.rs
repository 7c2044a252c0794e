//! What the claims of the Cyoda profile are called.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The names of the claims that RFC 9068 does not name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClaimNames {
    /// The tenant's id.
    pub legal_entity: String,
    /// Who the token speaks for.
    pub user_id: String,
    /// The organisation that the subject belongs to.
    pub organization: String,
    /// The roles, an array.
    pub roles: String,
    /// The tier of the current subscription.
    pub tier: String,
    /// The family of the technical user: Integration, Device or Agent.
    pub family: String,
}

impl Default for ClaimNames {
    fn default() -> Self {
        Self {
            legal_entity: "caas_org_id".into(),
            user_id: "caas_user_id".into(),
            organization: "org_id".into(),
            roles: "user_roles".into(),
            tier: "caas_tier".into(),
            family: "client_family".into(),
        }
    }
}

/// Claims that RFC 7519 and RFC 9068 define, which a profile's claim can not be named after.
const REGISTERED_CLAIMS: [&str; 13] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "client_id",
    "scope",
    "act",
    "may_act",
    "auth_time",
    "cnf",
];

impl ClaimNames {
    /// Every mistake in them, as a sentence.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut seen = BTreeMap::new();
        let mut problems = Vec::new();
        for (setting, name) in [
            ("legalEntity", &self.legal_entity),
            ("userId", &self.user_id),
            ("organization", &self.organization),
            ("roles", &self.roles),
            ("tier", &self.tier),
            ("family", &self.family),
        ] {
            if name.is_empty() || REGISTERED_CLAIMS.contains(&name.as_str()) {
                problems.push(format!(
                    "claims.{setting} is {name:?}, which is empty or a claim with a meaning of \
                     its own: choose another name."
                ));
            } else if let Some(other) = seen.insert(name, setting) {
                problems.push(format!(
                    "claims.{setting} and claims.{other} are both {name:?}: give each its own name."
                ));
            }
        }
        problems
    }
}
