//! What is played: each play is a cluster under load and one kind of bad luck, from the seed. A play
//! ends with the verdict of every checker.

use std::time::Duration;

use crate::World;
use crate::cluster::Shape;
use crate::scenario::{Load, Run, Summary};

async fn seconds(run: &Run, seconds: u64) {
    run.env.sleep(Duration::from_secs(seconds)).await;
}

/// Nothing goes wrong.
pub async fn calm(world: World, members: usize) -> Summary {
    let run = Run::begin(&world, Shape::small(members), Load::default()).await;
    seconds(&run, 5).await;
    run.end().await
}

/// The leader's process is killed, and started again a while later, three times.
pub async fn leader_killed(world: World, seed: u64) -> Summary {
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
}

/// One of three members is cut off from the others, the leader first of all, but not from clients.
pub async fn minority_cut_off(world: World, seed: u64) -> Summary {
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
}

/// One member after the other loses its power in the middle of some disk operation.
pub async fn power_fails(world: World, seed: u64) -> Summary {
    let members = if seed.is_multiple_of(2) { 1 } else { 3 };
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
}

/// All members lose their power at once, with slow disks: what was answered was durable on a majority.
pub async fn blackout(world: World, seed: u64) -> Summary {
    let run = Run::begin(&world, Shape::small(3), Load::default()).await;
    for (at, name) in run.cluster.names().iter().enumerate() {
        let longest = Duration::from_millis(5 + 20 * ((seed + at as u64) % 3));
        world.set_disk_latency(name, Duration::from_micros(100), longest);
    }
    for round in 0..4_u64 {
        seconds(&run, 3).await;
        for name in run.cluster.names() {
            world.power_off(name);
        }
        seconds(&run, 1).await;
        // Some come back before the others, so that a majority may differ from the last one.
        let late = (seed + round) as usize % run.cluster.names().len();
        for (at, name) in run.cluster.names().iter().enumerate() {
            if at != late {
                run.cluster.start(name).await;
            }
        }
        seconds(&run, 3).await;
        run.cluster.start(&run.cluster.names()[late]).await;
    }
    run.end().await
}

/// A member is down while the others write and forget more than it needs: it must catch up by
/// snapshot.
pub async fn lagging_member(world: World, _seed: u64) -> Summary {
    let shape = Shape { snapshot_count: 50, catchup_entries: 10, ..Shape::small(3) };
    let load = Load { kv: 6, leases: 2, ..Load::default() };
    let run = Run::begin(&world, shape, load).await;
    let leader = run.cluster.leader(&run.env).await.expect("a settled cluster has a leader");
    let lagging = run.cluster.names().iter().find(|name| **name != leader);
    let lagging = lagging.expect("three members").clone();
    world.kill(&lagging);
    seconds(&run, 12).await;
    let ahead = run.cluster.status(&run.env, &leader).await.expect("a leader that answers");
    assert!(ahead.raft_applied_index > 200, "not far enough ahead to need a snapshot");
    run.cluster.start(&lagging).await;
    run.end().await
}
