//! What a run comes to: what it did, and everything about it that must not be.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::facts::marks::Marks;
use crate::facts::story::Event;

/// Something that happened and must not, or did not and must.
#[derive(Clone, Debug, Serialize)]
pub struct Violation {
    /// The checker that found it, by the name of its file, as in `replay`.
    pub checker: &'static str,
    /// The property, in a few words: `reads see the newest write`.
    pub property: &'static str,
    /// What does not fit, with the values that show it.
    pub text: String,
    /// The events that prove it, for the report to point at.
    pub proof: Vec<Proof>,
}

/// Something of the story that a violation rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "proof", rename_all = "snake_case")]
pub enum Proof {
    /// The client's call that began then, in microseconds of simulated time.
    Operation { client: usize, began_us: u64 },
    /// What a watch stream received of a revision.
    Watch { stream: usize, revision: i64 },
    /// A member, as it was then.
    Member { host: String, at_us: u64 },
}

/// The end of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// The plan that was played, as text that plays it again.
    pub plan: String,
    pub seed: u64,
    pub violations: Vec<Violation>,
    pub story: Vec<Event>,
    /// Calls that were answered.
    pub answered: usize,
    /// The last revision.
    pub revision: i64,
    /// Simulated time from the world's beginning to its end.
    pub simulated: Duration,
    /// Of everything that crossed the wire; equal digests are equal runs.
    pub digest: u64,
    /// Marked states that were reached.
    #[serde(skip)]
    pub marks: Marks,
}

impl Violation {
    pub fn new(checker: &'static str, property: &'static str, text: impl Into<String>) -> Self {
        Self { checker, property, text: text.into(), proof: Vec::new() }
    }

    /// With one more thing that proves it.
    #[must_use]
    pub fn proved_by(mut self, proof: Proof) -> Self {
        self.proof.push(proof);
        self
    }
}

impl Verdict {
    pub fn passed(&self) -> bool {
        self.violations.is_empty()
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.checker, self.property, self.text)
    }
}
