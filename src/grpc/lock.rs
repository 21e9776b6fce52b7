//! Service v3lock: a lock is held by the key created first under its name, for as long as that key's
//! lease lives. The holder's key goes into the holder's txns as their guard.

use quorate_proto::etcdserverpb::{
    DeleteRangeRequest, ResponseHeader, TxnRequest, TxnResponse, request_op::Request as Op,
    response_op,
};
use quorate_proto::mvccpb::KeyValue;
use quorate_proto::v3lockpb::lock_server;
use quorate_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use tonic::{Request, Response, Status};

use super::caller;
use super::recipe::{self, Candidate, inner};
use crate::error::{Error, Refused};
use crate::member::{Caller, Member};

pub struct Lock {
    pub member: Member,
}

#[tonic::async_trait]
impl lock_server::Lock for Lock {
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let (caller, LockRequest { name, lease }) = caller::of(request);
        self.acquire(&caller, &name, lease).await.map(Response::new).map_err(inner)
    }

    async fn unlock(
        &self,
        request: Request<UnlockRequest>,
    ) -> Result<Response<UnlockResponse>, Status> {
        let (caller, UnlockRequest { key }) = caller::of(request);
        let delete = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
        let (deleted, _) = self.member.delete_range(&caller, delete).await.map_err(inner)?;
        Ok(Response::new(UnlockResponse { header: deleted.header }))
    }
}

impl Lock {
    async fn acquire(
        &self,
        caller: &Caller,
        name: &[u8],
        lease: i64,
    ) -> Result<LockResponse, Error> {
        let lease = recipe::session(&self.member, caller, lease).await?;
        let prefix = recipe::prefix(name);
        let key = recipe::own_key(&prefix, lease);
        let queue = TxnRequest {
            compare: vec![recipe::created_at(&key, 0)],
            success: vec![
                recipe::op(Op::RequestPut(recipe::put(&key, "".into(), lease))),
                recipe::op(Op::RequestRange(recipe::first(&prefix))),
            ],
            // The same session may wait or hold already.
            failure: vec![
                recipe::op(Op::RequestRange(recipe::get(&key))),
                recipe::op(Op::RequestRange(recipe::first(&prefix))),
            ],
        };
        let queued = self.member.txn(caller, queue).await?;
        let revision = own_revision(&queued);
        let owner = found(&queued, 1).map(|kv| kv.create_revision);
        if owner.is_none_or(|owner| owner == revision) {
            return Ok(LockResponse { header: queued.header, key });
        }
        let mut candidate = Candidate::new(&self.member, caller, key.clone(), revision);
        let turn = candidate.wait(&prefix).await?;
        candidate.settled();
        let header: ResponseHeader = turn.ok_or(Refused::SessionExpired)?;
        Ok(LockResponse { header: Some(header), key })
    }
}

/// Returns the revision at which the caller's key was created, by this txn or before.
fn own_revision(queued: &TxnResponse) -> i64 {
    let now = queued.header.as_ref().map_or(0, |header| header.revision);
    match queued.succeeded {
        true => now,
        false => found(queued, 0).map_or(now, |kv| kv.create_revision),
    }
}

fn found(response: &TxnResponse, at: usize) -> Option<&KeyValue> {
    match response.responses.get(at)?.response.as_ref()? {
        response_op::Response::ResponseRange(range) => range.kvs.first(),
        _ => None,
    }
}
