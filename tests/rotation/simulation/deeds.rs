//! What befalls a world is done to it here.

use std::sync::atomic::Ordering;

use chancery::api::v1alpha1::{Invalidated, SigningKey, SigningKeyStatus};
use chancery::domain::algorithm::Algorithm;
use chancery::domain::period::Period;
use chancery::domain::rotation::Life;
use chancery::objects::key_secret;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, PostParams};

use super::fate::Fate;
use super::replica::{Making, Replica};
use super::world::{DAY, HOUR, Later, MINUTE, SECOND, World, kid_of, maps, rings, secrets};

impl World {
    pub(super) async fn befall(&mut self, fate: Fate) {
        self.write(&format!("FATE {fate:?}"));
        let now = self.now();
        let n = self.dice.index(2);
        match fate {
            Fate::Kill => self.kill(n),
            Fate::CutOff(minutes) => self.cut(n, minutes),
            Fate::Outage(minutes) => (0..2).for_each(|n| self.cut(n, minutes)),
            Fate::Jump(seconds) => {
                self.replicas[n]
                    .clock
                    .offset
                    .fetch_add(seconds * SECOND, Ordering::Relaxed);
                let _ = self.replicas[n].guard.moment();
                self.later.push_back((now + 2 * HOUR, Later::ClockRight(n)));
            }
            Fate::Request => {
                let value = format!("{now}");
                self.edit(move |ring| {
                    ring.annotations_mut()
                        .insert("chancery.dev/rotate".into(), value);
                })
                .await;
            }
            Fate::Interval(hours) => {
                self.edit(move |ring| {
                    let rotation = ring.spec.rotation.get_or_insert_default();
                    rotation.interval = Some(Period::from_hours(hours));
                })
                .await;
            }
            Fate::Algorithm => {
                self.edit(|ring| {
                    ring.spec.algorithm = match ring.spec.algorithm {
                        Algorithm::EdDSA => Algorithm::ES256,
                        _ => Algorithm::EdDSA,
                    };
                })
                .await;
            }
            Fate::WithdrawRetired(minutes) => {
                let found = self.find(|life, active| {
                    !active && life.retired.is_some() && life.removed.is_none()
                });
                if let Some(secret) = found.await {
                    self.withdraw(&secret, Some(Period::from_mins(minutes)))
                        .await;
                    self.later.push_back((now + DAY, Later::TakeBack));
                }
            }
            Fate::WithdrawActive(at_once) => {
                if let Some(secret) = self.find(|_, active| active).await {
                    self.emergency_until = now + 2 * HOUR;
                    let grace = if at_once {
                        Period::from_secs(0)
                    } else {
                        Period::from_hours(1)
                    };
                    self.withdraw(&secret, Some(grace)).await;
                }
            }
            Fate::SignWith => {
                let found = self.find(|life, active| {
                    !active
                        && life.retired.is_some()
                        && life.activated.is_some()
                        && life.removed.is_none()
                        && life.withdrawn.is_none()
                });
                if let Some(secret) = found.await {
                    let kid = kid_of(&secret);
                    self.edit(move |ring| {
                        if !ring.spec.invalidated.iter().any(|i| i.key_id == kid) {
                            ring.spec.sign_with = Some(kid);
                        }
                    })
                    .await;
                    self.later.push_back((now + DAY, Later::SignAsBefore));
                }
            }
            Fate::LoseIssuerMap => self.lose_map("chancery-issuer").await,
            Fate::LoseRingMap => self.lose_map("main-jwks").await,
            Fate::LoseStatus => {
                // Where a Secret was lost too, nothing is left that tells of its key.
                for known in self.known.values_mut().filter(|k| k.lost) {
                    known.withdrawn = true;
                }
                let mut ring = rings(&self.admin).get("main").await.expect("the ring");
                ring.status = Some(SigningKeyStatus::default());
                let rings = rings(&self.admin);
                let _ = rings
                    .replace_status("main", &PostParams::default(), &ring)
                    .await;
            }
            Fate::LoseIdleSecret => {
                if let Some(secret) = self
                    .find(|life, active| !active && life.removed.is_none())
                    .await
                {
                    self.lose(&secret).await;
                }
            }
            Fate::LoseActiveSecret => {
                if let Some(secret) = self.find(|_, active| active).await {
                    self.emergency_until = now + 2 * HOUR;
                    self.lose(&secret).await;
                }
            }
        }
    }

