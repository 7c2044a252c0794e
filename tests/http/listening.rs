//! Real listeners: what goes over the wire, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use chancery::serve::admin::Admin;
use chancery::serve::run::{Public, Serving};
use chancery::serve::tls::Tls;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::support::*;

/// A server on loopback.
pub struct Running {
    pub public: std::net::SocketAddr,
    pub admin: std::net::SocketAddr,
    pub stop: Option<oneshot::Sender<()>>,
    pub ended: JoinHandle<Result<(), String>>,
}

pub async fn start(world: &World, tls: Option<Arc<Tls>>, drain_delay: Duration) -> Running {
    let bind = async || TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (public, admin) = (bind().await, bind().await);
    let addresses = (
        public.local_addr().expect("bound"),
        admin.local_addr().expect("bound"),
    );
    let (stop, stopped) = oneshot::channel::<()>();
    let admin_state = Admin::new(world.readiness.clone(), Arc::clone(&world.registry));
    let serving = Serving {
        public: Some(Public {
            behind_proxy: false,
            listener: public,
            tls,
            app: Arc::clone(&world.app),
        }),
        admin: (admin, Arc::new(admin_state)),
        readiness: world.readiness.clone(),
        drain_delay,
        deadline: Duration::from_secs(10),
    };
    let ended = tokio::spawn(serving.run(async {
        let _ = stopped.await;
    }));
    Running {
        public: addresses.0,
        admin: addresses.1,
        stop: Some(stop),
        ended,
    }
}

pub fn request(secret: &str) -> String {
    let body = "grant_type=client_credentials";
    format!(
        "POST /oauth/token HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
        basic("acme.robot", secret),
        body.len()
    )
}

/// Reads one answer whose body has a length.
pub async fn read_answer(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|l| l.strip_prefix("content-length: "));
            if length.is_some_and(|l| body.len() >= l.parse().expect("a number")) {
                return text;
            }
        }
        let n = stream.read(&mut buffer).await.expect("readable");
        if n == 0 {
            return text;
        }
        read.extend_from_slice(&buffer[..n]);
    }
}

#[tokio::test]
async fn a_token_over_the_wire_and_an_end_that_loses_nothing() {
    let (client, secret) = robot();
    let world = World::serving(client);
    let mut running = start(&world, None, Duration::ZERO).await;
    let mut idle = TcpStream::connect(running.public).await.expect("connected");
    idle.write_all(request(&secret).as_bytes())
        .await
        .expect("sent");
    assert!(read_answer(&mut idle).await.starts_with("HTTP/1.1 200"));
    // A request is under way: its head is here and its body is not.
    let mut under_way = TcpStream::connect(running.public).await.expect("connected");
    let whole = request(&secret);
    let (first, rest) = whole.split_at(whole.len() - 5);
    under_way.write_all(first.as_bytes()).await.expect("sent");
    eventually("its head is read", || world.metrics.in_flight.get() == 1).await;

    running
        .stop
        .take()
        .expect("running")
        .send(())
        .expect("listening");
    eventually("not ready", || !world.readiness.is_ready()).await;
    // The idle connection is closed, new ones are not taken, and the request is answered.
    assert_eq!(idle.read(&mut [0; 16]).await.expect("closed in order"), 0);
    let mut refused = false;
    for _ in 0..1000 {
        refused = TcpStream::connect(running.public).await.is_err();
        if refused {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(refused);
    // The admin port tells why until the end.
    let mut admin = TcpStream::connect(running.admin).await.expect("connected");
    admin
        .write_all(b"GET /readyz?verbose HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("sent");
    let answer = read_answer(&mut admin).await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("shutting down"),
        "{answer}"
    );
    assert!(!running.ended.is_finished());
    under_way.write_all(rest.as_bytes()).await.expect("sent");
    let answer = read_answer(&mut under_way).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(running.ended.await.expect("no panic"), Ok(()));
}

#[tokio::test]
async fn while_it_drains_it_still_accepts() {
    let (client, secret) = robot();
    let world = World::serving(client);
    let mut running = start(&world, None, Duration::from_mins(10)).await;
    running
        .stop
        .take()
        .expect("running")
        .send(())
        .expect("listening");
    eventually("not ready", || !world.readiness.is_ready()).await;
    let mut late = TcpStream::connect(running.public).await.expect("connected");
    late.write_all(request(&secret).as_bytes())
        .await
        .expect("sent");
    assert!(read_answer(&mut late).await.starts_with("HTTP/1.1 200"));
    running.ended.abort();
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let world = World::serving(robot().0);
    let running = start(&world, None, Duration::ZERO).await;
    let mut stream = TcpStream::connect(running.public).await.expect("connected");
    let _ = stream.write_all(b"POST /oauth/token HTTP/1.1\r\nx: ").await;
    let _ = stream.write_all(&vec![b'a'; 64 * 1024]).await;
    let answer = read_answer(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    running.ended.abort();
}
