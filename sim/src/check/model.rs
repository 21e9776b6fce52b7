//! What etcd 3.7 documents that each request does, written down once more and independently of the server: a
//! request is tried on the key space as it was after some revision, its answer must be the one it had
//! to get, and the events it makes are known afterwards.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
    compare::{CompareResult, CompareTarget, TargetUnion},
    range_request::{SortOrder, SortTarget},
    request_op::Request,
    response_op::Response,
};
use quorate_proto::mvccpb::{Event, KeyValue, event::EventType};

use super::space::{Space, inside};
use crate::facts::history::short;

/// Why an answer cannot be the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// It should have been refused with this text.
    Refused(&'static str),
    /// It should have been another one.
    Differs(String),
}

pub const KEY_NOT_FOUND: &str = "etcdserver: key not found";
pub const LEASE_NOT_FOUND: &str = "etcdserver: requested lease not found";
pub const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";
pub const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

/// A request under way on the state after `before`.
pub struct Trial<'a> {
    space: &'a Space,
    before: i64,
    /// What it has changed so far.
    changed: BTreeMap<Bytes, Option<KeyValue>>,
    pub events: Vec<Event>,
}

impl<'a> Trial<'a> {
    pub fn new(space: &'a Space, before: i64) -> Self {
        Self { space, before, changed: BTreeMap::new(), events: Vec::new() }
    }

    /// The revision that the request has come to.
    pub fn revision(&self) -> i64 {
        self.before + i64::from(!self.events.is_empty())
    }

    pub fn range(
        &self,
        request: &RangeRequest,
        answer: Option<&RangeResponse>,
    ) -> Result<(), Misfit> {
        if request.revision > self.revision() {
            return Err(Misfit::Refused(FUTURE));
        }
        let Some(answer) = answer else { return Ok(()) };
        header(answer.header.as_ref(), self.revision())?;
        let all = match request.revision {
            1.. => self.space.select(&request.key, &request.range_end, request.revision).collect(),
            _ => self.select(&request.key, &request.range_end),
        };
        let counted = all.len() as i64;
        if answer.count != counted {
            return differs(format!("counted {}, there are {counted}", answer.count));
        }
        if request.count_only {
            return page(request, answer, &[], 0);
        }
        let (found, cut) = arrange(request, all);
        page(request, answer, &found, cut)
    }

    pub fn put(
        &mut self,
        request: &PutRequest,
        answer: Option<&PutResponse>,
    ) -> Result<(), Misfit> {
        let before = self.get(&request.key).cloned();
        if before.is_none() && (request.ignore_value || request.ignore_lease) {
            return Err(Misfit::Refused(KEY_NOT_FOUND));
        }
        let at = self.before + 1;
        let inherit = |ignore: bool| before.as_ref().filter(|_| ignore);
        let kv = KeyValue {
            key: request.key.clone(),
            create_revision: before.as_ref().map_or(at, |kv| kv.create_revision),
            mod_revision: at,
            version: before.as_ref().map_or(0, |kv| kv.version) + 1,
            value: inherit(request.ignore_value).map_or(&request.value, |kv| &kv.value).clone(),
            lease: inherit(request.ignore_lease).map_or(request.lease, |kv| kv.lease),
        };
        self.events.push(Event {
            r#type: EventType::Put as i32,
            kv: Some(kv.clone()),
            prev_kv: None,
        });
        self.changed.insert(request.key.clone(), Some(kv));
        let Some(answer) = answer else { return Ok(()) };
        header(answer.header.as_ref(), at)?;
        let previous = before.filter(|_| request.prev_kv);
        if answer.prev_kv == previous {
            return Ok(());
        }
        differs(format!("gave {:?} as previous, it was {previous:?}", answer.prev_kv))
    }

