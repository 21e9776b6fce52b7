//! The log: files that another program wrote or that were damaged, and histories with power cuts.

use std::path::Path;

use arbitrary::Arbitrary;
use quorate::env::Disk;
use quorate_proto::raftpb;

use crate::disk::MemDisk;
use crate::wal::{Save, Wal, WalError};
use crate::world::{DIR, SMALL, Step, World, at, create, entry, mark, open, state};
use crate::{noises, structured, world};

/// A segment of any bytes: it opens, or is refused; what was opened opens again with the same entries.
pub fn bytes(input: &[u8]) {
    let disk = MemDisk::default();
    drop(create(&disk).expect("the disk works"));
    let name = Disk::list(&disk, Path::new(DIR)).expect("the folder is there");
    let first = name.first().expect("a log has a segment");
    disk.put(&Path::new(DIR).join(first), input.to_vec());
    let _ = Wal::snapshots(&disk, Path::new(DIR), SMALL);
    let Ok((mut wal, recovered)) = open(&disk, at(0)) else { return };
    let last = recovered.entries.last().map_or(recovered.snapshot.index, |entry| entry.index);
    let term = recovered.hard_state.term.max(1);
    if last < u64::MAX && term < u64::MAX {
        let hard_state = Some(state(term, recovered.hard_state.commit));
        let entries = vec![entry(last + 1, term, 9)];
        wal.save(&[Save::Entries { hard_state, entries }]).expect("the disk works");
        drop(wal);
        let (_, again) = open(&disk, at(0)).expect("it opened before");
        let before = &again.entries[..again.entries.len() - 1];
        assert_eq!(before, recovered.entries, "entries changed");
        assert!(again.repaired.is_none(), "a repaired log is whole");
    }
}

pub fn byte_seeds() -> Vec<Vec<u8>> {
    let histories: [&[Save]; 3] = [
        &[],
        &[Save::Entries {
            hard_state: Some(state(1, 1)),
            entries: vec![entry(1, 1, 20), entry(2, 1, 300)],
        }],
        &[
            Save::Entries {
                hard_state: Some(raftpb::HardState { term: 2, vote: 1, commit: 2 }),
                entries: (1..6).map(|index| entry(index, 2, 3)).collect(),
            },
            Save::Snapshot(mark(2, 2)),
            Save::Entries { hard_state: Some(state(3, 3)), entries: vec![entry(4, 3, 9)] },
        ],
    ];
    histories
        .iter()
        .map(|history| {
            let disk = MemDisk::default();
            let mut wal = create(&disk).expect("the disk works");
            wal.save(history).expect("the disk works");
            let names = Disk::list(&disk, Path::new(DIR)).expect("the folder is there");
            disk.read(&Path::new(DIR).join(&names[0]))
        })
        .collect()
}

/// Steps until the power goes.
#[derive(Arbitrary, Debug)]
struct Life {
    steps: Vec<Action>,
    operations: u8,
    seed: u64,
}

#[derive(Arbitrary, Debug)]
enum Action {
    Append { overwrite: u8, sizes: Vec<u16>, commit: u8, new_term: bool },
    Mark,
    Receive(u8),
    Release,
    Prepare,
    Reopen,
    PowerCut,
}

/// A log that was closed, and one bit of it.
#[derive(Arbitrary, Debug)]
struct Decay {
    steps: Vec<Action>,
    segment: u8,
    bit: u32,
}

/// A bit that flips in what was durable is refused, or is one that means nothing.
pub fn damage(input: &[u8]) {
    let Some(Decay { steps, segment, bit }) = structured(input) else { return };
    let mut log = World::new();
    for action in steps.into_iter().take(40).filter(|action| !matches!(action, Action::PowerCut)) {
        assert!(log.step(&step(action)), "the disk works");
    }
    assert!(log.reopen(), "the log is whole");
    let disk = log.disk.fork();
    let marks = Wal::snapshots(&disk, Path::new(DIR), SMALL).expect("the log is whole");
    let newest = at(marks.iter().map(|mark| mark.index).max().unwrap_or_default());
    let (_, whole) = open(&disk.fork(), newest.clone()).expect("the log is whole");
    let names = Disk::list(&disk, Path::new(DIR)).expect("the folder is there");
    let segments: Vec<_> = names.iter().filter(|name| name.ends_with(".wal")).collect();
    let path = Path::new(DIR).join(segments[usize::from(segment) % segments.len()]);
    let mut data = disk.read(&path);
    let used = data.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let bit = bit as usize % (used * 8);
    data[bit / 8] ^= 1 << (bit % 8);
    disk.put(&path, data);
    match open(&disk, newest) {
        Ok((_, found)) => assert_eq!(found, whole, "bit {bit} of {}", path.display()),
        Err(WalError::Damaged { .. } | WalError::Unfit { .. }) => {}
        Err(other) => panic!("bit {bit} of {}: {other}", path.display()),
    }
}

pub fn damage_seeds() -> Vec<Vec<u8>> {
    noises()
}

/// Any history with power cuts keeps what was acknowledged.
pub fn power(input: &[u8]) {
    let Some(lives) = structured::<Vec<Life>>(input) else { return };
    let mut log = World::new();
    for life in lives.into_iter().take(6) {
        log.disk.fail_after(usize::from(life.operations));
        for action in life.steps.into_iter().take(24) {
            if !log.step(&step(action)) {
                break;
            }
        }
        world::crash(&log.disk, life.seed);
        match log.recover() {
            Ok(_) => {}
            Err(WalError::Absent(_)) => return,
            Err(other) => panic!("a power cut keeps the log from opening: {other}"),
        }
    }
}

fn step(action: Action) -> Step {
    match action {
        Action::Append { overwrite, sizes, commit, new_term } => Step::Append {
            overwrite: u64::from(overwrite % 4),
            sizes: sizes.into_iter().take(8).map(|size| usize::from(size % 3_000)).collect(),
            commit: u64::from(commit % 6),
            new_term: new_term && overwrite > 200,
        },
        Action::Mark => Step::Mark,
        Action::Receive(ahead) => Step::Receive { ahead: u64::from(ahead % 8) + 1 },
        Action::Release => Step::Release,
        Action::Prepare => Step::Prepare,
        Action::Reopen => Step::Reopen,
        Action::PowerCut => Step::PowerCut,
    }
}

pub fn power_seeds() -> Vec<Vec<u8>> {
    noises()
}
