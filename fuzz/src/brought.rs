//! A data directory of etcd's, of any bytes: it is read or refused, and reading it changes nothing.

use std::path::Path;

use quorate::env::Disk;
use quorate::offline::fuzz::{read_directory, snap_file};

use crate::disk::MemDisk;
use crate::log;
use crate::wal::{self, Wal};

/// The file of a real etcd.
const ETCD: &[u8] = include_bytes!("../../src/bbolt/testdata/etcd.db");
const WAL: &str = "/d/member/wal";

/// The first byte chooses the part of a sound directory that the others replace.
pub fn run(input: &[u8]) {
    let Some((what, bytes)) = input.split_first() else { return };
    let seeds = log::byte_seeds();
    let mut segment = seeds[usize::from(what / 3) % seeds.len()].clone();
    let mut database = ETCD.to_vec();
    match what % 3 {
        0 => segment = bytes.to_vec(),
        1 => database = bytes.to_vec(),
        _ => {
            let _ = snap_file(bytes.to_vec());
        }
    }
    let disk = MemDisk::default();
    for dir in [WAL, "/d/member/snap"] {
        disk.create_dir_all(Path::new(dir)).expect("the disk works");
    }
    disk.put(&Path::new(WAL).join("0000000000000000-0000000000000000.wal"), segment);
    disk.put(Path::new("/d/member/snap/db"), database);
    let _ = read_directory(&disk, Path::new("/d"));
    for index in [0, 1, 3, u64::MAX] {
        let at = quorate_proto::walpb::Snapshot { index, ..Default::default() };
        let read = || Wal::read(&disk, Path::new(WAL), at.clone(), wal::Options::default());
        match (read(), read()) {
            (Ok(one), Ok(other)) => assert_eq!(one, other, "reading changes nothing"),
            (one, other) => assert_eq!(one.is_err(), other.is_err()),
        }
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let with = |what: u8, bytes: &[u8]| [&[what], bytes].concat();
    let mut seeds: Vec<_> = log::byte_seeds().iter().map(|log| with(0, log)).collect();
    seeds.push(with(1, ETCD));
    seeds.push(with(5, b"\x08\x01\x12\x02\x12\x00"));
    seeds
}
