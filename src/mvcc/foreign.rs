//! Checks of the rows of a state from elsewhere: a backup, or another member's snapshot. Checked before a
//! row is taken in, so that no later arithmetic meets a number that it cannot carry. Knows the buckets
//! `key` and `meta`; does not compare rows of one key with each other.

use super::keys::{Rev, RevKey, be_i64};
use super::record::KvRef;
use super::store::meta;
use crate::engine::Cf;
use crate::error::Fatal;
use crate::limits::REVISION_MAX;
use crate::types::Revision;

/// Checks the rows of a state one by one; those of [`Cf::Key`] come in order.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    last: Option<Rev>,
}

impl Rows {
    /// Refuses a row that no member writes; the error names the row.
    pub fn check(&mut self, cf: Cf, key: &[u8], value: &[u8]) -> Result<(), Fatal> {
        let checked = match cf {
            Cf::Key => self.change(key, value),
            Cf::Meta => meta_row(key, value),
            _ => Ok(()),
        };
        checked.map_err(|why| {
            let row = format!("row {} of bucket {}", key.escape_ascii(), cf.name());
            Fatal::new("reading a snapshot", format!("{row}: {why}"))
        })
    }

    /// The last change so far.
    pub(super) fn last(&self) -> Option<Rev> {
        self.last
    }

    fn change(&mut self, key: &[u8], record: &[u8]) -> Result<(), String> {
        let (rev, tombstone) = RevKey::parse(key).map_err(|e| e.to_string())?;
        if !(1..=REVISION_MAX).contains(&rev.main) {
            return Err(format!("revision {} is not between 1 and {REVISION_MAX}", rev.main));
        }
        // One change less than the last that would have a number.
        if rev.sub > REVISION_MAX {
            return Err(format!("change {} of a revision is above {REVISION_MAX}", rev.sub));
        }
        if let Some(last) = self.last.replace(rev).filter(|last| *last >= rev) {
            return Err(format!(
                "revision {}.{} comes after {}.{}",
                rev.main, rev.sub, last.main, last.sub
            ));
        }
        // A change of no key: see `raised_rows`.
        if record.is_empty() {
            return Ok(());
        }
        let kv = KvRef::parse(record).map_err(|e| e.to_string())?;
        if kv.key.is_empty() {
            return Err("its key is empty".into());
        }
        if tombstone {
            return Ok(());
        }
        if kv.modified != rev.main {
            return Err(format!("mod_revision is {}", kv.modified));
        }
        if !(1..=rev.main).contains(&kv.create) {
            return Err(format!("create_revision {} is not between 1 and {}", kv.create, rev.main));
        }
        // Each put since the key was created has a revision of its own.
        let version_max = rev.main - kv.create + 1;
        if !(1..=version_max).contains(&kv.version) {
            return Err(format!("version {} is not between 1 and {version_max}", kv.version));
        }
        Ok(())
    }
}

fn meta_row(key: &[u8], value: &[u8]) -> Result<(), String> {
    if [meta::SCHEDULED_COMPACT, meta::FINISHED_COMPACT].contains(&key) {
        let (rev, _) = RevKey::parse(value).map_err(|e| e.to_string())?;
        if rev.main > REVISION_MAX {
            return Err(format!("revision {} is above {REVISION_MAX}", rev.main));
        }
    }
    if [meta::CONSISTENT_INDEX, meta::TERM].contains(&key) {
        let number = be_i64(value).ok_or_else(|| format!("{value:02x?} is not a number"))?;
        // The log counts on from here.
        if !(0..=REVISION_MAX).contains(&number) {
            return Err(format!("{} is above {REVISION_MAX}", number as u64));
        }
    }
    Ok(())
}

/// A revision raised by so many, if a state may begin with it.
pub fn raised(revision: Revision, by: u64) -> Option<Revision> {
    let raised = i64::try_from(by).ok().and_then(|by| revision.0.checked_add(by));
    raised.filter(|raised| *raised <= REVISION_MAX).map(Revision)
}
