//! Writing one stream: takes messages from its queue, encodes several into one piece, and shows
//! with link heartbeats that it is alive. Does not open streams: peers do.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use quorate_proto::raftpb::Message;
use tokio::select;
use tokio::sync::mpsc::{self, error::TrySendError};
use tracing::{info, warn};

use super::link::Link;
use super::stream_codec::{Encoder, StreamKind};
use crate::limits::{PEER_LINK_HEARTBEAT, PEER_WRITE_BYTES};

/// Pieces that wait for the connection: enough to encode one while another is written, and few,
/// so that a slow connection makes pieces larger instead of queues longer.
pub(super) const PIECES_AHEAD: usize = 2;
/// Messages taken from the queue at once.
const BATCH: usize = 256;

type Pieces = mpsc::Sender<io::Result<Bytes>>;

/// Serves stream `number` until it breaks, or until it is aborted because a newer one replaces it
/// or the peer is removed.
pub(super) async fn run(
    link: Arc<Link>,
    kind: StreamKind,
    number: u64,
    mut messages: mpsc::Receiver<Message>,
    pieces: Pieces,
) {
    info!(
        stream_writer_type = ?kind, remote_peer_id = %link.id,
        "established TCP streaming connection with remote peer"
    );
    let (encoder, out) = (Encoder::new(kind), BytesMut::new());
    let mut writer = Writer { link: &link, encoder, out, pieces, holds_messages: false };
    let Err(error) = writer.write(&mut messages).await else { return };
    warn!(
        stream_writer_type = ?kind, remote_peer_id = %link.id, %error,
        "lost TCP streaming connection with remote peer"
    );
    link.detach(kind, number);
    link.deactivate("write a stream", &error, link.context.env.now());
    // After `detach` nothing is added: what is here now is lost.
    if writer.holds_messages || !messages.is_empty() {
        link.lost();
    }
}

struct Writer<'a> {
    link: &'a Link,
    encoder: Encoder,
    out: BytesMut,
    pieces: Pieces,
    /// Messages have been taken from the queue and not all handed to the connection.
    holds_messages: bool,
}

impl Writer<'_> {
    /// Ends well only when the queue has no sender any more.
    async fn write(&mut self, messages: &mut mpsc::Receiver<Message>) -> io::Result<()> {
        let env = &self.link.context.env;
        let mut batch = Vec::with_capacity(BATCH);
        let mut heartbeat = env.sleep(PEER_LINK_HEARTBEAT);
        loop {
            // A broken connection first: nothing may be taken from the queue only to be lost.
            // Messages before the heartbeat, which they make unnecessary.
            select! { biased;
                () = self.pieces.closed() => return Err(closed()),
                count = messages.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return Ok(());
                    }
                }
                () = &mut heartbeat => {
                    self.encoder.link_heartbeat(&mut self.out);
                    heartbeat = env.sleep(PEER_LINK_HEARTBEAT);
                }
            }
            self.holds_messages = !batch.is_empty();
            for message in batch.drain(..) {
                self.encoder.encode(&message, &mut self.out);
                if self.out.len() >= PEER_WRITE_BYTES {
                    flush(self.link, &mut self.out, &self.pieces).await?;
                }
            }
            flush(self.link, &mut self.out, &self.pieces).await?;
            self.holds_messages = false;
        }
    }
}

/// Hands what is encoded to the connection; fails when it takes nothing for too long.
async fn flush(link: &Link, out: &mut BytesMut, pieces: &Pieces) -> io::Result<()> {
    if out.is_empty() {
        return Ok(());
    }
    let length = out.len() as u64;
    let piece = match pieces.try_send(Ok(out.split().freeze())) {
        Ok(()) => None,
        Err(TrySendError::Full(piece)) => Some(piece),
        Err(TrySendError::Closed(_)) => return Err(closed()),
    };
    if let Some(piece) = piece {
        let sent = link.context.env.timeout(link.context.patience.write, pieces.send(piece)).await;
        sent.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "write timed out"))?
            .map_err(|_| closed())?;
    }
    link.stats.sent_bytes.add(length);
    Ok(())
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the peer closed the stream")
}
