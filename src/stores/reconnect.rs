//! A watch that failed: how soon it is tried again, what is said of it, and how often.

use std::time::Duration;

use kube::client::AuthError;
use kube::core::Status;
use kube::runtime::watcher;
use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(200);

/// The longest wait after such a failure. After an outage of the API server a replica must not serve
/// an old JWKS for the half minute that kube's own backoff may take.
fn longest(error: &watcher::Error) -> Duration {
    match status(error).map(|s| s.code) {
        // It lasts until a person grants what is missing.
        Some(401 | 403) => Duration::from_secs(30),
        // No CRD, most likely: a person waits for what comes of installing it.
        Some(404) => Duration::from_secs(5),
        _ => Duration::from_secs(1),
    }
}

/// Waits that double up to a bound that goes by the error, each shorter by up to half, so that
/// watches which failed together do not come back together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reconnect(Option<Step>);

#[derive(Clone, Copy, Debug)]
struct Step {
    wait: Duration,
    longest: Duration,
}

impl Reconnect {
    /// How long to wait after this failure. `luck` is between 0 and 1.
    pub fn wait(&mut self, error: &watcher::Error, luck: f64) -> Duration {
        let longest = longest(error);
        let wait = match self.0 {
            None => FIRST,
            Some(last) if last.longest == longest => last.wait * 2,
            // An API server that comes up refuses all for a moment.
            Some(last) => last.wait,
        };
        let wait = wait.min(longest);
        self.0 = Some(Step { wait, longest });
        wait.mul_f64(1.0 - 0.5 * luck)
    }

    /// The watch has delivered something.
    pub fn reset(&mut self) {
        self.0 = None;
    }
}

/// How long one and the same error is not said again.
const AGAIN: Duration = Duration::from_mins(10);
/// How many errors are said in that time.
const MOST: usize = 8;

/// What was said of failures: each change is to be told, and not each try.
#[derive(Debug, Default)]
pub struct Said(Vec<(String, Instant)>);

impl Said {
    /// Whether to say it; then it counts as said.
    pub fn is_news(&mut self, sentence: &str, now: Instant) -> bool {
        self.0.retain(|(_, at)| now.duration_since(*at) < AGAIN);
        let news = self.0.len() < MOST && !self.0.iter().any(|(said, _)| said == sentence);
        if news {
            self.0.push((sentence.to_owned(), now));
        }
        news
    }
}

/// The most of an error that is told: a proxy may answer with a page.
const LONGEST_SENTENCE: usize = 400;

