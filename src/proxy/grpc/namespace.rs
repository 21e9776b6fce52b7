//! `--namespace`: adds a prefix to the keys in requests and removes it from those in responses; ranges end
//! where the prefix does (etcd, `client/v3/namespace`). Pure.

use bytes::{BufMut as _, Bytes, BytesMut};
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::response_op::Response;
use quorate_proto::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, LeaseTimeToLiveResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, RequestOp, ResponseOp, TxnRequest, TxnResponse,
};
use quorate_proto::mvccpb::{Event, KeyValue};
use quorate_proto::v3electionpb::LeaderKey;

use crate::error::Refused;

/// The prefix; empty for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace(Bytes);

impl Namespace {
    pub fn new(prefix: impl Into<Bytes>) -> Self {
        Self(prefix.into())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn enter_key(&self, key: &mut Bytes) {
        if self.is_empty() {
            return;
        }
        let mut inside = BytesMut::with_capacity(self.0.len() + key.len());
        inside.put_slice(&self.0);
        inside.put_slice(key);
        *key = inside.freeze();
    }

    /// An empty `end` is that of one key, a zero byte that of all keys.
    pub fn enter_span(&self, key: &mut Bytes, end: &mut Bytes) {
        self.enter_key(key);
        match &end[..] {
            [] => {}
            [0] if !self.is_empty() => *end = self.end(),
            _ => self.enter_key(end),
        }
    }

    /// Returns the first key after the namespace.
    fn end(&self) -> Bytes {
        let last = self.0.iter().rposition(|byte| *byte != 0xff);
        let Some(last) = last else { return Bytes::from_static(&[0]) };
        let mut end = self.0[..=last].to_vec();
        end[last] += 1;
        end.into()
    }

    /// Keys outside the namespace, which responses do not have, are left unchanged.
    pub fn leave_key(&self, key: &mut Bytes) {
        if key.starts_with(&self.0) {
            *key = key.slice(self.0.len()..);
        }
    }

    fn leave_kv(&self, kv: &mut KeyValue) {
        self.leave_key(&mut kv.key);
    }

    /// # Errors
    /// The key must not be empty: it would be the prefix itself.
    pub fn enter_range(&self, range: &mut RangeRequest) -> Result<(), Refused> {
        self.enter(&mut range.key, &mut range.range_end)
    }

    pub fn enter_delete(&self, delete: &mut DeleteRangeRequest) -> Result<(), Refused> {
        self.enter(&mut delete.key, &mut delete.range_end)
    }

    pub fn enter_put(&self, put: &mut PutRequest) -> Result<(), Refused> {
        self.enter(&mut put.key, &mut Bytes::new())
    }

    fn enter(&self, key: &mut Bytes, end: &mut Bytes) -> Result<(), Refused> {
        if key.is_empty() {
            return Err(Refused::EmptyKey);
        }
        self.enter_span(key, end);
        Ok(())
    }

    pub fn enter_txn(&self, txn: &mut TxnRequest) -> Result<(), Refused> {
        for compare in &mut txn.compare {
            self.enter(&mut compare.key, &mut compare.range_end)?;
        }
        for RequestOp { request } in txn.success.iter_mut().chain(&mut txn.failure) {
            match request {
                Some(Request::RequestRange(range)) => self.enter_range(range)?,
                Some(Request::RequestPut(put)) => self.enter_put(put)?,
                Some(Request::RequestDeleteRange(delete)) => self.enter_delete(delete)?,
                Some(Request::RequestTxn(txn)) => self.enter_txn(txn)?,
                None => {}
            }
        }
        Ok(())
    }

    pub fn leave_range(&self, range: &mut RangeResponse) {
        range.kvs.iter_mut().for_each(|kv| self.leave_kv(kv));
    }

    pub fn leave_put(&self, put: &mut PutResponse) {
        put.prev_kv.iter_mut().for_each(|kv| self.leave_kv(kv));
    }

    pub fn leave_delete(&self, delete: &mut DeleteRangeResponse) {
        delete.prev_kvs.iter_mut().for_each(|kv| self.leave_kv(kv));
    }

    pub fn leave_txn(&self, txn: &mut TxnResponse) {
        for ResponseOp { response } in &mut txn.responses {
            match response {
                Some(Response::ResponseRange(range)) => self.leave_range(range),
                Some(Response::ResponsePut(put)) => self.leave_put(put),
                Some(Response::ResponseDeleteRange(delete)) => self.leave_delete(delete),
                Some(Response::ResponseTxn(txn)) => self.leave_txn(txn),
                None => {}
            }
        }
    }

    pub fn leave_events(&self, events: &mut [Event]) {
        for event in events {
            event.kv.iter_mut().chain(&mut event.prev_kv).for_each(|kv| self.leave_kv(kv));
        }
    }

    /// Keys outside the namespace are removed.
    pub fn leave_lease(&self, lease: &mut LeaseTimeToLiveResponse) {
        lease.keys.retain(|key| key.starts_with(&self.0));
        lease.keys.iter_mut().for_each(|key| self.leave_key(key));
    }

    pub fn enter_leader(&self, leader: &mut Option<LeaderKey>) {
        if let Some(LeaderKey { name, key, .. }) = leader {
            self.enter_key(name);
            self.enter_key(key);
        }
    }

    pub fn leave_leader(&self, leader: &mut Option<LeaderKey>) {
        if let Some(LeaderKey { name, key, .. }) = leader {
            self.leave_key(name);
            self.leave_key(key);
        }
    }

    pub fn leave_candidate(&self, kv: &mut Option<KeyValue>) {
        kv.iter_mut().for_each(|kv| self.leave_kv(kv));
    }
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb::Compare;

    use super::*;

    fn span(prefix: &[u8], key: &str, end: &'static [u8]) -> (Bytes, Bytes) {
        let namespace = Namespace::new(prefix.to_vec());
        let (mut key, mut end) = (Bytes::from(key.to_owned()), Bytes::from_static(end));
        namespace.enter_span(&mut key, &mut end);
        (key, end)
    }

    #[test]
    fn spans_end_with_the_namespace() {
        let found = |key: &'static [u8], end: &'static [u8]| (key.into(), end.into());
        assert_eq!(span(b"p/", "a", b""), found(b"p/a", b""));
        assert_eq!(span(b"p/", "a", b"b"), found(b"p/a", b"p/b"));
        assert_eq!(span(b"p/", "a", b"\0"), found(b"p/a", b"p0"));
        assert_eq!(span(b"p\xff", "a", b"\0"), found(b"p\xffa", b"q"));
        assert_eq!(span(b"\xff\xff", "a", b"\0"), found(b"\xff\xffa", b"\0"));
        assert_eq!(span(b"", "a", b"\0"), found(b"a", b"\0"));
    }

    fn key(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn transactions_are_inside_at_every_depth() {
        let namespace = Namespace::new("p/");
        let put = PutRequest { key: key("k"), ..Default::default() };
        let put = RequestOp { request: Some(Request::RequestPut(put)) };
        let inner = TxnRequest { failure: vec![put], ..Default::default() };
        let inner = RequestOp { request: Some(Request::RequestTxn(inner)) };
        let compare = Compare { key: key("c"), range_end: key("d"), ..Default::default() };
        let mut txn =
            TxnRequest { compare: vec![compare], success: vec![inner], ..Default::default() };
        namespace.enter_txn(&mut txn).expect("every key is given");
        assert_eq!(
            (&txn.compare[0].key[..], &txn.compare[0].range_end[..]),
            (&b"p/c"[..], &b"p/d"[..])
        );
        let Some(Request::RequestTxn(inner)) = &txn.success[0].request else { panic!("a txn") };
        let Some(Request::RequestPut(put)) = &inner.failure[0].request else { panic!("a put") };
        assert_eq!(put.key, "p/k");

        let mut nameless = RangeRequest::default();
        assert_eq!(namespace.enter_range(&mut nameless), Err(Refused::EmptyKey));
        txn.success[0].request = Some(Request::RequestDeleteRange(DeleteRangeRequest::default()));
        assert_eq!(namespace.enter_txn(&mut txn), Err(Refused::EmptyKey));
    }

    #[test]
    fn answers_do_not_show_it() {
        let namespace = Namespace::new("p/");
        let kv = |name| KeyValue { key: key(name), ..Default::default() };
        let range = RangeResponse { kvs: vec![kv("p/a")], ..Default::default() };
        let range = ResponseOp { response: Some(Response::ResponseRange(range)) };
        let inner = TxnResponse { responses: vec![range], ..Default::default() };
        let inner = ResponseOp { response: Some(Response::ResponseTxn(inner)) };
        let mut txn = TxnResponse { responses: vec![inner], ..Default::default() };
        namespace.leave_txn(&mut txn);
        let Some(Response::ResponseTxn(inner)) = &txn.responses[0].response else {
            panic!("a txn")
        };
        let Some(Response::ResponseRange(range)) = &inner.responses[0].response else {
            panic!("a range")
        };
        assert_eq!(range.kvs[0].key, "a");

        let mut events =
            [Event { kv: Some(kv("p/a")), prev_kv: Some(kv("p/a")), ..Default::default() }];
        namespace.leave_events(&mut events);
        assert_eq!((&events[0].kv, &events[0].prev_kv), (&Some(kv("a")), &Some(kv("a"))));

        let keys = vec![key("p/a"), key("q/a"), key("p/")];
        let mut lease = LeaseTimeToLiveResponse { keys, ..Default::default() };
        namespace.leave_lease(&mut lease);
        assert_eq!(lease.keys, [key("a"), key("")]);
    }
}
