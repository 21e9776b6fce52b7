//! The RPCs of the client API, one row each: service, method, flow of messages, permission rule and the
//! paths of the JSON gateway. The gRPC services, the gateway and the proxies derive what they serve from
//! it; a method without a row is not served. Holds no handlers.

/// How messages flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Unary,
    ServerStream,
    BidiStream,
}

impl Flow {
    /// The value of the label `grpc_type` of metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

/// What must be known of the caller before a call is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Nothing: a caller without credentials is served.
    Anyone,
    /// The caller is some user.
    User,
    /// The caller has the root role.
    Root,
    /// The permission depends on the request and is checked where it is carried out: by keys when read
    /// and when applied, by the keys of a lease, by the user or role that a request names.
    Content,
}

/// One RPC.
#[derive(Clone, Copy, Debug)]
pub struct Rpc {
    pub service: &'static str,
    pub method: &'static str,
    pub flow: Flow,
    pub rule: Rule,
    /// Whether a learner serves it. For Range the handler checks that the read is serializable.
    pub learner: bool,
    /// Paths of the JSON gateway, below `/v3/`; the first is etcd's present one.
    pub paths: &'static [&'static str],
}

impl Rpc {
    /// `/service/method`, the path of a gRPC call.
    pub fn path(&self) -> String {
        format!("/{}/{}", self.service, self.method)
    }

    const fn new(
        service: &'static str,
        method: &'static str,
        flow: Flow,
        rule: Rule,
        paths: &'static [&'static str],
    ) -> Self {
        Self { service, method, flow, rule, learner: false, paths }
    }

    const fn on_learners(self) -> Self {
        Self { learner: true, ..self }
    }
}

// Names of services.
pub const KV: &str = "etcdserverpb.KV";
pub const WATCH: &str = "etcdserverpb.Watch";
pub const LEASE: &str = "etcdserverpb.Lease";
pub const CLUSTER: &str = "etcdserverpb.Cluster";
pub const MAINTENANCE: &str = "etcdserverpb.Maintenance";
pub const AUTH: &str = "etcdserverpb.Auth";
pub const LOCK: &str = "v3lockpb.Lock";
pub const ELECTION: &str = "v3electionpb.Election";
pub const HEALTH: &str = "grpc.health.v1.Health";

use Flow::{BidiStream, ServerStream, Unary};
use Rule::{Anyone, Content, Root, User};

