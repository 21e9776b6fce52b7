//! Members' directories, read from outside with eyes of our own: the log by a reader of etcd's format
//! that shares nothing with the server's, the state bucket by bucket from its RocksDB.
//!
//! * [`check`] runs on all of it after the last process has ended.
//! * [`after_crash`] looks at all logs the moment after a member has crashed: what is on the platters
//!   then is what the cluster would have if everything stopped.
//!
//! What is seen goes into the evidence, so that [`crate::check::raft`] can compare members and times.
//!
//! Reading order: `wal` (files to records), `log` (records to a log), `store` (buckets), `keyspace` and
//! `members` (what buckets must hold), `durable` (what a crash must leave), `orders` (what else it might have
//! left).

mod durable;
mod keyspace;
mod log;
mod look;
mod members;
mod orders;
mod store;
mod wal;

use crate::cluster::Cluster;
use crate::facts::evidence::Evidence;
use crate::facts::verdict::Violation;
use crate::{Side, World};
use log::Log;
pub(crate) use look::note_harm;
use look::{fault, note, read_log};
use store::Store;

/// Checks every member's directory. No process runs any more.
pub async fn check(world: &World, cluster: &Cluster, evidence: &Evidence) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut stores = Vec::new();
    for host in &cluster.names() {
        world.stopped(host).await;
        let harmed = note_harm(world, host, &mut evidence.record().seen);
        if world.disk(host).harm().rotten > 0 {
            // What it reported meanwhile is checked; its files are known to be wrong.
            continue;
        }
        let store = match Store::read(world, host) {
            Ok(store) => store.unwrap_or_default(),
            Err(error) => {
                violations.push(fault(host, "the state can be read", error));
                continue;
            }
        };
        let log = match read_log(world, host, Side::View, store.applied()) {
            None => continue,
            Some(Ok(log)) => log,
            Some(Err(error)) if harmed => {
                drop(error);
                continue;
            }
            Some(Err(error)) => {
                violations.push(fault(host, "the log can be read", error));
                continue;
            }
        };
        violations.extend(examine(world, host, &log, &store, evidence));
        note(world, host, &log, Some(&store), &mut evidence.record().seen);
        stores.push((host.clone(), store));
    }
    violations.extend(equal(&stores));
    violations
}

/// Looks at what is on the disks after `host` has crashed and before it starts again. What is wrong
/// goes to the evidence too.
pub async fn after_crash(world: &World, host: &str, evidence: &Evidence) {
    world.stopped(host).await;
    let applied = match Store::read(world, host) {
        Ok(store) => store.map_or(0, |store| crashed_store(world, host, &store, evidence)),
        Err(error) => {
            evidence.record().violations.push(fault(host, "the state can be read", error));
            return;
        }
    };
    durable::look(world, host, applied, evidence);
    orders::look(world, host, applied, evidence);
}

/// Where the state stands that a crash has left; notes it.
fn crashed_store(world: &World, host: &str, store: &Store, evidence: &Evidence) -> u64 {
    let harmed = note_harm(world, host, &mut evidence.record().seen);
    if !harmed && let Some(Ok(log)) = read_log(world, host, Side::View, store.applied()) {
        let faults = reached(&log, store);
        let found = &mut evidence.record().violations;
        found.extend(faults.into_iter().map(|text| fault(host, REACHED, text)));
    }
    store.applied()
}

/// Where members keep what they receive.
const SNAPSHOTS: &str = "/data/member/snap";
const REACHED: &str = "what a state holds is in the log";

