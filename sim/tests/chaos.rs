//! The whole server through what the scripts and a few seeds do to it. A failure prints the plan that
//! repeats it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

use sim::facts::verdict::Verdict;
use sim::plan::{Branch, Plan};
use sim::play::play;
use sim::swarm;

/// Fewer answers than this and a run has shown nothing.
const ANSWERS_MIN: usize = 50;
/// Real time for seeds, unless `QUORATE_SEED_SECONDS` sets another one.
const QUICK_S: u64 = 45;

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

/// Plays as many seeds as there is time for, from `QUORATE_SEED_BASE` on, which `ci/test` takes from the
/// commit.
#[test]
fn a_quick_share_of_seeds_passes() {
    let base = std::env::var("QUORATE_SEED_BASE").unwrap_or_else(|_| "1000".to_owned());
    let base: u64 = base.parse().expect("QUORATE_SEED_BASE is a number");
    #[allow(clippy::disallowed_methods, reason = "tests are given real time")]
    let began = Instant::now();
    let seconds = std::env::var("QUORATE_SEED_SECONDS").ok();
    let seconds = seconds.map_or(QUICK_S, |text| text.parse().expect("a number of seconds"));
    let (mut simulated, mut seeds) = (Duration::ZERO, 0);
    while began.elapsed() < Duration::from_secs(seconds) {
        let seed = base + seeds;
        let verdict = play(&swarm::draw(seed));
        examine(&format!("seed {seed}"), &verdict);
        simulated += verdict.simulated;
        seeds += 1;
    }
    let hours = simulated.as_secs_f64() / 3600.0;
    println!("{seeds} seeds from {base} on, {hours:.2} simulated hours");
}

/// A branch is its run up to the moment at which it leaves it, and another one behind it.
#[test]
fn a_branch_is_the_run_it_leaves_up_to_then() {
    let at = Duration::from_secs(12);
    let of = |seed| Plan { branch: Some(Branch { at, seed }), ..swarm::draw(3) };
    let [plain, one, two] = [swarm::draw(3), of(1), of(2)].map(|plan| play(&plan));
    let before = |verdict: &Verdict| {
        let events = verdict.story.iter().filter(|event| event.at < at);
        events.map(|event| format!("{event:?}")).collect::<Vec<_>>()
    };
    assert!(before(&plain).len() > 100, "there is something to compare");
    assert_eq!(before(&plain), before(&one));
    assert_eq!(before(&plain), before(&two));
    let digests = [plain.digest, one.digest, two.digest];
    assert!(digests[0] != digests[1] && digests[1] != digests[2], "{digests:x?}");
    assert_eq!(play(&of(1)).digest, one.digest, "a branch is a run, too");
}
