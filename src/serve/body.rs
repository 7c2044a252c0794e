//! Bodies of requests: how long one may be, how long it may take, and how much of all that is not
//! whole yet is held at once.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::Body;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::reply::Refusal;

/// The longest body in bytes.
pub const MAX_BODY: usize = 64 * 1024;
/// How long a client may take to send its body, as a rule.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How many bytes of bodies that are not whole yet are held at once. One connection can have a hundred
/// of them (HTTP/2), so that the number of connections bounds them poorly.
pub const MOST_UNFINISHED: usize = 64 * 1024 * 1024;

/// Reads bodies.
pub struct Bodies {
    unfinished: Semaphore,
}

impl Default for Bodies {
    fn default() -> Self {
        Self {
            unfinished: Semaphore::new(MOST_UNFINISHED),
        }
    }
}

impl Bodies {
    /// The body, of which no more than [`MAX_BODY`] is ever held. One that comes whole, as nearly all
    /// do, is read however much of others waits.
    ///
    /// # Errors
    /// It is too long, takes too long, ends too early, or too much of others is held.
    pub(super) async fn read<B>(&self, body: B, within: Duration) -> Result<Bytes, Refusal>
    where
        B: Body<Data = Bytes>,
    {
        if body.size_hint().lower() > MAX_BODY as u64 {
            return Err(too_long());
        }
        let reading = self.gather(body);
        timeout(within, reading).await.unwrap_or_else(|_| {
            Err(
                Refusal::invalid_request("the body took too long to arrive.")
                    .with_status(StatusCode::REQUEST_TIMEOUT),
            )
        })
    }

    async fn gather<B>(&self, body: B) -> Result<Bytes, Refusal>
    where
        B: Body<Data = Bytes>,
    {
        let mut body = pin!(body);
        // Most bodies come in one piece, which is then not copied.
        let mut first = Bytes::new();
        let mut more = BytesMut::new();
        let mut held = Vec::new();
        while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            let frame =
                frame.map_err(|_| Refusal::invalid_request("the body ended before its end."))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if first.len().max(more.len()) + data.len() > MAX_BODY {
                return Err(too_long());
            }
            if !body.is_end_stream() {
                let bytes = u32::try_from(data.len()).unwrap_or(u32::MAX);
                held.push(self.unfinished.try_acquire_many(bytes).map_err(|_| {
                    Refusal::unavailable(
                        "too many requests are waited for whose bodies are not whole.",
                    )
                })?);
            }
            if first.is_empty() && more.is_empty() {
                first = data;
            } else {
                if more.is_empty() {
                    more.extend_from_slice(&first);
                }
                more.extend_from_slice(&data);
            }
        }
        Ok(if more.is_empty() {
            first
        } else {
            more.freeze()
        })
    }
}

fn too_long() -> Refusal {
    Refusal::invalid_request(format!("the body is longer than {MAX_BODY} bytes."))
        .with_status(StatusCode::PAYLOAD_TOO_LARGE)
}
