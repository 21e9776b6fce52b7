//! Shrinks a failing run.

use indicatif::{ProgressBar, ProgressStyle};
use sim::plan::Plan;
use sim::play::play;
use sim::shrink::shrink;

use super::{keep, replay};

/// Returns true once a smallest plan is found, whatever violation it has.
pub fn run(plan: &Plan, runs_max: usize) -> Result<bool, String> {
    let verdict = play(plan);
    let Some(first) = verdict.violations.first() else {
        return Err("this plan passes: there is nothing to shrink".to_owned());
    };
    println!("{first}\n{} steps, {} clients", plan.steps.len(), plan.clients.len());
    let (checker, property) = (first.checker, first.property);
    let bar = ProgressBar::new(runs_max as u64);
    bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} runs, {msg}").expect("valid"));
    let smallest = shrink(plan, runs_max, |plan| {
        let verdict = play(plan);
        bar.inc(1);
        let alike = verdict
            .violations
            .iter()
            .any(|found| (found.checker, found.property) == (checker, property));
        if alike {
            bar.set_message(format!("{} steps, {} clients", plan.steps.len(), plan.clients.len()));
        }
        alike
    });
    bar.finish_and_clear();
    let verdict = play(&smallest);
    println!("{smallest}");
    replay::print(&verdict);
    let file = keep(&verdict.plan, &format!("seed-{}-small", plan.seed))?;
    println!("again: ci/sim replay --script {}", file.display());
    Ok(true)
}
