//! `member`, `downgrade` and `alarm`: the cluster's own tables.

use quorate_proto::etcdserverpb::{
    AlarmRequest, DowngradeRequest, MemberAddRequest, MemberAddResponse, MemberListRequest,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse, alarm_request::AlarmAction,
    downgrade_request::DowngradeAction,
};

use super::{hex_u64, keys};
use crate::client::Client;
use crate::config::urls::Url;
use crate::ctl::Context;
use crate::ctl::print::{Format, quoted};
use crate::tool::exit::Exit;

pub async fn run(context: &Context, leaf: &str) -> Result<(), Exit> {
    match leaf {
        "add" => add(context).await,
        "update" => update(context).await,
        "remove" => remove(context).await,
        "promote" => promote(context).await,
        _ => list(context).await,
    }
}

/// The URLs as they were given. Invalid ones are not sent: an etcd server would commit them and fail when its
/// transport parses them.
fn peer_urls(context: &Context) -> Result<Vec<String>, Exit> {
    match context.arguments.text("peer-urls") {
        "" => Err(Exit::arguments("member peer urls not provided")),
        urls => {
            Url::parse_list(urls).map_err(Exit::error)?;
            Ok(urls.split(',').map(str::to_owned).collect())
        }
    }
}

/// The id that is the command's only argument.
fn member_id(context: &Context) -> Result<u64, Exit> {
    match &context.arguments.words()[..] {
        [id] => hex_u64(id).map_err(|why| {
            Exit::arguments(format!("bad member ID arg ({why}), expecting ID in Hex"))
        }),
        _ => Err(Exit::arguments("member ID is not provided")),
    }
}

async fn add(context: &Context) -> Result<(), Exit> {
    let words = context.arguments.words();
    let name = match &words[..] {
        [] => return Err(Exit::arguments("member name not provided")),
        [name] => name,
        words => {
            let mut why = "too many arguments".to_owned();
            for url in words.iter().filter(|word| word.to_lowercase().starts_with("http")) {
                why.push_str(&format!(", did you mean --peer-urls={url}"));
            }
            return Err(Exit::arguments(why));
        }
    };
    let peer_urls = peer_urls(context)?;
    let request = MemberAddRequest { peer_urls, is_learner: context.arguments.bool("learner") };
    let cluster = context.cluster().await?;
    let call = async |client: Client| client.cluster().member_add(request.clone()).await;
    let response = cluster.call(call).await?;
    context.printer.member_add(&response)?;
    if context.printer.format == Format::Simple {
        context.printer.text(&next_steps(name, context.arguments.text("peer-urls"), &response))?;
    }
    Ok(())
}

/// The variables that the new member is to be started with.
fn next_steps(name: &str, peer_urls: &str, response: &MemberAddResponse) -> String {
    let added = response.member.as_ref().map_or(0, |member| member.id);
    let all = response.members.iter().flat_map(|member| {
        let name = if member.id == added { name } else { &member.name };
        member.peer_urls.iter().map(move |url| format!("{name}={url}"))
    });
    let all: Vec<_> = all.collect();
    let quoted = |text: &str| quoted(text.as_bytes());
    format!(
        "\nETCD_NAME={}\nETCD_INITIAL_CLUSTER={}\nETCD_INITIAL_ADVERTISE_PEER_URLS={}\n\
         ETCD_INITIAL_CLUSTER_STATE=\"existing\"\n",
        quoted(name),
        quoted(&all.join(",")),
        quoted(peer_urls),
    )
}

async fn remove(context: &Context) -> Result<(), Exit> {
    let id = member_id(context)?;
    let cluster = context.cluster().await?;
    let request = MemberRemoveRequest { id };
    let call = async |client: Client| client.cluster().member_remove(request).await;
    let response: MemberRemoveResponse = cluster.call(call).await?;
    let parts = (response.header.as_ref(), &response.members[..]);
    context.printer.member_change("MemberRemoveResponse", &response, parts, "removed from", id)
}

async fn update(context: &Context) -> Result<(), Exit> {
    let id = member_id(context)?;
    let request = MemberUpdateRequest { id, peer_urls: peer_urls(context)? };
    let cluster = context.cluster().await?;
    let call = async |client: Client| client.cluster().member_update(request.clone()).await;
    let response: MemberUpdateResponse = cluster.call(call).await?;
    let parts = (response.header.as_ref(), &response.members[..]);
    context.printer.member_change("MemberUpdateResponse", &response, parts, "updated in", id)
}

async fn promote(context: &Context) -> Result<(), Exit> {
    let id = member_id(context)?;
    let cluster = context.cluster().await?;
    let request = MemberPromoteRequest { id };
    let call = async |client: Client| client.cluster().member_promote(request).await;
    let response: MemberPromoteResponse = cluster.call(call).await?;
    let parts = (response.header.as_ref(), &response.members[..]);
    context.printer.member_change("MemberPromoteResponse", &response, parts, "promoted in", id)
}

async fn list(context: &Context) -> Result<(), Exit> {
    let linearizable = !keys::serializable(context.arguments.text("consistency"))?;
    let cluster = context.cluster().await?;
    let request = MemberListRequest { linearizable };
    let call = async |client: Client| client.cluster().member_list(request).await;
    context.printer.member_list(&cluster.call(call).await?)
}

pub async fn downgrade(context: &Context, leaf: &str) -> Result<(), Exit> {
    let words = context.arguments.words();
    let (action, version) = match (leaf, &words[..]) {
        ("cancel", _) => (DowngradeAction::Cancel, String::new()),
        (_, []) => return Err(Exit::arguments("TARGET_VERSION not provided")),
        (_, [version]) if version.is_empty() => {
            return Err(Exit::arguments("target version not provided"));
        }
        ("enable", [version]) => (DowngradeAction::Enable, version.clone()),
        (_, [version]) => (DowngradeAction::Validate, version.clone()),
        _ => return Err(Exit::arguments("too many arguments")),
    };
    let cluster = context.cluster().await?;
    let request = DowngradeRequest { action: action as i32, version };
    let call = async |client: Client| client.maintenance().downgrade(request.clone()).await;
    context.printer.downgrade(leaf, &cluster.call(call).await?)
}

pub async fn alarm(context: &Context, leaf: &str) -> Result<(), Exit> {
    if !context.arguments.words().is_empty() {
        return Err(Exit::arguments(format!("alarm {leaf} command accepts no arguments")));
    }
    let cluster = context.cluster().await?;
    let list = AlarmRequest { action: AlarmAction::Get as i32, ..AlarmRequest::default() };
    let ask = async |request: AlarmRequest| {
        cluster.call(async |client: Client| client.maintenance().alarm(request).await).await
    };
    let standing = ask(list).await?;
    if leaf == "list" {
        return context.printer.alarms(&standing);
    }
    // One call for each alarm, as etcd's client library makes them.
    let mut disarmed = quorate_proto::etcdserverpb::AlarmResponse::default();
    for alarm in standing.alarms {
        let response = ask(AlarmRequest {
            action: AlarmAction::Deactivate as i32,
            member_id: alarm.member_id,
            alarm: alarm.alarm,
        })
        .await?;
        disarmed.alarms.extend(response.alarms);
    }
    context.printer.alarms(&disarmed)
}
