//! How many keys a range holds.

use std::ops::ControlFlow;

use super::interval::KeyRange;
use super::reader::Reader;
use crate::error::Fatal;

/// Keys of the range that are alive at the revision.
pub(super) fn count(reader: Reader<'_>, keys: &KeyRange, rev: i64) -> Result<i64, Fatal> {
    let mut count = 0;
    reader.walk(keys, rev, &mut |_| {
        count += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(count)
}
