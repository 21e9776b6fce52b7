//! Stories: every file in `scripts/` is run command by command and its output compared with what the
//! file has. `UPDATE_GOLDENFILES=1` rewrites them.
//!
//! `put KEY VALUE`, `del KEY [END]`, `get KEY [END]` with `rev=`, `limit=`, `sort=order:target`,
//! `min_mod=` and so on, and flags; `txn if COMPARE.. then OP.. else OP..`, where an op is a quoted
//! command or `begin .. end` around a nested txn; `zero` is the zero byte; `compact REV`, `step CHANGES`;
//! `grant`, `revoke`, `attached`; `stream` begins a RangeStream (options as for `get`, `bytes=` of a chunk),
//! `chunk` reads on; `flush`, `crash`; `history` and `derived` print what is stored.

use std::error::Error;
use std::fmt::Write as _;

use bytes::Bytes;
use goldenscript::{ArgumentConsumer, Command, Context};
use quorate_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp, ResponseOp,
    TxnRequest, TxnResponse, compare::TargetUnion, request_op::Request, response_op::Response,
};
use quorate_proto::mvccpb::{Event, KeyValue};

use super::{grant, next_entry, open, place, revoke};
use crate::engine::{Cf, Place};
use crate::error::Refused;
use crate::limits::TXN_OPS_MAX;
use crate::mvcc::keys::RevKey;
use crate::mvcc::record::KvRef;
use crate::mvcc::{
    Most, RangeStream, Store, Write, check_delete_range, check_put, check_range,
    check_range_stream, check_txn,
};
use crate::types::{LeaseId, Revision};

type Output = Result<String, Box<dyn Error>>;
type Done = Result<String, Refused>;

struct Script {
    place: Place,
    state: Option<Store>,
    stream: Option<RangeStream>,
}

impl goldenscript::Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _context: &Context) -> Output {
        let mut args = command.consume_args();
        let output = self.command(&command.name, &mut args)?;
        args.reject_next()?;
        Ok(output)
    }
}

impl Script {
    fn new() -> Self {
        let mut script = Self { place: place(), state: None, stream: None };
        script.open();
        script
    }

    fn open(&mut self) {
        self.state = None;
        self.state = Some(open(&self.place));
    }

    fn store(&self) -> &Store {
        self.state.as_ref().expect("it is open")
    }

    fn command(&mut self, name: &str, args: &mut ArgumentConsumer) -> Output {
        let words = words(args);
        let options = options(args);
        match name {
            "put" | "del" | "txn" => {
                let request = request(name, &words, &options)?;
                Ok(self.entry(|write| apply(write, &request)))
            }
            "get" => Ok(self.get(&words, &options)),
            "stream" => {
                let request = range(&words, &options);
                if let Err(refused) = check_range_stream(&request) {
                    return Ok(shown(Err(refused)));
                }
                let bytes = number(&options, "bytes", 1000) as usize;
                self.stream = Some(RangeStream::new(request, bytes));
                Ok(String::new())
            }
            "chunk" => Ok(self.chunk()),
            "compact" => {
                let revision = words[0].parse()?;
                Ok(self
                    .entry(|write| write.compact(revision).expect("works").map(|()| String::new())))
            }
            "step" => {
                let done = self.store().compact_step(words[0].parse()?)?.finished;
                Ok(if done { "finished" } else { "goes on" }.to_owned())
            }
            "grant" => {
                let id = words[0].parse()?;
                Ok(self.entry(|write| grant(write, id).map(|()| String::new())))
            }
            "revoke" => {
                let id = words[0].parse()?;
                Ok(self.entry(|write| revoke(write, id).map(|()| String::new())))
            }
            "attached" => {
                let keys = self.store().view().attached(LeaseId(words[0].parse()?))?;
                Ok(keys.iter().map(|key| text(key)).collect::<Vec<_>>().join(" "))
            }
            "events" => self.events(&options),
            "flush" => Ok(format!("up to entry {}", self.store().flush()?)),
            "crash" => {
                self.open();
                Ok(format!("{:?}", self.store().position()))
            }
            "history" => self.history(),
            "derived" => self.derived(),
            other => Err(format!("no command {other}").into()),
        }
    }

