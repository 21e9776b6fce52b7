//! Do the checkers see anything at all? Every planted fault must be caught within a few seeds of the
//! play that is made for it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;

use quorate::plant;
use sim::scenario::Summary;
use sim::{World, plays, run};

type Play = fn(World, u64) -> Pin<Box<dyn Future<Output = Summary>>>;

/// Seeds that a fault may take to show.
const SEEDS: u64 = 6;

/// Which play brings out which fault.
const PLAYS: &[(&str, Play)] = &[
    ("lost-write", |world, _| Box::pin(plays::calm(world, 1))),
    ("applied-index-apart", |world, seed| Box::pin(plays::power_fails(world, seed))),
    ("ack-before-fsync", |world, seed| Box::pin(plays::blackout(world, seed))),
    ("unconfirmed-read", |world, seed| Box::pin(plays::minority_cut_off(world, seed))),
    ("txn-compares-ignored", |world, _| Box::pin(plays::calm(world, 1))),
    ("watch-lost-publication", |world, _| Box::pin(plays::calm(world, 1))),
    ("watch-resumes-late", |world, seed| Box::pin(plays::leader_killed(world, seed))),
    ("lease-not-renewed", |world, _| Box::pin(plays::calm(world, 3))),
    ("lease-forgotten", |world, seed| Box::pin(plays::leader_killed(world, seed))),
    ("snapshot-without-leases", |world, seed| Box::pin(plays::lagging_member(world, seed))),
];

#[test]
fn every_planted_fault_is_caught() {
    // What is caught panics, as it should; its backtrace is of no interest and takes seconds to make.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let missed = missed();
    std::panic::set_hook(hook);
    assert!(missed.is_empty(), "not caught within {SEEDS} seeds: {missed:?}");
}

/// Plays every fault until it is caught, and tells which never were.
fn missed() -> Vec<&'static str> {
    let mut missed = Vec::new();
    for (fault, _) in plant::ALL {
        let play = PLAYS.iter().find(|(name, _)| name == fault);
        let (_, play) = play.unwrap_or_else(|| panic!("no play for {fault}"));
        let caught = (1..=SEEDS).find(|seed| {
            let (seed, fault, play) = (*seed, *fault, *play);
            let played = catch_unwind(AssertUnwindSafe(|| {
                run(seed, move |world| async move {
                    plant::set(Some(fault));
                    play(world, seed).await
                })
            }));
            played.is_err()
        });
        match caught {
            Some(seed) => println!("{fault}: caught with seed {seed}"),
            None => missed.push(*fault),
        }
    }
    missed
}
