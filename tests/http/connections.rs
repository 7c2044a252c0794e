//! Connections: how many, for how long, and where a request on one ends.

use std::time::Duration;

use chancery::domain::settings::{ServingSettings, Settings};
use chancery::serve::run::LONGEST_LIFE;
use chancery::serve::secrets::HashLimits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::listening::{Running, read_answer, request, start};
use crate::support::*;

const MOST: i32 = 16;

fn bounded() -> World {
    let settings = Settings {
        issuer: ISSUER.into(),
        serving: ServingSettings {
            max_connections: MOST,
            ..ServingSettings::default()
        },
        ..Settings::default()
    };
    World::with_settings(settings)
}

async fn connect(running: &Running) -> TcpStream {
    TcpStream::connect(running.public).await.expect("connected")
}

async fn send(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.expect("sent");
}

const JWKS: &str = "GET /.well-known/jwks.json HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn beyond_the_bound_connections_wait() {
    let world = bounded();
    let (client, _) = robot();
    world
        .store
        .publish(snapshot([ring("main", &es256())], [client]));
    let running = start(&world, None, Duration::ZERO).await;
    let mut open = Vec::new();
    for _ in 0..MOST {
        open.push(connect(&running).await);
    }
    let count = || world.metrics.connections.get();
    eventually("as many as may be", || count() == i64::from(MOST)).await;
    let mut next = connect(&running).await;
    send(&mut next, JWKS).await;
    let early = timeout(Duration::from_millis(300), read_answer(&mut next)).await;
    assert!(early.is_err(), "{early:?}");
    assert_eq!(count(), i64::from(MOST));
    // Those that are open are served meanwhile.
    send(&mut open[0], JWKS).await;
    let answer = read_answer(&mut open[0]).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    open.pop();
    let answer = read_answer(&mut next).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop((open, next));
    eventually("none is left", || count() == 0).await;
    running.ended.abort();
}

/// The server's clocks run fast once all is sent.
#[tokio::test]
async fn a_slow_client_is_ended() {
    let (client, secret) = robot();
    let world = World::with_body_timeout(ISSUER, HashLimits::default(), Duration::from_secs(10));
    world
        .store
        .publish(snapshot([ring("main", &es256())], [client]));
    let running = start(&world, None, Duration::ZERO).await;
    let (mut silent, mut head, mut body) = (
        connect(&running).await,
        connect(&running).await,
        connect(&running).await,
    );
    send(&mut head, "POST /oauth/token HTTP/1.1\r\nhost: x\r\nauthor").await;
    let whole = request(&secret);
    send(&mut body, &whole[..whole.len() - 5]).await;
    eventually("all are there", || {
        world.metrics.connections.get() == 3 && world.metrics.in_flight.get() == 1
    })
    .await;
    tokio::time::pause();
    assert_eq!(read_answer(&mut silent).await, "");
    // What was begun may be answered before the end.
    let answer = read_answer(&mut head).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
        "{answer}"
    );
    let answer = read_answer(&mut body).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(body.read(&mut [0; 16]).await.expect("in order"), 0);
    tokio::time::resume();
    eventually("none is left", || world.metrics.connections.get() == 0).await;
    running.ended.abort();
}

#[tokio::test]
async fn no_connection_is_for_ever() {
    let world = World::serving(robot().0);
    let running = start(&world, None, Duration::ZERO).await;
    let mut stream = connect(&running).await;
    let step = Duration::from_secs(25);
    let mut age = Duration::ZERO;
    while age < LONGEST_LIFE {
        send(&mut stream, JWKS).await;
        let answer = read_answer(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(!answer.contains("connection: close"), "at {age:?}");
        tokio::time::pause();
        tokio::time::advance(step).await;
        tokio::time::resume();
        age += step;
    }
    send(&mut stream, JWKS).await;
    let answer = read_answer(&mut stream).await;
    assert!(answer.contains("connection: close"), "{answer}");
    assert_eq!(stream.read(&mut [0; 16]).await.expect("in order"), 0);

    // A client that takes no answer is cut off: these are more than the buffers hold.
    let mut deaf = connect(&running).await;
    let flood = JWKS.repeat(500);
    let mut written = 0;
    while let Ok(Ok(n)) = timeout(Duration::from_millis(200), deaf.write(flood.as_bytes())).await {
        written += n;
    }
    assert_eq!(world.metrics.connections.get(), 1, "{written}");
    for _ in 0..60 {
        if world.metrics.connections.get() == 0 {
            break;
        }
        tokio::time::pause();
        tokio::time::advance(Duration::from_mins(1)).await;
        tokio::time::resume();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(world.metrics.connections.get(), 0, "within an hour");
    running.ended.abort();
}

/// RFC 9112 §6.1: a request whose end two parsers may see in two places is the last on its connection.
#[tokio::test]
async fn nothing_follows_a_request_with_two_lengths() {
    let (client, secret) = robot();
    let world = World::serving(client);
    let running = start(&world, None, Duration::ZERO).await;
    let form = "grant_type=client_credentials";
    let chunks = format!("{:x}\r\n{form}\r\n0\r\n\r\n", form.len());
    let encoding = "transfer-encoding: chunked\r\n";
    let length = format!("content-length: {}\r\n", form.len());
    for lengths in [
        format!("{encoding}{length}"),
        format!("{length}{encoding}"),
        encoding.to_owned(),
    ] {
        let mut stream = connect(&running).await;
        let head = format!(
            "POST /oauth/token HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\n\
             content-type: application/x-www-form-urlencoded\r\n{lengths}\r\n",
            basic("acme.robot", &secret)
        );
        send(&mut stream, &format!("{head}{chunks}{JWKS}")).await;
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.expect("closed in order");
        let all = String::from_utf8_lossy(&all);
        assert!(all.starts_with("HTTP/1.1 200"), "{lengths:?}: {all}");
        assert_eq!(all.matches("HTTP/1.1").count(), 1, "{lengths:?}: {all}");
    }
    // Two lengths that differ, and one with a sign, are none.
    for lengths in [
        "content-length: 4\r\ncontent-length: 5\r\n",
        "content-length: +4\r\n",
        "transfer-encoding: gzip\r\n",
    ] {
        let mut stream = connect(&running).await;
        let head = format!("POST /oauth/token HTTP/1.1\r\nhost: x\r\n{lengths}\r\nabcde{JWKS}");
        send(&mut stream, &head).await;
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.expect("closed in order");
        let all = String::from_utf8_lossy(&all);
        assert!(all.starts_with("HTTP/1.1 400"), "{lengths:?}: {all}");
        assert_eq!(all.matches("HTTP/1.1").count(), 1, "{lengths:?}: {all}");
    }
    running.ended.abort();
}
