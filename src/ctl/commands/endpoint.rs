//! `endpoint health`, `status` and `hashkv`, `defrag` and `move-leader`: calls to each endpoint.

use std::time::Duration;

use futures::future::join_all;
use quorate_proto::etcdserverpb::{
    AlarmRequest, AlarmType, DefragmentRequest, HashKvRequest, MemberListRequest,
    MoveLeaderRequest, RangeRequest, StatusRequest, alarm_request::AlarmAction,
};

use super::hex_u64;
use crate::client::Client;
use crate::codec::go_duration;
use crate::ctl::Context;
use crate::ctl::cluster::{self, Failed, Target};
use crate::ctl::print::{At, Health};
use crate::tool::exit::Exit;

pub async fn run(context: &Context, leaf: &str) -> Result<(), Exit> {
    match leaf {
        "health" => health(context).await,
        "status" => status(context).await,
        _ => hash_kv(context).await,
    }
}

/// The endpoints of the flags, or those of all members with `--cluster`.
async fn endpoints(context: &Context, target: &Target) -> Result<Vec<String>, Exit> {
    if !context.arguments.bool("cluster") {
        return Ok(cluster::listed(context));
    }
    let failed = |failed: Failed| {
        let why = failed.text;
        Exit::error(format!("failed to fetch endpoints from etcd cluster member list: {why}"))
    };
    let connected = target.connect(context).await;
    let cluster = connected.map_err(|exit| Exit::error(exit.why))?;
    let request = MemberListRequest { linearizable: true };
    let call = async |client: Client| client.cluster().member_list(request).await;
    let members = cluster.call(call).await.map_err(failed)?.members;
    Ok(members.into_iter().flat_map(|member| member.client_urls).collect())
}

async fn health(context: &Context) -> Result<(), Exit> {
    let target = Target::of_flags(context).await?;
    let endpoints = endpoints(context, &target).await?;
    let checks = endpoints.iter().map(|endpoint| check(context, target.at(endpoint), endpoint));
    let all = join_all(checks).await;
    context.printer.health(&all)?;
    match all.iter().all(|one| one.error.is_empty()) {
        true => Ok(()),
        false => Err(Exit::error("unhealthy cluster")),
    }
}

/// A linearizable read of any key; to be refused it for lack of permission takes a consensus as well.
async fn check(context: &Context, target: Target, endpoint: &str) -> Health {
    let unhealthy = |took: Duration, error: String| Health {
        endpoint: endpoint.to_owned(),
        healthy: false,
        took: if took.is_zero() { String::new() } else { go_duration(took) },
        error,
    };
    let cluster = match target.connect(context).await {
        // etcdctl makes these clients in another way.
        Ok(cluster) => cluster.logged_as("client"),
        Err(exit) => return unhealthy(Duration::ZERO, exit.why),
    };
    let began = context.env.now();
    let request = RangeRequest { key: "health".into(), ..RangeRequest::default() };
    let read = cluster.call(async |client: Client| client.kv().range(request.clone()).await).await;
    let took = context.env.now() - began;
    match read {
        Err(failed) if failed.text != "etcdserver: permission denied" => {
            return unhealthy(took, failed.text);
        }
        _ => {}
    }
    let request = AlarmRequest { action: AlarmAction::Get as i32, ..AlarmRequest::default() };
    let call = async |client: Client| client.maintenance().alarm(request).await;
    match cluster.call(call).await {
        Err(_) => unhealthy(took, "Unable to fetch the alarm list".into()),
        Ok(response) if !response.alarms.is_empty() => {
            let name = |alarm: &quorate_proto::etcdserverpb::AlarmMember| match alarm.alarm() {
                AlarmType::Nospace => "NOSPACE ",
                AlarmType::Corrupt => "CORRUPT ",
                AlarmType::None => "UNKNOWN ",
            };
            let names: String = response.alarms.iter().map(name).collect();
            unhealthy(took, format!("Active Alarm(s): {names}"))
        }
        Ok(_) => Health {
            endpoint: endpoint.to_owned(),
            healthy: true,
            took: go_duration(took),
            error: String::new(),
        },
    }
}

