//! Rows and columns: joined by commas in the simple format, framed in the format `table`.

use quorate_proto::etcdserverpb::{HashKvResponse, MemberListResponse, StatusResponse};

use super::{At, Health};
use crate::codec::humanize;

pub struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

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

impl Table {
    /// The cells of each row on a line.
    pub fn lines(&self) -> String {
        self.rows.iter().map(|row| row.join(", ") + "\n").collect()
    }

    /// A frame of lines around the cells: titles in capitals and centered, cells to the right.
    pub fn grid(&self) -> String {
        let titles: Vec<_> =
            self.header.iter().map(|title| title.to_uppercase().replace('_', " ")).collect();
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.chain([titles[column].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..titles.len()).map(width).collect();
        let rule = |left: char, cross: &str, right: char| {
            let bars: Vec<_> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
            format!("{left}{}{right}\n", bars.join(cross))
        };
        let line = |cells: &[String], align: fn(&str, usize) -> String| {
            let cells: Vec<_> = cells.iter().zip(&widths).map(|(c, w)| align(c, *w)).collect();
            format!("│ {} │\n", cells.join(" │ "))
        };
        let mut text = rule('┌', "┬", '┐');
        text.push_str(&line(&titles, |cell, width| format!("{cell:^width$}")));
        text.push_str(&rule('├', "┼", '┤'));
        for row in &self.rows {
            text.push_str(&line(row, |cell, width| format!("{cell:>width$}")));
        }
        text + &rule('└', "┴", '┘')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_stand_in_a_frame() {
        let table = Table {
            header: vec!["ID", "Is Learner"],
            rows: vec![vec!["8e9e".into(), "false".into()]],
        };
        let expected = "\
┌──────┬────────────┐
│  ID  │ IS LEARNER │
├──────┼────────────┤
│ 8e9e │      false │
└──────┴────────────┘
";
        assert_eq!(table.grid(), expected);
        assert_eq!(table.lines(), "8e9e, false\n");
    }
}
