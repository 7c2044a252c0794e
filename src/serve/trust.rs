//! Whose signature a client's assertion must have, as the feed makes it from the resources.

use std::sync::Arc;

use crate::crypto::public_key::PublicKey;
use crate::domain::assertion::Header;

/// What a client proves itself with, where that is no secret.
#[derive(Debug)]
pub enum Trusted {
    /// A JWT that it has signed itself (`private_key_jwt`), with one of these keys.
    PublicKey(Keys),
}

/// Public keys, parsed once.
#[derive(Debug, Default)]
pub struct Keys(pub Vec<Arc<PublicKey>>);

impl Keys {
    /// The key that a header calls for: the one of its kid, if that is for its algorithm; without a
    /// kid the only one for the algorithm. Never one after another: an assertion names its key.
    pub fn called_for(&self, header: &Header) -> Option<&Arc<PublicKey>> {
        let mut fit = self.0.iter().filter(|key| {
            let named = header.key_id.as_deref().is_none_or(|id| id == key.key_id());
            named && key.algorithm() == header.algorithm
        });
        let first = fit.next();
        first.filter(|_| fit.next().is_none())
    }
}
