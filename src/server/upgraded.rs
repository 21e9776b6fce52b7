//! A connection that has switched from HTTP to WebSocket (RFC 6455). It keeps its place until it ends, and
//! gives it up as any other connection does; what has come of an unfinished message counts among the requests
//! that have not arrived ([`super::arriving`]). The gateway reads and writes the messages.

use std::future::pending;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Request;
use http::header::UPGRADE;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::body::Body;

use super::arriving::{Arrivals, Entry, Kind};
use crate::env::places::{Open, Place};
use crate::env::{BoxConn, BoxFuture};
use crate::http::gateway::Upgrade;
use crate::limits::{ARRIVING_STREAM_BYTES, JSON_KEPT_FACTOR};
use crate::plant;

/// An extension of requests to switch protocols: the place of their connection.
#[derive(Clone)]
pub struct KeptPlace(pub Arc<Place>);

/// Returns the request with an extension for the connection below, if the client requests a switch of
/// protocols on it.
pub(super) fn prepare<B>(mut request: Request<B>, arrivals: &Arrivals, known: bool) -> Request<B> {
    if !request.headers().contains_key(UPGRADE) {
        return request;
    }
    let Some(KeptPlace(place)) = request.extensions_mut().remove::<KeptPlace>() else {
        return request;
    };
    let connecting = hyper::upgrade::on(&mut request);
    let (arrivals, bodies) = (arrivals.clone(), arrivals.clone());
    let connecting = async move {
        let conn = connecting.await.map_err(io::Error::other)?;
        let conn = Upgraded::new(Box::new(TokioIo::new(conn)), place, arrivals, known);
        Ok(Box::new(conn) as BoxConn)
    };
    let watch = move |body| Body::new(bodies.watch(body, 0, Kind::Pieces, !known));
    request.extensions_mut().insert(Upgrade::new(connecting, watch));
    request
}

struct Upgraded {
    conn: BoxConn,
    /// Ready when the place is needed.
    leave: BoxFuture<'static, ()>,
    _open: Open,
    messages: Messages,
    arrivals: Arrivals,
    known: bool,
    /// What is counted, and how much that is.
    entry: Option<(Entry, usize)>,
}

impl Upgraded {
    fn new(conn: BoxConn, place: Arc<Place>, arrivals: Arrivals, known: bool) -> Self {
        let open = place.standing().open();
        place.standing().switch();
        let place = Some(place).filter(|_| !plant::WEBSOCKET_WITHOUT_PLACE.is_planted());
        let leave = Box::pin(async move {
            match place {
                Some(place) => place.gives_way().await,
                None => pending().await,
            }
        });
        let messages = Messages::default();
        Self { conn, leave, _open: open, messages, arrivals, known, entry: None }
    }

    /// A stranger's connection counts until it is closed, with its largest message.
    fn count(&mut self) {
        let bytes = match self.messages.unfinished {
            0 if self.known => {
                self.entry = None;
                return;
            }
            unfinished => ARRIVING_STREAM_BYTES + JSON_KEPT_FACTOR * unfinished,
        };
        match &mut self.entry {
            None => self.entry = Some((self.arrivals.enter(bytes), bytes)),
            Some((entry, counted)) if *counted < bytes => {
                entry.grow(bytes - *counted);
                *counted = bytes;
            }
            Some(_) => {}
        }
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.leave.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.conn).poll_read(cx, buf)?;
        this.messages.follow(&buf.filled()[before..]);
        this.count();
        if this.entry.as_ref().is_some_and(|(entry, _)| entry.poll_ended(cx)) {
            buf.set_filled(before);
            return Poll::Ready(Err(io::Error::other("too many requests are arriving")));
        }
        polled.map(Ok)
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.conn).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.conn).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.conn).poll_shutdown(cx)
    }
}

/// The messages of a client, by the heads of their frames (RFC 6455, section 5.2).
#[derive(Default)]
struct Messages {
    head: Vec<u8>,
    /// Bytes of the payload that are still to come.
    rest: u64,
    /// The payload is part of a message, and its last part.
    in_message: bool,
    is_last: bool,
    /// Bytes that have come of a message whose end has not.
    unfinished: usize,
}

