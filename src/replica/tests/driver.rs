//! The driver with real tasks and time, logs in memory and a network of function calls. What consensus
//! itself promises is tested in `scripts` and `schedules`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::etcdserverpb::{InternalRaftRequest, Metadata, RequestHeader};
use quorate_proto::{raftpb, walpb};
use tokio::sync::{mpsc, oneshot};

use crate::env::{self, Env};
use crate::error::{Error, Fatal, Refused, Unavailable};
use crate::metrics::Metrics;
use crate::replica::core::{Boot, Role};
use crate::replica::disk::LogStore;
use crate::replica::handle::{self, Replica, ReplicaConfig, Status, ToApply, Transport};
use crate::replica::proposals::{Proposal, ProposalKind, Reply};
use crate::types::{Index, MemberId, Term};
use crate::wal::{Save, SaveStats, Wal};

/// A disk that stalls or fails on demand.
#[derive(Clone, Default)]
struct Disk(Arc<(Mutex<DiskState>, Condvar)>);

#[derive(Default)]
struct DiskState {
    saves: Vec<Save>,
    stalled: bool,
    broken: bool,
    released: Option<Index>,
}

impl Disk {
    fn set(&self, change: impl FnOnce(&mut DiskState)) {
        change(&mut self.0.0.lock().expect("no panic inside"));
        self.0.1.notify_all();
    }

    fn get<T>(&self, look: impl FnOnce(&DiskState) -> T) -> T {
        look(&self.0.0.lock().expect("no panic inside"))
    }
}

impl LogStore for Disk {
    fn save(&mut self, batch: &[Save]) -> Result<SaveStats, Fatal> {
        let state = self.0.0.lock().expect("no panic inside");
        let mut state = self.0.1.wait_while(state, |s| s.stalled).expect("no panic inside");
        if state.broken {
            return Err(Fatal::new("log", "no space left"));
        }
        state.saves.extend_from_slice(batch);
        Ok(SaveStats::default())
    }

    fn sync(&mut self) -> Result<(), Fatal> {
        Ok(())
    }

    fn release(&mut self, up_to: Index) -> Result<usize, Fatal> {
        self.set(|state| state.released = Some(up_to));
        Ok(0)
    }

    fn prepare(&mut self) -> Result<(), Fatal> {
        Ok(())
    }
}

struct Handle(oneshot::Sender<Result<Index, Error>>);

