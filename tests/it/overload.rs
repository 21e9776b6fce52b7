//! Large ranges by several clients at once, in any order and in txns: every byte of every answer comes,
//! and the server's memory stays where it was. `QUORATE_RANGE_BYTES` sets how much there is to read; a
//! gigabyte takes a minute or two:
//!
//! ```sh
//! QUORATE_RANGE_BYTES=1073741824 cargo test --release -p quorate --test it large_ranges -- --nocapture
//! ```

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::future::{join, join_all};
use futures::stream::{self, StreamExt as _};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use quorate_proto::etcdserverpb::{
    RangeRequest, RangeResponse, RangeStreamResponse, RequestOp, TxnRequest, TxnResponse,
    WatchCreateRequest, WatchRequest, WatchResponse,
    range_request::{SortOrder, SortTarget},
    request_op::Request as Op,
    response_op::Response,
    watch_client::WatchClient,
    watch_request::RequestUnion,
};
use tonic::Streaming;
use tonic::body::Body;
use tower::Service as _;

use super::client::{Channel, Client};
use super::crash::runtime;
use super::process::{Server, loudly};
use super::procfs::resident_bytes;

pub const CLIENTS: usize = 5;
pub const VALUE_BYTES: usize = 16 << 10;
/// Without the variable: so little that the test is quick, so much that it would show.
pub const BYTES: usize = 80 << 20;
/// What all answers together may take in the server's memory.
pub const EXTRA_MAX: u64 = 256 << 20;
/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A call for all keys.
#[derive(Clone)]
struct Ask {
    name: &'static str,
    method: &'static str,
    message: Vec<u8>,
}

impl Ask {
    fn range() -> Self {
        Self::new("in the order of keys", "Range", &all())
    }

    fn stream() -> Self {
        Self::new("as a stream", "RangeStream", &all())
    }

    fn newest_first() -> Self {
        let newest_first = RangeRequest {
            sort_order: SortOrder::Descend as i32,
            sort_target: SortTarget::Mod as i32,
            ..all()
        };
        Self::new("newest first", "Range", &newest_first)
    }

    fn by_value() -> Self {
        let by_value = RangeRequest {
            sort_order: SortOrder::Ascend as i32,
            sort_target: SortTarget::Value as i32,
            ..all()
        };
        Self::new("by value", "Range", &by_value)
    }

    /// The keys before the middle, last one first, and the others.
    fn txn(keys: usize) -> Self {
        let before = RangeRequest {
            range_end: key(keys / 2),
            sort_order: SortOrder::Descend as i32,
            ..all()
        };
        let behind = RangeRequest { key: key(keys / 2), ..all() };
        let read = |range| RequestOp { request: Some(Op::RequestRange(range)) };
        let success = vec![read(before), read(behind)];
        Self::new("in a txn", "Txn", &TxnRequest { success, ..TxnRequest::default() })
    }

    fn new(name: &'static str, method: &'static str, message: &impl prost::Message) -> Self {
        Self { name, method, message: message.encode_to_vec() }
    }
}

fn all() -> RangeRequest {
    RangeRequest { key: "\0".into(), range_end: "\0".into(), ..RangeRequest::default() }
}

#[test]
fn large_ranges_take_little_memory() {
    let bytes = std::env::var("QUORATE_RANGE_BYTES").ok();
    let bytes = bytes.map_or(BYTES, |bytes| bytes.parse().expect("a number of bytes"));
    let keys = bytes / VALUE_BYTES;
    let (_dir, server) = Server::serving();
    let (endpoint, pid) = (server.endpoint(), server.pid().expect("it runs"));
    runtime().block_on(async {
        fill(&endpoint, keys).await;
        // What RocksDB keeps of what it has read is not the answers' memory.
        assert!(read(&endpoint, &Ask::range(), false).await.bytes > bytes as u64);
        let sorted = [Ask::newest_first(), Ask::by_value(), Ask::txn(keys)];
        for ask in [Ask::range(), Ask::stream()].into_iter().chain(sorted) {
            let name = ask.name;
            let before = resident_bytes(pid);
            let began = Instant::now();
            let peak = Peak::start(pid);
            let answers = join_all((0..CLIENTS).map(|_| read(&endpoint, &ask, false))).await;
            let (peak, took) = (peak.stop(), began.elapsed());
            for answer in &answers {
                assert!(answer.bytes > bytes as u64, "{name}: {} bytes", answer.bytes);
                assert_eq!(answer.code, "0", "{name}");
            }
            let (mb, extra) = (|bytes: u64| bytes >> 20, peak.saturating_sub(before));
            loudly(&format!(
                "{name}: {CLIENTS} clients read {} MB each in {took:.1?}: {} MB resident before, \
                 {} MB at most, {} MB more",
                mb(bytes as u64),
                mb(before),
                mb(peak),
                mb(extra)
            ));
            // Less than one answer at a time would take, where that is more.
            let most = EXTRA_MAX.min(2 * bytes as u64);
            assert!(extra < most, "{name}: {} MB more than {} MB", mb(extra), mb(before));
        }
    });
}

