//! How a member without a log finds the cluster that it is to join: it requests the list of members from the
//! configured peers, and finds itself in it by its peer URLs. A peer that lags may not have applied yet that
//! a member at these URLs was removed and another one added, so a peer has to confirm first that it is up to
//! date; a list is used without that only when no peer can. A member that is to begin a cluster checks
//! whether it has done so before: a member that has lost its log must not return under its old id, whose
//! votes and acknowledgements are lost. Writes nothing (etcd 3.7, `bootstrapExistingClusterNoWAL`,
//! `isMemberBootstrapped`).

use std::time::Duration;

use futures::future::join_all;
use tracing::{info, warn};
use url::Url;

use crate::member::links::{dial_timeout, parse_version};
use crate::member::requests::UNDECIDED_VERSION;
use crate::member::{CLUSTER_VERSION, Options};

use crate::apply::membership::MemberRecord;
use crate::env::Env;
use crate::error::Fatal;
use crate::limits;
use crate::peer::Client;
use crate::types::{ClusterId, MemberId};

/// For the list of members from one peer.
const MEMBERS_TIMEOUT: Duration = Duration::from_secs(10);
/// The same while a cluster begins, when most peers are not up yet.
const BEGINNING_TIMEOUT: Duration = Duration::from_secs(1);

/// The oldest cluster version that is joined. Logs of older clusters hold what this member cannot apply.
const OLDEST_CLUSTER: &str = "3.5.0";

/// For the state of a downgrade from all peers; those without a leader cannot answer.
const DOWNGRADE_TIMEOUT: Duration = Duration::from_secs(2);

/// Rounds in which the peers may confirm that they are up to date, and the pause between them.
const CONFIRM_ROUNDS: usize = 3;
const CONFIRM_PAUSE: Duration = Duration::from_secs(1);

/// The id of this member in the cluster that it joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::member) struct Joining {
    pub id: MemberId,
    pub cluster: ClusterId,
}

/// Finds the cluster through the peers in `--initial-cluster`.
pub(in crate::member) async fn find(env: &Env, options: &Options) -> Result<Joining, Fatal> {
    let failed = |why: String| Fatal::new("initial-cluster-state existing", why);
    let client = Client::new(env.clone(), dial_timeout(options), &options.peer_tls);
    let Found { id, cluster, members } = match confirmed(env, &client, options).await {
        Some(found) => found.map_err(failed)?,
        // For example where the cluster needs this very member for a quorum.
        None => agreed(&client, options).await.map_err(failed)?,
    };
    let limit = limits::request_timeout(options.election_timeout);
    compatible(&client, &members, id, limit).await.map_err(failed)?;
    if members.iter().filter(|member| member.is_learner).count() > options.learners_max {
        return Err(failed("membership: too many learner members in cluster".into()));
    }
    Ok(Joining { id, cluster })
}

/// Refuses to begin a cluster in which member `own` has already started.
pub(in crate::member) async fn refuse_again(
    env: &Env,
    options: &Options,
    own: MemberId,
) -> Result<(), Fatal> {
    let client = Client::new(env.clone(), BEGINNING_TIMEOUT, &options.peer_tls);
    let started = |member: &MemberRecord| member.id == own.0 && !member.client_urls.is_empty();
    for url in peer_urls(options) {
        let Ok((_, members)) = members_at(&client, url, BEGINNING_TIMEOUT).await else { continue };
        if members.iter().any(started) {
            let why = format!("member {own} has already been bootstrapped");
            return Err(Fatal::new("initial-cluster-state new", why));
        }
        break;
    }
    Ok(())
}

/// The cluster as reported by peers.
struct Found {
    id: MemberId,
    cluster: ClusterId,
    members: Vec<MemberRecord>,
}

impl Found {
    /// Finds this member among the members.
    fn new(
        options: &Options,
        cluster: ClusterId,
        members: Vec<MemberRecord>,
    ) -> Result<Self, String> {
        let id = own_id(options, &members).map_err(|why| {
            format!("error validating peerURLs {}: {why}", shown(cluster, &members))
        })?;
        Ok(Self { id, cluster, members })
    }
}

