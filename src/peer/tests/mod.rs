//! Transports against each other over loopback sockets, with members that only take notes.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};
use hyper::body::Incoming;
use prost::Message as _;
use quorate_proto::etcdserverpb::{
    HashKvResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse, ResponseHeader,
};
use quorate_proto::leasepb::{LeaseInternalRequest, LeaseInternalResponse};
use quorate_proto::raftpb::{Entry, Message, MessageType, Snapshot, SnapshotMetadata};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::body::{Body, next_piece};
use super::client::{Connection, HttpAnswer, request};
use super::identity::{self, CLUSTER, RAFT_TO};
use super::*;
use crate::env::{self, BoxFuture, Env, File, Listener};
use crate::error::{Error, Refused, Unavailable};
use crate::limits::PEER_IO_TIMEOUT;
use crate::tls;
use crate::types::{ClusterId, Index, LeaseId, MemberId, Revision};

mod strangers;

const CLUSTER_ID: ClusterId = ClusterId(0xc1);
const A: MemberId = MemberId(0xa);
const B: MemberId = MemberId(0xb);
/// Far above what anything here takes.
const LONG: Duration = Duration::from_secs(20);

/// A call to the member.
#[derive(Debug)]
enum Told {
    Step(Box<Message>),
    Unreachable(MemberId),
    SnapshotSent(MemberId, bool),
    Removed(MemberId),
}

struct Notes {
    told: mpsc::UnboundedSender<Told>,
    members: Mutex<BTreeSet<MemberId>>,
    removed: Mutex<BTreeSet<MemberId>>,
    database: Mutex<(Vec<Bytes>, End)>,
}

/// How the database's producer ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Counted,
    Marked,
    TooFew,
    TooMany,
    Unmarked,
}

impl Notes {
    fn note(&self, told: Told) {
        // A test that is over does not read its notes.
        let _ = self.told.send(told);
    }
}

fn ready<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    Box::pin(std::future::ready(value))
}

impl Local for Notes {
    fn step(&self, message: Message) {
        self.note(Told::Step(Box::new(message)));
    }

    fn lost_contact(&self, id: MemberId) {
        self.note(Told::Unreachable(id));
    }

    fn snapshot_sent(&self, id: MemberId, ok: bool) {
        self.note(Told::SnapshotSent(id, ok));
    }

