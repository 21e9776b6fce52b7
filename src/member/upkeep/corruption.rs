//! Corruption checks: etcd's three comparisons of history between members (3.7, `etcdserver/corrupt.go`). A
//! member with data compares itself with its peers before it serves; a leader compares all members
//! periodically, at its own revision or at compactions. An alarm is raised for members whose hash is not that
//! of the majority; without a majority the correct data are unknown, and the alarm names member 0. Apply
//! decides what the alarm refuses.
//!
//! Hashes are compared only at the same revision *and* the same compaction: the retained history depends on
//! both.

use std::collections::BTreeMap;

use futures::future::join_all;
use quorate_proto::etcdserverpb::{
    AlarmRequest, AlarmType, HashKvResponse, alarm_request::AlarmAction,
};
use tracing::{error, info, warn};

use crate::member::links::dial_timeout;
use crate::member::propose::Origin;
use crate::member::{Member, Options};

use crate::apply::membership::Membership;
use crate::env::Env;
use crate::error::{Error, Fatal, Refused, Unavailable};
use crate::limits;
use crate::mvcc::{HashKv, Store};
use crate::peer::{CallError, Client};
use crate::plant;
use crate::replica::Role;
use crate::types::{ClusterId, MemberId, Revision};

/// A member's compact revision and hash.
type Print = (Revision, u32);

/// Compares this member's history with that of its peers before it takes part. Fails when it differs from
/// that of a peer with the same compact revision.
pub(in crate::member) async fn check_first(
    env: &Env,
    options: &Options,
    store: &Store,
    members: &Membership,
    (id, cluster): (MemberId, ClusterId),
) -> Result<(), Fatal> {
    info!(local_member_id = %id, "starting initial corruption check");
    let view = store.view();
    let own = env.blocking("initial hash", move || view.hash_kv(0)).await?;
    let own = own.map_err(|refused| Fatal::new(format!("{id} failed to fetch hash"), refused))?;
    let client = Client::new(env.clone(), dial_timeout(options), &options.peer_tls);
    let limit = limits::request_timeout(options.election_timeout);
    let peers = Peers { client: &client, cluster, others: others(members, id), limit };
    let mut differ = false;
    for (peer, answer) in peers.ask(own.hash_revision).await {
        match answer {
            Ok(theirs) if print(&theirs) == (own.compact_revision, own.hash) => {}
            Ok(theirs) if theirs.compact_revision == own.compact_revision.0 => {
                differing_peer(peer, &theirs, &own, "found different hash values from remote peer");
                differ = true;
            }
            Ok(theirs) => {
                let what = "found different compact revision values from remote peer";
                differing_peer(peer, &theirs, &own, what);
            }
            Err(CallError::Answered(Error::Refused(error @ Refused::FutureRevision))) => {
                warn!(remote_peer_id = %peer, %error, "cannot fetch hash from slow remote peer");
            }
            Err(CallError::Answered(Error::Refused(error @ Refused::Compacted))) => warn!(
                remote_peer_id = %peer, %error,
                "cannot fetch hash from remote peer; local member is behind"
            ),
            Err(error @ CallError::OtherCluster) => {
                warn!(remote_peer_id = %peer, "{error}");
            }
            Err(error) => warn!(remote_peer_id = %peer, %error, "failed hash kv request"),
        }
    }
    if differ {
        let found = format!("{id} found data inconsistency with peers");
        return Err(Fatal::new("checkInitialHashKV failed", found));
    }
    info!(local_member_id = %id, "initial corruption checking passed; no corruption");
    Ok(())
}

/// As leader, compares all members at its own revision, every `--corrupt-check-time`.
pub(in crate::member) async fn check_often(member: Member) {
    let pause = member.0.options.corrupt_check_time;
    while !pause.is_zero() && !member.is_stopping() {
        member.0.env.sleep(pause).await;
        if member.raft().role != Role::Leader {
            continue;
        }
        if let Err(error) = member.check_now().await {
            warn!(%error, "failed to check hash KV");
        }
    }
}

/// As leader, compares the newest compaction that has not been compared, every
/// `--compact-hash-check-time`.
pub(in crate::member) async fn check_compactions(member: Member) {
    let mut checked = Revision(0);
    while !member.is_stopping() {
        member.0.env.sleep(member.0.options.compact_hash_check_time).await;
        if member.raft().role != Role::Leader {
            continue;
        }
        let hashes = member.0.hashes.list().into_iter();
        for hash in hashes.take_while(|hash| hash.hash_revision > checked) {
            match member.check_compaction(hash).await {
                Outcome::Same => checked = checked.max(hash.hash_revision),
                Outcome::Differ => {}
                Outcome::Partly => continue,
            }
            break;
        }
    }
}

/// The result of the comparison at one compaction.
enum Outcome {
    /// All members have the same hash.
    Same,
    Differ,
    /// Some did not answer, or have compacted at other revisions.
    Partly,
}

