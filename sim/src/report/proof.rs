//! Finds the events of a story that a violation rests on. Where the story does not have the very
//! thing, the nearest event of the same member or stream stands for it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::line::seconds;
use crate::facts::story::{Event, News, What};
use crate::facts::verdict::{Proof, Verdict, Violation};

/// The violations of each property, in the order in which the properties were first found violated: a
/// single mistake may show a thousand times.
pub(super) fn by_property(verdict: &Verdict) -> Vec<Vec<&Violation>> {
    let mut kinds: Vec<Vec<&Violation>> = Vec::new();
    for violation in &verdict.violations {
        let name = (violation.checker, violation.property);
        match kinds.iter_mut().find(|kind| (kind[0].checker, kind[0].property) == name) {
            Some(kind) => kind.push(violation),
            None => kinds.push(vec![violation]),
        }
    }
    kinds
}

/// The numbers, from 1, of the properties whose violation each event proves.
pub(super) fn marks(verdict: &Verdict) -> BTreeMap<usize, BTreeSet<usize>> {
    let mut marks: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for (number, kind) in (1..).zip(by_property(verdict)) {
        let proofs = kind.iter().flat_map(|violation| &violation.proof);
        for event in proofs.filter_map(|proof| find(&verdict.story, proof)) {
            marks.entry(event).or_default().insert(number);
        }
    }
    marks
}

/// Which event of the story shows it.
pub(super) fn find(story: &[Event], proof: &Proof) -> Option<usize> {
    match proof {
        Proof::Operation { client, began_us } => {
            let wanted = Duration::from_micros(*began_us);
            story.iter().position(|event| {
                matches!(&event.what, What::Operation { client: of, began, .. }
                    if of == client && began.as_micros() == wanted.as_micros())
            })
        }
        Proof::Watch { stream, revision } => heard(story, *stream, *revision),
        Proof::Member { host, at_us } => said(story, host, Duration::from_micros(*at_us)),
    }
}

/// In words, for a proof that the story does not have at all.
pub(super) fn name(proof: &Proof) -> String {
    let at = |us: &u64| seconds(Duration::from_micros(*us));
    match proof {
        Proof::Operation { client, began_us } => {
            format!("the call of c{client} that began at {} s", at(began_us))
        }
        Proof::Watch { stream, revision } => format!("w{stream} at revision {revision}"),
        Proof::Member { host, at_us } => format!("{host} at {} s", at(at_us)),
    }
}

/// What a stream received of a revision; if nothing, what it received first beyond it, or last.
fn heard(story: &[Event], stream: usize, revision: i64) -> Option<usize> {
    let news = || {
        story.iter().enumerate().filter_map(|(at, event)| match &event.what {
            What::Watch { stream: of, news, .. } if *of == stream => Some((at, news)),
            _ => None,
        })
    };
    let reaches = |news: &News| match news {
        News::Events { last, .. } => *last >= revision,
        News::Progress { revision: progress } => *progress >= revision,
        News::Created { .. } | News::Ended { .. } => false,
    };
    let holds = |news: &News| match news {
        News::Events { first, last, .. } => (*first..=*last).contains(&revision),
        _ => false,
    };
    let found = news().find(|(_, news)| holds(news));
    let found = found.or_else(|| news().find(|(_, news)| reaches(news)));
    found.or_else(|| news().next_back()).map(|(at, _)| at)
}

/// What a member logged just then, or else what it last reported, or else what was last done to it.
fn said(story: &[Event], host: &str, until: Duration) -> Option<usize> {
    let before: Vec<_> = story
        .iter()
        .enumerate()
        .take_while(|(_, event)| event.at.as_micros() <= until.as_micros())
        .collect();
    let last = |wanted: &dyn Fn(&Event) -> bool| {
        before.iter().rev().find(|(_, event)| wanted(event)).map(|(at, _)| *at)
    };
    let logged = last(&|event| match &event.what {
        What::Log { host: of, level, .. } => {
            of == host && level != "info" && event.at.as_micros() == until.as_micros()
        }
        _ => false,
    });
    let stood =
        || last(&|event| matches!(&event.what, What::Member { host: of, .. } if of == host));
    let done = || last(&|event| matches!(&event.what, What::Host { host: of, .. } if of == host));
    logged.or_else(stood).or_else(done)
}
