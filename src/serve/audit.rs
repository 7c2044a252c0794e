//! The audit log: one line for each token that was issued, refused or revoked, and each device that
//! revoked itself. It names who asked, for whom, and which key and credential it was; no secret and no
//! token is ever in it.
//!
//! Lines are events of `tracing` with the target [`TARGET`]; where they go is whoever's business
//! starts the process. Every text in them is bounded, since some are what anyone may have sent.

use super::outside_token::Untaken;
use super::reply::Refusal;
use crate::crypto::secret;
use crate::domain::client::Client;
use crate::domain::exchange::Actor;
use crate::domain::provider::Provider;

/// The target of the events.
pub const TARGET: &str = "audit";

/// The member whose text is JSON, to be written as what it is: events hold no arrays.
pub const ACTORS: &str = "actors";

/// The longest text in bytes of what a stranger sent.
const LONGEST: usize = 253;

/// What there is to tell of a request, as far as it was understood.
#[derive(Debug, Default)]
pub(super) struct Trail {
    grant: Option<String>,
    client: Option<String>,
    tenant: Option<String>,
    namespace: Option<String>,
    credential: Option<String>,
    brought: Brought,
}

/// What is known of the token that a client brings to exchange it.
#[derive(Debug, Default)]
struct Brought {
    /// Whom it speaks of, once that is verified.
    subject: Option<String>,
    /// The outside provider that it is of, or claims to be of.
    provider: Option<String>,
    /// The `kid` in its header, as anyone may have written it.
    key_id: Option<String>,
    /// What is wrong with it and the client is not told.
    cause: Option<&'static str>,
}

/// What there is to tell of a token.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// `sub`.
    pub subject: String,
    /// `jti`.
    pub token_id: String,
    /// The `kid` of the key that signed it.
    pub key_id: String,
    /// `aud`, with spaces between them.
    pub audience: String,
    /// `exp`, in seconds since 1970.
    pub expires_at: i64,
    /// Who acts for the subject, and who acted before, the last one first; none: the subject itself.
    pub actors: Vec<Actor>,
    /// The `jti` of the token that it was exchanged for.
    pub subject_token: Option<String>,
}

impl Trail {
    /// The grant that is asked for.
    pub fn asks(&mut self, grant: &str) {
        self.grant = Some(harmless(grant));
    }

    /// The client id that is claimed, before anything is proved.
    pub fn claims(&mut self, client_id: &str) {
        self.client = Some(harmless(client_id));
    }

    /// Who it is, which of its credentials proved it, and its tenant by now.
    pub fn is(&mut self, client: &Client, credential: &str, legal_entity: Option<&str>) {
        self.client = Some(client.id.clone());
        self.namespace = Some(client.namespace.clone());
        self.credential = Some(credential.to_owned());
        self.tenant = legal_entity.map(str::to_owned);
    }

    /// A token is brought to be exchanged, with this `kid`: nothing of it is verified yet.
    pub fn brings(&mut self, key_id: Option<&str>) {
        self.brought.key_id = key_id.map(harmless);
    }

    /// Whom the token that is brought speaks of, and which outside provider says so.
    pub fn speaks_of(&mut self, subject: &str, provider: Option<&Provider>) {
        self.brought.subject = Some(harmless(subject));
        self.brought.provider = provider.map(Provider::id);
    }

    /// Why the token that is brought is not taken, as far as the client is not told.
    pub fn untaken(&mut self, why: &Untaken<'_>) {
        let brought = &mut self.brought;
        brought.subject = why.subject.as_deref().map(harmless);
        brought.provider = why.provider.map(|trusted| trusted.provider.id());
        brought.cause = why.cause();
    }

    /// Why the token that was brought is not taken, as far as the client is not told.
    pub fn cause(&self) -> Option<&'static str> {
        self.brought.cause
    }

    /// A token was issued.
    pub fn issued(&self, told: &Told, scope: &str) {
        let actors = (!told.actors.is_empty()).then(|| written(&told.actors));
        tracing::info!(
            target: TARGET,
            event = "issued",
            grant = self.grant,
            client = self.client,
            subject = told.subject,
            tenant = self.tenant,
            namespace = self.namespace,
            credential = self.credential,
            kid = told.key_id,
            jti = told.token_id,
            aud = told.audience,
            scope = (!scope.is_empty()).then_some(scope),
            exp = told.expires_at,
            actors,
            subject_token = told.subject_token.as_deref().map(harmless),
        );
    }

    /// A request for a token was refused.
    pub fn refused(&self, refusal: &Refusal) {
        let reason = harmless(refusal.error.description());
        tracing::info!(
            target: TARGET,
            event = "refused",
            grant = self.grant,
            client = self.client,
            subject = self.brought.subject,
            tenant = self.tenant,
            namespace = self.namespace,
            credential = self.credential,
            provider = self.brought.provider,
            subject_kid = self.brought.key_id,
            cause = self.brought.cause,
            error = refusal.error.code().as_str(),
            reason,
        );
    }

    /// A token was revoked, or with none the client itself, a device.
    pub fn revoked(&self, token_id: Option<&str>, companion: Option<&str>) {
        tracing::info!(
            target: TARGET,
            event = if token_id.is_some() { "revoked" } else { "device_revoked" },
            client = self.client,
            tenant = self.tenant,
            namespace = self.namespace,
            credential = self.credential,
            jti = token_id,
            companion,
        );
    }
}

/// Parties as [`ACTORS`] has them.
fn written(actors: &[Actor]) -> String {
    let mut actors = actors.to_vec();
    for actor in &mut actors {
        actor.sub = harmless(&actor.sub);
        actor.iss = actor.iss.as_deref().map(harmless);
    }
    serde_json::to_string(&actors).unwrap_or_default()
}

/// A text that anyone may have sent, cut to a bound, and without what might be a client secret: people
/// mistake one field for another.
fn harmless(text: &str) -> String {
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let secretive = |word: &str| {
        let parts = word.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_');
        parts.into_iter().any(begins_like_secret)
    };
    if secretive(text) {
        return "(it holds what may be a client secret)".to_owned();
    }
    text[..end].to_owned()
}

/// Also a part of one, or one that is mistyped.
fn begins_like_secret(word: &str) -> bool {
    let prefixed = ["sk-", "dk-", "ak-"].iter().any(|p| word.starts_with(p));
    secret::shape(word).is_some() || (prefixed && word.len() >= 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::client::Family;

    #[test]
    fn what_anyone_sent_is_bounded_and_no_secret() {
        let secret = secret::generate(Family::Device);
        for text in [
            secret.to_string(),
            format!("a {}", *secret),
            format!("the scope {}: no", &secret[..30]),
            format!("{}{}", "x".repeat(300), "=") + &secret,
        ] {
            let shown = harmless(&text);
            assert!(!shown.contains(&secret[3..20]), "{shown}");
        }
        assert_eq!(harmless("acme.robot"), "acme.robot");
        assert_eq!(harmless("acme.sk-robot"), "acme.sk-robot");
        assert_eq!(harmless(&"é".repeat(200)).len(), 252);
    }
}
