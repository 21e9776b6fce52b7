//! A running member as what the endpoints serve.

use quorate_proto::etcdserverpb::{AlarmMember, RangeRequest};

use super::{Served, Versions};
use crate::env::BoxFuture;
use crate::error::Error;
use crate::member::{CLUSTER_VERSION, ETCD_VERSION, Member};
use crate::metrics::Metrics;

impl Served for Member {
    fn versions(&self) -> Versions {
        Versions {
            server: ETCD_VERSION,
            cluster: self.cluster_version(),
            storage: Some(CLUSTER_VERSION.into()),
        }
    }

    fn alarms(&self) -> Vec<AlarmMember> {
        Member::alarms(self).list()
    }

    fn has_leader(&self) -> bool {
        Member::has_leader(self)
    }

    fn is_learner(&self) -> bool {
        Member::is_learner(self)
    }

    /// A learner answers too: whether it may be asked is a check of its own.
    fn read(&self, serializable: bool) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            if !serializable {
                self.linearizable().await?;
            }
            let one = RangeRequest {
                key: bytes::Bytes::from_static(b"\0"),
                limit: 1,
                keys_only: true,
                serializable: true,
                ..RangeRequest::default()
            };
            self.range(one).await.map(drop)
        })
    }

    fn metrics(&self) -> &Metrics {
        Member::metrics(self)
    }

    fn refresh(&self) {
        let (metrics, status) = (Member::metrics(self), self.status());
        let leads = status.leader == self.id().0;
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        metrics.has_leader.set((status.leader != 0).into());
        metrics.is_leader.set((leads && status.leader != 0).into());
        metrics.is_learner.set(status.is_learner.into());
        metrics.committed.set(signed(status.raft_index));
        metrics.applied.set(signed(status.raft_applied_index));
        metrics.quota_bytes.set(status.db_size_quota);
        metrics.db_bytes.set(status.db_size);
        metrics.db_live_bytes.set(status.db_size_in_use);
        metrics.revision.set(self.store().revision().0);
        metrics.compact_revision.set(self.store().compact_revision().0);
        metrics.version.with_label_values(&[ETCD_VERSION]).set(1);
        metrics.server_id.with_label_values(&[&self.id().to_string()]).set(1);
        metrics.cluster_version.reset();
        if let Some(version) = self.cluster_version() {
            metrics.cluster_version.with_label_values(&[&version]).set(1);
        }
        metrics.alarms.reset();
        for alarm in Member::alarms(self).list() {
            let id = format!("{:x}", alarm.member_id);
            metrics.alarms.with_label_values(&[&id, alarm.alarm().as_str_name()]).set(1);
        }
    }
}
