//! Requests about keys: puts, deletions, txns, compactions and watches. Ranges are in `ranges`.

use std::sync::Arc;

use quorate_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RequestOp, TxnRequest, TxnResponse, WatchRequest, request_op::Request as Op,
};
use tokio::sync::mpsc;
use tokio_stream::Stream;

use super::{Charge, ReadResponse, spans};
use crate::apply::planted::judged_end;
use crate::auth::{Auth, Principal};
use crate::env::Work;
use crate::error::{Error, Refused};
use crate::limits;
use crate::member::propose::Origin;
use crate::member::{Caller, Member};
use crate::mvcc::{self, View};
use crate::watch;

/// What etcd counts for a put besides key and value.
const PUT_OVERHEAD_BYTES: u64 = 256;

impl Member {
    pub async fn put(&self, caller: &Caller, request: PutRequest) -> Result<PutResponse, Error> {
        self.check_quota(put_cost(&request)).await?;
        mvcc::check_put(&request)?;
        let caller = &*caller.within(spans::PUT, || spans::put(&request));
        self.propose_for(caller, request).await
    }

    /// Returns the response and the memory reserved for it, to be held until it is sent: the previous
    /// key-values may be many.
    pub async fn delete_range(
        &self,
        caller: &Caller,
        request: DeleteRangeRequest,
    ) -> Result<(DeleteRangeResponse, Option<Charge>), Error> {
        mvcc::check_delete_range(&request)?;
        let caller = &*caller.within(spans::DELETE_RANGE, || spans::delete_range(&request));
        let charge = if request.prev_kv {
            let op = RequestOp { request: Some(Op::RequestDeleteRange(request.clone())) };
            let alone = TxnRequest { success: vec![op], ..TxnRequest::default() };
            self.charge_for_reads(caller, &alone).await?
        } else {
            None
        };
        Ok((self.propose_for(caller, request).await?, charge))
    }

    /// Carries out a txn; large lists of keys of a read-only one are returned in pages.
    pub async fn txn_answer(
        &self,
        caller: &Caller,
        request: TxnRequest,
    ) -> Result<ReadResponse<TxnResponse>, Error> {
        self.check_quota(txn_cost(&request)).await?;
        let request = self.checked_txn(request).await?;
        let caller = &*caller.within(spans::TXN, || spans::txn(&request));
        if !mvcc::is_read_only(&request) {
            let charge = self.charge_for_reads(caller, &request).await?;
            return Ok(ReadResponse::Whole(self.propose_for(caller, request).await?, charge));
        }
        let started = self.0.env.now();
        let logged = request.clone();
        let mut outcome = self.read_only_txn(caller, request).await;
        self.observe_request("ReadonlyTxn", started, outcome.is_ok());
        self.warn_of_txn(started, &logged, &outcome);
        if let Ok(ReadResponse::Whole(response, _) | ReadResponse::Paged(response, _)) =
            &mut outcome
        {
            response.header = self.complete(response.header);
        }
        outcome
    }

    /// As [`Self::txn_answer`], for the member's own txns, which write and read little.
    pub async fn txn(&self, caller: &Caller, request: TxnRequest) -> Result<TxnResponse, Error> {
        self.check_quota(txn_cost(&request)).await?;
        let request = self.checked_txn(request).await?;
        let caller = &*caller.within(spans::TXN, || spans::txn(&request));
        self.propose_for(caller, request).await
    }

    /// A txn that is well formed. A large one is checked where blocking is allowed.
    async fn checked_txn(&self, request: TxnRequest) -> Result<TxnRequest, Error> {
        let ops_max = self.0.options.txn_ops_max;
        if !mvcc::is_large(&request) {
            mvcc::check_txn(&request, ops_max)?;
            return Ok(request);
        }
        let check = move || mvcc::check_txn(&request, ops_max).map(|()| request);
        Ok(self.0.env.blocking_for(Work::Reads, "check", check).await?)
    }

    pub async fn compact(
        &self,
        caller: &Caller,
        request: CompactionRequest,
    ) -> Result<CompactionResponse, Error> {
        let caller = &*caller.within(spans::COMPACT, || spans::compact(&request));
        let physical = request.physical;
        let response = self.propose(Origin::permitted(caller), request).await?;
        let pending = || self.0.store.compaction_pending() || self.0.hashes.are_pending();
        while physical && pending() && !self.is_stopping() {
            self.0.env.sleep(limits::COMPACTION_POLL).await;
        }
        Ok(response)
    }

