//! What the metrics page reads from a member's state when it is asked for. What is counted as it
//! happens is counted where it happens.

use super::{ETCD_VERSION, Member};
use crate::limits;
use crate::metrics::catch_up;
use crate::types::MemberId;

impl Member {
    /// Sets every metric that is read when asked.
    pub fn refresh_metrics(&self) {
        self.refresh_cluster();
        self.refresh_store();
        self.refresh_watches();
        self.refresh_peers();
    }

    fn refresh_cluster(&self) {
        let (metrics, raft) = (self.metrics(), self.raft());
        let has_leader = raft.leader != MemberId::NONE;
        metrics.has_leader.set(has_leader.into());
        metrics.is_leader.set((has_leader && raft.leader == self.id()).into());
        metrics.is_learner.set(self.is_learner().into());
        metrics.committed.set(signed(raft.commit.0));
        metrics.applied.set(signed(self.store().applied().0));
        let pending = limits::PROPOSALS_MAX - self.0.proposals.available_permits();
        metrics.proposals_pending.set(signed(pending as u64));
        metrics.version.with_label_values(&[ETCD_VERSION]).set(1);
        metrics.server_id.with_label_values(&[&self.id().to_string()]).set(1);
        metrics.cluster_version.reset();
        if let Some(version) = self.cluster_version() {
            metrics.cluster_version.with_label_values(&[&version]).set(1);
        }
        metrics.alarms.reset();
        for alarm in self.alarms().list() {
            let id = MemberId(alarm.member_id).to_string();
            metrics.alarms.with_label_values(&[&id, alarm.alarm().as_str_name()]).set(1);
        }
    }

    fn refresh_store(&self) {
        let (metrics, store) = (self.metrics(), self.store());
        metrics.quota_bytes.set(self.0.options.quota_bytes.map_or(-1, signed));
        metrics.db_bytes.set(signed(store.engine().total_bytes()));
        metrics.db_live_bytes.set(signed(store.engine().live_bytes()));
        metrics.revision.set(store.revision().0);
        metrics.compact_revision.set(store.compact_revision().0);
    }

    fn refresh_watches(&self) {
        let (metrics, counters) = (self.metrics(), self.0.hub.counters());
        metrics.watch_streams.set(counters.streams.get());
        metrics.watchers.set(counters.watchers.get());
        metrics.slow_watchers.set(counters.slow_watchers.get());
        metrics.pending_events.set(counters.pending_events.get());
        catch_up(&metrics.events, counters.events.get());
    }

    fn refresh_peers(&self) {
        let (metrics, own) = (self.metrics(), self.id().to_string());
        metrics.known_peers.reset();
        for (id, stats) in self.0.links.stats() {
            let id = id.to_string();
            let labels = [id.as_str()];
            metrics.known_peers.with_label_values(&[&own, &id]).set(1);
            let counters = [
                (&metrics.peer_sent_bytes, &stats.sent_bytes),
                (&metrics.peer_received_bytes, &stats.received_bytes),
                (&metrics.peer_sent_failures, &stats.sent_failures),
                (&metrics.peer_received_failures, &stats.received_failures),
            ];
            for (counter, sum) in counters {
                catch_up(&counter.with_label_values(&labels), sum.get());
            }
        }
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
