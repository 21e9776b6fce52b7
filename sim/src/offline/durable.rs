//! What the platters hold right after a crash: that nothing which was durable before is gone, and that
//! what members had called committed is on a majority of them.

use std::collections::BTreeSet;

use prost::Message;
use quorate_proto::raftpb::{ConfChange, EntryType};

use super::log::Log;
use super::look::{CHECKER, fault, note, note_harm, read_log};
use crate::facts::evidence::{Evidence, Record};
use crate::facts::seen::{DiskLog, Reign};
use crate::facts::verdict::{Proof, Violation};
use crate::{Side, World};

/// Reads all logs from the platters; `applied` is what the crashed host's state holds.
pub(super) fn look(world: &World, crashed: &str, applied: u64, evidence: &Evidence) {
    let mut logs = Vec::new();
    let mut unsure = 0;
    let mut record = evidence.record();
    for host in world.host_names() {
        let harmed = note_harm(world, &host, &mut record.seen);
        let applied = if host == crashed { applied } else { 0 };
        match read_log(world, &host, Side::Durable, applied) {
            None => {}
            Some(_) if harmed => unsure += 1,
            Some(Err(error)) => {
                record.violations.push(fault(&host, "a log can be read at any time", error));
                unsure += 1;
            }
            Some(Ok(log)) => {
                let before = record.seen.logs.iter().rev().find(|old| old.host == host).cloned();
                note(world, &host, &log, None, &mut record.seen);
                let now = record.seen.logs.last().expect("it was noted just now");
                let wiped = world.disk(&host).harm().wiped;
                unsure += usize::from(wiped > 0);
                let kept = before.filter(|old| old.disk == wiped).map(|old| lost(&old, now));
                let faults = log.faults.iter().cloned().chain(kept.into_iter().flatten());
                let faults: Vec<_> = faults.map(|text| fault(&host, KEPT, text)).collect();
                record.violations.extend(faults);
                logs.push((host, log));
            }
        }
    }
    let found = [majority(&logs, unsure, &record), elected(&logs, unsure, &record)];
    record.violations.extend(found.into_iter().flatten());
}

const KEPT: &str = "what was durable stays";

/// What the log `before` held that `now` does not, and has not replaced as raft replaces.
fn lost(before: &DiskLog, now: &DiskLog) -> Vec<String> {
    let mut faults = Vec::new();
    if now.term < before.term {
        faults.push(format!("term {} was durable, it is {}", before.term, now.term));
    }
    if now.term == before.term && before.vote != 0 && now.vote != before.vote {
        let (vote, term) = (before.vote, before.term);
        faults.push(format!("a vote for {vote:x} in {term} was durable, it is {:x}", now.vote));
    }
    if now.commit < before.commit {
        faults.push(format!("commit {} was durable, it is {}", before.commit, now.commit));
    }
    let replaced = |index| match (before.at_index(index), now.at_index(index)) {
        (Some(old), Some(new)) => old != new,
        _ => false,
    };
    let common = now.base.max(before.base) + 1..=now.last().min(before.last());
    if now.last() < before.last() && !common.into_iter().any(replaced) {
        let (old, new) = (before.last(), now.last());
        faults.push(format!("entries up to {old} were durable, now it ends at {new}"));
    }
    faults
}

/// Whether the newest index that a member called committed is on the platters of a majority. Checked only
/// while the configuration is the first one; `unsure` members count as if they had it.
fn majority(logs: &[(String, Log)], unsure: usize, record: &Record) -> Option<Violation> {
    let voters = first_voters(logs)?;
    let said = record.samples.iter().max_by_key(|sample| sample.status.raft_index)?;
    let commit = said.status.raft_index;
    let cluster = said.status.header.as_ref()?.cluster_id;
    let has = |log: &&(String, Log)| {
        log.1.cluster == cluster && voters.contains(&log.1.member) && log.1.last() >= commit
    };
    let holders: Vec<_> = logs.iter().filter(has).map(|(host, _)| host.as_str()).collect();
    if 2 * (holders.len() + unsure) > voters.len() {
        return None;
    }
    let text = format!(
        "{} has {commit} as committed; of {} voters only {holders:?} have it on disk",
        said.host,
        voters.len()
    );
    let proof =
        Proof::Member { host: said.host.clone(), at_us: record.at(said.at).as_micros() as u64 };
    let property = "what is committed is durable on a majority";
    Some(Violation::new(CHECKER, property, text).proved_by(proof))
}

