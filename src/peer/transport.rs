//! The handle of the peer protocol: the set of peers, and messages in and out. Which way a message
//! goes is decided in `link`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use http::HeaderMap;
use quorate_proto::raftpb::{Message, MessageType};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{info, warn};

use super::client::Client;
use super::identity::{self, CLUSTER, Identity, SERVER_FROM};
use super::link::{Context, Link, Peer, lock};
use super::local::Local;
use super::server;
use super::snapshot_in::snapshot_path;
use super::stats::Stats;
use super::vouch::Vouch;
use crate::env::{Env, Listener};
use crate::latest;
use crate::limits::{PEER_IO_TIMEOUT, PEER_REMOTES_MAX, PEER_SNAPSHOTS_IN};
use crate::mark;
use crate::tls::{self, Acceptor};
use crate::types::{Index, MemberId};

/// What a transport needs to know.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    pub identity: Identity,
    /// The members known at start, with their peer URLs. This member itself may be among them.
    pub peers: Vec<(MemberId, Vec<String>)>,
    /// Peer URLs at which members of the cluster may be found before this one knows any.
    pub seeds: Vec<String>,
    /// Where received databases go; the folder exists.
    pub snapshot_dir: PathBuf,
    /// For connecting: etcd takes one second and an election timeout.
    pub dial_timeout: Duration,
    pub patience: Patience,
    /// For peers with https URLs.
    pub tls: tls::Settings,
}

/// How long a peer may keep a connection waiting (`--raft-read-timeout`, `--raft-write-timeout`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    pub read: Duration,
    pub write: Duration,
}

impl Default for Patience {
    /// What etcd takes for the least.
    fn default() -> Self {
        Self { read: PEER_IO_TIMEOUT, write: PEER_IO_TIMEOUT }
    }
}

/// Talks to the other members. Cheap to clone.
#[derive(Clone)]
pub struct Transport(Arc<Shared>);

struct Shared {
    context: Arc<Context>,
    seeds: Vec<String>,
    vouch: Vouch,
    snapshot_dir: PathBuf,
    /// Written when the membership changes, read for every message: the one lock between the
    /// replica's driver and us, and held for a lookup only.
    peers: RwLock<BTreeMap<MemberId, Peer>>,
    snapshots: Arc<Semaphore>,
    /// Snapshots whose reception has begun.
    transfers: AtomicU64,
    /// Senders that were refused and why, so that a refusal which goes on is logged once.
    refused: Mutex<BTreeMap<String, (String, String)>>,
    stopped: latest::Sender<bool>,
}

impl Transport {
    /// Starts to dial the peers. Nothing is accepted before [`Transport::serve`].
    pub fn start(env: Env, config: PeerConfig, local: Arc<dyn Local>) -> Self {
        let patience = config.patience;
        let client = Client::with_patience(env.clone(), config.dial_timeout, patience, &config.tls);
        let context = Context { env, identity: config.identity, local, client, patience };
        let transport = Self(Arc::new(Shared {
            context: Arc::new(context),
            seeds: config.seeds,
            vouch: Vouch::default(),
            snapshot_dir: config.snapshot_dir,
            peers: RwLock::default(),
            snapshots: Arc::new(Semaphore::new(PEER_SNAPSHOTS_IN)),
            transfers: AtomicU64::new(0),
            refused: Mutex::default(),
            stopped: latest::Sender::new(false),
        }));
        for (id, urls) in config.peers {
            transport.add(id, urls);
        }
        transport
    }

    /// Serves one address of the peer port until [`Transport::stop`].
    pub async fn serve(&self, listener: Box<dyn Listener>) {
        server::serve(self.clone(), listener, None).await;
    }

    /// The same over TLS.
    pub async fn serve_secured(&self, listener: Box<dyn Listener>, acceptor: Acceptor) {
        server::serve(self.clone(), listener, Some(acceptor)).await;
    }