/// A cluster as etcd writes it in a message.
fn shown(cluster: ClusterId, members: &[MemberRecord]) -> String {
    let member = |member: &MemberRecord| {
        let MemberRecord { id, peer_urls, is_learner, name, client_urls } = member;
        let (peers, clients) = (peer_urls.join(" "), client_urls.join(" "));
        format!(
            "&{{ID:{id:x} RaftAttributes:{{PeerURLs:[{peers}] IsLearner:{is_learner}}} \
             Attributes:{{Name:{name} ClientURLs:[{clients}]}}}}"
        )
    };
    let members: Vec<_> = members.iter().map(member).collect();
    format!("{{ClusterID:{cluster} Members:[{}] RemovedMemberIDs:[]}}", members.join(" "))
}

/// The report of a peer that is up to date; `None` without such a peer.
async fn confirmed(env: &Env, client: &Client, options: &Options) -> Option<Result<Found, String>> {
    let limit = options.election_timeout * 2;
    let ask = |url| async move {
        // Peers answer this by a linearizable read.
        let asked = client.downgrade_enabled(url, limit).await;
        asked.map_err(|error| error.to_string())?;
        members_at(client, url, MEMBERS_TIMEOUT).await
    };
    for round in 0..CONFIRM_ROUNDS {
        if round > 0 {
            env.sleep(CONFIRM_PAUSE).await;
        }
        let urls = peer_urls(options);
        let answers = join_all(urls.iter().map(|url| ask(url))).await;
        for (url, answer) in urls.into_iter().zip(answers) {
            match answer {
                Ok((cluster, members)) => return Some(Found::new(options, cluster, members)),
                Err(error) => info!(%url, error, "peer cannot confirm that it is up to date"),
            }
        }
    }
    None
}

/// The report of at least half of the other voters, none of which could confirm that it is up to date.
async fn agreed(client: &Client, options: &Options) -> Result<Found, String> {
    let urls = peer_urls(options);
    let answers = join_all(urls.iter().map(|url| members_at(client, url, MEMBERS_TIMEOUT))).await;
    let mut seen: Vec<(Found, usize)> = Vec::new();
    let mut misfit = None;
    for (url, answer) in urls.into_iter().zip(answers) {
        let (cluster, members) = match answer {
            Ok(answer) => answer,
            Err(error) => {
                info!(%url, error, "failed to get cluster response");
                continue;
            }
        };
        match Found::new(options, cluster, members) {
            Ok(found) => {
                let same = |one: &Found| (one.id, one.cluster) == (found.id, found.cluster);
                match seen.iter_mut().find(|(one, _)| same(one)) {
                    Some((_, count)) => *count += 1,
                    None => seen.push((found, 1)),
                }
            }
            Err(error) => misfit = Some(error),
        }
    }
    let is_enough = |(found, count): &(Found, usize)| {
        let voters = found.members.iter().filter(|one| !one.is_learner && one.id != found.id.0);
        count * 2 >= voters.count()
    };
    let unknown = "cannot fetch cluster info from peer urls: could not retrieve cluster information \
                   from the given URLs";
    let found = seen.into_iter().find(is_enough).map(|(found, _)| found);
    found.ok_or_else(|| misfit.unwrap_or_else(|| unknown.into()))
}

/// The other members' URLs, in one order.
pub(in crate::member) fn peer_urls(options: &Options) -> Vec<&String> {
    let others = options.initial_cluster.iter().filter(|(name, _)| *name != options.name);
    let mut urls: Vec<_> = others.flat_map(|(_, urls)| urls).collect();
    urls.sort();
    urls
}

/// The members of the cluster as the peer at `url` knows them.
pub(in crate::member) async fn members_at(
    client: &Client,
    url: &str,
    limit: Duration,
) -> Result<(ClusterId, Vec<MemberRecord>), String> {
    let (cluster, json) = client.members(url, limit).await.map_err(|error| error.to_string())?;
    let members: Vec<MemberRecord> =
        serde_json::from_slice(&json).map_err(|error| error.to_string())?;
    match members.is_empty() {
        true => Err("failed to get raft cluster member(s) from the given URLs".into()),
        false => Ok((cluster, members)),
    }
}

