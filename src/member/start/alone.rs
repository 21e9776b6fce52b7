//! `--force-new-cluster`: a member whose cluster has lost its quorum permanently goes on alone, with its
//! present state and log. The others are removed by entries that count as committed, so that everything that
//! follows is what follows from any removal (etcd 3.7, `bootstrapWALFromSnapshot`).
//!
//! Unlike etcd it keeps the end of its log that it does not know to be committed: commit indexes are
//! written lazily, and among those entries may be some that were acknowledged.

use std::collections::BTreeSet;

use prost::Message;
use quorate_proto::raftpb::{ConfChange, ConfChangeType, Entry, EntryType};
use tracing::warn;

use crate::apply::membership::{promote_change, remove_change};
use crate::codec;
use crate::error::Fatal;
use crate::replica::Start;
use crate::types::{Index, MemberId};
use crate::wal::Save;

/// Treats the whole log in `start` as committed, and appends the removal of all other members. `start` holds
/// the configuration at `applied`.
pub(in crate::member) fn force(
    own: MemberId,
    applied: Index,
    start: &mut Start,
) -> Result<(), Fatal> {
    let changes = changes(own, applied, start)?;
    if changes.is_empty() {
        return Ok(());
    }
    let last = start.entries.last().map_or(start.snapshot.0.0, |entry| entry.index);
    warn!(
        local_member_id = %own, wal_commit_index = start.hard_state.commit, commit_index = last,
        removed = changes.len(),
        "forcing restart member",
    );
    let entries: Vec<_> = (last + 1..)
        .zip(changes)
        .map(|(index, change)| Entry {
            r#type: EntryType::EntryConfChange as i32,
            term: start.hard_state.term,
            index,
            data: codec::encode(&change),
        })
        .collect();
    start.hard_state.commit = last + entries.len() as u64;
    let hard_state = Some(start.hard_state);
    start.wal.save(&[Save::Entries { hard_state, entries: entries.clone() }])?;
    start.entries.extend(entries);
    Ok(())
}

/// The changes after which `own` is the only member, and a voter.
fn changes(own: MemberId, applied: Index, start: &Start) -> Result<Vec<ConfChange>, Fatal> {
    let mut voters: BTreeSet<u64> = start.conf_state.voters.iter().copied().collect();
    let mut learners: BTreeSet<u64> = start.conf_state.learners.iter().copied().collect();
    for entry in start.entries.iter().filter(|entry| entry.index > applied.0) {
        if entry.r#type() != EntryType::EntryConfChange {
            continue;
        }
        let change = ConfChange::decode(entry.data.clone())
            .map_err(|e| Fatal::new(format!("entry {} does not decode", entry.index), e))?;
        let id = change.node_id;
        if change.r#type() != ConfChangeType::ConfChangeUpdateNode {
            voters.remove(&id);
            learners.remove(&id);
        }
        match change.r#type() {
            ConfChangeType::ConfChangeAddNode => drop(voters.insert(id)),
            ConfChangeType::ConfChangeAddLearnerNode => drop(learners.insert(id)),
            ConfChangeType::ConfChangeRemoveNode | ConfChangeType::ConfChangeUpdateNode => {}
        }
    }
    let (votes, learns) = (voters.contains(&own.0), learners.contains(&own.0));
    if !votes && !learns {
        return Err(Fatal::new("--force-new-cluster", "this member is not in its cluster"));
    }
    // Promoted before the last other voter is removed: a cluster is never without a voter.
    let promotion = learns.then(|| promote_change(own));
    let others = voters.into_iter().chain(learners).filter(|id| *id != own.0);
    Ok(promotion.into_iter().chain(others.map(|id| remove_change(MemberId(id)))).collect())
}
