//! What clients prove themselves with, where that is no secret: each key is parsed once, for as long
//! as it stands anywhere.

use std::collections::HashMap;
use std::sync::Arc;

use crate::api::v1alpha1::TechnicalUser;
use crate::crypto::public_key::PublicKey;
use crate::domain::client_key::GivenJwk;
use crate::domain::settings::Settings;
use crate::serve::trust::{Keys, Trusted};

/// Keys by what they look like in a manifest; none where one can not be used, which its technical
/// user's status tells.
type Parsed = HashMap<GivenJwk, Option<Arc<PublicKey>>>;

/// The keys that were parsed.
#[derive(Default)]
pub struct ParsedKeys {
    before: Parsed,
    now: Parsed,
}

impl ParsedKeys {
    /// A new snapshot begins.
    pub fn begin(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }

    /// It is whole: keys that nobody has any more are forgotten.
    pub fn end(&mut self) {
        self.before = Parsed::new();
    }

    /// What a technical user's assertions have to be signed with.
    pub fn trusted(&mut self, user: &TechnicalUser, settings: &Settings) -> Option<Trusted> {
        let credential = user.spec.credential.public_key.as_ref()?;
        let keys = credential.jwks.keys.iter();
        let keys = keys
            .filter_map(|jwk| self.key(jwk, |jwk| PublicKey::allowed(jwk, &settings.policy).ok()));
        Some(Trusted::PublicKey(distinct(keys)))
    }

    fn key(
        &mut self,
        jwk: &GivenJwk,
        parse: impl Fn(&GivenJwk) -> Option<PublicKey>,
    ) -> Option<Arc<PublicKey>> {
        if let Some(known) = self.now.get(jwk) {
            return known.clone();
        }
        let key = match self.before.remove(jwk) {
            Some(known) => known,
            None => parse(jwk).map(Arc::new),
        };
        self.now.insert(jwk.clone(), key.clone());
        key
    }
}

/// One that stands there twice is no two keys to choose from.
fn distinct(keys: impl Iterator<Item = Arc<PublicKey>>) -> Keys {
    let mut distinct: Vec<Arc<PublicKey>> = Vec::new();
    for key in keys {
        if distinct.iter().all(|other| other.key_id() != key.key_id()) {
            distinct.push(key);
        }
    }
    Keys(distinct)
}
