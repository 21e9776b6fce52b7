//! Service Auth.

use quorate_proto::etcdserverpb::auth_server;
use quorate_proto::etcdserverpb::{
    AuthDisableRequest, AuthDisableResponse, AuthEnableRequest, AuthEnableResponse,
    AuthRoleAddRequest, AuthRoleAddResponse, AuthRoleDeleteRequest, AuthRoleDeleteResponse,
    AuthRoleGetRequest, AuthRoleGetResponse, AuthRoleGrantPermissionRequest,
    AuthRoleGrantPermissionResponse, AuthRoleListRequest, AuthRoleListResponse,
    AuthRoleRevokePermissionRequest, AuthRoleRevokePermissionResponse, AuthStatusRequest,
    AuthStatusResponse, AuthUserAddRequest, AuthUserAddResponse, AuthUserChangePasswordRequest,
    AuthUserChangePasswordResponse, AuthUserDeleteRequest, AuthUserDeleteResponse,
    AuthUserGetRequest, AuthUserGetResponse, AuthUserGrantRoleRequest, AuthUserGrantRoleResponse,
    AuthUserListRequest, AuthUserListResponse, AuthUserRevokeRoleRequest,
    AuthUserRevokeRoleResponse, AuthenticateRequest, AuthenticateResponse,
};
use tonic::{Request, Response, Status};

use super::caller;
use super::status::status;
use crate::member::Member;

pub struct Auth {
    pub member: Member,
}

#[tonic::async_trait]
impl auth_server::Auth for Auth {
    async fn authenticate(
        &self,
        request: Request<AuthenticateRequest>,
    ) -> Result<Response<AuthenticateResponse>, Status> {
        self.member.authenticate(request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn auth_status(
        &self,
        request: Request<AuthStatusRequest>,
    ) -> Result<Response<AuthStatusResponse>, Status> {
        let (caller, request) = caller::of(request);
        self.member.auth_status(&caller, request).await.map(Response::new).map_err(status)
    }

    async fn user_list(
        &self,
        request: Request<AuthUserListRequest>,
    ) -> Result<Response<AuthUserListResponse>, Status> {
        let (caller, request) = caller::of(request);
        self.member.user_list(&caller, request).await.map(Response::new).map_err(status)
    }

    async fn role_list(
        &self,
        request: Request<AuthRoleListRequest>,
    ) -> Result<Response<AuthRoleListResponse>, Status> {
        let (caller, request) = caller::of(request);
        self.member.role_list(&caller, request).await.map(Response::new).map_err(status)
    }

    async fn auth_enable(
        &self,
        request: Request<AuthEnableRequest>,
    ) -> Result<Response<AuthEnableResponse>, Status> {
        let (caller, request) = caller::of(request);
        self.member.auth_enable(&caller, request).await.map(Response::new).map_err(status)
    }

    async fn auth_disable(
        &self,
        request: Request<AuthDisableRequest>,
    ) -> Result<Response<AuthDisableResponse>, Status> {
        let (caller, request) = caller::of(request);
        self.member.auth_disable(&caller, request).await.map(Response::new).map_err(status)
    }

    async fn user_add(
        &self,
        request: Request<AuthUserAddRequest>,
    ) -> Result<Response<AuthUserAddResponse>, Status> {
        let (caller, request) = caller::of(request);
        self.member.user_add(&caller, request).await.map(Response::new).map_err(status)
    }

    async fn user_get(
        &self,
        request: Request<AuthUserGetRequest>,
    ) -> Result<Response<AuthUserGetResponse>, Status> {
        let (caller, request) = caller::of(request);
        self.member.user_get(&caller, request).await.map(Response::new).map_err(status)
    }

    async fn user_delete(
        &self,
        request: Request<AuthUserDeleteRequest>,
    ) -> Result<Response<AuthUserDeleteResponse>, Status> {
        let (caller, request) = caller::of(request);
        self.member.user_delete(&caller, request).await.map(Response::new).map_err(status)
    }

    async fn user_change_password(
        &self,
        request: Request<AuthUserChangePasswordRequest>,
    ) -> Result<Response<AuthUserChangePasswordResponse>, Status> {
        let (caller, request) = caller::of(request);
        self.member.user_change_password(&caller, request).await.map(Response::new).map_err(status)
    }

    async fn user_grant_role(
        &self,
        request: Request<AuthUserGrantRoleRequest>,
    ) -> Result<Response<AuthUserGrantRoleResponse>, Status> {
        let (caller, request) = caller::of(request);
        self.member.user_grant_role(&caller, request).await.map(Response::new).map_err(status)
    }

    async fn user_revoke_role(
        &self,
        request: Request<AuthUserRevokeRoleRequest>,
    ) -> Result<Response<AuthUserRevokeRoleResponse>, Status> {
        let (caller, request) = caller::of(request);
        self.member.user_revoke_role(&caller, request).await.map(Response::new).map_err(status)
    }

    async fn role_add(
        &self,
        request: Request<AuthRoleAddRequest>,
    ) -> Result<Response<AuthRoleAddResponse>, Status> {
        let (caller, request) = caller::of(request);
        self.member.role_add(&caller, request).await.map(Response::new).map_err(status)
    }

    async fn role_get(
        &self,
        request: Request<AuthRoleGetRequest>,
    ) -> Result<Response<AuthRoleGetResponse>, Status> {
        let (caller, request) = caller::of(request);
        self.member.role_get(&caller, request).await.map(Response::new).map_err(status)
    }

    async fn role_delete(
        &self,
        request: Request<AuthRoleDeleteRequest>,
    ) -> Result<Response<AuthRoleDeleteResponse>, Status> {
        let (caller, request) = caller::of(request);
        self.member.role_delete(&caller, request).await.map(Response::new).map_err(status)
    }

    async fn role_grant_permission(
        &self,
        request: Request<AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<AuthRoleGrantPermissionResponse>, Status> {
        let (caller, request) = caller::of(request);
        self.member.role_grant_permission(&caller, request).await.map(Response::new).map_err(status)
    }

    async fn role_revoke_permission(
        &self,
        request: Request<AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<AuthRoleRevokePermissionResponse>, Status> {
        let (caller, request) = caller::of(request);
        self.member
            .role_revoke_permission(&caller, request)
            .await
            .map(Response::new)
            .map_err(status)
    }
}
