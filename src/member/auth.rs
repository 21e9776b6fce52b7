//! Logging in, users and roles. What is slow or random about passwords and tokens is done here, at the
//! member that was asked; what is decided is decided at apply.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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
    InternalAuthenticateRequest, InternalRaftRequest,
};
use tracing::{debug, info};

use super::Member;
use super::caller::Caller;
use crate::apply::Reply;
use crate::env::Work;
use crate::error::{Error, Refused};

/// bcrypt looks at no more of a password; etcd refuses longer ones.
const PASSWORD_BYTES_MAX: usize = 72;

/// A request that changes the tables: proposed as it is, answered with a header.
macro_rules! change {
    ($($name:ident: $request:ty => $response:ident, $field:ident;)*) => {
        impl Member {
            $(pub async fn $name(
                &self,
                caller: &Caller,
                request: $request,
            ) -> Result<$response, Error> {
                let request =
                    InternalRaftRequest { $field: Some(request), ..InternalRaftRequest::default() };
                self.propose_for(caller, request).await?;
                Ok($response { header: Some(self.header()) })
            })*
        }
    };
}

change! {
    auth_enable: AuthEnableRequest => AuthEnableResponse, auth_enable;
    auth_disable: AuthDisableRequest => AuthDisableResponse, auth_disable;
    user_delete: AuthUserDeleteRequest => AuthUserDeleteResponse, auth_user_delete;
    user_grant_role: AuthUserGrantRoleRequest => AuthUserGrantRoleResponse, auth_user_grant_role;
    user_revoke_role: AuthUserRevokeRoleRequest => AuthUserRevokeRoleResponse, auth_user_revoke_role;
    role_add: AuthRoleAddRequest => AuthRoleAddResponse, auth_role_add;
    role_delete: AuthRoleDeleteRequest => AuthRoleDeleteResponse, auth_role_delete;
    role_grant_permission: AuthRoleGrantPermissionRequest =>
        AuthRoleGrantPermissionResponse, auth_role_grant_permission;
    role_revoke_permission: AuthRoleRevokePermissionRequest =>
        AuthRoleRevokePermissionResponse, auth_role_revoke_permission;
}

impl Member {
    pub async fn user_add(
        &self,
        caller: &Caller,
        mut request: AuthUserAddRequest,
    ) -> Result<AuthUserAddResponse, Error> {
        let password = std::mem::take(&mut request.password);
        if !request.options.is_some_and(|options| options.no_password) {
            request.hashed_password = self.hash_password(password).await?;
        }
        let request =
            InternalRaftRequest { auth_user_add: Some(request), ..InternalRaftRequest::default() };
        self.propose_for(caller, request).await?;
        Ok(AuthUserAddResponse { header: Some(self.header()) })
    }

    pub async fn user_change_password(
        &self,
        caller: &Caller,
        mut request: AuthUserChangePasswordRequest,
    ) -> Result<AuthUserChangePasswordResponse, Error> {
        let password = std::mem::take(&mut request.password);
        if !password.is_empty() {
            request.hashed_password = self.hash_password(password).await?;
        }
        let request = InternalRaftRequest {
            auth_user_change_password: Some(request),
            ..InternalRaftRequest::default()
        };
        self.propose_for(caller, request).await?;
        Ok(AuthUserChangePasswordResponse { header: Some(self.header()) })
    }

    pub async fn auth_status(&self, caller: &Caller) -> Result<AuthStatusResponse, Error> {
        let request = InternalRaftRequest {
            auth_status: Some(AuthStatusRequest {}),
            ..InternalRaftRequest::default()
        };
        match self.propose_for(caller, request).await? {
            Reply::AuthStatus { enabled, revision } => Ok(AuthStatusResponse {
                header: Some(self.header()),
                enabled,
                auth_revision: revision,
            }),
            other => unreachable!("apply answered an auth status with {other:?}"),
        }
    }

    pub async fn user_get(
        &self,
        caller: &Caller,
        request: AuthUserGetRequest,
    ) -> Result<AuthUserGetResponse, Error> {
        let request =
            InternalRaftRequest { auth_user_get: Some(request), ..InternalRaftRequest::default() };
        let roles = self.names(caller, request).await?;
        Ok(AuthUserGetResponse { header: Some(self.header()), roles })
    }

