//! One connection with watches on it, as a client library keeps it: every response goes to the
//! evidence, and each watch knows from which revision it would have to be resumed. What is requested
//! is the caller's choice.

use std::time::Duration;

use futures::StreamExt as _;
use quorate_proto::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
    watch_request::RequestUnion,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::Client;
use super::websocket::{self, Responses};
use crate::facts::addresses::host_of;
use crate::facts::evidence::{End, How, Stream};
use crate::facts::shape::Speaks;
use crate::facts::story::{News, What};

/// A stream that has not been opened by then is given up.
const PATIENCE: Duration = Duration::from_secs(4);

/// One connection.
pub struct Session {
    client: Client,
    connection: usize,
    requests: mpsc::UnboundedSender<WatchRequest>,
    responses: Responses,
    pub watches: Vec<Watching>,
}

/// One watch on it.
pub struct Watching {
    /// Its place among the record's streams.
    pub stream: usize,
    id: Option<i64>,
    /// The first revision it has not received, as far as it knows.
    pub next: i64,
    /// Whether it can still receive anything.
    pub open: bool,
    /// Revision of the newest word about its progress.
    pub progress: i64,
    /// Since when it is compacted away, if that is why it was cancelled.
    pub compacted: i64,
}

/// What came next.
pub enum Next {
    /// Something for this watch, with what is left of it to be read.
    For(usize, WatchResponse),
    /// How far all watches are.
    Progress(i64),
    /// Nothing within the time given.
    Silence,
    /// The stream is over.
    Ended,
}

impl Session {
    /// Opens a stream to the member that the client's channel leads to.
    pub async fn open(client: &Client) -> Option<Self> {
        let (requests, outgoing) = mpsc::unbounded_channel();
        let responses = if client.speaks() == Speaks::Json {
            websocket::watch(client, outgoing).await?
        } else {
            let service = WatchClient::new(client.channel.clone());
            let mut service = service.max_decoding_message_size(usize::MAX);
            let opening = service.watch(UnboundedReceiverStream::new(outgoing));
            client.env.timeout(PATIENCE, opening).await.ok()?.ok()?.into_inner().boxed()
        };
        let connection = client.unique() as usize;
        Some(Self { client: client.clone(), connection, requests, responses, watches: Vec::new() })
    }

    /// Requests one more watch; it is numbered in the order of requests.
    pub fn create(&mut self, watcher: usize, request: WatchCreateRequest) {
        let now = self.client.env.now();
        let mut watched = request.clone();
        if let Some(outside) = self.client.outside() {
            outside.watch(&mut watched);
        }
        let mut record = self.client.evidence.record();
        let stream = record.streams.len();
        record.streams.push(Stream {
            watcher,
            connection: self.connection,
            endpoint: self.client.channel.endpoint(),
            request: watched,
            created: now,
            watch_id: None,
            created_revision: None,
            responses: Vec::new(),
            cancelled: None,
            end: None,
        });
        drop(record);
        let next = request.start_revision;
        let (open, progress, compacted) = (true, 0, 0);
        self.watches.push(Watching { stream, id: None, next, open, progress, compacted });
        self.send(RequestUnion::CreateRequest(request));
    }

