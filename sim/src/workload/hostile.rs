//! A program that is no member, at the peer port: invented senders and terms, garbage, what nests too deep,
//! snapshots of nothing, proposals. No member ends of it, and nothing of it is proposed: a revision that no
//! client requested is found by the replay.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::HOST;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use quorate_proto::etcdserverpb::{InternalRaftRequest, PutRequest};
use quorate_proto::raftpb::{Entry, Message, MessageType, Snapshot, SnapshotMetadata};

use super::{Client, Work, Workload};
use crate::facts::addresses::{PEER_PORT, host_of};
use crate::facts::evidence::Evidence;
use crate::facts::verdict::Violation;

const NAME: &str = "hostile";
const PATIENCE: Duration = Duration::from_secs(3);
/// A level of nesting takes two bytes.
const NESTED_LEVELS: usize = 4_000;
const GARBAGE_BYTES_MAX: u64 = 400;

pub struct Hostile;

impl Workload for Hostile {
    fn name(&self) -> &'static str {
        NAME
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            client.channel.next_endpoint().await;
            let host = host_of(&client.channel.endpoint()).to_owned();
            let header = client.cluster.status(&client.env, &host).await;
            if let Some(header) = header.and_then(|status| status.header) {
                let attack =
                    Attack { client, host, cluster: header.cluster_id, to: header.member_id };
                let _ = client.env.timeout(PATIENCE, attack.run()).await;
            }
            client.pause(300).await;
        })
    }

    fn check(&self, _evidence: &Evidence) -> Vec<Violation> {
        Vec::new()
    }
}

struct Attack<'a> {
    client: &'a Client,
    host: String,
    cluster: u64,
    /// The member there.
    to: u64,
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

impl Attack<'_> {
    async fn run(&self) -> Result<(), Failed> {
        let from = self.client.roll() | 1;
        let message = self.message(from);
        let is_proposal = message.r#type() == MessageType::MsgProp;
        let (path, body) = match self.client.below(10) {
            0 => ("/raft".to_owned(), self.garbage()),
            1 => ("/raft".to_owned(), nested()),
            2 => ("/raft/snapshot".to_owned(), self.garbage()),
            3 => ("/raft/snapshot".to_owned(), self.database(from)),
            4 => (format!("/raft/stream/msgapp/{from:x}"), Bytes::new()),
            5 => (format!("/members/promote/{}", self.client.roll()), Bytes::new()),
            _ => ("/raft".to_owned(), message.encode_to_vec().into()),
        };
        let proposes = is_proposal && path == "/raft";
        let status = self.post(&path, from, body).await?;
        if proposes && status == StatusCode::NO_CONTENT {
            let text = format!("{} takes a proposal of {from:x}, which is no member", self.host);
            self.client.complain("only members propose", text);
        }
        Ok(())
    }

    fn message(&self, from: u64) -> Message {
        let kinds = [
            MessageType::MsgProp,
            MessageType::MsgHeartbeat,
            MessageType::MsgApp,
            MessageType::MsgVote,
            MessageType::MsgPreVote,
            MessageType::MsgAppResp,
            MessageType::MsgTimeoutNow,
            MessageType::MsgTransferLeader,
            MessageType::MsgReadIndex,
        ];
        let number = || match self.client.below(4) {
            0 => 0,
            1 => self.client.below(1_000),
            2 => 1_000_000_000,
            _ => u64::MAX - self.client.below(3),
        };
        let mut message = Message {
            to: self.to,
            from,
            term: number(),
            index: number(),
            log_term: number(),
            commit: number(),
            ..Message::default()
        };
        message.set_type(kinds[self.client.below(kinds.len() as u64) as usize]);
        let data = match message.r#type() {
            MessageType::MsgProp if self.client.chance(1, 2) => put(),
            _ => self.garbage(),
        };
        message.entries.push(Entry { data, ..Entry::default() });
        if message.r#type() == MessageType::MsgProp {
            message.term = 0;
        }
        message
    }

    fn garbage(&self) -> Bytes {
        (0..self.client.below(GARBAGE_BYTES_MAX)).map(|_| self.client.roll() as u8).collect()
    }

    /// A snapshot's message, and something else where its database should be.
    fn database(&self, from: u64) -> Bytes {
        let index = 1 + self.client.below(1_000_000);
        let metadata = SnapshotMetadata { conf_state: None, index, term: self.client.below(50) };
        let snapshot = Snapshot { metadata: Some(metadata), ..Snapshot::default() };
        let mut message = Message { to: self.to, from, ..Message::default() };
        message.set_type(MessageType::MsgSnap);
        message.snapshot = Some(snapshot);
        let message = message.encode_to_vec();
        let mut body = BytesMut::new();
        body.put_u64(message.len() as u64);
        body.extend_from_slice(&message);
        body.extend_from_slice(&self.garbage());
        body.freeze()
    }

    async fn post(&self, path: &str, from: u64, body: Bytes) -> Result<StatusCode, Failed> {
        let endpoint = format!("{}:{PEER_PORT}", self.host);
        let stream = self.client.cluster.connect(&self.client.env, &endpoint).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        drop(self.client.env.spawn(NAME, async move { drop(connection.await) }));
        let request = match path.starts_with("/raft/stream/") {
            true => Request::get(path),
            false => Request::post(path),
        };
        let request = request
            .header(HOST, &endpoint)
            .header("x-server-from", format!("{from:x}"))
            .header("x-server-version", "3.7.1")
            .header("x-min-cluster-version", "3.0.0")
            .header("x-raft-to", format!("{:x}", self.to))
            .header("x-peerurls", "http://nowhere:2380")
            .header("x-etcd-cluster-id", format!("{:x}", self.cluster))
            .body(Full::new(body))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        response.into_body().collect().await?;
        Ok(status)
    }
}

/// A put that no client requested.
fn put() -> Bytes {
    let put = PutRequest { key: NAME.into(), value: "1".into(), ..Default::default() };
    InternalRaftRequest { put: Some(put), ..Default::default() }.encode_to_vec().into()
}

/// A message whose responses have responses, and so on.
fn nested() -> Bytes {
    let levels = |_| [0x72_u8, 0x7f];
    (0..NESTED_LEVELS).flat_map(levels).collect()
}
