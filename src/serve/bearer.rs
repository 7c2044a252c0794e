//! Whether an access token of this issuer holds now: whatever takes one, or is asked about one, asks
//! here and nowhere else, so that no way to use a token forgets a reason to refuse it.

use std::sync::Arc;

use super::app::App;
use super::reply::Refusal;
use super::snapshot::View;
use super::token;
use crate::crypto::own_token::{self, OwnToken};
use crate::domain::client::Client;
use crate::domain::revocation::leeway;
use crate::domain::subscription::SubscriptionFacts;

/// A token that holds, with whose it is.
pub struct Bearer<'v> {
    /// What stands in it.
    pub token: OwnToken,
    /// Who was issued it.
    pub client: &'v Arc<Client>,
    /// What its tenant has now.
    pub subscription: &'v SubscriptionFacts,
    /// Whether it speaks for a person, for whom the client acts.
    pub for_person: bool,
}

/// Whether anything can be said of tokens here: who there is and which keys there are is known, and
/// nothing of it is older than `serving.maxStaleness`.
pub(super) fn can_tell(app: &App, view: &View) -> Result<(), Refusal> {
    if view.snapshot.jwks.is_none() {
        return Err(Refusal::unavailable(
            "the issuer's keys are not known here yet.",
        ));
    }
    token::in_contact(app, view)
}

/// The token, if it holds: a key in the JWKS signed it, it is this issuer's, has not expired and is
/// not revoked; its client is there, is the one that it was issued to and not one made again under
/// its id, and is neither suspended nor of another tenant by now; a person for whom it speaks is
/// not suspended either, nor is their provider inactive; and its tenant has a current Subscription.
pub(super) fn living<'v>(app: &App, view: &'v View, presented: &str) -> Option<Bearer<'v>> {
    let keys = &view.snapshot.jwks.as_ref()?.keys;
    let token = own_token::read(presented, keys)?;
    let now = app.clock.now();
    if token.issuer != app.settings.issuer || token.expires_at <= now.as_second() {
        return None;
    }
    let client = view.active_client(&token.client_id)?;
    // Clocks of replicas and of the API server are apart by so much at most.
    let issued_by = token.issued_at.saturating_add(leeway(&app.settings));
    let made_again = client
        .created_at
        .is_some_and(|at| issued_by < at.as_second());
    if made_again
        || view
            .snapshot
            .is_revoked(&token.id, &client.id, token.issued_at)
    {
        return None;
    }
    let subscription = client.subscription(now)?;
    let of_tenant = token.claims.get(&app.settings.claims.legal_entity)?;
    // What a key for people signed speaks for a person, whose id has a colon as no client's has; what
    // another signed speaks for the client itself.
    let for_person = view.snapshot.human_keys.contains(&token.key_id);
    let sound = if for_person {
        token.subject.contains(':')
    } else {
        token.subject == client.id
    };
    // A person who is suspended, by whichever provider's name they go, or whose provider is not active.
    let snapshot = &view.snapshot;
    let suspended = for_person
        && (snapshot.keeps_out(&client.namespace, &token.subject)
            || snapshot.is_of_inactive_provider(&token.subject));
    (sound && !suspended && of_tenant == subscription.legal_entity_id.as_str()).then_some(Bearer {
        token,
        client,
        subscription,
        for_person,
    })
}
