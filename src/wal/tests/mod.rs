//! The log against a model, power cuts and damage, and a log written by etcd itself.

mod damage;
mod disk;
mod golden;
mod model;
mod world;

use std::path::Path;

use quorate_proto::{raftpb, walpb};

use super::{Options, Recovered, Save, Wal, WalError};
pub(crate) use disk::MemDisk;
use world::{DIR, METADATA, SMALL, at, create, entry, mark, open, state};

fn save(entries: Vec<raftpb::Entry>, hard_state: raftpb::HardState) -> Save {
    Save::Entries { hard_state: Some(hard_state), entries }
}

/// The files of the log's folder.
fn files(disk: &MemDisk) -> Vec<String> {
    crate::env::Disk::list(disk, Path::new(DIR)).expect("the folder is there")
}

#[test]
fn a_new_log_is_empty_and_its_own() {
    let disk = MemDisk::default();
    assert!(matches!(open(&disk, at(0)), Err(WalError::Absent(_))));
    drop(create(&disk).expect("the disk works"));
    assert!(matches!(create(&disk), Err(WalError::Exists(_))));
    let (_, recovered) = open(&disk, at(0)).expect("it is sound");
    let empty = Recovered {
        metadata: METADATA,
        hard_state: raftpb::HardState::default(),
        snapshot: walpb::Snapshot::default(),
        entries: Vec::new(),
        repaired: None,
    };
    assert_eq!(recovered, empty);
}

#[test]
fn later_entries_replace_earlier_ones() {
    let disk = MemDisk::default();
    let mut wal = create(&disk).expect("the disk works");
    let first = (1..=5).map(|index| entry(index, 1, 10)).collect();
    let second = (3..=4).map(|index| entry(index, 2, 20)).collect();
    wal.save(&[save(first, state(1, 2)), save(second, state(2, 2))]).expect("the disk works");
    let (_, recovered) = open(&disk, at(0)).expect("it is sound");
    let terms: Vec<_> = recovered.entries.iter().map(|entry| entry.term).collect();
    assert_eq!(terms, [1, 1, 2, 2]);
    assert_eq!(recovered.hard_state, state(2, 2));
}

#[test]
fn only_what_others_may_rely_on_waits_for_the_disk() {
    let disk = MemDisk::default();
    let mut wal = create(&disk).expect("the disk works");
    let mut fsync = |batch: &[Save]| wal.save(batch).expect("the disk works").fsync;
    assert!(!fsync(&[]));
    assert!(!fsync(&[Save::Entries { hard_state: None, entries: Vec::new() }]));
    assert!(fsync(&[save(vec![entry(1, 1, 1), entry(2, 1, 1)], state(1, 0))]));
    assert!(!fsync(&[save(Vec::new(), state(1, 1))]), "a commit index can be learned again");
    assert!(fsync(&[save(Vec::new(), state(2, 1))]), "a term");
    assert!(fsync(&[save(Vec::new(), raftpb::HardState { vote: 1, ..state(2, 1) })]), "a vote");
    assert!(fsync(&[Save::Snapshot(mark(1, 1))]));
}

#[test]
fn one_save_is_one_write_and_one_fsync() {
    let disk = MemDisk::default();
    let mut wal = create(&disk).expect("the disk works");
    let batch: Vec<_> = (1..=8).map(|i| save(vec![entry(i, 1, 20)], state(1, i - 1))).collect();
    let before = disk.operations();
    let stats = wal.save(&batch).expect("the disk works");
    assert_eq!(disk.operations() - before, 2);
    assert!(stats.fsync && stats.bytes > 8 * 20, "{stats:?}");
    assert!(stats.writing.is_zero() && stats.syncing.is_zero(), "there is no clock");
}

#[tokio::test]
async fn saves_say_how_long_they_took() {
    let disk = MemDisk::default();
    let mut wal = create(&disk).expect("the disk works").timed_by(crate::env::tokio::env().rt);
    let stats = wal.save(&[save(vec![entry(1, 1, 20)], state(1, 0))]).expect("the disk works");
    assert!(!stats.writing.is_zero() && !stats.syncing.is_zero(), "{stats:?}");
}

#[test]
fn a_record_may_be_longer_than_a_segment() {
    let disk = MemDisk::default();
    let mut wal = create(&disk).expect("the disk works");
    let large = vec![entry(1, 1, 10), entry(2, 1, 5_000), entry(3, 1, 10)];
    wal.save(&[save(large.clone(), state(1, 0))]).expect("the disk works");
    wal.save(&[save(vec![entry(4, 1, 10)], state(1, 3))]).expect("the disk works");
    let (_, recovered) = open(&disk, at(0)).expect("it is sound");
    assert_eq!(recovered.entries[..3], large);
    assert_eq!(recovered.entries.len(), 4);
    assert_eq!(
        files(&disk),
        ["0000000000000000-0000000000000000.wal", "0000000000000001-0000000000000004.wal"]
    );
}

/// On a disk that stalls each sync is a wait, and the first trip to the log prepares.
#[test]
fn the_next_segment_is_not_synced_before_it_is_needed() {
    let disk = MemDisk::default();
    let mut wal = create(&disk).expect("the disk works");
    let before = disk.operations();
    wal.prepare().expect("the disk works");
    assert_eq!(disk.operations() - before, 2, "it is created and allocated");
}

