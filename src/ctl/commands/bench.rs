//! `check perf` and `check datascale`: etcdctl's loads, limits and verdicts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quorate_proto::etcdserverpb::{
    CompactionRequest, DefragmentRequest, DeleteRangeRequest, PutRequest, RangeRequest,
};
use tokio::sync::mpsc;

use super::prefix_end;
use crate::client::{self, Client};
use crate::ctl::Context;
use crate::ctl::cluster::{Cluster, Target, text};
use crate::ctl::print::quoted;
use crate::tool::exit::Exit;
use crate::tool::progress::{Progress, Unit};

/// Number of clients, and puts per second.
const PERF: [(&str, usize, u64); 4] =
    [("s", 50, 150), ("m", 200, 1_000), ("l", 500, 8_000), ("xl", 1_000, 15_000)];
const PERF_LASTS: Duration = Duration::from_secs(60);
const PERF_BYTES: (usize, usize) = (256, 1_024);
/// Number of clients, and puts in total.
const DATASCALE: [(&str, usize, u64); 4] =
    [("s", 50, 10_000), ("m", 200, 100_000), ("l", 500, 1_000_000), ("xl", 1_000, 3_000_000)];
const DATASCALE_BYTES: (usize, usize) = (512, 512);

/// Verdicts: the least share of the rate, the slowest request and the standard deviation, seconds.
const RATE_MIN: f64 = 0.9;
const SLOWEST_MAX_S: f64 = 0.5;
const DEVIATION_MAX_S: f64 = 0.1;

pub async fn run(context: &Context, leaf: &str) -> Result<(), Exit> {
    match leaf {
        "perf" => perf(context).await,
        _ => datascale(context).await,
    }
}

