//! Entry points of this module for the fuzz targets.

use super::registry::{self, Registry, Standing};

/// A registry as a discovery service shows it: a line with the cluster's size, then one of key and value
/// for each member.
pub fn registry(text: &str) {
    let mut lines = text.lines();
    let Some(size) = lines.next().and_then(|line| registry::size(line.as_bytes())) else { return };
    let own = Registry::new("t", "me");
    let mut standing = Standing::new(size);
    for (revision, line) in (1..).zip(lines) {
        let (key, urls) = line.split_once(' ').unwrap_or((line, ""));
        let _ = standing.add(&own, key, urls, revision);
    }
    assert!(!standing.excludes(&own) || standing.missing() == 0);
    let _ = crate::config::cluster::InitialCluster::parse(&standing.cluster());
}
