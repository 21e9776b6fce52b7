//! Calls and answers behind a proxy with a namespace, as it is for the cluster: every key with the
//! prefix that the proxy has to put there and to take away. Checkers know real keys only.

use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    RequestOp, ResponseOp, TxnRequest, TxnResponse, WatchCreateRequest, WatchResponse,
    request_op::Request, response_op::Response,
};
use quorate_proto::mvccpb::KeyValue;

use crate::facts::history::Call;
use crate::facts::request::end_of;

/// The prefix; it does not end with 255.
pub struct Outside<'a>(pub &'a [u8]);

impl Outside<'_> {
    pub fn call(&self, call: &mut Call) {
        match call {
            Call::Range(request, answer) => {
                self.span(&mut request.key, &mut request.range_end);
                answer.iter_mut().flat_map(|answer| &mut answer.kvs).for_each(|kv| self.kv(kv));
            }
            Call::Put(request, answer) => {
                self.asked(&mut request.key);
                answer.iter_mut().flat_map(|a| &mut a.prev_kv).for_each(|kv| self.kv(kv));
            }
            Call::Delete(request, answer) => {
                self.span(&mut request.key, &mut request.range_end);
                answer.iter_mut().flat_map(|a| &mut a.prev_kvs).for_each(|kv| self.kv(kv));
            }
            Call::Txn(request, answer) => {
                self.txn(request);
                answer.iter_mut().for_each(|answer| self.answer(answer));
            }
            Call::TimeToLive(_, answer) => {
                answer.iter_mut().flat_map(|a| &mut a.keys).for_each(|key| self.key(key));
            }
            Call::Compact(..) | Call::Grant(..) | Call::Revoke(..) => {}
            Call::KeepAlive(..) | Call::Leases(..) => {}
        }
    }

    /// A watch without a key begins with the smallest one.
    pub fn watch(&self, request: &mut WatchCreateRequest) {
        if request.key.is_empty() {
            request.key = Bytes::from_static(&[0]);
        }
        self.span(&mut request.key, &mut request.range_end);
    }

    pub fn told(&self, response: &mut WatchResponse) {
        for event in &mut response.events {
            event.kv.iter_mut().chain(&mut event.prev_kv).for_each(|kv| self.kv(kv));
        }
    }

    fn txn(&self, txn: &mut TxnRequest) {
        for compare in &mut txn.compare {
            self.span(&mut compare.key, &mut compare.range_end);
        }
        for RequestOp { request } in txn.success.iter_mut().chain(&mut txn.failure) {
            match request {
                Some(Request::RequestRange(it)) => self.span(&mut it.key, &mut it.range_end),
                Some(Request::RequestPut(it)) => self.asked(&mut it.key),
                Some(Request::RequestDeleteRange(it)) => self.span(&mut it.key, &mut it.range_end),
                Some(Request::RequestTxn(txn)) => self.txn(txn),
                None => {}
            }
        }
    }

    fn answer(&self, answer: &mut TxnResponse) {
        for ResponseOp { response } in &mut answer.responses {
            match response {
                Some(Response::ResponseRange(it)) => it.kvs.iter_mut().for_each(|kv| self.kv(kv)),
                Some(Response::ResponsePut(it)) => {
                    it.prev_kv.iter_mut().for_each(|kv| self.kv(kv));
                }
                Some(Response::ResponseDeleteRange(it)) => {
                    it.prev_kvs.iter_mut().for_each(|kv| self.kv(kv));
                }
                Some(Response::ResponseTxn(it)) => self.answer(it),
                None => {}
            }
        }
    }

    fn span(&self, key: &mut Bytes, end: &mut Bytes) {
        self.asked(key);
        match &end[..] {
            [] => {}
            [0] => *end = end_of(self.0),
            _ => self.key(end),
        }
    }

    /// A request without a key stays one: it is refused.
    fn asked(&self, key: &mut Bytes) {
        if !key.is_empty() {
            self.key(key);
        }
    }

    fn key(&self, key: &mut Bytes) {
        *key = [self.0, key].concat().into();
    }

    fn kv(&self, kv: &mut KeyValue) {
        self.key(&mut kv.key);
    }
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb::RangeResponse;

    use super::*;
    use crate::facts::request::{Op, delete_all, get, list, put, txn, unchanged};

    const OUTSIDE: Outside<'_> = Outside(b"in/");

    fn shown(mut call: Call) -> String {
        OUTSIDE.call(&mut call);
        call.to_string()
    }

    #[test]
    fn every_key_gets_the_prefix() {
        let nobody = || crate::facts::history::Failure::silence();
        assert_eq!(shown(Call::Range(get("a"), Err(nobody()))), "get in/a");
        assert_eq!(shown(Call::Range(list("a"), Err(nobody()))), "get in/a..in/b");
        let mut open = get("a");
        open.range_end = vec![0].into();
        assert_eq!(shown(Call::Range(open, Err(nobody()))), "get in/a..in0");
        assert_eq!(shown(Call::Range(get(""), Err(nobody()))), "get ");
        let inner = txn(vec![], vec![put("k", "v").op()], vec![]).op();
        let outer = txn(vec![unchanged("c", 1)], vec![inner], vec![delete_all("d").op()]);
        let mut call = Call::Txn(outer, Err(nobody()));
        OUTSIDE.call(&mut call);
        let text = call.to_string();
        assert!(text.contains("put in/k = v") && text.contains("delete in/d..in/e"), "{text}");
        let Call::Txn(outer, _) = call else { unreachable!() };
        assert_eq!(outer.compare[0].key, "in/c");
    }

    #[test]
    fn answers_get_it_too() {
        let kv = KeyValue { key: "a".into(), ..Default::default() };
        let answer = RangeResponse { kvs: vec![kv], ..Default::default() };
        let mut call = Call::Range(get("a"), Ok(answer));
        OUTSIDE.call(&mut call);
        let Call::Range(_, Ok(answer)) = call else { unreachable!() };
        assert_eq!(answer.kvs[0].key, "in/a");
    }
}
