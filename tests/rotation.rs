//! Rotation, shown in these ways, each of which is shown to be able to fail:
//!
//! 1. `property`: random stories on the pure function alone;
//! 2. `search`: every interleaving of two replicas' calls in a small world, with faults everywhere;
//! 3. `simulation`: months on the embedded API server, with verifiers as they are met in the field;
//! 4. `secrets`: the same engine with a client secret's policy, killed at every write;
//! 5. `users`: weeks of a technical user on the embedded API server, as `simulation` has a ring's.
//!
//! `engines` has engines that are broken on purpose, and the table of which of them caught which.

#[path = "rotation/engines.rs"]
mod engines;
#[path = "rotation/property.rs"]
mod property;
#[path = "rotation/ring.rs"]
mod ring;
#[path = "rotation/search.rs"]
mod search;
#[path = "rotation/secrets.rs"]
mod secrets;
#[path = "rotation/simulation.rs"]
mod simulation;
#[path = "rotation/tables.rs"]
mod tables;
#[path = "rotation/users.rs"]
mod users;
