//! What happened in a run, in simulated time, for people: `sim replay` prints it and the report draws
//! it. Checkers do not read it; they have the evidence itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Serialize, Serializer};

/// All events so far. Cheap to clone; all parts of a run add to the same story.
#[derive(Clone, Default)]
pub struct Story(Arc<Mutex<Vec<Event>>>);

/// Something that happened `at` this time since the world began.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    #[serde(rename = "at_us", serialize_with = "micros")]
    pub at: Duration,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// A phase of the run begins: `setup`, `faults`, `heal`, `liveness`, `verify`.
    Phase { name: String },
    /// The nemesis does something: `step` numbers the plan's steps from 0, `label` is the step as the
    /// plan prints it, `hosts` are those it is done to.
    FaultBegan { step: usize, label: String, hosts: Vec<String> },
    /// It is over, or undone.
    FaultEnded { step: usize },
    /// A host's process, its power or its clock.
    Host { host: String, change: Change },
    /// What a member reports, when something of it has changed. Empty `leader`: none known.
    Member { host: String, role: Role, term: u64, commit: u64, applied: u64, leader: String },
    /// A client's call, when it has ended; `began_us` is when it was made.
    Operation {
        client: usize,
        #[serde(rename = "began_us", serialize_with = "micros")]
        began: Duration,
        workload: String,
        call: String,
        outcome: Outcome,
    },
    /// A watch stream was created, received revisions `first..=last` in `events` events, or ended.
    Watch { stream: usize, host: String, news: News },
    /// A line that a server logged.
    Log { host: String, level: String, text: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Started,
    Killed,
    PowerLost,
    Paused,
    Resumed,
    /// Its server ended by itself.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Leader,
    Follower,
    Learner,
    Silent,
}

#[derive(Clone, Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    Answered {
        revision: i64,
    },
    /// Refused: it has not happened.
    Refused {
        text: String,
    },
    /// No answer: it may have happened, or may happen yet.
    Unknown {
        text: String,
    },
}

#[derive(Clone, Debug, Serialize)]
#[serde(tag = "news", rename_all = "snake_case")]
pub enum News {
    Created { from: i64 },
    Events { first: i64, last: i64, events: usize },
    Progress { revision: i64 },
    Ended { text: String },
}

impl Story {
    pub fn note(&self, at: Duration, what: What) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Event { at, what });
    }

    /// All events, by time; those of one time in the order in which they were added.
    pub fn events(&self) -> Vec<Event> {
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        events.sort_by_key(|event| event.at);
        events
    }
}

fn micros<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_micros() as u64)
}
