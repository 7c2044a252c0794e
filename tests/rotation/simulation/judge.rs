//! What is demanded of a world: which tokens are issued, who accepts them, and when keys may sign.

use std::sync::Arc;

use chancery::clock::Clock as _;
use chancery::domain::algorithm::Algorithm;
use chancery::objects::{jwks_map, key_secret};
use kube::api::ListParams;

use super::verifiers::{HABITS, Jwks};
use super::world::{HOUR, Known, MINUTE, SECOND, Showing, TTL, World, maps, secrets};

/// A rotation takes some dozens, and an hour with conflicts and repairs some hundreds.
const MOST_CALLS_AN_HOUR: u64 = 10_000;

impl World {
    /// Looks at what is true now, and judges it.
    pub(super) async fn observe(&mut self) -> Result<(), String> {
        let now = self.now();
        if now - self.hour.0 > HOUR {
            self.hour = (now, self.report.calls);
        }
        if self.report.calls - self.hour.1 > MOST_CALLS_AN_HOUR {
            return Err("a hot loop: the replicas never rest".into());
        }
        let version = self.api.resource_version();
        if version == self.version {
            return Ok(());
        }
        self.version = version;
        let map = maps(&self.admin)
            .get_opt("chancery-issuer")
            .await
            .expect("the map");
        let kids: Vec<String> = map
            .as_ref()
            .and_then(jwks_map::read)
            .map(|set| set.keys.into_iter().map(|k| k.kid).collect())
            .unwrap_or_default();
        if self
            .written
            .last()
            .is_none_or(|(_, before)| **before != kids)
        {
            self.written.push((now, Arc::new(kids.clone())));
        }
        let secrets = secrets(&self.admin)
            .list(&ListParams::default())
            .await
            .expect("Secrets");
        let first = self.known.values().all(|k| k.activated.is_none());
        for secret in &secrets.items {
            let Ok(jwk) = key_secret::key_of(secret, Algorithm::EdDSA) else {
                continue;
            };
            let life = key_secret::read(secret).life;
            let stands = kids.contains(&jwk.kid);
            let lead = self.lead;
            let known = self.known.entry(jwk.kid.clone()).or_insert(Known {
                in_jwks_since: None,
                activated: None,
                excused_until: 0,
                withdrawn: false,
                lost: false,
            });
            known.in_jwks_since = stands.then(|| known.in_jwks_since.unwrap_or(now));
            if life.activated.is_some() && life.activated != known.activated {
                let again = known.activated.is_some();
                known.activated = life.activated;
                self.report.rotations += 1;
                if self.dice.once_in(3) {
                    // What befalls a ring amid a rotation is what matters.
                    self.next_fate = now + self.dice.within(SECOND, 90 * MINUTE);
                }
                let lead_over = known
                    .in_jwks_since
                    .is_some_and(|since| now - since >= lead - 10 * SECOND);
                if !lead_over && !first && !again {
                    if now > self.emergency_until {
                        return Err(format!(
                            "key {} signs {} s after it was published, and its lead is {} s",
                            jwk.kid,
                            known.in_jwks_since.map_or(0, |s| now - s) / SECOND,
                            lead / SECOND
                        ));
                    }
                    known.excused_until = now + 2 * HOUR;
                }
            }
        }
        Ok(())
    }

    /// One replica that load balancers have gives a token.
    pub(super) fn issue(&mut self) -> Result<(), String> {
        let now = self.now();
        let candidates: Vec<usize> = (0..2).filter(|n| self.is_ready(*n, now)).collect();
        let all: Vec<usize> = (0..2).collect();
        let of = if candidates.is_empty() {
            &all
        } else {
            &candidates
        };
        let n = *self.dice.pick(of);
        let replica = &self.replicas[n];
        let view = replica.snapshots.load();
        let signs =
            view.contact_age(&*replica.clock) <= replica.limits.signing || replica.cut_until <= now;
        let signer = view.rings(replica.clock.now()).next().filter(|_| signs);
        let Some(signer) = signer else {
            let since = *self.silent_since.get_or_insert(now);
            let excused = now < self.emergency_until || candidates.is_empty();
            if now - since > 3 * HOUR && !excused {
                return Err(format!(
                    "nothing has signed for {} minutes",
                    (now - since) / MINUTE
                ));
            }
            return Ok(());
        };
        self.silent_since = None;
        self.report.tokens += 1;
        let kid = signer.active.key_id().to_owned();
        for _ in 0..2 {
            let after = self.dice.within(0, TTL);
            self.showings.push(Showing {
                at: now + after,
                verifier: self.dice.index(HABITS.len()),
                kid: kid.clone(),
                issued: now,
                by: n,
            });
        }
        Ok(())
    }

    pub(super) fn show(&mut self) -> Result<(), String> {
        let now = self.now();
        let (due, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.showings)
            .into_iter()
            .partition(|s| s.at <= now);
        self.showings = rest;
        for showing in due {
            let mut verifiers = std::mem::take(&mut self.verifiers);
            let accepts = verifiers[showing.verifier].accepts(&showing.kid, now, self);
            self.verifiers = verifiers;
            self.report.verified += 1;
            if accepts {
                continue;
            }
            let known = self.known.get(&showing.kid);
            let excused = known.is_none_or(|k| k.withdrawn || now < k.excused_until);
            if !excused {
                return Err(format!(
                    "a token of {} that replica {} issued {} s ago is refused by a verifier that is {:?}; the JWKS has {:?}",
                    showing.kid,
                    showing.by,
                    (now - showing.issued) / SECOND,
                    HABITS[showing.verifier],
                    self.written.last().map(|(_, kids)| kids.clone())
                ));
            }
            self.report.excused += 1;
        }
        Ok(())
    }

    fn is_ready(&self, n: usize, at: i64) -> bool {
        let limit = i64::try_from(self.limits.readiness.as_millis()).unwrap_or(0);
        let away = self.away[n]
            .iter()
            .any(|(from, to)| from + limit < at && at < *to);
        let replica = &self.replicas[n];
        !away && replica.served.iter().any(|(since, _)| *since <= at)
    }
}

impl Jwks for World {
    fn served_at(&mut self, time: i64) -> Option<Arc<Vec<String>>> {
        let ready: Vec<usize> = (0..2).filter(|n| self.is_ready(*n, time)).collect();
        let of = if ready.is_empty() { vec![0, 1] } else { ready };
        let n = *self.dice.pick(&of);
        at(&self.replicas[n].served, time)
    }

    fn written_at(&self, time: i64) -> Option<Arc<Vec<String>>> {
        // A ConfigMap that is gone leaves the mounted files as they are.
        let full: Vec<_> = self
            .written
            .iter()
            .filter(|(_, kids)| !kids.is_empty())
            .cloned()
            .collect();
        at(&full, time)
    }
}

fn at(history: &[(i64, Arc<Vec<String>>)], time: i64) -> Option<Arc<Vec<String>>> {
    let found = history.iter().rev().find(|(since, _)| *since <= time);
    found.map(|(_, kids)| kids.clone())
}
