//! Traffic as the API server of Kubernetes makes it: objects are created, changed and deleted by txns
//! on their mod revision; caches list everything, page by page, and watch from the revision of the
//! list on. A cache must be equal to a list at its revision.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcdserverpb::{RangeRequest, WatchCreateRequest, WatchResponse};
use quorate_proto::mvccpb::{KeyValue, event::EventType};

use super::session::{Next, Session};
use super::{Client, Work, Workload};
use crate::facts::evidence::Evidence;
use crate::facts::request::{Op, delete, end_of, get, list, put, txn, unchanged};
use crate::facts::verdict::Violation;

const PREFIX: &str = "k8s/";
const OBJECTS: u64 = 20;
const PAGE: i64 = 7;
const SILENCE: Duration = Duration::from_millis(500);
const QUESTIONS: u32 = 8;

#[derive(Default)]
pub struct Kubernetes {
    /// Objects as they were seen last.
    known: BTreeMap<Bytes, i64>,
}

type Cache = BTreeMap<Bytes, KeyValue>;

impl Workload for Kubernetes {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            if client.chance(1, 25) {
                cache(client).await;
            } else {
                self.change(client).await;
            }
        })
    }

    fn check(&self, _evidence: &Evidence) -> Vec<Violation> {
        Vec::new()
    }
}

impl Kubernetes {
    /// Creates, changes or deletes an object, if it is still what it was.
    async fn change(&mut self, client: &Client) {
        let key = Bytes::from(format!("{PREFIX}pods/{:02}", client.below(OBJECTS)));
        let known = self.known.get(&key).copied().unwrap_or(0);
        let change = if known != 0 && client.chance(1, 4) {
            delete(key.clone()).op()
        } else {
            put(key.clone(), client.value()).op()
        };
        let unchanged = vec![unchanged(key.clone(), known)];
        let request = txn(unchanged, vec![change], vec![get(key.clone()).op()]);
        let answer = client.txn(request).await;
        match &answer {
            Ok(done) if done.succeeded => {
                let revision = done.header.map_or(0, |header| header.revision);
                let written = matches!(
                    done.responses.first().and_then(|op| op.response.as_ref()),
                    Some(quorate_proto::etcdserverpb::response_op::Response::ResponsePut(_))
                );
                self.known.insert(key, if written { revision } else { 0 });
            }
            Ok(lost) => {
                let found = lost.responses.first().and_then(|op| match &op.response {
                    Some(quorate_proto::etcdserverpb::response_op::Response::ResponseRange(it)) => {
                        it.kvs.first()
                    }
                    _ => None,
                });
                self.known.insert(key, found.map_or(0, |kv| kv.mod_revision));
            }
            Err(_) => {}
        }
        client.rest(&answer, 30).await;
    }
}

/// Fills a cache, follows the changes for a while, and compares it with a list.
async fn cache(client: &Client) {
    let member = client.on_member(client.roll());
    let Some((revision, mut cache)) = listed(&member).await else { return };
    let Some(mut session) = Session::open(&member).await else { return };
    session.create(
        client.number,
        WatchCreateRequest {
            key: PREFIX.into(),
            range_end: end_of(PREFIX.as_bytes()),
            start_revision: revision + 1,
            prev_kv: true,
            progress_notify: true,
            ..Default::default()
        },
    );
    let until = client.env.now() + Duration::from_millis(client.below(5_000));
    while client.env.now() < until && !client.stop.is_set() {
        match session.next(SILENCE).await {
            Next::For(_, response) if response.canceled => return,
            Next::For(_, response) => follow(&mut cache, response, i64::MAX),
            Next::Progress(_) | Next::Silence => {}
            Next::Ended => return,
        }
    }
    let Some((newest, wanted)) = listed(client).await else { return };
    for _ in 0..QUESTIONS {
        if session.watches[0].next > newest {
            break;
        }
        session.ask_progress();
        match session.next(SILENCE).await {
            Next::For(_, response) if response.canceled => return,
            Next::For(_, response) => follow(&mut cache, response, newest),
            Next::Progress(_) | Next::Silence => {}
            Next::Ended => return,
        }
    }
    if session.watches[0].next <= newest {
        return;
    }
    let differs = wanted.iter().find(|(key, kv)| cache.get(*key) != Some(kv));
    let surplus = cache.iter().find(|(key, _)| !wanted.contains_key(*key));
    if let Some((key, _)) = differs.or(surplus) {
        let (listed, cached) = (wanted.get(key), cache.get(key));
        let text =
            format!("at {newest} {key:?} is {listed:?} in the list, {cached:?} in the cache");
        client.complain("list and watch give the same state", text);
    }
}

/// All objects at one revision.
async fn listed(client: &Client) -> Option<(i64, Cache)> {
    let mut page = RangeRequest { limit: PAGE, ..list(PREFIX) };
    let mut all = Cache::new();
    loop {
        let found = client.range(page.clone()).await.ok()?;
        if page.revision == 0 {
            page.revision = found.header?.revision;
        }
        let last = found.kvs.last().map(|kv| kv.key.clone());
        all.extend(found.kvs.into_iter().map(|kv| (kv.key.clone(), kv)));
        match last.filter(|_| found.more) {
            Some(last) => page.key = [&last[..], &[0]].concat().into(),
            None => return Some((page.revision, all)),
        }
    }
}

/// Makes the changes up to a revision.
fn follow(cache: &mut Cache, response: WatchResponse, until: i64) {
    for event in response.events {
        let deleted = event.r#type() == EventType::Delete;
        let Some(kv) = event.kv.filter(|kv| kv.mod_revision <= until) else { continue };
        if deleted {
            cache.remove(&kv.key);
        } else {
            cache.insert(kv.key.clone(), kv);
        }
    }
}
