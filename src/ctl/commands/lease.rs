//! `lease`: grant, revoke, timetolive, list, keep-alive.

use std::time::Duration;

use quorate_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseRevokeRequest, LeaseTimeToLiveRequest,
};

use super::{decimal, hex_i64};
use crate::client::{Client, Response, Status};
use crate::ctl::Context;
use crate::ctl::cluster::{Cluster, Failed};
use crate::ctl::print::Format;
use crate::tool::exit::Exit;

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
    let once = context.arguments.bool("once");
    loop {
        let response = renew(&cluster, id).await.map_err(unreached)?;
        if response.ttl <= 0 {
            if once {
                let why = "etcdserver: requested lease not found";
                return Err(Exit::new(Exit::CONNECTION, why));
            }
            break;
        }
        context.printer.keep_alive(&response)?;
        if once {
            return Ok(());
        }
        context.env.sleep(pause(response.ttl)).await;
    }
    if context.printer.format == Format::Simple {
        context.printer.text(&format!("lease {id:016x} expired or revoked.\n"))?;
    }
    Ok(())
}

/// A third of the time to live passes between two renewals.
pub fn pause(ttl_s: i64) -> Duration {
    Duration::from_millis(u64::try_from(ttl_s).unwrap_or(0).max(1) * 1000 / 3)
}

/// Renews a lease; a TTL of 0 means that there is no such lease.
async fn renew(cluster: &Cluster, id: i64) -> Result<LeaseKeepAliveResponse, Failed> {
    cluster
        .call_unlimited(async |client: Client| renew_once(client, id).await.map(Response::new))
        .await
}

/// As [`renew`], without another attempt.
pub async fn renew_once(client: Client, id: i64) -> Result<LeaseKeepAliveResponse, Status> {
    let requests = tokio_stream::once(LeaseKeepAliveRequest { id });
    let mut responses = client.lease().lease_keep_alive(requests).await?.into_inner();
    let ended = || Status::unavailable("the keep-alive stream ended");
    responses.message().await?.ok_or_else(ended)
}
