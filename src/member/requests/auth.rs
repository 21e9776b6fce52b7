//! Logins, users and roles. The slow and random parts, password hashes and tokens, are computed here by the
//! proposer; the decisions are made at apply.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quorate_proto::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleAddResponse,
    AuthRoleDeleteRequest, AuthRoleGetRequest, AuthRoleGrantPermissionRequest,
    AuthRoleGrantPermissionResponse, AuthRoleListRequest, AuthRoleRevokePermissionRequest,
    AuthStatusRequest, AuthUserAddRequest, AuthUserAddResponse, AuthUserChangePasswordRequest,
    AuthUserChangePasswordResponse, AuthUserDeleteRequest, AuthUserGetRequest,
    AuthUserGrantRoleRequest, AuthUserListRequest, AuthUserRevokeRoleRequest, AuthenticateRequest,
    AuthenticateResponse, InternalAuthenticateRequest,
};
use tracing::{debug, info};

use crate::apply::Proposable;
use crate::apply::request::Login;
use crate::bbolt;
use crate::error::{Error, Refused};
use crate::member::Member;
use crate::member::caller::Caller;
use crate::member::propose::Origin;

/// bcrypt ignores the rest of a password; etcd refuses longer ones.
const PASSWORD_BYTES_MAX: usize = 72;

/// Requests that are proposed unchanged.
macro_rules! proposed {
    ($($name:ident: $request:ty;)*) => {
        impl Member {
            $(pub async fn $name(
                &self,
                caller: &Caller,
                request: $request,
            ) -> Result<<$request as Proposable>::Response, Error> {
                self.propose_for(caller, request).await
            })*
        }
    };
}

proposed! {
    auth_enable: AuthEnableRequest;
    auth_disable: AuthDisableRequest;
    auth_status: AuthStatusRequest;
    user_get: AuthUserGetRequest;
    user_list: AuthUserListRequest;
    user_delete: AuthUserDeleteRequest;
    user_grant_role: AuthUserGrantRoleRequest;
    user_revoke_role: AuthUserRevokeRoleRequest;
    role_get: AuthRoleGetRequest;
    role_list: AuthRoleListRequest;
    role_delete: AuthRoleDeleteRequest;
    role_revoke_permission: AuthRoleRevokePermissionRequest;
}

impl Member {
    pub async fn role_grant_permission(
        &self,
        caller: &Caller,
        request: AuthRoleGrantPermissionRequest,
    ) -> Result<AuthRoleGrantPermissionResponse, Error> {
        self.propose_for(caller, Box::new(request)).await
    }

    pub async fn role_add(
        &self,
        caller: &Caller,
        request: AuthRoleAddRequest,
    ) -> Result<AuthRoleAddResponse, Error> {
        check_name(&request.name)?;
        self.propose_for(caller, request).await
    }

    pub async fn user_add(
        &self,
        caller: &Caller,
        mut request: AuthUserAddRequest,
    ) -> Result<AuthUserAddResponse, Error> {
        check_name(&request.name)?;
        let password = std::mem::take(&mut request.password);
        if !request.options.is_some_and(|options| options.no_password) {
            request.hashed_password = self.hash_password(password).await?;
        }
        self.propose_for(caller, request).await
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
        self.propose_for(caller, request).await
    }

    /// Compares the password and issues a token. If the auth revision has changed meanwhile, the password may
    /// have too, so it is compared again. Passwords never get into the log.
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
            let Login { header, revision, token } = self.propose(Origin::default(), login).await?;
            if revision == compared_at {
                let token = self.0.tokens.issue(&self.0.env, &request.name, revision, token)?;
                debug!(user = %request.name, "authenticated a user");
                return Ok(AuthenticateResponse { header, token });
            }
            info!("revision when password checked became stale; retrying");
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
        // New passwords share one queue: only administrators set them.
        let hash = self.0.passwords.work(&self.0.env, "", hash).await?;
        let hash = hash.expect("the cost was validated and the salt is of its size");
        Ok(STANDARD.encode(hash.format_for_version(bcrypt::Version::TwoA)))
    }

    async fn compare(
        &self,
        request: &AuthenticateRequest,
        hash: bytes::Bytes,
    ) -> Result<(), Error> {
        let password = request.password.clone();
        let compare = move || {
            let hash = std::str::from_utf8(&hash).ok()?;
            bcrypt::verify(password, hash).ok()
        };
        match self.0.passwords.work(&self.0.env, &request.name, compare).await? {
            Some(true) => Ok(()),
            // A stored hash that is none matches no password, as in etcd.
            _ => {
                info!(user = %request.name, "invalid password");
                Err(Refused::AuthFailed.into())
            }
        }
    }
}

/// Refuses a name that is too long for a key of a snapshot.
fn check_name(name: &str) -> Result<(), Refused> {
    if name.len() > bbolt::KEY_BYTES_MAX { Err(Refused::RequestTooLarge) } else { Ok(()) }
}