    fn snapshot_source(&self) -> BoxFuture<'static, io::Result<SnapshotBody>> {
        let (mut database, end) = self.database.lock().expect("not poisoned").clone();
        let length = database.iter().map(|piece| piece.len() as u64).sum::<u64>();
        let total_bytes = match end {
            End::Counted => Some(length),
            End::TooFew => Some(length + 1),
            End::TooMany => Some(length - 1),
            End::Marked => {
                database.push(Bytes::new());
                None
            }
            End::Unmarked => None,
        };
        let (pieces, chunks) = mpsc::channel(database.len().max(1));
        for piece in database {
            pieces.try_send(Ok(piece)).expect("there is room for all");
        }
        let metadata = SnapshotMetadata { index: 9, term: 2, conf_state: None };
        ready(Ok(SnapshotBody { metadata, data: Bytes::new(), total_bytes, chunks }))
    }

    fn check_database(
        &self,
        database: Box<dyn File>,
        metadata: &SnapshotMetadata,
    ) -> Result<(), String> {
        let mut first = [0];
        let read = database.read_at(&mut first, 0).map_err(|error| error.to_string())?;
        match (read, first[0], metadata.index) {
            (1, 0xee, 9) => Err("not a database".to_owned()),
            _ => Ok(()),
        }
    }

    fn standing(&self, id: MemberId) -> Standing {
        let members = self.members.lock().expect("not poisoned");
        if self.removed.lock().expect("not poisoned").contains(&id) {
            Standing::Removed
        } else if members.contains(&id) {
            Standing::Member
        } else if members.is_empty() {
            Standing::Undecided
        } else {
            Standing::Unknown
        }
    }

    fn reported_removed(&self, by: MemberId) {
        self.note(Told::Removed(by));
    }

    fn version_json(&self) -> String {
        r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#.to_owned()
    }

    fn members_json(&self) -> String {
        let members = self.members.lock().expect("not poisoned");
        let members = members.iter().map(|id| format!("{{\"id\":{}}}", id.0));
        format!("[{}]", members.collect::<Vec<_>>().join(","))
    }

    fn promote(
        &self,
        id: MemberId,
        token: Option<String>,
    ) -> BoxFuture<'static, Result<String, Error>> {
        ready(match id.0 {
            1 => Ok(format!("[{:?}]", token.unwrap_or_default())),
            2 => Err(Refused::MemberNotLearner.into()),
            3 => Err(Refused::LearnerNotReady.into()),
            4 => Err(Unavailable::Stopped.into()),
            _ => Err(Refused::MemberNotFound.into()),
        })
    }

    fn hash_kv(&self, revision: Revision) -> BoxFuture<'static, Result<HashKvResponse, Error>> {
        ready(match revision.0 {
            1 => Err(Refused::Compacted.into()),
            revision => Ok(HashKvResponse {
                header: Some(ResponseHeader { revision: 8, ..ResponseHeader::default() }),
                hash: 77,
                compact_revision: 0,
                hash_revision: revision,
            }),
        })
    }

    fn renew(&self, lease: LeaseId) -> BoxFuture<'static, Result<i64, Error>> {
        ready(match lease.0 {
            7 => Ok(60),
            8 => Err(Unavailable::TimeoutWaitApplied.into()),
            9 => Err(Unavailable::NotPrimaryLessor.into()),
            _ => Err(Refused::LeaseNotFound.into()),
        })
    }

    fn time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> BoxFuture<'static, Result<LeaseTimeToLiveResponse, Error>> {
        ready(match request.id {
            7 => {
                Ok(LeaseTimeToLiveResponse { id: 7, ttl: 30, ..LeaseTimeToLiveResponse::default() })
            }
            9 => Err(Unavailable::NotPrimaryLessor.into()),
            _ => Err(Refused::LeaseNotFound.into()),
        })
    }

    fn downgrade_enabled(&self) -> BoxFuture<'static, Result<bool, Error>> {
        ready(Ok(false))
    }
}

/// A transport, its member, and its folder.
struct Node {
    env: Env,
    transport: Transport,
    notes: Arc<Notes>,
    told: mpsc::UnboundedReceiver<Told>,
    url: String,
    dir: TempDir,
}

impl Node {
    async fn start(id: MemberId, cluster: ClusterId) -> Self {
        let (node, listener) = Self::bind(id, cluster).await;
        node.serve(listener);
        node
    }

    /// A node whose port is bound and not served yet.
    async fn bind(id: MemberId, cluster: ClusterId) -> (Self, Box<dyn Listener>) {
        let env = env::tokio::env();
        let dir = TempDir::new().expect("a temporary folder");
        let listener = env.net.listen(([127, 0, 0, 1], 0).into()).await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let (told, notes) = mpsc::unbounded_channel();
        let local = Arc::new(Notes {
            told,
            members: Mutex::new([A, B].into()),
            removed: Mutex::default(),
            database: Mutex::new((Vec::new(), End::Counted)),
        });
        let config = PeerConfig {
            identity: Identity { id, cluster, urls: vec![url.clone()] },
            peers: Vec::new(),
            seeds: Vec::new(),
            snapshot_dir: dir.path().to_owned(),
            dial_timeout: Duration::from_secs(2),
            patience: Patience::default(),
            tls: tls::Settings::default(),
        };
        let transport = Transport::start(env.clone(), config, local.clone());
        (Self { env, transport, notes: local, told: notes, url, dir }, listener)
    }

    fn serve(&self, listener: Box<dyn Listener>) {
        let serving = self.transport.clone();
        drop(self.env.spawn("peer-port", async move { serving.serve(listener).await }));
    }

    /// The next call to the member that `wanted` takes; others are passed over.
    async fn told<T>(&mut self, wanted: impl Fn(&Told) -> Option<T>) -> T {
        let told = async {
            loop {
                let told = self.told.recv().await.expect("the member is there");
                if let Some(found) = wanted(&told) {
                    return found;
                }
            }
        };
        self.env.timeout(LONG, told).await.expect("is told in time")
    }

