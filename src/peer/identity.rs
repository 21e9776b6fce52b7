//! Identity of the sender: the headers that peers put on every request, and the checks of incoming
//! ones (etcd 3.7, `rafthttp/http.go` and `util.go`). Does not log and does not answer.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::types::{ClusterId, MemberId};

/// The etcd release this server stands for.
pub const SERVER_VERSION: &str = "3.7.1";
/// The oldest cluster version this server works with.
pub const MIN_CLUSTER_VERSION: &str = "3.0.0";
/// What a request without a version header is taken for.
const UNVERSIONED: &str = "2.0.0";

pub(super) const SERVER_FROM: HeaderName = HeaderName::from_static("x-server-from");
pub(super) const VERSION: HeaderName = HeaderName::from_static("x-server-version");
pub(super) const MIN_VERSION: HeaderName = HeaderName::from_static("x-min-cluster-version");
pub(super) const CLUSTER: HeaderName = HeaderName::from_static("x-etcd-cluster-id");
pub(super) const PEER_URLS: HeaderName = HeaderName::from_static("x-peerurls");
pub(super) const RAFT_TO: HeaderName = HeaderName::from_static("x-raft-to");

/// This member, as its peers see it.
#[derive(Clone, Debug)]
pub struct Identity {
    pub id: MemberId,
    pub cluster: ClusterId,
    /// The URLs at which peers reach this member.
    pub urls: Vec<String>,
}

/// Why a request is not for us; the texts are looked for by the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("incompatible version")]
    Version,
    #[error("cluster ID mismatch")]
    Cluster,
    #[error("to field mismatch")]
    To,
}

impl Identity {
    /// Adds the headers that identify this member.
    pub(super) fn sign(&self, headers: &mut HeaderMap) {
        headers.insert(SERVER_FROM, text(&self.id.to_string()));
        headers.insert(VERSION, HeaderValue::from_static(SERVER_VERSION));
        headers.insert(MIN_VERSION, HeaderValue::from_static(MIN_CLUSTER_VERSION));
        headers.insert(CLUSTER, text(&self.cluster.to_string()));
        headers.insert(PEER_URLS, text(&self.urls.join(",")));
    }

    /// Whether a request comes from a server of this cluster that this one can work with.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Mismatch> {
        let own = major_minor(SERVER_VERSION);
        let least = major_minor(MIN_CLUSTER_VERSION);
        let version = major_minor(header(headers, &VERSION).unwrap_or(UNVERSIONED));
        let wanted = major_minor(header(headers, &MIN_VERSION).unwrap_or(UNVERSIONED));
        // A version that cannot be read is no version to work with.
        let compatible = version.is_some() && wanted.is_some() && version >= least && wanted <= own;
        if !compatible {
            return Err(Mismatch::Version);
        }
        if header(headers, &CLUSTER) != Some(&self.cluster.to_string()) {
            return Err(Mismatch::Cluster);
        }
        Ok(())
    }

    /// Whether a stream request means this member.
    pub(super) fn check_to(&self, headers: &HeaderMap) -> Result<(), Mismatch> {
        if header(headers, &RAFT_TO) == Some(&self.id.to_string()) {
            Ok(())
        } else {
            Err(Mismatch::To)
        }
    }
}

/// The sender that a request names.
pub(super) fn sender(headers: &HeaderMap) -> Option<MemberId> {
    parse_id(header(headers, &SERVER_FROM)?)
}

/// The sender's own URLs.
pub(super) fn sender_urls(headers: &HeaderMap) -> Vec<String> {
    let urls = header(headers, &PEER_URLS).unwrap_or_default();
    urls.split(',').filter(|url| !url.is_empty()).map(str::to_owned).collect()
}

/// A member or cluster id in hex.
pub(super) fn parse_id(id: &str) -> Option<MemberId> {
    // `from_str_radix` takes a sign.
    let digits = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u64::from_str_radix(id, 16).ok())?.map(MemberId)
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A header value made of ids or URLs.
pub(super) fn text(value: &str) -> HeaderValue {
    // A URL with a control character cannot be dialed either: peers do without it.
    HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(""))
}

fn major_minor(version: &str) -> Option<(u64, u64)> {
    let mut parts = version.splitn(3, '.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?.parse().ok()?;
    parts.next()?;
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Identity {
        Identity {
            id: MemberId(0xa),
            cluster: ClusterId(0xc1),
            urls: vec!["http://a:2380".to_owned()],
        }
    }

    #[test]
    fn accepts_its_own_signature() {
        let mut headers = HeaderMap::new();
        own().sign(&mut headers);
        assert_eq!(own().check(&headers), Ok(()));
        assert_eq!(sender(&headers), Some(MemberId(0xa)));
        assert_eq!(sender_urls(&headers), ["http://a:2380"]);
        assert_eq!(own().check_to(&headers), Err(Mismatch::To));
        headers.insert(RAFT_TO, text("a"));
        assert_eq!(own().check_to(&headers), Ok(()));
    }

    #[test]
    fn tells_versions_and_clusters_apart() {
        let check = |version: Option<&str>, least: Option<&str>, cluster: &str| {
            let mut headers = HeaderMap::new();
            version.map(|version| headers.insert(VERSION, text(version)));
            least.map(|version| headers.insert(MIN_VERSION, text(version)));
            headers.insert(CLUSTER, text(cluster));
            own().check(&headers)
        };
        assert_eq!(check(Some("3.4.23"), Some("3.0.0"), "c1"), Ok(()));
        assert_eq!(check(Some("4.0.0-alpha.0"), Some("3.7.0"), "c1"), Ok(()));
        assert_eq!(check(Some("2.3.8"), Some("2.1.0"), "c1"), Err(Mismatch::Version));
        assert_eq!(check(Some("3.9.0"), Some("3.8.0"), "c1"), Err(Mismatch::Version));
        assert_eq!(check(None, None, "c1"), Err(Mismatch::Version));
        assert_eq!(check(Some("three"), Some("3.0.0"), "c1"), Err(Mismatch::Version));
        assert_eq!(check(Some("3.7.1"), Some("3.0.0"), "c2"), Err(Mismatch::Cluster));
        assert_eq!(check(Some("3.7.1"), Some("3.0.0"), ""), Err(Mismatch::Cluster));
    }

    #[test]
    fn ids_are_bare_hex() {
        assert_eq!(parse_id("8e9e05c52164694d"), Some(MemberId(0x8e9e_05c5_2164_694d)));
        for bad in ["", "+1", "-1", "0x1", "g", "10000000000000000"] {
            assert_eq!(parse_id(bad), None, "{bad}");
        }
    }
}
