//! A watch of the cluster for all watchers that share it. It is resumed after its connection is lost, and
//! ends when it has no watchers left or the cluster cancels it.

use std::sync::Arc;
use std::time::Duration;

use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tracing::{debug, warn};

use super::Shared;
use super::hub::{BroadcastId, Joined, News, Span, Watcher};
use crate::limits::{PROXY_WATCH_PATIENCE, PROXY_WATCH_PATIENCE_SHARED};
use crate::plant;

/// Pause between two attempts to reach the cluster.
const RETRY: Duration = Duration::from_millis(100);

impl Shared {
    /// Adds a watcher to a broadcast, or starts one for it.
    pub(super) fn join(self: &Arc<Self>, span: &Span, watcher: Watcher) {
        let joined = self.hub().join(span, watcher);
        if let Joined::New(id) = joined {
            let task = self.env.spawn("proxy broadcast", run(self.clone(), id));
            self.hub().runs(id, task);
        }
    }
}

/// The reason for the end of a watch.
enum Ended {
    /// It has no watchers any more.
    NotNeeded,
    /// The cluster has ended it.
    Canceled(WatchResponse),
    Failed(Status),
}

async fn run(shared: Arc<Shared>, id: BroadcastId) {
    let mut lost = 0;
    loop {
        let Some((span, next)) = shared.hub().position(id) else { return };
        let skipped = i64::from(lost > 0 && plant::PROXY_WATCH_RESUMES_LATE.is_planted());
        match follow(&shared, id, &span, next + skipped).await {
            Ended::NotNeeded => return,
            Ended::Canceled(response) => return cancel(&shared, id, &response).await,
            Ended::Failed(status) if is_passing(&status, &span) => {
                debug!(error = status.message(), "a watch was lost and is made again");
                lost += 1;
                shared.env.sleep(RETRY).await;
            }
            Ended::Failed(status) => return fail(&shared, id, &status).await,
        }
    }
}

/// Returns whether a failed watch is resumed. A watcher that requires a leader gets the error instead.
fn is_passing(status: &Status, span: &Span) -> bool {
    let no_leader = crate::error::Unavailable::NoLeader.text();
    status.code() == Code::Unavailable
        && !(span.caller.needs_leader && status.message() == no_leader)
}

async fn follow(shared: &Shared, id: BroadcastId, span: &Span, next: i64) -> Ended {
    let (mut key, mut range_end) = (span.key.clone(), span.end.clone());
    shared.namespace.enter_span(&mut key, &mut range_end);
    let create = WatchCreateRequest {
        key,
        range_end,
        start_revision: next,
        progress_notify: true,
        prev_kv: true,
        ..WatchCreateRequest::default()
    };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    // The request stream must stay open for as long as the watch.
    let (open, requests) = mpsc::channel(1);
    open.try_send(request).expect("it is empty");
    let mut client = shared.upstream(&span.caller).watch();
    let mut responses = match client.watch(ReceiverStream::new(requests)).await {
        Ok(responses) => responses.into_inner(),
        Err(status) => return Ended::Failed(status),
    };
    loop {
        let mut response = match responses.message().await {
            Ok(Some(response)) => response,
            Ok(None) => return Ended::Failed(Status::unavailable("the watch has ended")),
            Err(status) => return Ended::Failed(status),
        };
        if response.canceled {
            return Ended::Canceled(response);
        }
        if response.created {
            continue;
        }
        shared.namespace.leave_events(&mut response.events);
        let news = shared.hub().deliver(id, &response);
        shared.counters.shared_events.add_all(news.len().saturating_sub(1));
        deliver(shared, news).await;
        if shared.hub().merge(id) {
            return Ended::NotNeeded;
        }
    }
}

/// Sends the deliveries. The stream of a client that reads too slowly ends after the events queued for it;
/// the client resumes from there.
async fn deliver(shared: &Shared, news: Vec<(mpsc::Sender<News>, News)>) {
    let patience = if news.len() > 1 { PROXY_WATCH_PATIENCE_SHARED } else { PROXY_WATCH_PATIENCE };
    for (inbox, news) in news {
        match inbox.try_send(news) {
            Ok(()) => {}
            // The session ended while its watcher changed broadcasts.
            Err(TrySendError::Closed(_)) => shared.hub().leave_all(&inbox),
            Err(TrySendError::Full(news)) => {
                if shared.env.timeout(patience, inbox.send(news)).await.is_ok() {
                    continue;
                }
                warn!(
                    "failed to put a watch response on the watcher's proxy stream channel,err is \
                     timeout"
                );
                shared.hub().leave_all(&inbox);
                shared.env.spawn("proxy watch end", async move {
                    let slow = Status::unavailable("the client does not read its watch stream");
                    // The session may be gone.
                    let _ = inbox.send(News::End(slow)).await;
                });
            }
        }
    }
}

/// Cancels the watchers of a compacted revision, except those that begin later.
async fn cancel(shared: &Arc<Shared>, id: BroadcastId, response: &WatchResponse) {
    let Some((span, watchers)) = shared.hub().end(id) else { return };
    let compacted = response.compact_revision;
    let mut news = Vec::new();
    for watcher in watchers {
        let kept = watcher.next >= compacted && !plant::PROXY_COMPACTION_ENDS_ALL.is_planted();
        if compacted > 0 && kept {
            shared.join(&span, watcher);
            continue;
        }
        let own = WatchResponse {
            watch_id: watcher.watch_id,
            created: false,
            events: Vec::new(),
            ..response.clone()
        };
        news.push((watcher.inbox, News::Response(watcher.serial, own)));
    }
    deliver(shared, news).await;
}

async fn fail(shared: &Shared, id: BroadcastId, status: &Status) {
    let Some((_, watchers)) = shared.hub().end(id) else { return };
    let news = watchers.into_iter().map(|w| (w.inbox, News::End(status.clone())));
    deliver(shared, news.collect()).await;
}
