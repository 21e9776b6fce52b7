//! Random schedules over [`super::harness`]: whatever is lost, repeated, reordered, crashed or
//! reconfigured, one leader a term, equal logs, one order of applied entries, no stale read (asserted
//! at every step by the harness); and when the faults end, every member gets everything that was
//! committed.

use proptest::prelude::*;
use quorate_proto::raftpb::ConfChangeType;

use super::harness::Cluster;
use crate::replica::core::Role;

/// The one that joins and leaves; 1 to 3 begin as voters.
const GUEST: u64 = 4;

/// Members by number, messages by a position that wraps around.
#[derive(Clone, Debug)]
enum Step {
    Tick(u64, u8),
    Deliver(usize),
    Drop(usize),
    Repeat(usize),
    Propose(u64),
    Read(u64),
    Persist(u64),
    PersistOne(u64),
    Crash(u64),
    Start(u64),
    Flush(u64, u8),
    Transfer(u64, u64),
    Change(u8, u64),
    Settle(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let id = || 1..=GUEST;
    prop_oneof![
        6 => (id(), 1..7_u8).prop_map(|(id, count)| Step::Tick(id, count)),
        30 => any::<usize>().prop_map(Step::Deliver),
        4 => any::<usize>().prop_map(Step::Drop),
        3 => any::<usize>().prop_map(Step::Repeat),
        8 => id().prop_map(Step::Propose),
        4 => id().prop_map(Step::Read),
        8 => id().prop_map(Step::Persist),
        6 => id().prop_map(Step::PersistOne),
        2 => id().prop_map(Step::Crash),
        3 => id().prop_map(Step::Start),
        2 => (id(), 0..3_u8).prop_map(|(id, keep)| Step::Flush(id, keep)),
        1 => (id(), id()).prop_map(|(from, to)| Step::Transfer(from, to)),
        2 => (0..3_u8, id()).prop_map(|(kind, id)| Step::Change(kind, id)),
        3 => (1..20_u8).prop_map(Step::Settle),
    ]
}

struct Run {
    cluster: Cluster,
    proposals: u64,
    reads: u64,
}

impl Run {
    fn new() -> Self {
        let mut cluster = Cluster::new(&[1, 2, 3], &[]);
        cluster.create(GUEST);
        cluster.auto_persist = false;
        Self { cluster, proposals: 0, reads: 0 }
    }

    fn step(&mut self, step: &Step) {
        let cluster = &mut self.cluster;
        match *step {
            Step::Tick(id, count) => {
                for _ in 0..count {
                    cluster.act(id, |core| core.tick());
                }
            }
            Step::Deliver(at) => self.with_message(at, Cluster::deliver),
            Step::Drop(at) => self.with_message(at, Cluster::lose),
            Step::Repeat(at) => self.with_message(at, |cluster, at| {
                let copy = cluster.network[at].clone();
                cluster.network.push(copy);
            }),
            Step::Propose(id) => {
                self.proposals += 1;
                // Refused without a leader, which is as good.
                let _ = cluster.propose(id, &format!("p{}", self.proposals), None);
            }
            Step::Read(id) => {
                self.reads += 1;
                cluster.read(id, &format!("r{}", self.reads));
            }
            Step::Persist(id) => cluster.persist(id),
            Step::PersistOne(id) => drop(cluster.persist_one(id)),
            Step::Crash(id) => cluster.crash(id),
            Step::Start(id) if !cluster.is_running(id) => cluster.start(id),
            Step::Flush(id, keep) if cluster.is_running(id) => cluster.flush(id, keep.into()),
            Step::Transfer(from, to) => drop(cluster.act(from, |core| core.transfer_leader(to))),
            Step::Change(kind, id) => self.change(kind, id),
            Step::Settle(count) => {
                for _ in 0..count {
                    self.with_message(0, Cluster::deliver);
                    (1..=GUEST).for_each(|id| self.cluster.persist(id));
                }
            }
            Step::Start(_) | Step::Flush(..) => {}
        }
        self.cluster.trace.clear();
    }

    fn with_message(&mut self, at: usize, act: impl FnOnce(&mut Cluster, usize)) {
        if let Some(at) = at.checked_rem(self.cluster.network.len()) {
            act(&mut self.cluster, at);
        }
    }

    /// Only a leader that knows of no other change under way, and never the last voter.
    fn change(&mut self, kind: u8, id: u64) {
        let leads = |at: &u64| {
            self.cluster.is_running(*at) && self.cluster.core(*at).role() == Role::Leader
        };
        let Some(leader) = (1..=GUEST).find(leads) else { return };
        let core = self.cluster.core(leader);
        let conf_state = core.conf_state();
        let voter = conf_state.voters.contains(&id);
        let kind = match kind {
            0 => ConfChangeType::ConfChangeAddNode,
            1 if !voter => ConfChangeType::ConfChangeAddLearnerNode,
            2 if !voter || conf_state.voters.len() > 2 => ConfChangeType::ConfChangeRemoveNode,
            _ => return,
        };
        if !core.conf_change_pending() {
            let _ = self.cluster.propose_change(leader, kind, id);
        }
    }

    /// No more faults: within some election timeouts there is one leader and all that belong to the
    /// cluster have applied the same.
    fn converge(&mut self) {
        for id in 1..=GUEST {
            if !self.cluster.is_running(id) {
                self.cluster.start(id);
            }
        }
        for _ in 0..200 {
            for id in 1..=GUEST {
                self.cluster.act(id, |core| core.tick());
            }
            self.cluster.stabilize();
            self.cluster.trace.clear();
            if self.has_converged() {
                return;
            }
        }
        let status: Vec<_> = (1..=GUEST)
            .map(|id| (id, self.cluster.core(id)))
            .map(|(id, core)| {
                let (role, term, applied) = (core.role(), core.term(), core.applied_index());
                format!("{id}: {role:?} term {term} applied {applied} {:?}", core.conf_state())
            })
            .collect();
        panic!("no convergence: {status:#?}");
    }

    fn has_converged(&self) -> bool {
        let cluster = &self.cluster;
        // A removed leader that has not applied its removal leads an older term.
        let leaders = (1..=GUEST).filter(|id| cluster.core(*id).role() == Role::Leader);
        let Some(leader) = leaders.max_by_key(|id| cluster.core(*id).term()) else { return false };
        let core = cluster.core(leader);
        let conf_state = core.conf_state();
        let state = &cluster.nodes[&leader].state;
        core.applied_index() == core.last_index()
            && state.index >= cluster.committed_index()
            && conf_state.voters.iter().chain(&conf_state.learners).all(|id| {
                let other = &cluster.nodes[id].state;
                other.index == state.index && other.applied == state.applied
            })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn consensus_holds(steps in proptest::collection::vec(step(), 50..400)) {
        let mut run = Run::new();
        for step in &steps {
            run.step(step);
        }
        run.cluster.check_logs();
        run.converge();
        run.cluster.check_logs();
    }
}
