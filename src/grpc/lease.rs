//! Service Lease.

use quorate_proto::etcdserverpb::lease_server;
use quorate_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use super::served::Served;
use super::status::{count_failure, status};
use super::{caller, gate};
use crate::limits;
use crate::member::{Caller, Member};
use crate::plant;
use crate::types::LeaseId;

pub struct Lease {
    pub member: Member,
}

#[tonic::async_trait]
impl lease_server::Lease for Lease {
    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        let (caller, request) = caller::of(request);
        self.member.lease_grant(&caller, request).await.map(Response::new).map_err(status)
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let (caller, request) = caller::of(request);
        let mut answer = self.member.lease_revoke(&caller, request).await.map_err(status)?;
        if plant::REVOKE_ANSWERED_FROM_THE_HEAD.is_planted() {
            answer.header = Some(self.member.header());
        }
        Ok(Response::new(answer))
    }

    type LeaseKeepAliveStream = Served<LeaseKeepAliveResponse>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let (sender, answers) = mpsc::channel(limits::KEEP_ALIVE_ANSWERS);
        let needs_leader = gate::needs_leader(request.metadata());
        let member = self.member.clone();
        let (caller, requests) = caller::of(request);
        let serving = async move {
            let cut_off = member.cut_off(needs_leader);
            tokio::select! {
                biased; // An answer that is due goes out before the stream is given up.
                ended = keep_alive(&member, &caller, requests, &sender) => ended,
                error = cut_off => Err(status(error)),
            }
        };
        Ok(Response::new(Served::new(serving, answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let (caller, request) = caller::of(request);
        let answer = self.member.lease_time_to_live(&caller, request).await;
        answer.map(Response::new).map_err(status)
    }

    async fn lease_leases(
        &self,
        request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let (caller, _) = caller::of(request);
        self.member.lease_leases(&caller).await.map(Response::new).map_err(status)
    }
}

/// Answers each request in turn until the client stops, goes away or cannot be answered.
async fn keep_alive(
    member: &Member,
    caller: &Caller,
    mut requests: Streaming<LeaseKeepAliveRequest>,
    answers: &mpsc::Sender<LeaseKeepAliveResponse>,
) -> Result<(), Status> {
    let count = |error: &Status| count_failure(member.metrics(), "lease-keepalive", error);
    while let Some(request) = requests.message().await.inspect_err(count)? {
        // The header is filled before the renewal, as etcd does.
        let header = Some(member.header());
        let ttl = member.keep_alive(caller, LeaseId(request.id)).await.map_err(status)?;
        let answer = LeaseKeepAliveResponse { header, id: request.id, ttl };
        if answers.send(answer).await.is_err() {
            break;
        }
    }
    Ok(())
}
