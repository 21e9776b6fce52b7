//! A log that a real etcd wrote (3.4.23: one member, a few writes, a restart) and ours, byte for byte.

use std::path::Path;

use prost::Message;
use quorate_proto::{raftpb, walpb};

use super::super::reader::{Reader, Step};
use super::super::record::{Encoder, Kind, decode_entry, decode_state};
use super::super::{Options, Wal};
use super::disk::MemDisk;
use super::{DIR, at, open};

const ETCD_3_4: &str = include_str!("../testdata/etcd-3.4.wal.hex");
const FIRST: &str = "0000000000000000-0000000000000000.wal";

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digit = |byte: u8| (byte as char).to_digit(16).expect("only digits are left") as u8;
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// etcd's segment with some of the preallocated space that was taken off the file.
fn etcd_disk() -> (MemDisk, Vec<u8>) {
    let disk = MemDisk::default();
    let golden = from_hex(ETCD_3_4);
    let mut file = golden.clone();
    file.resize(64_000, 0);
    disk.put(&Path::new(DIR).join(FIRST), file);
    (disk, golden)
}

#[test]
fn reads_etcds_log() {
    let (disk, _) = etcd_disk();
    let (wal, recovered) = open(&disk, at(0)).expect("etcd's log is sound");
    assert_eq!(recovered.metadata.node_id, 0xe2c2_fc7b_c2ed_3298);
    assert_eq!(recovered.metadata.cluster_id, 0xd37d_e7d5_c8f6_fa40);
    assert_eq!(recovered.repaired, None);
    assert_eq!(recovered.entries.len(), 19);
    assert_eq!(recovered.hard_state.commit, 19);
    assert_eq!(recovered.entries[0].r#type(), raftpb::EntryType::EntryConfChange);
    assert_eq!(wal.last_index().0, 19);

    let marks = Wal::snapshots(&disk, Path::new(DIR), Options::default()).expect("sound");
    assert_eq!(marks.iter().map(|mark| mark.index).collect::<Vec<_>>(), [0, 7, 14]);
    let (_, recovered) = open(&disk, at(15)).expect("etcd's log is sound");
    assert_eq!((recovered.snapshot.index, recovered.entries[0].index), (14, 15));
}

#[test]
fn writes_the_same_bytes() {
    let (disk, golden) = etcd_disk();
    let path = Path::new(DIR).join(FIRST);
    let mut reader = Reader::open(&disk, &path, None, 1 << 20).expect("it is there");
    let mut encoder = Encoder::new(0);
    while let Step::Record(record) = reader.next().expect("it can be read") {
        match record.kind {
            Kind::Crc => encoder.crc(),
            Kind::Metadata => encoder.metadata(&record.data.to_vec().into()),
            Kind::Entry => encoder.entry(&decode_entry(record.data).expect("an entry")),
            Kind::State => encoder.state(&decode_state(record.data).expect("a hard state")),
            Kind::Snapshot => {
                encoder.snapshot(&walpb::Snapshot::decode(record.data).expect("a snapshot"));
            }
        }
    }
    assert_eq!(encoder.buf[..golden.len()], golden);
    assert!(encoder.buf[golden.len()..].iter().all(|byte| *byte == 0), "padding");
}

#[test]
fn continues_etcds_log() {
    let (disk, _) = etcd_disk();
    let (mut wal, before) = open(&disk, at(0)).expect("etcd's log is sound");
    let entry = raftpb::Entry { term: 3, index: 20, data: "more".into(), ..Default::default() };
    let save = super::Save::Entries { hard_state: None, entries: vec![entry.clone()] };
    wal.save(&[save]).expect("the disk works");
    let (_, after) = open(&disk, at(0)).expect("it is sound still");
    let expected: Vec<_> = before.entries.into_iter().chain([entry]).collect();
    assert_eq!(after.entries, expected);
    assert_eq!(after.metadata, before.metadata);
}
