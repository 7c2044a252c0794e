//! UIDs and the endings of generated names: random, or from a seed.

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};

/// Where UIDs come from.
#[derive(Clone, Copy, Debug)]
pub enum Ids {
    /// The machine's randomness.
    Random,
    /// A sequence that is the same for the same seed.
    Seeded(u64),
}

/// A stream of ids.
pub struct Source(Ids);

impl Source {
    /// A stream; after a restart at version `start` a seeded one goes on with other ids.
    pub fn new(ids: Ids, start: u64) -> Self {
        Self(match ids {
            Ids::Random => Ids::Random,
            Ids::Seeded(seed) => Ids::Seeded(seed ^ start.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        })
    }

    fn next(&mut self) -> u64 {
        match &mut self.0 {
            Ids::Random => {
                let mut bytes = [0; 8];
                // It fails only where the system has no randomness at all, and then TLS and
                // signing have failed long before.
                SystemRandom::new()
                    .fill(&mut bytes)
                    .expect("the system's random number generator works");
                u64::from_le_bytes(bytes)
            }
            Ids::Seeded(state) => {
                // SplitMix64: small, and good enough to look like UIDs.
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = *state;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                z ^ (z >> 31)
            }
        }
    }

    /// A UUID of version 4.
    pub fn uid(&mut self) -> String {
        let (high, low) = (self.next(), self.next());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            (low >> 48) & 0x3fff | 0x8000,
            low & 0xffff_ffff_ffff,
        )
    }

    /// The ending of a generated name: the real server's alphabet has no vowels, so that no
    /// words come out.
    pub fn suffix(&mut self) -> String {
        const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        let mut bits = self.next();
        (0..5)
            .map(|_| {
                let index = usize::try_from(bits % ALPHABET.len() as u64).unwrap_or(0);
                bits /= ALPHABET.len() as u64;
                char::from(ALPHABET[index])
            })
            .collect()
    }
}
