//! `make-mirror`: copies keys to another cluster, then every change as it happens, a txn a revision.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest,
    WatchRequest, request_op::Request, watch_request::RequestUnion,
};
use quorate_proto::mvccpb::{Event, event::EventType};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::prefix_end;
use crate::client::Client;
use crate::ctl::Context;
use crate::ctl::cluster::{CertificateFlags, Cluster, Target, may_reconnect, text};
use crate::tool::exit::Exit;
use crate::tool::progress::{Progress, Unit};

/// Keys read at once.
const PAGE: i64 = 1_000;
/// How often the number of keys copied so far is printed.
const REPORT_EVERY: Duration = Duration::from_secs(30);
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

const DESTINATION: CertificateFlags = CertificateFlags {
    cert: "dest-cert",
    key: "dest-key",
    cacert: "dest-cacert",
    insecure_transport: "dest-insecure-transport",
    with_global: false,
};

struct Mirror {
    source: Cluster,
    destination: Cluster,
    prefix: String,
    dest_prefix: String,
    txn_ops_max: usize,
    copied: Arc<AtomicU64>,
}

pub async fn run(context: &Context) -> Result<(), Exit> {
    let (words, arguments) = (context.arguments.words(), &context.arguments);
    let [destination] = &words[..] else {
        return Err(Exit::arguments("make-mirror takes one destination argument"));
    };
    let (prefix, dest_prefix) = (arguments.text("prefix"), arguments.text("dest-prefix"));
    let to_root = arguments.bool("no-dest-prefix");
    if to_root && !dest_prefix.is_empty() {
        let why =
            "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one";
        return Err(Exit::arguments(why));
    }
    let target = Target::of_destination(context, destination, &DESTINATION).await?;
    let revision = arguments.int("rev");
    let dest_prefix = match dest_prefix {
        // With a revision, etcdctl mirrors changes without the prefix.
        "" if !to_root && revision <= 1 => prefix,
        other => other,
    };
    let mirror = Mirror {
        destination: target.connect(context).await?,
        source: context.cluster().await?,
        prefix: prefix.to_owned(),
        dest_prefix: dest_prefix.to_owned(),
        txn_ops_max: usize::try_from(arguments.uint("max-txn-ops")).unwrap_or(usize::MAX).max(1),
        copied: Arc::default(),
    };
    let (env, printer, copied) =
        (context.env.clone(), context.printer.clone(), Arc::clone(&mirror.copied));
    drop(context.env.spawn("report", async move {
        loop {
            env.sleep(REPORT_EVERY).await;
            let line = format!("{}\n", copied.load(Ordering::Relaxed));
            if printer.text(&line).is_err() {
                return;
            }
        }
    }));
    let next = if revision > 1 { revision } else { mirror.base(context).await? + 1 };
    mirror.updates(context, next).await
}

impl Mirror {
    /// Copies every key as of one revision, and returns it.
    async fn base(&self, context: &Context) -> Result<i64, Exit> {
        let (mut from, end) = self.range();
        let (mut revision, mut total) = (0, 0);
        let (env, shell) = (&context.env, &*context.shell);
        let mut progress = Progress::new(shell, Unit::Number("keys"), env.now());
        loop {
            let request = RangeRequest {
                key: from.into(),
                range_end: end.clone(),
                revision,
                limit: PAGE,
                ..RangeRequest::default()
            };
            let call = async |client: Client| client.kv().range(request.clone()).await;
            let response = self.source.call_unlimited(call).await?;
            if revision == 0 {
                revision = response.header.as_ref().map_or(0, |header| header.revision);
                total = u64::try_from(response.count).unwrap_or(0);
            }
            let Some(last) = response.kvs.last() else { return Ok(revision) };
            from = [&last.key[..], &[0]].concat();
            for kv in &response.kvs {
                let put = PutRequest {
                    key: self.renamed(&kv.key),
                    value: kv.value.clone(),
                    ..PutRequest::default()
                };
                let call = async |client: Client| client.kv().put(put.clone()).await;
                self.destination.call_unlimited(call).await?;
                let copied = self.copied.fetch_add(1, Ordering::Relaxed) + 1;
                progress.show(copied, total, env.now());
            }
            if !response.more {
                return Ok(revision);
            }
        }
    }

