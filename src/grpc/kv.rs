//! Service KV.

use futures::stream::{self, BoxStream, StreamExt as _};
use quorate_proto::etcdserverpb::kv_server;
use quorate_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RangeStreamResponse, TxnRequest, TxnResponse,
};
use tonic::{Request, Response, Status};

use super::caller;
use super::paged::{AnswerCharge, Listing, Paged};
use super::slow::{Counted, SlowKvCall};
use super::status::status;
use crate::error::Error;
use crate::member::{Charge, Member, ReadResponse};

pub struct Kv {
    pub member: Member,
}

#[tonic::async_trait]
impl kv_server::Kv for Kv {
    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        let slow = SlowKvCall::begin(&self.member, &request);
        let (caller, request) = caller::of(request);
        respond(slow, self.member.range_answer(&caller, request).await)
    }

    type RangeStreamStream = BoxStream<'static, Result<RangeStreamResponse, Status>>;

    /// A chunk is read when the connection has room for it.
    async fn range_stream(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let (caller, request) = caller::of(request);
        let chunks = self.member.range_stream(&caller, request).await.map_err(status)?;
        let chunks = stream::try_unfold(chunks, |mut chunks| async {
            let chunk = chunks.next().await.map_err(status)?;
            Ok(chunk.map(|chunk| (RangeStreamResponse { range_response: Some(chunk) }, chunks)))
        });
        Ok(Response::new(chunks.boxed()))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let slow = SlowKvCall::begin(&self.member, &request);
        let (caller, request) = caller::of(request);
        let answer = self.member.put(&caller, request).await;
        slow.end(answer.map(Response::new).map_err(status))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let slow = SlowKvCall::begin(&self.member, &request);
        let (caller, request) = caller::of(request);
        let answer = self.member.delete_range(&caller, request).await;
        slow.end(answer.map(|(message, charge)| held(message, charge)).map_err(status))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let slow = SlowKvCall::begin(&self.member, &request);
        let (caller, request) = caller::of(request);
        respond(slow, self.member.txn_answer(&caller, request).await)
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let (caller, request) = caller::of(request);
        self.member.compact(&caller, request).await.map(Response::new).map_err(status)
    }
}

/// Wraps a whole response; its memory budget is passed to the gate.
fn held<T>(message: T, charge: Option<Charge>) -> Response<T> {
    let mut response = Response::new(message);
    if let Some(charge) = charge {
        response.extensions_mut().insert(AnswerCharge::new(charge));
    }
    response
}

/// Logs the call and passes pages and memory budget to the gate.
fn respond<R: Counted>(
    slow: SlowKvCall<R>,
    answer: Result<ReadResponse<R::Response>, Error>,
) -> Result<Response<R::Response>, Status>
where
    R::Response: Default + Listing,
{
    match answer {
        Err(error) => slow.end(Err(status(error))),
        Ok(ReadResponse::Whole(message, charge)) => slow.end(Ok(held(message, charge))),
        Ok(ReadResponse::Paged(frame, pages)) => {
            let bytes = pages.bytes();
            match Paged::new(&frame, pages) {
                Err(too_large) => slow.end(Err(too_large)),
                Ok(paged) => {
                    slow.log(Some(&frame), bytes);
                    let mut response = Response::new(R::Response::default());
                    response.extensions_mut().insert(paged);
                    Ok(response)
                }
            }
        }
    }
}
