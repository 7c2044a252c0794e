//! The small worlds: a policy of seconds, and what people and vandals do, at any moment.

use chancery::api::v1alpha1::{Invalidated, SigningKey, SigningKeySpec};
use chancery::domain::period::Period;
use chancery::domain::settings::Settings;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::onlooker::Onlooker;
use super::reads::{Call, RING};
use super::shelf::{Held, Objects, SLOTS, Shelf};
use super::state::{Doing, Replica, Rules, State};

const SECOND: i64 = 1000;
/// The ring's publish lead.
pub const LEAD: i64 = 10 * SECOND;
/// The longest token life with clock leeway, the JWKS's max-age and maxStaleness.
pub const SAFE_GRACE: i64 = 5 * SECOND;
/// The ring's UID.
pub const UID: &str = "the-ring";
const START: i64 = 1_767_225_600_000;

/// What a person or a vandal does, at any moment at which it is possible.
pub struct Edit {
    /// The read that would see it.
    pub touches: Call,
    pub when: fn(&Shelf, &State) -> bool,
    pub act: fn(&mut Rules, &mut State),
}

pub struct Scenario {
    pub name: &'static str,
    /// `spec.rotation`, beside the lead.
    interval: Option<&'static str>,
    retention: &'static str,
    pub edits: &'static [Edit],
    /// The search goes no further.
    pub until: i64,
    /// The most faults of a run; `SEARCH_FAULTS` sets another number.
    pub faults: usize,
    /// Whether replicas are stopped too. Where a `ConfigMap` is deleted, they are not: a create has no
    /// resourceVersion, so that one which comes an hour late brings an old JWKS, for a moment.
    pub stops: bool,
    /// Nor to a key of a higher number.
    pub most_keys: usize,
    /// What must hold once nothing is left to do.
    pub settled: fn(&Shelf, &State) -> Option<&'static str>,
}

const NOTHING_MORE: fn(&Shelf, &State) -> Option<&'static str> = |_, _| None;

const ROTATE: Edit = Edit {
    touches: Call::Ring,
    when: |_, state| state.seen.signer == Some(0),
    act: |rules, state| {
        rules.edit(state, |ring| {
            let value = ("chancery.dev/rotate".into(), "a".into());
            ring.annotations_mut().extend([value]);
        });
    },
};

const WITHDRAW_FIRST: Edit = Edit {
    touches: Call::Ring,
    when: |_, state| state.seen.signer == Some(1),
    act: |rules, state| withdraw(rules, state, 3),
};

const WITHDRAW_FIRST_AT_ONCE: Edit = Edit {
    touches: Call::Ring,
    when: |_, state| state.seen.signer == Some(0),
    act: |rules, state| withdraw(rules, state, 0),
};

const TAKE_BACK: Edit = Edit {
    touches: Call::Ring,
    when: |_, _| true,
    act: |rules, state| rules.edit(state, |ring| ring.spec.invalidated.clear()),
};

const SIGN_WITH_FIRST: Edit = Edit {
    touches: Call::Ring,
    when: |_, state| state.seen.signer == Some(1) && state.seen.keys[0].since.is_some(),
    act: |rules, state| {
        let kid = rules.things.pairs[0].jwk.kid.clone();
        state.seen.keys[0].named = true;
        rules.edit(state, |ring| ring.spec.sign_with = Some(kid));
    },
};

const SIGN_AS_BEFORE: Edit = Edit {
    touches: Call::Ring,
    when: |_, _| true,
    act: |rules, state| rules.edit(state, |ring| ring.spec.sign_with = None),
};

const LOSE_SIGNER: Edit = Edit {
    touches: Call::Secrets,
    when: |_, state| state.seen.signer.is_some() && state.objects.secrets[0] != 0,
    act: |rules, state| {
        if let Some(signer) = state.seen.signer {
            let mine = |id: &&mut u32| {
                let secret = rules.things.secret(**id);
                secret.is_some_and(|s| rules.things.pair_in(s) == Some(signer))
            };
            if let Some(id) = state.objects.secrets.iter_mut().find(mine) {
                *id = 0;
            }
            state.seen.keys[signer].ordered = true;
            look(rules, state);
        }
    },
};

