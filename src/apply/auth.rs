//! Requests about users, roles and tokens, and the judgement of every other request by the tables as
//! they are when it is applied. As etcd's auth applier (3.7, `server/etcdserver/apply/auth.go`).

use quorate_proto::etcdserverpb::{InternalRaftRequest, RequestHeader};

use super::{Notice, Outcome, Reply, StateMachine, refuse};
use crate::auth::{Auth, Principal};
use crate::error::Refused;
use crate::mvcc::{self, Write};
use crate::types::Index;

/// On whose behalf a request was proposed. Nobody's, if its header does not say.
pub(super) fn principal(header: Option<&RequestHeader>) -> Principal {
    header.map_or_else(Principal::default, |header| Principal {
        user: header.username.clone(),
        revision: header.auth_revision,
    })
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
    /// Whether the request may be carried out, for those whose keys tell. Configuration, alarms,
    /// leases granted and compactions were judged where they were asked for.
    pub(super) fn permitted(
        &self,
        write: &Write<'_>,
        who: &Principal,
        request: &InternalRaftRequest,
    ) -> mvcc::Outcome<()> {
        let auth = &self.auth;
        if !auth.is_enabled() {
            return Ok(Ok(()));
        }
        let attached = |lease| write.attached(lease);
        if let Some(put) = &request.put {
            auth.may_put(who, put, &attached)
        } else if let Some(txn) = &request.txn {
            auth.may_txn(who, txn, &attached)
        } else if let Some(range) = &request.range {
            Ok(auth.may_read(who, &range.key, &range.range_end))
        } else if let Some(delete) = &request.delete_range {
            Ok(auth.may_delete(who, delete))
        } else if let Some(revoke) = &request.lease_revoke {
            auth.may_end_lease(who, revoke.id, &attached)
        } else if needs_admin(request) {
            Ok(auth.is_admin(who))
        } else if let Some(get) = &request.auth_user_get {
            Ok(auth.may_see_user(who, &get.name))
        } else if let Some(get) = &request.auth_role_get {
            Ok(auth.may_see_role(who, &get.role))
        } else {
            Ok(Ok(()))
        }
    }

    /// Carries out a request about users, roles or tokens; `None` when it is about something else.
    pub(super) fn about_auth(
        &mut self,
        write: &mut Write<'_>,
        request: &InternalRaftRequest,
    ) -> Option<Outcome> {
        Some(if let Some(login) = &request.authenticate {
            let token = token(&login.simple_token, write.applied());
            self.authenticate(&login.name, token)
        } else if request.auth_status.is_some() {
            let (enabled, revision) = (self.auth.is_enabled(), self.auth.revision());
            Ok((Reply::AuthStatus { enabled, revision }, None))
        } else if let Some(get) = &request.auth_user_get {
            tell(self.auth.user_roles(&get.name).map(Reply::Names))
        } else if let Some(get) = &request.auth_role_get {
            tell(self.auth.role_permissions(&get.role).map(Reply::Permissions))
        } else if request.auth_user_list.is_some() {
            tell(Ok(Reply::Names(self.auth.user_names())))
        } else if request.auth_role_list.is_some() {
            tell(Ok(Reply::Names(self.auth.role_names())))
        } else {
            let changed = change(&mut self.auth, write, request)?;
            changed.map_or_else(refuse, |notice| Ok((Reply::Done, Some(notice))))
        })
    }

    fn authenticate(&self, user: &str, token: String) -> Outcome {
        match self.auth.authenticate(user) {
            Err(refused) => refuse(refused),
            Ok(()) => {
                let reply =
                    Reply::Authenticated { revision: self.auth.revision(), token: token.clone() };
                let notice = Notice::TokenGiven { user: user.into(), token };
                Ok((reply, Some(notice)))
            }
        }
    }
}

/// Changes the tables; `None` when the request asks for no such thing.
fn change(
    auth: &mut Auth,
    write: &mut Write<'_>,
    request: &InternalRaftRequest,
) -> Option<Result<Notice, Refused>> {
    let plain = |done: Result<(), Refused>| Some(done.map(|()| Notice::Auth));
    if request.auth_enable.is_some() {
        return plain(auth.enable(write));
    }
    if request.auth_disable.is_some() {
        let notice = if auth.disable(write) { Notice::TokensEnd } else { Notice::Auth };
        return Some(Ok(notice));
    }
    if let Some(add) = &request.auth_user_add {
        return plain(auth.user_add(write, add));
    }
    if let Some(delete) = &request.auth_user_delete {
        let done = auth.user_delete(write, &delete.name);
        return Some(done.map(|()| Notice::UserTokensEnd(delete.name.clone())));
    }
    if let Some(change) = &request.auth_user_change_password {
        let done = auth.user_change_password(write, change);
        return Some(done.map(|()| Notice::UserTokensEnd(change.name.clone())));
    }
    if let Some(grant) = &request.auth_user_grant_role {
        return plain(auth.user_grant_role(write, &grant.user, &grant.role));
    }
    if let Some(revoke) = &request.auth_user_revoke_role {
        return plain(auth.user_revoke_role(write, &revoke.name, &revoke.role));
    }
    if let Some(add) = &request.auth_role_add {
        return plain(auth.role_add(write, &add.name));
    }
    if let Some(delete) = &request.auth_role_delete {
        return plain(auth.role_delete(write, &delete.role));
    }
    if let Some(grant) = &request.auth_role_grant_permission {
        return plain(auth.role_grant_permission(write, grant));
    }
    if let Some(revoke) = &request.auth_role_revoke_permission {
        return plain(auth.role_revoke_permission(write, revoke));
    }
    None
}

fn tell(found: Result<Reply, Refused>) -> Outcome {
    found.map_or_else(refuse, |reply| Ok((reply, None)))
}

/// The requests about users and roles that only an admin may make.
fn needs_admin(request: &InternalRaftRequest) -> bool {
    request.auth_enable.is_some()
        || request.auth_disable.is_some()
        || request.auth_user_add.is_some()
        || request.auth_user_delete.is_some()
        || request.auth_user_change_password.is_some()
        || request.auth_user_grant_role.is_some()
        || request.auth_user_revoke_role.is_some()
        || request.auth_user_list.is_some()
        || request.auth_role_add.is_some()
        || request.auth_role_delete.is_some()
        || request.auth_role_grant_permission.is_some()
        || request.auth_role_revoke_permission.is_some()
        || request.auth_role_list.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simple_token_names_the_entry_before_the_login() {
        assert_eq!(token("YwhTzrNXLYWTfpbK", Index(9)), "YwhTzrNXLYWTfpbK.8");
        assert_eq!(token("", Index(9)), "", "a signed token is drawn nowhere");
    }
}
