//! Chancery on a real kube-apiserver, as a user would meet it: kubectl in, tokens out.
//!
//! Each test has an environment of its own: an operator namespace, tenant namespaces, and a
//! `chancery run` process.

mod support;

#[path = "cluster/algorithms.rs"]
mod algorithms;
#[path = "cluster/assertions.rs"]
mod assertions;
#[path = "cluster/companion.rs"]
mod companion;
#[path = "cluster/copied.rs"]
mod copied;
#[path = "cluster/credentials.rs"]
mod credentials;
#[path = "cluster/delivered.rs"]
mod delivered;
#[path = "cluster/endurance.rs"]
mod endurance;
#[path = "cluster/exchange.rs"]
mod exchange;
#[path = "cluster/idle.rs"]
mod idle;
#[path = "cluster/injected.rs"]
mod injected;
#[path = "cluster/introspection.rs"]
mod introspection;
#[path = "cluster/kills.rs"]
mod kills;
#[path = "cluster/leader.rs"]
mod leader;
#[path = "cluster/load.rs"]
mod load;
#[path = "cluster/login.rs"]
mod login;
#[path = "cluster/one_time.rs"]
mod one_time;
#[path = "cluster/outside.rs"]
mod outside;
#[path = "cluster/ownership.rs"]
mod ownership;
#[path = "cluster/provider.rs"]
mod provider;
#[path = "cluster/publish.rs"]
mod publish;
#[path = "cluster/quickstart.rs"]
mod quickstart;
#[path = "cluster/refusals.rs"]
mod refusals;
#[path = "cluster/release.rs"]
mod release;
#[path = "cluster/restore.rs"]
mod restore;
#[path = "cluster/restored.rs"]
mod restored;
#[path = "cluster/revocation.rs"]
mod revocation;
#[path = "cluster/ring.rs"]
mod ring;
#[path = "cluster/rotation.rs"]
mod rotation;
#[path = "cluster/staleness.rs"]
mod staleness;
#[path = "cluster/supplied.rs"]
mod supplied;
#[path = "cluster/tenancy.rs"]
mod tenancy;
#[path = "cluster/users.rs"]
mod users;
#[path = "cluster/windows.rs"]
mod windows;
#[path = "cluster/withdrawal.rs"]
mod withdrawal;
