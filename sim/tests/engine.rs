//! The real RocksDB on a simulated host: a crash loses what was not flushed, and nothing else; and
//! simulations beside each other do not disturb each other's.

use std::path::Path;

use quorate::engine::{Cf, Engine, Options};
use quorate::env::Env;
use sim::World;

/// Opens the host's engine the way a member does.
async fn open(env: &Env, memory: rocksdb::Env) -> Engine {
    let open = move || Engine::open(Path::new("/data/engine"), &Options::in_memory(memory));
    env.blocking_outside("open", open).await.expect("what was flushed is sound")
}

fn put(engine: &Engine, key: &[u8]) {
    let mut batch = engine.batch();
    batch.put(Cf::Key, key, b"value");
    engine.write(batch).expect("memory");
}

async fn crashes(world: World) {
    world.add_host("a");
    let memory = world.mem_env("a");
    for round in 0..5_u8 {
        let memory = memory.clone();
        let main = move |env: Env| async move {
            let engine = open(&env, memory).await;
            for earlier in 0..round {
                let flushed = engine.get(Cf::Key, &[earlier, 0]).expect("readable");
                assert!(flushed.is_some(), "round {round} lost what {earlier} flushed");
                let lost = engine.get(Cf::Key, &[earlier, 1]).expect("readable");
                assert!(lost.is_none(), "round {round} has what {earlier} did not flush");
            }
            put(&engine, &[round, 0]);
            engine.flush().expect("memory");
            put(&engine, &[round, 1]);
            std::future::pending::<()>().await
        };
        world.start("a", main).await;
        world.sleep(std::time::Duration::from_secs(1)).await;
        if world.chance(0.5) { world.kill("a") } else { world.power_off("a") }
    }
}

/// Starts `run` on a thread of its own, as a test runner does.
#[allow(clippy::disallowed_methods, reason = "outside the simulation")]
fn beside<T: Send + 'static>(
    run: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::spawn(run)
}

#[test]
fn a_crash_loses_what_was_not_flushed() {
    for seed in 0..3 {
        sim::run(seed, crashes);
    }
}

#[test]
fn simulations_beside_each_other_open_engines() {
    let runs: Vec<_> = (0..4).map(|_| beside(|| sim::run(1, crashes))).collect();
    for run in runs {
        run.join().expect("none disturbs another");
    }
}
