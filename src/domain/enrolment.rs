//! Enrolment: what servers note of people who are new, and of legal entities that no namespace has, until
//! the operator makes Users and namespaces of it. A note is worth nothing by itself: [`read`] keeps what has
//! the form of one, and whoever acts on it compares it with what there is.
//!
//! A tenant's notes stand under its namespace, and have so little room that no tenant takes another's.
//! Those of legal entities stand under [`LEGAL_ENTITIES`], which can be no namespace.

use std::collections::{BTreeMap, BTreeSet};

use super::provider::{is_legal_entity, is_subject};
use super::revocation::Full;
use super::settings::is_dns_label;
use super::user::person_id;

/// Under this stand legal entities.
pub const LEGAL_ENTITIES: &str = "_legal-entities";
/// The room of each tenant's notes, in bytes of JSON: some fifty people, who are brought home in a moment.
pub const MOST_OF_TENANT: usize = 8 * 1024;
/// The room of all notes together, in bytes: a `ConfigMap` holds a mebibyte with its metadata.
const MOST_BYTES: usize = 900_000;
/// The longest id of a provider: a namespace, a slash and a name.
const LONGEST_PROVIDER: usize = 63 + 1 + 63;

/// Whom a server has met that is not known here.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Newcomer {
    /// A person of a tenant.
    Person {
        /// The tenant's namespace.
        namespace: String,
        /// The provider's id ([`super::user::provider_id`]).
        provider: String,
        /// What the provider calls the person.
        subject: String,
    },
    /// A legal entity that no namespace has.
    LegalEntity {
        /// The provider's id; one for every tenant.
        provider: String,
        /// The legal entity's id.
        id: String,
    },
}

impl Newcomer {
    /// Under what it is noted.
    pub fn place(&self) -> &str {
        match self {
            Self::Person { namespace, .. } => namespace,
            Self::LegalEntity { .. } => LEGAL_ENTITIES,
        }
    }

    /// Provider and subject, or provider and legal entity.
    fn parts(&self) -> (&str, &str) {
        match self {
            Self::Person {
                provider, subject, ..
            } => (provider, subject),
            Self::LegalEntity { provider, id } => (provider, id),
        }
    }

    /// The person's id; none for a legal entity.
    pub fn person(&self) -> Option<String> {
        match self {
            Self::Person {
                provider, subject, ..
            } => Some(person_id(provider, subject)),
            Self::LegalEntity { .. } => None,
        }
    }
}

/// What stands in one place: subjects, or legal entities, by provider.
type Share = BTreeMap<String, BTreeSet<String>>;

/// Notes that were read, and what is to be written of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes(BTreeMap<String, Share>);

impl Notes {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = Newcomer> + '_ {
        self.0.iter().flat_map(|(place, share)| {
            share.iter().flat_map(move |(provider, those)| {
                those.iter().map(move |one| newcomer(place, provider, one))
            })
        })
    }

    /// Adds a note. Whether it was not there.
    ///
    /// # Errors
    /// There is no room, and nothing was added.
    pub fn add(&mut self, newcomer: &Newcomer) -> Result<bool, Full> {
        let (provider, one) = newcomer.parts();
        let mut after = self.0.get(newcomer.place()).cloned().unwrap_or_default();
        let those = after.entry(provider.to_owned()).or_default();
        if !those.insert(one.to_owned()) {
            return Ok(false);
        }
        let size = written(&after).len();
        let others = self
            .0
            .iter()
            .filter(|(place, _)| *place != newcomer.place());
        let others: usize = others
            .map(|(place, s)| place.len() + written(s).len())
            .sum();
        if size > MOST_OF_TENANT || others + newcomer.place().len() + size > MOST_BYTES {
            return Err(Full);
        }
        self.0.insert(newcomer.place().to_owned(), after);
        Ok(true)
    }

    /// As it is written: JSON by place.
    pub fn write(&self) -> BTreeMap<String, String> {
        let shares = self.0.iter();
        shares
            .map(|(place, s)| (place.clone(), written(s)))
            .collect()
    }
}

