//! Calls to the API server, each with a limit of its own, and what is made of one that fails.

use std::time::Duration;

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::judge::Whose;
use super::{Claim, POLL, Sent};
use crate::api::v1alpha1::{CLAIM_ANNOTATION, TechnicalUser};

/// How long one call may take.
const CALL_LIMIT: Duration = Duration::from_secs(5);

/// Why a call came to nothing.
pub enum Failed {
    /// Nobody has answered, or an API server that is just starting or ending: another try may do.
    Passing(String),
    /// The API server says no, and would again.
    Final(String),
}

impl Failed {
    pub fn sentence(self) -> String {
        match self {
            Self::Passing(sentence) | Self::Final(sentence) => sentence,
        }
    }

    /// Lets another try follow, if that may do.
    pub async fn passes(self) -> Result<String, String> {
        match self {
            Self::Passing(sentence) => {
                sleep(POLL).await;
                Ok(sentence)
            }
            Self::Final(sentence) => Err(sentence),
        }
    }
}

impl Claim {
    /// Sets the annotation, or takes it away; not if the resource is another than was seen.
    pub(super) async fn annotate(
        &self,
        seen: &TechnicalUser,
        value: &Value,
    ) -> Result<bool, Failed> {
        let patch = json!({"metadata": {
            "resourceVersion": seen.metadata.resource_version,
            "annotations": {CLAIM_ANNOTATION: value},
        }});
        let params = PatchParams {
            field_manager: Some("kubectl-chancery".into()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(patch);
        self.set_sent(Sent::InDoubt);
        let patched = self.users.patch(&self.whose.name, &params, &patch);
        match tokio::time::timeout(CALL_LIMIT, patched).await {
            Ok(Ok(_)) => {
                self.set_sent(Sent::Answered);
                Ok(true)
            }
            Ok(Err(kube::Error::Api(status))) if (400..500).contains(&status.code) => {
                self.set_sent(Sent::Answered);
                if status.code == 409 {
                    return Ok(false);
                }
                Err(self.told("annotated", "patch", &kube::Error::Api(status)))
            }
            Ok(Err(error)) => Err(self.told("annotated", "patch", &error)),
            Err(_) => Err(self.unanswered("annotated")),
        }
    }

    pub(super) async fn get(&self) -> Result<TechnicalUser, Failed> {
        match tokio::time::timeout(CALL_LIMIT, self.users.get(&self.whose.name)).await {
            Ok(Ok(user)) => Ok(user),
            Ok(Err(error)) => Err(self.told("read", "get", &error)),
            Err(_) => Err(self.unanswered("read")),
        }
    }

    fn unanswered(&self, done: &str) -> Failed {
        Failed::Passing(format!(
            "{} could not be {done}: the API server has not answered within {} s",
            self.whose,
            CALL_LIMIT.as_secs()
        ))
    }

    fn told(&self, done: &str, verb: &str, error: &kube::Error) -> Failed {
        let Whose { namespace, name } = &self.whose;
        let what = format!("{} could not be {done}", self.whose);
        let kube::Error::Api(status) = error else {
            return Failed::Passing(format!("{what}: {error}"));
        };
        let details = status.details.as_ref();
        match status.code {
            // Not that it does not know the kind, as one that is just starting.
            404 if details.is_some_and(|details| details.name == *name) => Failed::Final(format!(
                "there is no {}: mend the name or the namespace (-n)",
                self.whose
            )),
            403 => {
                let sentence = format!(
                    "{what}, as you may not {verb} technicalusers in {namespace}: whoever claims needs the rights get and patch on them"
                );
                // One that is just starting does not know of anybody's rights.
                match (verb, self.sent()) {
                    ("get", Sent::InDoubt | Sent::Answered) => Failed::Passing(sentence),
                    _ => Failed::Final(sentence),
                }
            }
            code if verb == "patch" && (400..500).contains(&code) && code != 429 => {
                Failed::Final(format!("{what}: {}", status.message))
            }
            _ => Failed::Passing(format!("{what}: {}", status.message)),
        }
    }
}