impl Messages {
    fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.rest == 0 {
                self.head.push(bytes[0]);
                bytes = &bytes[1..];
                if self.read_head() {
                    self.head.clear();
                    self.end_frame();
                }
                continue;
            }
            let used = usize::try_from(self.rest).unwrap_or(usize::MAX).min(bytes.len());
            self.rest -= used as u64;
            bytes = &bytes[used..];
            if self.in_message {
                self.unfinished += used;
            }
            self.end_frame();
        }
    }

    /// Returns whether the head is whole.
    fn read_head(&mut self) -> bool {
        let [first, second, more @ ..] = &self.head[..] else { return false };
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if second & 0x80 != 0 { 4 } else { 0 };
        if more.len() < extended + mask {
            return false;
        }
        self.rest = match extended {
            0 => u64::from(second & 0x7f),
            _ => more[..extended].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        // The upper half of the kinds controls the connection, also between parts of a message.
        self.in_message = first & 0x08 == 0;
        self.is_last = first & 0x80 != 0;
        true
    }

    fn end_frame(&mut self) {
        if self.rest == 0 && self.in_message && self.is_last {
            self.unfinished = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures::poll;
    use tokio::io::AsyncReadExt as _;
    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::env::clocks::Ahead;
    use crate::env::places::Places;
    use crate::limits::ARRIVING_BYTES_MAX;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            length @ ..126 => frame.push(0x80 | length as u8),
            length @ 126..65_536 => {
                frame.push(0xfe);
                frame.extend((length as u16).to_be_bytes());
            }
            length => {
                frame.push(0xff);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        [&frame[..], &[0; 4], payload].concat()
    }

    #[test]
    fn messages_are_unfinished_until_their_last_part() {
        let text =
            [frame(0x01, &[7; 200]), frame(0x89, b"ping"), frame(0x00, &[7; 70_000])].concat();
        for piece in [1, 3, 1000, text.len()] {
            let mut messages = Messages::default();
            text.chunks(piece).for_each(|piece| messages.follow(piece));
            assert_eq!(messages.unfinished, 70_200, "in pieces of {piece}");
            messages.follow(&frame(0x80, b"end")[..8]);
            assert_eq!(messages.unfinished, 70_202);
            messages.follow(b"d");
            assert_eq!(messages.unfinished, 0);
            messages.follow(&frame(0x81, b""));
            messages.follow(&frame(0x82, b"whole"));
            assert_eq!(messages.unfinished, 0);
        }
    }

    struct World {
        places: Places,
        arrivals: Arrivals,
    }

    impl World {
        fn new(places: usize) -> Self {
            let arrivals = Arrivals::new(&Ahead::hurried(), ARRIVING_BYTES_MAX);
            Self { places: Places::new(places), arrivals }
        }

        async fn upgraded(&self, host: u8, known: bool) -> (Upgraded, tokio::io::DuplexStream) {
            let (near, far) = tokio::io::duplex(2 << 20);
            // An address has its share of the places.
            let from = Some(Ipv4Addr::new(10, 0, 0, host).into());
            let place = self.places.enter(from).await.expect("there is one, or another gives way");
            let place = Arc::new(place);
            if known {
                place.standing().make_known();
            }
            (Upgraded::new(Box::new(near), place, self.arrivals.clone(), known), far)
        }
    }

    #[tokio::test]
    async fn an_upgraded_connection_keeps_its_place_until_it_is_needed() {
        let world = World::new(2);
        let (mut first, _far) = world.upgraded(1, true).await;
        let (mut second, _other) = world.upgraded(2, true).await;
        for socket in [&mut first, &mut second] {
            assert!(poll!(Box::pin(socket.read_u8())).is_pending());
        }
        let new = world.places.enter(None).await.expect("one of the two gives way");
        new.standing().make_known();
        let _request = new.standing().open();
        let error = second.read_u8().await.expect_err("its place is needed");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        assert!(poll!(Box::pin(first.read_u8())).is_pending());
        drop(second);
        // One of each is left, and neither is idle.
        let newest = world.places.enter(Some(Ipv4Addr::new(10, 0, 0, 9).into())).await;
        assert!(newest.is_some() && first.read_u8().await.is_err());
    }

    #[tokio::test]
    async fn a_strangers_upgraded_connection_gives_way() {
        let world = World::new(1);
        let (mut stranger, _far) = world.upgraded(3, false).await;
        assert!(poll!(Box::pin(stranger.read_u8())).is_pending());
        let _new = world.places.enter(None).await.expect("a stranger gives way");
        let error = stranger.read_u8().await.expect_err("its place is needed");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn unfinished_messages_of_websockets_are_bounded_in_bytes() {
        let world = World::new(1000);
        let part = frame(0x01, &vec![b' '; 1 << 20]);
        let mut sockets = Vec::new();
        let mut space = vec![0; 2 << 20];
        for _ in 0..ARRIVING_BYTES_MAX >> 20 {
            let (mut socket, mut far) = world.upgraded(4, true).await;
            far.write_all(&part).await.expect("there is room");
            for left in (1..=part.len()).rev() {
                let read = socket.read(&mut space[..left]).await.expect("there is room");
                if read == left {
                    break;
                }
            }
            sockets.push((socket, far));
        }
        let (oldest, _) = &mut sockets[0];
        assert!(oldest.read_u8().await.is_err(), "the oldest ends");
        let (newest, far) = sockets.last_mut().expect("there are many");
        far.write_all(&frame(0x80, b"")).await.expect("there is room");
        newest.read_exact(&mut space[..6]).await.expect("there is room");
        assert!(newest.entry.is_none(), "what has arrived does not count");
    }
}
