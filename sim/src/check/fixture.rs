//! Evidence made by hand, for the tests of checkers: times are seconds since the beginning.
#![allow(clippy::disallowed_methods, reason = "any instant will do: only differences count")]

use std::time::{Duration, Instant};

use quorate_proto::etcdserverpb::{PutResponse, RangeResponse, ResponseHeader};
use quorate_proto::mvccpb::{Event, KeyValue, event::EventType};
use tonic::Code;

use crate::facts::evidence::Record;
use crate::facts::history::{Answer, Call, Failure, Operation};
use crate::facts::request;
use crate::facts::verdict::Violation;

pub struct Fixture {
    pub record: Record,
    pub start: Instant,
}

impl Default for Fixture {
    fn default() -> Self {
        let start = Instant::now();
        let record =
            Record { start: Some(start), whole: true, txn_ops_max: 128, ..Default::default() };
        Self { record, start }
    }
}

impl Fixture {
    pub fn at(&self, seconds: f64) -> Instant {
        self.start + Duration::from_secs_f64(seconds)
    }

    pub fn call(self, began: u64, ended: u64, call: Call) -> Self {
        self.call_of(0, "test", began, ended, call)
    }

    pub fn call_of(
        mut self,
        client: usize,
        workload: &'static str,
        began: u64,
        ended: u64,
        call: Call,
    ) -> Self {
        self.record.operations.push(Operation {
            client,
            workload,
            began: self.at(began as f64),
            ended: self.at(ended as f64),
            began_us: began * 1_000_000,
            call,
            streamed: false,
            proxy: None,
        });
        self
    }

    /// Adds a put to the log: first version, no lease.
    pub fn wrote(mut self, revision: i64, key: &'static str, value: &'static str) -> Self {
        let event = wrote(revision, key, value);
        self.record.log.entry(revision).or_default().push(event);
        self
    }

    pub fn event(mut self, revision: i64, event: Event) -> Self {
        self.record.log.entry(revision).or_default().push(event);
        self
    }
}

/// The texts of violations, for assertions.
pub fn texts(violations: &[Violation]) -> String {
    violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

pub fn kv(revision: i64, key: &'static str, value: &'static str) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: value.into(),
        create_revision: revision,
        mod_revision: revision,
        version: 1,
        lease: 0,
    }
}

pub fn wrote(revision: i64, key: &'static str, value: &'static str) -> Event {
    event(EventType::Put, kv(revision, key, value))
}

pub fn gone(revision: i64, key: &'static str) -> Event {
    let kv = KeyValue { key: key.into(), mod_revision: revision, ..Default::default() };
    event(EventType::Delete, kv)
}

pub fn event(kind: EventType, kv: KeyValue) -> Event {
    Event { r#type: kind as i32, kv: Some(kv), prev_kv: None }
}

pub fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..Default::default() })
}

pub fn failed<T>(code: Code, text: &str) -> Answer<T> {
    Err(Failure::new(&tonic::Status::new(code, text)))
}

pub fn put(key: &'static str, value: &'static str, revision: Option<i64>) -> Call {
    let answer = match revision {
        Some(revision) => Ok(PutResponse { header: header(revision), prev_kv: None }),
        None => Err(Failure::silence()),
    };
    Call::Put(request::put(key, value), answer)
}

pub fn get(key: &'static str, revision: i64, kvs: Vec<KeyValue>) -> Call {
    let count = kvs.len() as i64;
    let answer = RangeResponse { header: header(revision), kvs, more: false, count };
    Call::Range(request::get(key), Ok(answer))
}
