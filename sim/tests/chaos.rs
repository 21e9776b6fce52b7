//! The whole server through the faults that every cluster meets. Each test is a row of seeds; a
//! failure names its seed, and the seed repeats it.

use std::ops::Range;

use sim::scenario::Summary;
use sim::{World, plays, run};

/// Fewer answers than this and a run has shown nothing.
const ANSWERS_MIN: usize = 50;

/// Plays `play` for every seed in turn, or for the one in `QUORATE_SEED`, whichever it is.
fn seeds<F>(seeds: Range<u64>, play: impl Fn(World, u64) -> F + Send + Copy + 'static)
where
    F: Future<Output = Summary> + 'static,
{
    let chosen = std::env::var("QUORATE_SEED").ok();
    let chosen = chosen.map(|seed| seed.parse().expect("QUORATE_SEED is a number"));
    let seeds = chosen.map_or(seeds, |seed: u64| seed..seed + 1);
    for seed in seeds {
        let summary = run(seed, move |world| play(world, seed));
        assert!(summary.answered >= ANSWERS_MIN, "seed {seed}: only {summary:?}");
        println!("seed {seed}: {summary:?}");
    }
}

/// First of all: a seed is a run. Two runs of one seed send the same bytes at the same times.
#[test]
fn the_same_seed_is_the_same_run() {
    let digest = |seed| {
        run(seed, move |world| async move {
            plays::leader_killed(world.clone(), seed).await;
            world.digest()
        })
    };
    let first = digest(1);
    assert_eq!(first, digest(1));
    assert_ne!(first, digest(2));
}

#[test]
fn members_without_faults() {
    for members in [1, 3, 5] {
        let summary = run(10, move |world| plays::calm(world, members));
        assert!(summary.answered >= ANSWERS_MIN, "{members} members: only {summary:?}");
    }
}

#[test]
fn the_leader_is_killed_under_load() {
    seeds(100..106, plays::leader_killed);
}

#[test]
fn a_minority_is_cut_off_and_comes_back() {
    seeds(200..205, plays::minority_cut_off);
}

#[test]
fn the_power_fails_again_and_again() {
    seeds(300..308, plays::power_fails);
}

#[test]
fn the_whole_cluster_loses_its_power() {
    seeds(400..405, plays::blackout);
}

#[test]
fn a_member_that_lags_catches_up_by_snapshot() {
    seeds(500..504, plays::lagging_member);
}
