//! Permissions: which request may be carried out, by the tables as they are when it is applied, and the
//! requests that read these tables. As etcd's auth applier (3.7, `server/etcdserver/apply/auth.go`).

use quorate_proto::etcdserverpb::{
    AuthRoleGetResponse, AuthRoleListResponse, AuthStatusResponse, AuthUserGetResponse,
    AuthUserListResponse, InternalAuthenticateRequest, RequestHeader,
};

use super::request::Login;
use super::{Notice, Outcome, Reply, Request, StateMachine, plain, refuse};
use crate::auth::Principal;
use crate::error::Refused;
use crate::mvcc::{self, Write};
use crate::plant;
use crate::types::Index;

/// On whose behalf a request was proposed; no user if its header names none.
pub(super) fn principal(header: RequestHeader) -> Principal {
    Principal { user: header.username, revision: header.auth_revision }
}

/// The simple token of a login: the prefix that the proposer drew and the index of the entry before the
/// login's own, because etcd reads its consistent index before the login has moved it (3.7,
/// `apply/backend.go`). Members of both kinds keep the same token. Empty when tokens are signed, not kept.
fn token(drawn: &str, login: Index) -> String {
    match drawn {
        "" => String::new(),
        drawn => format!("{drawn}.{}", login.0.saturating_sub(1)),
    }
}

impl StateMachine {
    /// Whether the request may be carried out. Allowed here are those that are judged by the called RPC
    /// alone, where they are proposed, and a member's own.
    pub(super) fn permitted(
        &self,
        write: &Write<'_>,
        principal: &Principal,
        request: &Request,
    ) -> mvcc::Outcome<()> {
        let auth = &self.auth;
        if !auth.is_enabled() {
            return Ok(Ok(()));
        }
        let attached = |lease| write.attached(lease);
        match request {
            Request::Put(put) => auth.may_put(principal, put, &attached),
            Request::Txn(txn) => auth.may_txn(principal, txn, &attached),
            Request::Range(range) => Ok(auth.may_read(principal, &range.key, &range.range_end)),
            Request::DeleteRange(delete) => Ok(auth.may_delete(principal, delete)),
            Request::LeaseRevoke(revoke) => auth.may_end_lease(principal, revoke.id, &attached),
            Request::AuthEnable(_)
            | Request::AuthDisable(_)
            | Request::AuthUserAdd(_)
            | Request::AuthUserDelete(_)
            | Request::AuthUserChangePassword(_)
            | Request::AuthUserGrantRole(_)
            | Request::AuthUserRevokeRole(_)
            | Request::AuthUserList(_)
            | Request::AuthRoleAdd(_)
            | Request::AuthRoleDelete(_)
            | Request::AuthRoleGrantPermission(_)
            | Request::AuthRoleRevokePermission(_)
            | Request::AuthRoleList(_) => Ok(auth.is_admin(principal)),
            Request::AuthUserGet(get) => Ok(auth.may_see_user(principal, &get.name)),
            Request::AuthRoleGet(get) => Ok(auth.may_see_role(principal, &get.role)),
            // Judged by the rule of the RPC, that of an alarm by its action where it is proposed.
            Request::Compaction(_)
            | Request::LeaseGrant(_)
            | Request::Alarm(_)
            | Request::Authenticate(_)
            | Request::AuthStatus(_)
            | Request::DowngradeInfoSet(_) => Ok(Ok(())),
            // No RPC leads here.
            Request::LeaseCheckpoint(_)
            | Request::ClusterVersionSet(_)
            | Request::ClusterMemberAttrSet(_)
            | Request::DowngradeVersionTest(_) => Ok(Ok(())),
        }
    }

    pub(super) fn authenticate(
        &self,
        write: &Write<'_>,
        login: InternalAuthenticateRequest,
    ) -> Outcome {
        if let Err(refused) = self.auth.authenticate(&login.name) {
            return refuse(refused);
        }
        let own = self.release.is_own() && plant::TOKEN_NAMES_ITS_LOGIN.is_planted();
        let token = token(&login.simple_token, Index(write.applied().0 + u64::from(own)));
        let (header, revision) = (None, self.auth.revision());
        let reply = Reply::Authenticate(Login { header, revision, token: token.clone() });
        Ok((reply, Some(Notice::TokenGiven { user: login.name, token })))
    }

    pub(super) fn auth_status(&self) -> Outcome {
        let (enabled, auth_revision) = (self.auth.is_enabled(), self.auth.revision());
        plain(Ok(Reply::AuthStatus(AuthStatusResponse { header: None, enabled, auth_revision })))
    }

    pub(super) fn user(&self, name: &str) -> Result<Reply, Refused> {
        let roles = self.auth.user_roles(name)?;
        Ok(Reply::AuthUserGet(AuthUserGetResponse { header: None, roles }))
    }

    pub(super) fn role(&self, name: &str) -> Result<Reply, Refused> {
        let perm = self.auth.role_permissions(name)?;
        Ok(Reply::AuthRoleGet(AuthRoleGetResponse { header: None, perm }))
    }

    pub(super) fn users(&self) -> Reply {
        let users = self.auth.user_names();
        Reply::AuthUserList(AuthUserListResponse { header: None, users })
    }

    pub(super) fn roles(&self) -> Reply {
        let roles = self.auth.role_names();
        Reply::AuthRoleList(AuthRoleListResponse { header: None, roles })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simple_token_names_the_entry_before_the_login() {
        assert_eq!(token("YwhTzrNXLYWTfpbK", Index(9)), "YwhTzrNXLYWTfpbK.8");
        assert_eq!(token("", Index(9)), "", "a signed token is no part of the entry");
    }
}
