//! Reading the streams of one peer: dials, reads until the stream breaks, dials again, for as long
//! as the peer is a member.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use quorate_proto::raftpb::Message;
use tokio::select;
use tracing::{info, warn};

use super::body::{Body, read_whole};
use super::client::{Connection, broken, request};
use super::identity::{self, Mismatch, RAFT_TO};
use super::link::Link;
use super::local::Standing;
use super::stream_codec::{CodecError, Decoder, StreamKind, is_link_heartbeat, is_relayed};
use crate::limits::{PEER_DIAL_RETRY, PEER_REQUEST_BYTES_MAX};
use crate::types::MemberId;

impl StreamKind {
    /// The path below which streams of this kind are requested.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Message => "/raft/stream/message",
            Self::MsgApp => "/raft/stream/msgapp",
        }
    }
}

/// Why a stream is not there, or not there any more.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("the peer has no URL")]
    NoUrl,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("the stream fell silent")]
    Silent,
    #[error("the member has been permanently removed from the cluster")]
    Removed,
    #[error("the peer does not know this member")]
    Unknown,
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    #[error("unexpected answer {0}: {1:?}")]
    Status(StatusCode, String),
}

/// Keeps one stream from the peer open until the task is aborted.
pub(super) async fn run(link: Arc<Link>, kind: StreamKind) {
    let env = &link.context.env;
    loop {
        let began = env.now();
        match dial(&link, kind).await {
            Err(error) => {
                if matches!(error, StreamError::Removed) {
                    link.context.local.reported_removed(link.id);
                }
                link.deactivate("dial a stream", &error, began);
            }
            Ok((mut body, _connection)) => {
                link.activate();
                info!(
                    stream_reader_type = ?kind, remote_peer_id = %link.id,
                    "established TCP streaming connection with remote peer"
                );
                match read(&link, kind, &mut body).await {
                    // An orderly end, mostly because the peer stops; dialing shows.
                    Ok(()) => info!(
                        stream_reader_type = ?kind, remote_peer_id = %link.id,
                        "stopped TCP streaming connection with remote peer"
                    ),
                    Err(error) => {
                        warn!(
                            stream_reader_type = ?kind, remote_peer_id = %link.id, %error,
                            "lost TCP streaming connection with remote peer"
                        );
                        link.deactivate("read a stream", &error, env.now());
                    }
                }
            }
        }
        env.sleep_until(began + PEER_DIAL_RETRY).await;
    }
}

async fn dial(link: &Link, kind: StreamKind) -> Result<(Incoming, Connection), StreamError> {
    let context = &link.context;
    let url = link.url().ok_or(StreamError::NoUrl)?;
    let path = format!("{}/{}", kind.path(), context.identity.id);
    let mut request = request(Method::GET, &path, Body::empty())?;
    context.identity.sign(request.headers_mut());
    request.headers_mut().insert(RAFT_TO, identity::text(&link.id.to_string()));

    let opened = context.client.open(&url, request).await;
    let (response, connection) = opened.inspect_err(|_| link.avoid(&url))?;
    if response.status() == StatusCode::OK {
        return Ok((response.into_body(), connection));
    }
    link.avoid(&url);
    Err(refusal(link, response).await)
}

/// What an answer other than 200 means.
async fn refusal(link: &Link, response: Response<Incoming>) -> StreamError {
    let (parts, mut body) = response.into_parts();
    let text = read_whole(
        &link.context.env,
        link.context.patience.read,
        &mut body,
        PEER_REQUEST_BYTES_MAX,
    )
    .await
    .unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim_end().to_owned();
    match parts.status {
        StatusCode::GONE => StreamError::Removed,
        StatusCode::NOT_FOUND => StreamError::Unknown,
        StatusCode::PRECONDITION_FAILED => {
            match [Mismatch::Version, Mismatch::Cluster, Mismatch::To]
                .into_iter()
                .find(|m| m.to_string() == text)
            {
                Some(mismatch) => {
                    link.refused(mismatch, identity::header(&parts.headers, &identity::CLUSTER));
                    mismatch.into()
                }
                None => StreamError::Status(parts.status, text),
            }
        }
        status => StreamError::Status(status, text),
    }
}

/// Forwards the messages of the stream until it ends. Silence beyond the timeout is an error: the
/// other end sends link heartbeats.
async fn read(link: &Link, kind: StreamKind, body: &mut Incoming) -> Result<(), StreamError> {
    let env = &link.context.env;
    let mut decoder = Decoder::new(kind, link.context.identity.id, link.id);
    let mut arrived = BytesMut::new();
    let mut received_at = env.now();
    // One timer for many pieces: it is set again only when it fires.
    let limit = link.context.patience.read;
    let mut patience = env.sleep(limit);
    loop {
        // What has arrived counts before the time it took.
        let frame = select! { biased;
            frame = body.frame() => frame,
            () = &mut patience => {
                let silent = env.now().saturating_duration_since(received_at);
                let left = limit.saturating_sub(silent);
                if left == Duration::ZERO {
                    return Err(StreamError::Silent);
                }
                patience = env.sleep(left);
                continue;
            }
        };
        let piece = match frame {
            None => return Ok(()),
            Some(Err(error)) => return Err(broken(error).into()),
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        };
        received_at = env.now();
        link.stats.received_bytes.add(piece.len() as u64);
        arrived.extend_from_slice(&piece);
        while let Some(message) = decoder.decode(&mut arrived)? {
            if !is_link_heartbeat(&message) {
                deliver(link, message);
            }
        }
    }
}

/// Hands a message to the member, if it is for it and its sender may send it.
fn deliver(link: &Link, message: Message) {
    let local = &link.context.local;
    let from = MemberId(message.from);
    // Messages that a follower passes on keep their first sender, which may have joined lately.
    let senders = from == link.id || is_relayed(&message);
    let meant = message.to == link.context.identity.id.0;
    if !meant || !senders || local.standing(from) == Standing::Removed {
        link.stats.received_failures.add(1);
        return;
    }
    local.step(message);
}
