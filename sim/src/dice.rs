//! Random numbers from a seed and a name, so that each host, link, disk and client has its own: what is
//! taken away from a run leaves the numbers of all others as they were.

use std::ops::RangeInclusive;
use std::time::Duration;

use madsim::rand::{Error, RngCore};

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Those of `name`, unlike those of any other name of the same seed.
    pub fn of(seed: u64, name: &str) -> Self {
        // FNV-1a: the names are few and not chosen by an enemy.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let mut dice = Self(seed ^ hash);
        dice.next_u64();
        dice
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound
    }

    pub fn between(&mut self, range: RangeInclusive<u64>) -> u64 {
        range.start() + self.below(range.end() - range.start() + 1)
    }

    /// True in `percent` of 100 cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// From 0 to below 1.
    pub fn share(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub fn time(&mut self, (shortest, longest): (Duration, Duration)) -> Duration {
        let micros = shortest.as_micros() as u64..=longest.as_micros() as u64;
        Duration::from_micros(self.between(micros))
    }

    /// One of `choices`, which are not none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

/// From now on, all dice of this thread show other numbers: those of `branch`. With 0, their own again.
pub fn branch(branch: u64) {
    let mut of = Dice(branch);
    BRANCH.set(0);
    BRANCH.set(if branch == 0 { 0 } else { of.next_u64() });
}

thread_local! {
    static BRANCH: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

impl RngCore for Dice {
    fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    fn next_u64(&mut self) -> u64 {
        let branch = BRANCH.get();
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31) ^ branch
    }

    fn fill_bytes(&mut self, buf: &mut [u8]) {
        for chunk in buf.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }

    fn try_fill_bytes(&mut self, buf: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(buf);
        Ok(())
    }
}
