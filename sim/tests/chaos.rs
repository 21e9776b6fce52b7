//! The whole server through the faults that every cluster meets. Each test is a row of seeds; a
//! failure names its seed, and the seed repeats it.

use std::time::Duration;

use sim::cluster::Shape;
use sim::scenario::{Load, Run, Summary};
use sim::{World, run};

/// Fewer answers than this and a run has shown nothing.
const ANSWERS_MIN: usize = 50;

/// Runs `scenario` for every seed in turn.
fn seeds<F>(seeds: std::ops::Range<u64>, scenario: impl Fn(World, u64) -> F + Send + Copy + 'static)
where
    F: Future<Output = Summary> + 'static,
{
    for seed in seeds {
        let summary = run(seed, move |world| scenario(world, seed));
        assert!(summary.answered >= ANSWERS_MIN, "seed {seed}: only {summary:?}");
    }
}

async fn seconds(run: &Run, seconds: u64) {
    run.env.sleep(Duration::from_secs(seconds)).await;
}

/// First of all: a seed is a run. Two runs of one seed send the same bytes at the same times.
#[test]
fn the_same_seed_is_the_same_run() {
    let digest = |seed| {
        run(seed, |world| async move {
            let run = Run::begin(&world, Shape::small(3), Load::default()).await;
            seconds(&run, 3).await;
            let leader =
                run.cluster.leader(&run.env).await.expect("a settled cluster has a leader");
            world.kill(&leader);
            seconds(&run, 3).await;
            run.cluster.start(&leader).await;
            run.end().await;
            world.digest()
        })
    };
    let first = digest(1);
    assert_eq!(first, digest(1));
    assert_ne!(first, digest(2));
}

#[test]
fn one_member_without_faults() {
    seeds(10..13, |world, _| async move {
        let run = Run::begin(&world, Shape::small(1), Load::default()).await;
        seconds(&run, 5).await;
        run.end().await
    });
}

#[test]
fn the_leader_is_killed_under_load() {
    seeds(100..108, |world, seed| async move {
        let members = if seed % 4 == 3 { 5 } else { 3 };
        let run = Run::begin(&world, Shape::small(members), Load::default()).await;
        for _ in 0..3 {
            seconds(&run, 3).await;
            let Some(leader) = run.cluster.leader(&run.env).await else { continue };
            world.kill(&leader);
            seconds(&run, 4).await;
            run.cluster.start(&leader).await;
        }
        run.end().await
    });
}

#[test]
fn a_minority_is_cut_off_and_comes_back() {
    seeds(200..206, |world, seed| async move {
        let run = Run::begin(&world, Shape::small(3), Load::default()).await;
        for round in 0..3 {
            seconds(&run, 2).await;
            let cut = match (round, run.cluster.leader(&run.env).await) {
                (0, Some(leader)) => leader,
                _ => format!("m{}", (seed + round) % 3),
            };
            for other in run.cluster.names().iter().filter(|name| **name != cut) {
                world.partition(&cut, other);
            }
            seconds(&run, 6).await;
            world.heal_all();
        }
        run.end().await
    });
}

#[test]
fn the_power_fails_again_and_again() {
    seeds(300..308, |world, seed| async move {
        let members = if seed % 2 == 0 { 1 } else { 3 };
        let run = Run::begin(&world, Shape::small(members), Load::default()).await;
        for round in 0..6_u64 {
            let victim = format!("m{}", (seed + round) % members as u64);
            world.power_off_at_operation(&victim, 1 + (seed * 7 + round * 13) % 90);
            let off = || !world.is_running(&victim);
            world.wait_until(Duration::from_secs(20), off).await;
            if world.is_running(&victim) {
                world.power_off(&victim);
            }
            seconds(&run, 1 + round % 3).await;
            run.cluster.start(&victim).await;
            seconds(&run, 2).await;
        }
        run.end().await
    });
}

/// All members lose their power at once: what was answered was durable on a majority.
#[test]
fn the_whole_cluster_loses_its_power() {
    seeds(400..404, |world, _| async move {
        let run = Run::begin(&world, Shape::small(3), Load::default()).await;
        for _ in 0..3 {
            seconds(&run, 3).await;
            for name in run.cluster.names() {
                world.power_off(name);
            }
            seconds(&run, 1).await;
            run.cluster.start_all().await;
        }
        run.end().await
    });
}

#[test]
fn a_member_that_lags_catches_up_by_snapshot() {
    seeds(500..504, |world, _| async move {
        let shape = Shape { snapshot_count: 50, catchup_entries: 10, ..Shape::small(3) };
        let run = Run::begin(&world, shape, Load { kv: 6, ..Load::default() }).await;
        let leader = run.cluster.leader(&run.env).await.expect("a settled cluster has a leader");
        let lagging = run.cluster.names().iter().find(|name| **name != leader);
        let lagging = lagging.expect("three members").clone();
        world.kill(&lagging);
        seconds(&run, 12).await;
        let ahead = run.cluster.status(&run.env, &leader).await.expect("a leader that answers");
        assert!(ahead.raft_applied_index > 200, "not far enough ahead to need a snapshot");
        run.cluster.start(&lagging).await;
        run.end().await
    });
}
