//! An event in words: subject and action. A line each, whatever was in the values.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::facts::story::{Change, Event, News, Outcome, Role, What};

/// Writes events; knows what the numbers in them stand for.
pub(super) struct Lines<'a> {
    faults: BTreeMap<usize, &'a str>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(story: &'a [Event]) -> Self {
        let faults = story.iter().filter_map(|event| match &event.what {
            What::FaultBegan { step, label, .. } => Some((*step, bare(label))),
            _ => None,
        });
        Self { faults: faults.collect() }
    }

    pub(super) fn what(&self, event: &Event) -> String {
        let text = match &event.what {
            What::Phase { name } => format!("-- {name} --"),
            What::FaultBegan { label, hosts, .. } => began(label, hosts),
            What::FaultEnded { step } => {
                format!("over: {}", self.faults.get(step).copied().unwrap_or("it never began"))
            }
            What::Host { change, .. } => changed(*change).to_owned(),
            What::Member { role, term, commit, applied, leader, .. } => {
                let role = standing(*role, leader);
                format!("{role:<16} term {term}, commit {commit}, applied {applied}")
            }
            What::Operation { began, workload, call, outcome, .. } => {
                let took = millis(event.at.saturating_sub(*began));
                format!("{call} -> {}  ({workload}, {took})", came_of(outcome))
            }
            What::Watch { host, news, .. } => format!("{host}: {}", heard(news)),
            What::Log { level, text, .. } => format!("{level}: {text}"),
        };
        one_line(&text)
    }
}

/// What happened to members within a time, a line each: calls and watches are left out.
pub fn between(story: &[Event], times: RangeInclusive<Duration>) -> Vec<String> {
    let lines = Lines::new(story);
    let telling = |event: &&Event| {
        times.contains(&event.at)
            && !matches!(event.what, What::Operation { .. } | What::Watch { .. })
    };
    let line = |event: &Event| {
        format!("{:>12} {:4} {}", seconds(event.at), who(&event.what), lines.what(event))
    };
    story.iter().filter(telling).map(line).collect()
}

/// A host, a client's or a watch stream's number, a step of the plan; none for a phase.
pub(super) fn who(what: &What) -> String {
    match what {
        What::Phase { .. } => String::new(),
        What::FaultBegan { step, .. } | What::FaultEnded { step } => format!("f{step}"),
        What::Host { host, .. } | What::Member { host, .. } | What::Log { host, .. } => {
            host.clone()
        }
        What::Operation { client, .. } => format!("c{client}"),
        What::Watch { stream, .. } => format!("w{stream}"),
    }
}

/// Seconds, to the microsecond: what a proof names an event by.
pub(super) fn seconds(at: Duration) -> String {
    format!("{}.{:06}", at.as_secs(), at.subsec_micros())
}

/// Without the time at which the plan has it, which counts from the beginning of the load.
fn bare(label: &str) -> &str {
    let rest = label.strip_prefix("at ").and_then(|rest| rest.split_once(' '));
    rest.map_or(label, |(_, fault)| fault)
}

/// With the hosts, where the plan names them by what they were at that moment.
fn began(label: &str, hosts: &[String]) -> String {
    let fault = bare(label);
    let named = |host: &String| fault.split_whitespace().any(|word| word == host);
    if hosts.iter().all(named) {
        return fault.to_owned();
    }
    format!("{fault}: {}", hosts.join(" "))
}

fn changed(change: Change) -> &'static str {
    match change {
        Change::Started => "started",
        Change::Killed => "killed",
        Change::PowerLost => "lost power",
        Change::Paused => "paused",
        Change::Resumed => "resumed",
        Change::Ended => "ended by itself",
    }
}

fn standing(role: Role, leader: &str) -> String {
    let role = match role {
        Role::Leader => return "leader".to_owned(),
        Role::Silent => return "silent".to_owned(),
        Role::Follower => "follower",
        Role::Learner => "learner",
    };
    if leader.is_empty() {
        return format!("{role} of none");
    }
    format!("{role} of {leader}")
}

fn came_of(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Answered { revision } => format!("revision {revision}"),
        Outcome::Refused { text } => format!("refused: {text}"),
        Outcome::Unknown { text } => format!("unknown: {text}"),
    }
}

fn heard(news: &News) -> String {
    match news {
        News::Created { from } => format!("watch begins, from revision {from} on"),
        News::Events { first, last, events } => {
            let revisions = match first == last {
                true => format!("revision {first}"),
                false => format!("revisions {first}..{last}"),
            };
            format!("{revisions} ({events} event{})", if *events == 1 { "" } else { "s" })
        }
        News::Progress { revision } => format!("progress to {revision}"),
        News::Ended { text } => format!("watch ends: {text}"),
    }
}

fn millis(time: Duration) -> String {
    let micros = time.as_micros();
    format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100)
}

/// What would break or hide a line, as its escape.
pub(super) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => line.push_str("\\n"),
            '\t' => line.push_str("\\t"),
            c if c.is_control() || c == '\u{2028}' || c == '\u{2029}' => {
                write!(line, "\\u{{{:x}}}", u32::from(c)).expect("a string grows");
            }
            c => line.push(c),
        }
    }
    line.truncate(line.trim_end().len());
    line
}
