//! The ConfigMap in which servers note people who are new, and what the operator makes of that: Users, and
//! for a legal entity that no namespace has a namespace with a Subscription. All names follow from what was
//! noted, so that making something twice is harmless.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{annotation, label, labels};
use crate::api::v1alpha1::{
    LegalEntity, Subscription, SubscriptionSpec, User, UserProvider, UserSpec,
};
use crate::crypto::sha256;
use crate::domain::names::{
    ENROLMENTS, ENVIRONMENT_LABEL, LEGAL_ENTITY_ANNOTATION, MANAGED_BY, MANAGED_BY_LABEL,
    PART_ENROLLED, PART_ENROLMENTS,
};
use crate::domain::settings::{Settings, is_dns_label};
use crate::domain::user::{ProviderScope, person_id};

/// The Subscription of a namespace that was made for a legal entity.
pub const SUBSCRIPTION: &str = "enrolled";
/// The names of namespaces for legal entities whose ids are no part of a name go on so.
const HASHED: &str = "x-";

/// Where servers note people, empty.
pub fn outbox(settings: &Settings) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(ENROLMENTS.into()),
            namespace: Some(settings.operator_namespace.clone()),
            labels: Some(labels(&settings.environment, PART_ENROLMENTS)),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    }
}

/// What stands in it, as it stands.
pub fn noted(map: &ConfigMap) -> BTreeMap<String, String> {
    map.data.clone().unwrap_or_default()
}