fn load(context: &Context, table: &[(&'static str, usize, u64)]) -> Result<(usize, u64), Exit> {
    let given = context.arguments.text("load");
    let name = match given {
        "small" => "s",
        "medium" => "m",
        "large" => "l",
        "xLarge" => "xl",
        name => name,
    };
    let found = table.iter().find(|(known, ..)| *known == name);
    let unknown = || Exit::new(Exit::FEATURE, format!("unknown load option {given}"));
    found.map(|(_, clients, limit)| (*clients, *limit)).ok_or_else(unknown)
}

/// How long puts took.
#[derive(Default)]
struct Report {
    seconds: Vec<f64>,
    errors: BTreeMap<String, u64>,
}

impl Report {
    fn add(&mut self, outcome: Result<f64, String>) {
        match outcome {
            Ok(seconds) => self.seconds.push(seconds),
            Err(error) => *self.errors.entry(error).or_default() += 1,
        }
    }

    fn slowest(&self) -> f64 {
        self.seconds.iter().copied().fold(0.0, f64::max)
    }

    fn deviation(&self) -> f64 {
        let count = self.seconds.len().max(1) as f64;
        let mean = self.seconds.iter().sum::<f64>() / count;
        let square = |seconds: &f64| (seconds - mean) * (seconds - mean);
        (self.seconds.iter().map(square).sum::<f64>() / count).sqrt()
    }

    fn errors(&self) -> String {
        let lines =
            self.errors.iter().map(|(error, count)| format!("FAIL: ERROR({error}) -> {count}\n"));
        lines.collect()
    }
}

/// The puts of all clients: keys, sizes, number, rate and end.
struct Puts {
    prefix: String,
    bytes: (usize, usize),
    count: u64,
    /// Puts per second; `None` for as fast as possible.
    rate: Option<u64>,
    until: Option<Instant>,
}

/// Runs the puts over `clients` connections.
async fn put_all(context: &Context, clients: usize, puts: Puts) -> Result<Report, Exit> {
    let target = Target::of_flags(context).await?;
    let (results, mut inbox) = mpsc::channel(clients);
    let taken = Arc::new(AtomicU64::new(0));
    let (began, puts) = (context.env.now(), Arc::new(puts));
    for _ in 0..clients {
        let cluster = target.connect(context).await?;
        let (env, results) = (context.env.clone(), results.clone());
        let (taken, puts) = (Arc::clone(&taken), Arc::clone(&puts));
        drop(context.env.spawn("load", async move {
            loop {
                let number = taken.fetch_add(1, Ordering::Relaxed);
                if number >= puts.count {
                    return;
                }
                if let Some(rate) = puts.rate {
                    let at =
                        began + Duration::from_nanos(number.saturating_mul(1_000_000_000) / rate);
                    env.sleep(at.saturating_duration_since(env.now())).await;
                }
                if puts.until.is_some_and(|until| env.now() >= until) {
                    return;
                }
                let mut random = [0; 16];
                env.rt.fill_random(&mut random);
                let mut key = puts.prefix.clone().into_bytes();
                key.extend(random);
                key.resize(puts.prefix.len() + puts.bytes.0, 0);
                let put = PutRequest {
                    key: key.into(),
                    value: vec![0; puts.bytes.1].into(),
                    ..PutRequest::default()
                };
                let sent = env.now();
                let outcome = cluster.client.kv().put(put).await;
                let took = (env.now() - sent).as_secs_f64();
                let outcome = outcome.map(|_| took).map_err(|status| text(&status));
                if results.send(outcome).await.is_err() {
                    return;
                }
            }
        }));
    }
    drop(results);
    let mut report = Report::default();
    let expected = match (puts.until, puts.rate) {
        (Some(until), Some(rate)) => rate * (until - began).as_secs(),
        _ => puts.count,
    };
    let mut progress = Progress::new(&*context.shell, Unit::Number("puts"), began);
    let interrupted = context.shell.interrupted();
    tokio::pin!(interrupted);
    loop {
        tokio::select! {
            biased; // An interrupt counts before further results.
            () = &mut interrupted => {
                clean_up(context, &target.connect(context).await?, &puts.prefix, false).await?;
                return Err(Exit::error("context canceled"));
            }
            outcome = inbox.recv() => match outcome {
                Some(outcome) => report.add(outcome),
                None => break,
            },
        }
        progress.show(report.seconds.len() as u64, expected, context.env.now());
    }
    Ok(report)
}

/// # Errors
/// When there are keys below the prefix, which the check would delete.
async fn check_empty(cluster: &Cluster, prefix: &str, hint: &str) -> Result<(), Exit> {
    let request = RangeRequest {
        key: prefix.to_owned().into(),
        range_end: prefix_end(prefix.as_bytes()).into(),
        limit: 1,
        ..RangeRequest::default()
    };
    let call = async |client: Client| client.kv().range(request.clone()).await;
    if cluster.call(call).await?.kvs.is_empty() {
        return Ok(());
    }
    let prefix = quoted(prefix.as_bytes());
    Err(Exit::new(Exit::INPUT, format!("prefix {prefix} has keys. Delete with {hint} first")))
}

/// Deletes the keys, and compacts and defragments where flags require it.
async fn clean_up(
    context: &Context,
    cluster: &Cluster,
    prefix: &str,
    after: bool,
) -> Result<(), Exit> {
    let printer = &context.printer;
    let request = DeleteRangeRequest {
        key: prefix.to_owned().into(),
        range_end: prefix_end(prefix.as_bytes()).into(),
        prev_kv: false,
    };
    let call = async |client: Client| client.kv().delete_range(request.clone()).await;
    let deleted = match cluster.call_unlimited(call).await {
        Ok(deleted) => deleted,
        Err(failed) => {
            let error = failed.text;
            let text = format!("FAIL: Cleanup failed during key deletion: ERROR({error})\n");
            return printer.text(&text);
        }
    };
    if !after {
        return Ok(());
    }
    if context.arguments.bool("auto-compact") {
        let revision = deleted.header.as_ref().map_or(0, |header| header.revision);
        printer.text(&format!("Compacting with revision {revision}\n"))?;
        let request = CompactionRequest { revision, physical: true };
        cluster.call_unlimited(async |client: Client| client.kv().compact(request).await).await?;
        printer.text(&format!("Compacted with revision {revision}\n"))?;
    }
    if context.arguments.bool("auto-defrag") {
        let target = Target::of_flags(context).await?;
        for endpoint in &target.endpoints {
            let name = quoted(endpoint.as_bytes());
            printer.text(&format!("Defragmenting {name}\n"))?;
            let cluster = target.at(endpoint).connect(context).await?;
            let call =
                async |client: Client| client.maintenance().defragment(DefragmentRequest {}).await;
            cluster.call_unlimited(call).await?;
            printer.text(&format!("Defragmented {name}\n"))?;
        }
    }
    Ok(())
}

async fn perf(context: &Context) -> Result<(), Exit> {
    let (clients, rate) = load(context, &PERF)?;
    let prefix = context.arguments.text("prefix").to_owned();
    let cluster = context.cluster().await?;
    let hint = format!("'etcdctl del --prefix {prefix}'");
    check_empty(&cluster, &prefix, &hint).await?;
    let began = context.env.now();
    let puts = Puts {
        prefix: prefix.clone(),
        bytes: PERF_BYTES,
        count: u64::MAX,
        rate: Some(rate),
        until: Some(began + PERF_LASTS),
    };
    let report = put_all(context, clients, puts).await?;
    let took = (context.env.now() - began).as_secs_f64();
    clean_up(context, &cluster, &prefix, true).await?;
    let (text, passed) = verdict(&report, rate, took);
    context.printer.text(&text)?;
    if passed { Ok(()) } else { Err(Exit::silent(Exit::ERROR)) }
}

/// The lines of the verdict, and whether it is a pass.
fn verdict(report: &Report, rate: u64, took_s: f64) -> (String, bool) {
    let per_second = report.seconds.len() as f64 / took_s;
    let (slowest, deviation) = (report.slowest(), report.deviation());
    let mut text = String::new();
    if !report.errors.is_empty() {
        text.push_str("FAIL: too many errors\n");
        text.push_str(&report.errors());
    }
    let fast = per_second / rate as f64 > RATE_MIN;
    let speed = per_second as u64 + 1;
    text.push_str(&match fast {
        true => format!("PASS: Throughput is {speed} writes/s\n"),
        false => format!("FAIL: Throughput too low: {speed} writes/s\n"),
    });
    let quick = slowest <= SLOWEST_MAX_S;
    text.push_str(&match quick {
        true => format!("PASS: Slowest request took {slowest:.6}s\n"),
        false => format!("Slowest request took too long: {slowest:.6}s\n"),
    });
    let even = deviation <= DEVIATION_MAX_S;
    text.push_str(&match even {
        true => format!("PASS: Stddev is {deviation:.6}s\n"),
        false => format!("Stddev too high: {deviation:.6}s\n"),
    });
    let passed = report.errors.is_empty() && fast && quick && even;
    text.push_str(if passed { "PASS\n" } else { "FAIL\n" });
    (text, passed)
}

async fn datascale(context: &Context) -> Result<(), Exit> {
    let (clients, count) = load(context, &DATASCALE)?;
    let prefix = context.arguments.text("prefix").to_owned();
    let cluster = context.cluster().await?;
    check_empty(&cluster, &prefix, &format!("etcdctl del --prefix {prefix}")).await?;
    let before = resident_bytes(context, "before").await?;
    let bytes = DATASCALE_BYTES.0 + DATASCALE_BYTES.1;
    context.printer.text(&format!(
        "Start data scale check for work load [{count} key-value pairs, {bytes} bytes per \
         key-value, {clients} concurrent clients].\n"
    ))?;
    let puts =
        Puts { prefix: prefix.clone(), bytes: DATASCALE_BYTES, count, rate: None, until: None };
    let report = put_all(context, clients, puts).await?;
    let after = resident_bytes(context, "after").await?;
    clean_up(context, &cluster, &prefix, true).await?;
    if !report.errors.is_empty() {
        context.printer.text(&format!("FAIL: too many errors\n{}", report.errors()))?;
        return Err(Exit::silent(Exit::ERROR));
    }
    let used = (after - before) / (1024.0 * 1024.0);
    context.printer.text(&format!("PASS: Approximate system memory used : {used:.2} MB.\n"))
}

/// The metric `process_resident_memory_bytes` of the first endpoint.
async fn resident_bytes(context: &Context, when: &str) -> Result<f64, Exit> {
    let target = Target::of_flags(context).await?;
    let options = target.options();
    let page = client::get(&context.env, &target.endpoints[0], &options, "/metrics").await;
    let found = match &page {
        Ok(page) => String::from_utf8_lossy(page).lines().find_map(|line| {
            line.strip_prefix("process_resident_memory_bytes ")?.trim().parse().ok()
        }),
        Err(error) => {
            context.printer.text(&format!("fetch error: {error}\n"))?;
            None
        }
    };
    match found {
        Some(bytes) => Ok(bytes),
        None => {
            let what = "FAIL: Could not read process_resident_memory_bytes";
            context.printer.text(&format!("{what} {when} the put operations.\n"))?;
            Err(Exit::silent(Exit::ERROR))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_etcdctls() {
        let fast = Report { seconds: vec![0.001; 9_100], errors: BTreeMap::new() };
        let (text, passed) = verdict(&fast, 150, 60.0);
        assert!(passed, "{text}");
        assert_eq!(
            text,
            "PASS: Throughput is 152 writes/s\nPASS: Slowest request took 0.001000s\n\
             PASS: Stddev is 0.000000s\nPASS\n"
        );
        let slow = Report { seconds: vec![0.001, 0.7], errors: BTreeMap::new() };
        let (text, passed) = verdict(&slow, 150, 60.0);
        assert!(!passed);
        assert_eq!(
            text,
            "FAIL: Throughput too low: 1 writes/s\nSlowest request took too long: 0.700000s\n\
             Stddev too high: 0.349500s\nFAIL\n"
        );
    }
}
