//! Streams of the gateway by WebSocket.

use super::*;

/// The messages of a client are not masked here, which means: with zeroes.
struct WebSocket(tokio::net::TcpStream);

impl WebSocket {
    async fn open(world: &World, path: &str) -> Self {
        let mut socket = world.connect().await;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.expect("it reads");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.expect("it answers"));
        }
        let head = String::from_utf8(head).expect("a head is text").to_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(
            head.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"),
            "{head}"
        );
        Self(socket)
    }

    async fn send(&mut self, text: &str) {
        let length = u8::try_from(text.len()).expect("a short text");
        assert!(length < 126);
        let frame = [&[0x81, 0x80 | length, 0, 0, 0, 0][..], text.as_bytes()].concat();
        self.0.write_all(&frame).await.expect("it reads");
    }

    /// Sends a frame, and returns the content of the Close with which the connection ends.
    async fn end(mut self, first: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).expect("a short frame");
        let frame = [&[first, 0x80 | length, 0, 0, 0, 0][..], payload].concat();
        self.0.write_all(&frame).await.expect("it reads");
        self.farewell().await
    }

    /// The content of the Close with which the connection ends.
    async fn farewell(mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let reading = self.0.read_to_end(&mut all);
        let read = tokio::time::timeout(PATIENCE, reading).await.expect("it ends in time");
        read.expect("it ends in order");
        assert_eq!(all[..2], [0x88, (all.len() - 2) as u8], "{all:?}");
        all.split_off(2)
    }

    /// The next text; none for a close.
    async fn next(&mut self) -> Option<String> {
        let reading = async {
            let mut text = Vec::new();
            loop {
                let first = self.0.read_u8().await.expect("it answers");
                let length = match self.0.read_u8().await.expect("it answers") {
                    126 => self.0.read_u16().await.expect("it answers").into(),
                    length => usize::from(length),
                };
                let mut part = vec![0; length];
                self.0.read_exact(&mut part).await.expect("it answers");
                match first & 0x0f {
                    0 | 1 => text.extend_from_slice(&part),
                    8 => return None,
                    other => panic!("a frame of kind {other}"),
                }
                if first & 0x80 != 0 {
                    return Some(String::from_utf8(text).expect("text"));
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("it comes in time")
    }
}

#[tokio::test]
async fn watches_and_keep_alives_are_served_by_websocket() {
    let world = World::new(|_| {}).await;
    let mut watch = WebSocket::open(&world, "/v3/watch").await;
    watch.send(r#"{"create_request":{"key":"aw=="}}"#).await;
    let created = watch.next().await.expect("an answer");
    assert!(
        created.starts_with("{\"result\":") && created.contains("\"created\":true"),
        "{created}"
    );
    world.kv().put(put(3)).await.expect("put");
    let event = watch.next().await.expect("an event");
    assert!(event.contains("\"value\":\"dnZ2\""), "{event}");
    watch.send(r#"{"cancel_request":{"watch_id":0}}"#).await;
    assert!(watch.next().await.expect("an answer").contains("\"canceled\":true"));

    world.lease().lease_grant(LeaseGrantRequest { id: 7, ttl: 100 }).await.expect("granted");
    let mut alive = WebSocket::open(&world, "/v3/lease/keepalive").await;
    for _ in 0..2 {
        alive.send(r#"{"ID":7}"#).await;
        let answer = alive.next().await.expect("an answer");
        assert!(answer.contains("\"TTL\":\"100\""), "{answer}");
    }
    // A call with one answer ends with it.
    let mut range = WebSocket::open(&world, "/v3/kv/range").await;
    range.send(r#"{"key":"aw=="}"#).await;
    assert!(range.next().await.expect("an answer").contains("\"count\":\"1\""));
    assert_eq!(range.next().await, None);
    drop((watch, alive));
    let gone = "etcd_debugging_mvcc_watch_stream_total 0\n";
    wait_for(&world, "/metrics", gone).await;
}

#[tokio::test]
async fn a_connection_ends_with_the_close_that_gos_library_sends() {
    let world = World::new(|_| {}).await;
    let open = || WebSocket::open(&world, "/v3/watch");
    assert_eq!(open().await.end(0x88, b"\x03\xe8bye").await, b"\x03\xe8");
    assert_eq!(open().await.end(0x88, b"").await, b"");
    assert_eq!(open().await.end(0x88, b"\x03\xee").await, b"\x03\xeabad close code 1006");
    assert_eq!(open().await.end(0xc1, b"{}").await, b"\x03\xeaRSV1 set");
    assert_eq!(open().await.end(0x83, b"{}").await, b"\x03\xeabad opcode 3");
    assert_eq!(open().await.end(0x09, b"hi").await, b"\x03\xeaFIN not set on control");
    assert_eq!(open().await.end(0x89, &[7; 126]).await, b"\x03\xealen > 125 for control");
    // In the middle of a call.
    let mut watch = open().await;
    watch.send(r#"{"create_request":{"key":"aw=="}}"#).await;
    assert!(watch.next().await.expect("an answer").contains("\"created\":true"));
    watch.0.write_all(b"\x81\x02{}").await.expect("it reads");
    assert_eq!(watch.farewell().await, b"\x03\xeabad MASK");
    wait_for(&world, "/metrics", "\netcd_debugging_mvcc_watch_stream_total 0\n").await;
}

/// Text that is no JSON ends the requests of a watch, and not its connection.
#[tokio::test]
async fn text_that_is_no_utf8_does_not_end_a_connection() {
    let world = World::new(|_| {}).await;
    let mut watch = WebSocket::open(&world, "/v3/watch").await;
    watch.send(r#"{"create_request":{"key":"aw=="}}"#).await;
    assert!(watch.next().await.expect("an answer").contains("\"created\":true"));
    watch.0.write_all(b"\x81\x82\0\0\0\0\xff\xfe").await.expect("it reads");
    world.kv().put(put(3)).await.expect("put");
    assert!(watch.next().await.expect("an event").contains("\"value\":\"dnZ2\""));
    assert_eq!(watch.end(0x88, b"\x03\xe9").await, b"\x03\xe9");
}
