//! `top`: one screen of a cluster, refreshed. Members with role, lag, disk latency and memory; rates and
//! latencies of requests; the largest and the busiest prefixes; watchers and leases. All of it comes from
//! what every etcd serves: Status, the member list, counted ranges, a watch, and `/metrics`. What a server
//! does not measure is shown as a dash. Not in etcdctl.
//!
//! Reading order: this file (collecting), [`metrics`] (pages of metrics), [`prefixes`] (the key space),
//! [`screen`] (the picture).

mod metrics;
mod prefixes;
mod screen;

use std::collections::BTreeMap;
use std::time::Instant;

use futures::future::join_all;
use quorate_proto::etcdserverpb::{
    LeaseLeasesRequest, MemberListRequest, StatusRequest, StatusResponse,
};

use self::metrics::Page;
use self::prefixes::{Changes, Sizes};
use crate::client::{self, Client};
use crate::ctl::Context;
use crate::ctl::cluster::{Cluster, Target, listed};
use crate::tool::exit::Exit;
use crate::tool::in_color;

/// Screens between two counts of the largest prefixes.
const SIZES_EVERY: u64 = 10;
/// What a screen that is no terminal's is drawn for.
const DEFAULT_SIZE: (u16, u16) = (100, 50);

/// The other screen of a terminal, without a cursor; and back.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l";
const LEAVE: &[u8] = b"\x1b[?25h\x1b[?1049l";

/// One member at one moment.
struct Seen {
    endpoint: String,
    name: String,
    at: Instant,
    /// `None` when it does not respond.
    status: Option<StatusResponse>,
    metrics: Page,
    why: String,
}

/// Where to look, once for the whole run.
struct Look {
    target: Target,
    cluster: Cluster,
    /// Endpoints, with the names of their members where they have some.
    endpoints: Vec<(String, String)>,
}

pub async fn run(context: &Context) -> Result<(), Exit> {
    let terminal = context.shell.size().is_some();
    let given = u64::try_from(context.arguments.int("count")).unwrap_or(0);
    let count = if given == 0 && !terminal { 1 } else { given };
    let look = Look::begin(context).await?;
    if terminal {
        context.shell.out(ENTER)?;
    }
    let shown = tokio::select! {
        biased; // An interrupt ends it at once.
        () = context.shell.interrupted() => Ok(()),
        shown = look.show(context, count) => shown,
    };
    if terminal {
        context.shell.out(LEAVE)?;
    }
    shown
}

impl Look {
    async fn begin(context: &Context) -> Result<Self, Exit> {
        let target = Target::of_flags(context).await?;
        let cluster = target.connect(context).await?;
        let request = MemberListRequest { linearizable: false };
        let call = async |client: Client| client.cluster().member_list(request).await;
        let members = cluster.call(call).await?.members;
        let given = listed(context);
        let mut endpoints: Vec<(String, String)> = Vec::new();
        for member in members {
            // An endpoint that was given is known to be reachable from here.
            let same = |url: &&String| given.iter().any(|given| url.ends_with(given.as_str()));
            let urls = &member.client_urls;
            let url = urls.iter().find(same).or(urls.first());
            endpoints.extend(url.map(|url| (url.clone(), member.name)));
        }
        if endpoints.is_empty() {
            endpoints = given.into_iter().map(|endpoint| (endpoint, String::new())).collect();
        }
        Ok(Self { target, cluster, endpoints })
    }

    async fn show(&self, context: &Context, count: u64) -> Result<(), Exit> {
        let interval = context.arguments.duration("interval");
        let changes = match context.arguments.bool("watch") {
            true => Some(Changes::watch(context, &self.cluster)),
            false => None,
        };
        let mut before = self.see(context).await;
        let mut sizes = Sizes::default();
        let mut drawn = 0;
        while count == 0 || drawn < count {
            if drawn % SIZES_EVERY == 0 {
                sizes = Sizes::count(&self.cluster).await;
            }
            context.env.sleep(interval).await;
            let now = self.see(context).await;
            let picture = screen::Picture {
                before: &before,
                now: &now,
                leases: self.leases().await,
                sizes: &sizes,
                changes: changes.as_ref().map(|changes| changes.take(context.env.now())),
                wall: context.env.wall(),
            };
            let terminal = context.shell.size();
            let color = in_color(&*context.shell);
            let text = picture.draw(terminal.unwrap_or(DEFAULT_SIZE), color);
            let text = match terminal {
                // Over the screen before, without a flash.
                Some(_) => format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")),
                None => text,
            };
            context.shell.out(text.as_bytes())?;
            before = now;
            drawn += 1;
        }
        Ok(())
    }

    /// Every member now.
    async fn see(&self, context: &Context) -> Vec<Seen> {
        let look = self.endpoints.iter().map(async |(endpoint, name)| {
            let target = self.target.at(endpoint);
            let status = match target.connect(context).await {
                Ok(cluster) => {
                    let call =
                        async |client: Client| client.maintenance().status(StatusRequest {}).await;
                    cluster.call(call).await.map_err(|failed| failed.text)
                }
                Err(exit) => Err(exit.why),
            };
            let page = client::get(&context.env, endpoint, &target.options(), "/metrics").await;
            let page = page.unwrap_or_default();
            let (status, why) = match status {
                Ok(status) => (Some(status), String::new()),
                Err(why) => (None, why),
            };
            Seen {
                endpoint: endpoint.clone(),
                name: name.clone(),
                at: context.env.now(),
                status,
                metrics: Page::parse(&String::from_utf8_lossy(&page)),
                why,
            }
        });
        join_all(look).await
    }

    /// How many leases there are; `None` where that may not be read.
    async fn leases(&self) -> Option<usize> {
        let call = async |client: Client| client.lease().lease_leases(LeaseLeasesRequest {}).await;
        self.cluster.call(call).await.ok().map(|response| response.leases.len())
    }
}

/// Numbers by name, the largest first.
fn ranked(numbers: BTreeMap<String, f64>) -> Vec<(String, f64)> {
    let mut ranked: Vec<_> = numbers.into_iter().filter(|(_, number)| *number > 0.0).collect();
    ranked.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    ranked
}
