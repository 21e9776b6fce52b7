//! The RPC of each path of the gateway, from the table in [`crate::rpc`], with the descriptors of its
//! messages.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, MessageDescriptor};

use super::ROOT;
use crate::rpc::{self, RPCS};

/// One RPC with its descriptors.
#[derive(Debug)]
pub(super) struct Rpc {
    /// `/service/method`.
    pub path: String,
    pub request: MessageDescriptor,
    pub response: MessageDescriptor,
    /// Whether requests and responses are streams.
    pub many_requests: bool,
    pub many_responses: bool,
}

static BY_PATH: LazyLock<BTreeMap<String, Rpc>> = LazyLock::new(|| {
    let pool = descriptors();
    let rows = RPCS.iter().flat_map(|rpc| rpc.paths.iter().map(move |path| (path, rpc)));
    rows.map(|(path, rpc)| (format!("{ROOT}{path}"), described(&pool, rpc))).collect()
});

/// Returns the RPC of a path.
pub(super) fn find(path: &str) -> Option<&'static Rpc> {
    BY_PATH.get(path)
}

#[cfg(any(test, feature = "fuzz"))]
pub(super) fn all() -> impl Iterator<Item = &'static Rpc> {
    BY_PATH.values()
}

fn descriptors() -> DescriptorPool {
    DescriptorPool::decode(quorate_proto::FILE_DESCRIPTOR_SET).expect("our compiler wrote it")
}

fn described(pool: &DescriptorPool, rpc: &rpc::Rpc) -> Rpc {
    let service = pool.get_service_by_name(rpc.service);
    let method = service.and_then(|service| service.methods().find(|m| m.name() == rpc.method));
    let method = method.expect("a test compares the table with the descriptors");
    Rpc {
        path: rpc.path(),
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
        let mapped: BTreeSet<String> = BY_PATH.values().map(|rpc| rpc.path.clone()).collect();
        assert_eq!(rpcs, mapped);
        // Three have an older path, too.
        assert_eq!((rpcs.len(), BY_PATH.len()), (48, 51));
    }

    #[test]
    fn older_paths_lead_to_the_same_rpc() {
        for name in ["revoke", "timetolive", "leases"] {
            let path = |folder| find(&format!("/v3/{folder}/{name}")).map(|rpc| &rpc.path);
            assert_eq!(path("kv/lease"), path("lease"));
        }
    }

    /// Fields are written in the order of their numbers, etcd's in the order of their declaration.
    #[test]
    fn fields_are_declared_in_the_order_of_their_numbers() {
        let ours = ["etcdserverpb", "mvccpb", "authpb", "v3lockpb", "v3electionpb"];
        let pool = descriptors();
        let ours = pool.all_messages().filter(|m| ours.contains(&m.package_name()));
        // Log entries are no part of any call.
        for message in ours.filter(|m| m.name() != "InternalRaftRequest") {
            let declared: Vec<u32> =
                message.descriptor_proto().field.iter().map(|f| f.number() as u32).collect();
            assert!(declared.is_sorted(), "{}: {declared:?}", message.full_name());
        }
    }
}
