//! Reads that any member may answer from what it has are about some state that there was: one revision,
//! whole, and none that is still to come. How old it may be is nowhere promised.

use super::model::Misfit;
use super::replay::explain;
use super::space::Space;
use crate::evidence::Record;
use crate::history::{Call, Operation};
use crate::verdict::Violation;

pub fn check(record: &Record) -> Vec<Violation> {
    let (space, _) = Space::replay(&record.log);
    let local = |op: &&Operation| {
        op.answered() && !op.linearizable() && matches!(op.call, Call::Range(..) | Call::Txn(..))
    };
    let judged = record.operations.iter().filter(local);
    judged
        .filter_map(|operation| {
            let fault = judge(&space, record, operation)?;
            let text = format!("{operation}: {fault}");
            let violation = Violation::new("serializable", "reads are of one past state", text);
            Some(violation.proved_by(operation.proof()))
        })
        .collect()
}

fn judge(space: &Space, record: &Record, operation: &Operation) -> Option<String> {
    let Some(revision) = operation.revision() else {
        return Some("an answer without a header".into());
    };
    if revision > space.last && !record.whole {
        return None;
    }
    if revision > space.last {
        return Some(format!(
            "revision {revision} is not in the log, which ends at {}",
            space.last
        ));
    }
    match explain(space, &record.log, operation, revision) {
        Ok(()) => None,
        Err(Misfit::Refused(text)) => Some(format!("was not refused with {text:?}")),
        Err(Misfit::Differs(text)) => Some(text),
    }
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb::RangeRequest;

    use super::*;
    use crate::check::fixture::{Fixture, get, kv, texts};

    #[test]
    fn faults_are_found() {
        let said = |revision, found| {
            let Call::Range(request, answer) = get("a", revision, found) else { unreachable!() };
            let request = RangeRequest { serializable: true, range_end: "z".into(), ..request };
            let log = Fixture::default().wrote(2, "a", "1").wrote(3, "b", "2");
            texts(&check(&log.call(4, 5, Call::Range(request, answer)).record))
        };
        let (a, b) = (kv(2, "a", "1"), kv(3, "b", "2"));
        assert_eq!(said(3, vec![a.clone(), b.clone()]), "");
        assert_eq!(said(2, vec![a.clone()]), "", "the past is allowed");
        assert_eq!(said(1, vec![]), "", "however far");
        assert!(said(2, vec![a, b.clone()]).contains("counted 2, there are 1"), "two states mixed");
        assert!(said(3, vec![b]).contains("counted 1, there are 2"));
        assert!(said(4, vec![]).contains("is not in the log"));
    }
}
