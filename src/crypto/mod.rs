//! How keys and secrets are made and checked, on aws-lc-rs alone (bcrypt apart).
//!
//! [`key_pair`] (keys that sign), [`jws`] (tokens), [`secret`] (client secrets that we make),
//! [`hash`] (how secrets are stored), [`random`].

pub mod hash;
pub mod jws;
pub mod key_pair;
pub mod random;
pub mod secret;
