//! What clients without a token can do to a server that runs as a process: their connections, their
//! handshakes and what they begin and do not end delay nobody else and end nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::client::Client;
use super::crash::runtime;
use super::curl::Curl;
use super::process::{Kind, Server, scratch};
use super::procfs::resident_bytes;

/// A put and the server's health, over a new connection; how long both took.
fn serves(server: &Server) -> Duration {
    let began = Instant::now();
    let endpoint = server.endpoint();
    runtime().block_on(async {
        let mut client = Client::connect(&endpoint).await;
        client.put(b"key", b"value").await.expect("a put is answered");
    });
    let health = Curl::new(server.client_url()).run(&["/health"]);
    assert!(health.stdout.contains("true"), "{health:?}");
    began.elapsed()
}

fn connect(port: u16, first: &[u8]) -> TcpStream {
    let mut conn = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
    // A connection that had to give way takes nothing.
    let _ = conn.write_all(first);
    conn
}

/// Whether the server closes a connection within `time`.
fn is_closed(mut conn: &TcpStream, time: Duration) -> bool {
    conn.set_read_timeout(Some(time)).expect("more than no time");
    match conn.read(&mut [0; 512]) {
        Ok(len) => len == 0 || is_closed(conn, time),
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

/// etcd keeps 150 descriptors back for its files and lets clients wait.
#[test]
fn silent_connections_leave_files_and_places_to_others() {
    let dir = scratch();
    let mut server = Server::single(Kind::Quorate, dir.path(), &["--snapshot-count=10"]);
    server.limit_files(300);
    server.start();
    let silent: Vec<_> = (0..600).map(|_| connect(server.client_port, b"")).collect();
    for _ in 0..30 {
        assert!(serves(&server) < Duration::from_secs(2));
    }
    let short = Duration::from_millis(1);
    assert!(silent.iter().any(|conn| is_closed(conn, short)), "places were needed");
    drop(silent);
    assert!(serves(&server) < Duration::from_secs(2));
}

#[test]
fn silent_peer_connections_leave_places_to_members() {
    let (_dir, server) = Server::serving();
    let silent: Vec<_> = (0..1_400).map(|_| connect(server.peer_port, b"")).collect();
    let began = Instant::now();
    let version = Curl::new(server.peer_url()).run(&["/version"]);
    assert!(version.stdout.contains("etcdserver"), "{version:?}");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    drop(silent);
}

#[test]
fn silent_handshakes_do_not_delay_others() {
    let dir = scratch();
    let mut server = Server::single(Kind::Quorate, dir.path(), &["--auto-tls"]);
    server.secure_clients();
    server.start();
    // The second half begins as a handshake does.
    let silent = (0..3_000).map(|n| {
        let first: &[u8] = if n % 2 == 0 { b"" } else { b"\x16\x03\x01\x02\x00\x01" };
        connect(server.client_port, first)
    });
    let silent: Vec<_> = silent.collect();
    let began = Instant::now();
    let health = Curl::new(server.client_url()).run(&["/health", "--insecure"]);
    assert!(health.stdout.contains("true"), "{health:?}");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    drop(silent);
}

#[test]
fn what_is_begun_and_not_ended_is_not_waited_for() {
    let (_dir, server) = Server::serving();
    let body = b"POST /v3/kv/put HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{\"key\":";
    let begun: [&[u8]; 4] = [b"", b"PRI * HTTP/2.0\r\n", b"GET /health HTTP/1.1\r\nhost:", body];
    let conns = begun.map(|first| connect(server.client_port, first));
    for (conn, first) in conns.iter().zip(begun) {
        let first = String::from_utf8_lossy(first);
        assert!(is_closed(conn, Duration::from_secs(45)), "{first:?} is waited for");
    }
}

/// The client sends no end of what it has begun, so what has come of it counts; etcd keeps all of it.
#[test]
fn unfinished_watch_requests_take_little_memory_and_end_for_newer_ones() {
    let (_dir, server) = Server::serving();
    let pid = server.pid().expect("it runs");
    let before = resident_bytes(pid);
    let text = "A".repeat(1 << 20);
    let begun = format!(
        "POST /v3/watch HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n\
         {{\"create_request\":{{\"key\":\"{text}",
        text.len() + 26
    );
    let conns: Vec<_> = (0..200).map(|_| connect(server.client_port, begun.as_bytes())).collect();
    // Of 200 MB there is room for less than half.
    let closed = |conn: &TcpStream| is_closed(conn, Duration::from_secs(20));
    assert!(conns[..60].iter().all(closed), "the oldest ones end");
    assert!(serves(&server) < Duration::from_secs(2));
    let more = resident_bytes(pid).saturating_sub(before);
    assert!(more < 300 << 20, "{more} bytes more");
    assert!(!is_closed(&conns[199], Duration::from_millis(1)), "the newest one goes on");
}

/// A few bytes are a request, and etcd logs each of them.
#[test]
fn requests_of_no_kind_fill_no_log() {
    let (_dir, server) = Server::serving();
    let body = "{}".repeat(1 << 20);
    let head = "POST /v3/watch HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length:";
    let conn = connect(server.client_port, format!("{head} {}\r\n\r\n", body.len()).as_bytes());
    (&conn).write_all(body.as_bytes()).expect("all of it is read");
    // Behind them, so that it is answered when they were.
    let mut server = server;
    server.wait_log("invalid watch request type received in gRPC stream");
    assert!(serves(&server) < Duration::from_secs(2));
    assert!(server.output().len() < 256 << 10, "{} bytes of log", server.output().len());
}

/// etcd speaks gRPC over HTTP/2 only: a page in a browser cannot get around the whitelist by a header.
#[test]
fn grpc_over_http_1_is_checked_as_http() {
    let (_dir, mut server) = Server::serving();
    server.kill();
    server.flags.push("--host-whitelist=good.example".into());
    server.start();
    let ask = |host: &str| {
        let host = format!("host: {host}");
        let args = ["--http1.1", "-H", &host, "-H", "content-type: application/grpc", "-d", "x"];
        let curl = Curl::new(server.client_url());
        curl.run(&[&["/etcdserverpb.KV/Range"][..], &args].concat()).stderr
    };
    assert!(ask("evil.example").contains("421"), "{}", ask("evil.example"));
    assert!(ask("good.example").contains("404"), "{}", ask("good.example"));
}
