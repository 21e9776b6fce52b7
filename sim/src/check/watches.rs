//! What etcd promises of watches, judged against the log: ordered, unique, atomic, reliable,
//! resumable. A watcher that resumes after what it has seen must in the end have seen every event
//! once, in order, and each revision whole in one response.

use quorate_proto::mvccpb::Event;

use super::replay::Log;
use crate::workload::watch::Told;

/// What does not fit, in words.
pub fn check(log: &Log, seen: &[Told]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut told: Vec<(i64, Vec<Event>)> = Vec::new();
    for (_, events) in seen {
        for (at, event) in events.iter().enumerate() {
            let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            match told.last_mut() {
                Some((last, whole)) if *last == revision => {
                    if at == 0 {
                        faults.push(format!("revision {revision} came in two responses"));
                    }
                    whole.push(event.clone());
                }
                _ => told.push((revision, vec![event.clone()])),
            }
        }
    }
    for pair in told.windows(2) {
        if pair[1].0 <= pair[0].0 {
            faults.push(format!("revision {} came after {}", pair[1].0, pair[0].0));
        }
    }
    let mut told = told.into_iter().peekable();
    for (revision, events) in log {
        match told.peek() {
            Some((next, _)) if next == revision => {
                let (_, whole) = told.next().expect("it was just seen");
                let same = whole.len() == events.len()
                    && whole
                        .iter()
                        .zip(events)
                        .all(|(a, b)| (a.r#type, &a.kv) == (b.r#type, &b.kv));
                if !same {
                    faults.push(format!("revision {revision}: told {whole:?}, is {events:?}"));
                }
            }
            _ => faults.push(format!("revision {revision} was not told")),
        }
    }
    faults
        .extend(told.map(|(revision, _)| format!("revision {revision} was told and is not there")));
    faults
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "any instant will do: only differences count")]
mod tests {
    use std::time::Instant;

    use quorate_proto::mvccpb::KeyValue;

    use super::*;

    fn event(key: &'static str, revision: i64) -> Event {
        let kv = KeyValue { key: key.into(), mod_revision: revision, ..Default::default() };
        Event { r#type: 0, kv: Some(kv), prev_kv: None }
    }

    #[test]
    fn faults_are_found() {
        let log = Log::from([
            (2, vec![event("a", 2)]),
            (3, vec![event("a", 3), event("b", 3)]),
            (4, vec![event("a", 4)]),
        ]);
        let said = |responses: &[&[Event]]| {
            let now = Instant::now();
            let seen: Vec<_> = responses.iter().map(|events| (now, events.to_vec())).collect();
            check(&log, &seen).join("; ")
        };
        let (two, three, four) = ([event("a", 2)], [event("a", 3), event("b", 3)], [event("a", 4)]);
        assert_eq!(said(&[&two, &three, &four]), "");
        let missed = said(&[&two, &four]);
        assert!(missed.contains("revision 3 was not told"), "{missed}");
        let split = said(&[&two, &three[..1], &three[1..], &four]);
        assert!(split.contains("in two responses"), "{split}");
        let half = said(&[&two, &three[..1], &four]);
        assert!(half.contains("revision 3: told"), "{half}");
        let twice = said(&[&two, &three, &four, &[four[0].clone(), two[0].clone()]]);
        assert!(twice.contains("revision 2 came after 4"), "{twice}");
    }
}
