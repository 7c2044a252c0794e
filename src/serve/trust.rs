//! Whose signature a client's assertion must have, as the feed makes it from the resources.

use std::sync::Arc;

use jiff::Timestamp;

use crate::crypto::fingerprint;
use crate::crypto::public_key::PublicKey;
use crate::domain::algorithm::Algorithm;
use crate::domain::assertion::{Claims, Header, Workload};
use crate::domain::provider::Provider;

/// What a client proves itself with, where that is no secret.
#[derive(Debug)]
pub enum Trusted {
    /// A JWT that it has signed itself (`private_key_jwt`), with one of these keys.
    PublicKey(Keys),
    /// A token of this workload, which its cluster has signed.
    ServiceAccount(Account),
}

/// A Kubernetes `ServiceAccount` whose tokens authenticate a client.
#[derive(Debug)]
pub struct Account {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The UID that it was last seen with, or that one's [`fingerprint`]; none for another cluster's, which nobody here sees.
    pub uid: Option<String>,
    /// The one audience of its tokens.
    pub audience: String,
    /// Who issues its tokens.
    pub issuer: String,
    /// The keys that sign them.
    pub keys: Keys,
}

impl Account {
    /// Whether these are claims of its tokens.
    pub fn is_of(&self, claims: &Claims) -> bool {
        let same = |workload: &Workload| {
            let uid = self.uid.as_ref();
            workload.namespace == self.namespace
                && workload.name == self.name
                && uid.is_none_or(|uid| *uid == workload.uid || *uid == fingerprint(&workload.uid))
        };
        claims.workload.as_ref().is_some_and(same)
            && claims.issuer == self.issuer
            && claims.audience.as_slice() == [self.audience.as_str()]
    }
}

/// An outside identity provider whose tokens are taken.
#[derive(Debug)]
pub struct OutsideProvider {
    /// The UID of its resource.
    pub uid: String,
    /// It, and how its tokens are judged.
    pub provider: Provider,
    /// The keys that sign its tokens; none: it has not answered yet.
    pub keys: Keys,
    /// Whether its keys are fetched, and can be fetched again; else they stand in its resource.
    pub fetched: bool,
    /// Until when the keys are trusted that were fetched; none: they stand in its resource.
    pub good_until: Option<Timestamp>,
}

impl OutsideProvider {
    /// Whether its keys are trusted at that time.
    pub fn is_good(&self, now: Timestamp) -> bool {
        self.good_until.is_none_or(|until| now < until)
    }
}

/// Public keys, parsed once.
#[derive(Debug, Default)]
pub struct Keys(pub Vec<Arc<PublicKey>>);

impl Keys {
    /// The key that a header calls for: the one of its kid, if that is for its algorithm; without a
    /// kid the only one for the algorithm. Never one after another: an assertion names its key.
    pub fn called_for(&self, header: &Header) -> Option<&Arc<PublicKey>> {
        self.named(header.key_id.as_deref(), header.algorithm)
    }

    /// The same by kid and algorithm.
    pub fn named(&self, key_id: Option<&str>, algorithm: Algorithm) -> Option<&Arc<PublicKey>> {
        let mut fit = self.0.iter().filter(|key| {
            let named = key_id.is_none_or(|id| id == key.key_id());
            named && key.algorithm() == algorithm
        });
        let first = fit.next();
        first.filter(|_| fit.next().is_none())
    }
}
