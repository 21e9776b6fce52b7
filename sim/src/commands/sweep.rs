//! Seeds by the thousand, several at a time. Each run is a thread of its own that shares nothing, so
//! that how many there are changes nothing about any.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use rustix::time::{ClockId, clock_gettime};
use sim::facts::verdict::Verdict;
use sim::play::play;
use sim::swarm;

use super::{keep, replay};

const BAR: &str = "{bar:30} {pos}/{len} seeds, {elapsed} of {duration}, {msg}";

/// Seeds between two lines where the output is no terminal.
const TELL_EVERY: u64 = 50;

/// Whether all seeds passed.
pub fn run(seeds: Range<u64>, jobs: Option<usize>, keep_going: bool) -> Result<bool, String> {
    let jobs = jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let bar = ProgressBar::new(seeds.end - seeds.start);
    bar.set_style(ProgressStyle::with_template(BAR).expect("a valid template"));
    let mut sum = Sum::new();
    let queue = Queue { next: AtomicU64::new(seeds.start), end: seeds.end, stop: false.into() };
    thread::scope(|scope| {
        let (verdicts, played) = channel();
        for _ in 0..jobs {
            let (queue, verdicts) = (&queue, verdicts.clone());
            scope.spawn(move || queue.work_off(&verdicts));
        }
        drop(verdicts);
        for verdict in played {
            bar.inc(1);
            let message = sum.add(&verdict);
            if bar.is_hidden() && sum.seeds.is_multiple_of(TELL_EVERY) {
                println!("{} seeds, {message}", sum.seeds);
            }
            bar.set_message(message);
            if !verdict.passed() {
                bar.suspend(|| failed(&verdict));
                queue.stop.store(!keep_going, Ordering::Relaxed);
            }
        }
    });
    bar.finish_and_clear();
    sum.tell();
    Ok(sum.failed.is_empty())
}

struct Queue {
    next: AtomicU64,
    end: u64,
    stop: AtomicBool,
}

impl Queue {
    fn work_off(&self, verdicts: &Sender<Verdict>) {
        while !self.stop.load(Ordering::Relaxed) {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            if seed >= self.end || verdicts.send(play(&swarm::draw(seed))).is_err() {
                return;
            }
        }
    }
}

/// What was played so far.
struct Sum {
    began: Instant,
    seeds: u64,
    answered: usize,
    simulated_s: f64,
    failed: Vec<u64>,
}

impl Sum {
    #[allow(clippy::disallowed_methods, reason = "how long the user waits is real time")]
    fn new() -> Self {
        let began = Instant::now();
        Self { began, seeds: 0, answered: 0, simulated_s: 0.0, failed: Vec::new() }
    }

    /// Adds a run; the rate so far, for the progress bar.
    fn add(&mut self, verdict: &Verdict) -> String {
        self.seeds += 1;
        self.answered += verdict.answered;
        self.simulated_s += verdict.simulated.as_secs_f64();
        if !verdict.passed() {
            self.failed.push(verdict.seed);
        }
        let hours = self.simulated_s / self.began.elapsed().as_secs_f64();
        format!("{hours:.0} simulated hours an hour, {} failed", self.failed.len())
    }

    fn tell(&self) {
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
        if failed.len() > 1 {
            println!("failed: {failed:?}");
        }
    }
}

/// What this process has had of all cores.
fn processor_s() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

fn failed(verdict: &Verdict) {
    replay::tell(verdict);
    match keep(&verdict.plan, &format!("seed-{}", verdict.seed)) {
        Ok(file) => println!("its plan is in {}", file.display()),
        Err(error) => println!("its plan could not be kept: {error}"),
    }
    println!("again:   ci/sim replay --seed {}", verdict.seed);
    println!("smaller: ci/sim shrink --seed {}", verdict.seed);
}
