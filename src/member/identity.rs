//! Member and cluster ids, exactly as etcd computes them, and the ids of requests. Computes; decides
//! nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use sha1::{Digest, Sha1};

use crate::types::{ClusterId, MemberId};

/// The id of a bootstrap member: SHA-1 over its sorted peer URLs and the cluster token, the first
/// eight bytes.
pub fn member_id(peer_urls: &[String], token: &str) -> MemberId {
    let mut urls = peer_urls.to_vec();
    urls.sort();
    let mut hash = Sha1::new();
    for url in &urls {
        hash.update(url);
    }
    hash.update(token);
    MemberId(first_eight(hash))
}

/// The id of a cluster: SHA-1 over its initial members' ids in ascending order, the first eight bytes.
pub fn cluster_id(members: impl IntoIterator<Item = MemberId>) -> ClusterId {
    let mut ids: Vec<_> = members.into_iter().collect();
    ids.sort();
    let mut hash = Sha1::new();
    for id in ids {
        hash.update(id.0.to_be_bytes());
    }
    ClusterId(first_eight(hash))
}

fn first_eight(hash: Sha1) -> u64 {
    let digest = hash.finalize();
    u64::from_be_bytes(digest[..8].try_into().expect("a SHA-1 digest has 20 bytes"))
}

/// Request ids that no other member and no other run of this member gives out: the member id's low
/// 16 bits, then 40 bits of the start time in ms and a counter, as etcd's generator does.
#[derive(Debug)]
pub struct RequestIds {
    prefix: u64,
    suffix: AtomicU64,
}

impl RequestIds {
    pub fn new(member: MemberId, start: SystemTime) -> Self {
        let ms = start.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
        let ms = u64::try_from(ms).unwrap_or(0) & ((1 << 40) - 1);
        Self { prefix: member.0 << 48, suffix: AtomicU64::new(ms << 8) }
    }

    pub fn next(&self) -> u64 {
        let suffix = self.suffix.fetch_add(1, Ordering::Relaxed) + 1;
        self.prefix | (suffix & ((1 << 48) - 1))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Values that etcd gives for its default single member.
    #[test]
    fn ids_are_etcds() {
        let id = member_id(&["http://localhost:2380".into()], "etcd-cluster");
        assert_eq!(id.to_string(), "8e9e05c52164694d");
        assert_eq!(cluster_id([id]).to_string(), "cdf818194e3a8c32");
    }

    #[test]
    fn request_ids_rise_and_carry_the_member() {
        let ids = RequestIds::new(MemberId(0xabcd_1234), UNIX_EPOCH + Duration::from_millis(7));
        assert_eq!(ids.next(), (0x1234 << 48) | (7 << 8) | 1);
        assert_eq!(ids.next(), (0x1234 << 48) | (7 << 8) | 2);
    }
}
