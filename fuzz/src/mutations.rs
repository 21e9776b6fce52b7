//! Inputs made of others without a look at what they reach: bytes changed, put in, taken out and copied from
//! elsewhere.

/// Bytes and numbers at which parsers go wrong.
const ODD: [&[u8]; 12] = [
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x80\x80\x80\x80\x10",
    b"\"",
    b"{[",
    b"9223372036854775808",
];
/// The largest input; larger seeds are taken as they are.
const BYTES_MAX: usize = 64 << 10;

/// Pseudo-random numbers (splitmix64).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, or 0.
    fn below(&mut self, n: usize) -> usize {
        (self.roll() % n.max(1) as u64) as usize
    }

    fn part<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let from = self.below(bytes.len());
        let longest = if self.below(4) == 0 { bytes.len() } else { 16 };
        let length = self.below((bytes.len() - from).min(longest) + 1);
        &bytes[from..from + length]
    }

    /// An input made of one or two of `seeds`.
    pub fn input(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut input = seeds[self.below(seeds.len())].clone();
        let changes = 1 << self.below(6);
        for _ in 0..changes {
            self.change(&mut input, seeds);
        }
        if input.len() > BYTES_MAX {
            input.truncate(BYTES_MAX.max(seeds.iter().map(Vec::len).max().unwrap_or_default()));
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        let end = at + self.below((input.len() - at).min(64) + 1);
        match self.below(8) {
            0 | 1 if at < input.len() => input[at] ^= 1 << self.below(8),
            2 if at < input.len() => input[at] = self.roll() as u8,
            3 => drop(input.drain(at..end)),
            4 => {
                let odd = ODD[self.below(ODD.len())];
                input.splice(at..end.min(at + odd.len()), odd.iter().copied());
            }
            5 => {
                let other = self.below(seeds.len());
                let part = self.part(&seeds[other]).to_vec();
                let end = if self.below(2) == 0 { at } else { end };
                input.splice(at..end, part);
            }
            6 => {
                let part = self.part(input).to_vec();
                input.splice(at..at, part);
            }
            _ => {
                let random: Vec<u8> = (0..self.below(24)).map(|_| self.roll() as u8).collect();
                input.splice(at..at, random);
            }
        }
    }
}
