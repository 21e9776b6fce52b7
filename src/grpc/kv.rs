//! Service KV.

use futures::stream::{self, BoxStream, StreamExt as _};
use quorate_proto::etcdserverpb::kv_server;
use quorate_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RangeStreamResponse, TxnRequest, TxnResponse,
};
use tonic::{Request, Response, Status};

use super::caller;
use super::paged::{Held, Listing, Paged};
use super::slow::{Counted, Watching};
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
        let watching = Watching::begin(&self.member, &request);
        let (caller, request) = caller::of(request);
        respond(watching, self.member.range_answer(&caller, request).await)
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
        watching.end(answer.map(|(message, charge)| held(message, charge)).map_err(status))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let watching = Watching::begin(&self.member, &request);
        let (caller, request) = caller::of(request);
        respond(watching, self.member.txn_answer(&caller, request).await)
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let (caller, request) = caller::of(request);
        self.member.compact(&caller, request).await.map(Response::new).map_err(status)
    }
}

/// A whole answer; what was set aside for it is left to the gate.
fn held<T>(message: T, charge: Option<Charge>) -> Response<T> {
    let mut response = Response::new(message);
    if let Some(charge) = charge {
        response.extensions_mut().insert(Held::new(charge));
    }
    response
}

/// Logs the call, and leaves to the gate what comes in pages and what was set aside for an answer.
fn respond<R: Counted>(
    watching: Watching<R>,
    answer: Result<ReadResponse<R::Response>, Error>,
) -> Result<Response<R::Response>, Status>
where
    R::Response: Default + Listing,
{
    match answer {
        Err(error) => watching.end(Err(status(error))),
        Ok(ReadResponse::Whole(message, charge)) => watching.end(Ok(held(message, charge))),
        Ok(ReadResponse::Paged(frame, pages)) => {
            let bytes = pages.bytes();
            match Paged::new(&frame, pages) {
                Err(too_large) => watching.end(Err(too_large)),
                Ok(paged) => {
                    watching.tell(Some(&frame), bytes);
                    let mut response = Response::new(R::Response::default());
                    response.extensions_mut().insert(paged);
                    Ok(response)
                }
            }
        }
    }
}
