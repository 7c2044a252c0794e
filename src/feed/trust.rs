//! What clients prove themselves with, where that is no secret: each key is parsed once, for as long
//! as it stands anywhere.

use std::collections::HashMap;
use std::sync::Arc;

use kube::ResourceExt;

use crate::api::v1alpha1::TechnicalUser;
use crate::crypto::public_key::PublicKey;
use crate::domain::client_key::GivenJwk;
use crate::domain::service_account::judge_audience;
use crate::domain::settings::{Policy, Settings};
use crate::objects::cluster_keys::ClusterKeys;
use crate::serve::trust::{Account, Keys, Trusted};

/// Keys by whether the policy bounds them, and what they look like in a manifest; none where one can
/// not be used, which its technical user's status tells.
type Parsed = HashMap<(bool, GivenJwk), Option<Arc<PublicKey>>>;

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
    pub fn trusted(
        &mut self,
        user: &TechnicalUser,
        settings: &Settings,
        cluster: Option<&ClusterKeys>,
    ) -> Option<Trusted> {
        let credential = &user.spec.credential;
        if let Some(of_client) = &credential.public_key {
            let keys = self.keys(&of_client.jwks.keys, Some(&settings.policy));
            return Some(Trusted::PublicKey(keys));
        }
        let account = credential.service_account.as_ref()?;
        let namespace = account.namespace.clone().or(user.namespace())?;
        let (issuer, keys, uid) = if let Some(other) = &account.cluster {
            let keys = self.keys(&other.jwks.keys, Some(&settings.policy));
            (other.issuer.clone(), keys, None)
        } else {
            // What the operator last saw; without that, or once it is gone, no token is taken.
            let seen = user.status.as_ref()?.service_account.as_ref();
            let seen = seen.filter(|s| s.namespace == namespace && s.name == account.name)?;
            let cluster = cluster?;
            let keys = self.keys(&cluster.keys, None);
            (cluster.issuer.clone(), keys, Some(seen.uid.clone()))
        };
        let ours = &settings.issuer;
        let audience = account.audience.as_ref().unwrap_or(ours);
        let allowed = &settings.policy.service_account_audiences;
        judge_audience(audience, ours, allowed, Some(&issuer)).ok()?;
        Some(Trusted::ServiceAccount(Account {
            namespace,
            name: account.name.clone(),
            uid,
            audience: audience.clone(),
            issuer,
            keys,
        }))
    }

    /// An outside provider's keys.
    pub fn of_provider(&mut self, jwks: &[GivenJwk]) -> Keys {
        self.keys(jwks, None)
    }

    /// Keys, each parsed once; a policy bounds those that people write.
    fn keys(&mut self, jwks: &[GivenJwk], policy: Option<&Policy>) -> Keys {
        let parse = |jwk: &GivenJwk| match policy {
            Some(policy) => PublicKey::allowed(jwk, policy).ok(),
            None => PublicKey::from_jwk(jwk, 2048).ok(),
        };
        let keys = jwks.iter();
        distinct(keys.filter_map(|jwk| self.key(jwk, policy.is_some(), parse)))
    }

    fn key(
        &mut self,
        jwk: &GivenJwk,
        bounded: bool,
        parse: impl Fn(&GivenJwk) -> Option<PublicKey>,
    ) -> Option<Arc<PublicKey>> {
        let id = (bounded, jwk.clone());
        if let Some(known) = self.now.get(&id) {
            return known.clone();
        }
        let key = match self.before.remove(&id) {
            Some(known) => known,
            None => parse(jwk).map(Arc::new),
        };
        self.now.insert(id, key.clone());
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