/// Matches the configured members with those that there are; each must be one of the others.
fn own_id(options: &Options, members: &[MemberRecord]) -> Result<MemberId, String> {
    let configured = &options.initial_cluster;
    if members.len() != configured.len() {
        return Err("member count is unequal".into());
    }
    let mut own = None;
    for member in members {
        let found = configured.iter().find(|(_, urls)| same_places(urls, &member.peer_urls));
        let Some((name, _)) = found else {
            let MemberRecord { id, peer_urls, .. } = member;
            let id = MemberId(*id);
            return Err(format!(
                "PeerURLs: no match found for existing member ({id}, [{}])",
                peer_urls.join(" ")
            ));
        };
        if *name == options.name {
            own = Some(MemberId(member.id));
        }
    }
    own.ok_or_else(|| format!("couldn't find local name {:?} among the members", options.name))
}

/// Whether two lists of URLs lead to the same addresses, without a resolver.
fn same_places(one: &[String], other: &[String]) -> bool {
    let places = |urls: &[String]| {
        let mut places: Vec<_> = urls.iter().map(|url| place(url)).collect();
        places.sort();
        places
    };
    places(one) == places(other)
}

/// A URL with `localhost` as the address for which it stands.
fn place(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else { return text.into() };
    if url.host_str() == Some("localhost") && url.set_host(Some("127.0.0.1")).is_err() {
        return text.into();
    }
    url.into()
}

/// Whether at least one member reports a compatible cluster version, and none another: members may be down
/// while this one joins. The error begins with etcd's text and names the remedy.
async fn compatible(
    client: &Client,
    members: &[MemberRecord],
    own: MemberId,
    limit: Duration,
) -> Result<(), String> {
    let downgrading = is_downgrading(client, members, own, limit).await;
    let mut reports = Vec::new();
    for member in members.iter().filter(|member| member.id != own.0) {
        if let Some(version) = cluster_version(client, &member.peer_urls, limit).await {
            reports.push((MemberId(member.id), version));
        }
    }
    judge(own, downgrading, &reports)
}

/// What the members' reports of the cluster's version come to.
fn judge(own: MemberId, downgrading: bool, reports: &[(MemberId, String)]) -> Result<(), String> {
    let speaks = match downgrading {
        // Only members of the higher release may join during a downgrade.
        true => (one_more(CLUSTER_VERSION), one_more(CLUSTER_VERSION)),
        false => (minor(OLDEST_CLUSTER), minor(CLUSTER_VERSION)),
    };
    let incompatible = "incompatible with current running cluster";
    let mut ok = false;
    for (member, version) in reports {
        let Some(reported) = minor(version) else { continue };
        let is_high = Some(reported) > speaks.1;
        let remedy = if is_high {
            "a newer release of Quorate is needed"
        } else if Some(reported) >= speaks.0 {
            ok = true;
            continue;
        } else if downgrading {
            "wait until the downgrade is over, or cancel it"
        } else {
            "upgrade it to 3.5 first, or stop its members and bring their directories in \
             (quorateutl import)"
        };
        match is_high {
            false => warn!(
                remote_member_id = %member, remote_member_cluster_version = version,
                "cluster version of remote member is not compatible; too low"
            ),
            true => warn!(
                remote_member_id = %member, remote_member_cluster_version = version,
                "cluster version of remote member is not compatible; too high"
            ),
        }
        return Err(format!(
            "{incompatible}: by member {member} its version is {version}, this member serves in clusters \
             of {OLDEST_CLUSTER} to {CLUSTER_VERSION}; {remedy}; it has not voted: \
             \"member remove {own}\" takes it out again"
        ));
    }
    match ok {
        true => Ok(()),
        false => Err(incompatible.into()),
    }
}

