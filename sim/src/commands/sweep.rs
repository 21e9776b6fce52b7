//! Seeds by the thousand, several at a time. Each run is a thread of its own that shares nothing, so
//! that how many there are changes nothing about any.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use rustix::time::{ClockId, clock_gettime};
use sim::facts::marks::{self, Marks};
use sim::facts::verdict::Verdict;
use sim::plan::{Branch, Plan};
use sim::play::play;
use sim::swarm;

use super::branch::{self, branches};
use super::name_of;

const BAR: &str = "{bar:30} {pos}/{len} seeds, {elapsed} of {duration}, {msg}";

/// Seeds between two lines where the output is no terminal.
const TELL_EVERY: u64 = 50;

/// How a sweep goes on and ends beside its seeds.
#[derive(Clone, Copy, Debug)]
pub struct How {
    pub jobs: Option<usize>,
    pub keep_going: bool,
    /// No run begins after so much real time.
    pub time: Option<Duration>,
    /// Runs that leave a run where it reached a mark that few others have.
    pub branches: u64,
}

/// A mark that fewer runs than one of so many have reached is rare; that is known when so many were played.
const RARE: u64 = 20;

/// Whether all seeds passed.
pub fn run(seeds: Range<u64>, how: How) -> Result<bool, String> {
    let jobs = how.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let bar = ProgressBar::new(seeds.end - seeds.start);
    bar.set_style(ProgressStyle::with_template(BAR).expect("a valid template"));
    let mut sum = Sum::new();
    let queue = Queue {
        next: AtomicU64::new(seeds.start),
        end: seeds.end,
        stop: false.into(),
        branches: Mutex::default(),
    };
    thread::scope(|scope| {
        let (verdicts, played) = channel();
        for _ in 0..jobs {
            let (queue, verdicts) = (&queue, verdicts.clone());
            scope.spawn(move || queue.work_off(&verdicts));
        }
        drop(verdicts);
        for (plan, verdict) in played {
            bar.inc(1);
            let rare = sum.counts.rare(&verdict.marks);
            let message = sum.add(&plan, &verdict);
            if let Some(at) = rare.filter(|_| plan.branch.is_none() && how.branches > 0) {
                queue.push(branches(&plan, Branch { at, seed: 0 }, how.branches));
            }
            if how.time.is_some_and(|time| sum.began.elapsed() > time) {
                queue.stop.store(true, Ordering::Relaxed);
            }
            if bar.is_hidden() && sum.seeds.is_multiple_of(TELL_EVERY) {
                println!("{} seeds, {message}", sum.seeds);
            }
            bar.set_message(message);
            if !verdict.passed() {
                bar.suspend(|| failed(&plan, &verdict));
                queue.stop.fetch_or(!how.keep_going, Ordering::Relaxed);
            }
        }
    });
    bar.finish_and_clear();
    sum.print();
    Ok(sum.failed.is_empty())
}

struct Queue {
    next: AtomicU64,
    end: u64,
    stop: AtomicBool,
    /// Go before seeds.
    branches: Mutex<Vec<Plan>>,
}

impl Queue {
    fn work_off(&self, verdicts: &Sender<(Plan, Verdict)>) {
        while !self.stop.load(Ordering::Relaxed) {
            let Some(plan) = self.next() else { return };
            let verdict = play(&plan);
            if verdicts.send((plan, verdict)).is_err() {
                return;
            }
        }
    }

    fn next(&self) -> Option<Plan> {
        if let Some(plan) = self.branches().pop() {
            return Some(plan);
        }
        let seed = self.next.fetch_add(1, Ordering::Relaxed);
        (seed < self.end).then(|| swarm::draw(seed))
    }

    fn push(&self, plans: impl Iterator<Item = Plan>) {
        self.branches().extend(plans);
    }

    fn branches(&self) -> MutexGuard<'_, Vec<Plan>> {
        self.branches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In how many runs each mark was reached.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    runs: u64,
    reached: BTreeMap<String, u64>,
}

impl Counts {
    pub fn add(&mut self, marks: &Marks) {
        self.runs += 1;
        marks.keys().for_each(|name| *self.reached.entry(name.clone()).or_default() += 1);
    }

    pub fn has(&self, name: &str) -> bool {
        self.reached.contains_key(name)
    }

    /// The moment at which a run has reached what few others have, if it has.
    fn rare(&self, marks: &Marks) -> Option<Duration> {
        let share = |name: &String| self.reached.get(name).copied().unwrap_or(0) * RARE;
        let known = marks::known().map(|(name, _)| name.to_owned());
        let rare = known.filter(|name| self.runs >= RARE && share(name) < self.runs);
        rare.filter_map(|name| marks.get(&name)).map(|reached| reached.first).min()
    }

    /// How often each was reached, and what never was.
    pub fn print(&self) {
        let known = marks::known().map(|(name, _)| name);
        let (reached, never): (Vec<_>, Vec<_>) = known.partition(|name| self.has(name));
        let runs = self.runs;
        let mut counts: Vec<_> = reached.iter().map(|name| (self.reached[*name], *name)).collect();
        counts.sort_unstable();
        let counts: Vec<_> = counts.iter().map(|(times, name)| format!("{name} {times}")).collect();
        println!("marks, and in how many of {runs} runs: {}", counts.join(", "));
        if !never.is_empty() {
            println!("never reached: {}", never.join(", "));
        }
    }
}

/// What was played so far.
struct Sum {
    began: Instant,
    seeds: u64,
    answered: usize,
    simulated_s: f64,
    failed: Vec<String>,
    counts: Counts,
}

impl Sum {
    #[allow(clippy::disallowed_methods, reason = "how long the user waits is real time")]
    fn new() -> Self {
        let began = Instant::now();
        Self {
            began,
            seeds: 0,
            answered: 0,
            simulated_s: 0.0,
            failed: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Adds a run; the rate so far, for the progress bar.
    fn add(&mut self, plan: &Plan, verdict: &Verdict) -> String {
        self.seeds += 1;
        self.counts.add(&verdict.marks);
        self.answered += verdict.answered;
        self.simulated_s += verdict.simulated.as_secs_f64();
        if !verdict.passed() {
            self.failed.push(name_of(plan));
        }
        let hours = self.simulated_s / self.began.elapsed().as_secs_f64();
        format!("{hours:.0} simulated hours an hour, {} failed", self.failed.len())
    }

    fn print(&self) {
        let Self { seeds, answered, simulated_s, failed, .. } = self;
        let real_s = self.began.elapsed().as_secs_f64();
        let processor_s = processor_s();
        println!(
            "{seeds} seeds, {} failed; {answered} answers in {:.2} simulated hours",
            failed.len(),
            simulated_s / 3600.0,
        );
        println!(
            "{real_s:.0} real seconds: {:.0} simulated hours an hour; {processor_s:.0} seconds of \
             processors: {:.1} simulated minutes a minute of one core",
            simulated_s / real_s,
            simulated_s / processor_s,
        );
        self.counts.print();
        if failed.len() > 1 {
            println!("failed: {}", failed.join(" "));
        }
    }
}

/// What this process has had of all cores.
fn processor_s() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

fn failed(plan: &Plan, verdict: &Verdict) {
    branch::print(plan, verdict);
    println!("smaller: ci/sim shrink --seed {}", name_of(plan));
}
