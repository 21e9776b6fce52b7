//! Service KV of the proxy: ranges that may come from the cache, and writes that make it forget.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use quorate_proto::etcdserverpb::kv_client::KvClient;
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
use crate::client::Client;
use crate::error::Refused;
use crate::grpc::status::status;

/// Clones share the cache.
#[derive(Clone)]
pub(super) struct Kv {
    client: Client,
    namespace: Namespace,
    cache: Arc<Mutex<Cache>>,
    counters: Arc<Counters>,
}

impl Kv {
    pub fn new(client: Client, namespace: Namespace, counters: Arc<Counters>) -> Self {
        Self { client, namespace, cache: Arc::default(), counters }
    }

    /// Answers that are kept.
    pub fn kept(&self) -> usize {
        self.cache().answers()
    }

    /// Nothing that panics happens while it is held.
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn upstream(&self) -> KvClient<crate::client::Channel> {
        self.client.kv()
    }
}

/// What a txn that was carried out has changed. What it has found is not kept: other operations of the
/// same txn may have written it since.
fn note(cache: &mut Cache, txn: &TxnRequest, answer: &TxnResponse, revision: i64) {
    // A comparison may have shown that somebody else has written.
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
        if range.serializable {
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
        let mut answer = self.upstream().range(with_metadata(metadata, inside)).await?;
        self.namespace.leave_range(answer.get_mut());
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
        self.cache().invalidate(&key, b"");
        let mut answer = self.upstream().put(with_metadata(metadata, put)).await?;
        self.cache().written(&key, b"", revision(&answer.get_ref().header));
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
        self.cache().invalidate(&key, &end);
        let mut answer = self.upstream().delete_range(with_metadata(metadata, delete)).await?;
        self.cache().written(&key, &end, revision(&answer.get_ref().header));
        self.namespace.leave_delete(answer.get_mut());
        Ok(answer)
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let (metadata, txn) = parts(request);
        let mut inside = txn.clone();
        self.namespace.enter_txn(&mut inside).map_err(|refused| status(refused.into()))?;
        let mut answer = self.upstream().txn(with_metadata(metadata, inside)).await?;
        self.namespace.leave_txn(answer.get_mut());
        let revision = revision(&answer.get_ref().header);
        note(&mut self.cache(), &txn, answer.get_ref(), revision);
        Ok(answer)
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let (metadata, compaction) = parts(request);
        let answer = self.upstream().compact(with_metadata(metadata, compaction)).await?;
        self.cache().compact(compaction.revision);
        Ok(answer)
    }
}

/// On whose behalf a call is.
pub(super) fn token(metadata: &MetadataMap) -> Option<Bytes> {
    let token = metadata.get("token").or_else(|| metadata.get("authorization"))?;
    Some(Bytes::copy_from_slice(token.as_encoded_bytes()))
}

fn revision(header: &Option<ResponseHeader>) -> i64 {
    header.as_ref().map_or(0, |header| header.revision)
}
