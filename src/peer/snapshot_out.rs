//! Sending one snapshot: a POST of the MsgSnap and the database behind it, streamed. One attempt;
//! raft decides about the next.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method};
use hyper::body::Incoming;
use quorate_proto::raftpb::Message;
use tokio::select;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::body::{Body, ReadError, read_whole};
use super::client::{Connection, request};
use super::link::Link;
use super::local::SnapshotBody;
use super::pipeline::{PostError, check};
use super::stats::SNAPSHOT_FIRST;
use super::stream_codec::put_block;
use crate::env::Env;
use crate::limits::{PEER_REQUEST_BYTES_MAX, PEER_SNAPSHOT_STALL};
use crate::plant;

/// How often it is looked whether a snapshot moves, in the time in which it must.
const STALL_LOOKS: u32 = 12;

/// Sends the present database behind `message` and reports how that ended, also when the task is
/// aborted.
pub(super) fn run(link: Arc<Link>, message: Message) -> impl Future<Output = ()> + Send {
    // Made here and not in the future: a task that is aborted before it first runs reports, too.
    let mut report = Report { link: link.clone(), ok: false };
    async move {
        let _sending = link.stats.snapshots_sending.hold();
        let began = link.context.env.now();
        match send(&link, message).await {
            Ok((index, bytes)) => {
                let took = link.context.env.now() - began;
                info!(
                    snapshot_index = index, remote_peer_id = %link.id, bytes, ?took,
                    "sent database snapshot"
                );
                link.activate();
                link.stats.sent_bytes.add(bytes);
                link.stats.snapshots_sent.add(1);
                link.stats.snapshot_send.observe(SNAPSHOT_FIRST, took);
                report.succeeded();
            }
            Err(error) => {
                warn!(remote_peer_id = %link.id, %error, "failed to send database snapshot");
                if matches!(error, PostError::Removed) {
                    link.context.local.reported_removed(link.id);
                }
                link.deactivate("send a snapshot", &error, began);
                link.stats.snapshot_send_failures.add(1);
                link.lost();
            }
        }
    }
}

/// Reports the end of a snapshot to raft exactly once.
struct Report {
    link: Arc<Link>,
    ok: bool,
}

impl Report {
    /// By a method, so that the future takes the whole value over.
    fn succeeded(&mut self) {
        self.ok = true;
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.link.context.local.snapshot_sent(self.link.id, self.ok);
    }
}

/// The index and size of what has been sent.
async fn send(link: &Link, mut message: Message) -> Result<(u64, u64), PostError> {
    let context = &link.context;
    let url = link.url().ok_or(PostError::NoUrl)?;
    let source = context.local.snapshot_source().await?;

    // The database may have moved on since raft's request: the message names what is really sent.
    let index = source.metadata.index;
    let snapshot = message.snapshot.get_or_insert_default();
    snapshot.metadata = Some(source.metadata.clone());
    snapshot.data = source.data.clone();
    info!(
        snapshot_index = index, remote_peer_id = %link.id, bytes = source.total_bytes,
        "sending database snapshot"
    );

    let mut head = BytesMut::new();
    put_block(&message, &mut head);
    let (pieces, body) = mpsc::channel(1);
    let taken = Arc::new(AtomicU64::new(0));
    let mut request = request(Method::POST, "/raft/snapshot", Body::pieces(body, taken.clone()))?;
    context.identity.sign(request.headers_mut());
    request
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));

    // The answer first: the peer may refuse before it has read everything. The pump never ends the
    // race, its end is the end of the body, or an error that the answer reports.
    let answer = select! { biased;
        answer = answer(link, &url, request) => answer,
        never = pump(head.freeze(), source, pieces) => match never {},
        () = stalled(&context.env, || taken.load(Ordering::Relaxed)) => Err(io::Error::new(io::ErrorKind::TimedOut, "snapshot stalled").into()),
    };
    answer.inspect_err(|_| link.avoid(&url))?;
    Ok((index, taken.load(Ordering::Relaxed)))
}

async fn answer(link: &Link, url: &str, request: http::Request<Body>) -> Result<(), PostError> {
    let (response, _connection): (http::Response<Incoming>, Connection) =
        link.context.client.upload(url, request).await?;
    let (parts, mut body) = response.into_parts();
    let text = match read_whole(
        &link.context.env,
        link.context.patience.read,
        &mut body,
        PEER_REQUEST_BYTES_MAX,
    )
    .await
    {
        Ok(text) => text,
        Err(ReadError::TooLarge) => Bytes::new(),
        Err(ReadError::Io(error)) => return Err(error.into()),
    };
    check(link, parts.status, &parts.headers, &text)
}

/// Feeds the request's body, then waits: the answer decides.
async fn pump(
    head: Bytes,
    mut source: SnapshotBody,
    pieces: mpsc::Sender<io::Result<Bytes>>,
) -> Infallible {
    let mut next = Ok(head);
    let mut sent = 0;
    loop {
        let broken = next.is_err();
        if pieces.send(next).await.is_err() || broken {
            break;
        }
        next = match next_piece(&mut source, &mut sent).await {
            Ok(None) => break,
            Ok(Some(piece)) => Ok(piece),
            Err(error) => Err(error),
        };
    }
    drop(pieces);
    std::future::pending().await
}

/// The next piece of the database, `sent` bytes of which are through; `None` when it is complete.
async fn next_piece(source: &mut SnapshotBody, sent: &mut u64) -> io::Result<Option<Bytes>> {
    let piece = source.chunks.recv().await.transpose()?;
    *sent += piece.as_ref().map_or(0, Bytes::len) as u64;
    let complete = match (source.total_bytes, &piece) {
        (Some(total), piece) => *sent == total && piece.as_ref().is_none_or(Bytes::is_empty),
        (None, piece) => piece.as_ref().is_some_and(Bytes::is_empty),
    };
    match piece {
        _ if complete => Ok(None),
        Some(piece)
            if !piece.is_empty() && source.total_bytes.is_none_or(|total| *sent <= total) =>
        {
            Ok(Some(piece))
        }
        _ => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            match source.total_bytes {
                Some(total) => format!("the snapshot's source stopped at byte {sent} of {total}"),
                None => format!("the snapshot's source stopped at byte {sent}"),
            },
        )),
    }
}

/// Ready when what was `taken` has not grown for [`PEER_SNAPSHOT_STALL`]. A peer that lost its power sends no
/// sign of that when all bytes had reached it, and until this end raft sends it no entries.
async fn stalled(env: &Env, mut taken: impl FnMut() -> u64) {
    let (mut before, mut same) = (taken(), 0);
    while same < STALL_LOOKS || plant::STALLED_SNAPSHOT_KEPT.is_planted() {
        env.sleep(PEER_SNAPSHOT_STALL / STALL_LOOKS).await;
        let now = taken();
        same = if now == before { same + 1 } else { 0 };
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::clocks::Ahead;

    #[tokio::test]
    async fn a_snapshot_whose_receiver_is_silent_is_given_up_in_the_time_of_one_stall() {
        let mut looks = 0;
        stalled(&Ahead::hurried(), || {
            looks += 1;
            // The last byte is taken soon after the first look.
            u64::from(looks > 1)
        })
        .await;
        assert_eq!(looks, 2 + STALL_LOOKS);
    }
}
