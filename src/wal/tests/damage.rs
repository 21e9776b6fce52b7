//! Damage of every kind at every place: cut, or refused, and never a record that was not written.

use std::path::{Path, PathBuf};

use super::super::{Recovered, WalError};
use super::disk::MemDisk;
use super::{DIR, at, create, entry, files, open, save, state};

/// A log of some segments, and what it holds.
fn sample(entries: u64) -> (MemDisk, Recovered) {
    sample_of_term(5, entries)
}

fn sample_of_term(term: u64, entries: u64) -> (MemDisk, Recovered) {
    let disk = MemDisk::default();
    let mut wal = create(&disk).expect("the disk works");
    for index in 1..=entries {
        let bytes = (index * 37 % 300) as usize;
        let state = state(term, index - 1);
        wal.save(&[save(vec![entry(index, term, bytes)], state)]).expect("it works");
    }
    drop(wal);
    let (_, recovered) = open(&disk, at(0)).expect("it is sound");
    assert_eq!(recovered.entries.len() as u64, entries);
    (disk.fork(), recovered)
}

fn segment(disk: &MemDisk, from_end: usize) -> PathBuf {
    let segments: Vec<_> = files(disk).into_iter().filter(|n| n.ends_with(".wal")).collect();
    Path::new(DIR).join(&segments[segments.len() - 1 - from_end])
}

/// Opens a copy of the log in which one file is changed.
fn open_changed(
    disk: &MemDisk,
    path: &Path,
    change: impl FnOnce(&mut Vec<u8>),
) -> (MemDisk, Result<Recovered, WalError>) {
    let disk = disk.fork();
    let mut data = disk.read(path);
    change(&mut data);
    disk.put(path, data);
    let result = open(&disk, at(0)).map(|(_, recovered)| recovered);
    (disk, result)
}

fn used(data: &[u8]) -> usize {
    data.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// The entries are a prefix of those written, the hard state is one that was written.
fn assert_prefix(recovered: &Recovered, whole: &Recovered) {
    let count = recovered.entries.len();
    assert_eq!(recovered.entries, whole.entries[..count]);
    assert!(recovered.hard_state.commit <= count as u64);
}

#[test]
fn truncation_anywhere_in_the_last_segment_loses_a_suffix() {
    let (disk, whole) = sample(17);
    let path = segment(&disk, 0);
    let last = disk.read(&path);
    let mut lengths = Vec::new();
    for len in 0..=used(&last) {
        let (after, result) = open_changed(&disk, &path, |data| data.truncate(len));
        let recovered = result.expect("a file that ends early is mended");
        assert_prefix(&recovered, &whole);
        lengths.push(recovered.entries.len());
        // Mended for good: the next start has nothing to do, and sees the same.
        let (_, again) = open(&after, at(0)).expect("it was mended");
        assert_eq!(again.repaired, None);
        assert_eq!((again.entries, again.hard_state), (recovered.entries, recovered.hard_state));
        if let Some(repair) = recovered.repaired {
            let copy = after.read(&repair.broken);
            assert_eq!(copy[..used(&copy)], last[..used(&last[..len])], "it keeps what was there");
        }
    }
    assert!(lengths.is_sorted());
    assert!(lengths.last() > lengths.first());
}

#[test]
fn a_flipped_bit_is_refused_or_harmless() {
    // A record's type is outside its checksum, and what its bytes mean as another depends on the term.
    for (term, from_end) in [(1, 0), (1, 1), (2, 0), (2, 1), (3, 1), (5, 0), (5, 1)] {
        let (disk, whole) = sample_of_term(term, 12);
        let path = segment(&disk, from_end);
        let clean = disk.read(&path);
        let mut refused = 0;
        for bit in 0..used(&clean) * 8 {
            let (_, result) = open_changed(&disk, &path, |data| data[bit / 8] ^= 1 << (bit % 8));
            match result {
                Ok(recovered) => assert!(recovered == whole, "bit {bit} of {}", path.display()),
                Err(WalError::Damaged { path: file, .. }) => {
                    assert_eq!(file, path);
                    refused += 1;
                }
                Err(WalError::Unfit { .. }) => refused += 1,
                Err(other) => panic!("bit {bit}: {other}"),
            }
        }
        assert!(refused > used(&clean) * 8 * 9 / 10, "only padding may change unnoticed");
    }
}

#[test]
fn a_lost_sector_of_an_earlier_segment_is_refused() {
    let (disk, _) = sample(17);
    let path = segment(&disk, 1);
    for sector in 0..disk.read(&path).len() / 512 {
        let (_, result) = open_changed(&disk, &path, |data| data[sector * 512..][..512].fill(0));
        assert!(matches!(result, Err(WalError::Damaged { .. })), "sector {sector}: {result:?}");
    }
}

/// Segments are large here, so that all of it is in one; a write covers at most 1024 bytes.
#[test]
fn a_lost_sector_is_cut_only_where_one_write_explains_it() {
    let options = super::Options { segment_bytes: 64_000, ..super::SMALL };
    let disk = MemDisk::default();
    let dir = Path::new(DIR);
    let arc = std::sync::Arc::new(disk.clone());
    let mut wal = super::Wal::create(arc, dir, &super::METADATA, options).expect("the disk works");
    for index in 1..=60 {
        wal.save(&[save(vec![entry(index, 1, 90)], state(1, 0))]).expect("the disk works");
    }
    let path = segment(&disk, 0);
    let sectors = used(&disk.read(&path)).div_ceil(512);
    let (mut refused, mut cut) = (0, 0);
    for sector in 1..sectors {
        let disk = disk.fork();
        let mut data = disk.read(&path);
        data[sector * 512..][..512].fill(0);
        disk.put(&path, data);
        let arc = std::sync::Arc::new(disk.clone());
        match super::Wal::open(arc, dir, at(0), options) {
            Ok((_, recovered)) => {
                let repair = recovered.repaired.expect("a sector is missing");
                assert!(repair.offset / 512 <= sector as u64 && repair.bytes <= 1_024 + 512);
                cut += 1;
            }
            Err(WalError::Damaged { offset, .. }) => {
                assert_eq!(cut, 0, "what is refused lies before what is cut");
                assert!(offset / 512 <= sector as u64);
                refused += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused > 5 && cut > 0, "{refused} refused, {cut} cut");
}

#[test]
fn a_segment_that_never_came_to_life_is_set_aside() {
    let (disk, whole) = sample(12);
    let next = format!("{:016x}-{:016x}.wal", files(&disk).len(), whole.entries.len() + 1);
    let path = Path::new(DIR).join(next);
    for data in [Vec::new(), vec![0; 2_048]] {
        let disk = disk.fork();
        disk.put(&path, data);
        let (mut wal, recovered) = open(&disk, at(0)).expect("the segment before is whole");
        assert_eq!(recovered.entries, whole.entries);
        assert!(recovered.repaired.is_some());
        for index in 13..=30 {
            wal.save(&[save(vec![entry(index, 5, 200)], state(5, 12))]).expect("the disk works");
        }
        let (_, recovered) = open(&disk, at(0)).expect("it is sound");
        assert_eq!(recovered.entries.len(), 30);
    }
}

#[test]
fn a_missing_segment_is_refused_unless_a_mark_covers_it() {
    let (disk, _) = sample(40);
    let middle = segment(&disk, 2);
    crate::env::Disk::remove(&disk, &middle).expect("it is there");
    assert!(matches!(open(&disk, at(0)), Err(WalError::Unfit { .. })));
}
