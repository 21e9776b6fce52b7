//! The SHA-256 that etcd puts behind a database when it saves a snapshot, so that a damaged or partial
//! file is distinguished from a whole one. Does not look into the database.

use std::io;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::env::File;
use crate::limits::BBOLT_CHUNK_BYTES;

const HASH_BYTES: usize = 32;
/// The size of a bare database is a multiple of this, that of a sealed one is not; etcd distinguishes them by
/// it.
const SECTOR_BYTES: u64 = 512;

/// What [`check_seal`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seal {
    /// The file is a bare database, such as a member's own.
    Absent,
    /// The hash is that of the `database_bytes` before it.
    Intact { database_bytes: u64 },
    /// The hash does not match.
    Broken { stored: [u8; HASH_BYTES], computed: [u8; HASH_BYTES] },
}

/// Checks the hash at the end of a snapshot file, which it reads from front to back.
pub fn check_seal(file: &dyn File) -> io::Result<Seal> {
    let len = file.len()?;
    if len % SECTOR_BYTES != HASH_BYTES as u64 {
        return Ok(Seal::Absent);
    }
    let database_bytes = len - HASH_BYTES as u64;
    let mut hash = Sha256::new();
    let mut buf = vec![0; BBOLT_CHUNK_BYTES];
    let mut offset = 0;
    while offset < database_bytes {
        let want = (database_bytes - offset).min(buf.len() as u64) as usize;
        read_exact_at(file, &mut buf[..want], offset)?;
        hash.update(&buf[..want]);
        offset += want as u64;
    }
    let mut stored = [0; HASH_BYTES];
    read_exact_at(file, &mut stored, database_bytes)?;
    let computed: [u8; HASH_BYTES] = hash.finalize().into();
    Ok(match computed == stored {
        true => Seal::Intact { database_bytes },
        false => Seal::Broken { stored, computed },
    })
}

/// The chunks of a database, then one with their hash. Nothing follows an error.
pub fn seal<I: Iterator<Item = io::Result<Bytes>>>(chunks: I) -> Sealed<I> {
    Sealed { chunks, hash: Some(Sha256::new()) }
}

/// See [`seal`].
pub struct Sealed<I> {
    chunks: I,
    /// `None` after the hash was returned, or after an error.
    hash: Option<Sha256>,
}

impl<I: Iterator<Item = io::Result<Bytes>>> Iterator for Sealed<I> {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        let hash = self.hash.as_mut()?;
        match self.chunks.next() {
            Some(Ok(chunk)) => {
                hash.update(&chunk);
                Some(Ok(chunk))
            }
            Some(Err(error)) => {
                self.hash = None;
                Some(Err(error))
            }
            None => {
                let hash = self.hash.take()?.finalize();
                Some(Ok(Bytes::copy_from_slice(&hash)))
            }
        }
    }
}

fn read_exact_at(file: &dyn File, buf: &mut [u8], offset: u64) -> io::Result<()> {
    if file.read_at(buf, offset)? < buf.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}
