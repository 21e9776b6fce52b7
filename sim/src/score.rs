//! Do the judges see anything at all? A planted fault is hunted through the seeds that everybody plays
//! until a checker complains, and the same seed without the fault must pass.

use std::ops::Range;
use std::time::Duration;

use quorate::plant::Fault;

use crate::plan::Plan;
use crate::play::{play, play_with};

/// Seeds in which every planted fault must have been caught.
pub const SEEDS_MAX: u64 = 200;

/// A fault that was caught.
#[derive(Clone, Debug)]
pub struct Caught {
    /// The seed that did it.
    pub seed: u64,
    /// The checker that complained first, and of what.
    pub checker: &'static str,
    pub property: &'static str,
    /// How many seeds that took, and the time they simulated.
    pub seeds: u64,
    pub simulated: Duration,
}

/// Plays seed after seed with the fault planted; `None` when none of them brings it out. A seed that
/// fails without the fault proves nothing and is passed over.
pub fn hunt(fault: &Fault, seeds: Range<u64>) -> Option<Caught> {
    let first = seeds.start;
    let mut simulated = Duration::ZERO;
    for seed in seeds {
        let plan = Plan::from_seed(seed);
        let verdict = play_with(&plan, Some(fault.name));
        simulated += verdict.simulated;
        let Some(violation) = verdict.violations.first() else { continue };
        if play(&plan).passed() {
            let (checker, property) = (violation.checker, violation.property);
            return Some(Caught { seed, checker, property, seeds: seed - first + 1, simulated });
        }
    }
    None
}
