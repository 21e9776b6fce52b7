//! Pins the generated types to etcd's encodings and service table. The bytes
//! are worked out by hand from etcd's field numbers, so that a slip in a .proto
//! text cannot correct itself here. What the fields mean is tested elsewhere.

use std::collections::BTreeMap;
use std::fmt::Debug;

use prost::Message;
use prost::encoding::decode_key;
use quorate_proto::{
    authpb, etcdserverpb as pb, health, leasepb, membershippb, mvccpb, otlp, raftpb, snappb,
    v3electionpb, v3lockpb, walpb,
};

/// The message encodes to exactly these bytes, and they decode to it.
#[track_caller]
fn check<M: Message + Default + PartialEq + Debug>(message: M, hex: &str) {
    let bytes = unhex(hex);
    assert_eq!(show(&message.encode_to_vec()), show(&bytes), "{message:?}");
    assert_eq!(decode::<M>(hex), message);
}

#[track_caller]
fn decode<M: Message + Default>(hex: &str) -> M {
    M::decode(unhex(hex).as_slice()).expect("golden bytes are well formed")
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().filter(|c| !c.is_whitespace()).collect();
    let byte = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16);
    digits.chunks(2).map(|pair| byte(pair).expect("hex digits")).collect()
}

fn show(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn key_value() -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: "foo".into(),
        create_revision: 2,
        mod_revision: 2,
        version: 1,
        value: "bar".into(),
        lease: 0,
    }
}

#[test]
fn stored_key_value() {
    check(key_value(), "0a03 666f6f 1002 1802 2001 2a03 626172");
    check(
        mvccpb::KeyValue { lease: 7, ..key_value() },
        "0a03666f6f 1002 1802 2001 2a03626172 3007",
    );
    // A tombstone holds the key alone.
    check(mvccpb::KeyValue { key: "foo".into(), ..Default::default() }, "0a03666f6f");
}

#[test]
fn range_request_uses_all_thirteen_numbers() {
    check(
        pb::RangeRequest {
            key: "a".into(),
            range_end: "b".into(),
            limit: 1,
            revision: -1,
            sort_order: pb::range_request::SortOrder::Descend.into(),
            sort_target: pb::range_request::SortTarget::Value.into(),
            serializable: true,
            keys_only: true,
            count_only: true,
            min_mod_revision: 2,
            max_mod_revision: 3,
            min_create_revision: 4,
            max_create_revision: 5,
        },
        "0a0161 120162 1801 20ffffffffffffffffff01 2802 3004 3801 4001 4801 5002 5803 6004 6805",
    );
}

#[test]
fn compare_keeps_a_zero_operand_and_its_far_range_end() {
    check(
        pb::Compare {
            result: pb::compare::CompareResult::NotEqual.into(),
            target: pb::compare::CompareTarget::Lease.into(),
            key: "k".into(),
            range_end: "z".into(),
            target_union: Some(pb::compare::TargetUnion::Lease(0)),
        },
        "0803 1004 1a016b 4000 8204 017a",
    );
}

#[test]
fn txn_request_nests() {
    let get = pb::RangeRequest { key: "k".into(), ..Default::default() };
    let inner = pb::TxnRequest {
        failure: vec![pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(get)) }],
        ..Default::default()
    };
    let nested = pb::request_op::Request::RequestTxn(inner);
    check(
        pb::TxnRequest {
            compare: vec![pb::Compare::default()],
            success: vec![pb::RequestOp { request: Some(nested) }],
            failure: vec![],
        },
        "0a00 1209 2207 1a05 0a03 0a016b",
    );
}

#[test]
fn watch_create_packs_its_filters() {
    use pb::watch_create_request::FilterType;
    let create = pb::WatchCreateRequest {
        key: "k".into(),
        start_revision: 2,
        progress_notify: true,
        filters: vec![FilterType::Noput.into(), FilterType::Nodelete.into()],
        prev_kv: true,
        watch_id: 9,
        fragment: true,
        ..Default::default()
    };
    let union = pb::watch_request::RequestUnion::CreateRequest(create);
    check(
        pb::WatchRequest { request_union: Some(union) },
        "0a11 0a016b 1802 2001 2a020001 3001 3809 4001",
    );
}

