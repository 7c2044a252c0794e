//! Client secrets, which rotate by the same engine: the controller's own decisions are carried out
//! write by write in a world of one technical user, with kills at every write, and pairs of them.

#[path = "secrets/onlooker.rs"]
mod onlooker;
#[path = "secrets/world.rs"]
mod world;

use chancery::controllers::{Decision, Fill, Object, Write};
use chancery::objects::credentials;

use world::{Deed, Fate, World};

/// What is done to each decision before it is carried out.
type Tamper = fn(&mut Decision);

/// What happens in a story: at that second somebody does something.
struct Scenario {
    name: &'static str,
    deeds: &'static [(i64, Deed)],
}

const HOUR: i64 = 3600;

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "by the interval",
        deeds: &[
            (0, Deed::Interval(Some(40 * HOUR))),
            (100 * HOUR, Deed::Look),
        ],
    },
    Scenario {
        name: "a rotation is asked for, and again within its grace",
        deeds: &[
            (60, Deed::Rotate("a")),
            (HOUR, Deed::Rotate("a")),
            (2 * HOUR, Deed::Rotate("b")),
            (3 * HOUR, Deed::Rotate("c")),
            (60 * HOUR, Deed::Look),
        ],
    },
    Scenario {
        name: "at once",
        deeds: &[
            (0, Deed::Grace(0)),
            (60, Deed::Rotate("a")),
            (120, Deed::Rotate("b")),
            (HOUR, Deed::Look),
        ],
    },
    Scenario {
        name: "moved and renamed amid a rotation",
        deeds: &[
            (60, Deed::Rotate("a")),
            (61, Deed::Rename("CYODA_SECRET")),
            (62, Deed::Move("elsewhere")),
            (HOUR, Deed::Rotate("b")),
            (2 * HOUR, Deed::Move("user-credentials")),
            (60 * HOUR, Deed::Look),
        ],
    },
    Scenario {
        name: "the delivered Secret is deleted, and altered",
        deeds: &[
            (60, Deed::Rotate("a")),
            (61, Deed::DeleteDelivered),
            (HOUR, Deed::DeleteDelivered),
            (2 * HOUR, Deed::Alter),
            (3 * HOUR, Deed::DeleteDelivered),
            (60 * HOUR, Deed::Look),
        ],
    },
    Scenario {
        name: "supplied, replaced, lost, and generated again",
        deeds: &[
            (60, Deed::Rotate("a")),
            (HOUR, Deed::Supply("chosen 1")),
            (2 * HOUR, Deed::Supply("chosen 2")),
            (2 * HOUR + 1, Deed::Lose),
            (40 * HOUR, Deed::Supply("chosen 3")),
            (80 * HOUR, Deed::Generate),
            (80 * HOUR + 1, Deed::Supply("chosen 4")),
            (120 * HOUR, Deed::Generate),
            (121 * HOUR, Deed::Rotate("b")),
            (190 * HOUR, Deed::Look),
        ],
    },
    Scenario {
        name: "moved, and the grace made shorter",
        deeds: &[
            (60, Deed::Move("elsewhere")),
            (HOUR, Deed::Rotate("a")),
            (2 * HOUR, Deed::Grace(3 * HOUR)),
            (20 * HOUR, Deed::Move("user-credentials")),
            (20 * HOUR + 60, Deed::Rotate("b")),
            (21 * HOUR, Deed::Grace(0)),
            (60 * HOUR, Deed::Look),
        ],
    },
    Scenario {
        name: "supplied so often that the generated one makes room",
        deeds: &[
            (60, Deed::Supply("chosen 1")),
            (120, Deed::Supply("chosen 2")),
            (180, Deed::Supply("chosen 3")),
            (60 * HOUR, Deed::Look),
        ],
    },
    Scenario {
        name: "the clock jumps",
        deeds: &[
            (60, Deed::Rotate("a")),
            (2 * HOUR - 600, Deed::Jump(400 * 24 * HOUR)),
            (2 * HOUR, Deed::Rotate("b")),
            (2 * HOUR + 600, Deed::Jump(0)),
            (60 * HOUR, Deed::Look),
        ],
    },
    Scenario {
        name: "the spec is edited amid a rotation",
        deeds: &[
            (0, Deed::Interval(Some(10 * HOUR))),
            (0, Deed::Grace(HOUR)),
            (10 * HOUR, Deed::Interval(None)),
            (11 * HOUR, Deed::Rotate("a")),
            (11 * HOUR + 1, Deed::Rotate("")),
            (12 * HOUR, Deed::Rotate("b")),
            (12 * HOUR + 1, Deed::Grace(60)),
            (20 * HOUR, Deed::Look),
        ],
    },
];

