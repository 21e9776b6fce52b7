//! What a run is to be: the cluster, its machines, its clients, and what is done to them when. A plan
//! is text, one line a setting, and the same text is what `replay` prints first, what `shrink` leaves
//! and what `scripts/*.sim` hold. Where plans come from a seed is in [`crate::swarm`].

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use quorate::apply::Release;

use crate::facts::addresses::proxy_number;
use crate::facts::marks;
use crate::facts::shape::{Flag, Proxies, Shape, Speaks};
use crate::nemesis::{Fault, Step};
use crate::units::{
    read_share, read_size, read_time, read_times, show_share, show_size, show_time, show_times,
};
use crate::workload;

/// The most members and learners of one plan.
pub const HOSTS_MAX: usize = 7;
/// The most proxies before one cluster.
const PROXIES_MAX: usize = 3;
/// The value of a setting without a bound.
const NONE: &str = "none";
/// Calls of a client without a bound.
const ENDLESS: u64 = u64::MAX;

#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Of every random number that the run draws; the plan itself is not drawn again.
    pub seed: u64,
    pub shape: Shape,
    pub weather: Weather,
    pub clients: Vec<ClientPlan>,
    pub steps: Vec<Step>,
    /// How long the faults go on.
    pub lasts: Duration,
    /// Whether the cluster must serve again once it is healed. Where not, only its answers are checked.
    pub survivable: bool,
    /// From when on all random numbers are others, so that the run is the same up to then and another one
    /// behind it.
    pub branch: Option<Branch>,
}

/// Where a run leaves the one of its seed: the moment since the world began, and the seed of all that comes
/// behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branch {
    pub at: Duration,
    pub seed: u64,
}

/// What the machines are like while nothing is done to them.
#[derive(Clone, Debug, PartialEq)]
pub struct Weather {
    /// Of a packet between two hosts.
    pub latency: (Duration, Duration),
    /// The share of packets that are sent again.
    pub loss: f64,
    /// Of one blocking job on a disk.
    pub disk: (Duration, Duration),
    pub clocks: Vec<Clock>,
}

/// A member's clock where it is not right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clock {
    pub host: String,
    /// Millionths by which it runs too fast.
    pub drift_ppm: i64,
    /// What its wall clock is ahead.
    pub ahead_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientPlan {
    /// Its number, which stays its own when other clients are taken away.
    pub number: usize,
    /// Of [`crate::workload::NAMES`].
    pub workload: String,
    /// The member or proxy that it keeps to; none: whichever member answers.
    pub member: Option<String>,
    pub speaks: Speaks,
    pub steps_max: u64,
}

impl Plan {
    /// Three members on quiet machines, no clients, and nothing happens.
    pub fn calm(seed: u64) -> Self {
        Self {
            seed,
            shape: Shape::small(3),
            weather: Weather::default(),
            clients: Vec::new(),
            steps: Vec::new(),
            lasts: Duration::from_secs(10),
            survivable: true,
            branch: None,
        }
    }
}

impl Default for Weather {
    fn default() -> Self {
        Self {
            latency: (Duration::from_micros(50), Duration::from_millis(1)),
            loss: 0.0,
            disk: (Duration::from_micros(30), Duration::from_millis(2)),
            clocks: Vec::new(),
        }
    }
}

impl ClientPlan {
    /// Endless, at whichever member answers.
    pub fn new(number: usize, workload: &str) -> Self {
        let workload = workload.to_owned();
        Self { number, workload, member: None, speaks: Speaks::Plain, steps_max: ENDLESS }
    }

