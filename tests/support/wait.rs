//! Waiting on conditions. A test never sleeps for luck: it says what it waits for, how long at
//! most, and fails with the last reason why not.

use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

/// How long to wait between two looks: short beside what a person notices, long beside what a look
/// costs on a machine of two cores.
pub const INTERVAL: Duration = Duration::from_millis(50);

/// Calls `look` until it gives `Ok`, and panics with its last error once `timeout` is over.
#[track_caller]
pub fn eventually<T, E: Display>(
    what: &str,
    timeout: Duration,
    look: impl FnMut() -> Result<T, E>,
) -> T {
    match until(timeout, look) {
        Ok(value) => value,
        Err(last) => panic!("{}", too_late(what, timeout, &last)),
    }
}

/// Like [`eventually`], for a look that awaits something.
pub async fn eventually_async<T, E: Display, F>(
    what: &str,
    timeout: Duration,
    mut look: impl FnMut() -> F,
) -> T
where
    F: Future<Output = Result<T, E>>,
{
    let deadline = Instant::now() + timeout;
    loop {
        match look().await {
            Ok(value) => return value,
            Err(last) if Instant::now() >= deadline => {
                panic!("{}", too_late(what, timeout, &last))
            }
            Err(_) => tokio::time::sleep(INTERVAL).await,
        }
    }
}

/// Like [`eventually`], for a caller that wants to handle the last error itself.
pub fn until<T, E>(timeout: Duration, mut look: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let deadline = Instant::now() + timeout;
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(last) if Instant::now() >= deadline => return Err(last),
            Err(_) => std::thread::sleep(INTERVAL),
        }
    }
}

fn too_late(what: &str, timeout: Duration, last: &impl Display) -> String {
    format!("waited {timeout:?} in vain: {what}. The last look said: {last}")
}
