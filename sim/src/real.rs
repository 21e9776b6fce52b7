//! The clients and the checkers of a run on members outside of the simulation: real servers on hosts
//! of their own, over real sockets, in real time. What is done to them is done by something else, which
//! reports it here ([`Word`]). Such a run cannot be repeated; what was answered in it is judged by the same
//! checkers.

use std::fmt;
use std::time::{Duration, Instant};

use quorate::env::Env;
use quorate::limits;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

use crate::check;
use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::facts::evidence::{Evidence, Record};
use crate::facts::shape::Shape;
use crate::facts::story::Story;
use crate::facts::verdict::Violation;
use crate::play::WIND_DOWN;
use crate::workload::{self, Client, Stop, Surroundings, closing, drive, scribe};

/// The clients of a usual run.
const USUAL: &[&str] = &[
    "register",
    "register",
    "txn",
    "append",
    "counter",
    "cycle",
    "lease",
    "lock",
    "kubernetes",
    "serializable",
    "compaction",
    "watch",
    "watch",
];
/// A new cluster serves, and a healed one serves again and is of one mind, within this.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// Each client has prepared what it needs within this, and is answered again within this.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// For what clients have under way to come to an end.
const STOP_LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(200);
/// How far clocks of machines that are kept at the right time may be off, in parts of a million.
const CLOCK_RATE_PPM: u32 = 500;
/// The number of the run itself as a client.
const EYE_NUMBER: usize = 900;

/// What a run is to be.
#[derive(Clone, Debug)]
pub struct Settings {
    /// They are reached as `m0:2379`, `m1:2379`, ..
    pub members: usize,
    pub seed: u64,
    /// A client each; the usual ones when there are none.
    pub workloads: Vec<String>,
}

/// What is done to the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// A fault begins; the one before has ended.
    Fault(String),
    /// It is undone.
    Calm,
    /// All is undone and stays so: the cluster has to serve.
    Over,
}

impl Word {
    pub fn read(line: &str) -> Option<Self> {
        match line.trim().split_once(' ').unwrap_or((line.trim(), "")) {
            ("fault", name) if !name.is_empty() => Some(Self::Fault(name.to_owned())),
            ("calm", "") => Some(Self::Calm),
            ("over", "") => Some(Self::Over),
            _ => None,
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    pub violations: Vec<Violation>,
    pub answered: usize,
    pub revision: i64,
    pub figures: Vec<Figures>,
}

/// How a cluster served while one thing was done to it.
#[derive(Debug)]
pub struct Figures {
    pub name: String,
    pub lasted: Duration,
    pub answered: usize,
    pub failed: usize,
    /// The longest time in which no write was acknowledged to any client.
    pub silence: Duration,
}

/// Loads the members until the words are over, and judges what they answered.
pub async fn load(env: Env, settings: &Settings, words: UnboundedReceiver<Word>) -> Report {
    let run = Run::new(env, settings);
    let mut spans = Vec::new();
    if let Err(violation) = run.phases(words, &mut spans).await {
        run.evidence.record().violations.push(violation);
    }
    run.judge(&spans)
}

struct Run<'a> {
    env: Env,
    settings: &'a Settings,
    cluster: Cluster,
    evidence: Evidence,
    stop: Stop,
    stop_scribe: Stop,
}

/// What was done to the members from one instant to another.
struct Span {
    name: String,
    from: Instant,
    until: Instant,
}

impl<'a> Run<'a> {
    fn new(env: Env, settings: &'a Settings) -> Self {
        // Of a member's options only those count here that clients and checkers look at: they are etcd's
        // defaults.
        let shape = Shape {
            request_bytes_max: limits::REQUEST_BYTES_MAX,
            txn_ops_max: limits::TXN_OPS_MAX,
            ..Shape::small(settings.members)
        };
        let evidence = Evidence::default();
        {
            let mut record = evidence.record();
            record.start = Some(env.now());
            record.request_bytes_max = shape.request_bytes_max;
            record.txn_ops_max = shape.txn_ops_max;
            record.cluster_version = shape.cluster_version().to_owned();
            record.election_timeout = shape.election_timeout;
            record.clock_rate_ppm = CLOCK_RATE_PPM;
        }
        let cluster = Cluster::real(shape);
        let (stop, stop_scribe) = Default::default();
        Self { env, settings, cluster, evidence, stop, stop_scribe }
    }

