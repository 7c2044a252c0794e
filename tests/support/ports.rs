//! Free ports on the loopback address.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{Ipv4Addr, TcpListener};

/// Below every system's range of ephemeral ports (Linux: 32768 and up), above what services use.
///
/// An ephemeral port, which is what binding to port 0 gives, is no good for a server that a test
/// stops and starts again: meanwhile the kernel may lend it to any outgoing connection. A client
/// that keeps retrying can even be lent the very port that it dials, and then talks to itself.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A loopback port on which nothing listened a moment ago.
///
/// Someone else may take it before it is used, so whoever starts a server on it tries again with
/// another one when the server reports that its address is in use. Choosing at random makes that
/// rare even with several test binaries at once.
pub fn free_port() -> u16 {
    let random = RandomState::new();
    for attempt in 0..1_000_u32 {
        let port = FIRST + (random.hash_one(attempt) % u64::from(COUNT)) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("a thousand loopback ports tried, and none was free");
}
