//! The format `"Name" : value`, a line a field.

use std::fmt::{Display, Write as _};

use quorate_proto::etcdserverpb::{
    AlarmResponse, AuthRoleGetResponse, AuthRoleListResponse, DeleteRangeResponse, HashKvResponse,
    LeaseGrantResponse, LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseTimeToLiveResponse,
    MemberListResponse, PutResponse, RangeResponse, StatusResponse, TxnResponse, WatchResponse,
    response_op::Response,
};
use quorate_proto::mvccpb::KeyValue;

use super::{At, Header, Health, Printer, quoted, simple};

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn line(&mut self, name: &str, value: impl Display) -> &mut Self {
        let _ = writeln!(self.0, "\"{name}\" : {value}");
        self
    }

    fn quoted(&mut self, name: &str, value: impl AsRef<[u8]>) -> &mut Self {
        self.line(name, quoted(value.as_ref()))
    }

    fn lease(&mut self, printer: &Printer, name: &str, id: i64) -> &mut Self {
        match printer.hex {
            true => self.line(name, format_args!("{id:016x}")),
            false => self.line(name, id),
        }
    }

    fn id(&mut self, printer: &Printer, name: &str, id: u64) -> &mut Self {
        match printer.hex {
            true => self.line(name, format_args!("{id:x}")),
            false => self.line(name, id),
        }
    }

    /// Responses about keys have a revision, others do not.
    fn header(&mut self, printer: &Printer, header: Header<'_>) -> &mut Self {
        let header = header.cloned().unwrap_or_default();
        self.id(printer, "ClusterID", header.cluster_id);
        self.id(printer, "MemberID", header.member_id);
        if header.revision > 0 {
            self.line("Revision", header.revision);
        }
        self.line("RaftTerm", header.raft_term)
    }

    fn key_value(&mut self, printer: &Printer, prefix: &str, kv: &KeyValue) -> &mut Self {
        let name = |name: &str| format!("{prefix}{name}");
        self.quoted(&name("Key"), &kv.key)
            .line(&name("CreateRevision"), kv.create_revision)
            .line(&name("ModRevision"), kv.mod_revision)
            .line(&name("Version"), kv.version)
            .quoted(&name("Value"), &kv.value)
            .lease(printer, &name("Lease"), kv.lease)
    }

    fn end(&mut self) {
        self.0.push('\n');
    }
}

pub fn header(printer: &Printer, header: Header<'_>) -> String {
    let mut lines = Lines::default();
    lines.header(printer, header);
    lines.0
}

pub fn put(printer: &Printer, response: &PutResponse) -> String {
    let mut lines = Lines::default();
    lines.header(printer, response.header.as_ref());
    if let Some(kv) = &response.prev_kv {
        lines.key_value(printer, "Prev", kv);
    }
    lines.0
}

pub fn get(printer: &Printer, response: &RangeResponse) -> String {
    let mut lines = Lines::default();
    lines.header(printer, response.header.as_ref());
    for kv in &response.kvs {
        lines.key_value(printer, "", kv);
    }
    lines.line("More", response.more).line("Count", response.count);
    lines.0
}

pub fn del(printer: &Printer, response: &DeleteRangeResponse) -> String {
    let mut lines = Lines::default();
    lines.header(printer, response.header.as_ref()).line("Deleted", response.deleted);
    for kv in &response.prev_kvs {
        lines.key_value(printer, "Prev", kv);
    }
    lines.0
}

pub fn txn(printer: &Printer, response: &TxnResponse) -> String {
    let mut lines = Lines::default();
    lines.header(printer, response.header.as_ref()).line("Succeeded", response.succeeded);
    let mut text = lines.0;
    for op in &response.responses {
        text.push_str(&match &op.response {
            Some(Response::ResponseRange(range)) => get(printer, range),
            Some(Response::ResponsePut(one)) => put(printer, one),
            Some(Response::ResponseDeleteRange(one)) => del(printer, one),
            _ => "\"Unknown\" : \"\"\n".into(),
        });
    }
    text
}

