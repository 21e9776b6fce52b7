//! What the edge calls: each client request, from a decoded message to a complete answer. Ranges are
//! in `ranges`.

use std::io;

use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, CompactionRequest, CompactionResponse, DeleteRangeRequest,
    DeleteRangeResponse, HashKvRequest, HashKvResponse, HashResponse, InternalRaftRequest,
    PutRequest, PutResponse, RangeRequest, RequestOp, StatusResponse, TxnRequest, TxnResponse,
    WatchRequest, alarm_request::AlarmAction, request_op::Request as Op,
};
use tokio::sync::mpsc;
use tokio_stream::Stream;

use super::{Answer, Caller, Charge, ETCD_VERSION, Member, snapshot, spans};
use crate::apply::Reply;
use crate::auth::{Auth, Principal, Rule};
use crate::error::{Error, Refused, Unavailable};
use crate::limits;
use crate::metrics::observe;
use crate::mvcc::{self, View};
use crate::replica::Role;
use crate::types::{MemberId, Revision};
use crate::watch;

/// What etcd counts for a put besides key and value.
const PUT_OVERHEAD_BYTES: u64 = 256;

impl Member {
    pub async fn put(&self, caller: &Caller, request: PutRequest) -> Result<PutResponse, Error> {
        self.check_quota(put_cost(&request)).await?;
        mvcc::check_put(&request)?;
        let caller = &*caller.within(spans::PUT, || spans::put(&request));
        let request = InternalRaftRequest { put: Some(request), ..Default::default() };
        match self.propose_for(caller, request).await? {
            Reply::Put(mut response) => {
                response.header = self.complete(response.header);
                Ok(response)
            }
            other => unreachable!("apply answered a put with {other:?}"),
        }
    }

