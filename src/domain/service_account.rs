//! Which audience a workload's ServiceAccount token may have.
#![allow(clippy::doc_markdown)]

/// What the audiences of API servers begin with, as a rule: a token for one of them must never do as
/// an assertion, since every workload holds one and shows it to others.
pub const API_SERVER: &str = "https://kubernetes.default";

/// Why tokens for an audience are not taken; a sentence that names the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AudienceFault {
    /// Neither the issuer nor one that the release names.
    #[error(
        "spec.credential.serviceAccount.audience is {0:?}, which is neither the issuer nor one of this release's policy.serviceAccountAudiences: take the field away for the issuer, or have a platform administrator add it there."
    )]
    NotOurs(String),
    /// The API server's own.
    #[error(
        "spec.credential.serviceAccount.audience is {0:?}, which is the API server's own: a token for it gives access to the cluster, and is not for showing to others. Take the field away for the issuer."
    )]
    ApiServers(String),
}

/// Whether tokens for an audience are taken: it is our issuer or one that the release names, and
/// never the API server's. `cluster` is the issuer of the cluster's tokens, which is the API server's
/// audience where nothing else is configured.
pub fn judge_audience(
    audience: &str,
    issuer: &str,
    allowed: &[String],
    cluster: Option<&str>,
) -> Result<(), AudienceFault> {
    if audience.starts_with(API_SERVER) || cluster == Some(audience) {
        return Err(AudienceFault::ApiServers(audience.to_owned()));
    }
    if audience == issuer || allowed.iter().any(|a| a == audience) {
        Ok(())
    } else {
        Err(AudienceFault::NotOurs(audience.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audiences_by_the_table() {
        let allowed = ["reports".to_owned(), "https://cluster".to_owned()];
        let judge = |audience: &str| {
            judge_audience(audience, "https://id", &allowed, Some("https://cluster"))
        };
        assert_eq!(judge("https://id"), Ok(()));
        assert_eq!(judge("reports"), Ok(()));
        for foreign in ["other", "https://id/", "", "https://ID"] {
            assert_eq!(judge(foreign), Err(AudienceFault::NotOurs(foreign.into())));
        }
        for own in [
            "https://cluster",
            "https://kubernetes.default.svc",
            "https://kubernetes.default.svc.cluster.local",
        ] {
            assert_eq!(judge(own), Err(AudienceFault::ApiServers(own.into())));
        }
    }
}