#[test]
fn watch_response_has_events_at_eleven() {
    let deleted = mvccpb::KeyValue { key: "k".into(), mod_revision: 9, ..Default::default() };
    check(
        pb::WatchResponse {
            header: Some(pb::ResponseHeader { revision: 9, ..Default::default() }),
            watch_id: -1,
            created: true,
            canceled: true,
            compact_revision: 4,
            cancel_reason: "x".into(),
            fragment: true,
            events: vec![mvccpb::Event {
                r#type: mvccpb::event::EventType::Delete.into(),
                kv: Some(deleted),
                prev_kv: None,
            }],
        },
        "0a021809 10ffffffffffffffffff01 1801 2001 2804 320178 3801 5a09 0801 1205 0a016b 1809",
    );
}

#[test]
fn range_stream_response() {
    let range = pb::RangeResponse {
        header: Some(pb::ResponseHeader { cluster_id: 1, member_id: 2, revision: 3, raft_term: 4 }),
        kvs: vec![mvccpb::KeyValue::default()],
        more: true,
        count: 5,
    };
    check(
        pb::RangeStreamResponse { range_response: Some(range) },
        "0a10 0a08 0801100218032004 1200 1801 2005",
    );
}

#[test]
fn lease_messages() {
    check(leasepb::Lease { id: 1, ttl: 60, remaining_ttl: 30 }, "0801 103c 181e");
    check(
        pb::LeaseTimeToLiveResponse {
            header: None,
            id: 1,
            ttl: -1,
            granted_ttl: 60,
            keys: vec!["a".into(), "".into()],
        },
        "1001 18ffffffffffffffffff01 203c 2a0161 2a00",
    );
    check(
        pb::LeaseCheckpointRequest {
            checkpoints: vec![pb::LeaseCheckpoint { id: 1, remaining_ttl: 2 }],
        },
        "0a04 0801 1002",
    );
    check(
        leasepb::LeaseInternalRequest {
            lease_time_to_live_request: Some(pb::LeaseTimeToLiveRequest { id: 1, keys: true }),
        },
        "0a04 0801 1001",
    );
}

#[test]
fn status_response_uses_all_thirteen_numbers() {
    check(
        pb::StatusResponse {
            header: Some(pb::ResponseHeader::default()),
            version: "3.7.0".into(),
            db_size: 1,
            leader: 2,
            raft_index: 3,
            raft_term: 4,
            raft_applied_index: 5,
            errors: vec!["e".into()],
            db_size_in_use: 6,
            is_learner: true,
            storage_version: "3".into(),
            db_size_quota: 7,
            downgrade_info: Some(pb::DowngradeInfo { enabled: true, target_version: "t".into() }),
        },
        "0a00 1205332e372e30 1801 2002 2803 3004 3805 420165 4806 5001 5a0133 6007 6a05 0801120174",
    );
}

#[test]
fn membership() {
    let urls = |url: &str| vec![url.to_owned()];
    check(
        pb::Member {
            id: 1,
            name: "n".into(),
            peer_urls: urls("p"),
            client_urls: urls("c"),
            is_learner: true,
        },
        "0801 12016e 1a0170 220163 2801",
    );
    let published = membershippb::Attributes { name: "n".into(), client_urls: urls("c") };
    check(
        membershippb::ClusterMemberAttrSetRequest {
            member_id: 1,
            member_attributes: Some(published),
        },
        "0801 1206 0a016e 120163",
    );
    check(membershippb::DowngradeInfoSetRequest { enabled: true, ver: "v".into() }, "0801 120176");
}

#[test]
fn alarm_member() {
    check(pb::AlarmMember { member_id: 1, alarm: pb::AlarmType::Corrupt.into() }, "0801 1002");
}

