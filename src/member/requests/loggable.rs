//! Requests as text for log lines, as in etcd: protobuf's text form without line breaks, with the size of a
//! value instead of the value, and without passwords.

use std::fmt::Write as _;

use quorate_proto::etcdserverpb::{
    AlarmRequest, AuthRoleGrantPermissionRequest, CompactionRequest, Compare, DeleteRangeRequest,
    PutRequest, RangeRequest, RequestHeader, RequestOp, TxnRequest, compare::TargetUnion,
    request_op::Request as Op,
};

use crate::apply::Request;

pub fn range(request: &RangeRequest) -> String {
    Text::default()
        .bytes("key", &request.key)
        .bytes("range_end", &request.range_end)
        .number("limit", request.limit)
        .number("revision", request.revision)
        .name("sort_order", request.sort_order, request.sort_order().as_str_name())
        .name("sort_target", request.sort_target, request.sort_target().as_str_name())
        .flag("serializable", request.serializable)
        .flag("keys_only", request.keys_only)
        .flag("count_only", request.count_only)
        .number("min_mod_revision", request.min_mod_revision)
        .number("max_mod_revision", request.max_mod_revision)
        .number("min_create_revision", request.min_create_revision)
        .number("max_create_revision", request.max_create_revision)
        .0
}

pub fn put(request: &PutRequest) -> String {
    Text::default()
        .bytes("key", &request.key)
        .number("value_size", size(&request.value))
        .number("lease", request.lease)
        .flag("prev_kv", request.prev_kv)
        .flag("ignore_value", request.ignore_value)
        .flag("ignore_lease", request.ignore_lease)
        .0
}

pub fn delete_range(request: &DeleteRangeRequest) -> String {
    Text::default()
        .bytes("key", &request.key)
        .bytes("range_end", &request.range_end)
        .flag("prev_kv", request.prev_kv)
        .0
}

pub fn txn(request: &TxnRequest) -> String {
    let ops = |ops: &[RequestOp]| ops.iter().map(operation).collect::<Vec<_>>().join(" ");
    let compares = request.compare.iter().map(compare).collect::<Vec<_>>().join(" ");
    let (success, failure) = (ops(&request.success), ops(&request.failure));
    format!("compare:<{compares}> success:<{success}> failure:<{failure}>")
}

/// A log entry's request.
pub fn entry(header: &RequestHeader, request: &Request) -> String {
    let mut text = Text(format!("header:<ID:{}", header.id));
    if !header.username.is_empty() {
        let _ = write!(text.0, " username:{:?}", header.username);
    }
    text.0.push('>');
    let (name, content) = content(request);
    text.inside(name, &content).0
}

/// The name of the field, and the text of its message where that may be logged: never a password or a
/// token.
fn content(request: &Request) -> (&'static str, String) {
    let name = |name: &str| format!("name:{name}");
    match request {
        Request::Put(request) => ("put", put(request)),
        Request::Txn(request) => ("txn", txn(request)),
        Request::DeleteRange(request) => ("delete_range", delete_range(request)),
        Request::Range(request) => ("range", range(request)),
        Request::Compaction(request) => ("compaction", compaction(request)),
        Request::LeaseGrant(request) => {
            ("lease_grant", format!("ttl:{}-second id:{:016x}", request.ttl, request.id))
        }
        Request::LeaseRevoke(request) => ("lease_revoke", format!("id:{:016x}", request.id)),
        Request::Authenticate(request) => ("authenticate", name(&request.name)),
        Request::AuthUserAdd(request) => ("auth_user_add", name(&request.name)),
        Request::AuthUserChangePassword(request) => {
            ("auth_user_change_password", name(&request.name))
        }
        Request::AuthUserDelete(request) => ("auth_user_delete", text("name", &request.name).0),
        Request::AuthUserGet(request) => ("auth_user_get", text("name", &request.name).0),
        Request::AuthUserGrantRole(request) => {
            let user = text("user", &request.user);
            ("auth_user_grant_role", user.bytes("role", request.role.as_bytes()).0)
        }
        Request::AuthUserRevokeRole(request) => {
            let user = text("name", &request.name);
            ("auth_user_revoke_role", user.bytes("role", request.role.as_bytes()).0)
        }
        Request::AuthRoleAdd(request) => ("auth_role_add", text("name", &request.name).0),
        Request::AuthRoleDelete(request) => ("auth_role_delete", text("role", &request.role).0),
        Request::AuthRoleGet(request) => ("auth_role_get", text("role", &request.role).0),
        Request::AuthRoleGrantPermission(request) => {
            ("auth_role_grant_permission", grant_permission(request))
        }
        Request::AuthRoleRevokePermission(request) => {
            let role = text("role", &request.role).bytes("key", &request.key);
            ("auth_role_revoke_permission", role.bytes("range_end", &request.range_end).0)
        }
        Request::LeaseCheckpoint(_) => ("lease_checkpoint", String::new()),
        Request::Alarm(request) => ("alarm", alarm(request)),
        Request::AuthEnable(_) => ("auth_enable", String::new()),
        Request::AuthDisable(_) => ("auth_disable", String::new()),
        Request::AuthStatus(_) => ("auth_status", String::new()),
        Request::AuthUserList(_) => ("auth_user_list", String::new()),
        Request::AuthRoleList(_) => ("auth_role_list", String::new()),
        Request::ClusterVersionSet(request) => ("cluster_version_set", text("ver", &request.ver).0),
        Request::ClusterMemberAttrSet(_) => ("cluster_member_attr_set", String::new()),
        Request::DowngradeInfoSet(request) => {
            let enabled = Text::default().flag("enabled", request.enabled);
            ("downgrade_info_set", enabled.bytes("ver", request.ver.as_bytes()).0)
        }
        Request::DowngradeVersionTest(request) => {
            ("downgrade_version_test", text("ver", &request.ver).0)
        }
    }
}

