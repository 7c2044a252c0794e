//! The API server of the small world: what becomes of a write.

use chancery::api::v1alpha1::SigningKey;
use chancery::controllers::{Fill, Object, Write};
use chancery::domain::names;
use chancery::objects::{jwks_map, key_secret};
use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use super::reads::{Answer, RING};
use super::shelf::{Held, Id, MOST_KEYS, Objects, SLOTS};
use super::state::{Doing, Rules, State, Step};

impl Rules {
    /// A step for a person to read.
    pub fn told(&mut self, state: &State, step: Step) -> String {
        match step {
            Step::Reads(n) => match self.asks(&state.replicas[n]) {
                Some(call) => format!("{n} reads {call:?}"),
                None => unreachable!("it waits for an answer"),
            },
            Step::Writes(n) | Step::FailsBefore(n) | Step::FailsAfter(n) => {
                let Doing::Writes { decision, at } = state.replicas[n].doing else {
                    unreachable!("it writes");
                };
                let write = &self.decisions[decision].writes[at];
                format!("{step:?}: {}", self.told_write(write))
            }
            other => format!("{other:?}"),
        }
    }

    fn told_write(&self, write: &Write) -> String {
        match write {
            Write::Create(Object::Secret(s), _) => format!("creates {}", s.name_any()),
            Write::Delete(Object::Secret(s)) => format!("deletes {}", s.name_any()),
            Write::Replace(Object::Secret(s), _) => {
                format!("{} {:?}", s.name_any(), key_secret::read(s).life)
            }
            Write::Create(Object::ConfigMap(m), _) | Write::Replace(Object::ConfigMap(m), _) => {
                let set = jwks_map::read(m).unwrap_or_default();
                let pair = |kid: &str| self.things.pair_named(kid);
                let pairs: Vec<_> = set.keys.iter().map(|k| pair(&k.kid)).collect();
                format!("{} {pairs:?}", m.name_any())
            }
            Write::Status { .. } => "status".to_owned(),
            other => format!("{other:?}"),
        }
    }

    /// Carries out the write that a replica is at: whether the API server took it, and whether
    /// another follows. None: it leads out of the small world.
    pub(super) fn write(&mut self, state: &mut State, n: usize) -> Option<(bool, bool)> {
        let Doing::Writes { decision, at } = state.replicas[n].doing else {
            unreachable!("it writes");
        };
        let decision = self.decisions[decision].clone();
        let done = self.apply(state, &decision.writes[at])?;
        if done {
            state.seen.look(&self.things, state.now, &state.objects);
        }
        Some((done, at + 1 < decision.writes.len()))
    }

    /// What is held of versions of an object that is about to be written.
    fn held(&self, state: &State, current: Id) -> Held {
        let mut others = Vec::new();
        for replica in &state.replicas {
            match &replica.doing {
                Doing::Rests { .. } => {}
                Doing::Looks { answers, .. } => {
                    for (_, answer) in answers {
                        match answer {
                            Answer::One(id) => others.push(*id),
                            Answer::Many(ids) => others.extend(ids),
                        }
                    }
                }
                Doing::Writes { decision, at } => {
                    let writes = &self.decisions[*decision].writes[*at..];
                    others.extend(writes.iter().filter_map(decided_on));
                }
            }
        }
        Held { current, others }
    }

    /// A person edits the ring.
    pub fn edit(&mut self, state: &mut State, change: impl FnOnce(&mut SigningKey)) {
        let held = self.held(state, state.objects.ring);
        let ring = self.things.ring(state.objects.ring).expect("the ring");
        let mut ring = (**ring).clone();
        change(&mut ring);
        ring.metadata.generation = ring.metadata.generation.map(|g| g + 1);
        state.objects.ring = self.things.put_ring(ring, &held);
    }