    async fn message(&mut self) -> Message {
        self.told(|told| match told {
            Told::Step(message) => Some(Message::clone(message)),
            _ => None,
        })
        .await
    }

    /// Waits until both streams to `id` are open.
    async fn streams(&self, id: MemberId) {
        let open = || self.transport.member(id).is_some_and(|link| link.has_streams());
        self.until(open).await;
    }

    async fn until(&self, holds: impl Fn() -> bool) {
        let wait = async {
            while !holds() {
                self.env.sleep(Duration::from_millis(5)).await;
            }
        };
        self.env.timeout(LONG, wait).await.expect("comes true in time");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.transport.stop();
    }
}

/// A and B, each a member to the other, with their streams open.
async fn pair() -> (Node, Node) {
    let (a, b) = (Node::start(A, CLUSTER_ID).await, Node::start(B, CLUSTER_ID).await);
    a.transport.add(B, vec![b.url.clone()]);
    b.transport.add(A, vec![a.url.clone()]);
    a.streams(B).await;
    b.streams(A).await;
    (a, b)
}

fn heartbeat(from: MemberId, to: MemberId, commit: u64) -> Message {
    let r#type = MessageType::MsgHeartbeat as i32;
    Message { r#type, from: from.0, to: to.0, term: 2, commit, ..Message::default() }
}

fn append(from: MemberId, to: MemberId, index: u64, data: &'static [u8]) -> Message {
    let entry = Entry { term: 2, index: index + 1, data: data.into(), ..Entry::default() };
    Message {
        r#type: MessageType::MsgApp as i32,
        from: from.0,
        to: to.0,
        term: 2,
        log_term: 2,
        index,
        entries: vec![entry],
        commit: index,
        ..Message::default()
    }
}

fn snapshot(from: MemberId, to: MemberId) -> Message {
    let metadata = Some(SnapshotMetadata { index: 5, term: 2, conf_state: None });
    Message {
        r#type: MessageType::MsgSnap as i32,
        from: from.0,
        to: to.0,
        term: 2,
        snapshot: Some(Snapshot { metadata, data: Bytes::new() }),
        ..Message::default()
    }
}

#[tokio::test]
async fn messages_go_both_ways_over_streams() {
    let (mut a, mut b) = pair().await;
    for index in 1..=300 {
        a.transport.send(vec![append(A, B, index, b"x"), heartbeat(A, B, index)]);
        b.transport.send(vec![heartbeat(B, A, index)]);
    }
    let (mut appends, mut heartbeats) = (1, 1);
    for _ in 0..600 {
        let message = b.message().await;
        // Each stream keeps its own order.
        if message.r#type == MessageType::MsgApp as i32 {
            assert_eq!(message, append(A, B, appends, b"x"));
            appends += 1;
        } else {
            assert_eq!(message, heartbeat(A, B, heartbeats));
            heartbeats += 1;
        }
    }
    for index in 1..=300 {
        assert_eq!(a.message().await, heartbeat(B, A, index));
    }
    assert!(a.transport.active_since(B).is_some());
    let stats = a.transport.stats();
    assert!(stats[0].1.sent_bytes.get() > 0 && stats[0].1.received_bytes.get() > 0, "{stats:?}");
}

#[tokio::test]
async fn fields_that_are_not_for_the_wire_stay_behind() {
    let (a, mut b) = pair().await;
    let mut message = heartbeat(A, B, 1);
    message.vote = 4;
    message.responses = vec![heartbeat(A, B, 2)];
    a.transport.send(vec![message]);
    assert_eq!(b.message().await, heartbeat(A, B, 1));
}

#[tokio::test]
async fn a_member_that_does_not_dial_is_reached_over_the_pipeline() {
    let (mut a, mut b) = pair().await;
    // B's streams end; A's messages go on, one by one. B knows A as a remote and answers.
    b.transport.remove(A);
    a.until(|| a.transport.member(B).is_some_and(|link| !link.has_streams())).await;
    a.transport.send(vec![append(A, B, 1, b"x")]);
    assert_eq!(b.message().await, append(A, B, 1, b"x"));
    b.transport.send(vec![heartbeat(B, A, 7)]);
    assert_eq!(a.message().await, heartbeat(B, A, 7));
    assert!(b.transport.member(A).is_none(), "a remote is no member");
}

