//! A backup's buckets as those of a new cluster's first state: the source of the file that a member
//! starts from. Writes nothing; what the rows mean is known to the layers that write them.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use tracing::info;

use crate::apply::StateMachine;
use crate::bbolt::{self, Database};
use crate::engine::Cf;
use crate::error::Fatal;
use crate::lease;
use crate::member::first::NewCluster;
use crate::mvcc;
use crate::plant;
use crate::types::{Index, Revision, Term};

type Rows = BTreeMap<Bytes, Bytes>;

/// The backup with other rows in some buckets.
pub struct Renewed {
    backup: Database,
    members: Rows,
    /// All of `meta`, which is small.
    meta: Rows,
    /// What comes behind the backup's history.
    raised: Rows,
}

impl Renewed {
    /// `bump`: how many revisions to pass over.
    pub fn new(backup: Database, cluster: &NewCluster, bump: Option<u64>) -> Result<Self, Fatal> {
        let unreadable = |e| Fatal::new("reading a snapshot", e);
        let mut meta = Rows::new();
        for row in rows(&backup, Cf::Meta).map_err(unreadable)? {
            let (key, value) = row.map_err(unreadable)?;
            mvcc::Rows::default().check(Cf::Meta, &key, &value)?;
            meta.extend([(key, value)]);
        }
        let last = Index(cluster.members.len() as u64);
        meta.extend(mvcc::position_rows(last, Term(1)));
        meta.extend([StateMachine::conf_state_row(&cluster.conf_state())]);
        let mut raised = Rows::new();
        if let Some(bump) = bump {
            let latest = newest(&backup)?;
            let revision = raise(latest, bump)?;
            info!(
                latest_revision = latest.0,
                bump_amount = bump,
                new_latest_revision = revision.0,
                "bumping latest revision"
            );
            info!(revision = revision.0, "marking revision compacted");
            let [change, compaction] = mvcc::raised_rows(revision);
            raised.extend([change]);
            meta.extend([compaction]);
        }
        let members = cluster.members.iter().map(|member| member.row()).collect();
        Ok(Self { backup, members, meta, raised })
    }
}

/// Buckets that this version does not know stay, as all else.
impl bbolt::Source for Renewed {
    fn buckets(&self) -> io::Result<Vec<Bytes>> {
        let mut names = self.backup.buckets()?;
        names.extend(Cf::BUCKETS.map(|cf| Bytes::from_static(cf.name().as_bytes())));
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    fn scan(&self, bucket: &Bytes) -> io::Result<bbolt::Scan> {
        let all = |rows: &Rows| -> bbolt::Scan { Box::new(rows.clone().into_iter().map(Ok)) };
        Ok(match Cf::bucket(bucket) {
            Some(Cf::Members) => all(&self.members),
            Some(Cf::MembersRemoved) => all(&Rows::new()),
            Some(Cf::Meta) => all(&self.meta),
            Some(Cf::Key) => {
                Box::new(checked(Cf::Key, rows(&self.backup, Cf::Key)?).chain(all(&self.raised)))
            }
            Some(Cf::Lease) if plant::RESTORE_FORGETS_LEASES.is_planted() => all(&Rows::new()),
            Some(cf) => checked(cf, rows(&self.backup, cf)?),
            None => bbolt::Source::scan(&self.backup, bucket)?,
        })
    }
}

/// Ends with an error at a row that no member writes: nothing is restored rather than a member that
/// fails later.
fn checked(cf: Cf, rows: bbolt::Scan) -> bbolt::Scan {
    let mut before = mvcc::Rows::default();
    Box::new(rows.map(move |row| {
        let (key, value) = row?;
        let checked = before.check(cf, &key, &value).and_then(|()| match cf {
            Cf::Lease => lease::check_row(&key, value.clone()).map(|_| ()),
            _ => Ok(()),
        });
        checked.map_err(|refused| io::Error::new(io::ErrorKind::InvalidData, refused))?;
        Ok((key, value))
    }))
}

/// The rows of a bucket, up to the first that no member writes.
pub fn checked_rows(backup: &Database, cf: Cf) -> io::Result<bbolt::Scan> {
    Ok(checked(cf, rows(backup, cf)?))
}

fn rows(backup: &Database, cf: Cf) -> io::Result<bbolt::Scan> {
    bbolt::Source::scan(backup, &Bytes::from_static(cf.name().as_bytes()))
}

/// The revision of the last change; 0 without one.
fn newest(backup: &Database) -> Result<Revision, Fatal> {
    let unreadable = |e| Fatal::new("reading a snapshot", e);
    let mut newest = Revision(0);
    for row in rows(backup, Cf::Key).map_err(unreadable)? {
        newest = mvcc::revision_of(&row.map_err(unreadable)?.0)?;
    }
    Ok(newest)
}

fn raise(newest: Revision, by: u64) -> Result<Revision, Fatal> {
    let too_far = || Fatal::new("--bump-revision", format!("{newest} and {by} are too many"));
    mvcc::raised(newest, by).ok_or_else(too_far)
}