    fn apply(&mut self, state: &mut State, write: &Write) -> Option<bool> {
        let fresh = |meta: &ObjectMeta, id: Id| {
            id != 0 && meta.resource_version.as_deref() == Some(&id.to_string())
        };
        let done = match write {
            Write::Create(Object::ConfigMap(map), _) => {
                let name = map.name_any();
                let current = *place_of(&mut state.objects, &name);
                if current == 0 {
                    let mut map = (**map).clone();
                    map.metadata.uid = Some(name.clone());
                    let held = self.held(state, current);
                    let id = self.things.put_map(map, &held);
                    *place_of(&mut state.objects, &name) = id;
                }
                current == 0
            }
            Write::Replace(Object::ConfigMap(map), _) => {
                let name = map.name_any();
                let current = *place_of(&mut state.objects, &name);
                let fresh = fresh(&map.metadata, current);
                if fresh {
                    let held = self.held(state, current);
                    let id = self.things.put_map((**map).clone(), &held);
                    *place_of(&mut state.objects, &name) = id;
                }
                fresh
            }
            Write::Create(Object::Secret(secret), Fill::KeyPair(..)) => {
                let slot = slot_of(&secret.name_any());
                if slot >= SLOTS || slot >= self.scenario.most_keys || state.made >= MOST_KEYS {
                    return None;
                }
                let current = state.objects.secrets[slot];
                if current == 0 {
                    let mut secret = (**secret).clone();
                    let pem = ByteString(self.things.pairs[state.made].pem.clone());
                    let data = secret.data.get_or_insert_default();
                    data.insert(key_secret::PRIVATE_KEY.into(), pem);
                    secret.metadata.uid = Some(format!("pair-{}", state.made));
                    let held = self.held(state, current);
                    state.objects.secrets[slot] = self.things.put_secret(secret, &held);
                    state.seen.makes(state.made, slot);
                    state.made += 1;
                }
                current == 0
            }
            Write::Replace(Object::Secret(secret), _) => {
                let slot = slot_of(&secret.name_any());
                let current = state.objects.secrets[slot];
                let fresh = fresh(&secret.metadata, current);
                if fresh {
                    let held = self.held(state, current);
                    state.objects.secrets[slot] = self.things.put_secret((**secret).clone(), &held);
                }
                fresh
            }
            Write::Delete(Object::Secret(secret)) => {
                let place = &mut state.objects.secrets[slot_of(&secret.name_any())];
                let fresh = fresh(&secret.metadata, *place);
                if fresh {
                    *place = 0;
                }
                fresh
            }
            Write::Status {
                resource_version,
                status,
            } => {
                let current = state.objects.ring;
                let fresh = *resource_version == current.to_string();
                if fresh {
                    let ring = self.things.ring(current).expect("the ring");
                    let mut ring = (**ring).clone();
                    let status = serde_json::from_value(status.clone());
                    ring.status = Some(status.expect("a status"));
                    let held = self.held(state, current);
                    state.objects.ring = self.things.put_ring(ring, &held);
                }
                fresh
            }
            other => panic!("the search knows no {other:?}"),
        };
        Some(done)
    }
}

/// The version that a write is decided on.
fn decided_on(write: &Write) -> Option<Id> {
    let version = match write {
        Write::Replace(Object::ConfigMap(m), _) => m.metadata.resource_version.clone(),
        Write::Replace(Object::Secret(s), _) | Write::Delete(Object::Secret(s)) => {
            s.metadata.resource_version.clone()
        }
        Write::Status {
            resource_version, ..
        } => Some(resource_version.clone()),
        _ => None,
    };
    version?.parse().ok()
}

fn place_of<'a>(objects: &'a mut Objects, name: &str) -> &'a mut Id {
    if name == names::ISSUER_JWKS {
        &mut objects.issuer_map
    } else {
        &mut objects.ring_map
    }
}

fn slot_of(name: &str) -> usize {
    let sequence = names::key_sequence(RING, name).expect("a key pair's name");
    usize::try_from(sequence - 1).expect("a number")
}
