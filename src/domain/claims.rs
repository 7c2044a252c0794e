//! What stands in an access token: RFC 9068 with the profile of this release.

use serde::ser::{Serialize, SerializeMap as _, Serializer};

use super::exchange::Actor;
use super::settings::ClaimNames;

/// The claims of one access token. Serialises to the JSON object that is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims<'a> {
    /// What the profile's claims are called.
    pub names: &'a ClaimNames,
    /// `iss`.
    pub issuer: &'a str,
    /// `sub`, and the profile's user id: whom the token speaks for.
    pub subject: &'a str,
    /// `aud`: one is written as a string, several as an array (RFC 7519 §4.1.3).
    pub audiences: Vec<&'a str>,
    /// `client_id`: who asked for it (RFC 8693 §4.3).
    pub client_id: &'a str,
    /// `iat`, in seconds since 1970.
    pub issued_at: i64,
    /// `exp`, in seconds since 1970.
    pub expires_at: i64,
    /// `jti`.
    pub token_id: &'a str,
    /// `scope`, space-separated; left out if empty.
    pub scope: String,
    /// The tenant's id: the profile's legal entity.
    pub legal_entity: &'a str,
    /// The profile's organisation that the subject belongs to: the tenant's id where no other is known.
    pub organization: &'a str,
    /// The profile's roles.
    pub roles: Vec<&'a str>,
    /// The profile's tier.
    pub tier: &'a str,
    /// The profile's family: what the technical user is for.
    pub family: &'a str,
    /// `act`: who acts for the subject (RFC 8693 §4.1); none where that is the subject itself.
    pub act: Option<Actor>,
}

impl Serialize for Claims<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("iss", self.issuer)?;
        map.serialize_entry("sub", self.subject)?;
        match self.audiences.as_slice() {
            [one] => map.serialize_entry("aud", one)?,
            several => map.serialize_entry("aud", several)?,
        }
        map.serialize_entry("client_id", self.client_id)?;
        map.serialize_entry("iat", &self.issued_at)?;
        map.serialize_entry("exp", &self.expires_at)?;
        map.serialize_entry("jti", self.token_id)?;
        if !self.scope.is_empty() {
            map.serialize_entry("scope", &self.scope)?;
        }
        map.serialize_entry(&self.names.legal_entity, self.legal_entity)?;
        map.serialize_entry(&self.names.user_id, self.subject)?;
        map.serialize_entry(&self.names.organization, self.organization)?;
        map.serialize_entry(&self.names.roles, &self.roles)?;
        map.serialize_entry(&self.names.tier, self.tier)?;
        map.serialize_entry(&self.names.family, self.family)?;
        if let Some(act) = &self.act {
            map.serialize_entry("act", act)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(names: &ClaimNames) -> Claims<'_> {
        Claims {
            names,
            issuer: "https://id.example.com",
            subject: "acme.robot",
            audiences: vec!["https://api.example.com"],
            client_id: "acme.robot",
            issued_at: 1000,
            expires_at: 1300,
            token_id: "id",
            scope: "read write".into(),
            legal_entity: "acme",
            roles: vec!["READER"],
            tier: "Free",
            organization: "acme",
            family: "Device",
            act: None,
        }
    }

    #[test]
    fn the_object_is_that_of_rfc_9068_with_the_profile() {
        let names = ClaimNames::default();
        let json = serde_json::to_value(claims(&names)).expect("JSON");
        assert_eq!(
            json,
            serde_json::json!({
                "iss": "https://id.example.com", "sub": "acme.robot",
                "aud": "https://api.example.com", "client_id": "acme.robot",
                "iat": 1000, "exp": 1300, "jti": "id", "scope": "read write",
                "caas_org_id": "acme", "caas_user_id": "acme.robot", "org_id": "acme",
                "user_roles": ["READER"], "caas_tier": "Free", "client_family": "Device",
            })
        );
    }

    #[test]
    fn several_audiences_are_an_array_and_no_scope_is_no_claim() {
        let names = ClaimNames {
            tier: "https://x/tier".into(),
            ..ClaimNames::default()
        };
        let claims = Claims {
            audiences: vec!["a", "b"],
            scope: String::new(),
            ..claims(&names)
        };
        let json = serde_json::to_value(claims).expect("JSON");
        assert_eq!(json["aud"], serde_json::json!(["a", "b"]));
        assert_eq!(json["https://x/tier"], "Free");
        assert!(json.get("scope").is_none() && json.get("caas_tier").is_none());
    }
}