    /// The error is what makes all further phases senseless.
    async fn phases(
        &self,
        mut words: UnboundedReceiver<Word>,
        spans: &mut Vec<Span>,
    ) -> Result<(), Violation> {
        self.settled("a new cluster serves").await?;
        let scribe = self.client(EYE_NUMBER, "scribe", self.stop_scribe.clone());
        drop(self.env.spawn("scribe", scribe::run(scribe)));
        let clients = self.start().await?;
        let mut open = Some(("calm".to_owned(), self.env.now()));
        loop {
            let word = words.recv().await.unwrap_or(Word::Over);
            let now = self.env.now();
            let next = match word {
                Word::Fault(name) => name,
                Word::Calm => "calm".to_owned(),
                Word::Over => "whole".to_owned(),
            };
            let over = next == "whole";
            if let Some((name, from)) = open.replace((next, now)) {
                spans.push(Span { name, from, until: now });
            }
            if over {
                break;
            }
        }
        self.lively().await?;
        self.stop.now();
        self.wind_down(clients).await
    }

    async fn settled(&self, property: &'static str) -> Result<(), Violation> {
        let settled = self.cluster.settled(&self.env, SETTLE_LIMIT).await;
        settled.map_err(|text| Violation::new("liveness", property, text))
    }

    fn client(&self, number: usize, workload: &'static str, stop: Stop) -> Client {
        let surroundings = Surroundings {
            env: self.env.clone(),
            channel: self.cluster.channel(&self.env, None),
            cluster: self.cluster.clone(),
            evidence: self.evidence.clone(),
            story: Story::default(),
            stop,
        };
        let dice = Dice::of(self.settings.seed, &format!("{workload} {number}"));
        Client::new(number, workload, dice, surroundings)
    }

    fn names(&self) -> Vec<&str> {
        let given: Vec<_> = self.settings.workloads.iter().map(String::as_str).collect();
        if given.is_empty() { USUAL.to_vec() } else { given }
    }

    /// Starts the clients and waits until each has what it needs. What is returned is ready when a client
    /// has ended.
    async fn start(&self) -> Result<Vec<oneshot::Receiver<()>>, Violation> {
        let (mut ready, mut ended) = (Vec::new(), Vec::new());
        for (number, name) in self.names().into_iter().enumerate() {
            let Some(mut workload) = workload::make(name) else {
                let text = format!("no workload is called {name}");
                return Err(Violation::new("plan", "a plan can be played", text));
            };
            let client = self.client(number, workload.name(), self.stop.clone());
            let (is_ready, when_ready) = oneshot::channel();
            let (has_ended, when_ended) = oneshot::channel();
            let work = async move {
                workload.setup(&client).await;
                let _ = is_ready.send(());
                drive(workload, client, u64::MAX).await;
                let _ = has_ended.send(());
            };
            drop(self.env.spawn("client", work));
            ready.push((name, when_ready));
            ended.push(when_ended);
        }
        for (name, ready) in ready {
            if self.env.timeout(ANSWER_LIMIT, ready).await.is_err() {
                let text = format!("a client could not prepare its {name}");
                return Err(Violation::new("liveness", "a new cluster serves", text));
            }
        }
        Ok(ended)
    }

    /// All members serve and are of one mind, and every client that was answered before is answered.
    async fn lively(&self) -> Result<(), Violation> {
        let healthy = self.env.now();
        self.evidence.record().healthy = Some(healthy);
        self.settled("a healed cluster serves").await?;
        let deadline = self.env.now() + ANSWER_LIMIT;
        loop {
            let silent = silent(&self.evidence.record(), healthy);
            if silent.is_empty() {
                return Ok(());
            }
            if self.env.now() > deadline {
                let text = format!("clients {silent:?} get no answer any more");
                return Err(Violation::new("liveness", "clients are answered", text));
            }
            self.env.sleep(LOOK).await;
        }
    }

    /// The load ends, what it left behind runs out, and all members are of one mind once more.
    async fn wind_down(&self, clients: Vec<oneshot::Receiver<()>>) -> Result<(), Violation> {
        let ended = self.env.timeout(STOP_LIMIT, futures::future::join_all(clients)).await;
        if ended.is_err() {
            let text = "a client does not come to an end";
            return Err(Violation::new("liveness", "clients are answered", text));
        }
        self.env.sleep(WIND_DOWN).await;
        self.settled("a healed cluster serves").await?;
        self.evidence.record().ended = Some(self.env.now());
        let reader = self.client(EYE_NUMBER, "closing", Stop::default());
        closing::read(&reader, SETTLE_LIMIT).await?;
        self.evidence.record().whole = true;
        self.stop_scribe.now();
        Ok(())
    }