#[test]
fn auth_messages() {
    check(
        authpb::User {
            name: "root".into(),
            password: "p".into(),
            roles: vec!["r".into()],
            options: Some(authpb::UserAddOptions { no_password: true }),
        },
        "0a04726f6f74 120170 1a0172 22020801",
    );
    let permission = authpb::Permission {
        perm_type: authpb::permission::Type::Readwrite.into(),
        key: "a".into(),
        range_end: "b".into(),
    };
    check(
        authpb::Role { name: "r".into(), key_permission: vec![permission.clone()] },
        "0a0172 1208 0802 120161 1a0162",
    );
    check(
        pb::AuthRoleGrantPermissionRequest { name: "r".into(), perm: Some(permission) },
        "0a0172 1208 0802 120161 1a0162",
    );
    check(
        pb::AuthUserAddRequest {
            name: "u".into(),
            password: "".into(),
            options: None,
            hashed_password: "h".into(),
        },
        "0a0175 220168",
    );
}

#[test]
fn lock_and_election() {
    check(v3lockpb::LockRequest { name: "l".into(), lease: 1 }, "0a016c 1001");
    let leader = v3electionpb::LeaderKey { name: "n".into(), key: "k".into(), rev: 2, lease: 3 };
    check(
        v3electionpb::ProclaimRequest { leader: Some(leader), value: "v".into() },
        "0a0a 0a016e 12016b 1802 2003 120176",
    );
}

#[test]
fn health_list() {
    let serving = health::HealthCheckResponse {
        status: health::health_check_response::ServingStatus::Serving.into(),
    };
    check(
        health::HealthListResponse { statuses: BTreeMap::from([("s".to_owned(), serving)]) },
        "0a07 0a0173 1202 0801",
    );
}

#[test]
fn spans() {
    use otlp::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
    use otlp::trace::v1::{
        ResourceSpans, ScopeSpans, Span, Status, span::Event, span::SpanKind, status::StatusCode,
    };
    let pair = |value| KeyValue { key: "k".into(), value: Some(AnyValue { value: Some(value) }) };
    let span = Span {
        trace_id: vec![1; 16].into(),
        span_id: vec![2; 8].into(),
        trace_state: "s".into(),
        parent_span_id: vec![3; 8].into(),
        name: "n".into(),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: 1,
        end_time_unix_nano: 2,
        attributes: vec![pair(Value::BoolValue(true)), pair(Value::IntValue(5))],
        events: vec![Event { time_unix_nano: 3, name: "e".into(), attributes: vec![] }],
        status: Some(Status { message: "m".into(), code: StatusCode::Error.into() }),
        flags: 0x301,
    };
    let hex = "0a10 01010101010101010101010101010101 1208 0202020202020202 1a0173
        2208 0303030303030303 2a016e 3002 390100000000000000 410200000000000000
        4a07 0a016b 1202 1001 4a07 0a016b 1202 1805
        5a0c 090300000000000000 120165 7a05 12016d 1802 850101030000";
    check(span, hex);
    let scope = InstrumentationScope { name: "q".into(), version: "1".into(), attributes: vec![] };
    let resource =
        otlp::resource::v1::Resource { attributes: vec![pair(Value::StringValue("v".into()))] };
    let scope_spans = ScopeSpans { scope: Some(scope), spans: vec![], schema_url: "u".into() };
    let of = ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![scope_spans],
        schema_url: "w".into(),
    };
    let request =
        otlp::collector::trace::v1::ExportTraceServiceRequest { resource_spans: vec![of] };
    check(request, "0a1c 0a0a 0a08 0a016b 1203 0a0176 120b 0a06 0a0171 120131 1a0175 1a0177");
}

