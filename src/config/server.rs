//! The configuration as what the server is started with.

use std::net::IpAddr;

use super::Config;
use super::urls::Url;
use crate::env::tokio::Machine;
use crate::limits;
use crate::member::{self, InitialState};
use crate::server;

impl Config {
    pub fn server_options(&self) -> server::Options {
        let mut options = server::Options::new(self.member_options(), self.listen_client.clone());
        options.listen_client_http = self.listen_client_http.clone();
        options.listen_metrics = self.listen_metrics.clone();
        options.tls = self.client_tls.clone();
        options.concurrent_streams_max = self.concurrent_streams_max;
        options.keep_alive_interval = self.keep_alive_interval;
        options.keep_alive_timeout = self.keep_alive_timeout;
        options.ping_time_min = self.ping_time_min;
        options.gateway = self.gateway;
        options.access = self.access.clone();
        options.time_calls = self.time_calls;
        options.tracing = self.tracing.clone();
        options
    }

    /// What the doors to this machine are to do differently.
    pub fn machine(&self) -> Machine {
        Machine {
            reuse_port: self.reuse_port,
            local_address: self.local_address(),
            no_sync: self.unsafe_no_fsync,
        }
    }

    /// The first advertised peer address that others can reach, if the gate for it is on (etcd,
    /// `InferLocalAddr`).
    fn local_address(&self) -> Option<IpAddr> {
        let addresses = self.advertise_peer.iter().filter_map(|url| url.host().parse().ok());
        let mut reachable = addresses
            .filter(|address: &IpAddr| !address.is_loopback() && !address.is_unspecified());
        reachable.next().filter(|_| self.set_local_address)
    }

    fn member_options(&self) -> member::Options {
        let members = self.initial_cluster.members();
        member::Options {
            name: self.name.clone(),
            data_dir: self.data_dir.clone(),
            wal_dir: self.wal_dir.clone(),
            listen_peer: self.listen_peer.clone(),
            peer_tls: self.peer_tls.clone(),
            peer_patience: self.peer_patience,
            advertise_peer_urls: texts(&self.advertise_peer),
            advertise_client_urls: texts(&self.advertise_client),
            initial_cluster: members.map(|(name, urls)| (name.to_owned(), texts(urls))).collect(),
            initial_cluster_token: self.initial_cluster_token.clone(),
            initial_state: match self.joins_existing {
                true => InitialState::Existing,
                false => InitialState::New,
            },
            force_new_cluster: self.force_new_cluster,
            strict_reconfig_check: self.strict_reconfig_check,
            learners_max: self.learners_max,
            heartbeat: self.heartbeat,
            election_timeout: self.election_timeout,
            pre_vote: self.pre_vote,
            initial_election_tick_advance: self.initial_election_tick_advance,
            snapshot_count: self.snapshot_count,
            catchup_entries: self.catchup_entries,
            request_bytes_max: self.request_bytes_max,
            txn_ops_max: self.txn_ops_max,
            auto_compaction: self.auto_compaction,
            quota_bytes: self.quota_bytes,
            initial_corrupt_check: self.initial_corrupt_check,
            corrupt_check_time: self.corrupt_check_time,
            compact_hash_check: self.compact_hash_check,
            compact_hash_check_time: self.compact_hash_check_time,
            lease_checkpoint_interval: self
                .lease_checkpoint
                .then_some(limits::LEASE_CHECKPOINT_INTERVAL),
            feature_gates: self.feature_gates.clone(),
            watch_progress_interval: self.progress_interval,
            tokens: self.tokens.clone(),
            bcrypt_cost: self.bcrypt_cost,
            apply_warning: self.apply_warning,
            unary_warning: self.unary_warning,
            compaction_step: self.compaction_step,
            compaction_pause: self.compaction_pause,
            // Every address and URL of the pattern's is replaced above.
            ..member::Options::single(&self.name, &self.data_dir, ([127, 0, 0, 1], 0).into())
        }
    }
}

fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(|url| url.as_str().to_owned()).collect()
}
