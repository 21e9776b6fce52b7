//! Watchers of all kinds, on whichever members, several on one connection: from now, from the past and
//! from the future, with filters, previous values and fragments, with progress requested
//! and unasked; cancelled now and then, and resumed where they were broken off. They watch what other
//! clients do, and a little that they do themselves.

use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcdserverpb::{WatchCreateRequest, watch_create_request::FilterType};

use super::session::{Next, Session};
use super::{Client, Work, Workload};
use crate::facts::evidence::{Evidence, How};
use crate::facts::request::{delete, end_of, get, put};
use crate::facts::verdict::Violation;

const TOGETHER_MAX: u64 = 4;
const SILENCE: Duration = Duration::from_millis(700);
/// Silent moments after which another member is tried, questions about progress unanswered.
const PATIENCE: u32 = 6;
/// What a watcher in a whole cluster may take to receive everything.
const CATCH_UP: Duration = Duration::from_secs(20);

#[derive(Default)]
pub struct Watch {
    /// What the watches of the last session are to be resumed with.
    resume: Vec<WatchCreateRequest>,
}

impl Workload for Watch {
    fn name(&self) -> &'static str {
        "watch"
    }

    /// One connection from its beginning to its end.
    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            let member = client.on_member(client.roll());
            let Some(mut session) = Session::open(&member).await else {
                return client.pause(200).await;
            };
            let mut requests = std::mem::take(&mut self.resume);
            if requests.is_empty() {
                let count = 1 + client.below(TOGETHER_MAX);
                requests.extend((0..count).map(|_| request(client)));
            }
            for request in &requests {
                session.create(client.number, request.clone());
            }
            listen(client, &mut session).await;
            self.resume = resumption(client, &session, &requests);
            drop(session);
            client.pause(300).await;
        })
    }

    fn check(&self, _evidence: &Evidence) -> Vec<Violation> {
        Vec::new()
    }
}

/// What to watch, and how.
fn request(client: &Client) -> WatchCreateRequest {
    let (key, range_end) = span(client);
    let (newest, compactable) = {
        let record = client.evidence.record();
        (record.last_revision(), record.compactable())
    };
    let past = compactable.max(1) as u64;
    let start_revision = match client.below(6) {
        0 => newest + client.below(20) as i64,
        1 => 1 + client.below(past) as i64,
        2 => (newest - client.below(30) as i64).max(1),
        3 if client.chance(1, 4) => -1,
        _ => 0,
    };
    let filters = match client.below(6) {
        0 => vec![FilterType::Noput as i32],
        1 => vec![FilterType::Nodelete as i32],
        _ => Vec::new(),
    };
    WatchCreateRequest {
        key,
        range_end,
        start_revision,
        filters,
        progress_notify: client.chance(1, 2),
        prev_kv: client.chance(1, 2),
        fragment: client.chance(1, 3),
        // Now and then two of one connection choose the same.
        watch_id: if client.chance(1, 3) { 1 + client.below(8) as i64 } else { 0 },
    }
}

fn span(client: &Client) -> (Bytes, Bytes) {
    const PREFIXES: [&str; 8] =
        ["register/", "txn/", "ranges/", "lease/", "k8s/", "cycle/", "watch/", "large/"];
    let prefix = PREFIXES[client.below(PREFIXES.len() as u64) as usize];
    match client.below(8) {
        0 | 1 => (vec![0].into(), vec![0].into()),
        2 => (Bytes::new(), vec![0].into()),
        3 => (format!("{prefix}{}", client.below(4)).into(), Bytes::new()),
        4 => (prefix.into(), vec![0].into()),
        5 if client.chance(1, 4) => ("b".into(), "a".into()),
        _ => (prefix.into(), end_of(prefix.as_bytes())),
    }
}

/// Reads for a while; at the end of the load until everything has been received.
async fn listen(client: &Client, session: &mut Session) {
    let until = client.env.now() + Duration::from_millis(client.below(8_000));
    let mut silence = 0;
    while session.watches.iter().any(|watch| watch.open) {
        if client.stop.is_set() {
            return finish(client, session).await;
        }
        if client.env.now() >= until {
            return;
        }
        match session.next(SILENCE).await {
            Next::Ended => return,
            Next::Silence if silence >= PATIENCE => return,
            Next::Silence => {
                silence += 1;
                disturb(client).await;
                session.ask_progress();
            }
            Next::Progress(_) | Next::For(..) => silence = 0,
        }
        match client.below(40) {
            0 => session.ask_progress(),
            1 => session.cancel(client.below(session.watches.len() as u64) as usize),
            _ => {}
        }
    }
}

/// A change of its own, so that there is always an event.
async fn disturb(client: &Client) {
    let key = format!("watch/{}", client.below(3));
    if client.chance(1, 3) {
        let _ = client.delete(delete(key)).await;
    } else {
        let _ = client.put(put(key, client.value())).await;
    }
}

/// The load has ended and the cluster is whole: each watch must receive everything there is by now.
async fn finish(client: &Client, session: &mut Session) {
    let Ok(answer) = client.range(get("watch/")).await else { return };
    let newest = answer.header.map_or(0, |header| header.revision);
    let deadline = client.env.now() + CATCH_UP;
    // As in etcd there is no word about the progress of a connection with a watch that is still to
    // begin.
    let future = |session: &Session| {
        session.watches.iter().any(|watch| watch.open && watch.next > newest + 1)
    };
    let waits =
        |session: &Session| session.watches.iter().any(|watch| watch.open && watch.next <= newest);
    while waits(session) && !future(session) && client.env.now() < deadline {
        session.ask_progress();
        if let Next::Ended = session.next(SILENCE).await {
            return;
        }
    }
    if waits(session) && future(session) {
        return;
    }
    let healthy = client.evidence.record().healthy;
    if healthy.is_some_and(|healthy| deadline - CATCH_UP >= healthy) {
        session.leave(&How::Complete(newest));
    }
}

/// What is left to be watched when a connection breaks, half of the time.
fn resumption(
    client: &Client,
    session: &Session,
    requests: &[WatchCreateRequest],
) -> Vec<WatchCreateRequest> {
    if client.chance(1, 2) {
        return Vec::new();
    }
    let cancelled = |stream: usize| {
        let record = client.evidence.record();
        record.streams[stream].end.as_ref().is_some_and(|end| end.how == How::Cancelled)
    };
    let left = session
        .watches
        .iter()
        .zip(requests)
        .filter(|(watch, _)| watch.compacted > 0 || !cancelled(watch.stream));
    left.map(|(watch, request)| WatchCreateRequest {
        // What is compacted is lost to it; it goes on after that.
        start_revision: watch.next.max(watch.compacted),
        ..request.clone()
    })
    .collect()
}