/// Whether a downgrade is under way, by the first peer that answers.
async fn is_downgrading(
    client: &Client,
    members: &[MemberRecord],
    own: MemberId,
    limit: Duration,
) -> bool {
    let others = members.iter().filter(|member| member.id != own.0);
    let urls = others.flat_map(|member| &member.peer_urls);
    let limit = limit.min(DOWNGRADE_TIMEOUT);
    let answers = join_all(urls.map(|url| client.downgrade_enabled(url, limit))).await;
    answers.into_iter().find_map(Result::ok).unwrap_or(false)
}

/// The cluster's version as the member at `urls` knows it. Where none is decided, which may need this
/// every member, the member's own counts.
async fn cluster_version(client: &Client, urls: &[String], limit: Duration) -> Option<String> {
    for url in urls {
        match client.get(url, "/version", limit).await {
            Ok(answer) => {
                let json: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
                let version = |of: &str| json.get(of)?.as_str().map(str::to_owned);
                let decided = version("etcdcluster")
                    .filter(|version| minor(version).is_some() && version != UNDECIDED_VERSION);
                return decided.or_else(|| version("etcdserver"));
            }
            Err(error) => warn!(%url, %error, "failed to reach the peer URL"),
        }
    }
    None
}

fn one_more(version: &str) -> Option<(u64, u64)> {
    minor(version).map(|(major, minor)| (major, minor + 1))
}

fn minor(version: &str) -> Option<(u64, u64)> {
    parse_version(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(cluster: &[(&str, &str)]) -> Options {
        let address = ([127, 0, 0, 1], 2380).into();
        let list = |(name, url): &(&str, &str)| ((*name).to_owned(), vec![(*url).to_owned()]);
        Options {
            initial_cluster: cluster.iter().map(list).collect(),
            ..Options::single("b", "/data", address)
        }
    }

    fn member(id: u64, url: &str) -> MemberRecord {
        MemberRecord { id, peer_urls: vec![url.into()], ..MemberRecord::default() }
    }

    #[test]
    fn clusters_that_cannot_be_followed_are_not_joined() {
        let judged = |downgrading, versions: &[&str]| {
            let reports: Vec<_> =
                (2..).map(MemberId).zip(versions.iter().map(|one| (*one).to_owned())).collect();
            judge(MemberId(9), downgrading, &reports)
        };
        for followed in ["3.5.0", "3.5.30", "3.6.0", "3.7.0"] {
            assert_eq!(judged(false, &[followed]), Ok(()), "{followed}");
        }
        for (foreign, remedy) in [
            ("3.3.0", "upgrade it to 3.5 first"),
            ("3.4.0", "upgrade it to 3.5 first"),
            ("3.8.0", "a newer release"),
            ("3.9.0", "a newer release"),
        ] {
            let why = judged(false, &["3.5.0", foreign]).expect_err(foreign);
            assert!(why.starts_with("incompatible with current running cluster: "), "{why}");
            assert!(why.contains(&format!("by member 3 its version is {foreign}")), "{why}");
            assert!(why.contains(remedy) && why.ends_with("takes it out again"), "{why}");
        }
        let why = judged(true, &["3.7.0"]).expect_err("a downgrade goes on");
        assert!(why.contains("wait until the downgrade is over"), "{why}");
        assert_eq!(judged(true, &["3.8.0"]), Ok(()), "as in etcd");
        let unknown = Err("incompatible with current running cluster".to_owned());
        assert_eq!(judged(false, &[]), unknown);
        assert_eq!(judged(false, &["not_decided"]), unknown);
    }

    #[test]
    fn a_member_finds_itself_by_its_urls() {
        let members = [member(0x1a_2b3c, "http://x:1"), member(2, "http://localhost:2")];
        let id = |cluster: &[(&str, &str)]| own_id(&options(cluster), &members);
        assert_eq!(id(&[("a", "http://x:1"), ("b", "http://127.0.0.1:2")]), Ok(MemberId(2)));
        assert_eq!(
            id(&[("b", "http://127.0.0.1:2")]).expect_err("too few"),
            "member count is unequal"
        );
        assert_eq!(
            id(&[("a", "http://y:1"), ("b", "http://127.0.0.1:2")]).expect_err("unknown"),
            "PeerURLs: no match found for existing member (1a2b3c, [http://x:1])"
        );
    }
}
