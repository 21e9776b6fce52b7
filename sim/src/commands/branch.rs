//! Runs that leave a run at the moment at which it reached a mark first: up to there they are the same, from
//! there on all random numbers are others. What is rare is reached once and tried many times.

use sim::facts::verdict::Verdict;
use sim::plan::{Branch, Plan};
use sim::play::play;

use super::{keep, name_of, replay};

/// Plays `tries` branches; whether all passed.
pub fn run(plan: &Plan, mark: &str, tries: u64) -> Result<bool, String> {
    let verdict = play(plan);
    let reached = verdict.marks.get(mark).ok_or_else(|| {
        let all: Vec<_> = verdict.marks.keys().map(String::as_str).collect();
        format!("{mark} is not reached; reached are {}", all.join(", "))
    })?;
    println!("{mark} is reached {} times, first at {:?}", reached.times, reached.first);
    let mut failed = u64::from(!verdict.passed());
    for branch in branches(plan, Branch { at: reached.first, seed: 0 }, tries) {
        let verdict = play(&branch);
        failed += u64::from(!verdict.passed());
        print(&branch, &verdict);
    }
    println!("{failed} of {} failed", tries + 1);
    Ok(failed == 0)
}

/// The plan with branches at that moment, numbered from 1 on.
pub fn branches(plan: &Plan, from: Branch, tries: u64) -> impl Iterator<Item = Plan> {
    let plan = plan.clone();
    (1..=tries).map(move |seed| Plan { branch: Some(Branch { seed, ..from }), ..plan.clone() })
}

/// Of one that failed, what and how it is played again.
pub fn print(plan: &Plan, verdict: &Verdict) {
    if verdict.passed() {
        return;
    }
    replay::print(verdict);
    match keep(&verdict.plan, &format!("seed-{}", name_of(plan))) {
        Ok(file) => println!("its plan is in {}", file.display()),
        Err(error) => println!("its plan could not be kept: {error}"),
    }
    println!("again:   ci/sim replay --seed {}", name_of(plan));
}
