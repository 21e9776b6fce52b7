//! `--experimental-serializable-ordering`: what the cluster answers never goes back in revision, whichever
//! member it comes from and whatever the proxy was before. A member that is behind is left for the next
//! one. Answers that are kept, see [`super::cache`], stay as old as they are, as in etcd.

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

/// Times that each member is asked, as in etcd.
const ROUNDS: usize = 5;
/// Between two attempts to learn how far the cluster is.
const RETRY: Duration = Duration::from_secs(1);
/// Read for its revision only, etcd's.
const KEY: &str = "_";
/// etcd's text.
const NO_GREATER: &str = "etcdclient: no cluster members have a revision higher than the previously \
                          received revision";

/// The newest revision that anybody has been told.
#[derive(Debug, Default)]
pub(super) struct Newest {
    revision: AtomicI64,
    /// Whether what an earlier proxy has told is known.
    recovered: OnceCell<()>,
}

impl Newest {
    /// Takes note of an answer.
    pub fn told(&self, revision: i64) {
        self.revision.fetch_max(revision, Relaxed);
    }

    /// Asks until the answer is not older than what somebody had been told before.
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
                self.told(revision);
                return Ok(answer);
            }
            // Others may have left it already.
            if channel.endpoint() == endpoint {
                channel.next_endpoint().await;
            }
        }
        Err(Status::unknown(NO_GREATER))
    }

    /// Knows how far the cluster is, however long that takes: what an earlier proxy has told counts.
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
                    return self.told(header.map_or(0, |header| header.revision));
                }
                Err(status) => {
                    warn!(error = status.message(), "ordering recovery failed, retrying in 1s");
                    env.sleep(RETRY).await;
                }
            }
        }
    }
}