    pub(super) async fn undo(&mut self, what: Later) {
        match what {
            Later::ClockRight(n) => {
                let offset = self.dice.within(-4 * MINUTE, 4 * MINUTE);
                self.replicas[n]
                    .clock
                    .offset
                    .store(offset, Ordering::Relaxed);
                let _ = self.replicas[n].guard.moment();
            }
            Later::TakeBack => self.edit(|ring| ring.spec.invalidated.clear()).await,
            Later::SignAsBefore => self.edit(|ring| ring.spec.sign_with = None).await,
        }
    }

    fn kill(&mut self, n: usize) {
        self.report.kills += 1;
        let old = &mut self.replicas[n];
        if let Some(visit) = old.visit.take() {
            visit.task.abort();
        }
        let service = self.api.service();
        let making = Making {
            service: &service,
            settings: &self.settings,
            desk: &self.desk,
            plan: self.plan,
            limits: self.limits,
        };
        let mut new = Replica::new(n, old.life + 1, old.clock.clone(), &making);
        new.cut_until = old.cut_until;
        // Load balancers know what it served before; it is not among them until it serves again.
        new.served = std::mem::take(&mut old.served);
        let now = self.now();
        let back = now + self.dice.within(SECOND, 5 * MINUTE);
        new.looks = [(back, 0); 3];
        new.due = back;
        self.away[n].push((now - 2 * HOUR, back + SECOND));
        self.replicas[n] = new;
    }

    fn cut(&mut self, n: usize, minutes: i64) {
        let now = self.now();
        let replica = &mut self.replicas[n];
        // Up to here it knew all, or its views would have told.
        if replica.has_seen() {
            replica.serve(now);
        }
        replica.cut_until = now + minutes * MINUTE;
        self.away[n].push((now, replica.cut_until));
    }

    async fn edit(&mut self, change: impl FnOnce(&mut SigningKey)) {
        let mut ring = rings(&self.admin).get("main").await.expect("the ring");
        change(&mut ring);
        let done = rings(&self.admin)
            .replace("main", &PostParams::default(), &ring)
            .await;
        if let Err(error) = done {
            panic!("an edit is refused: {error}");
        }
    }

    async fn withdraw(&mut self, secret: &Secret, grace_period: Option<Period>) {
        let kid = kid_of(secret);
        if let Some(known) = self.known.get_mut(&kid) {
            known.withdrawn = true;
        }
        let entry = Invalidated {
            key_id: kid.clone(),
            grace_period,
        };
        self.edit(move |ring| {
            if ring.spec.sign_with.as_ref() == Some(&kid) {
                ring.spec.sign_with = None;
            }
            ring.spec.invalidated.retain(|i| i.key_id != kid);
            ring.spec.invalidated.push(entry);
        })
        .await;
    }

    /// A key Secret of which this holds; `active`: it is the one that signs.
    async fn find(&mut self, which: impl Fn(Life, bool) -> bool) -> Option<Secret> {
        let all = secrets(&self.admin)
            .list(&ListParams::default())
            .await
            .expect("Secrets")
            .items;
        let mine: Vec<Secret> = all.into_iter().filter(key_secret::is_key_secret).collect();
        let may_sign = |s: &&Secret| key_secret::read(s).life.may_sign();
        let active = mine
            .iter()
            .filter(may_sign)
            .max_by_key(|s| key_secret::read(s).life.activated);
        let active = active.map(ResourceExt::name_any);
        let found = mine
            .iter()
            .find(|s| which(key_secret::read(s).life, active == Some(s.name_any())));
        found.cloned()
    }

    async fn lose(&mut self, secret: &Secret) {
        if let Some(known) = self.known.get_mut(&kid_of(secret)) {
            known.lost = true;
        }
        let secrets = secrets(&self.admin);
        let _ = secrets
            .delete(&secret.name_any(), &DeleteParams::default())
            .await;
    }

    async fn lose_map(&mut self, name: &str) {
        let _ = maps(&self.admin)
            .delete(name, &DeleteParams::default())
            .await;
    }
}