#[test]
fn an_answer_in_pages_is_the_answer() {
    // More than are put in order at once.
    const KEYS: usize = 600;
    let (_dir, server) = Server::serving();
    let endpoint = server.endpoint();
    runtime().block_on(async {
        fill(&endpoint, KEYS).await;
        let whole = read(&endpoint, &Ask::range(), true).await.messages.remove(0);
        let whole = RangeResponse::decode(whole).expect("a whole message");
        assert_eq!((whole.kvs.len(), whole.count, whole.more), (KEYS, KEYS as i64, false));
        for (n, kv) in whole.kvs.iter().enumerate() {
            assert_eq!((&kv.key, &kv.value), (&key(n), &value(n)));
        }
        let chunks = read(&endpoint, &Ask::stream(), true).await.messages;
        assert!(chunks.len() > 3, "{} chunks", chunks.len());
        let (mut kvs, mut last) = (Vec::new(), RangeResponse::default());
        for chunk in chunks {
            assert_eq!(last.header, None, "a chunk after the last");
            let chunk = RangeStreamResponse::decode(chunk).expect("a whole message");
            last = chunk.range_response.expect("it is never left out");
            kvs.append(&mut last.kvs);
        }
        assert_eq!(RangeResponse { kvs, ..last }, whole);

        let sorted = async |ask: Ask| {
            let answer = read(&endpoint, &ask, true).await.messages.remove(0);
            RangeResponse::decode(answer).expect("a whole message")
        };
        let mut expected = whole.clone();
        expected.kvs.sort_by_key(|kv| -kv.mod_revision);
        assert_eq!(sorted(Ask::newest_first()).await, expected);
        expected.kvs.sort_by(|a, b| a.value.cmp(&b.value));
        assert_eq!(sorted(Ask::by_value()).await, expected);

        let txn = read(&endpoint, &Ask::txn(KEYS), true).await.messages.remove(0);
        let txn = TxnResponse::decode(txn).expect("a whole message");
        let mut lists = txn.responses.into_iter().map(|op| match op.response {
            Some(Response::ResponseRange(range)) => range.kvs,
            other => panic!("{other:?} in a txn of ranges"),
        });
        let (before, behind) = whole.kvs.split_at(KEYS / 2);
        assert!(lists.next().is_some_and(|list| list.iter().eq(before.iter().rev())));
        assert!(lists.next().is_some_and(|list| list == behind));
    });
}

/// Watch streams whose clients read nothing: half of them begin with history, the others with the
/// present.
const STALLED: usize = 200;
/// What such a stream may take in the server's memory, and what the writes themselves take.
pub const STALLED_BYTES_MAX: u64 = 2 << 20;
const WRITES_EXTRA: u64 = 128 << 20;

