//! Service v3election: the leader is the candidate whose key was created first under the election's name;
//! the key's value is the proclaimed value.

use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    ResponseHeader, TxnRequest, request_op::Request as Op, response_op,
};
use quorate_proto::mvccpb::KeyValue;
use quorate_proto::v3electionpb::election_server;
use quorate_proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::recipe::{self, Candidate, Events, inner};
use super::status::status;
use super::{caller, gate};
use crate::error::{Error, Refused};
use crate::limits;
use crate::member::{Caller, Member};

pub struct Election {
    pub member: Member,
}

#[tonic::async_trait]
impl election_server::Election for Election {
    async fn campaign(
        &self,
        request: Request<CampaignRequest>,
    ) -> Result<Response<CampaignResponse>, Status> {
        let (caller, request) = caller::of(request);
        self.run(&caller, request).await.map(Response::new).map_err(inner)
    }

    async fn proclaim(
        &self,
        request: Request<ProclaimRequest>,
    ) -> Result<Response<ProclaimResponse>, Status> {
        let (caller, ProclaimRequest { leader, value }) = caller::of(request);
        let leader = leader.ok_or(Refused::MissingLeaderKey).map_err(|e| inner(e.into()))?;
        let header = self.announce(&caller, &leader, value).await.map_err(inner)?;
        Ok(Response::new(ProclaimResponse { header }))
    }

    async fn leader(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<LeaderResponse>, Status> {
        let (caller, request) = caller::of(request);
        let prefix = recipe::prefix(&request.name);
        let found = self.member.range(&caller, recipe::first(&prefix)).await.map_err(inner)?;
        let header = found.header;
        match found.kvs.into_iter().next() {
            Some(kv) => Ok(Response::new(LeaderResponse { header, kv: Some(kv) })),
            None => Err(inner(Refused::ElectionNoLeader.into())),
        }
    }

    type ObserveStream = ReceiverStream<Result<LeaderResponse, Status>>;

    async fn observe(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let needs_leader = gate::needs_leader(request.metadata());
        let (caller, request) = caller::of(request);
        let prefix = recipe::prefix(&request.name);
        let (answers, stream) = mpsc::channel(limits::WATCH_ANSWERS);
        let member = self.member.clone();
        self.member.env().spawn("observe election", async move {
            let cut_off = member.cut_off(needs_leader);
            tokio::select! {
                biased; // What is due goes out before the stream is given up.
                // etcd's stream ends without an error when it cannot go on.
                _ = observe(&member, &caller, &prefix, &answers) => {}
                () = answers.closed() => {}
                error = cut_off => drop(answers.send(Err(status(error))).await),
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn resign(
        &self,
        request: Request<ResignRequest>,
    ) -> Result<Response<ResignResponse>, Status> {
        let (caller, request) = caller::of(request);
        let leader = request.leader;
        let leader = leader.ok_or(Refused::MissingLeaderKey).map_err(|e| inner(e.into()))?;
        recipe::session(&self.member, &caller, leader.lease).await.map_err(inner)?;
        let resign = recipe::delete_own(&leader.key, leader.rev);
        let resigned = self.member.txn(&caller, resign).await.map_err(inner)?;
        Ok(Response::new(ResignResponse { header: resigned.header }))
    }
}

impl Election {
    /// Waits until the caller leads. Unlike in etcd, a candidate whose lease has ended meanwhile gets an
    /// error.
    async fn run(
        &self,
        caller: &Caller,
        request: CampaignRequest,
    ) -> Result<CampaignResponse, Error> {
        let CampaignRequest { name, lease, value } = request;
        let lease = recipe::session(&self.member, caller, lease).await?;
        let prefix = recipe::prefix(&name);
        let key = recipe::own_key(&prefix, lease);
        let stand = recipe::put(&key, value.clone(), lease);
        let stand = TxnRequest {
            compare: vec![recipe::created_at(&key, 0)],
            success: vec![recipe::op(Op::RequestPut(stand))],
            failure: vec![recipe::op(Op::RequestRange(recipe::get(&key)))],
        };
        let stands = self.member.txn(caller, stand).await?;
        let header = stands.header;
        let mut rev = header.as_ref().map_or(0, |header: &ResponseHeader| header.revision);
        let before = stands.responses.into_iter().find_map(|op| match op.response {
            Some(response_op::Response::ResponseRange(range)) => range.kvs.into_iter().next(),
            _ => None,
        });
        if let Some(before) = &before {
            rev = before.create_revision;
        }
        let mut candidate = Candidate::new(&self.member, caller, key.clone(), rev);
        let leader = LeaderKey { name, key, rev, lease };
        if before.is_some_and(|before| before.value != value) {
            self.announce(caller, &leader, value).await?;
        }
        let turn = candidate.wait(&prefix).await?;
        candidate.settled();
        turn.ok_or(Refused::ElectionNotLeader)?;
        Ok(CampaignResponse { header, leader: Some(leader) })
    }

    /// Changes the value of a leader's key, if that key is still the leader's.
    async fn announce(
        &self,
        caller: &Caller,
        leader: &LeaderKey,
        value: Bytes,
    ) -> Result<Option<ResponseHeader>, Error> {
        let lease = recipe::session(&self.member, caller, leader.lease).await?;
        let put = recipe::put(&leader.key, value, lease);
        let announce = TxnRequest {
            compare: vec![recipe::created_at(&leader.key, leader.rev)],
            success: vec![recipe::op(Op::RequestPut(put))],
            failure: Vec::new(),
        };
        let announced = self.member.txn(caller, announce).await?;
        match announced.succeeded {
            true => Ok(announced.header),
            false => Err(Refused::ElectionNotLeader.into()),
        }
    }
}

type Answers = mpsc::Sender<Result<LeaderResponse, Status>>;

/// Sends each leader in turn and every value that it proclaims.
async fn observe(
    member: &Member,
    caller: &Caller,
    prefix: &Bytes,
    answers: &Answers,
) -> Result<(), Error> {
    loop {
        let found = member.range(caller, recipe::first(prefix)).await?;
        let from = recipe::revision_of(&found);
        let (header, kv) = match found.kvs.into_iter().next() {
            Some(kv) => (found.header.unwrap_or_default(), kv),
            None => first_to_come(member, caller, prefix, from).await?,
        };
        let (key, next) = (kv.key.clone(), header.revision + 1);
        if !send(answers, header, kv).await {
            return Ok(());
        }
        let mut events = Events::follow(member, caller, key, Bytes::new(), next);
        'led: loop {
            let (header, events) = events.next().await?;
            for event in events {
                if recipe::is_delete(&event) {
                    break 'led;
                }
                if !send(answers, header, event.kv.unwrap_or_default()).await {
                    return Ok(());
                }
            }
        }
    }
}

/// The first key put under the prefix, at the revision of that put.
async fn first_to_come(
    member: &Member,
    caller: &Caller,
    prefix: &Bytes,
    from: i64,
) -> Result<(ResponseHeader, KeyValue), Error> {
    let mut events = Events::follow_prefix(member, caller, prefix, from);
    loop {
        let (header, events) = events.next().await?;
        let put = events.into_iter().find(|event| !recipe::is_delete(event));
        if let Some(kv) = put.and_then(|event| event.kv) {
            return Ok((ResponseHeader { revision: kv.mod_revision, ..header }, kv));
        }
    }
}

/// Returns false when the receiver is gone.
async fn send(answers: &Answers, header: ResponseHeader, kv: KeyValue) -> bool {
    let response = LeaderResponse { header: Some(header), kv: Some(kv) };
    answers.send(Ok(response)).await.is_ok()
}