fn text(name: &str, value: &str) -> Text {
    Text::default().bytes(name, value.as_bytes())
}

fn alarm(request: &AlarmRequest) -> String {
    let text = Text::default().name("action", request.action, request.action().as_str_name());
    let text = match request.member_id {
        0 => text,
        id => text.unsigned("memberID", id),
    };
    text.name("alarm", request.alarm, request.alarm().as_str_name()).0
}

fn grant_permission(request: &AuthRoleGrantPermissionRequest) -> String {
    let text = text("name", &request.name);
    let Some(perm) = &request.perm else { return text.0 };
    let kind = Text::default().name("permType", perm.perm_type, perm.perm_type().as_str_name());
    let keys = kind.bytes("key", &perm.key).bytes("range_end", &perm.range_end);
    text.inside("perm", &keys.0).0
}

fn compaction(request: &CompactionRequest) -> String {
    let text = Text::default().number("revision", request.revision);
    text.flag("physical", request.physical).0
}

fn operation(operation: &RequestOp) -> String {
    let (kind, what) = match &operation.request {
        Some(Op::RequestRange(request)) => ("request_range", range(request)),
        Some(Op::RequestPut(request)) => ("request_put", put(request)),
        Some(Op::RequestDeleteRange(request)) => ("request_delete_range", delete_range(request)),
        Some(Op::RequestTxn(request)) => ("request_txn", txn(request)),
        None => return String::new(),
    };
    format!("{kind}:<{what}>")
}

fn compare(compare: &Compare) -> String {
    let text = Text::default()
        .name("result", compare.result, compare.result().as_str_name())
        .name("target", compare.target, compare.target().as_str_name())
        .bytes("key", &compare.key);
    let text = match &compare.target_union {
        // A field of a oneof is shown even if it is zero.
        Some(TargetUnion::Version(version)) => text.always("version", *version),
        Some(TargetUnion::CreateRevision(revision)) => text.always("create_revision", *revision),
        Some(TargetUnion::ModRevision(revision)) => text.always("mod_revision", *revision),
        Some(TargetUnion::Lease(lease)) => text.always("lease", *lease),
        Some(TargetUnion::Value(value)) => text.number("value_size", size(value)),
        None => text,
    };
    text.bytes("range_end", &compare.range_end).0
}

fn size(value: &[u8]) -> i64 {
    i64::try_from(value.len()).unwrap_or(i64::MAX)
}

/// Fields, separated by spaces, without default values. Writing to a string does not fail.
#[derive(Default)]
struct Text(String);

impl Text {
    fn field(&mut self, name: &str) -> &mut String {
        if !self.0.is_empty() {
            self.0.push(' ');
        }
        self.0.push_str(name);
        self.0.push(':');
        &mut self.0
    }

    fn always(mut self, name: &str, value: i64) -> Self {
        let _ = write!(self.field(name), "{value}");
        self
    }

    fn unsigned(mut self, name: &str, value: u64) -> Self {
        let _ = write!(self.field(name), "{value}");
        self
    }

    fn number(self, name: &str, value: i64) -> Self {
        if value == 0 { self } else { self.always(name, value) }
    }

    fn flag(mut self, name: &str, value: bool) -> Self {
        if value {
            self.field(name).push_str("true");
        }
        self
    }