impl Reply for Handle {
    fn refuse(self, error: Error) {
        let _ = self.0.send(Err(error));
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

#[derive(Default)]
struct Network {
    discarded: Mutex<Vec<Index>>,
    members: Mutex<BTreeMap<u64, Replica<Handle>>>,
    cut: Mutex<BTreeSet<u64>>,
}

impl Transport for Network {
    fn send(&self, messages: Vec<raftpb::Message>) {
        let members = self.members.lock().expect("no panic inside");
        let cut = self.cut.lock().expect("no panic inside");
        for message in messages {
            // Over the wire and back, as it will be.
            let message = raftpb::Message::decode(&message.encode_to_vec()[..]).expect("encoded");
            if let Some(to) = members
                .get(&message.to)
                .filter(|_| !cut.contains(&message.from) && !cut.contains(&message.to))
            {
                to.step(message);
            }
        }
    }

    fn discard_snapshot(&self, index: Index) {
        self.discarded.lock().expect("no panic inside").push(index);
    }
}

struct Member {
    replica: Replica<Handle>,
    disk: Disk,
    applied: Arc<Mutex<Vec<raftpb::Entry>>>,
    metrics: Arc<Metrics>,
}

struct Cluster {
    env: Env,
    network: Arc<Network>,
    members: BTreeMap<u64, Member>,
}

impl Cluster {
    fn new(count: u64) -> Self {
        let env = env::tokio::env();
        let mut cluster = Self { env, network: Arc::default(), members: BTreeMap::new() };
        for id in 1..=count {
            cluster.start(id, (1..=count).collect());
        }
        cluster
    }

    fn start(&mut self, id: u64, voters: Vec<u64>) {
        let conf_state = raftpb::ConfState { voters, ..Default::default() };
        let boot = Boot { conf_state, ..Default::default() };
        let disk = Disk::default();
        self.start_on(id, boot, disk.clone(), disk);
    }

    fn start_on(&mut self, id: u64, boot: Boot, store: impl LogStore, disk: Disk) {
        let config = ReplicaConfig {
            heartbeat: Duration::from_millis(10),
            boot_seed: id,
            check_proposed: no_poison,
            check_appended: no_poison,
            ..ReplicaConfig::new(MemberId(id))
        };
        let metrics = config.metrics.clone();
        let store = Box::new(store);
        let (replica, committed) =
            handle::start_on(self.env.clone(), config, boot, store, self.network.clone())
                .expect("an empty log is a good start");
        let applied = Arc::default();
        self.env.spawn("applier", apply(replica.clone(), committed, Arc::clone(&applied)));
        self.network.members.lock().expect("no panic inside").insert(id, replica.clone());
        self.members.insert(id, Member { replica, disk, applied, metrics });
    }

    fn replica(&self, id: u64) -> &Replica<Handle> {
        &self.members[&id].replica
    }

    /// Waits until the members agree on a leader other than `not`.
    async fn leader(&self, not: u64) -> u64 {
        let (_, first) = self.members.iter().find(|(id, _)| **id != not).expect("another member");
        let mut status = first.replica.status();
        let known = |status: &Status| status.leader != MemberId::NONE && status.leader.0 != not;
        status.wait_for(known).await.expect("the replica runs");
        status.borrow().leader.0
    }
}

const POISON: &[u8] = b"\xff";

fn no_poison(entry: &raftpb::Entry) -> Result<(), String> {
    if entry.data == POISON { Err("poison".to_owned()) } else { Ok(()) }
}

async fn apply(
    replica: Replica<Handle>,
    mut committed: mpsc::Receiver<ToApply<Handle>>,
    applied: Arc<Mutex<Vec<raftpb::Entry>>>,
) {
    while let Some(to_apply) = committed.recv().await {
        let entries = match to_apply {
            ToApply::Entries(entries) => entries,
            ToApply::Snapshot(metadata, _) => {
                replica.applied(Index(metadata.index), Term(metadata.term));
                continue;
            }
        };
        for committed in entries {
            let index = Index(committed.entry.index);
            if committed.entry.r#type() == raftpb::EntryType::EntryConfChange {
                let change =
                    raftpb::ConfChange::decode(&committed.entry.data[..]).expect("encoded");
                replica.apply_conf_change(change).await;
            }
            applied.lock().expect("no panic inside").push(committed.entry);
            replica.applied(index, Term(0));
            if let Some(Handle(reply)) = committed.reply {
                let _ = reply.send(Ok(index));
            }
        }
    }
}

fn proposal(id: u64) -> (Proposal<Handle>, oneshot::Receiver<Result<Index, Error>>) {
    let header = Some(RequestHeader { id, ..Default::default() });
    let data = InternalRaftRequest { header, ..Default::default() }.encode_to_vec().into();
    let (reply, answer) = oneshot::channel();
    let reply = Some(Handle(reply));
    let kind = ProposalKind::Normal;
    (Proposal { id, data, kind, vital: false, only_in_term: None, reply }, answer)
}

async fn propose(replica: &Replica<Handle>, id: u64) -> Result<Index, Error> {
    let (proposal, answer) = proposal(id);
    replica.propose(proposal).await?;
    answer.await.expect("answered or refused")
}

#[tokio::test]
async fn a_lone_member_answers_what_it_has_written() {
    let cluster = Cluster::new(1);
    // Proposed before there is a leader: it waits.
    let index = propose(cluster.replica(1), 7).await.expect("committed");
    let durable = cluster.members[&1].disk.get(|disk| {
        disk.saves.iter().any(|save| {
            matches!(save, Save::Entries { entries, .. } if entries.iter().any(|e| e.index == index.0))
        })
    });
    assert!(durable);
    let read = cluster.replica(1).read_index().await.expect("it leads");
    assert!(read >= index);
    cluster.replica(1).shutdown().await;
    assert_eq!(propose(cluster.replica(1), 8).await, Err(Unavailable::Stopped.into()));
    assert_eq!(cluster.replica(1).read_index().await, Err(Unavailable::Stopped.into()));
}

/// As etcd's raft, in which a candidate's own vote counts once it is stable.
#[tokio::test]
async fn a_lone_voter_leads_once_its_vote_is_durable() {
    let mut cluster = Cluster::new(0);
    let disk = Disk::default();
    disk.set(|state| state.stalled = true);
    let conf_state = raftpb::ConfState { voters: vec![1], ..Default::default() };
    let boot = Boot { conf_state, ..Default::default() };
    cluster.start_on(1, boot, disk.clone(), disk.clone());
    let mut status = cluster.replica(1).status();
    status.wait_for(|status| status.term == Term(1)).await.expect("the replica runs");
    {
        let status = status.borrow();
        assert_eq!((status.role, status.leader), (Role::Candidate, MemberId::NONE));
    }
    disk.set(|state| state.stalled = false);
    status.wait_for(|status| status.role == Role::Leader).await.expect("the replica runs");
    assert_eq!((status.borrow().term, status.borrow().leader), (Term(1), MemberId(1)));
    let voted = |save: &Save| matches!(save, Save::Entries { hard_state: Some(state), .. } if state.vote == 1);
    assert!(disk.get(|disk| disk.saves.iter().any(voted)));
}

#[tokio::test]
async fn a_restarted_member_goes_on_from_its_log() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let mut cluster = Cluster::new(0);
    let (disk, dir) = (cluster.env.disk.clone(), dir.path().join("wal"));
    let options = crate::wal::Options { segment_bytes: 4096, ..Default::default() };
    let wal = Wal::create(disk.clone(), &dir, &Metadata::default(), options).expect("a new log");
    let conf_state = raftpb::ConfState { voters: vec![1], ..Default::default() };
    let boot = Boot { conf_state: conf_state.clone(), ..Default::default() };
    cluster.start_on(1, boot, wal, Disk::default());
    let many = (1..=200).map(|id| propose(cluster.replica(1), id));
    let answers = futures::future::join_all(many).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    cluster.replica(1).shutdown().await;