pub fn watch(printer: &Printer, response: &WatchResponse) -> String {
    let mut lines = Lines::default();
    lines.header(printer, response.header.as_ref());
    for event in &response.events {
        lines.line("Type", simple::event_type(event.r#type));
        if let Some(kv) = &event.prev_kv {
            lines.key_value(printer, "Prev", kv);
        }
        lines.key_value(printer, "", event.kv.as_ref().unwrap_or(&KeyValue::default()));
    }
    lines.0
}

pub fn grant(printer: &Printer, response: &LeaseGrantResponse) -> String {
    let mut lines = Lines::default();
    lines.header(printer, response.header.as_ref()).lease(printer, "ID", response.id);
    lines.line("TTL", response.ttl);
    lines.0
}

pub fn keep_alive(printer: &Printer, response: &LeaseKeepAliveResponse) -> String {
    let mut lines = Lines::default();
    lines.header(printer, response.header.as_ref()).lease(printer, "ID", response.id);
    lines.line("TTL", response.ttl);
    lines.0
}

pub fn time_to_live(printer: &Printer, response: &LeaseTimeToLiveResponse) -> String {
    let mut lines = Lines::default();
    lines.header(printer, response.header.as_ref()).lease(printer, "ID", response.id);
    lines.line("TTL", response.ttl).line("GrantedTTL", response.granted_ttl);
    for key in &response.keys {
        lines.quoted("Key", key);
    }
    lines.0
}

pub fn leases(printer: &Printer, response: &LeaseLeasesResponse) -> String {
    let mut lines = Lines::default();
    lines.header(printer, response.header.as_ref());
    for lease in &response.leases {
        lines.lease(printer, "ID", lease.id);
    }
    lines.0
}

pub fn alarms(printer: &Printer, response: &AlarmResponse) -> String {
    let mut lines = Lines::default();
    lines.header(printer, response.header.as_ref());
    for alarm in &response.alarms {
        lines.id(printer, "MemberID", alarm.member_id);
        lines.line("AlarmType", alarm.alarm().as_str_name()).end();
    }
    lines.0
}

pub fn members(printer: &Printer, response: &MemberListResponse) -> String {
    let mut lines = Lines::default();
    lines.header(printer, response.header.as_ref());
    for member in &response.members {
        lines.id(printer, "ID", member.id).quoted("Name", &member.name);
        for url in &member.peer_urls {
            lines.quoted("PeerURL", url);
        }
        for url in &member.client_urls {
            lines.quoted("ClientURL", url);
        }
        lines.line("IsLearner", member.is_learner).end();
    }
    lines.0
}

pub fn health(all: &[Health]) -> String {
    let mut lines = Lines::default();
    for one in all {
        lines.quoted("Endpoint", &one.endpoint).line("Health", one.healthy);
        lines.line("Took", &one.took).line("Error", &one.error).end();
    }
    lines.0
}

pub fn status(printer: &Printer, all: &[At<StatusResponse>]) -> String {
    let mut lines = Lines::default();
    for At { endpoint, response } in all {
        let downgrade = response.downgrade_info.clone().unwrap_or_default();
        lines
            .header(printer, response.header.as_ref())
            .quoted("Version", &response.version)
            .quoted("StorageVersion", &response.storage_version)
            .line("DBSize", response.db_size)
            .line("DBSizeInUse", response.db_size_in_use)
            .line("DBSizeQuota", response.db_size_quota)
            .line("Leader", response.leader)
            .line("IsLearner", response.is_learner)
            .line("RaftIndex", response.raft_index)
            .line("RaftAppliedIndex", response.raft_applied_index)
            .line("Errors", format_args!("[{}]", response.errors.join(" ")))
            .quoted("Endpoint", endpoint)
            .quoted("DowngradeTargetVersion", &downgrade.target_version)
            .line("DowngradeEnabled", downgrade.enabled)
            .end();
    }
    lines.0
}

pub fn hash_kv(printer: &Printer, all: &[At<HashKvResponse>]) -> String {
    let mut lines = Lines::default();
    for At { endpoint, response } in all {
        lines.header(printer, response.header.as_ref()).quoted("Endpoint", endpoint);
        lines.line("Hash", response.hash).line("HashRevision", response.hash_revision).end();
    }
    lines.0
}

pub fn role(printer: &Printer, response: &AuthRoleGetResponse) -> String {
    let mut lines = Lines::default();
    lines.header(printer, response.header.as_ref());
    for permission in &response.perm {
        // etcdctl writes two spaces here.
        lines.line("PermType", format_args!(" {}", permission.perm_type().as_str_name()));
        lines.quoted("Key", &permission.key).quoted("RangeEnd", &permission.range_end);
    }
    lines.0
}

pub fn roles(printer: &Printer, response: &AuthRoleListResponse) -> String {
    let mut text = header(printer, response.header.as_ref()) + "\"Roles\" :";
    for role in &response.roles {
        let _ = write!(text, " {}", quoted(role.as_bytes()));
    }
    text + "\n"
}
