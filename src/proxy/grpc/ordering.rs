//! `--experimental-serializable-ordering`: revisions of responses never decrease, whichever member responds
//! and also after a restart of the proxy. A member that lags is left for the next one. As in etcd, cached
//! responses ([`super::cache`]) are exempt.

use std::future::Future;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use quorate_proto::etcdserverpb::RangeRequest;
use tokio::sync::OnceCell;
use tonic::{Response, Status};
use tracing::{info, warn};

use super::upstream::Upstream;
use crate::env::Env;
use crate::plant;

/// Attempts for each member, etcd's.
const ROUNDS: usize = 5;
/// Pause between two reads of the cluster's revision.
const RETRY: Duration = Duration::from_secs(1);
/// The key of that read, etcd's.
const KEY: &str = "_";
/// etcd's text.
const NO_GREATER: &str = "etcdclient: no cluster members have a revision higher than the previously \
                          received revision";

/// The newest revision in any response.
#[derive(Debug, Default)]
pub(super) struct Newest {
    revision: AtomicI64,
    /// Whether it covers the responses of earlier proxies.
    recovered: OnceCell<()>,
}

impl Newest {
    /// Records the revision of a response.
    pub fn observe(&self, revision: i64) {
        self.revision.fetch_max(revision, Relaxed);
    }

    /// Repeats a read until its revision is not older than the newest one before.
    pub async fn in_order<A, F>(
        &self,
        upstream: &Upstream,
        mut ask: impl FnMut() -> F,
        revision: impl Fn(&A) -> i64,
    ) -> Result<Response<A>, Status>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let before = self.revision.load(Relaxed);
        let channel = upstream.channel();
        for _ in 0..ROUNDS * channel.endpoint_count() {
            let endpoint = channel.endpoint();
            let answer = ask().await?;
            let revision = revision(answer.get_ref());
            if revision >= before || plant::PROXY_TAKES_BACK_A_REVISION.is_planted() {
                self.observe(revision);
                return Ok(answer);
            }
            // Another call may have left it already.
            if channel.endpoint() == endpoint {
                channel.next_endpoint().await;
            }
        }
        Err(Status::unknown(NO_GREATER))
    }

    /// Reads the revision of the cluster, which covers the responses of earlier proxies. Retries for ever.
    pub async fn recovered(&self, env: &Env, upstream: &Upstream) {
        self.recovered.get_or_init(|| self.recover(env, upstream)).await;
    }

    async fn recover(&self, env: &Env, upstream: &Upstream) {
        info!("waiting for linearized read from cluster to recover ordering");
        loop {
            let range = RangeRequest { key: KEY.into(), keys_only: true, ..Default::default() };
            match upstream.kv().range(range).await {
                Ok(answer) => {
                    let header = answer.into_inner().header;
                    return self.observe(header.map_or(0, |header| header.revision));
                }
                Err(status) => {
                    warn!(error = status.message(), "ordering recovery failed, retrying in 1s");
                    env.sleep(RETRY).await;
                }
            }
        }
    }
}