    /// Applies one entry and shows its answer and its events.
    fn entry(&mut self, apply: impl FnOnce(&mut Write<'_>) -> Done) -> String {
        let mut write = self.store().begin();
        next_entry(&mut write);
        let mut output = shown(apply(&mut write));
        for event in write.take_changed().events {
            writeln!(output, "event {}", show_event(&event)).expect("a string grows");
        }
        write.commit().expect("commits");
        output
    }

    fn get(&self, words: &[String], options: &[(String, String)]) -> String {
        let request = range(words, options);
        if let Err(refused) = check_range(&request) {
            return shown(Err(refused));
        }
        let answer = self.store().view().range(&request).expect("works");
        shown(answer.map(|range| show_range(&range)))
    }

    fn chunk(&mut self) -> String {
        let view = self.store().view();
        let Some(mut stream) = self.stream.take() else { return "over".to_owned() };
        let answer = view.range_chunk(&mut stream).expect("works");
        self.stream = Some(stream).filter(|stream| answer.is_ok() && !stream.is_over());
        shown(answer.map(|chunk| match chunk.header {
            Some(_) => show_range(&chunk),
            None => {
                assert!(chunk.count == 0 && !chunk.more, "{chunk:?}");
                let kvs = chunk.kvs.iter().map(|kv| show_kv(kv) + "\n");
                kvs.collect::<String>() + "goes on"
            }
        }))
    }

    fn events(&self, options: &[(String, String)]) -> Output {
        let view = self.store().view();
        let from = Revision(number(options, "from", 0));
        let max = number(options, "max", 1000) as usize;
        let found = view.events(
            from,
            view.revision(),
            Most { changes: max, bytes: usize::MAX },
            true,
            &|_| true,
        )?;
        Ok(shown(found.map(|found| {
            let mut output = String::new();
            for event in &found.events {
                writeln!(output, "{}", show_event(event)).expect("a string grows");
            }
            output + &format!("next {}", found.next)
        })))
    }

    fn history(&self) -> Output {
        let mut output = String::new();
        for row in self.store().view().scan(Cf::Key) {
            let (key, record) = row?;
            let (rev, tombstone) = RevKey::parse(&key)?;
            let kv = KvRef::parse(&record)?.to_kv();
            let state = if tombstone { format!("{} deleted", text(&kv.key)) } else { show_kv(&kv) };
            writeln!(output, "{}.{} {state}", rev.main, rev.sub)?;
        }
        Ok(output)
    }

    fn derived(&self) -> Output {
        let mut output = String::new();
        for cf in Cf::DERIVED {
            for row in self.store().view().scan(cf) {
                let (key, value) = row?;
                writeln!(output, "{} {} -> {}", cf.name(), text(&key), text(&value))?;
            }
        }
        Ok(output)
    }
}

fn words(args: &mut ArgumentConsumer) -> Vec<String> {
    std::iter::from_fn(|| args.next_pos().map(str::to_owned)).collect()
}

fn options(args: &mut ArgumentConsumer) -> Vec<(String, String)> {
    std::iter::from_fn(|| args.next_key().map(|(k, v)| (k.to_owned(), v.to_owned()))).collect()
}

fn number(options: &[(String, String)], name: &str, default: i64) -> i64 {
    let found = options.iter().find(|(key, _)| key == name);
    found.map_or(default, |(_, value)| value.parse().expect("a number"))
}

fn bytes(words: &[String], at: usize) -> Bytes {
    let word = words.get(at).map_or("", String::as_str);
    if word == "zero" { Bytes::from_static(b"\0") } else { Bytes::from(word.to_owned()) }
}

fn flag(options: &[(String, String)], name: &str) -> bool {
    options.iter().any(|(key, value)| key == name && value == "yes")
}

fn range(words: &[String], options: &[(String, String)]) -> RangeRequest {
    let sort = options.iter().find(|(key, _)| key == "sort").map_or("none:key", |(_, sort)| sort);
    let (order, target) = sort.split_once(':').expect("order:target");
    let position =
        |all: &[&str], one: &str| all.iter().position(|x| *x == one).map_or(9, |i| i as i32);
    RangeRequest {
        key: bytes(words, 0),
        range_end: bytes(words, 1),
        limit: number(options, "limit", 0),
        revision: number(options, "rev", 0),
        sort_order: position(&["none", "ascend", "descend"], order),
        sort_target: position(&["key", "version", "create", "mod", "value"], target),
        serializable: false,
        keys_only: flag(options, "keys_only"),
        count_only: flag(options, "count_only"),
        min_mod_revision: number(options, "min_mod", 0),
        max_mod_revision: number(options, "max_mod", 0),
        min_create_revision: number(options, "min_create", 0),
        max_create_revision: number(options, "max_create", 0),
    }
}

fn request(
    name: &str,
    words: &[String],
    options: &[(String, String)],
) -> Result<Request, Box<dyn Error>> {
    Ok(match name {
        "get" => Request::RequestRange(range(words, options)),
        "put" => Request::RequestPut(PutRequest {
            key: bytes(words, 0),
            value: bytes(words, 1),
            lease: number(options, "lease", 0),
            prev_kv: flag(options, "prev"),
            ignore_value: flag(options, "ignore_value"),
            ignore_lease: flag(options, "ignore_lease"),
        }),
        "del" => Request::RequestDeleteRange(DeleteRangeRequest {
            key: bytes(words, 0),
            range_end: bytes(words, 1),
            prev_kv: flag(options, "prev"),
        }),
        "txn" => Request::RequestTxn(txn(&mut words.iter().map(String::as_str))?),
        other => return Err(format!("no request {other}").into()),
    })
}

/// `if COMPARE.. then OP.. else OP..` up to the end.
fn txn(words: &mut dyn Iterator<Item = &str>) -> Result<TxnRequest, Box<dyn Error>> {
    let mut txn = TxnRequest::default();
    let mut part = "";
    while let Some(word) = words.next() {
        let op = match word {
            "if" | "then" | "else" => {
                part = match word {
                    "if" => "if",
                    "then" => "then",
                    _ => "else",
                };
                continue;
            }
            "end" => break,
            "begin" => Request::RequestTxn(self::txn(words)?),
            text if part == "if" => {
                txn.compare.push(compare(text)?);
                continue;
            }
            text => {
                let (pairs, words): (Vec<&str>, Vec<&str>) =
                    text.split_whitespace().partition(|word| word.contains('='));
                let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
                let pairs: Vec<_> = pairs.iter().filter_map(|pair| pair.split_once('=')).collect();
                let pairs: Vec<_> =
                    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
                request(&words[0], &words[1..], &pairs)?
            }
        };
        let op = RequestOp { request: Some(op) };
        if part == "then" { txn.success.push(op) } else { txn.failure.push(op) }
    }
    Ok(txn)
}

/// `TARGET KEY [END] OPERATOR OPERAND`.
fn compare(text: &str) -> Result<Compare, Box<dyn Error>> {
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    let [operator, operand] = &words[words.len() - 2..] else { return Err("a comparison".into()) };
    let (target, union) = match words[0].as_str() {
        "version" => (0, TargetUnion::Version(operand.parse()?)),
        "create" => (1, TargetUnion::CreateRevision(operand.parse()?)),
        "mod" => (2, TargetUnion::ModRevision(operand.parse()?)),
        "value" => (3, TargetUnion::Value(Bytes::from(operand.clone()))),
        _ => (4, TargetUnion::Lease(operand.parse()?)),
    };
    let keys = &words[1..words.len() - 2];
    let result = ["=", ">", "<", "!="].iter().position(|x| x == operator).ok_or("an operator")?;
    let (key, range_end) = (bytes(keys, 0), bytes(keys, 1));
    Ok(Compare { result: result as i32, target, key, range_end, target_union: Some(union) })
}

fn apply(write: &mut Write<'_>, request: &Request) -> Done {
    match request {
        Request::RequestPut(put) => {
            check_put(put)?;
            let answer = write.put(put).expect("works")?;
            Ok(show_response(&Response::ResponsePut(answer)))
        }
        Request::RequestDeleteRange(delete) => {
            check_delete_range(delete)?;
            let answer = write.delete_range(delete).expect("works")?;
            Ok(show_response(&Response::ResponseDeleteRange(answer)))
        }
        Request::RequestTxn(txn) => {
            check_txn(txn, TXN_OPS_MAX)?;
            Ok(show_txn(&write.txn(txn).expect("works")?))
        }
        Request::RequestRange(range) => Ok(show_range(&write.range(range).expect("works")?)),
    }
}

fn shown(done: Done) -> String {
    match done {
        Ok(output) if output.is_empty() => "ok\n".to_owned(),
        Ok(output) if output.ends_with('\n') => output,
        Ok(output) => output + "\n",
        Err(refused) => format!("refused: {refused}\n"),
    }
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn show_kv(kv: &KeyValue) -> String {
    let KeyValue { create_revision: create, mod_revision: modified, version, lease, .. } = kv;
    let lease = if *lease == 0 { String::new() } else { format!(" lease {lease}") };
    format!(
        "{}={} (create {create} mod {modified} version {version}{lease})",
        text(&kv.key),
        text(&kv.value)
    )
}

fn show_event(event: &Event) -> String {
    let kv = event.kv.as_ref().expect("events have a kv");
    let prev =
        event.prev_kv.as_ref().map_or(String::new(), |kv| format!(", before: {}", show_kv(kv)));
    match event.r#type {
        0 => format!("put {}{prev}", show_kv(kv)),
        _ => format!("delete {} at {}{prev}", text(&kv.key), kv.mod_revision),
    }
}

fn show_range(range: &RangeResponse) -> String {
    let mut output = String::new();
    for kv in &range.kvs {
        writeln!(output, "{}", show_kv(kv)).expect("a string grows");
    }
    let revision = range.header.as_ref().map_or(0, |header| header.revision);
    let more = if range.more { ", more" } else { "" };
    output + &format!("count {}{more}, revision {revision}", range.count)
}

fn show_response(response: &Response) -> String {
    let prev = |kvs: &[KeyValue]| {
        kvs.iter().map(|kv| format!(", before: {}", show_kv(kv))).collect::<String>()
    };
    let revision = |header: &Option<_>| -> i64 {
        header.as_ref().map_or(0, |h: &quorate_proto::etcdserverpb::ResponseHeader| h.revision)
    };
    match response {
        Response::ResponseRange(range) => format!("got {}", show_range(range).replace('\n', "; ")),
        Response::ResponsePut(put) => {
            format!("put, revision {}{}", revision(&put.header), prev(put.prev_kv.as_slice()))
        }
        Response::ResponseDeleteRange(delete) => {
            let (revision, prev) = (revision(&delete.header), prev(&delete.prev_kvs));
            format!("deleted {}, revision {revision}{prev}", delete.deleted)
        }
        Response::ResponseTxn(txn) => show_txn(txn).replace('\n', "\n  "),
    }
}

fn show_txn(txn: &TxnResponse) -> String {
    let revision = txn.header.as_ref().map_or(0, |header| header.revision);
    let verdict = if txn.succeeded { "then" } else { "else" };
    let mut output = format!("{verdict}, revision {revision}");
    for ResponseOp { response } in &txn.responses {
        let response = response.as_ref().map_or("nothing".to_owned(), show_response);
        write!(output, "\n  {response}").expect("a string grows");
    }
    output
}

macro_rules! stories {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/mvcc/tests/scripts/");
            let file = format!("{folder}{}", stringify!($name));
            goldenscript::run(&mut Script::new(), &file).unwrap_or_else(|e| panic!("{file}: {e}"));
        }
    )*};
}

stories! {
    put_and_delete
    ranges
    range_orders
    range_filtered_then_sorted
    range_stream
    txns
    txn_refused
    txn_same_key_twice
    compaction
    compaction_overtaken
    compaction_resumed
    compaction_at_put_and_deletion
    leases
    crash
}