impl FromIterator<Newcomer> for Notes {
    fn from_iter<I: IntoIterator<Item = Newcomer>>(all: I) -> Self {
        let mut notes = Self::default();
        for newcomer in all {
            let (provider, one) = newcomer.parts();
            let share = notes.0.entry(newcomer.place().to_owned()).or_default();
            share
                .entry(provider.to_owned())
                .or_default()
                .insert(one.to_owned());
        }
        notes
    }
}

fn newcomer(place: &str, provider: &str, one: &str) -> Newcomer {
    let (provider, one) = (provider.to_owned(), one.to_owned());
    if place == LEGAL_ENTITIES {
        Newcomer::LegalEntity { provider, id: one }
    } else {
        Newcomer::Person {
            namespace: place.to_owned(),
            provider,
            subject: one,
        }
    }
}

fn written(share: &Share) -> String {
    serde_json::to_string(share).unwrap_or_default()
}

/// What has the form of notes, and a sentence on each place where something has not. Nobody's words are
/// quoted: what stands there anyone may have written.
pub fn read(data: &BTreeMap<String, String>) -> (Notes, Vec<String>) {
    let (mut notes, mut refused) = (Notes::default(), Vec::new());
    for (place, text) in data {
        let name: String = place.chars().take(63).collect();
        let mut refuse = |why: &str| refused.push(format!("the entry of {name:?}: {why}"));
        if place != LEGAL_ENTITIES && !is_dns_label(place) {
            refuse("it is no namespace");
            continue;
        }
        if text.len() > MOST_OF_TENANT {
            refuse("it is longer than any can be");
            continue;
        }
        let Ok(mut share) = serde_json::from_str::<Share>(text) else {
            refuse("it is no list of people by provider");
            continue;
        };
        let before: usize = share.values().map(BTreeSet::len).sum();
        share.retain(|provider, those| {
            those.retain(|one| match place.as_str() {
                LEGAL_ENTITIES => is_legal_entity(one),
                _ => is_subject(one),
            });
            !those.is_empty() && may_be_of(place, provider)
        });
        let odd = before - share.values().map(BTreeSet::len).sum::<usize>();
        if odd > 0 {
            refuse(&format!(
                "{odd} in it are nobody that a provider of that tenant can name"
            ));
        }
        if !share.is_empty() {
            notes.0.insert(place.clone(), share);
        }
    }
    (notes, refused)
}

