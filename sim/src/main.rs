//! The simulator's commands: play seeds by the thousand, one again with its story, a smaller one that
//! fails alike, a scenario written by hand.

mod commands;

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use commands::Seed;
use commands::sweep::How;
use sim::score::SEEDS_MAX;

/// A run allocates much and in small pieces: this one makes it about a tenth shorter than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "sim", about = "Quorate's whole server under seeded chaos")]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Plays many seeds and stops at the first that fails.
    Sweep {
        /// From the first to before the last, as in 0..1000.
        #[arg(long, value_parser = range)]
        seeds: Range<u64>,
        /// Runs at the same time; as many as there are cores by default.
        #[arg(long)]
        jobs: Option<usize>,
        /// Does not stop at failures; names them all.
        #[arg(long)]
        keep_going: bool,
        /// Seconds of real time after which no run begins any more.
        #[arg(long = "for", value_name = "SECONDS")]
        time: Option<u64>,
        /// Of a run that has reached what few others have: how often it is played on from there with other
        /// random numbers.
        #[arg(long, default_value_t = 0)]
        branches: u64,
    },
    /// Plays seeds, and prints what their clients used of the protocol and what was never done.
    Coverage {
        #[arg(long, value_parser = range)]
        seeds: Range<u64>,
        #[arg(long)]
        jobs: Option<usize>,
    },
    /// Plays a run on with other random numbers from where it has reached a mark first.
    Branch {
        #[command(flatten)]
        which: Which,
        #[arg(long)]
        mark: String,
        #[arg(long, default_value_t = 20)]
        tries: u64,
    },
    /// Shows when the failure of a run became likely: the odds of branches at moments spread over it.
    Why {
        #[command(flatten)]
        which: Which,
        #[arg(long, default_value_t = 12)]
        moments: u32,
        /// Branches of one moment.
        #[arg(long, default_value_t = 5)]
        tries: u64,
    },
    /// Plays one run and prints what happened, a line an event.
    Replay {
        #[command(flatten)]
        which: Which,
        /// Writes the report as a page for the browser, too.
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
        /// Prints the plan and the verdict only.
        #[arg(long)]
        brief: bool,
    },
    /// Leaves out of a run that fails what it does not need to fail alike.
    Shrink {
        #[command(flatten)]
        which: Which,
        /// Runs that it may take.
        #[arg(long, default_value_t = 300)]
        runs: usize,
    },
    /// Plays a scenario from a file; the same as replay --script FILE --brief.
    Script { file: PathBuf },
    /// Plants a fault in the server and plays seeds until a checker complains.
    Plant {
        name: String,
        #[arg(long, default_value_t = SEEDS_MAX)]
        seeds: u64,
        /// Plays this scenario only.
        #[arg(long)]
        script: Option<PathBuf>,
    },
    /// Does so with every fault there is, and prints how soon each was caught.
    Score {
        #[arg(long)]
        jobs: Option<usize>,
        #[arg(long, default_value_t = SEEDS_MAX)]
        seeds: u64,
        /// Only those that the README's table does not have.
        #[arg(long)]
        new: bool,
        /// Writes the table to the README, too.
        #[arg(long)]
        write: bool,
    },
    /// Prints the plan of a seed, to begin a script with.
    Plan { seed: Seed },
    /// Loads real members, which something else has started on the hosts m0, m1, .. at port 2379, and
    /// judges what they answered. Standard input reports what is done to them, a line each: `fault NAME`,
    /// `calm` when it is undone, `over` at the end.
    Load {
        /// How many members there are.
        #[arg(long, default_value_t = 3)]
        members: usize,
        /// Of the clients' random choices.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Workloads, a client each; those of a usual run when there are none.
        workloads: Vec<String>,
    },
}

/// A run: by its seed, or by its plan.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// As 42, or 42@12.5s:7 for what comes of it when all random numbers are those of 7 from then on.
    #[arg(long)]
    seed: Option<Seed>,
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
}

fn main() -> ExitCode {
    let done = match Line::parse().command {
        Command::Sweep { seeds, jobs, keep_going, time, branches } => {
            let time = time.map(Duration::from_secs);
            commands::sweep::run(seeds, How { jobs, keep_going, time, branches })
        }
        Command::Coverage { seeds, jobs } => commands::coverage::run(seeds, jobs),
        Command::Branch { which, mark, tries } => commands::plan_of(which.seed, which.script)
            .and_then(|plan| commands::branch::run(&plan, &mark, tries)),
        Command::Why { which, moments, tries } => commands::plan_of(which.seed, which.script)
            .and_then(|plan| commands::why::run(&plan, moments, tries)),
        Command::Replay { which, html, brief } => commands::plan_of(which.seed, which.script)
            .and_then(|plan| commands::replay::run(&plan, html.as_deref(), brief)),
        Command::Shrink { which, runs } => commands::plan_of(which.seed, which.script)
            .and_then(|plan| commands::shrink::run(&plan, runs)),
        Command::Script { file } => commands::plan_of(None, Some(file))
            .and_then(|plan| commands::replay::run(&plan, None, true)),
        Command::Plant { name, seeds, script } => {
            let plan = script.map(|file| commands::plan_of(None, Some(file))).transpose();
            plan.and_then(|plan| commands::score::one(&name, seeds, plan.as_ref()))
        }
        Command::Load { members, seed, workloads } => commands::load::run(members, seed, workloads),
        Command::Score { jobs, seeds, new, write } => commands::score::all(jobs, seeds, new, write),
        Command::Plan { seed } => commands::plan_of(Some(seed), None).map(|plan| {
            print!("{plan}");
            true
        }),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let ends = text
        .split_once("..")
        .and_then(|(first, last)| Some(first.parse::<u64>().ok()?..last.parse::<u64>().ok()?));
    ends.filter(|range| !range.is_empty()).ok_or_else(|| "FIRST..LAST, as in 0..1000".to_owned())
}