const LOSE_ISSUER_MAP: Edit = Edit {
    touches: Call::IssuerMap,
    when: |_, state| state.made > 1 && state.objects.issuer_map != 0,
    act: |_, state| {
        // Replicas go on serving the last good one; a key that waits for its turn begins anew.
        state.objects.issuer_map = 0;
        for key in &mut state.seen.keys {
            let (signed, now) = (key.signed.is_some(), state.now);
            key.since = key.since.filter(|since| signed || now - since >= LEAD);
        }
    },
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "three generations by schedule",
        interval: Some("100s"),
        retention: "0s",
        edits: &[],
        until: START + 400 * SECOND,
        faults: 2,
        stops: true,
        most_keys: 3,
        settled: NOTHING_MORE,
    },
    Scenario {
        name: "a rotation that a person asks for",
        interval: None,
        retention: "0s",
        edits: &[ROTATE],
        until: START + 400 * SECOND,
        faults: 2,
        stops: true,
        most_keys: 3,
        settled: |things, state| {
            let ring = things.ring(state.objects.ring)?;
            let asked = ring.annotations().contains_key("chancery.dev/rotate");
            let status = ring.status.as_ref()?;
            let signed = state.seen.keys.iter().filter(|k| k.signed.is_some());
            match (asked, signed.count()) {
                // The other one waits for its lead.
                (true, 1) if state.made > 1 => None,
                (true, 1) => Some("a rotation that was asked for does not take place"),
                (true, 2) if status.last_handled_rotation.is_none() => {
                    Some("a rotation that took place is not told of")
                }
                (false, 1) | (true, 2) => None,
                _ => Some("one request is two rotations"),
            }
        },
    },
    Scenario {
        name: "the key that signs is withdrawn at once",
        interval: None,
        retention: "20s",
        edits: &[WITHDRAW_FIRST_AT_ONCE],
        until: START + 100 * SECOND,
        faults: 1,
        stops: true,
        most_keys: 3,
        settled: |things, state| {
            let ring = things.ring(state.objects.ring)?;
            let withdrawn = !ring.spec.invalidated.is_empty();
            let stands = state.seen.keys[0].since.is_some();
            (withdrawn && stands).then_some("a withdrawn key stays in the JWKS")
        },
    },
    Scenario {
        name: "the same, taken back at any moment",
        interval: None,
        retention: "20s",
        edits: &[WITHDRAW_FIRST_AT_ONCE, TAKE_BACK],
        until: START + 100 * SECOND,
        faults: 0,
        stops: true,
        most_keys: 3,
        settled: NOTHING_MORE,
    },
    Scenario {
        name: "a retired key is withdrawn with a grace, and that is taken back",
        interval: None,
        retention: "20s",
        edits: &[ROTATE, WITHDRAW_FIRST, TAKE_BACK],
        until: START + 100 * SECOND,
        faults: 0,
        stops: true,
        most_keys: 2,
        settled: NOTHING_MORE,
    },
    Scenario {
        name: "an older key signs again, for a while",
        interval: None,
        retention: "0s",
        edits: &[ROTATE, SIGN_WITH_FIRST, SIGN_AS_BEFORE],
        until: START + 100 * SECOND,
        faults: 1,
        stops: true,
        most_keys: 2,
        settled: NOTHING_MORE,
    },
    Scenario {
        name: "the Secret of the key that signs is lost",
        interval: None,
        retention: "0s",
        edits: &[LOSE_SIGNER],
        until: START + 100 * SECOND,
        faults: 1,
        stops: true,
        most_keys: 3,
        settled: NOTHING_MORE,
    },
    Scenario {
        name: "the issuer's ConfigMap is lost amid a rotation",
        interval: Some("100s"),
        retention: "0s",
        edits: &[LOSE_ISSUER_MAP],
        until: START + 210 * SECOND,
        faults: 1,
        stops: false,
        most_keys: 2,
        settled: NOTHING_MORE,
    },
];

pub fn settings() -> Settings {
    let mut settings = Settings {
        issuer: "http://127.0.0.1:8080".into(),
        ..Settings::default()
    };
    settings.tokens.max_ttl = Period::from_secs(2);
    settings.tokens.default_ttl = Period::from_secs(2);
    settings.tokens.clock_leeway = Period::from_secs(1);
    settings.jwks.max_age = Period::from_secs(1);
    settings.serving.max_staleness = Period::from_secs(1);
    settings
}

impl Scenario {
    /// Where it begins: a ring, and two replicas that have seen nothing.
    pub fn start(&self, things: &mut Shelf) -> State {
        let mut rotation = json!({ "publishLead": "10s", "retention": self.retention });
        if let (Some(interval), Value::Object(fields)) = (self.interval, &mut rotation) {
            fields.insert("interval".into(), interval.into());
        }
        let spec = json!({ "audience": "client", "algorithm": "EdDSA", "rotation": rotation });
        let spec: SigningKeySpec = serde_json::from_value(spec).expect("a spec");
        let mut ring = SigningKey::new(RING, spec);
        ring.metadata.namespace = Some("chancery-system".into());
        ring.metadata.uid = Some(UID.into());
        ring.metadata.generation = Some(1);
        let replica = || Replica {
            doing: Doing::Rests {
                wake: None,
                again: true,
            },
            view: Objects::default(),
            stopped: false,
            asleep: None,
        };
        State {
            now: START,
            objects: Objects {
                ring: things.put_ring(ring, &Held::default()),
                ring_map: 0,
                issuer_map: 0,
                secrets: [0; SLOTS],
            },
            made: 0,
            replicas: [replica(), replica()],
            faults: 0,
            edits: 0,
            edit_asleep: false,
            seen: Onlooker::default(),
        }
    }
}

/// Withdraws the first key.
fn withdraw(rules: &mut Rules, state: &mut State, grace: i64) {
    let key_id = rules.things.pairs[0].jwk.kid.clone();
    state.seen.keys[0].ordered = true;
    let grace_period = Some(Period::from_secs(grace));
    rules.edit(state, |ring| {
        ring.spec.invalidated.push(Invalidated {
            key_id,
            grace_period,
        });
    });
}

fn look(rules: &Rules, state: &mut State) {
    let (now, objects) = (state.now, state.objects);
    state.seen.look(&rules.things, now, &objects);
}
