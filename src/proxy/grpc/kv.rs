//! Service KV of the proxy: ranges that may be cached, and writes that invalidate the cache.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use quorate_proto::etcdserverpb::kv_server;
use quorate_proto::etcdserverpb::request_op::Request as Op;
use quorate_proto::etcdserverpb::response_op::Response as Done;
use quorate_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RangeStreamResponse, RequestOp, ResponseHeader,
    ResponseOp, TxnRequest, TxnResponse,
};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::cache::{Cache, Found};
use super::forward::{parts, with_metadata};
use super::metrics::Counters;
use super::namespace::Namespace;
use super::ordering::Newest;
use super::upstream::Upstream;
use crate::error::Refused;
use crate::grpc::status::status;
use crate::{mvcc, plant};

/// Clones share the cache.
#[derive(Clone)]
pub(super) struct Kv {
    upstream: Upstream,
    namespace: Namespace,
    cache: Arc<Mutex<Cache>>,
    counters: Arc<Counters>,
    /// The newest revision, if responses are ordered.
    newest: Option<Arc<Newest>>,
}

impl Kv {
    pub fn new(
        upstream: Upstream,
        namespace: Namespace,
        counters: Arc<Counters>,
        newest: Option<Arc<Newest>>,
    ) -> Self {
        Self { upstream, namespace, cache: Arc::default(), counters, newest }
    }

    /// Returns the number of cached responses.
    pub fn kept(&self) -> usize {
        self.cache().answers()
    }

    /// No code panics while the lock is held.
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a range that any member may answer.
    async fn read<A, F>(
        &self,
        mut ask: impl FnMut() -> F,
        revision: impl Fn(&A) -> i64,
    ) -> Result<Response<A>, Status>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        match &self.newest {
            None => ask().await,
            Some(newest) => newest.in_order(&self.upstream, ask, revision).await,
        }
    }

    /// Invalidates keys after a write.
    fn written(&self, key: &[u8], end: &[u8], header: &Option<ResponseHeader>) {
        let revision = revision(header);
        if !plant::PROXY_KEEPS_WHAT_WAS_WRITTEN.is_planted() {
            self.cache().written(key, end, revision);
        }
        self.observe(revision);
    }

    /// Records the revision of a response.
    fn observe(&self, revision: i64) {
        if let Some(newest) = &self.newest {
            newest.observe(revision);
        }
    }

    /// Invalidates keys before a write.
    fn invalidate(&self, key: &[u8], end: &[u8]) {
        if !plant::PROXY_KEEPS_WHAT_WAS_WRITTEN.is_planted() {
            self.cache().invalidate(key, end);
        }
    }
}

/// Invalidates the keys that a txn has changed. Its reads are not cached: later operations of the same txn
/// may have written the keys.
fn note(cache: &mut Cache, txn: &TxnRequest, answer: &TxnResponse, revision: i64) {
    // A comparison may have shown a concurrent write.
    for compare in &txn.compare {
        cache.invalidate(&compare.key, &compare.range_end);
    }
    let ops = if answer.succeeded { &txn.success } else { &txn.failure };
    for (RequestOp { request }, ResponseOp { response }) in ops.iter().zip(&answer.responses) {
        match (request, response) {
            (Some(Op::RequestPut(put)), _) => cache.written(&put.key, b"", revision),
            (Some(Op::RequestDeleteRange(delete)), _) => {
                cache.written(&delete.key, &delete.range_end, revision);
            }
            (Some(Op::RequestTxn(txn)), Some(Done::ResponseTxn(answer))) => {
                note(cache, txn, answer, revision);
            }
            _ => {}
        }
    }
}

#[tonic::async_trait]
impl kv_server::Kv for Kv {
    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        let (metadata, range) = parts(request);
        let token = token(&metadata);
        if range.serializable || plant::PROXY_KEEPS_LINEARIZABLE_READS.is_planted() {
            match self.cache().get(token.as_ref(), &range) {
                Found::Answer(answer) => {
                    self.counters.hits.add();
                    return Ok(Response::new(answer));
                }
                Found::Compacted => {
                    self.counters.hits.add();
                    return Err(status(Refused::Compacted.into()));
                }
                Found::Nothing => self.counters.misses.add(),
            }
        }
        let mut inside = range.clone();
        self.namespace.enter_range(&mut inside).map_err(|refused| status(refused.into()))?;
        let kv = self.upstream.kv();
        let ask = || {
            let (mut kv, asked) = (kv.clone(), with_metadata(metadata.clone(), inside.clone()));
            async move { kv.range(asked).await }
        };
        let mut answer = self.read(ask, |answer: &RangeResponse| revision(&answer.header)).await?;
        if !plant::PROXY_SHOWS_ITS_NAMESPACE.is_planted() {
            self.namespace.leave_range(answer.get_mut());
        }
        self.cache().add(token.as_ref(), &range, answer.get_ref());
        Ok(answer)
    }

    type RangeStreamStream = BoxStream<'static, Result<RangeStreamResponse, Status>>;

    async fn range_stream(
        &self,
        _: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let refused = Status::unimplemented("RangeStream is not supported by the gRPC proxy");
        Ok(Response::new(Box::pin(stream::once(async { Err(refused) }))))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let (metadata, mut put) = parts(request);
        let key = put.key.clone();
        self.namespace.enter_put(&mut put).map_err(|refused| status(refused.into()))?;
        self.invalidate(&key, b"");
        let mut answer = self.upstream.kv().put(with_metadata(metadata, put)).await?;
        self.written(&key, b"", &answer.get_ref().header);
        self.namespace.leave_put(answer.get_mut());
        Ok(answer)
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let (metadata, mut delete) = parts(request);
        let (key, end) = (delete.key.clone(), delete.range_end.clone());
        self.namespace.enter_delete(&mut delete).map_err(|refused| status(refused.into()))?;
        self.invalidate(&key, &end);
        let mut answer = self.upstream.kv().delete_range(with_metadata(metadata, delete)).await?;
        self.written(&key, &end, &answer.get_ref().header);
        self.namespace.leave_delete(answer.get_mut());
        Ok(answer)
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let (metadata, txn) = parts(request);
        let mut inside = txn.clone();
        self.namespace.enter_txn(&mut inside).map_err(|refused| status(refused.into()))?;
        let kv = self.upstream.kv();
        let ask = || {
            let (mut kv, asked) = (kv.clone(), with_metadata(metadata.clone(), inside.clone()));
            async move { kv.txn(asked).await }
        };
        // A txn that may write is not retried, not even after the revision of a restored cluster.
        let mut answer = match mvcc::is_read_only(&txn) {
            true => self.read(ask, |answer: &TxnResponse| revision(&answer.header)).await?,
            false => ask().await?,
        };
        self.namespace.leave_txn(answer.get_mut());
        let revision = revision(&answer.get_ref().header);
        note(&mut self.cache(), &txn, answer.get_ref(), revision);
        self.observe(revision);
        Ok(answer)
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let (metadata, compaction) = parts(request);
        let answer = self.upstream.kv().compact(with_metadata(metadata, compaction)).await?;
        self.cache().compact(compaction.revision);
        Ok(answer)
    }
}

/// Returns the token of a call.
pub(super) fn token(metadata: &MetadataMap) -> Option<Bytes> {
    let token = metadata.get("token").or_else(|| metadata.get("authorization"))?;
    Some(Bytes::copy_from_slice(token.as_encoded_bytes()))
}

fn revision(header: &Option<ResponseHeader>) -> i64 {
    header.as_ref().map_or(0, |header| header.revision)
}