#[tokio::test]
async fn a_peer_that_is_down_is_unreachable_until_another_url_works() {
    let (mut a, mut b) = (Node::start(A, CLUSTER_ID).await, Node::start(B, CLUSTER_ID).await);
    // No listener is on the discard port.
    a.transport.add(B, vec!["http://127.0.0.1:9".to_owned()]);
    a.transport.send(vec![heartbeat(A, B, 1)]);
    let lost = |told: &Told| matches!(told, Told::Unreachable(B)).then_some(());
    a.told(lost).await;
    assert_eq!(a.transport.active_since(B), None);

    a.transport.update(B, vec!["http://127.0.0.1:9".to_owned(), b.url.clone()]);
    b.transport.add(A, vec![a.url.clone()]);
    a.streams(B).await;
    b.streams(A).await;
    a.transport.send(vec![heartbeat(A, B, 2)]);
    assert_eq!(b.message().await, heartbeat(A, B, 2));
}

#[tokio::test]
async fn messages_to_strangers_are_dropped() {
    let (a, mut b) = pair().await;
    a.transport.send(vec![heartbeat(A, MemberId(0xdead), 1), heartbeat(A, MemberId(0), 1)]);
    // B is not the member that is meant, though it gets the message.
    let mut astray = heartbeat(A, B, 1);
    astray.to = 0xdead;
    a.transport.member(B).expect("a member").send(astray);
    a.transport.send(vec![heartbeat(A, B, 2)]);
    assert_eq!(b.message().await, heartbeat(A, B, 2));
}

#[tokio::test]
async fn another_cluster_is_refused() {
    let (mut a, mut b) = (Node::start(A, CLUSTER_ID).await, Node::start(B, ClusterId(0xc2)).await);
    a.transport.add(B, vec![b.url.clone()]);
    b.transport.add(A, vec![a.url.clone()]);
    a.transport.send(vec![heartbeat(A, B, 1)]);
    a.told(|told| matches!(told, Told::Unreachable(B)).then_some(())).await;
    assert!(!a.transport.member(B).expect("a member").has_streams());
    assert!(b.told.try_recv().is_err(), "nothing reaches the other cluster");
}

#[tokio::test]
async fn a_removed_member_is_told_so() {
    let (a, mut b) = (Node::start(A, CLUSTER_ID).await, Node::start(B, CLUSTER_ID).await);
    a.notes.removed.lock().expect("not poisoned").insert(B);
    b.transport.add(A, vec![a.url.clone()]);
    b.told(|told| matches!(told, Told::Removed(A)).then_some(())).await;
    // Over the pipeline, too.
    b.transport.send(vec![heartbeat(B, A, 1)]);
    b.told(|told| matches!(told, Told::Removed(A)).then_some(())).await;
    assert!(a.transport.stats().is_empty(), "a removed member does not become a remote");
}

#[tokio::test]
async fn a_snapshot_arrives_whole_and_named() {
    let (mut a, mut b) = pair().await;
    let database: Vec<Bytes> = (0..80u32)
        .map(|piece| (0..16_384u32).flat_map(|word| (piece * word).to_le_bytes()).collect())
        .collect();
    for end in [End::Counted, End::Marked] {
        *a.notes.database.lock().expect("not poisoned") = (database.clone(), end);
        a.transport.send(vec![snapshot(A, B)]);

        let message = b.message().await;
        let metadata = message.snapshot.and_then(|snapshot| snapshot.metadata);
        let index = metadata.map(|metadata| metadata.index);
        assert_eq!(index, Some(9), "the source's position, not the one raft asked for");
        let received = std::fs::read(snapshot_path(b.dir.path(), Index(9)));
        let received = received.expect("is there by now");
        assert!(received == database.concat(), "{} bytes differ", received.len());
        assert!(sent(&mut a, B).await);
        assert_eq!(names(b.dir.path()), ["0000000000000009.snap.db"]);
        std::fs::remove_file(snapshot_path(b.dir.path(), Index(9))).expect("is there");
    }
}

