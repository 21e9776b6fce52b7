//! Which path is which RPC: etcd's table, one row a path. RangeStream has none.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, MessageDescriptor};

/// Path, service and method.
const PATHS: &[(&str, &str, &str)] = &[
    ("/v3/kv/range", "etcdserverpb.KV", "Range"),
    ("/v3/kv/put", "etcdserverpb.KV", "Put"),
    ("/v3/kv/deleterange", "etcdserverpb.KV", "DeleteRange"),
    ("/v3/kv/txn", "etcdserverpb.KV", "Txn"),
    ("/v3/kv/compaction", "etcdserverpb.KV", "Compact"),
    ("/v3/watch", "etcdserverpb.Watch", "Watch"),
    ("/v3/lease/grant", "etcdserverpb.Lease", "LeaseGrant"),
    ("/v3/lease/revoke", "etcdserverpb.Lease", "LeaseRevoke"),
    ("/v3/kv/lease/revoke", "etcdserverpb.Lease", "LeaseRevoke"),
    ("/v3/lease/keepalive", "etcdserverpb.Lease", "LeaseKeepAlive"),
    ("/v3/lease/timetolive", "etcdserverpb.Lease", "LeaseTimeToLive"),
    ("/v3/kv/lease/timetolive", "etcdserverpb.Lease", "LeaseTimeToLive"),
    ("/v3/lease/leases", "etcdserverpb.Lease", "LeaseLeases"),
    ("/v3/kv/lease/leases", "etcdserverpb.Lease", "LeaseLeases"),
    ("/v3/cluster/member/add", "etcdserverpb.Cluster", "MemberAdd"),
    ("/v3/cluster/member/remove", "etcdserverpb.Cluster", "MemberRemove"),
    ("/v3/cluster/member/update", "etcdserverpb.Cluster", "MemberUpdate"),
    ("/v3/cluster/member/list", "etcdserverpb.Cluster", "MemberList"),
    ("/v3/cluster/member/promote", "etcdserverpb.Cluster", "MemberPromote"),
    ("/v3/maintenance/alarm", "etcdserverpb.Maintenance", "Alarm"),
    ("/v3/maintenance/status", "etcdserverpb.Maintenance", "Status"),
    ("/v3/maintenance/defragment", "etcdserverpb.Maintenance", "Defragment"),
    ("/v3/maintenance/hash", "etcdserverpb.Maintenance", "Hash"),
    ("/v3/maintenance/hashkv", "etcdserverpb.Maintenance", "HashKV"),
    ("/v3/maintenance/snapshot", "etcdserverpb.Maintenance", "Snapshot"),
    ("/v3/maintenance/transfer-leadership", "etcdserverpb.Maintenance", "MoveLeader"),
    ("/v3/maintenance/downgrade", "etcdserverpb.Maintenance", "Downgrade"),
    ("/v3/auth/enable", "etcdserverpb.Auth", "AuthEnable"),
    ("/v3/auth/disable", "etcdserverpb.Auth", "AuthDisable"),
    ("/v3/auth/status", "etcdserverpb.Auth", "AuthStatus"),
    ("/v3/auth/authenticate", "etcdserverpb.Auth", "Authenticate"),
    ("/v3/auth/user/add", "etcdserverpb.Auth", "UserAdd"),
    ("/v3/auth/user/get", "etcdserverpb.Auth", "UserGet"),
    ("/v3/auth/user/list", "etcdserverpb.Auth", "UserList"),
    ("/v3/auth/user/delete", "etcdserverpb.Auth", "UserDelete"),
    ("/v3/auth/user/changepw", "etcdserverpb.Auth", "UserChangePassword"),
    ("/v3/auth/user/grant", "etcdserverpb.Auth", "UserGrantRole"),
    ("/v3/auth/user/revoke", "etcdserverpb.Auth", "UserRevokeRole"),
    ("/v3/auth/role/add", "etcdserverpb.Auth", "RoleAdd"),
    ("/v3/auth/role/get", "etcdserverpb.Auth", "RoleGet"),
    ("/v3/auth/role/list", "etcdserverpb.Auth", "RoleList"),
    ("/v3/auth/role/delete", "etcdserverpb.Auth", "RoleDelete"),
    ("/v3/auth/role/grant", "etcdserverpb.Auth", "RoleGrantPermission"),
    ("/v3/auth/role/revoke", "etcdserverpb.Auth", "RoleRevokePermission"),
    ("/v3/lock/lock", "v3lockpb.Lock", "Lock"),
    ("/v3/lock/unlock", "v3lockpb.Lock", "Unlock"),
    ("/v3/election/campaign", "v3electionpb.Election", "Campaign"),
    ("/v3/election/proclaim", "v3electionpb.Election", "Proclaim"),
    ("/v3/election/leader", "v3electionpb.Election", "Leader"),
    ("/v3/election/observe", "v3electionpb.Election", "Observe"),
    ("/v3/election/resign", "v3electionpb.Election", "Resign"),
];