#[test]
fn release_keeps_what_the_newest_reached_mark_needs() {
    let disk = MemDisk::default();
    let mut wal = create(&disk).expect("the disk works");
    wal.prepare().expect("the disk works");
    for index in 1..=40 {
        wal.save(&[save(vec![entry(index, 1, 200)], state(1, index))]).expect("the disk works");
    }
    let before = files(&disk).len();
    assert!(before > 3);
    assert_eq!(wal.release(40.into()).expect("the disk works"), 0, "nothing is marked");
    wal.save(&[Save::Snapshot(mark(30, 1))]).expect("the disk works");
    assert_eq!(wal.release(29.into()).expect("the disk works"), 0, "the mark is not reached");
    let released = wal.release(40.into()).expect("the disk works");
    assert!(released > 0);
    assert_eq!(files(&disk).len(), before - released);
    let (_, recovered) = open(&disk, at(35)).expect("it is sound");
    assert_eq!(recovered.snapshot, mark(30, 1));
    let indexes: Vec<_> = recovered.entries.iter().map(|entry| entry.index).collect();
    assert_eq!(indexes, (31..=40).collect::<Vec<_>>());
    assert!(matches!(open(&disk, at(0)), Err(WalError::Unfit { .. })), "the beginning is gone");
}

#[test]
fn a_received_snapshot_replaces_the_log() {
    let disk = MemDisk::default();
    let mut wal = create(&disk).expect("the disk works");
    let old = (1..=9).map(|index| entry(index, 1, 10)).collect();
    wal.save(&[save(old, state(1, 4))]).expect("the disk works");
    let received = [Save::Snapshot(mark(7, 2)), save(vec![entry(8, 2, 10)], state(2, 7))];
    wal.save(&received).expect("the disk works");
    let marks = Wal::snapshots(&disk, Path::new(DIR), SMALL).expect("it is sound");
    assert_eq!(marks.last(), Some(&mark(7, 2)));
    assert!(matches!(open(&disk, at(4)), Err(WalError::Unfit { .. })), "install it first");
    let (_, recovered) = open(&disk, at(7)).expect("it is sound");
    assert_eq!(recovered.snapshot, mark(7, 2));
    assert_eq!(recovered.entries, [entry(8, 2, 10)], "entry 9 of term 1 is gone");
}

#[test]
fn a_received_snapshot_counts_only_with_the_hard_state_that_commits_it() {
    let disk = MemDisk::default();
    let mut wal = create(&disk).expect("the disk works");
    wal.save(&[save(vec![entry(1, 1, 10), entry(2, 1, 10)], state(1, 1))]).expect("works");
    wal.save(&[Save::Snapshot(mark(7, 2))]).expect("the disk works");
    drop(wal);
    // The process ends here. In its next life it goes on from its own log.
    let (mut wal, recovered) = open(&disk, at(1)).expect("it is sound");
    assert_eq!(recovered.entries, [entry(1, 1, 10), entry(2, 1, 10)]);
    let more: Vec<_> = (2..=9).map(|index| entry(index, 2, 10)).collect();
    wal.save(&[save(more, state(2, 8))]).expect("the disk works");
    let (_, recovered) = open(&disk, at(1)).expect("it is sound");
    assert_eq!(recovered.entries.len(), 9);
    let (_, recovered) = open(&disk, at(8)).expect("it is sound");
    assert_eq!((recovered.snapshot, recovered.entries.len()), (at(0), 9), "it never counts");
    let marks = Wal::snapshots(&disk, Path::new(DIR), SMALL).expect("it is sound");
    assert_eq!(marks, [at(0)]);
}

#[test]
fn after_a_failure_nothing_is_written() {
    let disk = MemDisk::default();
    let mut wal = create(&disk).expect("the disk works");
    disk.fail_after(1);
    let batch = [save(vec![entry(1, 1, 10)], state(1, 0))];
    assert!(matches!(wal.save(&batch), Err(WalError::Io { what: "sync", .. })));
    disk.fail_after(1_000);
    let before = disk.operations();
    assert!(matches!(wal.save(&batch), Err(WalError::Poisoned(_))));
    assert!(matches!(wal.sync(), Err(WalError::Poisoned(_))));
    assert!(matches!(wal.release(1.into()), Err(WalError::Poisoned(_))));
    assert!(matches!(wal.prepare(), Err(WalError::Poisoned(_))));
    assert_eq!(disk.operations(), before);
}

/// The process before had its fsync fail; the next one finds in the kernel's memory what
/// is not on the disk, and must not rely on it as it is.
#[test]
fn what_was_recovered_survives_the_next_power_cut() {
    let disk = MemDisk::default();
    let mut wal = create(&disk).expect("a sound disk");
    wal.save(&[save(vec![entry(1, 1, 10)], state(1, 1))]).expect("a sound disk");
    disk.fail_after(1);
    wal.save(&[save(vec![entry(2, 1, 10)], state(1, 1))]).expect_err("its fsync fails");
    disk.forget_unsynced();
    let (wal, recovered) = open(&disk, at(0)).expect("nothing is wrong with what is read");
    assert_eq!(recovered.entries.len(), 2);
    drop(wal);
    disk.crash(|_| 0);
    let (_, again) = open(&disk, at(0)).expect("what was recovered was durable");
    assert_eq!(again.entries, recovered.entries);
}
