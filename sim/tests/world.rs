//! The simulation itself: the same seed gives the same run, and clocks are as they were set.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use quorate::env::Env;
use sim::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SERVERS: [&str; 3] = ["a", "b", "c"];

/// Three servers that talk to each other under random faults, with everything that is known to bring
/// chance of its own: hash maps, random numbers, kills, lost writes.
async fn chaos(world: World) -> (u64, u64) {
    for name in SERVERS {
        world.add_host(name);
        world.start(name, serve).await;
    }
    for _ in 0..60 {
        world.sleep(Duration::from_millis(world.random(10..500))).await;
        let victim = SERVERS[world.random(0..3)];
        match world.random(0..9) {
            0 => world.kill(victim),
            1 => world.power_off(victim),
            2 => world.power_off_at_operation(victim, world.random(1..5)),
            3 => world.isolate(victim),
            4 => world.one_way(victim, SERVERS[world.random(0..3)]),
            5 => world.set_loss(world.random(0.0..0.1)),
            6 => {
                world.pause(victim);
                world.sleep(Duration::from_millis(100)).await;
                world.resume(victim);
            }
            _ => world.heal_all(),
        }
        for name in SERVERS {
            if !world.is_running(name) && world.chance(0.5) {
                world.start(name, serve).await;
            }
        }
    }
    (world.digest(), world.events())
}

async fn serve(env: Env) {
    for peer in SERVERS {
        drop(env.spawn("talk", talk(env.clone(), peer)));
    }
    let mut listener = env.net.listen(([0, 0, 0, 0], 80).into()).await.expect("a free port");
    while let Ok((mut connection, _)) = listener.accept().await {
        let disk = env.disk.clone();
        let worker = env.rt.worker("log");
        drop(env.spawn("serve", async move {
            while let Ok(byte) = connection.read_u8().await {
                let disk = disk.clone();
                worker.run(Box::new(move || append(&*disk, byte))).await;
                if connection.write_u8(byte).await.is_err() {
                    return;
                }
            }
        }));
    }
}

fn append(disk: &dyn quorate::env::Disk, byte: u8) {
    let path = std::path::Path::new("/log");
    let Ok(file) = disk
        .open(path, quorate::env::Open::Write)
        .or_else(|_| disk.open(path, quorate::env::Open::CreateNew))
    else {
        return;
    };
    let len = file.len().unwrap_or_default();
    let _ = file.write_all_at(&[byte], len).and_then(|()| file.sync_data());
}

async fn talk(env: Env, peer: &'static str) {
    loop {
        let dialing = env.net.connect(format!("{peer}:80"));
        if let Ok(Ok(mut connection)) = env.timeout(Duration::from_secs(1), dialing).await {
            loop {
                // What is sent depends on a hash map's order and on a random number.
                let words: HashMap<u64, u8> = (0..8).map(|n| (env.random_u64(), n)).collect();
                let exchange = async {
                    for word in words.values() {
                        connection.write_u8(*word).await?;
                        connection.read_u8().await?;
                    }
                    std::io::Result::Ok(())
                };
                if !matches!(env.timeout(Duration::from_secs(1), exchange).await, Ok(Ok(()))) {
                    break;
                }
            }
        }
        env.sleep(Duration::from_millis(env.random_u64() % 100)).await;
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
fn the_same_seed_is_the_same_run() {
    // A first run may meet what is initialised once per process.
    let seeds: Vec<u64> = (0..8).collect();
    let forward: Vec<_> = seeds.iter().map(|seed| sim::run(*seed, chaos)).collect();
    let mut backward: Vec<_> = seeds.iter().rev().map(|seed| sim::run(*seed, chaos)).collect();
    backward.reverse();
    assert_eq!(forward, backward);
    let different: BTreeSet<_> = forward.iter().collect();
    assert_eq!(different.len(), seeds.len(), "seeds differ: {forward:?}");
    assert!(forward.iter().all(|(_, events)| *events > 1000), "something happened: {forward:?}");
}

#[test]
fn runs_beside_each_other_do_not_meet() {
    let beside: Vec<_> = (0..4).map(|_| beside(|| sim::run(3, chaos))).collect();
    let alone = sim::run(3, chaos);
    for run in beside {
        assert_eq!(run.join().expect("it runs"), alone);
    }
}

/// getrandom 0.2, under rand 0.8, bypasses the symbol that madsim replaces.
#[test]
fn entropy_of_the_old_rand_comes_from_the_seed() {
    let draw = |seed| {
        sim::run(seed, |_| async {
            // A new thread generator per run: each run has its own thread.
            use madsim::rand::RngCore;
            let mut bytes = [0; 16];
            let mut first = madsim::rand::thread_rng();
            first.fill_bytes(&mut bytes);
            let mut raw = [0_u8; 16];
            // SAFETY: sixteen writable bytes.
            let filled =
                unsafe { libc::syscall(libc::SYS_getrandom, raw.as_mut_ptr(), 16_usize, 0) };
            assert_eq!(filled, 16);
            (bytes, raw)
        })
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn a_fast_clock_and_a_slow_one() {
    let took = sim::run(5, |world| async move {
        for (name, rate_ppm) in [("fast", 100_000), ("true", 0), ("slow", -100_000)] {
            world.add_host(name);
            world.set_clock(name, rate_ppm, 0);
        }
        let mut took = Vec::new();
        for name in ["fast", "true", "slow"] {
            let start = world.elapsed();
            let sleep = |env: Env| async move {
                let start = env.now();
                env.sleep(Duration::from_secs(10)).await;
                assert!(env.now() - start >= Duration::from_secs(10), "by its own clock");
            };
            world.start(name, sleep).await.join().await.expect("nobody kills it");
            took.push((world.elapsed() - start).as_millis());
        }
        took
    });
    assert_eq!(took, [9090, 10_000, 11_111]);
}

#[test]
fn wall_clocks_may_disagree() {
    sim::run(6, |world| async move {
        for name in ["early", "late"] {
            world.add_host(name);
        }
        world.set_clock("late", 0, -60_000);
        let wall = |env: Env| async move { env.wall() };
        let early = world.start("early", wall).await.join().await.expect("it runs");
        let late = world.start("late", wall).await.join().await.expect("it runs");
        let apart = early.duration_since(late).expect("it is behind");
        assert!((59_000..61_000).contains(&apart.as_millis()), "{apart:?}");
    });
}

#[test]
#[should_panic(expected = "told to")]
fn a_panic_in_any_task_fails_the_run() {
    sim::run(8, |world| async move {
        world.add_host("a");
        let main = |env: Env| async move {
            drop(env.spawn("doomed", async { panic!("told to") }));
            std::future::pending::<()>().await
        };
        world.start("a", main).await;
        world.sleep(Duration::from_secs(1)).await;
    });
}
