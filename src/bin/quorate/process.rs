//! The operating system's figures about this process, under the names that every Prometheus client
//! library uses, and etcd's two for file descriptors. Linux only: elsewhere these metrics are absent.

use std::fs;
use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, IntCounter, IntGauge, Opts};
use quorate::config::secrets;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};

use super::profiler::Profiler;

/// Times in `/proc` are in 1/100 s on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// Raises the soft limit of open files to the hard limit: every connection and every table file takes one
/// descriptor.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        Ok(()) => debug!(limit = ?limit.maximum, "raised the limit of open files"),
        Err(error) => warn!(%error, "raising the limit of open files failed"),
    }
}

/// Describes this process for the pages below `/debug`. `if_profiled` starts the sampling of allocations.
pub fn described(if_profiled: bool) -> quorate::http::vars::Process {
    let mut profiler: Option<Arc<dyn quorate::http::pprof::Profiler>> = None;
    if if_profiled {
        profiler = Some(Arc::new(Profiler::start()));
    }
    let words: Vec<String> =
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    quorate::http::vars::Process {
        command_line: secrets::hide(&words),
        files_max: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        profiler,
    }
}

/// Locks the pages of this process in memory, present and future ones. Where the system limits locked memory,
/// a member would fail at that limit, so it is refused at once.
pub fn lock_memory() -> std::io::Result<()> {
    let limit = getrlimit(Resource::Memlock);
    let bounded = limit.maximum.is_some() && !rustix::process::geteuid().is_root();
    if bounded {
        return Err(std::io::Error::other("the limit of locked memory (RLIMIT_MEMLOCK) is finite"));
    }
    setrlimit(Resource::Memlock, Rlimit { current: limit.maximum, ..limit })?;
    let pages = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    Ok(mlockall(pages)?)
}

/// Reads `/proc` at every scrape of the metrics.
pub struct Process {
    cpu_seconds: Counter,
    start_seconds: IntGauge,
    resident_bytes: IntGauge,
    virtual_bytes: IntGauge,
    virtual_bytes_max: Gauge,
    /// Figures of the machine, or of the process's network namespace.
    network_received: IntCounter,
    network_sent: IntCounter,
    open_files: [IntGauge; 2],
    files_max: [IntGauge; 2],
}

impl Process {
    pub fn new() -> Self {
        let gauge = |name, help| IntGauge::new(name, help).expect("the names here are valid");
        let counter = |name, help| IntCounter::new(name, help).expect("the names here are valid");
        let cpu = Opts::new("process_cpu_seconds_total", "User and system CPU time, seconds.");
        Self {
            cpu_seconds: Counter::with_opts(cpu).expect("the name is valid"),
            start_seconds: gauge("process_start_time_seconds", "Start, seconds since 1970."),
            resident_bytes: gauge("process_resident_memory_bytes", "Resident memory, bytes."),
            virtual_bytes: gauge("process_virtual_memory_bytes", "Virtual memory, bytes."),
            virtual_bytes_max: Gauge::new(
                "process_virtual_memory_max_bytes",
                "Virtual memory that may be taken, bytes.",
            )
            .expect("the name is valid"),
            network_received: counter(
                "process_network_receive_bytes_total",
                "Bytes received over the network, by this process's network namespace.",
            ),
            network_sent: counter(
                "process_network_transmit_bytes_total",
                "Bytes sent over the network, by this process's network namespace.",
            ),
            open_files: [
                gauge("process_open_fds", "Open file descriptors."),
                gauge("os_fd_used", "Open file descriptors."),
            ],
            files_max: [
                gauge("process_max_fds", "File descriptors that may be open."),
                gauge("os_fd_limit", "File descriptors that may be open."),
            ],
        }
    }

    fn collectors(&self) -> impl Iterator<Item = &dyn Collector> {
        let one: [&dyn Collector; 7] = [
            &self.cpu_seconds,
            &self.start_seconds,
            &self.resident_bytes,
            &self.virtual_bytes,
            &self.virtual_bytes_max,
            &self.network_received,
            &self.network_sent,
        ];
        let files = self.open_files.iter().chain(&self.files_max);
        one.into_iter().chain(files.map(|gauge| gauge as &dyn Collector))
    }

