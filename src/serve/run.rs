//! Listening, and ending well: readiness goes first, then the listener, then what is under way.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue, TRANSFER_ENCODING};
use http::{Request, Version};
use http_body::Body;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::admin::Admin;
use super::app::App;
use super::metrics::Metrics;
use super::pulse::PERIOD;
use super::readiness::Readiness;
use super::reply::Reply;
use super::source::Peer;
use super::tls::Tls;

/// How long a client may take to send a request's head; also how long an idle connection is
/// kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest head of a request in bytes; beyond it the answer is 431.
const MAX_HEAD: usize = 32 * 1024;
/// How long a connection is used: no client holds one for ever. The answer after that is its last.
pub const LONGEST_LIFE: Duration = Duration::from_mins(15);
/// And how long its client has to take that one.
const LAST_ANSWER: Duration = Duration::from_mins(1);
/// How long it is not said again that there are too many connections.
const TOLD_AGAIN: Duration = Duration::from_mins(10);
/// More connections to the admin port than this wait; those to the public one have a setting.
const ADMIN_CONNECTIONS: usize = 256;

/// What runs until it is told to end.
pub struct Serving {
    /// The public side; the operator alone has none.
    pub public: Option<Public>,
    /// The admin port.
    pub admin: (TcpListener, Arc<Admin>),
    /// Goes to not ready as the first thing at the end.
    pub readiness: Readiness,
    /// How long to go on accepting after readiness went, so that load balancers notice first.
    pub drain_delay: Duration,
    /// How long requests under way may take to end.
    pub deadline: Duration,
}

/// The public listener.
pub struct Public {
    /// Where it listens. Plain HTTP only where [`super::listener::check`] allows it.
    pub listener: TcpListener,
    /// The certificate; none for plain HTTP.
    pub tls: Option<Arc<Tls>>,
    /// Whether clients reach it through a proxy, whose address says nothing of them.
    pub behind_proxy: bool,
    /// What answers.
    pub app: Arc<App>,
}

/// The time that requests under way have to end, below a pod's usual grace of 30 seconds.
pub const DEADLINE: Duration = Duration::from_secs(25);

impl Serving {
    /// Serves until `shutdown` resolves, then ends: not ready, a delay, no new connections, idle
    /// ones closed, requests under way answered. The admin port answers until the end.
    ///
    /// # Errors
    /// A sentence if TLS can not be set up.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), String> {
        let Self {
            public,
            admin: (admin_listener, admin),
            readiness,
            drain_delay,
            deadline,
        } = self;
        let (stop_public, public_stopped) = watch::channel(());
        let (stop_admin, admin_stopped) = watch::channel(());
        let acceptor = match &public {
            Some(Public { tls: Some(tls), .. }) => Some(tls.acceptor()?),
            _ => None,
        };
        let public = async {
            let Some(Public {
                listener,
                tls,
                behind_proxy,
                app,
            }) = public
            else {
                return;
            };
            let most = app.settings.serving.max_connections;
            let bound = Bound {
                most: most.try_into().unwrap_or(usize::MAX),
                deadline,
            };
            let beating = {
                let app = Arc::clone(&app);
                async move {
                    loop {
                        app.pulse.beat();
                        sleep(PERIOD).await;
                    }
                }
            };
            let handler = Handler::Public {
                app,
                behind_proxy,
                peer: None,
            };
            let serving = accept(listener, acceptor, handler, public_stopped, bound);
            let following = async {
                match &tls {
                    Some(tls) => tls.follow().await,
                    None => std::future::pending().await,
                }
            };
            // Neither of the others ends by itself.
            tokio::select! {
                () = serving => {}
                () = beating => {}
                () = following => {}
            }
        };
        let bound = Bound {
            most: ADMIN_CONNECTIONS,
            deadline: Duration::from_secs(1),
        };
        let handler = Handler::Admin(admin);
        let admin = accept(admin_listener, None, handler, admin_stopped, bound);
        let ending = async {
            shutdown.await;
            readiness.not_ready("shutdown", "This replica is shutting down.");
            tracing::info!("Shutting down: not ready from now on.");
            sleep(drain_delay).await;
            drop(stop_public);
        };
        let public_then_admin = async {
            tokio::join!(public, ending);
            drop(stop_admin);
        };
        tokio::join!(public_then_admin, admin);
        Ok(())
    }
}

#[derive(Clone)]
enum Handler {
    Public {
        app: Arc<App>,
        behind_proxy: bool,
        peer: Option<Peer>,
    },
    Admin(Arc<Admin>),
}

impl Handler {
    /// The same for one connection.
    fn of(&self, connected: SocketAddr) -> Self {
        let mut handler = self.clone();
        if let Self::Public {
            behind_proxy: false,
            peer,
            ..
        } = &mut handler
        {
            *peer = Some(Peer(connected.ip()));
        }
        handler
    }