async fn status(context: &Context) -> Result<(), Exit> {
    let target = Target::of_flags(context).await?;
    let (mut all, mut failure) = (Vec::new(), false);
    for endpoint in endpoints(context, &target).await? {
        let cluster = target.at(&endpoint).connect(context).await?;
        let call = async |client: Client| client.maintenance().status(StatusRequest {}).await;
        match cluster.call(call).await {
            Ok(response) => all.push(At { endpoint, response }),
            Err(Failed { text }) => {
                failure = true;
                let what = format!("Failed to get the status of endpoint {endpoint} ({text})\n");
                context.shell.err(&what);
            }
        }
    }
    context.printer.status(&all)?;
    if failure { Err(Exit::silent(Exit::ERROR)) } else { Ok(()) }
}

async fn hash_kv(context: &Context) -> Result<(), Exit> {
    let target = Target::of_flags(context).await?;
    let (mut all, mut failure) = (Vec::new(), None);
    let request = HashKvRequest { revision: context.arguments.int("rev") };
    for endpoint in endpoints(context, &target).await? {
        let cluster = target.at(&endpoint).connect(context).await?;
        let call = async |client: Client| client.maintenance().hash_kv(request).await;
        match cluster.call(call).await {
            Ok(response) => all.push(At { endpoint, response }),
            Err(Failed { text }) => {
                let what = format!("Failed to get the hash of endpoint {endpoint} ({text})\n");
                context.shell.err(&what);
                failure = Some(text);
            }
        }
    }
    context.printer.hash_kv(&all)?;
    failure.map_or(Ok(()), |why| Err(Exit::error(why)))
}

pub async fn defrag(context: &Context) -> Result<(), Exit> {
    let target = Target::of_flags(context).await?;
    let mut failure = false;
    for endpoint in endpoints(context, &target).await? {
        let cluster = target.at(&endpoint).connect(context).await?;
        let began = context.env.now();
        let call =
            async |client: Client| client.maintenance().defragment(DefragmentRequest {}).await;
        let done = cluster.call(call).await;
        let took = go_duration(context.env.now() - began);
        match done {
            Ok(_) => {
                let what = format!("Finished defragmenting etcd member[{endpoint}]. took {took}\n");
                context.printer.text(&what)?;
            }
            Err(Failed { text }) => {
                failure = true;
                let what = format!("Failed to defragment etcd member[{endpoint}]. took {took}.");
                context.shell.err(&format!("{what} ({text})\n"));
            }
        }
    }
    if failure { Err(Exit::silent(Exit::ERROR)) } else { Ok(()) }
}

pub async fn move_leader(context: &Context) -> Result<(), Exit> {
    let words = context.arguments.words();
    let [transferee] = &words[..] else {
        return Err(Exit::arguments("move-leader command needs 1 argument"));
    };
    let transferee = hex_u64(transferee).map_err(Exit::arguments)?;
    let target = Target::of_flags(context).await?;
    drop(target.connect(context).await?);
    for endpoint in &target.endpoints {
        let cluster = target.at(endpoint).connect(context).await?;
        let call = async |client: Client| client.maintenance().status(StatusRequest {}).await;
        let status = cluster.call(call).await?;
        let id = status.header.as_ref().map_or(0, |header| header.member_id);
        if id != status.leader {
            continue;
        }
        let request = MoveLeaderRequest { target_id: transferee };
        let call = async |client: Client| client.maintenance().move_leader(request).await;
        let response = cluster.call(call).await?;
        return context.printer.move_leader(id, transferee, &response);
    }
    let endpoints = target.endpoints.join(" ");
    Err(Exit::arguments(format!("no leader endpoint given at [{endpoints}]")))
}
