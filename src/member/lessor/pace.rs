//! How many expired leases are revoked at a time. No rate is fixed: while the log takes them quickly
//! there are more, when it does not there are fewer, so that what clients ask for never waits behind
//! more than one round of them. No clock: how long a round took is handed in.

use std::time::Duration;

use crate::limits::{LEASE_REVOKES_MAX, LEASE_REVOKES_MIN};

/// A round that took longer was too much at once.
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
    /// How many the next round may have.
    pub fn at_once(&self) -> usize {
        self.at_once
    }

    /// A round of so many is over; `all` of them were revoked.
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
    fn the_pace_follows_the_log() {
        let mut pace = Pace::default();
        let quick = Duration::from_millis(5);
        pace.went(3, quick, true);
        assert_eq!(pace.at_once(), LEASE_REVOKES_MIN, "there were no more");
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
