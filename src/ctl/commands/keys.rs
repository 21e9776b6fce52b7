//! `put`, `get`, `del` and `compaction`: their flags become requests, which `txn` uses as well.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse,
    range_request::{SortOrder, SortTarget},
};

use super::past::At;
use super::{bytes, decimal, hex_i64, prefix_end};
use crate::client::{Client, Status};
use crate::ctl::Context;
use crate::ctl::cluster::Failed;
use crate::ctl::print::{Format, quoted};
use crate::tool::arguments::Arguments;
use crate::tool::exit::Exit;

const PUT_ARGUMENTS: &str = "put command needs 1 argument and input from stdin or 2 arguments";
const ONE_OF_PREFIX: &str =
    "`--prefix` and `--from-key` cannot be set at the same time, choose one";
const TOO_MANY: &str =
    "too many arguments, only accept one argument when `--prefix` or `--from-key` is set";
/// How long a range is announced before it is deleted.
const DELETE_DELAY: Duration = Duration::from_secs(2);

pub async fn put(context: &Context) -> Result<(), Exit> {
    let request = put_request(&context.arguments, &|| context.shell.read_to_end())?;
    let cluster = context.cluster().await?;
    let call = async |client: Client| client.kv().put(request.clone()).await;
    context.printer.put(&cluster.call(call).await?)
}

/// `rest` reads the value where none is given.
pub fn put_request(
    arguments: &Arguments,
    rest: &dyn Fn() -> io::Result<Vec<u8>>,
) -> Result<PutRequest, Exit> {
    let words = arguments.words();
    let Some(key) = words.first() else { return Err(Exit::arguments(PUT_ARGUMENTS)) };
    let ignore_value = arguments.bool("ignore-value");
    if ignore_value && words.len() > 1 {
        let why = "put command needs only 1 argument when 'ignore-value' is set";
        return Err(Exit::arguments(why));
    }
    let value = match words.get(1) {
        _ if ignore_value => Vec::new(),
        Some(value) => bytes(value),
        None => match rest() {
            Ok(value) if !value.is_empty() => value,
            _ => return Err(Exit::arguments(PUT_ARGUMENTS)),
        },
    };
    let lease = hex_i64(arguments.text("lease"))
        .map_err(|why| Exit::arguments(format!("bad lease ID ({why}), expecting ID in Hex")))?;
    Ok(PutRequest {
        key: bytes(key).into(),
        value: value.into(),
        lease,
        prev_kv: arguments.bool("prev-kv"),
        ignore_value,
        ignore_lease: arguments.bool("ignore-lease"),
    })
}

pub async fn get(context: &Context) -> Result<(), Exit> {
    let (arguments, printer) = (&context.arguments, &context.printer);
    let mut request = range_request(arguments)?;
    let at = at(arguments)?;
    let cluster = context.cluster().await?;
    if let Some(at) = at {
        request.revision = at.revision(context).await?;
    }
    let response = if arguments.bool("stream") {
        let call = async |client: Client| stream(client, request.clone()).await;
        cluster.call(call).await?
    } else {
        cluster.call(async |client: Client| client.kv().range(request.clone()).await).await?
    };
    if arguments.bool("count-only") && printer.format != Format::Fields {
        return Err(Exit::arguments("--count-only is only for `--write-out=fields`"));
    }
    if arguments.bool("print-value-only") && printer.format != Format::Simple {
        return Err(Exit::arguments("print-value-only is only for `--write-out=simple`"));
    }
    printer.get(&response)
}

/// The moment of `--at`.
fn at(arguments: &Arguments) -> Result<Option<At>, Exit> {
    if !arguments.is_given("at") {
        return Ok(None);
    }
    if arguments.is_given("rev") {
        let why = "`--rev` and `--at` cannot be set at the same time, choose one";
        return Err(Exit::arguments(why));
    }
    At::parse(arguments.text("at")).map(Some).map_err(|why| Exit::arguments(format!("--at {why}")))
}

/// The chunks of a streamed range, joined.
async fn stream(
    client: Client,
    request: RangeRequest,
) -> Result<crate::client::Response<RangeResponse>, Status> {
    let mut chunks = client.kv().range_stream(request).await?.into_inner();
    let mut whole = RangeResponse::default();
    while let Some(chunk) = chunks.message().await? {
        let Some(part) = chunk.range_response else { continue };
        whole.kvs.extend(part.kvs);
        whole.header = part.header.or(whole.header);
        whole.more |= part.more;
        whole.count = whole.count.max(part.count);
    }
    Ok(crate::client::Response::new(whole))
}

/// The consistency flag: whether a read is serializable.
pub fn serializable(text: &str) -> Result<bool, Exit> {
    match text {
        "s" => Ok(true),
        "l" => Ok(false),
        _ => {
            let why = format!("unknown consistency flag {}", quoted(text.as_bytes()));
            Err(Exit::new(Exit::FEATURE, why))
        }
    }
}

