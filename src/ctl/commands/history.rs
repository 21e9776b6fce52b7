//! `history KEY` and `diff REV1 REV2`: the past of keys, by ordinary watches and reads. Not in etcdctl; both
//! work against etcd.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    RangeRequest, RangeResponse, WatchCreateRequest, WatchProgressRequest, WatchRequest,
    WatchResponse, watch_request::RequestUnion,
};
use quorate_proto::mvccpb::{Event, KeyValue, event::EventType};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::past::At;
use super::{bytes, prefix_end};
use crate::client::{Client, Streaming};
use crate::ctl::Context;
use crate::ctl::cluster::{Cluster, Failed, text};
use crate::ctl::print::{Format, quoted};
use crate::tool::exit::Exit;
use crate::tool::grid::Table;

/// Keys read at once.
const PAGE: i64 = 1_000;
/// How often it is asked whether a watch has caught up: an etcd passes a question over while it has not.
const ASK_EVERY: Duration = Duration::from_millis(50);
const REQUESTS_MAX: usize = 4;

/// The changes of a key back to the compaction, also those before it was deleted and created again.
pub async fn history(context: &Context) -> Result<(), Exit> {
    let words = context.arguments.words();
    let [key] = &words[..] else {
        return Err(Exit::arguments("history command needs one argument as key"));
    };
    let key = Bytes::from(bytes(key));
    writable(context)?;
    let cluster = context.cluster().await?;
    let request = RangeRequest { key: key.clone(), ..RangeRequest::default() };
    let now = range(&cluster, &request).await?.header.map_or(0, |header| header.revision);
    let limit = usize::try_from(context.arguments.int("limit")).ok().filter(|limit| *limit > 0);
    let mut changes = VecDeque::new();
    let mut keep = |event: Event| {
        if limit == Some(changes.len()) {
            changes.pop_front();
        }
        changes.push_back(event);
    };
    let compacted = match replay(context, &cluster, &key, 1, now, &mut keep).await? {
        Replayed::Whole => 0,
        Replayed::Compacted(revision) => {
            // What was there then may be older, and is kept.
            let request = RangeRequest { revision, ..request };
            for kv in range(&cluster, &request).await?.kvs {
                keep(Event { kv: Some(kv), ..Event::default() });
            }
            match replay(context, &cluster, &key, revision + 1, now, &mut keep).await? {
                Replayed::Whole => revision,
                Replayed::Compacted(_) => {
                    return Err(Exit::error("the history was compacted while it was read"));
                }
            }
        }
    };
    let cut = limit.is_some_and(|limit| changes.len() == limit);
    let shown = shown_history(context, &key, changes.into_iter().rev(), compacted, cut);
    context.printer.text(&shown)
}

/// How far a watch has got.
enum Replayed {
    Whole,
    /// It begins too early: changes up to this revision may be gone.
    Compacted(i64),
}

/// Hands every change of a key from revision `from` to `now` to `keep`.
async fn replay(
    context: &Context,
    cluster: &Cluster,
    key: &Bytes,
    from: i64,
    now: i64,
    keep: &mut dyn FnMut(Event),
) -> Result<Replayed, Exit> {
    if from > now {
        return Ok(Replayed::Whole);
    }
    let create = WatchCreateRequest {
        key: key.clone(),
        start_revision: from,
        ..WatchCreateRequest::default()
    };
    let (requests, stream) = mpsc::channel(REQUESTS_MAX);
    let create = RequestUnion::CreateRequest(create);
    let first = WatchRequest { request_union: Some(create) };
    requests.try_send(first).expect("the queue is empty");
    let lost = |status| Exit::error(text(&status));
    let mut client = cluster.client.require_leader().watch();
    let responses = client.watch(ReceiverStream::new(stream)).await.map_err(lost)?;
    let mut responses = responses.into_inner();
    loop {
        let response = next(context, &requests, &mut responses).await?;
        if response.compact_revision != 0 {
            return Ok(Replayed::Compacted(response.compact_revision));
        }
        if response.canceled {
            return Err(Exit::error(response.cancel_reason));
        }
        let is_progress = response.events.is_empty() && !response.created;
        let revision = response.header.map_or(0, |header| header.revision);
        let mut beyond = false;
        for event in response.events {
            let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            match revision <= now {
                true => keep(event),
                false => beyond = true,
            }
        }
        if beyond || (is_progress && revision >= now) {
            return Ok(Replayed::Whole);
        }
    }
}

