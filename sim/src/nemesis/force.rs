//! What is in force on hosts and links at one moment. Forces add up: of two that hold the same thing,
//! each holds it until both are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Shortest and longest.
pub type Range = (Duration, Duration);

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Force {
    /// Nothing goes from the first to the second.
    pub cuts: BTreeSet<(String, String)>,
    /// Names that lead other members to each other's addresses.
    pub swaps: BTreeSet<(String, String)>,
    /// What packets from or to a host take longer.
    pub delays: BTreeMap<String, Duration>,
    /// Of all packets.
    pub loss: f64,
    /// No process is to run here.
    pub down: BTreeSet<String>,
    pub paused: BTreeSet<String>,
    /// Drift in millionths and wall clock in milliseconds, beside what the weather has.
    pub clocks: BTreeMap<String, (i64, i64)>,
    pub slow_disks: BTreeMap<String, Range>,
    pub stalled_logs: BTreeMap<String, Range>,
    pub failing_syncs: BTreeSet<String>,
    pub full_disks: BTreeSet<String>,
}

impl Force {
    pub fn sum<'a>(forces: impl IntoIterator<Item = &'a Force>) -> Force {
        forces.into_iter().fold(Force::default(), |mut sum, force| {
            sum.add(force);
            sum
        })
    }

    /// Cuts between every two groups, both ways.
    pub fn partition(groups: &[Vec<String>]) -> Force {
        let mut force = Force::default();
        for (at, group) in groups.iter().enumerate() {
            let others = groups.iter().enumerate().filter(|(other, _)| *other != at);
            for other in others.flat_map(|(_, group)| group) {
                force.cuts.extend(group.iter().map(|host| (host.clone(), other.clone())));
            }
        }
        force
    }

    fn add(&mut self, other: &Force) {
        self.cuts.extend(other.cuts.iter().cloned());
        self.swaps.extend(other.swaps.iter().cloned());
        for (host, delay) in &other.delays {
            *self.delays.entry(host.clone()).or_default() += *delay;
        }
        self.loss = (self.loss + other.loss).min(0.9);
        self.down.extend(other.down.iter().cloned());
        self.paused.extend(other.paused.iter().cloned());
        for (host, (drift, ahead)) in &other.clocks {
            let sum = self.clocks.entry(host.clone()).or_default();
            *sum = (sum.0 + drift, sum.1 + ahead);
        }
        slowest(&mut self.slow_disks, &other.slow_disks);
        slowest(&mut self.stalled_logs, &other.stalled_logs);
        self.failing_syncs.extend(other.failing_syncs.iter().cloned());
        self.full_disks.extend(other.full_disks.iter().cloned());
    }
}

fn slowest(sum: &mut BTreeMap<String, Range>, other: &BTreeMap<String, Range>) {
    for (host, range) in other {
        let slowest = sum.entry(host.clone()).or_insert(*range);
        *slowest = (*slowest).max(*range);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_hold_is_held_until_both_are_gone() {
        let groups = |a: &str, b: &str| [vec![a.to_owned()], vec![b.to_owned()]];
        let (one, two) = (Force::partition(&groups("a", "b")), Force::partition(&groups("b", "a")));
        assert_eq!(one.cuts.len(), 2);
        assert_eq!(Force::sum([&one, &two]).cuts, Force::sum([&two]).cuts);
        assert_eq!(Force::sum([]), Force::default());
    }
}