/// Whether this can be the id of a provider for that place: for a tenant one for all, or its own.
fn may_be_of(place: &str, provider: &str) -> bool {
    let name = match provider.split_once('/') {
        None => provider,
        Some((namespace, name)) if namespace == place => name,
        Some(_) => return false,
    };
    provider.len() <= LONGEST_PROVIDER && super::names::is_object_name(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn person(namespace: &str, provider: &str, subject: &str) -> Newcomer {
        Newcomer::Person {
            namespace: namespace.into(),
            provider: provider.into(),
            subject: subject.into(),
        }
    }

    #[test]
    fn what_is_noted_reads_back_once() {
        let all = [
            person("acme", "corp", "ann"),
            person("acme", "acme/own", "ann"),
            person("globex", "corp", "o'neil \"x\" \\ ü"),
            Newcomer::LegalEntity {
                provider: "corp".into(),
                id: "le-1".into(),
            },
        ];
        let mut notes = Notes::default();
        for newcomer in &all {
            assert_eq!(notes.add(newcomer), Ok(true));
            assert_eq!(notes.add(newcomer), Ok(false), "once");
        }
        let (back, refused) = read(&notes.write());
        assert_eq!((&back, refused), (&notes, Vec::new()));
        let read: BTreeSet<_> = back.all().collect();
        assert_eq!(read, all.into_iter().collect());
        assert_eq!(back.all().collect::<Notes>(), notes);
    }

    #[test]
    fn a_tenant_fills_its_own_room_alone() {
        let mut notes = Notes::default();
        let long = "x".repeat(200);
        let mut of_one = 0;
        while notes.add(&person("greedy", "corp", &format!("{long}{of_one}"))) == Ok(true) {
            of_one += 1;
        }
        assert!((30..60).contains(&of_one), "{of_one}");
        assert_eq!(
            notes.add(&person("greedy", "corp", &format!("{long}more"))),
            Err(Full)
        );
        assert_eq!(notes.add(&person("modest", "corp", "ann")), Ok(true));
        // Only where very many fill theirs at once there is none left.
        let mut tenants = 0;
        'all: for n in 0.. {
            for m in 0.. {
                let more = person(&format!("t{n}"), "corp", &format!("{long}{m}"));
                if notes.add(&more) == Err(Full) {
                    if m == 0 {
                        break 'all;
                    }
                    break;
                }
            }
            tenants = n;
        }
        assert!(tenants > 100, "{tenants}");
        let all: usize = notes.write().iter().map(|(k, v)| k.len() + v.len()).sum();
        assert!(all <= MOST_BYTES);
    }

    #[test]
    fn what_no_server_can_have_noted_is_left_out() {
        let long = format!(r#"{{"corp":["{}"]}}"#, "x".repeat(256));
        let huge = format!(r#"{{"corp":["{}"]}}"#, "x".repeat(9000));
        for (place, text, why) in [
            ("acme", "garbage", "no list"),
            ("acme", r#"{"corp":["a\nb"]}"#, "nobody"),
            ("acme", r#"{"corp":[""]}"#, "nobody"),
            ("acme", long.as_str(), "nobody"),
            ("acme", huge.as_str(), "longer"),
            ("acme", r#"{"globex/own":["ann"]}"#, "nobody"),
            ("acme", r#"{"a:b":["ann"]}"#, "nobody"),
            ("acme", r#"{"../x":["ann"]}"#, "nobody"),
            ("Acme", r#"{"corp":["ann"]}"#, "no namespace"),
            (LEGAL_ENTITIES, r#"{"corp":["a b"]}"#, "nobody"),
            (LEGAL_ENTITIES, r#"{"acme/corp":["le-1"]}"#, "nobody"),
        ] {
            let data = BTreeMap::from([(place.to_owned(), text.to_owned())]);
            let (notes, refused) = read(&data);
            assert_eq!(notes.all().count(), 0, "{place} {text:.40}");
            assert_eq!(refused.len(), 1, "{place} {text:.40}");
            assert!(refused[0].contains(why), "{refused:?}");
        }
        // The sound ones beside it are kept.
        let mixed = r#"{"corp":["ann","b\u0000b"],"globex/x":["c"]}"#;
        let (notes, refused) = read(&BTreeMap::from([("acme".to_owned(), mixed.to_owned())]));
        let kept: Vec<_> = notes.all().collect();
        assert_eq!(kept, [person("acme", "corp", "ann")]);
        assert_eq!(refused.len(), 1);
    }

    proptest! {
        /// Whatever stands there, what is read is sound, bounded, and reads back as itself.
        #[test]
        fn whatever_is_written_by_hand(
            data in prop::collection::btree_map("[a-z_-]{1,5}|_legal-entities", "\\PC{0,40}|\\{\"(corp|a/b)\":\\[\"\\PC{0,9}\"\\]\\}", 0..6),
        ) {
            let (notes, refused) = read(&data);
            prop_assert!(refused.len() <= data.len());
            let (again, none) = read(&notes.write());
            prop_assert_eq!(&again, &notes);
            prop_assert!(none.is_empty());
            for newcomer in notes.all() {
                let (provider, one) = newcomer.parts();
                prop_assert!(one.len() <= 255 && !one.is_empty() && !one.contains(char::is_control));
                prop_assert!(may_be_of(newcomer.place(), provider));
            }
        }
    }
}
