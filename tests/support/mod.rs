//! What the integration tests stand on: a real Kubernetes control plane, processes that can not
//! outlive the test that started them, waiting on conditions, and a search for leaked secrets.
//!
//! A test binary says `mod support;` and then, say:
//!
//! ```ignore
//! let cluster = support::ControlPlane::shared();
//! let namespace = cluster.namespace("rotation");
//! cluster.kubectl_ok(&["get", "configmaps", "-n", &namespace]);
//! ```
//!
//! Nothing here is ever skipped: what is missing on the machine is a panic that says what to
//! install.

// Every test binary compiles this module for itself and uses its own part of it.
#![allow(dead_code, unused_imports)]
// Pedantry is for what ships.
#![allow(clippy::pedantic)]
// Real processes take real time: no clock that a test can move applies to them.
#![allow(clippy::disallowed_methods)]

pub mod binaries;
pub mod canary;
pub mod control_plane;
pub mod der;
pub mod go_build;
pub mod http;
pub mod janitor;
pub mod ports;
pub mod process;
pub mod scratch;
pub mod wait;

pub use binaries::Binaries;
pub use canary::Canary;
pub use control_plane::{Component, ControlPlane};
pub use ports::free_port;
pub use process::{Output, Proc, Signal, chancery_bin};
pub use scratch::Scratch;
pub use wait::{eventually, eventually_async};
