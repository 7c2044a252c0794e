//! A private key, parsed once, that signs tokens.

/// A private key with its algorithm and public half.
#[derive(Debug)]
pub struct KeyPair {}
