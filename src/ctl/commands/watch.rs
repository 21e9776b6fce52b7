//! `watch`: events of keys as they happen, printed or handed to a program; also interactive. A watch
//! survives the loss of its member: it is created again from the revision after what it has seen.

use std::sync::Arc;
use std::time::Duration;

use quorate_proto::etcdserverpb::{
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
    watch_request::RequestUnion,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{bytes, prefix_end, txn};
use crate::ctl::Context;
use crate::ctl::cluster::{Cluster, may_reconnect, text};
use crate::ctl::print::{Printer, quoted, simple};
use crate::ctl::shell::{Ended, Shell, not_started};
use crate::ctl::table::WATCHES;
use crate::env::Env;
use crate::tool::arguments::{self, Arguments, Wanted};
use crate::tool::exit::Exit;

const REQUESTS_MAX: usize = 4;
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// What is watched, and what is done with an event.
#[derive(Debug)]
struct WatchCommand {
    create: WatchCreateRequest,
    program: Vec<String>,
}

pub async fn run(context: &Context) -> Result<(), Exit> {
    let (key, end) = variables(&*context.shell);
    if let (None, Some(end)) = (&key, &end) {
        let end = quoted(end.as_bytes());
        let why = format!("ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END={end}");
        return Err(Exit::arguments(why));
    }
    let from_variables = key.into_iter().chain(end).collect();
    if context.arguments.bool("interactive") {
        return interactive(context, from_variables).await;
    }
    let (keys, program) =
        keys_and_program(&context.arguments, from_variables).map_err(Exit::arguments)?;
    let cluster = context.cluster().await?;
    let create = request(&context.arguments, &keys).map_err(Exit::arguments)?;
    let watched = WatchCommand { create, program };
    let (_requests, inbox) = mpsc::channel(REQUESTS_MAX);
    follow(&context.env, &cluster, &context.printer, watched, inbox).await?;
    Err(Exit::new(Exit::INTERRUPTED, "watch is canceled by the server"))
}

fn variables(shell: &dyn Shell) -> (Option<String>, Option<String>) {
    let all = shell.variables();
    let value = |name: &str| {
        let found = all.iter().find(|(known, value)| known == name && !value.is_empty());
        found.map(|(_, value)| value.clone())
    };
    (value("ETCDCTL_WATCH_KEY"), value("ETCDCTL_WATCH_RANGE_END"))
}

/// The keys stand on the command line or in variables, never in both; a program stands behind `--`.
fn keys_and_program(
    arguments: &Arguments,
    from_variables: Vec<String>,
) -> Result<(Vec<String>, Vec<String>), &'static str> {
    let given = arguments.before();
    let program = arguments.behind().unwrap_or_default();
    if arguments.separated {
        return Err("bad number of arguments (found separator --, but no commands)");
    }
    if !from_variables.is_empty() && !given.is_empty() {
        return Err("bad number of arguments (found conflicting environment key)");
    }
    let keys = if from_variables.is_empty() { given } else { from_variables };
    match keys.is_empty() && program.is_empty() {
        true => Err("bad number of arguments"),
        false => Ok((keys, program)),
    }
}

/// As etcdctl has it, of three words and more only the first counts.
fn request(arguments: &Arguments, keys: &[String]) -> Result<WatchCreateRequest, &'static str> {
    let prefix = arguments.bool("prefix");
    let (key, range_end) = match keys {
        [] => return Err("bad number of arguments"),
        [_, _] if prefix => return Err("`range_end` and `--prefix` are mutually exclusive"),
        [key, end] => (bytes(key), bytes(end)),
        [key, ..] if prefix && key.is_empty() => (vec![0], vec![0]),
        [key, ..] if prefix => (bytes(key), prefix_end(&bytes(key))),
        [key, ..] => (bytes(key), Vec::new()),
    };
    Ok(WatchCreateRequest {
        key: key.into(),
        range_end: range_end.into(),
        start_revision: arguments.int("rev"),
        prev_kv: arguments.bool("prev-kv"),
        progress_notify: arguments.bool("progress-notify"),
        ..WatchCreateRequest::default()
    })
}

