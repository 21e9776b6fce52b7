//! Service Cluster.

use quorate_proto::etcdserverpb::cluster_server;
use quorate_proto::etcdserverpb::{
    MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse,
};
use tonic::{Request, Response, Status};

use super::caller;
use super::status::status;
use crate::member::Member;
use crate::types::MemberId;

pub struct Cluster {
    pub member: Member,
}

#[tonic::async_trait]
impl cluster_server::Cluster for Cluster {
    async fn member_add(
        &self,
        request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        self.member.member_add(request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        let id = MemberId(request.into_inner().id);
        self.member.member_remove(id).await.map(Response::new).map_err(status)
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        self.member.member_update(request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        let linearizable = request.into_inner().linearizable;
        self.member.member_list(linearizable).await.map(Response::new).map_err(status)
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        let (caller, request) = caller::of(request);
        let id = MemberId(request.id);
        self.member.member_promote(&caller, id).await.map(Response::new).map_err(status)
    }
}
