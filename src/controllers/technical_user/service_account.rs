//! A technical user that authenticates with the tokens of its ServiceAccount.
#![allow(clippy::doc_markdown)]

use kube::ResourceExt;

use super::Visit;
use crate::api::v1alpha1::{Conditions, ServiceAccountCredential, ServiceAccountStatus};
use crate::controllers::operator::Context;
use crate::controllers::{Note, Write};
use crate::crypto::fingerprint;
use crate::domain::reasons as r;
use crate::domain::service_account::judge_audience;
use crate::objects::cluster_keys;
use crate::stores::Stores;

/// What there is to see of a ServiceAccount and its cluster.
#[derive(Clone, Debug, Default)]
pub struct Workload {
    /// Its UID; none if it is not there, or being deleted.
    pub uid: Option<String>,
    /// Who issues its tokens; none while that is not known.
    pub issuer: Option<String>,
    /// Why that is not known.
    pub trouble: Option<String>,
}

/// Looks at it.
pub fn see(cx: &Context, namespace: &str, credential: &ServiceAccountCredential) -> Workload {
    if let Some(other) = &credential.cluster {
        return Workload {
            issuer: Some(other.issuer.clone()),
            ..Workload::default()
        };
    }
    let namespace = credential.namespace.as_deref().unwrap_or(namespace);
    let account = Stores::get(&cx.stores.service_accounts, namespace, &credential.name);
    let account = account.filter(|a| a.metadata.deletion_timestamp.is_none());
    let keys = Stores::get(
        &cx.stores.config_maps,
        &cx.settings.operator_namespace,
        crate::domain::names::CLUSTER_KEYS,
    );
    Workload {
        uid: account.and_then(|a| a.uid()),
        issuer: keys.and_then(|map| Some(cluster_keys::read(&map)?.issuer)),
        trouble: cx.cluster_keys.trouble(),
    }
}

impl Visit<'_> {
    fn of(&self, credential: &ServiceAccountCredential) -> (String, String) {
        let own = || self.user.namespace().unwrap_or_default();
        let namespace = credential.namespace.clone().unwrap_or_else(own);
        (namespace, credential.name.clone())
    }

    /// The ServiceAccount that authenticates, for status: servers take its UID from there.
    pub(super) fn bound(&self) -> Option<ServiceAccountStatus> {
        let credential = self.user.spec.credential.service_account.as_ref()?;
        let (namespace, name) = self.of(credential);
        let uid = self.seen.workload.uid.clone()?;
        // Who reads this may not be one who may read that namespace.
        let uid = match self.user.namespace() {
            Some(own) if own == namespace => uid,
            _ => fingerprint(&uid),
        };
        Some(ServiceAccountStatus {
            namespace,
            name,
            uid,
        })
    }

    /// An event where it is another one than before.
    pub(super) fn newly_bound(&self) -> Option<Write> {
        let bound = self.bound()?;
        let before = self.user.status.as_ref();
        let before = before.and_then(|s| s.service_account.as_ref());
        let ServiceAccountStatus {
            namespace,
            name,
            uid,
        } = &bound;
        (before != Some(&bound)).then(|| {
            let message = format!(
                "ServiceAccount {namespace}/{name} authenticates this technical user, with UID {uid}; tokens of an earlier one of that name are refused."
            );
            Note::normal(r::SERVICE_ACCOUNT_BOUND, message)
        })
    }

    /// What stands against its audience.
    pub(super) fn audience_violation(&self) -> Option<String> {
        let credential = self.user.spec.credential.service_account.as_ref()?;
        let issuer = &self.settings.issuer;
        let judged = judge_audience(
            credential.audience.as_ref().unwrap_or(issuer),
            issuer,
            &self.settings.policy.service_account_audiences,
            self.seen.workload.issuer.as_deref(),
        );
        judged.err().map(|fault| fault.to_string())
    }

    /// What is told of it, where all else is well.
    pub(super) fn of_service_account(&self, credential: &ServiceAccountCredential) -> Conditions {
        let (namespace, name) = self.of(credential);
        let workload = &self.seen.workload;
        if credential.cluster.is_none() && workload.issuer.is_none() {
            let why = workload.trouble.as_deref();
            let why = why.unwrap_or("they have not been read yet");
            return self.without_workload(
                r::CLUSTER_KEYS_UNKNOWN,
                format!(
                    "No token of a ServiceAccount is taken: the keys that sign this cluster's ServiceAccount tokens are not known: {why}. They are asked for again every minute. An API server without them (chancery dev has none) needs spec.credential.serviceAccount.cluster."
                ),
            );
        }
        if credential.cluster.is_none() && workload.uid.is_none() {
            return self.without_workload(
                r::SERVICE_ACCOUNT_NOT_FOUND,
                format!(
                    "No token of a ServiceAccount is taken: there is no ServiceAccount {namespace}/{name}. Make it, or mend spec.credential.serviceAccount."
                ),
            );
        }
        let id = self.user.client_id();
        let issuer = &self.settings.issuer;
        let audience = credential.audience.as_ref().unwrap_or(issuer);
        let whose = match &credential.cluster {
            Some(other) => format!(" of the cluster {}", other.issuer),
            None => String::new(),
        };
        let mut message = format!(
            "{id} gets tokens with tokens of ServiceAccount {namespace}/{name}{whose}, projected for audience {audience}."
        );
        self.tell_secret(&mut message);
        match &credential.cluster {
            Some(other) => self.with_faults(message, &other.jwks, OTHERS),
            None => Conditions::ready(r::SUCCEEDED, message),
        }
    }

    fn without_workload(&self, reason: &'static str, mut why: String) -> Conditions {
        self.tell_secret(&mut why);
        Conditions::reconciling(reason, why)
    }
}

/// Where another cluster's keys stand.
pub const OTHERS: &str = "spec.credential.serviceAccount.cluster.jwks";