/// 128 bits of a hash, in letters and digits that every name may have.
fn hash(text: &str) -> String {
    let digest = sha256(text.as_bytes());
    digest.iter().take(16).fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// What a person's User is called that is enrolled.
pub fn user_name(provider_id: &str, subject: &str) -> String {
    let name = provider_id.rsplit('/').next().unwrap_or_default();
    format!("{name}-{}", hash(&person_id(provider_id, subject)))
}

/// The User of a person who is new, without roles.
pub fn user(namespace: &str, provider_id: &str, subject: &str, settings: &Settings) -> User {
    let (scope, name) = match provider_id.split_once('/') {
        None => (ProviderScope::Global, provider_id),
        Some((_, name)) => (ProviderScope::Tenant, name),
    };
    let spec = UserSpec {
        provider: UserProvider {
            name: name.to_owned(),
            scope,
        },
        subject: subject.to_owned(),
        display_name: None,
        roles: Vec::new(),
        suspended: false,
    };
    let mut user = User::new(&user_name(provider_id, subject), spec);
    user.metadata.namespace = Some(namespace.to_owned());
    user.metadata.labels = Some(labels(&settings.environment, PART_ENROLLED));
    user
}

/// Whether a User was enrolled, and not made by a person.
pub fn is_enrolled(meta: &ObjectMeta) -> bool {
    label(meta, crate::domain::names::PART_LABEL) == Some(PART_ENROLLED)
}

/// What the namespace of a legal entity is called that is enrolled: with the id in it where that can be,
/// else with a hash of it. No two ids come to the same.
pub fn namespace_name(id: &str, settings: &Settings) -> String {
    let prefix = &settings.legal_entities.namespace_prefix;
    let plain = format!("{prefix}{id}");
    if is_dns_label(id) && is_dns_label(&plain) && !id.starts_with(HASHED) {
        return plain;
    }
    format!("{prefix}{HASHED}{}", hash(id))
}

/// The namespace of a legal entity that is enrolled.
pub fn namespace(id: &str, settings: &Settings) -> Namespace {
    let annotations = BTreeMap::from([(LEGAL_ENTITY_ANNOTATION.to_owned(), id.to_owned())]);
    Namespace {
        metadata: ObjectMeta {
            name: Some(namespace_name(id, settings)),
            labels: Some(labels(&settings.environment, PART_ENROLLED)),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    }
}

/// Whether a namespace was made by this release's operator for a legal entity; for that one, if it is named.
pub fn is_made_for(namespace: &Namespace, id: Option<&str>, settings: &Settings) -> bool {
    let meta = &namespace.metadata;
    let made_for = annotation(meta, LEGAL_ENTITY_ANNOTATION);
    is_enrolled(meta)
        && label(meta, MANAGED_BY_LABEL) == Some(MANAGED_BY)
        && label(meta, ENVIRONMENT_LABEL) == Some(&settings.environment)
        && made_for.is_some()
        && id.is_none_or(|id| made_for == Some(id))
}

/// The Subscription of a legal entity that is enrolled.
pub fn subscription(id: &str, settings: &Settings) -> Subscription {
    let of_release = &settings.legal_entities;
    let spec = SubscriptionSpec {
        environment: settings.environment.clone(),
        legal_entity: LegalEntity {
            id: id.to_owned(),
            name: format!("Org. {id}"),
        },
        tier: of_release.tier.clone(),
        allowed: of_release.allowed.allowed(),
        period_from: None,
        period_to: None,
        entitlements: Vec::new(),
    };
    let mut subscription = Subscription::new(SUBSCRIPTION, spec);
    subscription.metadata.namespace = Some(namespace_name(id, settings));
    subscription.metadata.labels = Some(labels(&settings.environment, PART_ENROLLED));
    subscription
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::names::is_object_name;

    #[test]
    fn names_follow_from_the_person_and_no_two_share_one() {
        let long = "x".repeat(255);
        let people = [
            ("corp", "ann"),
            ("acme/corp", "ann"),
            ("corp", "Ann"),
            ("corp", "ann "),
            ("corp", "ü/../\""),
            ("corp", long.as_str()),
            ("acme/a.b", "ann"),
        ];
        let names: BTreeSet<_> = people.iter().map(|(p, s)| user_name(p, s)).collect();
        assert_eq!(names.len(), people.len());
        assert!(names.iter().all(|name| is_object_name(name)), "{names:?}");
        // For good: another name would be another User.
        assert_eq!(
            user_name("acme/corp", "ann"),
            "corp-7bcb77dd43530c352e422fc59e2148e5"
        );
        let settings = Settings::default();
        let user = user("acme", "acme/corp", "ann", &settings);
        assert_eq!(user.person(), "acme/corp:ann");
        assert!(is_enrolled(&user.metadata) && user.spec.roles.is_empty());
        assert_eq!(
            super::user("acme", "corp", "ann", &settings).person(),
            "corp:ann"
        );
    }

    #[test]
    fn a_legal_entity_has_a_namespace_that_is_no_others() {
        let settings = Settings::default();
        let of = |id: &str| namespace_name(id, &settings);
        assert_eq!(of("acme"), "org-acme");
        let hashed = of("Acme");
        assert!(
            hashed.starts_with("org-x-") && hashed.len() == 6 + 32,
            "{hashed}"
        );
        let ids = [
            "acme",
            "Acme",
            "a.b",
            "a_b",
            "x-1",
            hashed.strip_prefix("org-").expect("a prefix"),
            &"a".repeat(59),
            &"a".repeat(60),
            &"a".repeat(100),
            "-",
        ];
        let names: BTreeSet<_> = ids.iter().map(|id| of(id)).collect();
        assert_eq!(names.len(), ids.len(), "{names:?}");
        assert!(names.iter().all(|name| is_dns_label(name)), "{names:?}");
        let made = namespace("Acme", &settings);
        assert!(is_made_for(&made, Some("Acme"), &settings) && is_made_for(&made, None, &settings));
        assert!(!is_made_for(&made, Some("acme"), &settings));
        assert!(!is_made_for(&Namespace::default(), None, &settings));
        let elsewhere = Settings {
            environment: "other".into(),
            ..Settings::default()
        };
        assert!(!is_made_for(&made, Some("Acme"), &elsewhere));
        assert_eq!(
            subscription("Acme", &settings).spec.legal_entity.name,
            "Org. Acme"
        );
    }
}
