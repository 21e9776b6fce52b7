//! One peer as this member sees it: which way a message to it goes, its URLs, whether it is
//! reachable. The ways themselves are in `stream_out`, `pipeline` and `snapshot_out`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use quorate_proto::raftpb::{Message, MessageType};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::body::Body;
use super::client::Client;
use super::identity::{Identity, Mismatch};
use super::local::Local;
use super::stats::Stats;
use super::stream_codec::StreamKind;
use super::transport::Patience;
use super::{pipeline, prober, snapshot_out, stream_in, stream_out};
use crate::env::{Abort, Env};
use crate::limits::{PEER_PIPELINE_QUEUE, PEER_QUEUE};
use crate::types::MemberId;

/// What all peers of a transport share.
pub(super) struct Context {
    pub env: Env,
    pub identity: Identity,
    pub local: Arc<dyn Local>,
    pub client: Client,
    pub patience: Patience,
}

/// A peer and the tasks that serve it; they end when this is dropped.
pub(super) struct Peer {
    pub link: Arc<Link>,
    /// A member, not only a sender that has to be answered.
    pub is_member: bool,
    tasks: Vec<Box<dyn Abort>>,
}

/// What the tasks of one peer share.
pub(super) struct Link {
    pub id: MemberId,
    pub context: Arc<Context>,
    pub stats: Arc<Stats>,
    urls: Mutex<Urls>,
    status: Mutex<Status>,
    streams: Mutex<Streams>,
    pipeline: mpsc::Sender<Message>,
    /// The snapshot on its way.
    snapshot: Mutex<Option<Box<dyn Abort>>>,
}

/// A peer's URLs and which of them works, as far as is known.
struct Urls {
    urls: Vec<String>,
    picked: usize,
}

#[derive(Default)]
struct Status {
    active_since: Option<Instant>,
    /// When something last got through.
    reached: Option<Instant>,
    /// The last refusal, so that one which goes on is logged once.
    refusal: Option<Mismatch>,
}

/// The streams that the peer has opened for us to write to.
#[derive(Default)]
struct Streams {
    /// The peer is gone; no more streams.
    closed: bool,
    opened: u64,
    message: Option<Outgoing>,
    msgapp: Option<Outgoing>,
}

/// One stream's queue and the task that empties it.
struct Outgoing {
    number: u64,
    queue: mpsc::Sender<Message>,
    writer: Box<dyn Abort>,
}

impl Peer {
    /// A member of the cluster: both streams are dialed, and it is probed.
    pub(super) fn member(context: Arc<Context>, id: MemberId, urls: Vec<String>) -> Self {
        let mut peer = Self::remote(context, id, urls.clone());
        peer.become_member(urls);
        peer
    }

    /// Messages that are queued stay queued: they may be the acknowledgements by which a leader counts
    /// this very member as caught up.
    pub(super) fn become_member(&mut self, urls: Vec<String>) {
        self.is_member = true;
        self.link.update(urls);
        let env = self.link.context.env.clone();
        for kind in [StreamKind::MsgApp, StreamKind::Message] {
            self.tasks
                .push(env.spawn("peer-stream-reader", stream_in::run(self.link.clone(), kind)));
        }
        self.tasks.push(env.spawn("peer-prober", prober::run(self.link.clone())));
    }

    /// A sender that is not known as a member (yet) and is answered over the pipeline only: this member
    /// may be behind the configuration that contains it.
    pub(super) fn remote(context: Arc<Context>, id: MemberId, urls: Vec<String>) -> Self {
        let env = context.env.clone();
        let (pipeline, queue) = mpsc::channel(PEER_PIPELINE_QUEUE);
        let link = Arc::new(Link {
            id,
            context,
            stats: Arc::default(),
            urls: Mutex::new(Urls { urls, picked: 0 }),
            status: Mutex::default(),
            streams: Mutex::default(),
            pipeline,
            snapshot: Mutex::default(),
        });
        let tasks = vec![env.spawn("peer-pipeline", pipeline::run(link.clone(), queue))];
        Self { link, is_member: false, tasks }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        let mut streams = lock(&self.link.streams);
        streams.closed = true;
        for stream in [streams.message.take(), streams.msgapp.take()].into_iter().flatten() {
            stream.writer.abort();
        }
        drop(streams);
        if let Some(snapshot) = lock(&self.link.snapshot).take() {
            snapshot.abort();
        }
    }
}

impl Link {
    /// Queues `message`, or drops it and reports that. Never waits.
    pub(super) fn send(self: &Arc<Self>, message: Message) {
        match MessageType::try_from(message.r#type) {
            Ok(MessageType::MsgSnap) => return self.send_snapshot(message),
            Ok(_) => {}
            Err(_) => return,
        }
        let is_app = message.r#type == MessageType::MsgApp as i32;
        let dropped = {
            let streams = lock(&self.streams);
            let stream = match &streams.msgapp {
                Some(msgapp) if is_app => Some(msgapp),
                _ => streams.message.as_ref(),
            };
            stream.map_or(&self.pipeline, |stream| &stream.queue).try_send(message).is_err()
        };
        if dropped {
            debug!(
                remote_peer_id = %self.id,
                "dropped internal Raft message since sending buffer is full"
            );
            self.lost();
        }
    }

