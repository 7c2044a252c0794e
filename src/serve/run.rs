//! Listening, and ending well: readiness goes first, then the listener, then what is under way.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::Body;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::admin::Admin;
use super::app::App;
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
/// More connections than this wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 8192;

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
            let serving = accept(
                listener,
                acceptor,
                Handler::Public {
                    app,
                    behind_proxy,
                    peer: None,
                },
                public_stopped,
                deadline,
            );
            match &tls {
                // Following the files never ends by itself.
                Some(tls) => tokio::select! {
                    () = serving => {}
                    () = tls.follow() => {}
                },
                None => serving.await,
            }
        };
        let admin = accept(
            admin_listener,
            None,
            Handler::Admin(admin),
            admin_stopped,
            Duration::from_secs(1),
        );
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

    async fn respond<B: Body<Data = Bytes>>(
        self,
        mut request: Request<B>,
    ) -> Result<Reply, Infallible> {
        Ok(match self {
            Self::Public { app, peer, .. } => {
                if let Some(peer) = peer {
                    request.extensions_mut().insert(peer);
                }
                app.respond(request).await
            }
            Self::Admin(admin) => admin.respond(&request),
        })
    }
}

/// Takes connections until the other end of `stop` is gone, then lets them end.
async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    handler: Handler,
    mut stop: watch::Receiver<()>,
    deadline: Duration,
) {
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = stop.changed() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, connected)) => {
                    let watcher = graceful.watcher();
                    let handler = handler.of(connected);
                    connections.spawn(connection(stream, tls.clone(), handler, watcher));
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
    if timeout(deadline, graceful.shutdown()).await.is_err() {
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
    watcher: Watcher,
) {
    // An answer is one write: waiting for more to send only delays it.
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = tls else {
        return http1(stream, handler, watcher).await;
    };
    match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
            http2(stream, handler, watcher).await;
        }
        Ok(Ok(stream)) => http1(stream, handler, watcher).await,
        Ok(Err(error)) => tracing::debug!(%error, "A TLS handshake failed."),
        Err(_) => tracing::debug!("A TLS handshake took too long."),
    }
}

async fn http1<S>(stream: S, handler: Handler, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(move |r| handler.clone().respond(r)),
        );
    ended(watcher.watch(connection).await);
}

async fn http2<S>(stream: S, handler: Handler, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .max_header_list_size(32 * 1024)
        // A connection that is gone without a word is found out.
        .keep_alive_interval(HEAD_TIMEOUT)
        .keep_alive_timeout(HANDSHAKE_TIMEOUT)
        .serve_connection(
            TokioIo::new(stream),
            service_fn(move |r| handler.clone().respond(r)),
        );
    ended(watcher.watch(connection).await);
}

fn ended(result: Result<(), hyper::Error>) {
    if let Err(error) = result {
        tracing::debug!(%error, "A connection ended badly.");
    }
}