    /// The host that it runs on.
    pub fn host(&self) -> String {
        format!("c{}", self.number)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes = |yes| if yes { "yes" } else { "no" };
        let Self { seed, shape, weather, lasts, survivable, .. } = self;
        writeln!(f, "seed {seed}")?;
        if let Some(Branch { at, seed }) = self.branch {
            writeln!(f, "branch {} with {seed}", show_time(at))?;
        }
        writeln!(f, "survivable {}", yes(*survivable))?;
        writeln!(f, "lasts {}", show_time(*lasts))?;
        writeln!(f, "members {}", shape.members)?;
        writeln!(f, "learners {}", shape.learners)?;
        writeln!(f, "heartbeat {}", show_time(shape.heartbeat))?;
        writeln!(f, "election-timeout {}", show_time(shape.election_timeout))?;
        writeln!(f, "pre-vote {}", yes(shape.pre_vote))?;
        writeln!(f, "snapshot-count {}", shape.snapshot_count)?;
        writeln!(f, "catchup-entries {}", shape.catchup_entries)?;
        writeln!(f, "wal-segment {}", show_size(shape.wal_segment_bytes))?;
        writeln!(f, "wal-apart {}", yes(shape.wal_apart))?;
        let descriptors = shape.descriptors.map_or(NONE.to_owned(), |number| number.to_string());
        writeln!(f, "descriptors {descriptors}")?;
        writeln!(f, "request-max {}", show_size(shape.request_bytes_max as u64))?;
        writeln!(f, "txn-ops-max {}", shape.txn_ops_max)?;
        writeln!(f, "quota {}", shape.quota_bytes.map_or(NONE.to_owned(), show_size))?;
        let proposals = shape.proposals.map_or(NONE.to_owned(), |number| number.to_string());
        writeln!(f, "proposals {proposals}")?;
        writeln!(f, "corrupt-check {}", shape.corrupt_check.map_or(NONE.to_owned(), show_time))?;
        writeln!(
            f,
            "lease-checkpoint {}",
            shape.lease_checkpoint.map_or(NONE.to_owned(), show_time)
        )?;
        let age = shape.auto_compaction.map_or(NONE.to_owned(), show_time);
        writeln!(f, "auto-compaction {age}")?;
        writeln!(f, "progress-interval {}", show_time(shape.watch_progress_interval))?;
        writeln!(f, "watch-buffer {}", shape.watch_buffer)?;
        writeln!(f, "traced {}", shape.traced)?;
        writeln!(f, "tls {}", yes(shape.tls))?;
        let Proxies { count, ordered, sync, namespace } = &shape.proxies;
        writeln!(f, "proxies {count}")?;
        writeln!(f, "proxy-ordered {}", yes(*ordered))?;
        writeln!(f, "proxy-sync {}", sync.map_or(NONE.to_owned(), show_time))?;
        let namespace = if namespace.is_empty() { NONE } else { namespace };
        writeln!(f, "proxy-namespace {namespace}")?;
        writeln!(f, "etcd {}", shape.etcd.map_or(NONE, show_release))?;
        writeln!(f, "latency {}", show_times(weather.latency))?;
        writeln!(f, "loss {}", show_share(weather.loss))?;
        writeln!(f, "disk {}", show_times(weather.disk))?;
        for Clock { host, drift_ppm, ahead_ms } in &weather.clocks {
            writeln!(f, "clock {host} drift {drift_ppm}ppm ahead {ahead_ms}ms")?;
        }
        self.clients.iter().try_for_each(|client| writeln!(f, "{client}"))?;
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

impl fmt::Display for ClientPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let member = self.member.as_deref().unwrap_or("any");
        write!(f, "client {} {} at {member}", self.host(), self.workload)?;
        f.write_str(match self.speaks {
            Speaks::Plain => "",
            Speaks::Json => " by json",
            Speaks::Gzip => " by gzip",
        })?;
        if self.steps_max == ENDLESS { Ok(()) } else { write!(f, " steps {}", self.steps_max) }
    }
}

impl FromStr for Plan {
    type Err = String;

    /// Settings that are not there are those of [`Plan::calm`]; an error names its line.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut plan = Self::calm(0);
        for (at, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                plan.read(line).map_err(|error| format!("line {}: {line}: {error}", at + 1))?;
            }
        }
        plan.steps.sort_by_key(|step| step.at);
        plan.check().map(|()| plan)
    }
}

