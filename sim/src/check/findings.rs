//! How checkers report what they found. What is wrong is for them to decide.

use crate::facts::evidence::{Record, Sample};
use crate::facts::verdict::{Proof, Violation};

/// What does not fit usually does so in many places for one reason.
const SHOWN: usize = 8;

/// A violation in what a member reported at one moment.
pub(crate) fn said_at(
    checker: &'static str,
    record: &Record,
    sample: &Sample,
    property: &'static str,
    text: String,
) -> Violation {
    let at_us = record.at(sample.at).as_micros() as u64;
    let proof = Proof::Member { host: sample.host.clone(), at_us };
    Violation::new(checker, property, text).proved_by(proof)
}

/// The first few of many.
pub(crate) fn bounded(mut violations: Vec<Violation>) -> Vec<Violation> {
    violations.truncate(SHOWN);
    violations
}