/// Plays a scenario with these fates at its writes; how many writes there were, or what did not hold.
fn play(scenario: &Scenario, fates: &[(usize, Fate)], tamper: Tamper) -> Result<usize, String> {
    let mut world = World::new(fates, tamper);
    world.settle()?;
    for (second, deed) in scenario.deeds {
        world.pass_until(*second)?;
        world.act(*deed);
        world.settle()?;
    }
    // All graces end.
    world.pass_until(world.second() + 200 * HOUR)?;
    world.at_rest()?;
    Ok(world.writes)
}

const FATES: [Fate; 3] = [Fate::KilledBefore, Fate::KilledAfter, Fate::AnswerLost];

#[test]
fn kills_at_every_write_of_client_secrets() {
    let mut runs = 0;
    let only = std::env::var("SECRETS_ONLY").unwrap_or_default();
    for scenario in SCENARIOS.iter().filter(|s| s.name.contains(&only)) {
        let undisturbed = play(scenario, &[], |_| {}).unwrap_or_else(|why| {
            panic!("{}: {why}", scenario.name);
        });
        let mut one = 0;
        for at in 0..undisturbed {
            for fate in FATES {
                let fates = [(at, fate)];
                let played = play(scenario, &fates, |_| {});
                let writes =
                    played.unwrap_or_else(|why| panic!("{}, {fates:?}: {why}", scenario.name));
                one += 1;
                // A second one, soon after: what heals the first is disturbed too.
                for second in at + 1..writes.min(at + 6) {
                    for other in FATES {
                        let fates = [(at, fate), (second, other)];
                        let played = play(scenario, &fates, |_| {});
                        played.unwrap_or_else(|why| panic!("{}, {fates:?}: {why}", scenario.name));
                        runs += 1;
                    }
                }
            }
        }
        println!(
            "{}: {undisturbed} writes, {one} runs with one fate",
            scenario.name
        );
        runs += one;
    }
    println!("{runs} runs in all");
}

/// Operators that are broken on purpose.
const BROKEN: [(&str, Tamper); 8] = [
    ("forgets the old hashes", |decision| {
        for write in &mut decision.writes {
            if let Write::Replace(Object::Secret(s), Fill::NewHash { .. }) = write {
                credentials::write(s, &[]);
            }
        }
    }),
    (
        "does not write down which request it has handled",
        |decision| {
            for write in &mut decision.writes {
                if let Write::Create(Object::Secret(s), fill)
                | Write::Replace(Object::Secret(s), fill) = write
                {
                    let mut stored = credentials::read(s);
                    for s in &mut stored {
                        s.known.handled = None;
                    }
                    if !stored.is_empty() {
                        credentials::write(s, &stored);
                    }
                    if let Fill::NewHash { handled, .. } = fill {
                        *handled = None;
                    }
                }
            }
        },
    ),
    ("never ends an old secret", |decision| {
        decision.writes.retain(|write| match write {
            Write::Replace(Object::Secret(s), Fill::Nothing) => credentials::hashes_of(s).is_none(),
            _ => true,
        });
    }),
    ("never tells servers before it delivers", |decision| {
        // What would be delivered later is delivered with the hash.
        let makes = decision
            .writes
            .iter()
            .any(|w| matches!(w, Write::Replace(_, Fill::NewHash { .. })));
        let delivers = decision
            .writes
            .iter()
            .any(|w| matches!(w, Write::Replace(_, Fill::NewSecret(_))));
        let tried = decision.writes.iter().find_map(|w| match w {
            Write::TryOut(object) => Some(object.clone()),
            _ => None,
        });
        if let Some(object) = tried.filter(|_| makes && !delivers) {
            let fill = Fill::NewSecret(vec!["client_secret".into()]);
            decision.writes.push(Write::Replace(object, fill));
        }
    }),
    ("leaves Secrets that show what has ended", |decision| {
        decision
            .writes
            .retain(|write| !matches!(write, Write::Delete(_)));
    }),
    ("claims what is supplied before it works", |decision| {
        for write in &mut decision.writes {
            if let Write::Status { status, .. } = write
                && status["credentials"]
                    .as_array()
                    .is_some_and(|all| all.iter().any(|c| c["state"] == "Next"))
            {
                status["secretName"] = "mine".into();
            }
        }
    }),
    ("forgets what was supplied before", |decision| {
        for write in &mut decision.writes {
            if let Write::Replace(Object::Secret(s), Fill::Nothing) = write {
                let mut all = credentials::read(s);
                // One that was just supplied.
                all.retain(|s| s.known.source.is_some() && s.known.delivered_at.is_none());
                if !all.is_empty() {
                    credentials::write(s, &all);
                }
            }
        }
    }),
    ("delivers without a hash", |decision| {
        let delivers = |w: &Write| {
            matches!(
                w,
                Write::Create(_, Fill::NewSecret(_)) | Write::Replace(_, Fill::NewSecret(_))
            )
        };
        if decision.writes.iter().any(delivers) {
            decision
                .writes
                .retain(|w| !matches!(w, Write::Replace(_, Fill::NewHash { .. })));
        }
    }),
];