impl Plan {
    fn read(&mut self, line: &str) -> Result<(), String> {
        let (key, value) = line.split_once(' ').ok_or("a setting without a value")?;
        let value = value.trim();
        let (shape, weather) = (&mut self.shape, &mut self.weather);
        match key {
            "seed" => self.seed = number(value)?,
            "branch" => {
                let (at, seed) = value.split_once(" with ").ok_or("branch TIME with SEED")?;
                self.branch = Some(Branch { at: read_time(at)?, seed: number(seed)? });
            }
            "survivable" => self.survivable = yes(value)?,
            "lasts" => self.lasts = read_time(value)?,
            "members" => shape.members = number(value)?,
            "learners" => shape.learners = number(value)?,
            "heartbeat" => shape.heartbeat = read_time(value)?,
            "election-timeout" => shape.election_timeout = read_time(value)?,
            "pre-vote" => shape.pre_vote = yes(value)?,
            "snapshot-count" => shape.snapshot_count = number(value)?,
            "catchup-entries" => shape.catchup_entries = number(value)?,
            "wal-segment" => shape.wal_segment_bytes = read_size(value)?,
            "wal-apart" => shape.wal_apart = yes(value)?,
            "descriptors" => shape.descriptors = unless_none(value, number)?,
            "request-max" => shape.request_bytes_max = read_size(value)? as usize,
            "txn-ops-max" => shape.txn_ops_max = number(value)?,
            "quota" => shape.quota_bytes = unless_none(value, read_size)?,
            "proposals" => shape.proposals = unless_none(value, number)?,
            "corrupt-check" => shape.corrupt_check = unless_none(value, read_time)?,
            "lease-checkpoint" => shape.lease_checkpoint = unless_none(value, read_time)?,
            "auto-compaction" => shape.auto_compaction = unless_none(value, read_time)?,
            "progress-interval" => shape.watch_progress_interval = read_time(value)?,
            "watch-buffer" => shape.watch_buffer = number(value)?,
            "traced" => shape.traced = number(value)?,
            "tls" => shape.tls = yes(value)?,
            "proxies" => shape.proxies.count = number(value)?,
            "proxy-ordered" => shape.proxies.ordered = yes(value)?,
            "proxy-sync" => shape.proxies.sync = unless_none(value, read_time)?,
            "proxy-namespace" => {
                let namespace = unless_none(value, |prefix| Ok(prefix.to_owned()))?;
                shape.proxies.namespace = namespace.unwrap_or_default();
            }
            "etcd" => shape.etcd = unless_none(value, read_release)?,
            "latency" => weather.latency = read_times(value)?,
            "loss" => weather.loss = read_share(value)?,
            "disk" => weather.disk = read_times(value)?,
            "clock" => weather.clocks.push(value.parse()?),
            "client" => {
                let client = read_client(value, self.clients.len())?;
                self.clients.push(client);
            }
            "at" => self.steps.push(line.parse()?),
            _ => return Err(format!("nothing is called {key}")),
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        let Shape { members, learners, .. } = self.shape;
        if members == 0 || members + learners > HOSTS_MAX {
            return Err(format!("1 to {HOSTS_MAX} members and learners, not {members}+{learners}"));
        }
        if self.shape.traced > 1_000_000 {
            return Err(format!("{} calls of a million", self.shape.traced));
        }
        let mut numbers: Vec<_> = self.clients.iter().map(|client| client.number).collect();
        numbers.sort_unstable();
        let apart = self.clients.iter().filter(|client| client.workload == workload::ALONE).count();
        if apart > 0 && apart < self.clients.len() {
            return Err(format!("{} goes with no other workload", workload::ALONE));
        }
        if numbers.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err("two clients have one number".to_owned());
        }
        let rotates = |step: &Step| matches!(step.fault, Fault::RotateCerts(_));
        let strange = |client: &ClientPlan| client.workload == workload::SECURED;
        if !self.shape.tls && (self.steps.iter().any(rotates) || self.clients.iter().any(strange)) {
            return Err("there are no certificates where tls is not on".to_owned());
        }
        let forgets = |step: &Step| matches!(step.fault, Fault::Forget(_, Flag::WalDir));
        if !self.shape.wal_apart && self.steps.iter().any(forgets) {
            return Err("there is no flag to forget where wal-apart is not on".to_owned());
        }
        let migrates = |step: &Step| matches!(step.fault, Fault::Migrate(..));
        if self.shape.etcd.is_none() && self.steps.iter().any(migrates) {
            return Err("no member migrates where none is an etcd".to_owned());
        }
        let unknown = |step: &&Step| {
            step.upon.as_ref().is_some_and(|upon| marks::known().all(|(name, _)| name != upon))
        };
        if let Some(step) = self.steps.iter().find(unknown) {
            let names: Vec<_> = marks::known().map(|(name, _)| name).collect();
            return Err(format!("{step}: no mark of that name: {}", names.join(" ")));
        }
        let there = |step: &Step| step.upon.is_none() && step.fault.is_there();
        if self.steps.iter().any(there) {
            return Err("there is where a mark was reached: at TIME upon MARK ..".to_owned());
        }
        self.check_proxies()
    }