#[test]
fn internal_raft_request() {
    let header = pb::RequestHeader { id: 7, username: "u".into(), auth_revision: 3 };
    let put = pb::PutRequest { key: "k".into(), value: "v".into(), lease: 5, ..Default::default() };
    check(
        pb::InternalRaftRequest { header: Some(header), put: Some(put), ..Default::default() },
        "2208 0a016b 120176 1805 a20607 0807 120175 1803",
    );
    check(pb::InternalRaftRequest { id: 1, ..Default::default() }, "0801");
    // Field 2 held a v2 request; it is skipped.
    assert_eq!(
        decode::<pb::InternalRaftRequest>("0801 1202 0801"),
        pb::InternalRaftRequest { id: 1, ..Default::default() }
    );
    let token = pb::InternalAuthenticateRequest {
        name: "n".into(),
        password: "p".into(),
        simple_token: "t".into(),
    };
    check(token, "0a016e 120170 1a0174");
}

/// With only `$field` set, and set to an empty message, the encoding is the
/// field's key and a zero length.
macro_rules! check_request_numbers {
    ($($field:ident = $number:literal,)*) => {$(
        let request =
            pb::InternalRaftRequest { $field: Some(Default::default()), ..Default::default() };
        let bytes = request.encode_to_vec();
        let mut rest = bytes.as_slice();
        let (number, _) = decode_key(&mut rest).expect("starts with a key");
        assert_eq!((number, rest), ($number, &[0][..]), stringify!($field));
    )*};
}

#[test]
fn internal_raft_request_numbers() {
    check_request_numbers! {
        header = 100,
        range = 3,
        put = 4,
        delete_range = 5,
        txn = 6,
        compaction = 7,
        lease_grant = 8,
        lease_revoke = 9,
        alarm = 10,
        lease_checkpoint = 11,
        auth_enable = 1000,
        auth_disable = 1011,
        authenticate = 1012,
        auth_status = 1013,
        auth_user_add = 1100,
        auth_user_delete = 1101,
        auth_user_get = 1102,
        auth_user_change_password = 1103,
        auth_user_grant_role = 1104,
        auth_user_revoke_role = 1105,
        auth_user_list = 1106,
        auth_role_list = 1107,
        auth_role_add = 1200,
        auth_role_delete = 1201,
        auth_role_get = 1202,
        auth_role_grant_permission = 1203,
        auth_role_revoke_permission = 1204,
        cluster_version_set = 1300,
        cluster_member_attr_set = 1301,
        downgrade_info_set = 1302,
        downgrade_version_test = 9900,
    }
}

fn conf_state() -> raftpb::ConfState {
    raftpb::ConfState { voters: vec![1, 2], learners: vec![3], ..Default::default() }
}

#[test]
fn conf_state_is_not_packed() {
    let joint = raftpb::ConfState {
        voters_outgoing: vec![4],
        learners_next: vec![5, 6],
        auto_leave: true,
        ..conf_state()
    };
    check(joint, "0801 0802 1003 1804 2005 2006 2801");
    assert_eq!(decode::<raftpb::ConfState>("0a020102 1003"), conf_state(), "packed is read too");
}

#[test]
fn raft_message_uses_all_fourteen_numbers() {
    let snapshot = raftpb::Snapshot {
        data: "d".into(),
        metadata: Some(raftpb::SnapshotMetadata {
            conf_state: Some(conf_state()),
            index: 8,
            term: 2,
        }),
    };
    let entry = raftpb::Entry {
        r#type: raftpb::EntryType::EntryConfChange.into(),
        term: 5,
        index: 11,
        data: "x".into(),
    };
    let message = raftpb::Message {
        r#type: raftpb::MessageType::MsgApp.into(),
        to: 2,
        from: 1,
        term: 5,
        log_term: 4,
        index: 10,
        entries: vec![entry],
        commit: 9,
        snapshot: Some(snapshot),
        reject: true,
        reject_hint: 3,
        context: "c".into(),
        vote: 1,
        responses: vec![raftpb::Message { to: 1, ..Default::default() }],
    };
    check(
        message,
        "0803 1002 1801 2005 2804 300a
         3a09 0801 1005 180b 220178
         4009
         4a11 0a0164 120c 0a06 0801 0802 1003 1008 1802
         5001 5803 620163 6801 7202 1001",
    );
}

