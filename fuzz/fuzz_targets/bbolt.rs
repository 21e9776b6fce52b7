//! Any file is a database or a damaged one: it is read to its end, or gives an error.
#![no_main]

use std::io;

use libfuzzer_sys::fuzz_target;
use quorate::bbolt::{Database, check_seal};
use quorate::env::File;

fuzz_target!(|bytes: &[u8]| {
    let _ = check_seal(&Image(bytes.to_vec()));
    let Ok(database) = Database::open(Box::new(Image(bytes.to_vec()))) else { return };
    for bucket in database.buckets().unwrap_or_default() {
        let Ok(Some(rows)) = database.iter(&bucket) else { continue };
        for row in rows {
            let Ok((key, value)) = row else { break };
            let found = database.get(&bucket, &key);
            assert!(found.is_err() || found.is_ok_and(|found| found.is_none_or(|v| v == value)));
        }
    }
});

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
