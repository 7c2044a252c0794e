//! The clock is compared with the API server's `Date`.

use std::time::Duration;

use http::header::DATE;
use http::{HeaderMap, Request, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use kube::Client;
use kube::client::Body;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info};

use crate::clock::ClockGuard;
use crate::serve::readiness::Readiness;

/// The part of readiness that minds the clock.
pub const CLOCK: &str = "clock";

/// How often the clock is looked at, at least.
const LOOK: Duration = Duration::from_secs(1);
/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Looks at the clock every second, compares it with the API server's when that is due, and says
/// when it can not be believed. Never ends.
pub async fn follow(client: Client, guard: ClockGuard, readiness: Readiness) {
    let mut off = false;
    loop {
        if guard.begin_check() {
            match timeout(LIMIT, date(&client)).await {
                Ok(Ok(date)) => guard.compared(date),
                Ok(Err(why)) => {
                    debug!(%why, "the clock could not be compared with the API server's");
                }
                Err(_) => debug!("the API server did not say in time what time it is"),
            }
        }
        match guard.problem() {
            None => {
                readiness.ready(CLOCK);
                if off {
                    info!("The clock agrees with the API server's again.");
                }
                off = false;
            }
            Some(problem) => {
                // Before the first answer there is nothing to cry about.
                if !off && guard.offset().is_some() {
                    error!("{problem}");
                    off = true;
                }
                readiness.not_ready(CLOCK, problem);
            }
        }
        sleep(LOOK).await;
    }
}

/// What time it is for the API server.
///
/// # Errors
/// A sentence, if it does not answer or does not say.
pub async fn date(client: &Client) -> Result<Timestamp, String> {
    let request = Request::get("/version")
        .body(Body::empty())
        .map_err(|e| e.to_string())?;
    let response = client.send(request).await.map_err(|e| e.to_string())?;
    let status = response.status();
    // One that is refused is answered by the API server too; what a proxy says of an API server
    // that it can not reach is not.
    if !status.is_success() && ![StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status)
    {
        return Err(format!("GET /version was answered with {status}"));
    }
    let date = date_of(response.headers())?;
    // Read to its end, so that the connection can be used again.
    let _ = response.into_body().collect_bytes().await;
    Ok(date)
}

fn date_of(headers: &HeaderMap) -> Result<Timestamp, String> {
    let value = headers.get(DATE).and_then(|value| value.to_str().ok());
    let value = value.ok_or("GET /version was answered without a Date")?;
    // Of the form of RFC 9110 §5.6.7, which is one of RFC 2822's.
    rfc2822::DateTimeParser::new()
        .parse_timestamp(value)
        .map_err(|e| format!("GET /version was answered with the Date {value:?}: {e}"))
}