#[test]
fn raft_enums_end_where_etcd_s_do() {
    assert_eq!(raftpb::MessageType::try_from(23), Ok(raftpb::MessageType::MsgForgetLeader));
    assert!(raftpb::MessageType::try_from(24).is_err());
    assert_eq!(raftpb::MessageType::MsgReadIndexResp as i32, 16);
    assert_eq!(raftpb::EntryType::EntryConfChangeV2 as i32, 2);
    assert_eq!(raftpb::ConfChangeType::ConfChangeAddLearnerNode as i32, 3);
}

#[test]
fn configuration_changes() {
    check(
        raftpb::ConfChange {
            id: 1,
            r#type: raftpb::ConfChangeType::ConfChangeRemoveNode.into(),
            node_id: 2,
            context: "{}".into(),
        },
        "0801 1001 1802 22027b7d",
    );
    check(
        raftpb::ConfChangeV2 {
            transition: raftpb::ConfChangeTransition::JointExplicit.into(),
            changes: vec![raftpb::ConfChangeSingle {
                r#type: raftpb::ConfChangeType::ConfChangeAddLearnerNode.into(),
                node_id: 4,
            }],
            context: "c".into(),
        },
        "0802 1204 0803 1004 1a0163",
    );
}

#[test]
fn zeros_spelled_out_read_as_zeros_left_out() {
    let state = raftpb::HardState { term: 5, vote: 0, commit: 0 };
    check(state, "0805");
    assert_eq!(decode::<raftpb::HardState>("0805 1000 1800"), state);
    assert_eq!(decode::<walpb::Snapshot>("0800 1000"), walpb::Snapshot::default());
    let noop = raftpb::Entry { term: 2, index: 1, ..Default::default() };
    assert_eq!(decode::<raftpb::Entry>("0800 1002 1801"), noop);
}

