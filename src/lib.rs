//! Chancery: identity as Kubernetes resources. `ARCHITECTURE.md` is the map of this code.

pub mod api;
pub mod clock;
pub mod crypto;
pub mod domain;
pub mod serve;
