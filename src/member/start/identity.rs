//! Member and cluster ids, exactly as etcd computes them, and the ids of requests. Computes; decides
//! nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use sha1::{Digest, Sha1};

use crate::tls::url;
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

/// The id of a member that is added to a running cluster: as [`member_id`], over the time in seconds
/// instead of the token, so that the URLs of a removed member may come back under another id.
pub fn added_member_id(peer_urls: &[String], now: SystemTime) -> MemberId {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    member_id(peer_urls, &seconds.to_string())
}

/// The peer URLs of a member to be added, in etcd's order; `None` when one of them is not what etcd
/// takes (`client/pkg/types`, `NewURLs`).
pub fn peer_urls(given: &[String]) -> Option<Vec<String>> {
    let mut urls = given.iter().map(|url| peer_url(url.trim())).collect::<Option<Vec<_>>>()?;
    urls.sort();
    (!urls.is_empty()).then_some(urls)
}

fn peer_url(text: &str) -> Option<String> {
    let parts = url::parse(text).ok()?;
    match parts.scheme.as_str() {
        "http" | "https" => {}
        "unix" | "unixs" => {
            return Some(format!("{}{}", parts.scheme, &text[parts.scheme.len()..]));
        }
        _ => return None,
    }
    let is_address = url::split_host_port(&parts.host).is_some() && !parts.path && !parts.other;
    is_address.then(|| format!("{}://{}", parts.scheme, url::escape_host(&parts.host)))
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
    fn an_added_member_has_an_id_of_its_time() {
        let at = |seconds: u64| {
            let now = UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 999);
            added_member_id(&["http://127.0.0.1:2380".into()], now)
        };
        assert_eq!(at(1_700_000_000), member_id(&["http://127.0.0.1:2380".into()], "1700000000"));
        assert_ne!(at(1_700_000_000), at(1_700_000_001));
    }

    #[test]
    fn peer_urls_are_checked_as_etcd_checks_them() {
        let check = |given: &[&str]| {
            let given: Vec<String> = given.iter().map(|url| (*url).to_owned()).collect();
            peer_urls(&given).map(|urls| urls.join(" "))
        };
        let list = check(&[" http://b:2380", "https://[::1]:1", "HTTP://a:1", "unix://sock"]);
        assert_eq!(list.as_deref(), Some("http://a:1 http://b:2380 https://[::1]:1 unix://sock"));
        assert_eq!(check(&["http://\u{e4}:1"]).as_deref(), Some("http://%C3%A4:1"));
        for bad in ["", "a:1", "http://a", "http://a:1/", "http://a:1/p", "ftp://a:1", "http:a:1"] {
            assert_eq!(check(&[bad]), None, "{bad}");
        }
        for bad in ["http://a b:1", "http://a:x", "http://[a]:1", "http://%zz:1", "unix://a b"] {
            assert_eq!(check(&[bad]), None, "{bad}");
        }
        assert_eq!(check(&[]), None);
    }

    #[test]
    fn request_ids_rise_and_carry_the_member() {
        let ids = RequestIds::new(MemberId(0xabcd_1234), UNIX_EPOCH + Duration::from_millis(7));
        assert_eq!(ids.next(), (0x1234 << 48) | (7 << 8) | 1);
        assert_eq!(ids.next(), (0x1234 << 48) | (7 << 8) | 2);
    }
}
