//! Engines that are broken on purpose, each in one way that others were seen to be. What shows that
//! rotation is sound is worth something only if it catches them.

use chancery::controllers::{Decision, Object, PlanFn, Write};
use chancery::domain::moment::Moment;
use chancery::domain::rotation::{self, KeyFacts, Note, Plan, Policy, Step, signer};
use jiff::SignedDuration;
use kube::ResourceExt as _;

use super::search::{SCENARIOS, search};
use super::{property, simulation};

struct Broken {
    name: &'static str,
    plan: PlanFn,
    /// What it does to a list of writes.
    tamper: Option<fn(&mut Decision)>,
}

const ENGINES: [Broken; 7] = [
    Broken {
        name: "signs at once",
        plan: |keys, policy, moment| {
            let mut policy = policy.clone();
            policy.publish_lead = SignedDuration::ZERO;
            policy.max_age = SignedDuration::ZERO;
            rotation::plan(keys, &policy, moment)
        },
        tamper: None,
    },
    Broken {
        name: "drops at retirement",
        plan: |keys, policy, moment| {
            let mut policy = policy.clone();
            policy.grace = SignedDuration::ZERO;
            policy.margin = SignedDuration::ZERO;
            policy.max_ttl = SignedDuration::ZERO;
            let mut keys: Vec<KeyFacts> = keys.to_vec();
            for key in &mut keys {
                key.max_ttl = Some(SignedDuration::ZERO);
            }
            rotation::plan(&keys, &policy, moment)
        },
        tamper: None,
    },
    Broken {
        name: "numbers keys by how many there are",
        plan: |keys, policy, moment| {
            let mut plan = rotation::plan(keys, policy, moment);
            for step in &mut plan.steps {
                if let Step::Generate { sequence, .. } = step {
                    *sequence = i64::try_from(keys.len()).unwrap_or(0) + 1;
                }
            }
            plan
        },
        tamper: None,
    },
    Broken {
        name: "has two keys sign",
        plan: two_keys_sign,
        tamper: None,
    },
    Broken {
        name: "writes status before the Secret",
        plan: rotation::plan,
        tamper: Some(status_first),
    },
    Broken {
        name: "forgets since when a key is published",
        plan: |keys, policy, moment| {
            let mut keys: Vec<KeyFacts> = keys.to_vec();
            for key in keys.iter_mut().filter(|k| k.is_next() && k.in_jwks) {
                key.life.published = key.life.created;
            }
            rotation::plan(&keys, policy, moment)
        },
        tamper: None,
    },
    Broken {
        name: "trusts a jumped clock",
        plan: |keys, policy, moment| {
            let sure = Moment {
                sure: true,
                ..moment
            };
            rotation::plan(keys, policy, sure)
        },
        tamper: None,
    },
];

/// Whoever signed once goes on, by turns with its successor.
fn two_keys_sign(keys: &[KeyFacts], policy: &Policy, moment: Moment) -> Plan {
    let mut plan = rotation::plan(keys, policy, moment);
    let retires = |step: &Step| {
        matches!(
            step,
            Step::Note {
                note: Note::Retired,
                ..
            }
        )
    };
    if plan.steps.iter().any(retires) {
        plan.steps.retain(|step| !retires(step));
        let other = keys.iter().find(|key| {
            let signs = signer(keys).map(KeyFacts::kid) == Some(key.kid());
            key.is_usable() && key.in_jwks && key.life.activated.is_some() && !signs
        });
        plan.steps.extend(other.map(|key| Step::Note {
            key_id: key.kid().to_owned(),
            note: Note::Activated {
                emergency: false,
                max_ttl: policy.max_ttl,
            },
        }));
    }
    plan
}

/// Status tells of a rotation as handled, and the key is made after that.
fn status_first(decision: &mut Decision) {
    let handled = decision.writes.iter().find_map(|write| match write {
        Write::Create(Object::Secret(secret), _) => {
            let handled = secret.annotations().get("chancery.dev/handled-rotation");
            handled.cloned()
        }
        _ => None,
    });
    let Some(handled) = handled else { return };
    let is_status = |write: &Write| matches!(write, Write::Status { .. });
    if let Some(at) = decision.writes.iter().position(is_status) {
        let mut write = decision.writes.remove(at);
        if let Write::Status { status, .. } = &mut write {
            status["lastHandledRotation"] = handled.into();
        }
        decision.writes.insert(0, write);
    }
}

/// A sound engine comes to an end within this many.
const MOST_STATES: usize = 2_000_000;

/// What catches it: the first line of the reason.
fn caught(what: Result<(), String>) -> Option<String> {
    let why = what.err()?;
    let line = why.lines().next().unwrap_or_default();
    let short: String = line.chars().take(90).collect();
    Some(short)
}

#[test]
fn each_broken_engine_is_caught() {
    let mut table = Vec::new();
    for engine in &ENGINES {
        let by_property = (engine.tamper.is_none())
            .then(|| caught(property::holds(engine.plan, 2000, Some(property::fixed()))))
            .flatten();
        let by_search = SCENARIOS.iter().take(2).find_map(|scenario| {
            let tamper = engine.tamper.unwrap_or(|_| {});
            let found = search(scenario, engine.plan, tamper, 1, MOST_STATES);
            caught(found.broken.map_or(Ok(()), Err))
        });
        let by_simulation = (0..40).find_map(|seed| {
            engine.tamper.is_none().then_some(())?;
            let why = caught(simulation::play(seed, engine.plan).1)?;
            Some(format!("seed {seed}: {why}"))
        });
        table.push((engine.name, [by_property, by_search, by_simulation]));
    }
    let ways = ["properties", "search", "simulation"];
    println!(
        "{:38} {:>10} {:>7} {:>10}",
        "an engine that", ways[0], ways[1], ways[2]
    );
    for (name, by) in &table {
        let marks: Vec<_> = by
            .iter()
            .map(|why| if why.is_some() { "caught" } else { "-" })
            .collect();
        println!(
            "{name:38} {:>10} {:>7} {:>10}",
            marks[0], marks[1], marks[2]
        );
    }
    for (name, by) in &table {
        for (way, why) in ways.iter().zip(by) {
            if let Some(why) = why {
                println!("{name}, by {way}: {why}");
            }
        }
    }
    for (name, by) in &table {
        assert!(by.iter().any(Option::is_some), "nothing catches {name}");
    }
}
