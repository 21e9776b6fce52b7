//! Messages one by one, each a POST of its own, while a peer has no stream open.

use std::io;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use prost::Message as _;
use quorate_proto::raftpb::Message;
use tokio::select;
use tokio::sync::mpsc;

use super::body::Body;
use super::client::request;
use super::identity::{self, Mismatch};
use super::link::Link;
use crate::codec;
use crate::limits::{PEER_PIPELINE_IN_FLIGHT, PEER_POST_TIMEOUT};

/// Why a POST to a peer did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    #[error("the peer has no URL")]
    NoUrl,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the member has been permanently removed from the cluster")]
    Removed,
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    #[error("unexpected answer {0}: {1:?}")]
    Status(StatusCode, String),
}

/// Posts what is queued, a few at a time, until the task is aborted. The order is not kept; raft
/// does not rely on it.
pub(super) async fn run(link: Arc<Link>, mut queue: mpsc::Receiver<Message>) {
    let mut in_flight = FuturesUnordered::new();
    loop {
        // Finished ones first: they make room.
        select! { biased;
            Some(()) = in_flight.next() => {}
            message = queue.recv(), if in_flight.len() < PEER_PIPELINE_IN_FLIGHT => match message {
                Some(message) => in_flight.push(deliver(&link, message)),
                None => return,
            },
        }
    }
}

async fn deliver(link: &Link, message: Message) {
    let began = link.context.env.now();
    match post(link, &message).await {
        Ok(()) => {
            link.activate();
            link.stats.sent_bytes.add(message.encoded_len() as u64);
        }
        Err(error) => {
            if matches!(error, PostError::Removed) {
                link.context.local.reported_removed(link.id);
            }
            link.deactivate("post a message", &error, began);
            link.lost();
        }
    }
}

async fn post(link: &Link, message: &Message) -> Result<(), PostError> {
    let context = &link.context;
    let url = link.url().ok_or(PostError::NoUrl)?;
    let mut request = request(Method::POST, "/raft", Body::from(codec::encode(message)))?;
    context.identity.sign(request.headers_mut());
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/protobuf"));
    let answer = context.client.call(&url, request, PEER_POST_TIMEOUT).await;
    let answer = answer.inspect_err(|_| link.avoid(&url))?;
    check(link, answer.status, &answer.headers, &answer.body).inspect_err(|_| link.avoid(&url))
}

/// Judges the answer to a message or a snapshot.
pub(super) fn check(
    link: &Link,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(), PostError> {
    let text = String::from_utf8_lossy(body).trim_end().to_owned();
    match status {
        StatusCode::NO_CONTENT => Ok(()),
        // etcd answers 403 to a message for another member, too, which is no reason to stop.
        StatusCode::FORBIDDEN if text.contains("removed member") => Err(PostError::Removed),
        StatusCode::PRECONDITION_FAILED => {
            match [Mismatch::Version, Mismatch::Cluster].into_iter().find(|m| m.to_string() == text)
            {
                Some(mismatch) => {
                    link.refused(mismatch, identity::header(headers, &identity::CLUSTER));
                    Err(mismatch.into())
                }
                None => Err(PostError::Status(status, text)),
            }
        }
        status => Err(PostError::Status(status, text)),
    }
}
