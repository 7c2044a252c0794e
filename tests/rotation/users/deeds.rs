//! What befalls a technical user.

use std::sync::atomic::Ordering;

use chancery::api::v1alpha1::{TechnicalUser, TechnicalUserStatus};
use chancery::domain::period::Period;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, PostParams};

use super::replica::{Replica, USER};
use super::world::{World, secrets, users};
use crate::simulation::fate::JUMPS;
use crate::simulation::world::{DAY, HOUR, MINUTE, SECOND};

#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// A process dies, perhaps amid a visit, and is started again.
    Kill,
    /// A replica alone loses its way to the API server, for so many minutes.
    CutOff(i64),
    /// The API server is away, for so many minutes.
    Outage(i64),
    /// A replica's clock jumps by so many seconds, and is put right after two hours.
    Jump(i64),
    /// The annotation asks for a rotation.
    Request,
    /// The same, and the old secret is to end at once.
    AtOnce,
    /// Another interval, in hours.
    Interval(i64),
    /// Another grace, in minutes.
    Grace(i64),
    /// Another `secretName`.
    Move,
    /// Another name of the key.
    Rename,
    /// The delivered Secret is gone, or holds something else.
    LoseDelivered,
    Alter,
    LoseStatus,
}

/// What is put right later.
#[derive(Clone, Copy)]
pub enum Later {
    ClockRight(usize),
    Grace(i64),
}

impl World {
    pub fn draw(&mut self) -> Fate {
        match self.dice.within(0, 22) {
            0..=4 => Fate::Kill,
            5 => Fate::CutOff(self.dice.within(5, 200)),
            6 => Fate::Outage(self.dice.within(1, 45)),
            7 | 8 => Fate::Jump(*self.dice.pick(&JUMPS)),
            9..=12 => Fate::Request,
            13 => Fate::AtOnce,
            14 => Fate::Interval(self.dice.within(42, 200)),
            15 => Fate::Grace(self.dice.within(1, 40 * 60)),
            16 => Fate::Move,
            17 => Fate::Rename,
            18 | 19 => Fate::LoseDelivered,
            20 => Fate::Alter,
            _ => Fate::LoseStatus,
        }
    }

    pub async fn befall(&mut self, fate: Fate) {
        self.write(&format!("FATE {fate:?}"));
        let now = self.now();
        let n = self.dice.index(2);
        match fate {
            Fate::Kill => self.kill(n),
            Fate::CutOff(minutes) => self.cut(n, minutes),
            Fate::Outage(minutes) => (0..2).for_each(|n| self.cut(n, minutes)),
            Fate::Jump(seconds) => {
                let clock = &self.replicas[n].clock;
                clock.offset.fetch_add(seconds * SECOND, Ordering::Relaxed);
                let _ = self.replicas[n].guard.moment();
                self.later.push((now + 2 * HOUR, Later::ClockRight(n)));
                self.trouble(4 * HOUR);
            }
            Fate::Request => self.ask().await,
            Fate::AtOnce => {
                let before = self.grace;
                self.set_grace(0).await;
                self.ask().await;
                self.later.push((now + DAY, Later::Grace(before)));
            }
            Fate::Interval(hours) => {
                self.edit(move |user| {
                    let secret = user.spec.credential.secret.get_or_insert_default();
                    let rotation = secret.rotation.get_or_insert_default();
                    rotation.interval = Some(Period::from_hours(hours));
                })
                .await;
            }
            Fate::Grace(minutes) => self.set_grace(minutes).await,
            Fate::Move => {
                let name = *self.dice.pick(&["one", "two", "three"]);
                self.edit(move |user| {
                    let secret = user.spec.credential.secret.get_or_insert_default();
                    secret.secret_name = Some(name.into());
                })
                .await;
            }
            Fate::Rename => {
                let key = *self
                    .dice
                    .pick(&["client_secret", "CYODA_SECRET", "password"]);
                self.edit(move |user| {
                    let secret = user.spec.credential.secret.get_or_insert_default();
                    secret.keys.client_secret = key.into();
                })
                .await;
            }
            Fate::LoseDelivered => {
                self.judge.tampered = true;
                let name = self.user().await.secret_name();
                let gone = secrets(&self.admin, super::replica::TENANT)
                    .delete(&name, &DeleteParams::default())
                    .await;
                self.judge.tampered = gone.is_ok();
            }
            Fate::Alter => self.alter().await,
            Fate::LoseStatus => {
                let mut user = self.user().await;
                user.status = Some(TechnicalUserStatus::default());
                let _ = users(&self.admin)
                    .replace_status(USER, &PostParams::default(), &user)
                    .await;
            }
        }
    }

    pub async fn undo(&mut self, what: Later) {
        match what {
            Later::ClockRight(n) => {
                let offset = self.dice.within(-4 * MINUTE, 4 * MINUTE);
                let clock = &self.replicas[n].clock;
                clock.offset.store(offset, Ordering::Relaxed);
                let _ = self.replicas[n].guard.moment();
                self.trouble(4 * HOUR);
            }
            Later::Grace(minutes) => self.set_grace(minutes).await,
        }
    }

    /// For so long nothing is said of what ought to have ended.
    pub fn trouble(&mut self, millis: i64) {
        let until = self.now() + millis;
        self.judge.troubled(until, millis);
    }

    async fn ask(&mut self) {
        let value = format!("{}", self.now());
        let now = self.now();
        self.judge.asks(now, value.clone());
        self.edit(move |user| {
            let annotations = user.annotations_mut();
            annotations.insert("chancery.dev/rotate".into(), value);
        })
        .await;
    }

    async fn set_grace(&mut self, minutes: i64) {
        self.grace = minutes;
        self.edit(move |user| {
            let secret = user.spec.credential.secret.get_or_insert_default();
            let rotation = secret.rotation.get_or_insert_default();
            rotation.grace_period = Some(Period::from_mins(minutes));
        })
        .await;
        self.judge.grace(minutes * MINUTE);
        self.trouble(0);
    }

    async fn alter(&mut self) {
        let user = self.user().await;
        let delivered = secrets(&self.admin, super::replica::TENANT);
        let Ok(Some(mut secret)) = delivered.get_opt(&user.secret_name()).await else {
            return;
        };
        let key = user.secret_keys().client_secret;
        chancery::objects::delivery::fill(&mut secret, &[key], "made up");
        let name = secret.name_any();
        let done = delivered
            .replace(&name, &PostParams::default(), &secret)
            .await;
        self.judge.tampered |= done.is_ok();
    }

    async fn edit(&mut self, change: impl FnOnce(&mut TechnicalUser)) {
        let mut user = self.user().await;
        change(&mut user);
        let users = users(&self.admin);
        let done = users.replace(USER, &PostParams::default(), &user).await;
        done.expect("the edit");
    }

    fn kill(&mut self, n: usize) {
        self.report.kills += 1;
        let old = &mut self.replicas[n];
        if let Some(visit) = old.visit.take() {
            visit.task.abort();
        }
        let (number, clock) = ((n, old.life + 1), old.clock.clone());
        let service = self.api.service();
        let mut new = Replica::new(number, clock, &service, &self.settings, &self.desk);
        let back = self.now() + self.dice.within(SECOND, 5 * MINUTE);
        new.cut_until = self.replicas[n].cut_until.max(back);
        new.looks = [(back, 0); 3];
        new.due = back;
        self.replicas[n] = new;
        self.trouble(HOUR);
    }

    fn cut(&mut self, n: usize, minutes: i64) {
        self.replicas[n].cut_until = self.now() + minutes * MINUTE;
        self.trouble(minutes * MINUTE + HOUR);
    }
}
