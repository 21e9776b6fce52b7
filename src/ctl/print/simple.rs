//! The format for people and scripts: one line, or a key and its value on two.

use std::fmt::Write as _;

use quorate_proto::authpb::{Permission, permission::Type};
use quorate_proto::etcdserverpb::{
    AlarmResponse, AuthRoleGetResponse, DeleteRangeResponse, LeaseGrantResponse,
    LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseTimeToLiveResponse, MemberAddResponse,
    PutResponse, RangeResponse, TxnResponse, WatchResponse, response_op::Response,
};
use quorate_proto::mvccpb::{KeyValue, event::EventType};

use super::Printer;
use crate::ctl::commands::prefix_end;
use crate::tool::raw;

pub fn put(printer: &Printer, response: &PutResponse) -> String {
    let previous = response.prev_kv.as_ref().map(|kv| key_value(printer, kv));
    format!("OK\n{}", previous.unwrap_or_default())
}

pub fn get(printer: &Printer, response: &RangeResponse) -> String {
    response.kvs.iter().map(|kv| key_value(printer, kv)).collect()
}

pub fn del(printer: &Printer, response: &DeleteRangeResponse) -> String {
    let previous: String = response.prev_kvs.iter().map(|kv| key_value(printer, kv)).collect();
    format!("{}\n{previous}", response.deleted)
}

pub fn txn(printer: &Printer, response: &TxnResponse) -> String {
    let mut text = String::from(if response.succeeded { "SUCCESS\n" } else { "FAILURE\n" });
    for op in &response.responses {
        text.push('\n');
        text.push_str(&match &op.response {
            Some(Response::ResponseRange(range)) => get(printer, range),
            Some(Response::ResponsePut(one)) => put(printer, one),
            Some(Response::ResponseDeleteRange(one)) => del(printer, one),
            _ => "unexpected response\n".into(),
        });
    }
    text
}

pub fn watch(printer: &Printer, response: &WatchResponse) -> String {
    let mut text = String::new();
    for event in &response.events {
        text.push_str(event_type(event.r#type));
        text.push('\n');
        for kv in event.prev_kv.iter().chain(&event.kv) {
            text.push_str(&key_value(printer, kv));
        }
    }
    text
}

pub fn event_type(number: i32) -> &'static str {
    match EventType::try_from(number) {
        Ok(EventType::Put) => "PUT",
        Ok(EventType::Delete) => "DELETE",
        Err(_) => "UNKNOWN",
    }
}

pub fn grant(_: &Printer, response: &LeaseGrantResponse) -> String {
    format!("lease {:016x} granted with TTL({}s)\n", response.id, response.ttl)
}

pub fn keep_alive(_: &Printer, response: &LeaseKeepAliveResponse) -> String {
    format!("lease {:016x} keepalived with TTL({})\n", response.id, response.ttl)
}

pub fn time_to_live(response: &LeaseTimeToLiveResponse, keys: bool) -> String {
    let (id, granted, ttl) = (response.id, response.granted_ttl, response.ttl);
    if granted == 0 && ttl == -1 {
        return format!("lease {id:016x} already expired\n");
    }
    let mut text = format!("lease {id:016x} granted with TTL({granted}s), remaining({ttl}s)");
    if keys {
        let keys: Vec<_> = response.keys.iter().map(|key| raw::text(key)).collect();
        let _ = write!(text, ", attached keys([{}])", keys.join(" "));
    }
    text + "\n"
}

pub fn leases(_: &Printer, response: &LeaseLeasesResponse) -> String {
    let mut text = format!("found {} leases\n", response.leases.len());
    for lease in &response.leases {
        let _ = writeln!(text, "{:016x}", lease.id);
    }
    text
}

pub fn alarms(_: &Printer, response: &AlarmResponse) -> String {
    let line = |alarm: &quorate_proto::etcdserverpb::AlarmMember| {
        format!("memberID:{} alarm:{}\n", alarm.member_id, alarm.alarm().as_str_name())
    };
    response.alarms.iter().map(line).collect()
}

pub fn member_add(response: &MemberAddResponse) -> String {
    let member = response.member.as_ref();
    let id = member.map_or(0, |member| member.id);
    let learner = member.is_some_and(|member| member.is_learner);
    let how = if learner { " as learner " } else { " " };
    let cluster = response.header.as_ref().map_or(0, |header| header.cluster_id);
    format!("Member {id:16x} added{how}to cluster {cluster:16x}\n")
}

pub fn role(role: &str, response: &AuthRoleGetResponse) -> String {
    let mut text = format!("Role {}\n", raw::text(role.as_bytes()));
    if role == "root" && response.perm.is_empty() {
        return text + "KV Read:\n\t[, <open ended>\nKV Write:\n\t[, <open ended>\n";
    }
    for (title, kind) in [("KV Read:\n", Type::Read), ("KV Write:\n", Type::Write)] {
        text.push_str(title);
        let applies = |perm: &&Permission| [kind, Type::Readwrite].contains(&perm.perm_type());
        for permission in response.perm.iter().filter(applies) {
            let (key, end) = (raw::text(&permission.key), raw::text(&permission.range_end));
            let _ = match &*permission.range_end {
                [] => write!(text, "\t{key}"),
                [0] => write!(text, "\t[{key}, <open ended>"),
                _ => write!(text, "\t[{key}, {end})"),
            };
            let is_prefix = !permission.range_end.is_empty()
                && !permission.key.is_empty()
                && prefix_end(&permission.key) == permission.range_end;
            if is_prefix {
                let _ = write!(text, " (prefix {key})");
            }
            text.push('\n');
        }
    }
    text
}

pub fn names(names: &[String]) -> String {
    names.iter().map(|name| raw::text(name.as_bytes()) + "\n").collect()
}

/// Prints a key and its value on one line each, unescaped.
fn key_value(printer: &Printer, kv: &KeyValue) -> String {
    let text = |bytes: &[u8]| match printer.hex {
        true => bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect(),
        false => raw::text(bytes),
    };
    let value = text(&kv.value);
    if printer.value_only { format!("{value}\n") } else { format!("{}\n{value}\n", text(&kv.key)) }
}