    let at = walpb::Snapshot::default();
    let (wal, recovered) = Wal::open(disk, &dir, at, options).expect("the log is whole");
    let last = recovered.entries.last().expect("not empty").index;
    assert!(last > 200 && recovered.hard_state.commit == last, "{:?}", recovered.hard_state);
    let (hard_state, entries) = (recovered.hard_state, recovered.entries);
    let boot = Boot { hard_state, conf_state, entries, ..Default::default() };
    cluster.start_on(1, boot, wal, Disk::default());
    let index = propose(cluster.replica(1), 201).await.expect("committed");
    // After its term's first entry.
    assert_eq!(index.0, last + 2);
    let applied = cluster.members[&1].applied.lock().expect("no panic inside").len();
    assert_eq!(applied as u64, index.0);
}

#[test]
fn a_panic_of_raft_is_fatal_with_its_words() {
    let caught =
        crate::replica::driver::caught::<()>("consensus", || panic!("to_commit {} is too high", 7));
    let text = caught.expect_err("it panicked").to_string();
    assert_eq!(text, "consensus: to_commit 7 is too high");
}

#[tokio::test]
async fn every_member_takes_writes_and_reads() {
    let cluster = Cluster::new(3);
    for id in 1..=3 {
        let index = propose(cluster.replica(id), 10 + id).await.expect("committed");
        let read = cluster.replica(id).read_index().await.expect("there is a leader");
        assert!(read >= index, "{id} reads at {read} after writing at {index}");
    }
    let many = (0..100).map(|n| propose(cluster.replica(2), 100 + n));
    let answers = futures::future::join_all(many).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

#[tokio::test]
async fn a_leader_counts_heartbeats_that_come_too_late() {
    let cluster = Cluster::new(3);
    let leader = cluster.leader(0).await;
    let late = |id: u64| cluster.members[&id].metrics.heartbeats_late.get();
    // All of the cluster is on this thread, which is kept waiting.
    let (_nobody, never) = std::sync::mpsc::channel::<()>();
    never.recv_timeout(Duration::from_millis(60)).expect_err("nobody sends");
    let patience = Duration::from_secs(10);
    let told = async {
        while late(leader) == 0 {
            cluster.env.sleep(Duration::from_millis(5)).await;
        }
    };
    cluster.env.timeout(patience, told).await.expect("the next tick tells of it");
    assert_eq!(late(leader) % 2, 0, "one for each of the others");
    if cluster.leader(0).await == leader {
        let others = (1..=3).filter(|id| *id != leader).map(late).sum::<u64>();
        assert_eq!(others, 0, "followers send none");
    }
}

#[tokio::test]
async fn writes_wait_for_a_leader_and_reads_too() {
    let cluster = Cluster::new(3);
    let leader = cluster.leader(0).await;
    cluster.network.cut.lock().expect("no panic inside").extend([1, 2, 3]);
    let follower = leader % 3 + 1;
    let mut status = cluster.replica(follower).status();
    let leaderless = status.wait_for(|status| status.leader == MemberId::NONE);
    leaderless.await.expect("the replica runs");
    let write = propose(cluster.replica(follower), 5);
    let read = cluster.replica(follower).read_index();
    let heal = async {
        cluster.network.cut.lock().expect("no panic inside").clear();
    };
    let (write, read, ()) = tokio::join!(write, read, heal);
    assert!(write.is_ok() && read.is_ok(), "{write:?} {read:?}");
}

#[tokio::test]
async fn a_leader_whose_disk_stalls_is_replaced() {
    let cluster = Cluster::new(3);
    let leader = cluster.leader(0).await;
    propose(cluster.replica(leader), 1).await.expect("committed");
    cluster.members[&leader].disk.set(|disk| disk.stalled = true);
    let (stuck, answer) = proposal(2);
    cluster.replica(leader).propose(stuck).await.expect("taken");
    let next = cluster.leader(leader).await;
    propose(cluster.replica(next), 3).await.expect("committed without the old leader");
    cluster.members[&leader].disk.set(|disk| disk.stalled = false);
    // It was sent to the followers before the leader's own write.
    answer.await.expect("answered").expect("committed by the next leader");
}

#[tokio::test]
async fn a_failed_write_ends_the_replica() {
    let cluster = Cluster::new(1);
    propose(cluster.replica(1), 1).await.expect("committed");
    cluster.members[&1].disk.set(|disk| disk.broken = true);
    assert_eq!(propose(cluster.replica(1), 2).await, Err(Unavailable::Stopped.into()));
    let fatal = cluster.replica(1).fatal().await;
    assert_eq!(fatal.to_string(), "log: no space left");
}

#[tokio::test]
async fn shutdown_hands_leadership_over() {
    let cluster = Cluster::new(3);
    let leader = cluster.leader(0).await;
    propose(cluster.replica(leader), 1).await.expect("committed");
    let term = cluster.replica(leader).status().borrow().term;
    cluster.replica(leader).shutdown().await;
    let next = cluster.leader(leader).await;
    assert_ne!(next, leader);
    let status = cluster.replica(next).status();
    assert_eq!(status.borrow().term, Term(term.0 + 1), "no election in between");
}

#[tokio::test]
async fn a_proposal_for_another_term_is_refused() {
    let cluster = Cluster::new(1);
    propose(cluster.replica(1), 1).await.expect("committed");
    let term = cluster.replica(1).status().borrow().term;
    for (at, expected) in [(term.0 + 1, false), (term.0, true)] {
        let (mut bound, answer) = proposal(2);
        bound.only_in_term = Some(Term(at));
        cluster.replica(1).propose(bound).await.expect("taken");
        match answer.await.expect("answered") {
            Ok(_) => assert!(expected),
            Err(error) => assert!(!expected && error == Refused::NotLeader.into(), "{error}"),
        }
    }
}

#[tokio::test]
async fn a_conf_change_is_answered_by_its_id() {
    let cluster = Cluster::new(1);
    propose(cluster.replica(1), 1).await.expect("committed");
    let change = raftpb::ConfChange {
        id: 77,
        r#type: raftpb::ConfChangeType::ConfChangeAddLearnerNode.into(),
        node_id: 2,
        context: Bytes::from_static(b"{}"),
    };
    let (reply, answer) = oneshot::channel();
    let proposal = Proposal {
        id: 77,
        data: change.encode_to_vec().into(),
        kind: ProposalKind::ConfChange,
        vital: true,
        only_in_term: None,
        reply: Some(Handle(reply)),
    };
    cluster.replica(1).propose(proposal).await.expect("taken");
    answer.await.expect("answered").expect("committed");
    let status = cluster.replica(1).status();
    assert_eq!(status.borrow().conf_state.learners, vec![2]);
    assert_eq!(status.borrow().role, Role::Leader);
    let last = cluster.members[&1].applied.lock().expect("no panic inside").last().cloned();
    assert_eq!(last.expect("applied").data, change.encode_to_vec(), "the payload is etcd's");
}

#[tokio::test]
async fn a_checkpoint_releases_the_log() {
    let cluster = Cluster::new(1);
    let index = propose(cluster.replica(1), 1).await.expect("committed");
    let conf_state = raftpb::ConfState { voters: vec![1], ..Default::default() };
    let replica = cluster.replica(1);
    replica.checkpoint(index, Term(1), conf_state.clone(), Index(1)).await;
    replica.shutdown().await;
    cluster.members[&1].disk.get(|disk| {
        assert_eq!(disk.released, Some(index));
        let mark = disk.saves.iter().find_map(|save| match save {
            Save::Snapshot(mark) => Some(mark.clone()),
            Save::Entries { .. } => None,
        });
        assert_eq!(mark.expect("recorded").conf_state, Some(conf_state));
    });
}

fn message(kind: raftpb::MessageType, from: u64, to: u64) -> raftpb::Message {
    raftpb::Message { r#type: kind.into(), from, to, ..Default::default() }
}

fn append(index: u64, data: &'static [u8]) -> raftpb::Message {
    let entry =
        raftpb::Entry { index: index + 1, term: 5, data: data.into(), ..Default::default() };
    raftpb::Message {
        term: 5,
        index,
        log_term: if index == 0 { 0 } else { 5 },
        entries: vec![entry],
        commit: index,
        ..message(raftpb::MessageType::MsgApp, 2, 1)
    }
}

fn received_snapshot(index: u64) -> raftpb::Message {
    let conf_state = Some(raftpb::ConfState { voters: vec![1, 2], ..Default::default() });
    let metadata = Some(raftpb::SnapshotMetadata { index, term: 5, conf_state });
    raftpb::Message {
        term: 5,
        snapshot: Some(raftpb::Snapshot { metadata, ..Default::default() }),
        ..message(raftpb::MessageType::MsgSnap, 2, 1)
    }
}

/// One of two members, the other of which is the test.
fn one_of_two() -> Cluster {
    let mut cluster = Cluster::new(0);
    cluster.start(1, vec![1, 2]);
    cluster
}

impl Cluster {
    async fn until(&self, holds: impl Fn() -> bool) {
        let wait = async {
            while !holds() {
                self.env.sleep(Duration::from_millis(2)).await;
            }
        };
        self.env.timeout(Duration::from_secs(20), wait).await.expect("comes true in time");
    }
}

#[tokio::test]
async fn a_forwarded_proposal_that_cannot_be_applied_is_not_appended() {
    let cluster = Cluster::new(1);
    propose(cluster.replica(1), 1).await.expect("committed");
    let poison = raftpb::Entry { data: POISON.into(), ..Default::default() };
    let fine = raftpb::Entry { data: "fine".into(), ..Default::default() };
    for entries in [vec![fine.clone(), poison.clone()], vec![poison], vec![fine]] {
        let forwarded = message(raftpb::MessageType::MsgProp, 2, 1);
        cluster.replica(1).step(raftpb::Message { entries, ..forwarded });
    }
    let index = propose(cluster.replica(1), 2).await.expect("committed");
    let applied = cluster.members[&1].applied.lock().expect("no panic inside").clone();
    let forwarded: Vec<_> = applied.iter().filter(|entry| entry.data == "fine").collect();
    assert_eq!((forwarded.len(), applied.len() as u64), (1, index.0), "{applied:?}");
    assert!(applied.iter().all(|entry| entry.data != POISON), "{applied:?}");
}

#[tokio::test]
async fn a_leaders_entry_that_cannot_be_applied_is_not_acknowledged() {
    let cluster = one_of_two();
    cluster.replica(1).step(append(0, POISON));
    cluster.replica(1).step(append(0, b"fine"));
    cluster.until(|| cluster.replica(1).status().borrow().last_index == Index(1)).await;
    cluster.replica(1).shutdown().await;
    cluster.members[&1].disk.get(|disk| {
        let entries = disk.saves.iter().flat_map(|save| match save {
            Save::Entries { entries, .. } => entries.as_slice(),
            Save::Snapshot(_) => &[],
        });
        let data: Vec<_> = entries.map(|entry| entry.data.clone()).collect();
        assert_eq!(data, [Bytes::from_static(b"fine")]);
    });
}

#[tokio::test]
async fn a_flush_that_ends_after_a_snapshot_was_received_leaves_no_mark() {
    let cluster = one_of_two();
    let replica = cluster.replica(1);
    let marks = || {
        cluster.members[&1].disk.get(|disk| {
            let marks = disk.saves.iter().filter_map(|save| match save {
                Save::Snapshot(mark) => Some(mark.index),
                Save::Entries { .. } => None,
            });
            marks.collect::<Vec<_>>()
        })
    };
    replica.step(received_snapshot(100));
    cluster.until(|| marks() == [100]).await;
    replica.checkpoint(Index(9), Term(5), raftpb::ConfState::default(), Index(1)).await;
    replica.checkpoint(Index(100), Term(5), raftpb::ConfState::default(), Index(1)).await;
    replica.shutdown().await;
    assert_eq!(marks(), [100, 100]);
    let released = cluster.members[&1].disk.get(|disk| disk.released);
    assert_eq!(released, Some(Index(100)));
}

#[tokio::test]
async fn databases_of_snapshots_that_are_installed_or_ignored_are_discarded() {
    let cluster = one_of_two();
    let discarded = || cluster.network.discarded.lock().expect("no panic inside").clone();
    cluster.replica(1).step(received_snapshot(100));
    cluster.until(|| discarded() == [Index(100)]).await;
    cluster.replica(1).step(received_snapshot(50));
    cluster.until(|| discarded() == [100, 50].map(Index)).await;
}
