//! `/debug/vars`: command line and raft status, in the form of Go's `expvar`. Go's memory statistics are not
//! there; `/metrics` has those of the process.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};

use super::pprof::Profiler;
use crate::types::MemberId;

/// Facts about the process.
#[derive(Clone, Default)]
pub struct Process {
    /// The program's name and its arguments.
    pub command_line: Vec<String>,
    /// Files that may be open at a time.
    pub files_max: u64,
    /// Takes profiles, if they are enabled.
    pub profiler: Option<Arc<dyn Profiler>>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let profiler = self.profiler.is_some();
        let mut process = f.debug_struct("Process");
        process.field("command_line", &self.command_line).field("files_max", &self.files_max);
        process.field("profiler", &profiler).finish()
    }
}

/// The status of raft, from [`super::Served`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Raft {
    pub id: MemberId,
    pub term: u64,
    pub commit: u64,
    pub applied: u64,
    pub leader: MemberId,
    pub state: &'static str,
    /// Progress of the members' logs, known to the leader.
    pub progress: BTreeMap<MemberId, u64>,
}

/// Returns the page: names in order, a line each.
pub(super) fn page(process: &Process, raft: &Raft) -> String {
    let Process { command_line, files_max, .. } = process;
    format!(
        "{{\n\"cmdline\": {},\n\"file_descriptor_limit\": {files_max},\n\"raft.status\": {}\n}}\n",
        json!(command_line),
        status(raft)
    )
}

/// Fields in etcd's order, which a map would not keep.
fn status(raft: &Raft) -> String {
    let Raft { id, term, commit, applied, leader, state, progress } = raft;
    let progress: Vec<String> = progress
        .iter()
        .map(|(id, matched)| format!("\"{id}\":{}", json!({ "match": matched })))
        .collect();
    format!(
        "{{\"id\":\"{id}\",\"term\":{term},\"commit\":{commit},\"lead\":\"{leader}\",\"raftState\":{},\
         \"applied\":{applied},\"progress\":{{{}}}}}",
        Value::from(*state),
        progress.join(",")
    )
}
