//! One log and a record of everything written to it: the steps of a history, power cuts at any disk
//! operation, and the check of what recovery finds. Shared with the fuzz targets; independent of how the
//! steps are generated.
//!
//! The model is the list of records written, and how many of them are certainly durable. The state found
//! after a power cut must equal that of some prefix of the list, which has at least the durable records.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use quorate_proto::{etcdserverpb::Metadata, raftpb, walpb};

use super::disk::MemDisk;
use crate::wal::{Options, Recovered, Save, Wal, WalError};

pub const DIR: &str = "/member/wal";
pub const METADATA: Metadata = Metadata { node_id: 7, cluster_id: 9 };
/// Small enough that a few saves cut a segment.
pub const SMALL: Options = Options { segment_bytes: 2_048, write_bytes_max: 1_024 };

pub fn create(disk: &MemDisk) -> Result<Wal, WalError> {
    Wal::create(Arc::new(disk.clone()), Path::new(DIR), &METADATA, SMALL)
}

pub fn open(disk: &MemDisk, at: walpb::Snapshot) -> Result<(Wal, Recovered), WalError> {
    Wal::open(Arc::new(disk.clone()), Path::new(DIR), at, SMALL)
}

pub fn at(index: u64) -> walpb::Snapshot {
    walpb::Snapshot { index, ..Default::default() }
}

pub fn entry(index: u64, term: u64, bytes: usize) -> raftpb::Entry {
    let data = vec![index as u8 | 0x80; bytes];
    raftpb::Entry { index, term, data: data.into(), ..Default::default() }
}

pub fn state(term: u64, commit: u64) -> raftpb::HardState {
    raftpb::HardState { term, vote: 3, commit }
}

pub fn mark(index: u64, term: u64) -> walpb::Snapshot {
    let conf_state = raftpb::ConfState { voters: vec![1, 2, 3], ..Default::default() };
    walpb::Snapshot { index, term, conf_state: Some(conf_state) }
}

#[derive(Clone, Debug)]
pub enum Step {
    /// Entries that go on after `overwrite` of the uncommitted ones, and a new commit index.
    Append {
        overwrite: u64,
        sizes: Vec<usize>,
        commit: u64,
        new_term: bool,
    },
    /// A mark at the commit index.
    Mark,
    /// A snapshot from the leader, this many entries ahead.
    Receive {
        ahead: u64,
    },
    Release,
    Prepare,
    Reopen,
    PowerCut,
}

#[derive(Clone, Debug)]
enum Written {
    Entry(raftpb::Entry),
    State(raftpb::HardState),
    Mark(walpb::Snapshot, bool),
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Expected {
    hard_state: raftpb::HardState,
    mark: walpb::Snapshot,
    entries: BTreeMap<u64, raftpb::Entry>,
}

#[derive(Clone, Debug, Default)]
struct Model {
    written: Vec<Written>,
    durable: usize,
    /// What the state has applied; never more than is durable and committed.
    applied: u64,
}

impl Model {
    /// The state that the first `count` records result in, with `applied` as the applied index.
    fn expected(&self, count: usize, applied: u64) -> Expected {
        let records = &self.written[..count];
        let states = records.iter().filter_map(|record| match record {
            Written::State(state) => Some(*state),
            _ => None,
        });
        let mut expected =
            Expected { hard_state: states.last().unwrap_or_default(), ..Default::default() };
        let reached = applied.max(expected.hard_state.commit);
        for record in records {
            match record {
                Written::Entry(entry) => {
                    expected.entries.split_off(&entry.index);
                    expected.entries.insert(entry.index, entry.clone());
                }
                Written::Mark(mark, received) if mark.index <= reached => {
                    if *received {
                        expected.entries.clear();
                    }
                    if mark.index <= applied && mark.index >= expected.mark.index {
                        expected.mark = mark.clone();
                    }
                }
                Written::Mark(..) | Written::State(_) => {}
            }
        }
        expected.entries.retain(|index, _| *index > expected.mark.index);
        expected
    }

    fn matches(&self, recovered: &Recovered, count: usize) -> bool {
        let expected = self.expected(count, self.applied);
        let entries: Vec<_> = expected.entries.into_values().collect();
        let hard_state = fitted(expected.hard_state, &expected.mark, &entries);
        (recovered.hard_state, &recovered.snapshot) == (hard_state, &expected.mark)
            && recovered.entries == entries
    }

