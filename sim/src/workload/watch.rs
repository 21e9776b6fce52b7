//! Watchers that survive everything: each follows all keys from the first revision on, and resumes
//! after the last revision it has seen when its stream breaks.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::stream;
use quorate::client::Channel;
use quorate::env::Env;
use quorate_proto::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb::{
    WatchCreateRequest, WatchRequest, WatchResponse, watch_request::RequestUnion,
};
use quorate_proto::mvccpb::Event;

use super::Stop;

/// A stream without a word for so long is taken for broken.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(200);

/// When a response came, and the events in it.
pub type Told = (Instant, Vec<Event>);

/// What one watcher has seen.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<Vec<Told>>>);

impl Seen {
    pub fn responses(&self) -> Vec<Told> {
        self.0.lock().expect("a list of responses").clone()
    }

    /// The newest revision seen.
    pub fn revision(&self) -> i64 {
        let seen = self.0.lock().expect("a list of responses");
        let last = seen.last().and_then(|(_, events)| events.last()?.kv.as_ref());
        last.map_or(0, |kv| kv.mod_revision)
    }

    fn add(&self, now: Instant, events: Vec<Event>) {
        self.0.lock().expect("a list of responses").push((now, events));
    }
}

/// One watcher, until told to stop.
pub async fn run(env: Env, channel: Channel, seen: Seen, stop: Stop) {
    let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
    while !stop.is_set() {
        let from = seen.revision() + 1;
        if let Err(status) = follow(&env, &mut client, from, &seen, &stop).await {
            assert_ne!(status.code(), tonic::Code::Internal, "a watch broke: {status}");
        }
        env.sleep(PAUSE).await;
    }
}

async fn follow(
    env: &Env,
    client: &mut WatchClient<Channel>,
    from: i64,
    seen: &Seen,
    stop: &Stop,
) -> Result<(), tonic::Status> {
    let create = WatchCreateRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        start_revision: from,
        prev_kv: true,
        ..Default::default()
    };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    // The request stream stays open: its end would be the client's goodbye.
    let requests = stream::select(stream::iter([request]), stream::pending());
    let open = env.timeout(PATIENCE, client.watch(requests)).await;
    let mut responses = match open {
        Ok(answer) => answer?.into_inner(),
        Err(_) => return Ok(()),
    };
    while !stop.is_set() {
        match env.timeout(PATIENCE, responses.message()).await {
            Ok(Ok(Some(WatchResponse { canceled: true, cancel_reason, .. }))) => {
                return Err(tonic::Status::cancelled(cancel_reason));
            }
            Ok(Ok(Some(response))) if response.events.is_empty() => {}
            Ok(Ok(Some(response))) => seen.add(env.now(), response.events),
            Ok(Err(status)) => return Err(status),
            Ok(Ok(None)) | Err(_) => return Ok(()),
        }
    }
    Ok(())
}