    pub fn cancel(&mut self, watch: usize) {
        let watching = &self.watches[watch];
        let Some(watch_id) = watching.id else { return };
        let now = self.client.env.now();
        self.client.evidence.record().streams[watching.stream].cancelled.get_or_insert(now);
        self.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }));
    }

    pub fn ask_progress(&self) {
        self.send(RequestUnion::ProgressRequest(WatchProgressRequest {}));
    }

    fn send(&self, request: RequestUnion) {
        // A stream that has ended is reported to its reader.
        let _ = self.requests.send(WatchRequest { request_union: Some(request) });
    }

    /// Waits for the next response and takes note of it.
    pub async fn next(&mut self, patience: Duration) -> Next {
        let env = self.client.env.clone();
        match env.timeout(patience, self.responses.next()).await {
            Ok(Some(Ok(response))) => self.take(response),
            Ok(None) => self.broken("the stream ended"),
            Ok(Some(Err(status))) => self.broken(status.message()),
            Err(_) => Next::Silence,
        }
    }

    /// Ends all watches that are still open, in the same way.
    pub fn leave(&mut self, how: &How) {
        for watch in 0..self.watches.len() {
            self.end(watch, how.clone());
        }
    }

    fn broken(&mut self, text: &str) -> Next {
        self.leave(&How::Broken(text.to_owned()));
        Next::Ended
    }

    fn take(&mut self, response: WatchResponse) -> Next {
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        if response.watch_id == -1 && !response.created {
            for watch in 0..self.watches.len() {
                if self.watches[watch].open && self.watches[watch].id.is_some() {
                    self.note(watch, &response);
                    self.advance(watch, &response, revision);
                }
            }
            return Next::Progress(revision);
        }
        let known = if response.created {
            self.watches.iter().position(|watch| watch.id.is_none() && watch.open)
        } else {
            // The id of a watch that is over may belong to another one by now.
            let has_id = |watch: &Watching| watch.id == Some(response.watch_id);
            let open = self.watches.iter().position(|watch| has_id(watch) && watch.open);
            open.or_else(|| self.watches.iter().rposition(has_id))
        };
        let Some(watch) = known else {
            let text = format!("a response for watch {}, unknown here", response.watch_id);
            self.client.complain("responses are for requested watches", text);
            return Next::Silence;
        };
        self.note(watch, &response);
        self.advance(watch, &response, revision);
        Next::For(watch, response)
    }

    /// Moves the watch's cursor as a client library does.
    fn advance(&mut self, watch: usize, response: &WatchResponse, revision: i64) {
        let watching = &mut self.watches[watch];
        if response.created {
            watching.id = Some(response.watch_id);
            if watching.next == 0 {
                watching.next = revision + 1;
            }
        }
        if response.canceled {
            watching.compacted = response.compact_revision;
            return self.end(watch, How::Cancelled);
        }
        let last = response.events.last().and_then(|event| event.kv.as_ref());
        match last {
            // What comes in fragments is known when the last one is here.
            Some(kv) if !response.fragment => watching.next = kv.mod_revision + 1,
            None if !response.created => {
                watching.next = watching.next.max(revision + 1);
                watching.progress = watching.progress.max(revision);
            }
            _ => {}
        }
    }

    fn note(&self, watch: usize, response: &WatchResponse) {
        let now = self.client.env.now();
        let index = self.watches[watch].stream;
        let mut response = response.clone();
        if let Some(outside) = self.client.outside() {
            outside.told(&mut response);
        }
        let mut record = self.client.evidence.record();
        let at = record.at(now);
        let stream = &mut record.streams[index];
        if response.created {
            stream.watch_id = Some(response.watch_id);
            stream.created_revision = response.header.as_ref().map(|header| header.revision);
        }
        let (host, news) =
            (host_of(&stream.endpoint).to_owned(), news(stream.request.start_revision, &response));
        stream.responses.push((now, response));
        drop(record);
        self.client.story.note(at, What::Watch { stream: index, host, news });
    }

    fn end(&mut self, watch: usize, how: How) {
        let watching = &mut self.watches[watch];
        if !std::mem::take(&mut watching.open) {
            return;
        }
        let index = watching.stream;
        let now = self.client.env.now();
        let mut record = self.client.evidence.record();
        let at = record.at(now);
        let stream = &mut record.streams[index];
        let news = News::Ended { text: format!("{how:?}") };
        stream.end.get_or_insert(End { at: now, how });
        let host = host_of(&stream.endpoint).to_owned();
        drop(record);
        self.client.story.note(at, What::Watch { stream: index, host, news });
    }
}

/// A session that is simply dropped has been left by its client.
impl Drop for Session {
    fn drop(&mut self) {
        self.leave(&How::Broken("the client left".into()));
    }
}

fn news(start: i64, response: &WatchResponse) -> News {
    let revision = response.header.as_ref().map_or(0, |header| header.revision);
    let of =
        |event: &quorate_proto::mvccpb::Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
    match (response.events.first(), response.events.last()) {
        _ if response.canceled => News::Ended { text: response.cancel_reason.clone() },
        _ if response.created => {
            News::Created { from: if start == 0 { revision + 1 } else { start } }
        }
        (Some(first), Some(last)) => {
            News::Events { first: of(first), last: of(last), events: response.events.len() }
        }
        _ => News::Progress { revision },
    }
}