/// Every RPC. Requests of service Auth are judged when applied, by the users and roles of that moment;
/// calls of Lock and Election consist of calls of other services on behalf of the same caller.
#[rustfmt::skip]
pub const RPCS: &[Rpc] = &[
    Rpc::new(KV, "Range", Unary, Content, &["kv/range"]).on_learners(),
    Rpc::new(KV, "RangeStream", ServerStream, Content, &[]),
    Rpc::new(KV, "Put", Unary, Content, &["kv/put"]),
    Rpc::new(KV, "DeleteRange", Unary, Content, &["kv/deleterange"]),
    Rpc::new(KV, "Txn", Unary, Content, &["kv/txn"]),
    Rpc::new(KV, "Compact", Unary, Root, &["kv/compaction"]),
    Rpc::new(WATCH, "Watch", BidiStream, Content, &["watch"]),
    Rpc::new(LEASE, "LeaseGrant", Unary, User, &["lease/grant"]),
    Rpc::new(LEASE, "LeaseRevoke", Unary, Content, &["lease/revoke", "kv/lease/revoke"]),
    Rpc::new(LEASE, "LeaseKeepAlive", BidiStream, Content, &["lease/keepalive"]),
    Rpc::new(LEASE, "LeaseTimeToLive", Unary, Content, &["lease/timetolive", "kv/lease/timetolive"]),
    Rpc::new(LEASE, "LeaseLeases", Unary, Content, &["lease/leases", "kv/lease/leases"]),
    Rpc::new(CLUSTER, "MemberAdd", Unary, Root, &["cluster/member/add"]),
    Rpc::new(CLUSTER, "MemberRemove", Unary, Root, &["cluster/member/remove"]),
    Rpc::new(CLUSTER, "MemberUpdate", Unary, Root, &["cluster/member/update"]),
    Rpc::new(CLUSTER, "MemberList", Unary, User, &["cluster/member/list"]),
    Rpc::new(CLUSTER, "MemberPromote", Unary, Root, &["cluster/member/promote"]),
    // To list alarms takes a user, to change them root.
    Rpc::new(MAINTENANCE, "Alarm", Unary, Content, &["maintenance/alarm"]),
    Rpc::new(MAINTENANCE, "Status", Unary, User, &["maintenance/status"]).on_learners(),
    Rpc::new(MAINTENANCE, "Defragment", Unary, Root, &["maintenance/defragment"]),
    Rpc::new(MAINTENANCE, "Hash", Unary, Root, &["maintenance/hash"]),
    Rpc::new(MAINTENANCE, "HashKV", Unary, Root, &["maintenance/hashkv"]),
    Rpc::new(MAINTENANCE, "Snapshot", ServerStream, Root, &["maintenance/snapshot"]).on_learners(),
    Rpc::new(MAINTENANCE, "MoveLeader", Unary, Root, &["maintenance/transfer-leadership"]),
    Rpc::new(MAINTENANCE, "Downgrade", Unary, Root, &["maintenance/downgrade"]),
    Rpc::new(AUTH, "AuthEnable", Unary, Content, &["auth/enable"]),
    Rpc::new(AUTH, "AuthDisable", Unary, Content, &["auth/disable"]),
    Rpc::new(AUTH, "AuthStatus", Unary, Anyone, &["auth/status"]),
    Rpc::new(AUTH, "Authenticate", Unary, Anyone, &["auth/authenticate"]),
    Rpc::new(AUTH, "UserAdd", Unary, Content, &["auth/user/add"]),
    Rpc::new(AUTH, "UserGet", Unary, Content, &["auth/user/get"]),
    Rpc::new(AUTH, "UserList", Unary, Content, &["auth/user/list"]),
    Rpc::new(AUTH, "UserDelete", Unary, Content, &["auth/user/delete"]),
    Rpc::new(AUTH, "UserChangePassword", Unary, Content, &["auth/user/changepw"]),
    Rpc::new(AUTH, "UserGrantRole", Unary, Content, &["auth/user/grant"]),
    Rpc::new(AUTH, "UserRevokeRole", Unary, Content, &["auth/user/revoke"]),
    Rpc::new(AUTH, "RoleAdd", Unary, Content, &["auth/role/add"]),
    Rpc::new(AUTH, "RoleGet", Unary, Content, &["auth/role/get"]),
    Rpc::new(AUTH, "RoleList", Unary, Content, &["auth/role/list"]),
    Rpc::new(AUTH, "RoleDelete", Unary, Content, &["auth/role/delete"]),
    Rpc::new(AUTH, "RoleGrantPermission", Unary, Content, &["auth/role/grant"]),
    Rpc::new(AUTH, "RoleRevokePermission", Unary, Content, &["auth/role/revoke"]),
    Rpc::new(LOCK, "Lock", Unary, Content, &["lock/lock"]),
    Rpc::new(LOCK, "Unlock", Unary, Content, &["lock/unlock"]),
    Rpc::new(ELECTION, "Campaign", Unary, Content, &["election/campaign"]),
    Rpc::new(ELECTION, "Proclaim", Unary, Content, &["election/proclaim"]),
    Rpc::new(ELECTION, "Leader", Unary, Content, &["election/leader"]),
    Rpc::new(ELECTION, "Observe", ServerStream, Content, &["election/observe"]),
    Rpc::new(ELECTION, "Resign", Unary, Content, &["election/resign"]),
    Rpc::new(HEALTH, "Check", Unary, Anyone, &[]),
    Rpc::new(HEALTH, "List", Unary, Anyone, &[]),
    Rpc::new(HEALTH, "Watch", ServerStream, Anyone, &[]),
];

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use prost::Message as _;

    use super::*;

    #[test]
    fn the_table_has_the_methods_and_flows_of_the_descriptors_and_no_others() {
        let table: BTreeMap<String, Flow> = RPCS.iter().map(|rpc| (rpc.path(), rpc.flow)).collect();
        assert_eq!(table.len(), RPCS.len(), "a method has one row");
        assert!(table.len() > 50, "{} methods are too few to be all", table.len());
        assert_eq!(table, described());
    }

    /// The rules as etcd's code has them, written down a second time: a rule that was changed by mistake
    /// differs from this one.
    #[test]
    fn permission_rules_are_etcds() {
        let anyone = "Auth/AuthStatus Auth/Authenticate Health/Check Health/List Health/Watch";
        let user = "Lease/LeaseGrant Cluster/MemberList Maintenance/Status";
        let root = "KV/Compact Cluster/MemberAdd Cluster/MemberRemove Cluster/MemberUpdate \
                    Cluster/MemberPromote Maintenance/Defragment Maintenance/Hash \
                    Maintenance/HashKV Maintenance/Snapshot Maintenance/MoveLeader \
                    Maintenance/Downgrade";
        let content = "KV/Range KV/RangeStream KV/Put KV/DeleteRange KV/Txn Watch/Watch \
                       Lease/LeaseRevoke Lease/LeaseKeepAlive Lease/LeaseTimeToLive \
                       Lease/LeaseLeases Maintenance/Alarm Auth/AuthEnable Auth/AuthDisable \
                       Auth/UserAdd Auth/UserGet Auth/UserList Auth/UserDelete \
                       Auth/UserChangePassword Auth/UserGrantRole Auth/UserRevokeRole \
                       Auth/RoleAdd Auth/RoleGet Auth/RoleList Auth/RoleDelete \
                       Auth/RoleGrantPermission Auth/RoleRevokePermission Lock/Lock Lock/Unlock \
                       Election/Campaign Election/Proclaim Election/Leader Election/Observe \
                       Election/Resign";
        for (rule, expected) in [(Anyone, anyone), (User, user), (Root, root), (Content, content)] {
            let rows = RPCS.iter().filter(|rpc| rpc.rule == rule);
            let rows: BTreeSet<String> = rows.map(short).collect();
            let expected: BTreeSet<String> =
                expected.split_whitespace().map(str::to_owned).collect();
            assert_eq!(rows, expected, "{rule:?}");
        }
    }

    #[test]
    fn learners_serve_what_etcds_learners_serve() {
        let rows: Vec<String> = RPCS.iter().filter(|rpc| rpc.learner).map(short).collect();
        assert_eq!(rows, ["KV/Range", "Maintenance/Status", "Maintenance/Snapshot"]);
    }

    /// `Service/Method` without the package.
    fn short(rpc: &Rpc) -> String {
        let service = rpc.service.rsplit('.').next().expect("a name has a part");
        format!("{service}/{}", rpc.method)
    }

    /// The methods of the descriptor set and their flows. Only the fields that are needed are decoded.
    fn described() -> BTreeMap<String, Flow> {
        #[derive(Clone, PartialEq, prost::Message)]
        struct Set {
            #[prost(message, repeated, tag = "1")]
            files: Vec<File>,
        }
        #[derive(Clone, PartialEq, prost::Message)]
        struct File {
            #[prost(string, tag = "2")]
            package: String,
            #[prost(message, repeated, tag = "6")]
            services: Vec<Service>,
        }
        #[derive(Clone, PartialEq, prost::Message)]
        struct Service {
            #[prost(string, tag = "1")]
            name: String,
            #[prost(message, repeated, tag = "2")]
            methods: Vec<Method>,
        }
        #[derive(Clone, PartialEq, prost::Message)]
        struct Method {
            #[prost(string, tag = "1")]
            name: String,
            #[prost(bool, tag = "5")]
            client_streaming: bool,
            #[prost(bool, tag = "6")]
            server_streaming: bool,
        }
        let set = Set::decode(quorate_proto::FILE_DESCRIPTOR_SET).expect("a descriptor set");
        let mut found = BTreeMap::new();
        for file in set.files {
            for service in file.services {
                for method in service.methods {
                    let flow = match (method.client_streaming, method.server_streaming) {
                        (false, false) => Unary,
                        (false, true) => ServerStream,
                        (true, true) => BidiStream,
                        (true, false) => panic!("{} streams requests only", method.name),
                    };
                    found.insert(
                        format!("/{}.{}/{}", file.package, service.name, method.name),
                        flow,
                    );
                }
            }
        }
        found
    }
}
