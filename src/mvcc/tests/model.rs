//! The key space as one would write it on a napkin: every revision is a whole map. Slow, and as
//! plainly right as possible; knows nothing of how the store does it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
    compare::TargetUnion, request_op::Request, response_op::Response,
};
use quorate_proto::mvccpb::{Event, KeyValue};

use crate::error::Refused;

pub type State = BTreeMap<Bytes, KeyValue>;

/// All states that ever were.
#[derive(Clone)]
pub struct Model {
    /// By main revision; the first two are empty.
    pub states: Vec<State>,
    /// What happened at each.
    pub events: Vec<Vec<Event>>,
    pub compacted: i64,
    pub leases: BTreeSet<i64>,
}

/// A revision under construction.
struct Draft<'a> {
    model: &'a Model,
    state: State,
    events: Vec<Event>,
}

pub fn within(key: &[u8], start: &[u8], end: &[u8]) -> bool {
    match end {
        [] => key == start,
        [0] => key >= start,
        _ => key >= start && key < end,
    }
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

impl Model {
    pub fn new() -> Self {
        let (states, events) = (vec![State::new(); 2], vec![Vec::new(); 2]);
        Self { states, events, compacted: -1, leases: BTreeSet::new() }
    }

    pub fn revision(&self) -> i64 {
        self.states.len() as i64 - 1
    }

    pub fn now(&self) -> &State {
        self.states.last().expect("it began with two")
    }

    fn draft(&self) -> Draft<'_> {
        Draft { model: self, state: self.now().clone(), events: Vec::new() }
    }

    fn finish(&mut self, state: State, events: Vec<Event>) {
        if !events.is_empty() {
            self.states.push(state);
            self.events.push(events);
        }
    }

    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Refused> {
        self.draft().range(request)
    }

    pub fn put(&mut self, request: &PutRequest) -> Result<PutResponse, Refused> {
        let mut draft = self.draft();
        draft.check_put(request)?;
        let response = draft.put(request);
        let Draft { state, events, .. } = draft;
        self.finish(state, events);
        Ok(response)
    }

    pub fn delete_range(&mut self, request: &DeleteRangeRequest) -> DeleteRangeResponse {
        let mut draft = self.draft();
        let response = draft.delete(request);
        let Draft { state, events, .. } = draft;
        self.finish(state, events);
        response
    }

    pub fn txn(&mut self, request: &TxnRequest) -> Result<TxnResponse, Refused> {
        let mut draft = self.draft();
        draft.check(request, &mut Vec::new())?;
        let mut response = draft.execute(request);
        response.header = header(draft.revision());
        let Draft { state, events, .. } = draft;
        self.finish(state, events);
        Ok(response)
    }

    pub fn compact(&mut self, revision: i64) -> Result<(), Refused> {
        match revision {
            _ if revision <= self.compacted => Err(Refused::Compacted),
            _ if revision > self.revision() => Err(Refused::FutureRevision),
            _ => {
                self.compacted = revision;
                Ok(())
            }
        }
    }

    pub fn revoke(&mut self, lease: i64) -> bool {
        if !self.leases.remove(&lease) {
            return false;
        }
        let mut draft = self.draft();
        for key in self.attached(lease) {
            draft.delete(&DeleteRangeRequest { key, ..DeleteRangeRequest::default() });
        }
        let Draft { state, events, .. } = draft;
        self.finish(state, events);
        true
    }

    pub fn attached(&self, lease: i64) -> Vec<Bytes> {
        self.now().values().filter(|kv| kv.lease == lease).map(|kv| kv.key.clone()).collect()
    }

    /// Whether the store must still hold this change when the compaction's deletions are done.
    pub fn is_kept(&self, main: i64, event: &Event) -> bool {
        let kv = event.kv.as_ref().expect("events have a kv");
        let deletion = event.r#type == 1;
        if main > self.compacted || (deletion && main == self.compacted) {
            return true;
        }
        let then = self.states[self.compacted as usize].get(&kv.key);
        !deletion && then.is_some_and(|kv| kv.mod_revision == main)
    }
}

