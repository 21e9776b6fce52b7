//! When did a failure become likely? The run is left at moments spread over it, each time with other random
//! numbers, and the share of these branches that fail alike is what the failure's odds were then. Before
//! the cause they are low, behind it high.

use std::collections::BTreeMap;
use std::time::Duration;

use sim::plan::{Branch, Plan};
use sim::play::play;
use sim::report;

use super::{branch::branches, name_of};

/// A moment's odds above which the failure is called likely, in percent.
const LIKELY: u64 = 50;
/// Events that are shown around the moment.
const SHOWN: usize = 12;
const BAR: usize = 20;

/// False, as the run fails; an error where it passes.
pub fn run(plan: &Plan, moments: u32, tries: u64) -> Result<bool, String> {
    let verdict = play(plan);
    let Some(first) = verdict.violations.first() else {
        return Err("this run passes: there is nothing to explain".to_owned());
    };
    println!("{first}");
    let alike = (first.checker, first.property);
    let mut odds = BTreeMap::new();
    let mut likely = None;
    for moment in 0..moments {
        let at = verdict.simulated * moment / moments;
        let from = Branch { at, seed: 0 };
        let failed = branches(plan, from, tries).filter(|branch| {
            let verdict = play(branch);
            verdict.violations.iter().any(|found| (found.checker, found.property) == alike)
        });
        let share = failed.count() as u64 * 100 / tries.max(1);
        let bar = "#".repeat(share as usize * BAR / 100);
        println!("{:>8.2} s  {share:>3} %  {bar}", at.as_secs_f64());
        odds.insert(at, share);
        if share >= LIKELY && likely.is_none() {
            likely = Some(at);
        }
        // Behind its cause the failure does not become rare again.
        if share < LIKELY {
            likely = None;
        }
    }
    let Some(likely) = likely else {
        println!("at no moment of those the failure was likely: it takes what came last, or luck");
        return Ok(false);
    };
    let before = odds.range(..likely).next_back().map_or(Duration::ZERO, |(at, _)| *at);
    let (from, to) = (before.as_secs_f64(), likely.as_secs_f64());
    println!("it became likely between {from:.2} s and {to:.2} s, when this happened:");
    let happened = report::between(&verdict.story, before..=likely);
    happened.iter().rev().take(SHOWN).rev().for_each(|line| println!("{line}"));
    println!("again: ci/sim replay --seed {}", name_of(plan));
    Ok(false)
}
