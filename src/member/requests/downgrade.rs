//! Downgrades of the cluster's version, so that members of the previous release can join: etcd's three
//! actions and their answers (3.7, `etcdserver/v3_server.go`, `etcdserver/version`). The target is replicated
//! state; the leader then lowers the version ([`crate::member::upkeep`]), and raises it again after a
//! cancellation.
//!
//! etcd's leader ends a downgrade by itself when all members are of the lower release. A member of this
//! one never leads such a cluster.

use quorate_proto::etcdserverpb::{
    DowngradeInfo, DowngradeRequest, DowngradeResponse, downgrade_request::DowngradeAction,
};
use quorate_proto::membershippb::DowngradeInfoSetRequest;
use tracing::{info, warn};

use crate::member::links::parse_version;
use crate::member::propose::Origin;
use crate::member::{CLUSTER_VERSION, Member};

use crate::error::{Error, Refused};
use crate::plant;

/// etcd's version of a cluster as long as not all members have reported theirs.
pub(in crate::member) const UNDECIDED_VERSION: &str = "3.0.0";

/// `major.minor` of a release.
type Minor = (u64, u64);

impl Member {
    pub async fn downgrade(&self, request: DowngradeRequest) -> Result<DowngradeResponse, Error> {
        let action = DowngradeAction::try_from(request.action);
        match action.map_err(|_| Refused::UnknownMethod)? {
            DowngradeAction::Validate => {
                let target = target(&request.version)?;
                self.may_downgrade(target).await?;
            }
            DowngradeAction::Enable => {
                let target = target(&request.version)?;
                self.may_downgrade(target).await?;
                self.set_downgrade(Some(target)).await?;
                info!(target = text(target), "downgrade enabled");
            }
            // As in etcd, it is no error when there is nothing to cancel.
            DowngradeAction::Cancel => {
                if let Err(error) = self.cancel_downgrade().await {
                    warn!(%error, "failed to cancel downgrade");
                }
            }
        }
        let version = self.cluster_version().as_deref().and_then(parse_version);
        let version = version.map(|(major, minor)| format!("{major}.{minor}")).unwrap_or_default();
        Ok(DowngradeResponse { header: Some(self.header()), version })
    }

    /// For the response to `Status`.
    pub(in crate::member) fn downgrade_info(&self) -> DowngradeInfo {
        let target = self.members().downgrade.clone();
        DowngradeInfo { enabled: target.is_some(), target_version: target.unwrap_or_default() }
    }

    /// The version of the stored data: the cluster's, once that has been decided. What is stored is the
    /// same in all releases that there may be in one cluster with this one.
    pub fn storage_version(&self) -> String {
        let decided = self.cluster_version().filter(|version| version != UNDECIDED_VERSION);
        decided.unwrap_or_else(|| CLUSTER_VERSION.into())
    }

    /// The cluster version that a leader has to propose, if it is not the one there is.
    pub(in crate::member) async fn wanted_version(&self) -> Option<String> {
        let decided = self.cluster_version();
        let target = self.members().downgrade.clone();
        let highest = &self.0.options.cluster_version_max;
        let settled = target.as_deref().unwrap_or(highest);
        if decided.as_deref() == Some(settled) {
            return None;
        }
        let lowest = self.lowest_version().await?;
        next_version(decided.as_deref(), target.as_deref(), &lowest, highest)
    }

    async fn may_downgrade(&self, target: Minor) -> Result<(), Error> {
        if self.cluster_version().is_none() {
            return Err(Refused::ClusterVersionUnavailable.into());
        }
        // This member's state may be stale.
        self.linearizable().await?;
        let decided = self.cluster_version().as_deref().and_then(parse_version);
        if decided.and_then(one_lower) != Some(target) {
            return Err(Refused::InvalidDowngradeTarget.into());
        }
        if self.members().downgrade.is_some() {
            return Err(Refused::DowngradeInProcess.into());
        }
        Ok(())
    }

    async fn cancel_downgrade(&self) -> Result<(), Error> {
        self.linearizable().await?;
        if self.members().downgrade.is_none() {
            return Err(Refused::NoInflightDowngrade.into());
        }
        self.set_downgrade(None).await
    }

    async fn set_downgrade(&self, target: Option<Minor>) -> Result<(), Error> {
        let set = DowngradeInfoSetRequest {
            enabled: target.is_some(),
            ver: target.map(text).unwrap_or_default(),
        };
        self.propose(Origin::own(), set).await.map(drop)
    }
}