#[test]
fn wal_and_snapshot_files() {
    check(pb::Metadata { node_id: 1, cluster_id: 2 }, "0801 1002");
    check(
        walpb::Record { r#type: 4, crc: 0x1234_5678, data: "d".into() },
        "0804 10f8acd19101 1a0164",
    );
    check(
        walpb::Snapshot { index: 8, term: 2, conf_state: Some(conf_state()) },
        "0808 1002 1a06 0801 0802 1003",
    );
    let empty = raftpb::ConfState::default();
    check(walpb::Snapshot { conf_state: Some(empty), ..Default::default() }, "1a00");
    check(snappb::Snapshot { crc: 1, data: "d".into() }, "0801 120164");
}

/// The few parts of google/protobuf/descriptor.proto that are looked at here.
mod descriptor {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Set {
        #[prost(message, repeated, tag = "1")]
        pub file: Vec<File>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct File {
        #[prost(string, tag = "2")]
        pub package: String,
        #[prost(message, repeated, tag = "4")]
        pub message: Vec<Message>,
        #[prost(message, repeated, tag = "6")]
        pub service: Vec<Service>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Message {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(message, repeated, tag = "2")]
        pub field: Vec<Field>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Field {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(message, optional, tag = "8")]
        pub options: Option<FieldOptions>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct FieldOptions {
        #[prost(string, optional, tag = "50001")]
        pub etcd_version_field: Option<String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Service {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(message, repeated, tag = "2")]
        pub method: Vec<Method>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Method {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(bool, tag = "5")]
        pub client_streaming: bool,
        #[prost(bool, tag = "6")]
        pub server_streaming: bool,
    }
}

fn descriptors() -> descriptor::Set {
    descriptor::Set::decode(quorate_proto::FILE_DESCRIPTOR_SET).expect("the set is well formed")
}

/// A streamed request is marked `>`, a streamed response `<`.
const SERVICES: [(&str, usize, &str); 9] = [
    ("etcdserverpb.KV", 6, "Range RangeStream< Put DeleteRange Txn Compact"),
    ("etcdserverpb.Watch", 1, "Watch><"),
    (
        "etcdserverpb.Lease",
        5,
        "LeaseGrant LeaseRevoke LeaseKeepAlive>< LeaseTimeToLive LeaseLeases",
    ),
    ("etcdserverpb.Cluster", 5, "MemberAdd MemberRemove MemberUpdate MemberList MemberPromote"),
    (
        "etcdserverpb.Maintenance",
        8,
        "Alarm Status Defragment Hash HashKV Snapshot< MoveLeader Downgrade",
    ),
    (
        "etcdserverpb.Auth",
        17,
        "AuthEnable AuthDisable AuthStatus Authenticate \
         UserAdd UserGet UserList UserDelete UserChangePassword UserGrantRole UserRevokeRole \
         RoleAdd RoleGet RoleList RoleDelete RoleGrantPermission RoleRevokePermission",
    ),
    ("v3lockpb.Lock", 2, "Lock Unlock"),
    ("v3electionpb.Election", 5, "Campaign Proclaim Leader Observe< Resign"),
    ("grpc.health.v1.Health", 3, "Check List Watch<"),
];

#[test]
fn services_are_exactly_these() {
    let mut found = BTreeMap::new();
    for file in descriptors().file {
        for service in file.service {
            let methods = service.method.iter().map(|method| {
                let request = if method.client_streaming { ">" } else { "" };
                let response = if method.server_streaming { "<" } else { "" };
                format!("{}{request}{response}", method.name)
            });
            let methods: Vec<String> = methods.collect();
            found.insert(format!("{}.{}", file.package, service.name), methods);
        }
    }
    for (name, count, methods) in SERVICES {
        let methods: Vec<&str> = methods.split_whitespace().collect();
        assert_eq!(methods.len(), count, "{name}");
        assert_eq!(found.remove(name).unwrap_or_default(), methods, "{name}");
    }
    assert_eq!(found, BTreeMap::new(), "no further services");
}

#[test]
fn generated_servers_answer_under_etcd_s_names() {
    assert_eq!(pb::kv_server::SERVICE_NAME, "etcdserverpb.KV");
    assert_eq!(v3lockpb::lock_server::SERVICE_NAME, "v3lockpb.Lock");
    assert_eq!(v3electionpb::election_server::SERVICE_NAME, "v3electionpb.Election");
    assert_eq!(health::health_server::SERVICE_NAME, "grpc.health.v1.Health");
    let collector = otlp::collector::trace::v1::trace_service_server::SERVICE_NAME;
    assert_eq!(collector, "opentelemetry.proto.collector.trace.v1.TraceService");
}

#[test]
fn descriptors_keep_names_and_version_options() {
    let set = descriptors();
    let field = |package: &str, message: &str, field: &str| {
        let files = set.file.iter().filter(|file| file.package == package);
        let mut fields = files
            .flat_map(|file| &file.message)
            .filter(|candidate| candidate.name == message)
            .flat_map(|message| &message.field);
        let found = fields.find(|candidate| candidate.name == field);
        found.unwrap_or_else(|| panic!("no {package}.{message}.{field}")).clone()
    };
    let version = |found: descriptor::Field| found.options.and_then(|o| o.etcd_version_field);

    field("etcdserverpb", "Member", "peerURLs");
    field("etcdserverpb", "LeaseGrantRequest", "TTL");
    field("snappb", "snapshot", "crc");
    let learner = field("etcdserverpb", "Member", "isLearner");
    assert_eq!(version(learner).as_deref(), Some("3.4"));
    let downgrade = field("etcdserverpb", "InternalRaftRequest", "downgrade_version_test");
    assert_eq!(version(downgrade).as_deref(), Some("3.6"));
    assert_eq!(version(field("etcdserverpb", "InternalRaftRequest", "put")), None);
}
