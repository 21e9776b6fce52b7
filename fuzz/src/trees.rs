//! bbolt files: any file is a database or a damaged one, and a search finds what a walk shows.

use std::io;

use bytes::Bytes;
use quorate::bbolt::{self, Database, check_seal};
use quorate::env::File;

/// The file of a real etcd.
const ETCD: &[u8] = include_bytes!("../../src/bbolt/testdata/etcd.db");

pub fn run(input: &[u8]) {
    // The checksum of the meta pages is mended, so that the rest is reached.
    let mut image = input.to_vec();
    for meta in [0, 4096] {
        mend(&mut image, meta);
    }
    let _ = check_seal(&Image(image.clone()));
    let Ok(database) = Database::open(Box::new(Image(image))) else { return };
    let _ = database.used_bytes();
    for bucket in database.buckets().unwrap_or_default() {
        let Ok(Some(rows)) = database.iter(&bucket) else { continue };
        for row in rows.take(2_000) {
            let Ok((key, value)) = row else { break };
            let found = database.get(&bucket, &key).expect("a walk came here");
            assert_eq!(found, Some(value), "{key:02x?}");
            let after = database.iter_from(&bucket, &key).expect("a walk came here");
            let first = after.and_then(|mut rows| rows.next()).expect("the key itself");
            assert_eq!(first.expect("a walk came here").0, key);
        }
    }
    copy(&database);
}

/// What can be read can be written, and reads the same.
fn copy(database: &Database) {
    let Ok(plan) = bbolt::plan(database) else { return };
    let mut written = Vec::new();
    for piece in plan.emit(database) {
        written.extend_from_slice(&piece.expect("the plan was made of the same rows"));
    }
    let copy = Database::open(Box::new(Image(written))).expect("our own file");
    assert_eq!(copy.buckets().expect("our own file"), database.buckets().expect("was read"));
}

fn mend(image: &mut [u8], meta: usize) {
    let Some(record) = image.get_mut(meta + 16..meta + 80) else { return };
    let checksum = record[..56].iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    record[56..64].copy_from_slice(&checksum.to_le_bytes());
}

pub fn seeds() -> Vec<Vec<u8>> {
    let small = |keys: usize, value: usize| {
        let rows =
            Rows((0..keys).map(|n| (format!("{n:05}").into(), vec![7; value].into())).collect());
        let plan = bbolt::plan(&rows).expect("sorted rows");
        plan.emit(&rows).map(|piece| piece.expect("works")).fold(Vec::new(), |mut all, piece| {
            all.extend_from_slice(&piece);
            all
        })
    };
    vec![ETCD.to_vec(), small(0, 0), small(3, 10), small(300, 20), small(4, 9_000)]
}

struct Rows(Vec<(Bytes, Bytes)>);

impl bbolt::Source for Rows {
    fn buckets(&self) -> io::Result<Vec<Bytes>> {
        Ok(vec![Bytes::from_static(b"key"), Bytes::from_static(b"meta")])
    }

    fn scan(&self, _: &Bytes) -> io::Result<bbolt::Scan> {
        Ok(Box::new(self.0.clone().into_iter().map(Ok)))
    }
}

/// A file in memory that is only read.
struct Image(Vec<u8>);

impl File for Image {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.0.len());
        let length = buf.len().min(self.0.len() - from);
        buf[..length].copy_from_slice(&self.0[from..from + length]);
        Ok(length)
    }

    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
