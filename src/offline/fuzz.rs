//! What foreign bytes reach here, for fuzzing.

use std::path::Path;

use super::RestoreError;
use super::etcd::{EtcdDir, parse_snap};
use super::v2_keys;
use crate::env::Disk;

/// Reads a data directory of etcd's.
pub fn read_directory(disk: &dyn Disk, dir: &Path) -> Result<(), RestoreError> {
    EtcdDir::open(disk, dir, None).map(drop)
}

/// Whether the bytes of a `.snap` file have a configuration.
pub fn snap_file(bytes: Vec<u8>) -> bool {
    let parsed = parse_snap(bytes.into());
    parsed.is_some_and(|(_, store)| v2_keys::find(&store, std::iter::empty()).len() < usize::MAX)
}
