//! What clients did and were told, in a form that a checker can replay. Knows the wire types only.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use quorate_proto::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    TxnRequest, TxnResponse,
};

/// A request and the answer that belongs to it.
#[derive(Clone, Debug)]
pub enum Call {
    Put(PutRequest, Option<PutResponse>),
    Delete(DeleteRangeRequest, Option<DeleteRangeResponse>),
    Txn(TxnRequest, Option<TxnResponse>),
    Range(RangeRequest, Option<RangeResponse>),
}

/// One call of one client. Without an answer it may have happened at any later time, or never.
#[derive(Clone, Debug)]
pub struct Operation {
    pub client: usize,
    pub began: Instant,
    pub ended: Instant,
    pub call: Call,
}

impl Operation {
    pub fn answered(&self) -> bool {
        match &self.call {
            Call::Put(_, answer) => answer.is_some(),
            Call::Delete(_, answer) => answer.is_some(),
            Call::Txn(_, answer) => answer.is_some(),
            Call::Range(_, answer) => answer.is_some(),
        }
    }

    /// The revision in the answer's header.
    pub fn revision(&self) -> Option<i64> {
        let header = match &self.call {
            Call::Put(_, answer) => answer.as_ref()?.header,
            Call::Delete(_, answer) => answer.as_ref()?.header,
            Call::Txn(_, answer) => answer.as_ref()?.header,
            Call::Range(_, answer) => answer.as_ref()?.header,
        };
        header.map(|header| header.revision)
    }
}

/// Everything that all clients did, in the order in which it ended.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<Vec<Operation>>>);

impl History {
    pub fn record(&self, operation: Operation) {
        self.0.lock().expect("a list of operations").push(operation);
    }

    pub fn operations(&self) -> Vec<Operation> {
        self.0.lock().expect("a list of operations").clone()
    }

    /// How many calls got an answer.
    pub fn answered(&self) -> usize {
        self.0.lock().expect("a list of operations").iter().filter(|op| op.answered()).count()
    }
}
