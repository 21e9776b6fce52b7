//! The picture: sections of rows, cut to the size of the terminal. Pure.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::{Further, Moment, Seen, ranked};
use crate::codec::{self, humanize};

/// Rows of methods and of prefixes.
const METHODS_MAX: usize = 10;
const PREFIXES_MAX: usize = 8;

const FSYNC: &str = "etcd_disk_wal_fsync_duration_seconds";
const HANDLING: &str = "grpc_server_handling_seconds";
const HANDLED: &str = "grpc_server_handled_total";

/// What is drawn.
pub struct Picture<'a> {
    pub before: &'a Moment,
    pub now: &'a Moment,
    pub further: &'a Further,
    pub wall: SystemTime,
}

/// A row of the list of methods.
struct Method {
    name: String,
    rate: f64,
    p99: Option<f64>,
    failed: f64,
}

impl Picture<'_> {
    /// Lines of at most `columns`, at most `rows` of them.
    pub fn draw(&self, (columns, rows): (u16, u16), color: bool) -> String {
        let mut lines = vec![self.title()];
        lines.push(String::new());
        lines.extend(self.members());
        lines.push(String::new());
        lines.extend(self.requests());
        lines.push(String::new());
        lines.extend(self.prefixes());
        lines.push(String::new());
        lines.push(self.rest());
        let mut text = String::new();
        let is_heading = |line: &str| line.starts_with(|c: char| c.is_ascii_uppercase());
        for line in lines.iter().take(usize::from(rows).saturating_sub(1)) {
            let cut: String = line.chars().take(usize::from(columns)).collect();
            match color && is_heading(line) {
                true => text.push_str(&format!("\x1b[1m{cut}\x1b[0m\n")),
                false => text.push_str(&format!("{cut}\n")),
            }
        }
        text
    }

    fn title(&self) -> String {
        let now = &self.now.seen;
        let statuses = || now.iter().filter_map(|seen| seen.status.as_ref());
        let newest = |all: &[Seen]| {
            let headers = all.iter().filter_map(|seen| seen.status.as_ref()?.header.as_ref());
            headers.map(|header| header.revision).max().unwrap_or(0)
        };
        let clock = clock(self.wall);
        if statuses().next().is_none() {
            return format!("0 of {} members respond, {clock}", now.len());
        }
        let (revision, was) = (newest(now), newest(&self.before.seen));
        let rate = if was == 0 { 0.0 } else { (revision - was) as f64 / self.seconds() };
        let term = statuses().map(|status| status.raft_term).max().unwrap_or(0);
        let leader = statuses().map(|status| status.leader).find(|leader| *leader != 0);
        let leader = match leader.and_then(|id| now.iter().find(|seen| seen.id() == id)) {
            Some(seen) => seen.shown_name(),
            None => leader.map_or("none".to_owned(), |id| format!("{id:x}")),
        };
        let up = statuses().count();
        format!(
            "{} of {} members respond, leader {leader}, term {term}, revision {revision} \
             ({rate:+.1}/s), {clock}",
            up,
            now.len()
        )
    }

    /// Between the two looks.
    fn seconds(&self) -> f64 {
        let times = self.now.seen.first().zip(self.before.seen.first());
        times.map_or(1.0, |(now, before)| (now.at - before.at).as_secs_f64()).max(0.001)
    }

    fn members(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{:<12} {:<9} {:<28} {:<8} {:>7} {:>10} {:>8} {:>8} {:>8}",
            "MEMBER", "ROLE", "ENDPOINT", "VERSION", "LAG", "FSYNC p99", "MEMORY", "DB", "IN USE"
        )];
        let statuses = self.now.seen.iter().filter_map(|seen| seen.status.as_ref());
        let newest = statuses.map(|status| status.raft_index).max().unwrap_or(0);
        for (seen, before) in self.now.seen.iter().zip(&self.before.seen) {
            let name = seen.shown_name();
            let Some(status) = &seen.status else {
                let since = seen
                    .down_since
                    .map_or(String::new(), |since| format!("not reached since {}: ", clock(since)));
                let (endpoint, why) = (&seen.endpoint, &seen.why);
                lines.push(format!("{name:<12} {:<9} {endpoint:<28} {since}{why}", "down"));
                continue;
            };
            let id = seen.id();
            let role = match (status.leader == id, status.is_learner, status.leader) {
                (true, ..) => "leader",
                (_, true, _) => "learner",
                (_, _, 0) => "no leader",
                _ => "follower",
            };
            let fsync = seen.metrics.quantile(&before.metrics, FSYNC, None, 0.99);
            let memory = seen.metrics.sum("process_resident_memory_bytes");
            lines.push(format!(
                "{name:<12} {role:<9} {:<28} {:<8} {:>7} {:>10} {:>8} {:>8} {:>8}",
                seen.endpoint,
                status.version,
                newest.saturating_sub(status.raft_applied_index),
                time(fsync),
                memory.map_or("-".to_owned(), |bytes| humanize(bytes as u64)),
                humanize(status.db_size as u64),
                humanize(status.db_size_in_use as u64),
            ));
            for error in &status.errors {
                lines.push(format!("{:<12} ! {error}", ""));
            }
        }
        lines
    }

    fn requests(&self) -> Vec<String> {
        let (mut handled, mut failed, mut p99) =
            (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (seen, before) in self.now.seen.iter().zip(&self.before.seen) {
            let add = |sums: &mut BTreeMap<String, f64>,
                       now: BTreeMap<String, f64>,
                       was: BTreeMap<String, f64>| {
                for (name, count) in now {
                    let grown = count - was.get(&name).copied().unwrap_or(0.0);
                    *sums.entry(name).or_default() += grown.max(0.0);
                }
            };
            let (now, was) = (&seen.metrics, &before.metrics);
            add(&mut handled, now.by(HANDLED, "grpc_method"), was.by(HANDLED, "grpc_method"));
            add(&mut failed, now.failed(), was.failed());
            for method in now.by(HANDLED, "grpc_method").into_keys() {
                let label = Some(("grpc_method", method.as_str()));
                if let Some(seconds) = now.quantile(was, HANDLING, label, 0.99) {
                    let worst: &mut f64 = p99.entry(method).or_default();
                    *worst = worst.max(seconds);
                }
            }
        }
        // What this command has called is not what the server is there for.
        for (name, count) in &self.now.own {
            let grown = count - self.before.own.get(name).copied().unwrap_or(0.0);
            if let Some(sum) = handled.get_mut(name) {
                *sum -= grown;
            }
        }
        let seconds = self.seconds();
        let methods = ranked(handled).into_iter().map(|(name, count)| Method {
            rate: count / seconds,
            p99: p99.get(&name).copied(),
            failed: failed.get(&name).copied().unwrap_or(0.0) / seconds,
            name,
        });
        let mut methods: Vec<Method> = methods.collect();
        methods.truncate(METHODS_MAX);
        // The slowest stand out where the server measures it.
        let heading = format!("{:<28} {:>10} {:>10} {:>10}", "REQUESTS", "/s", "p99", "failed/s");
        let mut lines = vec![heading];
        for Method { name, rate, p99, failed } in methods {
            lines.push(format!("{name:<28} {rate:>10.1} {:>10} {failed:>10.1}", time(p99)));
        }
        if lines.len() == 1 {
            lines.push("(none between the two looks)".to_owned());
        }
        let slow = |name: &str| {
            let of =
                |all: &[Seen]| all.iter().filter_map(|seen| seen.metrics.sum(name)).sum::<f64>();
            of(&self.now.seen) - of(&self.before.seen)
        };
        lines.push(format!(
            "slow since the last screen: {} applies, {} reads of the index; proposals failed: {}",
            slow("etcd_server_slow_apply_total"),
            slow("etcd_server_slow_read_indexes_total"),
            slow("etcd_server_proposals_failed_total"),
        ));
        lines
    }

    fn prefixes(&self) -> Vec<String> {
        let (sizes, changes) = (&self.further.sizes.0, self.further.changes.as_deref());
        let mut lines = vec![format!(
            "{:<36} {:>10}   {:<36} {:>10}",
            "LARGEST PREFIXES", "keys", "BUSIEST PREFIXES", "changes/s"
        )];
        let busiest = changes.unwrap_or_default();
        let rows = sizes.len().max(busiest.len()).min(PREFIXES_MAX);
        for row in 0..rows {
            let cell = |list: &[(String, f64)], digits: usize| match list.get(row) {
                Some((name, number)) => {
                    let name: String = name.chars().take(36).collect();
                    format!("{name:<36} {number:>10.digits$}")
                }
                None => format!("{:<47}", ""),
            };
            lines.push(format!("{}   {}", cell(sizes, 0), cell(busiest, 1)).trim_end().to_owned());
        }
        if changes.is_none() {
            lines.push("(changes are not watched)".to_owned());
        }
        lines
    }

    fn rest(&self) -> String {
        let sum = |name: &str| {
            let found: Vec<f64> =
                self.now.seen.iter().filter_map(|seen| seen.metrics.sum(name)).collect();
            (!found.is_empty()).then(|| found.iter().sum::<f64>())
        };
        let count = |number: Option<f64>| number.map_or("-".to_owned(), |n| format!("{n:.0}"));
        let own = f64::from(u8::from(self.further.watches_itself));
        let others = |number: Option<f64>| number.map(|number| (number - own).max(0.0));
        let keys =
            self.now.seen.iter().filter_map(|s| s.metrics.sum("etcd_debugging_mvcc_keys_total"));
        let keys = keys.reduce(f64::max);
        format!(
            "Watchers {} ({} slow), watch streams {}, leases {}, keys {}",
            count(others(sum("etcd_debugging_mvcc_watcher_total"))),
            count(sum("etcd_debugging_mvcc_slow_watcher_total")),
            count(others(sum("etcd_debugging_mvcc_watch_stream_total"))),
            count(self.further.leases.map(|leases| leases as f64)),
            count(keys),
        )
    }
}