    /// With what was set aside for the answer, which must be held until it is sent: the states before
    /// it may be many.
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
        let request = InternalRaftRequest { delete_range: Some(request), ..Default::default() };
        match self.propose_for(caller, request).await? {
            Reply::DeleteRange(mut response) => {
                response.header = self.complete(response.header);
                Ok((response, charge))
            }
            other => unreachable!("apply answered a delete with {other:?}"),
        }
    }

    /// Carries out a txn; what is large of its answer comes in pages if it only reads.
    pub async fn txn_answer(
        &self,
        caller: &Caller,
        request: TxnRequest,
    ) -> Result<Answer<TxnResponse>, Error> {
        self.check_quota(txn_cost(&request)).await?;
        let request = self.checked_txn(request).await?;
        let caller = &*caller.within(spans::TXN, || spans::txn(&request));
        if !mvcc::is_read_only(&request) {
            let charge = self.charge_for_reads(caller, &request).await?;
            return Ok(Answer::Whole(self.propose_txn(caller, request).await?, charge));
        }
        let started = self.0.env.now();
        let logged = request.clone();
        let mut outcome = self.read_only_txn(caller, request).await;
        self.observe_request("ReadonlyTxn", started, outcome.is_ok());
        self.warn_of_txn(started, &logged, &outcome);
        if let Ok(Answer::Whole(response, _) | Answer::Paged(response, _)) = &mut outcome {
            response.header = self.complete(response.header);
        }
        outcome
    }

    /// As [`Self::txn_answer`], for a txn that writes, reads little and is this member's own.
    pub async fn txn(&self, caller: &Caller, request: TxnRequest) -> Result<TxnResponse, Error> {
        self.check_quota(txn_cost(&request)).await?;
        let request = self.checked_txn(request).await?;
        let caller = &*caller.within(spans::TXN, || spans::txn(&request));
        self.propose_txn(caller, request).await
    }

    /// A txn that is well formed. A large one is looked at by a thread that may be held.
    async fn checked_txn(&self, request: TxnRequest) -> Result<TxnRequest, Error> {
        let ops_max = self.0.options.txn_ops_max;
        if !mvcc::is_large(&request) {
            mvcc::check_txn(&request, ops_max)?;
            return Ok(request);
        }
        let check = move || mvcc::check_txn(&request, ops_max).map(|()| request);
        Ok(self.0.env.blocking("check", check).await?)
    }

    async fn propose_txn(
        &self,
        caller: &Caller,
        request: TxnRequest,
    ) -> Result<TxnResponse, Error> {
        let request = InternalRaftRequest { txn: Some(request), ..Default::default() };
        match self.propose_for(caller, request).await? {
            Reply::Txn(mut response) => {
                response.header = self.complete(response.header);
                Ok(response)
            }
            other => unreachable!("apply answered a txn with {other:?}"),
        }
    }

    pub async fn compact(
        &self,
        caller: &Caller,
        request: CompactionRequest,
    ) -> Result<CompactionResponse, Error> {
        let caller = &*caller.within(spans::COMPACT, || spans::compact(&request));
        let physical = request.physical;
        let request = InternalRaftRequest { compaction: Some(request), ..Default::default() };
        self.propose_within(caller.span(), request).await?;
        while physical && self.0.store.compaction_pending() && !self.is_stopping() {
            self.0.env.sleep(limits::COMPACTION_POLL).await;
        }
        Ok(CompactionResponse { header: Some(self.header()) })
    }

    /// Runs one client's watch stream until its answers find no reader.
    pub async fn watch(
        &self,
        caller: Caller,
        requests: impl Stream<Item = WatchRequest> + Send + Unpin + 'static,
        responses: mpsc::Sender<Result<watch::Response, Error>>,
    ) {
        // The login that the stream's token came from; each watch is judged when it is created.
        let _ = self.hear_of(&caller).await;
        let (member, judge) = (self.clone(), self.clone());
        let span = caller.span().cloned();
        let options = watch::Options {
            span: span.map(|span| watch::Traced { span, attributes: spans::watch }),
            allow: Some(std::sync::Arc::new(move |key: &[u8], range_end: &[u8]| {
                judge.may_watch(&caller, key, range_end).map_err(cancel_reason)
            })),
            progress_interval: self.0.options.watch_progress_interval,
            fragment_bytes: self.0.options.request_bytes_max + limits::GRPC_OVERHEAD_BYTES,
            ..watch::Options::new(std::sync::Arc::new(move || member.header()))
        };
        let history = std::sync::Arc::new(self.0.store.clone());
        let (env, hub) = (self.0.env.clone(), self.0.hub.clone());
        watch::run(env, hub, history, requests, responses, options).await;
    }

    /// Any user may look at the alarms; raising and clearing them takes the root role.
    pub async fn alarm(
        &self,
        caller: &Caller,
        request: AlarmRequest,
    ) -> Result<AlarmResponse, Error> {
        let looks = request.action == AlarmAction::Get as i32;
        self.permit(caller, if looks { Rule::User } else { Rule::Root }).await?;
        let request = InternalRaftRequest { alarm: Some(request), ..Default::default() };
        match self.propose_within(caller.span(), request).await? {
            Reply::Alarm(alarms) => Ok(AlarmResponse { header: Some(self.header()), alarms }),
            other => unreachable!("apply answered an alarm with {other:?}"),
        }
    }

    pub(super) async fn propose_alarm(&self, request: AlarmRequest) -> Result<Reply, Error> {
        self.propose(InternalRaftRequest { alarm: Some(request), ..Default::default() }).await
    }

    pub async fn hash_kv(&self, request: HashKvRequest) -> Result<HashKvResponse, Error> {
        let began = self.0.env.now();
        let stored = self.0.hashes.at(Revision(request.revision));
        let hash = match stored {
            Some(stored) => stored,
            None => self.read(true, move |view| view.hash_kv(request.revision)).await?,
        };
        observe(&self.0.metrics.hash_kv_seconds, self.0.env.now() - began);
        Ok(HashKvResponse {
            header: Some(self.header()),
            hash: hash.hash,
            compact_revision: hash.compact_revision.0,
            hash_revision: hash.hash_revision.0,
        })
    }

    pub async fn hash(&self) -> Result<HashResponse, Error> {
        let began = self.0.env.now();
        let hash = self.read(true, |view| view.hash().map(Ok)).await?;
        observe(&self.0.metrics.hash_seconds, self.0.env.now() - began);
        Ok(HashResponse { header: Some(self.header()), hash })
    }

    /// How many keys there are; `None` when the store cannot be read.
    pub fn keys(&self) -> Option<i64> {
        let all = RangeRequest {
            key: bytes::Bytes::from_static(b"\0"),
            range_end: bytes::Bytes::from_static(b"\0"),
            count_only: true,
            ..RangeRequest::default()
        };
        Some(self.0.store.view().range(&all).ok()?.ok()?.count)
    }

    /// A backup of this member's state: a bbolt file and its hash, as `etcdctl snapshot save` keeps it.
    /// Tells the size of the database, bytes, and its pieces; the hash is the last one.
    pub async fn backup(&self) -> io::Result<(u64, mpsc::Receiver<io::Result<Bytes>>)> {
        let body = snapshot::source(&self.0.env, &self.0.store, snapshot::For::Backup).await?;
        Ok((body.total_bytes.unwrap_or(0), body.chunks))
    }

    /// Hands leadership to another voter, and waits until it has it.
    pub async fn move_leader(&self, to: MemberId) -> Result<(), Error> {
        let raft = self.raft();
        if raft.role != Role::Leader {
            return Err(Refused::NotLeader.into());
        }
        if self.members().members.get(&to).is_none_or(|member| member.is_learner) {
            return Err(Refused::BadLeaderTransferee.into());
        }
        let mut status = self.0.replica.status();
        let moved = async {
            self.0.replica.transfer_leader(to).await?;
            match status.wait_for(|status| status.leader == to).await {
                Ok(_) => Ok(()),
                Err(_) => Err(Unavailable::Stopped.into()),
            }
        };
        let limit = limits::request_timeout(self.0.options.election_timeout);
        let moved = self.0.env.timeout(limit, moved).await;
        moved.unwrap_or(Err(Unavailable::TransferTimeout.into()))
    }

    pub fn status(&self) -> StatusResponse {
        let raft = self.raft();
        let mut errors = Vec::new();
        if raft.leader == MemberId::NONE {
            errors.push(Unavailable::NoLeader.text().to_owned());
        }
        errors.extend(self.alarms().list().iter().map(|alarm| {
            let kind = alarm.alarm().as_str_name();
            format!("memberID:{} alarm:{kind}", alarm.member_id)
        }));
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        StatusResponse {
            header: Some(self.header()),
            version: ETCD_VERSION.into(),
            db_size: signed(self.0.store.engine().total_bytes()),
            leader: raft.leader.0,
            raft_index: raft.commit.0,
            raft_term: raft.term.0,
            raft_applied_index: self.0.store.applied().0,
            errors,
            db_size_in_use: signed(self.0.store.live_bytes()),
            is_learner: self.is_learner(),
            storage_version: self.storage_version(),
            db_size_quota: self.0.options.quota_bytes.map_or(-1, signed),
            downgrade_info: Some(self.downgrade_info()),
        }
    }

    fn may_watch(&self, caller: &Caller, key: &[u8], range_end: &[u8]) -> Result<(), Refused> {
        let who = self.identify_now(caller)?;
        self.auth().may_read(&who, key, range_end)
    }

    /// As [`Self::read`], if the state still is the one that the judgement was made for. The state's
    /// own revision is asked: what a reader sees and what it was judged by may not be of two moments.
    pub(super) async fn read_as_judged<T: Send + 'static>(
        &self,
        large: bool,
        judged: Option<u64>,
        read: impl FnOnce(&View) -> mvcc::Outcome<T> + Send + 'static,
    ) -> Result<T, Error> {
        self.read(large, move |view| match judged {
            Some(revision) if Auth::revision_in(view)? != revision => {
                Ok(Err(Refused::AuthOldRevision))
            }
            _ => read(view),
        })
        .await
    }

    /// Reads the present state: on this thread when that is quick, where blocking is allowed when not.
    async fn read<T: Send + 'static>(
        &self,
        large: bool,
        read: impl FnOnce(&View) -> mvcc::Outcome<T> + Send + 'static,
    ) -> Result<T, Error> {
        let view = self.0.store.view();
        let outcome = if large {
            self.0.env.blocking("read", move || read(&view)).await
        } else {
            read(&view)
        };
        Ok(self.fatal_stops(outcome)??)
    }
}

/// The auth revision that a read must find in the state; `None` when nothing was judged.
pub(super) fn judged_at(caller: &Caller, who: &Principal) -> Option<u64> {
    (!caller.is_internal() && who.revision != 0).then_some(who.revision)
}

/// Why a watch is not created, as etcd words it: the status, written out. All but a few refusals are
/// told as a denial.
fn cancel_reason(refused: Refused) -> String {
    let told = match refused {
        Refused::InvalidAuthToken | Refused::AuthOldRevision | Refused::UserEmpty => refused,
        _ => Refused::PermissionDenied,
    };
    format!("rpc error: code = {:?} desc = {}", told.code(), told.text())
}

fn put_cost(put: &PutRequest) -> u64 {
    PUT_OVERHEAD_BYTES + (put.key.len() + put.value.len()) as u64
}

/// The dearer of the two branches, nested txns counted.
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
