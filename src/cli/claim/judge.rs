//! What a look at a technical user tells whoever claims its client secret.

use std::fmt;

use kube::ResourceExt as _;

use crate::api::v1alpha1::{
    CLAIM_ANNOTATION, CredentialState, ROTATE_ANNOTATION, STALLED, SealedBy, SealedStatus,
    TechnicalUser, TechnicalUserStatus,
};
use crate::crypto::age::Recipient;
use crate::domain::reasons::CLAIM_AWAITED;

/// A technical user, by its names.
#[derive(Clone, Debug)]
pub struct Whose {
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TechnicalUser {}/{}", self.namespace, self.name)
    }
}

impl Whose {
    /// How to have another one.
    fn again(&self) -> String {
        let Self { namespace, name } = self;
        format!(
            "kubectl annotate technicaluser {name} -n {namespace} --overwrite {ROTATE_ANNOTATION}=…, then claim again"
        )
    }
}

/// How a claim stands.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// A client secret is sealed to its key.
    Granted(Granted),
    /// The operator has not looked yet, or is at it.
    Waits,
    /// It seems lost, and why; what is on its way may not have come yet.
    Doubtful(String),
}

/// What a claim came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Granted {
    pub client_id: String,
    pub ciphertext: String,
}

/// Whether the operator has looked at a claim.
pub fn is_handled(user: &TechnicalUser, claim: &str) -> bool {
    let status = user.status.as_ref();
    status.is_some_and(|s| s.last_handled_claim.as_deref() == Some(claim))
}

/// What a person has to do first, as the operator says.
pub fn trouble(user: &TechnicalUser) -> Option<String> {
    let status = user.status.iter().flat_map(|s| &s.conditions);
    let mut holds = status.filter(|c| c.status == "True");
    let stalled = holds.clone().find(|c| c.type_ == STALLED);
    let other = holds.find(|c| c.type_ == "Reconciling" && c.reason != CLAIM_AWAITED);
    stalled.or(other).map(|c| c.message.clone())
}

fn sealed(user: &TechnicalUser) -> Option<&SealedStatus> {
    user.status.as_ref()?.sealed.as_ref()
}

/// Whether a claim with that key has a chance; else a sentence.
pub fn may_claim(user: &TechnicalUser, own: &str, whose: &Whose) -> Result<(), String> {
    let Whose { namespace, name } = whose;
    let Some(secret) = user.one_time() else {
        return Err(format!(
            "{whose} has no client secret to be claimed: that takes spec.credential.secret.delivery OneTime"
        ));
    };
    if let Some(recipient) = &secret.recipient {
        return Err(of_spec(user, recipient, whose));
    }
    if let Some(other) = user.claim().filter(|claim| *claim != own) {
        let sound = Recipient::parse(other).is_ok();
        if sound && !is_handled(user, other) {
            return Err(format!(
                "{whose} is just being claimed by somebody else, with the key {other}. If nobody waits for that any more, take it away with kubectl annotate technicaluser {name} -n {namespace} {CLAIM_ANNOTATION}-, and claim again"
            ));
        }
    }
    let Some(status) = &user.status else {
        return Ok(());
    };
    let rotate = user.annotations().get(ROTATE_ANNOTATION);
    let rotate = rotate.filter(|value| !value.is_empty());
    if let Some(revoked) = &status.revoked
        && rotate.is_none_or(|value| Some(value) == revoked.rotate.as_ref())
    {
        return Err(format!(
            "{whose} was revoked at {} and gets no client secret before a person says so: {}",
            revoked.at.0,
            whose.again()
        ));
    }
    let asked = rotate.is_some() && rotate != status.last_handled_rotation.as_ref();
    let seen = Some(status.observed_generation) == user.metadata.generation;
    if asked || !seen || awaits(status) {
        return Ok(());
    }
    Err(claimed(user, whose))
}

/// That the spec says whom client secrets are sealed to, and how that one has what there is.
fn of_spec(user: &TechnicalUser, recipient: &str, whose: &Whose) -> String {
    let Whose { namespace, name } = whose;
    if let Err(why) = Recipient::parse(recipient) {
        return format!(
            "spec.credential.secret.recipient of {whose} is {recipient:?}: {why}. Mend it, or take it away and claim again"
        );
    }
    let told = format!(
        "client secrets of {whose} are sealed to {recipient} (spec.credential.secret.recipient)"
    );
    if sealed(user).is_some_and(|sealed| sealed.recipient == recipient) {
        return format!(
            "{told}: who has its private key opens it with kubectl get technicaluser {name} -n {namespace} -o jsonpath='{{.status.sealed.ciphertext}}' | age --decrypt -i KEYFILE"
        );
    }
    let trouble = trouble(user).map(|told| format!(" The operator says: {told}"));
    format!(
        "{told}, and none is there yet. To have the next one claimed, take the field away.{}",
        trouble.unwrap_or_default()
    )
}

/// Whether the operator waits for a claim.
fn awaits(status: &TechnicalUserStatus) -> bool {
    let told = |c: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
        c.status == "True" && c.reason == CLAIM_AWAITED
    };
    status.credentials.is_empty() || status.conditions.iter().any(told)
}

/// That there is nothing to be claimed.
fn claimed(user: &TechnicalUser, whose: &Whose) -> String {
    match sealed(user) {
        Some(sealed) if sealed.by == SealedBy::Spec => format!(
            "client secret {} of {whose} was sealed at {} to {}, as the spec said then: who has its private key opens it. For another one: {}",
            sealed.credential_id,
            sealed.sealed_at.0,
            sealed.recipient,
            whose.again()
        ),
        Some(sealed) => format!(
            "client secret {} of {whose} was claimed for {} at {}, and is kept nowhere. Lost means rotate: {}",
            sealed.credential_id,
            sealed.recipient,
            sealed.sealed_at.0,
            whose.again()
        ),
        None => format!(
            "{whose} has a client secret that works, and none is to be claimed. For another one: {}",
            whose.again()
        ),
    }
}

/// How the claim with that key stands.
pub fn progress(user: &TechnicalUser, own: &str, whose: &Whose) -> Progress {
    if let Some(sealed) = sealed(user).filter(|sealed| sealed.recipient == own) {
        return Progress::Granted(Granted {
            client_id: user.client_id(),
            ciphertext: sealed.ciphertext.clone(),
        });
    }
    let handled = is_handled(user, own);
    match user.claim() {
        Some(claim) if claim == own && !handled => Progress::Waits,
        _ if handled && about_to_show(user) => Progress::Waits,
        Some(claim) if claim != own && !is_handled(user, claim) => Progress::Doubtful(format!(
            "somebody else has written another claim over this one, with the key {claim}"
        )),
        None if !handled => Progress::Doubtful(format!(
            "somebody has taken this claim away from {whose}: claim again"
        )),
        _ => Progress::Doubtful(claimed(user, whose)),
    }
}

/// Whether a client secret is made, and stands in status in a moment.
fn about_to_show(user: &TechnicalUser) -> bool {
    let status = user.status.iter();
    let mut credentials = status.flat_map(|s| &s.credentials);
    credentials.any(|c| c.state == CredentialState::Next)
}

#[cfg(test)]
mod tests;