impl Member {
    async fn check_now(&self) -> Result<(), Error> {
        let own = self.own_hash().await?;
        let answers = self.ask_peers(own.hash_revision).await;
        // From here on this member's state includes everything that a peer reported.
        self.linearizable().await?;
        let (later, now) = (self.own_hash().await?, self.0.store.revision());
        let mut accused = Vec::new();
        if (later.hash_revision, later.compact_revision)
            == (own.hash_revision, own.compact_revision)
            && later.hash != own.hash
        {
            warn!(
                revision_1 = own.hash_revision.0,
                compact_revision_1 = own.compact_revision.0,
                hash_1 = own.hash,
                revision_2 = later.hash_revision.0,
                compact_revision_2 = later.compact_revision.0,
                hash_2 = later.hash,
                "found hash mismatch"
            );
            accused.push(self.id());
        }
        let mut prints = BTreeMap::from([(self.id(), (own.compact_revision, own.hash))]);
        let asked = answers.len() + 1;
        for (peer, answer) in answers {
            let Ok(answer) = answer else { continue };
            let header = answer.header.unwrap_or_default();
            let is_ahead = header.revision > now.0;
            let is_compacted_later = answer.compact_revision > later.compact_revision.0;
            if is_ahead {
                warn!(
                    leader_revision = now.0,
                    follower_revision = header.revision,
                    follower_peer_id = %peer,
                    "revision from follower must be less than or equal to leader's"
                );
            }
            if is_compacted_later {
                warn!(
                    leader_compact_revision = later.compact_revision.0,
                    follower_compact_revision = answer.compact_revision,
                    follower_peer_id = %peer,
                    "compact revision from follower must be less than or equal to leader's"
                );
            }
            if is_ahead || is_compacted_later {
                accused.push(peer);
            }
            prints.insert(peer, print(&answer));
        }
        let checked = prints.len() - 1;
        accused.extend(differing(self.id(), &prints, asked));
        self.accuse("periodic", accused).await;
        info!(number_of_peers_checked = checked, "finished peer corruption check");
        Ok(())
    }

    async fn check_compaction(&self, own: HashKv) -> Outcome {
        let answers = self.ask_peers(own.hash_revision).await;
        let asked = answers.len() + 1;
        let mut prints = BTreeMap::from([(self.id(), (own.compact_revision, own.hash))]);
        prints.extend(
            answers.iter().filter_map(|(id, answer)| Some((*id, print(answer.as_ref().ok()?)))),
        );
        let same = |(compacted, _): &&Print| *compacted == own.compact_revision;
        let whole = prints.values().filter(same).count() == asked;
        let accused = differing(self.id(), &prints, asked);
        let outcome = match (accused.is_empty(), whole) {
            (false, _) => Outcome::Differ,
            (true, true) => Outcome::Same,
            (true, false) => Outcome::Partly,
        };
        self.accuse("compaction", accused).await;
        info!(revision = own.hash_revision.0, whole, "finished compaction hash check");
        outcome
    }

    /// The hash at the present revision.
    async fn own_hash(&self) -> Result<HashKv, Error> {
        let view = self.0.store.view();
        let hash = self.0.env.blocking("hash", move || view.hash_kv(0)).await;
        Ok(self.fatal_stops(hash)??)
    }

    async fn ask_peers(&self, revision: Revision) -> Vec<PeerHash> {
        let peers = Peers {
            client: self.0.links.client(),
            cluster: self.cluster_id(),
            others: others(&self.members(), self.id()),
            limit: limits::request_timeout(self.0.options.election_timeout),
        };
        peers.ask(revision).await
    }

    /// Raises the alarm for each member, unless it is active.
    async fn accuse(&self, check: &str, accused: Vec<MemberId>) {
        let result = if accused.is_empty() { "same" } else { "differ" };
        self.metrics().corruption_checks.with_label_values(&[check, result]).inc();
        for id in accused {
            match (check, id) {
                ("compaction", MemberId::NONE) => error!(
                    "Detected compaction hash mismatch but cannot identify the corrupted members, so \
                     intentionally set the memberID as 0"
                ),
                ("compaction", id) => {
                    error!(peer_ids = %id, "Detected compaction hash mismatch");
                }
                (_, id) => {
                    error!(member = %id, "found members with different data; raising alarm CORRUPT");
                }
            }
            if self.alarms().raised_by(id, AlarmType::Corrupt) {
                continue;
            }
            let request = AlarmRequest {
                action: AlarmAction::Activate as i32,
                member_id: id.0,
                alarm: AlarmType::Corrupt as i32,
            };
            if let Err(error) = self.propose(Origin::own(), request).await {
                warn!(%error, member = %id, "could not raise alarm CORRUPT");
            }
        }
    }
}

