//! Chancery: identity as Kubernetes resources. `ARCHITECTURE.md` is the map of this code.

pub mod api;
pub mod cli;
pub mod clock;
pub mod contact;
pub mod controllers;
pub mod crypto;
pub mod domain;
pub mod embedded;
pub mod feed;
pub mod leader;
pub mod objects;
pub mod outbox;
pub mod outside;
pub mod provider_metrics;
pub mod ring_metrics;
pub mod serve;
pub mod stores;
pub mod tenancy;
pub mod user_metrics;
pub mod wanted_keys;