/// Lines `watch [options] KEY ..` and `progress` from standard input.
async fn interactive(context: &Context, from_variables: Vec<String>) -> Result<(), Exit> {
    let cluster = context.cluster().await?;
    let mut watches: Vec<mpsc::Sender<WatchRequest>> = Vec::new();
    let (failed, mut failures) = mpsc::channel(1);
    loop {
        let shell = Arc::clone(&context.shell);
        let line = tokio::select! {
            biased; // A watch that fails ends the command, whatever stands on the next line.
            Some(exit) = failures.recv() => return Err(exit),
            line = context.env.blocking("stdin", move || shell.read_line()) => line?,
        };
        if !line.ends_with('\n') {
            return Err(Exit::new(Exit::INPUT, "error reading watch request line: EOF"));
        }
        let line = line.trim_end_matches('\n');
        let words = txn::split(line)?;
        match words.first().map(String::as_str) {
            None => {
                let text = format!("Invalid command: {line} (watch and progress supported)\n");
                context.shell.err(&text);
            }
            Some("watch") if words.len() < 2 && from_variables.is_empty() => {
                let why = "command type or key is not provided";
                context.shell.err(&format!("Invalid command {line} ({why})\n"));
            }
            Some("watch") => {
                let mut all = vec!["etcdctl".to_owned()];
                all.extend(words);
                let Wanted::Run(arguments) = arguments::parse(&WATCHES, "etcdctl", &all)
                    .map_err(|exit| Exit::arguments(exit.why))?
                else {
                    continue;
                };
                let (keys, program) = keys_and_program(&arguments, from_variables.clone())
                    .map_err(Exit::arguments)?;
                let create = match request(&arguments, &keys) {
                    Ok(create) => create,
                    Err(why) => {
                        context.shell.err(&format!("Invalid command {line} ({why})\n"));
                        continue;
                    }
                };
                let watched = WatchCommand { create, program };
                let (requests, inbox) = mpsc::channel(REQUESTS_MAX);
                watches.push(requests);
                let (env, cluster) = (context.env.clone(), cluster.clone());
                let (printer, failed) = (context.printer.clone(), failed.clone());
                drop(context.env.spawn("watch", async move {
                    if let Err(exit) = follow(&env, &cluster, &printer, watched, inbox).await {
                        // The first failure counts.
                        let _ = failed.try_send(exit);
                    }
                }));
            }
            Some("progress") => {
                for requests in &watches {
                    let progress = RequestUnion::ProgressRequest(WatchProgressRequest {});
                    // A watch that has ended takes no more requests.
                    let _ = requests.send(WatchRequest { request_union: Some(progress) }).await;
                }
            }
            Some(_) => {
                context.shell.err(&format!("Invalid command {line} (only support watch)\n"));
            }
        }
    }
}

/// Prints events until the server cancels the watch. `inbox` has further requests for its stream.
///
/// # Errors
/// When a program fails, or the output cannot be written.
async fn follow(
    env: &Env,
    cluster: &Cluster,
    printer: &Printer,
    mut watched: WatchCommand,
    mut inbox: mpsc::Receiver<WatchRequest>,
) -> Result<(), Exit> {
    loop {
        let create = RequestUnion::CreateRequest(watched.create.clone());
        let (requests, stream) = mpsc::channel(REQUESTS_MAX);
        let first = WatchRequest { request_union: Some(create) };
        requests.try_send(first).expect("the queue is empty");
        let mut client = cluster.client.require_leader().watch();
        let mut responses = match client.watch(ReceiverStream::new(stream)).await {
            Ok(responses) => responses.into_inner(),
            Err(status) if may_reconnect(&status) => {
                env.sleep(RECONNECT_PAUSE).await;
                cluster.client.channel().next_endpoint().await;
                continue;
            }
            Err(status) => return lost(printer, &text(&status)),
        };
        loop {
            tokio::select! {
                biased; // Events before requests of the terminal.
                response = responses.message() => match response {
                    Ok(Some(response)) => {
                        let canceled = response.canceled;
                        watched.create.start_revision =
                            resumed_at(watched.create.start_revision, &response);
                        print(printer, &watched.program, response).await?;
                        if canceled {
                            return Ok(());
                        }
                    }
                    // The stream ended: its member stops, or has lost its leader.
                    Ok(None) => break,
                    Err(status) if may_reconnect(&status) => break,
                    Err(status) => return lost(printer, &text(&status)),
                },
                Some(request) = inbox.recv() => {
                    // A stream that is about to end takes no more requests.
                    let _ = requests.send(request).await;
                }
            }
        }
        env.sleep(RECONNECT_PAUSE).await;
        // The member may be there and have no leader.
        cluster.client.channel().next_endpoint().await;
    }
}

