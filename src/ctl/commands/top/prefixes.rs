//! The key space by prefixes: how many keys each has, by counted ranges, and how often each changes, by a
//! watch. A prefix is what a key begins with up to its second `/`, or up to the first where there is no
//! second one. Bounded: prefixes beyond the first few hundred are taken together.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use quorate_proto::etcdserverpb::{
    RangeRequest, WatchCreateRequest, WatchRequest, WatchResponse, watch_request::RequestUnion,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::ranked;
use crate::client::Client;
use crate::ctl::Context;
use crate::ctl::cluster::Cluster;
use crate::ctl::commands::prefix_end;
use crate::env::Abort;

/// Prefixes that are counted in one go: two small requests each.
const COUNTED_MAX: usize = 200;
/// Prefixes whose changes are kept apart.
const WATCHED_MAX: usize = 1_000;
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Characters of a prefix that are kept.
const PREFIX_BYTES_MAX: usize = 64;
const OTHERS: &str = "(others)";

const LOCK: &str = "nothing panics while it holds the lock";

/// Keys by prefix, the largest first.
#[derive(Default)]
pub struct Sizes(pub Vec<(String, f64)>);

impl Sizes {
    /// Counts what may be read; nothing where that fails.
    pub async fn count(cluster: &Cluster) -> Self {
        let mut counts = BTreeMap::new();
        let mut from = vec![0];
        for _ in 0..COUNTED_MAX {
            let first = RangeRequest {
                key: from.clone().into(),
                range_end: vec![0].into(),
                limit: 1,
                keys_only: true,
                serializable: true,
                ..RangeRequest::default()
            };
            let call = async |client: Client| client.kv().range(first.clone()).await;
            let Ok(found) = cluster.call(call).await else { return Self(ranked(counts)) };
            let Some(kv) = found.kvs.first() else { return Self(ranked(counts)) };
            let prefix = prefix_of(&kv.key);
            let end = prefix_end(prefix);
            let range = RangeRequest {
                key: prefix.to_vec().into(),
                range_end: end.clone().into(),
                count_only: true,
                serializable: true,
                ..RangeRequest::default()
            };
            let call = async |client: Client| client.kv().range(range.clone()).await;
            let Ok(counted) = cluster.call(call).await else { return Self(ranked(counts)) };
            counts.insert(shown(prefix), counted.count as f64);
            from = end;
            // The prefix of the last keys has no end.
            if from == [0] {
                return Self(ranked(counts));
            }
        }
        let rest = RangeRequest {
            key: from.into(),
            range_end: vec![0].into(),
            count_only: true,
            serializable: true,
            ..RangeRequest::default()
        };
        let call = async |client: Client| client.kv().range(rest.clone()).await;
        if let Ok(counted) = cluster.call(call).await {
            counts.insert(OTHERS.to_owned(), counted.count as f64);
        }
        Self(ranked(counts))
    }
}

/// Changes by prefix since the last look.
pub struct Changes {
    counts: Arc<Mutex<BTreeMap<String, f64>>>,
    since: Mutex<Instant>,
    watch: Box<dyn Abort>,
}

impl Changes {
    /// Watches every key from now on. Where that is not permitted, nothing is counted.
    pub fn watch(context: &Context, cluster: &Cluster) -> Self {
        let counts: Arc<Mutex<BTreeMap<String, f64>>> = Arc::default();
        let (kept, client) = (Arc::clone(&counts), cluster.client.clone());
        let env = context.env.clone();
        let watch = context.env.spawn("changes", async move {
            let create = WatchCreateRequest {
                key: vec![0].into(),
                range_end: vec![0].into(),
                ..WatchCreateRequest::default()
            };
            loop {
                let create = RequestUnion::CreateRequest(create.clone());
                let (requests, stream) = mpsc::channel(1);
                let first = WatchRequest { request_union: Some(create) };
                requests.try_send(first).expect("the queue is empty");
                if let Ok(responses) = client.watch().watch(ReceiverStream::new(stream)).await {
                    let mut responses = responses.into_inner();
                    while let Ok(Some(response)) = responses.message().await {
                        count(&mut kept.lock().expect(LOCK), &response);
                    }
                }
                // Its member is gone; the next one goes on from now.
                env.sleep(RETRY_PAUSE).await;
            }
        });
        Self { counts, since: Mutex::new(context.env.now()), watch }
    }

    /// Changes per second since the last call, the busiest prefix first.
    pub fn take(&self, now: Instant) -> Vec<(String, f64)> {
        let since = std::mem::replace(&mut *self.since.lock().expect(LOCK), now);
        let counts = std::mem::take(&mut *self.counts.lock().expect(LOCK));
        let seconds = (now - since).as_secs_f64().max(0.001);
        ranked(counts.into_iter().map(|(prefix, count)| (prefix, count / seconds)).collect())
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

fn count(counts: &mut BTreeMap<String, f64>, response: &WatchResponse) {
    for kv in response.events.iter().filter_map(|event| event.kv.as_ref()) {
        let prefix = shown(prefix_of(&kv.key));
        let full = counts.len() >= WATCHED_MAX && !counts.contains_key(&prefix);
        let prefix = if full { OTHERS.to_owned() } else { prefix };
        *counts.entry(prefix).or_default() += 1.0;
    }
}

fn prefix_of(key: &[u8]) -> &[u8] {
    let mut slashes = key.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    // One that begins the key has no name before it.
    let first = slashes.next();
    let end = match (first, slashes.next(), slashes.next()) {
        (Some(0), Some(_), Some(third)) => third + 1,
        (Some(0), Some(second), None) => second + 1,
        (Some(_), Some(second), _) => second + 1,
        (Some(first), None, _) => first + 1,
        (None, ..) => key.len(),
    };
    &key[..end.min(PREFIX_BYTES_MAX)]
}

fn shown(prefix: &[u8]) -> String {
    prefix.escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_the_first_two_names_of_a_path() {
        let check = |key: &str, prefix: &str| {
            assert_eq!(prefix_of(key.as_bytes()), prefix.as_bytes(), "{key}");
        };
        check("/registry/pods/default/a", "/registry/pods/");
        check("/registry/pods", "/registry/");
        check("/a", "/");
        check("a/b/c/d", "a/b/");
        check("a/b", "a/");
        check("plain", "plain");
        check("", "");
    }
}
