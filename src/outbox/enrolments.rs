//! People who are new, and legal entities that no namespace has.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::ConfigMap;

use super::{Answer, Book, Notes};
use crate::domain::enrolment::{Newcomer, read};
use crate::domain::names::ENROLMENTS;
use crate::objects::enrolments;
use crate::serve::enrol;
use crate::serve::revoke::Unnoted;

impl enrol::Enrolments for Notes<Newcomer> {
    fn note(&self, newcomer: Newcomer) -> BoxFuture<'static, Answer> {
        self.take(newcomer)
    }
}

/// How newcomers are noted.
pub struct Enrolments;

impl Book for Enrolments {
    type Note = Newcomer;
    const MAP: &'static str = ENROLMENTS;

    fn noted(
        &self,
        map: &ConfigMap,
        notes: &[Newcomer],
    ) -> (Option<BTreeMap<String, String>>, Vec<Answer>) {
        // What is no note does not take its room from those that are; the operator tells of it, and takes
        // away what was put there by hand.
        let (mut all, refused) = read(&enrolments::noted(map));
        let (mut changed, mut answers) = (!refused.is_empty(), Vec::with_capacity(notes.len()));
        for newcomer in notes {
            let outcome = all.add(newcomer);
            changed |= outcome == Ok(true);
            answers.push(outcome.map(drop).map_err(|_| Unnoted::Full));
        }
        (changed.then(|| all.write()), answers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(namespace: &str, subject: &str) -> Newcomer {
        Newcomer::Person {
            namespace: namespace.into(),
            provider: "corp".into(),
            subject: subject.into(),
        }
    }

    #[test]
    fn many_requests_for_one_are_one_note() {
        let mut map = ConfigMap::default();
        let notes = [
            person("acme", "ann"),
            person("acme", "ann"),
            person("globex", "bob"),
        ];
        let (data, answers) = Enrolments.noted(&map, &notes);
        assert_eq!(answers, [Ok(()); 3]);
        let data = data.expect("it differs");
        assert_eq!(data["acme"], r#"{"corp":["ann"]}"#);
        map.data = Some(data);
        assert_eq!(Enrolments.noted(&map, &notes), (None, vec![Ok(()); 3]));
    }

    #[test]
    fn one_that_is_full_keeps_no_other_out() {
        let long = |n: usize| person("greedy", &format!("{n:0>250}"));
        let mut notes: Vec<_> = (0..100).map(long).collect();
        notes.push(person("modest", "ann"));
        let (data, answers) = Enrolments.noted(&ConfigMap::default(), &notes);
        assert!(answers.contains(&Err(Unnoted::Full)));
        assert_eq!(answers.last(), Some(&Ok(())));
        assert!(data.is_some_and(|data| data.contains_key("modest")));
    }

    #[test]
    fn what_stands_there_by_hand_takes_no_room() {
        let data = BTreeMap::from([("acme".to_owned(), "x".repeat(900_000))]);
        let map = ConfigMap {
            data: Some(data),
            ..ConfigMap::default()
        };
        let (data, answers) = Enrolments.noted(&map, &[person("acme", "ann")]);
        assert_eq!(answers, [Ok(())]);
        assert_eq!(data.expect("it differs")["acme"], r#"{"corp":["ann"]}"#);
    }
}
