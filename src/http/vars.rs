//! `/debug/vars`: how the process was started and where consensus stands, in the form that Go's `expvar`
//! gives it. What Go's runtime says of its memory is not there; `/metrics` has the process's.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};

use super::pprof::Profiler;
use crate::types::MemberId;

/// What the program knows and the server does not.
#[derive(Clone, Default)]
pub struct Process {
    /// The program's name and its arguments.
    pub command_line: Vec<String>,
    /// Files that may be open at a time.
    pub files_max: u64,
    /// Where profiles come from, when they may be asked for.
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

/// Where consensus stands, as [`super::Served`] tells it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Raft {
    pub id: MemberId,
    pub term: u64,
    pub commit: u64,
    pub applied: u64,
    pub leader: MemberId,
    pub state: &'static str,
    /// How far members' logs have come, as their leader knows.
    pub progress: BTreeMap<MemberId, u64>,
}

/// The whole answer: names in order, a line each.
pub(super) fn page(process: &Process, raft: &Raft) -> String {
    let Process { command_line, files_max, .. } = process;
    format!(
        "{{\n\"cmdline\": {},\n\"file_descriptor_limit\": {files_max},\n\"raft.status\": {}\n}}\n",
        json!(command_line),
        status(raft)
    )
}

/// In the order in which etcd writes it, which no map keeps.
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