    pub fn delete(
        &mut self,
        request: &DeleteRangeRequest,
        answer: Option<&DeleteRangeResponse>,
    ) -> Result<(), Misfit> {
        let doomed = self.select(&request.key, &request.range_end).into_iter();
        let doomed: Vec<_> = doomed.cloned().collect();
        let at = self.before + 1;
        for kv in &doomed {
            let gone = KeyValue { key: kv.key.clone(), mod_revision: at, ..KeyValue::default() };
            let r#type = EventType::Delete as i32;
            self.events.push(Event { r#type, kv: Some(gone), prev_kv: None });
            self.changed.insert(kv.key.clone(), None);
        }
        let Some(answer) = answer else { return Ok(()) };
        header(answer.header.as_ref(), self.revision())?;
        if answer.deleted != doomed.len() as i64 {
            return differs(format!("deleted {}, there were {}", answer.deleted, doomed.len()));
        }
        let previous = if request.prev_kv { doomed } else { Vec::new() };
        if answer.prev_kvs == previous {
            return Ok(());
        }
        differs(format!("gave {:?} as previous, it was {previous:?}", answer.prev_kvs))
    }

    /// All comparisons of the whole tree are made on the state before it, then what cannot be done on
    /// the chosen path is refused, then it is carried out.
    pub fn txn(
        &mut self,
        request: &TxnRequest,
        answer: Option<&TxnResponse>,
    ) -> Result<(), Misfit> {
        let path = self.decide(request);
        self.admit(request, &path)?;
        self.carry_out(request, &path, answer)?;
        match answer {
            Some(answer) => header(answer.header.as_ref(), self.revision()),
            None => Ok(()),
        }
    }

    fn decide(&self, txn: &TxnRequest) -> Path {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let nested = branch(txn, succeeded).iter().filter_map(nested).map(|txn| self.decide(txn));
        Path { succeeded, nested: nested.collect() }
    }

    /// Must hold for every key of its range. Without any, it is made once with nothing, but no value
    /// compares with one that is not there.
    fn holds(&self, compare: &Compare) -> bool {
        let kvs = self.select(&compare.key, &compare.range_end);
        if kvs.is_empty() {
            return compare.target() != CompareTarget::Value
                && matches(compare, &KeyValue::default());
        }
        kvs.iter().all(|kv| matches(compare, kv))
    }

    fn admit(&self, txn: &TxnRequest, path: &Path) -> Result<(), Misfit> {
        let mut deeper = path.nested.iter();
        for op in branch(txn, path.succeeded) {
            match &op.request {
                Some(Request::RequestRange(range)) if range.revision > self.before => {
                    return Err(Misfit::Refused(FUTURE));
                }
                Some(Request::RequestPut(put)) if put.ignore_value || put.ignore_lease => {
                    self.get(&put.key).ok_or(Misfit::Refused(KEY_NOT_FOUND))?;
                }
                Some(Request::RequestTxn(txn)) => {
                    self.admit(txn, deeper.next().expect("decided on the same txn"))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn carry_out(
        &mut self,
        txn: &TxnRequest,
        path: &Path,
        answer: Option<&TxnResponse>,
    ) -> Result<(), Misfit> {
        let ops = branch(txn, path.succeeded);
        if let Some(answer) = answer {
            if answer.succeeded != path.succeeded {
                return differs(format!("its compares come to {}", path.succeeded));
            }
            if answer.responses.len() != ops.len() {
                let answers = answer.responses.len();
                return differs(format!("{} operations, {answers} answers", ops.len()));
            }
        }
        let mut deeper = path.nested.iter();
        for (at, op) in ops.iter().enumerate() {
            let answer = answer.map(|answer| &answer.responses[at]);
            self.operation(op, &mut deeper, answer)?;
        }
        Ok(())
    }

    fn operation<'p>(
        &mut self,
        op: &RequestOp,
        deeper: &mut impl Iterator<Item = &'p Path>,
        answer: Option<&ResponseOp>,
    ) -> Result<(), Misfit> {
        /// The answer, if there is one, and it is of the right kind.
        macro_rules! answer {
            ($kind:ident) => {
                match answer.map(|answer| &answer.response) {
                    None => None,
                    Some(Some(Response::$kind(answer))) => Some(answer),
                    Some(other) => return differs(format!("an answer of another kind: {other:?}")),
                }
            };
        }
        match &op.request {
            Some(Request::RequestRange(request)) => self.range(request, answer!(ResponseRange)),
            Some(Request::RequestPut(request)) => self.put(request, answer!(ResponsePut)),
            Some(Request::RequestDeleteRange(request)) => {
                self.delete(request, answer!(ResponseDeleteRange))
            }
            Some(Request::RequestTxn(request)) => {
                let path = deeper.next().expect("decided on the same txn");
                self.carry_out(request, path, answer!(ResponseTxn))
            }
            None => Ok(()),
        }
    }

    fn get(&self, key: &[u8]) -> Option<&KeyValue> {
        match self.changed.get(key) {
            Some(changed) => changed.as_ref(),
            None => self.space.at(key, self.before),
        }
    }

    /// The keys of a range as the request sees them now.
    fn select(&self, key: &[u8], end: &[u8]) -> Vec<&KeyValue> {
        if self.changed.is_empty() || end.is_empty() {
            return match end {
                [] => self.get(key).into_iter().collect(),
                _ => self.space.select(key, end, self.before).collect(),
            };
        }
        let unchanged = self.space.select(key, end, self.before);
        let unchanged = unchanged.filter(|kv| !self.changed.contains_key(&kv.key));
        let changed = self.changed.iter().filter(|(at, _)| inside(at, key, end));
        let mut all: Vec<_> = unchanged.chain(changed.filter_map(|(_, kv)| kv.as_ref())).collect();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all
    }
}

/// The branches that a txn and the txns among its operations take.
struct Path {
    succeeded: bool,
    nested: Vec<Path>,
}

fn branch(txn: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    if succeeded { &txn.success } else { &txn.failure }
}

fn nested(op: &RequestOp) -> Option<&TxnRequest> {
    match &op.request {
        Some(Request::RequestTxn(txn)) => Some(txn),
        _ => None,
    }
}

fn differs<T>(text: String) -> Result<T, Misfit> {
    Err(Misfit::Differs(text))
}

fn header(header: Option<&ResponseHeader>, revision: i64) -> Result<(), Misfit> {
    match header {
        Some(header) if header.revision == revision => Ok(()),
        other => differs(format!("its header has {:?}, not {revision}", other.map(|h| h.revision))),
    }
}

fn matches(compare: &Compare, kv: &KeyValue) -> bool {
    let union = compare.target_union.as_ref();
    macro_rules! number {
        ($field:ident, $kind:ident) => {
            kv.$field.cmp(match union {
                Some(TargetUnion::$kind(wanted)) => wanted,
                _ => &0,
            })
        };
    }
    let order = match compare.target() {
        CompareTarget::Version => number!(version, Version),
        CompareTarget::Create => number!(create_revision, CreateRevision),
        CompareTarget::Mod => number!(mod_revision, ModRevision),
        CompareTarget::Lease => number!(lease, Lease),
        CompareTarget::Value => match union {
            Some(TargetUnion::Value(wanted)) => kv.value.cmp(wanted),
            _ => kv.value.cmp(&Bytes::new()),
        },
    };
    match compare.result() {
        CompareResult::Equal => order.is_eq(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
        CompareResult::NotEqual => order.is_ne(),
    }
}

/// Filters and sorts what a range found, and counts how much of it fits the limit.
fn arrange<'k>(request: &RangeRequest, mut kvs: Vec<&'k KeyValue>) -> (Vec<&'k KeyValue>, usize) {
    let limit = usize::try_from(request.limit).unwrap_or(0);
    let (order, target) = (request.sort_order(), request.sort_target());
    let natural =
        order == SortOrder::None || (order == SortOrder::Ascend && target == SortTarget::Key);
    let bounds = [
        (request.min_mod_revision, request.max_mod_revision),
        (request.min_create_revision, request.max_create_revision),
    ];
    let filtered = bounds != [(0, 0); 2];
    if limit > 0 && natural && !filtered {
        // etcd fetches one more than the limit, and sorts what it has fetched.
        kvs.truncate(limit + 1);
    }
    let within = |value: i64, (least, most): (i64, i64)| {
        (most == 0 || value <= most) && (least == 0 || value >= least)
    };
    kvs.retain(|kv| within(kv.mod_revision, bounds[0]) && within(kv.create_revision, bounds[1]));
    kvs.sort_by(|a, b| {
        let ascending = by(target, a, b);
        if order == SortOrder::Descend { ascending.reverse() } else { ascending }
    });
    let cut = if limit > 0 { kvs.len().min(limit) } else { kvs.len() };
    (kvs, cut)
}

fn by(target: SortTarget, a: &KeyValue, b: &KeyValue) -> Ordering {
    match target {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    }
}

/// Whether an answer is the first `cut` of what was found. Keys that sort alike may be in any order, as
/// etcd's sort is not stable; which of them a limit leaves out is open too.
fn page(
    request: &RangeRequest,
    answer: &RangeResponse,
    found: &[&KeyValue],
    cut: usize,
) -> Result<(), Misfit> {
    let (wanted, more) = (&found[..cut], cut < found.len());
    let target = request.sort_target();
    let alike = |got: &KeyValue, wanted: &KeyValue| {
        target != SortTarget::Key
            && found.iter().any(|kv| same(request, got, kv) && by(target, kv, wanted).is_eq())
            && answer.kvs.iter().filter(|other| other.key == got.key).count() == 1
    };
    let fits = answer.more == more
        && answer.kvs.len() == wanted.len()
        && answer
            .kvs
            .iter()
            .zip(wanted)
            .all(|(got, wanted)| same(request, got, wanted) || alike(got, wanted));
    if fits {
        return Ok(());
    }
    let brief =
        |kv: &KeyValue| format!("{}={}@{}", short(&kv.key), short(&kv.value), kv.mod_revision);
    let got: Vec<_> = answer.kvs.iter().map(brief).collect();
    let wanted: Vec<_> = wanted.iter().map(|kv| brief(kv)).collect();
    differs(format!("read {got:?} more {}, there is {wanted:?} more {more}", answer.more))
}

/// Without values etcd answers from its index, which knows no leases, unless it has to sort by value.
fn same(request: &RangeRequest, got: &KeyValue, wanted: &KeyValue) -> bool {
    if !request.keys_only {
        return got == wanted;
    }
    let by_value = request.sort_target() == SortTarget::Value;
    let lease = if by_value { wanted.lease } else { 0 };
    *got == KeyValue { value: Bytes::new(), lease, ..wanted.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::history::Log;
    use crate::facts::request::{Op, created, delete, get, list, put, txn, unchanged};

    fn kv(key: &'static str, value: &'static str, at: i64) -> KeyValue {
        KeyValue {
            key: key.into(),
            value: value.into(),
            create_revision: at,
            mod_revision: at,
            version: 1,
            lease: 0,
        }
    }

    fn space(kvs: &[KeyValue]) -> Space {
        let event = |kv: &KeyValue| Event { r#type: 0, kv: Some(kv.clone()), prev_kv: None };
        let log: Log = kvs.iter().map(|kv| (kv.mod_revision, vec![event(kv)])).collect();
        Space::replay(&log).0
    }

    fn at(revision: i64) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision, ..Default::default() })
    }

    fn read(revision: i64, kvs: Vec<KeyValue>, more: bool, count: i64) -> RangeResponse {
        RangeResponse { header: at(revision), kvs, more, count }
    }

    #[test]
    fn ranges() {
        let (a, b, c) = (kv("a", "3", 2), kv("b", "2", 3), kv("c", "1", 4));
        let space = space(&[a.clone(), b.clone(), c.clone()]);
        let said = |request: &RangeRequest, answer: &RangeResponse| {
            Trial::new(&space, 4).range(request, Some(answer)).is_ok()
        };
        let all = RangeRequest { key: "a".into(), range_end: "z".into(), ..Default::default() };
        let three = vec![a.clone(), b.clone(), c.clone()];
        assert!(said(&all, &read(4, three.clone(), false, 3)));
        assert!(!said(&all, &read(3, three.clone(), false, 3)), "another header");
        assert!(!said(&all, &read(4, three[..2].to_vec(), false, 3)), "one left out");
        assert!(!said(&all, &read(4, three.clone(), true, 3)), "more of what?");
        assert!(!said(&all, &read(4, three.clone(), false, 2)), "miscounted");

        let past = RangeRequest { revision: 3, ..all.clone() };
        assert!(said(&past, &read(4, three[..2].to_vec(), false, 2)));
        assert!(!said(&past, &read(4, three.clone(), false, 3)), "the present for the past");

        let two = RangeRequest { limit: 2, ..all.clone() };
        assert!(said(&two, &read(4, three[..2].to_vec(), true, 3)));
        let by_value = RangeRequest { sort_target: SortTarget::Value as i32, ..two.clone() };
        assert!(
            said(&by_value, &read(4, vec![c.clone(), b.clone()], true, 3)),
            "three, sorted, cut"
        );
        let down = RangeRequest { sort_order: SortOrder::Descend as i32, ..by_value };
        assert!(said(&down, &read(4, vec![a.clone(), b.clone()], true, 3)));
        assert!(!said(&down, &read(4, vec![b.clone(), a.clone()], true, 3)), "in the wrong order");

        let alike = RangeRequest {
            sort_target: SortTarget::Version as i32,
            sort_order: SortOrder::Ascend as i32,
            ..two
        };
        assert!(said(&alike, &read(4, vec![c.clone(), a.clone()], true, 3)), "all versions are 1");
        assert!(!said(&alike, &read(4, vec![a.clone(), a.clone()], true, 3)), "one twice");
        let bounded = RangeRequest { min_mod_revision: 3, ..all.clone() };
        assert!(said(&bounded, &read(4, three[1..].to_vec(), false, 3)));
        assert!(!said(&bounded, &read(4, three.clone(), false, 3)), "unfiltered");
        let future = RangeRequest { revision: 5, ..all };
        let checked = Trial::new(&space, 4).range(&future, None);
        assert_eq!(checked, Err(Misfit::Refused(FUTURE)));
    }

    #[test]
    fn writes_of_a_txn_see_each_other() {
        let space = space(&[kv("a", "1", 2)]);
        let inner = txn(vec![unchanged("b", 0)], vec![delete("a").op()], vec![]);
        let request = txn(
            vec![created("a", 2)],
            vec![put("b", "2").op(), inner.op(), list("").op(), get("b").op()],
            vec![],
        );
        let written = KeyValue { mod_revision: 3, create_revision: 3, ..kv("b", "2", 3) };
        let answer = |kvs: Vec<KeyValue>| {
            let one = |response| ResponseOp { response: Some(response) };
            let deleted = DeleteRangeResponse { header: at(3), deleted: 1, prev_kvs: vec![] };
            let inner = TxnResponse {
                header: Some(ResponseHeader::default()),
                succeeded: true,
                responses: vec![one(Response::ResponseDeleteRange(deleted))],
            };
            TxnResponse {
                header: at(3),
                succeeded: true,
                responses: vec![
                    one(Response::ResponsePut(PutResponse { header: at(3), prev_kv: None })),
                    one(Response::ResponseTxn(inner)),
                    one(Response::ResponseRange(read(3, vec![], false, 0))),
                    one(Response::ResponseRange(read(3, kvs, false, 1))),
                ],
            }
        };
        let mut trial = Trial::new(&space, 2);
        assert_eq!(trial.txn(&request, Some(&answer(vec![written.clone()]))), Ok(()));
        assert_eq!(trial.events.len(), 2);
        let stale = Trial::new(&space, 2).txn(&request, Some(&answer(vec![kv("b", "0", 2)])));
        assert!(stale.is_err(), "the read came after the put");
    }

    #[test]
    fn compares_and_previous_values() {
        let space = space(&[kv("a", "1", 2)]);
        let claimed = |compare: Compare, succeeded: bool| {
            let answer = TxnResponse { header: at(2), succeeded, responses: vec![] };
            let request = txn(vec![compare], vec![], vec![]);
            Trial::new(&space, 2).txn(&request, Some(&answer)).is_ok()
        };
        assert!(claimed(unchanged("a", 2), true) && !claimed(unchanged("a", 2), false));
        assert!(claimed(unchanged("a", 1), false) && !claimed(unchanged("a", 1), true));
        let ranged = Compare { range_end: "z".into(), ..unchanged("a", 2) };
        assert!(claimed(ranged, true));
        let nothing = Compare {
            target: CompareTarget::Value as i32,
            result: CompareResult::NotEqual as i32,
            key: "x".into(),
            ..Default::default()
        };
        assert!(claimed(nothing, false), "no value compares with one that is not there");

        let request = PutRequest { prev_kv: true, ..put("a", "2") };
        let answer = |prev_kv| PutResponse { header: at(3), prev_kv };
        let said = |answer| Trial::new(&space, 2).put(&request, Some(&answer)).is_ok();
        assert!(said(answer(Some(kv("a", "1", 2)))));
        assert!(!said(answer(None)) && !said(answer(Some(kv("a", "0", 2)))));
        let missing = PutRequest { ignore_value: true, ..put("x", "") };
        let checked = Trial::new(&space, 2).put(&missing, None);
        assert_eq!(checked, Err(Misfit::Refused(KEY_NOT_FOUND)));
    }
}
