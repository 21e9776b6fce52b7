//! One client's watch stream: its watchers by id, its requests, and what it is sent. Which of the cluster's
//! watches they share is the hub's matter.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::watch_create_request::FilterType;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{
    RangeRequest, ResponseHeader, WatchCreateRequest, WatchRequest, WatchResponse,
};
use quorate_proto::mvccpb::event::EventType;
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};
use tracing::warn;

use super::Shared;
use super::hub::{Caller, News, Span, Watcher};
use crate::error::Refused;
use crate::limits::{PROXY_WATCH_INBOX, WATCHERS_PER_STREAM_MAX};

/// The id of a watcher that there is not.
const NO_WATCHER: i64 = -1;
/// etcd's text.
const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";

pub(super) struct Session {
    shared: Arc<Shared>,
    number: u64,
    caller: Caller,
    /// With the header that each has got last.
    watchers: BTreeMap<i64, Option<ResponseHeader>>,
    next_id: i64,
    answers: mpsc::Sender<Result<WatchResponse, Status>>,
    /// Given to the hub with every watcher.
    inbox: mpsc::Sender<News>,
    news: mpsc::Receiver<News>,
}

/// The stream is over: with a status for the client, or because nobody is there.
struct Over(Option<Status>);

impl Session {
    pub fn new(
        shared: Arc<Shared>,
        caller: Caller,
        answers: mpsc::Sender<Result<WatchResponse, Status>>,
    ) -> Self {
        let (inbox, news) = mpsc::channel(PROXY_WATCH_INBOX);
        let number = shared.hub().session();
        let watchers = BTreeMap::new();
        Self { shared, number, caller, watchers, next_id: 0, answers, inbox, news }
    }

    pub async fn run(mut self, mut requests: Streaming<WatchRequest>) {
        let Over(status) = self.serve(&mut requests).await;
        self.shared.hub().leave(self.number, None);
        if let Some(status) = status {
            // The client may be gone.
            let _ = self.answers.send(Err(status)).await;
        }
    }

    async fn serve(&mut self, requests: &mut Streaming<WatchRequest>) -> Over {
        loop {
            let answers = self.answers.clone();
            let step = tokio::select! {
                biased; // Events are older than requests; for nobody there is nothing to do.
                () = answers.closed() => return Over(None),
                news = self.news.recv() => {
                    self.hear(news.expect("the session holds a sender itself")).await
                }
                request = requests.message() => match request {
                    Ok(Some(request)) => self.handle(request).await,
                    // A client that asks for nothing more has what it wanted.
                    Ok(None) | Err(_) => return Over(None),
                }
            };
            if let Err(over) = step {
                return over;
            }
        }
    }

    async fn hear(&mut self, news: News) -> Result<(), Over> {
        let response = match news {
            News::Response(response) => response,
            News::End(status) => return Err(Over(Some(status))),
        };
        // One that was on its way when its watcher was canceled is for nobody.
        let Some(last) = self.watchers.get_mut(&response.watch_id) else { return Ok(()) };
        *last = response.header;
        if response.canceled {
            self.watchers.remove(&response.watch_id);
        }
        self.send(response).await
    }

    async fn send(&self, response: WatchResponse) -> Result<(), Over> {
        self.answers.send(Ok(response)).await.map_err(|_| Over(None))
    }

    async fn handle(&mut self, request: WatchRequest) -> Result<(), Over> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create).await,
            Some(RequestUnion::CancelRequest(cancel)) => self.cancel(cancel.watch_id).await,
            Some(RequestUnion::ProgressRequest(_)) | None => {
                warn!("not supported request type by gRPC proxy");
                Ok(())
            }
        }
    }

    async fn cancel(&mut self, watch_id: i64) -> Result<(), Over> {
        let Some(header) = self.watchers.remove(&watch_id) else { return Ok(()) };
        self.shared.hub().leave(self.number, Some(watch_id));
        self.send(WatchResponse { header, watch_id, canceled: true, ..Default::default() }).await
    }

    async fn create(&mut self, create: WatchCreateRequest) -> Result<(), Over> {
        if create.start_revision < 0 {
            return self.refuse(Refused::Compacted.text()).await;
        }
        let (key, end) = span(&create);
        let header = match self.check(&key, &end).await {
            Ok(header) => header,
            // No answer is no refusal.
            Err(status) if status.code() == Code::Unavailable => return Err(Over(Some(status))),
            Err(status) => return self.refuse(status.message()).await,
        };
        if !end.is_empty() && end[..] != [0] && end <= key {
            return self.refuse("").await;
        }
        let watch_id = match create.watch_id {
            0 => self.free_id(),
            taken if self.watchers.contains_key(&taken) => return self.refuse(DUPLICATE_ID).await,
            free => free,
        };
        if self.watchers.len() >= WATCHERS_PER_STREAM_MAX {
            return Err(Over(Some(Status::resource_exhausted("too many watchers on one stream"))));
        }
        self.watchers.insert(watch_id, Some(header));
        let header_of_creation = Some(header);
        let created = WatchResponse {
            header: header_of_creation,
            watch_id,
            created: true,
            ..WatchResponse::default()
        };
        self.send(created).await?;
        let watcher = Watcher {
            session: self.number,
            watch_id,
            next: match create.start_revision {
                0 => header.revision + 1,
                revision => revision,
            },
            progress: create.progress_notify,
            prev_kv: create.prev_kv,
            unwanted: create.filters().map(unwanted).collect(),
            inbox: self.inbox.clone(),
        };
        self.shared.join(&Span { caller: self.caller.clone(), key, end }, watcher);
        Ok(())
    }

    fn free_id(&mut self) -> i64 {
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    async fn refuse(&self, why: &str) -> Result<(), Over> {
        let response = WatchResponse {
            header: Some(ResponseHeader::default()),
            watch_id: NO_WATCHER,
            created: true,
            canceled: true,
            cancel_reason: why.to_owned(),
            ..WatchResponse::default()
        };
        self.send(response).await
    }

    /// Whether the client may read the keys; the header tells at which revision the cluster is.
    async fn check(&self, key: &Bytes, end: &Bytes) -> Result<ResponseHeader, Status> {
        let (mut key, mut range_end) = (key.clone(), end.clone());
        self.shared.namespace.enter_span(&mut key, &mut range_end);
        let (serializable, count_only, limit) = (true, true, 1);
        let range =
            RangeRequest { key, range_end, serializable, count_only, limit, ..Default::default() };
        let answer = KvClient::new(self.shared.channel(&self.caller)).range(range).await?;
        Ok(answer.into_inner().header.unwrap_or_default())
    }
}

/// The keys that are watched. As for a member, no key is the first one.
fn span(create: &WatchCreateRequest) -> (Bytes, Bytes) {
    let key = match create.key.is_empty() {
        true => Bytes::from_static(&[0]),
        false => create.key.clone(),
    };
    (key, create.range_end.clone())
}

fn unwanted(filter: FilterType) -> i32 {
    match filter {
        FilterType::Noput => EventType::Put as i32,
        FilterType::Nodelete => EventType::Delete as i32,
    }
}
