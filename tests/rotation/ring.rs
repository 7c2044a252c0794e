//! A ring as the pure function sees it, with steps that are carried out at once.

use chancery::controllers::PlanFn;
use chancery::domain::jwk::PublicJwk;
use chancery::domain::moment::Moment;
use chancery::domain::rotation::{
    Cause, KeyFacts, Life, Plan, Policy, Step, Window, carry_out, plan, signer,
};
use jiff::{SignedDuration, Timestamp};

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

pub fn secs(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

pub fn policy() -> Policy {
    Policy {
        interval: Some(secs(10_000)),
        publish_lead: secs(1000),
        max_age: secs(100),
        grace: secs(0),
        max_ttl: secs(300),
        margin: secs(200),
        cached_for: secs(150),
        ..Policy::default()
    }
}

pub fn kid(sequence: i64) -> String {
    format!("kid-{sequence}")
}

pub fn key(sequence: i64, cause: Cause, now: Timestamp) -> KeyFacts {
    KeyFacts {
        sequence,
        jwk: PublicJwk::stand_in(kid(sequence)),
        life: Life {
            created: Some(now),
            ..Life::default()
        },
        cause,
        handled: None,
        edition: 0,
        max_ttl: None,
        window: Window::default(),
        fits: true,
        has_material: true,
        in_jwks: false,
    }
}

/// A ring, and what happens to it.
#[derive(Clone)]
pub struct Ring {
    pub keys: Vec<KeyFacts>,
    pub policy: Policy,
    pub handled: Option<String>,
    pub engine: PlanFn,
}

impl Ring {
    pub fn new(policy: Policy) -> Self {
        Self {
            keys: Vec::new(),
            policy,
            handled: None,
            engine: plan,
        }
    }

    /// One visit, carried out as the controller does on a cluster.
    pub fn visit(&mut self, moment: Moment) -> Plan {
        self.policy.handled.clone_from(&self.handled);
        let plan = (self.engine)(&self.keys, &self.policy, moment);
        for key in &mut self.keys {
            let stands = |(jwk, edition): &(PublicJwk, i64)| {
                jwk.kid == key.jwk.kid && *edition == key.edition
            };
            key.in_jwks = plan.publish.iter().any(stands);
        }
        for step in &plan.steps {
            if let Step::Generate { sequence, cause } = step {
                let mut made = key(*sequence, *cause, moment.now);
                made.handled.clone_from(&self.policy.rotate);
                made.window = self.policy.window;
                self.keys.push(made);
            }
            let history = &mut self.policy.history;
            history.highest = self
                .keys
                .iter()
                .map(|k| k.sequence)
                .fold(history.highest, i64::max);
            if let Step::Forget { key_id } = step {
                history.spent.insert(key_id.clone());
            }
            carry_out(&mut self.keys, step, moment.now);
        }
        let handled = |k: &KeyFacts| k.handled.is_some() && k.handled == self.policy.rotate;
        if self.keys.iter().any(handled) {
            self.handled.clone_from(&self.policy.rotate);
        }
        plan
    }

    /// Visits until nothing is left to do, and gives the notes that were made.
    pub fn settle(&mut self, second: i64) -> Vec<String> {
        let moment = Moment {
            now: at(second),
            sure: true,
        };
        let mut notes = Vec::new();
        for _ in 0..20 {
            let before = self.keys.clone();
            let plan = self.visit(moment);
            for step in &plan.steps {
                notes.push(match step {
                    Step::Note { key_id, note } => {
                        let note = format!("{note:?}");
                        let note = note.split([' ', '(']).next().unwrap_or_default();
                        format!("{key_id} {note}")
                    }
                    Step::Generate { cause, .. } => format!("Generate {cause:?}"),
                    Step::Destroy { key_id } => format!("{key_id} Destroy"),
                    Step::Forget { key_id } => format!("{key_id} Forget"),
                    Step::Restore { key_id } => format!("{key_id} Restore"),
                });
            }
            if plan.steps.is_empty() && self.keys == before {
                return notes;
            }
        }
        panic!("it does not settle: {notes:?}");
    }

    pub fn active(&self) -> Option<String> {
        signer(&self.keys).map(|k| k.kid().to_owned())
    }

    pub fn published(&self) -> Vec<i64> {
        let in_jwks = self.keys.iter().filter(|k| k.in_jwks);
        in_jwks.map(|k| k.sequence).collect()
    }
}
