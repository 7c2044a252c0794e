//! Where the private key stands in a Secret that a person injects.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use super::key_secret::PRIVATE_KEY;

/// The type of a Secret as cert-manager and `kubectl create secret tls` write it.
const TLS_TYPE: &str = "kubernetes.io/tls";
/// The key of such a Secret that holds the private key.
const TLS_KEY: &str = "tls.key";

/// The private key in an injected Secret: what stands under the data key that is named, else under
/// `tls.key` in a TLS Secret, else under `private-key.pem`, else under the only key that there is.
/// If there is none, a sentence that says so.
pub fn tls_or_named<'a>(secret: &'a Secret, key: Option<&str>) -> Result<&'a [u8], String> {
    let name = secret.name_any();
    let Some(data) = secret.data.as_ref().filter(|data| !data.is_empty()) else {
        return Err(format!(
            "Secret {name} holds no data: put the private key there."
        ));
    };
    let of = |key: &str| data.get(key).map(|value| value.0.as_slice());
    let tls = secret.type_.as_deref() == Some(TLS_TYPE);
    match key {
        Some(key) => of(key).ok_or_else(|| {
            format!("Secret {name} has no key {key:?}: put the private key there, or name the key that holds it.")
        }),
        None if tls => of(TLS_KEY).ok_or_else(|| {
            format!("Secret {name} of type {TLS_TYPE} has no key {TLS_KEY:?}: put the private key there.")
        }),
        None => match (of(PRIVATE_KEY), data.len()) {
            (Some(value), _) => Ok(value),
            (None, 1) => Ok(data.values().next().map_or(&[], |value| &value.0)),
            (None, count) => Err(format!(
                "Secret {name} has {count} keys and none of them is {PRIVATE_KEY:?}: say which one holds the private key."
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    fn secret(type_: &str, keys: &[&str]) -> Secret {
        let value = |k: &&str| ((*k).to_owned(), ByteString(k.as_bytes().to_vec()));
        Secret {
            metadata: ObjectMeta {
                name: Some("mine".into()),
                ..ObjectMeta::default()
            },
            type_: Some(type_.into()),
            data: Some(keys.iter().map(value).collect()),
            ..Secret::default()
        }
    }

    #[test]
    fn the_key_is_found_where_tools_put_it() {
        for (type_, keys, named, found) in [
            (TLS_TYPE, &["tls.crt", "tls.key"][..], None, Some("tls.key")),
            (
                TLS_TYPE,
                &["tls.crt", "tls.key", "ca.crt"],
                Some("ca.crt"),
                Some("ca.crt"),
            ),
            (TLS_TYPE, &["tls.crt"], None, None),
            (
                "Opaque",
                &["private-key.pem", "a"],
                None,
                Some("private-key.pem"),
            ),
            ("Opaque", &["tls.key", "tls.crt"], None, None),
            ("Opaque", &["any"], None, Some("any")),
            ("Opaque", &["any"], Some("other"), None),
            ("Opaque", &["a", "b"], Some("b"), Some("b")),
            ("Opaque", &[], None, None),
            ("Opaque", &[], Some("a"), None),
        ] {
            let secret = secret(type_, keys);
            let got = tls_or_named(&secret, named);
            assert_eq!(
                got.as_deref().ok(),
                found.map(str::as_bytes),
                "{type_} {keys:?} {named:?}"
            );
            if let Err(sentence) = got {
                assert!(sentence.starts_with("Secret mine ") && sentence.ends_with('.'));
            }
        }
    }
}