/// The revision from which a watch goes on that began at `start` and was lost after `response`: the first
/// one whose events may be missing. While old events are read, a response's header is ahead of them.
fn resumed_at(start: i64, response: &WatchResponse) -> i64 {
    let now = response.header.as_ref().map_or(0, |header| header.revision);
    let seen = match response.events.last().and_then(|event| event.kv.as_ref()) {
        Some(kv) => kv.mod_revision,
        // Old events of a given revision are still to come.
        None if response.created && start != 0 => return start,
        None => now,
    };
    // A header without a revision proves nothing.
    if seen > 0 { start.max(seen + 1) } else { start }
}

/// Prints what etcd's client library makes of a stream that failed for good: a canceled watch.
fn lost(printer: &Printer, why: &str) -> Result<(), Exit> {
    printer.shell.err(&format!("watch was canceled ({why})\n"));
    printer.watch(&WatchResponse { canceled: true, ..WatchResponse::default() })
}

async fn print(printer: &Printer, program: &[String], response: WatchResponse) -> Result<(), Exit> {
    let revision = response.header.as_ref().map_or(0, |header| header.revision);
    let Some((response, why)) = shown(response) else { return Ok(()) };
    if let Some(why) = why {
        printer.shell.err(&format!("watch was canceled ({why})\n"));
    } else if response.events.is_empty() && revision != 0 {
        printer.text(&format!("progress notify: {revision}\n"))?;
    }
    printer.watch(&response)?;
    let Some(name) = program.first() else { return Ok(()) };
    for event in &response.events {
        let kv = event.kv.clone().unwrap_or_default();
        let kind = simple::event_type(event.r#type);
        let variables = [
            ("ETCD_WATCH_REVISION", revision.to_string()),
            ("ETCD_WATCH_EVENT_TYPE", quoted(kind.as_bytes())),
            ("ETCD_WATCH_KEY", quoted(&kv.key)),
            ("ETCD_WATCH_VALUE", quoted(&kv.value)),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        let why = match printer.shell.run(program, &variables).await {
            Ok(Ended::Exited(0)) => continue,
            Ok(ended) => ended.to_string(),
            Err(error) => not_started(name, &error),
        };
        let words: Vec<_> = program.iter().map(|word| quoted(&bytes(word))).collect();
        printer.shell.err(&format!("command [{}] error ({why})\n", words.join(" ")));
        return Err(Exit::silent(Exit::ERROR));
    }
    Ok(())
}

/// What etcd's client library makes of a response, and why the watch was canceled. Only a refusal to
/// create it and a compaction have a reason there; a watch that the server cancels later just ends.
fn shown(response: WatchResponse) -> Option<(WatchResponse, Option<String>)> {
    if response.compact_revision != 0 {
        let why = "etcdserver: mvcc: required revision has been compacted";
        return Some((response, Some(why.to_owned())));
    }
    match (response.created, response.canceled) {
        (true, true) => {
            let refused = WatchResponse { canceled: true, ..WatchResponse::default() };
            Some((refused, Some(response.cancel_reason)))
        }
        (true, false) | (false, true) => None,
        (false, false) => Some((response, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_watch_has_the_reason_alone_and_one_canceled_later_none() {
        let canceled = |created, compact_revision, cancel_reason: &str| {
            let cancel_reason = cancel_reason.to_owned();
            let (canceled, default) = (true, WatchResponse::default());
            shown(WatchResponse { created, canceled, compact_revision, cancel_reason, ..default })
        };
        let (refused, why) = canceled(true, 0, "permission denied").expect("it is shown");
        assert_eq!(why.as_deref(), Some("permission denied"));
        assert_eq!(refused, WatchResponse { canceled: true, ..WatchResponse::default() });
        assert_eq!(canceled(false, 0, "invalid auth token"), None);
        let (_, why) = canceled(false, 7, "compacted").expect("it is shown");
        assert_eq!(why.as_deref(), Some("etcdserver: mvcc: required revision has been compacted"));
        assert_eq!(shown(WatchResponse { created: true, ..WatchResponse::default() }), None);
    }

    #[test]
    fn a_lost_watch_goes_on_after_the_last_event() {
        use quorate_proto::etcdserverpb::ResponseHeader;
        use quorate_proto::mvccpb::{Event, KeyValue};
        let response = |created, revision, events: &[i64]| WatchResponse {
            created,
            header: Some(ResponseHeader { revision, ..ResponseHeader::default() }),
            events: events
                .iter()
                .map(|&mod_revision| Event {
                    kv: Some(KeyValue { mod_revision, ..KeyValue::default() }),
                    ..Event::default()
                })
                .collect(),
            ..WatchResponse::default()
        };
        // From now on: what is written before the first event counts.
        assert_eq!(resumed_at(0, &response(true, 7, &[])), 8);
        // From a revision on, in the past or to come.
        assert_eq!(resumed_at(2, &response(true, 7, &[])), 2);
        assert_eq!(resumed_at(9, &response(true, 7, &[])), 9);
        // While it catches up, the header is ahead.
        assert_eq!(resumed_at(2, &response(false, 5000, &[2, 3, 3])), 4);
        // Progress.
        assert_eq!(resumed_at(4, &response(false, 20, &[])), 21);
        assert_eq!(resumed_at(30, &response(false, 20, &[])), 30);
        assert_eq!(resumed_at(0, &WatchResponse { created: true, ..WatchResponse::default() }), 0);
    }

    fn parsed(line: &str, variables: &[&str]) -> Result<WatchCommand, String> {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        let Ok(Wanted::Run(arguments)) = arguments::parse(&WATCHES, "etcdctl", &words) else {
            panic!("{line}");
        };
        let variables = variables.iter().map(|&name| name.to_owned()).collect();
        let (keys, program) = keys_and_program(&arguments, variables).map_err(str::to_owned)?;
        let create = request(&arguments, &keys).map_err(str::to_owned)?;
        Ok(WatchCommand { create, program })
    }

    #[test]
    fn keys_come_from_the_command_line_or_from_variables() {
        let range = |line: &str, variables: &[&str]| {
            let watched = parsed(line, variables).expect(line);
            let create = watched.create;
            (create.key.to_vec(), create.range_end.to_vec(), watched.program)
        };
        let none = Vec::<String>::new;
        assert_eq!(range("etcdctl watch a", &[]), (b"a".to_vec(), vec![], none()));
        assert_eq!(range("etcdctl watch a b", &[]), (b"a".to_vec(), b"b".to_vec(), none()));
        assert_eq!(range("etcdctl watch a --prefix", &[]), (b"a".to_vec(), b"b".to_vec(), none()));
        assert_eq!(range("etcdctl watch", &["k", "l"]), (b"k".to_vec(), b"l".to_vec(), none()));
        let echo = vec!["echo".to_owned(), "--rev".to_owned()];
        assert_eq!(range("etcdctl watch a -- echo --rev", &[]), (b"a".to_vec(), vec![], echo));
        let refused = |line: &str, variables: &[&str]| parsed(line, variables).expect_err(line);
        assert_eq!(refused("etcdctl watch", &[]), "bad number of arguments");
        let separator = "bad number of arguments (found separator --, but no commands)";
        assert_eq!(refused("etcdctl watch a b --", &[]), separator);
        assert_eq!(refused("etcdctl watch --", &["k"]), separator);
        let exclusive = "`range_end` and `--prefix` are mutually exclusive";
        assert_eq!(refused("etcdctl watch a b --prefix", &[]), exclusive);
        // Of three words only the first counts.
        assert_eq!(range("etcdctl watch a b c", &[]), (b"a".to_vec(), vec![], none()));
        assert_eq!(
            refused("etcdctl watch a", &["k"]),
            "bad number of arguments (found conflicting environment key)"
        );
    }
}
