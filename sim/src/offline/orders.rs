//! Other outcomes of a power cut: the log is opened, by the server's own recovery, on disks that kept other
//! parts of the unsynced writes. Each must open and have at least what the disk has that lost all of them,
//! because that was durable before.

use std::path::Path;

use quorate::wal::{Options, Recovered, Wal};
use quorate_proto::walpb;

use super::look::{WAL, fault};
use crate::World;
use crate::disk::SimDisk;
use crate::facts::evidence::Evidence;
use crate::facts::marks;
use crate::facts::shape::WAL_APART;

const OPENS: &str = "a log opens whatever a power cut has left of unsynced writes";
const KEEPS: &str = "what was durable stays, whatever a power cut has left of unsynced writes";

/// Tries all outcomes for a host that has lost its power; `applied` is the applied index of its state.
pub(super) fn look(world: &World, host: &str, applied: u64, evidence: &Evidence) {
    let disk = world.disk(host);
    let cuts = disk.other_cuts();
    let harm = disk.harm();
    if cuts.is_empty() || harm.rotten > 0 || harm.failed > 0 {
        return;
    }
    // Before the first sync of the folder there is nothing to keep.
    let Some((_, Ok(least))) = cuts.first().map(|(order, cut)| (order, open(cut, applied))) else {
        return;
    };
    marks::reach("crash-orders");
    for (order, cut) in &cuts[1..] {
        let violation = match open(cut, applied) {
            Err(error) => fault(host, OPENS, format!("{order:?}: {error}")),
            Ok(found) => match lost(&least, &found) {
                None => continue,
                Some(text) => fault(host, KEEPS, format!("{order:?}: {text}")),
            },
        };
        evidence.record().violations.push(violation);
    }
}

fn open(disk: &SimDisk, applied: u64) -> Result<Recovered, String> {
    let folder = [WAL_APART, WAL].into_iter().find(|folder| {
        let files = disk.read_folder(folder, crate::Side::View).unwrap_or_default();
        files.iter().any(|file| file.name.ends_with(".wal"))
    });
    let folder = Path::new(folder.ok_or("there is no log")?);
    let door = disk.open_process();
    let options = Options::default();
    let marks = Wal::snapshots(&*door, folder, options).map_err(|error| error.to_string())?;
    // A start installs a snapshot that was received first.
    let newest = marks.iter().map(|mark| mark.index).max().unwrap_or(0);
    let at = walpb::Snapshot { index: applied.max(newest), ..walpb::Snapshot::default() };
    let opened = Wal::open(door, folder, at, options).map_err(|error| error.to_string())?;
    Ok(opened.1)
}

/// What is in `least` and not in `found`, unless it was replaced as raft allows.
fn lost(least: &Recovered, found: &Recovered) -> Option<String> {
    let (before, now) = (&least.hard_state, &found.hard_state);
    if now.term < before.term {
        return Some(format!("term {} was durable, it is {}", before.term, now.term));
    }
    if now.term == before.term && before.vote != 0 && now.vote != before.vote {
        return Some(format!("a vote for {:x} was durable, it is {:x}", before.vote, now.vote));
    }
    if now.commit < before.commit {
        return Some(format!("commit {} was durable, it is {}", before.commit, now.commit));
    }
    let last = |of: &Recovered| of.entries.last().map_or(of.snapshot.index, |entry| entry.index);
    let replaced = least
        .entries
        .iter()
        .any(|old| found.entries.iter().any(|new| new.index == old.index && new.term > old.term));
    (last(found) < last(least) && !replaced).then(|| {
        format!("entries up to {} were durable, now it ends at {}", last(least), last(found))
    })
}
