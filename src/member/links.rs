//! Connects consensus with the peers: outgoing and incoming raft messages, and the calls between members
//! beside raft.

use std::io;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use futures::future::join_all;
use http::StatusCode;
use prost::Message as _;
use quorate_proto::etcdserverpb::{
    HashKvRequest, HashKvResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use quorate_proto::leasepb::{LeaseInternalRequest, LeaseInternalResponse};
use quorate_proto::raftpb::MessageType::MsgSnap;
use quorate_proto::raftpb::{Message, SnapshotMetadata};

use crate::apply::membership::MemberRecord;
use crate::auth::Rule;
use crate::codec;
use crate::env::{BoxFuture, File};
use crate::error::{Error, Fatal, Removed, Unavailable};
use crate::member::requests::UNDECIDED_VERSION;
use crate::member::snapshot;
use crate::member::start::{members_at, peer_urls};
use crate::member::{Caller, Inner, Member, Options};
use crate::peer::{self, CallError, Identity, Local, PeerConfig, SnapshotBody, Standing};
use crate::replica;
use crate::tls::{self, Acceptor};
use crate::types::{Index, LeaseId, MemberId, Revision};

/// How long a call to another member may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// For connecting to a peer, beside an election timeout, as etcd has it.
const DIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// A promotion is a write: it may take as long as one.
const PROMOTE_TIMEOUT: Duration = Duration::from_secs(7);

/// Where raft's messages go; the transport is put in once the member it serves exists.
#[derive(Default)]
pub(in crate::member) struct Outgoing(OnceLock<peer::Transport>);

impl replica::Transport for Outgoing {
    fn send(&self, messages: Vec<Message>) {
        // Messages are dropped before the transport exists.
        if let Some(transport) = self.0.get() {
            transport.send(messages);
        }
    }

    fn discard_snapshot(&self, index: Index) {
        if let Some(transport) = self.0.get() {
            transport.discard_snapshot(index);
        }
    }
}

/// The connections to the other members.
pub(in crate::member) struct Links {
    outgoing: Arc<Outgoing>,
}

impl Links {
    pub fn new(outgoing: Arc<Outgoing>) -> Self {
        Self { outgoing }
    }

    /// Opens the peer ports.
    pub async fn start(&self, member: &Member, local: Arc<dyn Local>) -> Result<(), Fatal> {
        let env = member.env();
        let identity = Identity {
            id: member.id(),
            cluster: member.cluster_id(),
            urls: member.0.options.advertise_peer_urls.clone(),
        };
        let config = PeerConfig {
            identity,
            peers: Vec::new(),
            seeds: peer_urls(&member.0.options).into_iter().cloned().collect(),
            snapshot_dir: member.0.options.snap_dir(),
            dial_timeout: dial_timeout(&member.0.options),
            patience: member.0.options.peer_patience,
            tls: member.0.options.peer_tls.clone(),
        };
        let transport = peer::Transport::start(env.clone(), config, local);
        let (listen, tls) = (&member.0.options.listen_peer, &member.0.options.peer_tls);
        let insecure = |e| Fatal::new("starting with peer TLS", e);
        if tls.has_certificate() {
            transport.client().check().await.map_err(insecure)?;
        }
        for at in listen {
            let acceptor = match at.secure {
                true => Some(Acceptor::new(env, tls, tls::Port::Peer).await.map_err(insecure)?),
                false => None,
            };
            let place = &at.place;
            let listener = env.listen(place).await;
            let listener =
                listener.map_err(|e| Fatal::new(format!("listening for peers on {place}"), e))?;
            let transport = transport.clone();
            env.spawn("peer port", async move {
                match acceptor {
                    Some(acceptor) => transport.serve_secured(listener, acceptor).await,
                    None => transport.serve(listener).await,
                }
            });
        }
        assert!(self.outgoing.0.set(transport).is_ok(), "links are started once");
        Ok(())
    }

    /// Every peer, whether it is connected, and figures about it.
    pub fn figures(&self) -> Vec<(MemberId, bool, Arc<peer::Stats>)> {
        let transport = self.transport();
        let connected = |id| transport.active_since(id).is_some();
        let stats = transport.stats().into_iter();
        stats.map(|(id, stats)| (id, connected(id), stats)).collect()
    }

    fn transport(&self) -> &peer::Transport {
        self.outgoing.0.get().expect("links are started before the member is handed out")
    }

    /// For calls to other members beside raft.
    pub fn client(&self) -> &peer::Client {
        self.transport().client()
    }

    /// Since when messages get through to a member; `None` while they do not.
    pub fn active_since(&self, id: MemberId) -> Option<Instant> {
        self.transport().active_since(id)
    }

    pub fn connected_since(&self, id: MemberId, since: Instant) -> bool {
        self.transport().active_since(id).is_some_and(|at| at <= since)
    }

    pub fn shutdown(&self) {
        self.transport().stop();
    }

    /// Forwards a keep-alive to the leader; `None` when it was not reached or does not lead.
    pub async fn renew_at(&self, leader: MemberId, id: LeaseId) -> Option<Result<i64, Error>> {
        let body = codec::encode(&LeaseKeepAliveRequest { id: id.0 });
        let answer = self.call(leader, "/leases", body).await?;
        match answer.status {
            StatusCode::OK => {
                let response = LeaseKeepAliveResponse::decode(answer.body).ok()?;
                Some(Ok(response.ttl))
            }
            StatusCode::NOT_FOUND => Some(Ok(0)),
            _ => None,
        }
    }

    pub async fn time_to_live_at(
        &self,
        leader: MemberId,
        request: LeaseTimeToLiveRequest,
    ) -> Option<Result<LeaseTimeToLiveResponse, Error>> {
        let request = LeaseInternalRequest { lease_time_to_live_request: Some(request) };
        let answer = self.call(leader, "/leases/internal", codec::encode(&request)).await?;
        if answer.status != StatusCode::OK {
            return None;
        }
        let response = LeaseInternalResponse::decode(answer.body).ok()?;
        response.lease_time_to_live_response.map(Ok)
    }

    /// A promotion by the leader; `None` when it has no URL that answers.
    pub async fn promote_at(
        &self,
        leader: MemberId,
        id: MemberId,
        token: Option<&str>,
    ) -> Option<Result<Vec<MemberRecord>, CallError>> {
        let transport = self.transport();
        let mut last = None;
        for url in transport.urls(leader)? {
            let answer = match transport.client().promote(&url, id, token, PROMOTE_TIMEOUT).await {
                Ok(json) => serde_json::from_slice(&json).map_err(|e| io::Error::other(e).into()),
                Err(error) => Err(error),
            };
            match answer {
                Err(CallError::Io(_)) => last = Some(answer),
                answer => return Some(answer),
            }
        }
        last
    }

    async fn call(&self, to: MemberId, path: &str, body: bytes::Bytes) -> Option<peer::HttpAnswer> {
        let transport = self.transport();
        for url in transport.urls(to)? {
            if let Ok(answer) =
                transport.client().post(&url, path, body.clone(), CALL_TIMEOUT).await
            {
                return Some(answer);
            }
        }
        None
    }
}

impl Member {
    /// The lowest `major.minor.0` that all members support; etcd's lowest while one has not answered and
    /// none is decided; `None` while one has not answered and one is.
    pub(in crate::member) async fn lowest_version(&self) -> Option<String> {
        let members = self.members();
        let others = members.members.values().filter(|m| m.id != self.id().0);
        let asked = join_all(others.map(|m| self.version_of(m.peer_urls.clone()))).await;
        let mut lowest = parse_version(self.version())?;
        for version in asked {
            match version {
                Some(version) => lowest = lowest.min(version),
                None if self.cluster_version().is_none() => return Some(UNDECIDED_VERSION.into()),
                None => return None,
            }
        }
        Some(format!("{}.{}.0", lowest.0, lowest.1))
    }

    /// Whether a majority of the remaining voters has applied this member's removal, and so no longer needs
    /// its vote.
    pub(in crate::member) async fn is_let_go(&self) -> bool {
        let members = self.members();
        let voters: Vec<_> = members.members.values().filter(|m| !m.is_learner).collect();
        let asked = voters.iter().map(|voter| self.is_removed_at(&voter.peer_urls));
        let know = join_all(asked).await.into_iter().filter(|knows| *knows).count();
        know * 2 > voters.len()
    }

    async fn is_removed_at(&self, urls: &[String]) -> bool {
        let client = self.0.links.transport().client();
        for url in urls {
            if let Ok((_, members)) = members_at(client, url, CALL_TIMEOUT).await {
                return members.iter().all(|member| member.id != self.id().0);
            }
        }
        false
    }

    async fn version_of(&self, urls: Vec<String>) -> Option<(u64, u64)> {
        for url in urls {
            let client = self.0.links.transport().client();
            let Ok(answer) = client.get(&url, "/version", CALL_TIMEOUT).await else { continue };
            let Ok(json) = serde_json::from_slice::<serde_json::Value>(&answer.body) else {
                continue;
            };
            if let Some(version) = json.get("etcdserver").and_then(|v| v.as_str()) {
                return parse_version(version);
            }
        }
        None
    }

    /// The answer of `/version`, on both ports.
    pub fn version_json(&self) -> String {
        let cluster = self.cluster_version().unwrap_or_else(|| "not_decided".into());
        format!(
            "{{\"etcdserver\":\"{}\",\"etcdcluster\":\"{cluster}\",\"storage\":\"{}\"}}",
            self.version(),
            self.storage_version()
        )
    }
}

/// How long connecting to a peer may take.
pub(in crate::member) fn dial_timeout(options: &Options) -> Duration {
    DIAL_TIMEOUT + options.election_timeout
}

pub(in crate::member) fn parse_version(text: &str) -> Option<(u64, u64)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Updates the transport when members are added, updated and removed.
pub(in crate::member) async fn follow_members(member: Member) {
    let mut changes = member.0.signals.members.subscribe();
    let mut known: Vec<(MemberId, Vec<String>)> = Vec::new();
    loop {
        let table = changes.borrow_and_update().clone();
        let transport = member.0.links.transport();
        let wanted: Vec<_> = table
            .members
            .values()
            .filter(|m| m.id != member.id().0)
            .map(|m| (MemberId(m.id), m.peer_urls.clone()))
            .collect();
        for (id, _) in known.iter().filter(|(id, _)| !wanted.iter().any(|(w, _)| w == id)) {
            transport.remove(*id);
        }
        for (id, urls) in &wanted {
            match known.iter().find(|(known, _)| known == id) {
                None => transport.add(*id, urls.clone()),
                Some((_, before)) if before != urls => transport.update(*id, urls.clone()),
                Some(_) => {}
            }
        }
        known = wanted;
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// The member as its peers see it. Weak, because the member owns the transport that owns this.
pub(in crate::member) struct LocalMember(Weak<Inner>);

impl LocalMember {
    pub fn new(member: &Arc<Inner>) -> Self {
        Self(Arc::downgrade(member))
    }

    fn member(&self) -> Option<Member> {
        self.0.upgrade().map(Member)
    }

    /// Calls `ask` with the member; fails when the member has stopped.
    fn ask<T, F>(&self, ask: impl FnOnce(Member) -> F) -> BoxFuture<'static, Result<T, Error>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        match self.member() {
            Some(member) => Box::pin(ask(member)),
            None => Box::pin(async { Err(Unavailable::Stopped.into()) }),
        }
    }
}

impl Local for LocalMember {
    fn step(&self, message: Message) {
        if let Some(member) = self.member() {
            let snapshot = message.snapshot.as_ref().filter(|_| message.r#type() == MsgSnap);
            let recovered = snapshot.map_or(Ok(()), |snap| member.0.options.release.recover(snap));
            if let Err(why) = recovered {
                return member.0.signals.stop_with(Fatal::new("recovering a snapshot", why));
            }
            member.0.replica.step(message);
        }
    }

    fn lost_contact(&self, id: MemberId) {
        if let Some(member) = self.member() {
            member.0.replica.report_lost_contact(id);
        }
    }

    fn snapshot_sent(&self, id: MemberId, ok: bool) {
        if let Some(member) = self.member() {
            member.0.replica.report_snapshot(id, ok);
        }
    }

    fn snapshot_source(&self) -> BoxFuture<'static, io::Result<SnapshotBody>> {
        let Some(member) = self.member() else {
            return Box::pin(async { Err(io::Error::other("the member has stopped")) });
        };
        Box::pin(async move {
            snapshot::source(&member.0.env, &member.0.store, snapshot::For::Member).await
        })
    }

    fn check_database(
        &self,
        database: Box<dyn File>,
        metadata: &SnapshotMetadata,
    ) -> Result<(), String> {
        snapshot::check(database, metadata)
    }

    fn standing(&self, id: MemberId) -> Standing {
        let Some(member) = self.member() else { return Standing::Unknown };
        let table = member.members();
        if table.removed.contains(&id) {
            Standing::Removed
        } else if table.members.contains_key(&id) {
            Standing::Member
        } else if table.members.is_empty() {
            Standing::Undecided
        } else {
            Standing::Unknown
        }
    }

    fn reported_removed(&self, by: MemberId) {
        if let Some(member) = self.member() {
            member.0.signals.stop_with(Fatal::new(format!("reported by member {by}"), Removed));
        }
    }

    fn version_json(&self) -> String {
        self.member().map(|member| member.version_json()).unwrap_or_default()
    }

    fn members_json(&self) -> String {
        let Some(member) = self.member() else { return "[]".into() };
        let table = member.members();
        let members: Vec<_> = table.members.values().collect();
        serde_json::to_string(&members).expect("a member table is plain JSON")
    }

    fn promote(
        &self,
        id: MemberId,
        token: Option<String>,
    ) -> BoxFuture<'static, Result<String, Error>> {
        self.ask(move |member| async move {
            let caller = Caller::client(token.as_deref(), None);
            member.permit(&caller, Rule::Root).await?;
            let members = member.promote(&caller, id).await?;
            Ok(serde_json::to_string(&members).expect("a member table is plain JSON"))
        })
    }

    fn hash_kv(&self, revision: Revision) -> BoxFuture<'static, Result<HashKvResponse, Error>> {
        self.ask(
            |member| async move { member.hash_kv(HashKvRequest { revision: revision.0 }).await },
        )
    }

    fn renew(&self, lease: LeaseId) -> BoxFuture<'static, Result<i64, Error>> {
        self.ask(move |member| async move {
            member.renew_here(lease).await.unwrap_or(Err(Unavailable::NotPrimaryLessor.into()))
        })
    }

    fn time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> BoxFuture<'static, Result<LeaseTimeToLiveResponse, Error>> {
        self.ask(move |member| async move {
            let answer = member.time_to_live_here(request).await;
            answer.unwrap_or(Err(Unavailable::NotPrimaryLessor.into()))
        })
    }

    fn downgrade_enabled(&self) -> BoxFuture<'static, Result<bool, Error>> {
        self.ask(|member| async move {
            member.linearizable().await?;
            Ok(member.members().downgrade.is_some())
        })
    }
}