    pub async fn user_list(&self, caller: &Caller) -> Result<AuthUserListResponse, Error> {
        let request = InternalRaftRequest {
            auth_user_list: Some(AuthUserListRequest {}),
            ..InternalRaftRequest::default()
        };
        let users = self.names(caller, request).await?;
        Ok(AuthUserListResponse { header: Some(self.header()), users })
    }

    pub async fn role_list(&self, caller: &Caller) -> Result<AuthRoleListResponse, Error> {
        let request = InternalRaftRequest {
            auth_role_list: Some(AuthRoleListRequest {}),
            ..InternalRaftRequest::default()
        };
        let roles = self.names(caller, request).await?;
        Ok(AuthRoleListResponse { header: Some(self.header()), roles })
    }

    pub async fn role_get(
        &self,
        caller: &Caller,
        request: AuthRoleGetRequest,
    ) -> Result<AuthRoleGetResponse, Error> {
        let request =
            InternalRaftRequest { auth_role_get: Some(request), ..InternalRaftRequest::default() };
        match self.propose_for(caller, request).await? {
            Reply::Permissions(perm) => {
                Ok(AuthRoleGetResponse { header: Some(self.header()), perm })
            }
            other => unreachable!("apply answered with a role's permissions: {other:?}"),
        }
    }

    /// Compares the password and gives out a token. The password may be changed while it is compared,
    /// which the auth revision tells: then it is compared again. It never gets to the log.
    pub async fn authenticate(
        &self,
        request: AuthenticateRequest,
    ) -> Result<AuthenticateResponse, Error> {
        self.linearizable().await?;
        loop {
            let auth = self.auth();
            let compared_at = auth.revision();
            let hash = auth.password_hash(&request.name)?;
            drop(auth);
            self.compare(&request, hash).await?;
            let login = InternalAuthenticateRequest {
                name: request.name.clone(),
                simple_token: self.0.tokens.draw(&self.0.env),
                ..InternalAuthenticateRequest::default()
            };
            let login =
                InternalRaftRequest { authenticate: Some(login), ..InternalRaftRequest::default() };
            let (revision, token) = match self.propose(login).await? {
                Reply::Authenticated { revision, token } => (revision, token),
                other => unreachable!("apply answered a login with {other:?}"),
            };
            if revision == compared_at {
                let token = self.0.tokens.issue(&self.0.env, &request.name, revision, token)?;
                debug!(user = %request.name, "authenticated a user");
                return Ok(AuthenticateResponse { header: Some(self.header()), token });
            }
            info!("users or roles changed while a password was compared; comparing it again");
        }
    }

    async fn names(
        &self,
        caller: &Caller,
        request: InternalRaftRequest,
    ) -> Result<Vec<String>, Error> {
        match self.propose_for(caller, request).await? {
            Reply::Names(names) => Ok(names),
            other => unreachable!("apply answered with names: {other:?}"),
        }
    }

    /// The bcrypt hash as the log carries it, base64.
    async fn hash_password(&self, password: String) -> Result<String, Error> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(Refused::PasswordTooLong.into());
        }
        let cost = self.0.options.bcrypt_cost;
        let mut salt = [0; 16];
        self.0.env.rt.fill_random(&mut salt);
        let hash = move || bcrypt::hash_with_salt(password, cost, salt);
        let hash = self.0.env.blocking_for(Work::Passwords, "hash password", hash).await;
        let hash = hash.expect("the cost was validated and the salt is of its size");
        Ok(STANDARD.encode(hash.format_for_version(bcrypt::Version::TwoA)))
    }

    async fn compare(
        &self,
        request: &AuthenticateRequest,
        hash: bytes::Bytes,
    ) -> Result<(), Refused> {
        let password = request.password.clone();
        let compare = move || {
            let hash = std::str::from_utf8(&hash).ok()?;
            bcrypt::verify(password, hash).ok()
        };
        let env = &self.0.env;
        match env.blocking_for(Work::Passwords, "compare password", compare).await {
            Some(true) => Ok(()),
            // A hash that is none is no password's, as in etcd.
            _ => {
                info!(user = %request.name, "invalid password");
                Err(Refused::AuthFailed)
            }
        }
    }
}