    /// What counts its connections.
    fn metrics(&self) -> Option<Arc<Metrics>> {
        match self {
            Self::Public { app, .. } => Some(Arc::clone(&app.metrics)),
            Self::Admin(_) => None,
        }
    }

    /// The answer; the last one on a connection that was opened so long ago.
    async fn respond<B: Body<Data = Bytes>>(
        self,
        mut request: Request<B>,
        opened: Instant,
    ) -> Result<Reply, Infallible> {
        let http1 = request.version() <= Version::HTTP_11;
        // With a Content-Length beside it, proxies may disagree on where the request ends (RFC 9112
        // §6.1): nothing may follow it. One that stands after it hyper has dropped by now.
        let chunked = request.headers().contains_key(TRANSFER_ENCODING);
        let mut reply = match self {
            Self::Public { app, peer, .. } => {
                if let Some(peer) = peer {
                    request.extensions_mut().insert(peer);
                }
                app.respond(request).await
            }
            Self::Admin(admin) => admin.respond(&request),
        };
        if http1 && (chunked || opened.elapsed() >= LONGEST_LIFE) {
            let close = HeaderValue::from_static("close");
            reply.headers_mut().insert(CONNECTION, close);
        }
        Ok(reply)
    }
}

/// What bounds the connections of a listener.
struct Bound {
    /// So many at once.
    most: usize,
    /// How long requests under way may take at the end.
    deadline: Duration,
}

/// Takes connections until the other end of `stop` is gone, then lets them end. Those beyond the bound
/// wait in the kernel's queue.
async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    handler: Handler,
    mut stop: watch::Receiver<()>,
    Bound { most, deadline }: Bound,
) {
    let metrics = handler.metrics();
    let mut connections = JoinSet::new();
    let mut told: Option<Instant> = None;
    loop {
        let full = connections.len() >= most;
        if full && told.is_none_or(|at| at.elapsed() > TOLD_AGAIN) {
            told = Some(Instant::now());
            tracing::warn!(
                most,
                "As many connections are open as may be (serving.maxConnections): further ones wait \
                 until one of them ends."
            );
        }
        tokio::select! {
            _ = stop.changed() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if !full => match accepted {
                Ok((stream, connected)) => {
                    let open = metrics.as_ref().map(|metrics| metrics.connection());
                    let serving = connection(stream, tls.clone(), handler.of(connected), stop.clone());
                    connections.spawn(async move {
                        serving.await;
                        drop(open);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "A connection could not be accepted.");
                    // Out of file descriptors, most likely: do not spin.
                    sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    drop(listener);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if timeout(deadline, all_ended).await.is_err() {
        tracing::warn!(
            ?deadline,
            "Requests under way did not end in time and are cut off."
        );
    }
    connections.shutdown().await;
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    handler: Handler,
    stop: watch::Receiver<()>,
) {
    // An answer is one write: waiting for more to send only delays it.
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = tls else {
        return http1(stream, handler, stop).await;
    };
    match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
            http2(stream, handler, stop).await;
        }
        Ok(Ok(stream)) => http1(stream, handler, stop).await,
        Ok(Err(error)) => tracing::debug!(%error, "A TLS handshake failed."),
        Err(_) => tracing::debug!("A TLS handshake took too long."),
    }
}

async fn http1<S>(stream: S, handler: Handler, stop: watch::Receiver<()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let opened = Instant::now();
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(move |r| handler.clone().respond(r, opened)),
        );
    // The last answer says that it is that one, so that no request is lost.
    drive(connection, stop, LONGEST_LIFE + LAST_ANSWER).await;
}

async fn http2<S>(stream: S, handler: Handler, stop: watch::Receiver<()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let opened = Instant::now();
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .max_header_list_size(32 * 1024)
        // A connection that is gone without a word is found out.
        .keep_alive_interval(HEAD_TIMEOUT)
        .keep_alive_timeout(HANDSHAKE_TIMEOUT)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(move |r| handler.clone().respond(r, opened)),
        );
    drive(connection, stop, LONGEST_LIFE).await;
}

/// Serves a connection until it ends. Told to stop, or after so long, it ends with the requests that are
/// under way; one whose client does not even take those answers is cut off.
async fn drive<C>(connection: C, mut stop: watch::Receiver<()>, longest: Duration)
where
    C: GracefulConnection,
    C::Error: std::fmt::Display,
{
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        _ = stop.changed() => None,
        () = sleep(longest) => None,
    };
    let ended = if let Some(ended) = ended {
        ended
    } else {
        connection.as_mut().graceful_shutdown();
        let Ok(ended) = timeout(LAST_ANSWER, connection).await else {
            return tracing::debug!("A connection did not end and is cut off.");
        };
        ended
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "A connection ended badly.");
    }
}
