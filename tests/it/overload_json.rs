//! The same as in [`overload`](super::overload) over JSON: large ranges by several clients at once, and
//! watch streams that are not read.

use std::time::Instant;

use futures::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::crash::runtime;
use super::overload::{
    BYTES, CLIENTS, EXTRA_MAX, Peak, STALLED_BYTES_MAX, VALUE_BYTES, fill, key, value,
};
use super::process::{Server, loudly};
use super::procfs::resident_bytes;

/// All keys.
const ALL: &str = r#"{"key":"AA==","range_end":"AA=="}"#;

#[test]
fn large_ranges_in_json_take_little_memory() {
    const KEYS: usize = BYTES / VALUE_BYTES;
    let (_dir, server) = Server::serving();
    let (endpoint, pid) = (server.endpoint(), server.pid().expect("it runs"));
    runtime().block_on(async {
        fill(&endpoint, KEYS).await;
        let text = Json::post(&endpoint, "/v3/kv/range", ALL).await.read(true).await.text;
        let answer: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(answer["count"], KEYS.to_string());
        assert!(answer["header"]["revision"].is_string() && answer["more"].is_null());
        let kvs = answer["kvs"].as_array().expect("a list");
        for (n, kv) in kvs.iter().enumerate() {
            assert_eq!(kv["key"], base64(&key(n)));
            assert_eq!(kv["value"], base64(&value(n)));
        }
        assert_eq!(kvs.len(), KEYS);

        let before = resident_bytes(pid);
        let (began, peak) = (Instant::now(), Peak::start(pid));
        let read = async || Json::post(&endpoint, "/v3/kv/range", ALL).await.read(false).await.bytes;
        let all = join_all((0..CLIENTS).map(|_| read())).await;
        let extra = peak.stop().saturating_sub(before);
        loudly(&format!(
            "in JSON: {CLIENTS} clients read {} MB each in {:.1?}: {} MB resident before, {} MB more",
            BYTES >> 20,
            began.elapsed(),
            before >> 20,
            extra >> 20
        ));
        assert!(all.iter().all(|bytes| *bytes > BYTES as u64 * 4 / 3), "{all:?}");
        assert!(extra < EXTRA_MAX.min(2 * BYTES as u64), "{} MB more", extra >> 20);
    });
}

#[test]
fn watchers_in_json_that_read_nothing_cost_little() {
    const STREAMS: usize = 120;
    const WRITES: usize = (64 << 20) / VALUE_BYTES;
    /// So often that the log and the store keep as much of writes as they ever do.
    const TIMES: usize = 3;
    /// Text is longer by a third, and HTTP/1 gathers more before it writes than HTTP/2.
    const STREAM_BYTES_MAX: u64 = STALLED_BYTES_MAX * 3 / 2;
    /// What the writes may take beside what they took before.
    const WRITES_EXTRA: u64 = 64 << 20;
    let (_dir, server) = Server::serving();
    let (endpoint, pid) = (server.endpoint(), server.pid().expect("it runs"));
    runtime().block_on(async {
        let peak = Peak::start(pid);
        for _ in 0..TIMES {
            fill(&endpoint, WRITES).await;
        }
        let without = peak.stop();
        let peak = Peak::start(pid);
        let mut stalled = Vec::new();
        for _ in 0..STREAMS {
            let create = format!(r#"{{"create_request":{ALL}}}"#);
            let mut stream = Json::post(&endpoint, "/v3/watch", &create).await;
            stream.read_until(br#""created":true"#).await;
            stalled.push(stream);
        }
        fill(&endpoint, WRITES).await;
        let extra = peak.stop().saturating_sub(without);
        loudly(&format!("{STREAMS} streams in JSON that are not read: {} MB more", extra >> 20));
        let most = STREAMS as u64 * STREAM_BYTES_MAX + WRITES_EXTRA;
        assert!(extra < most, "{} MB", extra >> 20);

        let before = (TIMES * WRITES) as i64 + 1;
        let (first, last) = (before + 1, before + WRITES as i64);
        let mut stream = stalled.swap_remove(0);
        let end = format!(r#""mod_revision":"{last}""#);
        let text = stream.read_until(end.as_bytes()).await;
        let text = String::from_utf8(text).expect("JSON is text");
        let told = text.split(r#""mod_revision":""#).skip(1);
        let told = told.map(|rest| rest[..rest.find('"').expect("its end")].parse());
        let told: Result<Vec<i64>, _> = told.collect();
        assert_eq!(told.expect("revisions"), (first..=last).collect::<Vec<_>>());
    });
}

/// An answer on its way, over a connection of its own.
struct Json(TcpStream);

/// What came of it, the framing of HTTP/1 left out of the text.
struct Answer {
    bytes: u64,
    text: Vec<u8>,
}

impl Json {
    async fn post(endpoint: &str, path: &str, json: &str) -> Self {
        let mut connection = TcpStream::connect(endpoint).await.expect("it serves");
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {endpoint}\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{json}",
            json.len()
        );
        connection.write_all(request.as_bytes()).await.expect("it listens");
        Self(connection)
    }

    /// To the end; keeps nothing that is not wanted.
    async fn read(mut self, keep: bool) -> Answer {
        let (mut piece, mut kept, mut bytes) = (vec![0; 256 << 10], Vec::new(), 0);
        loop {
            let read = self.0.read(&mut piece).await.expect("it goes on");
            if read == 0 {
                break;
            }
            bytes += read as u64;
            if keep {
                kept.extend_from_slice(&piece[..read]);
            }
        }
        let text = if keep { body(&kept) } else { Vec::new() };
        Answer { bytes, text }
    }

    /// What comes up to this text, which is there.
    async fn read_until(&mut self, end: &[u8]) -> Vec<u8> {
        let (mut piece, mut all) = (vec![0; 64 << 10], Vec::new());
        loop {
            let read = self.0.read(&mut piece).await.expect("it goes on");
            assert!(read > 0, "the answer ended: {}", String::from_utf8_lossy(&all));
            let from = all.len().saturating_sub(end.len());
            all.extend_from_slice(&piece[..read]);
            if all[from..].windows(end.len()).any(|window| window == end) {
                return all;
            }
        }
    }
}

/// The body of an answer that is chunked.
fn body(answer: &[u8]) -> Vec<u8> {
    let end = |of: &[u8], mark: &[u8]| of.windows(mark.len()).position(|window| window == mark);
    let head = end(answer, b"\r\n\r\n").expect("an answer has a head") + 4;
    let (head, mut rest) = answer.split_at(head);
    let head = String::from_utf8_lossy(head).to_lowercase();
    assert!(head.starts_with("http/1.1 200") && head.contains("chunked"), "{head}");
    let mut body = Vec::new();
    loop {
        let line = end(rest, b"\r\n").expect("a chunk has a length");
        let length = std::str::from_utf8(&rest[..line]).expect("a number");
        let length = usize::from_str_radix(length, 16).expect("a number");
        if length == 0 {
            return body;
        }
        let chunk = &rest[line + 2..];
        body.extend_from_slice(&chunk[..length]);
        rest = &chunk[length + 2..];
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
