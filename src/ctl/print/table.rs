//! Responses as rows and columns: joined by commas in the simple format, framed in the format `table`.

use quorate_proto::etcdserverpb::{HashKvResponse, MemberListResponse, StatusResponse};

use super::{At, Health};
use crate::codec::humanize;
use crate::tool::grid::Table;

pub fn members(response: &MemberListResponse) -> Table {
    let header = vec!["ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner"];
    let row = |member: &quorate_proto::etcdserverpb::Member| {
        vec![
            format!("{:x}", member.id),
            if member.name.is_empty() { "unstarted".into() } else { "started".into() },
            member.name.clone(),
            member.peer_urls.join(","),
            member.client_urls.join(","),
            member.is_learner.to_string(),
        ]
    };
    Table { header, rows: response.members.iter().map(row).collect() }
}

pub fn health(all: &[Health]) -> Table {
    let row = |one: &Health| {
        vec![one.endpoint.clone(), one.healthy.to_string(), one.took.clone(), one.error.clone()]
    };
    Table {
        header: vec!["endpoint", "health", "took", "error"],
        rows: all.iter().map(row).collect(),
    }
}

pub fn status(all: &[At<StatusResponse>]) -> Table {
    let header = vec![
        "endpoint",
        "ID",
        "version",
        "storage version",
        "db size",
        "in use",
        "percentage not in use",
        "quota",
        "is leader",
        "is learner",
        "raft term",
        "raft index",
        "raft applied index",
        "errors",
        "downgrade target version",
        "downgrade enabled",
    ];
    let row = |At { endpoint, response }: &At<StatusResponse>| {
        let id = response.header.as_ref().map_or(0, |header| header.member_id);
        let (size, in_use) = (response.db_size, response.db_size_in_use);
        let unused = in_use.saturating_mul(100).checked_div(size).map_or(0, |used| 100 - used);
        let downgrade = response.downgrade_info.clone().unwrap_or_default();
        // Sizes that are not set are -1, which etcdctl converts to an unsigned number.
        let size_text = |bytes: i64| humanize(bytes as u64);
        vec![
            endpoint.clone(),
            format!("{id:x}"),
            response.version.clone(),
            response.storage_version.clone(),
            size_text(size),
            size_text(in_use),
            format!("{unused}%"),
            size_text(response.db_size_quota),
            (response.leader == id).to_string(),
            response.is_learner.to_string(),
            response.raft_term.to_string(),
            response.raft_index.to_string(),
            response.raft_applied_index.to_string(),
            response.errors.join(", "),
            downgrade.target_version,
            downgrade.enabled.to_string(),
        ]
    };
    Table { header, rows: all.iter().map(row).collect() }
}

pub fn hash_kv(all: &[At<HashKvResponse>]) -> Table {
    let row = |At { endpoint, response }: &At<HashKvResponse>| {
        vec![endpoint.clone(), response.hash.to_string(), response.hash_revision.to_string()]
    };
    Table { header: vec!["endpoint", "hash", "hash_revision"], rows: all.iter().map(row).collect() }
}