#[tokio::test]
async fn a_snapshot_that_breaks_off_leaves_nothing() {
    let (mut a, mut b) = pair().await;
    for end in [End::TooFew, End::TooMany, End::Unmarked] {
        let database = vec![Bytes::from(vec![7; 3 << 20])];
        *a.notes.database.lock().expect("not poisoned") = (database, end);
        a.transport.send(vec![snapshot(A, B)]);
        assert!(!sent(&mut a, B).await, "{end:?}");
        b.until(|| names(b.dir.path()).is_empty()).await;
    }
    while let Ok(told) = b.told.try_recv() {
        assert!(!matches!(told, Told::Step(_)), "{told:?}");
    }
}

#[tokio::test]
async fn a_snapshot_that_is_no_database_of_its_position_is_refused() {
    let (mut a, mut b) = pair().await;
    let database = vec![Bytes::from(vec![0xee; 1 << 20])];
    *a.notes.database.lock().expect("not poisoned") = (database, End::Counted);
    a.transport.send(vec![snapshot(A, B)]);
    assert!(!sent(&mut a, B).await);
    b.until(|| names(b.dir.path()).is_empty()).await;
    while let Ok(told) = b.told.try_recv() {
        assert!(!matches!(told, Told::Step(_)), "{told:?}");
    }
}

#[tokio::test]
async fn a_snapshot_that_is_passed_is_removed() {
    let (_a, b) = pair().await;
    for index in [5, 9] {
        std::fs::write(snapshot_path(b.dir.path(), Index(index)), b"x").expect("a new file");
    }
    b.transport.discard_snapshot(Index(7));
    b.transport.discard_snapshot(Index(9));
    b.until(|| names(b.dir.path()) == ["0000000000000005.snap.db"]).await;
}

#[tokio::test]
async fn every_snapshot_is_accounted_for() {
    let (mut a, b) = pair().await;
    a.transport.send(vec![snapshot(A, MemberId(0xdead))]);
    assert!(!sent(&mut a, MemberId(0xdead)).await);
    // Two at once: one of them is refused, and both are reported.
    *a.notes.database.lock().expect("not poisoned") =
        (vec![Bytes::from(vec![7; 1 << 20])], End::Counted);
    a.transport.send(vec![snapshot(A, B), snapshot(A, B)]);
    let mut ends = [sent(&mut a, B).await, sent(&mut a, B).await];
    ends.sort();
    assert_eq!(ends, [false, true]);
    // The peer goes away while one may be on its way.
    a.transport.send(vec![snapshot(A, B)]);
    a.transport.remove(B);
    sent(&mut a, B).await;
    drop(b);
}

#[test]
fn leftovers_of_a_crash_are_removed_and_nothing_else() {
    let dir = TempDir::new().expect("a temporary folder");
    for name in ["tmp-snap-0000000000000009-0", "0000000000000009.snap.db", "db"] {
        std::fs::write(dir.path().join(name), b"x").expect("a new file");
    }
    let runtime = ::tokio::runtime::Runtime::new().expect("a runtime");
    let disk = runtime.block_on(async { env::tokio::env().disk });
    assert_eq!(remove_leftovers(&*disk, dir.path()).expect("can be listed"), 1);
    assert_eq!(names(dir.path()), ["0000000000000009.snap.db", "db"]);
    assert_eq!(remove_received(&*disk, dir.path()).expect("can be listed"), 1);
    assert_eq!(names(dir.path()), ["db"]);
}

