//! What status tells of a client secret that is delivered once.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Delivery, SecretCredential, TechnicalUser};

/// On a `TechnicalUser` whose client secret is delivered once: the age recipient of whoever claims it.
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
    /// What it says of its client secret, where that is delivered once.
    pub fn one_time(&self) -> Option<&SecretCredential> {
        let secret = self.secret_credential();
        secret.filter(|s| s.delivery == Delivery::OneTime)
    }
}
