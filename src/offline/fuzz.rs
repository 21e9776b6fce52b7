//! What foreign bytes reach here, for fuzzing.

use std::path::Path;

use super::RestoreError;
use super::etcd::{EtcdDir, parse_snap};
use crate::env::Disk;

/// Reads a data directory of etcd's.
pub fn read_directory(disk: &dyn Disk, dir: &Path) -> Result<(), RestoreError> {
    EtcdDir::open(disk, dir, None).map(drop)
}

/// Whether the bytes of a `.snap` file have a configuration.
pub fn snap_file(bytes: Vec<u8>) -> bool {
    parse_snap(bytes.into()).is_some()
}
