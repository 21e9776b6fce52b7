//! Looks at one host's disk: reads its log, and notes what was seen as evidence.

use super::log::Log;
use super::store::Store;
use super::wal;
use crate::facts::seen::{DiskLog, DiskStore, Harm, Seen};
use crate::facts::shape::WAL_APART;
use crate::facts::verdict::Violation;
use crate::{Side, World};

pub(super) const WAL: &str = "/data/member/wal";
pub(super) const CHECKER: &str = "offline";

/// A host's log as one side of its disk has it; none when there is none. A log apart from the data is the
/// only one that counts.
pub(super) fn read_log(
    world: &World,
    host: &str,
    side: Side,
    applied: u64,
) -> Option<Result<Log, String>> {
    let disk = world.disk(host);
    let folders = [WAL_APART, WAL].into_iter();
    let mut found = folders.filter_map(|folder| disk.read_folder(folder, side).ok());
    let files = found.find(|files| files.iter().any(|file| file.name.ends_with(".wal")))?;
    Some(wal::read(&files).map(|records| Log::new(records, applied)))
}

/// Adds what was seen to the evidence.
pub(super) fn note(world: &World, host: &str, log: &Log, store: Option<&Store>, seen: &mut Seen) {
    let (at, disk) = (world.elapsed(), world.disk(host).harm().wiped);
    seen.logs.push(DiskLog {
        at,
        host: host.to_owned(),
        disk,
        member: log.member,
        cluster: log.cluster,
        term: log.state.term,
        vote: log.state.vote,
        commit: log.state.commit,
        base: log.base,
        lines: log.lines(),
        votes: log.votes.clone(),
    });
    if let Some(store) = store {
        seen.stores.push(DiskStore {
            at,
            host: host.to_owned(),
            disk,
            applied: store.applied(),
            term: store.term(),
            revision: store.revision(),
        });
    }
}

/// Notes what was done to a disk; returns whether its contents may be wrong for that reason.
pub(crate) fn note_harm(world: &World, host: &str, seen: &mut Seen) -> bool {
    let harm = world.disk(host).harm();
    if harm != Harm::default() {
        seen.harm.insert(host.to_owned(), harm);
    }
    harm.rotten > 0 || harm.failed > 0
}

pub(super) fn fault(host: &str, property: &'static str, text: impl Into<String>) -> Violation {
    Violation::new(CHECKER, property, format!("{host}: {}", text.into()))
}