    fn check_proxies(&self) -> Result<(), String> {
        let Proxies { count, namespace, .. } = &self.shape.proxies;
        if *count > PROXIES_MAX {
            return Err(format!("{PROXIES_MAX} proxies at most, not {count}"));
        }
        for client in &self.clients {
            let Some(proxy) = client.member.as_deref().and_then(proxy_number) else { continue };
            let workload = client.workload.as_str();
            if proxy >= *count {
                return Err(format!("{} is at p{proxy}, which there is not", client.host()));
            }
            if client.speaks == Speaks::Json {
                return Err("a proxy speaks no JSON".to_owned());
            }
            if !namespace.is_empty() && !workload::ANYWHERE.contains(&workload) {
                return Err(format!("{workload} needs its keys without a namespace"));
            }
        }
        Ok(())
    }
}

impl FromStr for Clock {
    type Err = String;

    /// `m0 drift 120ppm ahead -35ms`; either may be left out.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let host = words.next().ok_or("whose clock?")?.to_owned();
        let mut clock = Self { host, drift_ppm: 0, ahead_ms: 0 };
        while let Some(word) = words.next() {
            let value = words.next().unwrap_or_default();
            match word {
                "drift" => clock.drift_ppm = number(value.strip_suffix("ppm").unwrap_or(value))?,
                "ahead" => clock.ahead_ms = number(value.strip_suffix("ms").unwrap_or(value))?,
                _ => return Err(format!("{word:?} is not a clock's")),
            }
        }
        Ok(clock)
    }
}

/// `c3 kv at m1 steps 200`; all but the workload may be left out.
fn read_client(text: &str, next: usize) -> Result<ClientPlan, String> {
    let mut words = text.split_whitespace().peekable();
    let numbered = |word: &&str| word.strip_prefix('c').and_then(|number| number.parse().ok());
    let number_given: Option<usize> = words.peek().and_then(numbered);
    if number_given.is_some() {
        words.next();
    }
    let workload = words.next().ok_or("a client without a workload")?;
    let mut client = ClientPlan::new(number_given.unwrap_or(next), workload);
    while let Some(word) = words.next() {
        let value = words.next().unwrap_or_default();
        match word {
            "at" if value == "any" => client.member = None,
            "at" if !value.is_empty() => client.member = Some(value.to_owned()),
            "by" if value == "json" => client.speaks = Speaks::Json,
            "by" if value == "gzip" => client.speaks = Speaks::Gzip,
            "steps" => client.steps_max = number(value)?,
            _ => return Err(format!("{word:?} is not a client's")),
        }
    }
    Ok(client)
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number here"))
}

/// What `read` makes of it, or nothing.
fn unless_none<T>(
    text: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    if text == NONE { Ok(None) } else { read(text).map(Some) }
}

fn show_release(release: Release) -> &'static str {
    match release {
        Release::Own => NONE,
        Release::Etcd3_6 => "3.6",
        Release::Etcd3_5 => "3.5",
    }
}

fn read_release(text: &str) -> Result<Release, String> {
    match text {
        "3.6" => Ok(Release::Etcd3_6),
        "3.5" => Ok(Release::Etcd3_5),
        _ => Err(format!("{text:?} is no release: 3.5, 3.6")),
    }
}

fn yes(text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(format!("{text:?} is neither yes nor no")),
    }
}