    /// Figures that cannot be read stay as they are.
    fn read(&self) -> Option<()> {
        let files = fs::read_dir("/proc/self/fd").ok()?.count();
        // The listing itself holds one descriptor open.
        let files = i64::try_from(files).ok()? - 1;
        self.open_files.iter().for_each(|gauge| gauge.set(files));
        let limit = getrlimit(Resource::Nofile).current;
        let limit = limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX));
        self.files_max.iter().for_each(|gauge| gauge.set(limit));

        // No limit is reported as the largest number, as in Go's library.
        let limit = getrlimit(Resource::As).current.unwrap_or(u64::MAX);
        self.virtual_bytes_max.set(limit as f64);

        let status = fs::read_to_string("/proc/self/status").ok()?;
        self.resident_bytes.set(kilobytes(&status, "VmRSS:")? * 1024);
        self.virtual_bytes.set(kilobytes(&status, "VmSize:")? * 1024);

        let network = fs::read_to_string("/proc/self/net/netstat").ok()?;
        for (counter, name) in
            [(&self.network_received, "InOctets"), (&self.network_sent, "OutOctets")]
        {
            let octets = octets(&network, name)?;
            counter.inc_by(octets.saturating_sub(counter.get()));
        }

        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let times = Times::parse(&stat)?;
        self.cpu_seconds.inc_by((times.cpu_seconds - self.cpu_seconds.get()).max(0.0));
        let boot = fs::read_to_string("/proc/stat").ok()?;
        let boot = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim();
        self.start_seconds.set(boot.parse::<i64>().ok()? + times.start_seconds as i64);
        Some(())
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.collectors().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _ = self.read();
        self.collectors().flat_map(Collector::collect).collect()
    }
}

fn kilobytes(status: &str, name: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// A counter of the group `IpExt`: one line has the names, the next line the values.
fn octets(netstat: &str, name: &str) -> Option<u64> {
    let mut group = netstat.lines().filter_map(|line| line.strip_prefix("IpExt:"));
    let (names, numbers) = (group.next()?, group.next()?);
    let at = names.split_whitespace().position(|known| known == name)?;
    numbers.split_whitespace().nth(at)?.parse().ok()
}

/// The times of `/proc/self/stat`.
struct Times {
    cpu_seconds: f64,
    /// Time since the machine's boot.
    start_seconds: f64,
}

impl Times {
    /// The program's name, in parentheses, may contain any character, so fields are counted from behind it;
    /// the first one there is field 3 (`proc_pid_stat(5)`).
    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let seconds = |number: usize| -> Option<f64> {
            Some(fields.get(number - 3)?.parse::<f64>().ok()? / TICKS_PER_SECOND)
        };
        Some(Self { cpu_seconds: seconds(14)? + seconds(15)?, start_seconds: seconds(22)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 13 14 15 16 17 18 12300 20";
        let times = Times::parse(stat).expect("a whole line");
        assert!((times.cpu_seconds - 2.0).abs() < 1e-9);
        assert!((times.start_seconds - 123.0).abs() < 1e-9);
        assert!(Times::parse("7 (a").is_none());
    }

    #[test]
    fn octets_are_found_by_their_name() {
        let netstat = "TcpExt: A B\nTcpExt: 1 2\nIpExt: InNo InOctets OutOctets\nIpExt: 3 4 5\n";
        assert_eq!(octets(netstat, "InOctets"), Some(4));
        assert_eq!(octets(netstat, "OutOctets"), Some(5));
        assert_eq!(octets(netstat, "B"), None);
    }

    #[test]
    fn this_process_can_be_measured() {
        let process = Process::new();
        assert!(process.read().is_some());
        assert!(process.resident_bytes.get() > 1 << 20);
        assert!(process.open_files[0].get() > 2);
        assert!(process.virtual_bytes_max.get() >= process.virtual_bytes.get() as f64);
    }
}