    fn name(mut self, name: &str, number: i32, value: &str) -> Self {
        if number != 0 {
            self.field(name).push_str(value);
        }
        self
    }

    fn inside(mut self, name: &str, what: &str) -> Self {
        let _ = write!(self.field(name), "<{what}>");
        self
    }

    fn bytes(mut self, name: &str, value: &[u8]) -> Self {
        if !value.is_empty() {
            let text = self.field(name);
            text.push('"');
            for byte in value {
                let _ = match byte {
                    b'"' | b'\\' => write!(text, "\\{}", char::from(*byte)),
                    b'\n' => write!(text, "\\n"),
                    b'\r' => write!(text, "\\r"),
                    b'\t' => write!(text, "\\t"),
                    b' '..=b'~' => write!(text, "{}", char::from(*byte)),
                    other => write!(text, "\\{other:03o}"),
                };
            }
            text.push('"');
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use quorate_proto::authpb::Permission;
    use quorate_proto::etcdserverpb::{
        AuthEnableRequest, AuthUserChangePasswordRequest, AuthUserGrantRoleRequest,
    };

    use super::*;

    fn operation(request: Op) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    /// As etcd 3.5.1 logged them, but for spaces in front of brackets.
    #[test]
    fn requests_read_as_in_etcds_log() {
        let get = RangeRequest {
            key: "\0".into(),
            range_end: "\0".into(),
            limit: 3,
            sort_order: 2,
            serializable: true,
            keys_only: true,
            ..Default::default()
        };
        assert_eq!(
            range(&get),
            r#"key:"\000" range_end:"\000" limit:3 sort_order:DESCEND serializable:true keys_only:true"#
        );
        let write = PutRequest { key: "b".into(), value: "secret".into(), ..Default::default() };
        let compare = Compare {
            result: 1,
            target: 2,
            key: "a".into(),
            target_union: Some(TargetUnion::ModRevision(0)),
            ..Default::default()
        };
        let get = |key: &'static str| {
            operation(Op::RequestRange(RangeRequest { key: key.into(), ..Default::default() }))
        };
        let delete = DeleteRangeRequest { key: "c".into(), ..Default::default() };
        let request = TxnRequest {
            compare: vec![compare],
            success: vec![
                operation(Op::RequestPut(write)),
                get("a"),
                operation(Op::RequestDeleteRange(delete)),
            ],
            failure: vec![get("x")],
        };
        let wanted = "compare:<result:GREATER target:MOD key:\"a\" mod_revision:0> \
                      success:<request_put:<key:\"b\" value_size:6> request_range:<key:\"a\"> \
                      request_delete_range:<key:\"c\">> failure:<request_range:<key:\"x\">>";
        assert_eq!(txn(&request), wanted);
        let header = RequestHeader { id: 7, username: "ann".into(), auth_revision: 2 };
        let wanted = format!("header:<ID:7 username:\"ann\"> txn:<{wanted}>");
        assert_eq!(entry(&header, &request.into()), wanted);
    }

    /// Passwords are left out; names of fields are those of the log's messages.
    #[test]
    fn requests_about_users_are_named() {
        let read =
            |request: Request| entry(&RequestHeader { id: 7, ..Default::default() }, &request);
        let (name, password) = ("ann".to_owned(), "secret".to_owned());
        let change = AuthUserChangePasswordRequest { name, password, ..Default::default() };
        let wanted = "header:<ID:7> auth_user_change_password:<name:ann>";
        assert_eq!(read(change.into()), wanted);
        let grant = AuthUserGrantRoleRequest { user: "ann".into(), role: "r".into() };
        let wanted = "header:<ID:7> auth_user_grant_role:<user:\"ann\" role:\"r\">";
        assert_eq!(read(grant.into()), wanted);
        let perm = Permission { perm_type: 2, key: "k".into(), ..Default::default() };
        let grant = AuthRoleGrantPermissionRequest { name: "r".into(), perm: Some(perm) };
        let wanted = "header:<ID:7> auth_role_grant_permission:<name:\"r\" \
                      perm:<permType:READWRITE key:\"k\">>";
        assert_eq!(read(Box::new(grant).into()), wanted);
        let alarm = AlarmRequest { action: 1, member_id: u64::MAX, alarm: 1 };
        let wanted =
            "header:<ID:7> alarm:<action:ACTIVATE memberID:18446744073709551615 alarm:NOSPACE>";
        assert_eq!(read(alarm.into()), wanted);
        let enable = AuthEnableRequest::default();
        assert_eq!(read(enable.into()), "header:<ID:7> auth_enable:<>");
    }
}
