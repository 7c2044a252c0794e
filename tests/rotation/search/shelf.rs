//! Every object that any state of the search holds, once each: a state is a handful of numbers. An
//! object's number is its resourceVersion too.

use std::collections::HashMap;
use std::sync::Arc;

use chancery::api::v1alpha1::SigningKey;
use chancery::crypto::key_pair::KeyPair;
use chancery::domain::algorithm::{Algorithm, RsaKeySize};
use chancery::domain::jwk::PublicJwk;
use chancery::objects::key_secret;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::Value;

/// The number of an object; 0 is none.
pub type Id = u32;

/// The most Secrets of key pairs that a world holds: main-1 to main-4.
pub const SLOTS: usize = 4;
/// The most key pairs that are ever made.
pub const MOST_KEYS: usize = 8;

/// What the API server holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Objects {
    pub ring: Id,
    pub ring_map: Id,
    pub issuer_map: Id,
    pub secrets: [Id; SLOTS],
}

/// Which versions are spoken for.
#[derive(Default)]
pub struct Held {
    /// The one that is there.
    pub current: Id,
    /// Those that replicas amid a visit have been given.
    pub others: Vec<Id>,
}

#[derive(Clone)]
enum Thing {
    Ring(Arc<SigningKey>),
    Map(Arc<ConfigMap>),
    Secret(Arc<Secret>),
}

/// A key pair that is made in this search, the same in each.
pub struct Pair {
    pub pem: Vec<u8>,
    pub jwk: PublicJwk,
}

pub struct Shelf {
    things: Vec<Thing>,
    numbers: HashMap<String, Id>,
    pub pairs: Vec<Pair>,
}

impl Shelf {
    pub fn new() -> Self {
        let pair = |_| {
            let pem = KeyPair::generate_pem(Algorithm::EdDSA, RsaKeySize::Bits2048);
            let pem = pem.expect("a key");
            let pair = KeyPair::from_pem(Algorithm::EdDSA, &pem).expect("a key");
            Pair {
                pem: pem.as_bytes().to_vec(),
                jwk: pair.public_jwk().clone(),
            }
        };
        Self {
            things: Vec::new(),
            numbers: HashMap::new(),
            pairs: (0..MOST_KEYS).map(pair).collect(),
        }
    }

    /// The same content has the same number, so that states meet again; unless somebody amid a visit
    /// holds that number of old: to him it is another version, as it is at a real API server.
    fn put(&mut self, content: &str, held: &Held, thing: impl FnOnce(String) -> Thing) -> Id {
        for round in 0.. {
            let content = format!("{round} {content}");
            match self.numbers.get(&content) {
                Some(id) if held.others.contains(id) && *id != held.current => {}
                Some(id) => return *id,
                None => {
                    let id = Id::try_from(self.things.len() + 1).expect("a number");
                    self.things.push(thing(id.to_string()));
                    self.numbers.insert(content, id);
                    return id;
                }
            }
        }
        unreachable!("few hold anything")
    }

    pub fn put_ring(&mut self, mut ring: SigningKey, held: &Held) -> Id {
        ring.metadata.resource_version = None;
        self.put(&json(&ring), held, |version| {
            ring.metadata.resource_version = Some(version);
            Thing::Ring(Arc::new(ring))
        })
    }

    pub fn put_map(&mut self, mut map: ConfigMap, held: &Held) -> Id {
        map.metadata.resource_version = None;
        self.put(&json(&map), held, |version| {
            map.metadata.resource_version = Some(version);
            Thing::Map(Arc::new(map))
        })
    }

    pub fn put_secret(&mut self, mut secret: Secret, held: &Held) -> Id {
        secret.metadata.resource_version = None;
        self.put(&json(&secret), held, |version| {
            secret.metadata.resource_version = Some(version);
            Thing::Secret(Arc::new(secret))
        })
    }

    fn thing(&self, id: Id) -> Option<&Thing> {
        let index = usize::try_from(id).expect("a number").checked_sub(1)?;
        self.things.get(index)
    }

    pub fn ring(&self, id: Id) -> Option<&Arc<SigningKey>> {
        match self.thing(id)? {
            Thing::Ring(ring) => Some(ring),
            _ => None,
        }
    }

    pub fn map(&self, id: Id) -> Option<&Arc<ConfigMap>> {
        match self.thing(id)? {
            Thing::Map(map) => Some(map),
            _ => None,
        }
    }

    pub fn secret(&self, id: Id) -> Option<&Arc<Secret>> {
        match self.thing(id)? {
            Thing::Secret(secret) => Some(secret),
            _ => None,
        }
    }

    /// Which of the pairs a Secret holds.
    pub fn pair_in(&self, secret: &Secret) -> Option<usize> {
        let ByteString(pem) = secret.data.as_ref()?.get(key_secret::PRIVATE_KEY)?;
        self.pairs.iter().position(|pair| pair.pem == *pem)
    }

    /// Which of the pairs has this kid.
    pub fn pair_named(&self, kid: &str) -> Option<usize> {
        self.pairs.iter().position(|pair| pair.jwk.kid == kid)
    }
}

fn json(object: &impl serde::Serialize) -> String {
    let value: Value = serde_json::to_value(object).expect("JSON");
    value.to_string()
}
