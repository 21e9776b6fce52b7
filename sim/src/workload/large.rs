//! Values of many kilobytes, listed page by page at one revision, or as a stream; and values that are too
//! large.

use bytes::Bytes;
use quorate_proto::etcdserverpb::RangeRequest;

use super::{Client, Work, Workload, calls};
use crate::facts::evidence::Evidence;
use crate::facts::history::{Call, Operation};
use crate::facts::request::{delete, end_of, list, put};
use crate::facts::verdict::Violation;

const KEYS: u64 = 16;
const PREFIX: &str = "large/";
const TOO_LARGE: &str = "etcdserver: request is too large";

/// Between two steps, at most: a few such clients are most of a run's work as it is.
const PAUSE_MS: u64 = 400;

pub struct Large;

impl Workload for Large {
    fn name(&self) -> &'static str {
        "large"
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            match client.below(10) {
                0..6 => {
                    let answer = client.put(put(key(client), value(client))).await;
                    client.rest(&answer, PAUSE_MS).await;
                }
                6 => {
                    let answer = client.delete(delete(key(client))).await;
                    client.rest(&answer, PAUSE_MS).await;
                }
                7 => {
                    let answer = client.range_stream(list(PREFIX)).await;
                    client.rest(&answer, PAUSE_MS).await;
                }
                _ => pages(client).await,
            }
        })
    }

    fn check(&self, evidence: &Evidence) -> Vec<Violation> {
        let record = evidence.record();
        let most = record.request_bytes_max;
        calls(&record, self.name()).filter_map(|operation| examine(operation, most)).collect()
    }
}

fn key(client: &Client) -> Bytes {
    format!("{PREFIX}{:02}", client.below(KEYS)).into()
}

/// Its first word is what makes it unlike any other.
fn value(client: &Client) -> Bytes {
    let most = client.cluster.shape().request_bytes_max as u64;
    let size = match client.below(24) {
        0 => most + 100,
        1 => most / 2,
        2..6 => client.below(most.min(60_000)),
        _ => client.below(6_000),
    };
    let mut value = client.value().to_vec();
    value.push(b' ');
    let filling = b'a' + (client.below(26) as u8);
    value.resize(value.len().max(size as usize), filling);
    value.into()
}

/// Lists everything in pages at the revision of the first one.
async fn pages(client: &Client) {
    let limit = 1 + client.below(5) as i64;
    let mut page = RangeRequest { limit, ..list(PREFIX) };
    let (mut keys, mut counted) = (Vec::new(), None);
    loop {
        let answer = client.range(page.clone()).await;
        let Ok(found) = &answer else { return client.rest(&answer, PAUSE_MS).await };
        if page.revision == 0 {
            page.revision = found.header.map_or(0, |header| header.revision);
            counted = Some(found.count);
        }
        keys.extend(found.kvs.iter().map(|kv| kv.key.clone()));
        let Some(last) = found.kvs.last().filter(|_| found.more) else { break };
        page.key = [&last.key[..], &[0]].concat().into();
        page.range_end = end_of(PREFIX.as_bytes());
    }
    if counted != Some(keys.len() as i64) {
        let text = format!("{counted:?} keys at revision {}, pages have {keys:?}", page.revision);
        client.complain("pages of one revision are the whole", text);
    }
    client.pause(PAUSE_MS).await;
}

/// What is too large is refused with these words, and nothing else is.
fn examine(operation: &Operation, most: usize) -> Option<Violation> {
    let Call::Put(put, answer) = &operation.call else { return None };
    let refused = answer.as_ref().err().is_some_and(|failure| failure.text == TOO_LARGE);
    let large = put.value.len() > most;
    // What else the request has comes on top of the value.
    let small = put.value.len() + 100 < most;
    let wrong = (large && answer.is_ok()) || (small && refused);
    wrong.then(|| {
        let text = format!("{operation}: {:?}", answer.as_ref().err());
        let violation = Violation::new("large", "only what is too large is refused", text);
        violation.proved_by(operation.proof())
    })
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::check::fixture::{Fixture, failed, put as answered};

    #[test]
    fn sizes_refused_and_served_wrongly_are_violations() {
        let said = |call| {
            let fixture = Fixture::default().call(0, 1, call);
            examine(&fixture.record.operations[0], 101).is_some()
        };
        let refused = || failed(Code::InvalidArgument, TOO_LARGE);
        assert!(!said(answered("a", "", Some(2))) && !said(answered("a", "", None)));
        assert!(said(Call::Put(put("a", ""), refused())));
        let large = vec![b'x'; 102];
        assert!(!said(Call::Put(put("a", large.clone()), refused())));
        assert!(said(Call::Put(put("a", large), Ok(Default::default()))));
    }
}
