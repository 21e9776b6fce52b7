//! A client's watch stream: its watchers by id, its requests and responses. The hub decides which watches
//! they share.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
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
use crate::limits::WATCHERS_PER_STREAM_MAX;

/// The id in responses without a watcher.
const NO_WATCHER: i64 = -1;
/// etcd's text.
const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";

pub(super) struct Session {
    shared: Arc<Shared>,
    number: u64,
    caller: Caller,
    watchers: BTreeMap<i64, Watching>,
    next_id: i64,
    /// Number of watchers created so far.
    serial: u64,
    answers: mpsc::Sender<Result<WatchResponse, Status>>,
    /// Queue for the hub's messages.
    inbox: mpsc::Sender<News>,
    news: mpsc::Receiver<News>,
}

/// State of a watcher.
struct Watching {
    serial: u64,
    /// Revision that was sent last.
    header: Option<ResponseHeader>,
}

/// The end of a stream: with a status, or because the client is gone.
struct Over(Option<Status>);

impl Session {
    pub fn new(
        shared: Arc<Shared>,
        caller: Caller,
        answers: mpsc::Sender<Result<WatchResponse, Status>>,
    ) -> Self {
        let (inbox, news) = mpsc::channel(shared.bounds.inbox);
        let number = shared.hub().session();
        let (watchers, next_id, serial) = (BTreeMap::new(), 0, 0);
        Self { shared, number, caller, watchers, next_id, serial, answers, inbox, news }
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
                biased; // Without a reader nothing is left to do. Events are older than requests.
                () = answers.closed() => return Over(None),
                news = self.news.recv() => {
                    self.receive(news.expect("the session holds a sender itself")).await
                }
                request = requests.message() => match request {
                    Ok(Some(request)) => self.handle(request).await,
                    // The end of requests leaves the watchers open.
                    Ok(None) | Err(_) => return Over(None),
                }
            };
            if let Err(over) = step {
                return over;
            }
        }
    }

    async fn receive(&mut self, news: News) -> Result<(), Over> {
        let (serial, response) = match news {
            News::Response(serial, response) => (serial, response),
            News::End(status) => return Err(Over(Some(status))),
        };
        // A response to a cancelled watcher is dropped, also if the id is in use again.
        let watching = self.watchers.get_mut(&response.watch_id);
        let Some(watching) = watching.filter(|watching| watching.serial == serial) else {
            return Ok(());
        };
        watching.header = response.header;
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
        let Some(Watching { header, .. }) = self.watchers.remove(&watch_id) else { return Ok(()) };
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
            // A failed check is no refusal.
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
        self.serial += 1;
        let watching = Watching { serial: self.serial, header: Some(header) };
        self.watchers.insert(watch_id, watching);
        let created = WatchResponse {
            header: Some(header),
            watch_id,
            created: true,
            ..WatchResponse::default()
        };
        self.send(created).await?;
        let watcher = Watcher {
            session: self.number,
            watch_id,
            serial: self.serial,
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

    /// Checks that the client may read the keys; returns the revision of the cluster.
    async fn check(&self, key: &Bytes, end: &Bytes) -> Result<ResponseHeader, Status> {
        let (mut key, mut range_end) = (key.clone(), end.clone());
        self.shared.namespace.enter_span(&mut key, &mut range_end);
        let (serializable, count_only, limit) = (true, true, 1);
        let range =
            RangeRequest { key, range_end, serializable, count_only, limit, ..Default::default() };
        let answer = self.shared.upstream(&self.caller).kv().range(range).await?;
        Ok(answer.into_inner().header.unwrap_or_default())
    }
}

/// Returns the watched keys. As for a member, an empty key is the first one.
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

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::super::Watch;
    use super::*;
    use crate::client::Channel;
    use crate::env::tokio::env;
    use crate::proxy::grpc::upstream::Upstream;

    /// A reused id belongs to another watcher, which does not receive responses to the first.
    #[test]
    fn news_for_a_watcher_that_has_gone_are_for_nobody() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let _here = runtime.enter();
        let upstream = Upstream::new(Channel::new(env(), ["localhost:1"]), 0, 0);
        let (namespace, counters, bounds) = Default::default();
        let Watch(shared) = Watch::new(env(), upstream, namespace, counters, bounds);
        let (answers, mut told) = mpsc::channel(8);
        let mut session = Session::new(shared, Caller::default(), answers);
        session.watchers.insert(5, Watching { serial: 2, header: None });
        let response = |revision| {
            let header = Some(ResponseHeader { revision, ..Default::default() });
            WatchResponse { watch_id: 5, header, ..Default::default() }
        };
        for (serial, revision) in [(1, 7), (2, 8), (1, 9)] {
            let heard = session.receive(News::Response(serial, response(revision))).now_or_never();
            assert!(heard.is_some_and(|heard| heard.is_ok()));
        }
        let (one, other) = (told.try_recv(), told.try_recv());
        assert_eq!(one.expect("there was one").expect("it was no end"), response(8));
        assert!(other.is_err(), "{other:?}");
        assert!(session.watchers[&5].header == response(8).header);
    }
}
