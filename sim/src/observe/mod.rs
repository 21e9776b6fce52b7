//! Observes the members while a run goes on: their status all the time, their pages of
//! figures and the fingerprints of their histories now and then, over the simulated network as any client
//! would; what servers log is taken down. It goes to the evidence, and to the story when it is news.
//! Nothing is checked here.
//!
//! Reading order: this file (polling), `page` (figures over HTTP/1), `lines`
//! (log lines), [`spans`] (what members export of traced calls).

mod lines;
mod page;
pub mod spans;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate::env::Env;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb::{HashKvRequest, StatusRequest, StatusResponse};

use crate::cluster::Cluster;
use crate::facts::evidence::{Evidence, Sample};
use crate::facts::marks;
use crate::facts::seen::{Hash, Page};
use crate::facts::story::{Role, Story, What};
use crate::offline;

/// Between two questions for a member's status.
const PERIOD: Duration = Duration::from_millis(200);
/// A member that has not answered by then is silent.
const PATIENCE: Duration = Duration::from_millis(800);
/// Between two looks at a member's page of figures, out of step with what members do every second, and
/// at all fingerprints.
const PAGE_PERIOD: Duration = Duration::from_millis(2_300);
const HASH_PERIOD: Duration = Duration::from_secs(4);

/// Begins to observe, from the host of `env`, until its process ends. What this thread's servers log
/// is taken down until the thread ends.
pub fn start(cluster: &Cluster, env: &Env, evidence: &Evidence, story: &Story) {
    lines::listen(cluster.world(), evidence, story);
    let observer = Observer {
        cluster: cluster.clone(),
        env: env.clone(),
        evidence: evidence.clone(),
        story: story.clone(),
        names: Arc::default(),
    };
    drop(env.spawn("observer", observer.clone().meet_members()));
    drop(env.spawn("fingerprints", observer.compare()));
}

#[derive(Clone)]
struct Observer {
    cluster: Cluster,
    env: Env,
    evidence: Evidence,
    story: Story,
    /// Hosts by the ids of their members, as far as they have answered.
    names: Arc<Mutex<BTreeMap<u64, String>>>,
}

/// What the story has of a member last.
#[derive(Clone, PartialEq)]
struct Noted {
    role: Role,
    term: u64,
    leader: String,
    commit: u64,
    applied: u64,
}

impl Observer {
    /// Follows every member, also those that join later.
    async fn meet_members(self) {
        let mut met = std::collections::BTreeSet::new();
        loop {
            for host in self.cluster.names() {
                if met.insert(host.clone()) {
                    drop(self.env.spawn("status", self.clone().follow(host.clone())));
                    drop(self.env.spawn("figures", self.clone().read_pages(host)));
                }
            }
            self.env.sleep(PAGE_PERIOD).await;
        }
    }

    async fn follow(self, host: String) {
        let mut client = MaintenanceClient::new(self.cluster.channel(&self.env, Some(&host)));
        let mut told = None;
        loop {
            let world = self.cluster.world();
            let process = world.processes(&host);
            let status = if world.is_running(&host) {
                let asked = self.env.timeout(PATIENCE, client.status(StatusRequest {})).await;
                asked.ok().and_then(Result::ok).map(tonic::Response::into_inner)
            } else {
                None
            };
            self.note(&host, status.as_ref(), &mut told);
            // An answer that a restart has overtaken belongs to no process.
            if let Some(status) = status.filter(|_| world.processes(&host) == process) {
                self.keep(&host, process, status);
            }
            self.env.sleep(PERIOD).await;
        }
    }

    fn keep(&self, host: &str, process: u64, status: StatusResponse) {
        let disk = self.cluster.world().disk(host).harm().wiped;
        let (at, host) = (self.env.now(), host.to_owned());
        let leads = |status: &StatusResponse| {
            status.header.as_ref().is_some_and(|header| header.member_id == status.leader)
        };
        let mut record = self.evidence.record();
        let lately = record.samples.iter().rev().take_while(|sample| at - sample.at < 2 * PERIOD);
        let other = lately.into_iter().any(|sample| sample.host != host && leads(&sample.status));
        if other && leads(&status) {
            marks::reach("two-leaders");
        }
        record.samples.push(Sample { at, host, process, disk, status });
    }

