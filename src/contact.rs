//! Contact with the API server: what proves that this process knows what it knows. Its clock is
//! compared ([`clock`]), and its stores.
//!
//! That a watch is open proves nothing: it may be one that nothing comes through. So now and then
//! all is listed, names and versions alone, and once the stores hold what was listed, contact was
//! when the list was asked for.

pub mod clock;

use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use crate::clock::SharedClock;
use crate::domain::period::Period;
use crate::domain::settings::Settings;
use crate::domain::staleness::{Contact, Limits};
use crate::serve::readiness::Readiness;
use crate::serve::snapshot::SnapshotStore;
use crate::stores::{Listed, Mirror, Stores};

/// The part of readiness that minds the contact.
pub const CONTACT: &str = "contact";

/// The longest that a list, or the stores after it, may take.
const LONGEST: Duration = Duration::from_secs(10);
/// How often the stores are looked at while they are waited for.
const POLL: Duration = Duration::from_millis(20);

/// Seeks contact as long as it runs.
pub struct Seeker {
    /// What is compared.
    pub stores: Stores,
    /// What is served, with the contact that it was proved by.
    pub snapshots: Arc<SnapshotStore>,
    /// To the feed, which builds a snapshot after each proof.
    pub proofs: watch::Sender<Option<Contact>>,
    /// The time.
    pub clock: SharedClock,
    /// The release's settings.
    pub settings: Arc<Settings>,
    /// Whom to tell when contact is lost.
    pub readiness: Readiness,
}

impl Seeker {
    /// Seeks contact whenever it is due, and says when this replica is out of it for too long.
    pub async fn run(self) {
        self.stores.synced().await;
        let mut failures = 0_u32;
        // What holds for the first snapshot is proved first.
        let mut due = true;
        loop {
            let limits = self.limits();
            if due {
                match self.seek(&limits).await {
                    Ok(contact) => {
                        self.proofs.send_replace(Some(contact));
                        if failures > 1 {
                            info!("contact with the API server again");
                        }
                        failures = 0;
                    }
                    Err(why) => {
                        failures = failures.saturating_add(1);
                        debug!(%why, failures, "no contact");
                        // Once an outage; and a single failure is none: what was listed may be
                        // deleted before its store shows it.
                        if failures == 2 {
                            warn!(%why, "out of contact with the API server; trying again");
                        }
                    }
                }
            }
            let pause = if failures > 0 {
                (limits.interval / 10).clamp(Duration::from_millis(150), Duration::from_secs(15))
            } else {
                (limits.interval / 4).min(Duration::from_secs(1))
            };
            let until = Instant::now() + pause;
            while Instant::now() < until {
                self.tell(&limits);
                sleep(pause.min(Duration::from_millis(500))).await;
            }
            // By both clocks: what was suspended asks at once.
            due = failures > 0 || self.age() >= limits.interval;
        }
    }

    /// How old the contact may be with the rings that are served.
    fn limits(&self) -> Limits {
        let lead = self.snapshots.load().snapshot.shortest_publish_lead;
        let Settings { serving, jwks, .. } = &*self.settings;
        Limits::new(serving.max_staleness, lead, jwks.max_age)
    }

    fn age(&self) -> Duration {
        // The feed is a moment behind a proof.
        let proved = *self.proofs.borrow();
        let contact = proved.unwrap_or(self.snapshots.load().contact);
        contact.age(self.clock.now(), self.clock.elapsed())
    }

    /// Readiness by what is served, which is what counts.
    fn tell(&self, limits: &Limits) {
        let age = self.snapshots.load().contact_age(&*self.clock);
        if age <= limits.readiness {
            self.readiness.ready(CONTACT);
        } else {
            self.readiness.not_ready(CONTACT, sentence(age, limits));
        }
    }

    async fn seek(&self, limits: &Limits) -> Result<Contact, String> {
        let most = (limits.interval * 2).clamp(Duration::from_secs(1), LONGEST);
        let contact = Contact {
            wall: self.clock.now(),
            elapsed: self.clock.elapsed(),
        };
        let mirrors = || self.stores.mirrors.iter();
        let lists = try_join_all(mirrors().map(Mirror::list));
        let lists = timeout(most, lists)
            .await
            .map_err(|_| format!("a list was not answered within {most:?}"))?
            .map_err(|e| format!("a list failed: {e}"))?;
        let mut awaited: Vec<(&Mirror, Listed)> = mirrors().zip(lists).collect();
        let until = Instant::now() + most;
        loop {
            awaited.retain_mut(|(mirror, listed)| !mirror.holds(listed));
            if awaited.is_empty() {
                return Ok(contact);
            }
            if Instant::now() >= until {
                let kinds: Vec<_> = awaited.iter().map(|(mirror, _)| mirror.kind).collect();
                return Err(format!(
                    "after {most:?} the watches still lack what was listed of {kinds:?}"
                ));
            }
            sleep(POLL).await;
        }
    }
}

/// What `/readyz?verbose` says of a contact that is so old.
pub fn told(age: Duration) -> String {
    format!("Last contact with the API server: {} ago.", whole(age))
}

fn sentence(age: Duration, limits: &Limits) -> String {
    let Limits {
        signing, readiness, ..
    } = limits;
    let consequence = if age > *signing {
        "it signs nothing"
    } else {
        "it may lack a key that signs elsewhere"
    };
    format!(
        "This replica has had no contact with the API server for {}, and {consequence}: after {} it \
         is not ready, after {} (serving.maxStaleness) it does not sign. Can this pod reach the API \
         server, and may it list what it watches?",
        whole(age),
        whole(*readiness),
        whole(*signing)
    )
}

fn whole(duration: Duration) -> Period {
    Period::from_secs(duration.as_secs().try_into().unwrap_or(i64::MAX))
}
