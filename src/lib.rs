//! Chancery: identity as Kubernetes resources. `ARCHITECTURE.md` is the map of this code.

pub mod clock;
pub mod embedded;
