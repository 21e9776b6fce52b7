//! etcd 3.7's messages and services as Rust types, generated from our own
//! .proto texts. Not a client and not a server: no transport, no defaults, no
//! checks beyond what decoding does.
//!
//! Beside them stand OpenTelemetry's messages, in [`otlp`].
//!
//! Packages, messages, fields and numbers are etcd's, so the encodings can be
//! exchanged with it over client and peer ports and through data directories.
//! Each module is one package. Bytes fields are [`bytes::Bytes`]; decoding them
//! from a `Bytes` buffer shares it instead of copying.

pub mod codec;
pub mod depth;

/// Every file of etcd's API and the ones they import, as an encoded
/// `google.protobuf.FileDescriptorSet` with version options, without comments.
/// Names are etcd's spelling (`peerURLs`), also where the Rust field differs.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

macro_rules! packages {
    ($($(#[$doc:meta])* $module:ident = $package:tt;)*) => {$(
        $(#[$doc])*
        #[allow(
            warnings,
            clippy::all,
            clippy::unwrap_used,
            reason = "generated: its style is the generator's, its shapes are the protocol's"
        )]
        pub mod $module {
            tonic::include_proto!($package);
        }
    )*};
}

packages! {
    /// The client API, and the log payloads made of its messages.
    etcdserverpb = "etcdserverpb";
    /// Stored keys and watch events.
    mvccpb = "mvccpb";
    /// Stored users, roles and permissions.
    authpb = "authpb";
    /// Stored leases.
    leasepb = "leasepb";
    /// Cluster version and member attributes, as log payloads.
    membershippb = "membershippb";
    /// The lock service.
    v3lockpb = "v3lockpb";
    /// The election service.
    v3electionpb = "v3electionpb";
    /// Consensus messages, entries and configurations.
    raftpb = "raftpb";
    /// WAL records.
    walpb = "walpb";
    /// The .snap file envelope.
    snappb = "snappb";
    /// The gRPC health service.
    health = "grpc.health.v1";
}

/// OpenTelemetry's protocol, the part that carries spans (OTLP 1.x): packages below
/// `opentelemetry.proto`, folded as they refer to each other.
pub mod otlp {
    pub mod common {
        packages! {
            /// Attributes and their values.
            v1 = "opentelemetry.proto.common.v1";
        }
    }
    pub mod resource {
        packages! {
            /// Whose spans they are.
            v1 = "opentelemetry.proto.resource.v1";
        }
    }
    pub mod trace {
        packages! {
            /// Spans.
            v1 = "opentelemetry.proto.trace.v1";
        }
    }
    pub mod collector {
        pub mod trace {
            packages! {
                /// The service that takes spans.
                v1 = "opentelemetry.proto.collector.trace.v1";
            }
        }
    }
}

/// Numbers of the options that say since which etcd release a declaration
/// exists, for readers of [`FILE_DESCRIPTOR_SET`]. Values are strings such as
/// `"3.5"`.
pub mod versionpb {
    /// On `google.protobuf.MessageOptions`.
    pub const ETCD_VERSION_MSG: u32 = 50000;
    /// On `google.protobuf.FieldOptions`.
    pub const ETCD_VERSION_FIELD: u32 = 50001;
    /// On `google.protobuf.EnumOptions`.
    pub const ETCD_VERSION_ENUM: u32 = 50002;
    /// On `google.protobuf.EnumValueOptions`.
    pub const ETCD_VERSION_ENUM_VALUE: u32 = 50003;
}