/// Keys by prefix or from one on; an empty key stands for the first one then.
fn range_of(arguments: &Arguments, words: &[String]) -> Result<(Bytes, Bytes), Exit> {
    let (prefix, from) = (arguments.bool("prefix"), arguments.bool("from-key"));
    let key = bytes(&words[0]);
    if words.len() > 1 && (prefix || from) {
        return Err(Exit::arguments(TOO_MANY));
    }
    Ok(match (prefix, from) {
        (true, _) | (_, true) if key.is_empty() => (vec![0].into(), vec![0].into()),
        (true, _) => {
            let end = prefix_end(&key);
            (key.into(), end.into())
        }
        (_, true) => (key.into(), vec![0].into()),
        _ => (key.into(), words.get(1).map(|end| bytes(end)).unwrap_or_default().into()),
    })
}

pub fn range_request(arguments: &Arguments) -> Result<RangeRequest, Exit> {
    let words = arguments.words();
    if words.is_empty() {
        let why = "get command needs one argument as key and an optional argument as range_end";
        return Err(Exit::arguments(why));
    }
    if arguments.bool("prefix") && arguments.bool("from-key") {
        return Err(Exit::arguments(ONE_OF_PREFIX));
    }
    let (keys_only, count_only) = (arguments.bool("keys-only"), arguments.bool("count-only"));
    if keys_only && count_only {
        let why = "`--keys-only` and `--count-only` cannot be set at the same time, choose one";
        return Err(Exit::arguments(why));
    }
    let serializable = serializable(arguments.text("consistency"))?;
    let (key, range_end) = range_of(arguments, &words)?;
    let (order, target) = (arguments.text("order"), arguments.text("sort-by"));
    let bad = |what: &str, text: &str| Exit::new(Exit::FEATURE, format!("bad sort {what} {text}"));
    let sort_order = match order.to_uppercase().as_str() {
        "" => SortOrder::None,
        "ASCEND" => SortOrder::Ascend,
        "DESCEND" => SortOrder::Descend,
        _ => return Err(bad("order", order)),
    };
    let sort_target = match target.to_uppercase().as_str() {
        "" | "KEY" => SortTarget::Key,
        "CREATE" => SortTarget::Create,
        "MODIFY" => SortTarget::Mod,
        "VALUE" => SortTarget::Value,
        "VERSION" => SortTarget::Version,
        _ => return Err(bad("target", target)),
    };
    // The client library sorts by key in ascending order anyway, and leaves it out of the request.
    let sort_order = match (sort_target, sort_order) {
        (SortTarget::Key, SortOrder::Ascend) => SortOrder::None,
        (_, order) => order,
    };
    let revision = |flag: &str| arguments.int(flag).max(0);
    for (min, max, names) in [
        ("min-create-rev", "max-create-rev", ("getMinCreateRev", "getMaxCreateRev")),
        ("min-mod-rev", "max-mod-rev", ("getMinModRev", "getMaxModRev")),
    ] {
        let (least, most) = (arguments.int(min), arguments.int(max));
        if most > 0 && least > most {
            let why = format!("{}(={least}) > {}(={most})", names.0, names.1);
            return Err(Exit::new(Exit::FEATURE, why));
        }
    }
    Ok(RangeRequest {
        key,
        range_end,
        limit: arguments.int("limit"),
        revision: revision("rev"),
        sort_order: sort_order as i32,
        sort_target: sort_target as i32,
        serializable,
        keys_only,
        count_only,
        min_mod_revision: revision("min-mod-rev"),
        max_mod_revision: revision("max-mod-rev"),
        min_create_revision: revision("min-create-rev"),
        max_create_revision: revision("max-create-rev"),
    })
}

pub async fn del(context: &Context) -> Result<(), Exit> {
    let request = delete_request(&context.arguments)?;
    let words = context.arguments.words();
    if let ([key, end], false) = (&words[..], context.arguments.bool("range")) {
        context.shell.err(&format!(
            "Warning: Keys between {} and {} will be deleted. Please interrupt the command within \
             next 2 seconds to cancel. You can provide `--range` flag to avoid the delay.\n",
            quoted(&bytes(key)),
            quoted(&bytes(end)),
        ));
        context.env.sleep(DELETE_DELAY).await;
    }
    let cluster = context.cluster().await?;
    let call = async |client: Client| client.kv().delete_range(request.clone()).await;
    context.printer.del(&cluster.call(call).await?)
}

pub fn delete_request(arguments: &Arguments) -> Result<DeleteRangeRequest, Exit> {
    let words = arguments.words();
    if words.is_empty() || words.len() > 2 {
        let why = "del command needs one argument as key and an optional argument as range_end";
        return Err(Exit::arguments(why));
    }
    if arguments.bool("prefix") && arguments.bool("from-key") {
        return Err(Exit::arguments(ONE_OF_PREFIX));
    }
    let (key, range_end) = range_of(arguments, &words)?;
    Ok(DeleteRangeRequest { key, range_end, prev_kv: arguments.bool("prev-kv") })
}

pub async fn compaction(context: &Context) -> Result<(), Exit> {
    let words = context.arguments.words();
    let [revision] = &words[..] else {
        return Err(Exit::arguments("compaction command needs 1 argument"));
    };
    let revision = decimal(revision).map_err(Exit::error)?;
    let physical = context.arguments.bool("physical");
    let cluster = context.cluster().await?;
    let request = CompactionRequest { revision, physical };
    let call = async |client: Client| client.kv().compact(request).await;
    let compacted: Result<_, Failed> = cluster.call(call).await;
    compacted?;
    context.printer.text(&format!("compacted revision {revision}\n"))
}
