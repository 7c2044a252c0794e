use std::time::Duration;

use super::*;
use crate::controllers::Kind;

const COST: u32 = 4;

fn user(namespace: &str, name: &str) -> Key {
    Key {
        kind: Kind::TechnicalUser,
        namespace: namespace.into(),
        name: name.into(),
    }
}

fn plain(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.into())
}

fn ask(hashing: &Hashing, of: &Key, secret: &str, stored: &[String], cost: u32) -> Judged {
    let question = Question {
        of,
        place: ("mine", "client_secret"),
        plain: &plain(secret),
        stored,
        cost,
    };
    hashing.judge(&question).expect("no fault")
}

/// Asks until there is an answer.
async fn answer(hashing: &Hashing, secret: &str, stored: &[String], cost: u32) -> Judged {
    let of = user("acme", "orders");
    loop {
        match ask(hashing, &of, secret, stored, cost) {
            Judged::Pending => {
                let finished = tokio::time::timeout(Duration::from_mins(1), hashing.finished());
                assert_eq!(finished.await.expect("in time"), std::slice::from_ref(&of));
            }
            judged => return judged,
        }
    }
}

fn new(judged: Judged) -> (String, Option<String>) {
    match judged {
        Judged::New { hash, instead_of } => (hash, instead_of),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_client_secret_is_found_among_those_that_are_stored_or_hashed() {
    let of_other = hash::hash("another one", COST).expect("hashed");
    let of_first = hash::hash("the first one", COST).expect("hashed");
    let hashing = Hashing::with_threads(1);
    let stored = [of_other, of_first.clone()];
    let judged = answer(&hashing, "the first one", &stored, COST).await;
    assert_eq!(judged, Judged::Same(of_first.clone()));
    let (made, instead_of) = new(answer(&hashing, "the next one", &stored, COST).await);
    assert!(hash::verify("the next one", &made) && instead_of.is_none());

    // What is known costs nothing: it is there at once.
    let of = user("acme", "orders");
    let [other, first] = stored;
    let stored = [other, first, made.clone()];
    let at_once = |secret| ask(&hashing, &of, secret, &stored, COST);
    assert_eq!(at_once("the next one"), Judged::Same(made.clone()));
    assert_eq!(at_once("the first one"), Judged::Same(of_first.clone()));

    // Another cost is wanted.
    let (dearer, instead_of) = new(answer(&hashing, "the first one", &stored, COST + 1).await);
    assert_eq!(hash::cost_of(&dearer), Some(COST + 1));
    assert_eq!(instead_of, Some(of_first));

    hashing.forget(&of);
    assert_eq!(
        ask(&hashing, &of, "the next one", &[made], COST),
        Judged::Pending
    );
}

#[tokio::test]
async fn what_is_remembered_of_one_is_bounded_and_keeps_what_is_stored() {
    let hashing = Hashing::with_threads(1);
    let (stored, _) = new(answer(&hashing, "the stored one", &[], COST).await);
    let stored = [stored];
    for n in 0..40 {
        answer(&hashing, &format!("passing {n}"), &stored, COST).await;
    }
    let of = user("acme", "orders");
    let known = hashing.shared.state().facts[&of].len();
    assert!(known <= MOST_FACTS + 1, "{known}");
    let judged = ask(&hashing, &of, "the stored one", &stored, COST);
    assert_eq!(judged, Judged::Same(stored[0].clone()));
}

#[test]
fn namespaces_take_turns_and_the_newest_counts() {
    let job = |namespace: &str, name: &str, place: &str, tag: u8| Job {
        of: user(namespace, name),
        place: (place.into(), "client_secret".into()),
        tag: [tag; 32],
        plain: plain("x"),
        compare: Vec::new(),
        stored: Vec::new(),
        make: Some(COST),
    };
    let mut state = State::default();
    for n in 0..30 {
        state.submit(job("acme", &format!("user-{n:02}"), "a", 1));
    }
    for tag in 2..50 {
        state.submit(job("acme", "user-00", &format!("b{tag}"), tag));
    }
    state.submit(job("acme", "user-01", "a", 2));
    state.submit(job("globex", "orders", "a", 1));
    let mut next = || {
        let job = state.take()?;
        Some((job.of.name.clone(), job.place.0.clone(), job.tag[0]))
    };
    let told = |name: &str, place: &str, tag| Some((name.to_owned(), place.to_owned(), tag));
    assert_eq!(next(), told("user-01", "a", 2), "the newest, in its place");
    assert_eq!(next(), told("orders", "a", 1), "nobody waits for a tenant");
    let rest: Vec<_> = std::iter::from_fn(next).collect();
    assert_eq!(rest.len(), 28 + MOST_JOBS);
    let of_first = rest.into_iter().filter(|(name, ..)| name == "user-00");
    let tags: Vec<_> = of_first.map(|(_, _, tag)| tag).collect();
    assert_eq!(tags, [48, 49]);
    // What runs already is not begun again.
    state.submit(job("globex", "orders", "a", 1));
    assert!(state.take().is_none());
}