/// The next response of a watch; requests progress from time to time.
async fn next(
    context: &Context,
    requests: &mpsc::Sender<WatchRequest>,
    responses: &mut Streaming<WatchResponse>,
) -> Result<WatchResponse, Exit> {
    loop {
        let response = match context.env.timeout(ASK_EVERY, responses.message()).await {
            Ok(response) => response.map_err(|status| Exit::error(text(&status)))?,
            Err(_) => {
                let progress = RequestUnion::ProgressRequest(WatchProgressRequest {});
                // A full queue has a question in it.
                let _ = requests.try_send(WatchRequest { request_union: Some(progress) });
                continue;
            }
        };
        return response.ok_or_else(|| Exit::error("the watch was ended by the server"));
    }
}

fn shown_history(
    context: &Context,
    key: &Bytes,
    changes: impl Iterator<Item = Event>,
    compacted: i64,
    cut: bool,
) -> String {
    let changes = changes.map(|event| {
        let kv = event.kv.clone().unwrap_or_default();
        (event.r#type() == EventType::Delete, kv)
    });
    let note = match compacted {
        // More changes were found than are shown.
        _ if cut => String::new(),
        0 => String::new(),
        revision => format!("(compacted at revision {revision}: older changes are gone)\n"),
    };
    match context.printer.format {
        Format::Json => {
            let changes = changes.map(|(deleted, kv)| match deleted {
                true => json!({"type": "DELETE", "mod_revision": kv.mod_revision}),
                false => json!({
                    "type": "PUT",
                    "mod_revision": kv.mod_revision,
                    "create_revision": kv.create_revision,
                    "version": kv.version,
                    "lease": kv.lease,
                    "value": STANDARD.encode(&kv.value),
                }),
            });
            let changes: Vec<Value> = changes.collect();
            let key = STANDARD.encode(key);
            let whole = json!({"key": key, "compact_revision": compacted, "changes": changes});
            format!("{whole}\n")
        }
        Format::Fields => {
            let mut text = String::new();
            for (deleted, kv) in changes {
                let kind = if deleted { "DELETE" } else { "PUT" };
                let _ = writeln!(text, "\"Type\" : \"{kind}\"");
                let _ = writeln!(text, "\"ModRevision\" : {}", kv.mod_revision);
                if !deleted {
                    let _ = writeln!(text, "\"CreateRevision\" : {}", kv.create_revision);
                    let _ = writeln!(text, "\"Version\" : {}", kv.version);
                    let _ = writeln!(text, "\"Value\" : {}", show(context, &kv.value));
                    let _ = writeln!(text, "\"Lease\" : {}", kv.lease);
                }
                text.push('\n');
            }
            let _ = writeln!(text, "\"CompactRevision\" : {compacted}");
            text
        }
        format => {
            let header = vec!["revision", "version", "created", "lease", "value"];
            let row = |(deleted, kv): (bool, KeyValue)| match deleted {
                true => {
                    let nothing = String::new;
                    let what = "(deleted)".to_owned();
                    vec![kv.mod_revision.to_string(), "-".into(), nothing(), nothing(), what]
                }
                false => vec![
                    kv.mod_revision.to_string(),
                    kv.version.to_string(),
                    kv.create_revision.to_string(),
                    format!("{:x}", kv.lease),
                    show(context, &kv.value),
                ],
            };
            let table = Table { header, rows: changes.map(row).collect() };
            if format == Format::Table {
                return table.grid() + &note;
            }
            let line = |row: &Vec<String>| format!("{}\t{}\t{}\n", row[0], row[1], row[4]);
            let lines: String = table.rows.iter().map(line).collect();
            match lines.is_empty() && note.is_empty() {
                true => "(the key has never been there)\n".to_owned(),
                false => lines + &note,
            }
        }
    }
}

/// A key that differs.
struct Difference {
    key: Bytes,
    old: Option<Bytes>,
    new: Option<Bytes>,
}

/// A line for each key that differs: `+` added, `-` deleted, `~` changed.
pub async fn diff(context: &Context) -> Result<(), Exit> {
    let words = context.arguments.words();
    let ([before, rest @ ..], true) = (&words[..], words.len() <= 2) else {
        let why = "diff command needs one or two arguments, the revisions or times to compare";
        return Err(Exit::arguments(why));
    };
    let before = At::parse(before).map_err(Exit::arguments)?;
    let after = rest.first().map(|text| At::parse(text)).transpose().map_err(Exit::arguments)?;
    writable(context)?;
    let cluster = context.cluster().await?;
    let before = before.revision(context).await?;
    let after = match after {
        Some(after) => after.revision(context).await?,
        None => 0,
    };
    let prefix = context.arguments.text("prefix").as_bytes();
    let mut old: BTreeMap<Bytes, KeyValue> = BTreeMap::new();
    all(&cluster, prefix, before, |kv| drop(old.insert(kv.key.clone(), kv))).await?;
    let mut found = Vec::new();
    all(&cluster, prefix, after, |kv| {
        let was = old.remove(&kv.key);
        let is_new = match &was {
            None => true,
            Some(was) => was.mod_revision != kv.mod_revision && was.value != kv.value,
        };
        if is_new {
            let old = was.map(|was| was.value);
            found.push(Difference { key: kv.key, old, new: Some(kv.value) });
        }
    })
    .await?;
    let gone = |(key, was): (Bytes, KeyValue)| Difference { key, old: Some(was.value), new: None };
    found.extend(old.into_iter().map(gone));
    found.sort_by(|one, other| one.key.cmp(&other.key));
    context.printer.text(&shown_differences(context, &found))
}

fn shown_differences(context: &Context, found: &[Difference]) -> String {
    let name = |one: &Difference| match (&one.old, &one.new) {
        (None, _) => "added",
        (_, None) => "deleted",
        _ => "changed",
    };
    let show = |bytes: &Option<Bytes>| bytes.as_ref().map(|bytes| show(context, bytes));
    match context.printer.format {
        Format::Json => {
            let encoded =
                |bytes: &Option<Bytes>| bytes.as_ref().map(|bytes| STANDARD.encode(bytes));
            let one = |one: &Difference| {
                json!({
                    "change": name(one),
                    "key": STANDARD.encode(&one.key),
                    "old": encoded(&one.old),
                    "new": encoded(&one.new),
                })
            };
            let all: Vec<Value> = found.iter().map(one).collect();
            format!("{}\n", Value::from(all))
        }
        Format::Fields => {
            let mut text = String::new();
            for one in found {
                let _ = writeln!(text, "\"Change\" : \"{}\"", name(one));
                let _ = writeln!(text, "\"Key\" : {}", self::show(context, &one.key));
                for (name, value) in [("Old", show(&one.old)), ("New", show(&one.new))] {
                    if let Some(value) = value {
                        let _ = writeln!(text, "\"{name}\" : {value}");
                    }
                }
                text.push('\n');
            }
            text
        }
        Format::Table => {
            let rows = found.iter().map(|one| {
                let (old, new) = (show(&one.old), show(&one.new));
                let key = self::show(context, &one.key);
                vec![name(one).into(), key, old.unwrap_or_default(), new.unwrap_or_default()]
            });
            Table { header: vec!["change", "key", "old", "new"], rows: rows.collect() }.grid()
        }
        _ => {
            let line = |one: &Difference| {
                let key = self::show(context, &one.key);
                match (show(&one.old), show(&one.new)) {
                    (Some(old), Some(new)) => format!("~ {key}\t{old} -> {new}\n"),
                    (Some(old), None) => format!("- {key}\t{old}\n"),
                    (None, new) => format!("+ {key}\t{}\n", new.unwrap_or_default()),
                }
            };
            found.iter().map(line).collect()
        }
    }
}

/// # Errors
/// For a format that these commands do not have.
fn writable(context: &Context) -> Result<(), Exit> {
    match context.printer.format {
        Format::Protobuf => {
            Err(Exit::new(Exit::FEATURE, "protobuf not supported as output format"))
        }
        _ => Ok(()),
    }
}

fn show(context: &Context, bytes: &[u8]) -> String {
    match context.printer.hex {
        true => bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect(),
        false => quoted(bytes),
    }
}

async fn range(cluster: &Cluster, request: &RangeRequest) -> Result<RangeResponse, Failed> {
    cluster.call(async |client: Client| client.kv().range(request.clone()).await).await
}

/// Every key below `prefix` at a revision, a page at a time; all pages of the present (0) are of the revision
/// of the first one.
async fn all(
    cluster: &Cluster,
    prefix: &[u8],
    mut revision: i64,
    mut each: impl FnMut(KeyValue),
) -> Result<(), Exit> {
    let mut from = if prefix.is_empty() { vec![0] } else { prefix.to_vec() };
    let end = prefix_end(prefix);
    loop {
        let request = RangeRequest {
            key: from.into(),
            range_end: end.clone().into(),
            revision,
            limit: PAGE,
            ..RangeRequest::default()
        };
        let response = range(cluster, &request).await?;
        if revision == 0 {
            revision = response.header.as_ref().map_or(0, |header| header.revision);
        }
        let Some(last) = response.kvs.last() else { return Ok(()) };
        from = [&last.key[..], &[0]].concat();
        response.kvs.into_iter().for_each(&mut each);
        if !response.more {
            return Ok(());
        }
    }
}
