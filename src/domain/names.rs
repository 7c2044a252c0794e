//! The names of what the operator makes. All of them follow from the names of what a person
//! applied, so that making something twice is a conflict and never a second object.

use super::settings::is_dns_label;

/// The API group of all our kinds.
pub const GROUP: &str = "chancery.dev";

/// The label that everything the operator makes carries (Kubernetes' recommended labels).
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY_LABEL`].
pub const MANAGED_BY: &str = "chancery";
/// What kind of thing an object is to us; one of the `PART_*` constants.
pub const PART_LABEL: &str = "chancery.dev/part";
/// A key pair's Secret.
pub const PART_KEY: &str = "signing-key";
/// A ConfigMap with a JWKS.
pub const PART_JWKS: &str = "jwks";
/// The ConfigMap with the cluster's own keys.
pub const PART_CLUSTER_KEYS: &str = "cluster-keys";
/// A ConfigMap with a ring's JWKS in another namespace.
pub const PART_PUBLISHED: &str = "published-jwks";
/// A technical user's hashes, in the operator namespace.
pub const PART_CREDENTIALS: &str = "credentials";
/// A technical user's delivered secret, in the tenant's namespace.
pub const PART_DELIVERY: &str = "client-secret";
/// What servers note for the operator to bring home.
pub const PART_OUTBOX: &str = "outbox";
/// The list of revoked tokens.
pub const PART_REVOCATIONS: &str = "revocations";
/// What servers note of providers whose keys are wanted.
pub const PART_WANTED_KEYS: &str = "wanted-keys";
/// A User that was enrolled, and what was made for a legal entity that was.
pub const PART_ENROLLED: &str = "enrolled";
/// What servers note of people who are new.
pub const PART_ENROLMENTS: &str = "enrolments";
/// A ConfigMap with the keys of an outside provider.
pub const PART_PROVIDER: &str = "provider-keys";
/// A device's companion agent: a technical user that the operator made.
pub const PART_COMPANION: &str = "companion-agent";
/// The release that an object belongs to.
pub const ENVIRONMENT_LABEL: &str = "chancery.dev/environment";
/// On a key pair's Secret and a ring's ConfigMap: the ring.
pub const RING_LABEL: &str = "chancery.dev/signing-key";
/// On a Secret with hashes: the UID of its technical user.
pub const UID_LABEL: &str = "chancery.dev/technical-user-uid";
/// On a Secret with hashes: the namespace of its technical user.
pub const TENANT_NAMESPACE_LABEL: &str = "chancery.dev/technical-user-namespace";
/// On a Secret with hashes: the name of its technical user.
pub const TENANT_NAME_LABEL: &str = "chancery.dev/technical-user";

/// On a ConfigMap with a provider's keys: the UID of its `OidcProvider`.
pub const PROVIDER_UID_LABEL: &str = "chancery.dev/oidc-provider-uid";
/// On a ConfigMap with a provider's keys: the namespace of its `OidcProvider`.
pub const PROVIDER_NAMESPACE_LABEL: &str = "chancery.dev/oidc-provider-namespace";
/// On a ConfigMap with a provider's keys: the name of its `OidcProvider`.
pub const PROVIDER_LABEL: &str = "chancery.dev/oidc-provider";

/// On a companion agent: the name of its device.
pub const COMPANION_LABEL: &str = "chancery.dev/companion-of";

/// Whether this can be an object's name (a DNS subdomain, RFC 1123): all that may become part of
/// a request's path.
pub fn is_object_name(name: &str) -> bool {
    (1..=253).contains(&name.len()) && name.split('.').all(is_dns_label)
}

/// The Secret of a ring's key pair with that sequence number.
pub fn key_secret(ring: &str, sequence: i64) -> String {
    format!("{ring}-{sequence}")
}

/// The sequence number in the name of a ring's key Secret.
pub fn key_sequence(ring: &str, secret: &str) -> Option<i64> {
    let digits = secret.strip_prefix(ring)?.strip_prefix('-')?;
    let sequence: i64 = digits.parse().ok()?;
    // "+1" and "01" parse, but are not how we write 1.
    (sequence > 0 && sequence.to_string() == digits).then_some(sequence)
}

/// The ConfigMap with a ring's JWKS.
pub fn ring_jwks(ring: &str) -> String {
    format!("{ring}-jwks")
}

/// The ConfigMap with the whole issuer's JWKS. It ends unlike every ring's.
pub const ISSUER_JWKS: &str = "chancery-issuer";

/// The ConfigMap in which servers note which tokens are revoked. They may write this,
/// [`ENROLMENTS`] and [`WANTED_KEYS`].
pub const OUTBOX: &str = "chancery-outbox";

/// The ConfigMap in which servers note people who are new.
pub const ENROLMENTS: &str = "chancery-enrolments";
/// On a namespace that was made for a legal entity: its id.
pub const LEGAL_ENTITY_ANNOTATION: &str = "chancery.dev/legal-entity";

/// The ConfigMap in which servers note which outside providers have keys that are not known here.
pub const WANTED_KEYS: &str = "chancery-wanted-keys";

/// The ConfigMap with the tokens that are revoked.
pub const REVOCATIONS: &str = "chancery-revocations";
/// The ConfigMap with the keys that sign the cluster's `ServiceAccount` tokens.
pub const CLUSTER_KEYS: &str = "chancery-cluster-keys";

/// The Lease of the replica that leads, in the operator namespace.
pub const LEADER_LEASE: &str = "chancery-leader";

/// The Secret with a technical user's hashes, in the operator namespace. A namespace has no dot,
/// so that two technical users never share one.
pub fn credentials_secret(namespace: &str, name: &str) -> String {
    format!("{namespace}.{name}-credentials")
}

/// The ConfigMap with a provider's keys, in the operator namespace: of a provider for all tenants, which has
/// no `namespace` here, or of a tenant's. It ends unlike a ring's, and a namespace has no dot, so that no two
/// share one.
pub fn provider_keys(namespace: Option<&str>, name: &str) -> String {
    match namespace {
        None => format!("chancery-provider-{name}-keys"),
        Some(namespace) => format!("chancery-provider.{namespace}.{name}-keys"),
    }
}

/// A technical user's client id where it chooses none.
pub fn default_client_id(namespace: &str, name: &str) -> String {
    format!("{namespace}.{name}")
}

/// The companion agent of a device where it names none.
pub fn default_companion(device: &str) -> String {
    format!("{device}-agent")
}

/// The Secret that a technical user's credential is delivered in where it names none.
pub fn default_delivery_secret(name: &str) -> String {
    format!("{name}-credentials")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_become_part_of_a_path() {
        for good in ["a", "orders", "a.b-c", "0"] {
            assert!(is_object_name(good), "{good}");
        }
        let long = "a".repeat(254);
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "?watch=true&x=1",
            "../../secrets",
            "a b",
            "x\ny",
            "A",
            &long,
        ] {
            assert!(!is_object_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn no_two_providers_share_a_config_map() {
        let all = [
            provider_keys(None, "a"),
            provider_keys(None, "x.a"),
            provider_keys(Some("x"), "a"),
            provider_keys(Some("x"), "y.a"),
            provider_keys(Some("x-y"), "a"),
            provider_keys(Some("x"), "y-a"),
            provider_keys(None, "x-y-a"),
            ring_jwks("chancery-provider-a"),
            CLUSTER_KEYS.to_owned(),
        ];
        let unique: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(unique.len(), all.len());
        assert!(all.iter().all(|name| is_object_name(name)));
    }

    #[test]
    fn sequences_read_back_and_nothing_else_does() {
        assert_eq!(key_sequence("main", &key_secret("main", 12)), Some(12));
        for other in [
            "main", "main-", "main-0", "main-01", "main-+1", "main-1-1", "mainly-1",
        ] {
            assert_eq!(key_sequence("main", other), None, "{other}");
        }
    }
}
