//! `lease`: grant, revoke, timetolive, list, keep-alive.

use std::time::Duration;

use quorate_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseRevokeRequest, LeaseTimeToLiveRequest,
};

use super::{decimal, hex_i64};
use crate::client::{Client, Response, Status};
use crate::ctl::Context;
use crate::ctl::cluster::{Cluster, Failed, raw};
use crate::ctl::log;
use crate::ctl::print::Format;
use crate::env::Env;
use crate::tool::exit::Exit;

/// Pause before a renewal that failed is tried again, as in etcd's client library.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How long a lease's first renewal is tried, besides the time to connect, and where that has no limit.
const FIRST_EXTRA: Duration = Duration::from_secs(1);
const FIRST_MAX: Duration = Duration::from_secs(5);
/// The longest time to live that is reckoned with.
const TTL_MAX_S: i64 = 1 << 40;

pub async fn run(context: &Context, leaf: &str) -> Result<(), Exit> {
    let (words, printer) = (context.arguments.words(), &context.printer);
    match (leaf, &words[..]) {
        ("grant", [ttl]) => {
            let ttl = decimal(ttl).map_err(|why| Exit::arguments(format!("bad TTL ({why})")))?;
            let cluster = context.cluster().await?;
            let request = LeaseGrantRequest { id: 0, ttl };
            let call = async |client: Client| client.lease().lease_grant(request).await;
            let failed = |why| Exit::error(format!("failed to grant lease ({why})"));
            printer.lease_grant(&cluster.call(call).await.map_err(|f| failed(f.text))?)
        }
        ("grant", _) => Err(Exit::arguments("lease grant command needs TTL argument")),
        ("revoke", [id]) => {
            let id = lease_id(id)?;
            let cluster = context.cluster().await?;
            let request = LeaseRevokeRequest { id };
            let call = async |client: Client| client.lease().lease_revoke(request).await;
            let failed = |why| Exit::error(format!("failed to revoke lease ({why})"));
            printer.lease_revoke(id, &cluster.call(call).await.map_err(|f| failed(f.text))?)
        }
        ("revoke", _) => Err(Exit::arguments("lease revoke command needs 1 argument")),
        ("timetolive", [id]) => {
            let keys = context.arguments.bool("keys");
            let request = LeaseTimeToLiveRequest { id: lease_id(id)?, keys };
            let cluster = context.cluster().await?;
            let call = async |client: Client| client.lease().lease_time_to_live(request).await;
            let response = cluster.call_unlimited(call).await.map_err(unreached)?;
            printer.time_to_live(&response, keys)
        }
        ("timetolive", _) => {
            Err(Exit::arguments("lease timetolive command needs lease ID as argument"))
        }
        ("list", _) => {
            let cluster = context.cluster().await?;
            let call =
                async |client: Client| client.lease().lease_leases(LeaseLeasesRequest {}).await;
            printer.leases(&cluster.call_unlimited(call).await.map_err(unreached)?)
        }
        (_, [id]) => keep_alive(context, lease_id(id)?).await,
        _ => Err(Exit::arguments("lease keep-alive command needs lease ID as argument")),
    }
}

fn unreached(failed: Failed) -> Exit {
    Exit::new(Exit::CONNECTION, failed.text)
}

fn lease_id(text: &str) -> Result<i64, Exit> {
    let refused = |why| Exit::arguments(format!("bad lease ID arg ({why}), expecting ID in Hex"));
    hex_i64(text).map_err(refused)
}

async fn keep_alive(context: &Context, id: i64) -> Result<(), Exit> {
    let cluster = context.cluster().await?;
    if context.arguments.bool("once") {
        let response = renew(&cluster, id).await.map_err(unreached)?;
        if response.ttl <= 0 {
            let why = "etcdserver: requested lease not found";
            return Err(Exit::new(Exit::CONNECTION, why));
        }
        return context.printer.keep_alive(&response);
    }
    let patience = match context.arguments.duration("dial-timeout") {
        Duration::ZERO => FIRST_MAX,
        limit => limit + FIRST_EXTRA,
    };
    keep(&context.env, &cluster.client, id, patience, |renewed| match renewed {
        Ok(response) => context.printer.keep_alive(response),
        Err(status) => {
            let message = "error occurred during lease keep alive loop";
            context.warn(Some(log::LOGGER), message, &[("error", raw(status).into())]);
            Ok(())
        }
    })
    .await?;
    if context.printer.format == Format::Simple {
        context.printer.text(&format!("lease {id:016x} expired or revoked.\n"))?;
    }
    Ok(())
}

/// Renews a lease until it has ended, or may have: until nothing has renewed it for its time to live, for
/// `patience` at first. A renewal that failed is tried again, at another member if there is one. Each answer
/// and each failure is passed to `renewed`, whose error ends it.
pub async fn keep(
    env: &Env,
    client: &Client,
    id: i64,
    patience: Duration,
    renewed: impl Fn(Result<&LeaseKeepAliveResponse, &Status>) -> Result<(), Exit>,
) -> Result<(), Exit> {
    let client = client.require_leader();
    let mut deadline = env.now() + patience;
    loop {
        let left = deadline.saturating_duration_since(env.now());
        let pause = match env.timeout(left, renew_once(client.clone(), id)).await {
            Ok(Ok(response)) if response.ttl > 0 => {
                let ttl = time_to_live(response.ttl);
                deadline = env.now() + ttl;
                renewed(Ok(&response))?;
                // A third of it passes between two renewals.
                ttl / 3
            }
            Ok(Err(status)) => {
                renewed(Err(&status))?;
                client.channel().next_endpoint().await;
                RETRY_PAUSE
            }
            Ok(Ok(_)) | Err(_) => return Ok(()),
        };
        env.sleep(pause).await;
    }
}

pub fn time_to_live(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds.min(TTL_MAX_S)).unwrap_or(0))
}

/// Renews a lease; a TTL of 0 means that there is no such lease.
async fn renew(cluster: &Cluster, id: i64) -> Result<LeaseKeepAliveResponse, Failed> {
    cluster
        .call_unlimited(async |client: Client| renew_once(client, id).await.map(Response::new))
        .await
}

/// As [`renew`], without another attempt.
async fn renew_once(client: Client, id: i64) -> Result<LeaseKeepAliveResponse, Status> {
    let requests = tokio_stream::once(LeaseKeepAliveRequest { id });
    let mut responses = client.lease().lease_keep_alive(requests).await?.into_inner();
    let ended = || Status::unavailable("the keep-alive stream ended");
    responses.message().await?.ok_or_else(ended)
}