async fn sent(node: &mut Node, id: MemberId) -> bool {
    node.told(|told| match told {
        Told::SnapshotSent(to, ok) if *to == id => Some(*ok),
        _ => None,
    })
    .await
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("is there");
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("can be read").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Makes a request to `node` as `who`.
async fn ask(
    node: &Node,
    who: &Identity,
    method: Method,
    path: &str,
    body: impl Into<Bytes>,
) -> HttpAnswer {
    let mut request = request(method, path, Body::from(body.into())).expect("a path");
    who.sign(request.headers_mut());
    request.headers_mut().insert(RAFT_TO, HeaderValue::from_static("dead"));
    let client = Client::new(node.env.clone(), LONG, &tls::Settings::default());
    client.call(&node.url, request, LONG).await.expect("an answer")
}

fn check(answer: &HttpAnswer, status: u16, text: &str) {
    assert_eq!(answer.status, StatusCode::from_u16(status).expect("a status"), "{answer:?}");
    assert_eq!(String::from_utf8_lossy(&answer.body), text, "{answer:?}");
}

#[tokio::test]
async fn raft_paths_answer_as_etcd_does() {
    let a = Node::start(A, CLUSTER_ID).await;
    a.notes.removed.lock().expect("not poisoned").insert(MemberId(0xdead));
    a.transport.add(B, vec!["http://127.0.0.1:9".to_owned()]);
    let b = Identity { id: B, cluster: CLUSTER_ID, urls: vec![] };
    let foreign = Identity { cluster: ClusterId(1), ..b.clone() };
    let get = |path: &'static str| ask(&a, &b, Method::GET, path, "");

    let answer = ask(&a, &foreign, Method::GET, "/raft/stream/message/b", "").await;
    check(&answer, 412, "cluster ID mismatch\n");
    assert_eq!(identity::header(&answer.headers, &CLUSTER), Some("c1"));
    check(&ask(&a, &foreign, Method::POST, "/raft", "").await, 412, "cluster ID mismatch\n");
    check(
        &ask(&a, &foreign, Method::POST, "/raft/snapshot", "").await,
        412,
        "cluster ID mismatch\n",
    );
    check(&get("/raft/stream/message/b").await, 412, "to field mismatch\n");
    check(&get("/raft/stream/message/c").await, 404, "error sender not found\n");
    check(&get("/raft/stream/message/dead").await, 410, "removed member\n");
    check(&get("/raft/stream/message/nobody").await, 404, "invalid from\n");
    check(&get("/raft/stream/msgappv2/b").await, 404, "invalid path\n");
    check(&get("/raft/elsewhere").await, 404, "404 page not found\n");
    let wrong = get("/raft").await;
    check(&wrong, 405, "Method Not Allowed\n");
    assert_eq!(wrong.headers.get("allow"), Some(&HeaderValue::from_static("POST")));
    check(
        &ask(&a, &b, Method::POST, "/raft/stream/message/b", "").await,
        405,
        "Method Not Allowed\n",
    );

    let post = |message: Message| ask(&a, &b, Method::POST, "/raft", message.encode_to_vec());
    check(&post(heartbeat(B, A, 1)).await, 204, "");
    check(
        &post(heartbeat(B, MemberId(0xdad), 1)).await,
        412,
        r#"{"message":"cannot process message to mismatch member"}"#,
    );
    check(
        &post(heartbeat(MemberId(0xdead), A, 1)).await,
        503,
        r#"{"message":"cannot process message from removed member"}"#,
    );
    let dead = Identity { id: MemberId(0xdead), ..b.clone() };
    check(
        &ask(&a, &dead, Method::POST, "/raft", heartbeat(dead.id, A, 1).encode_to_vec()).await,
        403,
        r#"{"message":"cannot process message from removed member"}"#,
    );
    let nonsense = ask(&a, &b, Method::POST, "/raft", "\u{ff}").await;
    check(&nonsense, 400, "error unmarshalling raft message\n");
    let probe = get("/raft/probing").await;
    assert!(probe.body.starts_with(b"{\"OK\":true,\"Now\":\"20"), "{probe:?}");
}

#[tokio::test]
async fn other_paths_answer_as_etcd_does() {
    let a = Node::start(A, CLUSTER_ID).await;
    let client = a.transport.client();
    let get =
        |path: &'static str| async { client.get(&a.url, path, LONG).await.expect("an answer") };
    let post = |path: &'static str, body: Vec<u8>| async {
        client.post(&a.url, path, body.into(), LONG).await.expect("an answer")
    };

    let version = r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#;
    check(&get("/version").await, 200, version);
    let members = get("/members").await;
    check(&members, 200, "[{\"id\":10},{\"id\":11}]\n");
    assert_eq!(identity::header(&members.headers, &CLUSTER), Some("c1"));
    check(&get("/downgrade/enabled").await, 200, "false");
    assert_eq!(client.downgrade_enabled(&a.url, LONG).await.ok(), Some(false));
    let refused = get("/leases").await;
    check(&refused, 405, "Method Not Allowed\n");
    assert!(!refused.headers.contains_key(http::header::ALLOW));
    check(&get("/health").await, 404, "404 page not found\n");

    let redirected = post("/members/promote?a=b", vec![]).await;
    check(&redirected, 307, "");
    assert_eq!(redirected.headers[http::header::LOCATION], "/members/promote/?a=b");
    let link = "<a href=\"/members/promote/\">Temporary Redirect</a>.\n\n";
    check(&get("/members/promote").await, 307, link);
    check(&post("/members/promote/1", vec![]).await, 200, "[\"\"]\n");
    check(
        &post("/members/promote/2", vec![]).await,
        412,
        "membership: can only promote a learner member\n",
    );
    let not_ready = "etcdserver: can only promote a learner member which is in sync with leader\n";
    check(&post("/members/promote/3", vec![]).await, 412, not_ready);
    check(&post("/members/promote/4", vec![]).await, 500, r#"{"message":"Internal Server Error"}"#);
    check(&post("/members/promote/5", vec![]).await, 404, "membership: ID not found\n");
    check(&post("/members/promote/x", vec![]).await, 404, "member x not found in cluster\n");

    let renew = |id| post("/leases", LeaseKeepAliveRequest { id }.encode_to_vec());
    let renewed = renew(7).await;
    let response = LeaseKeepAliveResponse::decode(renewed.body).expect("a response");
    assert_eq!((renewed.status, response.id, response.ttl), (StatusCode::OK, 7, 60));
    check(&renew(1).await, 404, "lease not found\n");
    let behind = "waiting for node to catch up its applied index has timed out\n";
    check(&renew(8).await, 408, behind);
    check(&renew(9).await, 400, "not a primary lessor\n");
    check(&post("/leases", vec![0xff]).await, 400, "error unmarshalling request\n");
    check(&post("/leases", vec![0; 65_537]).await, 413, "request body too large\n");

    let ask_ttl = |id| {
        let query = LeaseTimeToLiveRequest { id, keys: false };
        let request = LeaseInternalRequest { lease_time_to_live_request: Some(query) };
        post("/leases/internal", request.encode_to_vec())
    };
    let found = LeaseInternalResponse::decode(ask_ttl(7).await.body).expect("a response");
    assert_eq!(found.lease_time_to_live_response.map(|found| found.ttl), Some(30));
    check(&ask_ttl(1).await, 404, "lease not found\n");
    check(&ask_ttl(9).await, 500, "not a primary lessor\n");

    let own = Identity { id: B, cluster: CLUSTER_ID, urls: vec![] };
    let node = &a;
    let hash = |who: Identity, body: &'static str| async move {
        ask(node, &who, Method::GET, "/members/hashkv", body).await
    };
    let json = r#"{"header":{"revision":8},"hash":77,"hash_revision":5}"#;
    check(&hash(own.clone(), r#"{"revision":5}"#).await, 200, json);
    let compacted = "mvcc: required revision has been compacted\n";
    check(&hash(own.clone(), r#"{"revision":1}"#).await, 400, compacted);
    check(&hash(own.clone(), "x").await, 400, "error unmarshalling request\n");
    let foreign = Identity { cluster: ClusterId(1), ..own };
    check(&hash(foreign, "{}").await, 412, "cluster ID mismatch\n");
}

#[tokio::test]
async fn calls_understand_what_the_paths_answer() {
    let a = Node::start(A, CLUSTER_ID).await;
    let (client, url) = (a.transport.client(), a.url.as_str());

    assert_eq!(client.renew(url, LeaseId(7), LONG).await.expect("alive"), 60);
    let renewed = client.renew(url, LeaseId(1), LONG).await;
    says(&renewed, Refused::LeaseNotFound.into());
    let renewed = client.renew(url, LeaseId(8), LONG).await;
    says(&renewed, Unavailable::TimeoutWaitApplied.into());
    let renewed = client.renew(url, LeaseId(9), LONG).await;
    says(&renewed, Unavailable::NotPrimaryLessor.into());

    let query = |id| LeaseTimeToLiveRequest { id, keys: true };
    let found = client.time_to_live(url, query(7), LONG).await.expect("is there");
    assert_eq!((found.id, found.ttl), (7, 30));
    says(&client.time_to_live(url, query(1), LONG).await, Refused::LeaseNotFound.into());
    says(&client.time_to_live(url, query(9), LONG).await, Unavailable::NotPrimaryLessor.into());

    let promote = |id| client.promote(url, MemberId(id), Some("token"), LONG);
    assert_eq!(promote(1).await.expect("promoted"), "[\"token\"]\n");
    says(&promote(2).await, Refused::MemberNotLearner.into());
    says(&promote(3).await, Refused::LearnerNotReady.into());
    says(&promote(5).await, Refused::MemberNotFound.into());
    let failed = promote(4).await;
    assert!(matches!(failed, Err(CallError::Unexpected(..))), "{failed:?}");

    let hash = |revision| client.hash_kv(url, CLUSTER_ID, Revision(revision), LONG);
    let found = hash(5).await.expect("is there");
    let revision = found.header.map(|header| header.revision);
    assert_eq!((revision, found.hash, found.hash_revision), (Some(8), 77, 5));
    says(&hash(1).await, Refused::Compacted.into());
    let foreign = client.hash_kv(url, ClusterId(1), Revision(5), LONG).await;
    assert!(matches!(foreign, Err(CallError::OtherCluster)), "{foreign:?}");
}

fn says<T: std::fmt::Debug>(result: &Result<T, CallError>, expected: Error) {
    assert!(matches!(result, Err(CallError::Answered(error)) if *error == expected), "{result:?}");
}

/// Opens a stream as a peer would, without a transport.
async fn dial(node: &Node, as_: &Identity, path: &str) -> (Incoming, Connection) {
    let mut request = request(Method::GET, path, Body::empty()).expect("a path");
    as_.sign(request.headers_mut());
    request.headers_mut().insert(RAFT_TO, HeaderValue::from_static("a"));
    let client = Client::new(node.env.clone(), LONG, &tls::Settings::default());
    let (response, connection) = client.open(&node.url, request).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    (response.into_body(), connection)
}

#[tokio::test]
async fn a_stream_shows_it_is_alive_and_gives_way_to_a_newer_one() {
    let a = Node::start(A, CLUSTER_ID).await;
    a.transport.add(B, vec!["http://127.0.0.1:9".to_owned()]);
    let b = Identity { id: B, cluster: CLUSTER_ID, urls: vec![] };

    let (mut older, _kept) = dial(&a, &b, "/raft/stream/msgapp/b").await;
    let alive = next_piece(&a.env, PEER_IO_TIMEOUT, &mut older).await.expect("not silent");
    assert_eq!(alive.as_deref(), Some(&[0][..]), "a link heartbeat is one byte");

    let (mut newer, _kept_too) = dial(&a, &b, "/raft/stream/msgapp/b").await;
    assert_eq!(next_piece(&a.env, PEER_IO_TIMEOUT, &mut older).await.expect("a proper end"), None);
    a.transport.send(vec![append(A, B, 1, b"x")]);
    let piece = next_piece(&a.env, PEER_IO_TIMEOUT, &mut newer)
        .await
        .expect("not silent")
        .expect("not ended");
    assert_eq!(piece[0], 2, "a new stream begins with a whole message: {piece:?}");

    a.transport.remove(B);
    assert_eq!(next_piece(&a.env, PEER_IO_TIMEOUT, &mut newer).await.expect("a proper end"), None);
}

#[tokio::test]
async fn calls_have_a_time_limit() {
    let env = env::tokio::env();
    let mut listener = env.net.listen(([127, 0, 0, 1], 0).into()).await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let client = Client::new(env, LONG, &tls::Settings::default());
    let limit = Duration::from_millis(50);
    let (answer, _open) = tokio::join!(client.get(&url, "/version", limit), listener.accept());
    let error = answer.map(|answer| answer.status).expect_err("nobody answers");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}
