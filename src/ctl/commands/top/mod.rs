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
use std::time::{Duration, Instant, SystemTime};

use futures::future::join_all;
use quorate_proto::etcdserverpb::{
    LeaseLeasesRequest, MemberListRequest, StatusRequest, StatusResponse,
};

use self::metrics::Page;
use self::prefixes::{Changes, Sizes};
use crate::client::{self, Client};
use crate::ctl::Context;
use crate::ctl::cluster::{Cluster, Failed, Tally, Target};
use crate::tool::exit::Exit;
use crate::tool::in_color;

/// How long one look at a member may take: a screen must not wait for one that is down.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// How long prefixes may be counted.
const SIZES_MAX: Duration = Duration::from_secs(5);
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
    /// Why it does not respond, and since when it was seen not to.
    why: String,
    down_since: Option<SystemTime>,
}

/// Every member at one moment, and how many calls of its own this command had made until then.
struct Moment {
    seen: Vec<Seen>,
    own: BTreeMap<String, f64>,
}

/// What is seen of the whole cluster.
#[derive(Default)]
struct Further {
    sizes: Sizes,
    /// Changes by prefix; `None` when they are not watched.
    changes: Option<Vec<(String, f64)>>,
    /// Whether one of the watchers is this command.
    watches_itself: bool,
    leases: Option<usize>,
}

/// A member that is looked at.
struct TopMember {
    endpoint: String,
    /// Empty where it is not known.
    name: String,
    /// Once it was connected to.
    cluster: Option<Cluster>,
    down_since: Option<SystemTime>,
}

/// Where to look.
struct Look {
    target: Target,
    /// Once it was connected to.
    cluster: Option<Cluster>,
    tally: Tally,
    /// The members; only the endpoints that were given as long as the members are not known.
    watched: Vec<TopMember>,
    is_listed: bool,
}

pub async fn run(context: &Context) -> Result<(), Exit> {
    let terminal = context.shell.size().is_some();
    let given = u64::try_from(context.arguments.int("count")).unwrap_or(0);
    let count = if given == 0 && !terminal { 1 } else { given };
    let target = Target::of_flags(context).await?;
    if target.endpoints.is_empty() {
        drop(target.connect(context).await?);
    }
    if terminal {
        context.shell.out(ENTER)?;
    }
    let watching = async {
        let mut look = Look::new(target);
        match look.list(context).await {
            // A server that is down may come back; one that refuses will go on so.
            Err(exit) if !terminal || exit.why.starts_with("etcd") => return Err(exit),
            _ => {}
        }
        look.show(context, count).await
    };
    let shown = tokio::select! {
        biased; // An interrupt ends it at once.
        () = context.shell.interrupted() => Ok(()),
        () = context.shell.quit_key(), if terminal => Ok(()),
        shown = watching => shown,
    };
    if terminal {
        context.shell.out(LEAVE)?;
    }
    shown
}

impl Look {
    fn new(target: Target) -> Self {
        let tally = Tally::default();
        let target = target.tallied(&tally);
        let watched = target.endpoints.iter().map(|url| TopMember::new(url, "")).collect();
        Self { target, cluster: None, tally, watched, is_listed: false }
    }

    /// Finds the members.
    async fn list(&mut self, context: &Context) -> Result<(), Exit> {
        let late = |_| Exit::error("context deadline exceeded");
        let cluster = match self.cluster.take() {
            Some(cluster) => cluster,
            None => {
                let connect = self.target.connect(context);
                context.env.timeout(LOOK_MAX, connect).await.map_err(late)??
            }
        };
        let cluster = self.cluster.insert(cluster);
        let request = MemberListRequest { linearizable: false };
        let call = async |client: Client| client.cluster().member_list(request).await;
        let listed = context.env.timeout(LOOK_MAX, cluster.call(call)).await.map_err(late)??;
        let given = &self.target.endpoints;
        let mut watched: Vec<TopMember> = Vec::new();
        for member in listed.members {
            // An endpoint that was given is known to be reachable from here.
            let same = |url: &&String| given.iter().any(|given| url.ends_with(given.as_str()));
            let urls = &member.client_urls;
            let url = urls.iter().find(same).or(urls.first());
            watched.extend(url.map(|url| TopMember::new(url, &member.name)));
        }
        self.is_listed = true;
        if !watched.is_empty() {
            self.watched = watched;
        }
        Ok(())
    }