    fn judge(&self, spans: &[Span]) -> Report {
        let mut names = self.names();
        names.sort_unstable();
        names.dedup();
        let mut violations = Vec::new();
        for workload in names.into_iter().filter_map(workload::make) {
            violations.extend(workload.check(&self.evidence));
        }
        let record = self.evidence.record();
        violations.extend(check::all(&record));
        Report {
            violations,
            answered: record.answered(),
            revision: record.last_revision(),
            figures: spans.iter().map(|span| Figures::of(&record, span)).collect(),
        }
    }
}

/// Clients that were answered before, and since then have only failed.
fn silent(record: &Record, since: Instant) -> Vec<usize> {
    let mut numbers: Vec<_> = record.operations.iter().map(|operation| operation.client).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let of = |number: usize| record.operations.iter().filter(move |op| op.client == number);
    numbers.retain(|number| {
        let after = || of(*number).filter(|operation| operation.ended > since);
        of(*number).any(|operation| operation.answered())
            && after().next().is_some()
            && !after().any(|operation| operation.answered())
    });
    numbers
}

impl Figures {
    fn of(record: &Record, span: &Span) -> Self {
        let within = |operation: &&crate::facts::history::Operation| {
            operation.ended >= span.from && operation.ended < span.until
        };
        let operations = || record.operations.iter().filter(within);
        let writes = operations().filter(|operation| operation.call.wrote());
        let mut last = span.from;
        let mut silence = Duration::ZERO;
        let mut ends: Vec<_> = writes.map(|operation| operation.ended).collect();
        ends.sort_unstable();
        ends.push(span.until);
        for end in ends {
            silence = silence.max(end - last);
            last = end;
        }
        Self {
            name: span.name.clone(),
            lasted: span.until - span.from,
            answered: operations().filter(|operation| operation.answered()).count(),
            failed: operations().filter(|operation| operation.unknown()).count(),
            silence,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<24} {:>8} {:>9} {:>8} {:>14}",
            "", "seconds", "answers", "unknown", "no write, s"
        )?;
        for Figures { name, lasted, answered, failed, silence } in &self.figures {
            let (lasted, silence) = (lasted.as_secs_f64(), silence.as_secs_f64());
            writeln!(f, "{name:<24} {lasted:>8.1} {answered:>9} {failed:>8} {silence:>14.2}")?;
        }
        for violation in &self.violations {
            writeln!(f, "VIOLATION {violation}")?;
        }
        let outcome = if self.violations.is_empty() { "passed" } else { "FAILED" };
        writeln!(f, "{outcome}: {} answers, revision {}", self.answered, self.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixture::{Fixture, get, put};

    #[test]
    fn words_are_read() {
        let fault = Word::Fault("cut leader | others".to_owned());
        assert_eq!(Word::read("fault cut leader | others"), Some(fault));
        assert_eq!(Word::read(" calm\n"), Some(Word::Calm));
        assert_eq!(Word::read("over"), Some(Word::Over));
        for line in ["", "fault", "over now", "storm"] {
            assert_eq!(Word::read(line), None, "{line:?}");
        }
    }

    #[test]
    fn silence_is_the_longest_time_without_a_write() {
        let record = Fixture::default()
            .call(0, 1, put("a", "1", Some(2)))
            .call(2, 3, get("a", 2, vec![]))
            .call(4, 5, put("a", "2", None))
            .call(6, 7, put("a", "3", Some(3)))
            .record;
        let at = |index: usize| record.operations[index].ended;
        let figures =
            |from, until| Figures::of(&record, &Span { name: String::new(), from, until });
        let all = figures(at(0), at(3) + Duration::from_micros(1));
        assert_eq!((all.answered, all.failed, all.silence), (3, 1, at(3) - at(0)));
        let late = figures(at(1), at(2));
        assert_eq!((late.answered, late.silence), (1, at(2) - at(1)), "no write at all");
    }

    #[test]
    fn a_client_that_only_fails_is_silent() {
        let record = Fixture::default()
            .call(0, 1, put("a", "1", Some(2)))
            .call(2, 3, put("a", "2", None))
            .record;
        let (first, last) = (record.operations[0].ended, record.operations[1].ended);
        assert_eq!(silent(&record, first), [record.operations[0].client]);
        assert_eq!(silent(&record, last), [0; 0], "it has not tried");
    }
}