#[test]
fn operators_that_are_broken_with_client_secrets_are_caught() {
    for (name, tamper) in BROKEN {
        let caught = SCENARIOS.iter().find_map(|scenario| {
            let none = play(scenario, &[], tamper);
            let kills = (0..20).map(|at| play(scenario, &[(at, Fate::KilledAfter)], tamper));
            let why = [none].into_iter().chain(kills).find_map(Result::err)?;
            Some(format!("{}: {why}", scenario.name))
        });
        let caught = caught.unwrap_or_else(|| panic!("one that {name} is not caught"));
        println!("one that {name}: {caught}");
    }
}

/// Plays deeds undisturbed; what the events of that reason say.
fn told(deeds: &[(i64, Deed)], reason: &str) -> Vec<String> {
    let mut world = World::new(&[], |_| {});
    let played = world.settle().and_then(|()| {
        deeds.iter().try_for_each(|(second, deed)| {
            world.pass_until(*second)?;
            world.act(*deed);
            world.settle()
        })
    });
    played.unwrap_or_else(|why| panic!("{why}"));
    let of = world.told.into_iter().filter(|(of, _)| *of == reason);
    of.map(|(_, told)| told).collect()
}

#[test]
fn events_say_what_was_done() {
    let deeds = |more: &[(i64, Deed)]| [more, &[(30 * HOUR, Deed::Look)]].concat();
    // One that is supplied changes, and no other is there.
    let supplied = deeds(&[
        (60, Deed::Supply("chosen 1")),
        (HOUR, Deed::Supply("chosen 2")),
    ]);
    let rotated = told(&supplied, "CredentialRotated");
    assert_eq!(rotated.len(), 2, "{rotated:?}");
    assert!(
        rotated[1].contains("Client secret 2 is not the one that is supplied any more"),
        "{rotated:?}"
    );
    assert_eq!(told(&supplied, "CredentialRemoved").len(), 2);

    // The spec was changed, and nothing repaired.
    let changed = deeds(&[
        (60, Deed::Rename("CYODA_SECRET")),
        (120, Deed::Move("elsewhere")),
    ]);
    let updated = told(&changed, "SecretUpdated");
    // Also when the former key goes.
    assert!(updated.len() >= 2, "{updated:?}");
    assert!(
        updated.iter().any(|t| t.contains("secretName says")),
        "{updated:?}"
    );
    assert_eq!(told(&changed, "SecretRepaired"), Vec::<String>::new());
    // The Secret was deleted while the former one holds the same.
    let deleted = deeds(&[(60, Deed::Move("elsewhere")), (120, Deed::DeleteDelivered)]);
    let repaired = told(&deleted, "SecretRepaired");
    assert_eq!(repaired.len(), 1, "{repaired:?}");
    assert!(
        repaired[0].contains("again, as it was deleted"),
        "{repaired:?}"
    );

    // Whether there was a grace.
    let rotate = [(60, Deed::Rotate("a"))];
    let ended = told(&deeds(&rotate), "CredentialRemoved");
    assert!(ended[0].ends_with("its grace is over."), "{ended:?}");
    let at_once = deeds(&[(0, Deed::Grace(0)), rotate[0]]);
    let ended = told(&at_once, "CredentialRemoved");
    assert!(ended[0].contains("there is no grace"), "{ended:?}");
}
