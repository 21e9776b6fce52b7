//! The whole server through what the scripts and a few seeds do to it. A failure prints the plan that
//! repeats it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use sim::facts::verdict::Verdict;
use sim::plan::Plan;
use sim::play::play;
use sim::swarm;

/// Fewer answers than this and a run has shown nothing.
const ANSWERS_MIN: usize = 50;
/// Real time for them, and how many they are at most.
const QUICK: Duration = Duration::from_secs(45);
const QUICK_SEEDS_MAX: u64 = 12;

fn examine(what: &str, verdict: &Verdict) {
    let violations: Vec<_> = verdict.violations.iter().map(ToString::to_string).collect();
    assert!(verdict.passed(), "{what}\n{}{}", verdict.plan, violations.join("\n"));
    println!("{what}: {} answers in {:?}", verdict.answered, verdict.simulated);
}

/// First of all: a plan is a run. Played twice, in another order, and in another process, it sends
/// the same bytes at the same times; those of TLS, too, whose keys are random numbers.
#[test]
fn the_same_plan_is_the_same_run() {
    let secured = (0..).map(swarm::draw).find(|plan| plan.shape.tls);
    let plans: Vec<Plan> = [1, 2].into_iter().map(swarm::draw).chain(secured).collect();
    let digests = |order: &mut dyn Iterator<Item = usize>| {
        let mut digests: Vec<_> = order.map(|at| (at, play(&plans[at]).digest)).collect();
        digests.sort_unstable();
        digests
    };
    let first = digests(&mut (0..plans.len()));
    assert_eq!(first, digests(&mut (0..plans.len()).rev()), "in one process, the other way round");
    assert_ne!(first[0].1, first[1].1, "different plans are different runs");
    for (at, digest) in first {
        let played = Command::new(env!("CARGO_BIN_EXE_sim"))
            .args(["replay", "--brief", "--seed", &plans[at].seed.to_string()])
            .output()
            .expect("the simulator can be started");
        let said = String::from_utf8_lossy(&played.stdout);
        assert!(said.contains(&format!("digest {digest:016x}")), "in another process: {said}");
    }
}

#[test]
fn every_script_passes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .expect("there are scripts")
        .map(|entry| entry.expect("a folder that can be read").path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let text = fs::read_to_string(&file).expect("a script that can be read");
        let plan: Plan = text.parse().unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let verdict = play(&plan);
        examine(&file.display().to_string(), &verdict);
        assert!(verdict.answered >= ANSWERS_MIN, "{}: {}", file.display(), verdict.answered);
    }
}

/// A few seeds; `QUORATE_SEED_BASE` says where others begin. `ci/test` takes it from the commit.
#[test]
fn a_quick_share_of_seeds_passes() {
    let base = std::env::var("QUORATE_SEED_BASE").unwrap_or_else(|_| "1000".to_owned());
    let base: u64 = base.parse().expect("QUORATE_SEED_BASE is a number");
    #[allow(clippy::disallowed_methods, reason = "tests are given real time")]
    let began = Instant::now();
    for seed in base..base + QUICK_SEEDS_MAX {
        let verdict = play(&swarm::draw(seed));
        examine(&format!("seed {seed}"), &verdict);
        if began.elapsed() > QUICK {
            return;
        }
    }
}