    /// Sends raft messages, each to the member it names. Never waits; what cannot be sent is dropped
    /// and reported as raft expects it.
    pub fn send(&self, messages: Vec<Message>) {
        let peers = self.peers();
        for mut message in messages {
            // These two are for a member's own storage; older releases have other uses for the numbers.
            message.vote = 0;
            message.responses.clear();
            let to = MemberId(message.to);
            match peers.get(&to) {
                Some(peer) => peer.link.send(message),
                None if message.r#type == MessageType::MsgSnap as i32 => {
                    self.0.context.local.snapshot_sent(to, false);
                }
                None => {}
            }
        }
    }

    /// Removes the database of the snapshot received at `index`, if it is still there. Never waits.
    pub fn discard_snapshot(&self, index: Index) {
        let (disk, path) = (self.env().disk.clone(), snapshot_path(self.snapshot_dir(), index));
        let env = self.env().clone();
        drop(self.env().spawn("snapshot-discard", async move {
            let removed = env.blocking("snapshot-discard", move || disk.remove(&path)).await;
            match removed {
                Ok(()) => {
                    mark::SNAPSHOT_DISCARDED.reached();
                    info!(snapshot_index = %index, "found orphaned .snap.db file; deleting");
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    warn!(snapshot_index = %index, %error, "failed to remove orphaned .snap.db file");
                }
            }
        }));
    }

    /// A member joined. This member itself is passed over, a known one left as it is.
    pub fn add(&self, id: MemberId, urls: Vec<String>) {
        let mut peers = self.peers_mut();
        if id == self.0.context.identity.id || *self.0.stopped.borrow() {
            return;
        }
        match peers.get_mut(&id) {
            Some(peer) if peer.is_member => {}
            Some(peer) => {
                info!(remote_peer_id = %id, remote_peer_urls = ?urls, "added remote peer");
                peer.become_member(urls);
            }
            None => {
                info!(remote_peer_id = %id, remote_peer_urls = ?urls, "added remote peer");
                peers.insert(id, Peer::member(self.0.context.clone(), id, urls));
            }
        }
    }

    /// A member's peer URLs changed.
    pub fn update(&self, id: MemberId, urls: Vec<String>) {
        if let Some(peer) = self.peers().get(&id) {
            info!(
                updated_remote_peer_id = %id, updated_remote_peer_urls = ?urls,
                "updated remote peer"
            );
            peer.link.update(urls);
        }
    }

    /// A member left: its streams end, and what waits for it is dropped.
    pub fn remove(&self, id: MemberId) {
        let removed = self.peers_mut().remove(&id);
        if removed.is_some() {
            info!(removed_remote_peer_id = %id, "removed remote peer");
        }
    }

    /// Since when messages get through to a member; `None` while they do not.
    pub fn active_since(&self, id: MemberId) -> Option<Instant> {
        self.member(id)?.active_since()
    }

    /// Figures and URLs of every peer, members and not yet members, by id.
    pub fn stats(&self) -> Vec<(MemberId, Arc<Stats>)> {
        self.peers().iter().map(|(id, peer)| (*id, peer.link.stats.clone())).collect()
    }

    /// The peer URLs of a member as this transport has them.
    pub fn urls(&self, id: MemberId) -> Option<Vec<String>> {
        Some(self.member(id)?.urls())
    }

    /// For calls that are not raft's: versions, forwarded keep-alives, hashes.
    pub fn client(&self) -> &Client {
        &self.0.context.client
    }

    /// Ends every stream, connection and task. Messages sent later are dropped.
    pub fn stop(&self) {
        self.0.stopped.send_replace(true);
        let peers = std::mem::take(&mut *self.peers_mut());
        drop(peers);
        self.0.context.client.close_idle();
    }

    pub(super) fn context(&self) -> &Context {
        &self.0.context
    }

    pub(super) fn env(&self) -> &Env {
        &self.0.context.env
    }

    pub(super) fn patience(&self) -> Patience {
        self.0.context.patience
    }

    pub(super) fn local(&self) -> &dyn Local {
        &*self.0.context.local
    }

    pub(super) fn seeds(&self) -> &[String] {
        &self.0.seeds
    }

    pub(super) fn vouch(&self) -> &Vouch {
        &self.0.vouch
    }

    /// The peer URLs of the other members.
    pub(super) fn member_urls(&self) -> Vec<String> {
        let peers = self.peers();
        let members = peers.values().filter(|peer| peer.is_member);
        members.flat_map(|peer| peer.link.urls()).collect()
    }

    pub(super) fn snapshot_dir(&self) -> &Path {
        &self.0.snapshot_dir
    }

    /// Ready when [`Transport::stop`] has been called.
    pub(super) async fn stopped(&self) {
        let mut stopped = self.0.stopped.subscribe();
        // The sender lives in `self`: the wait cannot fail.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    }

    /// The right to receive a snapshot now.
    pub(super) fn snapshot_place(&self) -> Option<OwnedSemaphorePermit> {
        self.0.snapshots.clone().try_acquire_owned().ok()
    }

    /// A number of its own for every snapshot received.
    pub(super) fn next_transfer(&self) -> u64 {
        self.0.transfers.fetch_add(1, Ordering::Relaxed)
    }

    /// A peer that is a member.
    pub(super) fn member(&self, id: MemberId) -> Option<Arc<Link>> {
        self.peers().get(&id).filter(|peer| peer.is_member).map(|peer| peer.link.clone())
    }

    /// Any peer.
    pub(super) fn link(&self, id: MemberId) -> Option<Arc<Link>> {
        self.peers().get(&id).map(|peer| peer.link.clone())
    }

    /// Adds a trusted sender that is no peer yet as a remote, so that it can be answered, if its URLs are
    /// known and there is room.
    pub(super) fn add_remote(&self, id: MemberId, urls: Vec<String>) {
        let useless = urls.is_empty() || id == MemberId::NONE || id == self.0.context.identity.id;
        if useless || self.link(id).is_some() {
            return;
        }
        let mut peers = self.peers_mut();
        let remotes = peers.values().filter(|peer| !peer.is_member).count();
        if remotes < PEER_REMOTES_MAX && !peers.contains_key(&id) && !*self.0.stopped.borrow() {
            info!(remote_peer_id = %id, remote_peer_urls = ?urls, "added new remote peer");
            peers.insert(id, Peer::remote(self.0.context.clone(), id, urls));
        }
    }

    /// Logs a refusal unless the same sender was last refused in the same way.
    pub(super) fn note_refusal(&self, headers: &HeaderMap, why: &str) {
        let text = |name| identity::header(headers, name).unwrap_or_default().to_owned();
        let (from, cluster) = (text(&SERVER_FROM), text(&CLUSTER));
        let mut refused = lock(&self.0.refused);
        if refused.len() >= PEER_REMOTES_MAX && !refused.contains_key(&from) {
            refused.clear();
        }
        let reason = (why.to_owned(), cluster.clone());
        if refused.get(&from) != Some(&reason) {
            let own = &self.0.context.identity;
            // As etcd logs it: "request cluster ID mismatch".
            warn!(
                local_member_id = %own.id,
                local_member_cluster_id = %own.cluster,
                remote_peer_server_name = from,
                remote_peer_cluster_id = cluster,
                "request {why}"
            );
            refused.insert(from, reason);
        }
    }

    fn peers(&self) -> RwLockReadGuard<'_, BTreeMap<MemberId, Peer>> {
        self.0.peers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn peers_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<MemberId, Peer>> {
        self.0.peers.write().unwrap_or_else(PoisonError::into_inner)
    }
}
