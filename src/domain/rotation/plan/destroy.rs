//! The end of a key that has left the JWKS.

use jiff::SignedDuration;

use super::Planner;
use crate::domain::rotation::policy::later;
use crate::domain::rotation::{Coming, Public, Step};

impl<P: Public> Planner<'_, P> {
    /// Deletes key pairs that are kept no longer, and forgets keys that are gone.
    pub(super) fn destroy(&mut self) {
        for key in self.keys.clone() {
            let (Some(removed), false) = (key.life.removed, key.in_jwks) else {
                continue;
            };
            let kid = key.kid();
            if key.has_material {
                let kept = self.policy.kept_for(&key);
                let at = later(removed, kept);
                // What was just noted has to be seen first.
                let seen = !self.noted_now(kid);
                if kept.is_zero() && seen || at <= self.now && self.sure && seen {
                    self.step(Step::Destroy { key_id: kid.into() });
                } else if seen {
                    self.expect(at, Coming::Destroy, Some(kid));
                }
                continue;
            }
            // For as long as a cache may hold it, status tells of a key that was withdrawn.
            let told = match key.life.withdrawn {
                Some(_) => self.policy.cached_for,
                None => SignedDuration::ZERO,
            };
            let at = later(removed, told);
            if self.noted_now(kid) {
                continue;
            }
            if at <= self.now && self.sure {
                self.step(Step::Forget { key_id: kid.into() });
            } else {
                self.expect(at, Coming::Forget, Some(kid));
            }
        }
    }
}
