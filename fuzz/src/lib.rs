//! What fuzzing does with the bytes it makes: for every parser of foreign bytes, and for the state behind
//! them, one [`Target`] with the inputs to begin with. Compares with models where there are some; else a
//! target fails by a panic, by an overflow, or by taking too long. Starts nothing: `ci/fuzz` does.
//!
//! As a test of the server's package, without a fuzzer, it plays the seeds and inputs made of them: what
//! every change must pass. `ci/fuzz` searches for longer, and is guided by what an input has reached.

mod apply;
mod brought;
mod bytes_in;
#[cfg_attr(not(fuzzing), allow(dead_code, reason = "the fuzzer's"))]
pub mod coverage;
mod log;
mod rows;
mod settings;
mod streams;
mod trees;
mod txns;
mod watches;

// The models are those of the unit tests, which name these.
use quorate::{env, error, wal};

#[path = "../../src/wal/tests/disk.rs"]
#[allow(dead_code, reason = "the unit tests need more of it")]
mod disk;
#[path = "../../src/mvcc/tests/model.rs"]
#[allow(dead_code, reason = "the unit tests need more of it")]
mod model;
#[path = "../../src/wal/tests/world.rs"]
#[allow(dead_code, reason = "the unit tests need more of it")]
mod world;

/// One way to feed bytes to the program.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    pub seeds: fn() -> Vec<Vec<u8>>,
}

macro_rules! targets {
    ($($name:literal: $module:ident::$run:ident / $seeds:ident,)*) => {
        pub const TARGETS: &[Target] = &[$(
            Target { name: $name, run: $module::$run, seeds: $module::$seeds },
        )*];
    };
}

targets! {
    "wal_bytes": log::bytes / byte_seeds,
    "wal_power": log::power / power_seeds,
    "wal_damage": log::damage / damage_seeds,
    "bbolt": trees::run / seeds,
    "etcd_dir": brought::run / seeds,
    "rows": rows::run / seeds,
    "apply": apply::run / seeds,
    "txn_depth": txns::depth / depth_seeds,
    "txn_check": txns::check / check_seeds,
    "peer_stream": streams::peer / peer_seeds,
    "http2_frames": streams::frames / frame_seeds,
    "gateway": streams::gateway / gateway_seeds,
    "websocket": streams::websocket / websocket_seeds,
    "flags": settings::flags / flag_seeds,
    "yaml": settings::yaml / yaml_seeds,
    "tokens": settings::token / token_seeds,
    "discovery": settings::discovery / discovery_seeds,
    "request_id": bytes_in::request_id / request_id_seeds,
    "grpc_timeout": bytes_in::timeout / timeout_seeds,
    "der": bytes_in::der / der_seeds,
    "dns": bytes_in::dns / dns_seeds,
    "watch": watches::run / seeds,
}

/// The target of that name.
#[cfg_attr(test, allow(dead_code, reason = "the fuzzer's"))]
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Bytes that stand for structure: see [`arbitrary`].
fn structured<T: for<'a> arbitrary::Arbitrary<'a>>(bytes: &[u8]) -> Option<T> {
    T::arbitrary_take_rest(arbitrary::Unstructured::new(bytes)).ok()
}

/// Pseudo-random bytes, for seeds of structured targets.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    })
    .take(length)
    .collect()
}

/// So many of them, some long.
fn noises() -> Vec<Vec<u8>> {
    (1..12).map(|seed| noise(seed, 60 * seed as usize)).collect()
}

#[cfg(test)]
mod mutations;

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use super::mutations::Dice;
    use super::{TARGETS, Target};

    /// All targets at the same time, for so long or so many inputs each.
    const TIME: Duration = Duration::from_secs(20);
    const INPUTS: u64 = 20_000;

    /// Prints the input if its target fails.
    struct Input<'a>(&'a Target, &'a [u8]);

    impl Drop for Input<'_> {
        fn drop(&mut self) {
            if thread::panicking() {
                let hex: String = self.1.iter().map(|byte| format!("{byte:02x}")).collect();
                eprintln!("the target {} fails on {hex}", self.0.name);
            }
        }
    }

    fn play(target: &Target, bytes: &[u8]) {
        let _input = Input(target, bytes);
        (target.run)(bytes);
    }

    #[test]
    fn every_target_takes_its_own_seeds() {
        for target in TARGETS {
            let seeds = (target.seeds)();
            assert!(!seeds.is_empty(), "{}", target.name);
            seeds.iter().for_each(|seed| play(target, seed));
        }
    }

    /// Other inputs with every commit, as the seeds of the simulator: see `ci/test`.
    #[test]
    #[allow(
        clippy::disallowed_methods,
        reason = "a test stands outside the server, in the real world"
    )]
    fn every_target_takes_inputs_made_of_its_seeds() {
        let base = std::env::var("QUORATE_SEED_BASE").ok();
        let base: u64 = base.and_then(|base| base.parse().ok()).unwrap_or(1);
        let end = Instant::now() + TIME;
        thread::scope(|scope| {
            for target in TARGETS {
                scope.spawn(move || {
                    let seeds = (target.seeds)();
                    let inputs =
                        (base..base.wrapping_add(INPUTS)).take_while(|_| Instant::now() < end);
                    let played =
                        inputs.map(|number| play(target, &Dice::new(number).input(&seeds))).count();
                    assert!(played > 10, "{} is too slow: {played} inputs", target.name);
                });
            }
        });
    }
}
