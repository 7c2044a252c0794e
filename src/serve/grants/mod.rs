//! The grants, one file each. A grant reads its own parameters, asks the domain what may be
//! granted, and signs.

pub mod client_credentials;
