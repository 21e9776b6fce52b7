//! Senders that are no members by this member's table. The table may be old: members may have joined since
//! the last entry applied here, and one of them may lead. So the known members are queried for the list of
//! members. A joining member without a table queries the peers of its `--initial-cluster`.
//!
//! When none of them answers, the sender is accepted for everything but proposals: a member that was down
//! while all others were replaced must be able to catch up.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use futures::future::join_all;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::link::lock;
use super::local::Standing;
use super::transport::Transport;
use crate::limits::{
    PEER_REMOTES_MAX, PEER_VOUCH_TIMEOUT, PEER_VOUCHED, PEER_VOUCHERS_MAX, PEER_VOUCHES,
};
use crate::types::MemberId;

/// How a sender may be treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// It belongs to the cluster.
    Member,
    /// No known member answered.
    Word,
    Removed,
    Stranger,
}

/// What was found out about senders, newest answers only.
pub(super) struct Vouch {
    answers: Mutex<BTreeMap<MemberId, (Instant, Trust)>>,
    places: Semaphore,
}

impl Default for Vouch {
    fn default() -> Self {
        Self { answers: Mutex::default(), places: Semaphore::new(PEER_VOUCHES) }
    }
}

/// One of `/members`.
#[derive(Deserialize)]
struct Listed {
    id: u64,
}

impl Transport {
    /// Whether `id` may send messages to this member. Queries other members when the table does not
    /// contain it.
    pub(super) async fn trust(&self, id: MemberId) -> Trust {
        if id == MemberId::NONE || id == self.context().identity.id {
            return Trust::Stranger;
        }
        match self.local().standing(id) {
            Standing::Member => return Trust::Member,
            Standing::Removed => return Trust::Removed,
            Standing::Unknown | Standing::Undecided => {}
        }
        let now = self.env().now();
        let known = lock(&self.vouch().answers).get(&id).copied();
        if let Some((_, trust)) = known.filter(|(at, _)| now < *at + PEER_VOUCHED) {
            return trust;
        }
        // One that finds no place comes again: raft repeats everything.
        let Ok(_place) = self.vouch().places.try_acquire() else { return Trust::Stranger };
        let trust = self.query_members(id).await;
        match trust {
            Trust::Word => warn!(sender = %id, "no member answered about an unknown sender"),
            trust => info!(sender = %id, ?trust, "queried members about an unknown sender"),
        }
        let mut answers = lock(&self.vouch().answers);
        if answers.len() >= PEER_REMOTES_MAX && !answers.contains_key(&id) {
            let oldest = answers.iter().min_by_key(|(_, (at, _))| *at).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                answers.remove(&oldest);
            }
        }
        answers.insert(id, (self.env().now(), trust));
        trust
    }

    async fn query_members(&self, id: MemberId) -> Trust {
        let undecided = self.local().standing(id) == Standing::Undecided;
        let urls = if undecided { self.seeds().to_vec() } else { self.member_urls() };
        if urls.is_empty() {
            // No member can have joined without a lone member's vote.
            return if undecided { Trust::Word } else { Trust::Stranger };
        }
        let asked = urls.iter().take(PEER_VOUCHERS_MAX).map(|url| self.lists(url, id));
        let answers: Vec<bool> = join_all(asked).await.into_iter().flatten().collect();
        match (answers.is_empty(), answers.contains(&true)) {
            (true, _) => Trust::Word,
            (_, true) => Trust::Member,
            (_, false) => Trust::Stranger,
        }
    }

    /// Whether the member at `url` counts `id` among the members; `None` when it does not answer, or has
    /// no table yet.
    async fn lists(&self, url: &str, id: MemberId) -> Option<bool> {
        let (cluster, json) = self.client().members(url, PEER_VOUCH_TIMEOUT).await.ok()?;
        if cluster != self.context().identity.cluster {
            return None;
        }
        let members: Vec<Listed> = serde_json::from_slice(&json).ok()?;
        let listed = members.iter().any(|member| member.id == id.0);
        (!members.is_empty()).then_some(listed)
    }
}
