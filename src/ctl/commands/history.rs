//! `history KEY` and `diff REV1 REV2`: the past of keys, by ordinary reads. Not in etcdctl; both work
//! against etcd.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_proto::etcdserverpb::{RangeRequest, RangeResponse};
use quorate_proto::mvccpb::KeyValue;

use super::{decimal, prefix_end};
use crate::client::Client;
use crate::ctl::Context;
use crate::ctl::cluster::{Cluster, Failed};
use crate::ctl::print::quoted;
use crate::tool::exit::Exit;

const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
/// Keys read at once.
const PAGE: i64 = 1_000;

/// The newest state first, back to the compaction. A line: revision, version, value.
pub async fn history(context: &Context) -> Result<(), Exit> {
    let words = context.arguments.words();
    let [key] = &words[..] else {
        return Err(Exit::arguments("history command needs one argument as key"));
    };
    let cluster = context.cluster().await?;
    let limit = usize::try_from(context.arguments.int("limit")).unwrap_or(0);
    let (mut revision, mut shown) = (0, 0);
    loop {
        let request = RangeRequest { key: key.clone().into(), revision, ..RangeRequest::default() };
        let response = match range(&cluster, &request).await {
            Err(failed) if failed.text == COMPACTED => {
                return context.printer.text(&format!("(older than {revision}: compacted)\n"));
            }
            response => response?,
        };
        let Some(kv) = response.kvs.first() else {
            if revision == 0 {
                return context.printer.text("(the key does not exist now)\n");
            }
            return Ok(());
        };
        let (at, version, value) = (kv.mod_revision, kv.version, show(context, &kv.value));
        context.printer.text(&format!("{at}\t{version}\t{value}\n"))?;
        shown += 1;
        // Before the first version the key did not exist.
        if kv.version <= 1 || kv.mod_revision <= 1 || shown == limit {
            return Ok(());
        }
        revision = kv.mod_revision - 1;
    }
}

/// A line for each key that differs: `+` added, `-` deleted, `~` changed.
pub async fn diff(context: &Context) -> Result<(), Exit> {
    let words = context.arguments.words();
    let [before, after] = &words[..] else {
        return Err(Exit::arguments("diff command needs two arguments, the revisions to compare"));
    };
    let (before, after) =
        (decimal(before).map_err(Exit::arguments)?, decimal(after).map_err(Exit::arguments)?);
    let cluster = context.cluster().await?;
    let prefix = context.arguments.text("prefix").as_bytes();
    let mut old: BTreeMap<Bytes, KeyValue> = BTreeMap::new();
    all(&cluster, prefix, before, |kv| {
        old.insert(kv.key.clone(), kv);
        Ok(())
    })
    .await?;
    let mut lines = Vec::new();
    all(&cluster, prefix, after, |kv| {
        match old.remove(&kv.key) {
            None => lines.push((kv.key, '+', show(context, &kv.value))),
            Some(was) if was.mod_revision != kv.mod_revision && was.value != kv.value => {
                let change =
                    format!("{} -> {}", show(context, &was.value), show(context, &kv.value));
                lines.push((kv.key, '~', change));
            }
            Some(_) => {}
        }
        Ok(())
    })
    .await?;
    lines.extend(old.into_iter().map(|(key, was)| (key, '-', show(context, &was.value))));
    lines.sort();
    for (key, sign, value) in lines {
        context.printer.text(&format!("{sign} {}\t{value}\n", show(context, &key)))?;
    }
    Ok(())
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

/// Every key below `prefix` at a revision, a page at a time.
async fn all(
    cluster: &Cluster,
    prefix: &[u8],
    revision: i64,
    mut each: impl FnMut(KeyValue) -> Result<(), Exit>,
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
        let Some(last) = response.kvs.last() else { return Ok(()) };
        from = [&last.key[..], &[0]].concat();
        for kv in response.kvs {
            each(kv)?;
        }
        if !response.more {
            return Ok(());
        }
    }
}
