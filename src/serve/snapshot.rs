//! What the server knows at one moment: immutable, built whole by the feed, swapped whole.

use std::collections::HashMap;
use std::sync::Arc;

use crate::crypto::key_pair::KeyPair;
use crate::domain::client::Client;
use crate::domain::jwk::JwkSet;

/// Everything that a request may need.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The issuer's JWKS as it stands in its ConfigMap; none until there is one.
    pub jwks: Option<PublishedJwks>,
    /// The rings that can sign for technical users, the preferred one first.
    pub client_rings: Vec<Arc<Ring>>,
    /// Technical users by client id. Suspended ones are among them; those without a sound
    /// Subscription have an empty list of Subscriptions.
    pub clients: HashMap<String, Arc<Client>>,
}

/// A ring with the key that signs.
#[derive(Debug)]
pub struct Ring {
    /// The `SigningKey`'s name.
    pub name: String,
    /// Its active key pair, parsed once. It stands in the snapshot's JWKS.
    pub active: Arc<KeyPair>,
}

/// The JWKS document that HTTP serves byte for byte.
#[derive(Debug, Clone)]
pub struct PublishedJwks {
    /// The bytes of the ConfigMap.
    pub document: bytes::Bytes,
    /// A strong entity tag of these bytes, quotes included (RFC 9110 §8.8.3).
    pub etag: String,
    /// The keys in it.
    pub keys: JwkSet,
}
