//! How keys and secrets are made and checked, on aws-lc-rs alone.

pub mod key_pair;
