//! The gRPC edge: decodes, validates what needs no state, calls the [`Member`], encodes. It has no logic
//! of its own, and no lower layer names tonic.
//!
//! Reading order: [`kv`], [`watch`], [`lease`], [`cluster`], [`maintenance`], [`auth`], [`lock`],
//! [`election`] (both on `recipe`), [`health`] are the services; [`status`] maps errors to codes and texts;
//! every call passes [`gate`] first, with `calls` (methods and counters), `body` (sizes and deadlines of
//! messages), `compression`, `deadline`, `direct` (the calls that are most of the load), `paged` (large
//! responses), `served` (streams of responses), `caller` (credentials), [`slow`] (logging of slow calls),
//! [`spans`] (tracing), [`unread`] (clients that read nothing) and `tapped` (for the simulator). Calls of
//! other services are answered with `Unimplemented`, as is any unknown path.
//!
//! [`Member`]: crate::member::Member

pub mod auth;
pub(crate) mod body;
pub mod caller;
pub(crate) mod calls;
pub mod cluster;
pub(crate) mod compression;
mod deadline;
mod direct;
pub mod election;
pub mod gate;
pub mod health;
pub mod kv;
pub mod lease;
pub mod lock;
pub mod maintenance;
mod paged;
mod recipe;
mod served;
pub mod slow;
pub mod spans;
pub mod status;
mod tapped;
pub mod unread;
pub mod watch;

use quorate_proto::etcdserverpb::{
    auth_server::AuthServer, cluster_server::ClusterServer, kv_server::KvServer,
    lease_server::LeaseServer, maintenance_server::MaintenanceServer,
};
use quorate_proto::health::health_server::HealthServer;
use quorate_proto::v3electionpb::election_server::ElectionServer;
use quorate_proto::v3lockpb::lock_server::LockServer;
use tonic::service::Routes;

use crate::member::Member;

/// Returns the routes of every service, for a [`gate::Gate`]. The gate bounds message sizes, with etcd's
/// text for larger ones.
pub fn routes(member: &Member) -> Routes {
    let unlimited = usize::MAX;
    let mut routes = Routes::builder();
    routes
        .add_service(
            KvServer::new(kv::Kv { member: member.clone() }).max_decoding_message_size(unlimited),
        )
        .add_service(watch::Watch { member: member.clone() })
        .add_service(
            LeaseServer::new(lease::Lease { member: member.clone() })
                .max_decoding_message_size(unlimited),
        )
        .add_service(
            ClusterServer::new(cluster::Cluster { member: member.clone() })
                .max_decoding_message_size(unlimited),
        )
        .add_service(
            MaintenanceServer::new(maintenance::Maintenance { member: member.clone() })
                .max_decoding_message_size(unlimited),
        )
        .add_service(
            AuthServer::new(auth::Auth { member: member.clone() })
                .max_decoding_message_size(unlimited),
        )
        .add_service(
            LockServer::new(lock::Lock { member: member.clone() })
                .max_decoding_message_size(unlimited),
        )
        .add_service(
            ElectionServer::new(election::Election { member: member.clone() })
                .max_decoding_message_size(unlimited),
        )
        .add_service(
            HealthServer::new(health::Health { member: member.clone() })
                .max_decoding_message_size(unlimited),
        );
    routes.routes()
}