    /// Repeats changes from revision `next` on; ends with an error only.
    async fn updates(&self, context: &Context, mut next: i64) -> Result<(), Exit> {
        let (env, shell) = (&context.env, &*context.shell);
        let mut progress = Progress::new(shell, Unit::Number("changes"), env.now());
        let base = self.copied.load(Ordering::Relaxed);
        let (key, range_end) = self.range();
        loop {
            let create = WatchCreateRequest {
                key: key.clone().into(),
                range_end: range_end.clone(),
                start_revision: next,
                ..WatchCreateRequest::default()
            };
            let create = RequestUnion::CreateRequest(create);
            let (requests, stream) = mpsc::channel(1);
            let first = WatchRequest { request_union: Some(create) };
            requests.try_send(first).expect("the queue is empty");
            let opened = self.source.client.watch().watch(ReceiverStream::new(stream)).await;
            let mut responses = match opened {
                Ok(responses) => responses.into_inner(),
                Err(status) if may_reconnect(&status) => {
                    context.env.sleep(RECONNECT_PAUSE).await;
                    continue;
                }
                Err(status) => return Err(Exit::error(text(&status))),
            };
            loop {
                let response = match responses.message().await {
                    Ok(Some(response)) => response,
                    Ok(None) => break,
                    Err(status) if may_reconnect(&status) => break,
                    Err(status) => return Err(Exit::error(text(&status))),
                };
                if response.compact_revision != 0 {
                    let why = "etcdserver: mvcc: required revision has been compacted";
                    return Err(Exit::error(why));
                }
                if response.canceled {
                    return Err(Exit::error(response.cancel_reason));
                }
                self.repeat(&response.events).await?;
                progress.show(self.copied.load(Ordering::Relaxed) - base, 0, env.now());
                if let Some(Some(kv)) = response.events.last().map(|event| event.kv.as_ref()) {
                    next = kv.mod_revision + 1;
                }
            }
            context.env.sleep(RECONNECT_PAUSE).await;
        }
    }

    /// One txn for each revision, unless it has more operations than a txn may have.
    async fn repeat(&self, events: &[Event]) -> Result<(), Exit> {
        let revision = |event: &Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        for events in events.chunk_by(|one, next| revision(one) == revision(next)) {
            for events in events.chunks(self.txn_ops_max) {
                let success = events.iter().map(|event| self.op(event)).collect();
                let txn = TxnRequest { success, ..TxnRequest::default() };
                let call = async |client: Client| client.kv().txn(txn.clone()).await;
                self.destination.call_unlimited(call).await?;
                self.copied.fetch_add(events.len() as u64, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn op(&self, event: &Event) -> RequestOp {
        let kv = event.kv.clone().unwrap_or_default();
        let key = self.renamed(&kv.key);
        let request = match event.r#type() {
            EventType::Put => {
                Request::RequestPut(PutRequest { key, value: kv.value, ..PutRequest::default() })
            }
            EventType::Delete => Request::RequestDeleteRange(DeleteRangeRequest {
                key,
                ..DeleteRangeRequest::default()
            }),
        };
        RequestOp { request: Some(request) }
    }

    fn range(&self) -> (Vec<u8>, Bytes) {
        match self.prefix.as_bytes() {
            [] => (vec![0], vec![0].into()),
            prefix => (prefix.to_vec(), prefix_end(prefix).into()),
        }
    }

    fn renamed(&self, key: &[u8]) -> Bytes {
        let rest = key.strip_prefix(self.prefix.as_bytes()).unwrap_or(key);
        [self.dest_prefix.as_bytes(), rest].concat().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::cluster::{OWN, secured};
    use crate::ctl::table::TOOL;
    use crate::tls;
    use crate::tool::arguments::{Wanted, parse};

    fn tls_of(line: &str, flags: &CertificateFlags) -> Option<tls::Settings> {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        let Ok(Wanted::Run(arguments)) = parse(&TOOL, "etcdctl", &words) else { panic!("{line}") };
        let (settings, secure) = secured(&arguments, flags);
        Some(settings).filter(|_| secure)
    }

    #[test]
    fn flags_of_one_cluster_do_not_count_for_the_other() {
        let check = |flags: &str, own: bool, destination: bool| {
            let line = format!("etcdctl make-mirror {flags} d:1");
            let is = (tls_of(&line, &OWN).is_some(), tls_of(&line, &DESTINATION).is_some());
            assert_eq!(is, (own, destination), "{line}");
        };
        check("--rev=1", false, false);
        check("--insecure-skip-tls-verify", true, false);
        check("--cacert=a", true, false);
        check("--insecure-transport=false", true, false);
        check("--dest-cacert=a", false, true);
        check("--dest-insecure-transport=false", false, true);
        check("--discovery-srv=d --insecure-discovery=false", true, false);
        let line = "etcdctl make-mirror d:1 --insecure-skip-tls-verify --dest-cacert=a";
        assert!(!tls_of(line, &DESTINATION).expect("it is secure").insecure_skip_verify);
        assert!(tls_of(line, &OWN).expect("it is secure").insecure_skip_verify);
    }

    #[test]
    fn a_domain_requires_tls_where_plain_endpoints_do_not_count() {
        let is_secure = |flags: &str| tls_of(&format!("etcdctl get k {flags}"), &OWN).is_some();
        assert!(is_secure("--discovery-srv=d --insecure-discovery=false"));
        assert!(!is_secure("--discovery-srv=d") && !is_secure("--insecure-discovery=false"));
    }
}