#[test]
fn watchers_that_read_nothing_cost_little_and_delay_no_other() {
    const BEFORE: usize = (32 << 20) / VALUE_BYTES;
    const AFTER: usize = (64 << 20) / VALUE_BYTES;
    let (_dir, server) = Server::serving();
    let (endpoint, pid) = (server.endpoint(), server.pid().expect("it runs"));
    runtime().block_on(async {
        fill(&endpoint, BEFORE).await;
        let before = resident_bytes(pid);
        let peak = Peak::start(pid);
        let mut stalled = Vec::new();
        for n in 0..STALLED {
            let from = if n % 2 == 0 { 2 } else { 0 };
            stalled.push(watch(&endpoint, 64 << 10, from).await);
        }
        let mut reader = watch(&endpoint, 4 << 20, 0).await;
        // Live events begin here.
        let began = BEFORE as i64 + 2;
        let all = AFTER as i64 + began;
        let reading = async {
            assert_eq!(revisions(&mut reader, all).await, (began..all).collect::<Vec<_>>());
            Instant::now()
        };
        let writing = async {
            fill(&endpoint, AFTER).await;
            Instant::now()
        };
        let (read, written) = join(reading, writing).await;
        let behind = read.saturating_duration_since(written);
        let extra = peak.stop().saturating_sub(before);
        loudly(&format!(
            "{STALLED} streams that nobody reads: {} MB more than {} MB, another reads the last \
             event {behind:.1?} after it was written",
            extra >> 20,
            before >> 20
        ));
        assert!(extra < STALLED as u64 * STALLED_BYTES_MAX + WRITES_EXTRA, "{} MB", extra >> 20);
        assert!(behind < Duration::from_secs(5), "held up for {behind:?}");

        for (n, from) in [(0, 2), (1, began)] {
            let found = revisions(&mut stalled[n], all).await;
            assert_eq!(found, (from..all).collect::<Vec<_>>(), "of stream {n}");
        }
    });
}

/// A watch stream of its own connection, with a window of so many unread bytes; it watches all keys.
async fn watch(endpoint: &str, bytes: u32, start_revision: i64) -> Streaming<WatchResponse> {
    let channel = Channel::connect_with(endpoint, bytes, bytes).await.expect("it serves");
    let create = WatchCreateRequest {
        key: "\0".into(),
        range_end: "\0".into(),
        start_revision,
        ..WatchCreateRequest::default()
    };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = stream::iter([create]).chain(stream::pending());
    let origin = format!("http://{endpoint}").parse().expect("a URI");
    let client = WatchClient::with_origin(channel, origin);
    let mut client = client.max_decoding_message_size(usize::MAX);
    let mut answers = client.watch(requests).await.expect("a watch stream").into_inner();
    let created = answers.message().await.expect("it lives").expect("an answer");
    assert!(created.created && !created.canceled, "{created:?}");
    answers
}

/// The revisions of the next events, up to the one before `end`.
async fn revisions(answers: &mut Streaming<WatchResponse>, end: i64) -> Vec<i64> {
    let mut found: Vec<i64> = Vec::new();
    while found.last().is_none_or(|last| last + 1 < end) {
        let answer = tokio::time::timeout(Duration::from_secs(60), answers.message()).await;
        let answer = answer.expect("the next event comes").expect("it lives").expect("an answer");
        assert!(!answer.canceled, "{answer:?}");
        found.extend(answer.events.into_iter().map(|event| event.kv.expect("it").mod_revision));
    }
    found
}

/// The largest number of bytes resident, looked at all the time until it is stopped.
pub struct Peak {
    stop: mpsc::Sender<()>,
    watch: std::thread::JoinHandle<u64>,
}

impl Peak {
    pub fn start(pid: u32) -> Self {
        let (stop, stopped) = mpsc::channel();
        let watch = std::thread::spawn(move || {
            let mut most = 0;
            while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                most = most.max(resident_bytes(pid));
            }
            most
        });
        Self { stop, watch }
    }

    pub fn stop(self) -> u64 {
        drop(self.stop);
        self.watch.join().expect("the server runs")
    }
}

pub fn key(n: usize) -> Bytes {
    format!("large/{n:09}").into()
}

/// Unlike any other, and nothing that could be kept smaller.
pub fn value(n: usize) -> Bytes {
    let mut state = n as u64 + 1;
    let mut word = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_le_bytes()
    };
    (0..VALUE_BYTES / 8).flat_map(|_| word()).collect()
}

pub async fn fill(endpoint: &str, keys: usize) {
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
async fn read(endpoint: &str, ask: &Ask, keep: bool) -> Answer {
    let Ask { method, message, .. } = ask;
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(message);
    let request = Request::post(format!("http://{endpoint}/etcdserverpb.KV/{method}"))
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
