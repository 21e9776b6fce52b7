//! The peer port: accepts connections, finds the handler for a path, and answers what concerns
//! raft (streams, single messages, snapshots, probes). The paths for the rest of the member are in
//! `routes`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ALLOW, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use quorate_proto::raftpb::{Message, MessageType};
use tokio::select;
use tracing::{debug, info, warn};

use super::body::{Body, ReadError, read_whole};
use super::identity::{self, CLUSTER, Mismatch, SERVER_VERSION, VERSION};
use super::local::Standing;
use super::prober::health_json;
use super::snapshot_in::{self, ReceiveError};
use super::stall::StallGuard;
use super::stats::SNAPSHOT_FIRST;
use super::stream_codec::{StreamKind, decode_message, is_proposal, is_relayed};
use super::transport::Transport;
use super::vouch::Trust;
use crate::env::hyper::Timer;
use crate::env::places::{self, Places};
use crate::env::{BoxConn, Listener};
use crate::limits::{self, PEER_MESSAGE_BYTES_MAX};
use crate::mark;
use crate::plant;
use crate::tls::Acceptor;
use crate::types::{Index, MemberId};

/// After a failed accept, which mostly means that the process has too many files open.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

pub(super) type Answered = Response<Body>;

/// Serves the peer port until the transport stops.
pub(super) async fn serve(
    transport: Transport,
    mut listener: Box<dyn Listener>,
    acceptor: Option<Acceptor>,
) {
    let env = transport.env().clone();
    let places = Places::new(limits::peer_connections_max(env.net.descriptors_max()));
    loop {
        // The end first: no connection is accepted after it.
        let accepted = select! { biased;
            () = transport.stopped() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((conn, from)) => {
                // The end first, as above.
                let place = select! { biased;
                    () = transport.stopped() => return,
                    place = places.enter(from.map(|from| from.ip())) => place,
                };
                let Some(place) = place else {
                    debug!(?from, "refused a peer connection: all places are taken");
                    continue;
                };
                let (transport, acceptor) = (transport.clone(), acceptor.clone());
                env.spawn("peer-server", async move {
                    let standing = place.standing();
                    // The end first, as above; it cuts off the streams, which have none.
                    let served = select! { biased;
                        () = transport.stopped() => return,
                        () = place.gives_way() => {
                            debug!(?from, "a peer connection is closed: its place is needed");
                            return;
                        }
                        served = secure_and_serve(&transport, acceptor, conn, from, standing) => served,
                    };
                    if let Err(error) = served {
                        debug!(?from, %error, "a peer connection broke");
                    }
                });
            }
            Err(error) => {
                warn!(%error, "failed to accept a peer connection");
                env.sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn secure_and_serve(
    transport: &Transport,
    acceptor: Option<Acceptor>,
    conn: BoxConn,
    from: Option<SocketAddr>,
    standing: &places::Standing,
) -> hyper::Result<()> {
    let conn = match acceptor {
        None => conn,
        Some(acceptor) => match acceptor.accept(conn, from).await {
            Ok(accepted) => accepted.conn,
            // The acceptor has logged why.
            Err(_) => return Ok(()),
        },
    };
    serve_connection(transport, conn, standing).await
}

async fn serve_connection(
    transport: &Transport,
    conn: BoxConn,
    standing: &places::Standing,
) -> hyper::Result<()> {
    let env = transport.env();
    // A stream's answer has no end: its connection is not idle any more.
    let stream = std::sync::Mutex::new(None);
    let service = service_fn(|request: Request<Incoming>| async {
        let (open, is_stream) = (standing.open(), is_stream(&request));
        let answer = transport.answer(request).await;
        // Only members get a successful answer, except for the paths that are open to every client.
        if is_stream && answer.status().is_success() {
            standing.make_known();
            *stream.lock().unwrap_or_else(PoisonError::into_inner) = Some(open);
        } else if answer.status() == StatusCode::NO_CONTENT {
            standing.make_known();
        }
        Ok::<_, Infallible>(answer)
    });
    http1::Builder::new()
        .timer(Timer(env.rt.clone()))
        .header_read_timeout(transport.patience().read)
        // It is not needed, and hyper takes it from a clock of its own.
        .auto_date_header(false)
        .serve_connection(
            TokioIo::new(StallGuard::new(env.clone(), transport.patience().write, conn)),
            service,
        )
        .await
}

/// Whether a request opens a stream of messages.
fn is_stream(request: &Request<Incoming>) -> bool {
    request.uri().path().starts_with("/raft/stream/")
}

impl Transport {
    /// The answer to any request on the peer port.
    async fn answer(&self, request: Request<Incoming>) -> Answered {
        let path = request.uri().path();
        match path {
            "/raft" => self.message(request).await,
            "/raft/snapshot" => self.snapshot(request).await,
            "/raft/probing" => {
                answer(StatusCode::OK, "text/plain; charset=utf-8", health_json(self.env().wall()))
            }
            _ if is_stream(&request) => self.stream(&request).await,
            _ => self.route(request).await,
        }
    }

    /// `GET /raft/stream/<kind>/<member>`: the answer's body is the stream.
    async fn stream(&self, request: &Request<Incoming>) -> Answered {
        if let Some(refused) = allow(request, &Method::GET) {
            return refused;
        }
        let mut answered = self.open_stream(request).await;
        answered.headers_mut().insert(VERSION, HeaderValue::from_static(SERVER_VERSION));
        self.signed(answered)
    }

    async fn open_stream(&self, request: &Request<Incoming>) -> Answered {
        let (path, headers) = (request.uri().path(), request.headers());
        if let Err(mismatch) = self.check(headers) {
            return error(StatusCode::PRECONDITION_FAILED, &mismatch.to_string());
        }
        let (folder, from) = path.rsplit_once('/').unwrap_or(("", path));
        let kind = [StreamKind::Message, StreamKind::MsgApp]
            .into_iter()
            .find(|kind| kind.path() == folder);
        let Some(kind) = kind else { return error(StatusCode::NOT_FOUND, "invalid path") };
        let Some(from) = identity::parse_id(from) else {
            return error(StatusCode::NOT_FOUND, "invalid from");
        };
        if self.local().standing(from) == Standing::Removed {
            return error(StatusCode::GONE, "removed member");
        }
        let Some(link) = self.member(from) else {
            // It may have joined after the configuration that this member has reached.
            if matches!(self.trust(from).await, Trust::Member | Trust::Word) {
                self.add_remote(from, identity::sender_urls(headers));
            }
            return error(StatusCode::NOT_FOUND, "error sender not found");
        };
        if let Err(mismatch) = self.context().identity.check_to(headers) {
            mark::STREAM_FOR_ANOTHER.reached();
            return error(StatusCode::PRECONDITION_FAILED, &mismatch.to_string());
        }
        match link.attach(kind) {
            Some(body) => Response::new(body),
            // Also while this member stops, which is not the sender's removal: an etcd ends at 410.
            None => error(StatusCode::NOT_FOUND, "error sender not found"),
        }
    }

    /// `POST /raft`: one message.
    async fn message(&self, mut request: Request<Incoming>) -> Answered {
        if let Some(refused) = allow(&request, &Method::POST) {
            return refused;
        }
        let answered =
            self.take_message(&mut request).await.map_or_else(|refused| refused, |()| no_content());
        self.signed(answered)
    }

    async fn take_message(&self, request: &mut Request<Incoming>) -> Result<(), Answered> {
        let sender = self.sender(request.headers()).await?;
        let body = read_whole(
            self.env(),
            self.patience().read,
            request.body_mut(),
            PEER_MESSAGE_BYTES_MAX,
        )
        .await;
        let body = body.map_err(|failed| match failed {
            ReadError::TooLarge => error(StatusCode::PAYLOAD_TOO_LARGE, "request body too large"),
            ReadError::Io(_) => error(StatusCode::BAD_REQUEST, "error reading raft message"),
        })?;
        let bytes = body.len() as u64;
        let message = decode_message(body)
            .map_err(|_| error(StatusCode::BAD_REQUEST, "error unmarshalling raft message"))?;
        if let Some(link) = self.link(MemberId(message.from)) {
            link.stats.received_bytes.add(bytes);
        }
        if let Some(refused) = self.refuse_message(sender, &message) {
            return Err(refused);
        }
        // A MsgSnap without its database is useless.
        if message.r#type == MessageType::MsgSnap as i32 {
            return Err(error(StatusCode::BAD_REQUEST, "wrong raft message type"));
        }
        self.local().step(message);
        Ok(())
    }

    /// `POST /raft/snapshot`: a MsgSnap and its database.
    async fn snapshot(&self, mut request: Request<Incoming>) -> Answered {
        if let Some(refused) = allow(&request, &Method::POST) {
            return refused;
        }
        let answered = self
            .take_snapshot(&mut request)
            .await
            .map_or_else(|refused| refused, |()| no_content());
        self.signed(answered)
    }

    async fn take_snapshot(&self, request: &mut Request<Incoming>) -> Result<(), Answered> {
        let sender = self.sender(request.headers()).await?;
        let _place = self.snapshot_place().ok_or_else(|| {
            error(StatusCode::SERVICE_UNAVAILABLE, "too many snapshots are being received")
        })?;
        let (env, body) = (self.env(), request.body_mut());
        let mut arrived = BytesMut::new();
        let message = snapshot_in::envelope(env, self.patience().read, body, &mut arrived)
            .await
            .map_err(refuse_snapshot)?;
        if message.r#type != MessageType::MsgSnap as i32 {
            return Err(error(StatusCode::BAD_REQUEST, "wrong raft message type"));
        }
        if let Some(refused) = self.refuse_message(sender, &message) {
            return Err(refused);
        }
        let metadata = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.clone());
        let Some(metadata) = metadata.filter(|metadata| metadata.index > 0) else {
            return Err(error(StatusCode::BAD_REQUEST, "snapshot without an index"));
        };
        let index = Index(metadata.index);

        let from = MemberId(message.from);
        let stats = self.link(from).map(|link| link.stats.clone()).unwrap_or_default();
        let _receiving = stats.snapshots_receiving.hold();
        let began = env.now();
        mark::SNAPSHOT_ARRIVES.reached();
        info!(
            remote_snapshot_sender_id = %from, incoming_snapshot_index = %index,
            "receiving database snapshot"
        );
        let saved = snapshot_in::save(self, &metadata, body, arrived).await;
        let bytes = saved.map_err(|failed| {
            warn!(
                remote_snapshot_sender_id = %from, incoming_snapshot_index = %index, error = %failed,
                "failed to save incoming database snapshot"
            );
            stats.snapshot_receive_failures.add(1);
            refuse_snapshot(failed)
        })?;
        let took = env.now() - began;
        info!(
            remote_snapshot_sender_id = %from, incoming_snapshot_index = %index,
            incoming_snapshot_size_bytes = bytes, download_took = ?took,
            "received and saved database snapshot"
        );
        stats.received_bytes.add(bytes);
        stats.snapshots_received.add(1);
        stats.snapshot_receive.observe(SNAPSHOT_FIRST, took);
        mark::SNAPSHOT_RECEIVED.reached();
        self.local().step(message);
        Ok(())
    }

    /// The sender of a request, if it may send messages; it can be answered from now on.
    async fn sender(&self, headers: &HeaderMap) -> Result<(MemberId, Trust), Answered> {
        if let Err(mismatch) = self.check(headers) {
            return Err(error(StatusCode::PRECONDITION_FAILED, &mismatch.to_string()));
        }
        let from = identity::sender(headers).unwrap_or(MemberId::NONE);
        let trust = self.trust(from).await;
        match trust {
            Trust::Member | Trust::Word => self.add_remote(from, identity::sender_urls(headers)),
            Trust::Removed => return Err(removed()),
            Trust::Stranger if plant::STRANGER_PROPOSES.is_planted() => {}
            Trust::Stranger => {
                mark::STRANGER_REFUSED.reached();
                self.note_refusal(headers, "of a server that is no member of this cluster");
                return Err(unknown());
            }
        }
        Ok((from, trust))
    }

    /// The refusal of a message that is for another member, or that its sender may not send.
    fn refuse_message(
        &self,
        (sender, trust): (MemberId, Trust),
        message: &Message,
    ) -> Option<Answered> {
        let from = MemberId(message.from);
        // Messages that a follower passes on keep their first sender, which may have joined lately.
        let passed_on = is_relayed(message) && trust == Trust::Member;
        if self.local().standing(from) == Standing::Removed {
            // That of its sender was looked at before: this one relays, and is no removed member itself.
            Some(refusal(StatusCode::SERVICE_UNAVAILABLE, "from removed member"))
        } else if message.to != self.context().identity.id.0 {
            mark::MESSAGE_FOR_ANOTHER.reached();
            Some(mismatch())
        } else if is_proposal(message) && plant::STRANGER_PROPOSES.is_planted() {
            None
        } else if (from != sender && !passed_on) || (is_proposal(message) && trust != Trust::Member)
        {
            Some(unknown())
        } else {
            None
        }
    }

    /// [`identity::Identity::check`], and a word in the log when a sender is refused for a new reason.
    fn check(&self, headers: &HeaderMap) -> Result<(), Mismatch> {
        let checked = self.context().identity.check(headers);
        if let Err(mismatch) = checked {
            self.note_refusal(headers, &mismatch.to_string());
        }
        checked
    }

    /// Adds the cluster id.
    pub(super) fn signed(&self, mut answered: Answered) -> Answered {
        let cluster = identity::text(&self.context().identity.cluster.to_string());
        answered.headers_mut().insert(CLUSTER, cluster);
        answered
    }
}

fn refuse_snapshot(failed: ReceiveError) -> Answered {
    let status = match failed {
        ReceiveError::Envelope(_) => StatusCode::BAD_REQUEST,
        ReceiveError::Save(_) | ReceiveError::Refused(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    error(status, &failed.to_string())
}

/// The refusal that ends an etcd for good, whatever its text: it takes 403 for its own removal.
fn removed() -> Answered {
    refusal(StatusCode::FORBIDDEN, "from removed member")
}

/// The refusal of a sender that may be a member after all: one of which this member has not learnt yet,
/// or could not query others. It comes again.
fn unknown() -> Answered {
    refusal(StatusCode::SERVICE_UNAVAILABLE, "from unknown member")
}

/// The refusal of a message for the member that was at these URLs before. etcd answers 403, at which an
/// etcd that was down during the replacement ends.
fn mismatch() -> Answered {
    refusal(StatusCode::PRECONDITION_FAILED, "to mismatch member")
}

fn refusal(status: StatusCode, whose: &str) -> Answered {
    let body = format!("{{\"message\":\"cannot process message {whose}\"}}");
    answer(status, "application/json", body)
}

/// The refusal of any method but `method`.
pub(super) fn allow(request: &Request<Incoming>, method: &Method) -> Option<Answered> {
    if request.method() == method {
        return None;
    }
    let mut refused = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    refused.headers_mut().insert(ALLOW, identity::text(method.as_str()));
    Some(refused)
}

/// An answer with a body.
pub(super) fn answer(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Answered {
    let mut answered = Response::new(Body::from(body.into()));
    *answered.status_mut() = status;
    answered.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answered
}

/// An error as Go's `http.Error` writes it.
pub(super) fn error(status: StatusCode, text: &str) -> Answered {
    let mut answered = answer(status, "text/plain; charset=utf-8", format!("{text}\n"));
    answered.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answered
}

fn no_content() -> Answered {
    let mut answered = Response::new(Body::empty());
    *answered.status_mut() = StatusCode::NO_CONTENT;
    answered
}
