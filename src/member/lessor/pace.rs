//! How many expired leases are revoked at a time. No rate is fixed: the number grows while rounds are quick
//! and shrinks when they are not, so that client requests never wait behind more than one round. No clock:
//! the duration of a round is a parameter.

use std::time::Duration;

use crate::limits::{LEASE_REVOKES_MAX, LEASE_REVOKES_MIN};

/// After a longer round the number shrinks.
const SLOW: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Pace {
    at_once: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { at_once: LEASE_REVOKES_MIN }
    }
}

impl Pace {
    /// The size of the next round.
    pub fn at_once(&self) -> usize {
        self.at_once
    }

    /// A round of `count` has ended, in which every lease was revoked, or not (`all`).
    pub fn went(&mut self, count: usize, took: Duration, all: bool) {
        self.at_once = if !all || took > SLOW {
            (self.at_once / 2).max(LEASE_REVOKES_MIN)
        } else if count >= self.at_once {
            (self.at_once * 2).min(LEASE_REVOKES_MAX)
        } else {
            self.at_once
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_revocations_follows_the_duration_of_rounds() {
        let mut pace = Pace::default();
        let quick = Duration::from_millis(5);
        pace.went(3, quick, true);
        assert_eq!(pace.at_once(), LEASE_REVOKES_MIN, "the round was not full");
        for _ in 0..20 {
            pace.went(pace.at_once(), quick, true);
        }
        assert_eq!(pace.at_once(), LEASE_REVOKES_MAX);
        pace.went(pace.at_once(), SLOW * 2, true);
        assert_eq!(pace.at_once(), LEASE_REVOKES_MAX / 2);
        for _ in 0..20 {
            pace.went(pace.at_once(), quick, false);
        }
        assert_eq!(pace.at_once(), LEASE_REVOKES_MIN);
    }
}
