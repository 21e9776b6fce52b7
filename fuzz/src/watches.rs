//! Which watchers an event reaches: the index against a look at each of them.

use arbitrary::Arbitrary;
use bytes::Bytes;
use quorate::mvcc::KeyRange;
use quorate::watch;

use crate::{noises, structured};

#[derive(Arbitrary, Debug)]
enum Step {
    Add(u8, u8),
    Remove(u8),
    Look(u8),
}

fn key(number: u8) -> Bytes {
    let letters = [&b"a"[..], b"a\0", b"b", b"ba", b"c", b"\0", b"\xff", b"d", b""];
    Bytes::from_static(letters[usize::from(number) % letters.len()])
}

pub fn run(input: &[u8]) {
    let Some((seed, steps)) = structured::<(u64, Vec<Step>)>(input) else { return };
    let mut index = watch::fuzz::Watchers::new(seed);
    let mut watchers: Vec<(u64, Bytes, Bytes)> = Vec::new();
    for (name, step) in steps.into_iter().take(200).enumerate() {
        match step {
            Step::Add(from, to) => {
                let end = if to % 3 == 0 { Bytes::new() } else { key(to / 3) };
                let added = index.add(key(from), end.clone(), name as u64);
                // A range that holds no key is refused.
                let empty = end.len() > 1 && end <= key(from)
                    || end.len() == 1 && end[0] != 0 && end <= key(from);
                assert_eq!(added, !empty, "{from} {to}");
                if added {
                    watchers.push((name as u64, key(from), end));
                }
            }
            Step::Remove(which) if !watchers.is_empty() => {
                let (name, from, end) = watchers.swap_remove(usize::from(which) % watchers.len());
                index.remove(from, end, name);
            }
            Step::Remove(_) => {}
            Step::Look(number) => {
                let key = key(number);
                let mut expected: Vec<u64> = watchers
                    .iter()
                    .filter(|(_, from, end)| KeyRange::new(from, end).contains(&key))
                    .map(|(name, ..)| *name)
                    .collect();
                expected.sort_unstable();
                assert_eq!(index.look(&key), expected, "{key:?}");
            }
        }
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    noises()
}
