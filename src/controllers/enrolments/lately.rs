//! What was made a moment ago: it counts before its watch shows it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use crate::controllers::{Decision, Object, Write};

/// Within so many seconds what was made is seen in the store.
pub const SEEN_WITHIN: SignedDuration = SignedDuration::from_secs(60);

/// What this process has made and may not have seen yet: the User, or a namespace without a name in it.
#[derive(Debug, Default)]
pub struct Lately(Mutex<BTreeMap<(String, String), Timestamp>>);

impl Lately {
    /// Whatever a decision makes is remembered.
    pub fn remember(&self, decision: &Decision, now: Timestamp) {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for write in &decision.writes {
            let name = match write {
                Write::Create(Object::User(user), _) => {
                    (user.namespace().unwrap_or_default(), user.name_any())
                }
                Write::Create(Object::Namespace(namespace), _) => {
                    (namespace.name_any(), String::new())
                }
                _ => continue,
            };
            made.insert(name, now);
        }
    }

    /// Those that are not seen yet.
    pub fn unseen(
        &self,
        is_seen: impl Fn(&str, &str) -> bool,
        now: Timestamp,
    ) -> Vec<(String, String)> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        made.retain(|(namespace, name), at| {
            now.duration_since(*at) < SEEN_WITHIN && !is_seen(namespace, name)
        });
        made.keys().cloned().collect()
    }
}
