//! Scripts about one stream: requests and responses, rule by
//! rule. The client checks the guarantees as well.
//!
//! Commands: `hub [buffer=N] [ring=N] [catchup=N]` and `open [room=N]` start anew; `put k=v..`, `delete k..`
//! and `compact REVISION` change the store; `hold` and `release` keep publications from the hub; `create key
//! [end] [rev=N] [id=N] [flags="prev_kv,fragment,progress,noput,nodelete"]`, `cancel ID`, `progress`,
//! `half_close` are requests; `tick` lets the notification interval pass; `read` shows what arrived.

use std::error::Error;
use std::fmt::Write as _;
use std::time::Duration;

use goldenscript::{Command, Context};
use quorate_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use quorate_proto::mvccpb::{Event, KeyValue, event::EventType};

use super::client::Client;
use super::memory::{Change, Memory};
use super::world::World;
use crate::watch::hub::{HubHandle, start};
use crate::watch::{Bounds, History, Publication};

struct Runner {
    world: World,
    store: Memory,
    hub: HubHandle,
    client: Option<Client>,
    /// Publications that are kept back.
    held: Option<Vec<Publication>>,
}

impl Runner {
    fn new() -> Self {
        let world = World::new(1);
        let store = Memory::default();
        let hub = start(world.env(), store.current(), Bounds::default());
        Self { world, store, hub, client: None, held: None }
    }

    fn client(&mut self) -> Result<&mut Client, Box<dyn Error>> {
        self.client.as_mut().ok_or_else(|| "no stream is open".into())
    }

    fn open(&mut self, room: usize) {
        let client = Client::open(&self.world, &self.hub, &self.store, room, |options| {
            options.progress_interval = Duration::from_secs(1);
            options.allow = Some(std::sync::Arc::new(|key, end| match key {
                b"secret" => Err(format!("denied up to {end:?}")),
                _ => Ok(()),
            }));
        });
        self.client = Some(client);
    }

    fn write(&mut self, changes: &[Change]) -> String {
        let Some(publication) = self.store.write(changes) else { return "nothing\n".into() };
        let revision = publication.revision;
        match &mut self.held {
            Some(held) => held.push(publication),
            None => self.publish(vec![publication]),
        }
        format!("revision {revision}\n")
    }

    fn publish(&self, publications: Vec<Publication>) {
        let hub = self.hub.clone();
        self.world.env().spawn("publish", async move { hub.publish(publications).await });
    }
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        let mut args = command.consume_args();
        let mut output = String::new();
        match command.name.as_str() {
            "hub" => {
                let mut number = |name: &str, default: usize| match args.take_key(name) {
                    Some(value) => value.parse(),
                    None => Ok(default),
                };
                let usual = Bounds::default();
                let bounds = Bounds {
                    buffer_events: number("buffer", usual.buffer_events)?,
                    ring_publications: number("ring", usual.ring_publications)?,
                    catchup_revisions: number("catchup", usual.catchup_revisions)?,
                    ..usual
                };
                self.hub = start(self.world.env(), self.store.current(), bounds);
            }
            "open" => {
                let room = args.take_key("room").map_or(Ok(16), |room| room.parse())?;
                self.open(room);
            }
            "put" => {
                let mut changes = Vec::new();
                while let Some((key, value)) = args.next_key() {
                    changes.push((key.to_owned(), Some(value.to_owned())));
                }
                output = self.write(&changes);
            }
            "delete" => {
                let mut changes = Vec::new();
                while let Some(key) = args.next_pos() {
                    changes.push((key.to_owned(), None));
                }
                output = self.write(&changes);
            }
            "compact" => {
                self.store.compact(args.next_pos().ok_or("which revision?")?.parse()?);
            }
            "hold" => self.held = Some(Vec::new()),
            "release" => {
                let held = self.held.take().unwrap_or_default();
                self.publish(held);
            }
            "create" => {
                let key = args.next_pos().ok_or("which key?")?.to_owned();
                let end = args.next_pos().unwrap_or_default().to_owned();
                let mut number =
                    |name: &str| args.take_key(name).map_or(Ok(0), |value| value.parse::<i64>());
                let (start_revision, watch_id) = (number("rev")?, number("id")?);
                let flags = args.take_key("flags").unwrap_or_default();
                let flag = |name: &str| flags.split(',').any(|flag| flag == name);
                let filters = [("noput", 0), ("nodelete", 1)];
                let filters = filters.into_iter().filter_map(|(name, it)| flag(name).then_some(it));
                let request = WatchCreateRequest {
                    key: key.into(),
                    range_end: end.into(),
                    start_revision,
                    watch_id,
                    filters: filters.collect(),
                    prev_kv: flag("prev_kv"),
                    fragment: flag("fragment"),
                    progress_notify: flag("progress"),
                };
                self.client()?.create(request);
            }
            "cancel" => {
                let id = args.next_pos().ok_or("which watcher?")?.parse()?;
                self.client()?.cancel(id);
            }
            "progress" => self.client()?.ask_progress(),
            "half_close" => self.client()?.half_close(),
            "tick" => self.world.advance(Duration::from_millis(1_101)),
            "stop" => self.hub.stop(),
            "read" => {
                while let Some(response) = self.client()?.read() {
                    match response {
                        Ok(response) => writeln!(output, "{}", show(&response))?,
                        Err(error) => writeln!(output, "error {error}")?,
                    }
                    self.world.settle();
                }
                if output.is_empty() {
                    output = "nothing\n".into();
                }
            }
            other => return Err(format!("unknown command {other}").into()),
        }
        args.reject_next()?;
        self.world.settle();
        Ok(output)
    }
}

fn show(response: &WatchResponse) -> String {
    let revision = response.header.as_ref().map_or(-1, |header| header.revision);
    let mut line = format!("{} @{revision}", response.watch_id);
    let (compacted, reason) = (response.compact_revision, &response.cancel_reason);
    for (shown, text) in [
        (response.created, "created".into()),
        (response.canceled, "canceled".into()),
        (compacted != 0, format!("compacted {compacted}")),
        (!reason.is_empty(), format!("because {reason:?}")),
        (response.fragment, "fragment".into()),
    ] {
        if shown {
            line += &format!(" {text}");
        }
    }
    for event in &response.events {
        line += &show_event(event);
    }
    line
}

fn show_event(event: &Event) -> String {
    let pair = |kv: &KeyValue| {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        format!("{}={}", text(&kv.key), text(&kv.value))
    };
    let kv = event.kv.clone().unwrap_or_default();
    let kind = if event.r#type == EventType::Delete as i32 { "delete" } else { "put" };
    let previous = event.prev_kv.as_ref().map_or(String::new(), |kv| format!(" was {}", pair(kv)));
    format!(" [{kind} {} @{}{previous}]", pair(&kv), kv.mod_revision)
}

fn check(script: &str) {
    let path = format!("src/watch/testscripts/{script}");
    goldenscript::run(&mut Runner::new(), path).expect("the script is there");
}

#[test]
fn create_and_cancel() {
    check("create_and_cancel");
}

#[test]
fn history_then_live() {
    check("history_then_live");
}

#[test]
fn progress() {
    check("progress");
}

#[test]
fn slow_client() {
    check("slow_client");
}

#[test]
fn ends() {
    check("ends");
}
