//! What observers see of members from outside: their pages of figures, the lines they log, what their
//! disks hold. Part of the evidence; deciding is for the checkers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use quorate_proto::etcdserverpb::HashKvResponse;
use quorate_proto::otlp::trace::v1::Span;
use tracing::Level;

/// All of it.
#[derive(Default)]
pub struct Seen {
    pub pages: Vec<Page>,
    /// Lines that are warnings or worse.
    pub lines: Vec<LogLine>,
    /// Members that became leaders, as they logged it.
    pub reigns: Vec<Reign>,
    pub hashes: Vec<Hash>,
    /// Logs as they lay on the platter, in the order in which they were looked at.
    pub logs: Vec<DiskLog>,
    /// States as they lay on disk.
    pub stores: Vec<DiskStore>,
    /// Spans, in the order in which the collector received them, and when; some twice.
    pub spans: Vec<(Instant, Span)>,
    /// Members that were given other peer URLs, in the order of the calls.
    pub updates: Vec<Update>,
    /// What was done to disks, by host.
    pub harm: BTreeMap<String, Harm>,
}

/// A member's figures at one moment, by the names under which `/metrics` has them.
#[derive(Clone, Debug)]
pub struct Page {
    pub at: Instant,
    pub host: String,
    pub figures: BTreeMap<String, f64>,
}

/// A line that a server logged.
#[derive(Clone, Debug)]
pub struct LogLine {
    pub at: Duration,
    pub host: String,
    pub level: Level,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reign {
    pub at: Duration,
    pub host: String,
    pub term: u64,
}

/// A member's fingerprint of its history.
#[derive(Clone, Debug)]
pub struct Hash {
    pub at: Instant,
    pub host: String,
    /// How many times the host's disk had been replaced by then.
    pub disk: u64,
    pub answer: HashKvResponse,
}

/// A member's log, without the data of its entries.
#[derive(Clone, Debug, Default)]
pub struct DiskLog {
    pub at: Duration,
    pub host: String,
    /// How many times the host's disk had been replaced by then.
    pub disk: u64,
    pub member: u64,
    pub cluster: u64,
    pub term: u64,
    pub vote: u64,
    pub commit: u64,
    /// The index before the first of `lines`.
    pub base: u64,
    pub lines: Vec<Line>,
    /// Its votes, by term.
    pub votes: Vec<(u64, u64)>,
}

/// Where a member's state stood on disk.
#[derive(Clone, Debug)]
pub struct DiskStore {
    pub at: Duration,
    pub host: String,
    pub disk: u64,
    pub applied: u64,
    pub term: u64,
    pub revision: i64,
}

/// An entry without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    pub index: u64,
    pub term: u64,
    /// Of type and data.
    pub digest: u64,
}

/// A call that gave a member other peer URLs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    pub id: u64,
    pub urls: Vec<String>,
    /// Whether it is known to have been done.
    pub sure: bool,
}

/// What was done to a disk that a sound one does not do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Harm {
    /// Calls that failed because they were made to, or because the disk was full.
    pub failed: u64,
    /// Bits that changed by themselves.
    pub rotten: u64,
    /// Times that it was replaced by an empty one.
    pub wiped: u64,
}

impl DiskLog {
    pub fn last(&self) -> u64 {
        self.base + self.lines.len() as u64
    }

    /// The entry of that index, if the log still has it.
    pub fn at_index(&self, index: u64) -> Option<Line> {
        let place = index.checked_sub(self.base + 1)?;
        self.lines.get(usize::try_from(place).ok()?).copied()
    }
}