impl Draft<'_> {
    fn revision(&self) -> i64 {
        self.model.revision() + i64::from(!self.events.is_empty())
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Refused> {
        let current = self.revision();
        if request.revision > current {
            return Err(Refused::FutureRevision);
        }
        let rev = if request.revision <= 0 { current } else { request.revision };
        if rev < self.model.compacted {
            return Err(Refused::Compacted);
        }
        let state = self.model.states.get(rev as usize).unwrap_or(&self.state);
        let state = if rev == current { &self.state } else { state };
        let inside = |kv: &&KeyValue| within(&kv.key, &request.key, &request.range_end);
        let mut kvs: Vec<KeyValue> = state.values().filter(inside).cloned().collect();
        let count = kvs.len() as i64;
        if request.count_only {
            return Ok(RangeResponse {
                header: header(current),
                count,
                ..RangeResponse::default()
            });
        }
        let natural =
            request.sort_order == 0 || (request.sort_order == 1 && request.sort_target == 0);
        let filters = [
            request.max_mod_revision,
            request.min_mod_revision,
            request.max_create_revision,
            request.min_create_revision,
        ];
        let filtered = filters != [0; 4];
        if natural && !filtered && request.limit > 0 {
            kvs.truncate(request.limit as usize + 1);
        }
        kvs.retain(|kv| {
            (filters[0] == 0 || kv.mod_revision <= filters[0])
                && (filters[1] == 0 || kv.mod_revision >= filters[1])
                && (filters[2] == 0 || kv.create_revision <= filters[2])
                && (filters[3] == 0 || kv.create_revision >= filters[3])
        });
        kvs.sort_by(|a, b| {
            let order = match request.sort_target {
                0 => a.key.cmp(&b.key),
                1 => a.version.cmp(&b.version),
                2 => a.create_revision.cmp(&b.create_revision),
                3 => a.mod_revision.cmp(&b.mod_revision),
                _ => a.value.cmp(&b.value),
            };
            // Equal ones keep the order of their keys whichever way the sort goes.
            if request.sort_order == 2 { order.reverse() } else { order }
        });
        let more = request.limit > 0 && kvs.len() as i64 > request.limit;
        if more {
            kvs.truncate(request.limit as usize);
        }
        if request.keys_only {
            for kv in &mut kvs {
                kv.value = Bytes::new();
                kv.lease = if request.sort_target == 4 { kv.lease } else { 0 };
            }
        }
        Ok(RangeResponse { header: header(current), kvs, more, count })
    }

    fn check_put(&self, request: &PutRequest) -> Result<(), Refused> {
        if request.lease != 0 && !self.model.leases.contains(&request.lease) {
            return Err(Refused::LeaseNotFound);
        }
        let inherits = request.ignore_lease || request.ignore_value;
        if inherits && !self.state.contains_key(&request.key) {
            return Err(Refused::KeyNotFound);
        }
        Ok(())
    }

    fn put(&mut self, request: &PutRequest) -> PutResponse {
        let main = self.model.revision() + 1;
        let old = self.state.get(&request.key).cloned();
        let mut kv = KeyValue {
            key: request.key.clone(),
            value: request.value.clone(),
            lease: request.lease,
            create_revision: old.as_ref().map_or(main, |kv| kv.create_revision),
            mod_revision: main,
            version: old.as_ref().map_or(1, |kv| kv.version + 1),
        };
        if request.ignore_value {
            kv.value = old.as_ref().expect("was checked").value.clone();
        }
        if request.ignore_lease {
            kv.lease = old.as_ref().expect("was checked").lease;
        }
        self.event(0, kv.clone());
        self.state.insert(request.key.clone(), kv);
        PutResponse { header: header(self.revision()), prev_kv: old.filter(|_| request.prev_kv) }
    }

    fn delete(&mut self, request: &DeleteRangeRequest) -> DeleteRangeResponse {
        let inside = |key: &&Bytes| within(key, &request.key, &request.range_end);
        let keys: Vec<Bytes> = self.state.keys().filter(inside).cloned().collect();
        let mut prev_kvs = Vec::new();
        for key in &keys {
            let old = self.state.remove(key).expect("it is one of its keys");
            let mod_revision = self.model.revision() + 1;
            self.event(1, KeyValue { key: key.clone(), mod_revision, ..KeyValue::default() });
            prev_kvs.extend(request.prev_kv.then_some(old));
        }
        DeleteRangeResponse {
            header: header(self.revision()),
            deleted: keys.len() as i64,
            prev_kvs,
        }
    }

    fn event(&mut self, kind: i32, kv: KeyValue) {
        let created = kind == 0 && kv.create_revision == kv.mod_revision;
        let before = self.model.now().get(&kv.key).filter(|_| !created);
        self.events.push(Event { r#type: kind, prev_kv: before.cloned(), kv: Some(kv) });
    }

    /// The branch a txn takes, judged on the state before.
    fn branch<'t>(&self, txn: &'t TxnRequest) -> (bool, &'t [RequestOp]) {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        (succeeded, if succeeded { &txn.success } else { &txn.failure })
    }

    fn holds(&self, compare: &Compare) -> bool {
        let inside = |kv: &&KeyValue| within(&kv.key, &compare.key, &compare.range_end);
        let before = self.model.now().values().filter(inside);
        let kvs: Vec<KeyValue> = before.cloned().collect();
        if kvs.is_empty() {
            return compare.target != 3 && one(compare, &KeyValue::default());
        }
        kvs.iter().all(|kv| one(compare, kv))
    }

    /// `deletes` are those before it.
    fn check<'t>(
        &self,
        txn: &'t TxnRequest,
        deletes: &mut Vec<&'t DeleteRangeRequest>,
    ) -> Result<(), Refused> {
        for op in self.branch(txn).1 {
            match &op.request {
                Some(Request::RequestPut(put)) => {
                    self.check_put(put)?;
                    let deleted = deletes.iter().any(|d| within(&put.key, &d.key, &d.range_end));
                    if deleted && (put.ignore_value || put.ignore_lease) {
                        return Err(Refused::KeyNotFound);
                    }
                }
                Some(Request::RequestDeleteRange(delete)) => deletes.push(delete),
                Some(Request::RequestTxn(txn)) => self.check(txn, deletes)?,
                Some(Request::RequestRange(range)) if range.revision > self.model.revision() => {
                    return Err(Refused::FutureRevision);
                }
                Some(Request::RequestRange(range))
                    if range.revision != 0 && range.revision < self.model.compacted =>
                {
                    return Err(Refused::Compacted);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn execute(&mut self, txn: &TxnRequest) -> TxnResponse {
        let (succeeded, ops) = self.branch(txn);
        let mut responses = Vec::new();
        for op in ops {
            let response = match op.request.as_ref().expect("the request was checked") {
                Request::RequestRange(range) => {
                    Response::ResponseRange(self.range(range).expect("was checked"))
                }
                Request::RequestPut(put) => Response::ResponsePut(self.put(put)),
                Request::RequestDeleteRange(delete) => {
                    Response::ResponseDeleteRange(self.delete(delete))
                }
                Request::RequestTxn(txn) => Response::ResponseTxn(self.execute(txn)),
            };
            responses.push(ResponseOp { response: Some(response) });
        }
        TxnResponse { header: Some(ResponseHeader::default()), succeeded, responses }
    }
}

fn one(compare: &Compare, kv: &KeyValue) -> bool {
    let order = match compare.target_union.as_ref().expect("generated with one") {
        TargetUnion::Version(version) => kv.version.cmp(version),
        TargetUnion::CreateRevision(revision) => kv.create_revision.cmp(revision),
        TargetUnion::ModRevision(revision) => kv.mod_revision.cmp(revision),
        TargetUnion::Value(value) => kv.value.cmp(value),
        TargetUnion::Lease(lease) => kv.lease.cmp(lease),
    };
    match compare.result {
        0 => order.is_eq(),
        1 => order.is_gt(),
        2 => order.is_lt(),
        _ => order.is_ne(),
    }
}