    /// Runs one client's watch stream until its receiver is gone.
    pub async fn watch(
        &self,
        caller: Caller,
        requests: impl Stream<Item = WatchRequest> + Send + Unpin + 'static,
        responses: mpsc::Sender<Result<watch::Response, Error>>,
    ) {
        // The login that issued the stream's token; permissions are checked when a watch is created.
        let _ = self.await_login(&caller).await;
        let (member, judge) = (self.clone(), self.clone());
        let span = caller.span().cloned();
        let options = watch::Options {
            span: span.map(|span| watch::Traced { span, attributes: spans::watch }),
            allow: Some(Arc::new(move |key: &[u8], range_end: &[u8]| {
                judge.may_watch(&caller, key, range_end).map_err(cancel_reason)
            })),
            progress_interval: self.0.options.watch_progress_interval,
            fragment_bytes: self.0.options.request_bytes_max + limits::GRPC_OVERHEAD_BYTES,
            ..watch::Options::new(Arc::new(move || member.header()))
        };
        let history = Arc::new(self.0.store.clone());
        let (env, hub) = (self.0.env.clone(), self.0.hub.clone());
        watch::run(env, hub, history, requests, responses, options).await;
    }

    fn may_watch(&self, caller: &Caller, key: &[u8], range_end: &[u8]) -> Result<(), Refused> {
        let principal = self.identify_now(caller)?;
        self.auth().may_read(&principal, key, judged_end(range_end))
    }

    /// As [`Self::read`], if the auth revision is still the one that the permission was checked at. The
    /// view's own revision is compared: the data and the permissions must be of one moment.
    pub(in crate::member) async fn read_as_judged<T: Send + 'static>(
        &self,
        large: bool,
        judged: Option<u64>,
        read: impl FnOnce(&View) -> mvcc::Outcome<T> + Send + 'static,
    ) -> Result<T, Error> {
        self.read(large.then_some(Work::Reads), move |view| match judged {
            Some(revision) if Auth::revision_in(view)? != revision => {
                Ok(Err(Refused::AuthOldRevision))
            }
            _ => read(view),
        })
        .await
    }

    /// Reads the present state: on this thread, or as `work` where blocking is allowed.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: Option<Work>,
        read: impl FnOnce(&View) -> mvcc::Outcome<T> + Send + 'static,
    ) -> Result<T, Error> {
        let view = self.0.store.view();
        let outcome = match work {
            Some(work) => self.0.env.blocking_for(work, "read", move || read(&view)).await,
            None => read(&view),
        };
        Ok(self.fatal_stops(outcome)??)
    }
}

/// The auth revision that a read must find in the state; `None` when no permission was checked.
pub(in crate::member) fn judged_at(caller: &Caller, principal: &Principal) -> Option<u64> {
    (!caller.is_internal() && principal.revision != 0).then_some(principal.revision)
}

/// The reason for which a watch is not created, as etcd words it: the status as text. Most refusals are
/// reported as a denial.
fn cancel_reason(refused: Refused) -> String {
    let shown = match refused {
        Refused::InvalidAuthToken | Refused::AuthOldRevision | Refused::UserEmpty => refused,
        _ => Refused::PermissionDenied,
    };
    format!("rpc error: code = {:?} desc = {}", shown.code(), shown.text())
}

fn put_cost(put: &PutRequest) -> u64 {
    PUT_OVERHEAD_BYTES + (put.key.len() + put.value.len()) as u64
}

/// The cost of the more expensive branch, nested txns included.
fn txn_cost(txn: &TxnRequest) -> u64 {
    let branch = |ops: &[RequestOp]| ops.iter().map(op_cost).sum::<u64>();
    branch(&txn.success).max(branch(&txn.failure))
}

fn op_cost(op: &RequestOp) -> u64 {
    match &op.request {
        Some(Op::RequestPut(put)) => put_cost(put),
        Some(Op::RequestTxn(txn)) => txn_cost(txn),
        _ => 0,
    }
}
