//! What is told of a person who brings a token of an outside provider: in this release's names, and no more
//! than the tenant's current Subscription allows.

use serde_json::{Map, Value, json};

use super::exchange::acted;
use super::oauth_error::OAuthError;
use super::provider::Subject;
use super::settings::Settings;
use super::subscription::{SubscriptionFacts, cut_down};

/// The person's roles, as far as the Subscription allows them.
pub fn roles<'a>(subject: &'a Subject, subscription: &SubscriptionFacts) -> Vec<&'a str> {
    cut_down(&subject.roles, &subscription.allowed.roles)
}

/// The claims that a token of this issuer would have for the person (RFC 7662 §2.2): `iss`, `aud` and the
/// times are the provider's, `sub` and the profile's claims are ours, and `client_id` is the provider's with
/// the provider before it, as in `sub`. `subject` belongs to the tenant of `subscription`.
///
/// # Errors
/// Where `act` in the token names no parties, or more than may be: token exchange refuses that too.
pub fn mapped(
    subject: &Subject,
    subscription: &SubscriptionFacts,
    settings: &Settings,
) -> Result<Map<String, Value>, OAuthError> {
    let names = &settings.claims;
    let mut claims = Map::new();
    // What the profile calls its claims is a setting, which must not hide what the RFCs name.
    let organisation = subject.organisation.as_deref();
    let legal_entity = subscription.legal_entity_id.as_str();
    for (name, value) in [
        (&names.legal_entity, json!(legal_entity)),
        (&names.user_id, json!(subject.id)),
        (
            &names.organization,
            json!(organisation.unwrap_or(legal_entity)),
        ),
        (&names.roles, json!(roles(subject, subscription))),
        (&names.tier, json!(subscription.tier)),
    ] {
        claims.insert(name.clone(), value);
    }
    let aud = match subject.audiences.as_slice() {
        [one] => json!(one),
        several => json!(several),
    };
    claims.insert("sub".into(), json!(subject.id));
    claims.insert("aud".into(), aud);
    claims.insert("iat".into(), json!(subject.issued_at));
    claims.insert("exp".into(), json!(subject.expires));
    let mut optional = |name: &str, value: Option<&String>| {
        if let Some(value) = value {
            claims.insert(name.into(), json!(value));
        }
    };
    optional("iss", subject.issuer.as_ref());
    // What a provider calls its client may be what one of ours is called.
    let provider = subject.id.strip_suffix(subject.subject.as_str());
    let client = subject.client.as_ref();
    let client = client.map(|id| format!("{}{id}", provider.unwrap_or_default()));
    optional("client_id", client.as_ref());
    optional("jti", subject.token_id.as_ref());
    if let Some(scopes) = &subject.scopes {
        let scopes = cut_down(scopes, &subscription.allowed.scopes);
        claims.insert("scope".into(), json!(scopes.join(" ")));
    }
    if let Some(act) = acted(subject, settings)? {
        claims.insert("act".into(), json!(act));
    }
    Ok(claims)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;

    use super::*;
    use crate::domain::subscription::Allowed;

    fn subject() -> Subject {
        Subject {
            id: "corp:ann".into(),
            subject: "ann".into(),
            issuer: Some("https://login.example".into()),
            audiences: vec!["front".into()],
            organisation: None,
            legal_entity: None,
            roles: vec!["clerk".into(), "boss".into()],
            scopes: None,
            expires: 20,
            issued_at: 10,
            client: None,
            may_act: None,
            act: None,
            token_id: None,
        }
    }

    fn subscription() -> SubscriptionFacts {
        SubscriptionFacts {
            namespace: "acme".into(),
            name: "main".into(),
            created: Timestamp::UNIX_EPOCH,
            uid: "uid".into(),
            environment: "default".into(),
            legal_entity_id: "le-acme".into(),
            legal_entity_name: "Acme".into(),
            tier: "Free".into(),
            allowed: Allowed {
                scopes: vec!["read".into()],
                roles: vec!["clerk".into()],
                audiences: Vec::new(),
                client_ids: Vec::new(),
            },
            entitlements: BTreeMap::default(),
            period_from: None,
            period_to: None,
        }
    }

    #[test]
    fn in_our_names_and_cut_down() {
        let settings = Settings::default();
        let told = mapped(&subject(), &subscription(), &settings).expect("sound");
        let least = json!({
            "iss": "https://login.example", "sub": "corp:ann", "aud": "front", "iat": 10, "exp": 20,
            "caas_org_id": "le-acme", "caas_user_id": "corp:ann", "org_id": "le-acme",
            "user_roles": ["clerk"], "caas_tier": "Free",
        });
        assert_eq!(Value::Object(told), least);
        let act = json!({"sub": "app", "act": {"sub": "other", "iss": "https://x.example"}});
        let more = Subject {
            audiences: vec!["a".into(), "b".into()],
            organisation: Some("sales".into()),
            scopes: Some(vec!["write".into(), "read".into()]),
            client: Some("app".into()),
            token_id: Some("one".into()),
            act: act.as_object().cloned(),
            ..subject()
        };
        let told = Value::Object(mapped(&more, &subscription(), &settings).expect("sound"));
        assert_eq!(told["aud"], json!(["a", "b"]));
        assert_eq!(
            (&told["org_id"], &told["scope"]),
            (&json!("sales"), &json!("read"))
        );
        assert_eq!(
            (&told["client_id"], &told["jti"]),
            (&json!("corp:app"), &json!("one"))
        );
        assert_eq!(
            told["act"],
            json!({"sub": "app", "iss": "https://login.example", "act": {"sub": "other", "iss": "https://x.example"}})
        );
        let odd = Subject {
            act: json!({"sub": 7}).as_object().cloned(),
            ..subject()
        };
        assert!(mapped(&odd, &subscription(), &settings).is_err());
    }

    #[test]
    fn a_profile_can_hide_nothing() {
        let mut settings = Settings::default();
        settings.claims.tier = "sub".into();
        let told = mapped(&subject(), &subscription(), &settings).expect("sound");
        assert_eq!(told["sub"], "corp:ann");
    }
}