/// One RPC, as its descriptor tells.
#[derive(Debug)]
pub(super) struct Rpc {
    /// `/service/method`, as gRPC calls it.
    pub path: String,
    pub request: MessageDescriptor,
    pub response: MessageDescriptor,
    /// Whether there may be many requests, and many responses.
    pub many_requests: bool,
    pub many_responses: bool,
}

static RPCS: LazyLock<BTreeMap<&'static str, Rpc>> = LazyLock::new(|| {
    let pool = descriptors();
    PATHS.iter().map(|(path, service, method)| (*path, rpc(&pool, service, method))).collect()
});

/// The RPC that is called with a POST to `path`.
pub(super) fn find(path: &str) -> Option<&'static Rpc> {
    RPCS.get(path)
}

#[cfg(any(test, feature = "fuzz"))]
pub(super) fn all() -> impl Iterator<Item = &'static Rpc> {
    RPCS.values()
}

fn descriptors() -> DescriptorPool {
    DescriptorPool::decode(quorate_proto::FILE_DESCRIPTOR_SET).expect("our compiler wrote it")
}

fn rpc(pool: &DescriptorPool, service: &str, name: &str) -> Rpc {
    let services = pool.get_service_by_name(service);
    let method = services.and_then(|service| service.methods().find(|m| m.name() == name));
    let method = method.expect("a test looks for every row");
    Rpc {
        path: format!("/{service}/{name}"),
        request: method.input(),
        response: method.output(),
        many_requests: method.is_client_streaming(),
        many_responses: method.is_server_streaming(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_rpc_that_etcd_maps_has_its_path() {
        let pool = descriptors();
        let ours = ["etcdserverpb", "v3lockpb", "v3electionpb"];
        let services = pool.services().filter(|service| ours.contains(&service.package_name()));
        let rpcs: BTreeSet<String> = services
            .flat_map(|service| service.methods().collect::<Vec<_>>())
            .map(|m| format!("/{}/{}", m.parent_service().full_name(), m.name()))
            .filter(|rpc| rpc != "/etcdserverpb.KV/RangeStream")
            .collect();
        let mapped: BTreeSet<String> = RPCS.values().map(|rpc| rpc.path.clone()).collect();
        assert_eq!(rpcs, mapped);
        // Three have an older path, too.
        assert_eq!((rpcs.len(), RPCS.len(), PATHS.len()), (48, 51, 51));
    }

    #[test]
    fn older_paths_lead_to_the_same_rpc() {
        for name in ["revoke", "timetolive", "leases"] {
            let path = |folder| find(&format!("/v3/{folder}/{name}")).map(|rpc| &rpc.path);
            assert_eq!(path("kv/lease"), path("lease"));
        }
    }

    /// What is written in the order of the numbers is in the order in which etcd declares, and writes, it.
    #[test]
    fn fields_are_declared_in_the_order_of_their_numbers() {
        let ours = ["etcdserverpb", "mvccpb", "authpb", "v3lockpb", "v3electionpb"];
        let pool = descriptors();
        let ours = pool.all_messages().filter(|m| ours.contains(&m.package_name()));
        // What goes into the log is no part of any call.
        for message in ours.filter(|m| m.name() != "InternalRaftRequest") {
            let declared: Vec<u32> =
                message.descriptor_proto().field.iter().map(|f| f.number() as u32).collect();
            assert!(declared.is_sorted(), "{}: {declared:?}", message.full_name());
        }
    }
}
