//! Counters that clients raise by one, having read them: in the end each is at least at the number of
//! increments that were answered, and at most at that of those that may have happened.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_proto::etcdserverpb::request_op::Request;

use super::{Client, Work, Workload, calls};
use crate::facts::evidence::{Evidence, Record};
use crate::facts::history::{Call, Operation};
use crate::facts::request::{Op, get, put, txn, unchanged};
use crate::facts::verdict::Violation;

const COUNTERS: u64 = 2;

pub struct Counter;

impl Workload for Counter {
    fn name(&self) -> &'static str {
        "counter"
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            let key = Bytes::from(format!("counter/{}", client.below(COUNTERS)));
            let answer = client.range(get(key.clone())).await;
            let Ok(found) = &answer else { return client.rest(&answer, 0).await };
            let known = found.kvs.first();
            let revision = known.map_or(0, |kv| kv.mod_revision);
            let number = known.and_then(|kv| number(&kv.value)).unwrap_or(0) + 1;
            let value = format!("{number} {}", String::from_utf8_lossy(&client.value()));
            let success = vec![put(key.clone(), value).op()];
            let answer = client.txn(txn(vec![unchanged(key, revision)], success, vec![])).await;
            client.rest(&answer, 30).await;
        })
    }

    fn check(&self, evidence: &Evidence) -> Vec<Violation> {
        examine(&evidence.record())
    }
}

fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.split(' ').next()?.parse().ok()
}

/// Of one counter, how often it was raised for certain, and how often perhaps.
#[derive(Default)]
struct Raised {
    certainly: u64,
    perhaps: u64,
}

fn examine(record: &Record) -> Vec<Violation> {
    if !record.whole {
        return Vec::new();
    }
    let mut raised: BTreeMap<&Bytes, Raised> = BTreeMap::new();
    for operation in calls(record, "counter") {
        let Some((key, certain)) = increment(operation) else { continue };
        let raised = raised.entry(key).or_default();
        if certain { raised.certainly += 1 } else { raised.perhaps += 1 }
    }
    let kvs = record.log.values().flatten().filter_map(|event| event.kv.as_ref());
    let last: BTreeMap<_, _> = kvs.map(|kv| (&kv.key, number(&kv.value).unwrap_or(0))).collect();
    let checked = raised.into_iter().filter_map(|(key, Raised { certainly, perhaps })| {
        let counted = last.get(key).copied().unwrap_or(0);
        let fits = (certainly..=certainly + perhaps).contains(&counted);
        (!fits).then(|| {
            let text =
                format!("{key:?} is {counted}, raised {certainly} times, perhaps {perhaps} more");
            Violation::new("counter", "a counter counts", text)
        })
    });
    checked.collect()
}

/// The counter that a call raised, and whether that is certain; nothing if it certainly did not.
fn increment(operation: &Operation) -> Option<(&Bytes, bool)> {
    let Call::Txn(txn, answer) = &operation.call else { return None };
    let Some(Request::RequestPut(put)) = &txn.success.first()?.request else { return None };
    match answer {
        Ok(answer) => answer.succeeded.then_some((&put.key, true)),
        Err(failure) => (!failure.never).then_some((&put.key, false)),
    }
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb::TxnResponse;

    use super::*;
    use crate::check::fixture::{Fixture, header, texts};
    use crate::facts::history::Failure;

    #[test]
    fn miscounts_are_found() {
        let said = |number: &'static str| {
            let raise = || txn(vec![], vec![put("counter/0", number).op()], vec![]);
            let answer = TxnResponse { header: header(2), succeeded: true, responses: vec![] };
            let fixture = Fixture::default();
            let fixture = fixture.call_of(0, "counter", 0, 1, Call::Txn(raise(), Ok(answer)));
            let silence = Call::Txn(raise(), Err(Failure::silence()));
            let fixture = fixture.call_of(1, "counter", 0, 1, silence);
            texts(&examine(&fixture.wrote(2, "counter/0", number).record))
        };
        assert_eq!(said("1 a"), "");
        assert_eq!(said("2 a"), "");
        assert!(said("0 a").contains("raised 1 times, perhaps 1 more"));
        assert!(said("3 a").contains("is 3"));
    }
}