/// The response of one peer.
type PeerHash = (MemberId, Result<HashKvResponse, CallError>);

/// The peers, and how to reach them.
struct Peers<'a> {
    client: &'a Client,
    cluster: ClusterId,
    others: Vec<(MemberId, Vec<String>)>,
    limit: std::time::Duration,
}

impl Peers<'_> {
    async fn ask(&self, revision: Revision) -> Vec<PeerHash> {
        join_all(self.others.iter().map(|(id, urls)| async move {
            let mut last = Err(Error::from(Unavailable::Timeout).into());
            for url in urls {
                last = self.client.hash_kv(url, self.cluster, revision, self.limit).await;
                if last.is_ok() {
                    break;
                }
            }
            (*id, last)
        }))
        .await
    }
}

fn others(members: &Membership, own: MemberId) -> Vec<(MemberId, Vec<String>)> {
    let others = members.members.values().filter(|member| member.id != own.0);
    others.map(|member| (MemberId(member.id), member.peer_urls.clone())).collect()
}

/// Logs a peer whose answer is not this member's, with etcd's fields.
fn differing_peer(peer: MemberId, theirs: &HashKvResponse, own: &HashKv, what: &str) {
    warn!(
        local_member_revision = own.hash_revision.0,
        local_member_compact_revision = own.compact_revision.0,
        local_member_hash = own.hash,
        remote_peer_id = %peer,
        remote_peer_revision = theirs.header.as_ref().map_or(0, |header| header.revision),
        remote_peer_compact_revision = theirs.compact_revision,
        remote_peer_hash = theirs.hash,
        "{what}"
    );
}

fn print(answer: &HashKvResponse) -> Print {
    (Revision(answer.compact_revision), answer.hash)
}

/// The members that differ from the majority of `members`, among those with the same compact revision as
/// `judge`; member 0 when they differ and there is no majority.
fn differing(judge: MemberId, prints: &BTreeMap<MemberId, Print>, members: usize) -> Vec<MemberId> {
    let Some((compacted, _)) = prints.get(&judge) else { return Vec::new() };
    let any = plant::HASHES_OF_OTHER_COMPACTIONS_COMPARED.is_planted();
    let mut groups: BTreeMap<u32, Vec<MemberId>> = BTreeMap::new();
    for (id, (_, hash)) in prints.iter().filter(|(_, (at, _))| any || at == compacted) {
        groups.entry(*hash).or_default().push(*id);
    }
    if groups.len() < 2 {
        return Vec::new();
    }
    let majority = groups.values().position(|group| group.len() > members / 2);
    match majority {
        None => vec![MemberId::NONE],
        Some(right) if plant::CORRUPT_CHECK_ACCUSES_WRONG_MEMBER.is_planted() => {
            groups.into_values().nth(right).unwrap_or_default()
        }
        Some(right) => {
            let wrong = groups.into_values().enumerate().filter(|(at, _)| *at != right);
            wrong.flat_map(|(_, group)| group).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `id compacted hash` of each member that answered; the first one judges, of so many in all.
    fn accused(prints: &[(u64, i64, u32)], members: usize) -> Vec<u64> {
        let told = prints.iter().map(|(id, at, hash)| (MemberId(*id), (Revision(*at), *hash)));
        let found = differing(MemberId(prints[0].0), &told.collect(), members);
        found.into_iter().map(|id| id.0).collect()
    }

    #[test]
    fn the_minority_is_accused() {
        assert!(accused(&[(1, 5, 7), (2, 5, 7), (3, 5, 7)], 3).is_empty());
        assert_eq!(accused(&[(1, 5, 7), (2, 5, 8), (3, 5, 7)], 3), [2]);
        assert_eq!(accused(&[(1, 5, 9), (2, 5, 7), (3, 5, 7)], 3), [1], "the leader itself");
        assert_eq!(accused(&[(1, 5, 7), (2, 5, 7), (3, 5, 7), (4, 5, 8), (5, 5, 9)], 5), [4, 5]);
    }

    #[test]
    fn without_a_majority_member_0_is_named() {
        assert_eq!(accused(&[(1, 5, 7), (2, 5, 8)], 2), [0]);
        assert_eq!(accused(&[(1, 5, 7), (2, 5, 8), (3, 5, 9)], 3), [0]);
        assert_eq!(accused(&[(1, 5, 7), (2, 5, 7), (3, 5, 8)], 5), [0], "two of five");
    }

    #[test]
    fn only_hashes_at_the_same_compaction_are_compared() {
        assert!(accused(&[(1, 5, 7)], 3).is_empty(), "no peer answered");
        assert!(accused(&[(1, 5, 7), (2, 4, 8), (3, 6, 9)], 3).is_empty(), "other compactions");
        assert_eq!(accused(&[(1, 5, 7), (2, 4, 8), (3, 5, 9)], 3), [0]);
    }
}