/// What a leader proposes after `decided`, when all members support `lowest` and the cluster is to be
/// lowered to `target`, if it is, and not to be raised above `highest`.
fn next_version(
    decided: Option<&str>,
    target: Option<&str>,
    lowest: &str,
    highest: &str,
) -> Option<String> {
    let speaks = parse_version(lowest)?;
    let held = if Some(speaks) > parse_version(highest) { highest } else { lowest };
    let Some(now) = decided.and_then(parse_version) else { return Some(held.to_owned()) };
    match target.map(|target| (target, parse_version(target))) {
        None => (parse_version(held) > Some(now)).then(|| held.to_owned()),
        Some((_, to)) if to == Some(now) => None,
        Some((target, to)) if to.is_some() && one_lower(now) == to && one_lower(speaks) == to => {
            Some(target.to_owned()).filter(|_| !plant::DOWNGRADE_IGNORED.is_planted())
        }
        Some((target, to)) => {
            match to.is_some() && one_lower(now) == to {
                false => warn!(
                    cluster_version = decided,
                    downgrade_target = target,
                    "Cannot downgrade from cluster-version to downgrade-target"
                ),
                true => warn!(
                    minimal_server_version = lowest,
                    downgrade_target = target,
                    "Cannot downgrade from minimal-server-version to downgrade-target"
                ),
            }
            None
        }
    }
}

/// `major.minor` or a semantic version, of which the patch level does not count.
fn target(version: &str) -> Result<Minor, Refused> {
    let minor = |version: &str| {
        let version = version.split('+').next()?.split('-').next()?;
        let mut parts = version.splitn(3, '.').map(|part| part.parse::<u64>().ok());
        let minor = (parts.next()??, parts.next()??);
        parts.next()?.map(|_patch| minor)
    };
    let found = minor(version).or_else(|| minor(&format!("{version}.0")));
    found.ok_or(Refused::WrongDowngradeVersionFormat)
}

fn one_lower((major, minor): Minor) -> Option<Minor> {
    Some((major, minor.checked_sub(1)?))
}

fn text((major, minor): Minor) -> String {
    format!("{major}.{minor}.0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_etcd_reads_them() {
        for good in ["3.6", "3.6.0", "3.6.14", "3.6.0-rc.1", "3.6.1+build"] {
            assert_eq!(target(good), Ok((3, 6)), "{good}");
        }
        for bad in ["", "3", "3.6.", "v3.6", "3.6.0.1", "3.x", "3.6-rc", "3..0"] {
            assert_eq!(target(bad), Err(Refused::WrongDowngradeVersionFormat), "{bad}");
        }
    }

    #[test]
    fn the_version_goes_where_all_members_can_follow() {
        let next = |decided, target, lowest| next_version(decided, target, lowest, CLUSTER_VERSION);
        let some = |version: &str| Some(version.to_owned());
        assert_eq!(next(None, None, "3.7.0"), some("3.7.0"), "a new cluster");
        assert_eq!(next(Some("3.0.0"), None, "3.7.0"), some("3.7.0"));
        assert_eq!(next(Some("3.6.0"), None, "3.6.0"), None, "one member is older");
        assert_eq!(next(Some("3.7.0"), None, "3.6.0"), None, "it is never lowered by itself");
        assert_eq!(next(Some("3.7.0"), Some("3.6.0"), "3.7.0"), some("3.6.0"));
        assert_eq!(next(Some("3.6.0"), Some("3.6.0"), "3.7.0"), None, "nor raised meanwhile");
        assert_eq!(next(Some("3.6.0"), None, "3.7.0"), some("3.7.0"), "cancelled");
        assert_eq!(next(Some("3.7.0"), Some("3.5.0"), "3.7.0"), None, "two steps at once");
    }

    #[test]
    fn a_held_version_is_not_passed() {
        let next = |decided, target, lowest| next_version(decided, target, lowest, "3.5.0");
        let some = |version: &str| Some(version.to_owned());
        assert_eq!(next(None, None, "3.7.0"), some("3.5.0"), "a new cluster");
        assert_eq!(next(None, None, UNDECIDED_VERSION), some(UNDECIDED_VERSION));
        assert_eq!(next(Some(UNDECIDED_VERSION), None, "3.7.0"), some("3.5.0"));
        assert_eq!(next(Some("3.5.0"), None, "3.7.0"), None, "all others have left");
        assert_eq!(next(Some("3.6.0"), None, "3.7.0"), None, "it is never lowered by that");
        assert_eq!(next(Some("3.7.0"), Some("3.6.0"), "3.7.0"), some("3.6.0"), "a downgrade");
    }
}
