//! Random histories against a model, with power cuts at any operation of the disk.
//!
//! The model is the list of records written, and how many of them are certainly durable. Whatever is
//! found after a power cut must be what some prefix of that list says, not shorter than that.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use quorate_proto::{raftpb, walpb};

use super::super::{Recovered, Save, Wal, WalError};
use super::disk::MemDisk;
use super::{DIR, SMALL, at, create, entry, mark, open, state};

#[derive(Clone, Debug)]
enum Step {
    /// Entries that go on after `overwrite` of the uncommitted ones, and a new commit index.
    Append {
        overwrite: u64,
        sizes: Vec<usize>,
        commit: u64,
        new_term: bool,
    },
    /// A mark at the commit index.
    Mark,
    /// A snapshot from the leader, that far ahead.
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
    /// What the first `count` records say to a state that has applied `applied`.
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

/// A term is at least that of the newest entry or mark, even if its own hard state was lost.
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

struct World {
    disk: MemDisk,
    wal: Wal,
    model: Model,
}

impl World {
    fn new() -> Self {
        let disk = MemDisk::default();
        let wal = create(&disk).expect("the disk works");
        Self { disk, wal, model: Model::default() }
    }

    /// Takes a step; false when the disk has failed.
    fn step(&mut self, step: &Step) -> bool {
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

    fn reopen(&mut self) -> bool {
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

    /// Opens after a power cut, and checks what is found. Returns whether something was cut.
    fn recover(&mut self) -> Result<bool, WalError> {
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

fn step() -> impl Strategy<Value = Step> {
    let sizes = prop::collection::vec(
        prop_oneof![6 => 0..60_usize, 2 => 300..700_usize, 1 => 1_500..3_000_usize],
        1..8,
    );
    prop_oneof![
        10 => (0..4_u64, sizes, 0..6_u64, prop::bool::weighted(0.1)).prop_map(
            |(overwrite, sizes, commit, new_term)| Step::Append { overwrite, sizes, commit, new_term }
        ),
        2 => Just(Step::Mark),
        1 => (1..9_u64).prop_map(|ahead| Step::Receive { ahead }),
        2 => Just(Step::Release),
        1 => Just(Step::Prepare),
        2 => Just(Step::Reopen),
        2 => Just(Step::PowerCut),
    ]
}

/// A power cut with the sectors and names that `seed` picks.
fn crash(disk: &MemDisk, mut seed: u64) {
    disk.crash(|n| {
        // splitmix64
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((z ^ (z >> 27)) % n as u64) as usize
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn any_history_with_power_cuts_keeps_what_was_promised(
        lives in prop::collection::vec(
            (prop::collection::vec(step(), 1..20), 0..80_usize, any::<u64>()),
            1..5,
        ),
    ) {
        let mut world = World::new();
        for (steps, fail_after, seed) in lives {
            world.disk.fail_after(fail_after);
            for step in &steps {
                if !world.step(step) {
                    break;
                }
            }
            crash(&world.disk, seed);
            world.recover().expect("a power cut never keeps the log from opening");
        }
    }
}

/// Every operation of one history as the last one before the power goes.
#[test]
fn a_power_cut_at_any_operation_is_survived() {
    let append = |sizes: &[usize]| Step::Append {
        overwrite: 1,
        sizes: sizes.to_vec(),
        commit: 2,
        new_term: false,
    };
    let script = [
        append(&[10, 20, 600]),
        append(&[700, 900, 40]),
        Step::Mark,
        Step::Prepare,
        append(&[1_800]),
        Step::Receive { ahead: 3 },
        append(&[10, 2_500, 10]),
        Step::Mark,
        Step::Release,
        append(&[5, 5]),
    ];
    let mut cuts = 0;
    for operation in 0.. {
        let mut ended = true;
        for seed in 0..8 {
            let mut world = World::new();
            world.disk.fail_after(operation);
            ended &= script.iter().all(|step| world.step(step));
            crash(&world.disk, seed);
            cuts += u32::from(world.recover().expect("it opens"));
            // The end is where appending goes on.
            assert!(world.step(&append(&[30, 30])) && world.reopen());
        }
        if ended {
            break;
        }
    }
    assert!(cuts > 0, "some writes were torn");
}

/// The log appears whole, or not at all.
#[test]
fn a_power_cut_during_creation_leaves_no_half_log() {
    for operation in 0..12 {
        for seed in 0..8 {
            let disk = MemDisk::default();
            disk.fail_after(operation);
            let created = create(&disk).is_ok();
            crash(&disk, seed);
            match open(&disk, at(0)) {
                Ok((_, recovered)) => assert_eq!(recovered.entries, []),
                Err(WalError::Absent(_)) => {
                    assert!(!created, "a log that was created stays");
                    create(&disk).expect("a second attempt clears what the first has left");
                }
                Err(other) => panic!("operation {operation}: {other}"),
            }
        }
    }
}
