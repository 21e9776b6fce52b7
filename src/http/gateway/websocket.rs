//! Gateway calls over WebSocket (RFC 6455), compatible with etcd's wsproxy: each client message is a part of
//! the request body, each line of the response a text message. The token is in the sub-protocol (`Bearer,
//! TOKEN`) or in a cookie, which browsers can set. A library reads and writes the frames; which of them are
//! read, and how a connection ends, is up to [`super::judged`].

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt as _};
use http::header::{
    AUTHORIZATION, CONNECTION, COOKIE, HeaderMap, HeaderName, HeaderValue, ORIGIN, REFERER,
    SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::Frame as BodyFrame;
use http_body_util::{BodyExt as _, StreamBody};
use sha1::{Digest as _, Sha1};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tonic::body::Body;

use super::Gateway;
use super::judged::Judged;
use crate::env::{BoxConn, BoxFuture};
use crate::http::plain;
use crate::limits;

const VERSION: HeaderValue = HeaderValue::from_static("13");
const WEBSOCKET: &str = "websocket";
const BEARER: &str = "Bearer";
/// The suffix of a client's key in the accept header (RFC 6455, 4.2.2).
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Size of a client's key.
const KEY_BYTES: usize = 16;
const TOKEN_COOKIE: &str = "token";
/// Size of a connection's read buffer.
const READ_BYTES: usize = 4 << 10;

/// An extension of requests: resolves to the connection after the response with status 101, and bounds the
/// body of the call that is made on it.
#[derive(Clone)]
pub struct Upgrade(Arc<Mutex<Option<Switching>>>);

struct Switching {
    connecting: BoxFuture<'static, io::Result<BoxConn>>,
    watch: Box<dyn FnOnce(Body) -> Body + Send>,
}

impl Upgrade {
    pub fn new(
        connecting: impl Future<Output = io::Result<BoxConn>> + Send + 'static,
        watch: impl FnOnce(Body) -> Body + Send + 'static,
    ) -> Self {
        let (connecting, watch) = (Box::pin(connecting), Box::new(watch));
        Self(Arc::new(Mutex::new(Some(Switching { connecting, watch }))))
    }

    fn take(&self) -> Option<Switching> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Returns whether the client requests a websocket.
pub(super) fn is_upgrade<B>(request: &Request<B>) -> bool {
    let has = |name: HeaderName, token: &str| {
        let values = request.headers().get_all(name);
        let mut tokens =
            values.iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
        tokens.any(|found| found.trim().eq_ignore_ascii_case(token))
    };
    has(CONNECTION, "upgrade") && has(UPGRADE, WEBSOCKET)
}

/// Upgrades the connection and serves the call on it.
pub(super) fn answer(gateway: Gateway, mut request: Request<Body>) -> Response<Body> {
    let headers = request.headers();
    if *request.method() != Method::GET {
        return refuse(StatusCode::METHOD_NOT_ALLOWED);
    }
    let accept = headers.get(SEC_WEBSOCKET_KEY).and_then(accept);
    let speaks = headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| *version == VERSION);
    let Some(accept) = accept.filter(|_| speaks) else {
        return refuse(StatusCode::BAD_REQUEST);
    };
    let upgrade = request.extensions_mut().remove::<Upgrade>();
    let Some(Switching { connecting, watch }) = upgrade.and_then(|upgrade| upgrade.take()) else {
        return refuse(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let switched = response.headers_mut();
    switched.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
    switched.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    switched.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if sub_protocol(request.headers()).is_some_and(|text| text.starts_with(BEARER)) {
        switched.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(BEARER));
    }
    let env = gateway.env.clone();
    let (uri, headers) = (request.uri().clone(), call_headers(request.headers()));
    env.spawn("websocket", async move {
        match connecting.await {
            Ok(conn) => serve(gateway, uri, headers, conn, watch).await,
            Err(error) => tracing::debug!(%error, "switching to websocket failed"),
        }
    });
    response
}

/// Refuses an upgrade, with the texts of Go's websocket library.
fn refuse(status: StatusCode) -> Response<Body> {
    let text = status.canonical_reason().unwrap_or_default();
    let mut response = plain(status, format!("{text}\n"));
    response.headers_mut().insert(SEC_WEBSOCKET_VERSION, VERSION);
    response
}

/// Returns the accept header for the client's key; none for an invalid key.
fn accept(key: &HeaderValue) -> Option<HeaderValue> {
    let key = key.as_bytes();
    STANDARD.decode(key).ok().filter(|decoded| decoded.len() == KEY_BYTES)?;
    let digest = Sha1::new().chain_update(key).chain_update(KEY_SUFFIX).finalize();
    HeaderValue::try_from(STANDARD.encode(digest)).ok()
}

fn sub_protocol(headers: &HeaderMap) -> Option<&str> {
    headers.get(SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()
}

/// Returns the headers of the call from those of the upgrade.
pub(super) fn call_headers(headers: &HeaderMap) -> HeaderMap {
    let mut call = HeaderMap::new();
    for name in [ORIGIN, REFERER] {
        if let Some(value) = headers.get(&name) {
            call.insert(name, value.clone());
        }
    }
    let in_protocol = sub_protocol(headers).and_then(|text| text.split_once("Bearer,"));
    let in_protocol = in_protocol.map(|(_, token)| token.trim_matches(' '));
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut cookies = cookies.flat_map(|text| text.split(';'));
    let in_cookie = cookies.find_map(|cookie| {
        cookie
            .trim()
            .split_once('=')
            .filter(|(name, _)| *name == TOKEN_COOKIE)
            .map(|(_, token)| token)
    });
    if let Some(token) = in_cookie.or(in_protocol)
        && let Ok(value) = HeaderValue::try_from(format!("{BEARER} {token}"))
    {
        call.insert(AUTHORIZATION, value);
    }
    call
}

/// Serves a call until it is answered or the client is gone.
async fn serve(
    gateway: Gateway,
    uri: Uri,
    headers: HeaderMap,
    conn: BoxConn,
    watch: impl FnOnce(Body) -> Body,
) {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .max_message_size(Some(limits::GATEWAY_WEBSOCKET_BYTES))
        .max_frame_size(Some(limits::GATEWAY_WEBSOCKET_BYTES));
    let (farewell, farewells) = oneshot::channel();
    let (reading, writing) = tokio::io::split(conn);
    let conn = tokio::io::join(Judged::new(reading, farewell), writing);
    let socket = WebSocketStream::from_raw_socket(conn, Role::Server, Some(config)).await;
    let (mut sink, mut messages) = socket.split();
    let (parts, body) = mpsc::channel::<Bytes>(1);
    let body = ReceiverStream::new(body).map(|part| Ok::<_, io::Error>(BodyFrame::data(part)));
    let mut request = Request::new(watch(Body::new(StreamBody::new(body))));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    let receive = async {
        while let Some(Ok(message)) = messages.next().await {
            let part = match message {
                Message::Binary(bytes) => bytes,
                // The library answers pings; the others do not come.
                _ => continue,
            };
            let mut line = BytesMut::with_capacity(part.len() + 1);
            line.put(part);
            line.put_u8(b'\n');
            // A unary call reads one message only; the client may still close.
            let _ = parts.send(line.freeze()).await;
        }
    };
    let env = gateway.env.clone();
    let answer = async {
        let mut body = gateway.answer_http(request).await.into_body();
        let mut lines = Lines::default();
        while let Some(Ok(frame)) = body.frame().await {
            for frame in lines.frames(frame.into_data().unwrap_or_default()) {
                if sink.send(Message::Frame(frame)).await.is_err() {
                    return;
                }
            }
        }
        if let Some(last) = lines.end() {
            let _ = sink.send(Message::Frame(last)).await;
        }
        let _ = sink.send(Message::Close(None)).await;
    };
    let farewell = tokio::select! {
        biased; // A client that is gone ends the call, whatever is still to be sent.
        () = receive => None,
        farewell = farewells => farewell.ok(),
        () = answer => None,
    };
    if let Some(close) = farewell {
        // A client that reads nothing has no farewell.
        let _ = env.timeout(limits::WEBSOCKET_FAREWELL, sink.send(Message::Close(close))).await;
    }
}

/// Splits a response into text messages, one for each line. A line in parts becomes a fragmented message, so
/// that no part is buffered.
#[derive(Default)]
struct Lines {
    /// Whether a message is incomplete.
    begun: bool,
}

impl Lines {
    fn frames(&mut self, mut data: Bytes) -> Vec<Frame> {
        let mut frames = Vec::new();
        while !data.is_empty() {
            let end = data.iter().position(|byte| *byte == b'\n');
            let line = data.split_to(end.unwrap_or(data.len()));
            if end.is_some() {
                let _ = data.split_to(1);
            }
            // An empty line is no message.
            if self.begun || !line.is_empty() {
                frames.push(self.frame(line, end.is_some()));
            }
        }
        frames
    }

    /// Returns the end of an incomplete line.
    fn end(&mut self) -> Option<Frame> {
        self.begun.then(|| self.frame(Bytes::new(), true))
    }

    fn frame(&mut self, line: Bytes, is_final: bool) -> Frame {
        let kind = if self.begun { Data::Continue } else { Data::Text };
        self.begun = !is_final;
        Frame::message(line, OpCode::Data(kind), is_final)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(HeaderName, &'static str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_key_of_the_rfc_is_accepted_as_in_the_rfc() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept(&key).expect("a key"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(accept(&HeaderValue::from_static("YQ==")).is_none());
    }

    #[test]
    fn tokens_come_in_the_sub_protocol_or_in_a_cookie() {
        let token = |list: &[(HeaderName, &'static str)]| {
            let call = call_headers(&headers(list));
            call.get(AUTHORIZATION).map(|value| value.to_str().expect("ASCII").to_owned())
        };
        assert_eq!(token(&[]), None);
        let protocol = (SEC_WEBSOCKET_PROTOCOL, "Bearer, a.1");
        assert_eq!(token(std::slice::from_ref(&protocol)).as_deref(), Some("Bearer a.1"));
        assert_eq!(token(&[(SEC_WEBSOCKET_PROTOCOL, "Bearer,a.1")]).as_deref(), Some("Bearer a.1"));
        let cookie = (COOKIE, "x=y; token=b.2");
        assert_eq!(token(&[protocol, cookie]).as_deref(), Some("Bearer b.2"));
    }

    #[test]
    fn what_is_no_upgrade_is_served_as_a_request() {
        let request = |list: &[(HeaderName, &'static str)]| {
            let mut request = Request::new(());
            *request.headers_mut() = headers(list);
            is_upgrade(&request)
        };
        assert!(request(&[(CONNECTION, "keep-alive, Upgrade"), (UPGRADE, "WebSocket")]));
        assert!(!request(&[(CONNECTION, "Upgrade"), (UPGRADE, "h2c")]));
        assert!(!request(&[(UPGRADE, "websocket")]));
    }

    #[test]
    fn each_line_is_one_message_wherever_it_is_cut() {
        let mut lines = Lines::default();
        let mut messages = vec![String::new()];
        for part in ["{\"a\":1}\n{\"b\"", ":2", "}\n\n", "last"] {
            for frame in lines.frames(Bytes::from_static(part.as_bytes())) {
                let message = messages.last_mut().expect("there is one");
                message.push_str(std::str::from_utf8(frame.payload()).expect("text"));
                if frame.header().is_final {
                    messages.push(String::new());
                }
            }
        }
        assert!(lines.end().is_some_and(|frame| frame.header().is_final));
        assert_eq!(messages, ["{\"a\":1}", "{\"b\":2}", "last"]);
    }
}
