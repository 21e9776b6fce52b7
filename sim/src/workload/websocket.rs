//! A watch stream over WebSocket (RFC 6455), as clients open it that speak JSON only: each message a request
//! or a response as text. What runs on it is a stream of responses like any other.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use prost::Message as _;
use quorate::env::BoxConn;
use quorate_proto::etcdserverpb::{WatchRequest, WatchResponse};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::select;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Status;

use super::{Client, json};

/// What comes on a watch stream.
pub type Responses = BoxStream<'static, Result<WatchResponse, Status>>;

const PATH: &str = "/v3/watch";
const PATIENCE: Duration = Duration::from_secs(4);
const CONTINUED: u8 = 0;
const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
/// Any key will do: no proxy between is to be fooled.
const KEY: [u8; 4] = [0x5a, 0x01, 0xff, 0x30];

/// Opens a stream to the member that the client's channel leads to.
pub async fn watch(
    client: &Client,
    requests: mpsc::UnboundedReceiver<WatchRequest>,
) -> Option<Responses> {
    let opening = client.env.timeout(PATIENCE, upgrade(client));
    let Ok(Ok(socket)) = opening.await else {
        client.channel.next_endpoint().await;
        return None;
    };
    let (responses, arriving) = mpsc::unbounded_channel();
    drop(client.env.spawn("websocket", async move {
        let why = run(socket, requests, &responses).await.err();
        let why = why.map_or_else(|| "the stream ended".to_owned(), |why| why.to_string());
        // The session may be gone.
        let _ = responses.send(Err(Status::unavailable(why)));
    }));
    Some(UnboundedReceiverStream::new(arriving).boxed())
}

struct Socket {
    conn: BoxConn,
    arrived: BytesMut,
    /// The parts of a message that comes in several frames.
    message: Vec<u8>,
}

async fn upgrade(client: &Client) -> io::Result<Socket> {
    let endpoint = client.channel.endpoint();
    let mut conn = client.cluster.connect(&client.env, &endpoint).await?;
    let request = format!(
        "GET {PATH} HTTP/1.1\r\nHost: {endpoint}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    conn.write_all(request.as_bytes()).await?;
    conn.flush().await?;
    let mut arrived = BytesMut::new();
    let end = loop {
        if let Some(at) = arrived.windows(4).position(|part| part == b"\r\n\r\n") {
            break at + 4;
        }
        if conn.read_buf(&mut arrived).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let head = arrived.split_to(end);
    if !head.starts_with(b"HTTP/1.1 101 ") {
        return Err(io::Error::other(String::from_utf8_lossy(&head).into_owned()));
    }
    Ok(Socket { conn, arrived, message: Vec::new() })
}

/// Until either side has ended.
async fn run(
    mut socket: Socket,
    mut requests: mpsc::UnboundedReceiver<WatchRequest>,
    responses: &mpsc::UnboundedSender<Result<WatchResponse, Status>>,
) -> io::Result<()> {
    loop {
        while let Some((kind, payload)) = socket.frame()? {
            match kind {
                CLOSE => return Ok(()),
                PING => socket.send(PONG, &payload).await?,
                TEXT => {
                    let response = response(&payload).map_err(io::Error::other)?;
                    if responses.send(Ok(response)).is_err() {
                        return Ok(());
                    }
                }
                _ => {}
            }
        }
        let Socket { conn, arrived, .. } = &mut socket;
        let request = select! {
            biased; // What has arrived is read before more is requested.
            read = conn.read_buf(arrived) => {
                if read? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                continue;
            }
            request = requests.recv() => request,
        };
        let Some(request) = request else { return socket.send(CLOSE, &[]).await };
        let text = json::text_of("etcdserverpb.WatchRequest", request.encode_to_vec().into());
        socket.send(TEXT, text.map_err(io::Error::other)?.as_bytes()).await?;
    }
}

impl Socket {
    async fn send(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        let mut frame = vec![FIN | kind];
        match payload.len() {
            length @ 0..126 => frame.push(MASKED | length as u8),
            length @ 126..65_536 => {
                frame.push(MASKED | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            length => {
                frame.push(MASKED | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(KEY);
        frame.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
        self.conn.write_all(&frame).await?;
        self.conn.flush().await
    }

    /// The next message that is whole: its kind and what is in it.
    fn frame(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        loop {
            let [first, second, rest @ ..] = &self.arrived[..] else { return Ok(None) };
            let (first, second) = (*first, *second);
            if second & MASKED != 0 {
                return Err(io::Error::other("a server's frame is masked"));
            }
            let (length, head) = match (second, rest) {
                (126, [a, b, ..]) => (u64::from(u16::from_be_bytes([*a, *b])), 4),
                (127, [a, b, c, d, e, f, g, h, ..]) => {
                    (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), 10)
                }
                (126 | 127, _) => return Ok(None),
                (length, _) => (u64::from(length), 2),
            };
            let length = usize::try_from(length).map_err(io::Error::other)?;
            if self.arrived.len() < head + length {
                return Ok(None);
            }
            self.arrived.advance(head);
            let payload = self.arrived.split_to(length);
            let (kind, is_last) = (first & 0x0f, first & FIN != 0);
            if kind > TEXT {
                return Ok(Some((kind, payload.to_vec())));
            }
            if kind != CONTINUED && !self.message.is_empty() {
                return Err(io::Error::other("a message begins within a message"));
            }
            self.message.extend_from_slice(&payload);
            if is_last {
                return Ok(Some((TEXT, std::mem::take(&mut self.message))));
            }
        }
    }
}

/// `{"result": ..}`, or the status in `{"error": ..}`.
fn response(text: &[u8]) -> Result<WatchResponse, String> {
    let told: serde_json::Value = serde_json::from_slice(text).map_err(|why| why.to_string())?;
    let result = told.get("result").ok_or_else(|| told.to_string())?;
    let wire = json::wire_of("etcdserverpb.WatchResponse", result.to_string().as_bytes());
    WatchResponse::decode(wire.map_err(|status| status.to_string())?).map_err(|why| why.to_string())
}