    /// Adds to the story what is new about a member; of one that does not answer, that once.
    fn note(&self, host: &str, status: Option<&StatusResponse>, told: &mut Option<Noted>) {
        let now = match status {
            Some(status) => self.account(host, status),
            None => {
                let before = told.clone();
                let leader = String::new();
                let silent = Noted { role: Role::Silent, term: 0, leader, commit: 0, applied: 0 };
                // Where it stood is still what is known of it.
                before.map_or(silent.clone(), |old| Noted {
                    role: Role::Silent,
                    leader: String::new(),
                    ..old
                })
            }
        };
        if told.as_ref() == Some(&now) {
            return;
        }
        *told = Some(now.clone());
        let Noted { role, term, leader, commit, applied } = now;
        let host = host.to_owned();
        let what = What::Member { host, role, term, commit, applied, leader };
        self.story.note(self.cluster.world().elapsed(), what);
    }

    fn account(&self, host: &str, status: &StatusResponse) -> Noted {
        let id = status.header.as_ref().map_or(0, |header| header.member_id);
        let mut names = self.names.lock().expect("a map of names");
        names.insert(id, host.to_owned());
        let role = match status.leader {
            leader if leader == id => Role::Leader,
            _ if status.is_learner => Role::Learner,
            _ => Role::Follower,
        };
        let leader = match status.leader {
            0 => String::new(),
            id => names.get(&id).cloned().unwrap_or_else(|| format!("{id:x}")),
        };
        let (term, commit) = (status.raft_term, status.raft_index);
        Noted { role, term, leader, commit, applied: status.raft_applied_index }
    }

    async fn read_pages(self, host: String) {
        let world = self.cluster.world().clone();
        loop {
            offline::note_harm(&world, &host, &mut self.evidence.record().seen);
            if world.is_running(&host) {
                let asked =
                    self.env.timeout(PATIENCE, page::read(&self.cluster, &self.env, &host)).await;
                if let Ok(Ok(figures)) = asked {
                    let (at, host) = (self.env.now(), host.clone());
                    let page = Page { at, host, figures };
                    self.evidence.record().seen.pages.push(page);
                }
            }
            self.env.sleep(PAGE_PERIOD).await;
        }
    }

    /// Fetches the fingerprints of all members at one revision that all have reached.
    async fn compare(self) {
        let world = self.cluster.world().clone();
        loop {
            self.env.sleep(HASH_PERIOD).await;
            let Some(revision) = self.common_revision() else { continue };
            for host in self.cluster.names() {
                if !world.is_running(&host) {
                    continue;
                }
                let disk = world.disk(&host).harm().wiped;
                let channel = self.cluster.channel(&self.env, Some(&host));
                let mut client = MaintenanceClient::new(channel);
                let asked = client.hash_kv(HashKvRequest { revision });
                let answer = self.env.timeout(PATIENCE, asked).await;
                if let Some(answer) = answer.ok().and_then(Result::ok) {
                    let (at, answer) = (self.env.now(), answer.into_inner());
                    self.evidence.record().seen.hashes.push(Hash { at, host, disk, answer });
                }
            }
        }
    }

    /// The lowest of the newest revisions that members which answered lately are at.
    fn common_revision(&self) -> Option<i64> {
        let record = self.evidence.record();
        let since = self.env.now() - 2 * PERIOD - PATIENCE;
        let mut newest = BTreeMap::new();
        for sample in record.samples.iter().rev().take_while(|sample| sample.at >= since) {
            let revision = sample.status.header.as_ref().map_or(0, |header| header.revision);
            newest.entry(&sample.host).or_insert(revision);
        }
        newest.into_values().min().filter(|revision| *revision > 1)
    }
}