    fn newest_state(&self) -> Expected {
        self.expected(self.written.len(), u64::MAX)
    }
}

/// A term is at least that of the newest entry or mark, even if the hard state that set it was lost.
fn fitted(
    state: raftpb::HardState,
    mark: &walpb::Snapshot,
    entries: &[raftpb::Entry],
) -> raftpb::HardState {
    let term = entries.last().map_or(mark.term, |entry| entry.term);
    let commit = state.commit.max(mark.index);
    if term > state.term {
        raftpb::HardState { term, vote: 0, commit }
    } else {
        raftpb::HardState { commit, ..state }
    }
}

pub struct World {
    pub disk: MemDisk,
    wal: Wal,
    model: Model,
}

impl World {
    pub fn new() -> Self {
        let disk = MemDisk::default();
        let wal = create(&disk).expect("the disk works");
        Self { disk, wal, model: Model::default() }
    }

    /// Takes a step; false when the disk has failed.
    pub fn step(&mut self, step: &Step) -> bool {
        let saves = match step {
            Step::Release => return self.wal.release(self.model.applied.into()).is_ok(),
            Step::Prepare => return self.wal.prepare().is_ok(),
            Step::Reopen => return self.reopen(),
            Step::PowerCut => return false,
            Step::Append { overwrite, sizes, commit, new_term } => {
                self.append(*overwrite, sizes, *commit, *new_term)
            }
            Step::Mark => {
                let now = self.model.newest_state();
                let Some(last) = now.entries.get(&self.model.applied) else { return true };
                let mark = mark(last.index, last.term);
                self.model.written.push(Written::Mark(mark.clone(), false));
                vec![Save::Snapshot(mark)]
            }
            Step::Receive { ahead } => {
                let now = self.model.newest_state();
                let last = now.entries.last_key_value().map_or(now.mark.index, |(index, _)| *index);
                let state = state(now.hard_state.term.max(1), last + ahead);
                let mark = mark(state.commit, state.term);
                self.model.written.push(Written::Mark(mark.clone(), true));
                self.model.written.push(Written::State(state));
                vec![
                    Save::Snapshot(mark),
                    Save::Entries { hard_state: Some(state), entries: Vec::new() },
                ]
            }
        };
        self.save(&saves)
    }

    fn append(
        &mut self,
        overwrite: u64,
        sizes: &[usize],
        commit: u64,
        new_term: bool,
    ) -> Vec<Save> {
        let now = self.model.newest_state();
        let last = now.entries.last_key_value().map_or(now.mark.index, |(index, _)| *index);
        let old = now.hard_state;
        let start = last.saturating_sub(overwrite).max(old.commit);
        let term = old.term.max(1) + u64::from(new_term || start < last);
        let mut saves = Vec::new();
        for (index, size) in (start + 1..).zip(sizes) {
            let state = state(term, (old.commit + commit).min(index));
            let entry = entry(index, term, *size);
            self.model.written.push(Written::Entry(entry.clone()));
            self.model.written.push(Written::State(state));
            saves.push(Save::Entries { hard_state: Some(state), entries: vec![entry] });
        }
        saves
    }

    fn save(&mut self, saves: &[Save]) -> bool {
        let Ok(stats) = self.wal.save(saves) else { return false };
        if stats.fsync {
            self.model.durable = self.model.written.len();
            self.model.applied = self.model.newest_state().hard_state.commit;
        }
        true
    }

    pub fn reopen(&mut self) -> bool {
        if self.wal.sync().is_err() {
            return false;
        }
        self.model.durable = self.model.written.len();
        let Ok((wal, recovered)) = open(&self.disk, at(self.model.applied)) else { return false };
        assert_eq!(recovered.repaired, None);
        assert!(self.model.matches(&recovered, self.model.durable), "{recovered:#?}");
        self.wal = wal;
        true
    }

    /// Opens the log after a power cut and checks what is found. Returns whether recovery cut anything.
    pub fn recover(&mut self) -> Result<bool, WalError> {
        let marks = Wal::snapshots(&self.disk, Path::new(DIR), SMALL)?;
        let newest = marks.iter().map(|mark| mark.index).max().unwrap_or_default();
        self.model.applied = self.model.applied.max(newest);
        let (wal, recovered) = open(&self.disk, at(self.model.applied))?;
        self.wal = wal;
        let counts = self.model.durable..=self.model.written.len();
        let count = counts.into_iter().find(|count| self.model.matches(&recovered, *count));
        let count = count.unwrap_or_else(|| {
            panic!("nothing written says {recovered:#?}\n{:#?}", self.model);
        });
        self.model.written.truncate(count);
        self.model.durable = count;
        if recovered.hard_state.term > 0 {
            self.model.written.push(Written::State(recovered.hard_state));
        }
        Ok(recovered.repaired.is_some())
    }
}

/// A power cut that loses the sectors and names chosen by `seed`.
pub fn crash(disk: &MemDisk, mut seed: u64) {
    disk.crash(|n| {
        // splitmix64
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((z ^ (z >> 27)) % n as u64) as usize
    });
}