impl Seen {
    fn id(&self) -> u64 {
        let header = self.status.as_ref().and_then(|status| status.header.as_ref());
        header.map_or(0, |header| header.member_id)
    }

    fn shown_name(&self) -> String {
        match self.name.as_str() {
            "" if self.status.is_none() => "-".to_owned(),
            "" => format!("{:x}", self.id()),
            name => name.chars().take(12).collect(),
        }
    }
}

impl super::Page {
    /// Calls by method that ended otherwise than well.
    fn failed(&self) -> BTreeMap<String, f64> {
        let mut failed = self.by_unless(HANDLED, "grpc_method", ("grpc_code", "OK"));
        failed.retain(|_, count| *count > 0.0);
        failed
    }
}

/// The time of the day.
fn clock(wall: SystemTime) -> String {
    let text = codec::timestamp(wall);
    format!("{} UTC", text.get(11..19).unwrap_or_default())
}

fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".to_owned(),
        Some(seconds) if seconds >= 1.0 => format!("{seconds:.1} s"),
        Some(seconds) => format!("{:.1} ms", seconds * 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use quorate_proto::etcdserverpb::{ResponseHeader, StatusResponse};

    use super::super::{Page, Sizes};
    use super::*;

    fn seen(id: u64, revision: i64, page: &str, at: std::time::Instant) -> Seen {
        let status = StatusResponse {
            header: Some(ResponseHeader { member_id: id, revision, ..ResponseHeader::default() }),
            version: "3.7.1".into(),
            db_size: 20_480,
            db_size_in_use: 10_000,
            leader: 1,
            raft_term: 3,
            raft_index: 10 + u64::from(id == 1),
            raft_applied_index: 10,
            ..StatusResponse::default()
        };
        let (endpoint, name) = (format!("http://127.0.0.1:{id}"), format!("m{id}"));
        let metrics = Page::parse(page);
        let (why, down_since) = (String::new(), None);
        Seen { endpoint, name, at, status: Some(status), metrics, why, down_since }
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "any instant will do: only differences count")]
    fn a_screen_has_members_requests_prefixes_and_the_rest() {
        let then = std::time::Instant::now();
        let page = |count| {
            format!(
                "grpc_server_handled_total{{grpc_method=\"Range\",grpc_code=\"OK\"}} {count}\n\
                 grpc_server_handled_total{{grpc_method=\"Put\",grpc_code=\"Unavailable\"}} 4\n\
                 etcd_disk_wal_fsync_duration_seconds_bucket{{le=\"0.001\"}} {count}\n\
                 etcd_disk_wal_fsync_duration_seconds_bucket{{le=\"+Inf\"}} {count}\n\
                 process_resident_memory_bytes 3.5e+07\n\
                 etcd_debugging_mvcc_watcher_total 2\n"
            )
        };
        let own = |count: f64| BTreeMap::from([("Range".to_owned(), count)]);
        let before = vec![seen(1, 5, &page(100), then), seen(2, 5, "", then)];
        let before = Moment { seen: before, own: own(5.0) };
        let later = then + Duration::from_secs(2);
        let now = vec![seen(1, 25, &page(300), later), seen(2, 25, "", later)];
        let now = Moment { seen: now, own: own(9.0) };
        let further = Further {
            leases: Some(7),
            sizes: Sizes(vec![("/registry/pods/".into(), 1200.0), ("a/".into(), 3.0)]),
            changes: Some(vec![("/registry/leases/".into(), 12.5)]),
            watches_itself: true,
        };
        let picture = Picture {
            before: &before,
            now: &now,
            further: &further,
            wall: UNIX_EPOCH + Duration::from_secs(3_661),
        };
        let text = picture.draw((120, 50), false);
        for wanted in [
            "2 of 2 members respond, leader m1, term 3, revision 25 (+10.0/s), 01:01:01 UTC\n",
            "m1           leader    http://127.0.0.1:1           3.7.1          1     1.0 ms    35 MB    20 kB    10 kB\n",
            "m2           follower  http://127.0.0.1:2           3.7.1          1          -        -    20 kB    10 kB\n",
            // 200 more, of which this command has made 4, in 2 seconds.
            "Range                              98.0          -        0.0\n",
            "/registry/pods/                            1200   /registry/leases/                          12.5\n",
            "Watchers 1 (- slow), watch streams -, leases 7, keys -\n",
        ] {
            assert!(text.contains(wanted), "{wanted}\nin\n{text}");
        }
        // Put is not among the requests: it was not called in between.
        assert!(!text.contains("Put"), "{text}");
        let small = picture.draw((40, 5), true);
        assert_eq!(small.lines().count(), 4);
        assert!(small.contains("\x1b[1mMEMBER"), "{small:?}");
        let mut now = vec![seen(1, 25, &page(300), later), seen(2, 25, "", later)];
        let down = |seen: &mut Seen| {
            seen.status = None;
            seen.why = "connection refused".into();
            seen.down_since = Some(UNIX_EPOCH + Duration::from_secs(3_600));
        };
        down(&mut now[1]);
        let mut now = Moment { seen: now, own: own(9.0) };
        let further = Further::default();
        let text = Picture { now: &now, further: &further, ..picture }.draw((120, 50), false);
        assert!(
            text.contains(
                "m2           down      http://127.0.0.1:2           not reached since \
                 01:00:00 UTC: connection refused"
            ),
            "{text}"
        );
        assert!(text.contains("1 of 2 members respond") && text.contains("not watched"), "{text}");
        down(&mut now.seen[0]);
        let text = Picture { now: &now, further: &further, ..picture }.draw((120, 50), false);
        assert!(text.starts_with("0 of 2 members respond, 01:01:01 UTC\n"), "{text}");
    }
}