/// Whether the votes for the newest leader are on the platters of a majority: each was to be durable
/// before it was given. A member in a later term may have given its vote before. Checked only while
/// the configuration is the first one; `unsure` members count as if they had voted.
fn elected(logs: &[(String, Log)], unsure: usize, record: &Record) -> Option<Violation> {
    let voters = first_voters(logs)?;
    let reign = record.seen.reigns.iter().max_by_key(|reign| reign.term)?;
    if reign.term <= known_since(logs) {
        return None;
    }
    let (_, leader) = logs.iter().find(|(host, _)| *host == reign.host)?;
    let voted = |log: &&(String, Log)| {
        let state = &log.1.state;
        log.1.cluster == leader.cluster
            && voters.contains(&log.1.member)
            && (state.term > reign.term
                || (state.term == reign.term && state.vote == leader.member))
    };
    let given: Vec<_> = logs.iter().filter(voted).map(|(host, _)| host.as_str()).collect();
    if !voters.contains(&leader.member) || 2 * (given.len() + unsure) > voters.len() {
        return None;
    }
    let Reign { host, term, at } = reign;
    let votes = voters.len();
    let text =
        format!("{host} leads term {term}; of {votes} voters only {given:?} have voted for it");
    let proof = Proof::Member { host: host.clone(), at_us: at.as_micros() as u64 };
    let property = "votes are durable before they are given";
    Some(Violation::new(CHECKER, property, text).proved_by(proof))
}

/// The voters, if they have never changed; no leader writes in term 1, only the beginning of a cluster.
fn first_voters(logs: &[(String, Log)]) -> Option<BTreeSet<u64>> {
    let mut configurations = BTreeSet::new();
    let mut first = BTreeSet::new();
    for (_, log) in logs {
        for entry in log.entries.iter().filter(|entry| entry.r#type() != EntryType::EntryNormal) {
            let change = ConfChange::decode(&entry.data[..]).ok()?;
            if entry.term > 1 {
                return None;
            }
            first.insert(change.node_id);
        }
        for mark in log.marks.iter().filter_map(|mark| mark.conf_state.as_ref()) {
            if !mark.learners.is_empty() {
                return None;
            }
            configurations.insert(mark.voters.iter().copied().collect::<BTreeSet<u64>>());
        }
    }
    if !first.is_empty() {
        configurations.insert(first);
    }
    match configurations.len() {
        1 => configurations.pop_first(),
        _ => None,
    }
}

/// The oldest term whose voters the logs still have.
fn known_since(logs: &[(String, Log)]) -> u64 {
    let changes = |log: &Log| {
        let changes = log.entries.iter().filter(|entry| entry.r#type() != EntryType::EntryNormal);
        changes.map(|entry| entry.term).min()
    };
    let marks = |log: &Log| {
        log.marks.iter().filter(|mark| mark.conf_state.is_some()).map(|mark| mark.term).min()
    };
    let oldest = logs.iter().flat_map(|(_, log)| [changes(log), marks(log)]).flatten().min();
    oldest.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quorate_proto::raftpb::{self, ConfState};
    use quorate_proto::walpb;

    use super::*;
    use crate::facts::seen::Line;

    fn log(term: u64, vote: u64, commit: u64, terms: &[u64]) -> DiskLog {
        let line =
            |(at, term): (usize, &u64)| Line { index: at as u64 + 1, term: *term, digest: 0 };
        DiskLog {
            at: Duration::ZERO,
            term,
            vote,
            commit,
            lines: terms.iter().enumerate().map(line).collect(),
            ..DiskLog::default()
        }
    }

    /// Each loss is reported; what raft itself replaces is none.
    #[test]
    fn losses_are_found() {
        let before = log(2, 7, 2, &[1, 1, 2, 2]);
        let said = |now: &DiskLog| lost(&before, now).join("; ");
        assert_eq!(said(&before), "");
        assert_eq!(said(&log(3, 0, 3, &[1, 1, 2, 2, 3])), "");
        assert_eq!(said(&log(3, 0, 3, &[1, 1, 3])), "", "a new leader's entry took its place");
        assert!(said(&log(1, 7, 2, &[1, 1, 2, 2])).contains("term 2 was durable"));
        assert!(said(&log(2, 5, 2, &[1, 1, 2, 2])).contains("a vote for 7"));
        assert!(said(&log(2, 7, 1, &[1, 1, 2, 2])).contains("commit 2 was durable"));
        assert!(said(&log(2, 7, 2, &[1, 1, 2])).contains("now it ends at 3"));
        let snapshot = DiskLog { base: 9, ..log(3, 0, 9, &[]) };
        assert_eq!(said(&snapshot), "");
    }

    /// A log that begins behind an election does not have its votes.
    #[test]
    fn the_oldest_word_of_who_votes_is_found() {
        let since = |log: Log| known_since(&[("m0".to_owned(), log)]);
        let conf_state = Some(ConfState { voters: vec![1, 2, 3], ..ConfState::default() });
        let mark = |term, conf_state| walpb::Snapshot { term, conf_state, ..Default::default() };
        let mut log = Log::default();
        assert_eq!(since(log.clone()), u64::MAX);
        log.marks = vec![mark(2, None), mark(3, conf_state)];
        assert_eq!(since(log.clone()), 3, "a mark without a configuration proves nothing");
        let mut change = raftpb::Entry { term: 1, ..raftpb::Entry::default() };
        change.set_type(EntryType::EntryConfChange);
        log.entries.push(change);
        assert_eq!(since(log), 1);
    }
}
