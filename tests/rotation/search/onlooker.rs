//! What an onlooker with a true clock has seen of a world, and what that breaks.

use chancery::objects::{Ownership, jwks_map, key_secret, ownership};
use kube::ResourceExt as _;

use super::scenario::{LEAD, SAFE_GRACE, UID};
use super::shelf::{MOST_KEYS, Objects, Shelf};

/// One key pair, by the order in which they were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key {
    /// Since when it stands in the issuer's JWKS.
    pub since: Option<i64>,
    /// When it could sign last.
    pub signed: Option<i64>,
    /// Another key signs in its stead.
    pub followed: bool,
    /// A person withdrew it, or a vandal deleted its Secret.
    pub ordered: bool,
    /// `signWith` named it, perhaps no longer.
    pub named: bool,
    /// It was made under a number that another key had had before, by a call that came late.
    pub late: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Onlooker {
    pub keys: [Key; MOST_KEYS],
    /// Which one signs.
    pub signer: Option<usize>,
    /// The numbers that were given to Secrets.
    numbers: u32,
    /// An invariant that does not hold.
    pub broken: Option<&'static str>,
}

impl Onlooker {
    fn demand(&mut self, holds: bool, or: &'static str) {
        if !holds && self.broken.is_none() {
            self.broken = Some(or);
        }
    }

    /// That key pair was made in that slot.
    pub fn makes(&mut self, pair: usize, slot: usize) {
        self.keys[pair].late = self.numbers & 1 << slot != 0;
        self.numbers |= 1 << slot;
    }

    /// Whatever signs goes on until then.
    pub fn time_passes(&mut self, until: i64) {
        if let Some(signer) = self.signer {
            self.keys[signer].signed = Some(until);
        }
    }

    /// Something was written.
    pub fn look(&mut self, things: &Shelf, now: i64, objects: &Objects) {
        let stood = self.keys.iter().any(|k| k.since.is_some());
        if objects.issuer_map == 0 && stood {
            // It was deleted by hand: servers go on with the last good one.
            return;
        }
        let map = things.map(objects.issuer_map);
        let set = map.and_then(|m| jwks_map::read(m)).unwrap_or_default();
        let mut stands = [false; MOST_KEYS];
        for key in &set.keys {
            stands[things.pair_named(&key.kid).expect("a pair of ours")] = true;
        }
        let mut there = [false; MOST_KEYS];
        let mut signers = Vec::new();
        for secret in objects.secrets.iter().filter_map(|id| things.secret(*id)) {
            let pair = things.pair_in(secret).expect("a pair of ours");
            there[pair] = true;
            let life = key_secret::read(secret).life;
            if ownership(&secret.metadata, UID) == Ownership::Ours && life.may_sign() {
                signers.push((life.activated, secret.name_any(), pair));
            }
        }
        // As the server chooses: `feed.rs`.
        let signer = signers.into_iter().max().map(|(_, _, pair)| pair);
        let signer = signer.filter(|pair| stands[*pair]);

        for pair in 0..MOST_KEYS {
            let key = self.keys[pair];
            if let (Some(_), false) = (key.since, stands[pair]) {
                let safe = key.signed.is_none_or(|at| now >= at + SAFE_GRACE);
                self.demand(
                    safe || key.ordered,
                    "a key leaves the JWKS while its tokens live",
                );
                self.keys[pair].since = None;
            } else if stands[pair] && key.since.is_none() {
                self.keys[pair].since = Some(now);
            }
            self.demand(
                !(stands[pair] && key.late),
                "a key of a number that comes twice is published",
            );
            self.demand(
                there[pair] || !stands[pair] || key.ordered,
                "a Secret is deleted while its key is published",
            );
        }
        self.follow(now, signer);
    }

    fn follow(&mut self, now: i64, signer: Option<usize>) {
        let before = self.signer;
        if before != signer {
            let ordered = before.is_none_or(|pair| self.keys[pair].ordered);
            self.demand(signer.is_some() || ordered, "nothing signs any more");
            if let (Some(before), Some(_)) = (before, signer) {
                self.keys[before].followed = true;
            }
            if let Some(pair) = signer {
                let key = self.keys[pair];
                self.demand(
                    !key.followed || key.named,
                    "a key that another one followed signs again",
                );
                let led = key.since.is_some_and(|since| now - since >= LEAD);
                let first = self.keys.iter().all(|k| k.signed.is_none());
                self.demand(
                    led || first || ordered || key.named && key.signed.is_some(),
                    "a key signs before its lead is over",
                );
            }
        }
        self.signer = signer;
        if let Some(pair) = signer {
            self.keys[pair].signed = Some(now);
        }
    }
}

/// What does not hold of a world in which nothing is left to do.
pub fn unsound(things: &Shelf, objects: &Objects, seen: &Onlooker) -> Option<&'static str> {
    let ring = things.ring(objects.ring)?;
    let status = ring.status.clone().unwrap_or_default();
    let kids = |id| -> Vec<String> {
        let set = things.map(id).and_then(|m| jwks_map::read(m));
        let keys = set.unwrap_or_default().keys;
        let mut kids: Vec<_> = keys.into_iter().map(|k| k.kid).collect();
        kids.sort();
        kids
    };
    let issued = kids(objects.issuer_map);
    let Some(signer) = seen.signer else {
        return Some("nothing signs");
    };
    let signer = &things.pairs[signer].jwk.kid;
    if status.active_key_id.as_ref() != Some(signer) {
        return Some("status names another key than the one that signs");
    }
    if kids(objects.ring_map) != issued {
        return Some("the ring's JWKS is not its share of the issuer's");
    }
    for secret in objects.secrets.iter().filter_map(|id| things.secret(*id)) {
        let pair = things.pair_in(secret).expect("a pair of ours");
        let kid = &things.pairs[pair].jwk.kid;
        if !status.keys.iter().any(|k| k.key_id == *kid) {
            return Some("a Secret is an orphan: status does not know its key");
        }
        let removed = key_secret::read(secret).life.removed.is_some();
        if removed == issued.contains(kid) {
            return Some("the JWKS is not what the Secrets say");
        }
    }
    None
}