/// What is wrong with one member's directory.
fn examine(
    world: &World,
    host: &str,
    log: &Log,
    store: &Store,
    evidence: &Evidence,
) -> Vec<Violation> {
    let record = evidence.record();
    let known = record.log.keys().next_back().is_some_and(|last| *last >= store.revision());
    let history = if known { keyspace::against(store, &record.log) } else { Vec::new() };
    // A member that was closed behind the others may not know of the last ones.
    let updated =
        if record.whole { members::updated(store, &record.seen.updates) } else { Vec::new() };
    let left_over = if record.whole { left_over(world, host, store) } else { Vec::new() };
    let found: [(&'static str, Vec<String>); 7] = [
        ("a log goes on without gaps, and forward only", log.faults.clone()),
        (REACHED, reached(log, store)),
        ("what is derived from the history agrees with it", keyspace::inside(store)),
        ("the history on disk is the one that was reported", history),
        ("the configuration is the member table", members::inside(store)),
        ("members are at the addresses that were reported", updated),
        ("nothing is left over of snapshots that were received", left_over),
    ];
    let told = found.into_iter().flat_map(|(property, faults)| {
        faults.into_iter().map(move |text| fault(host, property, text))
    });
    told.take(FAULTS_SHOWN).collect()
}

/// What does not fit usually does so in many places for one reason.
const FAULTS_SHOWN: usize = 6;

/// Files of snapshots that a member has passed, or began to receive, and still has: one that it kept for
/// every snapshot it was sent would fill its disk.
fn left_over(world: &World, host: &str, store: &Store) -> Vec<String> {
    let passed = |name: &str| {
        let index = name.strip_suffix(".snap.db").map(|index| u64::from_str_radix(index, 16));
        name.starts_with("tmp-snap-")
            || index.is_some_and(|index| index.is_ok_and(|it| it <= store.applied()))
    };
    let files = world.disk(host).read_folder(SNAPSHOTS, Side::View).unwrap_or_default();
    let left = files.iter().filter(|file| passed(&file.name));
    left.map(|file| format!("{} of {} bytes", file.name, file.len)).collect()
}

/// The state is nowhere ahead of the log that it came from, and not of another one.
fn reached(log: &Log, store: &Store) -> Vec<String> {
    let (applied, last) = (store.applied(), log.last());
    let mut faults = Vec::new();
    if applied > last {
        faults.push(format!("the state has applied {applied}, the log ends at {last}"));
    }
    // What is missing in front is in a snapshot that was received and waits to be installed.
    if applied < log.base && !log.marks.iter().any(|mark| mark.index >= log.base) {
        let base = log.base;
        faults.push(format!("the state has applied {applied}, the log begins after {base}"));
    }
    if let Some(entry) = log.at(applied)
        && entry.term != store.term()
    {
        let (term, of) = (store.term(), entry.term);
        faults.push(format!("entry {applied} is of term {term} in the state, of {of} in the log"));
    }
    faults
}

/// Members at one applied index hold the same buckets, to the byte.
fn equal(stores: &[(String, Store)]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (at, (host, store)) in stores.iter().enumerate() {
        let same = |(_, other): &&(String, Store)| {
            other.applied() == store.applied() && other.applied() > 0
        };
        let Some((other, first)) = stores[..at].iter().find(same) else { continue };
        let mut faults = Vec::new();
        for bucket in store::BUCKETS {
            let (ours, theirs) = (comparable(store, bucket), comparable(first, bucket));
            // How far the deletions of a compaction have come is each member's own matter.
            if bucket != "key" || store.compacted() == first.compacted() {
                keyspace::compare(bucket, &theirs, &ours, &mut faults);
            }
        }
        let property = "members at one index hold the same";
        let told = faults.into_iter().take(FAULTS_SHOWN);
        violations
            .extend(told.map(|text| fault(host, property, format!("unlike {other}: {text}"))));
    }
    violations
}

/// A bucket without what is each member's own.
fn comparable(store: &Store, bucket: &str) -> store::Rows {
    let mut rows = store.rows(bucket).clone();
    if bucket == "meta" {
        rows.retain(|key, _| !key.starts_with(b"quorate.") && key != b"finishedCompactRev");
    }
    rows
}

#[cfg(test)]
mod tests;