    async fn show(&mut self, context: &Context, count: u64) -> Result<(), Exit> {
        let interval = context.arguments.duration("interval");
        let is_watching = context.arguments.bool("watch");
        let mut changes: Option<Changes> = None;
        let mut further = Further::default();
        let mut before = self.see(context).await;
        if context.shell.size().is_some() {
            // What is known at once, without rates.
            further.changes = is_watching.then(Vec::new);
            draw(context, (&before, &before), &further)?;
        }
        let mut drawn = 0;
        while count == 0 || drawn < count {
            let responds = before.seen.iter().any(|seen| seen.status.is_some());
            if let (true, Some(cluster)) = (responds, &self.cluster) {
                if is_watching && changes.is_none() {
                    changes = Some(Changes::watch(context, cluster));
                }
                if drawn % SIZES_EVERY == 0 {
                    let counted = context.env.timeout(SIZES_MAX, Sizes::count(cluster)).await;
                    further.sizes = counted.unwrap_or_default();
                }
                further.leases = leases(context, cluster).await;
            }
            context.env.sleep(interval).await;
            if !self.is_listed && self.list(context).await.is_ok() {
                before = self.see(context).await;
            }
            let now = self.see(context).await;
            let taken = changes.as_ref().map(|changes| changes.take(context.env.now()));
            further.watches_itself = taken.is_some();
            further.changes = taken.or_else(|| is_watching.then(Vec::new));
            draw(context, (&before, &now), &further)?;
            before = now;
            drawn += 1;
        }
        Ok(())
    }

    /// Every member now.
    async fn see(&mut self, context: &Context) -> Moment {
        let target = &self.target;
        let look = self.watched.iter_mut().map(async |watched| watched.see(context, target).await);
        let seen = join_all(look).await;
        Moment { seen, own: self.tally.read() }
    }
}

impl TopMember {
    fn new(endpoint: &str, name: &str) -> Self {
        let (endpoint, name) = (endpoint.to_owned(), name.to_owned());
        Self { endpoint, name, cluster: None, down_since: None }
    }

    async fn see(&mut self, context: &Context, target: &Target) -> Seen {
        let env = &context.env;
        let looked = env.timeout(LOOK_MAX, self.status(context, target)).await;
        let status = looked.unwrap_or_else(|_| Err("no response in time".to_owned()));
        let mut metrics = Page::default();
        if status.is_ok() {
            let options = target.options();
            let page = client::get(env, &self.endpoint, &options, "/metrics");
            if let Ok(Ok(page)) = env.timeout(LOOK_MAX, page).await {
                metrics = Page::parse(&String::from_utf8_lossy(&page));
            }
        }
        self.down_since = match status.is_ok() {
            true => None,
            false => self.down_since.or_else(|| Some(env.wall())),
        };
        let (status, why) = match status {
            Ok(status) => (Some(status), String::new()),
            Err(why) => (None, why),
        };
        Seen {
            endpoint: self.endpoint.clone(),
            name: self.name.clone(),
            at: env.now(),
            status,
            metrics,
            why,
            down_since: self.down_since,
        }
    }

    async fn status(
        &mut self,
        context: &Context,
        target: &Target,
    ) -> Result<StatusResponse, String> {
        let cluster = match self.cluster.take() {
            Some(cluster) => cluster,
            None => target.at(&self.endpoint).connect(context).await.map_err(|exit| exit.why)?,
        };
        let call = async |client: Client| client.maintenance().status(StatusRequest {}).await;
        match cluster.call_once(call).await {
            Ok(status) => {
                self.cluster = Some(cluster);
                Ok(status)
            }
            // The client goes: its token may have ended with the member.
            Err(Failed { text }) => match text.split_once("connection error: ") {
                Some((_, why)) => Err(why.to_owned()),
                None => Err(text),
            },
        }
    }
}

/// How many leases there are; `None` where that may not be read.
async fn leases(context: &Context, cluster: &Cluster) -> Option<usize> {
    let call = async |client: Client| client.lease().lease_leases(LeaseLeasesRequest {}).await;
    let counted = context.env.timeout(LOOK_MAX, cluster.call(call)).await;
    counted.ok()?.ok().map(|response| response.leases.len())
}

fn draw(
    context: &Context,
    (before, now): (&Moment, &Moment),
    further: &Further,
) -> Result<(), Exit> {
    let picture = screen::Picture { before, now, further, wall: context.env.wall() };
    let terminal = context.shell.size();
    let color = in_color(&*context.shell);
    let text = picture.draw(terminal.unwrap_or(DEFAULT_SIZE), color);
    let text = match terminal {
        // Over the screen before, without a flash.
        Some(_) => format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n")),
        None => text,
    };
    Ok(context.shell.out(text.as_bytes())?)
}

/// Numbers by name, the largest first.
fn ranked(numbers: BTreeMap<String, f64>) -> Vec<(String, f64)> {
    let mut ranked: Vec<_> = numbers.into_iter().filter(|(_, number)| *number > 0.0).collect();
    ranked.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    ranked
}