/// What went wrong, for the log and for `/readyz`. It never quotes what was sent or received but for
/// the API server's own sentence: the output of a credential plugin, or a Secret that can not be
/// parsed, could be in an error's text.
pub fn sentence(error: &watcher::Error) -> String {
    if let Some(status) = status(error) {
        let said = status.message.lines().next().unwrap_or_default().trim();
        let said: String = said.chars().take(LONGEST_SENTENCE).collect();
        let code = status.code;
        return match code {
            404 => format!("{said} ({code}; are the CRDs installed? kubectl apply -f crds/)"),
            _ => format!("{said} ({code})"),
        };
    }
    let mut chain: Vec<&(dyn std::error::Error + 'static)> = vec![error];
    while let Some(deeper) = chain.last().and_then(|e| e.source()) {
        chain.push(deeper);
    }
    if chain.iter().any(|e| e.is::<AuthError>()) {
        return "this account's credentials for the API server could not be had".into();
    }
    let kube = chain.iter().find_map(|e| e.downcast_ref::<kube::Error>());
    match (kube, chain.last()) {
        (
            Some(
                kube::Error::Service(_)
                | kube::Error::HyperError(_)
                | kube::Error::ReadEvents(_)
                | kube::Error::RustlsTls(_),
            ),
            Some(cause),
        ) => {
            let cause: String = cause.to_string().chars().take(LONGEST_SENTENCE).collect();
            format!("the API server can not be reached ({cause})")
        }
        _ => "the API server's answer could not be read".into(),
    }
}

fn status(error: &watcher::Error) -> Option<&Status> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: u16, message: &str) -> watcher::Error {
        let status = Status::failure(message, "Reason").with_code(code);
        watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))
    }

    fn broken() -> watcher::Error {
        let why: Box<dyn std::error::Error + Send + Sync> = "connection refused".into();
        watcher::Error::InitialListFailed(kube::Error::Service(why))
    }

    #[test]
    fn waits_double_up_to_a_bound_that_goes_by_the_error() {
        for (error, longest) in [
            (answered(403, "forbidden"), 30),
            (answered(401, "Unauthorized"), 30),
            (answered(404, "not found"), 5),
            (answered(503, "busy"), 1),
            (broken(), 1),
        ] {
            let mut reconnect = Reconnect::default();
            let waits: Vec<_> = (0..12).map(|_| reconnect.wait(&error, 0.0)).collect();
            assert_eq!(waits[..2], [FIRST, FIRST * 2], "{error}");
            let longest = Duration::from_secs(longest);
            let doubles = |w: &[Duration]| w[1] == (w[0] * 2).min(longest);
            assert!(waits.windows(2).all(doubles), "{error}: {waits:?}");
            assert_eq!(waits[11], longest, "{error}");
            assert_eq!(reconnect.wait(&error, 1.0), longest / 2);
            reconnect.reset();
            assert_eq!(reconnect.wait(&error, 0.0), FIRST);
        }
    }

    #[test]
    fn another_error_neither_hastens_nor_lengthens_at_once() {
        let mut reconnect = Reconnect::default();
        for _ in 0..12 {
            reconnect.wait(&answered(403, "forbidden"), 0.0);
        }
        let second = Duration::from_secs(1);
        assert_eq!(reconnect.wait(&broken(), 0.0), second);
        assert_eq!(reconnect.wait(&answered(403, "forbidden"), 0.0), second);
        assert_eq!(reconnect.wait(&answered(403, "forbidden"), 0.0), second * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn each_change_is_said_and_the_same_only_after_a_while() {
        let (mut said, start) = (Said::default(), Instant::now());
        assert!(said.is_news("a", start));
        assert!(!said.is_news("a", start + AGAIN / 2));
        assert!(said.is_news("b", start + AGAIN / 2));
        assert!(!said.is_news("a", start + AGAIN / 2), "back and forth");
        assert!(said.is_news("a", start + AGAIN));
        let told = (0..100).filter(|n| said.is_news(&n.to_string(), start + AGAIN));
        assert_eq!(told.count(), MOST - 2, "errors that differ each time");
    }

    #[test]
    fn a_sentence_quotes_nothing_but_the_api_servers_own() {
        let forbidden = "secrets is forbidden: User \"x\" cannot list resource \"secrets\"";
        assert_eq!(
            sentence(&answered(403, forbidden)),
            format!("{forbidden} (403)")
        );
        assert!(
            sentence(&answered(404, "404 page not found\n")).contains("kubectl apply -f crds/")
        );
        assert!(sentence(&answered(502, &"<html>".repeat(1000))).len() < LONGEST_SENTENCE + 10);
        assert_eq!(
            sentence(&broken()),
            "the API server can not be reached (connection refused)"
        );
        let parse = serde_json::from_str::<bool>("\"hunter2\"").expect_err("no bool");
        assert!(parse.to_string().contains("hunter2"), "{parse}");
        let unread = watcher::Error::InitialListFailed(kube::Error::SerdeError(parse));
        // As the client wraps them where a token is to be had first, and later.
        let auth = || AuthError::AuthExec("said hunter2".into());
        let early = watcher::Error::InitialListFailed(kube::Error::Auth(auth()));
        let late = watcher::Error::WatchFailed(kube::Error::Service(auth().into()));
        for error in [unread, early, late] {
            assert!(error.to_string().contains("hunter2"));
            assert!(
                !sentence(&error).contains("hunter2"),
                "{}",
                sentence(&error)
            );
        }
    }
}