    /// One snapshot at a time: a further one would only compete with it.
    fn send_snapshot(self: &Arc<Self>, message: Message) {
        let mut running = lock(&self.snapshot);
        if running.as_ref().is_some_and(|task| !task.is_finished()) {
            drop(running);
            self.context.local.snapshot_sent(self.id, false);
            return;
        }
        let task = snapshot_out::run(self.clone(), message);
        *running = Some(self.context.env.spawn("peer-snapshot-sender", task));
    }

    /// Takes over a stream that the peer has opened; the body is what the peer reads. `None` when
    /// the peer has been removed meanwhile.
    pub(super) fn attach(self: &Arc<Self>, kind: StreamKind) -> Option<Body> {
        let (queue, messages) = mpsc::channel(PEER_QUEUE);
        let (pieces, body) = mpsc::channel(stream_out::PIECES_AHEAD);
        let replaced = {
            let mut streams = lock(&self.streams);
            if streams.closed {
                return None;
            }
            streams.opened += 1;
            let number = streams.opened;
            // Spawned under the lock: however soon the writer ends, `detach` comes after this.
            let writer = stream_out::run(self.clone(), kind, number, messages, pieces);
            let writer = self.context.env.spawn("peer-stream-writer", writer);
            streams.slot(kind).replace(Outgoing { number, queue, writer })
        };
        if let Some(old) = replaced {
            let drained = old.queue.capacity() == old.queue.max_capacity();
            old.writer.abort();
            if !drained {
                self.context.local.lost_contact(self.id);
            }
        }
        self.activate();
        Some(Body::pieces(body, Arc::default()))
    }

    /// Stream `number` is broken: nothing more is queued for it.
    pub(super) fn detach(&self, kind: StreamKind, number: u64) {
        lock(&self.streams).slot(kind).take_if(|stream| stream.number == number);
    }

    /// A message did not get through.
    pub(super) fn lost(&self) {
        self.stats.sent_failures.add(1);
        self.context.local.lost_contact(self.id);
    }

    pub(super) fn update(&self, urls: Vec<String>) {
        *lock(&self.urls) = Urls { urls, picked: 0 };
    }

    /// The URL to try now; `None` when the peer has none.
    pub(super) fn url(&self) -> Option<String> {
        let urls = lock(&self.urls);
        urls.urls.get(urls.picked).cloned()
    }

    pub(super) fn urls(&self) -> Vec<String> {
        lock(&self.urls).urls.clone()
    }

    /// `url` did not work: the next one is tried, unless another task has done so already.
    pub(super) fn avoid(&self, url: &str) {
        let mut urls = lock(&self.urls);
        if urls.urls.get(urls.picked).is_some_and(|picked| picked == url) {
            urls.picked = (urls.picked + 1) % urls.urls.len();
        }
    }

    pub(super) fn active_since(&self) -> Option<Instant> {
        lock(&self.status).active_since
    }

    /// Whether the peer has opened both streams.
    #[cfg(test)]
    pub(super) fn has_streams(&self) -> bool {
        let streams = lock(&self.streams);
        streams.message.is_some() && streams.msgapp.is_some()
    }

    pub(super) fn activate(&self) {
        let now = self.context.env.now();
        let mut status = lock(&self.status);
        status.refusal = None;
        status.reached = Some(now);
        if status.active_since.is_none() {
            status.active_since = Some(now);
            info!(peer_id = %self.id, "peer became active");
        }
    }

    /// An exchange with the peer that began at `began` failed. It does not count when the peer was reached
    /// since then: streams that go on would never report again that the peer is reachable.
    pub(super) fn deactivate(
        &self,
        what: &'static str,
        reason: &dyn std::fmt::Display,
        began: Instant,
    ) {
        let mut status = lock(&self.status);
        if status.reached.is_some_and(|reached| reached > began) {
            debug!(peer_id = %self.id, what, %reason, "failed late: the peer has been reached since");
        } else if status.active_since.take().is_some() {
            self.stats.disconnected.add(1);
            let error = format!("failed to {what} ({reason})");
            warn!(peer_id = %self.id, error, "peer became inactive (message send to peer failed)");
        } else {
            debug!(peer_id = %self.id, what, %reason, "peer deactivated again");
        }
    }

    /// The peer answered that we do not belong together.
    pub(super) fn refused(&self, mismatch: Mismatch, their_cluster: Option<&str>) {
        if lock(&self.status).refusal.replace(mismatch) != Some(mismatch) {
            let own = &self.context.identity;
            let why = match mismatch {
                Mismatch::Version => "server version incompatibility".to_owned(),
                other => other.to_string(),
            };
            warn!(
                remote_peer_id = %self.id,
                remote_peer_cluster_id = their_cluster,
                local_member_id = %own.id,
                local_member_cluster_id = %own.cluster,
                error = %mismatch,
                "request sent was ignored by remote peer due to {why}"
            );
        }
    }
}

impl Streams {
    fn slot(&mut self, kind: StreamKind) -> &mut Option<Outgoing> {
        match kind {
            StreamKind::Message => &mut self.message,
            StreamKind::MsgApp => &mut self.msgapp,
        }
    }
}

/// The locks of this module guard plain values for a few instructions; a panic inside leaves them
/// as they were.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
