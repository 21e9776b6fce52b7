//! Service KV.

use quorate_proto::etcdserverpb::kv_server;
use quorate_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RangeStreamResponse, TxnRequest, TxnResponse,
};
use tokio_stream::Empty;
use tonic::{Request, Response, Status};

use super::caller;
use super::slow::Watching;
use super::status::{status, unserved};
use crate::member::Member;

pub struct Kv {
    pub member: Member,
}

#[tonic::async_trait]
impl kv_server::Kv for Kv {
    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        let watching = Watching::begin(&self.member, &request);
        let (caller, request) = caller::of(request);
        let answer = self.member.range(&caller, request).await;
        watching.end(answer.map(Response::new).map_err(status))
    }

    type RangeStreamStream = Empty<Result<RangeStreamResponse, Status>>;

    async fn range_stream(
        &self,
        _request: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(unserved("RangeStream"))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let watching = Watching::begin(&self.member, &request);
        let (caller, request) = caller::of(request);
        let answer = self.member.put(&caller, request).await;
        watching.end(answer.map(Response::new).map_err(status))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let watching = Watching::begin(&self.member, &request);
        let (caller, request) = caller::of(request);
        let answer = self.member.delete_range(&caller, request).await;
        watching.end(answer.map(Response::new).map_err(status))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let watching = Watching::begin(&self.member, &request);
        let (caller, request) = caller::of(request);
        let answer = self.member.txn(&caller, request).await;
        watching.end(answer.map(Response::new).map_err(status))
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        self.member.compact(request.into_inner()).await.map(Response::new).map_err(status)
    }
}
