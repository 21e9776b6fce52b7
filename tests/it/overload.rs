//! Large ranges by several clients at once: every byte of every answer comes, and the server's memory
//! stays where it was. `QUORATE_RANGE_BYTES` says how much there is to read; a gigabyte takes a minute
//! or two:
//!
//! ```sh
//! QUORATE_RANGE_BYTES=1073741824 cargo test --release -p quorate --test it large_ranges -- --nocapture
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::future::join_all;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use quorate_proto::etcdserverpb::{RangeRequest, RangeResponse, RangeStreamResponse};
use tonic::body::Body;
use tower::Service as _;

use super::client::{Channel, Client};
use super::crash::runtime;
use super::process::{Kind, Server, loudly, scratch};
use super::procfs::resident_bytes;

const CLIENTS: usize = 5;
const VALUE_BYTES: usize = 16 << 10;
/// Without the variable: so little that the test is quick, so much that it would show.
const BYTES: usize = 80 << 20;
/// What all answers together may take in the server's memory.
const EXTRA_MAX: u64 = 256 << 20;
const RANGE: &str = "etcdserverpb.KV/Range";
const STREAM: &str = "etcdserverpb.KV/RangeStream";

#[test]
fn large_ranges_take_little_memory() {
    let bytes = std::env::var("QUORATE_RANGE_BYTES").ok();
    let bytes = bytes.map_or(BYTES, |bytes| bytes.parse().expect("a number of bytes"));
    let keys = bytes / VALUE_BYTES;
    let dir = scratch();
    let mut server = Server::single(Kind::subject(), dir.path(), &[]);
    server.start();
    let (endpoint, pid) = (server.endpoint(), server.pid().expect("it runs"));
    runtime().block_on(async {
        fill(&endpoint, keys).await;
        // What RocksDB keeps of what it has read is not the answers' memory.
        assert!(read(&endpoint, RANGE, false).await.bytes > bytes as u64);
        for method in [RANGE, STREAM] {
            let before = resident_bytes(pid);
            let began = Instant::now();
            let peak = Peak::start(pid);
            let answers = join_all((0..CLIENTS).map(|_| read(&endpoint, method, false))).await;
            let (peak, took) = (peak.stop(), began.elapsed());
            for answer in &answers {
                assert!(answer.bytes > bytes as u64, "{method}: {} bytes", answer.bytes);
                assert_eq!(answer.code, "0", "{method}");
            }
            let (mb, extra) = (|bytes: u64| bytes >> 20, peak.saturating_sub(before));
            loudly(&format!(
                "{method}: {CLIENTS} clients read {} MB each in {took:.1?}: {} MB resident before, \
                 {} MB at most, {} MB more",
                mb(bytes as u64),
                mb(before),
                mb(peak),
                mb(extra)
            ));
            // Less than one answer at a time would take, where that says more.
            let most = EXTRA_MAX.min(2 * bytes as u64);
            assert!(extra < most, "{method}: {} MB more than {} MB", mb(extra), mb(before));
        }
    });
}

#[test]
fn an_answer_in_pages_is_the_answer() {
    const KEYS: usize = 300;
    let dir = scratch();
    let mut server = Server::single(Kind::subject(), dir.path(), &[]);
    server.start();
    let endpoint = server.endpoint();
    runtime().block_on(async {
        fill(&endpoint, KEYS).await;
        let whole = read(&endpoint, RANGE, true).await.messages.remove(0);
        let whole = RangeResponse::decode(whole).expect("a whole message");
        assert_eq!((whole.kvs.len(), whole.count, whole.more), (KEYS, KEYS as i64, false));
        for (n, kv) in whole.kvs.iter().enumerate() {
            assert_eq!((&kv.key, &kv.value), (&key(n), &value(n)));
        }
        let chunks = read(&endpoint, STREAM, true).await.messages;
        assert!(chunks.len() > 3, "{} chunks", chunks.len());
        let (mut kvs, mut last) = (Vec::new(), RangeResponse::default());
        for chunk in chunks {
            assert_eq!(last.header, None, "a chunk after the last");
            let chunk = RangeStreamResponse::decode(chunk).expect("a whole message");
            last = chunk.range_response.expect("it is never left out");
            kvs.append(&mut last.kvs);
        }
        assert_eq!(RangeResponse { kvs, ..last }, whole);
    });
}

/// The largest number of bytes resident, looked at all the time.
struct Peak {
    stop: Arc<AtomicBool>,
    watch: std::thread::JoinHandle<u64>,
}

impl Peak {
    fn start(pid: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let watch = std::thread::spawn(move || {
            let mut most = 0;
            while !stopped.load(Ordering::Relaxed) {
                most = most.max(resident_bytes(pid));
                std::thread::sleep(Duration::from_millis(5));
            }
            most
        });
        Self { stop, watch }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.watch.join().expect("the server runs")
    }
}

fn key(n: usize) -> Bytes {
    format!("large/{n:09}").into()
}

/// Unlike any other, and nothing that could be kept smaller.
fn value(n: usize) -> Bytes {
    let mut state = n as u64 + 1;
    let mut word = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_le_bytes()
    };
    (0..VALUE_BYTES / 8).flat_map(|_| word()).collect()
}

async fn fill(endpoint: &str, keys: usize) {
    const WRITERS: usize = 64;
    let client = Client::connect(endpoint).await;
    let write = |writer: usize| {
        let mut client = client.clone();
        async move {
            for n in (writer..keys).step_by(WRITERS) {
                client.put(&key(n), &value(n)).await.expect("written");
            }
        }
    };
    join_all((0..WRITERS).map(write)).await;
}

/// What came back: bytes of all messages with their prefixes, and the messages if they were wanted.
struct Answer {
    bytes: u64,
    code: String,
    messages: Vec<Bytes>,
}

/// Reads everything, by a connection of its own; keeps nothing that is not wanted.
async fn read(endpoint: &str, method: &str, keep: bool) -> Answer {
    let all = RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
    let message = all.encode_to_vec();
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(&message);
    let request = Request::post(format!("http://{endpoint}/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(Full::new(frame.freeze())))
        .expect("a request");
    let mut channel = Channel::connect(endpoint).await.expect("it serves");
    let response = channel.call(request).await.expect("the connection lives");
    let (head, mut body) = response.into_parts();
    let mut trailers = head.headers;
    let (mut bytes, mut kept) = (0, BytesMut::new());
    while let Some(frame) = body.frame().await {
        match frame.expect("the stream is whole").into_data() {
            Ok(data) => {
                bytes += data.len() as u64;
                if keep {
                    kept.put(data);
                }
            }
            Err(frame) => trailers = frame.into_trailers().expect("the end"),
        }
    }
    let code = trailers.get("grpc-status").expect("a call has a result");
    let code = code.to_str().expect("a number").to_owned();
    let (mut messages, mut rest) = (Vec::new(), kept.freeze());
    while rest.len() >= 5 {
        rest.advance(1);
        let size = rest.get_u32() as usize;
        messages.push(rest.split_to(size));
    }
    assert!(rest.is_empty(), "a broken message");
    Answer { bytes, code, messages }
}
