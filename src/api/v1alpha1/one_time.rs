//! What status tells of a client secret that is delivered once.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Delivery, SecretCredential, TechnicalUser};

/// On a `TechnicalUser` whose client secret is delivered once: the age recipient of whoever claims it. With
/// `@<UID>` after it the claim is for the resource with that UID alone.
pub const CLAIM_ANNOTATION: &str = "chancery.dev/claim";

/// A client secret, sealed so that whoever claimed it can open it, and nobody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SealedStatus {
    /// Which of status.credentials it is.
    pub credential_id: String,
    /// The age recipient that it is sealed to.
    pub recipient: String,
    /// Who gave it. Spec: spec.credential.secret.recipient. Claim: the annotation chancery.dev/claim.
    pub by: SealedBy,
    /// When it was made and sealed.
    pub sealed_at: Time,
    /// The client secret as an armored age file: age --decrypt opens it with the recipient's private key.
    /// It stands here until the next client secret does.
    pub ciphertext: String,
}

/// Who gave the recipient that a client secret is sealed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SealedBy {
    /// spec.credential.secret.recipient
    Spec,
    /// The annotation chancery.dev/claim.
    Claim,
}

impl TechnicalUser {
    /// Whom the claim annotation names, if that is for this very resource: one that was made for another
    /// UID came with a manifest or a backup, and whoever wrote it has no key any more.
    pub fn claim(&self) -> Option<&str> {
        let value = self.annotations().get(CLAIM_ANNOTATION)?;
        let (recipient, uid) = match value.split_once('@') {
            Some((recipient, uid)) => (recipient, Some(uid)),
            None => (value.as_str(), None),
        };
        let mine = uid.is_none() || uid == self.metadata.uid.as_deref();
        (mine && !recipient.is_empty()).then_some(recipient)
    }

    /// What the claim annotation is to say, so that it claims for that recipient, and of this resource alone.
    pub fn claim_for(&self, recipient: &str) -> String {
        format!("{recipient}@{}", self.uid().unwrap_or_default())
    }

    /// What it says of its client secret, where that is delivered once.
    pub fn one_time(&self) -> Option<&SecretCredential> {
        let secret = self.secret_credential();
        secret.filter(|s| s.delivery == Delivery::OneTime)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_is_for_the_resource_that_it_names() {
        let claimed = |value: &str| {
            let user = json!({
                "apiVersion": "chancery.dev/v1alpha1", "kind": "TechnicalUser",
                "metadata": {"name": "till", "uid": "one", "annotations": {CLAIM_ANNOTATION: value}},
                "spec": {"audiences": ["a"], "credential": {"secret": {"delivery": "OneTime"}}},
            });
            let user: TechnicalUser = serde_json::from_value(user).expect("valid");
            (user.claim().map(str::to_owned), user.claim_for("age1"))
        };
        for (value, claim) in [
            ("age1", Some("age1")),
            ("age1@one", Some("age1")),
            ("age1@another", None),
            ("age1@", None),
            ("@one", None),
            ("", None),
        ] {
            let (read, written) = claimed(value);
            assert_eq!(read.as_deref(), claim, "{value}");
            assert_eq!(claimed(&written).0.as_deref(), Some("age1"));
        }
    }
}
